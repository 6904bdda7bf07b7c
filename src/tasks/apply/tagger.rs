//! Labelled parts of texts.

use super::classifier::names_of;
use super::{row, softmax};
use crate::error::{Error, Result};
use crate::gpu::Gpu;
use crate::io::{Encoding, Tokenizer};
use crate::models::{EncoderHead, Model};
use crate::program::Weights;
use crate::tasks::data::{Span, SpanExample};
use crate::tasks::metrics::entities;
use crate::tasks::windows::windows;
use crate::tasks::{Reader, Reads, Row, Target};
use std::ops::Range;
use std::sync::Arc;

/// The label of tokens that do not count.
const IGNORED: i32 = -100;
/// Tokens that neighbouring windows of a long text share.
const SHARED: usize = 32;

/// A labelled part of a text.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Tagged {
    /// Where it lies, in bytes, and what it is.
    pub span: Span,
    /// The mean probability of its words' tags.
    pub score: f64,
}

/// An encoder with a tag for each token, and its tokenizer.
///
/// A word's tag is that of its first token. Tags are `B-`, `I-` (with `E-` and `S-` where the model has them) and a label, and `O` outside; tags
/// without such a front are labels of single words. A text longer than `longest` tokens is read in windows that overlap, and each word where it
/// stands furthest from an end.
#[derive(Debug)]
pub struct Tagger {
    reader: Reader,
    tokenizer: Tokenizer,
    tags: Vec<String>,
    longest: usize,
}

impl Tagger {
    /// Makes a model ready.
    ///
    /// # Errors
    /// [`Error::Input`] if the model has no classes of tokens.
    pub fn new(
        gpu: &Gpu,
        model: Arc<dyn Model>,
        weights: &Weights,
        tokenizer: &Tokenizer,
        longest: usize,
    ) -> Result<Self> {
        let Some(EncoderHead::TokenClassification { labels }) = model.encoder().map(crate::models::Encoder::head_kind)
        else {
            return Err(Error::input("model", "it has no tags of tokens: train it for them (train --task tag)"));
        };
        let (tags, longest) = (names_of(model.as_ref(), labels), longest.min(model.dimensions().max_position));
        Ok(Self {
            reader: Reader::new(gpu, model, weights, Reads::Classes)?,
            tokenizer: tokenizer.clone(),
            tags,
            longest,
        })
    }

    /// The tags.
    #[must_use]
    pub fn tags(&self) -> &[String] {
        &self.tags
    }

    /// The rows of a text with labelled parts: its windows.
    ///
    /// # Errors
    /// [`Error::Input`] for a label that is not the model's, or parts that overlap; those of the tokenizer.
    pub fn rows(&self, example: &SpanExample) -> Result<Vec<Row>> {
        let (words, tagged) = (example.word_ranges(), example.to_tags()?);
        let id = |tag: &String| {
            let known = self.tags.iter().position(|known| known == tag);
            known.map(|id| id as i32).ok_or_else(|| {
                Error::input("label", format!("{tag} is not among the model's tags: {}", self.tags.join(", ")))
            })
        };
        let ids: Vec<i32> = tagged.tags.iter().map(id).collect::<Result<_>>()?;
        let encoding = self.tokenizer.encode_for_model(&example.text, None)?;
        let mut labels = vec![IGNORED; encoding.ids.len()];
        for (token, word) in first_tokens(&encoding, &example.text, &words) {
            labels[token] = ids.get(word).copied().unwrap_or(IGNORED);
        }
        let places: Vec<usize> = (0..encoding.ids.len()).filter(|&at| encoding.sequences[at].is_some()).collect();
        let windows = windows(&encoding, 0, self.longest, SHARED)?;
        let rows = windows.into_iter().map(|window| {
            let mut own = vec![IGNORED; window.tokens.ids.len()];
            for (at, token) in window.inside.clone().zip(window.first..) {
                own[at] = places.get(token).and_then(|&place| labels.get(place)).copied().unwrap_or(IGNORED);
            }
            row(window.tokens, false, Target::Tokens(own))
        });
        Ok(rows.collect())
    }

    /// The tag of each word of a text ([`SpanExample::word_ranges`]), with its probability.
    ///
    /// # Errors
    /// Those of the tokenizer and of [`Reader::read_at`].
    pub fn tag_words(
        &mut self,
        texts: &[(&str, &[Range<usize>])],
        done: &mut dyn FnMut(usize),
    ) -> Result<Vec<Vec<(String, f64)>>> {
        let mut parts = Vec::new();
        let mut encodings = Vec::new();
        for (number, (text, _)) in texts.iter().enumerate() {
            let encoding = self.tokenizer.encode_for_model(text, None)?;
            let found = windows(&encoding, 0, self.longest, SHARED)?;
            let found = found.into_iter().filter(|window| !window.tokens.ids.is_empty());
            parts.extend(
                found.map(|window| (number, window.inside, window.first, row(window.tokens, false, Target::None))),
            );
            encodings.push(encoding);
        }
        let rows: Vec<(&Row, usize)> = parts.iter().map(|(.., row)| (row, 0)).collect();
        let logits = self.reader.read_at(&rows, &mut |read| done(read * texts.len() / rows.len().max(1)))?;
        // The logits of each token of a text, from the window in which it is furthest from an end.
        let counts = encodings.iter().map(|encoding| encoding.sequences.iter().flatten().count());
        let mut best: Vec<Vec<(usize, &[f32])>> = counts.map(|count| vec![(0, [].as_slice()); count]).collect();
        for ((number, inside, first, _), logits) in parts.iter().zip(&logits) {
            let all: Vec<&[f32]> = logits.chunks_exact(self.tags.len().max(1)).collect();
            for (at, token) in inside.clone().zip(*first..) {
                let room = 1 + (at - inside.start).min(inside.end - 1 - at);
                if let (Some(entry), Some(logits)) = (best[*number].get_mut(token), all.get(at))
                    && room > entry.0
                {
                    *entry = (room, logits);
                }
            }
        }
        let mut tagged = Vec::new();
        for ((encoding, best), (text, words)) in encodings.iter().zip(&best).zip(texts) {
            // Words of which nothing is left are outside.
            let mut tags = vec![("O".to_owned(), 1.0); words.len()];
            let places: Vec<usize> = (0..encoding.ids.len()).filter(|&at| encoding.sequences[at].is_some()).collect();
            for (token, word) in first_tokens(encoding, text, words) {
                let Some((_, logits)) = places.binary_search(&token).ok().and_then(|at| best.get(at)) else { continue };
                let shares = softmax(logits);
                let most = shares
                    .iter()
                    .enumerate()
                    .fold((0, 0.0), |best, (id, share)| if *share > best.1 { (id, *share) } else { best });
                if let (Some(tag), Some(entry)) = (self.tags.get(most.0), tags.get_mut(word)) {
                    *entry = (tag.clone(), most.1);
                }
            }
            tagged.push(tags);
        }
        Ok(tagged)
    }

    /// The labelled parts of texts, in their order.
    ///
    /// # Errors
    /// As [`Tagger::tag_words`].
    pub fn tag(&mut self, texts: &[&str], done: &mut dyn FnMut(usize)) -> Result<Vec<Vec<Tagged>>> {
        let words: Vec<Vec<Range<usize>>> = texts.iter().map(|text| word_ranges(text)).collect();
        let pairs: Vec<(&str, &[Range<usize>])> = texts.iter().copied().zip(words.iter().map(Vec::as_slice)).collect();
        let tagged = self.tag_words(&pairs, done)?;
        Ok(tagged.iter().zip(&words).map(|(tags, words)| spans(tags, words)).collect())
    }
}

/// The words of a text without labels.
fn word_ranges(text: &str) -> Vec<Range<usize>> {
    SpanExample { text: text.to_owned(), spans: Vec::new() }.word_ranges()
}

/// The parts of a text that the tags of its words mark.
fn spans(tags: &[(String, f64)], words: &[Range<usize>]) -> Vec<Tagged> {
    let names: Vec<&str> = tags.iter().map(|(tag, _)| tag.as_str()).collect();
    let found = entities(&names).into_iter().filter_map(|entity| {
        let (first, last) = (words.get(entity.first)?, words.get(entity.last)?);
        let scores = tags.get(entity.first..=entity.last)?;
        let score = scores.iter().map(|(_, score)| score).sum::<f64>() / scores.len().max(1) as f64;
        Some(Tagged { span: Span { start: first.start, end: last.end, label: entity.class }, score })
    });
    found.collect()
}

/// The first token of each word: tokens' places with words' numbers. A token that stands for several words is the first one's.
fn first_tokens(encoding: &Encoding, text: &str, words: &[Range<usize>]) -> Vec<(usize, usize)> {
    let mut found = Vec::new();
    let mut next = 0;
    for (token, &(start, end)) in encoding.offsets.iter().enumerate() {
        if encoding.sequences.get(token) != Some(&Some(0)) || start >= end {
            continue;
        }
        // Blanks may be part of the token behind them.
        let blanks = text.get(start..end).map_or(0, |part| part.len() - part.trim_start().len());
        let start = start + blanks;
        while words.get(next).is_some_and(|word| word.end <= start) {
            next += 1;
        }
        if words.get(next).is_some_and(|word| word.start < end) && found.last().is_none_or(|(_, word)| *word != next) {
            found.push((token, next));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_has_the_token_that_it_begins_with() {
        let text = "Jane Bennet's \u{a0}\u{1f600}hat";
        let words = word_ranges(text);
        let shown: Vec<&str> = words.iter().map(|word| &text[word.clone()]).collect();
        assert_eq!(shown, ["Jane", "Bennet", "'", "s", "\u{1f600}", "hat"]);
        let tokenizer = Tokenizer::train_bpe("Jane Jane Jane hat hat Bennet's", 262).unwrap();
        let encoding = tokenizer.encode_for_model(text, None).unwrap();
        let first = first_tokens(&encoding, text, &words);
        assert_eq!(first.iter().map(|(_, word)| *word).collect::<Vec<_>>(), [0, 1, 2, 3, 4, 5]);
        for (token, word) in first {
            let (start, end) = encoding.offsets[token];
            assert!(start <= words[word].start && words[word].start < end, "{:?} {token}", words[word]);
        }
    }

    #[test]
    fn tags_of_words_become_parts_of_the_text() {
        let text = "Mr Darcy met Jane in Kent";
        let words = word_ranges(text);
        let tags = ["O", "B-NAME", "O", "B-NAME", "O", "B-PLACE"].map(|tag| (tag.to_owned(), 0.5));
        let found: Vec<(&str, String)> =
            spans(&tags, &words).iter().map(|x| (&text[x.span.start..x.span.end], x.span.label.clone())).collect();
        let wanted = [("Darcy", "NAME"), ("Jane", "NAME"), ("Kent", "PLACE")].map(|(a, b)| (a, b.to_owned()));
        assert_eq!(found, wanted);
    }
}
