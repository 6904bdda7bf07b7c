//! Products that are split along k: parts first, then their sum in order.

use super::launch::{Part, grid, plain, result};
use super::problem::Problem;
use super::windows::{ExtentRange, Window};
use crate::dtype::{BLOCK, DType};
use crate::error::Result;
use crate::kernel::{Dispatch, Kernel, Launch, Snippet, kernel};

static TILES_SPLITS: Snippet = kernel!("common/matmul_tiles_splits");
static SUM_SPLITS: Kernel = kernel!("matmul/matmul_sum_splits");

/// The fewest elements of k of a part: less is not worth another pass.
const MIN_DEPTH: usize = 512;
/// The tiles of 64×64 of all parts together that keep a GPU busy.
const TILES: usize = 96;

/// The number of parts of a product; one if it is not to be split.
pub(super) fn splits(p: &Problem) -> usize {
    let tiles = p.m.div_ceil(64) * p.n.div_ceil(64);
    let parts = if p.batch == 1 { (TILES / tiles).min(p.k / MIN_DEPTH) } else { 1 };
    // Whole blocks of quantised weights, and no part without any.
    let depth = p.k.div_ceil(BLOCK).div_ceil(parts.max(1));
    p.k.div_ceil(BLOCK).div_ceil(depth.max(1))
}

/// Records the parts, and returns the sum of them into `out`, to which its epilogue is added.
pub(super) fn launch(cx: &mut Launch<'_>, mut part: Part, out: &Window, alpha: f32, first: bool) -> Result<Dispatch> {
    let (caps, count) = (cx.caps(), splits(&part.p));
    let (m, n) = (part.p.m, part.p.n);
    let parts = cx.scratch([count, m, n], DType::F32);
    let all = |len: usize| ExtentRange { start: 0, len };
    let window = Window::new(caps, &parts, (m, n), all(count), all(m), all(n));
    // A part for each matrix of a batch, all of the same operands.
    (part.p.batch, part.a.distance, part.b.distance) = (count, 0, 0);
    let plan = (part.variant.entry().plan)(caps, &part.p);
    let dispatch = plain(part.dispatch(&window, 1.0, true).snippet(&TILES_SPLITS)).constant("WHOLE", false);
    let row_tiles = |rows: usize| count * m.div_ceil(rows);
    cx.dispatch(grid(dispatch, &plan, &part.p, row_tiles).flops(part.p.flops() / count as u64))?;
    let width = if out.vec4() { 4 } else { 1 };
    let sum = result(part.params(Dispatch::new(&SUM_SPLITS), out, alpha, first).constant("BAND", 1_u32), out, 2);
    let sum = sum.read(parts).groups_for(m * n / width, 64).flops((count * m * n) as u64);
    Ok(if first { sum.write(out.view.clone()) } else { sum.update(out.view.clone()) })
}
