//! GGUF files: a small one made here, damaged ones, and a real model if present.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on fails")]

mod architectures;
mod conversion;
#[path = "../common/gguf.rs"]
mod made;
mod names;
mod published;
mod quantised;
mod refused;
mod tokenizer;
mod unusual;
mod written;

use made::{Meta, VOCABULARY, file, metadata, tensors};
use serde_json::Value;
use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use wgformer::generate::{GenerateLimits, GenerationSettings, Generator, SamplingOptions};
use wgformer::gpu::{AdapterClass, GpuOptions};
use wgformer::graph::{Array, Storage, Values};
use wgformer::io::{ModelFolder, gguf};
use wgformer::models::{self, Decoder, TokenInputs};
use wgformer::{DType, Gpu, Graph, Program, Weights};

fn small() -> Vec<u8> {
    file(&metadata(), &tensors()).0
}

fn with(key: &'static str, value: Meta) -> Vec<u8> {
    let mut metadata = metadata();
    metadata.insert(key, value);
    file(&metadata, &tensors()).0
}

fn refusal(bytes: Vec<u8>) -> String {
    let Err(error) = gguf::from_bytes("some/model.gguf", bytes) else { panic!("it was accepted") };
    let message = error.to_string();
    assert!(message.starts_with("some/model.gguf: "), "no path in: {message}");
    message
}

/// Why a file that opens has no tokenizer.
fn no_tokenizer(bytes: Vec<u8>) -> String {
    let opened = gguf::from_bytes("some/model.gguf", bytes).unwrap();
    models::decoder_of(&opened).unwrap();
    let message = opened.expect_tokenizer().unwrap_err().to_string();
    assert!(message.starts_with("some/model.gguf: "), "no path in: {message}");
    message
}

fn gpus() -> Vec<Gpu> {
    let gpus: Vec<Gpu> = Gpu::adapters().iter().map(|adapter| Gpu::open(adapter).unwrap()).collect();
    assert!(!gpus.is_empty(), "no adapter: install a Vulkan driver (mesa-vulkan-drivers)");
    gpus
}

/// Every adapter, and those that compute on the CPU once more as GPUs: with the kernels that a GPU gets.
fn also_as_gpus() -> Vec<(String, Gpu)> {
    let mut all = Vec::new();
    for adapter in Gpu::adapters() {
        let info = adapter.get_info();
        for class in [None, Some(AdapterClass::Gpu)] {
            if class == Some(AdapterClass::of(&info)) {
                continue;
            }
            let mut options = GpuOptions::default();
            options.class = class;
            let gpu = Gpu::open_with(&adapter, &options).unwrap();
            all.push((format!("{:?} {}{}", info.backend, info.name, class.map_or("", |_| ", as a GPU")), gpu));
        }
    }
    assert!(!all.is_empty(), "no adapter: install a Vulkan driver (mesa-vulkan-drivers)");
    all
}

/// The logits of the last of some tokens.
fn last_logits(gpu: &Gpu, model: &dyn Decoder, weights: &Weights, tokens: &[u32]) -> Vec<f32> {
    let (g, _) = logits_graph(model, weights.storage(), tokens.len());
    let program = Program::new(gpu, &g, weights).unwrap();
    program.write("ids", bytemuck::cast_slice(tokens)).unwrap();
    program.run().unwrap();
    let logits = program.read_f32("logits").unwrap();
    logits[(tokens.len() - 1) * model.dimensions().vocabulary..].to_vec()
}

fn logits_graph(model: &dyn Decoder, storage: &Storage, count: usize) -> (Graph, wgformer::Tensor) {
    let mut g = Graph::with_storage(storage);
    let ids = g.input("ids", [1, count], DType::U32).unwrap();
    let inputs = TokenInputs::new(&mut g, ids).unwrap();
    let hidden = model.decode(&mut g, &inputs).unwrap().states;
    let logits = model.logits(&mut g, hidden).unwrap();
    g.output("logits", logits).unwrap();
    (g, logits)
}

#[test]
fn a_file_computes_what_its_formulas_say_on_every_adapter() {
    let tensors = tensors();
    let opened = gguf::from_bytes("small.gguf", file(&metadata(), &tensors).0).unwrap();
    let model = models::decoder_of(&opened).unwrap();
    let storage = models::storage_of(model.as_ref(), &opened.tensors).unwrap();
    let types: BTreeMap<String, DType> =
        model.parameters_in(&storage).unwrap().into_iter().map(|(name, ty)| (name, ty.dtype)).collect();
    let tokens: Vec<u32> = (0..19).map(|i| i * 13 % VOCABULARY as u32).collect();
    let mut values = Values::new();
    for made in &tensors {
        let stored = match made.kind {
            0 => DType::F32,
            1 => DType::F16,
            2 => DType::Q4_0,
            3 => DType::Q4_1,
            8 => DType::Q8_0,
            14 => DType::Q6K,
            _ => DType::BF16,
        };
        assert_eq!(types[&made.theirs], stored, "{}", made.theirs);
        values.insert(made.theirs.clone(), Array::new(made.shape.as_slice(), made.values.clone()).unwrap());
    }
    assert_eq!(types.len(), tensors.len());
    values.insert("ids".into(), Array::from_fn([1, tokens.len()], |i| f64::from(tokens[i])));
    let (g, logits) = logits_graph(model.as_ref(), &storage, tokens.len());
    let expected = g.evaluate(&values, &[logits]).unwrap().remove(0);
    let expected = expected.row(tokens.len() - 1);
    let largest = expected.iter().fold(0.0_f64, |m, x| m.max(x.abs()));
    for gpu in gpus() {
        // As they are in the file, and unpacked.
        for storage in [None, Some(DType::F32)] {
            let (model, weights) = models::load(&gpu, &opened, storage).unwrap();
            let got = last_logits(&gpu, model.as_ref(), &weights, &tokens);
            assert_eq!(got.len(), expected.len());
            let error = got.iter().zip(expected).map(|(a, b)| (f64::from(*a) - b).abs());
            let error = error.fold(0.0_f64, |m, e| if e > m || e.is_nan() { e } else { m });
            assert!(error / largest <= 1e-5, "{storage:?} on {}: error {:.1e}", gpu.info().name, error / largest);
        }
    }
}

#[test]
fn gradients_by_quantised_weights_are_an_error() {
    let opened = gguf::from_bytes("small.gguf", small()).unwrap();
    let model = models::decoder_of(&opened).unwrap();
    let storage = models::storage_of(model.as_ref(), &opened.tensors).unwrap();
    let (mut g, logits) = logits_graph(model.as_ref(), &storage, 4);
    let upstream = g.input("upstream", [1, 4, VOCABULARY], DType::F32).unwrap();
    let weight = g.find("model.layers.0.mlp.up_proj.weight").unwrap();
    let message = g.differentiate_from(&[(logits, upstream)], &[weight]).unwrap_err().to_string();
    assert!(message.contains("mlp.up_proj.weight is q4_0[256, 64]: quantised"), "{message}");
    // Gains are trained through quantised layers.
    let gain = g.find("model.norm.weight").unwrap();
    assert!(g.differentiate_from(&[(logits, upstream)], &[gain]).unwrap()[0].is_some());
}

#[test]
fn a_file_becomes_a_folder_whose_weights_are_rounded_while_they_are_loaded() {
    let gpu = &gpus()[0];
    let opened = gguf::from_bytes("small.gguf", small()).unwrap();
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("model");
    let (stored, weights) = models::load(gpu, &opened, None).unwrap();
    let refused = models::save(stored.as_ref(), &weights, Some(&opened), &path).unwrap_err().to_string();
    assert!(refused.contains("quantised") && !path.exists(), "{refused}");
    let (wide, weights) = models::load(gpu, &opened, DType::F32).unwrap();
    models::save(wide.as_ref(), &weights, Some(&opened), &path).unwrap();
    let folder = ModelFolder::open(&path).unwrap();
    let tokens: Vec<u32> = folder.expect_tokenizer().unwrap().encode("the things that they saw").unwrap();
    let expected = last_logits(gpu, wide.as_ref(), &weights, &tokens);
    let size: f32 = expected.iter().map(|x| x * x).sum();
    for (dtype, least, most) in [
        (DType::F32, 0.0, 0.0),
        (DType::Q8_0, 1e-9, 1e-3),
        (DType::Q4_1, 1e-6, 0.1),
        (DType::Q4_0, 1e-6, 0.1),
        (DType::MXFP4, 1e-6, 0.2),
    ] {
        let (model, weights) = models::load(gpu, &folder, dtype).unwrap();
        let matrices =
            model.parameters_in(weights.storage()).unwrap().into_iter().filter(|(_, ty)| ty.shape.rank() == 2);
        assert!(matrices.into_iter().all(|(_, ty)| ty.dtype == dtype));
        let got = last_logits(gpu, model.as_ref(), &weights, &tokens);
        let error: f32 = got.iter().zip(&expected).map(|(a, b)| (a - b) * (a - b)).sum();
        assert!((least..=most).contains(&(error / size)), "{dtype}: {}", error / size);
    }
}

#[test]
fn the_file_says_how_its_model_is_sampled_from() {
    let settings = |given: &[(&'static str, Meta)]| {
        let mut metadata = metadata();
        metadata.extend(given.iter().cloned());
        let folder = gguf::from_bytes("some/model.gguf", file(&metadata, &tensors()).0)?;
        GenerationSettings::of(&folder, 260)
    };
    assert_eq!(settings(&[]).unwrap(), GenerationSettings::default().with_end(vec![259]));
    let all = settings(&[
        ("general.sampling.temp", Meta::F32(0.6)),
        ("general.sampling.top_k", Meta::U32(20)),
        ("general.sampling.top_p", Meta::F32(0.95)),
        ("general.sampling.min_p", Meta::F32(0.05)),
        ("general.sampling.penalty_repeat", Meta::F32(1.5)),
        ("general.sampling.penalty_last_n", Meta::U32(64)),
        ("general.sampling.xtc_probability", Meta::F32(0.5)),
        ("general.sampling.mirostat", Meta::U32(0)),
        ("general.sampling.sequence", Meta::Text("top_k;temperature")),
    ])
    .unwrap();
    assert_eq!((all.temperature, all.top_k, all.top_p, all.min_p), (Some(0.6), Some(20), Some(0.95), Some(0.05)));
    assert_eq!(all.repetition_penalty, Some(1.5));
    let ignored = all.ignored.join(", ");
    let mut wanted = ["penalty_last_n 64", "xtc_probability 0.5", "sampling.sequence"].iter();
    assert!(wanted.all(|key| ignored.contains(key)) && !ignored.contains("mirostat"), "{ignored}");
    // A penalty that looks at no tokens is none.
    let off = [("general.sampling.penalty_repeat", Meta::F32(1.5)), ("general.sampling.penalty_last_n", Meta::U32(0))];
    assert_eq!(settings(&off).unwrap().repetition_penalty, None);
    let error = settings(&[("general.sampling.top_p", Meta::F32(7.0))]).unwrap_err().to_string();
    assert!(error.starts_with("some/model.gguf: top_p: it is 7"), "{error}");
    let error = settings(&[("general.sampling.temp", Meta::Text("hot"))]).unwrap_err().to_string();
    assert!(error.contains("\"general.sampling.temp\" is not a number"), "{error}");
}

#[test]
fn a_file_works_like_a_folder_in_the_command() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("small.gguf");
    std::fs::write(&path, small()).unwrap();
    let data = folder.path().join("text.txt");
    std::fs::write(&data, "the end of the 12 things that they saw ".repeat(20)).unwrap();
    let run = |arguments: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_wgformer")).args(arguments).output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice::<Value>(&output.stdout).unwrap()
    };
    let (path, data) = (path.to_str().unwrap(), data.to_str().unwrap());
    let same = |extra: &[&str]| {
        let generate = ["generate", "--json", path, "-p", "the", "-n", "4", "--greedy"];
        let answers = run(&[&generate[..], extra].concat());
        answers["answers"][0]["tokens"].as_array().unwrap().len()
    };
    assert!(same(&[]) > 0 && same(&["--dtype", "q8_0"]) > 0);
    let sampled = folder.path().join("sampled.gguf");
    std::fs::write(&sampled, with("general.sampling.top_k", Meta::U32(1))).unwrap();
    let generate = ["generate", sampled.to_str().unwrap(), "-p", "the", "-n", "4"];
    let output = Command::new(env!("CARGO_BIN_EXE_wgformer")).args(generate).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("sampled.gguf: top_k 1 (options override)"), "{said}");
    let loss = |extra: &[&str]| {
        let eval = ["eval", "--json", path, "--data", data, "--context", "32", "--batch", "2"];
        run(&[&eval[..], extra].concat())["loss"].as_f64().unwrap()
    };
    let (stored, wide, rounded) = (loss(&[]), loss(&["--dtype", "f32"]), loss(&["--dtype", "q4_0"]));
    assert!((stored - wide).abs() < 1e-4, "{stored} {wide}");
    assert!(rounded != wide && (rounded - wide).abs() < 0.5, "{rounded} {wide}");
    for step in ["decode", "eval", "train"] {
        let seen = run(&["inspect", "--json", path, "--step", step, "--batch", "1", "--context", "16"]);
        assert!(seen["dispatches"].as_u64().unwrap() > 10);
    }
}

/// The variable that names the file of SmolLM2; `scripts/fetch-weights.sh smollm2` fetches it.
const REAL: &str = "WGFORMER_SMOLLM2";

#[test]
fn a_real_model_writes_what_pytorch_writes() {
    let Some(path) = std::env::var_os(REAL) else {
        assert!(
            std::env::var_os("REQUIRE_WEIGHTS").is_none(),
            "{REAL} names no file: run scripts/fetch-weights.sh smollm2"
        );
        println!(
            "skipped: {REAL} names no file (scripts/fetch-weights.sh smollm2 fetches one), so nothing was checked"
        );
        return;
    };
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/goldens/smollm2.json");
    let golden: Value = serde_json::from_str(&std::fs::read_to_string(golden).unwrap()).unwrap();
    let numbers = |value: &Value| value.as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect::<Vec<_>>();
    let ids = |value: &Value| numbers(value).into_iter().map(|x| x as u32).collect::<Vec<u32>>();
    let gpu = Gpu::choose(None).unwrap();
    let opened = ModelFolder::open(Path::new(&path)).unwrap();
    let tokenizer = opened.expect_tokenizer().unwrap();
    let (model, weights) = models::load(&gpu, &opened, None).unwrap();
    let model: Arc<dyn Decoder> = model.into();
    let limits = GenerateLimits::new(1, 64);
    let mut generator = Generator::new(&gpu, model.clone(), &weights, limits).unwrap();
    for case in golden.as_array().unwrap() {
        let prompt = tokenizer.encode(case["prompt"].as_str().unwrap()).unwrap();
        assert_eq!(prompt, ids(&case["ids"]));
        let logits = last_logits(&gpu, model.as_ref(), &weights, &prompt);
        let mut order: Vec<usize> = (0..logits.len()).collect();
        order.sort_by(|&a, &b| logits[b].total_cmp(&logits[a]));
        for ((&at, id), value) in order.iter().zip(ids(&case["top5_ids"])).zip(numbers(&case["top5_logits"])) {
            assert_eq!(at as u32, id);
            assert!((f64::from(logits[at]) - value).abs() <= 1e-3, "logit {id} is {}, not {value}", logits[at]);
        }
        let mut options = SamplingOptions::greedy(32);
        options.end = models::end_tokens(&opened.config, tokenizer.vocab_size()).unwrap();
        let answers = generator.generate(&[prompt], &options, |_| ControlFlow::Continue(())).unwrap();
        assert_eq!(answers[0].tokens, ids(&case["greedy"]));
        assert_eq!(tokenizer.decode_with(&answers[0].tokens, false).unwrap(), case["text"].as_str().unwrap());
    }
}
