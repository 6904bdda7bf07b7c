//! The async forms give what those that wait give, to the bit.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use pollster::block_on;
use serde_json::json;
use std::path::Path;
use std::sync::Arc;
use wgformer::check::{CaseOptions, cases, check_cases, check_cases_async};
use wgformer::io::{Config, ModelFolder, Tokenizer};
use wgformer::ops::CrossEntropyOptions;
use wgformer::tasks::{EmbedSettings, TextEmbedder};
use wgformer::train::{Batches, Event, LanguageModel, RunOptions, Schedule, StepOptions, Trainer};
use wgformer::{Gpu, Result, Weights, models};

#[test]
fn checks_of_kernels() {
    let gpu = Gpu::choose(None).unwrap();
    let wanted = |name: &str| ["softmax", "transpose", "adamw"].iter().any(|op| name.starts_with(op));
    let some: Vec<_> = cases::all().into_iter().filter(|case| wanted(&case.name)).take(12).collect();
    assert_eq!(some.len(), 12);
    let mut told = Vec::new();
    let mut done = async |number, _: &str| told.push(number);
    let mut report = block_on(check_cases_async(&gpu, "", &some, &[], &mut done)).unwrap();
    let mut waiting = check_cases(&gpu, "", &some, &CaseOptions::default(), &[], &mut |_, _| ()).unwrap();
    report.rows.iter_mut().chain(&mut waiting.rows).for_each(|row| row.seconds = 0.0);
    assert_eq!(report, waiting);
    assert_eq!(told, (0..some.len()).collect::<Vec<_>>());
    assert!(report.passed() && report.cases() == some.len(), "{report:?}");
}

#[test]
fn vectors_of_texts() {
    let gpu = Gpu::choose(None).unwrap();
    let folder = ModelFolder::open("tests/goldens/bert-base-model").unwrap();
    let tokenizer = Tokenizer::characters("abcdefghijklmnopqrstuvwxyz ").unwrap().for_encoder().unwrap();
    let (model, weights) = models::load_model(&gpu, &folder, None).unwrap();
    let model: Arc<dyn models::Model> = model.into();
    let texts = ["a cat", "the quick brown fox", "x"];
    let embedder = || TextEmbedder::new(&gpu, model.clone(), &weights, &tokenizer, EmbedSettings::default()).unwrap();
    let expected = embedder().embed(&texts, &mut |_| ()).unwrap();
    let mut told = Vec::new();
    let got = block_on(embedder().embed_async(&texts, &mut |rows| told.push(rows))).unwrap();
    assert_eq!(got, expected);
    assert_eq!(told.last(), Some(&3));
    assert!(block_on(embedder().embed_async(&[""], &mut |_| ())).is_ok(), "an empty text has special tokens");
}

/// The losses of a few steps, and the weights behind them.
fn trained(
    accumulation: u32,
    steps: impl FnOnce(&mut Trainer, &mut Batches, &mut dyn FnMut(&Event)),
) -> (Vec<f32>, Vec<u8>) {
    let gpu = Gpu::choose(None).unwrap();
    let config =
        json!({"model_type": "gpt2", "vocab_size": 61, "n_embd": 24, "n_head": 3, "n_layer": 2, "n_positions": 32});
    let model: Arc<dyn models::Decoder> = models::decoder(&Config::new("config.json", config).unwrap()).unwrap().into();
    let weights = Weights::new(&gpu);
    model.initialise(&weights, 1).unwrap();
    let objective =
        LanguageModel { model: model.clone(), rows: 2, length: 17, options: CrossEntropyOptions::default() };
    let options = StepOptions::default().with_accumulation(accumulation);
    let run = RunOptions::default();
    let mut trainer = Trainer::new(&gpu, &weights, &objective, options, run, Schedule::constant(0.01)).unwrap();
    let tokens: Arc<[u32]> = (0..4000).map(|i| (i * i + 7 * i) as u32 % 61).collect();
    let mut data = Batches::new(tokens, 2, 17, 3).unwrap();
    let mut losses = Vec::new();
    let mut report = |event: &Event| {
        if let Event::Step(step) = event {
            losses.push(step.report.loss);
        }
    };
    steps(&mut trainer, &mut data, &mut report);
    let name = model.parameters().unwrap()[0].0.clone();
    (losses, weights.download(&name).unwrap())
}

#[test]
fn steps_of_training() {
    for accumulation in [1, 3] {
        let waiting = trained(accumulation, |trainer, data, mut report| {
            for _ in 0..5 {
                trainer.submit_step(data).unwrap();
                trainer.reports(2, &mut report).unwrap();
            }
            trainer.reports(0, &mut report).unwrap();
        });
        let awaited = trained(accumulation, |trainer, data, mut report| {
            for _ in 0..5 {
                block_on(trainer.step_async(data, 2, &mut report)).unwrap();
            }
            block_on(trainer.reports_async(0, &mut report)).unwrap();
        });
        assert_eq!(waiting.0.len(), 5);
        assert_eq!(waiting, awaited);
    }
}

#[test]
fn weights_that_are_not_finite() {
    let refused = trained(1, |trainer, data, mut report| {
        let name = trainer.weights().names().into_iter().find(|name| name.ends_with("ln_f.weight")).unwrap();
        let mut bytes = trainer.weights().download(&name).unwrap();
        bytes[..4].copy_from_slice(&f32::NAN.to_le_bytes());
        trainer.weights().upload(&name, &bytes).unwrap();
        let waiting = trainer.check_weights().unwrap_err().to_string();
        let awaited: Result<()> = block_on(trainer.step_async(data, 0, &mut report));
        assert_eq!(awaited.unwrap_err().to_string(), waiting);
    });
    assert!(refused.0.is_empty());
}

#[test]
fn settings_of_vectors_by_files() {
    let task = wgformer::tasks::TaskFile::new(wgformer::tasks::Application::Embed);
    let files = |name: &str| -> Result<Option<serde_json::Value>> {
        Ok(match name {
            "modules.json" => Some(json!([
                {"type": "sentence_transformers.models.Transformer", "path": ""},
                {"type": "sentence_transformers.models.Pooling", "path": "1_Pooling"},
            ])),
            "1_Pooling/config.json" => Some(json!({"pooling_mode_cls_token": true})),
            "sentence_bert_config.json" => Some(json!({"max_seq_length": 77})),
            _ => None,
        })
    };
    let settings = EmbedSettings::of_files(Path::new("m"), &task, &files).unwrap();
    assert_eq!(
        (settings.pooling, settings.longest, settings.unit_length),
        (wgformer::tasks::Pooling::Cls, Some(77), false)
    );
    let none = |name: &str| if name == "modules.json" { files(name) } else { Ok(None) };
    let message = EmbedSettings::of_files(Path::new("m"), &task, &none).unwrap_err().to_string();
    assert!(message.contains("1_Pooling/config.json: is missing, but modules.json names it"), "{message}");
    let out = tempfile::tempdir().unwrap();
    let modules = json!([{"type": "models.Pooling", "path": "../other"}]);
    std::fs::write(out.path().join("modules.json"), modules.to_string()).unwrap();
    let message = EmbedSettings::of(out.path(), &task).unwrap_err().to_string();
    assert!(message.contains("\"..\", which is not a plain file name"), "{message}");
}
