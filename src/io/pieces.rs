//! Long texts in pieces that are encoded one by one.

use crate::error::Result;

/// Bytes of context to both sides of a tried cut.
const NEAR: usize = 256;
/// Positions tried for a cut.
const TRIES: usize = 64;
/// The text in pieces of about `size` bytes whose tokens together are those of the text: each cut is tried on its
/// context. A blank is left out where the tokenizer adds one in front of every text.
pub(super) fn tried_pieces<'t>(
    encode: &dyn Fn(&str) -> Result<Vec<u32>>,
    text: &'t str,
    size: usize,
) -> Result<Vec<&'t str>> {
    let mut pieces = Vec::new();
    let mut rest = text;
    while rest.len() > size {
        let behind = rest.char_indices().filter(|&(at, c)| at >= size && c.is_whitespace());
        let places = behind.filter(|&(at, _)| !rest[..at].ends_with(char::is_whitespace)).map(|(at, _)| at);
        let mut first = None;
        let mut found = None;
        'places: for at in places.take(TRIES) {
            first = first.or(Some((at, 0)));
            let (left, right) = (last_bytes(&rest[..at], NEAR), first_bytes(&rest[at..], NEAR));
            let whole = encode(&format!("{left}{right}"))?;
            let before = encode(left)?;
            for blank in 0..=usize::from(right.starts_with(' ')) {
                if [before.as_slice(), &encode(&right[blank..])?].concat() == whole {
                    found = Some((at, blank));
                    break 'places;
                }
            }
        }
        // Where no cut fits, at most one token per cut is wrong.
        let Some((at, blank)) = found.or(first) else { break };
        pieces.push(&rest[..at]);
        rest = &rest[at + blank..];
    }
    pieces.push(rest);
    Ok(pieces)
}

/// The text in pieces of about `size` bytes, each but the first beginning with the blank that follows a word; where there
/// is none for long, at any character.
pub(super) fn pieces(text: &str, size: usize) -> Vec<&str> {
    let mut pieces = Vec::new();
    let mut rest = text;
    while rest.len() > size {
        let mut before = ' ';
        let mut cut = None;
        for (at, c) in rest.char_indices() {
            if at >= size && c.is_whitespace() && !before.is_whitespace() || at >= 2 * size {
                cut = Some(at);
                break;
            }
            before = c;
        }
        let Some(at) = cut else { break };
        let (piece, after) = rest.split_at(at);
        pieces.push(piece);
        rest = after;
    }
    pieces.push(rest);
    pieces
}

/// The end of a text, of about `count` bytes.
fn last_bytes(text: &str, count: usize) -> &str {
    let mut at = text.len().saturating_sub(count);
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    &text[at..]
}

/// The beginning of a text, of about `count` bytes.
fn first_bytes(text: &str, count: usize) -> &str {
    let mut at = count.min(text.len());
    while !text.is_char_boundary(at) {
        at += 1;
    }
    &text[..at]
}
