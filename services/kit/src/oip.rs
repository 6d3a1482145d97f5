//! Texts and vectors as the Open Inference Protocol v2 carries them: BYTES tensors, in `contents` or, each element after its
//! length as a little-endian u32, in `raw_input_contents`. An answer goes back in the place that its request used.
use crate::status::{self, Reason};
use shoal_proto::oip::{
    InferParameter, InferTensorContents, ModelInferRequest, ModelInferResponse, infer_parameter::ParameterChoice,
    model_infer_response::InferOutputTensor, model_metadata_response::TensorMetadata,
};
use std::collections::HashMap;

/// The one input tensor.
pub const TEXT_INPUT: &str = "text_input";
/// The output tensor of what answers in words.
pub const TEXT_OUTPUT: &str = "text_output";
/// The output tensor of what answers in vectors.
pub const EMBEDDING: &str = "embedding";

/// Parameters of a request or a response, by name.
pub type Parameters = HashMap<String, InferParameter>;

/// What comes out, one element a text.
#[derive(Debug, Clone, PartialEq)]
pub enum Output {
    /// BYTES, `[texts]`.
    Texts(Vec<String>),
    /// FP32, `[texts, dimensions]`.
    Vectors(Vec<Vec<f32>>),
}

/// The texts of a request's one input, from whichever of the two places they were put in; 1 to `most` of them.
///
/// # Errors
/// `Invalid`, by field.
pub fn texts(request: &ModelInferRequest, most: usize) -> Result<Vec<String>, Reason> {
    let [input] = &request.inputs[..] else {
        let given = request.inputs.len();
        return Err(status::invalid(
            "inputs",
            format!("give one input, `{TEXT_INPUT}`, not {given}"),
        ));
    };
    if input.name != TEXT_INPUT || input.datatype != "BYTES" {
        return Err(status::invalid(
            "inputs[0]",
            format!("it is `{}` {}; give `{TEXT_INPUT}` BYTES", input.name, input.datatype),
        ));
    }
    let elements: Vec<&[u8]> = match (&request.raw_input_contents[..], &input.contents) {
        ([raw], None) => split(raw, most)?,
        ([], Some(contents)) => contents.bytes_contents.iter().map(Vec::as_slice).collect(),
        _ => {
            return Err(status::invalid(
                "raw_input_contents",
                "give the data once: there, or in the input's contents",
            ));
        }
    };
    if elements.is_empty() || elements.len() > most {
        return Err(few(most));
    }
    let expected = input.shape.iter().try_fold(1i64, |n, d| n.checked_mul(*d));
    if expected != i64::try_from(elements.len()).ok() {
        return Err(status::invalid(
            "inputs[0].shape",
            format!("{:?} is not the shape of {} elements", input.shape, elements.len()),
        ));
    }
    let text = |(i, bytes): (usize, &[u8])| {
        String::from_utf8(bytes.to_vec())
            .map_err(|e| status::invalid(&format!("inputs[0][{i}]"), format!("it is not UTF-8: {e}")))
    };
    elements.into_iter().enumerate().map(text).collect()
}

/// Whether the request wants nothing but `output`, the one that the model's metadata lists: named or not, it is what comes back.
///
/// # Errors
/// `Invalid`, by field.
pub fn wants(request: &ModelInferRequest, output: &TensorMetadata) -> Result<(), Reason> {
    match request.outputs.iter().position(|o| o.name != output.name) {
        None => Ok(()),
        Some(i) => Err(status::invalid(
            &format!("outputs[{i}].name"),
            format!(
                "no output `{}` here; there is `{}`",
                request.outputs[i].name, output.name
            ),
        )),
    }
}

fn few(most: usize) -> Reason {
    status::invalid("inputs[0].shape", format!("give 1 to {most} texts"))
}

/// Elements, each after its length as a little-endian u32.
fn split(mut raw: &[u8], most: usize) -> Result<Vec<&[u8]>, Reason> {
    let cut = || {
        status::invalid(
            "raw_input_contents[0]",
            "it ends inside an element: each is its length as a little-endian u32, then its bytes",
        )
    };
    let mut elements = Vec::new();
    while !raw.is_empty() {
        if elements.len() == most {
            return Err(few(most));
        }
        let (length, rest) = raw.split_first_chunk::<4>().ok_or_else(cut)?;
        let (element, rest) = rest
            .split_at_checked(u32::from_le_bytes(*length) as usize)
            .ok_or_else(cut)?;
        elements.push(element);
        raw = rest;
    }
    Ok(elements)
}

/// The response to `request` by version `version` of its model.
#[must_use]
pub fn respond(
    request: ModelInferRequest,
    version: &str,
    output: Output,
    parameters: Parameters,
) -> ModelInferResponse {
    let count = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
    let as_raw = !request.raw_input_contents.is_empty();
    let (name, datatype, shape, raw, contents) = match output {
        Output::Texts(texts) => {
            let element = |t: &String| [&(t.len() as u32).to_le_bytes(), t.as_bytes()].concat();
            let raw: Vec<u8> = texts.iter().flat_map(element).collect();
            let shape = vec![count(texts.len())];
            let contents = InferTensorContents {
                bytes_contents: texts.into_iter().map(String::into_bytes).collect(),
                ..InferTensorContents::default()
            };
            (TEXT_OUTPUT, "BYTES", shape, raw, contents)
        }
        Output::Vectors(vectors) => {
            let shape = vec![count(vectors.len()), count(vectors.first().map_or(0, Vec::len))];
            let values = vectors.concat();
            let raw: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
            let contents = InferTensorContents {
                fp32_contents: values,
                ..InferTensorContents::default()
            };
            (EMBEDDING, "FP32", shape, raw, contents)
        }
    };
    let tensor = InferOutputTensor {
        name: name.into(),
        datatype: datatype.into(),
        shape,
        parameters: Parameters::new(),
        contents: (!as_raw).then_some(contents),
    };
    ModelInferResponse {
        model_name: request.model_name,
        model_version: version.to_owned(),
        id: request.id,
        parameters,
        outputs: vec![tensor],
        raw_output_contents: if as_raw { vec![raw] } else { Vec::new() },
    }
}

/// What a model's metadata says of a tensor; -1 stands for any number.
#[must_use]
pub fn tensor(name: &str, datatype: &str, shape: &[i64]) -> TensorMetadata {
    TensorMetadata {
        name: name.to_owned(),
        datatype: datatype.to_owned(),
        shape: shape.to_vec(),
    }
}

/// A number of things, for a response.
#[must_use]
pub fn count(value: usize) -> InferParameter {
    choice(ParameterChoice::Int64Param(i64::try_from(value).unwrap_or(i64::MAX)))
}

/// A number, for a response.
#[must_use]
pub fn number(value: f64) -> InferParameter {
    choice(ParameterChoice::DoubleParam(value))
}

fn choice(choice: ParameterChoice) -> InferParameter {
    InferParameter {
        parameter_choice: Some(choice),
    }
}

/// The request's parameter `name` as text, if it is there.
///
/// # Errors
/// `Invalid` when it is something else.
pub fn text_of<'a>(parameters: &'a Parameters, name: &str) -> Result<Option<&'a str>, Reason> {
    match given(parameters, name) {
        None => Ok(None),
        Some(ParameterChoice::StringParam(text)) => Ok(Some(text)),
        Some(_) => Err(status::invalid(&format!("parameters.{name}"), "it must be a string")),
    }
}

/// The request's parameter `name` as an integer of 0 or more, if it is there.
///
/// # Errors
/// `Invalid` when it is something else.
pub fn whole_of(parameters: &Parameters, name: &str) -> Result<Option<u64>, Reason> {
    let value = match given(parameters, name) {
        None => return Ok(None),
        Some(ParameterChoice::Int64Param(v)) => u64::try_from(*v).ok(),
        Some(ParameterChoice::Uint64Param(v)) => Some(*v),
        Some(_) => None,
    };
    let refused = || status::invalid(&format!("parameters.{name}"), "it must be an integer of 0 or more");
    value.map(Some).ok_or_else(refused)
}

/// The request's parameter `name` as a number, if it is there.
///
/// # Errors
/// `Invalid` when it is something else.
pub fn real_of(parameters: &Parameters, name: &str) -> Result<Option<f64>, Reason> {
    match given(parameters, name) {
        None => Ok(None),
        Some(ParameterChoice::DoubleParam(v)) => Ok(Some(*v)),
        Some(ParameterChoice::Int64Param(v)) => Ok(Some(*v as f64)),
        Some(_) => Err(status::invalid(&format!("parameters.{name}"), "it must be a number")),
    }
}

fn given<'a>(parameters: &'a Parameters, name: &str) -> Option<&'a ParameterChoice> {
    parameters.get(name)?.parameter_choice.as_ref()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use shoal_proto::oip::model_infer_request::InferInputTensor;

    fn request(texts: &[String], raw: bool) -> ModelInferRequest {
        let contents = InferTensorContents {
            bytes_contents: texts.iter().map(|t| t.as_bytes().to_vec()).collect(),
            ..InferTensorContents::default()
        };
        let packed = texts
            .iter()
            .flat_map(|t| [&(t.len() as u32).to_le_bytes(), t.as_bytes()].concat());
        ModelInferRequest {
            model_name: "m".into(),
            id: "7".into(),
            inputs: vec![InferInputTensor {
                name: TEXT_INPUT.into(),
                datatype: "BYTES".into(),
                shape: vec![texts.len() as i64, 1],
                contents: (!raw).then_some(contents),
                ..InferInputTensor::default()
            }],
            raw_input_contents: if raw { vec![packed.collect()] } else { Vec::new() },
            ..ModelInferRequest::default()
        }
    }

    #[test]
    fn too_many_elements_and_a_length_that_lies_are_refused_before_they_are_kept() {
        let many = request(&vec![String::new(); 1000], true);
        assert!(texts(&many, 64).expect_err("refused").to_string().contains("1 to 64"));
        let mut lying = request(&["hello".into()], true);
        lying.raw_input_contents[0][3] = 0xff;
        assert!(
            texts(&lying, 64)
                .expect_err("refused")
                .to_string()
                .contains("ends inside")
        );
        assert!(texts(&request(&[], false), 64).is_err());
    }

    proptest! {
        #[test]
        fn texts_come_back_whole_from_either_place_and_go_out_in_the_same(
            given in prop::collection::vec("\\PC{0,12}", 1..8), raw: bool,
        ) {
            let request = request(&given, raw);
            prop_assert_eq!(&texts(&request, 8).expect("reads"), &given);
            let response = respond(request, "1", Output::Texts(given.clone()), Parameters::new());
            let back: Vec<Vec<u8>> = match (&response.raw_output_contents[..], &response.outputs[0].contents) {
                ([packed], None) if raw => split(packed, 8).expect("splits").into_iter().map(<[u8]>::to_vec).collect(),
                ([], Some(contents)) if !raw => contents.bytes_contents.clone(),
                other => panic!("{other:?}"),
            };
            prop_assert_eq!(back, given.into_iter().map(String::into_bytes).collect::<Vec<_>>());
            prop_assert_eq!((response.id.as_str(), response.model_version.as_str()), ("7", "1"));
        }
    }
}
