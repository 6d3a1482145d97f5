//! Walks an ONNX file for external data, for the graph's inputs and outputs and for nodes that matter, without loading its weights.
//!
//! A reader of protobuf's wire format, no more: it knows the path from ModelProto to every TensorProto (graphs inside
//! attributes, functions and training info included), skips everything else by seeking, and bounds depth and sizes. Field
//! numbers: onnx.proto3 of the ONNX project.
use super::{
    Error, inspect,
    interface::{INT64, Interface, Port},
    manifest::Card,
    nodes::{Node, Nodes},
};
use std::{
    collections::{BTreeSet, HashSet},
    fs::File,
    io::{BufReader, Read as _},
    path::Path,
};

/// Messages between ModelProto and a tensor: a graph in an attribute of a node takes three. Ten graphs deep is more than any
/// exporter nests.
const DEPTH: u32 = 32;

/// Bytes of a string that is looked at: names and locations.
const STRING_BYTES: u64 = 4096;

/// Dimensions of an input that are looked at: one more than any that is bound.
const DIMENSIONS: usize = 5;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Message {
    Model,
    Training,
    Function,
    Graph,
    Node,
    Attribute,
    Sparse,
    Tensor,
}

fn child(of: Message, field: u64) -> Option<Message> {
    Some(match (of, field) {
        (Message::Model, 7) | (Message::Training, 1 | 2) | (Message::Attribute, 6 | 11) => Message::Graph,
        (Message::Model, 20) => Message::Training,
        (Message::Model, 25) => Message::Function,
        (Message::Graph, 1) | (Message::Function, 7) => Message::Node,
        (Message::Node, 5) | (Message::Function, 11) => Message::Attribute,
        (Message::Graph, 15) | (Message::Attribute, 22 | 23) => Message::Sparse,
        (Message::Graph, 5) | (Message::Attribute, 5 | 10) | (Message::Sparse, 1 | 2) => Message::Tensor,
        _ => return None,
    })
}

/// A tensor whose data lies in another file.
#[derive(Debug, Default, PartialEq, Eq)]
struct External {
    tensor: String,
    location: Option<String>,
    offset: Option<String>,
    length: Option<String>,
    is_external: bool,
}

/// Refuses `name` unless every external tensor lies within a listed file of the folder; gives what the graph takes and gives.
pub(super) fn check(root: &Path, name: &str, card: &Card) -> Result<Interface, Error> {
    let path = inspect::inside(root, name)?;
    let (interface, found) = walk(&path)?;
    for external in found {
        within(root, &path, beside(name), card, external)?;
    }
    Ok(interface)
}

/// What a graph takes and gives, and the files that its tensors lie in besides: names as the graph `name` has them, from the folder that has `name`.
/// Nothing is held to anything.
pub(super) fn read(root: &Path, name: &str) -> Result<(Interface, BTreeSet<String>), Error> {
    let (interface, found) = walk(&root.join(name))?;
    let locations = found.into_iter().filter_map(|external| external.location);
    Ok((interface, locations.map(|l| from_root(beside(name), l)).collect()))
}

/// Where ONNX Runtime looks for external data of the model `name`.
fn beside(name: &str) -> &str {
    name.rsplit_once('/').map_or("", |(folder, _)| folder)
}

fn from_root(beside: &str, location: String) -> String {
    match beside {
        "" => location,
        // An absolute one stays what it is, and is refused for it.
        _ if location.starts_with('/') => location,
        _ => format!("{beside}/{location}"),
    }
}

fn walk(path: &Path) -> Result<(Interface, Vec<External>), Error> {
    let unreadable = |source| Error::Unreadable {
        path: path.to_owned(),
        source,
    };
    let fault = |message: String| Error::Onnx {
        path: path.to_owned(),
        message,
    };
    let file = File::open(path).map_err(unreadable)?;
    let end = file.metadata().map_err(unreadable)?.len();
    let mut walk = Walk {
        file: BufReader::new(file),
        position: 0,
        found: Vec::new(),
        interface: Interface::default(),
        nodes: Nodes::default(),
        initializers: HashSet::new(),
    };
    walk.message(Message::Model, end, 0).map_err(fault)?;
    // Before IR version 4 weights were listed among the inputs.
    let (mut interface, initializers) = (walk.interface, walk.initializers);
    walk.nodes.tell(&mut interface);
    interface.inputs.retain(|port| !initializers.contains(&port.name));
    Ok((interface, walk.found))
}

/// Holds one tensor to its file, whose location is from the folder `beside` of `root`.
fn within(root: &Path, path: &Path, beside: &str, card: &Card, external: External) -> Result<(), Error> {
    let External {
        tensor,
        location,
        offset,
        length,
        ..
    } = external;
    let fault = |message: String| Error::Onnx {
        path: path.to_owned(),
        message,
    };
    let Some(location) = location.filter(|l| !l.is_empty()) else {
        return Err(fault(format!(
            "tensor `{tensor}` is external but names no file: export the model again"
        )));
    };
    let location = from_root(beside, location);
    let bytes = inspect::size(root, &location)?;
    if !card.files.contains_key(&location) {
        return Err(Error::Unlisted {
            path: root.join(&location),
        });
    }
    let number = |what: &str, text: Option<String>| match text {
        None => Ok(None),
        Some(t) => t.parse::<u64>().map(Some).map_err(|_| {
            fault(format!(
                "tensor `{tensor}` has {what} `{t}`, which is no number of bytes"
            ))
        }),
    };
    let offset = number("offset", offset)?.unwrap_or(0);
    let length = number("length", length)?.unwrap_or_else(|| bytes.saturating_sub(offset));
    match offset.checked_add(length) {
        Some(end) if end <= bytes && offset <= bytes => Ok(()),
        end => Err(Error::Range {
            path: path.to_owned(),
            tensor,
            location,
            offset,
            end: end.unwrap_or(u64::MAX),
            bytes,
        }),
    }
}

struct Walk {
    file: BufReader<File>,
    position: u64,
    found: Vec<External>,
    interface: Interface,
    nodes: Nodes,
    /// Names of the graph's own weights, not of those of graphs inside it.
    initializers: HashSet<String>,
}

/// One field's key and, for length-delimited ones, where it ends.
enum Field {
    Varint(u64, u64),
    Bytes(u64, u64),
    Fixed,
}

impl Walk {
    fn message(&mut self, kind: Message, end: u64, depth: u32) -> Result<(), String> {
        if depth > DEPTH {
            return Err(format!(
                "graphs are nested over {DEPTH} messages deep: this is no exporter's work"
            ));
        }
        let mut external = External::default();
        let mut node = Node::default();
        let (mut rows, mut whole, mut number) = (None, false, None);
        while self.position < end {
            match self.field(end)? {
                Field::Bytes(field, to) => {
                    match (kind, field, child(kind, field)) {
                        (_, _, Some(inner)) => self.message(inner, to, depth + 1)?,
                        (Message::Tensor, 8, _) => external.tensor = self.string(to)?,
                        (Message::Tensor, 13, _) => self.entry(to, &mut external)?,
                        (Message::Node, 1, _) => node.inputs.push(self.string(to)?),
                        (Message::Node, 2, _) => node.outputs.push(self.string(to)?),
                        (Message::Node, 4, _) => node.operator = self.string(to)?,
                        (Message::Tensor, 9, _) if to - self.position == 8 => number = Some(self.number()?),
                        // The model's own graph alone: depth 1.
                        (Message::Graph, 11, _) if depth == 1 => {
                            let port = self.port(to)?;
                            self.interface.inputs.push(port);
                        }
                        (Message::Graph, 12, _) if depth == 1 => {
                            let port = self.port(to)?;
                            self.interface.outputs.push(port);
                        }
                        _ => self.skip(to)?,
                    }
                }
                Field::Varint(1, dimension) if kind == Message::Tensor => rows = rows.or(Some(dimension)),
                Field::Varint(2, element) if kind == Message::Tensor => whole = element == INT64,
                Field::Varint(14, 1) if kind == Message::Tensor => external.is_external = true,
                Field::Varint(..) | Field::Fixed => {}
            }
        }
        if kind == Message::Tensor && depth == 2 {
            self.nodes.weigh(&external.tensor, rows, number.filter(|_| whole));
            self.initializers.insert(external.tensor.clone());
        }
        if kind == Message::Node {
            self.nodes.note(node)?;
        }
        // ONNX Runtime goes by data_location; a location without it is refused all the same if it is out of bounds.
        if external.is_external || external.location.is_some() {
            self.found.push(external);
        }
        Ok(())
    }

    /// ValueInfoProto: name = 1, type = 2; TypeProto: tensor_type = 1; its elem_type = 1, shape = 2; TensorShapeProto: dim = 1; its
    /// dim_value = 1.
    fn port(&mut self, end: u64) -> Result<Port, String> {
        let mut port = Port::default();
        self.port_field(end, &mut port, 0)?;
        Ok(port)
    }

    /// `level`: 0 ValueInfoProto, 1 TypeProto, 2 its Tensor, 3 TensorShapeProto, 4 Dimension.
    fn port_field(&mut self, end: u64, port: &mut Port, level: u32) -> Result<(), String> {
        while self.position < end {
            match (self.field(end)?, level) {
                (Field::Bytes(1, to), 0) => port.name = self.string(to)?,
                (Field::Bytes(2, to), 0 | 2) | (Field::Bytes(1, to), 1) => self.port_field(to, port, level + 1)?,
                (Field::Bytes(1, to), 3) if port.dims.len() < DIMENSIONS => {
                    port.dims.push(None);
                    self.port_field(to, port, 4)?;
                }
                (Field::Varint(1, element), 2) => port.element = element,
                (Field::Varint(1, size), 4) => port.dims.iter_mut().last().into_iter().for_each(|d| *d = Some(size)),
                (Field::Bytes(_, to), _) => self.skip(to)?,
                (Field::Varint(..) | Field::Fixed, _) => {}
            }
        }
        Ok(())
    }

    /// StringStringEntryProto.
    fn entry(&mut self, end: u64, external: &mut External) -> Result<(), String> {
        let (mut key, mut value) = (String::new(), String::new());
        while self.position < end {
            match self.field(end)? {
                Field::Bytes(1, to) => key = self.string(to)?,
                Field::Bytes(2, to) => value = self.string(to)?,
                Field::Bytes(_, to) => self.skip(to)?,
                _ => {}
            }
        }
        // A key that occurs twice could mean one thing here and another to ONNX Runtime.
        let slot = match key.as_str() {
            "location" => &mut external.location,
            "offset" => &mut external.offset,
            "length" => &mut external.length,
            _ => return Ok(()),
        };
        match slot.replace(value) {
            None => Ok(()),
            Some(_) => Err(format!(
                "tensor `{}` gives its external {key} twice: export the model again",
                external.tensor
            )),
        }
    }

    fn field(&mut self, end: u64) -> Result<Field, String> {
        let key = self.varint()?;
        let field = match key & 7 {
            0 => Field::Varint(key >> 3, self.varint()?),
            1 => {
                self.skip(self.position.saturating_add(8))?;
                Field::Fixed
            }
            2 => {
                let length = self.varint()?;
                Field::Bytes(key >> 3, self.position.saturating_add(length))
            }
            5 => {
                self.skip(self.position.saturating_add(4))?;
                Field::Fixed
            }
            other => {
                return Err(format!(
                    "wire type {other} at byte {}: this is no ONNX file",
                    self.position
                ));
            }
        };
        let to = if let Field::Bytes(_, to) = field {
            to
        } else {
            self.position
        };
        if to > end {
            return Err(format!(
                "a field at byte {} runs past its message: the file is cut short or no ONNX file",
                self.position
            ));
        }
        Ok(field)
    }

    fn varint(&mut self) -> Result<u64, String> {
        let mut value = 0u64;
        for shift in (0..70).step_by(7) {
            let mut byte = [0u8];
            self.file
                .read_exact(&mut byte)
                .map_err(|e| format!("byte {}: {e}: the file is cut short", self.position))?;
            self.position += 1;
            value |= u64::from(byte[0] & 0x7f).checked_shl(shift).unwrap_or(0);
            if byte[0] & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(format!(
            "a number over ten bytes at byte {}: this is no ONNX file",
            self.position
        ))
    }

    fn string(&mut self, end: u64) -> Result<String, String> {
        let length = end - self.position;
        if length > STRING_BYTES {
            return Err(format!(
                "a name of {length} bytes at byte {}: this is no exporter's work",
                self.position
            ));
        }
        let mut bytes = vec![0; length as usize];
        self.file
            .read_exact(&mut bytes)
            .map_err(|e| format!("byte {}: {e}: the file is cut short", self.position))?;
        self.position = end;
        String::from_utf8(bytes).map_err(|_| format!("a name before byte {end} is not UTF-8: this is no ONNX file"))
    }

    /// Eight bytes of a weight.
    fn number(&mut self) -> Result<u64, String> {
        let mut bytes = [0; 8];
        self.file
            .read_exact(&mut bytes)
            .map_err(|e| format!("byte {}: {e}: the file is cut short", self.position))?;
        self.position += 8;
        Ok(u64::from_le_bytes(bytes))
    }

    fn skip(&mut self, to: u64) -> Result<(), String> {
        let by = i64::try_from(to - self.position).map_err(|_| "a field of absurd length".to_owned())?;
        self.file
            .seek_relative(by)
            .map_err(|e| format!("byte {}: {e}", self.position))?;
        self.position = to;
        Ok(())
    }
}
