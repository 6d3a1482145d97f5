//! A line a node, redrawn in place.
use super::{NodeView, PlanView, Show, words};
use crate::{json, output};
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use shoal_proto::v1;
use std::{collections::HashMap, time::Duration};

/// How often a running node's spinner turns.
const TICK: Duration = Duration::from_millis(120);

/// The view.
#[derive(Debug)]
pub struct Live {
    screen: MultiProgress,
    bars: HashMap<String, ProgressBar>,
}

impl Default for Live {
    fn default() -> Self {
        Self::new()
    }
}

impl Live {
    /// A view on standard output.
    #[must_use]
    pub fn new() -> Self {
        Self {
            screen: MultiProgress::with_draw_target(ProgressDrawTarget::stdout()),
            bars: HashMap::new(),
        }
    }
}

impl Show for Live {
    fn event(&mut self, _: &v1::PlanEvent, plan: &PlanView, node: Option<usize>) {
        let Some(node) = node.and_then(|index| plan.nodes.get(index)) else {
            return;
        };
        let bar = self.bars.entry(node.id.clone()).or_insert_with(|| {
            let bar = self.screen.add(ProgressBar::new_spinner());
            bar.set_style(style("{wide_msg}"));
            bar
        });
        bar.set_message(line(node));
        if node.result.is_some() {
            bar.set_style(style("{wide_msg}"));
            bar.abandon();
        } else if node.state == i32::from(v1::State::Running) && bar.length().is_none() {
            bar.set_style(style("{wide_msg} {elapsed}"));
            bar.enable_steady_tick(TICK);
        }
    }

    fn end(&mut self, plan: &PlanView) {
        for bar in self.bars.values().filter(|b| !b.is_finished()) {
            bar.abandon();
        }
        let style = words::colour(plan.finished.as_ref().map_or(0, |f| f.state));
        output::line(format!("{style}{}{style:#}", words::summary(plan)));
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_spinner())
}

/// The node in one line, cut to the terminal's width by the bar.
fn line(node: &NodeView) -> String {
    let (colour, dim) = (words::colour(node.state), anstyle::Style::new().dimmed());
    let sign = match json::state(node.state) {
        "succeeded" => "✓",
        "failed" => "✗",
        "cancelled" | "skipped" => "-",
        "running" => "▸",
        _ => "·",
    };
    let what = if node.result.is_some() {
        words::ended(node)
    } else {
        format!("{} {}", node.target, node.partial.replace('\n', " "))
    };
    let edges = words::waits_for(node);
    format!(
        "{colour}{sign} {}{colour:#} {:<5} {}{dim}{edges}  {what}{dim:#}",
        node.id, node.kind, node.text
    )
}
