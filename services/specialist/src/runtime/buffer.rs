//! Memory at addresses that do not change, which ONNX Runtime is told of: the KV buffer, what a run reads, and the logits.
//!
//! The invariants that the unsafe code here and in [`super::shared_kv`] rests on stand there.
use super::{Error, layout::Precision};
use half::{f16, slice::HalfFloatSliceExt as _};
use ort::{
    AsPointer as _,
    memory::{Allocator, MemoryInfo},
    session::Session,
    sys,
};
use std::{
    alloc,
    ffi::c_void,
    ops::Range,
    ptr::{self, NonNull},
    slice,
};

/// Numbers that a tensor here is made of.
pub(super) trait Element {
    const TYPE: sys::ONNXTensorElementDataType;
}

impl Element for f32 {
    const TYPE: sys::ONNXTensorElementDataType = sys::ONNXTensorElementDataType::ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT;
}

impl Element for f16 {
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

    pub(super) fn device(length: usize, session: &Session, memory: &MemoryInfo<'_>) -> Result<Self, Error> {
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

    /// A tensor over some of the elements, which ONNX Runtime may read and write in any run of a binding that holds it.
    pub(super) fn view(&self, range: Range<usize>, shape: &[usize]) -> Result<Value, Error> {
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

/// Floats of either precision: what a graph's caches and logits are made of.
pub(super) enum Floats {
    Single(Buffer<f32>),
    Half(Buffer<f16>),
}

impl Floats {
    pub(super) fn host(precision: Precision, length: usize) -> Result<Self, Error> {
        Ok(match precision {
            Precision::Single => Self::Single(Buffer::host(length)?),
            Precision::Half => Self::Half(Buffer::host(length)?),
        })
    }

    pub(super) fn device(
        precision: Precision,
        length: usize,
        session: &Session,
        memory: &MemoryInfo<'_>,
    ) -> Result<Self, Error> {
        Ok(match precision {
            Precision::Single => Self::Single(Buffer::device(length, session, memory)?),
            Precision::Half => Self::Half(Buffer::device(length, session, memory)?),
        })
    }

    /// As [`Buffer::view`].
    pub(super) fn view(&self, range: Range<usize>, shape: &[usize]) -> Result<Value, Error> {
        match self {
            Self::Single(buffer) => buffer.view(range, shape),
            Self::Half(buffer) => buffer.view(range, shape),
        }
    }

    /// As a slice's, of host memory.
    pub(super) fn copy_within(&mut self, from: Range<usize>, to: usize) {
        match self {
            Self::Single(buffer) => buffer.slice().copy_within(from, to),
            Self::Half(buffer) => buffer.slice().copy_within(from, to),
        }
    }

    /// The first `length` numbers of host memory in single precision; `wide` is where those of half precision become that.
    pub(super) fn read<'a>(&'a mut self, length: usize, wide: &'a mut Vec<f32>) -> &'a [f32] {
        match self {
            Self::Single(buffer) => &buffer.slice()[..length],
            Self::Half(buffer) => {
                wide.resize(length, 0.0);
                buffer.slice()[..length].convert_to_f32_slice(wide);
                wide
            }
        }
    }
}

/// An OrtValue of ours. A binding keeps its own reference, so this one may go right after it was bound.
pub(super) struct Value(pub(super) NonNull<sys::OrtValue>);

impl Drop for Value {
    fn drop(&mut self) {
        // SAFETY: created by CreateTensorWithDataAsOrtValue, released once, here. It does not own the data.
        unsafe { (ort::api().ReleaseValue)(self.0.as_ptr()) }
    }
}

/// A status as a result.
pub(super) fn check(status: sys::OrtStatusPtr) -> Result<(), Error> {
    // SAFETY: a status fresh from a call of this library, handed over once.
    unsafe { ort::Error::result_from_status(status) }.map_err(Error::from)
}
