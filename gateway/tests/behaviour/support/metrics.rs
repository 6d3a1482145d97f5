//! What the gateways of this process count.
use opentelemetry_sdk::{
    error::OTelSdkResult,
    metrics::{PeriodicReader, SdkMeterProvider, Temporality, data::ResourceMetrics, exporter::PushMetricExporter},
};
use std::{
    sync::{Arc, Mutex, OnceLock},
    time::Duration,
};

/// Writes down what is exported.
#[derive(Debug, Clone, Default)]
struct Exported(Arc<Mutex<String>>);

impl PushMetricExporter for Exported {
    async fn export(&self, metrics: &ResourceMetrics) -> OTelSdkResult {
        *self.0.lock().expect("whole") = format!("{metrics:?}");
        Ok(())
    }
    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }
    fn shutdown_with_timeout(&self, _: Duration) -> OTelSdkResult {
        Ok(())
    }
    fn temporality(&self) -> Temporality {
        Temporality::Cumulative
    }
}

/// Every count of the process: tests that read it run side by side.
pub(crate) struct Metrics(&'static (SdkMeterProvider, Exported));

impl Metrics {
    /// Counts from here on: before the gateway is built.
    pub(crate) fn counted() -> Self {
        static COUNTED: OnceLock<(SdkMeterProvider, Exported)> = OnceLock::new();
        Self(COUNTED.get_or_init(|| {
            let exported = Exported::default();
            let reader = PeriodicReader::builder(exported.clone()).build();
            let provider = SdkMeterProvider::builder().with_reader(reader).build();
            opentelemetry::global::set_meter_provider(provider.clone());
            (provider, exported)
        }))
    }

    /// Everything, as the SDK shows it.
    pub(crate) fn told(&self) -> String {
        self.0.0.force_flush().expect("exported");
        self.0.1.0.lock().expect("whole").clone()
    }

    /// What is told of one metric; empty if it was never counted.
    pub(crate) fn of(&self, name: &str) -> String {
        let told = self.told();
        let found = told
            .split("Metric {")
            .find(|metric| metric.contains(&format!("\"{name}\"")));
        found.unwrap_or_default().to_owned()
    }
}
