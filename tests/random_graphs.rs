//! Graphs of ops at random, with shared operands, fused and planned like others: outputs and gradients against the f64 evaluation, twice, between
//! guard bands; and shapes that do not fit are errors.
#![allow(clippy::expect_used, clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on fails")]

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use wgformer::check::{Case, CaseOptions, Feed, Tolerance};
use wgformer::gpu::{AdapterClass, GpuOptions};
use wgformer::ops::{self, Activation, WeightLayout};
use wgformer::{Gpu, Graph, Result, Shape, Tensor};

/// An op and what it is applied to, as numbers that are taken modulo what there is.
type Step = (u8, usize, usize);

/// Adds an op on tensors that exist.
fn apply(g: &mut Graph, known: &mut Vec<Tensor>, row: Tensor, weight: Tensor, (op, a, b): Step) -> Result<()> {
    let a = known[a % known.len()];
    let shape = g.shape(a).clone();
    // Of the same shape as the first, itself at worst.
    let same: Vec<Tensor> = known.iter().copied().filter(|t| *g.shape(*t) == shape).collect();
    let other = same[b % same.len()];
    let wide = g.shape(row).dims()[0] == shape.last() && shape.rank() == 2;
    let made = match op {
        0 => ops::add(g, a, other)?,
        1 => ops::sub(g, a, other)?,
        2 => {
            let product = ops::mul(g, a, other)?;
            ops::scale(g, product, 0.4)?
        }
        3 => ops::softmax(g, a)?,
        4 => ops::activation(g, a, [Activation::Silu, Activation::GeluTanh, Activation::GeluErf][b % 3])?,
        5 => ops::gated(g, a, other, Activation::Silu)?,
        6 if shape.rank() == 2 => ops::transpose(g, a, &[1, 0])?,
        7 if wide => ops::layer_norm(g, a, row, Some(row), 1e-2)?,
        8 if wide => ops::linear(g, a, weight, Some(row), WeightLayout::InOut)?,
        9 if wide => ops::add_row(g, a, row)?,
        10 if wide => ops::mul_row(g, a, row)?,
        11 => ops::concat(g, &[a, other], b % shape.rank())?,
        12 => {
            let axis = b % shape.rank();
            let length = shape.dims()[axis];
            ops::slice(g, a, axis, length / 3, length - length / 3)?
        }
        13 => {
            let numel = shape.numel();
            if shape.rank() == 2 { ops::reshape(g, a, [1, numel])? } else { ops::reshape(g, a, [numel])? }
        }
        14 if wide => ops::rms_norm(g, a, row, 1e-2)?,
        15 if shape.rank() == 2 => {
            let square = ops::matmul_nt(g, a, other)?;
            ops::scale(g, square, 0.2)?
        }
        _ => ops::scale(g, a, -0.7)?,
    };
    // Small enough for the twin.
    if g.shape(made).numel() <= 4000 {
        known.push(made);
    }
    Ok(())
}

fn case(rows: usize, columns: usize, steps: Vec<Step>) -> Case {
    let feeds = vec![
        Feed::normal("x", [rows, columns]),
        Feed::normal("y", [rows, columns]),
        Feed::normal("row", [columns]),
        Feed::normal_scaled("weight", [columns, columns], 0.0, 0.3),
    ];
    let build = move |g: &mut Graph, inputs: &[Tensor]| {
        let mut known = vec![inputs[0], inputs[1]];
        for step in &steps {
            apply(g, &mut known, inputs[2], inputs[3], *step)?;
        }
        // So that a gradient reaches every input.
        let product = ops::linear(g, inputs[1], inputs[3], Some(inputs[2]), WeightLayout::InOut)?;
        let all = ops::add(g, product, inputs[0])?;
        Ok(vec![known[known.len() - 1], all])
    };
    let (forward, backward) = (Tolerance { nmse: 1e-8, worst: 2e-4 }, Tolerance { nmse: 1e-6, worst: 2e-3 });
    Case::new("a random graph", feeds, build).tolerance(forward, backward)
}

#[test]
fn random_graphs_give_what_f64_gives() {
    let adapters = Gpu::adapters();
    let adapter = adapters.iter().find(|adapter| adapter.get_info().name.contains("llvmpipe")).or(adapters.first());
    let adapter = adapter.expect("no adapter: install a Vulkan driver");
    let full = std::env::var("WGFORMER_TESTS").is_ok_and(|wanted| wanted == "full");
    for class in [None, Some(AdapterClass::Gpu)] {
        let mut options = GpuOptions::default();
        options.class = class;
        let gpu = Gpu::open_with(adapter, &options).unwrap();
        let config = Config { cases: if full { 500 } else { 25 }, failure_persistence: None, ..Config::default() };
        let graphs = (1_usize..40, 1_usize..40, prop::collection::vec((0_u8..17, 0_usize..50, 0_usize..50), 1..14));
        let run = |(rows, columns, steps): (usize, usize, Vec<Step>)| {
            let mut options = CaseOptions::full();
            options.variants = full;
            let runs = case(rows, columns, steps).run_with(&gpu, &options);
            for run in runs.map_err(|error| TestCaseError::fail(error.to_string()))? {
                let run = run.map_err(|error| TestCaseError::fail(error.to_string()))?;
                prop_assert!(run.passed(), "{:?} {:?}", run.faults, run.comparisons);
            }
            Ok(())
        };
        TestRunner::new_with_rng(
            config,
            proptest::test_runner::TestRng::deterministic_rng(prop::test_runner::RngAlgorithm::ChaCha),
        )
        .run(&graphs, run)
        .unwrap();
    }
}

/// Applies every op to two tensors of any shapes.
fn all_ops(g: &mut Graph, a: Tensor, b: Tensor) -> Vec<Result<Tensor>> {
    vec![
        ops::add(g, a, b),
        ops::mul(g, a, b),
        ops::add_row(g, a, b),
        ops::mul_row(g, a, b),
        ops::scale_by(g, a, b),
        ops::gated(g, a, b, Activation::Silu),
        ops::matmul(g, a, b),
        ops::matmul_nt(g, a, b),
        ops::matmul_tn(g, a, b),
        ops::linear(g, a, b, None, WeightLayout::InOut),
        ops::linear(g, a, b, Some(a), WeightLayout::OutIn),
        ops::layer_norm(g, a, b, None, 1e-5),
        ops::rms_norm(g, a, b, 1e-5),
        ops::softmax(g, a),
        ops::log_softmax(g, a),
        ops::sum_last(g, a),
        ops::sum_rows(g, a),
        ops::mean(g, a),
        ops::concat(g, &[a, b], 1),
        ops::slice(g, a, 1, 1, 3),
        ops::transpose(g, a, &[1, 0]),
        ops::reshape(g, a, [7, 5]),
        ops::gather_rows(g, a, b),
    ]
}

#[test]
fn shapes_that_do_not_fit_are_errors_and_never_panics() {
    let shape =
        || prop::collection::vec(prop_oneof![Just(0_usize), Just(1), Just(3), Just(5), Just(usize::MAX / 2)], 0..5);
    let mut runner = TestRunner::new(Config { cases: 2000, failure_persistence: None, ..Config::default() });
    runner
        .run(&(shape(), shape(), any::<bool>()), |(a, b, integers)| {
            let mut g = Graph::new();
            let dtype = if integers { wgformer::DType::U32 } else { wgformer::DType::F32 };
            let inputs = g
                .input("a", Shape::new(a), wgformer::DType::F32)
                .and_then(|a| Ok((a, g.input("b", Shape::new(b), dtype)?)));
            let Ok((a, b)) = inputs else { return Ok(()) };
            for made in all_ops(&mut g, a, b) {
                if let Err(error) = made {
                    prop_assert!(error.to_string().len() > 10, "{error}");
                }
            }
            Ok(())
        })
        .unwrap();
}
