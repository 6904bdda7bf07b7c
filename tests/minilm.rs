//! Sentence vectors of a real model, all-MiniLM-L6-v2, by its own tokenizer.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on fails")]

use serde_json::Value;
use std::path::Path;
use wgformer::Gpu;
use wgformer::io::ModelFolder;
use wgformer::models;
use wgformer::tasks::Embedder;

/// The variable that names its folder; `scripts/fetch-weights.sh minilm` fetches it.
const REAL: &str = "WGFORMER_MINILM";

#[test]
fn vectors_are_those_of_pytorch() {
    let Some(path) = std::env::var_os(REAL) else {
        assert!(
            std::env::var_os("REQUIRE_WEIGHTS").is_none(),
            "{REAL} names no folder: run scripts/fetch-weights.sh minilm"
        );
        println!(
            "skipped: {REAL} names no folder (scripts/fetch-weights.sh minilm fetches one), so nothing was checked"
        );
        return;
    };
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/goldens/minilm.json");
    let golden: Vec<Value> = serde_json::from_str(&std::fs::read_to_string(golden).unwrap()).unwrap();
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
