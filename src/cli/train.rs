//! `wgformer train`: a model learns a text.

use super::args::{Common, MorInit, ScheduleKind, Storage, TrainArgs};
use super::device::Device;
use super::given::{self, Given};
use super::{model, plot, read_texts, say, sparse};
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::gpu::Gpu;
use crate::io::{Checkpoints, Config, Contents, ModelFolder, NamedTensor, Tokenizer, read_json, write_atomic};
use crate::models::{self, Model};
use crate::program::{Weights, human_count};
use crate::tasks::{TaskObjective, TextBatches, TextTask, held_out_for};
use crate::train::{
    AdamOptions, Batches, Corpus, Decay, Event, HeldOut, LossScaling, Outcome, RoutingSummary, RunOptions, Schedule,
    StepEvent, StepOptions, Trainer, check_tokens,
};
use indicatif::{HumanDuration, ProgressBar, ProgressStyle};
use serde_json::{Value, json};
use std::cell::RefCell;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// The share of the text that is held out.
const HELD_OUT: f64 = 0.1;
/// Batches that an evaluation looks at.
const EVALUATION: usize = 16;
/// Between two lines of progress where there is no terminal for a bar.
const EVERY: Duration = Duration::from_secs(10);
/// The losses so far: in every checkpoint, and beside the loss curve.
const HISTORY: &str = "history.json";
/// The finished model, and the loss curve.
const MODEL: &str = "model";
const PICTURE: &str = "loss.svg";
/// Steps of warm-up, where none are given.
const WARMUP: u64 = 50;
/// The final rate as a share of the highest, where none is given.
const FINAL: f64 = 0.1;
/// Checkpoints that are kept.
const KEEP: usize = 2;

pub(super) fn run(options: &TrainArgs, mut given: Given) -> Result<ExitCode> {
    let stop = Arc::new(AtomicBool::new(false));
    let flag = stop.clone();
    // So does a request to terminate. A second Ctrl-C ends the process at once; checkpoints are atomic.
    ctrlc::set_handler(move || {
        if flag.swap(true, Ordering::Relaxed) {
            std::process::exit(130);
        }
        say::tell(format_args!("\nsaving a checkpoint first; press Ctrl-C again to stop at once"));
    })
    .map_err(|e| Error::input("Ctrl-C", e.to_string()))?;

    let checkpoints = Checkpoints::new(options.out.join("checkpoints"), KEEP);
    let mut lock = None;
    if checkpoints.folder().exists() {
        lock = Some(checkpoints.lock()?);
    }
    let resumed = match options.resume {
        true => checkpoints.latest()?,
        false => None,
    };
    let inherited = match &resumed {
        Some(loaded) => given.inherit(Given::load(&loaded.path)?)?,
        None => Vec::new(),
    };
    let merged = if inherited.is_empty() { None } else { Some(given.parse()?) };
    // The folder is that of this command, byte by byte.
    let merged = merged.map(|merged| TrainArgs { out: options.out.clone(), ..merged });
    let options = merged.as_ref().unwrap_or(options);
    if let Some(path) = options.data.iter().find(|path| path.to_str().is_none()) {
        return Err(Error::format(
            path,
            "has a name that is not UTF-8, which --resume could not find again; rename it",
        ));
    }
    if options.data.is_empty() {
        return Err(Error::input("data", "there is no run to go on with here that says which texts: give --data"));
    }
    let device = Device::open(&options.common)?;
    let gpu = device.gpu.clone();
    let text = read_texts(&options.data)?;
    refuse_to_overwrite(options, &checkpoints)?;
    let Learner { model, weights, belongings } = match &resumed {
        // The trainer takes the weights from the checkpoint, in f32.
        Some(loaded) => of_checkpoint(&loaded.path, &gpu, options.dtype.into())?,
        None => prepare(options, &gpu, &text)?,
    };
    let tokens = belongings.tokenizer.encode(&text)?;
    check_tokens(&tokens, model.dimensions().vocabulary)?;
    let corpus = Corpus::new(&tokens, HELD_OUT)?;
    // Training may take hours, and the text may be large.
    drop((text, tokens));
    let mut files = belongings.contents(&model.config(), &[]).small_files()?;
    files.push((given::FILE.into(), given.to_json()?));
    let context = model::context(options.model.context, model.dimensions().max_position)?;
    let objective = TaskObjective::on_text(model.clone(), options.batch, context)?;
    let mask = ["[MASK]", "<mask>"].iter().find_map(|token| belongings.tokenizer.id(token));
    let task = TextTask::of(model.as_ref(), mask)?;
    let mut trainer =
        Trainer::new(&gpu, &weights, &objective, step_options(options), run_options(options), schedule(options)?)?;
    device.keep();
    // A folder that cannot be written should not cost the steps up to the first save.
    checkpoints.make_folder()?;
    let _lock = lock.map_or_else(|| checkpoints.lock(), Ok)?;
    check_results(&options.out)?;
    let rows = match &resumed {
        Some(loaded) => {
            let state = serde_json::from_value(trainer.resume(loaded)?)
                .map_err(|e| Error::format(&loaded.path, format!("the position in the data: {e}")))?;
            warn_of_other_batches(&loaded.path, options)?;
            Batches::resume(corpus.train.clone(), options.batch, context, state)?
        }
        None => Batches::new(corpus.train.clone(), options.batch, context, options.seed)?,
    };
    let mut source = TextBatches { rows, task };
    let held_out = sample_of(held_out_for(task, &corpus.held_out, options.batch, context));
    introduce(options, &gpu, &trainer, model.as_ref(), &corpus, resumed.is_some().then_some(&inherited))?;
    if let Some(first) = belongings.tokenizer.prefix().first().and_then(|&id| belongings.tokenizer.token(id)) {
        say::tell(format_args!(
            "the tokenizer puts {first} in front of a text; batches are cut from within it and have none, as in eval --bos never"
        ));
    }

    let ends = options.minutes.map(|minutes| stop_after(minutes, stop.clone())).transpose()?;
    let history = RefCell::new(History::load(resumed.as_ref().map(|loaded| loaded.path.as_path()))?);
    let bar = bar(options.steps, trainer.state().step, &options.common);
    let start = Instant::now();
    let mut save = |trainer: &Trainer, position: &Value| {
        let mut files = files.clone();
        files.push((HISTORY.into(), history.borrow().to_json()?));
        trainer.save(&checkpoints, position, &files).map(Some)
    };
    let mut screen = Screen { bar: &bar, json: options.common.json, ends, said: None };
    let mut unheard = None;
    let mut progress = |event: &Event| {
        history.borrow_mut().take(event);
        // Who cannot be told of a run stops it, as Ctrl-C does: it saves first.
        if unheard.is_none()
            && let Err(error) = screen.show(event, &history.borrow())
        {
            unheard = Some(error);
            stop.store(true, Ordering::Relaxed);
        }
    };
    let outcome = trainer.run(&mut source, &held_out, &stop, &mut save, &mut progress)?;
    bar.finish_and_clear();
    if let Some(error) = unheard {
        return Err(error);
    }

    let folder = options.out.join(MODEL);
    let state = trainer.state();
    let tensors = models::named_tensors(model.as_ref(), trainer.weights())?;
    belongings.contents(&models::stored_config(model.as_ref(), trainer.weights()), &tensors).save(&folder)?;
    let history = history.into_inner();
    write_atomic(options.out.join(HISTORY), &history.to_json()?)?;
    // A run that was stopped before its first step has nothing to draw.
    let picture = Some(options.out.join(PICTURE)).filter(|_| !history.train.is_empty());
    if let Some(picture) = &picture {
        let curve = plot::Curve { title: "Loss by step", train: &history.train, held_out: &history.held_out };
        plot::loss_curve(picture, &curve)?;
    }
    let how = match outcome {
        Outcome::Finished => "finished",
        Outcome::StoppedEarly => "stopped early: the held-out loss got no better",
        Outcome::Interrupted => "stopped; go on with --resume",
    };
    if options.common.json {
        let best = state.best_loss;
        say!(
            "{}",
            json!({ "event": "end", "outcome": how, "step": state.step, "best_held_out_loss": best, "model": folder })
        )?;
    } else {
        say!("{how} at step {} after {}", state.step, HumanDuration(start.elapsed()))?;
        say!("model       {}", folder.display())?;
        if let Some(picture) = &picture {
            say!("loss curve  {}", picture.display())?;
        }
        say!("checkpoints {}", checkpoints.folder().display())?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Some of the held-out batches, spread evenly.
fn sample_of(batches: Vec<HeldOut>) -> Vec<HeldOut> {
    let stride = batches.len().div_ceil(EVALUATION).max(1);
    batches.into_iter().step_by(stride).collect()
}

/// A new run must not silently replace the checkpoints of another, or a model.
fn refuse_to_overwrite(options: &TrainArgs, checkpoints: &Checkpoints) -> Result<()> {
    let (folder, model) = (checkpoints.folder(), options.out.join(MODEL));
    let begun = folder.exists() && !checkpoints.is_empty()?;
    if begun && !options.resume {
        let message =
            "a run lies here already: go on with it (--resume), choose another folder (--out) or remove this one";
        return Err(Error::format(&options.out, message));
    }
    let filled = |folder: &Path| std::fs::read_dir(folder).is_ok_and(|mut entries| entries.next().is_some());
    if !begun && filled(&model) {
        let message = "a model lies here, and no run that made it: choose another folder (--out) or move it away";
        return Err(Error::format(&model, message));
    }
    Ok(())
}

/// What lies where the results go should not cost the steps before they are written.
fn check_results(out: &Path) -> Result<()> {
    let model = out.join(MODEL);
    let folders = [out, &model];
    for folder in folders.into_iter().filter(|folder| folder.symlink_metadata().is_ok()) {
        tempfile::tempfile_in(folder).map_err(|e| Error::file(folder, e))?;
    }
    match [HISTORY, PICTURE].map(|name| out.join(name)).into_iter().find(|path| path.is_dir()) {
        Some(path) => Err(Error::format(path, "is a folder where a file of the run belongs: move it away")),
        None => Ok(()),
    }
}

/// A run of other batches is another run from here on; that is for people to know.
fn warn_of_other_batches(checkpoint: &Path, options: &TrainArgs) -> Result<()> {
    let before = Given::load(checkpoint)?.batch();
    if before.is_some_and(|before| before != options.batch) {
        log::warn!("the run goes on with batches of {} sequences, other than before", options.batch);
    }
    Ok(())
}

/// The model that learns.
struct Learner {
    model: Arc<dyn Model>,
    weights: Weights,
    belongings: Belongings,
}

/// What lies beside a model's weights in its folder.
struct Belongings {
    tokenizer: Tokenizer,
    generation: Option<Value>,
    companions: Vec<(String, Vec<u8>)>,
}

impl Belongings {
    fn new(tokenizer: Tokenizer) -> Self {
        Self { tokenizer, generation: None, companions: Vec::new() }
    }

    fn of(folder: &ModelFolder) -> Result<Self> {
        Ok(Self {
            tokenizer: folder.expect_tokenizer()?.clone(),
            generation: folder.generation.as_ref().map(|config| config.value().clone()),
            companions: folder.companions()?,
        })
    }

    fn contents<'a>(&'a self, config: &'a Value, tensors: &'a [NamedTensor<'a>]) -> Contents<'a> {
        let Self { tokenizer, generation, companions } = self;
        Contents { config, generation: generation.as_ref(), tensors, tokenizer: Some(tokenizer), companions }
    }
}

/// The model of a checkpoint, with a store for its weights.
fn of_checkpoint(path: &Path, gpu: &Gpu, storage: DType) -> Result<Learner> {
    let folder = ModelFolder::open(path)?;
    let model = models::model_of(&folder)?;
    Ok(Learner { model: model.into(), weights: Weights::stored_as(gpu, storage), belongings: Belongings::of(&folder)? })
}

/// The model of a new run: of a folder, or new.
fn prepare(options: &TrainArgs, gpu: &Gpu, text: &str) -> Result<Learner> {
    if let Some(path) = &options.from {
        let folder = ModelFolder::open(path)?;
        let belongings = Belongings::of(&folder)?;
        if options.model.moe.is_some() {
            let message = "experts can't start from a trained model: leave out --moe, or --from";
            return Err(Error::input("moe", message));
        }
        let storage = DType::from(options.dtype);
        if let Some(spec) = &options.model.mor {
            let mut config = folder.config.value().clone();
            sparse::with_recursions(&mut config, spec)?;
            sparse::check_keys("mor", Some(spec), &config)?;
            let config = Config::new(format!("--mor {spec}"), config)?;
            let from = options.mor_init.unwrap_or(MorInit::Stepwise).into();
            let (model, weights) = models::uptrain_from_llama(gpu, &config, &folder, from, storage, options.seed)?;
            return Ok(Learner { model: Arc::new(model), weights, belongings });
        }
        let (model, weights) = models::load_model(gpu, &folder, storage)?;
        return Ok(Learner { model: model.into(), weights, belongings });
    }
    let tokenizer = tokenizer(&options.tokenizer, text)?;
    let model = model::new(&options.model, tokenizer.vocab_size(), options.dropout)?;
    let weights = Weights::stored_as(gpu, DType::from(options.dtype));
    model.initialise(&weights, options.seed)?;
    Ok(Learner { model: model.into(), weights, belongings: Belongings::new(tokenizer) })
}

fn tokenizer(wanted: &str, text: &str) -> Result<Tokenizer> {
    match wanted {
        "bytes" => Tokenizer::bytes(),
        "chars" => Tokenizer::characters(text),
        _ => match wanted.strip_prefix("bpe:").map(str::parse) {
            Some(Ok(size)) => Tokenizer::train_bpe(text, size),
            Some(Err(_)) => {
                Err(Error::input("tokenizer", format!("{wanted}: write the size as a number, e.g. bpe:1024")))
            }
            None => Tokenizer::open(wanted),
        },
    }
}

fn step_options(options: &TrainArgs) -> StepOptions {
    StepOptions {
        adam: AdamOptions { weight_decay: options.weight_decay as f32, ..AdamOptions::default() },
        max_norm: options.clip as f32,
        accumulation: options.accumulate,
        recompute: options.recompute,
        loss_scaling: (options.dtype == Storage::F16).then(LossScaling::default),
        ..StepOptions::default()
    }
}

fn run_options(options: &TrainArgs) -> RunOptions {
    RunOptions {
        steps: options.steps,
        seed: options.seed,
        evaluate_every: options.eval_every,
        patience: options.patience,
        save_every: options.checkpoint_every,
        ..RunOptions::default()
    }
}

fn schedule(options: &TrainArgs) -> Result<Schedule> {
    let warmup = match options.warmup {
        Some(warmup) if warmup > options.steps => {
            let message =
                format!("{warmup} steps are given, and there are {}: the rate would not get there", options.steps);
            return Err(Error::input("warmup", message));
        }
        Some(warmup) => warmup,
        None => WARMUP.min(options.steps),
    };
    let floor = options.final_lr.unwrap_or(FINAL);
    if options.final_lr.is_some() && matches!(options.schedule, ScheduleKind::Constant) {
        log::warn!("the rate of a constant schedule stays as it is: --final-lr changes nothing");
    }
    if options.patience.is_some() && options.eval_every == 0 {
        log::warn!("without evaluations (--eval-every 0) the run does not stop early: --patience changes nothing");
    }
    let decay = match options.schedule {
        ScheduleKind::Constant => Decay::Constant,
        ScheduleKind::Cosine => Decay::Cosine { floor },
        ScheduleKind::Linear => Decay::Linear { floor },
        ScheduleKind::Wsd => Decay::Wsd { fraction: 0.2, floor },
    };
    Ok(Schedule { peak: options.lr, warmup, steps: options.steps, decay })
}

fn introduce(
    options: &TrainArgs,
    gpu: &Gpu,
    trainer: &Trainer,
    model: &dyn Model,
    corpus: &Corpus,
    inherited: Option<&Vec<String>>,
) -> Result<()> {
    if options.common.json {
        return Ok(());
    }
    let recording = trainer.program().recording();
    say!("adapter  {}", gpu.info().name)?;
    say!(
        "model    {} parameters; a step is {} dispatches, {}flop",
        human_count(model.parameter_count()? as u64),
        recording.dispatches.len(),
        human_count(recording.flops())
    )?;
    say!("memory   {}", trainer.program().memory().to_string().replace('\n', "\n         "))?;
    say!("text     {} tokens, {} held out", corpus.train.len(), corpus.held_out.len())?;
    if let Some(inherited) = inherited {
        let with = if inherited.is_empty() { "" } else { ", as it began with " };
        say!("resumed  from step {}{with}{}", trainer.state().step, inherited.join(" "))?;
    }
    Ok(())
}

/// Sets the flag after some minutes; says when.
fn stop_after(minutes: f64, stop: Arc<AtomicBool>) -> Result<Instant> {
    let time = Duration::try_from_secs_f64(minutes * 60.0).ok();
    let ends = time.and_then(|time| Some((time, Instant::now().checked_add(time)?)));
    let (time, ends) = ends.ok_or_else(|| Error::input("minutes", "it must be a positive number, not that large"))?;
    std::thread::spawn(move || {
        std::thread::sleep(time);
        stop.store(true, Ordering::Relaxed);
    });
    Ok(ends)
}

fn bar(steps: u64, done: u64, common: &Common) -> ProgressBar {
    if common.json {
        return ProgressBar::hidden();
    }
    let style =
        ProgressStyle::with_template("{bar:30} {pos}/{len}  {msg}").unwrap_or_else(|_| ProgressStyle::default_bar());
    let bar = ProgressBar::new(steps).with_style(style);
    bar.set_position(done);
    bar
}

/// The losses of a run, for the picture; kept beside the checkpoints, so that a resumed run draws the whole curve.
#[derive(Debug, Default, serde::Serialize, serde::Deserialize)]
struct History {
    train: Vec<(u64, f64)>,
    held_out: Vec<(u64, f64)>,
    /// What the routers did, of models that have some.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    routing: Vec<(u64, RoutingSummary)>,
}

impl History {
    /// That of a checkpoint, or an empty one.
    fn load(checkpoint: Option<&Path>) -> Result<Self> {
        let Some(path) = checkpoint.map(|folder| folder.join(HISTORY)).filter(|path| path.exists()) else {
            return Ok(Self::default());
        };
        serde_json::from_value(read_json(&path)?).map_err(|e| Error::format(&path, e.to_string()))
    }

    fn to_json(&self) -> Result<Vec<u8>> {
        serde_json::to_vec(self).map_err(|e| Error::input("history", e.to_string()))
    }

    fn take(&mut self, event: &Event) {
        match event {
            Event::Step(step) => {
                self.train.push((step.step, f64::from(step.report.loss)));
                self.routing.extend(step.routing.as_ref().map(|routing| (step.step, routing.summary())));
            }
            Event::Evaluated { step, loss, .. } => self.held_out.push((*step, *loss)),
            Event::Saved { .. } => (),
        }
    }
}

/// What people, or programs, see of a run: a bar where there is a terminal, lines where there is none, or JSON.
struct Screen<'a> {
    bar: &'a ProgressBar,
    json: bool,
    /// When the run ends at the latest.
    ends: Option<Instant>,
    /// When a line was last printed.
    said: Option<Instant>,
}

impl Screen<'_> {
    fn show(&mut self, event: &Event, history: &History) -> Result<()> {
        if self.json {
            return say!("{}", as_json(event));
        }
        match event {
            Event::Step(step) => {
                self.bar.set_position(step.step);
                let line = self.line(step, history);
                if self.bar.is_hidden() && self.said.is_none_or(|at| at.elapsed() > EVERY) {
                    say!("step {:>6}  {line}", step.step)?;
                    self.said = Some(Instant::now());
                }
                self.bar.set_message(line);
            }
            Event::Evaluated { step, loss, .. } => {
                let line = format!("step {step:>6}  held-out loss {loss:.4}  perplexity {:.1}", loss.exp());
                // A hidden bar would swallow it.
                self.bar.suspend(|| say!("{line}"))?;
            }
            Event::Saved { .. } => (),
        }
        Ok(())
    }

    fn line(&self, step: &StepEvent, history: &History) -> String {
        let held_out = history.held_out.last().map_or(String::new(), |(_, loss)| format!(" (held out {loss:.3})"));
        let end = self.ends.map_or(Duration::MAX, |ends| ends.saturating_duration_since(Instant::now()));
        format!(
            "loss {:.3}{held_out}{}  {:.0} tokens/s  {} left",
            step.report.loss,
            step.routing.as_ref().map_or(String::new(), |routing| in_words(&routing.summary())),
            step.tokens_per_second,
            HumanDuration(step.remaining.min(end))
        )
    }
}

/// What the routers did, for a line of progress.
fn in_words(routing: &RoutingSummary) -> String {
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
                "lr": step.learning_rate, "tokens_per_second": step.tokens_per_second,
            });
            if let Some(routing) = &step.routing {
                line["routing"] = json!(routing.summary());
            }
            line
        }
        Event::Evaluated { step, loss, best } => {
            json!({ "event": "evaluated", "step": step, "loss": loss, "best": best })
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
    fn routers_are_told_in_a_few_words() {
        let mut routing = summary();
        assert_eq!(in_words(&routing), "  load ≤ 1.62×, entropy 1.50  depth 1.75 (100/50/25 %)");
        routing.recursions = None;
        if let Some(experts) = &mut routing.experts {
            (experts.unused, experts.dropped) = (3, 0.0312);
        }
        assert_eq!(in_words(&routing), "  load ≤ 1.62×, entropy 1.50, 3 unused, 3.1 % dropped");
    }

    #[test]
    fn a_history_survives_the_round_trip_with_routers_and_from_before_there_were_any() {
        let history = History { train: vec![(1, 2.5)], held_out: vec![(1, 3.0)], routing: vec![(1, summary())] };
        let again: History = serde_json::from_slice(&history.to_json().unwrap()).unwrap();
        assert_eq!(again.routing, history.routing);
        let old: History = serde_json::from_str(r#"{"train": [[1, 2.5]], "held_out": []}"#).unwrap();
        assert_eq!(old.train, [(1, 2.5)]);
        assert!(old.routing.is_empty() && !String::from_utf8(old.to_json().unwrap()).unwrap().contains("routing"));
    }
}
