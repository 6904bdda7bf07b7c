//! Ops of an application: the example against its reference, ops with false shapes, and ops that access memory outside their tensors.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[path = "../examples/custom_op.rs"]
#[expect(dead_code, reason = "the example's main is not called")]
mod custom_op;

use std::sync::Arc;
use wgformer::graph::{Alias, Array, Gradient, Kind, Op, WriteInto};
use wgformer::kernel::{Access, Binding, Caps, Dispatch, Kernel, Launch};
use wgformer::{DType, Error, Gpu, Graph, Program, Recording, Result, Shape, Tensor, TensorType, Weights, ops};

const COUNT: usize = 100;

fn gpus() -> Vec<Gpu> {
    let adapters = Gpu::adapters();
    assert!(!adapters.is_empty(), "no adapter: install a Vulkan driver (mesa-vulkan-drivers)");
    adapters.iter().map(|adapter| Gpu::open(adapter).unwrap()).collect()
}

#[test]
fn the_example_holds_on_every_adapter() {
    let case = custom_op::case();
    let differences = case.check_gradients(20).unwrap();
    assert!(differences.iter().any(|c| c.what == "grad.x"));
    for gpu in gpus() {
        let compared = case.run(&gpu).unwrap();
        assert_eq!(compared.len(), 2, "an output and a gradient");
        for comparison in compared.iter().chain(&differences) {
            assert!(comparison.passed, "{}: {comparison:?}", gpu.info().name);
        }
        let out = custom_op::run(&gpu, &[0.0, 1.0]).unwrap();
        assert!(out[0].abs() < 1e-6 && (out[1] - 1.663_33).abs() < 1e-3, "{}: {out:?}", gpu.info().name);
    }
}

/// Accesses memory far outside its bindings, then computes its output.
static WILD: Kernel = Kernel::new(
    "wild",
    "struct Params { base: u32, groups: u32, count: u32 }
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read_write> seen: array<f32>;
@group(0) @binding(3) var<storage, read_write> out: array<f32>;
@compute @workgroup_size(64)
fn wild(@builtin(workgroup_id) w: vec3u, @builtin(local_invocation_index) lane: u32) {
    let i = (p.base + w.x) * 64u + lane;
    for (var far = 1u; far < 64u; far++) {
        out[p.count + (far * 64u) + i] = -1.0;
        seen[p.count * far + i + 64u] = -1.0;
    }
    out[0xffffffffu - i] = -1.0;
    out[0x3fffffffu - i] = -1.0;
    if (i >= p.count) { return; }
    seen[i] = x[p.count + 28u + i] + x[0xffffffffu - i];
    out[i] = x[i];
}
",
);

/// The effect of [`WILD`].
#[derive(Debug)]
struct Wild;

impl Op for Wild {
    fn name(&self) -> &'static str {
        "wild"
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>> {
        Ok(vec![inputs[0].clone(), inputs[0].clone()])
    }

    fn reference(&self, inputs: &[&Array]) -> Result<Vec<Array>> {
        Ok(vec![inputs[0].clone(), inputs[0].clone()])
    }

    fn launch(&self, cx: &mut Launch<'_>) -> Result<()> {
        let (x, count) = (cx.input(0), cx.input(0).numel());
        let dispatch = Dispatch::new(&WILD).read(x).write(cx.output(0)).write(cx.output(1));
        cx.dispatch(dispatch.param(count).groups_for(count, 64))
    }
}

#[test]
fn what_reaches_beyond_its_tensors_harms_nothing() {
    const OTHERS: usize = 8;
    for gpu in gpus() {
        let name = format!("{:?} {}", gpu.info().backend, gpu.info().name);
        let mut g = Graph::new();
        let secret = g.parameter("secret", [COUNT], DType::F32).unwrap();
        let x = g.parameter("x", [COUNT], DType::F32).unwrap();
        let behind = g.parameter("zecret", [COUNT], DType::F32).unwrap();
        // Temporaries in the arenas of what the op reads and writes, made before it and behind it: each reads the one before, and no
        // launch reads the arena that it writes.
        let mut others: Vec<Tensor> = Vec::new();
        for _ in 1..OTHERS {
            let before = others.last().copied().unwrap_or(secret);
            others.push(g.apply1(HONEST, &[before]).unwrap());
        }
        let read = ops::scale(&mut g, x, 1.0).unwrap();
        let wild = g.apply(Wild, &[read]).unwrap();
        others.push(ops::add(&mut g, secret, behind).unwrap());
        for (index, tensor) in others.iter().enumerate() {
            g.output(&format!("other {index}"), *tensor).unwrap();
        }
        g.output("seen", wild[0]).unwrap();
        g.output("out", wild[1]).unwrap();
        let weights = Weights::for_graph(&gpu, &g, "flat").unwrap();
        for (name, value) in [("secret", 1e7_f32), ("zecret", 1e7), ("x", 2.0)] {
            weights.upload(name, bytemuck::cast_slice(&[value; COUNT])).unwrap();
        }
        let program = Program::new(&gpu, &g, &weights).unwrap();
        let arena = |slot: usize| program.plan().allocations[slot].map(|place| place.arena);
        let slot = |name: &str| program.recording().outputs().iter().find(|(n, _)| n == name).unwrap().1.slot;
        let beside = (0..OTHERS).filter(|i| arena(slot(&format!("other {i}"))) == arena(slot("out"))).count();
        assert!(beside > 0, "{name}: nothing lies beside what is written");
        program.run().unwrap();
        for index in 0..OTHERS {
            let expected = if index + 1 == OTHERS { 2e7 } else { 1e7 };
            let found = program.read_f32(&format!("other {index}")).unwrap();
            assert!(found.iter().all(|v| *v == expected), "{name}: other {index} is {found:?}");
        }
        for (weight, expected) in [("secret", 1e7_f32), ("zecret", 1e7), ("x", 2.0)] {
            let found: Vec<f32> = bytemuck::pod_collect_to_vec(&weights.download(weight).unwrap());
            assert!(found.iter().all(|v| *v == expected), "{name}: {weight} is {found:?}");
        }
        // Neighbours are unchanged; writes out of bounds may land in the last elements.
        let seen = program.read_f32("seen").unwrap();
        assert!(seen[..COUNT - 1].iter().all(|v| [0.0, 2.0, 4.0].contains(v)), "{name}: saw {seen:?}");
        let out = program.read_f32("out").unwrap();
        assert!(out[1..COUNT - 1].iter().all(|v| *v == 2.0), "{name}: {out:?}");
    }
}

static COPY: Kernel = Kernel::new(
    "copy",
    "struct Params { base: u32, groups: u32, count: u32 }
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read_write> out: array<f32>;
@compute @workgroup_size(64)
fn copy(@builtin(workgroup_id) w: vec3u, @builtin(local_invocation_index) lane: u32) {
    let i = (p.base + w.x) * 64u + lane;
    if (i < p.count) { out[i] = x[i]; }
}
",
);

/// Declares bindings and a uniform that are larger than those it gets.
static HUNGRY: Kernel = Kernel::new(
    "hungry",
    "struct Params { base: u32, groups: u32, many: array<vec4u, 256> }
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;
struct Big { all: array<vec4f, 4096> }
@group(0) @binding(2) var<storage, read_write> out: Big;
@compute @workgroup_size(64)
fn hungry(@builtin(local_invocation_index) lane: u32) { out.all[lane * 64u] = vec4f(x[lane]) + vec4f(p.many[lane]); }
",
);

type Lies = fn(&mut Launch<'_>) -> Result<()>;

/// An op that should copy, and declares or launches something else.
#[derive(Debug, Clone, Copy)]
struct Liar {
    launch: Lies,
    alias: Option<Alias>,
    longer: usize,
    part: Option<(usize, usize)>,
    placement: Option<WriteInto>,
    bound: Option<usize>,
}

const HONEST: Liar =
    Liar { launch: |cx| cx.dispatch(copy(cx)), alias: None, longer: 1, part: None, placement: None, bound: None };

fn copy(cx: &Launch<'_>) -> Dispatch {
    Dispatch::new(&COPY).read(cx.input(0)).write(cx.output(0)).param(COUNT).groups_for(COUNT, 64)
}

impl Op for Liar {
    fn name(&self) -> &'static str {
        "liar"
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>> {
        Ok(vec![TensorType::f32([inputs[0].shape.numel() * self.longer])])
    }

    fn reference(&self, inputs: &[&Array]) -> Result<Vec<Array>> {
        Ok(vec![inputs[0].clone()])
    }

    fn gradient(&self, _cx: &mut Gradient<'_>) -> Result<Vec<Option<Tensor>>> {
        let mut other = Graph::new();
        other.input("a", [1], DType::F32)?;
        Ok(vec![Some(other.input("b", [1], DType::F32)?)])
    }

    fn alias(&self, _index: usize) -> Option<Alias> {
        self.alias
    }

    fn slice_of(&self, _index: usize, _inputs: &[TensorType]) -> Option<(usize, usize)> {
        self.part
    }

    fn write_into(&self) -> Vec<WriteInto> {
        self.placement.into_iter().collect()
    }

    fn bounds(&self, _inputs: &[TensorType]) -> Vec<(usize, usize)> {
        self.bound.map(|input| (input, 3)).into_iter().collect()
    }

    fn launch(&self, cx: &mut Launch<'_>) -> Result<()> {
        (self.launch)(cx)
    }
}

fn tried(gpu: &Gpu, op: Liar) -> Result<Program> {
    let mut g = Graph::new();
    let x = g.input("x", [COUNT], DType::F32)?;
    let state = g.state("state", [COUNT], DType::F32)?;
    let before = ops::scale(&mut g, x, 2.0)?;
    let out = g.apply1(op, &[before, state])?;
    let behind = ops::scale(&mut g, out, 2.0)?;
    g.output("out", behind)?;
    Program::new(gpu, &g, &Weights::new(gpu))
}

/// Launches that must be refused, and a word of the error.
const LIES: [(&str, Lies); 15] = [
    ("is outside the op's", |cx| {
        let mut out = cx.output(0);
        out.shape = Shape::new([COUNT * 4]);
        cx.dispatch(copy(cx).write(out))
    }),
    ("is outside the op's", |cx| {
        let mut out = cx.output(0);
        out.start = usize::MAX - 3;
        cx.dispatch(copy(cx).write(out))
    }),
    ("is outside the op's", |cx| {
        let mut x = cx.input(0);
        (x.slot, x.dtype) = (0, DType::Q8_0);
        cx.dispatch(copy(cx).read(x))
    }),
    ("is outside the op's", |cx| {
        let mut out = cx.output(0);
        out.slot += 1;
        cx.dispatch(copy(cx).write(out))
    }),
    ("is empty", |cx| cx.dispatch(copy(cx).read(cx.input(9)))),
    ("writes an input", |cx| cx.dispatch(copy(cx).update(cx.input(0)))),
    ("is a texture", |cx| {
        let (view, access) = (cx.input(0), Access::Texture { storage: true, shared: true });
        let mut dispatch = copy(cx);
        dispatch.bindings.push(Binding::new(view, access));
        cx.dispatch(dispatch)
    }),
    ("is empty", |cx| {
        let mut x = cx.input(0);
        x.shape = Shape::new([0]);
        cx.dispatch(copy(cx).read(x))
    }),
    ("writes its output", |cx| cx.dispatch(copy(cx).groups(0))),
    ("writes its output", |_| Ok(())),
    ("twice and writes to it", |cx| cx.dispatch(copy(cx).write(cx.output(0)))),
    ("more than 32 bits", |cx| cx.dispatch(copy(cx).param(usize::MAX))),
    ("workgroups", |cx| cx.dispatch(copy(cx).groups(u32::MAX as usize))),
    ("in one buffer", |cx| {
        let mut scratch = cx.scratch([usize::MAX, 7], DType::F32);
        scratch.shape = Shape::new([8]);
        cx.dispatch(copy(cx).read(scratch))
    }),
    ("copy", |cx| {
        let (x, out) = (cx.input(0), cx.output(0));
        cx.dispatch(Dispatch::new(&COPY).write(out).read(x).param(COUNT).groups_for(COUNT, 64))
    }),
];

#[test]
fn what_an_op_says_wrong_is_an_error() {
    let x0 = WriteInto { input: 0, into: 1, offset: 0 };
    let says = [
        ("does not fit the memory", Liar { alias: Some(Alias::View(0)), longer: 2, ..HONEST }),
        ("which does not exist", Liar { alias: Some(Alias::InPlace(7)), ..HONEST }),
        ("another element size", Liar { part: Some((0, usize::MAX)), ..HONEST }),
        ("input 8", Liar { part: Some((8, 0)), ..HONEST }),
        ("must fit a state", Liar { placement: Some(WriteInto { offset: 64, ..x0 }), ..HONEST }),
        ("input 5", Liar { placement: Some(WriteInto { input: 5, ..x0 }), ..HONEST }),
        ("input 6", Liar { bound: Some(6), ..HONEST }),
        ("copy", Liar { launch: |cx| cx.dispatch(Dispatch::new(&COPY).write(cx.output(0)).param(COUNT)), ..HONEST }),
        (
            "hungry",
            Liar {
                launch: |cx| cx.dispatch(Dispatch::new(&HUNGRY).read(cx.input(0)).write(cx.output(0)).param(1)),
                ..HONEST
            },
        ),
    ];
    let launches = LIES.map(|(word, launch)| (word, Liar { launch, ..HONEST }));
    for gpu in gpus() {
        let name = format!("{:?} {}", gpu.info().backend, gpu.info().name);
        for (index, (word, op)) in says.iter().chain(&launches).enumerate() {
            match tried(&gpu, *op) {
                Ok(_) => panic!("{name}: lie {index} ({word}) went through"),
                Err(error) => assert!(error.to_string().contains(word), "{name}: lie {index}, {word}: {error}"),
            }
        }
        gpu.check().unwrap();
        let program = tried(&gpu, HONEST).unwrap();
        program.write("x", bytemuck::cast_slice(&[1.5_f32; COUNT])).unwrap();
        program.run().unwrap();
        assert_eq!(program.read_f32("out").unwrap(), [6.0; COUNT], "{name}");
    }
}

#[test]
fn a_gradient_of_another_graph_is_an_error() {
    let mut g = Graph::new();
    let x = g.parameter("x", [1], DType::F32).unwrap();
    let out = g.apply1(HONEST, &[x]).unwrap();
    // The foreign handle is valid here by chance; further on there is no such tensor.
    let loss = ops::sum(&mut g, out).unwrap();
    g.differentiate(loss, &[x]).map(drop).unwrap_or_else(|error| assert!(matches!(error, Error::Graph(_)), "{error}"));
}

/// Launches an op of the crate as if its tensors were larger than they are.
#[derive(Debug)]
struct Borrower(Arc<dyn Op>);

impl Op for Borrower {
    fn name(&self) -> &'static str {
        "borrower"
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>> {
        Ok(vec![inputs[0].clone()])
    }

    fn reference(&self, inputs: &[&Array]) -> Result<Vec<Array>> {
        self.0.reference(inputs)
    }

    fn launch(&self, cx: &mut Launch<'_>) -> Result<()> {
        self.0.launch(cx)
    }
}

#[test]
fn kernels_of_the_crate_are_trusted_in_the_crates_hands_only() {
    let mut g = Graph::new();
    let x = g.input("x", [COUNT], DType::F32).unwrap();
    let out = ops::scale(&mut g, x, 2.0).unwrap();
    g.output("out", out).unwrap();
    let own = Recording::new(&g, &Caps::baseline()).unwrap();
    assert!(own.dispatches().iter().all(Dispatch::is_trusted));
    // A recording that was taken apart may have been changed.
    let parts = (own.slots().to_vec(), own.dispatches().to_vec(), own.outputs().to_vec());
    let again = Recording::from_parts(parts.0, parts.1, parts.2);
    assert!(!again.dispatches().iter().any(Dispatch::is_trusted));
    let Some(Kind::Op(op)) = g.nodes().last().map(|node| node.kind.clone()) else { panic!("no op") };
    let borrowed = g.apply1(Borrower(op), &[out]).unwrap();
    g.output("borrowed", borrowed).unwrap();
    let mixed = Recording::new(&g, &Caps::baseline()).unwrap();
    assert_eq!(mixed.dispatches().iter().map(Dispatch::is_trusted).collect::<Vec<_>>(), [true, false]);
}
