//! Tools that a plan's own client answers: the question leaves as an event, the answer comes back on the client's stream.
use super::call::answer_of;
use crate::error::Error;
use serde_json::Value;
use shoal_kit::status;
use shoal_proto::v1::{self, tool_result::Outcome};
use std::{
    collections::{BTreeSet, HashMap},
    sync::{Mutex, PoisonError},
};
use tokio::sync::oneshot;
use tonic::Code;

type Answer = Result<Value, Error>;

/// Who answers these tools.
pub(crate) const CLIENT: &str = "client";

/// A client that has half-closed its stream cannot send an answer.
fn gone() -> Error {
    Error::Unfit {
        reason: "CLIENT_GONE",
        what: "the client has closed its side of the stream, and answers its tools no more; keep it open until they are answered".into(),
    }
}

/// A client's fault, held to what everybody's is: the code of an error, a reason that is a name, and a message that fits an event and a log.
fn held(fault: v1::Fault) -> v1::Fault {
    let code = match Code::from(fault.code) {
        Code::Ok => Code::Unknown,
        code => code,
    };
    let word = |c: u8| c.is_ascii_uppercase() || c.is_ascii_digit() || c == b'_';
    let named = (1..=REASON_BYTES).contains(&fault.reason.len()) && fault.reason.bytes().all(word);
    let code = code as i32;
    let reason = if named {
        fault.reason
    } else {
        status::code_name(code).to_owned()
    };
    status::to_fault(&status::from_fault(&v1::Fault { code, reason, ..fault }))
}

/// Bytes of a reason: what google.rpc.ErrorInfo allows.
const REASON_BYTES: usize = 63;

/// The calls of one plan.
#[derive(Debug)]
pub(crate) struct ClientTools {
    names: BTreeSet<String>,
    calls: Mutex<Calls>,
}

#[derive(Debug, Default)]
struct Calls {
    /// The client has nothing more to say.
    closed: bool,
    open: HashMap<String, oneshot::Sender<Answer>>,
    /// Calls that have ended, by whatever: an answer that comes too late is not a fault of the client's.
    ended: BTreeSet<String>,
}

impl ClientTools {
    pub(crate) fn new(names: BTreeSet<String>) -> Self {
        Self {
            names,
            calls: Mutex::default(),
        }
    }

    /// What the client answers itself.
    pub(crate) fn names(&self) -> &BTreeSet<String> {
        &self.names
    }

    /// What a tool is called in metrics. A client chooses its tools' names, and each would be a series of its own for ever.
    pub(crate) fn label<'a>(&self, name: &'a str) -> &'a str {
        if self.names.contains(name) { CLIENT } else { name }
    }

    /// Opens a call; the id goes out, the answer comes in.
    ///
    /// # Errors
    /// Once the client's side is closed.
    pub(crate) fn open(&self) -> Result<Open<'_>, Error> {
        let (sender, answer) = oneshot::channel();
        let id = uuid::Uuid::now_v7().to_string();
        let mut calls = self.lock();
        if calls.closed {
            return Err(gone());
        }
        calls.open.insert(id.clone(), sender);
        Ok(Open {
            tools: self,
            id,
            answer,
        })
    }

    /// Ends the client's side: what is open fails, and nothing more is asked.
    pub(crate) fn close(&self) {
        let open = {
            let mut calls = self.lock();
            calls.closed = true;
            std::mem::take(&mut calls.open)
        };
        for sender in open.into_values() {
            drop(sender.send(Err(gone())));
        }
    }

    /// The client's answer to a call.
    ///
    /// # Errors
    /// `Invalid` if there never was such a call, or if it says nothing.
    pub(crate) fn answer(&self, result: v1::ToolResult) -> Result<(), Error> {
        let answer = match result.outcome {
            None => {
                return Err(Error::invalid(
                    "tool_result.outcome",
                    "set one of output_json and fault",
                ));
            }
            Some(Outcome::OutputJson(text)) => answer_of(&text),
            Some(Outcome::Fault(fault)) => Err(Error::Passed(held(fault))),
        };
        let mut calls = self.lock();
        match calls.open.remove(&result.call_id) {
            Some(sender) => {
                calls.ended.insert(result.call_id);
                drop(sender.send(answer));
                Ok(())
            }
            None if calls.ended.contains(&result.call_id) => Ok(()),
            None => {
                let said = format!(
                    "`{}` is no call that was requested",
                    result.call_id.chars().take(80).collect::<String>()
                );
                Err(Error::invalid("tool_result.call_id", said))
            }
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Calls> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A call under way. Dropped, it is over: an answer to it is ignored.
#[derive(Debug)]
pub(crate) struct Open<'a> {
    tools: &'a ClientTools,
    pub(crate) id: String,
    answer: oneshot::Receiver<Answer>,
}

impl Open<'_> {
    /// The client's answer.
    pub(crate) async fn answer(&mut self) -> Answer {
        let dropped = || Error::Broken {
            what: "the client's call was dropped".into(),
        };
        (&mut self.answer).await.unwrap_or_else(|_| Err(dropped()))
    }
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        let mut calls = self.tools.lock();
        calls.open.remove(&self.id);
        calls.ended.insert(std::mem::take(&mut self.id));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn result(call_id: &str, outcome: Option<Outcome>) -> v1::ToolResult {
        v1::ToolResult {
            call_id: call_id.into(),
            outcome,
        }
    }

    #[tokio::test]
    async fn an_answer_finds_its_call_and_one_that_is_late_is_ignored() {
        let tools = ClientTools::new(BTreeSet::new());
        let (mut first, mut second) = (tools.open().expect("open"), tools.open().expect("open"));
        let (one, two) = (first.id.clone(), second.id.clone());
        tools
            .answer(result(&two, Some(Outcome::OutputJson("2".into()))))
            .expect("open");
        assert_eq!(second.answer().await.expect("answered"), Value::from(2));
        tools
            .answer(result(&one, Some(Outcome::OutputJson("{".into()))))
            .expect("open");
        assert_eq!(
            first.answer().await.expect_err("nonsense").fault().reason,
            "TOOL_ANSWER_INVALID"
        );
        let third = tools.open().expect("open");
        let late = third.id.clone();
        drop(third);
        tools
            .answer(result(&late, Some(Outcome::OutputJson("1".into()))))
            .expect("late");
        let unknown = tools.answer(result("nobody", Some(Outcome::OutputJson("1".into()))));
        assert!(matches!(unknown, Err(Error::Invalid(_))));
        assert!(matches!(tools.answer(result(&late, None)), Err(Error::Invalid(_))));
    }

    #[test]
    fn a_clients_fault_is_one_whatever_it_sends() {
        let fault = |code, reason: &str, message: String| {
            held(v1::Fault {
                code,
                reason: reason.into(),
                message,
            })
        };
        let own = fault(Code::NotFound as i32, "NO_TABLE", "none at eight".into());
        assert_eq!(
            (own.code, own.reason.as_str(), own.message.as_str()),
            (5, "NO_TABLE", "none at eight")
        );
        for code in [0, 99, -1] {
            let none = fault(code, "x y\n", "z".repeat(2 << 20));
            assert_eq!((none.code, none.reason.as_str()), (Code::Unknown as i32, "UNKNOWN"));
            assert!(none.message.len() < 2048, "{}", none.message.len());
        }
    }

    #[tokio::test]
    async fn what_a_client_answered_before_it_closed_counts_and_the_rest_fails_at_once() {
        let tools = ClientTools::new(BTreeSet::new());
        let (mut answered, mut open) = (tools.open().expect("open"), tools.open().expect("open"));
        let said = result(&answered.id, Some(Outcome::OutputJson("1".into())));
        tools.answer(said).expect("open");
        tools.close();
        assert_eq!(answered.answer().await.expect("answered"), Value::from(1));
        assert_eq!(open.answer().await.expect_err("gone").fault().reason, "CLIENT_GONE");
        assert_eq!(tools.open().expect_err("closed").fault().reason, "CLIENT_GONE");
    }
}
