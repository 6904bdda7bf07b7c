//! The common parts of elementwise and row kernels: the width of loads, the division of rows, shape rules.

use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::kernel::{AdapterClass, Caps, Dispatch, Kernel, Launch, Snippet, View, kernel};
use crate::shape::TensorType;

pub(super) use crate::kernel::{elements, width};

static REDUCE_WORKGROUP: Snippet = kernel!("common/reduce_workgroup");
static REDUCE_SUBGROUP: Snippet = kernel!("common/reduce_subgroup");
static REDUCE_SUBGROUPS: Snippet = kernel!("common/reduce_subgroups");
static COLUMN_SUM: Kernel = kernel!("arithmetic/column_sum");
static ROW_SUM: [Kernel; 2] = [kernel!("arithmetic/row_sum_threads"), kernel!("arithmetic/row_sum_workgroup")];

/// The shape rule of ops on `count` f32 tensors of the same type, which is also the output's.
pub(super) fn same_f32(op: &str, inputs: &[TensorType], count: usize) -> Result<Vec<TensorType>> {
    if inputs.len() != count {
        return Err(Error::shape(op, format!("expected {count} tensors, got {}", inputs.len())));
    }
    for input in inputs {
        if input.dtype != DType::F32 {
            return Err(Error::shape(op, format!("expected f32, got {input}")));
        }
        if input.shape != inputs[0].shape {
            return Err(Error::shape(op, format!("{} and {input} differ", inputs[0])));
        }
    }
    Ok(vec![inputs[0].clone()])
}

/// The rule that a tensor has a last axis that is not empty.
pub(super) fn has_rows(op: &str, x: &TensorType) -> Result<()> {
    if x.shape.rank() == 0 || x.shape.last() == 0 {
        return Err(Error::shape(op, format!("{x} has no last axis to work along")));
    }
    Ok(())
}

/// Adds the snippet of reductions over workgroups of `lanes` invocations: by subgroups of whatever size on GPUs that have some.
pub(super) fn with_reduction(dispatch: Dispatch, caps: &Caps, lanes: u32) -> Dispatch {
    let dispatch = dispatch.constant("LANES", lanes);
    match caps.subgroup_sizes.filter(|_| caps.class == AdapterClass::Gpu) {
        Some([least, _]) => dispatch.constant("SUBGROUP_MIN", least).snippet(&REDUCE_SUBGROUPS),
        None => dispatch.snippet(&REDUCE_WORKGROUP),
    }
}

/// The same for workgroups of one subgroup.
pub(super) fn with_subgroup_reduction(dispatch: Dispatch, lanes: u32) -> Dispatch {
    dispatch.constant("LANES", lanes).snippet(&REDUCE_SUBGROUP)
}

/// Records a kernel that reads every input and writes every output, one `Element` per invocation in workgroups of 64. Its first parameter is
/// the number of `Element`s.
pub(super) fn elementwise(cx: &mut Launch<'_>, outputs: usize, dispatch: Dispatch) -> Result<()> {
    let count = cx.output(0).numel();
    let width = width(count);
    let mut dispatch = dispatch.snippet(elements(width)).param(count / width);
    for index in 0..cx.input_count() {
        dispatch = dispatch.read(cx.input(index));
    }
    for index in 0..outputs {
        dispatch = dispatch.write(cx.output(index));
    }
    cx.dispatch(dispatch.groups_for(count / width, 64).flops(count as u64))
}

/// How a kernel divides the reduction of rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RowVariant {
    /// One invocation per row: for CPU drivers, where workgroup memory is slow, and for very short rows.
    Threads,
    /// One workgroup per row: for GPUs.
    Workgroup,
    /// One subgroup per row, where subgroups have a fixed size: for GPUs if rows are short enough, for CPU drivers if there are fewer rows than
    /// lanes, as in decoding.
    Subgroup,
}

impl RowVariant {
    /// All, for tests.
    pub(crate) const ALL: [Self; 3] = [Self::Threads, Self::Workgroup, Self::Subgroup];

    /// The forced variant (`Workgroup` if subgroups are missing), or the default for the adapter and the rows.
    pub(super) fn choose(forced: Option<Self>, caps: &Caps, rows: usize, columns: usize) -> Self {
        let elements = columns / width(columns);
        // A row is read three times, and a few more iterations are not for its elements.
        let too_long = |lanes: usize| 4 * elements.div_ceil(lanes) > caps.max_loop_iterations();
        match (forced, caps.class, caps.subgroup) {
            (Some(Self::Subgroup), _, None) => Self::Workgroup,
            (Some(variant), _, _) => variant,
            (None, _, _) if columns <= 16 => Self::Threads,
            (None, AdapterClass::Cpu, Some(lanes)) if too_long(lanes as usize) => Self::Workgroup,
            (None, AdapterClass::Cpu, Some(lanes)) if rows < lanes as usize || too_long(1) => Self::Subgroup,
            (None, AdapterClass::Cpu, None) if too_long(1) => Self::Workgroup,
            (None, AdapterClass::Cpu, _) => Self::Threads,
            (None, AdapterClass::Gpu, Some(lanes)) if elements <= 8 * lanes as usize => Self::Subgroup,
            (None, AdapterClass::Gpu, _) => Self::Workgroup,
        }
    }

    /// A dispatch over `rows` rows of `columns` elements: its grid, its snippets, and its first parameters, the number of rows (only for
    /// [`RowVariant::Threads`]) and the columns in `Element`s.
    pub(super) fn over_rows(self, caps: &Caps, kernels: &'static [Kernel; 2], rows: usize, columns: usize) -> Dispatch {
        let width = width(columns);
        let columns = columns / width;
        let by_group = || Dispatch::new(&kernels[1]).snippet(elements(width)).param(columns).groups(rows);
        match (self, caps.subgroup) {
            (Self::Threads, _) => {
                // As wide as the processor's vectors, so that few rows still use all cores.
                let dispatch = Dispatch::new(&kernels[0]).constant("LANES", 8u32).snippet(elements(width));
                dispatch.param(rows).param(columns).groups_for(rows, 8)
            }
            (Self::Subgroup, Some(lanes)) => with_subgroup_reduction(by_group(), lanes),
            _ => with_reduction(by_group(), caps, if columns <= 256 { 64 } else { 256 }),
        }
    }
}

/// The rows of a partial sum over `rows` rows, and the number of such blocks: the same on every machine, so that results are the same. Few
/// rows make one block.
pub(super) fn blocks(rows: usize) -> (usize, usize) {
    let block = rows.div_ceil(128).max(32);
    if rows <= 2 * block { (rows, 1) } else { (block, rows.div_ceil(block)) }
}

/// Records `out = factor · Σ_rows x`, `x` (rows, columns) and `out` (columns), in one or two stages.
pub(super) fn column_sum(cx: &mut Launch<'_>, x: View, out: View, factor: f32) -> Result<()> {
    let (count, columns) = (x.numel(), out.numel());
    let (block, blocks) = blocks(count / columns.max(1));
    if blocks == 1 {
        return cx.dispatch(column_sum_stage(x, out, count, columns, block, factor));
    }
    let partial = cx.scratch([blocks, columns], DType::F32);
    cx.dispatch(column_sum_stage(x, partial.clone(), count, columns, block, factor))?;
    sum_blocks(cx, partial, out)
}

/// Records `out = Σ_blocks partial`, `partial` (blocks, columns) and `out` (columns).
pub(super) fn sum_blocks(cx: &mut Launch<'_>, partial: View, out: View) -> Result<()> {
    let (count, columns) = (partial.numel(), out.numel());
    cx.dispatch(column_sum_stage(partial, out, count, columns, count / columns.max(1), 1.0))
}

/// One stage: every `block` rows of `x` (`count` elements) become a row of `out`.
fn column_sum_stage(x: View, out: View, count: usize, columns: usize, block: usize, factor: f32) -> Dispatch {
    let width = width(count).min(width(columns));
    let blocks = out.numel() / columns.max(1);
    let dispatch = Dispatch::new(&COLUMN_SUM).snippet(elements(width));
    let dispatch = dispatch.param(count / width).param(columns / width).param(block).param_f32(factor);
    dispatch.read(x).write(out).groups(blocks * (columns / width).div_ceil(64)).flops(count as u64)
}

/// Records `out = factor · Σ x` over all elements; `out` has one element.
pub(super) fn total_sum(cx: &mut Launch<'_>, x: View, out: View, factor: f32) -> Result<()> {
    // Enough parallel sums to keep a GPU busy, and few enough for one workgroup to finish.
    let count = x.numel();
    let lanes = 8192 * width(count);
    if count <= 2 * lanes {
        return row_sum(cx, RowVariant::Workgroup, x, out, count, factor);
    }
    let partial = cx.scratch([lanes], DType::F32);
    cx.dispatch(column_sum_stage(x, partial.clone(), count, lanes, count.div_ceil(lanes), factor))?;
    row_sum(cx, RowVariant::Workgroup, partial, out, lanes, 1.0)
}

/// Records `out[r] = factor · Σ_c x[r, c]`.
pub(super) fn row_sum(
    cx: &mut Launch<'_>,
    variant: RowVariant,
    x: View,
    out: View,
    columns: usize,
    factor: f32,
) -> Result<()> {
    let dispatch = variant.over_rows(cx.caps(), &ROW_SUM, x.numel() / columns, columns).param_f32(factor);
    cx.dispatch(dispatch.flops(x.numel() as u64).read(x).write(out))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::software::Quirks;

    #[test]
    fn no_invocation_exceeds_the_iteration_limit() {
        let bare = Caps { class: AdapterClass::Cpu, quirks: Quirks::of_results(), ..Caps::baseline() };
        let lanes = Caps { subgroup: Some(8), ..bare.clone() };
        let choose = |caps: &Caps, columns| RowVariant::choose(None, caps, 1000, columns);
        for columns in [768, 32_000, 65_532] {
            assert_eq!([choose(&lanes, columns), choose(&bare, columns)], [RowVariant::Threads; 2], "{columns}");
        }
        for columns in [30_523, 50_257, 128_256] {
            assert_eq!(choose(&lanes, columns), RowVariant::Subgroup, "{columns}");
            assert_eq!(choose(&bare, columns), RowVariant::Workgroup, "{columns}");
        }
        assert_eq!(choose(&lanes, 900_001), RowVariant::Workgroup);
    }
}
