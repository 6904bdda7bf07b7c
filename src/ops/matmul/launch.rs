//! Dispatches of matrix products: the snippets of the shader, its parameters and its grid.

use super::op::Matmul;
use super::problem::Problem;
use super::variant::Variant;
use super::windows::{Chunks, ExtentRange, Window, ranges};
use crate::dtype::DType;
use crate::error::Result;
use crate::kernel::{AdapterClass, Caps, Dispatch, Kernel, Launch, Snippet, View, kernel};
use crate::ops::arithmetic::activation::ACTIVATION_SNIPPET;
use crate::shape::TensorType;

macro_rules! snippets {
    ($($name:ident = $file:literal;)*) => {
        $(pub(super) static $name: Snippet = kernel!(concat!("common/", $file));)*
    };
}

snippets! {
    PROBLEM = "matmul_problem";
    TILES = "matmul_tiles";
    TILES_LENGTHS = "matmul_tiles_lengths";
    GATHER_NONE = "matmul_gather_none";
    A_VEC4 = "matmul_a_vec4";
    A_SCALAR = "matmul_a_scalar";
    B_VEC4 = "matmul_b_vec4";
    B_SCALAR = "matmul_b_scalar";
    B_BLOCKS = "matmul_b_blocks";
    B_HALF4 = "matmul_b_half4";
    B_HALF1 = "matmul_b_half1";
    WEIGHT_F16 = "weight_f16";
    WEIGHT_BF16 = "weight_bf16";
    WEIGHT_Q8_0 = "weight_q8_0";
    WEIGHT_Q4_0 = "weight_q4_0";
    WEIGHT_Q4_1 = "weight_q4_1";
    WEIGHT_Q6_K = "weight_q6_k";
    OUT_VEC4 = "matmul_out_vec4";
    OUT_SCALAR = "matmul_out_scalar";
    SLICES = "matmul_slices";
    FINISH = "matmul_finish";
    BIAS = "matmul_bias";
    BIAS_NONE = "matmul_bias_none";
    RESIDUAL = "matmul_residual";
    RESIDUAL_NONE = "matmul_residual_none";
    PRE = "matmul_pre";
    PRE_NONE = "matmul_pre_none";
    ACTIVATION = "matmul_activation";
    ACTIVATION_NONE = "matmul_activation_none";
}

static TILE: Kernel = kernel!("matmul/matmul_tile");
static REGISTERS: Kernel = kernel!("matmul/matmul_registers");
static UNROLLED: Kernel = kernel!("matmul/matmul_unrolled");
static SUBGROUP: Kernel = kernel!("matmul/matmul_subgroup");
static ROW_BLOCKS: Kernel = kernel!("matmul/matmul_row_blocks");
static ROW_BLOCKS_SHUFFLE: Kernel = kernel!("matmul/matmul_row_blocks_shuffle");
static ROW: Kernel = kernel!("matmul/matmul_row");

/// The part of a product that one dispatch computes.
struct Piece {
    batch: ExtentRange,
    m: ExtentRange,
    n: ExtentRange,
    k: ExtentRange,
}

/// The operands of a product.
#[derive(Clone, Debug)]
pub(in crate::ops) struct Operands {
    pub(in crate::ops) a: View,
    pub(in crate::ops) b: View,
    pub(in crate::ops) bias: Option<View>,
    pub(in crate::ops) residual: Option<View>,
    pub(in crate::ops) out: View,
    /// The input of the activation, if it is stored.
    pub(in crate::ops) pre: Option<View>,
    /// Whether the product is added to `out`.
    pub(in crate::ops) accumulate: bool,
    /// The number of valid rows of each matrix of the batch.
    pub(in crate::ops) lengths: Option<View>,
}

impl Operands {
    /// A plain product.
    pub(in crate::ops) fn new(a: View, b: View, out: View) -> Self {
        Self { a, b, bias: None, residual: None, out, pre: None, accumulate: false, lengths: None }
    }
}

pub(super) fn launch(op: &Matmul, cx: &mut Launch<'_>, operands: &Operands) -> Result<()> {
    let (a, b) = (&operands.a, &operands.b);
    let ty = |v: &View| TensorType::new(v.shape.clone(), v.dtype);
    let (problem, _) = op.problem(&ty(a), &ty(b))?;
    let chunks = Chunks::new(op.name, cx.caps(), &problem)?;
    for batch in ranges(problem.batch, chunks.batch) {
        for m in ranges(problem.m, chunks.m) {
            for n in ranges(problem.n, chunks.n) {
                for k in ranges(problem.k, chunks.k) {
                    launch_piece(op, cx, operands, &problem, &Piece { batch, m, n, k })?;
                }
            }
        }
    }
    Ok(())
}

fn launch_piece(op: &Matmul, cx: &mut Launch<'_>, io: &Operands, whole: &Problem, piece: &Piece) -> Result<()> {
    let caps = cx.caps();
    let Piece { batch, m, n, k } = *piece;
    let p = Problem { batch: batch.len, m: m.len, n: n.len, k: k.len, ..*whole };
    let (a_rows, a_columns) = if p.form.a_transposed() { (k, m) } else { (m, k) };
    let (b_rows, b_columns) = if p.form.b_transposed() { (n, k) } else { (k, n) };
    let a = Window::new(caps, &io.a, whole.stored_a(), batch, a_rows, a_columns);
    // One weight for all matrices of a ragged batch.
    let b_batch = if io.lengths.is_some() { ExtentRange { start: 0, len: 1 } } else { batch };
    let mut b = Window::new(caps, &io.b, whole.stored_b(), b_batch, b_rows, b_columns);
    if io.lengths.is_some() {
        b.distance = 0;
    }
    let like_out = |view: &View| Window::new(caps, view, (whole.m, whole.n), batch, m, n);
    let out = like_out(&io.out);
    let (first, last) = (k.start == 0 && !io.accumulate, k.start + k.len == whole.k);
    let legal = Variant::legal(caps, &p);
    let variant = match op.variant.filter(|v| legal.contains(v)) {
        Some(forced) => forced,
        None => cx.choose(p.to_string(), Variant::choose(caps, &p), &legal),
    };
    let mut dispatch = Dispatch::new(kernel(variant))
        .constant("A_TRANSPOSED", p.form.a_transposed())
        .constant("B_TRANSPOSED", p.form.b_transposed())
        .constant("ACCUMULATE", !first)
        .param(p.m)
        .param(p.n)
        .param(p.k)
        .param(p.batch);
    for window in [&a, &b, &out] {
        dispatch = dispatch.param(window.stride).param(window.offset).param(window.distance);
    }
    dispatch = dispatch.param(n.start).param_f32(op.alpha).param(batch.start).snippet(&PROBLEM).snippet(&GATHER_NONE);
    let blocks = b.view.dtype.is_quantised().then(|| b.view.blocks(io.b.numel()));
    let [quants, scales] = blocks.map_or([Some(b.view.clone()), None], |both| both.map(Some));
    let tiles = matches!(variant, Variant::Subgroup4 | Variant::Subgroup8 | Variant::SubgroupWide);
    let row = |window: &Window| window.view.dtype.bytes(window.stride);
    dispatch = operands(dispatch, &a, &b, &out).read_strided(a.view.clone(), row(&a), if tiles { p.n } else { 0 });
    let uses = if tiles && scales.is_none() { p.m } else { 0 };
    dispatch = quants.into_iter().fold(dispatch, |dispatch, quants| dispatch.read_strided(quants, row(&b), uses));
    dispatch = if first { dispatch.write(out.view) } else { dispatch.update(out.view) };
    dispatch = scales.into_iter().fold(dispatch, Dispatch::read);
    dispatch = match &io.lengths {
        Some(lengths) => {
            let binding = dispatch.bindings.len() as u32 + 1;
            dispatch.constant("LENGTHS_BINDING", binding).snippet(&TILES_LENGTHS).read(lengths.clone())
        }
        None => dispatch.snippet(&TILES),
    };
    dispatch = epilogue(op, io, dispatch, like_out, last);
    let row_tiles = |rows: usize| p.batch * p.m.div_ceil(rows);
    let whole = io.lengths.is_none() && is_whole(caps, variant, &p);
    cx.dispatch(grid(dispatch.constant("WHOLE", whole), caps, variant, &p, row_tiles).flops(p.flops()))
}

/// Whether the kernel can skip bounds checks: no tile crosses an edge, and no invocation is idle.
///
/// Only for kernels that mostly load; for others it gains 2 % and would be another pipeline.
fn is_whole(caps: &Caps, variant: Variant, p: &Problem) -> bool {
    let lanes = lanes(caps) as usize;
    let rows_and_columns = match variant {
        Variant::Unrolled if (p.batch * (p.m / 8) * (p.n / 8)).is_multiple_of(lanes) => [8, 8],
        Variant::Row if caps.class == AdapterClass::Cpu => [p.m.next_power_of_two(), 4 * lanes * span(caps, p)],
        _ => return false,
    };
    let even = |(extent, tile): (usize, usize)| extent.is_multiple_of(tile);
    [p.m, p.n].into_iter().zip(rows_and_columns).all(even) && p.k.is_multiple_of(4)
}

/// The blocks of 4 columns of an invocation of [`Variant::Row`]: a cache line on a CPU driver, if two threads still have work; one on a GPU,
/// whose invocations load contiguously.
fn span(caps: &Caps, p: &Problem) -> usize {
    match caps.class {
        AdapterClass::Cpu if !p.form.b_transposed() => (p.n / (16 * lanes(caps) as usize)).clamp(1, 4),
        _ => 1,
    }
}

/// The vector width of a CPU driver.
fn lanes(caps: &Caps) -> u32 {
    caps.subgroup.unwrap_or(8).clamp(4, 16)
}

/// The snippet that decodes the words of a stored type; f32 needs none.
pub(in crate::ops) fn weight_snippet(dtype: DType) -> Option<&'static Snippet> {
    match dtype {
        DType::F16 => Some(&WEIGHT_F16),
        DType::BF16 => Some(&WEIGHT_BF16),
        DType::Q8_0 => Some(&WEIGHT_Q8_0),
        DType::Q4_0 => Some(&WEIGHT_Q4_0),
        DType::Q4_1 => Some(&WEIGHT_Q4_1),
        DType::Q6K => Some(&WEIGHT_Q6_K),
        DType::F32 | DType::U32 | DType::I32 => None,
    }
}

/// Adds the snippets that load and store with the vector widths that the sizes allow.
pub(super) fn operands(dispatch: Dispatch, a: &Window, b: &Window, out: &Window) -> Dispatch {
    let load_b = match (b.view.dtype, b.vec4()) {
        (dtype, _) if dtype.is_quantised() => &B_BLOCKS,
        (DType::F16 | DType::BF16, true) => &B_HALF4,
        (DType::F16 | DType::BF16, false) => &B_HALF1,
        (_, true) => &B_VEC4,
        (_, false) => &B_SCALAR,
    };
    let dispatch = match weight_snippet(b.view.dtype) {
        Some(weight) => dispatch.snippet(weight),
        None => dispatch,
    };
    dispatch
        .snippet(if a.vec4() { &A_VEC4 } else { &A_SCALAR })
        .snippet(load_b)
        .snippet(if out.vec4() { &OUT_VEC4 } else { &OUT_SCALAR })
        .snippet(&FINISH)
}

/// Adds the snippets of a product without an epilogue.
pub(super) fn plain(dispatch: Dispatch) -> Dispatch {
    let none = [&BIAS_NONE, &RESIDUAL_NONE, &PRE_NONE, &ACTIVATION_NONE];
    none.into_iter().fold(dispatch.snippet(&PROBLEM), Dispatch::snippet)
}

/// Binds the operands of the epilogue, and adds its snippets.
fn epilogue(
    op: &Matmul,
    io: &Operands,
    mut dispatch: Dispatch,
    like_out: impl Fn(&View) -> Window,
    last: bool,
) -> Dispatch {
    let mut next = dispatch.bindings.len() as u32;
    let mut binding = || {
        next += 1;
        next
    };
    if let (Some(bias), true) = (&io.bias, last) {
        dispatch = dispatch.constant("BIAS_BINDING", binding()).snippet(&BIAS).read(bias.clone());
    } else {
        dispatch = dispatch.snippet(&BIAS_NONE);
    }
    if let (Some(residual), true) = (&io.residual, last) {
        let residual = like_out(residual).view;
        dispatch = dispatch.constant("RESIDUAL_BINDING", binding()).snippet(&RESIDUAL).read(residual);
    } else {
        dispatch = dispatch.snippet(&RESIDUAL_NONE);
    }
    let Some(kind) = op.activation.filter(|_| last) else {
        return dispatch.snippet(&PRE_NONE).snippet(&ACTIVATION_NONE);
    };
    if let Some(pre) = &io.pre {
        let pre = like_out(pre).view;
        dispatch = dispatch.constant("PRE_BINDING", binding()).snippet(&PRE).write(pre);
    } else {
        dispatch = dispatch.snippet(&PRE_NONE);
    }
    dispatch.constant("ACTIVATION", kind.code()).snippet(&ACTIVATION_SNIPPET).snippet(&ACTIVATION)
}

pub(super) fn kernel(variant: Variant) -> &'static Kernel {
    match variant {
        Variant::Tile64 | Variant::Tile32 => &TILE,
        Variant::Registers => &REGISTERS,
        Variant::Unrolled => &UNROLLED,
        Variant::Subgroup4 | Variant::Subgroup8 | Variant::SubgroupWide => &SUBGROUP,
        Variant::Row => &ROW,
        Variant::RowBlocks => &ROW_BLOCKS,
        Variant::RowBlocksShuffle => &ROW_BLOCKS_SHUFFLE,
    }
}

/// The constants and the grid of a variant; `row_tiles(n)` is the number of tiles of n rows.
pub(super) fn grid(
    dispatch: Dispatch,
    caps: &Caps,
    variant: Variant,
    p: &Problem,
    row_tiles: impl Fn(usize) -> usize,
) -> Dispatch {
    let tiles = |rows: usize, columns: usize| row_tiles(rows) * p.n.div_ceil(columns);
    let lanes = lanes(caps);
    let subgroups = |rows: u32, wide: u32| {
        let groups = tiles((rows * lanes) as usize, (4 * wide * lanes) as usize);
        dispatch.clone().constant("LANES", lanes).constant("ROWS", rows).constant("WIDE", wide).groups(groups)
    };
    match variant {
        Variant::Tile64 => dispatch.constant("SIDE", 16_u32).groups(tiles(64, 64)),
        Variant::Tile32 => dispatch.constant("SIDE", 8_u32).groups(tiles(32, 32)),
        Variant::Registers => dispatch.constant("LANES", lanes).groups_for(tiles(16, 8), lanes as usize),
        Variant::Unrolled => dispatch.constant("LANES", lanes).groups_for(tiles(8, 8), lanes as usize),
        Variant::Subgroup4 => subgroups(4, 1),
        Variant::Subgroup8 => subgroups(8, 1),
        Variant::SubgroupWide => subgroups(4, 2),
        Variant::RowBlocksShuffle => {
            let rows = p.m.next_power_of_two() as u32;
            dispatch.constant("ROWS", rows).groups(tiles(rows as usize, 32))
        }
        Variant::Row | Variant::RowBlocks => {
            // A GPU needs many invocations in flight and contiguous loads; a CPU wants no workgroup memory.
            let (lanes, slices) = if caps.class == AdapterClass::Gpu { (8, 32_u32) } else { (lanes, 1) };
            let rows = p.m.next_power_of_two() as u32;
            let span = span(caps, p) as u32;
            let dispatch =
                dispatch.constant("ROWS", rows).constant("LANES", lanes).constant("SLICES", slices).snippet(&SLICES);
            dispatch.constant("SPAN", span).groups(tiles(rows as usize, (4 * lanes * span) as usize))
        }
    }
}
