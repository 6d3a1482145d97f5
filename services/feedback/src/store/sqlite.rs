//! The embedded engine: one SQLite file in WAL mode with `synchronous=FULL`, so that a commit that returned is on the disk.
//! (`NORMAL` would lose acknowledged commits on a power cut; WAL lets readers go on while a batch is written.)
use super::{Error, Filter, Judged, Position, Store, Word, micros};
use prost::Message as _;
use rusqlite::{Connection, ErrorCode, OptionalExtension as _, params};
use shoal_proto::{time, v1};
use std::{
    fs,
    path::Path,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

/// The schema's version, in `user_version`. Each step of [`MIGRATIONS`] leads to the next.
const MIGRATIONS: [&str; 2] = [
    "
CREATE TABLE outcome (
    row INTEGER PRIMARY KEY,
    outcome_id TEXT NOT NULL UNIQUE,
    plan_id TEXT NOT NULL,
    node_id TEXT NOT NULL,
    name TEXT NOT NULL,
    model TEXT NOT NULL,
    state INTEGER NOT NULL,
    finished_us INTEGER NOT NULL,   -- microseconds since 1970
    body BLOB NOT NULL              -- shoal.v1.Outcome
) STRICT;
CREATE INDEX outcome_by_plan ON outcome (plan_id, node_id);
CREATE INDEX outcome_by_name ON outcome (name, row);
CREATE TABLE feedback (
    row INTEGER PRIMARY KEY,
    feedback_id TEXT NOT NULL UNIQUE,
    plan_id TEXT NOT NULL,
    node_id TEXT NOT NULL,          -- empty: the whole plan
    body BLOB NOT NULL              -- shoal.v1.SubmitFeedbackRequest
) STRICT;
CREATE INDEX feedback_by_plan ON feedback (plan_id, node_id);
",
    // When a row was kept, in microseconds since 1970. Outcomes of before count from when they ended, and are not written anew, which would
    // take minutes in a large file. When a word of before was said is not known: it was after its plan's outcomes and after the words
    // before it, and its row is added so that no two are of one time. Nothing asked for outcome_by_name.
    "
ALTER TABLE outcome ADD COLUMN recorded_us INTEGER;
CREATE INDEX outcome_by_recorded ON outcome (coalesce(recorded_us, finished_us), row, name, model);
DROP INDEX outcome_by_name;
ALTER TABLE feedback ADD COLUMN recorded_us INTEGER NOT NULL DEFAULT 0;
UPDATE feedback SET recorded_us = known.at + known.row FROM (
    SELECT row, max(ended) OVER (ORDER BY row) AS at FROM (
        SELECT f.row AS row, coalesce(
            (SELECT max(min(o.finished_us, unixepoch() * 1000000)) FROM outcome AS o WHERE o.plan_id = f.plan_id), 0
        ) AS ended FROM feedback AS f
    )
) AS known WHERE known.row = feedback.row;
",
];

/// One page of an export. The first bound is what the index is searched by; names and models are read from it, not from the rows.
const PAGE: &str = "
SELECT coalesce(recorded_us, finished_us), row, body, NOT EXISTS (
    SELECT 1 FROM outcome AS later WHERE later.plan_id = outcome.plan_id AND later.node_id = outcome.node_id AND later.row > outcome.row
) FROM outcome
WHERE coalesce(recorded_us, finished_us) >= ?1 AND (coalesce(recorded_us, finished_us), row) > (?1, ?2)
    AND coalesce(recorded_us, finished_us) <= ?3 AND (?4 IS NULL OR name = ?4) AND (?5 IS NULL OR model = ?5)
ORDER BY coalesce(recorded_us, finished_us), row LIMIT ?6";

/// A reader and the writer may meet for the length of a checkpoint; a second is many of them.
const BUSY: Duration = Duration::from_secs(1);

/// The engine.
#[derive(Debug)]
pub struct Sqlite {
    connection: Connection,
}

impl Sqlite {
    /// Opens the file, makes it if it is not there, and brings its schema up to date.
    ///
    /// # Errors
    /// When the folder cannot be written, the file is no database, or it is from a newer version.
    pub fn open(path: &Path) -> Result<Self, Error> {
        if let Some(folder) = path.parent().filter(|f| !f.as_os_str().is_empty()) {
            fs::create_dir_all(folder)
                .map_err(|e| Error::Broken(format!("cannot make the folder {}: {e}", folder.display())))?;
        }
        let mut connection = Connection::open(path).map_err(broken)?;
        connection.busy_timeout(BUSY).map_err(broken)?;
        connection
            .pragma_update_and_check(None, "journal_mode", "WAL", |_| Ok(()))
            .map_err(broken)?;
        connection.pragma_update(None, "synchronous", "FULL").map_err(broken)?;
        connection.pragma_update(None, "foreign_keys", "ON").map_err(broken)?;
        let version: usize = connection
            .pragma_query_value(None, "user_version", |row| row.get::<_, i64>(0))
            .map_err(broken)?
            .try_into()
            .unwrap_or(0);
        if version > MIGRATIONS.len() {
            return Err(Error::Broken(format!(
                "its schema is version {version}, this shoal knows {}; use a newer shoal",
                MIGRATIONS.len()
            )));
        }
        let change = connection.transaction().map_err(broken)?;
        for migration in &MIGRATIONS[version..] {
            change.execute_batch(migration).map_err(broken)?;
        }
        change
            .pragma_update(
                None,
                "user_version",
                i64::try_from(MIGRATIONS.len()).unwrap_or(i64::MAX),
            )
            .map_err(broken)?;
        change.commit().map_err(broken)?;
        Ok(Self { connection })
    }

    /// What was said of the plan and, of the `latest` outcome of a node, of the node; and its size in bytes.
    fn feedback_on(&self, outcome: &v1::Outcome, latest: bool) -> Result<(Vec<Word>, usize), Error> {
        let sql = "SELECT recorded_us, body FROM feedback WHERE plan_id = ?1 AND node_id IN ('', iif(?3, ?2, '')) ORDER BY row";
        let mut statement = self.connection.prepare_cached(sql).map_err(broken)?;
        let mut rows = statement
            .query(params![outcome.plan_id, outcome.node_id, latest])
            .map_err(broken)?;
        let (mut words, mut bytes) = (Vec::new(), 0);
        while let Some(row) = rows.next().map_err(broken)? {
            let body: Vec<u8> = row.get(1).map_err(broken)?;
            let since = Duration::from_micros(row.get::<_, i64>(0).map_err(broken)?.try_into().unwrap_or(0));
            bytes += body.len();
            words.push(Word {
                recorded: UNIX_EPOCH + since,
                said: decode(&body)?,
            });
        }
        Ok((words, bytes))
    }

    #[cfg(test)]
    pub(crate) fn pragma(&self, name: &str) -> String {
        let text = |row: &rusqlite::Row<'_>| row.get::<_, rusqlite::types::Value>(0);
        match self.connection.pragma_query_value(None, name, text).expect("pragma") {
            rusqlite::types::Value::Text(text) => text,
            other => format!("{other:?}"),
        }
    }

    #[cfg(test)]
    pub(crate) fn limit_pages(&self, pages: i64) {
        self.connection
            .pragma_update_and_check(None, "max_page_count", pages, |_| Ok(()))
            .expect("pragma");
    }
}

impl Store for Sqlite {
    fn append(&mut self, outcomes: &[v1::Outcome], now: SystemTime) -> Result<(), Error> {
        let change = self.connection.transaction().map_err(broken)?;
        {
            let sql =
                "INSERT INTO outcome (outcome_id, plan_id, node_id, name, model, state, finished_us, body, recorded_us)
                       VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9) ON CONFLICT (outcome_id) DO NOTHING";
            let mut statement = change.prepare_cached(sql).map_err(broken)?;
            for o in outcomes {
                let values = params![
                    o.outcome_id,
                    o.plan_id,
                    o.node_id,
                    o.name,
                    o.model,
                    o.state,
                    o.finished_at.as_ref().and_then(time::system_time).map_or(0, micros),
                    o.encode_to_vec(),
                    micros(now)
                ];
                statement.execute(values).map_err(broken)?;
            }
        }
        change.commit().map_err(broken)
    }

    fn judge(&mut self, feedback: &v1::SubmitFeedbackRequest, now: SystemTime) -> Result<(), Error> {
        let (plan_id, node_id) = (&feedback.plan_id, &feedback.node_id);
        let change = self.connection.transaction().map_err(broken)?;
        let sql = "SELECT 1 FROM outcome WHERE plan_id = ?1 AND (?2 = '' OR node_id = ?2) LIMIT 1";
        let there = change
            .query_row(sql, params![plan_id, node_id], |_| Ok(()))
            .optional()
            .map_err(broken)?;
        if there.is_none() {
            return Err(Error::NoOutcome {
                plan_id: plan_id.clone(),
                node_id: node_id.clone(),
            });
        }
        let sql = "INSERT INTO feedback (feedback_id, plan_id, node_id, body, recorded_us) VALUES (?1, ?2, ?3, ?4, ?5)
                   ON CONFLICT (feedback_id) DO NOTHING";
        let body = feedback.encode_to_vec();
        change
            .execute(sql, params![feedback.feedback_id, plan_id, node_id, body, micros(now)])
            .map_err(broken)?;
        change.commit().map_err(broken)
    }

    fn of_plan(&mut self, plan_id: &str) -> Result<Vec<v1::Outcome>, Error> {
        let mut statement = self
            .connection
            .prepare_cached("SELECT body FROM outcome WHERE plan_id = ?1 ORDER BY row")
            .map_err(broken)?;
        let rows = statement
            .query_map(params![plan_id], |row| row.get::<_, Vec<u8>>(0))
            .map_err(broken)?;
        rows.map(|body| decode(&body.map_err(broken)?)).collect()
    }

    fn page(&mut self, filter: &Filter, after: Position, rows: usize, bytes: usize) -> Result<Vec<Judged>, Error> {
        // Rows are counted from 1, so row 0 of a moment is before all of it.
        let from = after.max(Position {
            recorded_us: filter.after.map_or(i64::MIN, micros),
            row: 0,
        });
        let mut statement = self.connection.prepare_cached(PAGE).map_err(broken)?;
        let values = params![
            from.recorded_us,
            i64::try_from(from.row).unwrap_or(i64::MAX),
            filter.before.map_or(i64::MAX, |t| micros(t).saturating_sub(1)),
            filter.name,
            filter.model,
            i64::try_from(rows).unwrap_or(i64::MAX)
        ];
        let mut found = statement.query(values).map_err(broken)?;
        let (mut page, mut taken) = (Vec::new(), 0);
        while taken < bytes
            && let Some(row) = found.next().map_err(broken)?
        {
            let body: Vec<u8> = row.get(2).map_err(broken)?;
            let outcome: v1::Outcome = decode(&body)?;
            let (feedback, said) = self.feedback_on(&outcome, row.get(3).map_err(broken)?)?;
            taken += body.len() + said;
            page.push(Judged {
                at: Position {
                    recorded_us: row.get(0).map_err(broken)?,
                    row: row.get::<_, i64>(1).map_err(broken)?.unsigned_abs(),
                },
                outcome,
                feedback,
            });
        }
        Ok(page)
    }
}

fn decode<M: prost::Message + Default>(body: &[u8]) -> Result<M, Error> {
    M::decode(body).map_err(|e| Error::Broken(format!("a stored row cannot be read: {e}")))
}

/// A full disk is told from a broken one: the first heals when there is room.
fn broken(error: rusqlite::Error) -> Error {
    match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => {
            Error::Full("no space is left; free some, what is not acknowledged will be sent again".into())
        }
        Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt) => Error::Broken(format!(
            "{error}: the file is no SQLite database or is damaged; move it away, or restore it from a backup"
        )),
        Some(ErrorCode::ReadOnly | ErrorCode::CannotOpen | ErrorCode::PermissionDenied) => Error::Broken(format!(
            "{error}: give this user the right to write the file and its folder"
        )),
        _ => Error::Broken(error.to_string()),
    }
}

#[cfg(test)]
mod tests;
