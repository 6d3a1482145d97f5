//! CUDA asked for and not there is a refusal that says what to do, never a quiet CPU.
use crate::world::{config, fixture, library};
use shoal_kit::config::Provider;
use shoal_specialist::{
    RuntimeError,
    specialist::{LoadError, Specialist},
};

#[test]
fn cuda_that_is_not_there_is_refused_in_words() {
    let config = shoal_kit::config::Specialist {
        provider: Provider::Cuda,
        ..config(2)
    };
    match Specialist::load(&fixture("tiny_decoder"), &config, library()) {
        Err(error) => {
            // What the process leaves with exit code 64 for.
            assert!(
                matches!(error, LoadError::Runtime(RuntimeError::NoCuda { .. })),
                "{error:?}"
            );
            let words = error.to_string();
            assert!(
                words.contains("provider = \"cuda\"")
                    && words.contains("onnxruntime-gpu")
                    && words.contains("provider = \"cpu\""),
                "{words}"
            );
        }
        // A machine whose library has CUDA: then it must say so.
        Ok(specialist) => assert_eq!(specialist.provider(), Provider::Cuda),
    }
}
