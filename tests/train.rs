//! Training on every adapter of this machine: the loss falls, runs repeat bit by bit, resume, and refuse NaN.

mod common;

use libtest_mimic::Failed;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use wgformer::graph::{Array, Storage, Values};
use wgformer::io::Checkpoints;
use wgformer::ops::{self, Activation};
use wgformer::train::{
    AdamOptions, BatchSource, Decay, Event, Feeds, HeldOut, LossScaling, Objective, Outcome, Part, RunOptions,
    Schedule, StepOptions, TrainStep, Trainer,
};
use wgformer::{DType, Error, Gpu, Graph, Program, Recording, Result, Tensor, TensorType, Weights};

type Check = fn(&Gpu) -> Result<(), Failed>;

const CHECKS: &[(&str, Check)] = &[
    ("the loss falls", the_loss_falls),
    ("one seed gives one result", one_seed_gives_one_result),
    ("five steps of AdamW agree with f64", five_steps_agree_with_f64),
    ("two micro-batches equal one batch", two_micro_batches_equal_one_batch),
    ("half-precision storage trains", half_precision_storage_trains),
    ("loss scaling changes nothing but the scale", loss_scaling_changes_only_the_scale),
    ("overflow is skipped and lowers the scale", overflow_is_skipped),
    ("NaN weights are an error", nan_weights_are_an_error),
    ("a loss that is not finite is an error", a_loss_that_is_not_finite_is_an_error),
    ("a step cut in two equals a whole one", halves_equal_the_whole),
    ("early stop", early_stop),
    ("several shards equal one", several_shards_equal_one),
    ("ranges larger than a binding equal one", windows_equal_the_whole),
    ("a killed run resumes bit by bit", a_killed_run_resumes_bit_by_bit),
    ("recomputed activations give the same bits", recomputation_gives_the_same_bits),
];

fn main() {
    let mut trials = Vec::new();
    for (adapter, device) in common::adapters_also_as_gpus(&mut trials) {
        for &(name, check) in CHECKS {
            trials.push(device.trial(format!("[{adapter}] {name}"), check));
        }
    }
    common::run(trials);
}

const INPUTS: usize = 7;
const HIDDEN: usize = 13;

/// `mean((gelu(tanh(x w + b)) u - y)²)`.
#[derive(Clone)]
struct Regression {
    rows: usize,
    storage: DType,
}

impl Regression {
    fn new(rows: usize) -> Self {
        Self { rows, storage: DType::F32 }
    }
}

impl Objective for Regression {
    fn parameters(&self, _: &Storage) -> Result<Vec<(String, TensorType)>> {
        Ok(vec![
            ("w".into(), TensorType::new([INPUTS, HIDDEN], self.storage)),
            ("b".into(), TensorType::f32([HIDDEN])),
            ("u".into(), TensorType::new([HIDDEN, 1], self.storage)),
        ])
    }

    fn loss(&self, g: &mut Graph, _training: bool) -> Result<Tensor> {
        let x = g.input("x", [self.rows, INPUTS], DType::F32)?;
        let y = g.input("y", [self.rows, 1], DType::F32)?;
        let w = g.parameter("w", [INPUTS, HIDDEN], self.storage)?;
        let b = g.parameter("b", [HIDDEN], DType::F32)?;
        let u = g.parameter("u", [HIDDEN, 1], self.storage)?;
        let hidden = g.scope("blocks.0", |g| {
            let hidden = ops::matmul(g, x, w)?;
            let hidden = ops::add_row(g, hidden, b)?;
            let hidden = ops::activation(g, hidden, Activation::Tanh)?;
            ops::activation(g, hidden, Activation::GeluTanh)
        })?;
        let guess = ops::matmul(g, hidden, u)?;
        let error = ops::sub(g, guess, y)?;
        let square = ops::mul(g, error, error)?;
        ops::mean(g, square)
    }
}

/// Rows of a smooth function, a fixed set of micro-batches over and over.
struct Rows {
    rows: usize,
    count: u64,
    next: u64,
}

fn wave(seed: u64, index: u64) -> f32 {
    let bits = (seed.wrapping_mul(0x9e37_79b9) ^ index).wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    ((bits >> 40) as f32 / (1 << 24) as f32 - 0.5) * 2.0
}

impl Rows {
    fn new(rows: usize, count: u64) -> Self {
        Self { rows, count, next: 0 }
    }

    fn x(&self, index: u64) -> Vec<f32> {
        let first = (index % self.count) * (self.rows * INPUTS) as u64;
        (0..(self.rows * INPUTS) as u64).map(|i| wave(1, first + i)).collect()
    }

    fn y(&self, index: u64) -> Vec<f32> {
        self.x(index).chunks_exact(INPUTS).map(|row| (row[0] * 2.0 + row[1]).sin() + row[2] * row[3]).collect()
    }

    fn feeds(&self, index: u64) -> Feeds {
        let bytes = |values: Vec<f32>| values.iter().flat_map(|x| x.to_le_bytes()).collect();
        vec![("x".into(), bytes(self.x(index))), ("y".into(), bytes(self.y(index)))]
    }

    fn all(&self) -> Vec<HeldOut> {
        (0..self.count).map(|index| HeldOut { feeds: self.feeds(index), weight: self.rows as f64 }).collect()
    }
}

impl BatchSource for Rows {
    fn next_feeds(&mut self) -> Result<Feeds> {
        self.next += 1;
        Ok(self.feeds(self.next - 1))
    }

    fn position(&self) -> serde_json::Value {
        self.next.into()
    }

    fn tokens(&self) -> u64 {
        self.rows as u64
    }
}

/// Fresh weights, the same for every call.
fn weights(gpu: &Gpu, objective: &Regression) -> Result<Weights> {
    let weights = Weights::new(gpu);
    for (seed, (name, ty)) in objective.parameters(&Storage::default())?.into_iter().enumerate() {
        weights.ensure(&name, &ty)?;
        let values: Vec<f64> =
            (0..ty.shape.numel()).map(|i| f64::from(wave(seed as u64 + 7, i as u64)) * 0.5).collect();
        weights.upload(&name, &wgformer::program::pack(&values, ty.dtype))?;
    }
    Ok(weights)
}

fn options() -> StepOptions {
    let adam = AdamOptions { beta1: 0.9, beta2: 0.95, epsilon: 1e-8, weight_decay: 0.01 };
    StepOptions { adam, ..StepOptions::default() }
}

/// A learning rate that changes at every step.
fn schedule() -> Schedule {
    Schedule { peak: 0.02, warmup: 2, steps: 400, decay: Decay::Linear { floor: 0.1 } }
}

fn trainer(gpu: &Gpu, objective: &Regression, options: StepOptions, run: RunOptions) -> Result<Trainer> {
    Trainer::new(gpu, &weights(gpu, objective)?, objective, options, run, schedule())
}

/// Runs some steps and gives their losses.
fn losses(trainer: &mut Trainer, data: &mut dyn BatchSource, steps: u64) -> Result<Vec<f32>> {
    let mut losses = Vec::new();
    let mut note = |event: &Event| {
        if let Event::Step(step) = event {
            losses.push(step.report.loss);
        }
    };
    for _ in 0..steps {
        trainer.submit_step(data)?;
        trainer.reports(3, &mut note)?;
    }
    trainer.reports(0, &mut note)?;
    Ok(losses)
}

fn ensure(holds: bool, what: impl Into<String>) -> Result<(), Failed> {
    if holds { Ok(()) } else { Err(what.into().into()) }
}

fn download(trainer: &Trainer, name: &str) -> Result<Vec<f32>> {
    Ok(bytemuck::pod_collect_to_vec(&trainer.weights().download(name)?))
}

/// The largest difference over the largest value.
fn difference(a: &[f32], b: &[f32]) -> f64 {
    let largest = a.iter().fold(0.0, |m: f32, x| m.max(x.abs()));
    let worst = a.iter().zip(b).fold(0.0, |m: f32, (a, b)| if (a - b).abs() <= m { m } else { (a - b).abs() });
    if a.len() == b.len() { f64::from(worst / largest) } else { f64::NAN }
}

fn the_loss_falls(gpu: &Gpu) -> Result<(), Failed> {
    let objective = Regression::new(33);
    let mut data = Rows::new(33, 4);
    let mut trainer = trainer(gpu, &objective, options(), RunOptions::default())?;
    let losses = losses(&mut trainer, &mut data, 120)?;
    let held_out = trainer.evaluate(&data.all())?;
    ensure(losses.len() == 120, format!("{} reports for 120 steps", losses.len()))?;
    ensure(losses[119] < 0.25 * losses[0], format!("from {} to {}", losses[0], losses[119]))?;
    ensure((held_out - f64::from(losses[119])).abs() < 0.1, format!("evaluated to {held_out}"))
}

fn one_seed_gives_one_result(gpu: &Gpu) -> Result<(), Failed> {
    let objective = Regression::new(31);
    let run = || -> Result<_> {
        let mut data = Rows::new(31, 3);
        let mut trainer = trainer(gpu, &objective, options(), RunOptions::default())?;
        let losses = losses(&mut trainer, &mut data, 6)?;
        Ok((losses, download(&trainer, "flat.parameters")?, download(&trainer, "flat.second_moment")?))
    };
    let (first, second) = (run()?, run()?);
    ensure(first == second, "two runs differ")?;
    ensure(first.1.iter().any(|x| *x != 0.0), "nothing was trained")
}

/// The same five steps in f64, with gradients of the f64 twin.
fn five_steps_agree_with_f64(gpu: &Gpu) -> Result<(), Failed> {
    let objective = Regression::new(17);
    let mut data = Rows::new(17, 5);
    let options = StepOptions { max_norm: 0.3, ..options() };
    let mut trainer = trainer(gpu, &objective, options.clone(), RunOptions::default())?;
    let mut values = Values::new();
    for name in ["w", "b", "u"] {
        let ty = trainer.weights().get(name).ok_or("no weight")?.ty;
        let data = download(&trainer, name)?.iter().map(|&x| f64::from(x)).collect();
        values.insert(name.into(), Array::new(ty.shape, data)?);
    }
    let mut g = Graph::new();
    let loss = objective.loss(&mut g, true)?;
    let wrt: Vec<Tensor> = ["w", "b", "u"].iter().filter_map(|name| g.find(name)).collect();
    let grads = g.differentiate(loss, &wrt)?;
    let wanted: Vec<Tensor> = grads.into_iter().flatten().collect();
    let mut moments: Vec<Vec<[f64; 2]>> = wrt.iter().map(|&t| vec![[0.0; 2]; g.shape(t).numel()]).collect();
    for step in 0..5 {
        let exact = |values: Vec<f32>| values.iter().map(|&x| f64::from(x)).collect();
        values.insert("x".into(), Array::new([17, INPUTS], exact(data.x(step)))?);
        values.insert("y".into(), Array::new([17, 1], exact(data.y(step)))?);
        let grads = g.evaluate(&values, &wanted)?;
        let norm = grads.iter().flat_map(|g| &g.data).map(|x| x * x).sum::<f64>().sqrt();
        let clip = (0.3_f32 as f64 / (norm + 1e-6)).min(1.0);
        let rate = f64::from(schedule().rate(step) as f32);
        for (index, name) in ["w", "b", "u"].iter().enumerate() {
            let decay = if *name == "b" { 0.0 } else { f64::from(0.01_f32) };
            let (b1, b2) = (f64::from(0.9_f32), f64::from(0.95_f32));
            let t = step as i32 + 1;
            let value = values.get_mut(*name).ok_or("no value")?;
            for (i, x) in value.data.iter_mut().enumerate() {
                let (gradient, [m, v]) = (grads[index].data[i] * clip, &mut moments[index][i]);
                *m = b1 * *m + (1.0 - b1) * gradient;
                *v = b2 * *v + (1.0 - b2) * gradient * gradient;
                let direction = (*m / (1.0 - b1.powi(t))) / ((*v / (1.0 - b2.powi(t))).sqrt() + f64::from(1e-8_f32));
                *x -= rate * (direction + decay * *x);
            }
        }
    }
    losses(&mut trainer, &mut data, 5)?;
    for name in ["w", "b", "u"] {
        let expected: Vec<f32> = values[name].data.iter().map(|&x| x as f32).collect();
        let error = difference(&expected, &download(&trainer, name)?);
        ensure(error <= 2e-5, format!("{name} is off by {error:e}"))?;
    }
    Ok(())
}

fn two_micro_batches_equal_one_batch(gpu: &Gpu) -> Result<(), Failed> {
    // Rows 0..32 as one batch, or as two of 16: the generator numbers elements through.
    let mut whole = trainer(gpu, &Regression::new(32), options(), RunOptions::default())?;
    let wide = losses(&mut whole, &mut Rows::new(32, 3), 4)?;
    let cut = StepOptions { accumulation: 2, ..options() };
    let mut parts = trainer(gpu, &Regression::new(16), cut, RunOptions::default())?;
    let narrow = losses(&mut parts, &mut Rows::new(16, 6), 4)?;
    let error = difference(&wide, &narrow);
    ensure(error <= 1e-5, format!("losses differ by {error:e}: {wide:?} {narrow:?}"))?;
    let error = difference(&download(&whole, "flat.parameters")?, &download(&parts, "flat.parameters")?);
    ensure(error <= 1e-4, format!("weights differ by {error:e}"))
}

fn half_precision_storage_trains(gpu: &Gpu) -> Result<(), Failed> {
    for storage in [DType::F16, DType::BF16] {
        let objective = Regression { rows: 33, storage };
        let mut data = Rows::new(33, 4);
        let options = StepOptions { loss_scaling: Some(LossScaling::default()), ..options() };
        let mut trainer = trainer(gpu, &objective, options, RunOptions::default())?;
        let losses = losses(&mut trainer, &mut data, 80)?;
        ensure(losses[79] < 0.4 * losses[0], format!("{storage}: from {} to {}", losses[0], losses[79]))?;
        let masters = download(&trainer, "master.w")?;
        let copy = wgformer::program::unpack(&trainer.weights().download("w")?, storage, masters.len());
        let rounded: Vec<f64> = masters.iter().map(|&x| storage.round(f64::from(x))).collect();
        ensure(copy == rounded, format!("{storage}: the copy is not the rounded master"))?;
    }
    Ok(())
}

fn loss_scaling_changes_only_the_scale(gpu: &Gpu) -> Result<(), Failed> {
    let mut data = Rows::new(33, 4);
    let mut plain = trainer(gpu, &Regression::new(33), options(), RunOptions::default())?;
    // Powers of two scale without rounding.
    let scaling = LossScaling { initial: 256.0, growth: 2.0, backoff: 0.5, interval: 2 };
    let scaled = StepOptions { loss_scaling: Some(scaling), ..options() };
    let mut scaled = trainer(gpu, &Regression::new(33), scaled, RunOptions::default())?;
    let (a, b) = (losses(&mut plain, &mut data, 5)?, losses(&mut scaled, &mut Rows::new(33, 4), 5)?);
    let error = difference(&a, &b);
    ensure(error <= 1e-5, format!("losses differ by {error:e}"))?;
    let state = download(&scaled, "optimizer.state")?;
    ensure(state[0] == 1024.0 && state[3] == 5.0, format!("after 5 steps the state is {:?}", &state[..8]))
}

fn overflow_is_skipped(gpu: &Gpu) -> Result<(), Failed> {
    let scaling = LossScaling { initial: 1e30, growth: 2.0, backoff: 0.001, interval: 1000 };
    let options = StepOptions { loss_scaling: Some(scaling), ..options() };
    let mut data = Rows::new(33, 4);
    let mut trainer = trainer(gpu, &Regression::new(33), options, RunOptions::default())?;
    let before = download(&trainer, "flat.parameters")?;
    losses(&mut trainer, &mut data, 1)?;
    ensure(before == download(&trainer, "flat.parameters")?, "a skipped step changed the weights")?;
    let losses = losses(&mut trainer, &mut data, 30)?;
    let state = download(&trainer, "optimizer.state")?;
    ensure(state[2] > 1.0 && state[2] + state[3] == 31.0, format!("state {:?}", &state[..8]))?;
    ensure(losses[29] < losses[0], format!("from {} to {}", losses[0], losses[29]))
}

fn nan_weights_are_an_error(gpu: &Gpu) -> Result<(), Failed> {
    let objective = Regression::new(33);
    let weights = weights(gpu, &objective)?;
    let mut bytes = weights.download("b")?;
    bytes[0..4].copy_from_slice(&f32::NAN.to_le_bytes());
    weights.upload("b", &bytes)?;
    let mut trainer = Trainer::new(gpu, &weights, &objective, options(), RunOptions::default(), schedule())?;
    match losses(&mut trainer, &mut Rows::new(33, 4), 1) {
        Err(Error::NonFinite { what, message }) => {
            ensure(what == "the weight \"b\"" && message.contains("element 0 is NaN"), format!("{what}: {message}"))?;
        }
        other => return Err(format!("expected an error, got {other:?}").into()),
    }
    let after = trainer.weights().download("b")?;
    ensure(after == bytes, "the step changed weights")
}

/// Data with a NaN: the step must not touch the weights.
struct Poisoned(Rows);

impl BatchSource for Poisoned {
    fn next_feeds(&mut self) -> Result<Feeds> {
        let mut feeds = self.0.next_feeds()?;
        if self.0.next == 3 {
            feeds[1].1[..4].copy_from_slice(&f32::NAN.to_le_bytes());
        }
        Ok(feeds)
    }

    fn position(&self) -> serde_json::Value {
        self.0.position()
    }

    fn tokens(&self) -> u64 {
        self.0.tokens()
    }
}

fn a_loss_that_is_not_finite_is_an_error(gpu: &Gpu) -> Result<(), Failed> {
    let objective = Regression::new(33);
    let mut two = trainer(gpu, &objective, options(), RunOptions::default())?;
    losses(&mut two, &mut Rows::new(33, 4), 2)?;
    let mut three = trainer(gpu, &objective, options(), RunOptions::default())?;
    match losses(&mut three, &mut Poisoned(Rows::new(33, 4)), 3) {
        Err(Error::NonFinite { what, message }) => {
            ensure(what == "the loss" && message.contains("at step 3"), format!("{what}: {message}"))?;
        }
        other => return Err(format!("expected an error, got {other:?}").into()),
    }
    ensure(download(&two, "flat.parameters")? == download(&three, "flat.parameters")?, "the step changed weights")
}

fn halves_equal_the_whole(gpu: &Gpu) -> Result<(), Failed> {
    let objective = Regression::new(33);
    let mut data = Rows::new(33, 4);
    let mut whole = trainer(gpu, &objective, options(), RunOptions::default())?;
    losses(&mut whole, &mut data, 2)?;
    let mut data = Rows::new(33, 4);
    let store = weights(gpu, &objective)?;
    let step = TrainStep::new(&objective.parameters(&Storage::default())?, gpu.caps(), options())?;
    step.layout().move_into_flat(&store)?;
    let first = Program::new(gpu, &step.graph(Part::Gradients, |g| objective.loss(g, true))?, &store)?;
    let second = Program::new(gpu, &step.graph(Part::Update, |g| objective.loss(g, true))?, &store)?;
    for index in 0..2 {
        for (name, bytes) in data.next_feeds()? {
            first.write(&name, &bytes)?;
        }
        let scalars = options().scalars(schedule().rate(index) as f32).to_array();
        second.write("optimizer.scalars", bytemuck::cast_slice(&scalars))?;
        first.run()?;
        second.run()?;
    }
    ensure(store.download("flat.parameters")? == whole.weights().download("flat.parameters")?, "weights differ")
}

fn early_stop(gpu: &Gpu) -> Result<(), Failed> {
    let objective = Regression::new(33);
    let mut data = Rows::new(33, 4);
    let run = RunOptions { steps: 50, evaluate_every: 2, patience: Some(2), ..RunOptions::default() };
    // With a rate of 0 nothing gets better.
    let mut trainer =
        Trainer::new(gpu, &weights(gpu, &objective)?, &objective, options(), run, Schedule::constant(0.0))?;
    let mut saves = 0;
    let mut save = |_: &Trainer, _: &serde_json::Value| {
        saves += 1;
        Ok(None::<PathBuf>)
    };
    let held_out = data.all();
    let outcome = trainer.run(&mut data, &held_out, &AtomicBool::new(false), &mut save, &mut |_: &Event| {})?;
    ensure(outcome == Outcome::StoppedEarly && trainer.state().step == 6, format!("{outcome:?} {trainer:?}"))?;
    let outcome = trainer.run(&mut data, &[], &AtomicBool::new(true), &mut save, &mut |_: &Event| {})?;
    ensure(outcome == Outcome::Interrupted && trainer.state().step == 6, format!("{outcome:?}"))?;
    ensure(saves == 2, format!("{saves} saves"))
}

fn several_shards_equal_one(gpu: &Gpu) -> Result<(), Failed> {
    let objective = Regression::new(33);
    let mut data = Rows::new(33, 4);
    let mut whole = trainer(gpu, &objective, options(), RunOptions::default())?;
    losses(&mut whole, &mut data, 1)?;
    let store = weights(gpu, &objective)?;
    // So small a limit that every parameter gets a shard of its own.
    let caps = wgformer::kernel::Caps { max_buffer_bytes: 128 * 4, ..gpu.caps().clone() };
    let step = TrainStep::new(&objective.parameters(&Storage::default())?, &caps, options())?;
    ensure(step.layout().shards.len() > 1, "one shard")?;
    step.layout().move_into_flat(&store)?;
    let program = Program::new(gpu, &step.graph(Part::Whole, |g| objective.loss(g, true))?, &store)?;
    for (name, bytes) in Rows::new(33, 4).next_feeds()? {
        program.write(&name, &bytes)?;
    }
    program
        .write("optimizer.scalars", bytemuck::cast_slice(&options().scalars(schedule().rate(0) as f32).to_array()))?;
    program.run()?;
    for name in ["w", "b", "u"] {
        let (a, b) = (download(&whole, name)?, bytemuck::pod_collect_to_vec(&store.download(name)?));
        let error = difference(&a, &b);
        ensure(error <= 1e-5, format!("{name} differs by {error:e}"))?;
    }
    Ok(())
}

/// The update of one parameter of 10,000 elements, in bindings of 4,096.
fn windows_equal_the_whole(gpu: &Gpu) -> Result<(), Failed> {
    const COUNT: usize = 10_000;
    let run = |binding: u64| -> Result<Vec<Vec<u8>>> {
        let parameters = vec![("w".to_owned(), TensorType::new([COUNT, 1], DType::BF16))];
        let caps = wgformer::kernel::Caps { max_binding_bytes: binding, ..gpu.caps().clone() };
        let step = TrainStep::new(&parameters, &caps, options())?;
        let store = Weights::new(gpu);
        step.layout().move_into_flat(&store)?;
        let values = |seed| (0..COUNT as u64).flat_map(move |i| wave(seed, i).to_le_bytes()).collect::<Vec<u8>>();
        store.upload("master.w", &values(1))?;
        let mut g = Graph::new();
        let gradient = g.input("gradient", [COUNT], DType::F32)?;
        let flat = g.state("flat.gradients", [step.layout().shards[0].total], DType::F32)?;
        let flat = ops::pack(&mut g, flat, &[(gradient, 0)], None)?;
        g.output("flat", flat)?;
        let graphs = [g, step.graph(Part::Update, |g| g.parameter("w", [COUNT, 1], DType::BF16))?];
        for graph in graphs {
            let program = Program::prepare(gpu, Recording::new(&graph, &caps)?, &store)?;
            if graph.find("gradient").is_some() {
                program.write("gradient", &values(2))?;
            } else {
                program.write("optimizer.scalars", bytemuck::cast_slice(&options().scalars(0.1).to_array()))?;
            }
            program.run()?;
        }
        ["flat.gradients", "flat.parameters", "flat.first_moment", "flat.second_moment", "flat.half", "optimizer.state"]
            .iter()
            .map(|name| store.download(name))
            .collect()
    };
    let (cut, whole) = (run(4096 * 4)?, run(gpu.caps().max_binding_bytes)?);
    ensure(cut == whole, "windows differ from the whole")?;
    ensure(whole[1] != whole[0] && whole[2].iter().any(|byte| *byte != 0), "nothing was updated")
}

fn a_killed_run_resumes_bit_by_bit(gpu: &Gpu) -> Result<(), Failed> {
    for storage in [DType::F32, DType::BF16] {
        let objective = Regression { rows: 33, storage };
        let options = StepOptions { accumulation: 2, loss_scaling: Some(LossScaling::default()), ..options() };
        let new = || trainer(gpu, &objective, options.clone(), RunOptions::default());
        let mut through = new()?;
        losses(&mut through, &mut Rows::new(33, 3), 10)?;
        let folder = tempfile::tempdir()?;
        let checkpoints = Checkpoints::new(folder.path(), 2);
        {
            let mut data = Rows::new(33, 3);
            let mut killed = new()?;
            losses(&mut killed, &mut data, 5)?;
            killed.save(&checkpoints, &data.position(), &[])?;
            // What happens after the save is lost.
            losses(&mut killed, &mut data, 1)?;
        }
        let loaded = checkpoints.latest()?.ok_or("no checkpoint")?;
        let mut resumed = new()?;
        let mut data = Rows::new(33, 3);
        data.next = resumed.resume(&loaded)?.as_u64().ok_or("no position")?;
        ensure(resumed.state().step == 5 && data.next == 10, format!("{:?} at {}", resumed.state(), data.next))?;
        losses(&mut resumed, &mut data, 5)?;
        for name in ["w", "b", "u", "flat.parameters", "flat.first_moment", "flat.second_moment", "optimizer.state"] {
            let (a, b) = (through.weights().download(name)?, resumed.weights().download(name)?);
            ensure(a == b, format!("{storage}: {name} differs"))?;
        }
    }
    Ok(())
}

fn recomputation_gives_the_same_bits(gpu: &Gpu) -> Result<(), Failed> {
    let objective = Regression::new(33);
    let mut plain = trainer(gpu, &objective, options(), RunOptions::default())?;
    let again = StepOptions { recompute: true, ..options() };
    let mut again = trainer(gpu, &objective, again, RunOptions::default())?;
    let twice = |trainer: &Trainer| -> Vec<&str> {
        let dispatches = trainer.program().recording().dispatches().iter();
        dispatches.filter(|d| d.label.contains("again.")).map(|d| d.kernel.name).collect()
    };
    // Activations are made again in any case, from what went into them.
    ensure(twice(&plain).iter().all(|kernel| *kernel == "activation"), format!("{:?}", twice(&plain)))?;
    ensure(!twice(&plain).is_empty(), "no activation is made again")?;
    ensure(twice(&again).iter().any(|kernel| kernel.starts_with("matmul")), format!("{:?}", twice(&again)))?;
    let (a, b) = (losses(&mut plain, &mut Rows::new(33, 4), 3)?, losses(&mut again, &mut Rows::new(33, 4), 3)?);
    ensure(a == b, format!("{a:?} and {b:?}"))?;
    ensure(download(&plain, "flat.parameters")? == download(&again, "flat.parameters")?, "weights differ")
}
