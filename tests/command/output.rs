//! Standard output: closed, full, JSON; texts through pipes.

use super::common::*;
use serde_json::Value;
use std::ffi::OsStr;
use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

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
        // Standard error is full as well.
        let output = wgformer().args(&arguments).stdout(full()).stderr(full()).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{arguments:?}");
        let mut closed = wgformer();
        let mut child = closed.args(&arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        drop(child.stdout.take());
        let output = child.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code() == Some(141) && said.is_empty(), "{arguments:?}: {} {said}", output.status);
    }
    // A run that cannot write its progress saves before it stops.
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
    let mut kernels = wgformer();
    kernels.args(["check", "--json", "--quick"]);
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
        (kernels, "/devices/0/rows/20/op"),
        (generate, "/answers/1/text"),
        (eval, "/padding"),
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
fn texts_come_through_pipes_as_well() {
    let folder = tempfile::tempdir().unwrap();
    succeed(&mut train_steps(folder.path(), "whole", 4, &[]));
    let text = fs::read(text(folder.path())).unwrap();
    let through = |command: &mut Command| {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(&text).unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    // The same command with the text from a pipe.
    let like = train_steps(folder.path(), "piped", 4, &[]);
    let file = folder.path().join("text.txt");
    let piped = like.get_args().map(|word| if word == file.as_os_str() { OsStr::new("/dev/stdin") } else { word });
    let piped: Vec<_> = piped.map(OsStr::to_owned).collect();
    through(wgformer().args(&piped));
    let results = |out: &str| fs::read(folder.path().join(out).join("model/model.safetensors")).unwrap();
    assert!(results("piped") == results("whole"), "a text through a pipe is another");
    let model = folder.path().join("whole/model");
    let eval = |data: &OsStr| {
        let mut command = wgformer();
        command.arg("eval").arg(&model).arg("--data").arg(data);
        command
    };
    let loss = |said: String| said.split(" over ").next().unwrap().to_owned();
    let said = loss(through(&mut eval(OsStr::new("/dev/stdin"))));
    assert_eq!(said, loss(succeed(&mut eval(file.as_os_str()))));
}
