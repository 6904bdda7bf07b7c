//! Statistics of routers in training, on every adapter of this machine: equal to an f64 twin and to counts on the CPU, without an extra
//! submission or read-back.

mod common;

use libtest_mimic::{Failed, Trial};
use serde_json::{Value, json};
use std::sync::Arc;
use wgformer::graph::{Array, Storage, Values};
use wgformer::io::Config;
use wgformer::models::{self, Initial, TokenInputs, initial_values};
use wgformer::ops::CrossEntropyOptions;
use wgformer::program::pack;
use wgformer::shape::TensorType;
use wgformer::train::{
    BatchSource, Batches, Event, IDS, LanguageModel, Objective, Part, REPORT, RoutingLayout, RoutingReport, RunOptions,
    SCALARS, STATISTICS, Schedule, StepEvent, StepOptions, TrainStep, Trainer,
};
use wgformer::{DType, Gpu, Graph, Program, Recording, Result, Tensor, Weights};

const ROWS: usize = 3;
const LENGTH: usize = 17;
/// Models that between them have every kind of router.
const SOME: [&str; 3] = ["Mixtral, with a capacity", "recursions of experts", "tokens choose, two modules, sigmoids"];

fn main() {
    let mut trials = vec![Trial::test("a dense model reports nothing and computes nothing for it", dense)];
    for (name, device) in common::adapters(&mut trials) {
        for (title, config) in sparse() {
            let name = format!("[{name}] the report has the numbers of its f64 twin: {title}");
            trials.push(device.trial(name, move |gpu| agrees(gpu, &config)));
        }
        trials.push(device.trial(format!("[{name}] a report with routers is one read-back of one step"), no_more_work));
        trials.push(device.trial(format!("[{name}] both halves of a step report what the whole does"), halves));
    }
    common::run(trials);
}

fn llama(more: Value) -> Value {
    let mut config = json!({"model_type": "llama", "vocab_size": 97, "hidden_size": 35, "num_attention_heads": 5,
                            "num_key_value_heads": 1, "head_dim": 6, "num_hidden_layers": 2, "intermediate_size": 33,
                            "max_position_embeddings": 300, "router_aux_loss_coef": 0.02});
    for (key, value) in more.as_object().into_iter().flatten() {
        config[key] = value.clone();
    }
    config
}

fn sparse() -> Vec<(&'static str, Value)> {
    let experts = json!({"model_type": "mixtral", "num_local_experts": 7, "num_experts_per_tok": 3,
                         "expert_capacity_factor": 0.8});
    let qwen = json!({"model_type": "qwen2_moe", "num_experts": 31, "num_experts_per_tok": 2, "decoder_sparse_step": 2,
                      "moe_intermediate_size": 9, "scoring_func": "sigmoid", "router_bias_rate": 0.01,
                      "shared_expert_intermediate_size": 9});
    let mor = |more: Value| {
        let mut config =
            llama(json!({"model_type": "mor", "num_hidden_layers": 5, "num_recursions": 3, "router_alpha": 0.8}));
        for (key, value) in more.as_object().into_iter().flatten() {
            config[key] = value.clone();
        }
        config
    };
    vec![
        ("Mixtral, with a capacity", llama(experts)),
        ("Qwen2-MoE, one layer of two, sigmoids and a bias", llama(qwen)),
        ("recursions choose", mor(json!({}))),
        ("recursions choose, amid a warm-up", mor(json!({"capacity_warmup_steps": 9, "sampling": "aux_router"}))),
        ("tokens choose", mor(json!({"routing": "token_choice"}))),
        (
            "tokens choose, two modules, sigmoids",
            mor(json!({"routing": "token_choice", "num_modules": 2, "router_function": "sigmoid"})),
        ),
        ("recursions of experts", mor(json!({"num_local_experts": 4, "num_experts_per_tok": 2}))),
        ("nobody chooses, experts recur", mor(json!({"routing": "none", "num_local_experts": 4}))),
    ]
}

fn objective(config: &Value) -> Result<LanguageModel> {
    let model = models::decoder(&Config::new("config.json", config.clone())?)?.into();
    Ok(LanguageModel { model, rows: ROWS, length: LENGTH, options: CrossEntropyOptions::default() })
}

/// Weights wide enough that routers differ from token to token, amid a warm-up if there is one.
fn values_of(objective: &LanguageModel) -> Result<Values> {
    let (mut values, initials) = (Values::new(), objective.model.initials()?);
    for (name, ty) in objective.parameters(&Storage::default())? {
        let initial = match initials[&name] {
            Initial::Normal(_) => Initial::Normal(0.3),
            other => other,
        };
        let data = match name.as_str() {
            "model.capacity_step" => vec![4.0],
            _ => initial_values(initial, ty.shape.numel(), 7, &name).into_iter().map(|x| DType::F32.round(x)).collect(),
        };
        values.insert(name, Array::new(ty.shape, data)?);
    }
    Ok(values)
}

fn upload(gpu: &Gpu, objective: &LanguageModel, values: &Values) -> Result<Weights> {
    let weights = Weights::new(gpu);
    for (name, ty) in objective.parameters(&Storage::default())? {
        weights.ensure(&name, &ty)?;
        weights.upload(&name, &pack(&values[&name].data, ty.dtype))?;
    }
    Ok(weights)
}

fn batches() -> Result<Batches> {
    let text: Arc<[u32]> = (0..400_u32).map(|i| i * i % 83 + i % 7).collect();
    Batches::new(text, ROWS, LENGTH, 2)
}

/// The reports of a run of some steps, and the trainer.
fn train(
    gpu: &Gpu,
    objective: &dyn Objective,
    weights: &Weights,
    accumulation: u32,
    steps: usize,
) -> Result<(Vec<StepEvent>, Trainer)> {
    let options = StepOptions::default().with_accumulation(accumulation);
    let mut trainer = Trainer::new(gpu, weights, objective, options, RunOptions::default(), Schedule::constant(0.01))?;
    let (mut data, mut found) = (batches()?, Vec::new());
    for _ in 0..steps {
        trainer.submit_step(&mut data)?;
    }
    trainer.reports(0, &mut |event: &Event| {
        if let Event::Step(step) = event {
            found.push(step.clone());
        }
    })?;
    Ok((found, trainer))
}

/// The first step's report, of one micro-batch and of two, against an f64 evaluation of the same sums, and against counts of
/// the model's decisions.
fn agrees(gpu: &Gpu, config: &Value) -> std::result::Result<(), Failed> {
    let objective = objective(config)?;
    let values = values_of(&objective)?;
    // A bias, or a count of steps, changes between two micro-batches.
    let still = config.get("router_bias_rate").is_none() && config.get("capacity_warmup_steps").is_none();
    for accumulation in if still { vec![1, 2] } else { vec![1] } {
        let (reports, _) = train(gpu, &objective, &upload(gpu, &objective, &values)?, accumulation, 1)?;
        let found = reports[0].routing.as_ref().ok_or("the report says nothing of routers")?;
        let mut g = Graph::new();
        let ids = g.input(IDS, [ROWS, LENGTH], DType::U32)?;
        let inputs = TokenInputs::new(&mut g, ids)?.for_training();
        let hidden = objective.model.decode(&mut g, &inputs)?;
        let layout = RoutingLayout::new(&g, &hidden.routers);
        let sums: Vec<Tensor> = hidden.routers.iter().map(|router| router.sums).collect();
        for (name, tensor) in &hidden.routing {
            g.output(name, *tensor)?;
        }
        let program = Program::new(gpu, &g, &upload(gpu, &objective, &values)?)?;
        let (mut data, mut report, mut counts) = (batches()?, vec![0.0; 16 + layout.total()], Counts::default());
        for _ in 0..accumulation {
            let feeds = data.next_feeds()?;
            let bytes = &feeds.iter().find(|(name, _)| name == IDS).ok_or("no ids")?.1;
            let ids: Vec<u32> = bytemuck::pod_collect_to_vec(bytes);
            let mut values = values.clone();
            values.insert(IDS.into(), Array::from_fn([ROWS, LENGTH], |i| f64::from(ids[i])));
            let mut begins = 16;
            for sums in g.evaluate(&values, &sums)? {
                sums.data.iter().enumerate().for_each(|(i, x)| report[begins + i] += *x as f32);
                begins += sums.data.len().next_multiple_of(64);
            }
            program.write(IDS, bytes)?;
            program.run()?;
            counts.add(&program, &hidden.routing)?;
        }
        let expected = layout.read(&report).ok_or("no report")?;
        close(found, &expected)?;
        counts.compare(found, config)?;
        if accumulation == 1 && still {
            says_something(found)?;
        }
    }
    Ok(())
}

/// Loads are counts and must be the same; entropies are sums of rounded numbers.
fn close(found: &RoutingReport, expected: &RoutingReport) -> std::result::Result<(), Failed> {
    let near = |a: f64, b: f64| (a - b).abs() <= 1e-4 * b.abs().max(0.1);
    let mut same =
        found.gates.len() == expected.gates.len() && found.recursions.is_some() == expected.recursions.is_some();
    for (a, b) in found.gates.iter().zip(&expected.gates) {
        same &= (&a.loads, a.dropped, a.tokens) == (&b.loads, b.dropped, b.tokens) && near(a.entropy, b.entropy);
    }
    if let (Some(a), Some(b)) = (&found.recursions, &expected.recursions) {
        same &= (&a.taken, &a.choices, a.tokens) == (&b.taken, &b.choices, b.tokens);
        same &= a.entropies.len() == b.entropies.len();
        same &= a.entropies.iter().zip(&b.entropies).all(|(a, b)| near(*a, *b));
    }
    if same { Ok(()) } else { Err(format!("{found:?}, expected {expected:?}").into()) }
}

/// Refuses reports that do not depend on the router.
fn says_something(found: &RoutingReport) -> std::result::Result<(), Failed> {
    let uneven = |loads: &[f64]| loads.iter().any(|load| (load - loads[0]).abs() > 0.0);
    let gates = found.gates.iter().all(|gate| uneven(&gate.loads) && gate.entropy > 0.0);
    let recursions = found.recursions.as_ref().is_none_or(|r| uneven(&r.taken) && r.entropies.iter().all(|e| *e > 0.0));
    if gates && recursions { Ok(()) } else { Err(format!("{found:?} is the same of all").into()) }
}

/// Counts of the model's decisions.
#[derive(Default)]
struct Counts {
    /// Slots that each expert of each gate took, then those that none took.
    gates: Vec<Vec<f64>>,
    /// Tokens that each recursion took.
    taken: Vec<f64>,
    /// Tokens on each choice.
    choices: Vec<f64>,
}

impl Counts {
    fn add(&mut self, program: &Program, routing: &[(String, Tensor)]) -> Result<()> {
        let count = |counts: &mut Vec<f64>, index: usize| {
            counts.resize(counts.len().max(index + 1), 0.0);
            counts[index] += 1.0;
        };
        let words = |name: &str| -> Result<Vec<u32>> { Ok(bytemuck::pod_collect_to_vec(&program.read(name)?)) };
        for (name, _) in routing {
            let (kind, number) = name.split_once('.').unwrap_or((name, "0"));
            let number: usize = number.parse().unwrap_or(0);
            match kind {
                "experts" => {
                    self.gates.resize(self.gates.len().max(number + 1), Vec::new());
                    words(name)?.into_iter().for_each(|expert| count(&mut self.gates[number], expert as usize));
                }
                "selected" => {
                    self.taken.resize(self.taken.len().max(number + 1), 0.0);
                    let counted = routing.iter().find(|(other, _)| *other == format!("taken.{number}"));
                    self.taken[number] += match counted {
                        Some((name, _)) => f64::from(words(name)?.iter().sum::<u32>()),
                        None => words(name)?.len() as f64,
                    };
                }
                "depth" | "choice" => {
                    words(name)?.into_iter().for_each(|choice| count(&mut self.choices, choice as usize));
                }
                _ => (),
            }
        }
        Ok(())
    }

    fn compare(&self, found: &RoutingReport, config: &Value) -> std::result::Result<(), Failed> {
        let experts = ["num_local_experts", "num_experts"].iter().find_map(|key| config[key].as_u64()).unwrap_or(0);
        for (gate, counts) in found.gates.iter().zip(&self.gates) {
            let of = |expert: usize| counts.get(expert).copied().unwrap_or(0.0);
            let dropped = if config.get("expert_capacity_factor").is_some() { of(experts as usize) } else { 0.0 };
            let lost: f64 = (0..experts as usize).map(|expert| gate.loads[expert] - of(expert)).sum();
            let kept = (0..experts as usize).all(|expert| of(expert) <= gate.loads[expert]);
            if gate.loads.len() != experts as usize || !kept || gate.dropped != dropped || lost != dropped {
                return Err(format!("{gate:?}, counted {counts:?}").into());
            }
        }
        if let Some(recursions) = &found.recursions {
            let mut choices = self.choices.clone();
            choices.resize(recursions.choices.len(), 0.0);
            let taken = match choices.is_empty() {
                true => self.taken.clone(),
                false => (0..3)
                    .map(|depth| (0..choices.len()).filter(|choice| choice % 3 >= depth).map(|w| choices[w]).sum())
                    .collect(),
            };
            if recursions.choices != choices || recursions.taken != taken {
                return Err(format!("{recursions:?}, counted {choices:?} and {taken:?}").into());
            }
        }
        if found.gates.len() == self.gates.len() { Ok(()) } else { Err("gates are missing".into()) }
    }
}

/// An objective that hides what routers do.
struct Silent(LanguageModel);

impl Objective for Silent {
    fn parameters(&self, storage: &Storage) -> Result<Vec<(String, TensorType)>> {
        self.0.parameters(storage)
    }

    fn loss(&self, g: &mut Graph, training: bool) -> Result<Tensor> {
        self.0.loss(g, training)
    }
}

/// Submissions and read-backs of a run are those of the same run without reports of routers, and so are losses and weights.
fn no_more_work(gpu: &Gpu) -> std::result::Result<(), Failed> {
    const STEPS: usize = 4;
    for (title, config) in sparse().into_iter().filter(|(title, _)| SOME.contains(title)) {
        let objective = objective(&config)?;
        let values = values_of(&objective)?;
        let run = |objective: &dyn Objective, weights: &Weights| -> Result<_> {
            let options = StepOptions::default();
            let (run, schedule) = (RunOptions::default(), Schedule::constant(0.01));
            let mut trainer = Trainer::new(gpu, weights, objective, options, run, schedule)?;
            let (mut data, mut losses, mut told) = (batches()?, Vec::new(), 0);
            // The first step also checks the weights.
            trainer.submit_step(&mut data)?;
            let before = (gpu.submissions(), gpu.readbacks());
            for _ in 1..STEPS {
                trainer.submit_step(&mut data)?;
            }
            let submitted = gpu.submissions() - before.0;
            trainer.reports(0, &mut |event: &Event| {
                if let Event::Step(step) = event {
                    losses.push(step.report.loss);
                    told += usize::from(step.routing.is_some());
                }
            })?;
            let read = gpu.readbacks() - before.1;
            Ok((submitted, read, losses, trainer.weights().download("flat.parameters")?, told))
        };
        let silent = run(&Silent(self::objective(&config)?), &upload(gpu, &objective, &values)?)?;
        let told = run(&objective, &upload(gpu, &objective, &values)?)?;
        if (silent.4, told.4) != (0, STEPS) {
            return Err(format!("{title}: {} and {} reports told of routers", silent.4, told.4).into());
        }
        if (told.0, told.1) != (silent.0, silent.1) || silent.1 != STEPS as u64 - 1 {
            let (a, b) = ((told.0, told.1), (silent.0, silent.1));
            return Err(format!("{title}: {a:?} submissions and read-backs, {b:?} without routers").into());
        }
        if told.2 != silent.2 || told.3 != silent.3 {
            return Err(format!("{title}: {:?} and {:?}, or their weights, differ", told.2, silent.2).into());
        }
    }
    Ok(())
}

/// Gradients and update as programs of their own, as an engine that averages gradients has them.
fn halves(gpu: &Gpu) -> std::result::Result<(), Failed> {
    for (title, config) in sparse().into_iter().filter(|(title, _)| SOME.contains(title)) {
        let objective = objective(&config)?;
        let values = values_of(&objective)?;
        let report = |parts: &[Part]| -> Result<Vec<f32>> {
            let weights = upload(gpu, &objective, &values)?;
            let mut step =
                TrainStep::new(&objective.parameters(&Storage::default())?, gpu.caps(), StepOptions::default())?;
            step.layout().move_into_flat(&weights)?;
            let (mut data, mut read) = (batches()?, Vec::new());
            for part in parts {
                let mut routing = None;
                let graph = step.graph(*part, |g| {
                    let measured = objective.loss_and_stats(g)?;
                    routing = Some(RoutingLayout::new(g, &measured.routers));
                    Ok(measured)
                })?;
                if let Some(routing) = routing {
                    step = step.with_routing(routing);
                }
                let program = Program::new(gpu, &graph, &weights)?;
                if *part != Part::Update {
                    for (name, bytes) in data.next_feeds()? {
                        program.write(&name, &bytes)?;
                    }
                }
                if program.has_input(SCALARS) {
                    program.write(SCALARS, bytemuck::cast_slice(&step.options().scalars(0.01).to_array()))?;
                }
                program.run()?;
                if *part != Part::Gradients {
                    read = program.read_f32(REPORT)?;
                }
            }
            let state: Vec<f32> = bytemuck::pod_collect_to_vec(&weights.download(STATISTICS)?);
            if read.len() != 16 + state.len() || read[16..] != state {
                return Err(wgformer::Error::Graph("the report is not what lies in the state".into()));
            }
            Ok(read)
        };
        let (whole, halves) = (report(&[Part::Whole])?, report(&[Part::Gradients, Part::Update])?);
        if whole != halves {
            return Err(format!("{title}: {whole:?} and {halves:?} differ").into());
        }
    }
    Ok(())
}

/// The step of a dense model is, dispatch for dispatch, that of an objective that knows of no routers.
fn dense() -> std::result::Result<(), Failed> {
    use wgformer::kernel::Caps;
    let (caps, dense) = (Caps::baseline(), objective(&llama(json!({})))?);
    let print = |graph: Graph| -> Result<String> { Ok(Recording::new(&graph, &caps)?.to_string()) };
    let step = TrainStep::new(&dense.parameters(&Storage::default())?, &caps, StepOptions::default())?;
    let told = step.graph(Part::Whole, |g| {
        let measured = dense.loss_and_stats(g)?;
        if RoutingLayout::new(g, &measured.routers).total() > 0 || !measured.routers.is_empty() {
            return Err(wgformer::Error::Graph("a dense model has no routers".into()));
        }
        Ok(measured)
    })?;
    let silent = step.graph(Part::Whole, |g| dense.loss(g, true))?;
    if print(told)? == print(silent)? { Ok(()) } else { Err("a dense model pays for routers".into()) }
}
