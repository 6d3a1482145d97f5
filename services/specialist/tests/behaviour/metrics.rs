//! What `/metrics` says.
use crate::world::Served;
use shoal_kit::{config, telemetry};

#[tokio::test(flavor = "multi_thread")]
async fn every_series_says_which_version_of_a_model_it_is_of() {
    let quiet = config::Telemetry {
        log: "off".into(),
        ..config::Telemetry::default()
    };
    let _guard = telemetry::init("test", &quiet).expect("nobody else sets it up");
    for name in ["tiny_decoder", "tiny_classifier", "tiny_tag", "tiny_fill"] {
        let _served = Served::start(name, 1, |_| {}).await;
        let told = telemetry::render_metrics();
        let of = |model: &str| told.lines().any(|line| line.contains(&format!("model=\"{model}\"")));
        assert!(of(&format!("{name}@1")) && !of(name), "{name}: {told}");
    }
}
