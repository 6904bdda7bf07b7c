//! Real weights: sentence vectors of all-MiniLM-L6-v2 and molecules rewritten by ANNalog, each by its own tokenizer, and an ALBERT of chemical
//! reactions out of a checkpoint of PyTorch.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on fails")]

use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use wgformer::Gpu;
use wgformer::check::check_golden;
use wgformer::io::ModelFolder;
use wgformer::models;
use wgformer::tasks::apply::{Application, EmbedSettings, TaskFile, TextEmbedder};
use wgformer::tasks::{Embedder, Pooling};

/// The folder of a model from `scripts/fetch-weights.sh`; without one, `None` and a message, unless it is required.
fn fetched(name: &str) -> Option<PathBuf> {
    let variable = format!("WGFORMER_{}", name.to_uppercase());
    let folder = std::env::var_os(&variable).map(PathBuf::from);
    if folder.is_none() {
        let how = format!("{variable} names no folder: run scripts/fetch-weights.sh {name}");
        assert!(std::env::var_os("REQUIRE_WEIGHTS").is_none(), "{how}");
        println!("skipped, nothing was checked: {how}");
    }
    folder
}

fn goldens(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/goldens").join(name)
}

#[test]
fn vectors_are_those_of_pytorch() {
    let Some(path) = fetched("minilm") else { return };
    let golden: Vec<Value> = serde_json::from_str(&fs::read_to_string(goldens("minilm.json")).unwrap()).unwrap();
    let folder = ModelFolder::open(path).unwrap();
    let tokenizer = folder.tokenizer.clone().unwrap();
    let encode = |entry: &Value| tokenizer.encode_for_model(entry["text"].as_str().unwrap(), None).unwrap().ids;
    let texts: Vec<Vec<u32>> = golden.iter().map(encode).collect();
    for (entry, ids) in golden.iter().zip(&texts) {
        let wanted: Vec<u32> = serde_json::from_value(entry["ids"].clone()).unwrap();
        assert_eq!(*ids, wanted, "{}", entry["text"]);
    }
    for adapter in Gpu::adapters() {
        let gpu = Gpu::open(&adapter).unwrap();
        let (model, weights) = models::load_model(&gpu, &folder, wgformer::DType::F32).unwrap();
        // Batches of fewer than there are, so that the last one is not full.
        let vectors = Embedder::new(&gpu, model.into(), &weights, 4).unwrap().embed(&texts).unwrap();
        for (entry, vector) in golden.iter().zip(&vectors) {
            let wanted: Vec<f64> = serde_json::from_value(entry["embedding"].clone()).unwrap();
            let product = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
            let vector: Vec<f64> = vector.iter().map(|x| f64::from(*x)).collect();
            let length = product(&vector, &vector).sqrt();
            let cosine = product(&vector, &wanted) / (length * product(&wanted, &wanted).sqrt());
            println!("{:?} {}: cosine {cosine:.9}, length {length:.7}", gpu.info().backend, entry["text"]);
            assert!(
                cosine >= 0.99999 && (length - 1.0).abs() < 1e-5,
                "{}: cosine {cosine}, length {length}",
                entry["text"]
            );
        }
    }
}

/// The folder itself says how its texts become vectors: by the mean, of length 1, of at most 256 tokens.
#[test]
fn sentences_are_embedded_as_their_folder_says() {
    let Some(path) = fetched("minilm") else { return };
    let golden: Vec<Value> = serde_json::from_str(&fs::read_to_string(goldens("minilm.json")).unwrap()).unwrap();
    let folder = ModelFolder::open(&path).unwrap();
    let tokenizer = folder.tokenizer.clone().unwrap();
    let settings = EmbedSettings::of(&path, &TaskFile::new(Application::Embed)).unwrap();
    let said = (settings.pooling, settings.unit_length, settings.longest, settings.prefix.as_str());
    assert_eq!(said, (Pooling::Mean, true, Some(256), ""));
    let gpu = Gpu::open(&Gpu::adapters()[0]).unwrap();
    let (model, weights) = models::load_model(&gpu, &folder, wgformer::DType::F32).unwrap();
    let mut embedder = TextEmbedder::new(&gpu, model.into(), &weights, &tokenizer, settings).unwrap();
    let texts: Vec<&str> = golden.iter().map(|entry| entry["text"].as_str().unwrap()).collect();
    let all = embedder.embed(&texts, &mut |_| ()).unwrap();
    let far = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    for ((entry, text), vector) in golden.iter().zip(&texts).zip(&all) {
        let wanted: Vec<f32> = serde_json::from_value(entry["embedding"].clone()).unwrap();
        assert!(far(vector, &wanted) <= 1e-5, "{text}: {}", far(vector, &wanted));
        let alone = embedder.embed(&[text], &mut |_| ()).unwrap();
        assert!(far(vector, &alone[0]) <= 1e-5, "{text}");
    }
    // Of a long text only the first 256 tokens count, unless it is read in windows.
    let long = "The sea was calm that day. ".repeat(60);
    let longer = format!("{long} Interest rates were raised by the central bank again. ").repeat(2);
    let cut = embedder.embed(&[&long, &longer], &mut |_| ()).unwrap();
    assert!(far(&cut[0], &cut[1]) <= 1e-5);
    let whole = embedder.in_windows(true).embed(&[&long, &longer], &mut |_| ()).unwrap();
    assert!(far(&whole[0], &whole[1]) > 1e-3);
}

/// What PyTorch computes of two reactions with a masked token each, in f64, from weights in PyTorch's older format.
#[test]
fn reactions_are_read_as_by_pytorch() {
    let Some(path) = fetched("rxnmapper") else { return };
    let folder = tempfile::tempdir().unwrap();
    for file in ["config.json", "pytorch_model.bin"] {
        fs::copy(path.join(file), folder.path().join(file)).unwrap();
    }
    fs::copy(goldens("rxnmapper").join("golden.safetensors"), folder.path().join("golden.safetensors")).unwrap();
    for adapter in Gpu::adapters() {
        let report = check_golden(&Gpu::open(&adapter).unwrap(), folder.path()).unwrap();
        for row in &report.rows {
            println!("{} {}: {:.1e}", report.adapter, row.what, row.error);
            assert!(row.passed, "{} {}: {:.1e}, allowed {:.1e}", report.adapter, row.what, row.error, row.limit);
        }
        for what in ["logits", "loss"] {
            assert!(report.rows.iter().any(|row| row.what == what), "{what} was not compared");
        }
    }
}

/// The original program's results for four molecules, in f64: states, logits, loss, and the most likely answers.
#[test]
fn molecules_are_rewritten_as_by_pytorch() {
    const ANSWERS: [(&str, &str); 2] = [
        ("CC(C)Cc1ccc(cc1)[C@@H](C)C(=O)O", "CC(C)Cc1ccc(C(C)C)cc1"),
        ("O=C(Nc1ccc(Cl)cc1)c1ccncc1", "O=C(Nc1ccc(Cl)cc1)c1ccncc1"),
    ];
    let Some(path) = fetched("annalog") else { return };
    let folder = tempfile::tempdir().unwrap();
    for file in ["config.json", "model.safetensors", "tokenizer.json"] {
        fs::copy(path.join(file), folder.path().join(file)).unwrap();
    }
    for file in ["golden.safetensors", "generated.safetensors"] {
        fs::copy(goldens("annalog").join(file), folder.path().join(file)).unwrap();
    }
    for adapter in Gpu::adapters() {
        let report = check_golden(&Gpu::open(&adapter).unwrap(), folder.path()).unwrap();
        for row in &report.rows {
            println!("{} {}: {:.1e}", report.adapter, row.what, row.error);
            assert!(row.passed, "{} {}: {:.1e}, allowed {:.1e}", report.adapter, row.what, row.error, row.limit);
        }
        for what in ["logits", "encoder_last_hidden_state", "loss", "greedy"] {
            assert!(report.rows.iter().any(|row| row.what == what), "{what} was not compared");
        }
    }
    #[cfg(feature = "cli")]
    answers_of_the_command(folder.path(), &ANSWERS);
}

#[cfg(feature = "cli")]
fn answers_of_the_command(folder: &Path, answers: &[(&str, &str)]) {
    let mut generate = Command::new(env!("CARGO_BIN_EXE_wgformer"));
    generate.arg("generate").arg(folder).args(["--greedy", "-n", "100", "--json"]);
    for (molecule, _) in answers {
        generate.args(["-p", molecule]);
    }
    let output = generate.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let said: Value = serde_json::from_slice(&output.stdout).unwrap();
    for ((molecule, wanted), answer) in answers.iter().zip(said["answers"].as_array().unwrap()) {
        assert_eq!(answer["text"], *wanted, "{molecule}");
        assert_eq!(answer["finish"], "end", "{molecule}");
    }
}
