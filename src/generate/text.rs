//! The growing text of an answer.

use crate::error::Result;
use crate::io::{TextOf, TextStream};

/// An answer's text. The possible beginning of a stop text is held back.
#[derive(Debug)]
pub(super) struct AnswerText {
    stream: TextStream,
    whole: String,
    /// The number of bytes already shown.
    shown: usize,
}

impl AnswerText {
    /// The text after a prompt.
    pub(super) fn after(text_of: TextOf, prompt: &[u32]) -> Result<Self> {
        Ok(Self { stream: TextStream::after(text_of, prompt)?, whole: String::new(), shown: 0 })
    }

    /// Adds a token; returns whether a stop text was found, before which the answer then ends.
    pub(super) fn push(&mut self, id: u32, stops: &[String]) -> Result<bool> {
        let new = self.stream.push(id)?;
        Ok(self.add(new, stops))
    }

    /// Adds the rest of an answer that ends: an incomplete character.
    pub(super) fn finish(&mut self, stops: &[String]) -> Result<()> {
        let rest = self.stream.finish()?;
        self.add(rest, stops);
        Ok(())
    }

    fn add(&mut self, new: Option<String>, stops: &[String]) -> bool {
        self.whole.push_str(&new.unwrap_or_default());
        // Shown text can't be part of a stop text, since it would have been held back.
        let unshown = &self.whole[self.shown..];
        let found = stops.iter().filter_map(|stop| unshown.find(stop.as_str())).min();
        found.inspect(|at| self.whole.truncate(self.shown + at)).is_some()
    }

    /// The new text that can be shown; all of it if the answer has ended.
    pub(super) fn take(&mut self, stops: &[String], ended: bool) -> String {
        let unshown = &self.whole[self.shown..];
        let held = if ended { 0 } else { stops.iter().map(|stop| begun(unshown, stop)).max().unwrap_or(0) };
        let new = unshown[..unshown.len() - held].to_owned();
        self.shown += new.len();
        new
    }

    /// The whole text.
    pub(super) fn into_whole(self) -> String {
        self.whole
    }
}

/// The number of bytes at the end of a text that may begin a stop text.
fn begun(text: &str, stop: &str) -> usize {
    let beginnings = stop.char_indices().map(|(at, _)| at).rev();
    beginnings.into_iter().find(|&at| text.ends_with(&stop[..at])).unwrap_or(0)
}

#[cfg(test)]
#[cfg(feature = "tokenizers")]
mod tests {
    use super::*;
    use crate::io::Tokenizer;

    /// The pieces of an answer of these bytes, and whether it was stopped.
    fn pieces(answer: &str, stops: &[&str]) -> (Vec<String>, String, bool) {
        let stops: Vec<String> = stops.iter().map(|&stop| stop.to_owned()).collect();
        let mut text =
            AnswerText::after(Tokenizer::bytes().unwrap().text_of(), b"It ".map(u32::from).as_slice()).unwrap();
        let mut pieces = Vec::new();
        for byte in answer.bytes() {
            let stopped = text.push(u32::from(byte), &stops).unwrap();
            pieces.push(text.take(&stops, stopped));
            if stopped {
                return (pieces, text.into_whole(), true);
            }
        }
        text.finish(&stops).unwrap();
        pieces.push(text.take(&stops, true));
        (pieces, text.into_whole(), false)
    }

    #[test]
    fn the_possible_beginning_of_a_stop_text_is_held_back() {
        let (shown, whole, stopped) = pieces("ab\nUser:x", &["\nUser:", "zz"]);
        assert!(stopped && whole == "ab", "{whole:?}");
        assert_eq!(shown, ["a", "b", "", "", "", "", "", ""]);
        let (shown, whole, stopped) = pieces("a\nUsé\n", &["\nUser:"]);
        assert!(!stopped && whole == "a\nUsé\n");
        assert_eq!(shown, ["a", "", "", "", "", "\nUsé", "", "\n"]);
        // The one that begins first counts.
        assert_eq!(pieces("xaby", &["by", "ab"]).1, "x");
        assert_eq!(pieces("aab", &["ab"]).1, "a");
        assert_eq!(pieces("éé", &["é"]), (vec![String::new(), String::new()], String::new(), true));
        let (shown, whole, _) = pieces("plain", &[]);
        assert_eq!((shown.concat(), whole), ("plain".to_owned(), "plain".to_owned()));
    }
}
