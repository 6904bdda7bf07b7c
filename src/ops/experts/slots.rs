//! The dispatch: slots sorted by expert, and its inverse.

use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::graph::{Array, Graph, Op, Tensor};
use crate::kernel::{Dispatch, Kernel, Launch, kernel};
use crate::ops::{SortedIndex, reshape, sort_index};
use crate::shape::TensorType;

static EXPERT_SLOTS: Kernel = kernel!("experts/expert_slots");

/// The dispatch of tokens to experts from [`route`], shared by all ops on the same routing.
#[derive(Clone, Copy, Debug)]
pub struct ExpertDispatch {
    /// The slots sorted by expert, ascending within an expert, and the beginning of each expert's rows.
    pub sorted: SortedIndex,
    /// The token of each sorted row, (M) u32.
    pub tokens: Tensor,
    /// The sorted row of each slot, (M) u32.
    pub rows: Tensor,
    /// Tokens.
    pub token_count: usize,
    /// Slots of a token, K.
    pub top_k: usize,
}

impl ExpertDispatch {
    /// One slot for each of `experts · each` tokens, the first `each` of them for expert 0: known on the CPU.
    pub(in crate::ops) fn even(g: &mut Graph, experts: usize, each: usize) -> Self {
        let slots = experts * each;
        let mut list = |label: &str, count: usize, value: &dyn Fn(usize) -> usize| {
            let data = (0..count).map(|i| value(i) as f64).collect();
            g.constant(label, Array { shape: [count].into(), data }, DType::U32)
        };
        let order = list("slots", slots, &|i| i);
        let sorted = SortedIndex {
            index: list("experts", slots, &|i| i / each),
            order,
            starts: list("starts", experts + 1, &|e| e * each),
            rows: experts,
        };
        Self { sorted, tokens: order, rows: order, token_count: slots, top_k: 1 }
    }

    /// Slots, M = T K.
    #[must_use]
    pub fn slots(&self) -> usize {
        self.token_count.saturating_mul(self.top_k)
    }
}

/// Sorts the slots of `chosen` (T, K) u32, the experts of each token, by expert, stably: with `order` the sorted slots,
/// `tokens[i] = order[i] / K` and `rows[order[i]] = i`. Integers, no gradient.
///
/// # Errors
/// [`Error::Shape`] if `chosen` is no u32 matrix or there are no experts.
pub fn route(g: &mut Graph, chosen: Tensor, experts: usize) -> Result<ExpertDispatch> {
    let [token_count, top_k] = g.shape(chosen).expect("route, experts of tokens (T, K)")?;
    let flat = reshape(g, chosen, [token_count * top_k])?;
    let sorted = sort_index(g, flat, experts)?;
    let found = g.put(ExpertSlots { top_k }, &[sorted.order])?;
    Ok(ExpertDispatch { sorted, tokens: found[0], rows: found[1], token_count, top_k })
}

/// `tokens` and `rows` of [`route`]. Input: order (M), a permutation of the slots.
#[derive(Debug)]
struct ExpertSlots {
    top_k: usize,
}

impl Op for ExpertSlots {
    fn name(&self) -> &'static str {
        "expert_slots"
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>> {
        let ty = &inputs[0];
        if ty.dtype != DType::U32 || ty.shape.rank() != 1 {
            return Err(Error::shape(self.name(), format!("expected a u32 vector, got {ty}")));
        }
        Ok(vec![ty.clone(), ty.clone()])
    }

    fn reference(&self, inputs: &[&Array]) -> Result<Vec<Array>> {
        let order = &inputs[0].data;
        let mut rows = Array::zeros([order.len()]);
        for (row, &slot) in order.iter().enumerate() {
            rows.data[slot as usize] = row as f64;
        }
        Ok(vec![inputs[0].map(|slot| (slot / self.top_k as f64).floor()), rows])
    }

    fn relies_on(&self, inputs: &[TensorType]) -> Vec<(usize, usize)> {
        vec![(0, inputs[0].shape.numel())]
    }

    fn below(&self, index: usize, inputs: &[TensorType]) -> Option<usize> {
        let slots = inputs[0].shape.numel();
        Some(if index == 0 { slots.div_ceil(self.top_k) } else { slots })
    }

    fn launch(&self, cx: &mut Launch<'_>) -> Result<()> {
        let count = cx.input(0).numel();
        let dispatch = Dispatch::new(&EXPERT_SLOTS).read(cx.input(0)).write(cx.output(0)).write(cx.output(1));
        cx.dispatch(dispatch.param(count).param(self.top_k).groups_for(count, 64))
    }
}
