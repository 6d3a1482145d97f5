//! References are filled from what a tool really answered.
use anyhow::{Context as _, Result};
use serde_json::json;
use shoal_tests::mesh::{Mesh, set, without_models};

const BINARY: &str = env!("CARGO_BIN_EXE_shoal-under-test");

const PLAN: &str = r#"1. Restaurants_2.FindRestaurants(category="Coffeehouse", location="Newark")
2. RideSharing_1.GetRide(destination=$1.address, number_of_riders="2", shared_ride="True")
"#;

/// The cab's destination, where the coffeehouse stands at `address`.
async fn destination(address: &str) -> Result<String> {
    let rows = tempfile::tempdir()?;
    let file = rows.path().join("rows.jsonl");
    let row = json!({"service": "Restaurants_2", "method": "FindRestaurants", "result":
        {"restaurant_name": "Bean There", "category": "Coffeehouse", "location": "Newark", "address": address}});
    std::fs::write(&file, format!("{row}\n"))?;
    let mesh = Mesh::up(BINARY, &[], |config| {
        without_models(config);
        set(config, "concierge", "results", file.display().to_string());
    })
    .await?;
    let plan = mesh.folder().join("cab.plan");
    std::fs::write(&plan, PLAN)?;
    let done = mesh.shoal(&["run", "--json", &plan.display().to_string()]).await?;
    anyhow::ensure!(done.code == Some(0), "{done:?}");
    let last = done.last()?;
    let ride = last["nodes"].as_array().into_iter().flatten().find(|n| n["id"] == "2");
    let ride = ride.with_context(|| format!("no ride in {last}"))?;
    Ok(ride["input"]["destination"].as_str().unwrap_or_default().to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn changing_a_tools_answer_changes_the_call_that_depends_on_it() -> Result<()> {
    assert_eq!(destination("1 First Street").await?, "1 First Street");
    assert_eq!(destination("22 Second Avenue").await?, "22 Second Avenue");
    Ok(())
}
