//! Tables that are larger than a binding, on every adapter: recorded for a small limit, so that the tables can be small.

use wgformer::check::{Case, Feed};
use wgformer::kernel::AdapterClass;
use wgformer::ops;
use wgformer::program::{Program, Weights};
use wgformer::{DType, Gpu, Graph, Result};

/// Runs a case on every adapter under both classes' choices of kernels, with bindings of at most `bytes`.
fn run_within(case: &Case, bytes: u64) -> Result<()> {
    let adapters = Gpu::adapters();
    assert!(!adapters.is_empty(), "no adapter: install a Vulkan driver (mesa-vulkan-drivers)");
    for adapter in adapters {
        let gpu = Gpu::open(&adapter)?;
        for class in [AdapterClass::Cpu, AdapterClass::Gpu] {
            let caps = gpu.caps().clone().with_max_binding_bytes(bytes).with_class(class).with_subgroup(None);
            for dispatch in case.recording(&caps)?.dispatches() {
                for binding in &dispatch.bindings {
                    assert!(binding.view.bytes() <= bytes, "{} binds {}", dispatch.kernel.name, binding.view.bytes());
                }
            }
            for comparison in case.run_as(&gpu, &caps)? {
                assert!(comparison.passed, "{} as {class:?}: {comparison:?}", caps.name);
            }
        }
    }
    Ok(())
}

fn ids(count: usize, rows: usize) -> Feed {
    Feed::given("ids", [count], DType::U32, (0..count).map(|i| (i * 211 % rows) as f64))
}

#[test]
fn embedding_and_its_gradient() {
    for (dtype, columns) in [
        (DType::F32, 33),
        (DType::BF16, 33),
        (DType::F16, 32),
        (DType::Q8_0, 64),
        (DType::Q4_1, 96),
        (DType::Q6K, 256),
        (DType::Q2K, 256),
        (DType::Q5_0, 96),
    ] {
        let feeds = vec![Feed::normal("table", [1400, columns]).stored_as(dtype), ids(97, 1400)];
        let case = Case::new(format!("embedding {dtype}"), feeds, |g, x| Ok(vec![ops::embedding(g, x[0], x[1])?]));
        // The rows that are looked up fit as a whole.
        run_within(&case, 40_000.max(412 * columns as u64)).unwrap();
    }
}

#[test]
fn gradients_of_tables_have_the_same_bits_on_every_run() {
    for adapter in Gpu::adapters() {
        let gpu = Gpu::open(&adapter).unwrap();
        let mut graph = Graph::new();
        let x = graph.input("x", [3000, 8], DType::F32).unwrap();
        let index = graph.input("index", [3000], DType::U32).unwrap();
        let out = ops::scatter_rows(&mut graph, x, index, 50).unwrap();
        graph.output("out", out).unwrap();
        let program = Program::new(&gpu, &graph, &Weights::new(&gpu)).unwrap();
        let values: Vec<f32> = (0..24000).map(|i| (i as f32 * 0.37).sin() * 1e3).collect();
        let rows: Vec<u32> = (0..3000_u32).map(|i| i * i % 53).collect();
        program.write("x", bytemuck::cast_slice(&values)).unwrap();
        program.write("index", bytemuck::cast_slice(&rows)).unwrap();
        let runs: Vec<Vec<u8>> = (0..5)
            .map(|_| {
                program.run().unwrap();
                program.read("out").unwrap()
            })
            .collect();
        assert!(runs.iter().all(|run| *run == runs[0]), "{}", gpu.caps().name);
    }
}
