//! The tuner: times the variants of kernels on the problems that a graph poses, on the device that will solve them.

use super::{Program, Recording, Weights};
use crate::error::Result;
use crate::gpu::{Choices, Gpu};
use crate::graph::{Graph, Node};
use crate::kernel::Question;
use std::collections::HashMap;
use web_time::Instant;

/// What a variant must save to be taken instead of the default: less may be chance.
const WORTH: f64 = 0.93;
/// Runs of each variant, at the most. The fastest counts, since whatever disturbs a run makes it slower.
const RUNS: usize = 7;
/// Runs without which nothing is known.
const FEWEST: usize = 2;
/// A variant that takes this many times as long as the fastest is not run again.
const HOPELESS: f64 = 2.0;

/// Times the problems of a graph that have several variants and no choice yet, the dearest first, until the budget of
/// [`Gpu::tune`] is used up. What is not reached keeps its default.
///
/// Nodes are timed alone, on zeros. That is fair to all kernels whose work does not depend on values; the ops ask no
/// question where it does.
pub(super) fn tune(gpu: &Gpu, graph: &Graph) -> Result<()> {
    let Some(budget) = gpu.tuning().budget() else { return Ok(()) };
    // A budget beyond what the clock can tell is none.
    let end = Instant::now().checked_add(budget);
    let candidates = gpu.tuning().candidates();
    let graph = graph.fused();
    let known = gpu.choices();
    let (recording, questions) = Recording::and_questions(&graph, gpu.caps(), &known)?;
    let mut costs: HashMap<&str, f64> = HashMap::new();
    for dispatch in &recording.dispatches {
        *costs.entry(&dispatch.label).or_default() += super::cost(dispatch);
    }
    // Equal problems are one, and weigh as much as all of them.
    let mut problems: Vec<(f64, usize, Question)> = Vec::new();
    for (node, question) in questions.into_iter().filter(|(_, q)| known.get(&q.problem).is_none()) {
        let cost = costs.get(graph.nodes()[node].label.as_str()).copied().unwrap_or_default();
        match problems.iter_mut().find(|(_, _, known)| *known == question) {
            Some((sum, ..)) => *sum += cost,
            None => problems.push((cost, node, question)),
        }
    }
    problems.sort_by(|a, b| b.0.total_cmp(&a.0));
    let mut choices = Choices::default();
    for (_, node, mut question) in problems {
        question.variants.truncate(candidates);
        if over(end) {
            break;
        }
        if let Some(variant) = race(gpu, &graph, node, &question, end)? {
            log::info!("{}: {variant} (of {})", question.problem, question.variants.join(", "));
            choices.insert(question.problem, variant);
        }
    }
    gpu.choose_variants(choices);
    Ok(())
}

fn over(end: Option<Instant>) -> bool {
    end.is_some_and(|end| Instant::now() >= end)
}

/// A variant in a race.
struct Runner {
    variant: String,
    program: Program,
    times: Vec<f64>,
}

impl Runner {
    fn best(&self) -> f64 {
        self.times.iter().copied().fold(f64::INFINITY, f64::min)
    }

    fn run(&self, gpu: &Gpu) -> Result<f64> {
        let start = Instant::now();
        self.program.run()?;
        gpu.wait(None)?;
        Ok(start.elapsed().as_secs_f64())
    }
}

/// The variant that solves a problem fastest, or none if there was no time to find out.
fn race(gpu: &Gpu, graph: &Graph, node: usize, question: &Question, end: Option<Instant>) -> Result<Option<String>> {
    let alone = alone(graph, &graph.nodes()[node])?;
    let weights = Weights::new(gpu);
    let mut runners = Vec::new();
    for variant in &question.variants {
        if over(end) {
            return Ok(None);
        }
        let mut choices = Choices::default();
        choices.insert(&question.problem, variant);
        let recording = Recording::with_choices(&alone, gpu.caps(), &choices)?;
        // A problem that does not fit a second time beside the model, or a variant that the driver refuses, is not tuned.
        let Ok(program) = Program::prepare(gpu, recording, &weights) else { continue };
        let runner = Runner { variant: variant.clone(), program, times: Vec::new() };
        // The first run may compile, and is not timed.
        runner.run(gpu)?;
        runners.push(runner);
    }
    for _ in 0..RUNS {
        let best = runners.iter().map(Runner::best).fold(f64::INFINITY, f64::min);
        for runner in runners.iter_mut().filter(|r| r.times.len() < FEWEST || r.best() <= HOPELESS * best) {
            if over(end) {
                break;
            }
            let time = runner.run(gpu)?;
            runner.times.push(time);
        }
    }
    Ok(winner(&question.variants[0], &runners.iter().map(|r| (r.variant.as_str(), &r.times[..])).collect::<Vec<_>>()))
}

/// The fastest, if it is worth leaving the default; none if one of them was not run often enough to say.
fn winner(default: &str, times: &[(&str, &[f64])]) -> Option<String> {
    let best = |times: &[f64]| times.iter().copied().fold(f64::INFINITY, f64::min);
    let (_, of_default) = times.iter().find(|(variant, _)| *variant == default)?;
    if of_default.len() < FEWEST || times.iter().any(|(_, times)| times.is_empty()) {
        return None;
    }
    let eligible = times.iter().filter(|(_, times)| times.len() >= FEWEST);
    let (fastest, of_fastest) = eligible.min_by(|a, b| best(a.1).total_cmp(&best(b.1)))?;
    let worth = best(of_fastest) <= WORTH * best(of_default);
    Some(if worth { (*fastest).to_owned() } else { default.to_owned() })
}

/// A graph of one node, its inputs weights of its own.
fn alone(graph: &Graph, node: &Node) -> Result<Graph> {
    let mut alone = Graph::new();
    let mut inputs = Vec::with_capacity(node.inputs.len());
    for (index, input) in node.inputs.iter().enumerate() {
        let ty = graph.ty(*input);
        inputs.push(alone.parameter(&format!("input {index}"), ty.shape.clone(), ty.dtype)?);
    }
    let outputs = alone.add_again(node, &inputs)?;
    for (index, output) in outputs.into_iter().enumerate() {
        alone.output(&format!("output {index}"), output)?;
    }
    Ok(alone)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_stays_unless_another_is_clearly_faster() {
        let race = |default: &[f64], other: &[f64]| winner("a", &[("a", default), ("b", other)]);
        assert_eq!(race(&[1.0, 1.1], &[0.5, 0.9]).as_deref(), Some("b"));
        assert_eq!(race(&[1.0, 1.1], &[0.95, 0.99]).as_deref(), Some("a"), "within chance");
        assert_eq!(race(&[1.0, 1.1], &[0.1]).as_deref(), Some("a"), "one run says nothing");
        assert_eq!(race(&[1.0, 1.1], &[]), None);
        assert_eq!(race(&[1.0], &[0.1, 0.1]), None);
        assert_eq!(race(&[1.0, f64::NAN], &[0.5, f64::NAN]).as_deref(), Some("b"));
    }
}
