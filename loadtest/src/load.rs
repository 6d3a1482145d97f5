//! The open loop: plans go out at their scheduled times, whatever has become of those before.
use crate::{
    call::Gateway,
    goals::Goal,
    schedule::Schedule,
    tally::{Ended, Tally},
};
use shoal_kit::task;
use std::time::Duration;
use tokio::{sync::mpsc, time::Instant};
use tokio_util::sync::CancellationToken;

/// Between two looks at the progress.
const LOOK: Duration = Duration::from_millis(200);

/// What is sent, and how much of it at once.
#[derive(Debug, Clone)]
pub(crate) struct Load {
    /// When.
    pub(crate) schedule: Schedule,
    /// Unanswered plans at most; an arrival beyond them is shed.
    pub(crate) max_in_flight: u32,
}

/// A plan's end, timed where it was seen.
struct Report {
    scheduled: Duration,
    at: Duration,
    ended: Ended,
}

/// Sends the load and waits for every plan's end, each within its deadline. `stop` ends it early: what is then in flight has
/// failed as "INTERRUPTED", and the tally says so. `progress` is told now and then.
pub(crate) async fn run(
    load: &Load,
    goals: &[Goal],
    gateway: &Gateway,
    stop: &CancellationToken,
    progress: &(dyn Fn(&Tally, u32) + Sync),
) -> Tally {
    let mut tally = Tally::new();
    // One place for each plan in flight, so that no task ever waits to report.
    let (reports, mut ended) = mpsc::channel::<Report>(load.max_in_flight as usize);
    let mut turn = (0_usize..).zip(goals.iter().cycle());
    let mut schedule = load.schedule.clone();
    let mut look = tokio::time::interval(LOOK);
    let mut open = 0_u32;
    let start = Instant::now();
    let mut next = schedule.next();
    while (next.is_some() || open > 0) && !stop.is_cancelled() {
        let due = start + next.unwrap_or_default();
        tokio::select! {
            // Ends first: a place that is free again must not be taken for occupied.
            biased;
            Some(Report { scheduled, at, ended }) = ended.recv(), if open > 0 => {
                open -= 1;
                tally.ended(scheduled, at, ended);
            }
            () = tokio::time::sleep_until(due), if next.is_some() => {
                let scheduled = next.unwrap_or_default();
                next = schedule.next();
                if open == load.max_in_flight {
                    tally.shed();
                    continue;
                }
                let Some((number, goal)) = turn.next() else { break };
                open += 1;
                let (gateway, goal, reports, stop) = (gateway.clone(), goal.clone(), reports.clone(), stop.clone());
                task::spawn("plan under load", async move {
                    let ended = tokio::select! {
                        ended = gateway.execute(number, &goal) => ended,
                        // Dropped with its stream, which cancels it.
                        () = stop.cancelled() => return,
                    };
                    // Nobody listens only once the run was interrupted.
                    let _ = reports.send(Report { scheduled, at: start.elapsed(), ended }).await;
                });
            }
            _ = look.tick() => progress(&tally, open),
            () = stop.cancelled() => {}
        }
    }
    // A signal that came when all was over has taken nothing away.
    if next.is_some() || open > 0 {
        tally.interrupt();
    }
    for _ in 0..open {
        let cause = "INTERRUPTED".into();
        tally.ended(Duration::ZERO, start.elapsed(), Ended::Failed { cause });
    }
    tally
}

#[cfg(test)]
mod tests;
