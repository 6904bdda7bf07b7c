//! GGUF files: a small one that is written here, damaged ones, and a real model where there is one.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on fails")]

#[path = "../common/gguf.rs"]
mod made;
mod unusual;

use half::f16;
use made::{Meta, VOCABULARY, file, metadata, tensors};
use proptest::prelude::*;
use serde_json::Value;
use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use wgformer::generate::{GenerateLimits, GenerationSettings, Generator, SamplingOptions};
use wgformer::graph::{Array, Storage, Values};
use wgformer::io::{ModelFolder, gguf};
use wgformer::models::{self, Decoder, TokenInputs};
use wgformer::{DType, Error, Gpu, Graph, Program, Weights};

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
fn the_tokenizer_of_the_file_is_the_one_it_describes() {
    let opened = gguf::from_bytes("small.gguf", small()).unwrap();
    let tokenizer = opened.expect_tokenizer().unwrap();
    let (t, the) = (256, 258);
    assert_eq!(tokenizer.encode("the the to<|end|>").unwrap(), [u32::from(b't'), 257, the, t, u32::from(b'o'), 259]);
    // Each digit is a word of its own.
    assert_eq!(tokenizer.encode("12").unwrap(), [u32::from(b'1'), u32::from(b'2')]);
    assert_eq!(tokenizer.decode(&[the, t, 259]).unwrap(), " the t");
    assert_eq!((tokenizer.eos(), tokenizer.special("bos")), (Some(259), None));
    assert_eq!(models::end_tokens(&opened.config, tokenizer.vocab_size()).unwrap(), [259]);
    let begun = gguf::from_bytes("small.gguf", {
        let mut metadata = metadata();
        metadata.insert("tokenizer.ggml.bos_token_id", Meta::U32(260));
        metadata.insert("tokenizer.ggml.add_bos_token", Meta::Flag(true));
        file(&metadata, &tensors()).0
    });
    let begun = begun.unwrap().expect_tokenizer().unwrap().clone();
    assert_eq!(begun.encode_for_model("to", None).unwrap().ids, [260, u32::from(b't'), u32::from(b'o')]);
}

/// Words of a text by the name of the way to cut it: each token is a byte, so that merges do not matter.
#[test]
fn the_chat_template_of_the_file_is_found() {
    let clock: wgformer::io::Clock = Arc::new(|_| Err("there is no time here".into()));
    let text = Meta::Text("{{ eos_token }}{{ messages[0].content }}");
    let opened = gguf::from_bytes("small.gguf", with("tokenizer.chat_template", text)).unwrap();
    let tokenizer = opened.tokenizer.unwrap();
    let template = tokenizer.chat_template(clock).unwrap().unwrap();
    let eos = tokenizer.token(tokenizer.eos().unwrap()).unwrap();
    let conversation = wgformer::io::Conversation::of_user("Hi", None);
    assert_eq!(template.render(&conversation).unwrap(), format!("{eos}Hi"));
    let plain = gguf::from_bytes("small.gguf", small()).unwrap();
    assert!(!plain.tokenizer.unwrap().has_chat_template());
}

#[test]
fn texts_are_cut_as_the_file_says() {
    let cut = |pre: &'static str, text: &str| {
        let opened = gguf::from_bytes("small.gguf", with("tokenizer.ggml.pre", Meta::Text(pre))).unwrap();
        let words = opened.expect_tokenizer().unwrap().encode_for_model(text, None).unwrap().words;
        let mut lengths: Vec<usize> = Vec::new();
        for (i, word) in words.iter().enumerate() {
            if i > 0 && word == &words[i - 1] {
                *lengths.last_mut().unwrap() += 1;
            } else {
                lengths.push(1);
            }
        }
        lengths
    };
    // "A1234!" with a blank in front of the second copy, which joins what it stands before.
    assert_eq!(cut("gpt-2", "A1234! A1234!"), [1, 4, 1, 2, 4, 1]);
    assert_eq!(cut("smollm", "A1234! A1234!"), [1, 1, 1, 1, 1, 1, 2, 1, 1, 1, 1, 1]);
    assert_eq!(cut("llama-bpe", "A1234! A1234!"), [1, 3, 1, 1, 2, 3, 1, 1]);
    assert_eq!(cut("qwen2", "A12! A12!"), [1, 1, 1, 1, 2, 1, 1, 1]);
    assert_eq!(cut("default", "A1234! A1234!"), [1, 3, 1, 1, 2, 3, 1, 1]);
}

#[test]
fn what_is_not_supported_is_named() {
    assert!(
        refusal(with("general.architecture", Meta::Text("mamba")))
            .contains("the architecture mamba, which is not supported yet")
    );
    assert!(no_tokenizer(with("tokenizer.ggml.model", Meta::Text("t5"))).contains("\"t5\""));
    assert!(no_tokenizer(with("tokenizer.ggml.pre", Meta::Text("tekken"))).contains("\"tekken\""));
    assert!(refusal(with("llama.expert_count", Meta::U32(8))).contains("experts"));
    assert!(refusal(with("llama.rope.scaling.type", Meta::Text("yarn"))).contains("\"yarn\""));
    assert!(
        refusal(with("llama.block_count", Meta::Text("two"))).contains("\"llama.block_count\" is not a whole number")
    );
    for key in ["block_count", "embedding_length", "feed_forward_length", "attention.head_count"] {
        let key = format!("llama.{key}").leak();
        for value in [0, 7, u32::MAX] {
            let message = refusal(with(key, Meta::U32(value)));
            assert!(message.contains("llama.") || message.contains("rows"), "{key} {value}: {message}");
        }
    }
    assert!(refusal(with("llama.context_length", Meta::U32(u32::MAX))).contains("llama.context_length"));
    assert!(no_tokenizer(with("tokenizer.ggml.token_type", Meta::Integers(vec![1; 5]))).contains("5 items"));
    assert!(no_tokenizer(with("tokenizer.ggml.merges", Meta::Texts(vec!["ab".into()]))).contains("\"ab\""));
    let mut lacking = metadata();
    lacking.remove("llama.embedding_length");
    assert!(refusal(file(&lacking, &tensors()).0).contains("\"llama.embedding_length\" is missing"));
    let mut made = tensors();
    made[3].kind = 12;
    assert!(
        refusal(file(&metadata(), &made).0).contains("\"blk.0.attn_v.weight\" has type Q4_K, which is not read yet")
    );
    let mut no_tokenizer = metadata();
    no_tokenizer.remove("tokenizer.ggml.model");
    let opened = gguf::from_bytes("m", file(&no_tokenizer, &tensors()).0).unwrap();
    assert!(opened.expect_tokenizer().is_err());
    assert!(refusal(b"PK\x03\x04".to_vec()).contains("no GGUF file"));
    assert!(refusal(b"version https://git-lfs.github.com/spec/v1".to_vec()).contains("git lfs pull"));
    assert!(refusal(b"GGUF\x00\x00\x00\x03".to_vec()).contains("big-endian"));
    assert!(refusal(b"GGUF\x01\x00\x00\x00".to_vec()).contains("version 1"));
}

#[test]
fn truncated_and_lying_files_are_refused() {
    let (bytes, start) = file(&metadata(), &tensors());
    for cut in [0, 3, 7, 20, 24, 40, 200, start / 2, start - 1, start, start + 1, bytes.len() - 100] {
        let message = refusal(bytes[..cut].to_vec());
        assert!(message.contains("truncated") || message.contains("no GGUF file"), "{cut}: {message}");
    }
    let mut twice = tensors();
    twice[1].name = "token_embd.weight".into();
    assert!(refusal(file(&metadata(), &twice).0).contains("\"token_embd.weight\" twice"));
    let mut broken = tensors();
    broken[2].shape = vec![32, 63];
    assert!(refusal(file(&metadata(), &broken).0).contains("not whole blocks"));
    let mut huge = tensors();
    huge[3].shape = vec![1 << 40, 1 << 40];
    assert!(refusal(file(&metadata(), &huge).0).contains("extents"));
    huge[3].shape = vec![1 << 40, 64];
    assert!(refusal(file(&metadata(), &huge).0).contains("truncated"));
    huge[3].shape = vec![0, 64];
    assert!(refusal(file(&metadata(), &huge).0).contains("extents"));
    let mut counts = bytes.clone();
    counts[8..16].fill(0xff);
    refusal(counts);
    let mut counts = bytes.clone();
    counts[16..24].fill(0xff);
    refusal(counts);
    let mut odd = bytes;
    let at = start - 200;
    odd[at..at + 8].fill(0xff);
    refusal(odd);
    // A model that is whole, and whose tensors are not those that it says.
    let mut missing = tensors();
    missing.pop();
    let opened = gguf::from_bytes("m", file(&metadata(), &missing).0).unwrap();
    let Err(error) = models::load(&gpus()[0], &opened, None) else { panic!("a tensor was made up") };
    assert!(error.to_string().contains("1 missing: model.norm.weight"), "{error}");
}

#[test]
fn scales_that_are_no_numbers_are_refused() {
    let mut made = tensors();
    made[1].bytes[20..22].copy_from_slice(&f16::INFINITY.to_le_bytes());
    let opened = gguf::from_bytes("m", file(&metadata(), &made).0).unwrap();
    for storage in [None, Some(DType::F32)] {
        let Err(error) = models::load(&gpus()[0], &opened, storage) else { panic!("an infinity was taken") };
        assert!(matches!(error, Error::NonFinite { .. }), "{error}");
        assert!(error.to_string().contains("model.layers.0.self_attn.q_proj.weight"), "{error}");
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
    for (dtype, least, most) in
        [(DType::F32, 0.0, 0.0), (DType::Q8_0, 1e-9, 1e-3), (DType::Q4_1, 1e-6, 0.1), (DType::Q4_0, 1e-6, 0.1)]
    {
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
    assert_eq!(settings(&[]).unwrap(), GenerationSettings { end: vec![259], ..GenerationSettings::default() });
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

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn damaged_headers_never_panic(
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        words in prop::collection::vec((any::<prop::sample::Index>(), prop::sample::select(vec![0_u64, 1, 255, 1 << 31, 1 << 40, u64::MAX])), 0..2),
        end in prop::option::of(any::<prop::sample::Index>()),
    ) {
        let mut metadata = metadata();
        // Most of the header is its tokens: fewer of them, so that what is damaged is not always a token.
        metadata.remove("tokenizer.ggml.token_type");
        metadata.insert("tokenizer.ggml.tokens", Meta::Texts(["Ġ", "t", "Ġt"].map(str::to_owned).into()));
        metadata.insert("tokenizer.ggml.merges", Meta::Texts(vec!["Ġ t".into()]));
        metadata.insert("tokenizer.ggml.eos_token_id", Meta::U32(2));
        let (mut bytes, start) = file(&metadata, &tensors());
        for (at, value) in flips {
            bytes[at.index(start)] = value;
        }
        for (at, value) in words {
            bytes[at.index(start)..][..8].copy_from_slice(&value.to_le_bytes());
        }
        if let Some(end) = end {
            bytes.truncate(end.index(bytes.len()));
        }
        if let Ok(opened) = gguf::from_bytes("m", bytes) {
            for tensor in opened.tensors.iter() {
                let _ = (tensor.to_f32(), tensor.to_u32(), tensor.to_words(DType::Q8_0), tensor.to_words(DType::F16));
            }
            let _ = models::decoder_of(&opened).map(|model| model.dimensions());
        }
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
    let limits = GenerateLimits { batch: 1, max_tokens: 64 };
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
