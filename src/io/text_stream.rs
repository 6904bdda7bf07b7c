//! Tokens in, text out, in whole characters: a character whose bytes are spread over several tokens comes with the last.

use crate::error::Result;
use std::fmt;
use std::sync::Arc;

/// Turns tokens into text.
pub type TextOf = Arc<dyn Fn(&[u32]) -> Result<String> + Send + Sync>;

/// A text that grows with its tokens. Its pieces together are the decoded known and new tokens without the decoded known ones: blanks
/// between words, and suffixes that join the last word, are included.
///
/// Each byte that is part of no character becomes `U+FFFD`, even where the decoder changes a whole character in front of it.
#[derive(Clone)]
pub struct TextStream {
    text_of: TextOf,
    /// The tokens of the last piece, which decide how the next one joins, and those after it.
    ids: Vec<u32>,
    /// The text that was returned already.
    emitted: String,
    /// The number of them after the last piece.
    fresh: usize,
}

/// After this many tokens without text, the bytes before those of the last character are returned as they are.
const PATIENCE: usize = 8;
/// After this many, all bytes are returned.
const LIMIT: usize = 64;
/// Bytes of an incomplete character, at most; decoders write `U+FFFD` for each of them or for all.
const INCOMPLETE: usize = 3;

impl fmt::Debug for TextStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TextStream").field("ids", &self.ids).field("emitted", &self.emitted).finish_non_exhaustive()
    }
}

impl TextStream {
    /// A text from its beginning.
    #[must_use]
    pub fn new(text_of: TextOf) -> Self {
        Self { text_of, ids: Vec::new(), emitted: String::new(), fresh: 0 }
    }

    /// The text after known tokens, those of a prompt.
    ///
    /// # Errors
    /// Those of `text_of`.
    pub fn after(text_of: TextOf, before: &[u32]) -> Result<Self> {
        let emitted = text_of(before)?;
        Ok(Self { text_of, ids: before.to_vec(), emitted, fresh: 0 })
    }

    /// Adds a token; returns the text that is now final.
    ///
    /// # Errors
    /// Those of the function that makes text.
    pub fn push(&mut self, id: u32) -> Result<Option<String>> {
        self.ids.push(id);
        self.fresh += 1;
        self.take(if self.fresh >= LIMIT {
            0
        } else if self.fresh >= PATIENCE {
            INCOMPLETE
        } else {
            usize::MAX
        })
    }

    /// Returns the rest, incomplete characters as `U+FFFD`. Tokens pushed after that begin another text.
    ///
    /// # Errors
    /// Those of the function that makes text.
    pub fn finish(&mut self) -> Result<Option<String>> {
        let rest = self.take(0)?;
        (self.ids, self.emitted, self.fresh) = (Vec::new(), String::new(), 0);
        Ok(rest)
    }

    /// The text not yet returned, without up to `held` replacement characters at its end.
    fn take(&mut self, held: usize) -> Result<Option<String>> {
        let mut text = (self.text_of)(&self.ids)?;
        let mut certain = certain(&text, held);
        // Some decoders write complete characters anew while the bytes after them are incomplete.
        if self.emitted.starts_with(certain) {
            return Ok(None);
        }
        if !certain.starts_with(&self.emitted) {
            // The tokens before may have ended inside a character.
            let whole = self.emitted.trim_end_matches(char::REPLACEMENT_CHARACTER).len();
            if certain.starts_with(&self.emitted[..whole]) {
                self.emitted.truncate(whole);
            } else {
                // The decoder changed returned text, because the bytes after it are no character.
                self.ids.drain(..self.ids.len() - self.fresh);
                self.emitted.clear();
                text = (self.text_of)(&self.ids)?;
                certain = self::certain(&text, held);
            }
        }
        let new = certain[self.emitted.len()..].to_owned();
        if new.is_empty() {
            return Ok(None);
        }
        if certain.len() == text.len() {
            self.ids.drain(..self.ids.len() - self.fresh);
            self.emitted = (self.text_of)(&self.ids)?;
            self.fresh = 0;
        } else {
            self.emitted = certain.to_owned();
        }
        Ok(Some(new))
    }

    /// The number of tokens that it remembers.
    #[cfg(all(test, feature = "tokenizers"))]
    pub(super) fn remembered(&self) -> usize {
        self.ids.len()
    }
}

/// A text without up to `held` replacement characters at its end.
fn certain(text: &str, held: usize) -> &str {
    let replaced = text.chars().rev().take_while(|&c| c == char::REPLACEMENT_CHARACTER).take(held).count();
    &text[..text.len() - replaced * char::REPLACEMENT_CHARACTER.len_utf8()]
}
