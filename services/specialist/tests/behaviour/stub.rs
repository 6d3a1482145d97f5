//! A decoder whose next token is a hash of everything that its slot holds: a slot that is mixed up, shared or not moved gives
//! other tokens at once. It can be held still before each step.
use shoal_specialist::{
    engine::{Decoder, Engine, Request, Row, Settings, Shape, Together, queue::Urgency},
    sampling::Sampling,
    vocabulary::Vocabulary,
};
use std::{
    sync::{Arc, Mutex, mpsc},
    time::{Duration, Instant},
};

/// Tokens: 0 is end-of-sequence and never chosen, 1.. are "a".."z".
const VOCABULARY: usize = 27;

/// Prompts read at once.
const PROMPT_SLOTS: usize = 3;

/// Prompt tokens of a run.
const CHUNK: usize = 8;

/// How long a held step waits for its permit.
const PATIENCE: Duration = Duration::from_secs(10);

/// What the decoder was asked to do.
pub(crate) type Steps = Arc<Mutex<Vec<Vec<Row>>>>;

pub(crate) struct Stub {
    /// Those that decode, then those that prompts are read in.
    slots: Vec<Vec<u32>>,
    logits: Vec<f32>,
    permits: Option<mpsc::Receiver<()>>,
    steps: Steps,
    /// The next step panics.
    pub(crate) breaks: bool,
    /// Prompts of more tokens than this fail, for ever.
    pub(crate) fails_over: usize,
}

impl Stub {
    /// Free-running.
    pub(crate) fn new(slots: usize) -> Self {
        Self {
            slots: vec![Vec::new(); slots + PROMPT_SLOTS],
            logits: Vec::new(),
            permits: None,
            steps: Steps::default(),
            breaks: false,
            fails_over: usize::MAX,
        }
    }

    /// Takes a step for each permit.
    pub(crate) fn held(slots: usize) -> (Self, mpsc::Sender<()>, Steps) {
        let (permits, receiver) = mpsc::channel();
        let stub = Self {
            permits: Some(receiver),
            ..Self::new(slots)
        };
        let steps = stub.steps.clone();
        (stub, permits, steps)
    }

    fn speak(&mut self, slot: usize) {
        let next = following(&self.slots[slot]);
        self.logits
            .extend((0..VOCABULARY as u32).map(|t| if t == next { 1.0 } else { 0.0 }));
    }
}

/// The token after `history`.
pub(crate) fn following(history: &[u32]) -> u32 {
    let hash = history.iter().fold(17u64, |h, t| {
        (h ^ u64::from(*t)).wrapping_mul(0x0100_0000_01b3).rotate_left(23)
    });
    1 + (hash >> 7) as u32 % (VOCABULARY as u32 - 1)
}

/// What the decoder says to a prompt when nothing goes wrong.
pub(crate) fn alone(prompt: &[u32], tokens: usize) -> Vec<u32> {
    let mut history = prompt.to_vec();
    (0..tokens)
        .map(|_| {
            let next = following(&history);
            history.push(next);
            next
        })
        .collect()
}

impl Decoder for Stub {
    type Error = String;

    fn shape(&self) -> Shape {
        Shape {
            slots: self.slots.len() - PROMPT_SLOTS,
            prompt_slots: PROMPT_SLOTS,
            position_bytes: 4,
            context_tokens: 64,
            vocabulary: VOCABULARY,
            chunk: CHUNK,
            together: Together::Padded,
        }
    }

    fn prefill(&mut self, slot: usize, past: usize, tokens: &[u32]) -> Result<&[f32], String> {
        assert!(past <= self.slots[slot].len(), "a chunk after a gap");
        if past + tokens.len() > self.fails_over {
            return Err("as the test wants it".into());
        }
        self.slots[slot].truncate(past);
        self.slots[slot].extend_from_slice(tokens);
        self.logits.clear();
        self.speak(slot);
        Ok(&self.logits)
    }

    fn prefill_together(&mut self, first: usize, prompts: &[&[u32]]) -> Result<&[f32], String> {
        let longest = prompts.iter().map(|p| p.len()).max().unwrap_or(0);
        assert!(prompts.len() * longest <= CHUNK, "more than one run");
        self.logits.clear();
        for (slot, prompt) in (first..).zip(prompts) {
            self.slots[slot] = prompt.to_vec();
            self.speak(slot);
        }
        Ok(&self.logits)
    }

    fn step(&mut self, rows: &[Row]) -> Result<&[f32], String> {
        if let Some(permits) = &self.permits {
            // A test that fails drops the engine before its permits: that must not hang.
            permits.recv_timeout(PATIENCE).map_err(|e| e.to_string())?;
            assert!(!self.breaks, "as the test wants it");
        }
        self.steps.lock().expect("whole").push(rows.to_vec());
        self.logits.clear();
        for (slot, row) in rows.iter().enumerate() {
            assert_eq!(self.slots[slot].len(), row.length, "slot {slot} holds another sequence");
            self.slots[slot].push(row.token);
            self.speak(slot);
        }
        Ok(&self.logits)
    }

    fn copy_row(&mut self, from: usize, to: usize, length: usize) -> Result<(), String> {
        self.slots[to] = self.slots[from][..length].to_vec();
        Ok(())
    }
}

/// An engine over a stub.
pub(crate) fn engine(stub: Stub, queue_tokens: usize) -> Engine {
    ending(stub, queue_tokens, 0)
}

/// The same, with a letter that ends texts.
pub(crate) fn ending(stub: Stub, queue_tokens: usize, eos: u32) -> Engine {
    let vocab: Vec<String> = (0..26)
        .map(|i| format!("\"{}\":{}", char::from(b'a' + i), i + 1))
        .collect();
    let json = format!(
        r#"{{"decoder":{{"type":"ByteLevel"}},"model":{{"vocab":{{{}}}}},"added_tokens":[{{"id":0,"content":"<e>","special":true}}]}}"#,
        vocab.join(",")
    );
    let vocabulary = Arc::new(Vocabulary::from_tokenizer_json(&json).expect("parses"));
    let settings = Settings {
        queue_tokens,
        keeps_prefixes: true,
    };
    Engine::start("stub", stub, vocabulary, vec![eos], settings).expect("a thread")
}

/// A greedy request.
pub(crate) fn request(prompt: &[u32], max_tokens: usize, deadline: Option<Instant>) -> Request {
    Request {
        prompt: prompt.to_vec(),
        sampling: Sampling::greedy(max_tokens),
        grammar: None,
        required: Default::default(),
        calibration: Default::default(),
        urgency: Urgency::until(deadline),
        tokenize: Duration::ZERO,
        span: tracing::Span::none(),
    }
}
