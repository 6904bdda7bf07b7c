//! The generation of answers for one batch of prompts.

use super::feed::{Texts, feed_edits};
use super::generator::Generator;
use super::pick::{Behind, TokenPick};
use super::sampling::SamplingOptions;
use super::text::AnswerText;
use crate::error::{Error, Result};
use crate::gpu::Readback;
use crate::ops::{BANNED_ROW, DAMAGED_ROW};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

/// Why an answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finish {
    /// An end token, the answer's last token.
    End,
    /// A stop text or stop token.
    Stop,
    /// The maximum number of tokens.
    Length,
    /// The size of the caches ([`super::GenerateLimits::max_tokens`]), which prompt and answer fill.
    Context,
    /// The caller broke off.
    BrokenOff,
}

impl Finish {
    /// A word for programs: `end`, `stop`, `length`, `context`, `broken_off`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::End => "end",
            Self::Stop => "stop",
            Self::Length => "length",
            Self::Context => "context",
            Self::BrokenOff => "broken_off",
        }
    }
}

/// A generated token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    /// The prompt it answers.
    pub prompt: usize,
    /// The token.
    pub id: u32,
    /// The text that became certain with it, if the generator decodes text: empty while a character is incomplete or a stop text may have begun.
    /// All of them concatenated are [`Answer::text`].
    pub text: String,
    /// Set on the last token of an answer.
    pub finish: Option<Finish>,
}

/// A finished answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The new tokens, including an end token.
    pub tokens: Vec<u32>,
    /// The text, if the generator decodes text: the part after the prompt of the decoded prompt and answer, without an end token, up to a stop
    /// text.
    pub text: Option<String>,
    /// Why it ended.
    pub finish: Finish,
}

#[derive(Debug)]
struct Row {
    /// The tokens for the encoder.
    source: Vec<u32>,
    /// The prompt (or the start token) and the answer.
    tokens: Vec<u32>,
    prompt: usize,
    rng: ChaCha8Rng,
    finish: Option<Finish>,
    text: Option<AnswerText>,
    /// The token that comes next, whatever the logits.
    forced: Option<u32>,
}

impl Row {
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

/// The rows of a batch.
#[derive(Debug)]
pub(super) struct Session<'a> {
    generator: &'a mut Generator,
    options: SamplingOptions,
    pick: TokenPick,
    rows: Vec<Row>,
    /// The number of the first prompt among all of them.
    first: usize,
    started: bool,
}

impl<'a> Session<'a> {
    pub(super) fn new(
        generator: &'a mut Generator,
        prompts: &[Vec<u32>],
        options: &SamplingOptions,
        first: usize,
    ) -> Result<Self> {
        options.validate()?;
        if !options.stop.is_empty() && generator.text.is_none() {
            return Err(Error::input("stop", "stop texts need a generator that decodes text (with_text)"));
        }
        let limits = generator.limits();
        if prompts.len() > limits.batch {
            let message =
                format!("there are {}, but the generator takes at most {} at a time", prompts.len(), limits.batch);
            return Err(Error::input("prompts", message));
        }
        let mut rows = Vec::with_capacity(prompts.len());
        for (index, prompt) in prompts.iter().enumerate() {
            check_prompt(generator, prompt, first + index)?;
            let mut rng = ChaCha8Rng::seed_from_u64(options.seed);
            rng.set_stream((first + index) as u64);
            let finish = (options.max_new_tokens == 0).then_some(Finish::Length);
            let (source, tokens) = match generator.start() {
                Some(start) => (prompt.clone(), vec![start]),
                None => (Vec::new(), prompt.clone()),
            };
            // The answer of an encoder-decoder model does not continue its prompt.
            let before = if source.is_empty() { &tokens[..] } else { &[] };
            let text = generator.text.clone().map(|text_of| AnswerText::after(text_of, before)).transpose()?;
            rows.push(Row { source, prompt: tokens.len(), tokens, rng, finish, text, forced: None });
        }
        let pick = TokenPick::of(options, limits, generator.model.as_ref());
        Ok(Self { generator, options: options.clone(), pick, rows, first, started: false })
    }

    pub(super) fn finished(&self) -> bool {
        self.rows.iter().all(|row| row.finish.is_some())
    }

    /// Submits the run for one more token of every unfinished answer; `None` when all are finished. The readback is for [`Session::accept`].
    pub(super) fn submit(&mut self) -> Result<Option<Readback>> {
        if self.finished() {
            return Ok(None);
        }
        let (rows, vocabulary) = (self.generator.limits().batch, self.generator.model.dimensions().vocabulary);
        let (mut edits, mut choices) = (Vec::new(), vec![0_u32; rows * 5]);
        for (row, choice) in self.rows.iter_mut().zip(choices.chunks_exact_mut(5)) {
            // What comes of a finished row is not looked at.
            let (words, forced) = match row.finish {
                Some(_) => (Vec::new(), None),
                None => self.options.edits_of(&row.behind(), vocabulary),
            };
            row.forced = forced.map(|tokens| forced_token(&tokens, vocabulary)).transpose()?;
            choice.copy_from_slice(&self.options.choice(&mut row.rng).words());
            edits.push(words);
        }
        let sources = self.rows.iter().filter(|row| !row.source.is_empty()).map(|row| &row.source[..]).collect();
        let texts = Texts { sources, rows: self.rows.iter().map(|row| &row.tokens[..]).collect() };
        if !self.started && self.generator.start().is_some() {
            self.generator.feed_encoder(&texts)?.run()?;
        }
        let outgrown = |row: &Row| row.finish.is_none() && self.generator.outgrown(row.tokens.len());
        let program = match self.started && !self.rows.iter().any(outgrown) {
            true => self.generator.feed_decode(self.pick, &texts)?,
            false => self.generator.feed_prefill(self.pick, 1, &texts)?,
        };
        feed_edits(program, self.pick, rows, &edits)?;
        program.write("choices", bytemuck::cast_slice(&choices))?;
        let tokens = program.run_reading(&["tokens"])?.pop();
        self.started = true;
        tokens.map(Some).ok_or_else(|| Error::Graph("the run returned no tokens".into()))
    }

    /// Takes the tokens `(B)` of a run.
    pub(super) fn accept(&mut self, drawn: &[u8]) -> Result<Vec<Token>> {
        let drawn: Vec<u32> = bytemuck::pod_collect_to_vec(drawn);
        let mut tokens = Vec::new();
        for (index, (row, drawn)) in self.rows.iter_mut().zip(drawn).enumerate() {
            if row.finish.is_some() {
                continue;
            }
            let id = match (drawn, row.forced) {
                (DAMAGED_ROW, _) => return Err(damaged()),
                (_, Some(forced)) => forced,
                (BANNED_ROW, None) => return Err(nothing_allowed()),
                (id, None) => id,
            };
            row.tokens.push(id);
            let (finish, text) = row.take(id, &self.options, self.generator.limits().max_tokens)?;
            row.finish = finish;
            tokens.push(Token { prompt: self.first + index, id, text, finish });
        }
        Ok(tokens)
    }

    pub(super) fn answers(self) -> Result<Vec<Answer>> {
        let mut answers = Vec::with_capacity(self.rows.len());
        for mut row in self.rows {
            if let (None, Some(text)) = (row.finish, &mut row.text) {
                text.finish(&self.options.stop)?;
            }
            let tokens = row.answer().to_vec();
            let finish = row.finish.unwrap_or(Finish::BrokenOff);
            answers.push(Answer { tokens, text: row.text.map(AnswerText::into_whole), finish });
        }
        Ok(answers)
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

pub(super) fn check_prompt(generator: &Generator, prompt: &[u32], number: usize) -> Result<()> {
    let refuse = |message: String| Err(Error::input(format!("prompt {number}"), message));
    let vocabulary = generator.model.source_vocabulary();
    let (limit, positions) = (generator.limits().max_tokens, generator.model.dimensions().max_position);
    if prompt.is_empty() {
        return refuse("it is empty, but at least one token is needed".into());
    }
    if generator.start().is_some() && prompt.len() <= limit {
        // With an encoder the answer has its own room.
    } else if prompt.len() >= limit {
        let tokens = prompt.len();
        return refuse(format!(
            "it has {tokens} tokens and leaves no room for an answer; the generator takes {limit} tokens of prompt and \
             answer (max_tokens), the model allows {positions}"
        ));
    }
    match prompt.iter().find(|&&id| id as usize >= vocabulary) {
        Some(id) => refuse(format!("token {id} is out of range: the vocabulary has {vocabulary} tokens")),
        None => Ok(()),
    }
}
