//! Files as other programs write them: their tokenizers, and files that are unusual or damaged in one respect.

use super::made::{Meta, file, metadata, tensors};
use super::{gpus, logits_graph};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use wgformer::io::{ModelFolder, Tensors, gguf};
use wgformer::{DType, Program, models};

fn place(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/gguf/files").join(name)
}

fn json(name: &str) -> Value {
    serde_json::from_slice(&std::fs::read(place(name)).unwrap()).unwrap()
}

fn ids(value: &Value) -> Vec<u32> {
    value.as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32).collect()
}

#[test]
fn tokenizers_give_the_tokens_of_llama_cpp() {
    for name in ["bpe-dented", "bpe-gpt2", "bpe-qwen2", "spm"] {
        let folder = ModelFolder::open(place(&format!("tokenizer-{name}.gguf"))).unwrap();
        let tokenizer = folder.expect_tokenizer().unwrap();
        let cases = json(&format!("tokenizer-{name}.json"));
        let cases = cases.as_array().unwrap();
        assert!(cases.len() >= 50);
        for case in cases {
            let text = case["text"].as_str().unwrap();
            assert_eq!(tokenizer.encode_plain(text).unwrap(), ids(&case["ids"]), "{name}: {text:?}");
            let prompt = tokenizer.encode_prompt(text).unwrap();
            // A text that begins with the token in front has it once here.
            let twice = ids(&case["prompt_ids"]);
            let wanted =
                if twice.len() > 1 && twice[0] == twice[1] && name == "spm" { &twice[1..] } else { &twice[..] };
            assert_eq!(prompt, wanted, "{name}: {text:?}");
            let decoded = tokenizer.decode_with(&ids(&case["ids"]), false).unwrap();
            assert_eq!(decoded, case["decoded"].as_str().unwrap(), "{name}: {text:?}");
        }
    }
}

#[test]
fn unusual_files_compute_what_they_say_and_damaged_ones_are_refused_by_name() {
    let expected = Tensors::open(place("edges.safetensors")).unwrap();
    let prompt = expected.expect("prompt").unwrap().to_u32().unwrap();
    let edges = json("edges.json");
    let gpus = gpus();
    for (name, edge) in edges.as_object().unwrap() {
        let start = Instant::now();
        let opened = ModelFolder::open(place(name));
        assert!(start.elapsed() < Duration::from_secs(1), "{name}");
        if edge["opens"] == false {
            let message = opened.map(|_| ()).unwrap_err().to_string();
            assert!(message.contains(name.as_str()), "{name}: {message}");
            let wanted: &[&str] = match name.as_str() {
                "edge-unknown-architecture.gguf" => &["nonesuch", "llama, qwen2"],
                "edge-no-architecture.gguf" => &["general.architecture"],
                "edge-truncated-data.gguf" => &["truncated"],
                "edge-offset-beyond-file.gguf" | "edge-kq-row-of-16.gguf" => &["blk.0.attn_q.weight"],
                "edge-unknown-type.gguf" => &["blk.0.attn_q.weight", "99"],
                "edge-big-endian.gguf" => &["big-endian"],
                _ => &[],
            };
            assert!(wanted.iter().all(|part| message.contains(part)), "{name}: {message}");
            continue;
        }
        let folder = opened.unwrap_or_else(|error| panic!("{name}: {error}"));
        let wanted = expected.expect(name.trim_end_matches(".gguf")).unwrap().to_f32().unwrap();
        let largest = wanted.iter().fold(0.0_f32, |most, x| most.max(x.abs()));
        for gpu in &gpus {
            let (model, weights) = models::load(gpu, &folder, DType::F32).unwrap();
            let (g, _) = logits_graph(model.as_ref(), weights.storage(), prompt.len());
            let program = Program::new(gpu, &g, &weights).unwrap();
            program.write("ids", bytemuck::cast_slice(&prompt)).unwrap();
            program.run().unwrap();
            let logits = program.read_f32("logits").unwrap();
            assert_eq!(logits.len(), wanted.len(), "{name}");
            let error = logits.iter().zip(&wanted).map(|(a, b)| (a - b).abs());
            let error = error.fold(0.0_f32, |most, e| if e > most || e.is_nan() { e } else { most });
            assert!(error / largest <= 1e-4, "{name} on {}: {:.1e}", gpu.info().name, error / largest);
        }
    }
}

#[test]
fn a_token_that_is_no_utf_8_comes_out_as_its_bytes() {
    let folder = ModelFolder::open(place("edge-invalid-utf8-token.gguf")).unwrap();
    let tokenizer = folder.expect_tokenizer().unwrap();
    let broken: Vec<u32> =
        (0..264).filter(|&id| tokenizer.decode(&[id]).unwrap().contains("\u{FFFD}\u{FFFD}")).collect();
    assert_eq!(broken.len(), 1, "{broken:?}");
    assert!(!tokenizer.encode_plain("\u{FFFD}\u{FFFD}").unwrap().contains(&broken[0]));
}

/// A file with other tokens.
fn vocabulary(model: &'static str, tokens: &[(&str, f32, i32)], more: &[(&'static str, Meta)]) -> ModelFolder {
    let mut metadata = metadata();
    metadata.retain(|key, _| !key.starts_with("tokenizer."));
    metadata.insert("tokenizer.ggml.model", Meta::Text(model));
    metadata.insert("tokenizer.ggml.tokens", Meta::Texts(tokens.iter().map(|token| token.0.to_owned()).collect()));
    metadata.insert("tokenizer.ggml.scores", Meta::Floats(tokens.iter().map(|token| token.1).collect()));
    metadata.insert("tokenizer.ggml.token_type", Meta::Integers(tokens.iter().map(|token| token.2).collect()));
    metadata.extend(more.iter().cloned());
    gguf::from_bytes("some/model.gguf", file(&metadata, &tensors()).0).unwrap()
}

#[test]
fn word_pieces_have_a_blank_where_a_word_begins() {
    let mut tokens =
        vec![("[PAD]", 0.0, 3), ("[UNK]", 0.0, 3), ("[CLS]", 0.0, 3), ("[SEP]", 0.0, 3), ("[MASK]", 0.0, 3)];
    // A sign that is a capital letter without a small one, as in the vocabularies of small letters in use.
    tokens.extend(["▁the", "▁un", "able", "▁!", "▁cafe", "▁ℝ"].map(|token| (token, 0.0, 1)));
    let roles = [("bos", 2), ("unknown", 1), ("seperator", 3), ("padding", 0), ("mask", 4)];
    let roles = roles.map(|(role, id)| (&*format!("tokenizer.ggml.{role}_token_id").leak(), Meta::U32(id)));
    let folder = vocabulary("bert", &tokens, &roles);
    let tokenizer = folder.expect_tokenizer().unwrap();
    let encoding = tokenizer.encode_for_model("The unable café! xyz", Some("the")).unwrap();
    assert_eq!(encoding.ids, [2, 5, 6, 7, 9, 8, 1, 3, 5, 3]);
    assert_eq!(encoding.type_ids, [0, 0, 0, 0, 0, 0, 0, 0, 1, 1]);
    assert_eq!(tokenizer.decode(&[5, 6, 7]).unwrap(), "the unable");
    assert_eq!((tokenizer.special("mask"), tokenizer.special("pad")), (Some(4), Some(0)));
}

#[test]
fn pieces_by_their_sum_are_chosen_and_a_text_ends() {
    let tokens = [
        ("<pad>", 0.0, 3),
        ("</s>", 0.0, 3),
        ("<unk>", 0.0, 2),
        ("▁", -2.0, 1),
        ("▁a", -1.0, 1),
        ("b", -3.0, 1),
        ("ab", -9.0, 1),
        ("▁ab", -3.5, 1),
        ("<extra>", 0.0, 4),
    ];
    let folder = vocabulary("t5", &tokens, &[("tokenizer.ggml.add_space_prefix", Meta::Flag(true))]);
    let tokenizer = folder.expect_tokenizer().unwrap();
    assert_eq!(tokenizer.encode_for_model("ab a", None).unwrap().ids, [7, 4, 1]);
    assert_eq!(tokenizer.encode("a<extra>z").unwrap(), [4, 8, 3, 2]);
    assert_eq!(tokenizer.decode(&[7, 4]).unwrap(), "ab a");
}

#[test]
fn user_defined_pieces_are_found_in_any_text_and_unused_ones_are_not_chosen() {
    let mut tokens = vec![("<unk>", 0.0, 2), ("<s>", 0.0, 3), ("</s>", 0.0, 3)];
    tokens.extend([
        ("▁", -9.0, 1),
        ("a", -9.0, 1),
        ("b", -9.0, 1),
        ("ab", -1.0, 5),
        ("<|u|>", 0.0, 4),
        ("▁a", -2.0, 1),
    ]);
    let folder = vocabulary("llama", &tokens, &[("tokenizer.ggml.add_bos_token", Meta::Flag(true))]);
    let tokenizer = folder.expect_tokenizer().unwrap();
    assert_eq!(tokenizer.encode_plain("bab<|u|>a").unwrap(), [3, 5, 4, 5, 7, 8]);
    assert_eq!(tokenizer.encode_prompt("ab").unwrap(), [1, 8, 5]);
    assert_eq!(tokenizer.decode(&[8, 6, 7, 4]).unwrap(), "aab<|u|>a");
    let mut broken = tokens.clone();
    broken[3].1 = f32::NAN;
    let folder = vocabulary("llama", &broken, &[]);
    assert!(folder.expect_tokenizer().unwrap_err().to_string().contains("scores\" has NaN for token 3"));
}

#[test]
fn every_rule_of_cutting_works() {
    for pre in [
        "default",
        "gpt-2",
        "llama-bpe",
        "dbrx",
        "qwen2",
        "qwen35",
        "smollm",
        "gpt-4o",
        "tiny_aya",
        "tekken",
        "deepseek-llm",
        "deepseek-coder",
        "deepseek-v3",
        "falcon",
        "poro-chat",
        "viking",
        "bailingmoe",
        "seed-coder",
        "exaone-moe",
        "jais-2",
        "superbpe",
        "kimi-k2",
    ] {
        let mut metadata = metadata();
        metadata.insert("tokenizer.ggml.pre", Meta::Text(pre));
        let folder = gguf::from_bytes("model.gguf", file(&metadata, &tensors()).0).unwrap();
        let tokenizer = folder.expect_tokenizer().unwrap_or_else(|error| panic!("{pre}: {error}"));
        let text = "Hello, WORLD's 1234567 naïve 日本語かな  \r\n\n\tif (x<=1.5) {}; élan ß";
        assert_eq!(tokenizer.decode(&tokenizer.encode(text).unwrap()).unwrap(), text, "{pre}");
        let words = tokenizer.encode_for_model("1234567", None).unwrap().words;
        let digits: Vec<usize> = words.chunk_by(|a, b| a == b).map(<[_]>::len).collect();
        let wanted: &[usize] = match pre {
            "gpt-2" | "poro-chat" | "deepseek-llm" => &[7],
            "default" | "falcon" | "llama-bpe" | "dbrx" | "gpt-4o" | "deepseek-v3" | "jais-2" | "kimi-k2" => &[3, 3, 1],
            "superbpe" | "tiny_aya" => &[1, 3, 3],
            _ => &[1; 7],
        };
        assert_eq!(digits, wanted, "{pre}");
    }
}
