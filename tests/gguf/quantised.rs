//! Models that llama.cpp's quantiser wrote, in types as people have them, against logits of numpy in f64.

use super::made::{Made, Meta, VOCABULARY, file, metadata, tensors};
use super::{also_as_gpus, gpus, last_logits, logits_graph};
use serde_json::Value;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use wgformer::generate::{GenerateLimits, Generator, SamplingOptions};
use wgformer::io::{FileType, ModelFolder, Tensors, gguf};
use wgformer::models::{self, Decoder};
use wgformer::quantised::{file_number, file_values, round_to_file};
use wgformer::{DType, Program};

/// Every file, with what it is to compute: those of the tests, and those of a folder of more of the kind, if the environment names one.
fn files() -> Vec<(PathBuf, Value)> {
    let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/gguf/files");
    let folders = std::iter::once(own).chain(std::env::var_os("WGFORMER_GGUF").map(PathBuf::from));
    let paths = folders.flat_map(|folder| std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()));
    let is_model = |path: &PathBuf| {
        let name = path.file_name().unwrap().to_str().unwrap();
        name.starts_with("llama-") && name.ends_with(".gguf")
    };
    let mut paths: Vec<PathBuf> = paths.filter(is_model).collect();
    paths.sort();
    assert!(paths.len() >= 5, "{paths:?}");
    let expected = |path: &Path| std::fs::read_to_string(path.with_extension("json")).unwrap();
    paths.into_iter().map(|path| (path.clone(), serde_json::from_str(&expected(&path)).unwrap())).collect()
}

fn ids(value: &Value) -> Vec<u32> {
    value.as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32).collect()
}

/// What Hugging Face calls a tensor.
fn hugging_face(name: &str) -> String {
    let names = [
        ("attn_q", "self_attn.q_proj"),
        ("attn_k", "self_attn.k_proj"),
        ("attn_v", "self_attn.v_proj"),
        ("attn_output", "self_attn.o_proj"),
        ("ffn_gate", "mlp.gate_proj"),
        ("ffn_up", "mlp.up_proj"),
        ("ffn_down", "mlp.down_proj"),
        ("attn_norm", "input_layernorm"),
        ("ffn_norm", "post_attention_layernorm"),
        ("token_embd", "model.embed_tokens"),
        ("output_norm", "model.norm"),
        ("output", "lm_head"),
    ];
    let theirs = |name: &str| names.iter().find(|(ours, _)| *ours == name).unwrap().1;
    let name = name.strip_suffix(".weight").unwrap();
    match name.strip_prefix("blk.").and_then(|rest| rest.split_once('.')) {
        Some((layer, part)) => format!("model.layers.{layer}.{}.weight", theirs(part)),
        None => format!("{}.weight", theirs(name)),
    }
}

#[test]
fn weights_have_the_sums_that_numpy_reads() {
    for (path, expected) in files() {
        let opened = ModelFolder::open(&path).unwrap();
        for (name, expected) in expected["tensors"].as_object().unwrap() {
            let tensor = opened.tensors.expect(&hugging_face(name)).unwrap();
            assert_eq!(tensor.dtype.to_string().to_lowercase(), expected["type"].as_str().unwrap().to_lowercase());
            // In the order of the file.
            let values: Vec<f32> = match tensor.dtype {
                FileType::Blocks(dtype) => file_values(dtype, tensor.bytes).into_iter().map(|x| x as f32).collect(),
                _ => tensor.to_f32().unwrap(),
            };
            let values = values.into_iter().map(f64::from);
            let squares: f64 = values.clone().map(|x| x * x).sum();
            let weighted: f64 = values.enumerate().map(|(i, x)| x * ((i % 97 + 1) as f64 / 97.0)).sum();
            for (got, key) in [(squares, "sum_squares"), (weighted, "weighted_sum")] {
                let expected = expected[key].as_f64().unwrap();
                let error = ((got - expected) / expected).abs();
                assert!(error <= 1e-6, "{}: {key} of {name}: {error:.1e}", path.display());
            }
        }
    }
}

#[test]
fn files_compute_what_numpy_computes_on_every_adapter_and_as_on_a_gpu() {
    let gpus = also_as_gpus();
    for (path, expected) in files() {
        let opened = ModelFolder::open(&path).unwrap();
        let prompt = opened.expect_tokenizer().unwrap().encode_prompt(expected["prompt"].as_str().unwrap()).unwrap();
        assert_eq!(prompt, ids(&expected["prompt_ids"]));
        let file = std::fs::read(path.with_extension("safetensors")).unwrap();
        let values = Tensors::from_bytes(&path, file).unwrap();
        let wanted = values.expect("logits").unwrap().to_f32().unwrap();
        let largest = wanted.iter().fold(0.0_f32, |m, x| m.max(x.abs()));
        let greedy = ids(&expected["greedy_ids"]);
        for (name, gpu) in &gpus {
            let (model, weights) = models::load(gpu, &opened, None).unwrap();
            let model: Arc<dyn Decoder> = model.into();
            let (g, _) = logits_graph(model.as_ref(), weights.storage(), prompt.len());
            let program = Program::new(gpu, &g, &weights).unwrap();
            program.write("ids", bytemuck::cast_slice(&prompt)).unwrap();
            program.run().unwrap();
            let got = program.read_f32("logits").unwrap();
            let error = got.iter().zip(&wanted).map(|(a, b)| (a - b).abs());
            let error = error.fold(0.0_f32, |m, e| if e > m || e.is_nan() { e } else { m }) / largest;
            let place = format!("{} on {name}", path.display());
            println!("{place}: {error:.1e}");
            assert!(got.len() == wanted.len() && error <= 1e-4, "{place}: error {error:.1e}");
            let limits = GenerateLimits::new(1, 64);
            let mut generator = Generator::new(gpu, model, &weights, limits).unwrap();
            let options = SamplingOptions::greedy(12);
            let answers =
                generator.generate(std::slice::from_ref(&prompt), &options, |_| ControlFlow::Continue(())).unwrap();
            assert_eq!(answers[0].tokens, greedy, "{place}");
        }
    }
}

/// A tensor of reproducible numbers in a quantised type.
fn blocks(name: &str, shape: &[usize], dtype: DType) -> Made {
    let count = shape.iter().product();
    let values: Vec<f32> = (0..count).map(|i: usize| 0.2 * (i as f32 * 12.9898 + shape[1] as f32).sin()).collect();
    let bytes = round_to_file(dtype, &values);
    let kind = file_number(dtype).unwrap();
    Made { name: name.into(), theirs: String::new(), shape: shape.into(), kind, bytes, values: Vec::new() }
}

#[test]
fn experts_of_a_file_stay_in_their_blocks() {
    let mut metadata = metadata();
    metadata.insert("llama.expert_count", Meta::U32(4));
    metadata.insert("llama.expert_used_count", Meta::U32(2));
    let mut all: Vec<Made> =
        tensors().into_iter().filter(|made| !made.name.contains("ffn_") || made.name.contains("norm")).collect();
    for layer in 0..2 {
        let name = |part: &str| format!("blk.{layer}.{part}.weight");
        all.push(blocks(&name("ffn_gate_exps"), &[4, 256, 64], DType::MXFP4));
        all.push(blocks(&name("ffn_up_exps"), &[4, 256, 64], DType::Q5_1));
        all.push(blocks(&name("ffn_down_exps"), &[4, 64, 256], [DType::Q4K, DType::Q2K][layer]));
        let router: Vec<f32> = (0..4 * 64).map(|i| (i as f32 * 0.7).sin()).collect();
        let bytes = router.iter().flat_map(|x| x.to_le_bytes()).collect();
        let (name, shape) = (name("ffn_gate_inp"), vec![4, 64]);
        all.push(Made { name, theirs: String::new(), shape, kind: 0, bytes, values: Vec::new() });
    }
    let opened = gguf::from_bytes("experts.gguf", file(&metadata, &all).0).unwrap();
    // Many tokens, and one.
    for tokens in [(0..19).map(|i| i * 13 % VOCABULARY as u32).collect(), vec![7]] {
        for gpu in gpus() {
            let logits = |storage: Option<DType>| {
                let (model, weights) = models::load(&gpu, &opened, storage).unwrap();
                let types = model.parameters_in(weights.storage()).unwrap();
                let experts: Vec<DType> =
                    types.into_iter().filter(|(name, _)| name.contains("experts.*")).map(|(_, ty)| ty.dtype).collect();
                (last_logits(&gpu, model.as_ref(), &weights, &tokens), experts)
            };
            let ((own, types), (wide, _)) = (logits(None), logits(Some(DType::F32)));
            assert!(
                [DType::MXFP4, DType::Q5_1, DType::Q4K, DType::Q2K].iter().all(|dtype| types.contains(dtype)),
                "{types:?}"
            );
            let largest = wide.iter().fold(0.0_f32, |m, x| m.max(x.abs()));
            let error = own.iter().zip(&wide).map(|(a, b)| (a - b).abs());
            let error = error.fold(0.0_f32, |m, e| if e > m || e.is_nan() { e } else { m }) / largest;
            assert!(error <= 2e-5, "{} tokens on {}: error {error:.1e}", tokens.len(), gpu.info().name);
        }
    }
}
