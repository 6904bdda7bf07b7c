//! Changes ids before a lookup.

use crate::case::{Case, Feed, mixed};
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::graph::{Array, Graph, Op, Tensor};
use crate::kernel::{Dispatch, Kernel, Launch, kernel};
use crate::ops::NONE;
use crate::shape::TensorType;

static MAP_IDS: Kernel = kernel!("index/map_ids");

/// `out[…] = NONE` where `ids[…] = omitted`, else `ids[…]`: removes one id from ids (…) u32. No gradient.
///
/// # Errors
/// [`Error::Shape`] if the ids are not u32.
pub fn omit_id(g: &mut Graph, ids: Tensor, omitted: u32) -> Result<Tensor> {
    g.put1(MapIds { omitted, ..MapIds::NONE }, &[ids])
}

/// `out[…] = ids[…] + shift`, u32. No gradient.
///
/// # Errors
/// [`Error::Shape`] if the ids are not u32.
pub fn shift_ids(g: &mut Graph, ids: Tensor, shift: u32) -> Result<Tensor> {
    if shift == 0 { Ok(ids) } else { g.put1(MapIds { shift, ..MapIds::NONE }, &[ids]) }
}

/// `out[b, t] = ids[b, t] + b · step`, ids (B, T) u32: numbers that rows of a batch do not share. No gradient.
///
/// # Errors
/// [`Error::Shape`] if the ids are no u32 matrix.
pub fn offset_ids(g: &mut Graph, ids: Tensor, step: u32) -> Result<Tensor> {
    let [_, row] = g.shape(ids).expect("offset_ids, ids (B, T)")?;
    g.put1(MapIds { step, row: row as u32, ..MapIds::NONE }, &[ids])
}

/// `out[i] = NONE` if `ids[i] = omitted`, else `ids[i] + shift + ⌊i / row⌋ · step`, modulo 2³².
#[derive(Debug)]
struct MapIds {
    shift: u32,
    omitted: u32,
    step: u32,
    row: u32,
}

impl MapIds {
    /// Changes nothing.
    const NONE: Self = Self { shift: 0, omitted: NONE, step: 0, row: u32::MAX };
}

impl Op for MapIds {
    fn name(&self) -> &'static str {
        "map_ids"
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>> {
        match inputs {
            [ids] if ids.dtype == DType::U32 && ids.shape.numel() > 0 => Ok(vec![ids.clone()]),
            [ids] => Err(Error::shape("map_ids", format!("expected the ids to be u32, got {ids}"))),
            _ => Err(Error::shape("map_ids", format!("expected 1 tensor, got {}", inputs.len()))),
        }
    }

    fn reference(&self, inputs: &[&Array]) -> Result<Vec<Array>> {
        let offset = |i: usize| (i as u32 / self.row.max(1)).wrapping_mul(self.step).wrapping_add(self.shift);
        let map = |i: usize| match inputs[0].data[i] as u32 {
            id if id == self.omitted => f64::from(NONE),
            id => f64::from(id.wrapping_add(offset(i))),
        };
        Ok(vec![Array::from_fn(inputs[0].shape.clone(), map)])
    }

    fn launch(&self, cx: &mut Launch<'_>) -> Result<()> {
        let (ids, out) = (cx.input(0), cx.output(0));
        let count = ids.numel();
        let dispatch = Dispatch::new(&MAP_IDS).read(ids).write(out).param(count);
        let dispatch = dispatch.param(self.shift as usize).param(self.omitted as usize);
        cx.dispatch(dispatch.param(self.step as usize).param(self.row.max(1) as usize).groups_for(count, 64))
    }
}

/// The conformance cases.
pub(super) fn cases() -> Vec<Case> {
    let case = |count: usize| {
        let feeds = vec![Feed::given("ids", [count], DType::U32, mixed(count, 7))];
        let both = |g: &mut Graph, x: &[Tensor]| Ok(vec![omit_id(g, x[0], 3)?, shift_ids(g, x[0], 5)?]);
        Case::new(format!("map_ids {count}"), feeds, both)
    };
    let by_row = |rows: usize, time: usize| {
        let feeds = vec![Feed::given("ids", [rows, time], DType::U32, mixed(rows * time, 7))];
        Case::new(format!("offset_ids {rows}x{time}"), feeds, |g, x| Ok(vec![offset_ids(g, x[0], 7)?]))
    };
    let cases = [1, 31, 33, 257].into_iter().map(case);
    cases.chain([(1, 1), (3, 1), (5, 31), (4, 100)].map(|(rows, time)| by_row(rows, time))).collect()
}
