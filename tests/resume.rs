//! Training runs of the command: killed, interrupted, on a full disk, resumed; changed options.

#![cfg(all(unix, feature = "cli"))]
#![allow(clippy::unwrap_used, reason = "a test says so and stops")]

#[path = "common/command.rs"]
mod common;

use common::*;
use serde_json::Value;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

#[test]
fn a_run_killed_at_any_moment_and_resumed_gives_the_bits_of_one_that_was_not() {
    let folder = tempfile::tempdir().unwrap();
    succeed(&mut train(folder.path(), "whole", &[]));
    let wanted = results(&folder.path().join("whole"));
    let out = folder.path().join("killed");
    let mut killed = 0;
    // Random moments within a step or a save.
    for (number, pause) in [0_u64, 7, 23, 61, 113, 211].into_iter().enumerate() {
        let resume: &[&str] = if number == 0 { &[] } else { &["--resume"] };
        let mut child = start(&mut train(folder.path(), "killed", resume));
        if number == 0 {
            let_run(&mut child, &out, Duration::from_millis(pause));
        } else {
            // Somewhere between reading the checkpoint and the end.
            std::thread::sleep(Duration::from_millis(400 + 37 * pause));
        }
        child.kill().unwrap();
        killed += u32::from(!child.wait().unwrap().success());
    }
    assert!(killed >= 2, "only {killed} runs were still going when they were killed");
    succeed(&mut train(folder.path(), "killed", &["--resume"]));
    assert!(results(&out) == wanted, "the resumed run differs");
}

#[test]
fn a_run_whose_device_is_lost_goes_on_by_itself_and_gives_the_same_bits() {
    let folder = tempfile::tempdir().unwrap();
    succeed(&mut train(folder.path(), "whole", &[]));
    for (name, step) in [("early", "1"), ("late", "77")] {
        let mut command = train(folder.path(), name, &[]);
        command.env("WGFORMER_TEST_LOSE_DEVICE", step);
        let output = run(&mut command);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{said}");
        assert!(said.contains("the device was lost") && said.contains("goes on from"), "{said}");
        assert!(results(&folder.path().join(name)) == results(&folder.path().join("whole")), "{name}: the run differs");
    }
}

#[test]
fn an_interrupted_run_saves_first_and_goes_on_where_it_was() {
    let folder = tempfile::tempdir().unwrap();
    succeed(&mut train(folder.path(), "whole", &[]));
    for signal in ["INT", "TERM"] {
        let out = folder.path().join(signal);
        let mut child = start(&mut train(folder.path(), signal, &[]));
        let_run(&mut child, &out, Duration::from_millis(20));
        assert!(Command::new("kill").args(["-s", signal, &child.id().to_string()]).status().unwrap().success());
        let output = child.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && said.contains("saving a checkpoint first"), "{} {said}", output.status);
        assert!(out.join("loss.svg").exists() && out.join("model/model.safetensors").exists());
        let end = succeed(&mut train(folder.path(), signal, &["--resume"]));
        let end: Value = serde_json::from_str(end.lines().last().unwrap()).unwrap();
        assert_eq!(end["step"], STEPS);
        assert!(results(&out) == results(&folder.path().join("whole")), "the resumed run differs");
    }
}

#[test]
fn an_interrupted_run_gives_up_the_step_that_it_accumulates() {
    let folder = tempfile::tempdir().unwrap();
    let accumulate = ["--accumulate", "400"];
    let said = succeed(&mut train_steps(folder.path(), "whole", 3, &accumulate));
    let last = said.lines().rfind(|line| line.contains("\"event\":\"step\"")).unwrap();
    let rate = serde_json::from_str::<Value>(last).unwrap()["tokens_per_second"].as_f64().unwrap();
    let step = Duration::from_secs_f64(400.0 * 3.0 * 15.0 / rate);
    let out = folder.path().join("parts");
    let mut child = start(&mut train_steps(folder.path(), "parts", 3, &accumulate));
    // Its checkpoint is that of the second of three steps.
    let_run(&mut child, &out, step / 3);
    let asked = Instant::now();
    assert!(Command::new("kill").args(["-s", "INT", &child.id().to_string()]).status().unwrap().success());
    let output = child.wait_with_output().unwrap();
    let took = asked.elapsed();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(took < Duration::from_secs(2).max(step / 3), "it took {took:?} to stop, and a step {step:?}");
    let newest = fs::read_to_string(out.join("checkpoints/latest")).unwrap();
    assert_eq!(newest.trim(), "step-000002");
    succeed(&mut train_steps(folder.path(), "parts", 3, &[&accumulate[..], &["--resume"]].concat()));
    assert!(results(&out) == results(&folder.path().join("whole")), "the resumed run differs");
}

#[test]
fn an_interrupted_run_leaves_a_long_step_in_the_middle_of_its_batch() {
    let folder = tempfile::tempdir().unwrap();
    let run = |out: &str, batch: usize, more: &[&str]| {
        let mut command = wgformer();
        command.arg("train").arg("--data").arg(text(folder.path())).arg("--out").arg(folder.path().join(out));
        command.args(["--tokenizer", "bytes", "--layers", "4", "--heads", "4", "--width", "192", "--context", "128"]);
        command.args(["--eval-every", "50", "--checkpoint-every", "2", "--steps", "3", "--json", "--batch"]);
        command.arg(batch.to_string()).args(more);
        command
    };
    let rate_of = |said: &str| {
        let last = said.lines().rfind(|line| line.contains("\"event\":\"step\"")).unwrap();
        serde_json::from_str::<Value>(last).unwrap()["tokens_per_second"].as_f64().unwrap()
    };
    // A step of some two seconds, however fast the device is.
    let rate = rate_of(&succeed(&mut run("rate", 8, &[])));
    let batch = ((2.0 * rate / 128.0) as usize).clamp(8, 1024);
    let rate = rate_of(&succeed(&mut run("whole", batch, &[])));
    let step = Duration::from_secs_f64((batch * 128) as f64 / rate);
    let out = folder.path().join("left");
    let mut child = start(&mut run("left", batch, &[]));
    // Its checkpoint is that of the second of three steps.
    let_run(&mut child, &out, step / 5);
    let asked = Instant::now();
    assert!(Command::new("kill").args(["-s", "INT", &child.id().to_string()]).status().unwrap().success());
    let output = child.wait_with_output().unwrap();
    let took = asked.elapsed();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    println!("a step takes {step:?}, stopping in it {took:?}");
    assert!(took < Duration::from_secs(2).max(step / 3), "it took {took:?} to stop, and a step {step:?}");
    assert_eq!(fs::read_to_string(out.join("checkpoints/latest")).unwrap().trim(), "step-000002");
    succeed(&mut run("left", batch, &["--resume"]));
    assert!(results(&out) == results(&folder.path().join("whole")), "the resumed run differs");
}

#[test]
fn a_full_disk_ends_the_run_with_its_name_and_leaves_checkpoints_that_work() {
    let folder = tempfile::tempdir().unwrap();
    let before = succeed(&mut train_steps(folder.path(), "out", 10, &[]));
    assert!(before.contains("\"end\""));
    // No file may grow beyond 8 KiB: writing fails in the middle of one, as on a full disk.
    let command = train(folder.path(), "out", &["--resume"]);
    let mut limited = Command::new("sh");
    limited.args(["-c", "trap '' XFSZ; ulimit -f 16; exec \"$@\"", "sh"]).arg(command.get_program());
    limited.args(command.get_args()).env("MESA_SHADER_CACHE_DISABLE", "true");
    let said = refusal(&mut limited);
    assert!(said.contains("checkpoints") && said.contains("safetensors"), "{said}");
    let left = saves(&folder.path().join("out"));
    assert!(left.iter().all(|name| !name.ends_with(".tmp")) && !left.is_empty(), "{left:?}");
    succeed(&mut train(folder.path(), "out", &["--resume"]));
    succeed(&mut train(folder.path(), "whole", &[]));
    let files = |out: &str| fs::read(folder.path().join(out).join("model/model.safetensors")).unwrap();
    // The schedule of a run of 10 steps is another; only the rest must be there.
    assert_eq!(files("out").len(), files("whole").len());
}

#[test]
fn a_run_goes_on_with_the_options_that_it_had() {
    let folder = tempfile::tempdir().unwrap();
    let options = ["--schedule", "constant", "--warmup", "1", "--lr", "0.01", "--weight-decay", "0.3"];
    succeed(&mut train_steps(folder.path(), "whole", 8, &options));
    succeed(&mut train_steps(folder.path(), "parts", 4, &options));
    let resume = |more: &[&str]| {
        let mut command = wgformer();
        command.args(["train", "--resume", "--out"]).arg(folder.path().join("parts")).args(more);
        succeed(&mut command)
    };
    let said = resume(&["--steps", "6"]);
    assert!(said.contains("resumed  from step 4, with the run's options --batch 3 "), "{said}");
    // It continues with the options of the resumed run, except for those given now.
    resume(&["--steps", "8", "--json"]);
    let weights = |name: &str| fs::read(folder.path().join(name).join("model/model.safetensors")).unwrap();
    assert!(weights("parts") == weights("whole"), "the resumed run differs");
    let said = refusal(wgformer().args(["train", "--resume", "--out"]).arg(folder.path().join("none")));
    assert!(said.contains("give --data"), "{said}");
}

#[test]
fn a_run_is_resumed_with_its_own_text_and_seed_only() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    succeed(&mut train_steps(folder.path(), "out", 6, &[]));
    let mut other = train_steps(folder.path(), "out", 8, &["--resume"]);
    fs::write(folder.path().join("text.txt"), TEXT.to_uppercase().repeat(12)).unwrap();
    let said = refusal(&mut other);
    assert!(said.contains("belongs to another text, tokenizer or context length"), "{said}");
    // Without --seed dropout is unchanged; another seed is refused.
    let said = refusal(&mut train_steps(folder.path(), "out", 8, &["--resume", "--seed", "77"]));
    assert!(said.contains("the run began with --seed 1"), "{said}");
    succeed(&mut train_steps(folder.path(), "out", 8, &["--resume"]));
    let resumed = fs::read(out.join("model/model.safetensors")).unwrap();
    fs::remove_dir_all(&out).unwrap();
    succeed(&mut train_steps(folder.path(), "out", 6, &[]));
    let said = run(&mut train_steps(folder.path(), "out", 8, &["--resume"])).stderr;
    assert!(String::from_utf8_lossy(&said).contains("continues with another schedule"));
    assert!(
        fs::read(out.join("model/model.safetensors")).unwrap() == resumed,
        "the seed of the checkpoint is not used"
    );
}

#[test]
fn a_run_of_experts_is_resumed_and_its_checkpoints_are_models() {
    let folder = tempfile::tempdir().unwrap();
    let train = |out: &str, steps: &str, moe: &str, more: &[&str]| {
        let mut command = wgformer();
        command.arg("train").arg("--data").arg(text(folder.path())).arg("--out").arg(folder.path().join(out));
        command.args(["--tokenizer", "bytes", "--layers", "1", "--heads", "2", "--width", "16", "--context", "15"]);
        command.args(["--batch", "3", "--schedule", "constant", "--warmup", "1", "--steps", steps, "--moe", moe]);
        command.args(more);
        command
    };
    for more in [&[][..], &["--dtype", "f16"]] {
        let (whole, parts) = (format!("whole{}", more.len()), format!("parts{}", more.len()));
        succeed(&mut train(&whole, "6", "4:2", more));
        succeed(&mut train(&parts, "3", "4:2", more));
        let checkpoint = folder.path().join(&parts).join("checkpoints/step-000003");
        succeed(wgformer().arg("generate").arg(checkpoint).args(["-p", "It is", "-n", "3", "--greedy"]));
        succeed(&mut train(&parts, "6", "4:2", &[&["--resume"], more].concat()));
        let weights = |name: &str| fs::read(folder.path().join(name).join("model/model.safetensors")).unwrap();
        assert!(weights(&parts) == weights(&whole), "the resumed run differs");
    }
    let said = refusal(&mut train("no", "1", "4:2,router_aux_los_coef=0", &[]));
    assert!(said.contains("do not read \"router_aux_los_coef\""), "{said}");
}

#[test]
fn a_loss_scale_does_not_outlive_its_type() {
    let folder = tempfile::tempdir().unwrap();
    let norm = |said: &str| {
        let line = said.lines().rfind(|line| line.contains("\"event\":\"step\"")).unwrap();
        serde_json::from_str::<Value>(line).unwrap()["norm"].as_f64().unwrap()
    };
    let [half, full] = ["f16", "f32"].map(|dtype| ["--dtype", dtype, "--schedule", "constant"]);
    let before = norm(&succeed(&mut train_steps(folder.path(), "out", 4, &half)));
    let behind = norm(&succeed(&mut train_steps(folder.path(), "out", 6, &[&full[..], &["--resume"]].concat())));
    assert!((0.3..3.0).contains(&(behind / before)), "the norm of the gradients was {before} and is {behind}");
}

#[test]
fn a_new_run_replaces_nothing_and_two_do_not_meet() {
    let folder = tempfile::tempdir().unwrap();
    let model = small_model(folder.path());
    let out = model.parent().unwrap();
    let before = fs::read(model.join("model.safetensors")).unwrap();
    fs::remove_dir_all(out.join("checkpoints")).unwrap();
    let mut again = wgformer();
    again.args(["train", "--steps", "1", "--from"]).arg(&model).arg("--data").arg(text(folder.path()));
    let said = refusal(again.arg("--out").arg(out));
    assert!(said.contains("the folder contains a model without a run"), "{said}");
    assert!(fs::read(model.join("model.safetensors")).unwrap() == before);
    // While one run has the folder, another is refused.
    let out = folder.path().join("busy");
    let mut first = start(&mut train_steps(folder.path(), "busy", 100_000, &[]));
    let_run(&mut first, &out, Duration::ZERO);
    let said = refusal(&mut train(folder.path(), "busy", &["--resume"]));
    first.kill().unwrap();
    first.wait().unwrap();
    assert!(said.contains("another process trains here"), "{said}");
    succeed(&mut train_steps(folder.path(), "busy", 4, &["--resume"]));
}

#[test]
fn what_a_run_was_given_is_kept_or_refused() {
    let folder = tempfile::tempdir().unwrap();
    let said = succeed(&mut train_steps(folder.path(), "out", 3, &[]));
    // The last step is evaluated at any interval.
    assert!(said.lines().any(|line| line.contains("\"evaluated\"") && line.contains("\"step\":3")), "{said}");
    let resume = |more: &[&str]| {
        let mut command = wgformer();
        command.args(["train", "--resume", "--steps", "4", "--out"]).arg(folder.path().join("out")).args(more);
        command
    };
    for (more, words) in [
        (&["--width", "64"][..], "the run began with --width 18"),
        (&["--moe", "4:2"], "the run began without --moe"),
        (&["--dropout", "nan"], "from 0 (inclusive) to 1"),
        (&["--lr", "1e39"], "learning rate: it is 1"),
        (&["--patience", "0"], "'0'"),
    ] {
        let said = refusal(&mut resume(more));
        assert!(said.contains(words), "{more:?}: {said}");
    }
    succeed(&mut resume(&[]));
    let model = folder.path().join("out/model");
    let model = model.to_str().unwrap();
    let said = refusal(&mut train_steps(folder.path(), "from", 1, &["--from", model]));
    assert!(said.contains("cannot be used with"), "{said}");
    // Files beside the weights are copied, and the type of the matrices is reported.
    fs::write(Path::new(model).join("generation_config.json"), r#"{"eos_token_id": [2, 7]}"#).unwrap();
    fs::write(Path::new(model).join("chat_template.jinja"), "{{ messages }}").unwrap();
    let mut from = wgformer();
    from.args(["train", "--steps", "1", "--dtype", "bf16", "--from", model]).arg("--data").arg(text(folder.path()));
    succeed(from.arg("--out").arg(folder.path().join("from")));
    for place in ["from/model", "from/checkpoints/step-000001"] {
        let read = |name: &str| fs::read_to_string(folder.path().join(place).join(name)).unwrap();
        assert!(read("generation_config.json").contains('7') && read("chat_template.jinja") == "{{ messages }}");
    }
    let config = fs::read_to_string(folder.path().join("from/model/config.json")).unwrap();
    assert!(config.contains("\"dtype\": \"bfloat16\""), "{config}");
}

#[test]
fn a_trained_llama_becomes_one_that_recurs_and_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let train = |out: &str, steps: &str, more: &[&str]| {
        let mut command = wgformer();
        command.arg("train").arg("--data").arg(text(folder.path())).arg("--out").arg(folder.path().join(out));
        command.args(["--batch", "2", "--context", "15", "--json", "--steps", steps]).args(more);
        command
    };
    let new = ["--model", "llama", "--layers", "4", "--heads", "2", "--width", "16", "--tokenizer", "bytes"];
    succeed(&mut train("llama", "1", &new));
    let from = folder.path().join("llama/model");
    let from = from.to_str().unwrap();
    let recur = ["--from", from, "--mor", "2:token_choice,sharing=cycle", "--mor-init", "average"];
    let said = succeed(&mut train("mor", "2", &recur));
    let line: Value = serde_json::from_str(said.lines().next().unwrap()).unwrap();
    let depth = line["routing"]["recursions"]["depth"].as_f64().unwrap();
    assert!((1.0..=2.0).contains(&depth) && line["routing"]["experts"].is_null(), "{line}");
    let config = fs::read_to_string(folder.path().join("mor/model/config.json")).unwrap();
    assert!(config.contains("\"token_choice\"") && config.contains("\"cycle\""), "{config}");
    let again = succeed(&mut train("mor", "4", &[&recur[..], &["--resume"]].concat()));
    let steps = again.lines().filter(|line| line.contains("\"event\":\"step\"")).count();
    assert_eq!(steps, 2, "{again}");
    let said = refusal(&mut train("no", "1", &["--from", from, "--mor", "3"]));
    assert!(said.contains("num_recursions, 3 (it is one of 1, 2)"), "{said}");
    let said = refusal(&mut train("no", "1", &["--from", from, "--moe", "4:1"]));
    assert!(said.contains("experts can't start from a trained model"), "{said}");
    let said = refusal(&mut train("no", "1", &["--mor", "2", "--mor-init", "lower"]));
    assert!(said.contains("--from"), "{said}");
}
