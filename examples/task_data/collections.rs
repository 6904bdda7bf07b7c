//! Examples of public collections.

use super::Made;
use rand::Rng;
use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};
use std::collections::{HashMap, HashSet};
use std::error::Error;
use std::fs;

/// Sentences of texts, and the same with a mistake: a word twice, two in the wrong order, one missing its last letter, a capital lost.
pub(super) fn grammar(random: &mut ChaCha8Rng, sources: &[String]) -> Made {
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

/// Sentences of novels with their names: words that a novel has in the middle of sentences with a capital letter, thrice at least, and never
/// without. A title in front belongs to a name.
pub(super) fn names(sources: &[String]) -> Result<[Vec<Value>; 2], Box<dyn Error>> {
    const TITLES: [&str; 9] = ["Mr.", "Mrs.", "Miss", "Lady", "Sir", "Captain", "Colonel", "Dr.", "Lord"];
    const OTHERS: [&str; 4] = ["God", "Heaven", "English", "French"];
    let mut parts = [Vec::new(), Vec::new()];
    for (number, source) in sources.iter().enumerate() {
        let text = fs::read_to_string(source)?.replace('_', "");
        let words: Vec<&str> = text.split_whitespace().collect();
        let bare = |word: &str| -> String {
            let word = word.trim_matches(|c: char| !c.is_alphabetic());
            word.strip_suffix("'s").unwrap_or(word).to_owned()
        };
        let ends = |word: &str| word.ends_with(['.', '!', '?', ':', '"', '-']) && !TITLES.contains(&word);
        let is_capital = |word: &str| word.starts_with(char::is_uppercase);
        let (mut capital, mut small) = (HashMap::<String, usize>::new(), HashSet::new());
        for pair in words.windows(2) {
            let word = bare(pair[1]);
            if !is_capital(&word) {
                small.insert(word);
            } else if is_capital(pair[1]) && !ends(pair[0]) {
                *capital.entry(word).or_default() += 1;
            }
        }
        let is_name = |word: &str| {
            let plain = bare(word);
            let other =
                TITLES.iter().any(|title| title.trim_end_matches('.') == plain) || OTHERS.contains(&plain.as_str());
            plain.len() > 2
                && !other
                && capital.get(&plain).is_some_and(|n| *n >= 3)
                && !small.contains(&plain.to_lowercase())
        };
        for sentence in words.split_inclusive(|word| ends(word)).filter(|words| (4..=24).contains(&words.len())) {
            let (mut text, mut entities) = (String::new(), Vec::<Value>::new());
            let mut open: Option<(usize, usize)> = None;
            for (at, word) in sentence.iter().enumerate() {
                text += if at == 0 { "" } else { " " };
                let lead = word.len() - word.trim_start_matches(|c: char| !c.is_alphabetic()).len();
                let start = text.chars().count() + word[..lead].chars().count();
                let title = TITLES.contains(&&word[lead..]) && sentence.get(at + 1).is_some_and(|next| is_name(next));
                text += word;
                if title || is_name(word) {
                    let plain = if title { word[lead..].to_owned() } else { bare(word) };
                    let end = start + plain.chars().count();
                    let first = open.map_or(start, |(first, _)| first);
                    open = Some((first, end));
                    // A comma behind a word ends the name.
                    if word[lead..] == plain {
                        continue;
                    }
                }
                entities.extend(open.take().map(|(start, end)| json!({"start": start, "end": end, "label": "NAME"})));
            }
            entities.extend(open.map(|(start, end)| json!({"start": start, "end": end, "label": "NAME"})));
            parts[usize::from(number + 1 == sources.len())].push(json!({"text": text, "entities": entities}));
        }
    }
    Ok(parts)
}

/// Messages of .mo files: short ones of one line and one form.
pub(super) fn gettext(sources: &[String]) -> Made {
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

/// Puts behind each source the translation of the training message that is most like it, as a translation memory finds it: the cosine of
/// their trigrams of characters, weighted by rarity. Source: Bulté and Tezcan, Neural Fuzzy Repair, ACL 2019.
pub(super) fn with_neighbours([train, test]: [Vec<Value>; 2]) -> [Vec<Value>; 2] {
    let of = |example: &Value| -> Vec<String> {
        let padded = format!("  {}  ", example["source"].as_str().unwrap_or_default().to_lowercase());
        let letters: Vec<char> = padded.chars().collect();
        let mut grams: Vec<String> = letters.windows(3).map(|gram| gram.iter().collect()).collect();
        grams.sort_unstable();
        grams.dedup();
        grams
    };
    let mut places: HashMap<String, Vec<usize>> = HashMap::new();
    for (number, example) in train.iter().enumerate() {
        of(example).into_iter().for_each(|gram| places.entry(gram).or_default().push(number));
    }
    let weight = |gram: &String| places.get(gram).map_or(0.0, |at| (train.len() as f64 / at.len() as f64).ln().powi(2));
    let length = |example: &Value| of(example).iter().map(weight).sum::<f64>().sqrt().max(1e-9);
    let lengths: Vec<f64> = train.iter().map(length).collect();
    let nearest = |example: &Value, own: Option<usize>| {
        let mut products = vec![0.0; train.len()];
        for gram in of(example) {
            let weight = weight(&gram);
            places.get(&gram).into_iter().flatten().for_each(|&number| products[number] += weight);
        }
        let found = (0..train.len()).filter(|number| Some(*number) != own);
        let cosine = |number: &usize| products[*number] / lengths[*number];
        let best = found.max_by(|a, b| cosine(a).total_cmp(&cosine(b))).map_or(&Value::Null, |number| &train[number]);
        let text = |of: &Value, part: &str| of[part].as_str().unwrap_or_default().to_owned();
        json!({"source": format!("{} | {}", text(example, "source"), text(best, "target")), "target": example["target"]})
    };
    let first = train.iter().enumerate().map(|(number, example)| nearest(example, Some(number))).collect();
    [first, test.iter().map(|example| nearest(example, None)).collect()]
}

/// Fixtures of npm's sentiment: imdb.json, yelp.json, amazon.json.
pub(super) fn sentiment(sources: &[String]) -> Made {
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
pub(super) fn spam(sources: &[String]) -> Made {
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
