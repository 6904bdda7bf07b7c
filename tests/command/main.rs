//! The `wgformer` command: steps, output, errors of bad input and of output that cannot be written.
#![cfg(all(unix, feature = "cli"))]
#![allow(clippy::unwrap_used, reason = "a test says so and stops")]

mod benchmark;
#[path = "../common/command.rs"]
mod common;
mod output;
mod refusals;
mod texts;

use common::*;
use serde_json::Value;
use std::fs;
use std::path::Path;
use std::process::Stdio;

#[test]
fn help_names_the_families_of_models() {
    use wgformer::models::{Family, FamilySides};
    for name in ["train", "generate", "eval", "inspect", "profile"] {
        let help = succeed(wgformer().args([name, "--help"]));
        let words: Vec<&str> = help.split(|c: char| c.is_whitespace() || c == ',').collect();
        for family in Family::all() {
            let takes = name != "generate" || family.sides != FamilySides::Encoder;
            assert!(!takes || words.contains(&family.name), "{name} --help: no {}:\n{help}", family.name);
        }
    }
}

#[test]
fn a_profile_accounts_for_every_launch_of_every_kind_of_step() {
    for step in ["train", "eval", "prefill", "decode"] {
        let mut command = wgformer();
        command.args(["profile", "--json", "--step", step, "--runs", "1", "--layers", "2", "--heads", "2"]);
        command.args(["--width", "36", "--context", "16", "--batch", "2", "--vocabulary", "65"]);
        let profile: Value = serde_json::from_str(&succeed(&mut command)).unwrap();
        let array = |key: &str| profile[key].as_array().unwrap().clone();
        let launches = array("launches").len() as u64;
        let counted = |key: &str| array(key).iter().map(|row| row["time"]["launches"].as_u64().unwrap()).sum::<u64>();
        assert!(launches > 10 && counted("kernels") == launches && counted("parts") == launches, "{step}: {profile}");
        assert!(profile["nanoseconds"].as_u64().unwrap() > 0 && profile["encode_nanoseconds"].as_u64().unwrap() > 0);
        let parts = array("parts");
        let attention = parts.iter().find(|part| part["part"] == "blocks.1.attention").unwrap();
        assert!(attention["time"]["forward"].as_u64().unwrap() > 0, "{attention}");
        assert_eq!(attention["time"]["backward"].as_u64().unwrap() > 0, step == "train", "{step}: {attention}");
    }
}

/// Every model has the steps of its sides; another step is an error that lists them.
#[test]
fn steps_are_those_of_a_models_sides() {
    let model = |name: &str| Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/goldens").join(name);
    let both = ["train", "eval", "forward", "encode", "prefill", "decode"];
    let (reads, continues) = (&both[..4], [&both[..3], &both[4..]].concat());
    for (name, steps) in [
        ("bert-base-model", reads),
        ("bert-masked-lm", reads),
        ("bert-question-answering", reads),
        ("bert-sequence-classification", reads),
        ("bert-token-classification", reads),
        ("t5", &both),
        ("marian", &both),
        ("llama", &continues),
    ] {
        for step in both {
            let mut inspect = wgformer();
            inspect.arg("inspect").arg(model(name)).args(["--json", "--batch", "3", "--context", "12", "--step", step]);
            if steps.contains(&step) {
                let told: Value = serde_json::from_str(&succeed(&mut inspect)).unwrap();
                assert!(told["dispatches"].as_u64().unwrap() > 5, "{name}, {step}: {told}");
            } else {
                let said = refusal(&mut inspect);
                assert!(said.contains(&format!("its steps are {}", steps.join(", "))), "{name}, {step}: {said}");
            }
        }
    }
    for (name, step) in [("bert-base-model", "train"), ("t5", "encode"), ("t5", "prefill"), ("t5", "decode")] {
        let mut profile = wgformer();
        profile.arg("profile").arg(model(name)).args(["--json", "--runs", "1", "--batch", "3", "--step", step]);
        profile.args(["--context", "12"]);
        let profile: Value = serde_json::from_str(&succeed(&mut profile)).unwrap();
        assert!(profile["nanoseconds"].as_u64().unwrap() > 0, "{name}, {step}: {profile}");
    }
}

/// Transformers with any sides train and evaluate; those with a decoder generate.
#[test]
fn a_transformer_of_any_sides_is_trained_measured_and_asked() {
    let folder = tempfile::tempdir().unwrap();
    for (sides, measured) in
        [("encoder", " behind masks"), ("decoder", ""), ("both", " of the second halves of windows")]
    {
        succeed(&mut train_steps(folder.path(), sides, 3, &["--model", "transformer", "--sides", sides]));
        let model = folder.path().join(sides).join("model");
        let mut eval = wgformer();
        eval.arg("eval").arg(&model).args(["--batch", "2"]).arg("--data").arg(text(folder.path()));
        let said = succeed(&mut eval);
        assert!(said.contains(&format!("tokens{measured} (")), "{sides}: {said}");
        let mut generate = wgformer();
        generate.arg("generate").arg(&model).args(["-p", "It is a", "-n", "3", "--greedy", "--json"]);
        if sides == "encoder" {
            assert!(refusal(&mut generate).contains("does not continue"), "{sides}");
        } else {
            let answers: Value = serde_json::from_str(&succeed(&mut generate)).unwrap();
            assert!(!answers["answers"][0]["tokens"].as_array().unwrap().is_empty(), "{sides}: {answers}");
        }
    }
}

#[test]
fn kernels_are_those_of_the_class_that_is_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let model = small_model(folder.path());
    let list = |class: &str| succeed(wgformer().args(["inspect", "--list", "--as", class]).arg(&model));
    assert_ne!(list("gpu"), list("cpu"));
    let said = refusal(wgformer().args(["inspect", "--as", "tpu"]).arg(&model));
    assert!(said.contains("possible values: gpu, cpu"), "{said}");
}

/// The host does not compute constants that only a device needs: tables of positions, multipliers of blocks of weights.
#[cfg(target_os = "linux")]
#[test]
fn processes_share_a_cache_of_pipelines() {
    let folder = tempfile::tempdir().unwrap();
    let cache = folder.path().join("cache");
    let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases/llama_bytes");
    let options = ["-p", "It", "-n", "6", "--greedy", "--json"];
    let generate = |cache: &Path| {
        let output = run(wgformer().arg("generate").arg(&model).args(options).env("WGFORMER_CACHE", cache));
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && !said.contains("pipelines"), "{said}");
        serde_json::from_slice::<Value>(&output.stdout).unwrap()["answers"][0]["tokens"].clone()
    };
    let wanted = generate(&folder.path().join("alone"));
    assert_eq!(wanted.as_array().unwrap().len(), 6);
    // Twice three at once: the first find no folder, the others read what may be replaced at that moment.
    for _ in 0..2 {
        std::thread::scope(|scope| {
            let running = [(); 3].map(|()| scope.spawn(|| generate(&cache)));
            for one in running {
                assert_eq!(one.join().unwrap(), wanted);
            }
        });
    }
    let names = || fs::read_dir(&cache).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    assert!(
        names().all(|name| name.starts_with("pipelines-") || name.starts_with("tuning-")),
        "{:?}",
        names().collect::<Vec<_>>()
    );
    assert!(names().count() <= 2);
}

#[test]
fn a_mixture_of_47_billion_weights_is_inspected_in_a_gigabyte() {
    const MOST_KB: u64 = 1_000_000;
    let folder = tempfile::tempdir().unwrap();
    let config = serde_json::json!({
        "architectures": ["MixtralForCausalLM"], "model_type": "mixtral", "vocab_size": 32000, "hidden_size": 4096,
        "intermediate_size": 14336, "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8,
        "hidden_act": "silu", "max_position_embeddings": 32768, "rms_norm_eps": 1e-5, "rope_theta": 1e6,
        "num_experts_per_tok": 2, "num_local_experts": 8, "tie_word_embeddings": false,
    });
    fs::write(folder.path().join("config.json"), config.to_string()).unwrap();
    for step in ["train", "prefill", "decode"] {
        let mut command = wgformer();
        command.arg("inspect").arg(folder.path()).args(["--batch", "1", "--step", step]);
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let status = format!("/proc/{}/status", child.id());
        let mut peak = 0;
        // An adapter whose bindings are too small for the experts refuses, with no more memory.
        while child.try_wait().unwrap().is_none() {
            let text = fs::read_to_string(&status).unwrap_or_default();
            let kilobytes = text.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB"));
            peak = kilobytes.and_then(|kb| kb.trim().parse().ok()).unwrap_or(peak);
            if peak > MOST_KB {
                child.kill().unwrap();
                panic!("{step}: {peak} kB");
            }
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        let output = child.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(
            output.status.success() || said.contains("bindings hold") || said.contains("in one b"),
            "{step}: {said}"
        );
        assert!(peak > 0, "{step}: it ended before its memory was read");
    }
}
