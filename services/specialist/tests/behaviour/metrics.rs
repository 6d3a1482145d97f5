//! What `/metrics` says.
use crate::{
    doors::{ask, collect},
    world::Served,
};
use shoal_kit::{config, telemetry};

#[tokio::test(flavor = "multi_thread")]
async fn every_series_says_which_version_of_a_model_it_is_of() {
    let quiet = config::Telemetry {
        log: "off".into(),
        ..config::Telemetry::default()
    };
    let _guard = telemetry::init("test", &quiet).expect("nobody else sets it up");
    for name in ["tiny_decoder", "tiny_classifier", "tiny_tag", "tiny_fill"] {
        let served = Served::start(name, 1, |_| {}).await;
        if name == "tiny_decoder" {
            let answer = served.client().generate(ask("hello")).await.expect("accepted");
            collect(answer.into_inner()).await.expect("answered");
        }
        let told = telemetry::render_metrics();
        let of = |model: &str| told.lines().any(|line| line.contains(&format!("model=\"{model}\"")));
        assert!(of(&format!("{name}@1")) && !of(name), "{name}: {told}");
    }
    // Bounds that a decode step can lie between: milliseconds and less, and not OpenTelemetry's own, up to ten thousand seconds.
    let told = telemetry::render_metrics();
    let bound = |le: &str| {
        let mut steps = told
            .lines()
            .filter(|l| l.starts_with("shoal_specialist_step_duration_seconds_bucket"));
        steps.any(|l| l.contains(&format!("le=\"{le}\"")))
    };
    assert!(
        bound("0.00025") && bound("0.001") && bound("60") && !bound("10000"),
        "{told}"
    );
}
