//! An encoder: one padded batch in, one tensor out.
use super::{Error, Options, open};
use ort::{
    session::{Session, SessionInputValue},
    value::Tensor,
};
use std::{borrow::Cow, path::Path};

/// A batch's output.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Output {
    /// `[rows, labels]`, `[rows, dimensions]` or `[rows, columns, dimensions]`.
    pub shape: Vec<usize>,
    /// Row-major.
    pub values: Vec<f32>,
}

/// A session over `input_ids`, `attention_mask` and, if the graph has it, `token_type_ids`.
pub(crate) struct OrtEncoder {
    session: Session,
    token_types: bool,
    output: String,
}

impl OrtEncoder {
    /// Opens a checked model. `outputs` are the names to take, the first that the graph has.
    pub(crate) fn open(library: &Path, model: &Path, outputs: &[&str], options: &Options) -> Result<Self, Error> {
        let session = open(library, model, options)?;
        let refuse = |message: String| Error::Model {
            model: model.to_owned(),
            message,
        };
        for input in session.inputs() {
            if !["input_ids", "attention_mask", "token_type_ids"].contains(&input.name()) {
                return Err(refuse(format!(
                    "the graph has input `{}`, which this engine does not know",
                    input.name()
                )));
            }
        }
        let has = |name: &str| session.outputs().iter().any(|o| o.name() == name);
        let output = outputs.iter().find(|name| has(name)).map(|name| (*name).to_owned());
        let output = output.ok_or_else(|| {
            refuse(format!(
                "the graph has none of the outputs {outputs:?}: export it with optimum"
            ))
        })?;
        let token_types = session.inputs().iter().any(|i| i.name() == "token_type_ids");
        Ok(Self {
            session,
            token_types,
            output,
        })
    }

    /// Runs `rows` of `columns` tokens: `ids` and `mask` are `[rows, columns]`, right-padded.
    pub(crate) fn run(&mut self, rows: usize, columns: usize, ids: Vec<i64>, mask: Vec<i64>) -> Result<Output, Error> {
        let shape = [rows, columns];
        let mut inputs: Vec<(Cow<'_, str>, SessionInputValue<'_>)> = vec![
            ("input_ids".into(), Tensor::from_array((shape, ids))?.into()),
            ("attention_mask".into(), Tensor::from_array((shape, mask))?.into()),
        ];
        if self.token_types {
            inputs.push((
                "token_type_ids".into(),
                Tensor::from_array((shape, vec![0i64; rows * columns]))?.into(),
            ));
        }
        let outputs = self.session.run(inputs)?;
        let value = outputs
            .get(&self.output)
            .ok_or_else(|| Error::Run(format!("no output `{}` came back", self.output)))?;
        let (shape, values) = value.try_extract_tensor::<f32>()?;
        let shape = shape.iter().map(|d| usize::try_from(*d).unwrap_or(0)).collect();
        Ok(Output {
            shape,
            values: values.to_vec(),
        })
    }
}
