//! An export on its way: the store page by page into rows, as fast as somebody reads them.
use crate::{
    commit::reason,
    dataset::{self, Wanted},
    store::{Error, Filter, Position, Store as _, sqlite::Sqlite},
};
use shoal_kit::{serve, status::Reason, task};
use shoal_proto::v1::{self, export_dataset_request::Format};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tonic::Status;

/// Outcomes of one export page at most: a page of what is usual is some hundred kilobytes.
const PAGE: usize = 200;

/// Bytes after which a page ends, and of the lines of one response at most: what a slow reader holds is little, and a client with
/// tonic's usual limit of 4 MiB reads it. An outcome may have 16 MiB; one that is larger is a page, and a response, by itself.
const BYTES: usize = 1 << 20;

/// A line's tag and length on the wire, at most.
const FRAMED: usize = 6;

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
        let (mut after, mut sent) = (Position::START, 0_u64);
        while sent < self.limit {
            let export = self.clone();
            let page = task::blocking("dataset export", move || export.page(after)).await;
            let page = page.map_err(|e| Reason::Internal {
                message: format!("the reader ended: {e}"),
            })?;
            let Some((last, mut lines)) = page.map_err(|e| reason(&e))? else {
                return Ok(());
            };
            after = last;
            lines.truncate(usize::try_from(self.limit - sent).unwrap_or(usize::MAX));
            sent += lines.len() as u64;
            for lines in apart(lines) {
                if pages.send(Ok(v1::ExportDatasetResponse { lines })).await.is_err() {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// The rows of one page of outcomes after `after`, and where it ends; `None` past the last. The store is free between any two
    /// questions, for others that read.
    fn page(&self, after: Position) -> Result<Option<(Position, Vec<String>)>, Error> {
        let store = || self.reader.lock().unwrap_or_else(PoisonError::into_inner);
        let page = store().page(&self.filter, after, PAGE, BYTES)?;
        let (mut last, mut lines, mut bytes) = (None, Vec::new(), 0);
        for judged in &page {
            // A planner's row has its steps' answers as well, and may be far larger than its outcome.
            if bytes >= BYTES {
                break;
            }
            let plan = if judged.outcome.node_id == "planner" {
                store().of_plan(&judged.outcome.plan_id)?
            } else {
                Vec::new()
            };
            let line = dataset::row(judged, &plan, self.wanted, self.format);
            bytes += line.as_ref().map_or(0, String::len);
            lines.extend(line);
            last = Some(judged.at);
        }
        Ok(last.map(|last| (last, lines)))
    }
}

/// Lines as those of responses: in their order, as many in each as fit, a longer one alone.
fn apart(lines: Vec<String>) -> Vec<Vec<String>> {
    let (mut responses, mut bytes): (Vec<Vec<String>>, _) = (Vec::new(), 0);
    for line in lines {
        let framed = line.len() + FRAMED;
        match responses.last_mut().filter(|_| bytes + framed <= BYTES) {
            Some(response) => response.push(line),
            None => {
                responses.push(vec![line]);
                bytes = 0;
            }
        }
        bytes += framed;
    }
    responses
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_response_has_as_many_lines_as_fit_and_a_longer_line_is_alone() {
        let line = |kilobytes: usize| "x".repeat(kilobytes * 1024);
        let sizes = |kilobytes: &[usize]| -> Vec<Vec<usize>> {
            let responses = apart(kilobytes.iter().copied().map(line).collect());
            let size = |lines: Vec<String>| lines.iter().map(|line| line.len() / 1024).collect();
            responses.into_iter().map(size).collect()
        };
        assert_eq!(sizes(&[]), Vec::<Vec<usize>>::new());
        assert_eq!(sizes(&[400, 400, 400, 1]), [vec![400, 400], vec![400, 1]]);
        assert_eq!(sizes(&[1, 5000, 1, 1]), [vec![1], vec![5000], vec![1, 1]]);
        assert_eq!(sizes(&[5000]), [vec![5000]]);
    }
}
