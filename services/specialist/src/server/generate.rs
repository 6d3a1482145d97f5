//! One generation as a stream, its deadline and its span held to the end.
use super::door::{Door, failed};
use crate::{
    engine::{Done, Event, Finish, Ticket},
    error::Error,
    specialist::Specialist,
};
use futures::Stream;
use shoal_kit::telemetry::names;
use shoal_proto::{time::duration, v1};
use std::time::{Duration, Instant};
use tokio::time::{timeout, timeout_at};
use tracing::Span;

/// How long a stream's headers wait for its first event, so that both leave in one piece. Alone they would be written, and read, while the engine
/// begins, on the cores that it needs then. An answer that takes longer to begin is no slower for a second piece.
const TOGETHER: Duration = Duration::from_millis(20);

/// A running generation.
pub(super) struct Generation {
    ticket: Ticket,
    deadline: Option<Instant>,
    deltas: usize,
    /// An event that came and was not given out yet.
    ahead: Option<Event>,
    span: Span,
    door: Door,
}

impl Generation {
    pub(super) fn new(ticket: Ticket, deadline: Option<Instant>, span: Span, door: Door) -> Self {
        Self {
            ticket,
            deadline,
            deltas: 0,
            ahead: None,
            span,
            door,
        }
    }

    /// Waits a moment for the first event, which stays to be given out: never for so long that tonic's own timer ends the call, in its own words.
    pub(super) async fn begun(mut self) -> Self {
        let left = self.deadline.map(|d| d.saturating_duration_since(Instant::now()));
        self.ahead = timeout(patience(left), self.came()).await.ok();
        self
    }

    /// The next event; text that is there already comes as one delta. While the caller keeps up that is a token, and while it does not, a message, a
    /// wake-up and a write are for as many as there are.
    pub(super) async fn next(&mut self) -> Event {
        let mut event = match self.ahead.take() {
            Some(event) => event,
            None => self.came().await,
        };
        let Event::Delta(text) = &mut event else {
            return event;
        };
        while let Some(more) = self.ticket.try_next() {
            self.note(&more);
            match more {
                Event::Delta(more) => text.push_str(&more),
                end => {
                    self.ahead = Some(end);
                    break;
                }
            }
        }
        event
    }

    /// The next event of the engine's. The deadline holds through the whole stream, whatever the engine is busy with: tonic's own timer stops at
    /// the headers.
    async fn came(&mut self) -> Event {
        let event = match self.deadline {
            None => self.ticket.next().await,
            Some(deadline) => match timeout_at(deadline.into(), self.ticket.next()).await {
                Ok(event) => event,
                // A delta is a token, or a few held back: near enough for a message.
                Err(_) => Event::Failed(Error::Expired {
                    generated: self.deltas + self.ticket.unsent(),
                }),
            },
        };
        self.note(&event);
        event
    }

    /// Counts an event that came; the last one closes the span.
    fn note(&mut self, event: &Event) {
        match event {
            Event::Delta(_) => self.deltas += 1,
            Event::Done(done) => {
                self.span.record(names::RPC_STATUS, "OK");
                self.span.record(names::GEN_AI_INPUT_TOKENS, done.input_tokens);
                self.span.record(names::GEN_AI_OUTPUT_TOKENS, done.tokens.len());
                self.span.record("shoal.confidence.score", done.confidence.score());
                self.door.answered(&self.span, || done.text.clone());
            }
            Event::Failed(error) => failed(&self.span, error),
        }
    }

    /// The whole answer.
    pub(super) async fn complete(mut self) -> Result<Done, Error> {
        self.ticket.await_end();
        loop {
            match self.next().await {
                Event::Delta(_) => {}
                Event::Done(done) => return Ok(*done),
                Event::Failed(error) => return Err(error),
            }
        }
    }

    /// As the contract streams it: deltas, then one end.
    pub(super) fn stream(self) -> impl Stream<Item = Result<v1::GenerateResponse, Error>> + Send + 'static {
        futures::stream::unfold(Some(self), async |state| {
            let mut generation = state?;
            let respond = |event| Ok(v1::GenerateResponse { event: Some(event) });
            Some(match generation.next().await {
                Event::Delta(text) => (respond(v1::generate_response::Event::Delta(text)), Some(generation)),
                Event::Done(done) => {
                    let done = to_wire(*done, generation.door.specialist());
                    (respond(v1::generate_response::Event::Done(done)), None)
                }
                Event::Failed(error) => (Err(error), None),
            })
        })
    }
}

/// How long headers wait, with so much time left to the call.
fn patience(left: Option<Duration>) -> Duration {
    left.map_or(TOGETHER, |left| TOGETHER.min(left / 2))
}

fn to_wire(done: Done, specialist: &Specialist) -> v1::GenerateDone {
    let finish = match done.finish {
        Finish::Stop => v1::generate_done::FinishReason::Stop,
        Finish::Length => v1::generate_done::FinishReason::Length,
    };
    let (input, output) = (done.input_tokens, done.tokens.len());
    v1::GenerateDone {
        usage: Some(usage(input, output, specialist)),
        timings: Some(v1::Timings {
            tokenize: Some(duration(done.timings.tokenize)),
            queue: Some(duration(done.timings.queue)),
            prefill: Some(duration(done.timings.prefill)),
            decode: Some(duration(done.timings.decode)),
        }),
        confidence: Some(done.confidence.to_wire()),
        finish_reason: finish as i32,
        model: specialist.identity(),
        text: done.text,
    }
}

/// Tokens and what they cost.
pub(super) fn usage(input: usize, output: usize, specialist: &Specialist) -> v1::Usage {
    v1::Usage {
        input_tokens: input as u64,
        output_tokens: output as u64,
        cost_usd: specialist.cost_usd(input, output),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{server::door::Doors, versions::Serving};
    use shoal_kit::{config, onnxruntime};
    use std::{path::Path, sync::Arc};
    use tokio::sync::{mpsc, watch};

    /// A generation whose engine is the test: what is sent is what it hears.
    fn generation(deadline: Option<Instant>) -> (mpsc::Sender<Event>, Generation) {
        let library = onnxruntime::locate(&config::OnnxRuntime::default(), &|_| {}).expect("ONNX Runtime");
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/models/tiny_classifier");
        let specialist = Specialist::load(&path, &config::Specialist::default(), &library.path).expect("a good folder");
        let serving = Serving {
            specialist: Arc::new(specialist),
            refused: None,
        };
        let door = Doors::new(watch::channel(serving).1, false).open();
        let (engine, events) = mpsc::channel(4);
        let generation = Generation::new(Ticket::new(events), deadline, Span::none(), door);
        (engine, generation)
    }

    async fn deltas(generation: &mut Generation, wanted: &[&str]) {
        for text in wanted {
            let event = generation.next().await;
            assert!(
                matches!(&event, Event::Delta(delta) if delta == text),
                "{event:?}, not {text}"
            );
        }
    }

    #[tokio::test]
    async fn an_answer_that_has_begun_is_in_hand_and_in_order_when_the_headers_leave() {
        let (engine, generation) = generation(None);
        for text in ["a", "b"] {
            engine.send(Event::Delta(text.into())).await.expect("it listens");
        }
        let mut begun = generation.begun().await;
        assert!(begun.ahead.is_some());
        engine.send(Event::Delta("c".into())).await.expect("it listens");
        deltas(&mut begun, &["abc"]).await;
        assert_eq!(begun.deltas, 3, "each is counted once");
    }

    #[tokio::test]
    async fn text_that_is_there_is_one_delta_and_what_comes_after_it_stays_so() {
        for headers in [false, true] {
            let (engine, mut generation) = generation(None);
            let text = |text: &str| Event::Delta(text.into());
            for event in [text("a"), text("b"), Event::Failed(Error::Closing)] {
                engine.send(event).await.expect("it listens");
            }
            if headers {
                generation = generation.begun().await;
            }
            deltas(&mut generation, &["ab"]).await;
            let event = generation.next().await;
            assert!(matches!(event, Event::Failed(Error::Closing)), "{event:?}");
        }
    }

    #[tokio::test]
    async fn the_headers_of_a_slow_answer_leave_without_it_and_it_follows_whole() {
        let (engine, generation) = generation(None);
        let started = Instant::now();
        let mut begun = generation.begun().await;
        assert!(begun.ahead.is_none() && started.elapsed() >= TOGETHER);
        engine
            .send(Event::Delta("late".into()))
            .await
            .expect("it still listens");
        deltas(&mut begun, &["late"]).await;
    }

    #[tokio::test]
    async fn a_deadline_that_is_near_ends_the_wait_before_it_ends_the_answer() {
        assert_eq!(patience(None), TOGETHER);
        assert_eq!(patience(Some(Duration::from_secs(60))), TOGETHER);
        assert_eq!(patience(Some(TOGETHER)), TOGETHER / 2);
        assert_eq!(patience(Some(Duration::ZERO)), Duration::ZERO);
        let (_engine, generation) = generation(Some(Instant::now() + TOGETHER));
        let mut begun = generation.begun().await;
        let event = begun.next().await;
        assert!(
            matches!(event, Event::Failed(Error::Expired { generated: 0 })),
            "{event:?}"
        );
    }
}
