//! Golden folders on every adapter of this machine: what PyTorch computed from the same weights.
//!
//! `cargo test --test golden -- NAME` runs some of it; the errors measured are printed.

mod common;

use libtest_mimic::Failed;
use std::path::PathBuf;
use wgformer::Gpu;
use wgformer::check::check_golden;

const MODELS: [&str; 18] = [
    "gpt2",
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
];

/// What models give.
const OUTPUTS: [&str; 5] = ["logits", "start_logits", "end_logits", "last_hidden_state", "encoder_last_hidden_state"];

fn main() {
    let mut trials = Vec::new();
    for (name, turn) in common::adapters_also_as_gpus(&mut trials) {
        for model in MODELS {
            trials.push(turn.trial(format!("[{name}] golden {model}"), move |gpu| run(gpu, model)));
        }
    }
    common::run(trials);
}

fn run(gpu: &Gpu, model: &str) -> Result<(), Failed> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/goldens").join(model);
    let report = check_golden(gpu, &folder)?;
    println!(
        "{} {model}: outputs {:.1e}, loss {:.1e}, gradients {:.1e}, {} wrong tokens",
        report.adapter,
        OUTPUTS.iter().map(|output| report.worst(output)).fold(0.0, f64::max),
        report.worst("loss"),
        report.worst("grad."),
        report.worst("greedy"),
    );
    let outputs: &[&str] = match model {
        "bert-base-model" => &["last_hidden_state"],
        "bert-question-answering" => &["start_logits", "end_logits"],
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
    if failed.is_empty() { Ok(()) } else { Err(failed.join("\n").into()) }
}
