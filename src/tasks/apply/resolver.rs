//! Which mentions in a text are of the same.

use super::classifier::names_of;
use super::{row, softmax};
use crate::error::{Error, Result};
use crate::gpu::Gpu;
use crate::io::Tokenizer;
use crate::models::{EncoderHead, Model};
use crate::program::Weights;
use crate::tasks::data::CorefExample;
use crate::tasks::windows::truncated;
use crate::tasks::{Reader, Reads, Row, Target};
use std::cmp::Reverse;
use std::ops::Range;
use std::sync::Arc;

/// What stands around the earlier and the later of two mentions; the tokenizers of encoders know these marks.
const MARKS: [[&str; 2]; 2] = [["[", "]"], ["*", "*"]];
/// What stands in place of the text between two mentions that are far apart.
const GAP: &str = " ... ";
/// Tokens that marks, gap and special tokens may take.
const RESERVED: usize = 12;

/// What was found about the mentions of a text.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Resolved {
    /// For each mention the earlier one that it is most probably the same as, and how probable that is; none above one half: it is new.
    pub antecedents: Vec<Option<(usize, f64)>>,
    /// The mentions of each entity, by their numbers; those of one mention as well.
    pub clusters: Vec<Vec<usize>>,
}

/// An encoder with the classes `different` and `same` of two mentions, and its tokenizer.
///
/// The model reads the text with the earlier mention in brackets and the later between stars, `[Anna] said that *she* ...`; of a long text what
/// stands around them, with `...` for what is left out between them. Each mention is compared with the `window` mentions in front of it. The best
/// of them above one half is its antecedent, and mentions that antecedents join are a cluster (Soon, Ng and Lim 2001; mentions ranked as by Denis
/// and Baldridge 2008).
#[derive(Debug)]
pub struct Resolver {
    reader: Reader,
    tokenizer: Tokenizer,
    same: usize,
    longest: usize,
    window: usize,
}

impl Resolver {
    /// The names of the classes.
    pub const LABELS: [&str; 2] = ["different", "same"];
    /// Mentions in front of each that it is compared with where nothing else is said.
    pub const WINDOW: usize = 20;

    /// Makes a model ready.
    ///
    /// # Errors
    /// [`Error::Input`] if the model does not have these classes.
    pub fn new(
        gpu: &Gpu,
        model: Arc<dyn Model>,
        weights: &Weights,
        tokenizer: &Tokenizer,
        longest: usize,
    ) -> Result<Self> {
        let names = match model.encoder().map(crate::models::Encoder::head_kind) {
            Some(EncoderHead::SequenceClassification { labels }) => names_of(model.as_ref(), labels),
            _ => Vec::new(),
        };
        let same = names.iter().position(|name| name == Self::LABELS[1]).filter(|_| names.len() == 2);
        let missing =
            || Error::input("model", "it does not tell mentions apart: train it for that (train --task coref)");
        let (same, longest) = (same.ok_or_else(missing)?, longest.min(model.dimensions().max_position));
        if longest < 2 * RESERVED {
            let message =
                format!("{longest} tokens are too few to see two mentions: at least {} are needed", 2 * RESERVED);
            return Err(Error::input("context", message));
        }
        let reader = Reader::new(gpu, model, weights, Reads::Classes)?;
        Ok(Self { reader, tokenizer: tokenizer.clone(), same, longest, window: Self::WINDOW })
    }

    /// The same, where each mention is compared with so many in front of it.
    #[must_use]
    pub fn with_window(self, window: usize) -> Self {
        Self { window, ..self }
    }

    /// The rows of an example: each mention with each of those in front of it.
    ///
    /// # Errors
    /// [`Error::Input`] if the example has no clusters; those of the tokenizer.
    pub fn rows(&self, example: &CorefExample) -> Result<Vec<Row>> {
        if example.clusters.is_none() {
            return Err(Error::input("clusters", "they are missing: there is nothing to learn"));
        }
        let of = example.cluster_of();
        let places = self.places(&example.text)?;
        let pair = |(first, second): (usize, usize)| {
            let same = of[first].is_some() && of[first] == of[second];
            let mut shares = vec![0.0; 2];
            shares[if same { self.same } else { 1 - self.same }] = 1.0;
            self.row(&example.text, &places, [first, second].map(|at| &example.mentions[at]), Target::Shares(shares))
        };
        self.pairs(example.mentions.len()).map(pair).collect()
    }

    /// What the mentions of texts, in bytes and in the order of their beginnings, are; `done` is told how many pairs of them have been read.
    ///
    /// # Errors
    /// [`Error::Input`] if a mention is no part of its text; those of the tokenizer and of [`Reader::read_at`].
    pub fn resolve(&mut self, texts: &[(&str, &[Range<usize>])], done: &mut dyn FnMut(usize)) -> Result<Vec<Resolved>> {
        let mut rows = Vec::new();
        for (text, mentions) in texts {
            if let Some(wrong) = mentions.iter().find(|mention| text.get((*mention).clone()).is_none_or(str::is_empty))
            {
                let message = format!("bytes {} to {} are no part of the text", wrong.start, wrong.end);
                return Err(Error::input("mentions", message));
            }
            let places = self.places(text)?;
            for (first, second) in self.pairs(mentions.len()) {
                rows.push(self.row(text, &places, [&mentions[first], &mentions[second]], Target::None)?);
            }
        }
        let read: Vec<(&Row, usize)> = rows.iter().map(|row| (row, 0)).collect();
        let logits = self.reader.read_at(&read, done)?;
        let mut scores = logits.iter().map(|logits| softmax(logits).get(self.same).copied().unwrap_or(0.0));
        let mut found = Vec::with_capacity(texts.len());
        for (_, mentions) in texts {
            let mut antecedents: Vec<Option<(usize, f64)>> = vec![None; mentions.len()];
            for ((first, second), score) in self.pairs(mentions.len()).zip(scores.by_ref()) {
                // Of equals the nearer.
                if score > 0.5 && antecedents[second].is_none_or(|(_, best)| score >= best) {
                    antecedents[second] = Some((first, score));
                }
            }
            let clusters = joined(&antecedents);
            found.push(Resolved { antecedents, clusters });
        }
        Ok(found)
    }

    /// Each mention with those in front of it, the furthest first.
    fn pairs(&self, count: usize) -> impl Iterator<Item = (usize, usize)> + use<> {
        let window = self.window;
        (0..count).flat_map(move |second| (second.saturating_sub(window)..second).map(move |first| (first, second)))
    }

    /// The bytes of each token of a text.
    fn places(&self, text: &str) -> Result<Vec<(usize, usize)>> {
        let encoding = self.tokenizer.encode_for_model(text, None)?;
        let own = encoding.offsets.iter().zip(&encoding.sequences).filter(|(_, sequence)| sequence.is_some());
        Ok(own.map(|(place, _)| *place).collect())
    }

    fn row(&self, text: &str, places: &[(usize, usize)], mentions: [&Range<usize>; 2], target: Target) -> Result<Row> {
        let marked = marked(text, places, mentions, self.longest - RESERVED);
        let encoding = self.tokenizer.encode_for_model(&marked, None)?;
        Ok(row(truncated(&encoding, self.longest), false, target))
    }
}

/// The mentions that antecedents join, each in the order of the text.
fn joined(antecedents: &[Option<(usize, f64)>]) -> Vec<Vec<usize>> {
    let mut clusters: Vec<Vec<usize>> = Vec::new();
    let mut of = vec![0; antecedents.len()];
    for (mention, antecedent) in antecedents.iter().enumerate() {
        // An antecedent stands in front, so that its cluster is known.
        of[mention] = antecedent.map_or(clusters.len(), |(first, _)| of[first]);
        match clusters.get_mut(of[mention]) {
            Some(cluster) => cluster.push(mention),
            None => clusters.push(vec![mention]),
        }
    }
    clusters
}

/// A text with two marked mentions, of at most about `most` of its tokens, whose places are given: what stands around the mentions, or, where they
/// are far apart, around each of them.
fn marked(text: &str, places: &[(usize, usize)], [first, second]: [&Range<usize>; 2], most: usize) -> String {
    let token_at = |byte: usize| places.partition_point(|(_, end)| *end <= byte);
    let tokens = |mention: &Range<usize>| token_at(mention.start)..token_at(mention.end - 1) + 1;
    let (a, b) = (tokens(first), tokens(second));
    let whole = a.start..a.end.max(b.end);
    // From the beginning of a token to the end of another.
    let bytes = |tokens: Range<usize>| {
        let start = places.get(tokens.start).map_or(0, |place| place.0);
        let end = places.get(tokens.end.saturating_sub(1)).map_or(text.len(), |place| place.1);
        let start = if tokens.start == 0 { 0 } else { floor(text, start) };
        start..if tokens.end >= places.len() { text.len() } else { floor(text, end) }
    };
    let around = |tokens: &Range<usize>, most: usize| {
        let left = most.saturating_sub(tokens.len());
        let end = (tokens.end + left / 2).min(places.len());
        let start = tokens.start.saturating_sub(left - left / 2).max(end.saturating_sub(most.max(1)));
        let end = if start == 0 { most.min(places.len()).max(end) } else { end };
        bytes(start..end)
    };
    let parts = match whole.len() <= most {
        true => vec![around(&whole, most)],
        false => vec![around(&a, most / 2), around(&b, most / 2)],
    };
    let mut marks: Vec<(usize, u8, Reverse<usize>, &str)> = Vec::new();
    for (mention, [open, close]) in [first, second].into_iter().zip(MARKS) {
        // Ends come before beginnings, and what is inside of another ends before it and begins after it.
        marks.push((mention.start, 1, Reverse(mention.end), open));
        marks.push((mention.end, 0, Reverse(mention.start), close));
    }
    marks.sort();
    let mut made = String::new();
    let mut written = 0;
    for (number, part) in parts.into_iter().enumerate() {
        // Parts may touch.
        let mut at = part.start.max(written);
        if number > 0 && part.start > written {
            made.push_str(GAP);
        }
        for (place, .., mark) in &marks {
            let inside = *place >= at && *place <= part.end && (number == 0 || *place > written);
            if inside {
                made.push_str(text.get(at..*place).unwrap_or_default());
                made.push_str(mark);
                at = *place;
            }
        }
        made.push_str(text.get(at..part.end.max(at)).unwrap_or_default());
        written = part.end.max(written);
    }
    made.trim().to_owned()
}

/// The border of a character at or in front of a byte.
fn floor(text: &str, mut at: usize) -> usize {
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    at
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Words as tokens.
    fn places(text: &str) -> Vec<(usize, usize)> {
        let mut at = 0;
        let place = |word: &str| {
            let start = at + text[at..].find(word).unwrap();
            at = start + word.len();
            (start, at)
        };
        text.split_whitespace().map(place).collect()
    }

    fn mark(text: &str, first: &str, second: &str, most: usize) -> String {
        let range = |part: &str| {
            let start = text.find(part).unwrap();
            start..start + part.len()
        };
        marked(text, &places(text), [&range(first), &range(second)], most)
    }

    #[test]
    fn both_mentions_are_marked_and_far_ones_brought_near() {
        let text = "Anna Smith 🙂 said to Bob that she left";
        assert_eq!(mark(text, "Anna Smith", "she", 20), "[Anna Smith] 🙂 said to Bob that *she* left");
        assert_eq!(mark(text, "Anna Smith", "Smith", 20), "[Anna *Smith*] 🙂 said to Bob that she left");
        assert_eq!(mark(text, "Bob", "that", 4), "to [Bob] *that* she");
        let long = format!("zero one Anna {}she went home", "x ".repeat(50));
        let made = mark(&long, "Anna", "she", 10);
        assert_eq!(made, "zero one [Anna] x x ... x x *she* went home");
        let far = format!("{} Anna {} she", "y ".repeat(30), "x ".repeat(30));
        let made = mark(&far, "Anna", "she", 8);
        assert!(made.contains("[Anna]") && made.contains("*she*") && made.split_whitespace().count() <= 10, "{made}");
        // A mention that is longer than its room loses its beginning, and the other one stays.
        assert!(mark(&long, &long[9..60], "she", 10).contains("*she*"));
    }

    #[test]
    fn antecedents_join_mentions() {
        let antecedents = [None, None, Some((0, 0.9)), Some((1, 0.8)), Some((2, 0.7)), None];
        assert_eq!(joined(&antecedents), [vec![0, 2, 4], vec![1, 3], vec![5]]);
        assert!(joined(&[]).is_empty());
    }
}
