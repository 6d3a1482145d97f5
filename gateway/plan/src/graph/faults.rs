//! What is wrong with a graph: the first breaches in words, the rest as a number. A node may name a million others that are not there.

/// Breaches that are told: more than anybody mends before the next try, and as many as a status carries.
const TOLD: usize = 16;

/// One breach of the rules.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// Path of the field: `nodes[3].model.input`.
    pub field: String,
    /// What is wrong and what would be right.
    pub description: String,
}

pub(super) fn fault(field: impl Into<String>, description: impl Into<String>) -> Fault {
    Fault {
        field: field.into(),
        description: description.into(),
    }
}

/// Every breach of the rules, in the order in which they were found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Faults {
    told: Vec<Fault>,
    more: usize,
}

impl Faults {
    /// Adds one, in words as long as there is room for it.
    pub(super) fn add(&mut self, said: impl FnOnce() -> Fault) {
        if self.told.len() < TOLD {
            self.told.push(said());
        } else {
            self.more += 1;
        }
    }

    /// The first of them.
    #[must_use]
    pub fn told(&self) -> &[Fault] {
        &self.told
    }

    /// How many there are besides.
    #[must_use]
    pub fn more(&self) -> usize {
        self.more
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.told.is_empty()
    }

    /// The value, or these.
    pub(super) fn or<T>(self, value: T) -> Result<T, Self> {
        if self.is_empty() { Ok(value) } else { Err(self) }
    }
}

impl From<Fault> for Faults {
    fn from(only: Fault) -> Self {
        Self {
            told: vec![only],
            more: 0,
        }
    }
}
