//! The `wgformer` command as people run it: killed, interrupted, on a full disk, resumed; and what it says of bad input.

#![cfg(all(unix, feature = "cli"))]
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test says so and stops")]

use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

const TEXT: &str = "It is a truth universally acknowledged, that a single man in possession of a good fortune must be in \
                    want of a wife. ";
const STEPS: u64 = 120;

fn wgformer() -> Command {
    Command::new(env!("CARGO_BIN_EXE_wgformer"))
}

fn text(folder: &Path) -> PathBuf {
    let path = folder.join("text.txt");
    fs::write(&path, TEXT.repeat(12)).unwrap();
    path
}

/// A run of a tiny model that saves every second step.
fn train(folder: &Path, out: &str, more: &[&str]) -> Command {
    train_steps(folder, out, STEPS, more)
}

fn train_steps(folder: &Path, out: &str, steps: u64, more: &[&str]) -> Command {
    let mut command = wgformer();
    command.arg("train").arg("--data").arg(text(folder)).arg("--out").arg(folder.join(out));
    let steps = steps.to_string();
    command.args(["--tokenizer", "bytes", "--layers", "1", "--heads", "2", "--width", "18", "--context", "15"]);
    command.args([
        "--batch",
        "3",
        "--dropout",
        "0.1",
        "--eval-every",
        "50",
        "--checkpoint-every",
        "2",
        "--steps",
        &steps,
    ]);
    command.args(["--json"]).args(more);
    command
}

fn run(command: &mut Command) -> Output {
    command.stdin(Stdio::null()).output().unwrap()
}

fn succeed(command: &mut Command) -> String {
    let output = run(command);
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{command:?}\n{out}\n{err}");
    out.into_owned()
}

/// What a command that must fail says: one sentence, and no panic.
fn refusal(command: &mut Command) -> String {
    let output = run(command);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(matches!(output.status.code(), Some(1 | 2)), "{command:?} ended with {}: {said}", output.status);
    assert!(said.contains("error: ") && !said.contains("panicked"), "{said}");
    said
}

/// The weights of the finished model, and all of the last checkpoint that a resumed run goes on from.
fn results(out: &Path) -> Vec<Vec<u8>> {
    let newest = fs::read_to_string(out.join("checkpoints/latest")).unwrap();
    let newest = out.join("checkpoints").join(newest.trim());
    let files = ["model.safetensors", "optimizer.safetensors", "state.json", "history.json"];
    let mut paths: Vec<PathBuf> = files.iter().map(|name| newest.join(name)).collect();
    paths.push(out.join("model/model.safetensors"));
    paths.iter().map(|path| fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))).collect()
}

/// The number of checkpoints, whole or not.
fn saves(out: &Path) -> Vec<String> {
    let entries = fs::read_dir(out.join("checkpoints")).into_iter().flatten();
    entries.filter_map(|e| e.ok()?.file_name().into_string().ok()).filter(|name| name.starts_with("step-")).collect()
}

/// Waits until a run has saved its first checkpoint, and then some more.
fn let_run(child: &mut Child, out: &Path, more: Duration) {
    let start = Instant::now();
    while saves(out).is_empty() {
        assert!(start.elapsed() < Duration::from_secs(300), "no checkpoint came");
        assert!(child.try_wait().unwrap().is_none(), "the run ended by itself");
        std::thread::sleep(Duration::from_millis(2));
    }
    std::thread::sleep(more);
}

fn start(command: &mut Command) -> Child {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()
}

#[test]
fn a_run_killed_at_any_moment_and_resumed_gives_the_bits_of_one_that_was_not() {
    let folder = tempfile::tempdir().unwrap();
    succeed(&mut train(folder.path(), "whole", &[]));
    let wanted = results(&folder.path().join("whole"));
    let out = folder.path().join("killed");
    let mut killed = 0;
    // Moments of a step and of a save that no multiple of anything hits twice.
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

/// A small model, trained for four steps.
fn small_model(folder: &Path) -> PathBuf {
    succeed(&mut train_steps(folder, "out", 4, &[]));
    folder.join("out/model")
}

#[cfg(target_os = "linux")]
#[test]
fn output_that_cannot_be_written_is_an_error_and_output_that_nobody_reads_is_none() {
    let folder = tempfile::tempdir().unwrap();
    let model = small_model(folder.path());
    let (model, data) = (model.to_str().unwrap(), text(folder.path()));
    let full = || Stdio::from(fs::File::options().write(true).open("/dev/full").unwrap());
    for arguments in [
        vec!["devices"],
        vec!["devices", "--json"],
        vec!["inspect", "--list", model],
        vec!["generate", model, "-p", "It", "-n", "3"],
        vec!["generate", model, "-p", "It", "-n", "3", "--json"],
        vec!["eval", model, "--data", data.to_str().unwrap()],
    ] {
        let output = wgformer().args(&arguments).stdout(full()).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {said}");
        assert!(said.contains("error: standard output: No space left"), "{arguments:?}: {said}");
        // Not even that can be told.
        let output = wgformer().args(&arguments).stdout(full()).stderr(full()).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{arguments:?}");
        let mut closed = wgformer();
        let mut child = closed.args(&arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        drop(child.stdout.take());
        let output = child.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code() == Some(141) && said.is_empty(), "{arguments:?}: {} {said}", output.status);
    }
    // A run that cannot tell of its steps saves before it stops.
    let output = train(folder.path(), "full", &[]).stdout(full()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(1) && said.contains("standard output"), "{said}");
    let saved = saves(&folder.path().join("full"));
    assert!(!saved.is_empty() && saved.iter().all(|name| !name.ends_with(".tmp")), "{saved:?}");
    succeed(&mut train(folder.path(), "full", &["--resume"]));
    succeed(&mut train(folder.path(), "whole", &[]));
    assert!(results(&folder.path().join("full")) == results(&folder.path().join("whole")), "the resumed run differs");
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
    assert!(said.contains("resumed  from step 4, as it began with --batch 3 "), "{said}");
    // And on with those that it went on with, but for what is said now.
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
    // A seed that is not repeated does not change what is dropped, and another one is refused.
    let said = refusal(&mut train_steps(folder.path(), "out", 8, &["--resume", "--seed", "77"]));
    assert!(said.contains("the run began with --seed 1"), "{said}");
    succeed(&mut train_steps(folder.path(), "out", 8, &["--resume"]));
    let resumed = fs::read(out.join("model/model.safetensors")).unwrap();
    fs::remove_dir_all(&out).unwrap();
    succeed(&mut train_steps(folder.path(), "out", 6, &[]));
    let said = run(&mut train_steps(folder.path(), "out", 8, &["--resume"])).stderr;
    assert!(String::from_utf8_lossy(&said).contains("another schedule than it had"));
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
    assert!(said.contains("read no \"router_aux_los_coef\""), "{said}");
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
    assert!(said.contains("a model lies here"), "{said}");
    assert!(fs::read(model.join("model.safetensors")).unwrap() == before);
    // While one run has the folder, another is told.
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
    // The last step is measured, whatever the interval.
    assert!(said.lines().any(|line| line.contains("\"evaluated\"") && line.contains("\"step\":3")), "{said}");
    let resume = |more: &[&str]| {
        let mut command = wgformer();
        command.args(["train", "--resume", "--steps", "4", "--out"]).arg(folder.path().join("out")).args(more);
        command
    };
    for (more, words) in [
        (&["--width", "64"][..], "the run began with --width 18"),
        (&["--moe", "4:2"], "the run began without --moe"),
        (&["--dropout", "nan"], "between 0 and 1"),
        (&["--lr", "1e39"], "learning rate: is 1"),
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
    // What lies beside the weights comes along, and the type of the matrices is said.
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
fn a_tokenizer_of_another_model_and_weights_that_overflow_are_told() {
    let folder = tempfile::tempdir().unwrap();
    let model = small_model(folder.path());
    let more = ["--tokenizer", "bpe:290", "--layers", "1", "--heads", "1", "--width", "4", "--context", "8"];
    let text = text(folder.path());
    let mut other = wgformer();
    other.args(["train", "--steps", "0", "--data"]).arg(&text).arg("--out").arg(folder.path().join("bpe")).args(more);
    let said = succeed(&mut other);
    assert!(said.contains("finished at step 0") && !said.contains("loss.svg"), "{said}");
    fs::copy(folder.path().join("bpe/model/tokenizer.json"), model.join("tokenizer.json")).unwrap();
    let mut eval = wgformer();
    eval.arg("eval").arg(&model).arg("--data").arg(&text);
    let mut train = wgformer();
    train.args(["train", "--steps", "2", "--context", "15", "--from"]).arg(&model).arg("--data").arg(&text);
    train.arg("--out").arg(folder.path().join("from"));
    for command in [&mut eval, &mut train] {
        let said = refusal(command);
        assert!(said.contains("is not among the 256 of the model's vocabulary"), "{said}");
    }
    assert!(!folder.path().join("from").exists());
    // Finite weights whose products are not.
    let model = small_model_of_large_weights(folder.path());
    let mut eval = wgformer();
    eval.arg("eval").arg("--json").arg(model).arg("--data").arg(&text);
    assert!(refusal(&mut eval).contains("the loss is not finite"));
}

/// A model whose embedding has been replaced by the largest numbers there are.
fn small_model_of_large_weights(folder: &Path) -> PathBuf {
    succeed(&mut train_steps(folder, "large", 1, &[]));
    let path = folder.join("large/model/model.safetensors");
    let mut bytes = fs::read(&path).unwrap();
    let header = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    bytes[header..].chunks_exact_mut(4).for_each(|word| word.copy_from_slice(&3e38_f32.to_le_bytes()));
    fs::write(&path, bytes).unwrap();
    folder.join("large/model")
}

#[test]
fn absurd_sizes_are_refused_before_memory_is_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let model = small_model(folder.path());
    let config = fs::read_to_string(model.join("config.json")).unwrap();
    let config: Value = serde_json::from_str(&config).unwrap();
    let largest = 1_u64 << 62;
    for (key, value, wanted) in [
        ("n_layer", 1_000_000_000_u64, "at most 4096"),
        ("n_embd", largest, "at most 4294967295"),
        ("n_inner", largest, "at most 4294967295"),
        ("vocab_size", 4_294_967_295, "the config says [4294967295, 18]"),
        ("n_positions", 4_294_967_295, "the config says [4294967295, 18]"),
        ("n_head", 0, "at least 1"),
    ] {
        let mut config = config.clone();
        config[key] = value.into();
        fs::write(model.join("config.json"), config.to_string()).unwrap();
        let said = refusal(wgformer().arg("generate").arg(&model).args(["-p", "It", "-n", "2"]));
        assert!(said.contains(wanted), "{key}: {said}");
    }
    let small = ["--layers", "1", "--heads", "1", "--width", "8", "--context", "8"];
    for (more, wanted) in [
        (["--batch", "1099511627776"], "lower the batch"),
        (["--vocabulary", "1099511627776"], "at most 4294967295"),
        (["--vocabulary", "4294967295"], "Use a smaller vocabulary"),
    ] {
        let said = refusal(wgformer().arg("inspect").args(small).args(more));
        assert!(said.contains(wanted), "{more:?}: {said}");
    }
}

#[test]
fn what_a_program_reads_is_json() {
    let folder = tempfile::tempdir().unwrap();
    let model = small_model(folder.path());
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/goldens/gpt2");
    let path = |command: &str, path: &Path| {
        let mut c = wgformer();
        c.args([command, "--json"]).arg(path);
        c
    };
    let mut devices = wgformer();
    devices.args(["devices", "--json", "--adapter", "0"]);
    let mut check = wgformer();
    check.args(["check", "--json", "--golden"]).arg(golden);
    let mut generate = path("generate", &model);
    generate.args(["--prompt", "It is", "--prompt", "a wife", "-n", "5"]);
    let mut eval = path("eval", &model);
    eval.arg("--data").arg(text(folder.path()));
    let mut profile = path("profile", &model);
    let trace = folder.path().join("trace.json");
    profile.args(["--step", "decode", "--batch", "2", "--runs", "2", "--trace"]).arg(&trace);
    for (mut command, key) in [
        (devices, "/0/chosen"),
        (check, "/0/rows"),
        (generate, "/answers/1/text"),
        (eval, "/perplexity"),
        (path("inspect", &model), "/memory"),
        (profile, "/parts/0/part"),
    ] {
        let document: Value = serde_json::from_str(&succeed(&mut command)).unwrap();
        assert!(document.pointer(key).is_some_and(|v| !v.is_null()), "{command:?} has no {key}: {document}");
    }
    let trace: Value = serde_json::from_str(&fs::read_to_string(trace).unwrap()).unwrap();
    assert!(trace["traceEvents"].as_array().is_some_and(|events| events.len() > 10), "{trace}");
}

#[test]
fn a_folder_that_cannot_be_compared_counts_as_missed_and_hides_no_other() {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/goldens/gpt2");
    let output = run(wgformer().args(["check", "--json", "--golden", "absent"]).arg(golden));
    assert_eq!(output.status.code(), Some(1));
    let document: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(document[0]["error"].as_str().is_some_and(|e| e.contains("absent")), "{document}");
    assert!(document[1]["rows"].as_array().is_some_and(|rows| rows.len() > 10), "{document}");
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

#[test]
fn a_benchmark_has_every_row_and_finds_what_got_slower() {
    let folder = tempfile::tempdir().unwrap();
    let page = folder.path().join("page.html");
    let bench = |more: &[&str]| {
        let mut command = wgformer();
        command.args(["bench", "--quick", "--json"]).args(more);
        command
    };
    let report = succeed(bench(&[]).arg("--html").arg(&page));
    let mut report: Value = serde_json::from_str(&report).unwrap();
    let positive = |value: &Value| value.as_f64().is_some_and(|v| v.is_finite() && v > 0.0);
    for ceiling in ["arithmetic", "memory"] {
        assert!(positive(&report["ceilings"][ceiling]["per_second"]), "{report}");
    }
    let names =
        ["matmul 256", "gemv", "attention forward", "layer_norm", "softmax", "cross_entropy", "embedding", "adamw"];
    let rows = report["rows"].as_array().unwrap();
    for name in names.iter().chain(&[
        "train 2",
        "train llama",
        "train llama 8",
        "train llama 2 rec",
        "forward",
        "prefill",
        "decode",
    ]) {
        let row = rows.iter().find(|row| row["name"].as_str().unwrap().starts_with(name));
        let row = row.unwrap_or_else(|| panic!("no {name} in {report}"));
        for key in ["seconds", "fastest", "bytes", "rate", "share"] {
            assert!(positive(&row[key]), "{key} of {row}");
        }
        for key in ["spread", "share_spread", "flops"] {
            assert!(row[key].as_f64().is_some_and(|v| v.is_finite() && v >= 0.0), "{key} of {row}");
        }
        assert!(row["runs"].as_u64().unwrap() >= 3, "{row}");
    }
    // Of a GPT four; of a Llama, one with experts and one that recurs one each.
    assert_eq!(rows.len(), names.len() + 7);
    for key in ["record", "plan", "prepare", "first_run", "second_run"] {
        assert!(positive(&report["first_step"][key]), "{key} of {report}");
    }
    assert!(report["kernels"].as_array().unwrap().len() > 5);
    let page = fs::read_to_string(page).unwrap();
    let pictures = page.matches("<svg").count();
    assert!(pictures == 4 && page.matches("</svg>").count() == 4 && page.ends_with("</html>\n"), "{pictures}");
    assert!(!page.contains("NaN") && !page.contains("<script") && !page.contains("href="));

    // As if it had been ten times as close to the ceiling once, or ten times as far.
    let old = folder.path().join("old.json");
    let shares: Vec<f64> =
        report["rows"].as_array().unwrap().iter().map(|row| row["share"].as_f64().unwrap()).collect();
    for (factor, code) in [(10.0, Some(1)), (0.1, Some(0))] {
        for (row, share) in report["rows"].as_array_mut().unwrap().iter_mut().zip(&shares) {
            row["share"] = (share * factor).into();
        }
        fs::write(&old, report.to_string()).unwrap();
        let output = run(bench(&["--only", "LAYER", "--compare"]).arg(&old));
        let said = String::from_utf8_lossy(&output.stdout);
        assert_eq!(output.status.code(), code, "{said}");
        let new: Value = serde_json::from_str(&said).unwrap();
        let changes = new["comparison"]["changes"].as_array().unwrap();
        assert!(changes.len() == 1 && changes[0]["slower"].as_bool() == Some(code == Some(1)), "{said}");
        assert_eq!(new["comparison"]["gone"].as_array().unwrap().len(), names.len() + 6);
    }
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

#[test]
fn bad_input_is_told_in_a_sentence() {
    let folder = tempfile::tempdir().unwrap();
    let absent = folder.path().join("absent");
    let of = |arguments: &[&str]| {
        let mut command = wgformer();
        command.args(arguments);
        command
    };
    let absent = absent.to_str().unwrap();
    let text = text(folder.path());
    let text = text.to_str().unwrap();
    let out = folder.path().join("out");
    let out = out.to_str().unwrap();
    let empty = folder.path().join("empty.txt");
    fs::write(&empty, "").unwrap();
    let empty = empty.to_str().unwrap();
    let binary = folder.path().join("binary");
    fs::write(&binary, [0xff, 0xfe, 0x80]).unwrap();
    let binary = binary.to_str().unwrap();
    let below = format!("{empty}/out");
    let below = below.as_str();
    for (arguments, wanted) in [
        (vec!["generate", absent], "absent"),
        (vec!["eval", absent, "--data", text], "absent"),
        (vec!["train", "--data", absent, "--out", out], "absent"),
        (vec!["train", "--data", empty, "--out", out], "text"),
        (vec!["train", "--data", binary, "--out", out], "UTF-8"),
        (vec!["train", "--data", text, "--out", out, "--tokenizer", "bpe:x"], "bpe:1024"),
        (vec!["train", "--data", text, "--out", out, "--tokenizer", "bytes", "--heads", "5"], "n_head"),
        (vec!["train", "--data", text, "--out", out, "--tokenizer", "bytes", "--lr=-1"], "learning rate"),
        (vec!["train", "--data", text, "--out", out, "--tokenizer", "bytes", "--batch", "0"], "batch"),
        (vec!["train", "--data", text, "--out", out, "--tokenizer", "bytes", "--context", "9999"], "Lower"),
        (vec!["train", "--data", text, "--out", below, "--tokenizer", "bytes", "--steps", "2"], "choose another name"),
        (vec!["train", "--data", text, "--out", out, "--tokenizer", "bpe:99999999999"], "at most 1048576"),
        (vec!["generate", absent, "-n", "0"], "max-tokens"),
        (vec!["devices", "--adapter", "no such adapter"], "no such adapter"),
        (vec!["inspect", "--adapter", "no such adapter"], "no such adapter"),
        (vec!["inspect", "--layers", "0"], "layers"),
        (vec!["check", "--golden", absent], "absent"),
        (vec!["profile", absent], "absent"),
        (vec!["profile", "--adapter", "no such adapter"], "no such adapter"),
        (vec!["bench", "--adapter", "no such adapter"], "no such adapter"),
        (vec!["bench", "--quick", "--only", "no such row"], "no such row"),
        (vec!["bench", "--compare", absent], "absent"),
        (vec!["bench", "--compare", empty], "empty.txt"),
        (vec!["bench", "--compare", empty, "--threshold", "0"], "threshold"),
    ] {
        let said = refusal(&mut of(&arguments));
        assert!(said.to_lowercase().contains(&wanted.to_lowercase()), "{arguments:?}: {said}");
    }
}
