//! A graph whose present is a new tensor: its past, and what was read behind it. The rows' keys and values lie here; each run takes a copy
//! of its rows' past, and what it adds is copied back.
//!
//! Rows of unequal lengths run together where the graph is told positions: the shorter ones' past is padded to the longest one's, the
//! padding masked, and the new token is the last column of every row. A masked column has the weight zero, so a row's logits do not depend on how
//! much of it there is; its keys and values are zeroes, since a NaN of some earlier text would come through a weight of zero. Where the
//! graph counts positions by itself, or appends at each row's own end, only rows of equal length run together.
//!
//! The price is the copy: a step moves every row's whole past once more than the graph does itself (README, limits).
use super::{
    Error,
    kv::{Float, Kv},
    layout::Layout,
    shared_kv::Buffer,
};
use crate::{
    engine::{Row, Together},
    folder::exported::Exported,
};
use ort::{
    memory::Allocator,
    session::{Session, SessionInputValue},
    value::{Tensor, TensorRef},
};
use std::{
    borrow::Cow,
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

/// Rows of a graph with a separate past and present.
pub(super) struct Apart<T> {
    session: Session,
    layout: Layout,
    names: Names,
    padded: bool,
    /// A key or value cache each: `[rows, kv_heads, positions, head_size]`.
    caches: Vec<Buffer<T>>,
    /// The past of one run: of each cache `[rows of the run, kv_heads, longest, head_size]`.
    past: Vec<Vec<T>>,
    /// `[rows, vocabulary]` of the last step.
    logits: Vec<T>,
    wide: Vec<f32>,
    /// Nanoseconds inside ONNX Runtime's own runs so far.
    inside: Arc<AtomicU64>,
}

struct Names {
    ids: String,
    mask: String,
    /// Only if the graph has it.
    positions: Option<String>,
    logits: String,
    /// (past, present) of each cache.
    caches: Vec<(String, String)>,
}

/// A row of a run: where its keys and values lie, how many positions of it are filled, and what is read.
struct Read<'a> {
    slot: usize,
    length: usize,
    tokens: &'a [u32],
}

impl<T: Float> Apart<T> {
    /// A session whose graph the folder's check has held to `exported`.
    ///
    /// # Errors
    /// When there is no memory for the rows.
    pub(super) fn new(session: Session, layout: Layout, exported: &Exported, padded: bool) -> Result<Self, Error> {
        let names = &exported.names;
        let has = session.inputs().iter().any(|i| i.name() == names.position_ids);
        let names = Names {
            ids: names.input_ids.clone(),
            mask: names.attention_mask.clone(),
            positions: has.then(|| names.position_ids.clone()),
            logits: names.logits.clone(),
            caches: names.caches(exported.layers).collect(),
        };
        let elements = layout.rows.saturating_mul(layout.stride());
        let cache = |_: &(String, String)| Buffer::host(elements);
        Ok(Self {
            session,
            layout,
            padded,
            caches: names.caches.iter().map(cache).collect::<Result<_, _>>()?,
            past: names.caches.iter().map(|_| Vec::new()).collect(),
            names,
            logits: vec![T::default(); layout.rows * layout.vocabulary],
            wide: Vec::new(),
            inside: Arc::default(),
        })
    }

    /// Runs rows that read equally many tokens, and puts the last one's logits of row `i` where `to[i]` says.
    fn run(&mut self, reads: &[Read<'_>], to: &[usize]) -> Result<(), Error> {
        let (rows, columns) = (reads.len(), reads.first().map_or(0, |r| r.tokens.len()));
        let longest = reads.iter().map(|r| r.length).max().unwrap_or(0);
        self.gather(reads, longest);
        let (heads, size) = (self.layout.kv_heads, self.layout.head_size);
        let total = longest + columns;
        let ids: Vec<i64> = reads.iter().flat_map(|r| r.tokens).map(|t| i64::from(*t)).collect();
        let positions = reads.iter().flat_map(|r| r.length..r.length + columns);
        let positions: Vec<i64> = positions.map(|p| p as i64).collect();
        let mask = reads
            .iter()
            .flat_map(|r| (0..total).map(|at| i64::from(at < r.length || at >= longest)));
        let mut inputs: Vec<(Cow<'_, str>, SessionInputValue<'_>)> = Vec::with_capacity(3 + self.past.len());
        inputs.push((
            (&self.names.ids).into(),
            Tensor::from_array(([rows, columns], ids))?.into(),
        ));
        let mask = Tensor::from_array(([rows, total], mask.collect::<Vec<_>>()))?;
        inputs.push(((&self.names.mask).into(), mask.into()));
        if let Some(name) = &self.names.positions {
            inputs.push((name.into(), Tensor::from_array(([rows, columns], positions))?.into()));
        }
        for (past, (name, _)) in self.past.iter().zip(&self.names.caches) {
            let shape = [rows, heads, longest, size];
            // ort takes no view of nothing.
            let value = match longest {
                0 => Tensor::<T>::new(&Allocator::default(), shape)?.into(),
                _ => TensorRef::from_array_view((shape, past.as_slice()))?.into(),
            };
            inputs.push((name.into(), value));
        }
        let started = Instant::now();
        let outputs = self.session.run(inputs)?;
        let nanos = u64::try_from(started.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.inside.fetch_add(nanos, Ordering::Relaxed);

        let missing = |name: &str| Error::Run(format!("no output `{name}` came back"));
        for (cache, (_, name)) in self.caches.iter_mut().map(Buffer::slice).zip(&self.names.caches) {
            let present = outputs.get(name).ok_or_else(|| missing(name))?;
            let (shape, present) = present.try_extract_tensor::<T>()?;
            if **shape != [rows, heads, total, size].map(|d| d as i64) {
                return Err(Error::Run(format!(
                    "`{name}` has shape {shape:?}, not [{rows}, {heads}, {total}, {size}]: it does not append to its past"
                )));
            }
            for (row, read) in reads.iter().enumerate() {
                for head in 0..heads {
                    let added = ((row * heads + head) * total + longest) * size;
                    let into = self.layout.at(read.slot, head, read.length);
                    cache[into..into + columns * size].copy_from_slice(&present[added..added + columns * size]);
                }
            }
        }
        let name = &self.names.logits;
        let (shape, logits) = outputs
            .get(name)
            .ok_or_else(|| missing(name))?
            .try_extract_tensor::<T>()?;
        let (vocabulary, given) = (self.layout.vocabulary, if self.layout.last_only { 1 } else { columns });
        if **shape != [rows, given, vocabulary].map(|d| d as i64) {
            return Err(Error::Run(format!(
                "`{name}` has shape {shape:?}, not [{rows}, {given}, {vocabulary}]"
            )));
        }
        for (row, to) in to.iter().enumerate() {
            let last = ((row + 1) * given - 1) * vocabulary;
            self.logits[to * vocabulary..(to + 1) * vocabulary].copy_from_slice(&logits[last..last + vocabulary]);
        }
        Ok(())
    }

    /// Copies the rows' past together, each padded with zeroes to `longest` positions.
    fn gather(&mut self, reads: &[Read<'_>], longest: usize) {
        let (heads, size) = (self.layout.kv_heads, self.layout.head_size);
        for (past, cache) in self.past.iter_mut().zip(self.caches.iter().map(Buffer::content)) {
            past.clear();
            past.reserve(reads.len() * heads * longest * size);
            for read in reads {
                for head in 0..heads {
                    let from = self.layout.at(read.slot, head, 0);
                    past.extend_from_slice(&cache[from..from + read.length * size]);
                    past.resize(past.len() + (longest - read.length) * size, T::default());
                }
            }
        }
    }
}

impl<T: Float> Kv for Apart<T> {
    fn prefill(&mut self, slot: usize, past: usize, tokens: &[u32]) -> Result<&[f32], Error> {
        let length = past;
        self.run(&[Read { slot, length, tokens }], &[0])?;
        Ok(T::widen(&self.logits[..self.layout.vocabulary], &mut self.wide))
    }

    fn prefill_together(&mut self, _: usize, _: &[&[u32]]) -> Result<&[f32], Error> {
        Err(Error::Run("a graph whose past is apart reads one prompt a run".into()))
    }

    fn together(&self) -> Together {
        Together::Never
    }

    fn step(&mut self, rows: &[Row]) -> Result<&[f32], Error> {
        let mut together: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        for (slot, row) in rows.iter().enumerate() {
            let key = if self.padded { 0 } else { row.length };
            together.entry(key).or_default().push(slot);
        }
        for slots in together.into_values() {
            let read = |slot: &usize| Read {
                slot: *slot,
                length: rows[*slot].length,
                tokens: std::slice::from_ref(&rows[*slot].token),
            };
            let reads: Vec<Read<'_>> = slots.iter().map(read).collect();
            self.run(&reads, &slots)?;
        }
        let logits = &self.logits[..rows.len() * self.layout.vocabulary];
        Ok(T::widen(logits, &mut self.wide))
    }

    fn copy_row(&mut self, from: usize, to: usize, length: usize) -> Result<(), Error> {
        let used = length * self.layout.head_size;
        for cache in self.caches.iter_mut().map(Buffer::slice) {
            for head in 0..self.layout.kv_heads {
                let source = self.layout.at(from, head, 0);
                cache.copy_within(source..source + used, self.layout.at(to, head, 0));
            }
        }
        Ok(())
    }

    fn inside(&self) -> Arc<AtomicU64> {
        self.inside.clone()
    }
}
