//! Mentions in a text by a simple rule, where nobody says them.

use std::collections::HashSet;
use std::ops::Range;

/// Words that stand for a person or a thing, in English.
const PRONOUNS: [&str; 25] = [
    "he",
    "him",
    "his",
    "himself",
    "she",
    "her",
    "hers",
    "herself",
    "it",
    "its",
    "itself",
    "they",
    "them",
    "their",
    "theirs",
    "themselves",
    "i",
    "me",
    "my",
    "mine",
    "myself",
    "you",
    "your",
    "we",
    "us",
];
/// Words in capitals that are no names where a sentence begins.
const OPENING: [&str; 24] = [
    "the", "a", "an", "this", "that", "these", "those", "in", "on", "at", "but", "and", "or", "if", "when", "while",
    "after", "before", "then", "there", "what", "who", "how", "why",
];

/// The names and pronouns of a text, in bytes. A pronoun is one of a list of English ones. A name is a run of words that begin with a capital
/// letter, with blanks or hyphens between them; a single word at the beginning of a sentence counts only if it begins so elsewhere as well, and
/// articles and the like do not begin a name.
#[must_use]
pub fn find_mentions(text: &str) -> Vec<Range<usize>> {
    let words = words(text);
    let word = |range: &Range<usize>| text.get(range.clone()).unwrap_or_default();
    let is_capital = |range: &Range<usize>| word(range).chars().next().is_some_and(char::is_uppercase);
    let begins = |at: usize| {
        let front = at.checked_sub(1).and_then(|before| words.get(before)).map_or(0, |before| before.end);
        let between = text.get(front..words[at].start).unwrap_or_default();
        at == 0 || between.contains(['.', '!', '?', ':', '"', '“', '”', '\n'])
    };
    let known: HashSet<&str> =
        (0..words.len()).filter(|&at| is_capital(&words[at]) && !begins(at)).map(|at| word(&words[at])).collect();
    let (mut found, mut at) = (Vec::new(), 0);
    while at < words.len() {
        let lower = word(&words[at]).to_lowercase();
        if PRONOUNS.contains(&lower.as_str()) {
            found.push(words[at].clone());
            at += 1;
            continue;
        }
        let opening = begins(at) && OPENING.contains(&lower.as_str());
        if !is_capital(&words[at]) || opening {
            at += 1;
            continue;
        }
        let mut end = at + 1;
        while end < words.len() && is_capital(&words[end]) {
            let between = text.get(words[end - 1].end..words[end].start).unwrap_or_default();
            let pronoun = PRONOUNS.contains(&word(&words[end]).to_lowercase().as_str());
            if pronoun || !between.chars().all(|c| c == '-' || c.is_whitespace() && c != '\n') {
                break;
            }
            end += 1;
        }
        if end > at + 1 || !begins(at) || known.contains(word(&words[at])) {
            found.push(words[at].start..words[end - 1].end);
        }
        at = end;
    }
    found
}

/// Runs of letters and digits.
fn words(text: &str) -> Vec<Range<usize>> {
    let mut found: Vec<Range<usize>> = Vec::new();
    for (at, c) in text.char_indices().filter(|(_, c)| c.is_alphanumeric()) {
        let end = at + c.len_utf8();
        match found.last_mut() {
            Some(word) if word.end == at => word.end = end,
            _ => found.push(at..end),
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_pronouns_are_found() {
        let parts =
            |text: &'static str| -> Vec<&str> { find_mentions(text).into_iter().map(|range| &text[range]).collect() };
        let text = "The old man met Anna\u{a0}Smith 🙂. Walking home, he told her of New York. Anna smiled; It's Jean-Luc, Émile said.";
        assert_eq!(parts(text), ["Anna\u{a0}Smith", "he", "her", "New York", "Anna", "It", "Jean-Luc", "Émile"]);
        assert_eq!(parts("Nobody came."), [""; 0]);
        assert!(parts("").is_empty() && parts("🙂\u{a0}\n").is_empty());
    }
}
