//! Running cases: on a GPU against the f64 references, and the references' gradients against finite differences.

use crate::case::{Built, Case, Results, Tolerance};
use crate::dtype::DType;
use crate::error::Result;
use crate::gpu::{Gpu, TunedVariants};
use crate::graph::{Array, Graph, Tensor, finite_difference};
use crate::kernel::{Caps, Constant, TuningProblem};
use crate::models::{Initial, initial_values};
use crate::program::{Program, Recording, Source, Weights, pack, unpack};
use std::collections::BTreeSet;
use web_time::Instant;

/// What memory holds before a run: an element that no kernel writes is a NaN.
const UNWRITTEN: u32 = 0x7fc0_0000;

/// One compared tensor.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Comparison {
    /// `out0`, `grad.x`, …
    pub what: String,
    /// The sum of squared errors over the sum of squared values; infinite if all values should be zero and one is not.
    pub nmse: f64,
    /// The largest single error over the largest value; infinite as above.
    pub worst: f64,
    /// Whether both are within the tolerance.
    pub passed: bool,
}

/// How a case is run.
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct CaseOptions {
    /// What is compared.
    pub results: Results,
    /// Runs all legal variants of the case's kernels, not the chosen ones only.
    pub variants: bool,
    /// Runs everything twice and compares the bits, and looks for writes outside of tensors.
    pub strict: bool,
}

impl CaseOptions {
    /// Everything: all results, all variants, twice.
    #[must_use]
    pub fn full() -> Self {
        Self { results: Results::All, variants: true, strict: true }
    }

    /// Sets what is compared.
    #[must_use]
    pub fn results(self, results: Results) -> Self {
        Self { results, ..self }
    }
}

/// What a case gave in one choice of variants.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct CaseRun {
    /// The variants; empty for those that the adapter gets by default.
    pub variants: String,
    /// The kernels that ran, with their shared texts and switches.
    pub kernels: Vec<String>,
    /// The results.
    pub comparisons: Vec<Comparison>,
    /// What is wrong beside the results: other bits in the second run, a write outside of a tensor.
    pub faults: Vec<String>,
    /// The seconds of a run, by the caller's clock.
    pub seconds: f64,
}

impl CaseRun {
    /// Whether everything is as it should be.
    #[must_use]
    pub fn passed(&self) -> bool {
        self.faults.is_empty() && self.comparisons.iter().all(|found| found.passed)
    }
}

impl Case {
    /// The size of a result's terms that may cancel; 0 if the case names none.
    fn terms_of(&self, result: &str) -> f64 {
        let input = result.strip_prefix("grad.").unwrap_or_default();
        self.terms.iter().find(|(name, _)| *name == input).map_or(0.0, |(_, terms)| *terms)
    }

    /// The recording of the case for an adapter with these capabilities.
    ///
    /// # Errors
    /// Those of building the graph and of recording it.
    pub fn recording(&self, caps: &Caps) -> Result<Recording> {
        Recording::new(&self.graph()?, caps)
    }

    /// The graph of the case, with its gradients, which adapters record.
    ///
    /// # Errors
    /// Those of building it.
    pub fn graph(&self) -> Result<Graph> {
        Ok(self.build()?.graph)
    }

    /// Runs the case on a GPU and compares every output and gradient with the f64 twin.
    ///
    /// # Errors
    /// Any error that keeps the case from running.
    pub fn run(&self, gpu: &Gpu) -> Result<Vec<Comparison>> {
        self.run_as(gpu, gpu.caps())
    }

    /// As [`Case::run`], recorded for capabilities of which the GPU must have at least these. So a test covers the kernels
    /// of tighter limits, or of a class of adapter that the machine does not have.
    ///
    /// # Errors
    /// As [`Case::run`].
    pub fn run_as(&self, gpu: &Gpu, caps: &Caps) -> Result<Vec<Comparison>> {
        let built = self.build()?;
        let expected = built.expected()?;
        let recording = Recording::new(&built.graph, caps)?;
        Ok(self.run_recording(gpu, &built, &expected, recording, false)?.comparisons)
    }

    /// Runs the case by kernels that are changed before, as a test of the tests does.
    ///
    /// # Errors
    /// As [`Case::run`].
    pub fn run_changed(&self, gpu: &Gpu, change: impl FnOnce(Recording) -> Recording) -> Result<CaseRun> {
        let built = self.build()?;
        let expected = built.expected()?;
        let recording = change(Recording::new(&built.graph, gpu.caps())?);
        self.run_recording(gpu, &built, &expected, recording, true)
    }

    /// Runs the case as the options say, in each choice of variants: the first has the default of each kernel, the next the second legal
    /// variant of each that has so many, and so on.
    ///
    /// # Errors
    /// As [`Case::run`].
    pub fn run_with(&self, gpu: &Gpu, options: &CaseOptions) -> Result<Vec<Result<CaseRun>>> {
        let built = self.build_for(options.results)?;
        if built.results.is_empty() {
            return Ok(Vec::new());
        }
        let expected = built.expected()?;
        let graph = built.graph.fused();
        let record = |tuned: &TunedVariants| Recording::with_problems(&graph, gpu.caps(), tuned);
        let (default, problems) = record(&TunedVariants::default())?;
        let mut runs = vec![self.run_recording(gpu, &built, &expected, default, options.strict)];
        let problems: Vec<TuningProblem> = problems.into_iter().map(|(_, problem)| problem).collect();
        let most = problems.iter().map(|problem| problem.variants.len()).max().unwrap_or(1);
        for choice in (1..most).take_while(|_| options.variants) {
            let (mut tuned, mut names) = (TunedVariants::default(), Vec::new());
            for problem in &problems {
                if let Some(variant) = problem.variants.get(choice) {
                    tuned.insert(&problem.key, variant);
                    names.push(variant.as_str());
                }
            }
            names.dedup();
            let run = record(&tuned).and_then(|(recording, _)| {
                let run = self.run_recording(gpu, &built, &expected, recording, options.strict)?;
                Ok(CaseRun { variants: names.join(", "), ..run })
            });
            runs.push(run);
        }
        Ok(runs)
    }

    fn run_recording(
        &self,
        gpu: &Gpu,
        built: &Built,
        expected: &[Array],
        recording: Recording,
        strict: bool,
    ) -> Result<CaseRun> {
        let kernels = kernels_of(&recording);
        let changes = recording.slots().iter().any(|slot| matches!(slot.source, Source::State(_)));
        let again = (strict && changes).then(|| recording.clone());
        let program = built.program(gpu, recording, strict)?;
        let (bytes, seconds) = built.outputs(&program)?;
        let mut faults = Vec::new();
        if strict {
            if let Some(label) = program.written_outside(UNWRITTEN)? {
                faults.push(format!("something was written beside the memory of {label}"));
            }
            // A state is another one after the first run.
            let program = again.map_or(Ok(program), |recording| built.program(gpu, recording, strict))?;
            let (again, _) = built.outputs(&program)?;
            let other = built.results.iter().zip(bytes.iter().zip(&again)).filter(|(_, (a, b))| a != b);
            faults.extend(other.map(|((name, _), _)| format!("{name} has other bits in a second run")));
        }
        let comparisons = self.compared(built, expected, &bytes);
        Ok(CaseRun { variants: String::new(), kernels, comparisons, faults, seconds })
    }

    /// The async form of [`Case::run_with`], in the default of each kernel. The seconds include the wait for the results.
    ///
    /// # Errors
    /// As [`Case::run`].
    pub async fn run_async(&self, gpu: &Gpu) -> Result<CaseRun> {
        let built = self.build()?;
        let recording = Recording::new(&built.graph, gpu.caps())?;
        let kernels = kernels_of(&recording);
        let program = built.program(gpu, recording, false)?;
        built.feed(&program)?;
        let begun = Instant::now();
        program.run()?;
        let mut bytes = Vec::with_capacity(built.results.len());
        for (name, _) in &built.results {
            bytes.push(program.read_async(name).await?);
        }
        let seconds = begun.elapsed().as_secs_f64();
        let comparisons = self.compared(&built, &built.expected()?, &bytes);
        Ok(CaseRun { variants: String::new(), kernels, comparisons, faults: Vec::new(), seconds })
    }

    /// Compares the outputs of a run with the f64 twin.
    fn compared(&self, built: &Built, expected: &[Array], bytes: &[Vec<u8>]) -> Vec<Comparison> {
        let size = |array: &Array| array.data.iter().fold(0.0_f64, |m, x| m.max(x.abs()));
        let gradients = built.results.iter().zip(expected).filter(|((name, _), _)| name.starts_with("grad."));
        let floor = self.floor * gradients.fold(0.0_f64, |m, (_, array)| m.max(size(array)));
        let mut comparisons = Vec::new();
        for ((name, tensor), (expected, bytes)) in built.results.iter().zip(expected.iter().zip(bytes)) {
            let got = unpack(bytes, built.graph.dtype(*tensor), expected.data.len());
            let tolerance = match built.graph.dtype(*tensor) {
                DType::U32 | DType::I32 => Tolerance::EXACT,
                _ if name.starts_with("grad.") => self.backward,
                _ => self.forward,
            };
            let least = if name.starts_with("grad.") { floor } else { 0.0 };
            comparisons.push(compare(name, &got, &expected.data, self.terms_of(name), least, tolerance));
        }
        comparisons
    }

    /// Compares the gradients of the f64 twin with finite differences, at up to `points` elements of each input.
    ///
    /// # Errors
    /// Any error that keeps the case from being evaluated.
    pub fn check_gradients(&self, points: usize) -> Result<Vec<Comparison>> {
        let built = self.build()?;
        let Some(loss) = built.loss else { return Ok(Vec::new()) };
        if self.is_whole() {
            return Ok(vec![built.slope(loss)?]);
        }
        let mut comparisons = Vec::new();
        for (name, tensor) in built.results.iter().filter(|(name, _)| name.starts_with("grad.")) {
            let input = &name["grad.".len()..];
            if self.differenced.is_some_and(|of| !of.contains(&input)) {
                continue;
            }
            let analytic = built.graph.evaluate(&built.values, &[*tensor])?.remove(0);
            let count = analytic.data.len();
            let chosen: Vec<usize> = (0..points.min(count)).map(|i| i * count / points.min(count)).collect();
            let numeric: Vec<f64> = chosen
                .iter()
                .map(|&i| finite_difference(&built.graph, &built.values, loss, input, i, 1e-5))
                .collect::<Result<_>>()?;
            let analytic: Vec<f64> = chosen.iter().map(|&i| analytic.data[i]).collect();
            // Differences have errors of their own, smaller than a GPU's except where the case's tolerance is wide.
            let tolerance = Tolerance { nmse: self.backward.nmse.max(1e-10), worst: self.backward.worst.max(1e-5) };
            comparisons.push(compare(name, &analytic, &numeric, self.terms_of(name), 0.0, tolerance));
        }
        Ok(comparisons)
    }
}

/// The kernels of a recording, each once, by name, shared texts and what is switched on and off in them.
#[must_use]
pub fn kernels_of(recording: &Recording) -> Vec<String> {
    let launched = recording.dispatches().iter().map(|dispatch| {
        let switches = dispatch.constants.iter().filter(|(_, value)| matches!(value, Constant::Bool(_)));
        let switches = switches.map(|(name, value)| format!(" {name}={value}"));
        let snippets = dispatch.snippets.iter().map(|snippet| format!(" {}", snippet.name));
        std::iter::once(dispatch.kernel.name.to_owned()).chain(snippets).chain(switches).collect()
    });
    launched.collect::<BTreeSet<String>>().into_iter().collect()
}

impl Built {
    /// What the twin gives for the results.
    fn expected(&self) -> Result<Vec<Array>> {
        let wanted: Vec<Tensor> = self.results.iter().map(|(_, t)| *t).collect();
        self.graph.evaluate(&self.values, &wanted)
    }

    /// A recording of the graph, prepared, with all parameters.
    fn program(&self, gpu: &Gpu, recording: Recording, apart: bool) -> Result<Program> {
        let weights = Weights::new(gpu);
        for (name, tensor) in self.graph.parameters() {
            if let Some(value) = self.values.get(name) {
                let ty = self.graph.ty(tensor);
                weights.ensure(name, ty)?;
                weights.upload(name, &pack(&value.data, ty.dtype))?;
            }
        }
        match apart {
            true => Program::prepare_apart(gpu, recording, &weights),
            false => Program::prepare(gpu, recording, &weights),
        }
    }

    /// Writes the inputs, and what no kernel has written to temporary memory.
    fn feed(&self, program: &Program) -> Result<()> {
        program.fill_temporaries(UNWRITTEN)?;
        for (name, tensor) in self.graph.inputs().filter(|(name, _)| program.has_input(name)) {
            program.write(name, &pack(&self.values[name].data, self.graph.dtype(tensor)))?;
        }
        Ok(())
    }

    /// The bytes of the results of a run, and its seconds.
    fn outputs(&self, program: &Program) -> Result<(Vec<Vec<u8>>, f64)> {
        self.feed(program)?;
        let start = Instant::now();
        program.run()?;
        let bytes = self.results.iter().map(|(name, _)| program.read(name)).collect::<Result<Vec<_>>>()?;
        Ok((bytes, start.elapsed().as_secs_f64()))
    }

    /// Compares the derivative along a random direction of all parameters with a difference of losses: `(L(w + e·v) − L(w − e·v)) / 2e` with
    /// `gradient · v`. Parameters that only choose (embeddings may, through routers) are left out.
    fn slope(&self, loss: Tensor) -> Result<Comparison> {
        const STEP: f64 = 1e-7;
        let found = self.expected()?;
        let mut slope = 0.0;
        let mut moved = [self.values.clone(), self.values.clone()];
        for ((result, _), gradient) in self.results.iter().zip(&found) {
            let Some(name) = result.strip_prefix("grad.") else { continue };
            if name.contains("embed") || name.contains("shared") {
                continue;
            }
            let direction = initial_values(Initial::Normal(1.0), gradient.data.len(), 9, name);
            slope += gradient.data.iter().zip(&direction).map(|(a, b)| a * b).sum::<f64>();
            for (values, sign) in moved.iter_mut().zip([1.0, -1.0]) {
                if let Some(array) = values.get_mut(name) {
                    array.data.iter_mut().zip(&direction).for_each(|(x, d)| *x += sign * STEP * d);
                }
            }
        }
        let [up, down] = [self.graph.evaluate(&moved[0], &[loss])?, self.graph.evaluate(&moved[1], &[loss])?];
        let difference = (up[0].data[0] - down[0].data[0]) / (2.0 * STEP);
        let worst = (difference - slope).abs() / slope.abs().max(1.0);
        Ok(Comparison { what: "slope of the loss".into(), nmse: worst * worst, worst, passed: worst <= 1e-5 })
    }
}

/// A sum below this share of its terms is indistinguishable from zero in f32.
const CANCELLED: f64 = 1e-7;

/// Compares a result with its twin. Errors are relative to the twin's values, or to the terms where the terms cancel, and at least to a size.
/// Without terms and size, expected zeros must be zeros.
fn compare(what: &str, got: &[f64], expected: &[f64], terms: f64, least: f64, tolerance: Tolerance) -> Comparison {
    let largest = expected.iter().fold(0.0, |m: f64, x| m.max(x.abs()));
    let cancelled = largest < CANCELLED * terms;
    let largest = if cancelled { terms } else { largest.max(least) };
    let squares: f64 = expected.iter().map(|x| if cancelled { terms * terms } else { x * x }).sum();
    let squares = squares.max(least * least * expected.len() as f64);
    let errors = || got.iter().zip(expected).map(|(a, b)| a - b);
    let squared_error: f64 = errors().map(|e| e * e).sum();
    // Not f64::max: it would drop a NaN.
    let largest_error = errors().fold(0.0, |m: f64, e| if m.is_nan() || e.abs() <= m { m } else { e.abs() });
    // 0 / 0 counts as no error; a nonzero error over zero is infinite.
    let ratio = |error: f64, scale: f64| if error == 0.0 { 0.0 } else { error / scale };
    let (nmse, worst) = (ratio(squared_error, squares), ratio(largest_error, largest));
    let passed = got.len() == expected.len() && nmse <= tolerance.nmse && worst <= tolerance.worst;
    Comparison { what: what.into(), nmse, worst, passed }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_measured_by_values_or_by_terms_that_cancel_and_never_by_rounding() {
        let tolerance = Tolerance { nmse: 1e-10, worst: 1e-5 };
        let compare = |got: &[f64], expected: &[f64], terms| compare("x", got, expected, terms, 0.0, tolerance);
        assert!(compare(&[1.0, 2.000_001], &[1.0, 2.0], 0.0).passed);
        assert!(!compare(&[1.0, 2.000_1], &[1.0, 2.0], 1e6).passed, "terms that do not cancel are no excuse");
        assert!(compare(&[0.0, 0.0], &[0.0, 0.0], 0.0).passed);
        let off = compare(&[0.0, 1e-40], &[0.0, 0.0], 0.0);
        assert!(!off.passed && off.worst == f64::INFINITY, "{off:?}");
        let rounding = compare(&[3e-7, 0.0], &[1e-17, 0.0], 1.0);
        assert!(rounding.passed && rounding.worst < 4e-7, "{rounding:?}");
        assert!(!compare(&[3e-4, 0.0], &[1e-17, 0.0], 1.0).passed);
        assert!(!compare(&[1e-18; 2], &[2e-18; 2], 0.0).passed, "small values are compared as others");
        assert!(!compare(&[f64::NAN, 0.0], &[1.0, 0.0], 0.0).passed);
        assert!(!compare(&[1.0], &[1.0, 0.0], 0.0).passed);
    }
}
