//! A specialist that says what the test wants, when the test wants.
use super::process::{Killable, anywhere};
use futures::{StreamExt as _, stream::BoxStream};
use shoal_kit::status::Reason;
use shoal_proto::v1::{
    self,
    generate_done::FinishReason,
    generate_response::Event,
    specialist_service_server::{SpecialistService, SpecialistServiceServer},
};
use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::time::{Instant, sleep};
use tonic::{Request, Response, Status};

/// What a call comes to.
#[derive(Debug, Clone)]
pub(crate) enum Act {
    /// Says a text after a while, this sure.
    Say(String, Duration, f64),
    /// Says pieces, each after a while.
    Pieces(Vec<(Duration, String)>, f64),
    /// Says as much as it may, at once, and would have had more to say.
    Cut(String),
    /// Never ends.
    Hang,
    /// Refuses.
    Fail(Reason),
    /// Says a piece, and then nobody is there any more.
    Break(String),
}

/// Says it at once, and is sure of it.
pub(crate) fn say(text: impl Into<String>) -> Act {
    Act::Say(text.into(), Duration::ZERO, 0.99)
}

/// Says it at once, this sure.
pub(crate) fn unsure(text: impl Into<String>, score: f64) -> Act {
    Act::Say(text.into(), Duration::ZERO, score)
}

/// Answers after so many milliseconds with the name of what it was asked.
pub(crate) fn slow(millis: u64) -> Act {
    Act::Say("done".into(), Duration::from_millis(millis), 0.99)
}

/// Is not there.
pub(crate) fn down() -> Act {
    Act::Fail(Reason::Unavailable {
        message: "down".into(),
        retry_after: Duration::from_millis(1),
    })
}

/// What a call was.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    pub(crate) request: v1::GenerateRequest,
    pub(crate) traceparent: String,
    pub(crate) timeout: Option<Duration>,
    pub(crate) at: Instant,
}

impl Seen {
    /// The prompt's text or JSON.
    pub(crate) fn prompt(&self) -> String {
        match self.request.prompt.clone().and_then(|p| p.content) {
            Some(v1::prompt::Content::Text(text)) => text,
            Some(v1::prompt::Content::Json(json)) => json,
            Some(v1::prompt::Content::Messages(all)) => {
                let said: Vec<String> = all
                    .messages
                    .iter()
                    .map(|m| format!("{}: {}", m.role, m.content))
                    .collect();
                said.join("\n")
            }
            None => String::new(),
        }
    }
}

type Acting = Box<dyn Fn(&Seen, usize) -> Act + Send + Sync>;

#[derive(Default)]
pub(crate) struct Notes {
    pub(crate) calls: Mutex<Vec<Seen>>,
    /// Calls that were dropped before they had ended.
    pub(crate) dropped: AtomicUsize,
    /// Calls that run.
    pub(crate) live: AtomicUsize,
    /// Times that it was asked to describe itself.
    pub(crate) described: AtomicUsize,
}

impl Notes {
    pub(crate) fn count(&self) -> usize {
        self.calls.lock().expect("calls").len()
    }

    pub(crate) fn dropped(&self) -> usize {
        self.dropped.load(Ordering::SeqCst)
    }

    pub(crate) fn live(&self) -> usize {
        self.live.load(Ordering::SeqCst)
    }

    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.calls.lock().expect("calls").clone()
    }
}

/// How a stub is made.
pub(crate) struct Model {
    card: v1::DescribeResponse,
    act: Acting,
    address: SocketAddr,
    mute: bool,
}

/// A stub at work.
pub(crate) struct Specialist {
    pub(crate) server: Killable,
    pub(crate) notes: Arc<Notes>,
    card: Arc<Mutex<v1::DescribeResponse>>,
}

impl Specialist {
    /// Switches to the next version, as its card says after `change`.
    pub(crate) fn switch(&self, change: impl FnOnce(&mut v1::DescribeResponse)) {
        let mut card = self.card.lock().expect("card");
        card.version += 1;
        change(&mut card);
    }

    pub(crate) fn described(&self) -> usize {
        self.notes.described.load(Ordering::SeqCst)
    }
}

impl Model {
    /// A model of that name and task.
    pub(crate) fn new(name: &str, task: &str, act: impl Fn(&Seen, usize) -> Act + Send + Sync + 'static) -> Self {
        let card = v1::DescribeResponse {
            name: name.into(),
            version: 1,
            kind: "generate".into(),
            tasks: vec![v1::TaskCard {
                task: task.into(),
                ..v1::TaskCard::default()
            }],
            context_tokens: 512,
            max_new_tokens: 100,
            input_usd_per_million_tokens: 1.0,
            output_usd_per_million_tokens: 2.0,
            ..v1::DescribeResponse::default()
        };
        Self {
            card,
            act: Box::new(act),
            address: anywhere(),
            mute: false,
        }
    }

    /// Changes the card.
    pub(crate) fn card(mut self, change: impl FnOnce(&mut v1::DescribeResponse)) -> Self {
        change(&mut self.card);
        self
    }

    /// Changes what the card says of its first task.
    pub(crate) fn task(mut self, change: impl FnOnce(&mut v1::TaskCard)) -> Self {
        change(&mut self.card.tasks[0]);
        self
    }

    /// Under this score its answers are doubted.
    pub(crate) fn threshold(self, threshold: f64) -> Self {
        self.task(|t| t.confidence_threshold = threshold)
    }

    pub(crate) fn at(mut self, address: SocketAddr) -> Self {
        self.address = address;
        self
    }

    /// It never describes itself, and leaves whoever asks waiting.
    pub(crate) fn mute(mut self) -> Self {
        self.mute = true;
        self
    }

    pub(crate) fn start(self) -> Specialist {
        let notes = Arc::new(Notes::default());
        let card = Arc::new(Mutex::new(self.card.clone()));
        let stub = Stub {
            act: Arc::new(self.act),
            card: card.clone(),
            notes: notes.clone(),
            mute: self.mute,
        };
        let server = Killable::serve(self.address, &self.card.name, |s| {
            s.add(SpecialistServiceServer::new(stub))
        });
        Specialist { server, notes, card }
    }
}

struct Stub {
    act: Arc<Acting>,
    card: Arc<Mutex<v1::DescribeResponse>>,
    notes: Arc<Notes>,
    mute: bool,
}

/// Notices when a call is dropped.
struct Running(Arc<Notes>, bool);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.live.fetch_sub(1, Ordering::SeqCst);
        if !self.1 {
            self.0.dropped.fetch_add(1, Ordering::SeqCst);
        }
    }
}

fn confidence(score: f64) -> Option<v1::Confidence> {
    Some(v1::Confidence {
        score,
        ..v1::Confidence::default()
    })
}

fn done(
    card: &v1::DescribeResponse,
    text: String,
    score: f64,
    finish: FinishReason,
) -> Result<v1::GenerateResponse, Status> {
    let done = v1::GenerateDone {
        text,
        finish_reason: finish.into(),
        usage: Some(v1::Usage {
            input_tokens: 10,
            output_tokens: 5,
            cost_usd: 0.00002,
        }),
        timings: Some(v1::Timings::default()),
        confidence: confidence(score),
        model: format!("{}@{}", card.name, card.version),
    };
    Ok(v1::GenerateResponse {
        event: Some(Event::Done(done)),
    })
}

fn delta(text: &str) -> Result<v1::GenerateResponse, Status> {
    Ok(v1::GenerateResponse {
        event: Some(Event::Delta(text.to_owned())),
    })
}

impl Stub {
    fn card(&self) -> v1::DescribeResponse {
        self.card.lock().expect("card").clone()
    }

    fn enter<T>(&self, request: &Request<T>, asked: v1::GenerateRequest) -> (Act, Running) {
        let header = |name: &str| {
            request
                .metadata()
                .get(name)
                .and_then(|v| v.to_str().ok())
                .unwrap_or_default()
                .to_owned()
        };
        let seen = Seen {
            request: asked,
            traceparent: header("traceparent"),
            timeout: shoal_kit::deadline::of(request.metadata()).expect("a timeout that can be read"),
            at: Instant::now(),
        };
        let mut calls = self.notes.calls.lock().expect("calls");
        let act = (self.act)(&seen, calls.len());
        calls.push(seen);
        drop(calls);
        self.notes.live.fetch_add(1, Ordering::SeqCst);
        (act, Running(self.notes.clone(), false))
    }
}

#[tonic::async_trait]
impl SpecialistService for Stub {
    type GenerateStream = BoxStream<'static, Result<v1::GenerateResponse, Status>>;

    async fn generate(&self, request: Request<v1::GenerateRequest>) -> Result<Response<Self::GenerateStream>, Status> {
        let asked = request.get_ref().clone();
        let (act, mut running) = self.enter(&request, asked);
        let card = self.card();
        let pieces = match act {
            Act::Fail(reason) => {
                running.1 = true;
                return Err(reason.into());
            }
            Act::Hang => {
                let forever = futures::stream::once(async move {
                    let _held = running;
                    std::future::pending().await
                });
                return Ok(Response::new(forever.boxed()));
            }
            Act::Break(piece) => {
                running.1 = true;
                let broken = futures::stream::iter([delta(&piece), Err(Status::from_error("broken pipe".into()))]);
                return Ok(Response::new(broken.boxed()));
            }
            Act::Say(text, after, score) => (vec![(after, text)], score, FinishReason::Stop),
            Act::Pieces(pieces, score) => (pieces, score, FinishReason::Stop),
            Act::Cut(text) => (vec![(Duration::ZERO, text)], 0.99, FinishReason::Length),
        };
        let (pieces, score, finish) = pieces;
        let whole: String = pieces.iter().map(|p| p.1.as_str()).collect();
        let script = futures::stream::iter(pieces).then(|(after, piece)| async move {
            sleep(after).await;
            delta(&piece)
        });
        let end = futures::stream::once(async move {
            // All of it moves in here: naming a field alone would leave the rest outside.
            let mut running = running;
            running.1 = true;
            done(&card, whole, score, finish)
        });
        Ok(Response::new(script.chain(end).boxed()))
    }

    async fn classify(&self, request: Request<v1::ClassifyRequest>) -> Result<Response<v1::ClassifyResponse>, Status> {
        let asked = v1::GenerateRequest {
            task: request.get_ref().task.clone(),
            prompt: Some(v1::Prompt {
                content: Some(v1::prompt::Content::Text(request.get_ref().texts.join("|"))),
            }),
            priority: request.get_ref().priority,
            slack: request.get_ref().slack,
            ..v1::GenerateRequest::default()
        };
        let (act, mut running) = self.enter(&request, asked);
        let (label, score) = match act {
            Act::Say(text, after, score) => {
                sleep(after).await;
                running.1 = true;
                (text, score)
            }
            Act::Fail(reason) => {
                running.1 = true;
                return Err(reason.into());
            }
            other => panic!("a classifier does not {other:?}"),
        };
        let named = |name: String, score: f64| v1::Label { name, score };
        let card = self.card();
        let labels = vec![named(label, score), named("other".into(), 1.0 - score)];
        Ok(Response::new(v1::ClassifyResponse {
            results: vec![v1::Classification { labels }],
            model: format!("{}@{}", card.name, card.version),
            usage: Some(v1::Usage::default()),
            ..v1::ClassifyResponse::default()
        }))
    }

    async fn embed(&self, _: Request<v1::EmbedRequest>) -> Result<Response<v1::EmbedResponse>, Status> {
        Err(Reason::NotInThisVersion { what: "Embed" }.into())
    }

    async fn describe(&self, _: Request<v1::DescribeRequest>) -> Result<Response<v1::DescribeResponse>, Status> {
        self.notes.described.fetch_add(1, Ordering::SeqCst);
        if self.mute {
            std::future::pending::<()>().await;
        }
        Ok(Response::new(self.card()))
    }
}
