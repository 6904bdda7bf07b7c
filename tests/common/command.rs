//! The `wgformer` command as tests run it.
#![allow(
    dead_code,
    clippy::unwrap_used,
    clippy::panic,
    reason = "each file of tests uses some of it, and stops where it fails"
)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

pub(crate) const TEXT: &str = "It is a truth universally acknowledged, that a single man in possession of a good fortune must be in \
                    want of a wife. ";
pub(crate) const STEPS: u64 = 120;

pub(crate) fn wgformer() -> Command {
    Command::new(env!("CARGO_BIN_EXE_wgformer"))
}

pub(crate) fn text(folder: &Path) -> PathBuf {
    let path = folder.join("text.txt");
    fs::write(&path, TEXT.repeat(12)).unwrap();
    path
}

/// A run of a tiny model that saves every second step.
pub(crate) fn train(folder: &Path, out: &str, more: &[&str]) -> Command {
    train_steps(folder, out, STEPS, more)
}

pub(crate) fn train_steps(folder: &Path, out: &str, steps: u64, more: &[&str]) -> Command {
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

pub(crate) fn run(command: &mut Command) -> Output {
    command.stdin(Stdio::null()).output().unwrap()
}

pub(crate) fn succeed(command: &mut Command) -> String {
    let output = run(command);
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{command:?}\n{out}\n{err}");
    out.into_owned()
}

/// The error of a command that must fail: one sentence, no panic.
pub(crate) fn refusal(command: &mut Command) -> String {
    let output = run(command);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(matches!(output.status.code(), Some(1 | 2)), "{command:?} ended with {}: {said}", output.status);
    assert!(said.contains("error: ") && !said.contains("panicked"), "{said}");
    said
}

/// The weights of the finished model, and the state of the last checkpoint.
pub(crate) fn results(out: &Path) -> Vec<Vec<u8>> {
    let newest = fs::read_to_string(out.join("checkpoints/latest")).unwrap();
    let newest = out.join("checkpoints").join(newest.trim());
    let files = ["model.safetensors", "optimizer.safetensors", "state.json", "history.json"];
    let mut paths: Vec<PathBuf> = files.iter().map(|name| newest.join(name)).collect();
    paths.push(out.join("model/model.safetensors"));
    paths.iter().map(|path| fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))).collect()
}

/// The number of checkpoints, whole or not.
pub(crate) fn saves(out: &Path) -> Vec<String> {
    let entries = fs::read_dir(out.join("checkpoints")).into_iter().flatten();
    entries.filter_map(|e| e.ok()?.file_name().into_string().ok()).filter(|name| name.starts_with("step-")).collect()
}

/// Waits until a run has saved its first checkpoint, and then some more.
pub(crate) fn let_run(child: &mut Child, out: &Path, more: Duration) {
    let start = Instant::now();
    while saves(out).is_empty() {
        assert!(start.elapsed() < Duration::from_secs(300), "no checkpoint came");
        assert!(child.try_wait().unwrap().is_none(), "the run ended by itself");
        std::thread::sleep(Duration::from_millis(2));
    }
    std::thread::sleep(more);
}

pub(crate) fn start(command: &mut Command) -> Child {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()
}

/// A small model, trained for four steps.
pub(crate) fn small_model(folder: &Path) -> PathBuf {
    succeed(&mut train_steps(folder, "out", 4, &[]));
    folder.join("out/model")
}
