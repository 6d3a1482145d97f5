//! An export on its way: the store page by page into rows, as fast as somebody reads them.
use crate::{
    commit::reason,
    dataset::{self, Wanted},
    store::{Error, Filter, Store as _, sqlite::Sqlite},
};
use shoal_kit::{serve, status::Reason, task};
use shoal_proto::v1::{self, export_dataset_request::Format};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tonic::Status;

/// Outcomes of one export page: under a megabyte, so that a slow reader holds little memory.
const PAGE: usize = 200;

/// Where pages go.
type Pages = mpsc::Sender<Result<v1::ExportDatasetResponse, Status>>;

/// What is exported, and from where.
pub(crate) struct Export {
    pub(crate) reader: Arc<Mutex<Sqlite>>,
    pub(crate) filter: Filter,
    pub(crate) wanted: Wanted,
    pub(crate) format: Format,
    /// Rows at most.
    pub(crate) limit: u64,
}

impl Export {
    /// Sends pages until there are no more, nobody reads them, or `shutdown`: then the reader is told that it has not seen all.
    /// No thread waits for the reader, who may take for ever; a blocked one would hold up the runtime's end.
    pub(crate) async fn run(self, pages: Pages, shutdown: CancellationToken) {
        let status = match shutdown.run_until_cancelled(Arc::new(self).send(&pages)).await {
            Some(Ok(())) => return,
            Some(Err(status)) => status,
            None => serve::draining("feedback").into(),
        };
        drop(pages.send(Err(status)).await);
    }

    async fn send(self: Arc<Self>, pages: &Pages) -> Result<(), Status> {
        let (mut row, mut sent) = (0, 0_u64);
        while sent < self.limit {
            let export = self.clone();
            let page = task::blocking("dataset export", move || export.page(row)).await;
            let page = page.map_err(|e| Reason::Internal {
                message: format!("the reader ended: {e}"),
            })?;
            let Some((last, mut lines)) = page.map_err(|e| reason(&e))? else {
                return Ok(());
            };
            row = last;
            lines.truncate(usize::try_from(self.limit - sent).unwrap_or(usize::MAX));
            sent += lines.len() as u64;
            if !lines.is_empty() && pages.send(Ok(v1::ExportDatasetResponse { lines })).await.is_err() {
                return Ok(());
            }
        }
        Ok(())
    }

    /// The rows of one page of outcomes after `row`, and where it ends; `None` past the last. The store is free between any two
    /// questions, for others that read.
    fn page(&self, row: u64) -> Result<Option<(u64, Vec<String>)>, Error> {
        let store = || self.reader.lock().unwrap_or_else(PoisonError::into_inner);
        let page = store().page(&self.filter, row, PAGE)?;
        let Some(last) = page.last() else { return Ok(None) };
        let mut lines = Vec::new();
        for judged in &page {
            let plan = if judged.outcome.node_id == "planner" {
                store().of_plan(&judged.outcome.plan_id).unwrap_or_default()
            } else {
                Vec::new()
            };
            lines.extend(dataset::row(judged, &plan, self.wanted, self.format));
        }
        Ok(Some((last.row, lines)))
    }
}
