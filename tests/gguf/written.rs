//! Files that `convert` writes hold what they were made of.

use super::{gpus, last_logits};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::Command;
use wgformer::io::{Config, ModelFolder, Tokenizer, gguf};
use wgformer::models::{self, Model};
use wgformer::quantised::{dequantise, quantise};
use wgformer::{DType, Weights};

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/goldens").join(name)
}

/// The values of all tensors, by name.
fn values(folder: &ModelFolder) -> Vec<(String, Vec<f32>)> {
    let mut all: Vec<(String, Vec<f32>)> =
        folder.tensors.iter().map(|tensor| (tensor.name.to_owned(), tensor.to_f32().unwrap())).collect();
    all.sort_by(|a, b| a.0.cmp(&b.0));
    all
}

fn written(
    model: &dyn Model,
    weights: &Weights,
    folder: &ModelFolder,
    dtype: DType,
) -> (tempfile::TempDir, ModelFolder) {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("model.gguf");
    models::save_gguf(model, weights, Some(folder), &path, dtype).unwrap();
    let opened = gguf::open(&path).unwrap();
    (place, opened)
}

#[test]
fn every_decoder_is_read_back_as_it_was() {
    let gpu = &gpus()[0];
    let tokens: Vec<u32> = (0..11).map(|i| i * 7 % 50 + 1).collect();
    for name in [
        "llama",
        "llama-rope3",
        "llama-yarn",
        "mistral",
        "mixtral",
        "mixtral-11-experts",
        "qwen2",
        "qwen3",
        "qwen3-moe",
        "olmoe",
        "gemma",
        "gemma2",
        "gemma3",
        "phi3",
        "phi3-longrope",
        "granite",
        "gpt2",
    ] {
        let folder = ModelFolder::open(golden(name)).unwrap();
        let (model, weights) = models::load(gpu, &folder, DType::F32).unwrap();
        let wanted = last_logits(gpu, model.as_ref(), &weights, &tokens);
        let (_place, opened) = written(&*model, &weights, &folder, DType::F32);
        let (again, weights) = models::load(gpu, &opened, None).unwrap_or_else(|error| panic!("{name}: {error}"));
        let found = last_logits(gpu, again.as_ref(), &weights, &tokens);
        let largest = wanted.iter().fold(0.0_f32, |m, x| m.max(x.abs()));
        let worst = wanted.iter().zip(&found).fold(0.0_f32, |m, (a, b)| m.max((a - b).abs()));
        assert!(worst <= 2e-6 * largest && found.len() == wanted.len(), "{name}: {worst:.1e} of {largest:.1e}");
        assert!(worst.is_finite(), "{name}");
    }
}

#[test]
fn an_encoder_and_both_sides_are_read_back_as_they_were() {
    let gpu = &gpus()[0];
    for name in ["bert-base-model", "nomic-bert", "t5", "t5-v1.1"] {
        let folder = ModelFolder::open(golden(name)).unwrap();
        let (model, weights) = models::load_model(gpu, &folder, DType::F32).unwrap();
        let (_place, opened) = written(&*model, &weights, &folder, DType::F32);
        let (again, weights) = models::load_model(gpu, &opened, None).unwrap_or_else(|error| panic!("{name}: {error}"));
        let own = models::named_tensors(&*again, &weights).unwrap();
        assert_eq!(own.len(), models::named_tensors(&*model, &weights).map_or(0, |all| all.len()), "{name}");
        let there = values(&opened);
        for (name, values) in
            values(&folder).into_iter().filter(|(name, _)| there.iter().any(|(other, _)| other == name))
        {
            assert!(there.iter().any(|(other, found)| *other == name && *found == values), "{name}");
        }
    }
}

#[test]
fn what_files_have_no_keys_for_is_refused() {
    let gpu = &gpus()[0];
    for (name, words) in [
        ("smollm3", "every fourth layer without positions"),
        ("gpt-neox", "has no form in GGUF here"),
        ("qwen2-moe", "files of qwen2moe have experts in every layer"),
    ] {
        let folder = ModelFolder::open(golden(name)).unwrap();
        let (model, weights) = models::load(gpu, &folder, DType::F32).unwrap();
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("model.gguf");
        let message = models::save_gguf(&*model, &weights, Some(&folder), &path, DType::F16).unwrap_err().to_string();
        assert!(message.contains(words) && !path.exists(), "{message}");
    }
}

#[test]
fn matrices_are_rounded_to_the_type_that_is_asked_for() {
    let gpu = &gpus()[0];
    let config = json!({"model_type": "llama", "vocab_size": 40, "hidden_size": 256, "num_attention_heads": 2, "num_key_value_heads": 1,
                        "head_dim": 32, "num_hidden_layers": 1, "intermediate_size": 512, "max_position_embeddings": 64});
    let model = models::model(&Config::new("config.json", config).unwrap()).unwrap();
    let weights = Weights::new(gpu);
    model.initialise(&weights, 3).unwrap();
    let place = tempfile::tempdir().unwrap();
    models::save(model.as_ref(), &weights, None, place.path().join("plain")).unwrap();
    let folder = ModelFolder::open(place.path().join("plain")).unwrap();
    for dtype in [DType::F16, DType::BF16].into_iter().chain(DType::QUANTISED) {
        let (_place, opened) = written(&*model, &weights, &folder, dtype);
        let plain = values(&folder);
        let mut rounded = 0;
        for tensor in opened.tensors.iter() {
            let (_, wanted) = plain.iter().find(|(name, _)| name == tensor.name).unwrap();
            let found = tensor.to_f32().unwrap();
            let as_held = match tensor.same() {
                Some(held) if held.is_quantised() => {
                    rounded += 1;
                    dequantise(held, &quantise(held, wanted), wanted.len()).into_iter().map(|x| x as f32).collect()
                }
                Some(held) => {
                    rounded += usize::from(held == dtype);
                    wanted.iter().map(|x| held.round(f64::from(*x)) as f32).collect::<Vec<f32>>()
                }
                None => panic!("{}", tensor.name),
            };
            // Queries and keys are rounded in another order of rows.
            let turned = tensor.name.contains("q_proj") || tensor.name.contains("k_proj");
            assert!(turned || found == as_held, "{dtype}: {}", tensor.name);
        }
        assert!(rounded > 4, "{dtype}: {rounded} matrices");
    }
}

#[test]
fn tokenizers_are_read_back_as_they_were() {
    let gpu = &gpus()[0];
    let folder = ModelFolder::open(golden("llama")).unwrap();
    let (model, weights) = models::load_model(gpu, &folder, DType::F32).unwrap();
    let texts = [
        "Hello, world! It's 12345.6 o'clock.",
        "  two  blanks\n\nand lines\t",
        "naïve Größe 你好 🦀",
        "<s> </s> <|endoftext|>",
    ];
    for source in ["tokenizer-bpe-gpt2", "tokenizer-bpe-qwen2", "tokenizer-spm"] {
        let files = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/gguf/files");
        let read = gguf::open(files.join(format!("{source}.gguf"))).unwrap();
        let tokenizer = read.expect_tokenizer().unwrap().clone();
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("model.gguf");
        let contents = gguf::GgufContents {
            config: &models::stored_config(&*model, &weights),
            tensors: &models::named_tensors(&*model, &weights).unwrap(),
            tokenizer: Some(&tokenizer),
            name: source,
            dtype: DType::F16,
        };
        let written = contents.write(&path).unwrap();
        assert_eq!(written.no_tokenizer, None, "{source}");
        let opened = gguf::open(&path).unwrap();
        let again = opened.expect_tokenizer().unwrap();
        for text in texts {
            assert_eq!(again.encode_plain(text).unwrap(), tokenizer.encode_plain(text).unwrap(), "{source}: {text:?}");
            assert_eq!(again.encode(text).unwrap(), tokenizer.encode(text).unwrap(), "{source}: {text:?}");
            let ids = tokenizer.encode_plain(text).unwrap();
            assert_eq!(again.decode(&ids).unwrap(), tokenizer.decode(&ids).unwrap(), "{source}: {text:?}");
        }
        assert_eq!((again.bos(), again.eos()), (tokenizer.bos(), tokenizer.eos()), "{source}");
        assert_eq!(again.prefix(), tokenizer.prefix(), "{source}");
    }
}

/// The tokenizer of a folder that has only other files of one.
fn of_folder(name: &str, model_type: &str) -> Tokenizer {
    let place = tempfile::tempdir().unwrap();
    let vocabulary = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases/vocabularies").join(name);
    for entry in std::fs::read_dir(vocabulary).unwrap() {
        let path = entry.unwrap().path();
        std::fs::copy(&path, place.path().join(path.file_name().unwrap())).unwrap();
    }
    std::fs::write(place.path().join("config.json"), json!({ "model_type": model_type }).to_string()).unwrap();
    std::fs::copy(golden("t5").join("model.safetensors"), place.path().join("model.safetensors")).unwrap();
    ModelFolder::open(place.path()).unwrap().expect_tokenizer().unwrap().clone()
}

#[test]
fn pieces_are_read_back_with_what_is_done_with_a_text_before() {
    let gpu = &gpus()[0];
    let folder = ModelFolder::open(golden("t5")).unwrap();
    let (model, weights) = models::load_model(gpu, &folder, DType::F32).unwrap();
    let (config, tensors) =
        (models::stored_config(&*model, &weights), models::named_tensors(&*model, &weights).unwrap());
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("model.gguf");
    let write = |tokenizer: &Tokenizer| {
        let tokenizer = Some(tokenizer);
        let contents =
            gguf::GgufContents { config: &config, tensors: &tensors, tokenizer, name: "t5", dtype: DType::F16 };
        contents.write(&path).unwrap().no_tokenizer
    };
    // Marks, ligatures and full-width letters, which a table of characters replaces.
    let texts = ["Emma Woodhouse, handsome", "  two   blanks ", "ﬁne café Ａ①", "naïve Größe 你好", "", "</s> a <pad>"];
    for (name, model_type) in [("t5", "t5"), ("xlm-roberta", "xlm-roberta"), ("pegasus", "pegasus")] {
        let tokenizer = of_folder(name, model_type);
        assert_eq!(write(&tokenizer), None, "{name}");
        let opened = gguf::open(&path).unwrap();
        let again = opened.expect_tokenizer().unwrap();
        for text in texts {
            let ids = tokenizer.encode_for_model(text, None).unwrap().ids;
            assert_eq!(again.encode_for_model(text, None).unwrap().ids, ids, "{name}: {text:?}");
            assert_eq!(again.encode_plain(text).unwrap(), tokenizer.encode_plain(text).unwrap(), "{name}: {text:?}");
            assert_eq!(again.decode(&ids).unwrap(), tokenizer.decode(&ids).unwrap(), "{name}: {text:?}");
        }
        assert_eq!((again.eos(), again.special("unk")), (tokenizer.eos(), tokenizer.special("unk")), "{name}");
    }
    // Cased and uncased words, whatever letters the vocabulary has.
    for name in ["bert", "bert-cased"] {
        let tokenizer = of_folder(name, "bert");
        assert_eq!(write(&tokenizer), None, "{name}");
        let opened = gguf::open(&path).unwrap();
        for text in texts.into_iter().chain(["It is a TRUTH", "Élan ÀÉ", "你好"]) {
            let ids = tokenizer.encode_for_model(text, None).unwrap().ids;
            assert_eq!(
                opened.expect_tokenizer().unwrap().encode_for_model(text, None).unwrap().ids,
                ids,
                "{name}: {text:?}"
            );
        }
    }
    let why = write(&of_folder("mbart", "mbart")).unwrap();
    assert!(why.contains("the token that it puts behind a text"), "{why}");
    let mut document: Value = serde_json::from_str(of_folder("t5", "t5").to_json()).unwrap();
    document["normalizer"]["normalizers"].as_array_mut().unwrap().push(json!({"type": "Lowercase"}));
    let why = write(&Tokenizer::from_json("lower", document.to_string()).unwrap()).unwrap();
    assert!(why.contains("no key for the step \"Lowercase\""), "{why}");
}

#[test]
fn the_command_writes_files() {
    let place = tempfile::tempdir().unwrap();
    let out = place.path().join("llama.gguf");
    let run = |arguments: &[&str]| {
        let model = golden("llama");
        let mut command = Command::new(env!("CARGO_BIN_EXE_wgformer"));
        command.arg("convert").arg(model).arg(&out).args(arguments).output().unwrap()
    };
    let output = run(&["--dtype", "q8_0"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    gguf::open(&out).unwrap();
    // An encoder's file says how its vectors are made.
    let bert = place.path().join("bert.gguf");
    let mut command = Command::new(env!("CARGO_BIN_EXE_wgformer"));
    let output = command.arg("convert").arg(golden("nomic-bert")).arg(&bert).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(gguf::open(&bert).unwrap().config.value()["pooling"], "mean");
    let output = run(&[]);
    assert!(String::from_utf8_lossy(&output.stderr).contains("exists: give the name of a new file"));
    let folder = place.path().join("folder");
    let output = Command::new(env!("CARGO_BIN_EXE_wgformer"))
        .arg("convert")
        .args([golden("llama"), folder])
        .args(["--dtype", "q4_0"])
        .output()
        .unwrap();
    let message = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(message.contains("folders hold no q4_0: give a file whose name ends in .gguf"), "{message}");
}
