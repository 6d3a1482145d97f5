//! `shoal eval` through a running mesh agrees with score.py to the digit.
use anyhow::{Context as _, Result};
use serde_json::Value;
use shoal_tests::{command, mesh::Mesh, root};

const BINARY: &str = env!("CARGO_BIN_EXE_shoal-under-test");

/// Equal; of BLEU, whose last digit is the mathematics library's, as good as that.
fn alike(key: &str, ours: &Value, theirs: &Value) -> bool {
    match (ours.as_f64().zip(theirs.as_f64()), theirs.as_object()) {
        (Some((ours, theirs)), _) if key == "bleu" => (ours - theirs).abs() < 1e-9,
        (None, Some(theirs)) => theirs.iter().all(|(key, value)| alike(key, &ours[key], value)),
        _ => ours == theirs,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_figures_of_eval_are_score_pys_to_the_digit() -> Result<()> {
    let mesh = Mesh::up(BINARY, &[], |_| ()).await?;
    // Refused before anybody is asked: nobody is there.
    let sample = root().join("tests/data/route.sample.jsonl").display().to_string();
    let nowhere = mesh.folder().join("missing/p.jsonl").display().to_string();
    let unwritable = [
        "eval",
        "route",
        &sample,
        "--predictions",
        &nowhere,
        "--gateway",
        "http://127.0.0.1:9",
    ];
    let done = command::run(BINARY, mesh.folder(), &unwritable, &[]).await?;
    assert!(done.code == Some(64) && done.err.contains(&nowhere), "{done:?}");
    for (task, rows) in [
        ("tool_call", 60),
        ("plan", 25),
        ("episode", 15),
        ("route", 60),
        ("extract", 60),
        ("compose", 40),
        ("summarize", 6),
    ] {
        let sample = std::fs::read_to_string(root().join(format!("tests/data/{task}.sample.jsonl")))?;
        let gold = mesh.folder().join(format!("{task}.gold.jsonl"));
        std::fs::write(&gold, sample.lines().take(rows).collect::<Vec<_>>().join("\n") + "\n")?;
        let predictions = mesh.folder().join(format!("{task}.predictions.jsonl"));
        let (gold, predictions) = (gold.display().to_string(), predictions.display().to_string());
        let done = mesh
            .shoal(&["eval", task, &gold, "--json", "--predictions", &predictions])
            .await?;
        assert_eq!(done.code, Some(0), "{done:?}");
        let ours = done.last()?;

        let score = root().join("services/trainer/shoal_trainer/score.py");
        let python = tokio::process::Command::new("python3")
            .arg(score)
            .args([task, &gold, &predictions])
            .output()
            .await?;
        let theirs: Value = serde_json::from_slice(&python.stdout)
            .with_context(|| String::from_utf8_lossy(&python.stderr).into_owned())?;
        for (key, value) in theirs.as_object().context("an object")? {
            assert!(
                alike(key, &ours[key], value),
                "{task}: {key} of {ours} is not score.py's {theirs}"
            );
        }
        if task == "compose" {
            assert!(ours["bleu"].as_f64().is_some_and(|bleu| bleu > 0.0), "{ours}");
            if theirs.get("bleu").is_none() {
                println!("skipped: needs sacrebleu in python3: BLEU was not held against it here");
            }
        }
        // A planner's text that is no plan is a missing answer, and so is a note that the context cut off; what a tagger or a
        // classifier reads off always is one.
        assert!(
            matches!(task, "episode" | "summarize") || ours["missing"] == 0,
            "every row was answered: {ours}"
        );
    }
    Ok(())
}
