//! Grouped products, for experts: groups of rows, each with its own matrix.

use super::launch::{GATHER_NONE, grid, operands, plain};
use super::problem::{Form, Problem};
use super::variant::Variant;
use super::windows::{ExtentRange, Window, front, ranges};
use crate::error::{Error, Result, human_bytes};
use crate::kernel::{AdapterClass, Caps, Dispatch, Launch, Snippet, View, kernel};
use crate::ops::index::gather::gather_into;

static TILES_GROUPS: Snippet = kernel!("common/matmul_tiles_groups");
static TILES_SUMS: Snippet = kernel!("common/matmul_tiles_sums");
static GATHER_A: Snippet = kernel!("common/matmul_gather_a");
static GATHER_B: Snippet = kernel!("common/matmul_gather_b");

/// An operand of a grouped product: a matrix, or its rows in the order of `lines`.
#[derive(Clone, Debug)]
pub(in crate::ops) struct Rows {
    pub(in crate::ops) view: View,
    /// The row of `view` for each row, (rows) u32.
    pub(in crate::ops) lines: Option<View>,
}

impl Rows {
    /// All rows of a matrix, in order.
    pub(in crate::ops) fn of(view: View) -> Self {
        Self { view, lines: None }
    }

    /// The rows of a matrix by `lines`.
    pub(in crate::ops) fn gathered(view: View, lines: View) -> Self {
        Self { view, lines: Some(lines) }
    }

    /// The gathered rows in contiguous memory, for kernels that do not gather while loading.
    fn collected(&self, cx: &mut Launch<'_>) -> Result<Self> {
        let Some(lines) = &self.lines else { return Ok(self.clone()) };
        let out = cx.scratch([lines.numel(), self.view.shape.last()], self.view.dtype);
        gather_into(cx, &self.view, lines, &out)?;
        Ok(Self::of(out))
    }
}

/// A grouped product to be recorded. The rows of group e are `starts[e]..starts[e + 1]`.
#[derive(Clone, Debug)]
pub(in crate::ops) struct Grouped<'a> {
    /// The name in reports.
    pub(in crate::ops) name: &'a str,
    /// [`Form::Nn`], [`Form::Nt`]: `out (M, N) = A (M, K) · op(B[e])`, row by row with the group's matrix. [`Form::Tn`]:
    /// `out[e] (M, N) = Aᵀ · B` over the group's rows of A (rows, M) and B (rows, N).
    pub(in crate::ops) form: Form,
    pub(in crate::ops) a: Rows,
    pub(in crate::ops) b: Rows,
    /// (groups + 1) u32.
    pub(in crate::ops) starts: View,
    pub(in crate::ops) out: View,
    /// A kernel to prefer.
    pub(in crate::ops) variant: Option<Variant>,
    /// Whether rows are gathered while they are loaded; the adapter's default if not given.
    pub(in crate::ops) gather_on_load: Option<bool>,
}

impl Grouped<'_> {
    /// Records the product: one dispatch, or several if the matrices of the groups exceed a binding.
    pub(in crate::ops) fn launch(self, cx: &mut Launch<'_>) -> Result<()> {
        // A load costs a CPU driver as much as tens of multiplications, so it looks indices up only once.
        let on_load = self.gather_on_load.unwrap_or(cx.caps().class == AdapterClass::Gpu);
        let whole = match on_load {
            true => self,
            false => Self { a: self.a.collected(cx)?, b: self.b.collected(cx)?, ..self },
        };
        let groups = whole.starts.numel() - 1;
        let chunk = whole.groups_of_a_binding(cx.caps())?;
        for part in ranges(groups, chunk) {
            whole.launch_groups(cx, part, groups)?;
        }
        Ok(())
    }

    fn rows(&self) -> usize {
        let Rows { view, lines } = &self.a;
        lines.as_ref().map_or(view.shape.rows(), View::numel)
    }

    /// The product of an average group.
    fn problem(&self, batch: usize, groups: usize) -> Problem {
        let (rows, average) = (self.rows(), self.rows().div_ceil(groups));
        let columns = self.out.shape.last();
        let (weight, width) = (self.b.view.dtype, self.a.view.shape.last());
        match self.form {
            Form::Tn => Problem { form: self.form, batch, m: width, n: columns, k: average, weight },
            _ => Problem { form: self.form, batch, m: average.min(rows), n: columns, k: width, weight },
        }
    }

    /// The number of groups whose matrices fit one binding.
    fn groups_of_a_binding(&self, caps: &Caps) -> Result<usize> {
        let limit = caps.max_binding_bytes.saturating_sub(front(caps, self.b.view.dtype, self.b.view.shape.last()));
        let groups = self.starts.numel() - 1;
        let (stacked, others) = match self.form {
            Form::Tn => (&self.out, [&self.a.view, &self.b.view]),
            _ => (&self.b.view, [&self.a.view, &self.out]),
        };
        let fit = (limit / (stacked.bytes() / groups as u64).max(1)) as usize;
        if fit > 0 && others.iter().all(|view| view.bytes() <= limit) {
            return Ok(fit.min(groups));
        }
        let largest = others.iter().map(|view| view.bytes()).max().unwrap_or(0);
        let (needs, hint) = match fit {
            0 => (
                format!(
                    "storage bindings of {}, the matrix of a group (an expert)",
                    human_bytes(stacked.bytes() / groups as u64)
                ),
                "use another adapter, or experts with a lower d_model or d_ff.",
            ),
            _ => (
                format!("storage bindings of {}, all rows of an operand", human_bytes(largest)),
                "lower the batch or the sequence length.",
            ),
        };
        Err(Error::Unsupported {
            what: format!("{} ({} rows)", self.name, self.rows()),
            needs,
            adapter: caps.name.clone(),
            hint: format!("Its bindings hold {}: {hint}", human_bytes(caps.max_binding_bytes)),
        })
    }

    fn launch_groups(&self, cx: &mut Launch<'_>, part: ExtentRange, groups: usize) -> Result<()> {
        let caps = cx.caps();
        let p = self.problem(part.len, groups);
        let rows = self.rows();
        let all = |len: usize| ExtentRange { start: 0, len };
        let flat = |view: &View| {
            let (rows, columns) = (view.shape.rows(), view.shape.last());
            Window::new(caps, view, (rows, columns), all(1), all(rows), all(columns))
        };
        let stacked =
            |view: &View, (rows, columns)| Window::new(caps, view, (rows, columns), part, all(rows), all(columns));
        let a = flat(&self.a.view);
        let (b, out) = match self.form {
            Form::Tn => (flat(&self.b.view), stacked(&self.out, (p.m, p.n))),
            _ => (stacked(&self.b.view, p.stored_b()), flat(&self.out)),
        };
        let mut legal = Variant::legal(caps, &p);
        legal.retain(|variant| variant.takes_groups());
        let variant = match self.variant.filter(|v| legal.contains(v)) {
            Some(forced) => forced,
            None => cx.choose(format!("grouped {p}"), Variant::choose(caps, &p), &legal),
        };
        // Operands without a matrix per group have a batch stride of zero.
        let (b_batch, c_batch) = match self.form {
            Form::Tn => (0, out.distance),
            _ => (b.distance, 0),
        };
        let m = if self.form == Form::Tn { p.m } else { rows };
        let plan = (variant.entry().plan)(caps, &p);
        let mut dispatch = Dispatch::new(variant.entry().kernel)
            .constant("A_TRANSPOSED", self.form.a_transposed())
            .constant("B_TRANSPOSED", self.form.b_transposed())
            .constant("ACCUMULATE", false)
            .param(m)
            .param(p.n)
            .param(p.k)
            .param(part.len);
        for (window, batch) in [(&a, 0), (&b, b_batch), (&out, c_batch)] {
            dispatch = dispatch.param(window.stride).param(window.offset).param(batch);
        }
        dispatch = plain(dispatch.param(0).param_f32(1.0).param(part.start));
        let (quants, scales) = b.parts(self.b.view.numel());
        // Those of quantised weights are bound in front of the groups.
        let starts_binding = 4 + u32::from(scales.is_some());
        dispatch = self.place(dispatch, starts_binding, part.start + part.len == groups);
        dispatch = self.gather(operands(dispatch, variant, &a, &b, &out), starts_binding + 1);
        dispatch = dispatch.read(a.view).read(quants);
        // Other groups' rows or matrices are not written.
        dispatch = if part.len == groups { dispatch.write(out.view) } else { dispatch.update(out.view) };
        dispatch = scales.into_iter().fold(dispatch, Dispatch::read).read(self.starts.clone());
        for lines in [&self.a.lines, &self.b.lines].into_iter().flatten() {
            dispatch = dispatch.read(lines.clone());
        }
        let row_tiles = |tile: usize| match self.form {
            Form::Tn => part.len * p.m.div_ceil(tile),
            // Every group, and the rows after them, may end in an almost empty tile.
            _ => {
                let groups = (part.len + 1).min(rows);
                (rows - groups) / tile + groups
            }
        };
        let flops = 2 * rows as u64 * a.stride as u64 * p.n as u64 * part.len as u64 / groups as u64;
        cx.dispatch(grid(dispatch.constant("WHOLE", false), &plan, &p, row_tiles).flops(flops))
    }

    fn place(&self, dispatch: Dispatch, binding: u32, last: bool) -> Dispatch {
        let dispatch = dispatch.constant("STARTS_BINDING", binding);
        match self.form {
            Form::Tn => dispatch.snippet(&TILES_SUMS),
            _ => dispatch.constant("TAIL", last).snippet(&TILES_GROUPS),
        }
    }

    fn gather(&self, dispatch: Dispatch, binding: u32) -> Dispatch {
        let dispatch = match (&self.a.lines, &self.b.lines) {
            (None, None) => return dispatch.snippet(&GATHER_NONE),
            (Some(_), _) => dispatch.snippet(&GATHER_A),
            (None, Some(_)) => dispatch.snippet(&GATHER_B),
        };
        dispatch.constant("LINES_BINDING", binding)
    }
}
