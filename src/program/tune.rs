//! The tuner: times the variants of kernels on the problems that a graph poses, on the device that will solve them.

use super::{Program, Recording, Weights};
use crate::error::Result;
use crate::gpu::{AdapterClass, Gpu, Timestamps, TunedVariants};
use crate::graph::{Graph, Node};
use crate::kernel::TuningProblem;
use std::collections::HashMap;
use web_time::Instant;

/// The share of its time that a variant must save to replace the default: less may be noise.
const MIN_GAIN: f64 = 0.07;
/// The most runs of each variant. The fastest run counts, since every disturbance makes a run slower.
const RUNS: usize = 7;
/// The fewest runs of a variant that count.
const MIN_RUNS: usize = 2;
/// A variant that takes this many times as long as the fastest is not run again.
const PRUNE_RATIO: f64 = 2.0;
/// The seconds for which a GPU repeats a variant between two timestamps, so that the clock's steps and the first launch do not count; what
/// takes longer by itself is timed by the caller's clock, one submission after the other.
const REPEATED: f64 = 2e-3;
/// The most repetitions.
const REPEATS: f64 = 64.0;

/// Times the problems of a graph that have several variants and no tuned one yet, the most expensive first, until the budget of
/// [`Gpu::tune`] is used up. Problems that are not reached keep their default.
///
/// A GPU times by its timestamps, where it has some, and repeats what is short. Each node is timed alone, on zeros. That is fair to kernels whose work does not depend on values; ops do not offer other
/// kernels for tuning.
pub(super) fn tune(gpu: &Gpu, graph: &Graph) -> Result<()> {
    let Some(budget) = gpu.tuning().budget() else { return Ok(()) };
    // A budget beyond the clock's range is unlimited.
    let end = Instant::now().checked_add(budget);
    let candidates = gpu.tuning().candidates();
    let graph = graph.fused();
    let known = gpu.tuned_variants();
    let (recording, found) = Recording::with_problems(&graph, gpu.caps(), &known)?;
    let mut costs: HashMap<&str, f64> = HashMap::new();
    for dispatch in &recording.dispatches {
        *costs.entry(&dispatch.label).or_default() += super::cost(dispatch);
    }
    // Equal problems are timed once and weigh as much as all of them together.
    let mut problems: Vec<(f64, usize, TuningProblem)> = Vec::new();
    for (node, problem) in found.into_iter().filter(|(_, p)| known.get(&p.key).is_none()) {
        let cost = costs.get(graph.nodes()[node].label.as_str()).copied().unwrap_or_default();
        match problems.iter_mut().find(|(_, _, known)| *known == problem) {
            Some((sum, ..)) => *sum += cost,
            None => problems.push((cost, node, problem)),
        }
    }
    problems.sort_by(|a, b| b.0.total_cmp(&a.0));
    let stamps = if gpu.caps().class == AdapterClass::Gpu { Timestamps::new(gpu, 2)? } else { None };
    let mut tuned = TunedVariants::default();
    for (_, node, mut problem) in problems {
        problem.variants.truncate(candidates);
        if over(end) {
            break;
        }
        if let Some(variant) = time_variants(gpu, &graph, node, &problem, end, stamps.as_ref())? {
            log::info!("{}: {variant} (of {})", problem.key, problem.variants.join(", "));
            tuned.insert(problem.key, variant);
        }
    }
    gpu.use_variants(tuned);
    Ok(())
}

fn over(end: Option<Instant>) -> bool {
    end.is_some_and(|end| Instant::now() >= end)
}

/// A variant that is timed.
struct Candidate {
    variant: String,
    program: Program,
    times: Vec<f64>,
    /// How often it runs between two timestamps; 0 if it is timed by the clock.
    repeats: u32,
}

impl Candidate {
    fn best(&self) -> f64 {
        self.times.iter().copied().fold(f64::INFINITY, f64::min)
    }

    /// The seconds of a run.
    fn time(&self, gpu: &Gpu, stamps: Option<&Timestamps>) -> Result<f64> {
        let by_stamps = if self.repeats > 0 { self.program.time(stamps, self.repeats)? } else { 0.0 };
        // Some drivers write timestamps that stand still.
        if by_stamps > 0.0 { Ok(by_stamps) } else { self.by_clock(gpu) }
    }

    fn by_clock(&self, gpu: &Gpu) -> Result<f64> {
        let start = Instant::now();
        self.program.run()?;
        gpu.wait(None)?;
        Ok(start.elapsed().as_secs_f64())
    }
}

/// The fastest variant of a problem; `None` if the time ran out.
fn time_variants(
    gpu: &Gpu,
    graph: &Graph,
    node: usize,
    problem: &TuningProblem,
    end: Option<Instant>,
    stamps: Option<&Timestamps>,
) -> Result<Option<String>> {
    let isolated = isolate(graph, &graph.nodes()[node])?;
    let weights = Weights::new(gpu);
    let mut candidates = Vec::new();
    for variant in &problem.variants {
        if over(end) {
            return Ok(None);
        }
        let mut tuned = TunedVariants::default();
        tuned.insert(&problem.key, variant);
        let recording = Recording::with_variants(&isolated, gpu.caps(), &tuned)?;
        // A problem that does not fit a second time beside the model, and a variant that the driver refuses, are not tuned.
        let Ok(program) = Program::prepare(gpu, recording, &weights) else { continue };
        let mut candidate = Candidate { variant: variant.clone(), program, times: Vec::new(), repeats: 0 };
        // The first run may compile, so it is not timed.
        candidate.by_clock(gpu)?;
        let seconds = candidate.by_clock(gpu)?;
        if stamps.is_some() && seconds < REPEATED {
            candidate.repeats = (REPEATED / seconds).clamp(1.0, REPEATS) as u32;
        }
        candidates.push(candidate);
    }
    for _ in 0..RUNS {
        let best = candidates.iter().map(Candidate::best).fold(f64::INFINITY, f64::min);
        for candidate in candidates.iter_mut().filter(|r| r.times.len() < MIN_RUNS || r.best() <= PRUNE_RATIO * best) {
            if over(end) {
                break;
            }
            let time = candidate.time(gpu, stamps)?;
            candidate.times.push(time);
        }
    }
    Ok(winner(&problem.variants[0], &candidates.iter().map(|r| (r.variant.as_str(), &r.times[..])).collect::<Vec<_>>()))
}

/// The fastest variant if it saves enough, else the default; `None` if the default or another variant ran too few times.
fn winner(default: &str, times: &[(&str, &[f64])]) -> Option<String> {
    let best = |times: &[f64]| times.iter().copied().fold(f64::INFINITY, f64::min);
    let (_, default_times) = times.iter().find(|(variant, _)| *variant == default)?;
    if default_times.len() < MIN_RUNS || times.iter().any(|(_, times)| times.is_empty()) {
        return None;
    }
    let eligible = times.iter().filter(|(_, times)| times.len() >= MIN_RUNS);
    let (fastest, fastest_times) = eligible.min_by(|a, b| best(a.1).total_cmp(&best(b.1)))?;
    let faster = best(fastest_times) <= (1.0 - MIN_GAIN) * best(default_times);
    Some(if faster { (*fastest).to_owned() } else { default.to_owned() })
}

/// A graph of one node whose inputs are weights of the graph's own.
fn isolate(graph: &Graph, node: &Node) -> Result<Graph> {
    let mut isolated = Graph::new();
    let mut inputs = Vec::with_capacity(node.inputs.len());
    for (index, input) in node.inputs.iter().enumerate() {
        let ty = graph.ty(*input);
        inputs.push(isolated.parameter(&format!("input {index}"), ty.shape.clone(), ty.dtype)?);
    }
    let outputs = isolated.add_again(node, &inputs)?;
    for (index, output) in outputs.into_iter().enumerate() {
        isolated.output(&format!("output {index}"), output)?;
    }
    Ok(isolated)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_stays_unless_another_is_clearly_faster() {
        let pick = |default: &[f64], other: &[f64]| winner("a", &[("a", default), ("b", other)]);
        assert_eq!(pick(&[1.0, 1.1], &[0.5, 0.9]).as_deref(), Some("b"));
        assert_eq!(pick(&[1.0, 1.1], &[0.95, 0.99]).as_deref(), Some("a"), "within chance");
        assert_eq!(pick(&[1.0, 1.1], &[0.1]).as_deref(), Some("a"), "one run does not count");
        assert_eq!(pick(&[1.0, 1.1], &[]), None);
        assert_eq!(pick(&[1.0], &[0.1, 0.1]), None);
        assert_eq!(pick(&[1.0, f64::NAN], &[0.5, f64::NAN]).as_deref(), Some("b"));
    }
}
