//! Compiles the kernels of a case for an adapter, or writes their texts, so that the compilers of GPUs can be asked what they make of them
//! (`make gpu-code`).
//!
//! ```text
//! gpu_code                # lists the cases
//! gpu_code CASE           # makes the pipelines of a case on the Vulkan adapter
//! gpu_code CASE FOLDER    # writes FOLDER/CASE-N-ENTRY.wgsl and .hlsl, for an NVIDIA GPU
//! ```

use naga::back::hlsl;
use naga::valid::{Capabilities, ShaderStages, SubgroupOperationSet, ValidationFlags, Validator};
use std::error::Error;
use std::fs;
use std::path::Path;
use std::process::ExitCode;
use wgformer::gpu::{Caps, GpuOptions};
use wgformer::graph::{Graph, Tensor};
use wgformer::kernel::{Dialect, assemble};
use wgformer::ops::matmul::Form;
use wgformer::ops::{self, AttentionOptions};
use wgformer::program::{Program, Weights};
use wgformer::{DType, Gpu, Recording, Result};

/// How the names of cases on matrix units begin. They end with [`ABSENT`] where there are none.
const UNITS: &str = "matrix-units-";
const ABSENT: u8 = 3;

type Build = Box<dyn Fn(&mut Graph) -> Result<Vec<Tensor>>>;

fn parameter(g: &mut Graph, name: &str, shape: &[usize]) -> Result<Tensor> {
    g.parameter(name, shape, DType::F32)
}

fn product(form: Form, [m, k, n]: [usize; 3], weight: DType) -> Build {
    Box::new(move |g| {
        let (a, b, op): ([usize; 2], [usize; 2], fn(&mut Graph, Tensor, Tensor) -> Result<Tensor>) = match form {
            Form::Nn => ([m, k], [k, n], ops::matmul),
            Form::Nt => ([m, k], [n, k], ops::matmul_nt),
            Form::Tn => ([k, m], [k, n], ops::matmul_tn),
        };
        let (a, b) = (parameter(g, "a", &a)?, g.parameter("b", b, weight)?);
        Ok(vec![op(g, a, b)?])
    })
}

/// Causal attention of `queries` tokens among 1024, and its gradients.
fn attention(queries: usize, [heads, kv_heads, head_dim]: [usize; 3], gradients: bool) -> Build {
    Box::new(move |g| {
        let q = parameter(g, "q", &[1, queries, heads, head_dim])?;
        let [k, v] = ["k", "v"].map(|name| parameter(g, name, &[1, 1024, kv_heads, head_dim]));
        let (k, v) = (k?, v?);
        let out = ops::attention(g, q, k, v, &AttentionOptions::default().with_causal(true))?;
        if !gradients {
            return Ok(vec![out]);
        }
        let upstream = parameter(g, "upstream", &[1, queries, heads, head_dim])?;
        Ok(g.differentiate_from(&[(out, upstream)], &[q, k, v])?.into_iter().flatten().collect())
    })
}

/// An op on rows, and its gradients.
fn rows(shape: [usize; 2], op: fn(&mut Graph, Tensor) -> Result<Tensor>) -> Build {
    Box::new(move |g| {
        let x = parameter(g, "x", &shape)?;
        let out = op(g, x)?;
        let upstream = parameter(g, "upstream", &shape)?;
        let gradients = g.differentiate_from(&[(out, upstream)], &[x])?.into_iter().flatten();
        Ok(std::iter::once(out).chain(gradients).collect())
    })
}

fn cases() -> Vec<(String, Build)> {
    let big = [1024; 3];
    let row = |m| [m, 768, 3072];
    let mut cases: Vec<(String, Build)> = Vec::new();
    let mut case = |name: String, build: Build| cases.push((name, build));
    for form in [Form::Nn, Form::Nt, Form::Tn] {
        case(format!("product-{form:?}").to_lowercase(), product(form, big, DType::F32));
    }
    for weight in [DType::F32, DType::F16, DType::Q4_0] {
        case(format!("{UNITS}{weight}").to_lowercase(), product(Form::Nt, big, weight));
    }
    for (name, extent) in [("large", 2048), ("medium", 512), ("small", 256)] {
        case(format!("product-{name}"), product(Form::Nn, [extent; 3], DType::F32));
    }
    case("product-odd".into(), product(Form::Nn, [1023; 3], DType::F32));
    for weight in [DType::F16, DType::Q4_0, DType::Q8_0] {
        case(format!("product-{weight}").to_lowercase(), product(Form::Nt, big, weight));
    }
    case("row-nn".into(), product(Form::Nn, row(1), DType::F32));
    for weight in [DType::F32, DType::F16, DType::Q4_0, DType::Q8_0] {
        case(format!("row-{weight}").to_lowercase(), product(Form::Nt, row(1), weight));
    }
    case("row-8".into(), product(Form::Nt, row(8), DType::F32));
    for head_dim in [32, 64, 80, 96, 128, 256] {
        case(format!("attention-{head_dim}"), attention(1024, [12, 12, head_dim], true));
    }
    for head_dim in [64, 128] {
        case(format!("attention-decode-{head_dim}"), attention(1, [32, 8, head_dim], false));
    }
    case(
        "layer-norm".into(),
        rows([1024, 768], |g, x| {
            let [gain, bias] = ["gain", "bias"].map(|name| parameter(g, name, &[768]));
            ops::layer_norm(g, x, gain?, Some(bias?), 1e-5)
        }),
    );
    case("softmax".into(), rows([1024, 1024], ops::softmax));
    cases
}

fn graph(build: &Build) -> Result<Graph> {
    let mut g = Graph::new();
    for (number, tensor) in build(&mut g)?.into_iter().enumerate() {
        g.output(&format!("out{number}"), tensor)?;
    }
    Ok(g)
}

/// HLSL as wgpu writes it for trusted kernels.
fn hlsl(text: &str) -> std::result::Result<String, Box<dyn Error>> {
    let options = naga::front::wgsl::Options { parse_doc_comments: false, capabilities: Capabilities::all() };
    let module =
        naga::front::wgsl::Frontend::new_with_options(options).parse(text).map_err(|e| e.emit_to_string(text))?;
    let info = Validator::new(ValidationFlags::all(), Capabilities::all())
        .subgroup_stages(ShaderStages::all())
        .subgroup_operations(SubgroupOperationSet::all())
        .validate(&module)
        .map_err(|e| e.emit_to_string(text))?;
    let options = hlsl::Options {
        shader_model: hlsl::ShaderModel::V6_6,
        fake_missing_bindings: true,
        zero_initialize_workgroup_memory: false,
        force_loop_bounding: false,
        restrict_indexing: false,
        ..hlsl::Options::default()
    };
    let mut written = String::new();
    hlsl::Writer::new(&mut written, &options, &hlsl::PipelineOptions::default()).write(&module, &info, None)?;
    Ok(written)
}

fn write_texts(name: &str, build: &Build, folder: &Path) -> std::result::Result<(), Box<dyn Error>> {
    let caps = Caps::baseline()
        .with_f16(true)
        .with_workgroup_memory(48 << 10)
        .with_max_invocations(1024)
        .with_storage_bindings(32)
        .with_max_binding_bytes(1 << 31)
        .with_subgroup(Some(32))
        .with_subgroup_sizes(Some([32; 2]))
        .with_vendor(0x10de);
    for (number, dispatch) in Recording::new(&graph(build)?, &caps)?.dispatches().iter().enumerate() {
        let shader = assemble(dispatch, Dialect::Naga);
        let path = folder.join(format!("{name}-{number}-{}", shader.entry));
        fs::write(path.with_extension("hlsl"), hlsl(&shader.text)?)?;
        fs::write(path.with_extension("wgsl"), shader.text)?;
    }
    Ok(())
}

fn main() -> std::result::Result<ExitCode, Box<dyn Error>> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let cases = cases();
    let Some(wanted) = words.first() else {
        cases.iter().for_each(|(name, _)| println!("{name}"));
        return Ok(ExitCode::SUCCESS);
    };
    let (name, build) =
        cases.iter().find(|(name, _)| name == wanted).ok_or_else(|| format!("there is no case {wanted}"))?;
    let matrix_units = name.starts_with(UNITS);
    if let Some(folder) = words.get(1) {
        // They cannot be written as HLSL.
        if matrix_units {
            return Ok(ABSENT.into());
        }
        write_texts(name, build, Path::new(folder))?;
        return Ok(ExitCode::SUCCESS);
    }
    let gpu = Gpu::choose_with(Some("vulkan"), &GpuOptions::default().with_matrix_units(matrix_units))?;
    if matrix_units && gpu.caps().matrix_units.is_none() {
        return Ok(ABSENT.into());
    }
    Program::new(&gpu, &graph(build)?, &Weights::new(&gpu))?;
    Ok(ExitCode::SUCCESS)
}
