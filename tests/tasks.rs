//! Tasks by the command: trained on examples, measured, used; batches as single texts; hostile input.
#![cfg(all(unix, feature = "cli"))]
#![allow(clippy::unwrap_used, reason = "a test says so and stops")]

#[path = "common/command.rs"]
mod common;

use common::*;
use serde_json::{Value, json};
use std::fs;
use std::path::Path;
use std::process::Command;

const NAMES: [&str; 8] = ["Anna", "Bela", "Carl", "Dora", "Emil", "Frida", "Georg", "Hanna"];
const PLACES: [&str; 6] = ["Kolmar", "Lindau", "Meran", "Neuss", "Olpe", "Passau"];

/// A run of a small model on examples, in JSON lines.
fn train(home: &Path, task: &str, examples: &[Value], more: &[&str]) -> String {
    let lines: Vec<String> = examples.iter().map(Value::to_string).collect();
    fs::write(home.join("examples.jsonl"), lines.join("\n")).unwrap();
    let mut command = wgformer();
    command.current_dir(home).args(["train", "--task", task, "--data", "examples.jsonl", "--json"]);
    if !more.contains(&"--out") {
        command.args(["--out", "run"]);
    }
    command.args(["--tokenizer", "bpe:400", "--layers", "2", "--heads", "4", "--width", "48", "--batch", "16"]);
    command.args(["--checkpoint-every", "0", "--seed", "3"]);
    succeed(command.args(more))
}

fn events(said: &str, kind: &str) -> Vec<Value> {
    let lines = said.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    lines.filter(|line| line["event"] == kind).collect()
}

/// The loss fell by that, and the best measure is at least this.
fn check_run(said: &str, fall: f64, least: f64) {
    let losses: Vec<f64> = events(said, "step").iter().map(|step| step["loss"].as_f64().unwrap()).collect();
    let mean = |some: &[f64]| some.iter().sum::<f64>() / some.len() as f64;
    let (first, last) = (mean(&losses[..5]), mean(&losses[losses.len() - 5..]));
    assert!(last < first - fall, "the loss went from {first} to {last}");
    let best = events(said, "end")[0]["best_measure"].as_f64().unwrap();
    assert!(best >= least, "the best measure is {best}");
}

fn command(home: &Path, words: &[&str]) -> Command {
    let mut command = wgformer();
    command.current_dir(home).args(words);
    command
}

fn json_of(home: &Path, words: &[&str]) -> Value {
    serde_json::from_str(&succeed(command(home, words).arg("--json"))).unwrap()
}

fn json_lines(home: &Path, words: &[&str]) -> Vec<Value> {
    let said = succeed(command(home, words).arg("--json"));
    said.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn sentence(i: usize) -> (String, &'static str, &'static str) {
    let (name, place) = (NAMES[i * 7 % NAMES.len()], PLACES[i * 5 % PLACES.len()]);
    let text = match i % 3 {
        0 => format!("{name} lives in {place} now."),
        1 => format!("In {place} we met {name}."),
        _ => format!("Yesterday {name} went to {place} by train."),
    };
    (text, name, place)
}

#[test]
fn classes_are_learnt_measured_and_found() {
    let home = tempfile::tempdir().unwrap();
    let home = home.path();
    let moods = [("good", ["fine", "great", "lovely"]), ("bad", ["poor", "awful", "dull"])];
    let example = |i: usize| {
        let (label, words) = moods[i % 2];
        json!({"text": format!("The {} was {} and {}", ["food", "room", "book"][i % 3], words[i % 3], words[(i + 1) % 3]), "label": label})
    };
    let examples: Vec<Value> = (0..120).map(example).collect();
    let said =
        train(home, "classify", &examples, &["--steps", "80", "--eval-every", "40", "--class-weights", "balanced"]);
    check_run(&said, 0.2, 0.9);
    let config: Value = serde_json::from_str(&fs::read_to_string(home.join("run/model/config.json")).unwrap()).unwrap();
    assert_eq!(config["id2label"], json!({"0": "bad", "1": "good"}));
    assert!(home.join("run/metric.svg").exists() && home.join("run/model/task.json").exists());

    let verdict = json_of(home, &["eval", "run/model", "--data", "run/held_out.jsonl", "--html", "page.html"]);
    assert_eq!(verdict["task"], "classify");
    assert!(verdict["metrics"]["accuracy"].as_f64().unwrap() >= 0.9, "{verdict}");
    let page = fs::read_to_string(home.join("page.html")).unwrap();
    assert!(page.contains("Confusion") && page.contains("accuracy"));

    // A batch of texts of many lengths gives what each gives alone.
    let texts = [
        "The food was fine and great",
        "awful",
        "The room was poor, \u{1f600}\u{a0}dull and very, very, very awful indeed",
    ];
    let together: Vec<Value> =
        json_lines(home, &["classify", "run/model", "-t", texts[0], "-t", texts[1], "-t", texts[2]]);
    assert_eq!(together.len(), 3);
    for (text, found) in texts.iter().zip(&together) {
        let alone = &json_lines(home, &["run", "run/model", "-t", text])[0];
        for label in ["good", "bad"] {
            let (a, b) = (alone["scores"][label].as_f64().unwrap(), found["scores"][label].as_f64().unwrap());
            assert!((a - b).abs() <= 1e-5, "{a} {b}");
        }
        assert_eq!(alone["predicted"], found["predicted"]);
    }
}

#[test]
fn several_classes_and_values_are_learnt() {
    let home = tempfile::tempdir().unwrap();
    let home = home.path();
    let example = |i: usize| {
        let (cheap, near) = (i.is_multiple_of(2), i.is_multiple_of(3));
        let mut labels = Vec::new();
        labels.extend(cheap.then_some("cheap"));
        labels.extend(near.then_some("near"));
        json!({"text": format!("it costs {} and is {}", if cheap { "little" } else { "much" }, if near { "close" } else { "far" }), "labels": labels})
    };
    let examples: Vec<Value> = (0..120).map(example).collect();
    let said = train(home, "classify", &examples, &["--steps", "100", "--eval-every", "50", "--multi-label"]);
    check_run(&said, 0.1, 0.9);
    let found = &json_lines(home, &["classify", "run/model", "-t", "it costs little and is close"])[0];
    assert_eq!(found["predicted"].as_array().unwrap().len(), 2, "{found}");

    let home = tempfile::tempdir().unwrap();
    let home = home.path();
    let example = |i: usize| json!({"text": "more ".repeat(1 + i % 4), "label": (i % 4) as f64 / 2.0});
    let examples: Vec<Value> = (0..120).map(example).collect();
    let said = train(home, "classify", &examples, &["--steps", "150", "--eval-every", "50", "--regression"]);
    check_run(&said, 0.1, 0.5);
}

#[test]
fn labelled_parts_are_learnt_and_lie_on_characters() {
    let home = tempfile::tempdir().unwrap();
    let home = home.path();
    let example = |i: usize| {
        let (text, name, place) = sentence(i);
        let span = |part: &str, label: &str| {
            let start = text.find(part).unwrap();
            json!({"start": start, "end": start + part.len(), "label": label})
        };
        json!({"text": text, "entities": [span(name, "PERSON"), span(place, "PLACE")]})
    };
    let examples: Vec<Value> = (0..160).map(example).collect();
    let said = train(home, "tag", &examples, &["--steps", "120", "--eval-every", "60"]);
    check_run(&said, 0.5, 0.8);
    let text = "In Kolmar\u{a0}we met \u{1f600} Anna.";
    let found = &json_lines(home, &["tag", "run/model", "-t", text])[0];
    let parts = found["parts"].as_array().unwrap();
    for part in parts {
        let [start, end] = ["start", "end"].map(|key| part[key].as_u64().unwrap() as usize);
        assert_eq!(text.get(start..end), part["text"].as_str(), "{part}");
    }
    assert!(parts.iter().any(|part| part["text"] == "Anna"), "{found}");
    let verdict = json_of(home, &["eval", "run/model", "--data", "run/held_out.jsonl"]);
    assert!(verdict["metrics"]["span F1"].as_f64().unwrap() >= 0.8, "{verdict}");
    // A text longer than the model's context is read in windows, and nothing is lost at their borders.
    let long = "Yesterday Anna went to Kolmar by train. ".repeat(40);
    let found = &json_lines(home, &["tag", "run/model", "-t", &long])[0];
    let names = found["parts"].as_array().unwrap().iter().filter(|part| part["text"] == "Anna").count();
    assert!(names >= 36, "{names} of 40");
}

#[test]
fn answers_are_found_in_texts_that_are_longer_than_the_model_reads() {
    let home = tempfile::tempdir().unwrap();
    let home = home.path();
    let example = |i: usize| {
        let (text, _, place) = sentence(i);
        json!({"question": "Which place?", "context": text, "answers": [{"text": place, "answer_start": text.find(place).unwrap()}]})
    };
    let examples: Vec<Value> = (0..160).map(example).collect();
    let said = train(home, "answer", &examples, &["--steps", "150", "--eval-every", "75", "--context", "48"]);
    check_run(&said, 1.0, 0.8);
    let context = "Nothing happened then. ".repeat(30) + "Yesterday Anna went to Meran by train.";
    let found = &json_lines(home, &["answer", "run/model", "-q", "Which place?", "-t", &context])[0];
    let [start, end] = ["start", "end"].map(|key| found["answer"][key].as_u64().unwrap() as usize);
    assert_eq!(context.get(start..end), found["answer"]["text"].as_str());
    let refused = refusal(&mut command(home, &["answer", "run/model", "-q", &"why ".repeat(200), "-t", "short"]));
    assert!(refused.contains("question 0") && refused.contains("shorten it"), "{refused}");
}

#[test]
fn texts_are_made_of_texts_with_an_encoder_and_without() {
    for (kind, more) in [("both", &[][..]), ("decoder", &["--model", "llama"][..])] {
        let home = tempfile::tempdir().unwrap();
        let home = home.path();
        let example = |i: usize| {
            let (a, b) = (NAMES[i % NAMES.len()], PLACES[i / 3 % PLACES.len()]);
            json!({"source": format!("{a} {b}"), "target": format!("{b} {a}")})
        };
        let examples: Vec<Value> = (0..144).map(example).collect();
        let options = [
            "--steps",
            "200",
            "--warmup",
            "10",
            "--eval-every",
            "100",
            "--label-smoothing",
            "0.05",
            "--eval-examples",
            "10",
        ];
        let said = train(home, "transform", &examples, &[&options[..], more].concat());
        check_run(&said, 1.0, 0.6);
        let found = json_lines(home, &["transform", "run/model", "-t", "Anna Kolmar", "-t", "Emil Lindau"]);
        assert_eq!(found.len(), 2);
        let right = found[0]["answer"] == "Kolmar Anna" || found[1]["answer"] == "Lindau Emil";
        assert!(right, "{kind}: {found:?}");
        let beams = json_lines(home, &["transform", "run/model", "-t", "Anna Kolmar", "--beams", "3"]);
        assert!(!beams[0]["answer"].as_str().unwrap().is_empty());
        if kind == "decoder" {
            let scores = json_lines(
                home,
                &["score", "run/model", "-t", "Anna Kolmar\nKolmar Anna", "-t", "Kolmar zzz", "-t", ""],
            );
            let of = |at: usize| scores[at]["perplexity"].as_f64();
            assert!(of(0).unwrap() < of(1).unwrap() && of(2).is_none(), "{scores:?}");
            let alone = &json_lines(home, &["score", "run/model", "-t", "Kolmar zzz"])[0];
            assert!((alone["loss"].as_f64().unwrap() - scores[1]["loss"].as_f64().unwrap()).abs() <= 1e-5);
        }
    }
}

#[test]
fn a_run_is_resumed_with_the_same_bits_and_adapters_carry_their_head() {
    let home = tempfile::tempdir().unwrap();
    let home = home.path();
    let examples: Vec<Value> =
        (0..60).map(|i| json!({"text": sentence(i).0, "label": (["even", "odd"][i % 2])})).collect();
    for (out, steps) in [("whole", "12"), ("parts", "6")] {
        train(
            home,
            "classify",
            &examples,
            &["--steps", steps, "--out", out, "--schedule", "constant", "--warmup", "0", "--eval-every", "4"],
        );
    }
    succeed(&mut command(home, &["train", "--resume", "--out", "parts", "--steps", "12", "--json"]));
    let saved = |out: &str| {
        let steps = fs::read_dir(home.join(out).join("checkpoints")).unwrap();
        let last = steps.map(|entry| entry.unwrap().path()).filter(|path| path.is_dir()).max().unwrap();
        fs::read(last.join("model.safetensors")).unwrap()
    };
    assert!(saved("whole") == saved("parts"), "the resumed run differs");

    let mut adapter = wgformer();
    adapter.current_dir(home).args([
        "train",
        "--task",
        "classify",
        "--data",
        "examples.jsonl",
        "--from",
        "whole/model",
    ]);
    adapter.args([
        "--lora",
        "2",
        "--lora-targets",
        "q_proj,v_proj",
        "--lora-whole",
        "classifier",
        "--steps",
        "5",
        "--out",
        "adapter",
    ]);
    succeed(adapter.args(["--eval-every", "5", "--json"]));
    let found = &json_lines(home, &["run", "adapter/model", "-t", "Anna lives in Kolmar now."])[0];
    assert!(found["scores"]["even"].as_f64().is_some(), "{found}");
}

#[test]
fn input_that_is_wrong_is_refused_with_its_place() {
    let home = tempfile::tempdir().unwrap();
    let home = home.path();
    let examples: Vec<Value> = (0..20).map(|i| json!({"text": sentence(i).0, "label": (["a", "b"][i % 2])})).collect();
    train(home, "classify", &examples, &["--steps", "2", "--eval-every", "0"]);
    fs::write(home.join("empty"), "").unwrap();
    fs::write(home.join("bytes.txt"), b"fine\nnot \xff fine\n").unwrap();
    fs::write(home.join("long.txt"), "word ".repeat(200_000)).unwrap();
    let refused = |words: &[&str]| refusal(&mut command(home, words));
    let said = refused(&["classify", "run/model", "empty"]);
    assert!(said.contains("empty"), "{said}");
    let said = refused(&["classify", "run/model", "bytes.txt"]);
    assert!(said.contains("bytes.txt") && said.contains("line 2"), "{said}");
    // One line of 1 MB without an end: its beginning is read.
    assert_eq!(json_lines(home, &["classify", "run/model", "long.txt"]).len(), 1);
    let said = refused(&["tag", "run/model", "-t", "x"]);
    assert!(said.contains("train --task tag"), "{said}");
    let said = refused(&["translate", "run/model", "-t", "x"]);
    assert!(said.contains("with a decoder"), "{said}");
    fs::write(home.join("other.jsonl"), "{\"text\": \"x\", \"label\": \"a\"}\n{\"words\": 1}\n").unwrap();
    let said = refused(&["train", "--task", "classify", "--data", "other.jsonl", "--out", "two"]);
    assert!(said.contains("other.jsonl") && said.contains("line 2"), "{said}");
    // A class that the model does not know counts as wrong.
    fs::write(home.join("unseen.jsonl"), "{\"text\": \"x\", \"label\": \"c\"}\n").unwrap();
    let verdict = json_of(home, &["eval", "run/model", "--data", "unseen.jsonl"]);
    assert_eq!(verdict["metrics"]["accuracy"], 0.0);
}

#[test]
fn a_conversation_goes_on_when_its_context_is_full_and_is_kept() {
    let home = tempfile::tempdir().unwrap();
    let home = home.path();
    let model = small_model(home);
    let refused = refusal(&mut command(home, &["chat", &model.display().to_string()]));
    assert!(refused.contains("no chat template"), "{refused}");
    let template = "{% for m in messages %}{{ m.role[0] }}:{{ m.content }} {% endfor %}a:";
    fs::write(model.join("chat_template.jinja"), template).unwrap();
    let talk = |lines: &str| {
        let mut chat = command(
            home,
            &["chat", &model.display().to_string(), "--json", "--greedy", "-n", "4", "--history", "talk.jsonl"],
        );
        chat.args(["--system", "hi"]).stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped());
        let mut child = chat.stderr(std::process::Stdio::piped()).spawn().unwrap();
        std::io::Write::write_all(&mut child.stdin.take().unwrap(), lines.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        let said = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let answers: Vec<Value> = said.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        (answers, String::from_utf8(output.stderr).unwrap())
    };
    // The model has 15 positions: of what is longer, nothing is answered, and the conversation goes on.
    let (answers, notes) = talk("a\n/undo\nb\nmuch too long a message\n\nc\n");
    assert_eq!(answers.len(), 3, "{answers:?}");
    assert!(notes.contains("shorten it"), "{notes}");
    assert!(answers[2]["left_out"].as_u64().unwrap() >= 2, "{answers:?}");
    let kept = fs::read_to_string(home.join("talk.jsonl")).unwrap();
    let roles: Vec<String> = kept
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["role"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(roles, ["system", "user", "assistant", "user", "assistant"]);
    assert_eq!(talk("d\n").0.len(), 1);
    assert_eq!(fs::read_to_string(home.join("talk.jsonl")).unwrap().lines().count(), 7);
}
