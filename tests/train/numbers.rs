//! AdamW against f64, and numbers that are not finite.

use super::ensure;
use super::regression::{INPUTS, Regression, Rows, difference, download, losses, options, schedule, trainer, weights};
use libtest_mimic::Failed;
use wgformer::graph::{Array, Values};
use wgformer::train::{BatchSource, Feeds, LossScaling, Objective, RunOptions, Trainer};
use wgformer::{Error, Gpu, Graph, Result, Tensor};

/// The same five steps in f64, with gradients of the f64 twin.
pub(crate) fn five_steps_agree_with_f64(gpu: &Gpu) -> Result<(), Failed> {
    let objective = Regression::new(17);
    let mut data = Rows::new(17, 5);
    let options = options().with_max_norm(0.3);
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

pub(crate) fn loss_scaling_changes_only_the_scale(gpu: &Gpu) -> Result<(), Failed> {
    let mut data = Rows::new(33, 4);
    let mut plain = trainer(gpu, &Regression::new(33), options(), RunOptions::default())?;
    // Powers of two scale without rounding.
    let scaling = LossScaling { initial: 256.0, growth: 2.0, backoff: 0.5, interval: 2 };
    let scaled = options().with_loss_scaling(scaling);
    let mut scaled = trainer(gpu, &Regression::new(33), scaled, RunOptions::default())?;
    let (a, b) = (losses(&mut plain, &mut data, 5)?, losses(&mut scaled, &mut Rows::new(33, 4), 5)?);
    let error = difference(&a, &b);
    ensure(error <= 1e-5, format!("losses differ by {error:e}"))?;
    let state = download(&scaled, "optimizer.state")?;
    ensure(state[0] == 1024.0 && state[3] == 5.0, format!("after 5 steps the state is {:?}", &state[..8]))
}

pub(crate) fn overflow_is_skipped(gpu: &Gpu) -> Result<(), Failed> {
    let scaling = LossScaling { initial: 1e30, growth: 2.0, backoff: 0.001, interval: 1000 };
    let options = options().with_loss_scaling(scaling);
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

pub(crate) fn nan_weights_are_an_error(gpu: &Gpu) -> Result<(), Failed> {
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

pub(crate) fn a_loss_that_is_not_finite_is_an_error(gpu: &Gpu) -> Result<(), Failed> {
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
