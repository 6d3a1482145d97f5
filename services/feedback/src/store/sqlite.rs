//! The embedded engine: one SQLite file in WAL mode with `synchronous=FULL`, so that a commit that returned is on the disk.
//! (`NORMAL` would lose acknowledged commits on a power cut; WAL lets readers go on while a batch is written.)
use super::{Error, Filter, Judged, Store};
use prost::Message as _;
use rusqlite::{Connection, ErrorCode, OptionalExtension as _, params};
use shoal_proto::{time, v1};
use std::{fs, path::Path, time::Duration};

/// The schema's version, in `user_version`. Each step of [`MIGRATIONS`] leads to the next.
const MIGRATIONS: [&str; 1] = ["
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
"];

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

    fn feedback_on(&self, outcome: &v1::Outcome) -> Result<Vec<v1::SubmitFeedbackRequest>, Error> {
        let sql = "SELECT body FROM feedback WHERE plan_id = ?1 AND node_id IN ('', ?2) ORDER BY row";
        let mut statement = self.connection.prepare_cached(sql).map_err(broken)?;
        let rows = statement
            .query_map(params![outcome.plan_id, outcome.node_id], |row| {
                row.get::<_, Vec<u8>>(0)
            })
            .map_err(broken)?;
        rows.map(|body| decode(&body.map_err(broken)?)).collect()
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
    fn append(&mut self, outcomes: &[v1::Outcome]) -> Result<(), Error> {
        let change = self.connection.transaction().map_err(broken)?;
        {
            let sql = "INSERT INTO outcome (outcome_id, plan_id, node_id, name, model, state, finished_us, body)
                       VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8) ON CONFLICT (outcome_id) DO NOTHING";
            let mut statement = change.prepare_cached(sql).map_err(broken)?;
            for o in outcomes {
                let values = params![
                    o.outcome_id,
                    o.plan_id,
                    o.node_id,
                    o.name,
                    o.model,
                    o.state,
                    micros(o.finished_at.as_ref()),
                    o.encode_to_vec()
                ];
                statement.execute(values).map_err(broken)?;
            }
        }
        change.commit().map_err(broken)
    }

    fn judge(&mut self, feedback: &v1::SubmitFeedbackRequest) -> Result<(), Error> {
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
        let sql = "INSERT INTO feedback (feedback_id, plan_id, node_id, body) VALUES (?1, ?2, ?3, ?4) ON CONFLICT (feedback_id) DO NOTHING";
        change
            .execute(
                sql,
                params![feedback.feedback_id, plan_id, node_id, feedback.encode_to_vec()],
            )
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

    fn page(&mut self, filter: &Filter, row: u64, limit: usize) -> Result<Vec<Judged>, Error> {
        let sql =
            "SELECT row, body FROM outcome WHERE row > ?1 AND (?2 IS NULL OR name = ?2) AND (?3 IS NULL OR model = ?3)
                   AND (?4 IS NULL OR finished_us >= ?4) AND (?5 IS NULL OR finished_us < ?5) ORDER BY row LIMIT ?6";
        let mut statement = self.connection.prepare_cached(sql).map_err(broken)?;
        let bound = |t: Option<std::time::SystemTime>| t.map(|t| micros(Some(&time::timestamp(t))));
        let (row, limit) = (
            i64::try_from(row).unwrap_or(i64::MAX),
            i64::try_from(limit).unwrap_or(i64::MAX),
        );
        let values = params![
            row,
            filter.name,
            filter.model,
            bound(filter.after),
            bound(filter.before),
            limit
        ];
        let rows = statement
            .query_map(values, |row| Ok((row.get::<_, i64>(0)?, row.get::<_, Vec<u8>>(1)?)))
            .map_err(broken)?;
        let judged = rows.map(|row| {
            let (row, body) = row.map_err(broken)?;
            let outcome: v1::Outcome = decode(&body)?;
            Ok(Judged {
                row: row.unsigned_abs(),
                feedback: self.feedback_on(&outcome)?,
                outcome,
            })
        });
        judged.collect()
    }
}

fn micros(t: Option<&prost_types::Timestamp>) -> i64 {
    t.map_or(0, |t| {
        t.seconds
            .saturating_mul(1_000_000)
            .saturating_add(i64::from(t.nanos / 1000))
    })
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
mod tests {
    use super::*;
    use crate::store::suite::{self, outcome};

    fn open() -> (tempfile::TempDir, Sqlite) {
        let folder = tempfile::tempdir().expect("tempdir");
        let store = Sqlite::open(&folder.path().join("deep/outcomes.sqlite")).expect("open");
        (folder, store)
    }

    #[test]
    fn sqlite_passes_the_suite() {
        suite::run(|| {
            let (folder, store) = open();
            (Box::new(folder), Box::new(store))
        });
    }

    #[test]
    fn the_writer_is_in_wal_mode_and_syncs_every_commit() {
        let (_folder, store) = open();
        assert_eq!(store.pragma("journal_mode"), "wal");
        // 2 is FULL: 1 (NORMAL) would lose acknowledged commits on a power cut.
        assert_eq!(store.pragma("synchronous"), "Integer(2)");
    }

    #[test]
    fn a_full_disk_is_told_from_a_broken_one_and_heals() {
        let (_folder, mut store) = open();
        store.limit_pages(20);
        let large = |id: &str| v1::Outcome {
            input_json: "x".repeat(100_000),
            ..outcome(id, "p", "1")
        };
        assert!(matches!(store.append(&[large("a")]), Err(Error::Full(_))));
        store.limit_pages(1_000_000);
        store.append(&[large("a")]).expect("there is room again");
        assert_eq!(store.of_plan("p").expect("read").len(), 1);
    }

    #[test]
    fn what_is_no_database_or_cannot_be_written_is_refused_with_what_to_do() {
        let folder = tempfile::tempdir().expect("tempdir");
        let file = folder.path().join("x.sqlite");
        fs::write(
            &file,
            "this is not a database, and long enough to be looked at as one: ".repeat(20),
        )
        .expect("write");
        let said = Sqlite::open(&file).expect_err("corrupt").to_string();
        assert!(said.contains("move it away"), "{said}");
        let said = Sqlite::open(&file.join("under-a-file/x.sqlite"))
            .expect_err("no folder")
            .to_string();
        assert!(said.contains("cannot make the folder"), "{said}");
    }

    #[test]
    fn what_was_kept_is_there_after_a_reopening() {
        let folder = tempfile::tempdir().expect("tempdir");
        let file = folder.path().join("x.sqlite");
        Sqlite::open(&file)
            .expect("open")
            .append(&[outcome("a", "p", "1")])
            .expect("append");
        assert_eq!(
            Sqlite::open(&file).expect("again").of_plan("p").expect("read"),
            [outcome("a", "p", "1")]
        );
    }
}
