//! Low-rank adapters by the command: trained beside a base that stays, resumed, used, merged; on quantised bases.
#![cfg(all(unix, feature = "cli"))]
#![allow(clippy::unwrap_used, reason = "a test says so and stops")]

#[path = "common/command.rs"]
mod common;

use common::*;
use serde_json::Value;
use std::fs;
use std::path::Path;
use std::process::Command;
use wgformer::io::Tensors;

/// A small model of a text, and another text.
fn base(home: &Path) {
    let text = "the cat sat on the mat, and the dog lay by the door. ".repeat(60);
    fs::write(home.join("a.txt"), &text).unwrap();
    fs::write(home.join("b.txt"), text.to_uppercase()).unwrap();
    let mut command = train(home, "base", "a.txt");
    command.args(["--tokenizer", "bytes", "--model", "llama", "--layers", "2", "--heads", "4", "--width", "32"]);
    succeed(command.args(["--steps", "10", "--checkpoint-every", "0"]));
}

fn train(home: &Path, out: &str, text: &str) -> Command {
    let mut command = wgformer();
    command.current_dir(home).args(["train", "--data", text, "--out", out, "--context", "16", "--batch", "4"]);
    command.args(["--eval-every", "0", "--lr", "1e-2", "--json"]);
    command
}

fn adapted(home: &Path, out: &str, steps: &str) -> Command {
    let mut command = train(home, out, "b.txt");
    command.args(["--from", "base/model", "--lora", "4", "--rslora", "--lora-targets", "q_proj,v_proj,down_proj"]);
    command.args(["--lora-dropout", "0.1", "--checkpoint-every", "5", "--steps", steps]);
    command
}

fn losses(said: &str) -> Vec<f64> {
    let lines = said.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    lines.filter_map(|line| line["loss"].as_f64()).collect()
}

fn loss_of(home: &Path, model: &str) -> f64 {
    let mut command = wgformer();
    command.current_dir(home).args(["eval", model, "--data", "b.txt", "--context", "16", "--json"]);
    serde_json::from_str::<Value>(&succeed(&mut command)).unwrap()["loss"].as_f64().unwrap()
}

#[test]
fn an_adapter_learns_beside_its_base_is_resumed_used_and_merged() {
    let home = tempfile::tempdir().unwrap();
    let home = home.path();
    base(home);
    let before = fs::read(home.join("base/model/model.safetensors")).unwrap();
    let losses = losses(&succeed(&mut adapted(home, "tuned", "20")));
    assert!(losses[19] < losses[0] - 0.3, "{losses:?}");
    assert!(before == fs::read(home.join("base/model/model.safetensors")).unwrap());
    let adapter = Tensors::open(home.join("tuned/model/adapter_model.safetensors")).unwrap();
    assert_eq!(adapter.len(), 2 * 2 * 3);
    assert!(adapter.names().all(|name| name.starts_with("base_model.model.model.layers.")));

    // In two parts, with the same bits.
    for (out, steps) in [("whole", "10"), ("parts", "5")] {
        succeed(adapted(home, out, steps).args(["--schedule", "constant", "--warmup", "0"]));
    }
    succeed(train(home, "parts", "b.txt").args(["--resume", "--steps", "10"]));
    let saved = |out: &str| fs::read(home.join(out).join("model/adapter_model.safetensors")).unwrap();
    assert!(saved("whole") == saved("parts"), "the resumed run differs");

    let (alone, with) = (loss_of(home, "base/model"), loss_of(home, "tuned/model"));
    assert!(with < alone - 0.3, "{alone} without, {with} with the adapter");
    succeed(wgformer().current_dir(home).args(["convert", "tuned/model", "merged", "--json"]));
    let merged = loss_of(home, "merged");
    assert!((merged - with).abs() <= 1e-5 * with, "{with} beside, {merged} merged");
    let mut generate = wgformer();
    generate.current_dir(home).args(["generate", "tuned/model", "--prompt", "THE", "-n", "4", "--greedy"]);
    assert!(succeed(&mut generate).starts_with("THE"));

    // Trained on, from its own folder.
    let mut on = train(home, "on", "b.txt");
    on.args(["--from", "tuned/model", "--steps", "5", "--checkpoint-every", "0"]);
    succeed(&mut on);
    assert!(home.join("on/model/adapter_model.safetensors").exists());
}

#[test]
fn an_adapter_learns_beside_a_base_of_few_bits() {
    let home = tempfile::tempdir().unwrap();
    let home = home.path();
    base(home);
    for dtype in ["q8_0", "q4_0", "mxfp4", "f16"] {
        let mut command = train(home, dtype, "b.txt");
        command.args(["--from", "base/model", "--lora", "4", "--lora-base", dtype, "--steps", "15"]);
        let losses = losses(&succeed(command.args(["--checkpoint-every", "0"])));
        assert!(losses[14] < losses[0] - 0.3, "{dtype}: {losses:?}");
    }
    let mut command = train(home, "whole", "b.txt");
    command.args([
        "--from",
        "base/model",
        "--lora",
        "2",
        "--lora-targets",
        "q_proj",
        "--lora-whole",
        "norm",
        "--steps",
        "2",
    ]);
    succeed(command.args(["--checkpoint-every", "0"]));
    let adapter = Tensors::open(home.join("whole/model/adapter_model.safetensors")).unwrap();
    assert!(adapter.get("base_model.model.model.norm.weight").is_some(), "{:?}", adapter.names().collect::<Vec<_>>());
}

#[test]
fn what_is_no_adapter_of_a_base_is_refused_by_its_name() {
    let home = tempfile::tempdir().unwrap();
    let home = home.path();
    base(home);
    let mut wrong = train(home, "out", "b.txt");
    wrong.args(["--from", "base/model", "--lora", "4", "--lora-targets", "query"]);
    let said = refusal(&mut wrong);
    assert!(said.contains("\"query\" is no linear layer of this model") && said.contains("q_proj"), "{said}");
    succeed(&mut adapted(home, "tuned", "1"));
    let config = home.join("tuned/model/adapter_config.json");
    let text = fs::read_to_string(&config).unwrap();
    for (from, to, says) in [
        ("\"bias\": \"none\"", "\"bias\": \"all\"", "\"bias\" is \"all\""),
        ("\"r\": 4", "\"r\": 5", "has shape"),
        ("base/model\"", "no/model\"", "is no folder or file here"),
        ("\"LORA\"", "\"VERA\"", "is \"VERA\""),
    ] {
        assert!(text.contains(from), "{text}");
        fs::write(&config, text.replace(from, to)).unwrap();
        let said = refusal(wgformer().current_dir(home).args(["eval", "tuned/model", "--data", "b.txt"]));
        assert!(said.contains(says), "{said}");
    }
    // An adapter whose base is somewhere else.
    fs::write(&config, text.replace("base/model\"", "no/model\"")).unwrap();
    let mut beside = wgformer();
    beside.current_dir(home).args([
        "eval",
        "base/model",
        "--lora",
        "tuned/model",
        "--data",
        "b.txt",
        "--context",
        "16",
    ]);
    succeed(&mut beside);
    fs::write(&config, text).unwrap();
    let twice = ["eval", "tuned/model", "--lora", "tuned/model", "--data", "b.txt"];
    let said = refusal(wgformer().current_dir(home).args(twice));
    assert!(said.contains("already"), "{said}");
    let said = refusal(wgformer().current_dir(home).args(["convert", "tuned/model", "base"]));
    assert!(said.contains("exists"), "{said}");
}
