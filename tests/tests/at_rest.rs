//! What a specialist holds while nobody asks it anything.
use anyhow::{Result, ensure};
use shoal_tests::{root, specialist::Specialist};

const BINARY: &str = env!("CARGO_BIN_EXE_shoal-under-test");

/// A filler of 1,024 tokens, a classifier of 512 and a tagger of 512.
const SHIPPED: [&str; 3] = ["summarize", "route", "tool_call"];

/// Of the most that it has held, at load: 0.3 to 0.5, and 0.75 to 0.85 where the arena keeps what the longest text took.
const SHARE: f64 = 0.62;

#[tokio::test(flavor = "multi_thread")]
#[expect(clippy::cast_precision_loss, reason = "KiB are far below 2^53")]
async fn what_an_encoder_takes_to_prove_itself_is_given_back_before_it_serves() -> Result<()> {
    for name in SHIPPED {
        let folder = root().canonicalize()?.join("models").join(name);
        let configuration = format!("[specialist.{name}]\nfolder = {:?}\n", folder.display().to_string());
        let specialist = Specialist::start(BINARY, name, &configuration).await?;
        let (most, now) = (specialist.status("VmHWM")?, specialist.status("VmRSS")?);
        ensure!(
            now as f64 <= SHARE * most as f64,
            "{name} holds {now} KiB at rest, of {most} KiB at most"
        );
    }
    Ok(())
}
