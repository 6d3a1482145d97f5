//! What everything that serves a request shares: configuration, the registry, where outcomes go. Passed down, never global.
use crate::{
    admit::{Admission, Catalogue},
    outcomes::{Recorder, stored::Stored},
    plans::Plans,
    route::Registry,
    telemetry::Instruments,
};
use shoal_kit::config::{self, MeshConfig};
use std::{collections::BTreeSet, sync::Arc};
use tokio_util::sync::CancellationToken;

/// See the module.
#[derive(Debug)]
pub(crate) struct Context {
    pub(crate) config: config::Gateway,
    pub(crate) registry: Arc<Registry>,
    pub(crate) recorder: Recorder,
    /// Where outcomes are stored in the end, for plans that are forgotten here.
    pub(crate) stored: Stored,
    pub(crate) plans: Plans,
    pub(crate) instruments: Instruments,
    /// Put prompts and outputs on spans.
    pub(crate) content: bool,
    /// Cancelled once the process leaves: nothing new is taken.
    pub(crate) leaving: CancellationToken,
}

impl Context {
    pub(crate) fn new(
        config: &MeshConfig,
        registry: Arc<Registry>,
        recorder: Recorder,
        stored: Stored,
        plans: Plans,
        instruments: Instruments,
    ) -> Self {
        Self {
            config: config.gateway.clone(),
            registry,
            recorder,
            stored,
            plans,
            instruments,
            content: config.telemetry.content,
            leaving: CancellationToken::new(),
        }
    }

    /// The rules of a request whose client answers these tools itself.
    pub(crate) fn admission<'a>(&'a self, client_tools: &'a BTreeSet<String>) -> Admission<'a> {
        let catalogue: &dyn Catalogue = &*self.registry;
        Admission {
            config: &self.config,
            catalogue,
            client_tools,
        }
    }
}
