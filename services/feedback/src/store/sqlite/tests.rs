//! What the suite cannot ask of any engine: the file, and what an older version left in it.
use super::*;
use crate::store::suite::{self, NOW, feedback, outcome, second};
use v1::submit_feedback_request::Value;

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
    assert!(matches!(store.append(&[large("a")], NOW), Err(Error::Full(_))));
    store.limit_pages(1_000_000);
    store.append(&[large("a")], NOW).expect("there is room again");
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
        .append(&[outcome("a", "p", "1")], NOW)
        .expect("append");
    assert_eq!(
        Sqlite::open(&file).expect("again").of_plan("p").expect("read"),
        [outcome("a", "p", "1")]
    );
}

/// A file of the first version, with an outcome a line of `(plan, when it ended)` and a word on the node of each of `corrected`.
fn of_version_one(file: &Path, outcomes: &[(&str, i64)], corrected: &[&str]) {
    let old = Connection::open(file).expect("open");
    old.execute_batch(MIGRATIONS[0]).expect("schema");
    old.pragma_update(None, "user_version", 1).expect("version");
    for (plan, ended_us) in outcomes {
        let body = outcome(plan, plan, "1").encode_to_vec();
        let sql = "INSERT INTO outcome (outcome_id, plan_id, node_id, name, model, state, finished_us, body)
                   VALUES (?1, ?1, '1', 'tool_call', 'tool_call@1', 3, ?2, ?3)";
        old.execute(sql, params![plan, ended_us, body]).expect("outcome");
    }
    for plan in corrected {
        let body = feedback(plan, plan, "1", Value::CorrectionJson("1".into())).encode_to_vec();
        let sql = "INSERT INTO feedback (feedback_id, plan_id, node_id, body) VALUES (?1, ?1, '1', ?2)";
        old.execute(sql, params![plan, body]).expect("word");
    }
}

#[test]
fn outcomes_of_before_were_recorded_when_they_ended_and_words_keep_their_order() {
    let folder = tempfile::tempdir().expect("tempdir");
    let file = folder.path().join("x.sqlite");
    let seconds = |n: i64| n * 1_000_000;
    // One whose clock was wrong, and words that came in another order than the outcomes.
    of_version_one(
        &file,
        &[
            ("a", seconds(10)),
            ("b", seconds(20)),
            ("wrong", i64::MAX),
            ("c", seconds(30)),
        ],
        &["c", "a", "wrong", "b"],
    );
    let mut store = Sqlite::open(&file).expect("open");
    let plans = |page: Vec<Judged>| page.into_iter().map(|j| j.outcome.plan_id).collect::<Vec<_>>();
    let between = Filter {
        after: Some(second(10)),
        before: Some(second(30)),
        ..Filter::default()
    };
    assert_eq!(
        plans(store.page(&between, Position::START, 9, usize::MAX).expect("page")),
        ["a", "b"]
    );
    let again = feedback("again", "a", "1", Value::CorrectionJson("2".into()));
    store.judge(&again, SystemTime::now()).expect("judge");
    let all = store
        .page(&Filter::default(), Position::START, 9, usize::MAX)
        .expect("page");
    let mut words: Vec<_> = all.into_iter().flat_map(|j| j.feedback).collect();
    words.sort_by_key(|word| word.recorded);
    let ids: Vec<_> = words.iter().map(|word| word.said.feedback_id.as_str()).collect();
    assert_eq!(ids, ["c", "a", "wrong", "b", "again"]);
    assert!(words[0].recorded > second(30), "said before its outcome ended");
}

#[test]
fn a_page_is_searched_by_time_and_not_sorted() {
    let (_folder, store) = open();
    let mut statement = store
        .connection
        .prepare(&format!("EXPLAIN QUERY PLAN {PAGE}"))
        .expect("plan");
    let steps = statement.query_map(params![0, 0, 0, "n", "m", 1], |row| row.get::<_, String>(3));
    let steps: Vec<_> = steps.expect("plan").map(|step| step.expect("step")).collect();
    assert!(
        steps[0].contains("outcome_by_recorded (<expr>>? AND <expr><?)"),
        "{steps:?}"
    );
    assert!(!steps.iter().any(|step| step.contains("TEMP B-TREE")), "{steps:?}");
}
