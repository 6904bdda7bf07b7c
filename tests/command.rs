//! The `wgformer` command as people run it, and what it says of bad input and of output that cannot be written.

#![cfg(all(unix, feature = "cli"))]
#![allow(clippy::unwrap_used, reason = "a test says so and stops")]

#[path = "common/command.rs"]
mod common;

use common::*;
use serde_json::Value;
use std::ffi::OsStr;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
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

/// Every model has the steps of its sides, and says which where another one is asked for.
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

/// A transformer of any sides is trained, measured and, where it answers, asked.
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
fn a_benchmark_has_every_row_and_finds_what_got_slower() {
    let folder = tempfile::tempdir().unwrap();
    let page = folder.path().join("page.html");
    let bench = |more: &[&str]| {
        let mut command = wgformer();
        command.args(["bench", "--quick", "--json"]).args(more);
        command
    };
    let output = run(bench(&[]).arg("--html").arg(&page));
    let (report, told) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{told}");
    // Without a terminal lines tell what runs.
    assert!(told.contains(" measurements, ") && told.contains(" so far"), "{told}");
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
    // The same command but for its text.
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
        (vec!["inspect", "--routing", "x", "--list"], "--list"),
        (vec!["experiment", "nesting", "--data", text], "leave it out"),
        (
            vec!["train", "--data", text, "--out", out, "--tokenizer", "bytes", "--steps", "5", "--warmup", "6"],
            "only 5 steps",
        ),
    ] {
        let said = refusal(&mut of(&arguments));
        assert!(said.to_lowercase().contains(&wanted.to_lowercase()), "{arguments:?}: {said}");
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

/// What a device alone needs is not made on the host: tables of positions, multipliers for each block of weights.
#[cfg(target_os = "linux")]
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
        // An adapter whose bindings are too small for the experts refuses; that takes no more.
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
