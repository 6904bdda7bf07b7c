//! Training on texts of unequal lengths, packed or bucketed.

use super::common::*;
use serde_json::Value;
use std::fs;
use std::path::Path;
use std::process::Command;

const UNEQUAL: [[&str; 2]; 2] = [["--pack", "lines"], ["--bucket", "lines"]];

/// 60 lines of 2 to 31 bytes, among them empty ones: some are longer than the 15 tokens of a sequence.
fn unequal(folder: &Path) {
    let line = |number: usize| match number % 10 {
        3 => String::new(),
        _ => (0..2 + number * 7 % 30).map(|at| char::from(b'a' + ((number * 5 + at * 3) % 26) as u8)).collect(),
    };
    fs::write(folder.join("lines.txt"), (0..60).map(|number| line(number) + "\n").collect::<String>()).unwrap();
}

fn train_lines(folder: &Path, out: &str, steps: &str, more: &[&str]) -> Command {
    let mut command = wgformer();
    command.arg("train").arg("--data").arg(folder.join("lines.txt")).arg("--out").arg(folder.join(out));
    let layers = if more.contains(&"--mor") { "4" } else { "1" };
    command.args(
        "--tokenizer bytes --heads 2 --width 12 --context 15 --batch 3 --dropout 0.1 --schedule constant".split(' '),
    );
    command.args("--warmup 1 --eval-every 50 --checkpoint-every 4 --json".split(' ')).args(["--layers", layers]);
    command.args(["--steps", steps]).args(more);
    command
}

fn events(said: &str, kind: &str) -> Vec<Value> {
    let events = said.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    events.filter(|event| event["event"] == kind).collect()
}

#[test]
fn a_resumed_run_on_unequal_texts_has_the_bits_of_one_that_was_not_interrupted() {
    let folder = tempfile::tempdir().unwrap();
    unequal(folder.path());
    for unit in UNEQUAL {
        let out = |name: &str| format!("{name}{}", unit[0]);
        // More steps than batches of the texts, so that a pass ends on either side of the break.
        let said = succeed(&mut train_lines(folder.path(), &out("whole"), "40", &unit));
        succeed(&mut train_lines(folder.path(), &out("parts"), "13", &unit));
        let rest = succeed(&mut train_lines(folder.path(), &out("parts"), "40", &["--resume"]));
        // Weights and moments; the interrupted run was evaluated once more, where it ended.
        let weights = |name: &str| results(&folder.path().join(out(name)))[..2].to_vec();
        let [whole, parts] = ["whole", "parts"].map(weights);
        assert!(whole == parts, "{unit:?}: the resumed run differs");
        let [whole, rest] = [&said, &rest].map(|said| events(said, "step"));
        assert_eq!((whole.len(), rest.len()), (40, 27), "{unit:?}");
        for (a, b) in whole[13..].iter().zip(&rest) {
            assert!(a["loss"] == b["loss"] && a["padding"] == b["padding"], "{unit:?}: {a} and {b}");
        }
        // The share of padding is there, and a share; packing leaves less of it than a text a row of the longest would.
        let padding: Vec<f64> = whole.iter().map(|step| step["padding"].as_f64().unwrap()).collect();
        let mean = padding.iter().sum::<f64>() / padding.len() as f64;
        assert!(padding.iter().all(|share| (0.0..1.0).contains(share)) && mean > 0.0 && mean < 0.3, "{unit:?}: {mean}");
        let all = events(&said, "end")[0]["padding"].as_f64().unwrap();
        assert!(all > 0.0 && all < 0.3, "{unit:?}: {all}");
    }
}

#[test]
fn what_can_t_be_packed_or_is_no_text_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    unequal(folder.path());
    let refused = |more: &[&str], words: &str| {
        let said = refusal(&mut train_lines(folder.path(), "refused", "2", more));
        assert!(said.contains(words), "{more:?}: {said}");
        assert!(!folder.path().join("refused/checkpoints").exists(), "{more:?}: a run was begun");
    };
    refused(&["--pack", "lines", "--bucket", "lines"], "cannot be used with");
    refused(&["--pack", "words"], "invalid value 'words'");
    let recurs = ["--pack", "lines", "--mor", "2"];
    refused(&recurs, "recursions choose among the tokens of a row");
    // With a sequence for each text they do.
    succeed(&mut train_lines(folder.path(), "recurs", "2", &["--bucket", "lines", "--mor", "2"]));
    // A run stays with its texts.
    succeed(&mut train_lines(folder.path(), "packed", "2", &["--pack", "lines"]));
    for (more, words) in
        [(["--bucket", "lines"], "the run began"), (["--pack", "paragraphs"], "the run began with --pack lines")]
    {
        let said = refusal(&mut train_lines(folder.path(), "packed", "4", &[&["--resume"], &more[..]].concat()));
        assert!(said.contains(words), "{more:?}: {said}");
    }
    fs::write(folder.path().join("lines.txt"), "a\nb\n\n").unwrap();
    for unit in UNEQUAL {
        refused(&unit, "there is no text of two tokens or more");
    }
}
