//! Matrix products whose operands are larger than one binding: cut into windows that fit.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use wgformer::check::Feed;
use wgformer::graph::{Graph, Values};
use wgformer::kernel::{AdapterClass, Caps};
use wgformer::ops::matmul::Form;
use wgformer::ops::{Activation, Matmul};
use wgformer::program::{Program, Recording, Weights, pack};
use wgformer::{DType, Error, Gpu, Shape, Tensor};

/// An epilogue product of one form, and values for its inputs.
struct Product {
    name: String,
    graph: Graph,
    values: Values,
    out: Tensor,
}

fn product(form: Form, batch: Option<usize>, [m, n, k]: [usize; 3], weight: DType) -> Product {
    let mut graph = Graph::new();
    let mut values = Values::new();
    let mut input = |name: &'static str, dims: &[usize], dtype: DType| {
        let shape = Shape::from([batch.as_slice(), dims].concat());
        values.insert(name.into(), Feed::normal(name, shape.clone()).stored_as(dtype).value().clone());
        graph.input(name, shape, dtype).unwrap()
    };
    let a = input("a", &if form.a_transposed() { [k, m] } else { [m, k] }, DType::F32);
    let b = input("b", &if form.b_transposed() { [n, k] } else { [k, n] }, weight);
    let residual = input("residual", &[m, n], DType::F32);
    let bias = Feed::normal("bias", [n]);
    values.insert("bias".into(), bias.value().clone());
    let bias = graph.input("bias", [n], DType::F32).unwrap();
    let op = Matmul { bias: true, residual: true, activation: Some(Activation::Relu), alpha: 0.5, ..Matmul::new(form) };
    let out = graph.apply1(op, &[a, b, bias, residual]).unwrap();
    graph.output("out", out).unwrap();
    Product { name: format!("{form:?} {batch:?} × {m} × {n} × {k} {weight}"), graph, values, out }
}

/// Products that a limit of 4 KiB a binding, 12 KiB for blocks of 256, cuts along every extent: m, n, k and the batch, with rows of odd length as well.
fn products() -> Vec<Product> {
    vec![
        product(Form::Nn, None, [40, 36, 72], DType::F32),
        product(Form::Nt, None, [23, 131, 65], DType::BF16),
        product(Form::Tn, None, [33, 35, 131], DType::F32),
        product(Form::Nt, None, [23, 131, 256], DType::Q8_0),
        product(Form::Nt, None, [3, 263, 512], DType::Q4_1),
        product(Form::Nn, None, [9, 256, 171], DType::Q4_0),
        product(Form::Nt, None, [23, 263, 512], DType::Q6K),
        product(Form::Nt, None, [2, 263, 768], DType::Q2K),
        product(Form::Nn, None, [9, 256, 400], DType::Q5K),
        product(Form::Nt, None, [2, 131, 256], DType::IQ4NL),
        product(Form::Nt, Some(3), [3, 9, 256], DType::Q8_0),
        product(Form::Nn, Some(5), [13, 11, 17], DType::F32),
    ]
}

fn small(caps: &Caps, product: &Product) -> Caps {
    let weight = product.graph.dtype(product.graph.find("b").unwrap());
    // A window begins up to 64 blocks before its first row, so that quants and scales begin at aligned offsets.
    let bytes = if weight.block() == 256 { 12288 } else { 4096 };
    caps.clone().with_max_binding_bytes(bytes + caps.offset_alignment)
}

#[test]
fn windows_fit_and_are_aligned() {
    for product in products() {
        let caps = small(&Caps::baseline(), &product);
        let recording = Recording::new(&product.graph, &caps).unwrap();
        assert!(recording.dispatches().len() > 1, "{} was not cut", product.name);
        for binding in recording.dispatches().iter().flat_map(|d| &d.bindings) {
            let view = &binding.view;
            assert!(view.bytes() <= caps.max_binding_bytes, "{}: {} bytes", product.name, view.bytes());
            let start = view.dtype.bytes(view.start);
            assert_eq!(start % caps.offset_alignment, 0, "{}: a window starts at byte {start}", product.name);
            let whole = recording.slots()[view.slot].ty.bytes();
            assert!(start + view.bytes() <= whole, "{}: a window ends past its tensor", product.name);
        }
    }
}

#[test]
fn a_row_that_does_not_fit_is_refused() {
    let product = product(Form::Nt, None, [2, 3, 2000], DType::F32);
    let caps = small(&Caps::baseline(), &product);
    let error = Recording::new(&product.graph, &caps).unwrap_err();
    assert!(matches!(error, Error::Unsupported { .. }), "{error}");
    assert!(error.to_string().contains("4.2 KiB"), "{error}");
}

/// Runs a product as recorded for `caps` and compares it with its f64 twin.
fn compare(gpu: &Gpu, product: &Product, caps: &Caps) {
    let expected = product.graph.evaluate(&product.values, &[product.out]).unwrap().remove(0);
    let recording = Recording::new(&product.graph, caps).unwrap();
    let program = Program::prepare(gpu, recording, &Weights::new(gpu)).unwrap();
    program.fill_temporaries(f32::NAN.to_bits()).unwrap();
    for (name, tensor) in product.graph.inputs() {
        program.write(name, &pack(&product.values[name].data, product.graph.dtype(tensor))).unwrap();
    }
    program.run().unwrap();
    let got = program.read_f32("out").unwrap();
    let square: f64 = expected.data.iter().map(|x| x * x).sum();
    let error: f64 = got.iter().zip(&expected.data).map(|(a, b)| (f64::from(*a) - b).powi(2)).sum();
    assert!(error / square <= 1e-12, "{} on {}: NMSE {:.1e}", product.name, gpu.info().name, error / square);
}

/// Every adapter of this machine, opened.
fn gpus() -> Vec<Gpu> {
    let gpus: Vec<Gpu> = Gpu::adapters().iter().map(|adapter| Gpu::open(adapter).unwrap()).collect();
    assert!(!gpus.is_empty(), "no adapter: install a Vulkan driver (mesa-vulkan-drivers)");
    gpus
}

/// Each product with one adapter, in turns, unless `WGFORMER_TESTS=full` asks for all pairs.
fn pairs<'a>(gpus: &'a [Gpu], products: &'a [Product]) -> impl Iterator<Item = (&'a Gpu, &'a Product)> {
    let all = std::env::var("WGFORMER_TESTS").is_ok_and(|wanted| wanted == "full");
    let of = move |(at, gpu): (usize, &'a Gpu)| {
        let chosen = move |(i, _): &(usize, _)| all || (i + at).is_multiple_of(gpus.len());
        products.iter().enumerate().filter(chosen).map(move |(_, p)| (gpu, p))
    };
    gpus.iter().enumerate().flat_map(of)
}

#[test]
fn cut_products_are_right() {
    for (gpu, product) in pairs(&gpus(), &products()) {
        compare(gpu, product, &small(gpu.caps(), product));
    }
}

/// The variants of GPUs, on CPU drivers: few rows, whose sums along k are cut into slices, and tiles.
#[test]
fn kernels_for_gpus_are_right() {
    let products = [
        product(Form::Nn, None, [1, 36, 300], DType::F32),
        product(Form::Nt, None, [3, 37, 301], DType::F32),
        product(Form::Nt, Some(2), [8, 40, 132], DType::BF16),
        product(Form::Tn, None, [70, 67, 33], DType::F32),
        product(Form::Nt, None, [1, 37, 2080], DType::Q4_1),
        product(Form::Nt, Some(2), [7, 40, 96], DType::Q8_0),
        product(Form::Nt, None, [70, 67, 96], DType::Q4_0),
        product(Form::Nt, None, [70, 67, 256], DType::Q6K),
        product(Form::Nt, None, [3, 37, 2048], DType::Q4K),
        product(Form::Nt, Some(2), [2, 40, 512], DType::Q2K),
    ];
    for (gpu, product) in pairs(&gpus(), &products) {
        compare(gpu, product, &gpu.caps().clone().with_class(AdapterClass::Gpu).with_subgroup(None));
    }
}
