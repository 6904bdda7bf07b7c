//! Dispatches of matrix products: the snippets of the shader, its parameters and its grid.

use super::op::Matmul;
use super::problem::Problem;
use super::split;
use super::stored::weight_snippets;
use super::table::Plan;
use super::variant::Variant;
use super::windows::{Chunks, ExtentRange, Window, ranges};
use crate::dtype::DType;
use crate::error::Result;
use crate::kernel::{Dispatch, Launch, Snippet, View, kernel};
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
    B_STEP_F32 = "matmul_b_step_f32";
    B_STEP_HALF = "matmul_b_step_half";
    B_HALF4 = "matmul_b_half4";
    B_HALF1 = "matmul_b_half1";
    OUT_VEC4 = "matmul_out_vec4";
    OUT_SCALAR = "matmul_out_scalar";
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
    let fits = |variant: &Variant| {
        let wide = !variant.entry().wide_loads || (a.vec4() && b.wide_loads());
        wide && (io.lengths.is_none() || *variant != Variant::SplitK)
    };
    let mut legal = Variant::legal(caps, &p);
    legal.retain(fits);
    let variant = match op.variant.filter(|v| legal.contains(v)) {
        Some(forced) => forced,
        None => cx.choose(p.to_string(), Some(Variant::choose(caps, &p)).filter(fits).unwrap_or(Variant::Row), &legal),
    };
    let part = Part { variant, p, a, b, b_elements: io.b.numel(), column: n.start, group: batch.start };
    if variant == Variant::SplitK {
        let sum = split::launch(cx, part, &out, op.alpha, first)?;
        return cx.dispatch(epilogue(op, io, sum, like_out, last));
    }
    let plan = (variant.entry().plan)(caps, &p);
    let mut dispatch = part.dispatch(&out, op.alpha, first);
    dispatch = match &io.lengths {
        Some(lengths) => {
            let binding = dispatch.bindings.len() as u32 + 1;
            dispatch.constant("LENGTHS_BINDING", binding).snippet(&TILES_LENGTHS).read(lengths.clone())
        }
        None => dispatch.snippet(&TILES),
    };
    dispatch = epilogue(op, io, dispatch, like_out, last);
    let row_tiles = |rows: usize| p.batch * p.m.div_ceil(rows);
    let whole = io.lengths.is_none() && is_whole(&plan, &p);
    cx.dispatch(grid(dispatch.constant("WHOLE", whole), &plan, &p, row_tiles).flops(p.flops()))
}

/// A piece of a product, and the kernel that computes it.
pub(super) struct Part {
    pub(super) variant: Variant,
    pub(super) p: Problem,
    pub(super) a: Window,
    pub(super) b: Window,
    /// Elements of all of B.
    b_elements: usize,
    /// The column of the whole result that the first one is.
    column: usize,
    /// The first matrix of the batch.
    group: usize,
}

impl Part {
    /// The parameters of a dispatch that writes to `out`.
    pub(super) fn params(&self, dispatch: Dispatch, out: &Window, alpha: f32, first: bool) -> Dispatch {
        let Self { p, a, b, .. } = self;
        let mut dispatch = dispatch
            .constant("A_TRANSPOSED", p.form.a_transposed())
            .constant("B_TRANSPOSED", p.form.b_transposed())
            .constant("ACCUMULATE", !first)
            .param(p.m)
            .param(p.n)
            .param(p.k)
            .param(p.batch);
        for window in [a, b, out] {
            dispatch = dispatch.param(window.stride).param(window.offset).param(window.distance);
        }
        dispatch.param(self.column).param_f32(alpha).param(self.group).snippet(&PROBLEM).snippet(&GATHER_NONE)
    }

    /// The product up to its operands: how its tiles lie and its epilogue follow.
    pub(super) fn dispatch(&self, out: &Window, alpha: f32, first: bool) -> Dispatch {
        let Self { variant, p, a, b, .. } = self;
        let (quants, scales) = b.parts(self.b_elements);
        let tiles = variant.is_of_subgroups();
        let row = |window: &Window| window.view.dtype.bytes(window.stride);
        let mut dispatch = self.params(Dispatch::new(variant.entry().kernel), out, alpha, first);
        dispatch = operands(dispatch, *variant, a, b, out);
        dispatch = dispatch.read_strided(a.view.clone(), row(a), if tiles { p.n } else { 0 });
        let uses = if tiles && scales.is_none() { p.m } else { 0 };
        dispatch = dispatch.read_strided(quants, row(b), uses);
        dispatch = if first { dispatch.write(out.view.clone()) } else { dispatch.update(out.view.clone()) };
        scales.into_iter().fold(dispatch, Dispatch::read)
    }
}

/// Whether the kernel can skip bounds checks: no tile crosses an edge, and no invocation is idle.
fn is_whole(plan: &Plan, p: &Problem) -> bool {
    let [rows, columns] = plan.tile;
    plan.skips_checks
        && [(p.m, rows), (p.n, columns), (p.k, 4)].into_iter().all(|(extent, tile)| extent.is_multiple_of(tile))
        && (p.batch * (p.m / rows) * (p.n / columns)).is_multiple_of(plan.tiles)
}

/// Adds the snippets that load and store with the vector widths that the kernel asks for, or else that the sizes allow.
pub(super) fn operands(dispatch: Dispatch, variant: Variant, a: &Window, b: &Window, out: &Window) -> Dispatch {
    let load_b = match (b.view.dtype, b.vec4()) {
        (dtype, _) if dtype.is_quantised() => &B_BLOCKS,
        (DType::F16 | DType::BF16, _) if variant.entry().wide_loads => &B_STEP_HALF,
        _ if variant.entry().wide_loads => &B_STEP_F32,
        (DType::F16 | DType::BF16, true) => &B_HALF4,
        (DType::F16 | DType::BF16, false) => &B_HALF1,
        (_, true) => &B_VEC4,
        (_, false) => &B_SCALAR,
    };
    let dispatch = weight_snippets(b.view.dtype).iter().fold(dispatch, |dispatch, snippet| dispatch.snippet(snippet));
    let dispatch = dispatch.snippet(if a.vec4() { &A_VEC4 } else { &A_SCALAR }).snippet(load_b);
    result(dispatch, out, 3)
}

/// Adds the snippets that store at that binding.
pub(super) fn result(dispatch: Dispatch, out: &Window, binding: u32) -> Dispatch {
    let store = if out.vec4() { &OUT_VEC4 } else { &OUT_SCALAR };
    dispatch.constant("OUT_BINDING", binding).snippet(store).snippet(&FINISH)
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

/// The constants and the grid of a variant; `row_tiles(n)` is the number of tiles of n rows.
pub(super) fn grid(dispatch: Dispatch, plan: &Plan, p: &Problem, row_tiles: impl Fn(usize) -> usize) -> Dispatch {
    let dispatch = plan.snippets.iter().fold(dispatch, |dispatch, snippet| dispatch.snippet(snippet));
    let dispatch = plan.constants.iter().fold(dispatch, |dispatch, &(name, value)| dispatch.constant(name, value));
    let dispatch = dispatch.constant("BAND", plan.band);
    let [rows, columns] = plan.tile;
    dispatch.groups_for(row_tiles(rows) * p.n.div_ceil(columns), plan.tiles)
}
