//! An op of the application's own: shape rule, gradient, f64 reference and two kernels in WGSL, which the engine records, plans and
//! checks like its own.
//!
//! Run it with `cargo run --example custom_op`.

use wgformer::check::{Case, Feed, Tolerance};
use wgformer::graph::{Array, Gradient, Op};
use wgformer::kernel::{Dispatch, Kernel, Launch};
use wgformer::{DType, Error, Gpu, Graph, Program, Result, Tensor, TensorType, Weights};

/// The head of both kernels: the parameters, and the index of an element.
macro_rules! shared {
    ($rest:literal) => {
        concat!(
            "struct Params { base: u32, groups: u32, count: u32, alpha: f32 }\n",
            "@group(0) @binding(0) var<uniform> p: Params;\n",
            "fn element(w: vec3u, n: vec3u, lane: u32) -> u32 {\n",
            "    let group = p.base + w.x + w.y * n.x;\n",
            "    return select(p.count, group * 64u + lane, group < p.groups);\n",
            "}\n",
            $rest
        )
    };
}

/// The engine compiles it with wgpu's checks. `Kernel::trusted` would leave them out, and is unsafe.
static SNAKE: Kernel = Kernel::new(
    "snake",
    shared!(
        "@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read_write> out: array<f32>;
@compute @workgroup_size(64)
fn snake(@builtin(workgroup_id) w: vec3u, @builtin(num_workgroups) n: vec3u, @builtin(local_invocation_index) lane: u32) {
    let i = element(w, n, lane);
    if (i >= p.count) { return; }
    let s = sin(p.alpha * x[i]);
    out[i] = x[i] + s * s / p.alpha;
}
"
    ),
);

static SNAKE_BACKWARD: Kernel = Kernel::new(
    "snake_backward",
    shared!(
        "@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read> upstream: array<f32>;
@group(0) @binding(3) var<storage, read_write> out: array<f32>;
@compute @workgroup_size(64)
fn snake_backward(
    @builtin(workgroup_id) w: vec3u, @builtin(num_workgroups) n: vec3u, @builtin(local_invocation_index) lane: u32
) {
    let i = element(w, n, lane);
    if (i >= p.count) { return; }
    out[i] = upstream[i] * (1.0 + sin(2.0 * p.alpha * x[i]));
}
"
    ),
);

/// `y = x + sin²(α x) / α`, element by element, f32 (Ziyin et al. 2020, arXiv:2006.08195).
///
/// Gradient: `dx = dy (1 + sin(2 α x))`, an op of its own.
#[derive(Debug)]
struct Snake {
    alpha: f32,
}

/// The gradient of [`Snake`]: x and the upstream gradient in, the gradient by x out.
#[derive(Debug)]
struct SnakeBackward {
    alpha: f32,
}

/// The type that all `count` inputs have: f32 of one shape.
fn same(op: &str, inputs: &[TensorType], count: usize) -> Result<Vec<TensorType>> {
    let fits = inputs.len() == count && inputs.iter().all(|x| *x == inputs[0] && x.dtype == DType::F32);
    match inputs.first() {
        Some(x) if fits => Ok(vec![x.clone()]),
        _ => Err(Error::Shape {
            op: op.into(),
            what: format!("expected {count} f32 tensors of one shape, got {inputs:?}"),
        }),
    }
}

/// A launch over all elements of the output, which lies behind the inputs.
fn launch(cx: &mut Launch<'_>, kernel: &'static Kernel, alpha: f32) -> Result<()> {
    let out = cx.output(0);
    let count = out.numel();
    let inputs = (0..cx.input_count()).map(|index| cx.input(index));
    let dispatch = inputs.fold(Dispatch::new(kernel), Dispatch::read).write(out);
    cx.dispatch(dispatch.param(count).param_f32(alpha).groups_for(count, 64).flops(4 * count as u64))
}

impl Op for Snake {
    fn name(&self) -> &'static str {
        "snake"
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>> {
        same("snake", inputs, 1)
    }

    fn gradient(&self, cx: &mut Gradient<'_>) -> Result<Vec<Option<Tensor>>> {
        let upstream = cx.upstream(0)?;
        Ok(vec![Some(cx.graph.apply1(SnakeBackward { alpha: self.alpha }, &[cx.inputs[0], upstream])?)])
    }

    fn reference(&self, inputs: &[&Array]) -> Result<Vec<Array>> {
        let alpha = f64::from(self.alpha);
        Ok(vec![inputs[0].map(|x| x + (alpha * x).sin().powi(2) / alpha)])
    }

    fn launch(&self, cx: &mut Launch<'_>) -> Result<()> {
        launch(cx, &SNAKE, self.alpha)
    }
}

impl Op for SnakeBackward {
    fn name(&self) -> &'static str {
        "snake_backward"
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>> {
        same("snake_backward", inputs, 2)
    }

    fn reference(&self, inputs: &[&Array]) -> Result<Vec<Array>> {
        let alpha = f64::from(self.alpha);
        Ok(vec![inputs[0].zip(inputs[1], |x, upstream| upstream * (1.0 + (2.0 * alpha * x).sin()))])
    }

    fn launch(&self, cx: &mut Launch<'_>) -> Result<()> {
        launch(cx, &SNAKE_BACKWARD, self.alpha)
    }
}

/// The op as the engine's suite checks its own: on a GPU against the reference, and the gradient against finite differences.
pub(crate) fn case() -> Case {
    // WGSL promises a sine to 2⁻¹¹ only.
    let tolerance = Tolerance { nmse: 1e-6, worst: 5e-4 };
    Case::new("snake 5x77", vec![Feed::normal("x", [5, 77])], |g, x| Ok(vec![g.apply1(Snake { alpha: 1.5 }, &[x[0]])?]))
        .tolerance(tolerance, tolerance)
}

/// `snake(x)` of a few numbers.
///
/// # Errors
/// Those of the engine.
pub(crate) fn run(gpu: &Gpu, x: &[f32]) -> Result<Vec<f32>> {
    let mut g = Graph::new();
    let input = g.input("x", [x.len()], DType::F32)?;
    let out = g.apply1(Snake { alpha: 1.5 }, &[input])?;
    g.output("out", out)?;
    let program = Program::new(gpu, &g, &Weights::new(gpu))?;
    program.write("x", bytemuck::cast_slice(x))?;
    program.run()?;
    program.read_f32("out")
}

fn main() -> Result<()> {
    for adapter in Gpu::adapters() {
        let gpu = Gpu::open(&adapter)?;
        println!("{}: {:?}", gpu.info().name, run(&gpu, &[-1.0, 0.0, 0.5, 1.0])?);
        for comparison in case().run(&gpu)?.into_iter().chain(case().check_gradients(5)?) {
            println!("  {comparison:?}");
        }
    }
    Ok(())
}
