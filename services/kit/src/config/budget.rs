//! How the specialists of one machine share its cores. Pure.
//!
//! A specialist's threads are its own process's, so nobody but the configuration knows how many there are together. It is told to each process
//! whole: every one comes to the same budget by itself.
use super::{MeshConfig, Specialist};
use serde::{Deserialize, Serialize};

/// What the specialists of this machine share.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Machine {
    /// Cores that its specialists may keep busy together. Default 0: as many as the operating system gives a process.
    pub cores: usize,
}

impl Machine {
    /// Cores to be shared, at least 1.
    #[must_use]
    pub fn cores(&self) -> usize {
        match self.cores {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            cores => cores,
        }
    }
}

impl MeshConfig {
    /// `specialist` with what this configuration leaves open of its threads settled: `intra_op_threads` is at least 1 and `spin` is set.
    #[must_use]
    pub fn budgeted(&self, specialist: &Specialist) -> Specialist {
        self.budgeted_on(self.machine.cores(), specialist)
    }

    /// [`Self::budgeted`], every specialist's. For `cores` cores, so that a test need not know its machine.
    fn budgeted_on(&self, cores: usize, specialist: &Specialist) -> Specialist {
        let here = || self.specialist.values().filter(|s| s.folder.is_some());
        let share = (cores / here().count().max(1)).max(1);
        let threads = |s: &Specialist| {
            if s.intra_op_threads == 0 {
                s.own_cores().map_or(share, |own| share.min(own))
            } else {
                s.intra_op_threads
            }
        };
        let (own, all) = (threads(specialist), here().map(threads).sum::<usize>());
        Specialist {
            intra_op_threads: own,
            // One that is told on the command line alone is not in the sum.
            spin: Some(specialist.spin.unwrap_or(own > 1 && all.max(own) <= cores)),
            ..specialist.clone()
        }
    }

    /// The whole configuration with the budget of each specialist settled.
    #[must_use]
    pub fn with_budgets(&self) -> Self {
        let settled = |(name, s): (&String, &Specialist)| (name.clone(), self.budgeted(s));
        Self {
            specialist: self.specialist.iter().map(settled).collect(),
            ..self.clone()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn mesh(threads: &[usize]) -> MeshConfig {
        let specialist = |(i, threads): (usize, &usize)| {
            let specialist = Specialist {
                folder: Some("models/m".into()),
                intra_op_threads: *threads,
                ..Specialist::default()
            };
            (format!("s{i}"), specialist)
        };
        let specialist: BTreeMap<_, _> = threads.iter().enumerate().map(specialist).collect();
        MeshConfig {
            specialist,
            ..MeshConfig::default()
        }
    }

    fn budget(mesh: &MeshConfig, cores: usize, name: &str) -> (usize, Option<bool>) {
        let settled = mesh.budgeted_on(cores, &mesh.specialist[name]);
        (settled.intra_op_threads, settled.spin)
    }

    #[test]
    fn threads_wait_awake_only_where_each_has_a_core() {
        assert_eq!(budget(&mesh(&[2]), 2, "s0"), (2, Some(true)));
        assert_eq!(budget(&mesh(&[1]), 2, "s0"), (1, Some(false)));
        // Co-located: three threads on two cores.
        assert_eq!(budget(&mesh(&[2, 1]), 2, "s0"), (2, Some(false)));
        assert_eq!(budget(&mesh(&[2, 1]), 4, "s0"), (2, Some(true)));
        let mut told = mesh(&[2, 1]);
        if let Some(first) = told.specialist.get_mut("s0") {
            first.spin = Some(true);
        }
        assert_eq!(budget(&told, 2, "s0"), (2, Some(true)));
    }

    #[test]
    fn a_share_is_the_cores_over_those_who_are_served_here() {
        let mut mesh = mesh(&[0, 0, 0]);
        assert_eq!(budget(&mesh, 16, "s0"), (5, Some(true)));
        assert_eq!(budget(&mesh, 2, "s0"), (1, Some(false)));
        if let Some(away) = mesh.specialist.get_mut("s2") {
            away.folder = None;
        }
        assert_eq!(budget(&mesh, 16, "s0"), (8, Some(true)));
        assert!(mesh.with_budgets().specialist["s0"].spin.is_some());
        if let Some(confined) = mesh.specialist.get_mut("s0") {
            confined.cpus = vec![14, 15, 15];
        }
        assert_eq!(budget(&mesh, 16, "s0"), (2, Some(true)), "no more than its own cores");
        assert_eq!(budget(&mesh, 16, "s1"), (8, Some(true)));
    }

    #[test]
    fn one_that_is_not_in_the_configuration_has_a_budget_too() {
        let alone = Specialist {
            intra_op_threads: 4,
            ..Specialist::default()
        };
        let settled = MeshConfig::default().budgeted_on(2, &alone);
        assert_eq!((settled.intra_op_threads, settled.spin), (4, Some(false)));
    }
}
