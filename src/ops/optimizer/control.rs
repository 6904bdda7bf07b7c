//! The control of an optimiser step, decided on the GPU.

use super::as_state;
use super::{expect_count, expect_vector};
use crate::case::{Case, Feed};
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::graph::{Alias, Array, Graph, Op, Tensor};
use crate::kernel::{Dispatch, Kernel, Launch, kernel};
use crate::shape::{Shape, TensorType};

static OPTIMIZER_CONTROL: Kernel = kernel!("optimizer/optimizer_control");
static LOSS_SEED: Kernel = kernel!("optimizer/loss_seed");

/// The scalars that the caller writes before each step: the input `scalars` of [`optimizer_control`].
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct OptimizerScalars {
    /// The learning rate of this step.
    pub learning_rate: f32,
    /// The decay of the first moment.
    pub beta1: f64,
    /// The decay of the second moment.
    pub beta2: f64,
    /// ε, added to the root of the second moment.
    pub epsilon: f32,
    /// The decoupled weight decay.
    pub weight_decay: f32,
    /// Gradients are clipped to this norm; 0 disables clipping.
    pub max_norm: f32,
    /// The factor of loss and gradients: 1 / the number of micro-batches.
    pub share: f32,
    /// The loss scale of the first step; 1 for none.
    pub initial_scale: f32,
    /// The loss scale is multiplied by this after `interval` good steps; 1 keeps it.
    pub growth: f32,
    /// The loss scale is multiplied by this when a gradient is not finite; 1 keeps it.
    pub backoff: f32,
    /// Good steps between two growths.
    pub interval: f32,
    /// The largest loss scale.
    pub largest_scale: f32,
}

impl OptimizerScalars {
    /// The number of f32 in the tensor.
    pub const LEN: usize = 16;

    /// The tensor's elements. Betas are stored as 1 − β, because in f32 1 − 0.999 is off by 1e-5.
    #[must_use]
    pub fn to_array(self) -> [f32; Self::LEN] {
        let mut words = [0.0; Self::LEN];
        words[..12].copy_from_slice(&[
            self.learning_rate,
            (1.0 - self.beta1) as f32,
            (1.0 - self.beta2) as f32,
            self.epsilon,
            self.weight_decay,
            self.max_norm,
            self.share,
            self.initial_scale,
            self.growth,
            self.backoff,
            self.interval,
            self.largest_scale,
        ]);
        words
    }
}

/// The report of a step: the `control` tensor read back.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct StepReport {
    /// The loss of all micro-batches together.
    pub loss: f32,
    /// The norm of the gradients before clipping; NaN if one was not finite.
    pub norm: f32,
    /// The factor of clipping.
    pub clip: f32,
    /// The loss scale of this step.
    pub loss_scale: f32,
    /// The number of steps that changed the weights, including this one.
    pub updates: u64,
    /// The total number of steps skipped because of a value that was not finite.
    pub skipped: u64,
    /// The number of consecutive skipped steps up to this one; 0 if this step was good.
    pub skipped_in_row: u64,
}

impl StepReport {
    /// The report in a control tensor's elements; `None` if they are too few.
    #[must_use]
    pub fn from_slice(control: &[f32]) -> Option<Self> {
        if control.len() < OptimizerControl::LEN {
            return None;
        }
        Some(Self {
            loss: control[9],
            norm: control[10],
            clip: control[15],
            loss_scale: control[11],
            updates: control[12] as u64,
            skipped: control[13] as u64,
            skipped_in_row: control[14] as u64,
        })
    }
}

/// [`optimizer_control`] as an op. Inputs: norm, loss, scalars, state. Outputs: control (16) and the state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct OptimizerControl;

impl OptimizerControl {
    /// Elements of the control tensor.
    pub(crate) const LEN: usize = 16;
    /// Elements of the state: a flat range, of which 8 are in use.
    pub(crate) const STATE: usize = super::BLOCK;
}

impl Op for OptimizerControl {
    fn name(&self) -> &'static str {
        "optimizer_control"
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>> {
        let name = self.name();
        expect_count(name, inputs, 4)?;
        expect_vector(name, "norm", &inputs[0], 1)?;
        expect_vector(name, "loss", &inputs[1], inputs[1].shape.numel().max(1))?;
        expect_vector(name, "scalars", &inputs[2], OptimizerScalars::LEN)?;
        expect_vector(name, "state", &inputs[3], Self::STATE)?;
        Ok(vec![TensorType::f32([Self::LEN]), inputs[3].clone()])
    }

    fn reference(&self, inputs: &[&Array]) -> Result<Vec<Array>> {
        let (norm, loss) = (inputs[0].data[0], inputs[1].data[0]);
        let (s, mut state) = (&inputs[2].data, inputs[3].data.clone());
        let good = norm.is_finite() && loss.is_finite();
        let scale = if state[0] == 0.0 { s[7] } else { state[0] };
        let true_norm = norm * s[6] / scale;
        let length = if good { true_norm } else { 0.0 };
        let clip = if s[5] > 0.0 { (s[5] / (length + 1e-6)).min(1.0) } else { 1.0 };
        if good {
            let grows = state[1] + 1.0 >= s[10];
            state[0] = if grows { (scale * s[8]).min(s[11]) } else { scale };
            state[1] = if grows { 0.0 } else { state[1] + 1.0 };
            state[3] += 1.0;
            state[4] = s[1] + (1.0 - s[1]) * state[4];
            state[5] = s[2] + (1.0 - s[2]) * state[5];
            state[7] = 0.0;
        } else {
            state[0] = (scale * s[9]).max(1e-6);
            state[1] = 0.0;
            state[2] += 1.0;
            state[7] += 1.0;
        }
        state[6] = length;
        let skip = if good { 0.0 } else { 1.0 };
        let (c1, c2, t, skipped, row) = (state[4], state[5], state[3], state[2], state[7]);
        let decided = vec![clip * s[6] / scale, s[0], c1, c2, s[1], s[2], s[3], s[4], skip];
        let reported = [loss * s[6], true_norm, scale, t, skipped, row, clip];
        let control = decided.into_iter().chain(reported).collect();
        Ok(vec![Array::new([Self::LEN], control)?, Array::new([Self::STATE], state)?])
    }

    fn launch(&self, cx: &mut Launch<'_>) -> Result<()> {
        cx.dispatch(
            Dispatch::new(&OPTIMIZER_CONTROL)
                .read(cx.input(0))
                .read(cx.input(1))
                .read(cx.input(2))
                .write(cx.output(0))
                .update(cx.output(1)),
        )
    }

    fn alias(&self, index: usize) -> Option<Alias> {
        (index == 1).then_some(Alias::InPlace(3))
    }
}

/// Clipping, bias correction, loss scaling and the decision whether to step; returns the control tensor and the updated state. No gradient.
///
/// ```text
/// true_norm = norm · share / scale
/// coefficient = min(1, max_norm / (true_norm + 1e-6)) · share / scale
/// c1 ← (1 − β1) + β1 c1, which is 1 − β1^t without cancellation; c2 alike, 1 − β1 and 1 − β2 being among the scalars
/// ```
///
/// If norm and loss are finite, the step counts (t + 1) and the loss scale grows by `growth` after `interval` of them.
/// If not, the step is skipped, t and the corrections stay, and the loss scale is multiplied by `backoff`.
///
/// `norm` (1), `loss` (1 or more, the first is read), `scalars` (16, see [`OptimizerScalars`]), `state` (64, of which 8
/// are used: scale, good steps since it grew, skipped, t, c1, c2, norm, skipped in a row; zero at first), updated in
/// place. The control tensor (16): coefficient, lr, c1, c2, 1 − β1, 1 − β2, ε, weight decay, skip, loss, norm, scale, t,
/// skipped, skipped in a row, clip.
///
/// Loshchilov and Hutter, 2017 (arXiv 1711.05101); Micikevicius et al., `Mixed Precision Training`, 2017 (arXiv
/// 1710.03740).
///
/// # Errors
/// [`Error::Shape`] if an operand has a wrong size.
pub fn optimizer_control(
    g: &mut Graph,
    norm: Tensor,
    loss: Tensor,
    scalars: Tensor,
    state: Tensor,
) -> Result<(Tensor, Tensor)> {
    match g.put(OptimizerControl, &[norm, loss, scalars, state])?[..] {
        [control, state] => Ok((control, state)),
        _ => Err(Error::Graph("optimizer_control returned a wrong number of tensors".into())),
    }
}

/// [`loss_seed`] as an op. Inputs: state (64), scalars (16).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct LossSeed {
    /// The loss's shape, of one element.
    pub shape: Shape,
}

impl Op for LossSeed {
    fn name(&self) -> &'static str {
        "loss_seed"
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>> {
        expect_count("loss_seed", inputs, 2)?;
        expect_vector("loss_seed", "state", &inputs[0], OptimizerControl::STATE)?;
        expect_vector("loss_seed", "scalars", &inputs[1], OptimizerScalars::LEN)?;
        let ty = TensorType::f32(self.shape.clone());
        expect_vector("loss_seed", "the loss", &ty, 1)?;
        Ok(vec![ty])
    }

    fn reference(&self, inputs: &[&Array]) -> Result<Vec<Array>> {
        let scale = inputs[0].data[0];
        Ok(vec![Array::new(self.shape.clone(), vec![if scale == 0.0 { inputs[1].data[7] } else { scale }])?])
    }

    fn launch(&self, cx: &mut Launch<'_>) -> Result<()> {
        cx.dispatch(Dispatch::new(&LOSS_SEED).read(cx.input(0)).read(cx.input(1)).write(cx.output(0)))
    }
}

/// The loss scale of the state, or the initial one before the first step, in the shape of `loss`: the upstream gradient of the loss. `state` (64), `scalars` (16). No gradient.
///
/// # Errors
/// [`Error::Shape`] if the loss is not a scalar, or state or scalars have a wrong size.
pub(crate) fn loss_seed(g: &mut Graph, loss: Tensor, state: Tensor, scalars: Tensor) -> Result<Tensor> {
    let shape = g.shape(loss).clone();
    g.put1(LossSeed { shape }, &[state, scalars])
}

/// The conformance cases.
pub(super) fn cases() -> Vec<Case> {
    let states = [("first step", [0.0; 8]), ("scale grows", [2048.0, 2.0, 1.0, 7.0, 0.3, 0.05, 0.7, 1.0])];
    let mut cases = Vec::new();
    for (what, state) in states {
        for norm in [100.0, 9000.0] {
            let feeds = vec![
                Feed::given("norm", [1], DType::F32, [norm]),
                Feed::given("loss", [1], DType::F32, [2.5]),
                scalar_feed(),
                Feed::given(
                    "before",
                    [64],
                    DType::F32,
                    (0..64).map(|i| state.get(i).map_or(0.0, |&x| DType::F32.round(x))),
                ),
            ];
            let name = format!("optimizer_control {what}, norm {norm}");
            cases.push(Case::new(name, feeds, |g, x| {
                let before = as_state(g, "state", x[3])?;
                let seed = loss_seed(g, x[1], before, x[2])?;
                let (control, state) = optimizer_control(g, x[0], x[1], x[2], before)?;
                Ok(vec![seed, control, state])
            }));
        }
    }
    cases
}

fn scalars() -> OptimizerScalars {
    OptimizerScalars {
        learning_rate: 0.01,
        beta1: 0.9,
        beta2: 0.99,
        epsilon: 1e-6,
        weight_decay: 0.1,
        max_norm: 1.0,
        share: 0.5,
        initial_scale: 1024.0,
        growth: 2.0,
        backoff: 0.5,
        interval: 3.0,
        largest_scale: 65536.0,
    }
}

fn scalar_feed() -> Feed {
    Feed::given("scalars", [OptimizerScalars::LEN], DType::F32, scalars().to_array().map(f64::from))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dtype::DType;

    #[test]
    fn operands_of_another_size_are_refused() {
        let mut g = Graph::new();
        let one = g.input("one", [1], DType::F32).unwrap();
        let state = g.state("state", [64], DType::F32).unwrap();
        let error = optimizer_control(&mut g, one, one, one, state).unwrap_err().to_string();
        assert!(error.contains("scalars is f32[1], expected f32[16]"), "{error}");
        let error = loss_seed(&mut g, one, one, one).unwrap_err().to_string();
        assert!(error.contains("state is f32[1], expected f32[64]"), "{error}");
    }

    #[test]
    fn corrections_are_one_minus_the_power() {
        let scalars = scalars().map(f64::from);
        let scalars = Array::new([16], scalars.to_vec()).unwrap();
        let mut state = Array::zeros([OptimizerControl::STATE]);
        for _ in 0..100 {
            let inputs = [&Array::scalar(1.0), &Array::scalar(1.0), &scalars, &state];
            state = OptimizerControl.reference(&inputs).unwrap().remove(1);
        }
        approx::assert_relative_eq!(state.data[4], 1.0 - (1.0 - scalars.data[1]).powi(100), epsilon = 1e-12);
        approx::assert_relative_eq!(state.data[5], 1.0 - (1.0 - scalars.data[2]).powi(100), epsilon = 1e-12);
    }

    fn scalars() -> [f32; 16] {
        OptimizerScalars {
            learning_rate: 1e-3,
            beta1: 0.9,
            beta2: 0.999,
            epsilon: 1e-8,
            weight_decay: 0.1,
            max_norm: 1.0,
            share: 1.0,
            initial_scale: 1.0,
            growth: 1.0,
            backoff: 1.0,
            interval: 1.0,
            largest_scale: 1.0,
        }
        .to_array()
    }
}
