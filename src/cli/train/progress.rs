//! The progress of a training run: its history, and what is printed of it.

use super::{EVERY, HISTORY};
use crate::cli::outln;
use crate::error::{Error, Result};
use crate::io::read_json;
use crate::train::{Event, RoutingSummary, StepEvent};
use indicatif::{HumanDuration, ProgressBar};
use serde_json::{Value, json};
use std::path::Path;
use std::time::{Duration, Instant};

/// The losses of a run, for the loss curve; saved with checkpoints, so that a resumed run draws the whole curve.
#[derive(Debug, Default, serde::Serialize, serde::Deserialize)]
pub(super) struct History {
    pub(super) train: Vec<(u64, f64)>,
    pub(super) held_out: Vec<(u64, f64)>,
    /// Statistics of routers, for models that have some.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    routing: Vec<(u64, RoutingSummary)>,
    /// The name of the run's measure, and its values.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(super) measure: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) measured: Vec<(u64, f64)>,
    /// The sum of the shares of padding of this process's steps, and their number.
    #[serde(skip)]
    padding: (f64, u64),
}

impl History {
    /// The history of a checkpoint, or an empty one.
    pub(super) fn load(checkpoint: Option<&Path>) -> Result<Self> {
        let Some(path) = checkpoint.map(|folder| folder.join(HISTORY)).filter(|path| path.exists()) else {
            return Ok(Self::default());
        };
        serde_json::from_value(read_json(&path)?).map_err(|e| Error::format(&path, e.to_string()))
    }

    /// The share of padding in the batches so far.
    pub(super) fn padding(&self) -> f64 {
        self.padding.0 / self.padding.1.max(1) as f64
    }

    pub(super) fn to_json(&self) -> Result<Vec<u8>> {
        serde_json::to_vec(self).map_err(|e| Error::input("history", e.to_string()))
    }

    pub(super) fn take(&mut self, event: &Event) {
        match event {
            Event::Step(step) => {
                self.padding = (self.padding.0 + step.padding, self.padding.1 + 1);
                self.train.push((step.step, f64::from(step.report.loss)));
                self.routing.extend(step.routing.as_ref().map(|routing| (step.step, routing.summary())));
            }
            Event::Evaluated { step, loss, measured, .. } => {
                self.held_out.push((*step, *loss));
                if let Some(measured) = measured {
                    self.measure.clone_from(&measured.name);
                    self.measured.push((*step, measured.value));
                }
            }
            Event::Saved { .. } => (),
        }
    }
}

/// Prints the progress of a run: a bar on a terminal, else lines, or JSON.
pub(super) struct Screen<'a> {
    pub(super) bar: &'a ProgressBar,
    pub(super) json: bool,
    /// The latest end of the run.
    pub(super) ends: Option<Instant>,
    /// The time of the last printed line.
    pub(super) last_line: Option<Instant>,
}

impl Screen<'_> {
    pub(super) fn show(&mut self, event: &Event, history: &History) -> Result<()> {
        if self.json {
            return outln!("{}", as_json(event));
        }
        match event {
            Event::Step(step) => {
                self.bar.set_position(step.step);
                let line = self.line(step, history);
                if self.bar.is_hidden() && self.last_line.is_none_or(|at| at.elapsed() > EVERY) {
                    outln!("step {:>6}  {line}", step.step)?;
                    self.last_line = Some(Instant::now());
                }
                self.bar.set_message(line);
            }
            Event::Evaluated { step, loss, measured, better, .. } => {
                let what = match measured {
                    None => format!("perplexity {:.1}", loss.exp()),
                    Some(measured) => {
                        let others = measured.others.iter().map(|(name, value)| format!("  {name} {value:.4}"));
                        let best = if *better { "  (best so far)" } else { "" };
                        format!("{} {:.4}{}{best}", measured.name, measured.value, others.collect::<String>())
                    }
                };
                let line = format!("step {step:>6}  held-out loss {loss:.4}  {what}");
                // A hidden bar would drop it.
                self.bar.suspend(|| outln!("{line}"))?;
            }
            Event::Saved { .. } => (),
        }
        Ok(())
    }

    fn line(&self, step: &StepEvent, history: &History) -> String {
        let held_out = history.held_out.last().map_or(String::new(), |(_, loss)| format!(" (held out {loss:.3})"));
        let end = self.ends.map_or(Duration::MAX, |ends| ends.saturating_duration_since(Instant::now()));
        format!(
            "loss {:.3}{held_out}{}  {:.0} tokens/s{}  {} left",
            step.report.loss,
            step.routing.as_ref().map_or(String::new(), |routing| routing_text(&routing.summary())),
            step.tokens_per_second,
            if step.padding > 0.0 { format!(", {:.1} % padding", 100.0 * step.padding) } else { String::new() },
            HumanDuration(step.remaining.min(end))
        )
    }
}

/// Statistics of routers, for a line of progress.
fn routing_text(routing: &RoutingSummary) -> String {
    let mut words = String::new();
    if let Some(experts) = &routing.experts {
        words += &format!("  load ≤ {:.2}×, entropy {:.2}", experts.largest_load, experts.entropy);
        if experts.unused > 0 {
            words += &format!(", {} unused", experts.unused);
        }
        if experts.dropped > 0.0 {
            words += &format!(", {:.1} % dropped", 100.0 * experts.dropped);
        }
    }
    if let Some(recursions) = &routing.recursions {
        let shares: Vec<String> = recursions.shares.iter().map(|share| format!("{:.0}", 100.0 * share)).collect();
        words += &format!("  depth {:.2} ({} %)", recursions.depth, shares.join("/"));
    }
    words
}

fn as_json(event: &Event) -> Value {
    match event {
        Event::Step(step) => {
            let mut line = json!({
                "event": "step", "step": step.step, "loss": step.report.loss, "norm": step.report.norm,
                "lr": step.learning_rate, "tokens_per_second": step.tokens_per_second, "padding": step.padding,
            });
            if let Some(routing) = &step.routing {
                line["routing"] = json!(routing.summary());
            }
            line
        }
        Event::Evaluated { step, loss, best, measured, better } => {
            let mut line = json!({ "event": "evaluated", "step": step, "loss": loss, "best": best });
            if let Some(measured) = measured {
                let others = measured.others.iter().map(|(name, value)| (name.clone(), json!(value)));
                line["measure"] = json!({ "name": measured.name, "value": measured.value, "better": better });
                line["measures"] = others.collect::<serde_json::Map<_, _>>().into();
            }
            line
        }
        Event::Saved { step, path } => json!({ "event": "saved", "step": step, "path": path }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::{ExpertSummary, RecursionSummary};

    fn summary() -> RoutingSummary {
        let experts = ExpertSummary { largest_load: 1.625, unused: 0, entropy: 1.5, dropped: 0.0 };
        let recursions = RecursionSummary {
            depth: 1.75,
            shares: vec![1.0, 0.5, 0.25],
            entropy: 0.5,
            largest_load: None,
            unused: None,
        };
        RoutingSummary { experts: Some(experts), recursions: Some(recursions) }
    }

    #[test]
    fn routing_statistics_fit_a_line() {
        let mut routing = summary();
        assert_eq!(routing_text(&routing), "  load ≤ 1.62×, entropy 1.50  depth 1.75 (100/50/25 %)");
        routing.recursions = None;
        if let Some(experts) = &mut routing.experts {
            (experts.unused, experts.dropped) = (3, 0.0312);
        }
        assert_eq!(routing_text(&routing), "  load ≤ 1.62×, entropy 1.50, 3 unused, 3.1 % dropped");
    }

    #[test]
    fn a_history_survives_the_round_trip_with_and_without_routers() {
        let history = History {
            train: vec![(1, 2.5)],
            held_out: vec![(1, 3.0)],
            routing: vec![(1, summary())],
            padding: (0.5, 2),
            ..History::default()
        };
        assert!((history.padding() - 0.25).abs() < 1e-9);
        let again: History = serde_json::from_slice(&history.to_json().unwrap()).unwrap();
        assert_eq!(again.routing, history.routing);
        let old: History = serde_json::from_str(r#"{"train": [[1, 2.5]], "held_out": []}"#).unwrap();
        assert_eq!(old.train, [(1, 2.5)]);
        assert!(old.routing.is_empty() && !String::from_utf8(old.to_json().unwrap()).unwrap().contains("routing"));
    }
}
