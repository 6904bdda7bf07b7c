//! The generation of answers for one batch of prompts.

use super::feed::{Texts, added, feed_edits};
use super::generator::Generator;
use super::lookup::draft;
use super::pick::TokenPick;
use super::row::Row;
use super::sampling::SamplingOptions;
use crate::error::{Error, Result};
use crate::gpu::Readback;

/// Why an answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
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
#[non_exhaustive]
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
#[non_exhaustive]
pub struct Answer {
    /// The new tokens, including an end token.
    pub tokens: Vec<u32>,
    /// The text, if the generator decodes text: the part after the prompt of the decoded prompt and answer, without an end token, up to a stop
    /// text.
    pub text: Option<String>,
    /// Why it ended.
    pub finish: Finish,
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
    /// What the rows of the run that was submitted may go on with.
    drafted: Vec<Vec<u32>>,
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
            let (source, tokens) = match generator.start() {
                Some(start) => (prompt.clone(), vec![start]),
                None => (Vec::new(), prompt.clone()),
            };
            rows.push(Row::new(source, tokens, options, (first + index) as u64, generator.text.clone())?);
        }
        let pick = TokenPick::of(options, limits, generator.model.as_ref());
        Ok(Self { generator, options: options.clone(), pick, rows, first, started: false, drafted: Vec::new() })
    }

    pub(super) fn finished(&self) -> bool {
        self.rows.iter().all(|row| row.finish.is_some())
    }

    /// Submits the run for one more token of every unfinished answer, in an application's frames if so told, else without waiting; `None` when all
    /// are finished. The readback is for [`Session::accept`].
    pub(super) async fn submit(&mut self, in_frames: bool) -> Result<Option<Readback>> {
        if self.finished() {
            return Ok(None);
        }
        let (rows, vocabulary) = (self.generator.limits().batch, self.generator.model.dimensions().vocabulary);
        let drafts = self.drafts();
        let added = added(&drafts);
        let (mut edits, mut choices) = (Vec::new(), vec![0_u32; rows * added * 5]);
        for (row, choices) in self.rows.iter_mut().zip(choices.chunks_exact_mut(5 * added)) {
            let (words, chosen) = row.ask(&self.options, vocabulary)?;
            choices.chunks_exact_mut(5).for_each(|choice| choice.copy_from_slice(&chosen));
            edits.push(words);
        }
        let sources = self.rows.iter().filter(|row| !row.source.is_empty()).map(|row| &row.source[..]).collect();
        let texts = Texts { sources, rows: self.rows.iter().map(|row| &row.tokens[..]).collect(), drafts };
        if !self.started && self.generator.start().is_some() {
            self.generator.feed_encoder(&texts)?.run_by(&[], in_frames).await?;
        }
        let outgrown = |row: &Row| row.finish.is_none() && self.generator.outgrown(row.tokens.len());
        let program = match self.started && !self.rows.iter().any(outgrown) {
            true => self.generator.feed_decode(self.pick, &texts)?,
            false => self.generator.feed_prefill(self.pick, 1, &texts)?,
        };
        feed_edits(program, self.pick, rows, &edits)?;
        program.write("choices", bytemuck::cast_slice(&choices))?;
        let tokens = program.run_by(&["tokens"], in_frames).await?.pop();
        self.started = true;
        self.drafted = texts.drafts;
        tokens.map(Some).ok_or_else(|| Error::Graph("the run returned no tokens".into()))
    }

    /// What each row may go on with, if any may.
    fn drafts(&self) -> Vec<Vec<u32>> {
        let most = self.generator.drafts(&self.options, self.pick);
        if !self.started || most == 0 {
            return Vec::new();
        }
        let room = self.generator.limits().max_tokens;
        let draft = |row: &Row| match row.finish {
            Some(_) => Vec::new(),
            None => draft(&row.tokens, most.min(room - row.tokens.len())).to_vec(),
        };
        self.rows.iter().map(draft).collect()
    }

    /// Takes the tokens `(B, added)` of a run: of a row those behind the part of its draft that came true, and at least one.
    pub(super) fn accept(&mut self, drawn: &[u8]) -> Result<Vec<Token>> {
        let drawn: Vec<u32> = bytemuck::pod_collect_to_vec(drawn);
        let drafts = std::mem::take(&mut self.drafted);
        let mut tokens = Vec::new();
        for (index, (row, drawn)) in self.rows.iter_mut().zip(drawn.chunks_exact(added(&drafts))).enumerate() {
            let mut draft = drafts.get(index).into_iter().flatten();
            for drawn in drawn {
                if row.finish.is_some() {
                    break;
                }
                let (id, text) = row.accept(*drawn, &self.options, self.generator.limits().max_tokens)?;
                tokens.push(Token { prompt: self.first + index, id, text, finish: row.finish });
                if draft.next() != Some(&id) {
                    break;
                }
            }
        }
        Ok(tokens)
    }

    pub(super) fn answers(self) -> Result<Vec<Answer>> {
        let mut answers = Vec::with_capacity(self.rows.len());
        for row in self.rows {
            answers.push(row.into_answer(&self.options)?);
        }
        Ok(answers)
    }
}

/// What prompts must fit.
#[derive(Clone, Copy, Debug)]
pub(super) struct Room {
    pub(super) vocabulary: usize,
    /// Tokens of a prompt and its answer.
    pub(super) max_tokens: usize,
    /// Those that the model allows.
    pub(super) positions: usize,
    /// Whether the answer has room of its own.
    pub(super) answer_apart: bool,
}

impl Room {
    /// Says what is wrong with a prompt.
    pub(super) fn check(&self, prompt: &[u32]) -> Result<(), String> {
        let Self { vocabulary, max_tokens: limit, positions, answer_apart } = *self;
        let tokens = prompt.len();
        if tokens == 0 {
            return Err("it is empty, but at least one token is needed".into());
        }
        if tokens >= limit && !(answer_apart && tokens == limit) {
            return Err(format!(
                "it has {tokens} tokens and leaves no room for an answer; the generator takes {limit} tokens of prompt and \
                 answer (max_tokens), the model allows {positions}"
            ));
        }
        match prompt.iter().find(|&&id| id as usize >= vocabulary) {
            Some(id) => Err(format!("token {id} is out of range: the vocabulary has {vocabulary} tokens")),
            None => Ok(()),
        }
    }
}

pub(super) fn check_prompt(generator: &Generator, prompt: &[u32], number: usize) -> Result<()> {
    let model = &generator.model;
    let room = Room {
        vocabulary: model.source_vocabulary(),
        max_tokens: generator.limits().max_tokens,
        positions: model.dimensions().max_position,
        answer_apart: generator.start().is_some(),
    };
    room.check(prompt).map_err(|message| Error::input(format!("prompt {number}"), message))
}
