//! `wgformer coref`, and its training.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[path = "common/command.rs"]
mod common;

use common::{refusal, succeed, wgformer};
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Texts with a thing, a pronoun for it, and another thing.
fn texts() -> Vec<Value> {
    let things = ["Box", "Jar", "Cup", "Pot", "Lid", "Bag"];
    let others = ["fell", "rolled", "slid", "🙂 broke"];
    let pairs = things.iter().flat_map(|a| things.iter().filter(move |b| a != *b).map(move |b| (a, b)));
    let of = |(number, (a, b)): (usize, (&&str, &&str))| {
        let verb = others[number % others.len()];
        let text = format!("A {a} {verb}. Then it\u{a0}stood by {b}.");
        let place = |part: &str| {
            let start = text[..text.rfind(part).unwrap()].chars().count();
            json!({"start": start, "end": start + part.chars().count()})
        };
        let mentions = [place(a), place("it"), place(b)];
        json!({"text": text, "mentions": mentions, "clusters": [[0, 1]]})
    };
    pairs.enumerate().map(of).collect()
}

fn write(path: &Path, records: &[Value]) {
    fs::write(path, records.iter().map(|record| format!("{record}\n")).collect::<String>()).unwrap();
}

/// The texts of training, and others of pairs of things that it does not see.
fn parts() -> [Vec<Value>; 2] {
    let held_out = |number: usize| number % 5 == 2;
    let part = |wanted: bool| {
        let texts = texts().into_iter().enumerate();
        texts.filter(|(number, _)| held_out(*number) == wanted).map(|(_, text)| text).collect()
    };
    [part(false), part(true)]
}

fn train(folder: &Path, steps: &str) -> PathBuf {
    let [data, held_out] = ["texts.jsonl", "held-out.jsonl"].map(|name| folder.join(name));
    let [texts, others] = parts();
    write(&data, &texts);
    write(&held_out, &others);
    let mut command = wgformer();
    command.args(["train", "--task", "coref", "--steps", steps, "--eval-every", "50", "--tokenizer", "bytes"]);
    command.args(["--layers", "2", "--heads", "2", "--width", "32", "--context", "64", "--batch", "8", "--lr", "3e-3"]);
    command.args(["--dropout", "0", "--json", "--data"]).arg(&data).arg("--eval-data").arg(&held_out);
    succeed(command.arg("--out").arg(folder.join("run")));
    folder.join("run/model")
}

fn coref(model: &Path, more: &[&str]) -> Command {
    let mut command = wgformer();
    command.arg("coref").arg(model).args(more);
    command
}

#[test]
fn a_model_learns_what_mentions_are_the_same_and_is_judged() {
    let folder = tempfile::tempdir().unwrap();
    let model = train(folder.path(), "400");
    let data = folder.path().join("held-out.jsonl");
    let mut eval = wgformer();
    let said = succeed(eval.arg("eval").arg(&model).arg("--json").arg("--data").arg(&data));
    let said: Value = serde_json::from_str(&said).unwrap();
    assert_eq!((&said["task"], &said["main"]), (&json!("coref"), &json!("CoNLL F1")));
    let metric = |name: &str| said["metrics"][name].as_f64().unwrap();
    assert!(metric("CoNLL F1") > 0.9 && metric("MUC F1") > 0.9, "{}", said["metrics"]);
    // A batch says what single texts say.
    let lines = |more: &[&str]| -> Vec<Value> {
        let said = succeed(coref(&model, &["--json"]).args(more));
        said.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    let all = lines(&[data.to_str().unwrap()]);
    let [_, held_out] = parts();
    assert_eq!(all.len(), held_out.len());
    let one = folder.path().join("one.jsonl");
    for (number, text) in held_out.iter().enumerate().step_by(2) {
        write(&one, std::slice::from_ref(text));
        let alone = &lines(&[one.to_str().unwrap()])[0];
        assert_eq!(alone["clusters"], all[number]["clusters"]);
        let score = |line: &Value| line["antecedents"][1][1].as_f64().unwrap_or(0.0);
        assert!((score(alone) - score(&all[number])).abs() <= 1e-5);
        let pronoun = &alone["mentions"][1];
        assert_eq!((&pronoun["text"], &pronoun["start"]), (&json!("it"), &text["mentions"][1]["start"]));
    }
    // Without mentions names and pronouns are found.
    let found = &lines(&["--text", "A 🙂 Box fell. Then it\u{a0}stood by Jar."])[0];
    let texts: Vec<&str> = found["mentions"].as_array().unwrap().iter().map(|m| m["text"].as_str().unwrap()).collect();
    assert_eq!(texts, ["Box", "it", "Jar"]);
    assert_eq!(found["mentions"][0]["start"], 4);
    let text = "A Box fell. Then it\u{a0}stood by Jar.";
    let shown = succeed(&mut coref(&model, &["--text", text]));
    assert!(shown.contains("Box (2-5) = it (17-19)"), "{shown}");
    let run = wgformer().arg("run").arg(&model).args(["--text", text]).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&run.stdout), shown);
    // A window of none leaves nothing to compare with, and what is far is not seen.
    let few = lines(&["--window", "1", "--text", "A Box fell by Jar. Then it stood."]);
    assert!(few[0]["clusters"].as_array().unwrap().iter().all(|cluster| *cluster != json!([0, 2])));
}

#[test]
fn what_cannot_be_resolved_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let model = train(folder.path(), "1");
    let file = folder.path().join("a.jsonl");
    let said = |content: &[u8]| {
        fs::write(&file, content).unwrap();
        refusal(coref(&model, &[]).arg(&file))
    };
    assert!(said(b"").contains("holds no examples"));
    assert!(said(b"{\"text\": \"\xff\"}").contains("is not UTF-8"));
    assert!(said(b"{\"text\": \"ab\", \"mentions\": [[1, 9]]}").contains("of which the text has 2"));
    assert!(said(b"{\"text\": \"ab\", \"mentions\": [[1, 1]]}").contains("is no mention"));
    // Long texts, texts without mentions, and mentions that are longer than the model reads.
    let long = format!("A Box fell. {} Then it stood by Jar.", "x🙂 ".repeat(20_000));
    let wide = json!({"text": "ab ".repeat(500), "mentions": [[0, 1200], [3, 900], [1400, 1402]]});
    for record in [json!({"text": long}), json!({"text": "nobody"}), json!({"text": ""}), wide] {
        write(&file, &[record]);
        succeed(coref(&model, &["--json"]).arg(&file));
    }
    let text = common::small_model(folder.path());
    assert!(refusal(&mut coref(&text, &["--text", "a"])).contains("train --task coref"));
    assert!(refusal(&mut coref(&model, &["--context", "9", "--text", "a"])).contains("too few to see two mentions"));
    write(&file, &vec![json!({"text": "a Box"}); 9]);
    let mut train = wgformer();
    train.args(["train", "--task", "coref", "--steps", "1", "--tokenizer", "bytes", "--data"]).arg(&file);
    assert!(refusal(train.arg("--out").arg(folder.path().join("none"))).contains("clusters"));
}
