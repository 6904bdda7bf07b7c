//! Examples that a rule makes; held out are names and values.

use rand::Rng;
use rand::seq::IndexedRandom;
use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};

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

pub(super) fn entities(random: &mut ChaCha8Rng, held_out: bool) -> Value {
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

pub(super) fn answers(random: &mut ChaCha8Rng, held_out: bool) -> Value {
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

pub(super) fn dates(random: &mut ChaCha8Rng, held_out: bool) -> Value {
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
pub(super) fn records(random: &mut ChaCha8Rng, held_out: bool) -> Value {
    let (who, place) = (name(random, held_out), name(random, held_out));
    let (trade, year) = (one(random, &TRADES), random.random_range(1800..2000));
    let source = json!({"name": who, "born": year, "place": place, "trade": trade}).to_string();
    json!({"source": source, "target": format!("{who}, a {trade} of {place}, was born in {year}.")})
}

/// A line of a table, and a sentence of it.
pub(super) fn table(random: &mut ChaCha8Rng, held_out: bool) -> Value {
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
pub(super) fn mail(random: &mut ChaCha8Rng, held_out: bool) -> Value {
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
pub(super) fn coref(random: &mut ChaCha8Rng, held_out: bool) -> Value {
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
