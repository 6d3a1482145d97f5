//! One plan put to the gateway.
use crate::{goals::Goal, judge::Answer, tally::Ended};
use anyhow::{Context as _, Result, anyhow};
use shoal_kit::{channel, deadline, status};
use shoal_proto::v1::{self, State, plan_event::Event, plan_service_client::PlanServiceClient};
use std::time::Duration;
use tonic::{Code, Request, Status, transport::Channel};

/// Plans on one connection at most. An HTTP/2 server takes 200 streams of one connection by hyper's default; further ones
/// would wait in this process and be taken for the mesh's slowness.
const PLANS_PER_CONNECTION: u32 = 100;

/// How long past its deadline the gateway may take to say so. The wait then counts; only a gateway that hangs is cut off.
const GRACE: Duration = Duration::from_secs(2);

/// Reason of a plan that the gateway let wait past its deadline, in the place of one that it would give.
const NO_ANSWER: &str = "NO_ANSWER";

/// How long the gateway may take to answer at all, before anything is sent.
const FIRST: Duration = Duration::from_secs(5);

/// An answer's size, as for `shoal run`.
const MAX_RESPONSE_BYTES: usize = 64 << 20;

/// The gateway under load.
#[derive(Debug, Clone)]
pub(crate) struct Gateway {
    url: String,
    connections: Vec<PlanServiceClient<Channel>>,
    deadline: Duration,
}

impl Gateway {
    /// Enough connections for `max_in_flight` plans, each made on first use.
    ///
    /// # Errors
    /// `address` is no address.
    pub(crate) fn at(address: &str, max_in_flight: u32, deadline: Duration) -> Result<Self> {
        let url = if address.contains("://") {
            address.to_owned()
        } else {
            format!("http://{address}")
        };
        let connect = |_| {
            let channel = channel::connect_lazy(&url).with_context(|| format!("{url}: give http://host:port"))?;
            Ok(PlanServiceClient::new(channel).max_decoding_message_size(MAX_RESPONSE_BYTES))
        };
        let connections = (0..max_in_flight.div_ceil(PLANS_PER_CONNECTION))
            .map(connect)
            .collect::<Result<_>>()?;
        Ok(Self {
            url,
            connections,
            deadline,
        })
    }

    /// Whether somebody is there: a plan that nobody made is asked for, and any answer will do.
    ///
    /// # Errors
    /// Nobody is.
    pub(crate) async fn answers(&self) -> Result<()> {
        let mut client = self.connections[0].clone();
        let request = v1::GetPlanRequest {
            plan_id: "shoal-loadtest".into(),
        };
        match tokio::time::timeout(FIRST, client.get_plan(request)).await {
            Ok(Err(status)) if status.code() == Code::Unavailable => Err(anyhow!(
                "{} does not answer ({}): start the mesh with `shoal up`, or name it with --gateway",
                self.url,
                status.message()
            )),
            Ok(_) => Ok(()),
            Err(_) => Err(anyhow!("{} does not answer within {FIRST:?}", self.url)),
        }
    }

    /// Executes a goal and waits for its end. `number` spreads plans over connections.
    pub(crate) async fn execute(&self, number: usize, goal: &Goal) -> Ended {
        let client = self.connections[number % self.connections.len()].clone();
        match tokio::time::timeout(self.deadline + GRACE, self.watch(client, goal)).await {
            Ok(Ok(ended)) => ended,
            Ok(Err(status)) => of_status(&status),
            Err(_) => of_code(Code::DeadlineExceeded, NO_ANSWER),
        }
    }

    async fn watch(&self, mut client: PlanServiceClient<Channel>, goal: &Goal) -> Result<Ended, Status> {
        let mut request = Request::new(goal.request.clone());
        deadline::set(&mut request, self.deadline);
        let mut events = client.execute_plan(request).await?.into_inner();
        let mut answer = Answer::default();
        while let Some(event) = events.message().await? {
            match event.event {
                Some(Event::NodeAdded(added)) if goal.target.is_some() => answer.added(&added),
                Some(Event::NodeFinished(v1::NodeFinished { result: Some(result) })) => answer.finished(&result),
                Some(Event::Finished(finished)) => {
                    return Ok(match finished.state() {
                        State::Succeeded => Ended::Succeeded {
                            right: goal.target.as_ref().map(|target| answer.is(target)),
                        },
                        state => of_fault(state, finished.fault.unwrap_or_default()),
                    });
                }
                _ => {}
            }
        }
        Ok(Ended::Failed {
            cause: "BROKEN_OFF".into(),
        })
    }
}

fn of_status(status: &Status) -> Ended {
    // A gateway that sends not even headers is given up by tonic's timer, before ours.
    if status::timer_struck(status) || status::says_timeout(status) {
        return of_code(
            Code::DeadlineExceeded,
            &status::error_reason(status).unwrap_or_else(|| NO_ANSWER.to_owned()),
        );
    }
    of_code(status.code(), &status::error_reason(status).unwrap_or_default())
}

fn of_fault(state: State, fault: v1::Fault) -> Ended {
    if fault.code == 0 {
        // Ended without success and without saying why.
        return Ended::Failed {
            cause: state.as_str_name().to_owned(),
        };
    }
    of_code(Code::from_i32(fault.code), &fault.reason)
}

/// "CODE" or "CODE REASON".
fn of_code(code: Code, reason: &str) -> Ended {
    let name = status::code_name(code.into());
    let cause = if reason.is_empty() {
        name.to_owned()
    } else {
        format!("{name} {reason}")
    };
    if code == Code::DeadlineExceeded {
        Ended::TimedOut { cause }
    } else {
        Ended::Failed { cause }
    }
}
