//! Texts as rows of tokens; those that are longer than a model reads: cut off, or in windows that overlap.

use super::rows::{Row, Target};
use crate::error::{Error, Result};
use crate::io::Encoding;
use std::ops::Range;

/// The tokens at these places.
fn select(encoding: &Encoding, places: impl Iterator<Item = usize> + Clone) -> Encoding {
    fn some<T: Copy>(all: &[T], places: impl Iterator<Item = usize>) -> Vec<T> {
        places.filter_map(|place| all.get(place).copied()).collect()
    }
    Encoding {
        ids: some(&encoding.ids, places.clone()),
        type_ids: some(&encoding.type_ids, places.clone()),
        offsets: some(&encoding.offsets, places.clone()),
        sequences: some(&encoding.sequences, places.clone()),
        words: some(&encoding.words, places),
    }
}

/// The row of a text with what is to be said about it.
pub(super) fn row(encoding: Encoding, parts: bool, target: Target) -> Row {
    let Encoding { ids, type_ids, .. } = encoding;
    Row { types: if parts { type_ids } else { Vec::new() }, ids, target }
}

/// The tokens that are of one of the texts.
fn of_text(encoding: &Encoding, text: usize) -> Vec<usize> {
    (0..encoding.ids.len()).filter(|&place| encoding.sequences.get(place) == Some(&Some(text))).collect()
}

/// A text, or two, of at most `longest` tokens, special ones included: the longer of two loses its last tokens first.
pub(super) fn truncated(encoding: &Encoding, longest: usize) -> Encoding {
    let surplus = encoding.ids.len().saturating_sub(longest);
    if surplus == 0 {
        return encoding.clone();
    }
    let texts = [of_text(encoding, 0), of_text(encoding, 1)];
    let mut kept = [texts[0].len(), texts[1].len()];
    for _ in 0..surplus {
        let longer = usize::from(kept[1] >= kept[0] && kept[1] > 0);
        kept[longer] = kept[longer].saturating_sub(1);
    }
    let dropped = |place: usize| {
        texts
            .iter()
            .zip(kept)
            .any(|(places, kept)| places.get(kept..).is_some_and(|rest| rest.binary_search(&place).is_ok()))
    };
    select(encoding, (0..encoding.ids.len()).filter(|&place| !dropped(place)).take(longest))
}

/// A text in windows of at most `longest` tokens.
#[derive(Clone, Debug)]
pub(super) struct Window {
    /// Its tokens with the special ones, and in front of or behind them another text.
    pub(super) tokens: Encoding,
    /// Which of them are the text's.
    pub(super) inside: Range<usize>,
    /// The first of these, counted among the tokens of the whole text.
    #[cfg_attr(not(feature = "files"), expect(dead_code, reason = "only applications that read files ask for it"))]
    pub(super) first: usize,
}

/// The text `text` of an encoding in windows of at most `longest` tokens, of which neighbours share `shared`; another text is in all of them,
/// whole.
///
/// # Errors
/// [`Error::Input`] if the other text leaves no room.
pub(super) fn windows(encoding: &Encoding, text: usize, longest: usize, shared: usize) -> Result<Vec<Window>> {
    let places = of_text(encoding, text);
    let others = encoding.ids.len() - places.len();
    let room = longest.saturating_sub(others);
    if room == 0 && !places.is_empty() {
        let message = format!(
            "it has {others} tokens with the special ones, and {longest} are read at a time, so that none is left for the text it is about: \
             shorten it, or give a longer context (--context)"
        );
        return Err(Error::input("question", message));
    }
    let (first, last) =
        (places.first().copied().unwrap_or(encoding.ids.len()), places.last().map_or(0, |last| last + 1));
    let step = room.saturating_sub(shared).max(1);
    let mut found = Vec::new();
    let mut begin = 0;
    loop {
        let end = (begin + room).min(places.len());
        let front = 0..first.min(encoding.ids.len());
        let behind = last.max(front.end)..encoding.ids.len();
        let part = places.get(begin..end).unwrap_or_default();
        let all = front.clone().chain(part.iter().copied()).chain(behind);
        let inside = front.len()..front.len() + part.len();
        found.push(Window { tokens: select(encoding, all), inside, first: begin });
        if end >= places.len() {
            return Ok(found);
        }
        begin += step;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// [CLS] a… [SEP] b… [SEP]
    fn pair(first: usize, second: usize) -> Encoding {
        let sequences: Vec<Option<usize>> = [None]
            .into_iter()
            .chain(vec![Some(0); first])
            .chain([None])
            .chain(vec![Some(1); second])
            .chain([None])
            .collect();
        let count = sequences.len();
        Encoding {
            ids: (0..count as u32).collect(),
            type_ids: vec![0; count],
            offsets: vec![(0, 0); count],
            sequences,
            words: vec![None; count],
        }
    }

    #[test]
    fn the_longer_text_loses_its_end_and_special_tokens_stay() {
        assert_eq!(truncated(&pair(3, 6), 8).ids, [0, 1, 2, 3, 4, 5, 6, 11]);
        assert_eq!(truncated(&pair(3, 6), 20).ids.len(), 12);
        assert_eq!(truncated(&pair(9, 0), 5).ids, [0, 1, 2, 10, 11]);
        assert_eq!(truncated(&pair(2, 2), 2).ids.len(), 2);
    }

    #[test]
    fn windows_hold_every_token_of_the_text_and_all_of_the_other() {
        let all = pair(2, 10);
        let found = windows(&all, 1, 9, 2).unwrap();
        assert_eq!(found.iter().map(|window| window.first).collect::<Vec<_>>(), [0, 2, 4, 6]);
        for window in &found {
            assert_eq!((window.tokens.ids.len(), window.inside.clone()), (9, 4..8));
            assert_eq!(window.tokens.ids[..4], [0, 1, 2, 3]);
            assert_eq!(window.tokens.ids[4], 4 + window.first as u32);
            assert_eq!(window.tokens.ids[8], 14);
        }
        assert_eq!(windows(&pair(2, 3), 1, 9, 2).unwrap().len(), 1);
        assert!(windows(&all, 1, 5, 2).unwrap_err().to_string().contains("shorten it"));
        assert_eq!(windows(&pair(2, 0), 1, 5, 2).unwrap().len(), 1, "an empty text has one window");
    }
}
