//! Experiments: models on the same task, compared by cost.

pub use super::contenders::{Contender, expert_contenders, llama, nesting_contenders, recursion_contenders, with};
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::generate::{GenerateLimits, Generator, SamplingOptions};
use crate::gpu::Gpu;
use crate::graph::Graph;
use crate::io::Config;
use crate::models::{self, Decoder, TokenInputs};
use crate::nn::KvSource;
use crate::ops::CrossEntropyOptions;
use crate::program::{Program, Weights};
use crate::tasks::{ListOps, ListOpsBatches, listops};
use crate::train::{
    self, BatchSource, Batches, Corpus, Decay, Event, HeldOut, IDS, LABELS, LanguageModel, Objective, RunOptions,
    Schedule, StepOptions, TREE_MASK, Trainer, TreeLanguageModel,
};
use serde::Serialize;
use serde_json::json;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use web_time::Instant;

/// Tokens that are decoded to measure the speed.
const DECODED: usize = 48;
/// The number of batches of a held-out loss.
const HELD_OUT: usize = 8;

/// The training of all contenders.
#[derive(Clone, Copy, Debug)]
pub struct Lesson {
    /// Sequences of a batch.
    pub rows: usize,
    /// Tokens of a sequence.
    pub length: usize,
    /// Steps.
    pub steps: u64,
    /// The highest learning rate.
    pub rate: f64,
    /// The seed of weights and data.
    pub seed: u64,
}

/// A point of a learning curve.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Point {
    /// Steps done.
    pub step: u64,
    /// Floating-point operations of training so far.
    pub flops: f64,
    /// Seconds of training so far.
    pub seconds: f64,
    /// The loss on held-out text, in nats per token.
    pub loss: f64,
}

/// The result of one contender with one seed.
#[derive(Clone, Debug, Serialize)]
pub struct Learned {
    /// The contender.
    pub name: String,
    /// The seed.
    pub seed: u64,
    /// The number of trained parameters.
    pub parameters: usize,
    /// Operations of the forward pass for one token.
    pub forward_flops: u64,
    /// The held-out loss over training.
    pub curve: Vec<Point>,
    /// The held-out loss with routing decisions that do not depend on later tokens, as in decoding.
    pub causal_loss: f64,
    /// The mean number of recursions of a token in decoding, for recursive models.
    pub depth: Option<f64>,
    /// Decoded tokens per second, one sequence at a time.
    pub decoded_per_second: f64,
    /// Shares of correct answers by depth of nesting, for tasks with answers.
    pub accuracy: Vec<(usize, f64)>,
}

/// Trains one contender on a text.
///
/// # Errors
/// Those of the model and of training.
pub fn learn_text(
    gpu: &Gpu,
    contender: &Contender,
    corpus: &Corpus,
    vocabulary: usize,
    lesson: &Lesson,
    watch: &mut dyn FnMut(u64),
) -> Result<Learned> {
    let model = decoder(contender, vocabulary)?;
    let objective = language(&model, lesson);
    let mut source = Batches::new(corpus.train.clone(), lesson.rows, lesson.length, lesson.seed)?;
    let mut held_out = train::held_out(&corpus.held_out, lesson.rows, lesson.length);
    held_out.truncate(HELD_OUT);
    let (weights, curve) = learn(gpu, &model, &objective, lesson, &mut source, &held_out, watch)?;
    let last = curve.last().map_or(f64::NAN, |point| point.loss);
    let (causal_loss, depth) = causal(gpu, model.as_ref(), &weights, lesson, &held_out)?
        .map_or((last, None), |(loss, depth)| (loss, Some(depth)));
    Ok(Learned {
        name: contender.name.clone(),
        seed: lesson.seed,
        parameters: model.parameter_count()?,
        forward_flops: model.forward_flops(lesson.length / 2),
        curve,
        causal_loss,
        depth,
        decoded_per_second: decoding(gpu, &model, &weights, lesson, &corpus.held_out)?,
        accuracy: Vec::new(),
    })
}

/// Trains one contender to evaluate nested expressions of depths up to `trained`, and tests it on other ones, also deeper.
///
/// # Errors
/// Those of the model and of training.
pub fn learn_nesting(
    gpu: &Gpu,
    contender: &Contender,
    (trained, asked): (usize, usize),
    lesson: &Lesson,
    watch: &mut dyn FnMut(u64),
) -> Result<Learned> {
    let task =
        |depth| ListOps { depth, arguments: 2..=4, length: lesson.length, tree: contender.has_tree, lists: true };
    let model = decoder(contender, listops::NAMES.len())?;
    let plain = language(&model, lesson);
    let with_tree = TreeLanguageModel(plain.clone());
    let objective: &dyn Objective = if contender.has_tree { &with_tree } else { &plain };
    let learned = task(1..=trained);
    let mut source = ListOpsBatches::new(learned.clone(), lesson.rows, lesson.seed)?;
    let held_out = learned.held_out(lesson.rows, HELD_OUT * lesson.rows, lesson.seed)?;
    let (weights, curve) = learn(gpu, &model, objective, lesson, &mut source, &held_out, watch)?;
    let questions = Questions::new(gpu, model.as_ref(), &weights, lesson, contender.has_tree)?;
    let mut accuracy = Vec::new();
    for depth in 1..=asked {
        let batches = task(depth..=depth).held_out(lesson.rows, HELD_OUT * lesson.rows, lesson.seed)?;
        accuracy.push((depth, questions.right(&batches)?));
    }
    Ok(Learned {
        name: contender.name.clone(),
        seed: lesson.seed,
        parameters: model.parameter_count()?,
        forward_flops: model.forward_flops(lesson.length / 2),
        causal_loss: curve.last().map_or(f64::NAN, |point| point.loss),
        curve,
        depth: None,
        decoded_per_second: 0.0,
        accuracy,
    })
}

fn decoder(contender: &Contender, vocabulary: usize) -> Result<Arc<dyn Decoder>> {
    let config = with(contender.config.clone(), json!({"vocab_size": vocabulary}));
    Ok(models::decoder(&Config::new(contender.name.as_str(), config)?)?.into())
}

fn language(model: &Arc<dyn Decoder>, lesson: &Lesson) -> LanguageModel {
    LanguageModel {
        model: model.clone(),
        rows: lesson.rows,
        length: lesson.length,
        options: CrossEntropyOptions::default(),
    }
}

/// Trains, with evaluations in between.
fn learn(
    gpu: &Gpu,
    model: &Arc<dyn Decoder>,
    objective: &dyn Objective,
    lesson: &Lesson,
    source: &mut dyn BatchSource,
    held_out: &[HeldOut],
    watch: &mut dyn FnMut(u64),
) -> Result<(Weights, Vec<Point>)> {
    let weights = Weights::new(gpu);
    model.initialise(&weights, lesson.seed)?;
    let run = RunOptions {
        steps: lesson.steps,
        seed: lesson.seed,
        evaluate_every: (lesson.steps / 10).max(1),
        ..RunOptions::default()
    };
    let decay = Decay::Cosine { floor: 0.1 };
    let schedule = Schedule { peak: lesson.rate, warmup: lesson.steps / 20, steps: lesson.steps, decay };
    let mut trainer = Trainer::new(gpu, &weights, objective, StepOptions::default(), run, schedule)?;
    let tokens = (lesson.rows * lesson.length) as f64;
    let step_flops = 3.0 * model.forward_flops(lesson.length / 2) as f64 * tokens;
    // Evaluations are not training time.
    let (mut curve, mut seconds, mut last) = (Vec::new(), 0.0, Instant::now());
    let mut progress = |event: &Event| {
        match event {
            Event::Step(step) => {
                // The first step compiles the pipelines.
                if step.step > 1 {
                    seconds += last.elapsed().as_secs_f64();
                }
                watch(step.step);
            }
            Event::Evaluated { step, loss, .. } => {
                curve.push(Point { step: *step, flops: *step as f64 * step_flops, seconds, loss: *loss });
            }
            Event::Saved { .. } => (),
        }
        last = Instant::now();
    };
    trainer.run(source, held_out, &AtomicBool::new(false), &mut |_, _| Ok(None), &mut progress)?;
    Ok((weights, curve))
}

/// The held-out loss with routing decisions as in decoding, and the mean recursions of a token; `None` without routers.
fn causal(
    gpu: &Gpu,
    model: &dyn Decoder,
    weights: &Weights,
    lesson: &Lesson,
    held_out: &[HeldOut],
) -> Result<Option<(f64, f64)>> {
    let shape = [lesson.rows, lesson.length];
    let mut g = Graph::with_storage(weights.storage());
    let ids = g.input(IDS, shape, DType::U32)?;
    let labels = g.input(LABELS, shape, DType::I32)?;
    let lengths = g.input("lengths", [lesson.rows], DType::U32)?;
    let kv = KvSource::Prefill { capacity: lesson.length, lengths, beams: 1 };
    let inputs = TokenInputs { kv, ..TokenInputs::new(&mut g, ids)? };
    let hidden = model.decode(&mut g, &inputs)?;
    // The tokens of each recursion, or the deepest recursion of each token; a recursion of all tokens has no output.
    let depths = |name: &str| name.starts_with("taken.") || name == "depth";
    let routed: Vec<_> = hidden.routing.iter().filter(|(name, _)| depths(name)).cloned().collect();
    let Some((first, _)) = routed.first() else { return Ok(None) };
    for (name, tensor) in &routed {
        g.output(name, *tensor)?;
    }
    let loss = model.loss_of(&mut g, hidden.states, labels, &CrossEntropyOptions::default())?;
    g.output("loss", loss)?;
    let store = weights.share();
    let program = Program::new(gpu, &g, &store)?;
    let whole = vec![lesson.length as u32; lesson.rows];
    let (mut sum, mut count, mut turns) = (0.0, 0.0, 0.0);
    for batch in held_out {
        for (name, bytes) in &batch.feeds {
            program.write(name, bytes)?;
        }
        program.write("lengths", bytemuck::cast_slice(&whole))?;
        program.run()?;
        sum += f64::from(program.read_f32("loss")?[0]) * batch.weight;
        count += batch.weight;
        for (name, _) in &routed {
            let taken: Vec<u32> = bytemuck::pod_collect_to_vec(&program.read(name)?);
            turns += taken.into_iter().map(f64::from).sum::<f64>();
        }
    }
    let tokens = (held_out.len() * lesson.rows * lesson.length) as f64;
    // Depth 0 is one recursion.
    Ok(Some((sum / count, turns / tokens + f64::from(u8::from(first == "depth")))))
}

/// Decoded tokens per second of one sequence, with caches.
fn decoding(gpu: &Gpu, model: &Arc<dyn Decoder>, weights: &Weights, lesson: &Lesson, text: &[u32]) -> Result<f64> {
    let prompt = text[..text.len().min(lesson.length / 2)].to_vec();
    let limits = GenerateLimits { batch: 1, max_tokens: (prompt.len() + DECODED).min(model.dimensions().max_position) };
    let mut generator = Generator::new(gpu, model.clone(), weights, limits)?;
    let mut times = Vec::new();
    generator.generate(&[prompt], &SamplingOptions::greedy(DECODED), |_| {
        times.push(Instant::now());
        ControlFlow::Continue(())
    })?;
    // The first token includes the prompt, the second the compilation of decoding.
    match times.as_slice() {
        [_, from, .., to] => Ok((times.len() - 2) as f64 / to.duration_since(*from).as_secs_f64()),
        _ => Err(Error::input("decoding", "too few tokens were decoded to measure the speed")),
    }
}

/// A program that evaluates expressions.
struct Questions {
    program: Program,
    vocabulary: usize,
}

impl Questions {
    fn new(gpu: &Gpu, model: &dyn Decoder, weights: &Weights, lesson: &Lesson, has_tree: bool) -> Result<Self> {
        let (rows, length) = (lesson.rows, lesson.length);
        let mut g = Graph::with_storage(weights.storage());
        let ids = g.input(IDS, [rows, length], DType::U32)?;
        let mut inputs = TokenInputs::new(&mut g, ids)?;
        if has_tree {
            inputs = inputs.with_tree(g.input(TREE_MASK, [rows, length, 3], DType::U32)?);
        }
        let hidden = model.decode(&mut g, &inputs)?;
        let logits = model.logits(&mut g, hidden.states)?;
        g.output("logits", logits)?;
        Ok(Self { program: Program::new(gpu, &g, weights)?, vocabulary: model.dimensions().vocabulary })
    }

    /// The share of correct answers.
    fn right(&self, batches: &[HeldOut]) -> Result<f64> {
        let (mut right, mut asked) = (0, 0);
        for batch in batches {
            let mut labels: Vec<i32> = Vec::new();
            for (name, bytes) in &batch.feeds {
                if name == LABELS {
                    labels = bytemuck::pod_collect_to_vec(bytes);
                } else {
                    self.program.write(name, bytes)?;
                }
            }
            self.program.run()?;
            let logits = self.program.read_f32("logits")?;
            for (label, row) in
                labels.iter().zip(logits.chunks_exact(self.vocabulary)).filter(|(label, _)| **label >= 0)
            {
                let best = row.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1)).map(|(id, _)| id as i32);
                right += usize::from(best == Some(*label));
                asked += 1;
            }
        }
        Ok(right as f64 / asked.max(1) as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contenders_are_models_of_comparable_cost() -> Result<()> {
        let cost = |contender: &Contender| -> Result<(f64, f64)> {
            let model = decoder(contender, 80)?;
            Ok((model.forward_flops(32) as f64, model.parameter_count()? as f64))
        };
        let experts = expert_contenders(64);
        let (dense, top2) = (cost(&experts[0])?, cost(&experts[1])?);
        assert!((top2.0 / dense.0 - 1.0).abs() < 0.05, "{top2:?} {dense:?}");
        let nesting = nesting_contenders(64);
        let (equal, mor) = (cost(&nesting[0])?, cost(&nesting[3])?);
        assert!((mor.1 / equal.1 - 1.0).abs() < 0.05, "{mor:?} {equal:?}");
        for contender in recursion_contenders(64) {
            cost(&contender)?;
        }
        Ok(())
    }
}
