//! Outcomes, from a node's end to the feedback store, off the plan's critical path.
//!
//! [`outcome`] makes one of a node's result; [`frame`] and [`files`] keep it in a folder; [`spool`] is the one thread that touches
//! that folder; [`deliver`] brings it to feedback and hears its acknowledgement; [`stored`] reads a plan's back from there. An outcome is in the page cache before the event
//! that tells of its node is sent, so a killed gateway loses none; it is deleted when feedback has it on disk, and not before.
use crate::{error::Error, telemetry::Instruments};
use shoal_kit::config;
use shoal_proto::v1;
use std::{sync::Arc, time::Duration};

pub(crate) mod deliver;
mod files;
mod frame;
pub(crate) mod outcome;
pub(crate) mod spool;
pub(crate) mod stored;

pub use files::Unusable;
use spool::Spool;

/// How long an event waits for its outcome to be written. A write to the page cache takes microseconds; a disk that takes longer
/// must not hold a plan past its deadline, and what waits is written once the disk takes it.
const PATIENCE: Duration = Duration::from_millis(500);

/// Where a node's outcome goes.
#[derive(Debug, Clone)]
pub(crate) enum Recorder {
    /// `feedback = ""`: nowhere.
    Nowhere,
    /// To the spool, and from there to feedback.
    Spooled(Spool),
}

/// Called with the plan of every outcome that feedback has acknowledged.
pub(crate) type Acknowledged = Arc<dyn Fn(&str) + Send + Sync>;

impl Recorder {
    /// Takes the spool's folder, if outcomes are kept.
    ///
    /// # Errors
    /// When the folder is held or cannot be written.
    pub(crate) fn open(config: &config::Gateway, instruments: &Instruments) -> Result<Self, Unusable> {
        if config.feedback.is_empty() {
            return Ok(Self::Nowhere);
        }
        let spool = Spool::open(&config.spool, config.spool_max_bytes, instruments.clone())?;
        Ok(Self::Spooled(spool))
    }

    /// Whether outcomes of one more plan will find room.
    ///
    /// # Errors
    /// `Full`, with what to do.
    pub(crate) fn room(&self) -> Result<(), Error> {
        match self {
            Self::Nowhere => Ok(()),
            Self::Spooled(spool) => spool.room(),
        }
    }

    /// Keeps an outcome. It is not lost if the caller stops waiting.
    pub(crate) async fn keep(&self, outcome: v1::Outcome) {
        let Self::Spooled(spool) = self else { return };
        let written = spool.append(&outcome);
        if tokio::time::timeout(PATIENCE, written).await.is_err() {
            tracing::error!(
                outcome_id = outcome.outcome_id,
                "the spool does not take an outcome: it stays in memory until the disk does"
            );
        }
    }

    /// A new outcome's id; empty if none is kept.
    pub(crate) fn id(&self) -> String {
        match self {
            Self::Nowhere => String::new(),
            Self::Spooled(_) => uuid::Uuid::now_v7().to_string(),
        }
    }
}
