//! A graph that copies tensors where they lie: one Identity a cache, from `x0` to `y0` and so on. It moves a row of the KV
//! buffer in device memory, which Rust cannot touch, with nothing but ONNX Runtime.
//!
//! Written out in protobuf's wire format; field numbers are those of onnx.proto3.
use super::layout::Precision;
use std::ffi::CString;

/// Names of copy `i`'s input and output.
pub(super) fn names(i: usize) -> (CString, CString) {
    let name = |side: char| CString::new(format!("{side}{i}")).expect("letters and digits");
    (name('x'), name('y'))
}

/// The ONNX file of `copies` copies of one-dimensional tensors.
pub(super) fn model(copies: usize, precision: Precision) -> Vec<u8> {
    let mut graph = field(2, b"mover");
    for i in 0..copies {
        let (x, y) = names(i);
        let node = [field(1, x.as_bytes()), field(2, y.as_bytes()), field(4, b"Identity")].concat();
        graph.extend(field(1, &node));
        graph.extend(field(11, &value_info(x.as_bytes(), precision)));
        graph.extend(field(12, &value_info(y.as_bytes(), precision)));
    }
    // ir_version 8, opset 13: old enough for every ONNX Runtime that is accepted.
    let opset = [8 << 3 | 2, 2, 2 << 3, 13];
    [vec![1 << 3, 8], field(7, &graph), opset.to_vec()].concat()
}

/// ValueInfoProto of a tensor of shape `[n]`.
fn value_info(name: &[u8], precision: Precision) -> Vec<u8> {
    // TensorProto's FLOAT and FLOAT16.
    let elements = match precision {
        Precision::Single => 1,
        Precision::Half => 10,
    };
    let shape = field(2, &field(1, &field(2, b"n")));
    let tensor = [vec![1 << 3, elements], shape].concat();
    [field(1, name), field(2, &field(1, &tensor))].concat()
}

/// A length-delimited field.
fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
    let mut out = vec![number << 3 | 2];
    let mut length = bytes.len();
    while length >= 0x80 {
        out.push(length as u8 | 0x80);
        length >>= 7;
    }
    out.push(length as u8);
    out.extend_from_slice(bytes);
    out
}
