//! Rows of one KV buffer, bound as past and present at once. All unsafe code of the crate is in this file.
//!
//! Why the C API: GroupQueryAttention appends in place when `past_key_values.N.key` and `present.N.key` are the same memory.
//! `ort` clones a borrowed tensor that is bound as input and refuses one as output, so a view of some rows of the buffer
//! cannot be bound through it. The calls used here: CreateTensorWithDataAsOrtValue, CreateIoBinding, BindInput, BindOutput,
//! RunWithBinding, and the releases.
//!
//! # Invariants
//! 1. Every [`Buffer`] is allocated in [`SharedKv::new`], zeroed (host) or uninitialised (device, where only kernels read),
//!    and neither moved nor freed before `self` is dropped: a pointer that a binding holds from an earlier step is never
//!    dangling. Rust reaches a host buffer through the same raw pointer, never through a `Box` that would claim it alone.
//! 2. [`Buffer::view`] is the one place where a pointer goes to ONNX Runtime; it checks that the range lies in the buffer and
//!    that the shape's product is the range's length: ONNX Runtime is told no byte beyond it.
//! 3. ONNX Runtime touches the buffers only inside [`Binding::run`], called with `&mut SharedKv` held, so no slice of a buffer
//!    is alive meanwhile (the CPU and CUDA providers end a RunWithBinding synchronously: outputs are complete then).
//! 4. Fields are declared bindings first, then buffers, then sessions: they are dropped before what they point to.
use super::{
    Error,
    layout::{Inputs, Layout, Names},
    mover,
};
use ort::{
    AsPointer as _,
    memory::{AllocationDevice, Allocator, AllocatorType, MemoryInfo, MemoryType},
    session::{NoSelectedOutputs, RunOptions, Session},
    sys,
};
use std::{
    alloc,
    collections::HashMap,
    ffi::{CString, c_void},
    ops::Range,
    ptr::{self, NonNull},
    slice,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

/// Where the KV buffer lies.
pub(super) enum Placement {
    /// In host memory; rows are moved by Rust.
    Host {
        /// Whether the session takes its inputs where they lie, as the CPU's does. Another provider's takes a copy of each when it is bound.
        as_they_lie: bool,
    },
    /// In a device's memory; rows are moved by a second session on that device ([`mover`]).
    Device(AllocationDevice<'static>, Session),
}

/// A decoder's session with its KV buffer and bindings.
pub(super) struct SharedKv<T: Element> {
    // Invariant 4: this order.
    bindings: HashMap<(usize, usize), Binding>,
    caches: Vec<Buffer<T>>,
    ids: Buffer<i64>,
    mask: Buffer<i64>,
    positions: Buffer<i64>,
    logits: Buffer<T>,
    as_they_lie: bool,
    mover: Option<Session>,
    session: Session,
    options: RunOptions<NoSelectedOutputs>,
    layout: Layout,
    names: Names,
    /// Nanoseconds inside ONNX Runtime's own runs so far.
    inside: Arc<AtomicU64>,
}

impl<T: Element> SharedKv<T> {
    pub(super) fn new(session: Session, layout: Layout, names: Names, placement: Placement) -> Result<Self, Error> {
        let widest = layout.rows.max(layout.chunk);
        let logits = if layout.last_only { layout.rows } else { widest } * layout.vocabulary;
        let elements = layout.rows.saturating_mul(layout.stride());
        let as_they_lie = matches!(placement, Placement::Host { as_they_lie: true });
        let (device, mover) = match placement {
            Placement::Host { .. } => (None, None),
            Placement::Device(device, mover) => (
                Some(MemoryInfo::new(device, 0, AllocatorType::Device, MemoryType::Default)?),
                Some(mover),
            ),
        };
        let cache = |_: &(CString, CString)| match &device {
            None => Buffer::host(elements),
            Some(memory) => Buffer::device(elements, &session, memory),
        };
        Ok(Self {
            bindings: HashMap::new(),
            caches: names.caches.iter().map(cache).collect::<Result<_, _>>()?,
            ids: Buffer::host(widest)?,
            mask: Buffer::host(layout.rows * layout.positions)?,
            positions: Buffer::host(widest)?,
            logits: Buffer::host(logits)?,
            options: RunOptions::new()?,
            as_they_lie,
            mover,
            session,
            layout,
            names,
            inside: Arc::default(),
        })
    }

    /// Nanoseconds inside ONNX Runtime's own runs, as they add up.
    pub(super) fn inside(&self) -> Arc<AtomicU64> {
        self.inside.clone()
    }

    /// The input buffers for `rows` rows of `columns` new tokens, `total` positions with their past.
    pub(super) fn inputs(&mut self, rows: usize, columns: usize, total: usize) -> Inputs<'_> {
        Inputs {
            ids: &mut self.ids.slice()[..rows * columns],
            mask: &mut self.mask.slice()[..rows * total],
            positions: &mut self.positions.slice()[..rows * columns],
        }
    }

    /// Runs the rows `first..first + rows` over what [`Self::inputs`] was filled with, and gives the logits: `[rows, columns,
    /// vocabulary]`, or `[rows, 1, vocabulary]` of a graph that gives the last position only.
    pub(super) fn run(&mut self, first: usize, rows: usize, columns: usize, total: usize) -> Result<&[T], Error> {
        if !self.bindings.contains_key(&(first, rows)) {
            self.make_room();
            let binding = self.bind_caches(first, rows)?;
            self.bindings.insert((first, rows), binding);
        }
        let binding = self.bindings.get_mut(&(first, rows)).expect("bound above");
        let (given, names) = (if self.layout.last_only { 1 } else { columns }, &self.names);
        let length = rows * given * self.layout.vocabulary;
        // What was bound for a step before is where it was, and as large.
        if !self.as_they_lie || binding.of != Some((columns, total)) {
            binding.of = None;
            binding.input(&names.ids, &self.ids.view(0..rows * columns, &[rows, columns])?)?;
            binding.input(&names.mask, &self.mask.view(0..rows * total, &[rows, total])?)?;
            if let Some(name) = &names.positions {
                binding.input(name, &self.positions.view(0..rows * columns, &[rows, columns])?)?;
            }
            binding.output(
                &names.logits,
                &self.logits.view(0..length, &[rows, given, self.layout.vocabulary])?,
            )?;
            binding.of = Some((columns, total));
        }
        let started = Instant::now();
        binding.run(&mut self.session, &self.options)?;
        let nanos = u64::try_from(started.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.inside.fetch_add(nanos, Ordering::Relaxed);
        Ok(&self.logits.slice()[..length])
    }

    /// Lets go of bindings of crowds, where there are many: prompts that were read together may have been any rows from any on, and each binding has
    /// a value for every cache. Steps, which begin with the first row, and single prompts stay: with two for each row, crowds have as much again.
    fn make_room(&mut self) {
        if self.bindings.len() >= 4 * self.layout.rows {
            self.bindings.retain(|(first, rows), _| *first == 0 || *rows == 1);
        }
    }

    /// Copies the first `length` positions of row `from` over row `to`, in every cache.
    pub(super) fn copy_row(&mut self, from: usize, to: usize, length: usize) -> Result<(), Error> {
        let (stride, head) = (self.layout.stride(), self.layout.positions * self.layout.head_size);
        let Some(mover) = &mut self.mover else {
            let used = length * self.layout.head_size;
            for cache in &mut self.caches {
                for h in 0..self.layout.kv_heads {
                    let source = from * stride + h * head;
                    cache.slice().copy_within(source..source + used, to * stride + h * head);
                }
            }
            return Ok(());
        };
        // Whole rows: on a device one long copy is cheaper than a short one a head.
        let binding = Binding::new(mover)?;
        for (i, cache) in self.caches.iter().enumerate() {
            let (x, y) = mover::names(i);
            binding.input(&x, &cache.view(from * stride..(from + 1) * stride, &[stride])?)?;
            binding.output(&y, &cache.view(to * stride..(to + 1) * stride, &[stride])?)?;
        }
        binding.run(mover, &self.options)
    }

    /// A binding whose past and present are the rows `first..first + rows` of the caches.
    fn bind_caches(&self, first: usize, rows: usize) -> Result<Binding, Error> {
        let binding = Binding::new(&self.session)?;
        let (stride, layout) = (self.layout.stride(), self.layout);
        let shape = [rows, layout.kv_heads, layout.positions, layout.head_size];
        for (cache, (past, present)) in self.caches.iter().zip(&self.names.caches) {
            let rows = cache.view(first * stride..(first + rows) * stride, &shape)?;
            binding.input(past, &rows)?;
            binding.output(present, &rows)?;
        }
        Ok(binding)
    }
}

/// Numbers that a tensor here is made of.
pub(super) trait Element: Copy {
    const TYPE: sys::ONNXTensorElementDataType;
}

impl Element for f32 {
    const TYPE: sys::ONNXTensorElementDataType = sys::ONNXTensorElementDataType::ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT;
}

impl Element for half::f16 {
    const TYPE: sys::ONNXTensorElementDataType = sys::ONNXTensorElementDataType::ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT16;
}

impl Element for i64 {
    const TYPE: sys::ONNXTensorElementDataType = sys::ONNXTensorElementDataType::ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64;
}

/// Memory at an address that does not change, of `length` elements; never empty.
pub(super) struct Buffer<T> {
    start: NonNull<T>,
    length: usize,
    memory: MemoryInfo<'static>,
    /// Of device memory: who gave it. `None`: Rust's allocator did.
    allocator: Option<Allocator>,
}

// SAFETY: the memory belongs to this value alone and has no tie to a thread; an ONNX Runtime allocator may be used from any
// one thread at a time (it is Send itself).
unsafe impl<T: Element> Send for Buffer<T> {}

impl<T: Element> Buffer<T> {
    fn too_large(elements: usize) -> Error {
        let mib = elements.saturating_mul(size_of::<T>()) >> 20;
        Error::Run(format!(
            "{mib} MiB of memory are not to be had for one buffer: lower `slots`, or [limits] context_tokens"
        ))
    }

    /// Zeroed pages of the operating system: a slot that is never used takes no memory.
    pub(super) fn host(length: usize) -> Result<Self, Error> {
        let layout = alloc::Layout::array::<T>(length.max(1)).map_err(|_| Self::too_large(length))?;
        // SAFETY: the layout is not empty. Zero bytes are a valid f32, f16 and i64.
        let start =
            NonNull::new(unsafe { alloc::alloc_zeroed(layout) }.cast::<T>()).ok_or_else(|| Self::too_large(length))?;
        Ok(Self {
            start,
            length: length.max(1),
            memory: MemoryInfo::default(),
            allocator: None,
        })
    }

    fn device(length: usize, session: &Session, memory: &MemoryInfo<'_>) -> Result<Self, Error> {
        let bytes = length
            .checked_mul(size_of::<T>())
            .ok_or_else(|| Self::too_large(length))?;
        let allocator = Allocator::new(session, memory.to_owned())?;
        let start = allocator.alloc::<u8>(bytes)?.into_raw().cast::<T>();
        let start = NonNull::new(start).ok_or_else(|| Self::too_large(length))?;
        Ok(Self {
            start,
            length,
            memory: memory.to_owned(),
            allocator: Some(allocator),
        })
    }

    /// The content of a host buffer.
    pub(super) fn slice(&mut self) -> &mut [T] {
        assert!(self.allocator.is_none(), "device memory is not Rust's to read");
        // SAFETY: allocated and initialised for `length` elements; `&mut self` lets nobody else in (invariant 3).
        unsafe { slice::from_raw_parts_mut(self.start.as_ptr(), self.length) }
    }

    /// The same, to read.
    pub(super) fn content(&self) -> &[T] {
        assert!(self.allocator.is_none(), "device memory is not Rust's to read");
        // SAFETY: allocated and initialised for `length` elements; whoever writes has `&mut self`, or runs under `&mut SharedKv` (invariant 3).
        unsafe { slice::from_raw_parts(self.start.as_ptr(), self.length) }
    }

    /// A tensor over some of the elements, which ONNX Runtime may read and write in any run of a binding that holds it.
    fn view(&self, range: Range<usize>, shape: &[usize]) -> Result<Value, Error> {
        let elements = shape.iter().try_fold(1usize, |n, d| n.checked_mul(*d));
        if range.start > range.end || range.end > self.length || elements != Some(range.len()) {
            return Err(Error::Run(format!(
                "a view of {range:?} of {} elements cannot have shape {shape:?}",
                self.length
            )));
        }
        let dims: Vec<i64> = shape.iter().map(|d| *d as i64).collect();
        let mut value = ptr::null_mut();
        // SAFETY: the range lies in the buffer (checked above), so address and byte count are of one allocation, aligned for
        // T; `dims` has `dims.len()` numbers, whose product is the range's length; `memory` is a live description of where
        // the buffer lies; `value` is a place for one pointer.
        let status = unsafe {
            (ort::api().CreateTensorWithDataAsOrtValue)(
                self.memory.ptr(),
                self.start.as_ptr().add(range.start).cast::<c_void>(),
                range.len() * size_of::<T>(),
                dims.as_ptr(),
                dims.len(),
                T::TYPE,
                &mut value,
            )
        };
        check(status)?;
        NonNull::new(value)
            .map(Value)
            .ok_or_else(|| Error::Run("no tensor came back".into()))
    }
}

impl<T> Drop for Buffer<T> {
    fn drop(&mut self) {
        // SAFETY: freed once, here, by whoever allocated it, with the layout it was allocated with; no binding is left that
        // could use it (invariant 4).
        unsafe {
            match &self.allocator {
                Some(allocator) => allocator.free(self.start.as_ptr()),
                None => {
                    let layout = alloc::Layout::array::<T>(self.length).expect("as allocated");
                    alloc::dealloc(self.start.as_ptr().cast::<u8>(), layout);
                }
            }
        }
    }
}

/// An OrtValue of ours. A binding keeps its own reference, so this one may go right after it was bound.
struct Value(NonNull<sys::OrtValue>);

impl Drop for Value {
    fn drop(&mut self) {
        // SAFETY: created by CreateTensorWithDataAsOrtValue, released once, here. It does not own the data.
        unsafe { (ort::api().ReleaseValue)(self.0.as_ptr()) }
    }
}

/// An OrtIoBinding of ours.
struct Binding {
    pointer: NonNull<sys::OrtIoBinding>,
    /// Columns and positions that ids, mask and logits are bound for.
    of: Option<(usize, usize)>,
}

// SAFETY: an OrtIoBinding has no tie to the thread that made it; `SharedKv` moves to its owner thread as a whole, and
// nothing shares it (it is not Sync).
unsafe impl Send for Binding {}

impl Binding {
    fn new(session: &Session) -> Result<Self, Error> {
        let mut binding = ptr::null_mut();
        // SAFETY: a live session, which outlives the binding (invariant 4); `binding` is a place for one pointer.
        check(unsafe { (ort::api().CreateIoBinding)(session.ptr().cast_mut(), &mut binding) })?;
        NonNull::new(binding)
            .map(|pointer| Self { pointer, of: None })
            .ok_or_else(|| Error::Run("no binding came back".into()))
    }

    fn input(&self, name: &CString, value: &Value) -> Result<(), Error> {
        // SAFETY: live objects of this library, and a NUL-terminated name. A name that is bound already is replaced.
        check(unsafe { (ort::api().BindInput)(self.pointer.as_ptr(), name.as_ptr(), value.0.as_ptr()) })
    }

    fn output(&self, name: &CString, value: &Value) -> Result<(), Error> {
        // SAFETY: as in `input`.
        check(unsafe { (ort::api().BindOutput)(self.pointer.as_ptr(), name.as_ptr(), value.0.as_ptr()) })
    }
}

impl Binding {
    /// `session` must be the one that the binding was made for, and every buffer bound must be alive.
    fn run(&self, session: &mut Session, options: &RunOptions<NoSelectedOutputs>) -> Result<(), Error> {
        // SAFETY: live objects of this library. Both callers are `SharedKv`'s, which keeps session and buffers (invariant 1)
        // and holds `&mut self` over the call, so that nothing else touches the buffers (invariant 3).
        check(unsafe { (ort::api().RunWithBinding)(session.ptr_mut(), options.ptr(), self.pointer.as_ptr()) })
    }
}

impl Drop for Binding {
    fn drop(&mut self) {
        // SAFETY: created by CreateIoBinding, released once, here, before session and buffers (invariant 4).
        unsafe { (ort::api().ReleaseIoBinding)(self.pointer.as_ptr()) }
    }
}

fn check(status: sys::OrtStatusPtr) -> Result<(), Error> {
    // SAFETY: a status fresh from a call of this library, handed over once.
    unsafe { ort::Error::result_from_status(status) }.map_err(Error::from)
}
