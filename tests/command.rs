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
    let out = folder.path().join("out");
    let mut child = start(&mut train(folder.path(), "out", &[]));
    let_run(&mut child, &out, Duration::from_millis(20));
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.contains("saving a checkpoint first"), "{} {said}", output.status);
    assert!(out.join("loss.svg").exists() && out.join("model/model.safetensors").exists());
    let end = succeed(&mut train(folder.path(), "out", &["--resume"]));
    let end: Value = serde_json::from_str(end.lines().last().unwrap()).unwrap();
    assert_eq!(end["step"], STEPS);
    succeed(&mut train(folder.path(), "whole", &[]));
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
fn what_a_program_reads_is_json() {
    let folder = tempfile::tempdir().unwrap();
    succeed(&mut train_steps(folder.path(), "out", 4, &[]));
    let model = folder.path().join("out/model");
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/goldens/gpt2");
    let path = |command: &str, path: &Path| {
        let mut c = wgformer();
        c.args([command, "--json"]).arg(path);
        c
    };
    let mut devices = wgformer();
    devices.args(["devices", "--json"]);
    let mut check = wgformer();
    check.args(["check", "--json", "--golden"]).arg(golden);
    let mut generate = path("generate", &model);
    generate.args(["--prompt", "It is", "--prompt", "a wife", "-n", "5"]);
    let mut eval = path("eval", &model);
    eval.arg("--data").arg(text(folder.path()));
    for (mut command, key) in [
        (devices, "/0/name"),
        (check, "/0/rows"),
        (generate, "/answers/1/text"),
        (eval, "/perplexity"),
        (path("inspect", &model), "/memory"),
    ] {
        let document: Value = serde_json::from_str(&succeed(&mut command)).unwrap();
        assert!(document.pointer(key).is_some_and(|v| !v.is_null()), "{command:?} has no {key}: {document}");
    }
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
        (vec!["inspect", "--adapter", "no such adapter"], "no such adapter"),
        (vec!["inspect", "--layers", "0"], "layers"),
        (vec!["check", "--golden", absent], "absent"),
    ] {
        let said = refusal(&mut of(&arguments));
        assert!(said.to_lowercase().contains(&wanted.to_lowercase()), "{arguments:?}: {said}");
    }
}
