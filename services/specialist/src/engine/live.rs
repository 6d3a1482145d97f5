//! A live row: what it carries, what a step's logits come to, and its last word.
use super::{
    Done, Event, Row, Timings,
    call::Hearing,
    queue::Urgency,
    sequence::{Advance, Finish, Sequence},
};
use crate::telemetry::Instruments;
use std::{sync::Arc, time::Instant};
use tokio::sync::mpsc;
use tracing::Span;

/// A live row.
pub(super) struct Live {
    pub(super) sequence: Sequence,
    /// The token to read next, and the positions filled before it.
    pub(super) next: Row,
    pub(super) input_tokens: usize,
    pub(super) urgency: Urgency,
    pub(super) events: mpsc::Sender<Event>,
    pub(super) hearing: Arc<Hearing>,
    pub(super) timings: Timings,
    pub(super) decode_from: Instant,
    pub(super) steps: u64,
    pub(super) span: Span,
    /// Text that the last logits came to, and that is still to be sent.
    pub(super) unsaid: String,
}

impl Live {
    /// Sends what the last logits came to, if the caller wants it before the end. Never waits: the channel has room for every event of its request.
    pub(super) fn say(&mut self) {
        let text = std::mem::take(&mut self.unsaid);
        if !text.is_empty() && self.hearing.wants_a_piece() {
            let _ = self.events.try_send(Event::Delta(text));
        }
    }
}

/// What became of a row.
pub(super) enum Fate {
    Stays,
    Ends(&'static str),
}

/// Takes a row's logits. What they came to is for [`Live::say`].
pub(super) fn advance(live: &mut Live, logits: &[f32]) -> Fate {
    match live.sequence.advance(logits) {
        Ok(Advance::On { token, text }) => {
            live.unsaid = text;
            live.next.token = token;
            Fate::Stays
        }
        Ok(Advance::End { finish, text }) => {
            live.unsaid = text;
            Fate::Ends(match finish {
                Finish::Stop => "stop",
                Finish::Length => "length",
            })
        }
        Err(error) => {
            let _ = live.events.try_send(Event::Failed(error));
            Fate::Ends("failed")
        }
    }
}

/// Says the last word to the caller, if there is one to say, and closes the row's span.
pub(super) fn finish(live: Live, outcome: &'static str, instruments: &Instruments) {
    let Live {
        sequence,
        events,
        mut timings,
        decode_from,
        steps,
        span,
        input_tokens,
        ..
    } = live;
    span.record("shoal.decode.steps", steps);
    span.record("gen_ai.usage.output_tokens", sequence.generated());
    timings.decode = decode_from.elapsed();
    instruments.ended(outcome);
    let finish = match outcome {
        "stop" => Finish::Stop,
        "length" => Finish::Length,
        _ => return,
    };
    let (text, tokens, confidence) = sequence.into_parts();
    let done = Done {
        text,
        finish,
        input_tokens,
        tokens,
        timings,
        confidence,
    };
    // The span ends before the caller can end the request's: children close before their parent.
    drop(span);
    let _ = events.try_send(Event::Done(Box::new(done)));
}
