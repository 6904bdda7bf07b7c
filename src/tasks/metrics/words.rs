//! The words of a text as sacrebleu's tokenizers part them.

use regex_syntax::hir::{Class, ClassUnicode, HirKind};
use std::sync::LazyLock;

/// How texts become words before n-grams are counted; sacrebleu's names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum BleuTokenizer {
    /// `13a`, of the evaluation mteval-v13a: ASCII punctuation apart, save between digits.
    #[default]
    V13a,
    /// `intl`, of mteval-v14: punctuation and symbols of all scripts apart.
    Intl,
    /// `char`: each character.
    Char,
    /// `none`: at blanks only.
    None,
}

impl BleuTokenizer {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::V13a, Self::Intl, Self::Char, Self::None];

    /// The name in signatures and options.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::V13a => "13a",
            Self::Intl => "intl",
            Self::Char => "char",
            Self::None => "none",
        }
    }

    /// The words of a text.
    pub(super) fn words(self, text: &str) -> Vec<String> {
        let text = text.trim_end_matches(is_blank);
        let parted = match self {
            Self::V13a => v13a(text),
            Self::Intl => international(text),
            Self::Char => return text.chars().filter(|c| !is_blank(*c)).map(String::from).collect(),
            Self::None => text.to_owned(),
        };
        blank_parted(&parted).map(str::to_owned).collect()
    }
}

/// What Python takes for a blank: separators of information as well.
pub(super) fn is_blank(c: char) -> bool {
    c.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&c)
}

/// The parts of a text between blanks.
pub(super) fn blank_parted(text: &str) -> impl Iterator<Item = &str> {
    text.split(is_blank).filter(|part| !part.is_empty())
}

fn v13a(text: &str) -> String {
    let mut text = text.replace("<skipped>", "").replace("-\n", "").replace('\n', " ");
    for (entity, mark) in [("&quot;", "\""), ("&amp;", "&"), ("&lt;", "<"), ("&gt;", ">")] {
        text = text.replace(entity, mark);
    }
    let is_digit = |c: char| c.is_ascii_digit();
    let is_stop = |c: char| c == '.' || c == ',';
    let is_mark = |c: char| c.is_ascii_punctuation() && !matches!(c, '\'' | ',' | '-' | '.');
    let apart = format!(" {} ", each_apart(&text, is_mark));
    let apart = each_pair(&apart, |a, b| !is_digit(a) && is_stop(b), |a, b| [a, ' ', b, ' ']);
    let apart = each_pair(&apart, |a, b| is_stop(a) && !is_digit(b), |a, b| [' ', a, ' ', b]);
    each_pair(&apart, |a, b| is_digit(a) && b == '-', |a, b| [a, ' ', b, ' '])
}

fn international(text: &str) -> String {
    let [number, punctuation, symbol] = [0, 1, 2].map(|i| move |c: char| is_in(&CATEGORIES[i], c));
    let apart = each_pair(text, |a, b| !number(a) && punctuation(b), |a, b| [a, ' ', b, ' ']);
    let apart = each_pair(&apart, |a, b| punctuation(a) && !number(b), |a, b| [' ', a, ' ', b]);
    each_apart(&apart, symbol)
}

/// A text with blanks around some characters.
fn each_apart(text: &str, is: impl Fn(char) -> bool) -> String {
    text.chars()
        .flat_map(|c| if is(c) { [Some(' '), Some(c), Some(' ')] } else { [None, Some(c), None] })
        .flatten()
        .collect()
}

/// A text in which pairs of neighbours, from the left and none overlapping, became something else.
fn each_pair(text: &str, is: impl Fn(char, char) -> bool, becomes: impl Fn(char, char) -> [char; 4]) -> String {
    let mut out = String::with_capacity(text.len() + text.len() / 4);
    let mut rest = text.chars();
    while let Some(a) = rest.next() {
        match rest.clone().next().filter(|b| is(a, *b)) {
            Some(b) => {
                out.extend(becomes(a, b));
                rest.next();
            }
            None => out.push(a),
        }
    }
    out
}

/// Numbers, punctuation, symbols, and marks on other characters.
static CATEGORIES: LazyLock<[ClassUnicode; 4]> = LazyLock::new(|| [r"\pN", r"\pP", r"\pS", r"\pM"].map(category));

/// Whether a character belongs to the one in front of it, such as an accent or a vowel sign.
#[cfg(feature = "files")]
pub(in crate::tasks) fn is_combining(c: char) -> bool {
    is_in(&CATEGORIES[3], c)
}

fn category(pattern: &str) -> ClassUnicode {
    match regex_syntax::parse(pattern).map(regex_syntax::hir::Hir::into_kind) {
        Ok(HirKind::Class(Class::Unicode(class))) => class,
        _ => ClassUnicode::empty(),
    }
}

fn is_in(class: &ClassUnicode, c: char) -> bool {
    let at = class.ranges().partition_point(|range| range.end() < c);
    class.ranges().get(at).is_some_and(|range| range.start() <= c)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_parted_by_each_rule() {
        let words = |rule: BleuTokenizer, text: &str| rule.words(text).join("|");
        assert_eq!(
            words(BleuTokenizer::V13a, "Hi, \"you\": 1,000.5-3 a-b it's x.. \n"),
            "Hi|,|\"|you|\"|:|1,000.5|-|3|a-b|it's|x|.|."
        );
        assert_eq!(words(BleuTokenizer::V13a, "&lt;b&gt; well-\nknown<skipped>"), "<|b|>|wellknown");
        assert_eq!(words(BleuTokenizer::Intl, "«été», 5€ 1,2 天。🤖a"), "«|été|»|,|5|€|1,2|天|。|🤖|a");
        assert_eq!(words(BleuTokenizer::Char, " a\u{1f}b "), "a|b");
        assert_eq!(words(BleuTokenizer::None, " a,\u{a0}b\u{85}c "), "a,|b|c");
        for (class, inside, outside) in
            [(0, "5²Ⅷ٣", "a,€"), (1, ".«。_", "1$+"), (2, "$+€🤖`^", "a.1"), (3, "\u{301}\u{94d}\u{93e}", "a.1")]
        {
            assert!(inside.chars().all(|c| is_in(&CATEGORIES[class], c)), "{inside}");
            assert!(outside.chars().all(|c| !is_in(&CATEGORIES[class], c)), "{outside}");
        }
    }
}
