//! Golden folders on every adapter of this machine: comparisons with PyTorch on the same weights.
//!
//! `cargo test --test golden -- NAME` runs some of it; the errors measured are printed.

mod common;

use common::choice;
use libtest_mimic::{Arguments, Failed};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use wgformer::check::check_golden;
use wgformer::io::{ModelFolder, TensorRef, Tensors};
use wgformer::models::lora::{self, LoraConfig};
use wgformer::{DType, Gpu, models};

const MODELS: &[&str] = &[
    "gpt2",
    "gpt-neox",
    "phi3",
    "phi3-longrope",
    "deepseek-v3",
    "llama",
    "mixtral",
    "mixtral-11-experts",
    "qwen2-moe",
    "mor-expert-choice",
    "mor-expert-choice-cycle",
    "mor-token-choice",
    "mor-token-choice-cycle",
    "bert-base-model",
    "bert-masked-lm",
    "bert-question-answering",
    "bert-sequence-classification",
    "bert-token-classification",
    "t5",
    "t5-v1.1",
    "bart",
    "marian",
    "bert-answer-outside",
    "bert-causal",
    "bert-mask-with-holes",
    "bert-regression",
    "bert-several-classes",
    "bert-untied",
    "bart-untied",
    "bart-rules",
    "marian-two-vocabularies",
    "mixtral-window",
    "roberta-masked-lm",
    "roberta-answers",
    "roberta-padding-within",
    "roberta-classes",
    "distilbert-masked-lm",
    "distilbert-choice",
    "electra-discriminator",
    "electra-generator",
    "albert-masked-lm",
    "albert-two-groups",
    "llama-rope3",
    "llama-yarn",
    "mistral",
    "qwen2",
    "qwen3",
    "qwen3-moe",
    "olmoe",
    "gemma",
    "gemma2",
    "gemma3",
    "gemma3-local-global",
    "smollm3",
    "granite",
    "modernbert-masked-lm",
    "modernbert-mean",
    "nomic-bert",
    "nomic-bert-masked-lm",
    "t5-encoder",
    "mbart",
    "pegasus",
    "switch",
    "switch-capacity",
    "lora-llama",
    "lora-gpt2",
];

/// The outputs of models.
const OUTPUTS: [&str; 8] = [
    "logits",
    "prediction_logits",
    "seq_relationship_logits",
    "sop_logits",
    "start_logits",
    "end_logits",
    "last_hidden_state",
    "encoder_last_hidden_state",
];

fn main() {
    let mut trials = Vec::new();
    for (name, device) in common::adapters_also_as_gpus(&mut trials) {
        for &model in MODELS {
            trials.push(device.trial(format!("[{name}] golden {model}"), move |gpu| run(gpu, model)));
        }
    }
    choice::run(&Arguments::from_args(), trials, |_, title| vec![family(title)]);
}

/// What a test covers: the family of its model, by `config.json`.
fn family(title: &str) -> String {
    let model = title.trim_start_matches("golden ");
    let config = std::fs::read(folder(model).join("config.json")).unwrap_or_default();
    let config: serde_json::Value = serde_json::from_slice(&config).unwrap_or_default();
    config["model_type"].as_str().unwrap_or(model).to_owned()
}

fn folder(model: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/goldens").join(model)
}

fn run(gpu: &Gpu, model: &str) -> Result<(), Failed> {
    let folder = folder(model);
    let report = check_golden(gpu, &folder)?;
    println!(
        "{} {model}: outputs {:.1e}, loss {:.1e}, gradients {:.1e}, {} wrong tokens",
        report.adapter,
        OUTPUTS.iter().map(|output| report.worst(output)).fold(0.0, f64::max),
        report.worst("loss"),
        report.worst("grad."),
        report.worst("greedy") + report.worst("beam"),
    );
    let outputs: &[&str] = match model {
        "bert-base-model" | "bert-mask-with-holes" | "nomic-bert" | "t5-encoder" => &["last_hidden_state"],
        "albert-two-groups" => &["prediction_logits", "sop_logits"],
        "bert-question-answering" | "bert-answer-outside" => &["start_logits", "end_logits"],
        "bert-untied" => &["prediction_logits", "seq_relationship_logits"],
        _ => &["logits"],
    };
    let mut wanted = [outputs, &["loss"]].concat();
    if folder.join("generated.safetensors").exists() {
        wanted.push("greedy");
    }
    wanted.retain(|what| !report.rows.iter().any(|row| row.what == *what));
    if !wanted.is_empty() {
        return Err(format!("not compared: {wanted:?}").into());
    }
    let failed: Vec<String> = report
        .rows
        .iter()
        .filter(|row| !row.passed)
        .map(|row| format!("{}: error {:.1e}, allowed {:.1e}", row.what, row.error, row.limit))
        .collect();
    if !failed.is_empty() {
        return Err(failed.join("\n").into());
    }
    saved_as_it_was(gpu, &folder)
}

/// Loading and saving a model keeps its tensors: names, shapes, values.
fn saved_as_it_was(gpu: &Gpu, path: &Path) -> Result<(), Failed> {
    let (folder, home) = (ModelFolder::open(path)?, tempfile::tempdir()?);
    let (model, weights) = models::load_model(gpu, &folder, DType::F32)?;
    if let Some(adapter) = &folder.adapter {
        let config = LoraConfig::parse(&adapter.path, &adapter.config)?;
        lora::save_adapter(model.as_ref(), &weights, &config, home.path())?;
        let text = std::fs::read_to_string(home.path().join("adapter_config.json"))?;
        let again = Tensors::open(home.path().join("adapter_model.safetensors"))?;
        let same = |tensor: TensorRef<'_>| {
            again.get(tensor.name).is_some_and(|a| a.shape == tensor.shape && a.to_f32().ok() == tensor.to_f32().ok())
        };
        let whole = again.len() == adapter.tensors.len() && adapter.tensors.iter().all(same);
        let same = whole && LoraConfig::parse(&adapter.path, &text)? == config;
        return if same { Ok(()) } else { Err("the adapter changed".into()) };
    }
    models::save(model.as_ref(), &weights, Some(&folder), home.path())?;
    let again = Tensors::open(home.path())?;
    let names = |tensors: &Tensors| tensors.names().map(str::to_owned).collect::<BTreeSet<String>>();
    let (before, after) = (names(&folder.tensors), names(&again));
    // Older names become those of today.
    let now = models::names_in(model.as_ref(), &folder.tensors)?;
    let renamed = now.iter().any(|(now, before)| now != before);
    if before != after && !renamed {
        return Err(format!("{before:?} became {after:?}").into());
    }
    for name in now.keys().chain(before.iter().filter(|_| !renamed)) {
        let before = now.get(name).unwrap_or(name);
        let (before, after) = (folder.tensors.expect(before)?, again.expect(name)?);
        if before.shape != after.shape || before.to_f32()? != after.to_f32()? {
            return Err(format!("{name} changed: {} became {}", before.shape, after.shape).into());
        }
    }
    // It opens as the same model.
    let same = models::model_of(&ModelFolder::open(home.path())?)?.config() == model.config();
    if same { Ok(()) } else { Err("the configuration changed".into()) }
}
