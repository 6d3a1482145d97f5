//! ONNX files of a few nodes, written by hand: what a test needs of a graph, and no more.
use crate::hostile::field;

pub(crate) const FLOAT: u8 = 1;
pub(crate) const INT64: u8 = 7;
pub(crate) const HALF: u8 = 10;
pub(crate) const BRAIN: u8 = 16;

/// A field that is a number under 2^14.
fn number(field: u8, value: u64) -> Vec<u8> {
    vec![field << 3, value as u8 | 0x80, (value >> 7) as u8]
}

/// An input (11) or output (12): `0` is an open dimension.
pub(crate) fn port(at: u64, name: &str, element: u8, dims: &[u8]) -> Vec<u8> {
    let dim = |d: &u8| {
        let size = if *d == 0 {
            field(2, b"n")
        } else {
            number(1, u64::from(*d))
        };
        field(1, &size)
    };
    let shape: Vec<u8> = dims.iter().flat_map(dim).collect();
    let tensor = [vec![1 << 3, element], field(2, &shape)].concat();
    field(at, &[field(1, name.as_bytes()), field(2, &field(1, &tensor))].concat())
}

/// A node, with attributes that are whole numbers.
pub(crate) fn node(operator: &str, inputs: &[&str], outputs: &[&str], attributes: &[(&str, u64)]) -> Vec<u8> {
    let inputs = inputs.iter().flat_map(|name| field(1, name.as_bytes()));
    let outputs = outputs.iter().flat_map(|name| field(2, name.as_bytes()));
    let attribute = |(name, value): &(&str, u64)| {
        // Type 2 is a whole number; its key, of field 20, takes two bytes.
        let told = [field(1, name.as_bytes()), number(3, *value), vec![0xa0, 1, 2]];
        field(5, &told.concat())
    };
    let attributes = attributes.iter().flat_map(attribute);
    let node: Vec<u8> = inputs
        .chain(outputs)
        .chain(field(4, operator.as_bytes()))
        .chain(attributes)
        .collect();
    field(1, &node)
}

fn weight(name: &str, element: u8, dims: &[u64], raw: &[u8]) -> Vec<u8> {
    let dims: Vec<u8> = dims.iter().flat_map(|d| number(1, *d)).collect();
    let told = [dims, vec![2 << 3, element], field(8, name.as_bytes()), field(9, raw)];
    field(5, &told.concat())
}

/// A weight of whole numbers; without dimensions it is one.
pub(crate) fn whole(name: &str, dims: &[u64], values: &[i64]) -> Vec<u8> {
    let raw: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
    weight(name, INT64, dims, &raw)
}

/// A weight of `[rows, columns]`.
pub(crate) fn table(name: &str, rows: u64, columns: u64, value: impl Fn(u64, u64) -> f32) -> Vec<u8> {
    let row = |r| (0..columns).map(move |c| (r, c));
    let raw: Vec<u8> = (0..rows)
        .flat_map(row)
        .flat_map(|(r, c)| value(r, c).to_le_bytes())
        .collect();
    weight(name, FLOAT, &[rows, columns], &raw)
}

/// A model that ONNX Runtime opens: IR version 8, operators of version 17.
pub(crate) fn model(parts: &[Vec<u8>]) -> Vec<u8> {
    let graph = [field(2, b"g"), parts.concat()].concat();
    [number(1, 8), field(8, &number(2, 17)), field(7, &graph)].concat()
}
