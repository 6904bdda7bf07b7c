//! Errors of bad input.

use super::common::*;
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};

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
    // Finite weights with infinite products.
    let model = small_model_of_large_weights(folder.path());
    let mut eval = wgformer();
    eval.arg("eval").arg("--json").arg(model).arg("--data").arg(&text);
    assert!(refusal(&mut eval).contains("the loss is not finite"));
}

/// A model whose embedding is the largest finite numbers.
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
