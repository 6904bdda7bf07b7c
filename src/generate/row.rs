//! One prompt of a batch, and its answer as it grows.

use super::pick::Behind;
use super::sampling::SamplingOptions;
use super::session::{Answer, Finish};
use super::text::AnswerText;
use crate::error::{Error, Result};
use crate::io::TextOf;
use crate::ops::{BANNED_ROW, DAMAGED_ROW, LogitEdit};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

/// A prompt and its answer so far.
#[derive(Debug)]
pub(super) struct Row {
    /// The tokens for the encoder.
    pub(super) source: Vec<u32>,
    /// The prompt (or the start token) and the answer.
    pub(super) tokens: Vec<u32>,
    pub(super) prompt: usize,
    rng: ChaCha8Rng,
    pub(super) finish: Option<Finish>,
    text: Option<AnswerText>,
    /// The token that comes next, whatever the logits.
    forced: Option<u32>,
}

impl Row {
    /// A row whose decoder begins with `tokens`; `stream` tells the random numbers of rows apart.
    pub(super) fn new(
        source: Vec<u32>,
        tokens: Vec<u32>,
        options: &SamplingOptions,
        stream: u64,
        text: Option<TextOf>,
    ) -> Result<Self> {
        let mut rng = ChaCha8Rng::seed_from_u64(options.seed);
        rng.set_stream(stream);
        let finish = (options.max_new_tokens == 0).then_some(Finish::Length);
        // The answer of an encoder-decoder model does not continue its prompt.
        let before = if source.is_empty() { &tokens[..] } else { &[] };
        let text = text.map(|text_of| AnswerText::after(text_of, before)).transpose()?;
        Ok(Self { source, prompt: tokens.len(), tokens, rng, finish, text, forced: None })
    }

    /// The edits of the next token's logits, and how it is chosen. What comes of a finished row is not looked at.
    pub(super) fn ask(&mut self, options: &SamplingOptions, vocabulary: usize) -> Result<(Vec<LogitEdit>, [u32; 5])> {
        let (edits, forced) = match self.finish {
            Some(_) => (Vec::new(), None),
            None => options.edits_of(&self.behind(), vocabulary),
        };
        self.forced = forced.map(|tokens| forced_token(&tokens, vocabulary)).transpose()?;
        Ok((edits, options.choice(&mut self.rng).words()))
    }

    /// Takes what was drawn: the token, and the text that can be shown with it. There is room for so many tokens.
    pub(super) fn accept(&mut self, drawn: u32, options: &SamplingOptions, room: usize) -> Result<(u32, String)> {
        let id = match (drawn, self.forced) {
            (DAMAGED_ROW, _) => return Err(damaged()),
            (_, Some(forced)) => forced,
            (BANNED_ROW, None) => return Err(nothing_allowed()),
            (id, None) => id,
        };
        self.tokens.push(id);
        let (finish, text) = self.take(id, options, room)?;
        self.finish = finish;
        Ok((id, text))
    }

    /// The answer, finished or not.
    pub(super) fn into_answer(mut self, options: &SamplingOptions) -> Result<Answer> {
        if let (None, Some(text)) = (self.finish, &mut self.text) {
            text.finish(&options.stop)?;
        }
        let tokens = self.answer().to_vec();
        let finish = self.finish.unwrap_or(Finish::BrokenOff);
        Ok(Answer { tokens, text: self.text.map(AnswerText::into_whole), finish })
    }

    fn answer(&self) -> &[u32] {
        &self.tokens[self.prompt..]
    }

    fn behind(&self) -> Behind<'_> {
        let prompt = if self.source.is_empty() { &self.tokens[..self.prompt] } else { &self.source };
        Behind { history: &self.tokens, made: self.answer().len(), prompt }
    }

    /// Adds a token; returns why the answer ends with it (if it does), and the text that can be shown.
    fn take(&mut self, id: u32, options: &SamplingOptions, room: usize) -> Result<(Option<Finish>, String)> {
        let stops = &options.stop;
        let mut finish = if options.stop_tokens.contains(&id) {
            Some(Finish::Stop)
        } else if options.end.contains(&id) {
            Some(Finish::End)
        } else {
            None
        };
        // A token that ends an answer is not part of its text.
        let mut stopped = false;
        if let (None, Some(text)) = (finish, &mut self.text) {
            stopped = text.push(id, stops)?;
            finish = stopped.then_some(Finish::Stop);
        }
        if finish.is_none() && self.answer().len() >= options.max_new_tokens {
            finish = Some(Finish::Length);
        } else if finish.is_none() && self.tokens.len() >= room {
            finish = Some(Finish::Context);
        }
        let Some(text) = &mut self.text else { return Ok((finish, String::new())) };
        if finish.is_some() && !stopped {
            text.finish(stops)?;
        }
        Ok((finish, text.take(stops, finish.is_some())))
    }
}

/// The error of logits that are not finite.
pub(super) fn damaged() -> Error {
    let message = "a logit is not finite; the weights or the prompt are damaged".to_owned();
    Error::NonFinite { what: "generation".into(), message }
}

/// The error of rules that forbid all tokens.
pub(super) fn nothing_allowed() -> Error {
    Error::input("rules", "they leave no token of the vocabulary that may come")
}

/// Of several forced tokens the lowest.
fn forced_token(tokens: &[u32], vocabulary: usize) -> Result<u32> {
    let known = tokens.iter().copied().filter(|token| (*token as usize) < vocabulary);
    known.min().ok_or_else(nothing_allowed)
}
