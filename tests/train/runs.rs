//! Whole runs: loss, determinism, early stop, resuming.

use super::ensure;
use super::regression::{Regression, Rows, download, losses, options, trainer, weights};
use libtest_mimic::Failed;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use wgformer::io::Checkpoints;
use wgformer::train::{BatchSource, Event, LossScaling, Outcome, RunOptions, Schedule, Trainer};
use wgformer::{DType, Gpu, Result};

pub(crate) fn the_loss_falls(gpu: &Gpu) -> Result<(), Failed> {
    let objective = Regression::new(33);
    let mut data = Rows::new(33, 4);
    let mut trainer = trainer(gpu, &objective, options(), RunOptions::default())?;
    let losses = losses(&mut trainer, &mut data, 120)?;
    let held_out = trainer.evaluate(&data.all())?;
    ensure(losses.len() == 120, format!("{} reports for 120 steps", losses.len()))?;
    ensure(losses[119] < 0.25 * losses[0], format!("from {} to {}", losses[0], losses[119]))?;
    ensure((held_out - f64::from(losses[119])).abs() < 0.1, format!("evaluated to {held_out}"))
}

pub(crate) fn one_seed_gives_one_result(gpu: &Gpu) -> Result<(), Failed> {
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

pub(crate) fn half_precision_storage_trains(gpu: &Gpu) -> Result<(), Failed> {
    for storage in [DType::F16, DType::BF16] {
        let objective = Regression { rows: 33, storage };
        let mut data = Rows::new(33, 4);
        let options = options().with_loss_scaling(LossScaling::default());
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

pub(crate) fn rates_change(gpu: &Gpu) -> Result<(), Failed> {
    let objective = Regression::new(33);
    let mut data = Rows::new(33, 4);
    let mut trainer = trainer(gpu, &objective, options(), RunOptions::default())?;
    losses(&mut trainer, &mut data, 2)?;
    let before = download(&trainer, "flat.parameters")?;
    trainer.set_schedule(Schedule::constant(0.0))?;
    losses(&mut trainer, &mut data, 2)?;
    ensure(download(&trainer, "flat.parameters")? == before, "a rate of 0 changed the weights")?;
    trainer.set_schedule(Schedule::constant(1e-3))?;
    losses(&mut trainer, &mut data, 2)?;
    ensure(download(&trainer, "flat.parameters")? != before, "a rate of 1e-3 changed nothing")?;
    ensure(trainer.set_schedule(Schedule::constant(f64::NAN)).is_err(), "a rate of NaN was taken")
}

pub(crate) fn early_stop(gpu: &Gpu) -> Result<(), Failed> {
    let objective = Regression::new(33);
    let mut data = Rows::new(33, 4);
    let run = RunOptions::default().with_steps(50).with_evaluate_every(2).with_patience(2);
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

pub(crate) fn a_killed_run_resumes_bit_by_bit(gpu: &Gpu) -> Result<(), Failed> {
    for storage in [DType::F32, DType::BF16] {
        let objective = Regression { rows: 33, storage };
        let options = options().with_accumulation(2).with_loss_scaling(LossScaling::default());
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
            // Steps after the save are lost.
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
