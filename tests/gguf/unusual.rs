//! Valid but unusual GGUF files: in several parts, with duplicates, with unused tensors, or not a model.

use super::last_logits;
use super::made::{Made, Meta, VOCABULARY, file, metadata, tensors};
use std::process::Command;
use wgformer::Gpu;
use wgformer::io::{ModelFolder, gguf};
use wgformer::models;

fn with(key: &'static str, value: Meta) -> Vec<u8> {
    let mut metadata = metadata();
    metadata.insert(key, value);
    file(&metadata, &tensors()).0
}

fn opened(bytes: Vec<u8>) -> ModelFolder {
    gguf::from_bytes("model.gguf", bytes).unwrap()
}

fn refusal(bytes: Vec<u8>) -> String {
    gguf::from_bytes("model.gguf", bytes).map(|_| ()).unwrap_err().to_string()
}

/// That its weights are those of a model.
fn load(folder: &ModelFolder) {
    let gpu = Gpu::open(&Gpu::adapters()[0]).unwrap();
    models::load(&gpu, folder, None).unwrap();
}

/// Every tensor's values by name.
fn values(folder: &ModelFolder) -> Vec<(String, Vec<f32>)> {
    folder.tensors.iter().map(|tensor| (tensor.name.to_owned(), tensor.to_f32().unwrap())).collect()
}

#[test]
fn rotary_positions_by_yarn_have_the_defaults_of_llama_cpp() {
    let mut metadata = metadata();
    metadata.insert("llama.rope.scaling.type", Meta::Text("yarn"));
    metadata.insert("llama.rope.scaling.factor", Meta::F32(4.0));
    metadata.insert("llama.rope.scaling.original_context_length", Meta::U32(16));
    let folder = opened(file(&metadata, &tensors()).0);
    let rope = &folder.config.value()["rope_scaling"];
    let rope = if rope.is_null() { &folder.config.value()["rope_parameters"] } else { rope };
    assert_eq!((&rope["rope_type"], &rope["original_max_position_embeddings"]), (&"yarn".into(), &16.into()));
    assert_eq!((rope["beta_fast"].as_f64(), rope["beta_slow"].as_f64()), (Some(32.0), Some(1.0)));
    let attention = rope["attention_factor"].as_f64().unwrap();
    assert!((attention - 1.138_629_436).abs() <= 1e-6, "{attention}");
    load(&folder);
}

#[test]
fn a_model_in_parts_is_read_whole_by_its_first() {
    let all = tensors();
    let expected = values(&opened(file(&metadata(), &all).0));
    let home = tempfile::tempdir().unwrap();
    let name = |number: usize| home.path().join(format!("m-0000{number}-of-00003.gguf"));
    for (part, tensors) in [&all[..5], &all[5..6], &all[6..]].into_iter().enumerate() {
        let mut metadata = if part == 0 { metadata() } else { std::collections::BTreeMap::new() };
        metadata.insert("split.no", Meta::U32(part as u32));
        metadata.insert("split.count", Meta::U32(3));
        metadata.insert("split.tensors.count", Meta::Integers(vec![all.len() as i32]));
        std::fs::write(name(part + 1), file(&metadata, tensors).0).unwrap();
    }
    let folder = ModelFolder::open(name(1)).unwrap();
    assert_eq!(values(&folder), expected);
    load(&folder);
    let said = |number: usize| ModelFolder::open(name(number)).map(|_| ()).unwrap_err().to_string();
    assert!(
        said(2).contains("is part 2 of 3 of a model: give its first part, ") && said(2).contains("m-00001-of-00003")
    );
    std::fs::remove_file(name(3)).unwrap();
    assert!(
        said(1).contains("is part 1 of 3: part 3 is missing; m-00003-of-00003.gguf should be beside it"),
        "{}",
        said(1)
    );
    std::fs::write(name(3), std::fs::read(name(2)).unwrap()).unwrap();
    assert!(said(1).contains("m-00003-of-00003.gguf: holds tensor") && said(1).contains("another part"), "{}", said(1));
    std::fs::remove_file(name(2)).unwrap();
    assert!(said(1).contains("is part 1 of 3: the others are missing; m-00002-of-00003.gguf should be"), "{}", said(1));
    let elsewhere = home.path().join("renamed.gguf");
    std::fs::rename(name(1), &elsewhere).unwrap();
    let message = ModelFolder::open(&elsewhere).map(|_| ()).unwrap_err().to_string();
    assert!(message.contains("its name does not say so"), "{message}");
}

#[test]
fn parts_that_cannot_be_are_refused() {
    assert!(refusal(with("split.count", Meta::U32(2))).contains("is part 1 of 2"));
    for (number, count) in [(2, 2), (0, u32::MAX), (7, 3)] {
        let mut metadata = metadata();
        metadata.insert("split.no", Meta::U32(number));
        metadata.insert("split.count", Meta::U32(count));
        assert!(refusal(file(&metadata, &tensors()).0).contains("the file is damaged"));
    }
    load(&opened(with("split.count", Meta::U32(1))));
}

#[test]
fn what_is_no_model_says_so() {
    let mut metadata = metadata();
    metadata.insert("general.type", Meta::Text("adapter"));
    metadata.insert("general.base_model.0.name", Meta::Text("Some Base"));
    let message = refusal(file(&metadata, &tensors()).0);
    assert!(message.contains("this is a LoRA adapter, not a model: give its base model, \"Some Base\""), "{message}");
    metadata.insert("general.type", Meta::Text("mmproj"));
    assert!(refusal(file(&metadata, &tensors()).0).contains("is \"mmproj\": the file is not a model"));
    // The architecture is said before a type that only its tensors have.
    metadata.insert("general.type", Meta::Text("model"));
    metadata.insert("general.architecture", Meta::Text("nonesuch"));
    let mut other = tensors();
    other[0].kind = 77;
    assert!(refusal(file(&metadata, &other).0).contains("is nonesuch, which is not read yet"));
}

#[test]
fn counts_may_be_given_for_each_layer() {
    for key in ["llama.attention.head_count_kv", "llama.attention.head_count", "llama.feed_forward_length"] {
        let count = if key.ends_with("kv") {
            2
        } else if key.ends_with("count") {
            4
        } else {
            256
        };
        let folder = opened(with(key, Meta::Integers(vec![count; 2])));
        assert_eq!(folder.config.value(), opened(file(&metadata(), &tensors()).0).config.value());
        load(&folder);
        let message = refusal(with(key, Meta::Integers(vec![count, count + 1])));
        assert!(message.contains("in some layers and") && message.contains("not supported yet"), "{message}");
        assert!(refusal(with(key, Meta::Integers(Vec::new()))).contains("empty list"));
    }
}

#[test]
fn tokens_that_are_empty_or_there_twice_are_chosen_for_no_text() {
    let mut tokens: Vec<String> = match &metadata()["tokenizer.ggml.tokens"] {
        Meta::Texts(tokens) => tokens.clone(),
        _ => panic!("no tokens"),
    };
    for (id, text) in [(270, "Ġthe"), (271, "<unused>"), (272, "<unused>"), (273, ""), (274, ""), (275, "<|end|>")] {
        tokens[id] = text.into();
    }
    let mut metadata = metadata();
    metadata.insert("tokenizer.ggml.tokens", Meta::Texts(tokens));
    metadata.insert(
        "tokenizer.ggml.token_type",
        Meta::Integers(
            (0..VOCABULARY as i32)
                .map(|id| {
                    if id < 259 || id == 270 {
                        1
                    } else if id < 275 {
                        5
                    } else {
                        3
                    }
                })
                .collect(),
        ),
    );
    let folder = opened(file(&metadata, &tensors()).0);
    let tokenizer = folder.expect_tokenizer().unwrap();
    assert_eq!(tokenizer.vocab_size(), VOCABULARY);
    assert_eq!(tokenizer.encode("to the").unwrap(), [u32::from(b't'), u32::from(b'o'), 258]);
    for (id, text) in [(258, " the"), (270, " the"), (271, "<unused>"), (272, "<unused>"), (273, ""), (274, "")] {
        assert_eq!(tokenizer.decode(&[id]).unwrap(), text, "{id}");
    }
    assert_eq!(tokenizer.decode(&[270, 272, 273, u32::from(b'o'), 274, 270]).unwrap(), " the<unused>o the");
    load(&folder);
}

#[test]
fn roles_of_tokens_that_are_not_there_are_left_aside() {
    for (key, id) in [("padding", u32::MAX), ("padding", 9999), ("eos", 9999), ("bos", u32::MAX), ("eot", 9999)] {
        let key = format!("tokenizer.ggml.{key}_token_id").leak();
        let folder = opened(with(key, Meta::U32(id)));
        let tokenizer = folder.expect_tokenizer().unwrap();
        assert_eq!(tokenizer.encode("the").unwrap().len(), 2);
        let named =
            folder.config.value().as_object().unwrap().values().any(|value| value.as_u64() == Some(u64::from(id)));
        assert!(!named, "{key} {id}");
        load(&folder);
    }
}

#[test]
fn tensors_that_compute_nothing_are_left_aside_and_others_are_refused() {
    let extra = |name: &str| {
        let mut all = tensors();
        let bytes = [1.0_f32, 2.0].iter().flat_map(|x| x.to_le_bytes()).collect();
        all.push(Made {
            name: name.into(),
            theirs: name.into(),
            shape: vec![2],
            kind: 0,
            bytes,
            values: vec![1.0, 2.0],
        });
        opened(file(&metadata(), &all).0)
    };
    load(&extra("blk.0.attn_rot_embd"));
    load(&extra("v_head.summary.weight"));
    let gpu = Gpu::open(&Gpu::adapters()[0]).unwrap();
    let error = models::load(&gpu, &extra("blk.1.attn_q_norm.weight"), None).map(|_| ()).unwrap_err().to_string();
    assert!(error.contains("1 not of this model: model.layers.1.self_attn.q_norm.weight"), "{error}");
}

#[test]
fn a_llama_under_the_name_of_another_architecture_is_read_as_one_with_a_warning() {
    // Rows lie as in all architectures but llama.
    let gpu = Gpu::open(&Gpu::adapters()[0]).unwrap();
    let tokens = [3, 14, 15, 9, 2, 6];
    let logits = |architecture: &'static str| {
        let mut metadata = metadata();
        let keys: Vec<_> = metadata.keys().filter_map(|key| key.strip_prefix("llama.")).collect();
        for key in keys {
            let value = metadata.remove(format!("llama.{key}").as_str()).unwrap();
            metadata.insert(format!("{architecture}.{key}").leak(), value);
        }
        metadata.insert("general.architecture", Meta::Text(architecture));
        let (model, weights) = models::load(&gpu, &opened(file(&metadata, &tensors()).0), None).unwrap();
        assert_eq!(model.config()["model_type"], "llama", "{architecture}");
        last_logits(&gpu, &*model, &weights, &tokens)
    };
    let wanted = logits("qwen2");
    for architecture in ["gemma2", "gemma3", "gpt2"] {
        assert_eq!(logits(architecture), wanted, "{architecture}");
    }
}

/// Nested lists, of so many levels.
fn nested(levels: usize) -> Meta {
    let mut bytes = 9_u32.to_le_bytes().to_vec();
    for _ in 1..levels {
        bytes.extend(9_u32.to_le_bytes());
        bytes.extend(1_u64.to_le_bytes());
    }
    bytes.extend(5_u32.to_le_bytes());
    bytes.extend(2_u64.to_le_bytes());
    bytes.extend([0; 8]);
    Meta::Raw(bytes)
}

#[test]
fn metadata_that_nobody_asks_for_may_be_anything() {
    load(&opened(with("some.nested", nested(2))));
    assert!(refusal(with("some.nested", nested(5000))).contains("\"some.nested\" lists lists of lists"));
    load(&opened(with("general.name", Meta::Raw([8, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xfe].to_vec()))));
    let two = with("some.nested", nested(2));
    for cut in 0..two.len().min(4000) {
        let _ = gguf::from_bytes("model.gguf", two[..cut].to_vec());
    }
}

#[test]
fn inspect_needs_no_tokenizer() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("spm.gguf");
    std::fs::write(&path, with("tokenizer.ggml.model", Meta::Text("nonesuch"))).unwrap();
    let run = |arguments: &[&str]| Command::new(env!("CARGO_BIN_EXE_wgformer")).args(arguments).output().unwrap();
    let path = path.to_str().unwrap();
    let inspected = run(&["inspect", path]);
    assert!(inspected.status.success(), "{}", String::from_utf8_lossy(&inspected.stderr));
    let generated = run(&["generate", path, "-p", "the", "-n", "1"]);
    let said = String::from_utf8_lossy(&generated.stderr).into_owned();
    assert!(!generated.status.success() && said.contains("\"nonesuch\""), "{said}");
}

#[test]
fn inspect_shows_a_model_with_a_key_that_is_not_known() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("new.gguf");
    std::fs::write(&path, with("llama.attention.new_trick", Meta::F32(2.0))).unwrap();
    let run = |arguments: &[&str]| Command::new(env!("CARGO_BIN_EXE_wgformer")).args(arguments).output().unwrap();
    let path = path.to_str().unwrap();
    let inspected = run(&["inspect", path]);
    let said = String::from_utf8_lossy(&inspected.stderr).into_owned();
    assert!(inspected.status.success() && said.contains("\"llama.attention.new_trick\" is not known here"), "{said}");
    let generated = run(&["generate", path, "-p", "the", "-n", "1"]);
    let said = String::from_utf8_lossy(&generated.stderr).into_owned();
    assert!(
        !generated.status.success() && said.contains("new.gguf: \"llama.attention.new_trick\" is not known"),
        "{said}"
    );
}
