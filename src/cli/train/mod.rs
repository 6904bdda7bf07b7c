//! `wgformer train`: trains a model on text.

mod data;
mod learner;
mod progress;
mod tasks;
mod work;

use super::args::{Common, ScheduleKind, Storage, TrainArgs};
use super::device::Device;
use super::explicit_args::{self, ExplicitArgs};
use super::{outln, output, plot};
use crate::error::{Error, Result};
use crate::gpu::Gpu;
use crate::io::{Checkpoints, write_atomic};
use crate::program::human_count;
use crate::train::{
    AdamOptions, DataState, Decay, Event, HeldOut, LossScaling, Measure, Outcome, RunOptions, Schedule, StepOptions,
    Trainer,
};
use indicatif::{HumanDuration, ProgressBar, ProgressStyle};
use learner::Learner;
use progress::{History, Screen};
use serde_json::{Value, json};
use std::cell::RefCell;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use work::Work;

/// The number of batches of an evaluation.
const EVALUATION: usize = 16;
/// The time between two lines of progress without a terminal.
const EVERY: Duration = Duration::from_secs(10);
/// The losses so far: in every checkpoint, and next to the loss curve.
const HISTORY: &str = "history.json";
/// The folder of the finished model.
const MODEL: &str = "model";
/// The loss curve.
const PICTURE: &str = "loss.svg";
/// The metric's curve.
const METRIC: &str = "metric.svg";
/// The best model so far of a run that is measured.
const BEST: &str = "best";
/// The default highest learning rates: of a new model, of a trained one for a task, of adapters beside such a one.
const RATE: f64 = 2e-3;
const TUNING: f64 = 5e-5;
const ADAPTING: f64 = 5e-4;
/// The default steps of warm-up.
const WARMUP: u64 = 50;
/// The default final rate as a share of the highest.
const FINAL: f64 = 0.1;
/// The number of checkpoints that are kept.
const KEEP: usize = 2;

/// How often a run goes on by itself after its device was lost without a new checkpoint in between.
const RECOVERIES: u32 = 3;

pub(super) fn run(options: &TrainArgs, explicit: ExplicitArgs) -> Result<ExitCode> {
    let stop = Arc::new(AtomicBool::new(false));
    let flag = stop.clone();
    // A request to terminate does the same. A second Ctrl-C ends the process at once; checkpoints are atomic.
    ctrlc::set_handler(move || {
        if flag.swap(true, Ordering::Relaxed) {
            std::process::exit(130);
        }
        output::note(format_args!("\nsaving a checkpoint first; press Ctrl-C again to stop at once"));
    })
    .map_err(|e| Error::input("Ctrl-C", e.to_string()))?;

    let checkpoints = Checkpoints::new(options.out.join("checkpoints"), KEEP);
    let mut options = options.clone();
    let mut lost_behind = (None, 0);
    loop {
        let reason = match attempt(&options, explicit.clone(), &stop) {
            Err(Error::DeviceLost { reason }) => reason,
            other => return other,
        };
        let step = checkpoints.latest()?.map(|saved| saved.path);
        lost_behind = if lost_behind.0 == step { (step, lost_behind.1 + 1) } else { (step, 1) };
        if lost_behind.1 > RECOVERIES || stop.load(Ordering::Relaxed) {
            return Err(Error::DeviceLost { reason });
        }
        let from = if lost_behind.0.is_some() { "its last checkpoint" } else { "the beginning" };
        output::note(format_args!("the device was lost ({reason}): the run goes on from {from}, on a new device"));
        options.resume = true;
    }
}

/// The run, from its beginning or its last checkpoint, until it ends or fails.
fn attempt(options: &TrainArgs, mut explicit: ExplicitArgs, stop: &Arc<AtomicBool>) -> Result<ExitCode> {
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
        Some(loaded) => explicit.inherit(ExplicitArgs::load(&loaded.path)?)?,
        None => Vec::new(),
    };
    let merged = if inherited.is_empty() { None } else { Some(explicit.parse()?) };
    // The output folder is this command's, byte for byte.
    let merged = merged.map(|merged| TrainArgs { out: options.out.clone(), ..merged });
    let options = merged.as_ref().unwrap_or(options);
    let device = Device::open(&options.common)?;
    let gpu = device.gpu.clone();
    refuse_to_overwrite(options, &checkpoints)?;
    let work = Work::new(options, &gpu, resumed.as_ref())?;
    let Learner { model, weights, files, .. } = &work.learner;
    let mut small_files = files.contents(&model.config(), &[]).small_files()?;
    small_files.push((explicit_args::FILE.into(), explicit.to_json()?));
    let steps = work.steps(options);
    let (run, schedule) = (run_options(options, steps), schedule(options, steps)?);
    let step = StepOptions { rates: tasks::rates(options, model.as_ref())?, ..step_options(options) };
    let mut trainer = Trainer::new(&gpu, weights, work.first()?, step, run, schedule)?;
    for objective in work.objectives.iter().skip(1) {
        trainer.add_size(objective)?;
    }
    device.save_caches();
    // Fail now rather than at the first save if the folder can't be written.
    checkpoints.make_folder()?;
    let _lock = lock.map_or_else(|| checkpoints.lock(), Ok)?;
    check_results(&options.out)?;
    let state = match &resumed {
        Some(loaded) => {
            let state = serde_json::from_value(trainer.resume(loaded)?)
                .map_err(|e| Error::format(&loaded.path, format!("the position in the data: {e}")))?;
            warn_of_other_batches(&loaded.path, options)?;
            state
        }
        None => DataState { seed: options.seed, epoch: 0, cursor: 0, text: 0 },
    };
    let mut source = work.source(state)?;
    let held_out = sample_of(work.held_out()?);
    let best = options.out.join(BEST);
    let mut measuring = work.measure(&gpu, trainer.weights(), &best)?;
    work.write_beside(&options.out)?;
    introduce(options, &gpu, &trainer, &work, resumed.is_some().then_some(&inherited))?;
    if work.cuts()
        && let Some(first) = files.tokenizer.prefix().first().and_then(|&id| files.tokenizer.token(id))
    {
        output::note(format_args!(
            "the tokenizer begins a text with {first}; batches are cut from within the text and have none, as with eval --bos never"
        ));
    }

    let ends = options.minutes.map(|minutes| stop_after(minutes, stop.clone())).transpose()?;
    let history = RefCell::new(History::load(resumed.as_ref().map(|loaded| loaded.path.as_path()))?);
    let bar = bar(steps, trainer.state().step, &options.common);
    let start = Instant::now();
    let mut save = |trainer: &Trainer, position: &Value| {
        let mut saved = small_files.clone();
        saved.push((HISTORY.into(), history.borrow().to_json()?));
        trainer.save(&checkpoints, position, &saved).map(Some)
    };
    let mut screen = Screen { bar: &bar, json: options.common.json, ends, last_line: None };
    let mut output_error = None;
    let mut progress = |event: &Event| {
        history.borrow_mut().take(event);
        lose_device(event, &gpu);
        // If progress can't be printed the run saves and stops, as with Ctrl-C.
        if output_error.is_none()
            && let Err(error) = screen.show(event, &history.borrow())
        {
            output_error = Some(error);
            stop.store(true, Ordering::Relaxed);
        }
    };
    let measure = measuring.as_mut().map(|measuring| measuring as &mut dyn Measure);
    let outcome = trainer.run_measured(source.as_mut(), &held_out, measure, stop, &mut save, &mut progress)?;
    bar.finish_and_clear();
    if let Some(error) = output_error {
        return Err(error);
    }

    let folder = options.out.join(MODEL);
    let state = trainer.state();
    let has_best = tasks::take_best(&best, &folder)? || measuring.is_some() && folder.is_dir();
    if !has_best {
        work.save(trainer.weights(), &folder)?;
    }
    let history = history.into_inner();
    write_atomic(options.out.join(HISTORY), &history.to_json()?)?;
    // A run that stopped before its first step has no curve.
    let picture = Some(options.out.join(PICTURE)).filter(|_| !history.train.is_empty());
    if let Some(picture) = &picture {
        let (unit, rises) = (plot::LOSS, false);
        let curve =
            plot::Curve { title: "Loss by step", unit, rises, train: &history.train, held_out: &history.held_out };
        plot::loss_curve(picture, &curve)?;
    }
    let metric = Some(options.out.join(METRIC)).filter(|_| !history.measured.is_empty());
    if let Some(metric) = &metric {
        let (title, unit) = (format!("{} by step", history.measure), history.measure.as_str());
        let curve = plot::Curve { title: &title, unit, rises: true, train: &[], held_out: &history.measured };
        plot::loss_curve(metric, &curve)?;
    }
    let how = match outcome {
        Outcome::Finished => "finished",
        Outcome::StoppedEarly if has_best => "stopped early: the metric did not improve",
        Outcome::StoppedEarly => "stopped early: the held-out loss did not improve",
        Outcome::Interrupted => "stopped; continue with --resume",
    };
    if options.common.json {
        let (best, padding) = (state.best_loss, history.padding());
        let end = json!({ "event": "end", "outcome": how, "step": state.step, "best_held_out_loss": best,
                          "best_measure": state.best_measure, "padding": padding, "model": folder });
        outln!("{end}")?;
    } else {
        outln!("{how} at step {} after {}", state.step, HumanDuration(start.elapsed()))?;
        if !work.cuts() {
            outln!("padding     {:.1} % of the positions", 100.0 * history.padding())?;
        }
        outln!("model       {}", folder.display())?;
        if let Some(picture) = &picture {
            outln!("loss curve  {}", picture.display())?;
        }
        if let (Some(metric), Some(best)) = (&metric, history.measured.iter().max_by(|a, b| a.1.total_cmp(&b.1))) {
            outln!("best        {} {:.4} at step {}, kept as the model", history.measure, best.1, best.0)?;
            outln!("metric      {}", metric.display())?;
        }
        outln!("checkpoints {}", checkpoints.folder().display())?;
    }
    Ok(ExitCode::SUCCESS)
}

/// In builds for tests: loses the device once, behind the step that the environment names.
fn lose_device(event: &Event, gpu: &Gpu) {
    static LOST: AtomicBool = AtomicBool::new(false);
    if cfg!(debug_assertions)
        && let Event::Step(step) = event
        && std::env::var("WGFORMER_TEST_LOSE_DEVICE").is_ok_and(|at| at == step.step.to_string())
        && !LOST.swap(true, Ordering::Relaxed)
    {
        gpu.device().destroy();
    }
}

/// A sample of the held-out batches at even intervals.
fn sample_of(batches: Vec<HeldOut>) -> Vec<HeldOut> {
    let stride = batches.len().div_ceil(EVALUATION).max(1);
    batches.into_iter().step_by(stride).collect()
}

/// Refuses to replace the checkpoints or the model of another run.
fn refuse_to_overwrite(options: &TrainArgs, checkpoints: &Checkpoints) -> Result<()> {
    let (folder, model) = (checkpoints.folder(), options.out.join(MODEL));
    let begun = folder.exists() && !checkpoints.is_empty()?;
    if begun && !options.resume {
        let message = "the folder already contains a run: continue it (--resume), choose another folder (--out) or remove this one";
        return Err(Error::format(&options.out, message));
    }
    let filled = |folder: &Path| std::fs::read_dir(folder).is_ok_and(|mut entries| entries.next().is_some());
    if !begun && filled(&model) {
        let message = "the folder contains a model without a run: choose another folder (--out) or move it away";
        return Err(Error::format(&model, message));
    }
    Ok(())
}

/// Checks that results can be written before the first step, not after the last.
fn check_results(out: &Path) -> Result<()> {
    let model = out.join(MODEL);
    let folders = [out, &model];
    for folder in folders.into_iter().filter(|folder| folder.symlink_metadata().is_ok()) {
        tempfile::tempfile_in(folder).map_err(|e| Error::file(folder, e))?;
    }
    match [HISTORY, PICTURE].map(|name| out.join(name)).into_iter().find(|path| path.is_dir()) {
        Some(path) => Err(Error::format(path, "it is a folder, but the run writes a file of this name: move it away")),
        None => Ok(()),
    }
}

/// Warns that a run with another batch size is not the same run any more.
fn warn_of_other_batches(checkpoint: &Path, options: &TrainArgs) -> Result<()> {
    let before = ExplicitArgs::load(checkpoint)?.batch();
    if before.is_some_and(|before| before != options.batch) {
        log::warn!("the run continues with batches of {} sequences, a different size than before", options.batch);
    }
    Ok(())
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

fn run_options(options: &TrainArgs, steps: u64) -> RunOptions {
    RunOptions {
        steps,
        seed: options.seed,
        evaluate_every: options.eval_every,
        patience: options.patience,
        save_every: options.checkpoint_every,
        ..RunOptions::default()
    }
}

fn schedule(options: &TrainArgs, steps: u64) -> Result<Schedule> {
    let warmup = match options.warmup {
        Some(warmup) if warmup > steps => {
            let message = format!(
                "there are {warmup} steps of warm-up, but only {steps} steps: the rate would not reach its peak"
            );
            return Err(Error::input("warmup", message));
        }
        Some(warmup) => warmup,
        None => WARMUP.min(steps),
    };
    let floor = options.final_lr.unwrap_or(FINAL);
    if options.final_lr.is_some() && matches!(options.schedule, ScheduleKind::Constant) {
        log::warn!("--final-lr has no effect on a constant schedule");
    }
    if options.patience.is_some() && options.eval_every == 0 {
        log::warn!("--patience has no effect without evaluations (--eval-every 0)");
    }
    let decay = match options.schedule {
        ScheduleKind::Constant => Decay::Constant,
        ScheduleKind::Cosine => Decay::Cosine { floor },
        ScheduleKind::Linear => Decay::Linear { floor },
        ScheduleKind::Wsd => Decay::Wsd { fraction: 0.2, floor },
    };
    let peak = options.lr.unwrap_or(match (options.task.task, &options.from, options.lora.lora) {
        (Some(_), Some(_), None) => TUNING,
        (Some(_), Some(_), Some(_)) => ADAPTING,
        _ => RATE,
    });
    Ok(Schedule { peak, warmup, steps, decay })
}

fn introduce(
    options: &TrainArgs,
    gpu: &Gpu,
    trainer: &Trainer,
    work: &Work,
    inherited: Option<&Vec<String>>,
) -> Result<()> {
    if options.common.json {
        return Ok(());
    }
    let recording = trainer.program().recording();
    outln!("adapter  {}", gpu.info().name)?;
    let trained = match trainer.weights().storage().adapters {
        Some(_) => format!(", of adapters {}", human_count(trainer.parameter_count() as u64)),
        None => String::new(),
    };
    outln!(
        "model    {} parameters{}; a step is {} dispatches, {}{}flop",
        human_count(work.model().parameter_count()? as u64),
        trained,
        recording.dispatches.len(),
        // Texts of their own differ in length: attention stays within them, and batches may be of a smaller size.
        if work.cuts() { "" } else { "at most " },
        human_count(recording.flops())
    )?;
    outln!("memory   {}", trainer.program().memory().to_string().replace('\n', "\n         "))?;
    outln!("{}", work.about())?;
    if let Some(inherited) = inherited {
        let with = if inherited.is_empty() { "" } else { ", with the run's options " };
        outln!("resumed  from step {}{with}{}", trainer.state().step, inherited.join(" "))?;
    }
    Ok(())
}

/// Sets the flag after some minutes; returns the time when.
fn stop_after(minutes: f64, stop: Arc<AtomicBool>) -> Result<Instant> {
    let time = Duration::try_from_secs_f64(minutes * 60.0).ok();
    let ends = time.and_then(|time| Some((time, Instant::now().checked_add(time)?)));
    let (time, ends) = ends.ok_or_else(|| Error::input("minutes", "it must be a smaller positive number"))?;
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
