//! What is put on a specialist: a load that keeps every row in use, and requests one after the other. Here, or in a process of its own on the cores
//! that the specialist has, so that a caller is on nobody else's.
use super::workload::{ROWS, text};
use anyhow::{Context as _, Result, anyhow, ensure};
use serde_json::json;
use shoal_kit::{channel, config};
use shoal_proto::v1::{self, generate_response::Event, specialist_service_client::SpecialistServiceClient};
use std::{
    process::Stdio,
    time::{Duration, Instant},
};
use tokio::process::{Child, Command};
use tonic::transport::Channel;

/// Tokens of a busy specialist's answers at most.
const TOKENS: u32 = 64;

/// The object that models/tool_call reads.
const UTTERANCE: &str = "play some jazz and then book a table for two";

/// One answer, on a machine where six are busy; and how long a load in a process of its own lasts at most.
const CALL: Duration = Duration::from_secs(60);

/// One answer: when, and how many tokens.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) began: Instant,
    pub(super) ended: Instant,
    pub(super) tokens: u64,
}

/// Keeps every row of a specialist in use until `end`; gives all answers, of which the last end after it.
pub(super) async fn batch_load(grpc: &str, end: Instant) -> Result<Vec<Answer>> {
    let client = SpecialistServiceClient::new(channel::connect_lazy(grpc)?);
    let caller = |caller: usize| {
        let client = client.clone();
        async move {
            let mut answers = Vec::new();
            while Instant::now() < end {
                let began = Instant::now();
                let tokens = generate(client.clone(), text(caller + answers.len() * ROWS), TOKENS).await?;
                let ended = Instant::now();
                answers.push(Answer { began, ended, tokens });
            }
            anyhow::Ok(answers)
        }
    };
    let all = futures::future::try_join_all((0..ROWS).map(caller)).await?;
    Ok(all.into_iter().flatten().collect())
}

/// Tokens of one answer.
async fn generate(mut client: SpecialistServiceClient<Channel>, text: String, max_tokens: u32) -> Result<u64> {
    let request = v1::GenerateRequest {
        prompt: Some(v1::Prompt {
            content: Some(v1::prompt::Content::Text(text)),
        }),
        sampling: Some(v1::Sampling {
            max_tokens: Some(max_tokens),
            ..Default::default()
        }),
        // A shipped decoder's form is made from an object of its task; what is measured here are tokens. A tagger has its own all the same.
        constraint: Some(v1::Constraint {
            form: Some(v1::constraint::Form::None(true)),
        }),
        ..Default::default()
    };
    let call = async {
        let mut events = client.generate(request).await?.into_inner();
        while let Some(event) = events.message().await? {
            if let Some(Event::Done(done)) = event.event {
                return Ok(done.usage.context("an answer says what it used")?.output_tokens);
            }
        }
        Err(anyhow!("an answer has an end"))
    };
    tokio::time::timeout(CALL, call)
        .await
        .map_err(|_| anyhow!("no answer within {CALL:?}"))?
}

/// A load in a process of its own; it ends with this value.
#[derive(Debug)]
pub(super) struct Occupied(Child);

impl Occupied {
    /// Begins a load on the specialist at `grpc`, whose core its caller shares.
    pub(super) fn start(grpc: &str, cpu: usize) -> Result<Self> {
        let child = Command::new(std::env::current_exe()?)
            .args(["occupy", grpc, &cpu.to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .kill_on_drop(true)
            .spawn()?;
        Ok(Self(child))
    }

    /// Whether the load has lasted until now.
    pub(super) fn still_running(&mut self) -> Result<()> {
        let ended = self.0.try_wait()?;
        ensure!(ended.is_none(), "the batch load has ended early: {ended:?}");
        Ok(())
    }
}

/// Seconds that each of so many requests took, one after the other, of a caller in a process of its own on the cores of the specialist: on another's
/// core it would now and then wait for that one's load, and that would count as the specialist's.
pub(super) async fn latencies(grpc: &str, cpus: &[usize], requests: usize) -> Result<Vec<f64>> {
    let asked = Command::new(std::env::current_exe()?)
        .args(["ask", grpc, &requests.to_string()])
        .args(cpus.iter().map(ToString::to_string))
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await?;
    ensure!(
        asked.status.success(),
        "a caller has no answer: {}",
        String::from_utf8_lossy(&asked.stderr)
    );
    let all: Vec<f64> = serde_json::from_slice(&asked.stdout)?;
    ensure!(all.len() == requests, "{} of {requests} requests were timed", all.len());
    Ok(all)
}

/// `shoal-loadtest ask`: what [`latencies`] starts; seconds on standard output.
///
/// # Errors
/// When an answer fails, or the cores are not to be had.
pub(crate) async fn ask(grpc: &str, cpus: Vec<usize>, requests: usize) -> Result<()> {
    let here = config::Specialist {
        cpus,
        ..config::Specialist::default()
    };
    shoal_specialist::confine(&here).map_err(|e| anyhow!(e))?;
    let client = SpecialistServiceClient::new(channel::connect_lazy(grpc)?);
    let mut all = Vec::with_capacity(requests);
    for i in 0..requests {
        let started = Instant::now();
        generate(client.clone(), format!("{UTTERANCE} {i}"), TOKENS).await?;
        all.push(started.elapsed().as_secs_f64());
    }
    println!("{}", json!(all));
    Ok(())
}

/// `shoal-loadtest occupy`: what [`Occupied`] starts. A batch's caller is on this machine for the measurement alone: it stands behind all others
/// and on the core that the batch has, so that what is measured is the specialists.
///
/// # Errors
/// When an answer fails.
pub(crate) async fn run(grpc: &str, cpu: usize) -> Result<()> {
    let behind = config::Specialist {
        background: true,
        cpus: vec![cpu],
        ..config::Specialist::default()
    };
    shoal_specialist::confine(&behind).map_err(|e| anyhow!(e))?;
    batch_load(grpc, Instant::now() + CALL).await.map(drop)
}
