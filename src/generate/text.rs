//! The text of an answer as it grows.

use crate::error::Result;
use crate::io::{TextOf, TextStream};

/// An answer's text. What may be the beginning of a stop text is held back until more is known.
#[derive(Debug)]
pub(super) struct AnswerText {
    stream: TextStream,
    whole: String,
    /// Bytes that were given out.
    shown: usize,
}

impl AnswerText {
    /// The text behind a prompt.
    pub(super) fn after(text_of: TextOf, prompt: &[u32]) -> Result<Self> {
        Ok(Self { stream: TextStream::after(text_of, prompt)?, whole: String::new(), shown: 0 })
    }

    /// Takes a token; whether a stop text came with it, in front of which the answer then ends.
    pub(super) fn push(&mut self, id: u32, stops: &[String]) -> Result<bool> {
        let new = self.stream.push(id)?;
        Ok(self.add(new, stops))
    }

    /// Takes what an answer that ends has left: an incomplete character.
    pub(super) fn finish(&mut self, stops: &[String]) -> Result<()> {
        let rest = self.stream.finish()?;
        self.add(rest, stops);
        Ok(())
    }

    fn add(&mut self, new: Option<String>, stops: &[String]) -> bool {
        self.whole.push_str(&new.unwrap_or_default());
        // What was shown is no part of a stop text: it would have been held back.
        let unshown = &self.whole[self.shown..];
        let found = stops.iter().filter_map(|stop| unshown.find(stop.as_str())).min();
        found.inspect(|at| self.whole.truncate(self.shown + at)).is_some()
    }

    /// What can be shown now and was not yet: all of it, if the answer has ended.
    pub(super) fn take(&mut self, stops: &[String], ended: bool) -> String {
        let unshown = &self.whole[self.shown..];
        let held = if ended { 0 } else { stops.iter().map(|stop| begun(unshown, stop)).max().unwrap_or(0) };
        let new = unshown[..unshown.len() - held].to_owned();
        self.shown += new.len();
        new
    }

    /// All of it.
    pub(super) fn into_whole(self) -> String {
        self.whole
    }
}

/// How many bytes at the end of a text may be the beginning of a stop text.
fn begun(text: &str, stop: &str) -> usize {
    let beginnings = stop.char_indices().map(|(at, _)| at).rev();
    beginnings.into_iter().find(|&at| text.ends_with(&stop[..at])).unwrap_or(0)
}

#[cfg(test)]
#[cfg(feature = "tokenizers")]
mod tests {
    use super::*;
    use crate::io::Tokenizer;

    /// The pieces that an answer of these bytes gives, and whether it was stopped.
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
    fn what_may_become_a_stop_text_is_held_back_until_it_is_known() {
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
