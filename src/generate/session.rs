//! The generation of answers for one batch of prompts.

use super::generator::Generator;
use super::sampling::{SamplingOptions, sample};
use super::text::AnswerText;
use crate::error::{Error, Result};
use crate::gpu::Readback;
use crate::program::Program;
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
}

impl Row {
    fn answer(&self) -> &[u32] {
        &self.tokens[self.prompt..]
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
            rows.push(Row { source, prompt: tokens.len(), tokens, rng, finish, text });
        }
        Ok(Self { generator, options: options.clone(), rows, first, started: false })
    }

    pub(super) fn finished(&self) -> bool {
        self.rows.iter().all(|row| row.finish.is_some())
    }

    /// Submits the run for one more token of every unfinished answer; `None` when all are finished. The readback is for [`Session::accept`].
    pub(super) fn submit(&mut self) -> Result<Option<Readback>> {
        if self.finished() {
            return Ok(None);
        }
        if !self.started && self.generator.start().is_some() {
            self.encode()?.run()?;
        }
        let program = if self.started { self.decode()? } else { self.prefill()? };
        let logits = program.run_reading(&["logits"])?.pop();
        self.started = true;
        logits.map(Some).ok_or_else(|| Error::Graph("the run returned no logits".into()))
    }

    /// Samples the tokens from logits `(B, V)`.
    pub(super) fn accept(&mut self, logits: &[u8]) -> Result<Vec<Token>> {
        let logits: Vec<f32> = bytemuck::pod_collect_to_vec(logits);
        let vocabulary = self.generator.model.dimensions().vocabulary;
        let mut tokens = Vec::new();
        for (index, logits) in logits.chunks_exact(vocabulary).take(self.rows.len()).enumerate() {
            let row = &mut self.rows[index];
            if row.finish.is_some() {
                continue;
            }
            let id = sample(logits, &row.tokens, row.answer().len(), &self.options, &mut row.rng)?;
            row.tokens.push(id);
            let (finish, text) = row.take(id, &self.options, self.generator.limits().max_tokens)?;
            row.finish = finish;
            tokens.push(Token { prompt: self.first + index, id, text, finish });
        }
        Ok(tokens)
    }

    /// The encoder program, with its inputs written.
    fn encode(&mut self) -> Result<&Program> {
        let longest = self.rows.iter().map(|row| row.source.len()).max().unwrap_or(1);
        let (batch, lengths) = (self.generator.limits().batch, self.source_lengths());
        let (program, bucket) = self.generator.encode(longest)?;
        let mut ids = vec![0_u32; batch * bucket];
        for (index, row) in self.rows.iter().enumerate() {
            ids[index * bucket..][..row.source.len()].copy_from_slice(&row.source);
        }
        program.write("source_ids", bytemuck::cast_slice(&ids))?;
        program.write("source_lengths", bytemuck::cast_slice(&lengths))?;
        Ok(program)
    }

    /// The number of tokens of each row for the encoder; one for rows without a prompt.
    fn source_lengths(&self) -> Vec<u32> {
        let mut lengths = vec![1; self.generator.limits().batch];
        lengths.iter_mut().zip(&self.rows).for_each(|(length, row)| *length = row.source.len().max(1) as u32);
        lengths
    }

    /// The program that reads the prompts, with its inputs written.
    fn prefill(&mut self) -> Result<&Program> {
        let longest = self.rows.iter().map(|row| row.tokens.len()).max().unwrap_or(1);
        let (batch, source_lengths) = (self.generator.limits().batch, self.source_lengths());
        let (program, bucket) = self.generator.prefill(longest)?;
        let mut ids = vec![0_u32; batch * bucket];
        // Rows without a prompt read their first token, and the result is ignored.
        let mut last: Vec<u32> = (0..batch).map(|row| (row * bucket) as u32).collect();
        for (index, row) in self.rows.iter().enumerate() {
            ids[index * bucket..][..row.tokens.len()].copy_from_slice(&row.tokens);
            last[index] += row.tokens.len() as u32 - 1;
        }
        program.write("ids", bytemuck::cast_slice(&ids))?;
        program.write("last", bytemuck::cast_slice(&last))?;
        if program.has_input("lengths") {
            let lengths: Vec<u32> = last.iter().zip(0..).map(|(last, row)| last - row * bucket as u32 + 1).collect();
            program.write("lengths", bytemuck::cast_slice(&lengths))?;
        }
        if program.has_input("source_lengths") {
            program.write("source_lengths", bytemuck::cast_slice(&source_lengths))?;
        }
        Ok(program)
    }

    /// The program that adds a token to every row, with its inputs written.
    fn decode(&mut self) -> Result<&Program> {
        let batch = self.generator.limits().batch;
        let (mut ids, mut positions, mut lengths) = (vec![0_u32; batch], vec![0_u32; batch], vec![1_u32; batch]);
        for (index, row) in self.rows.iter().enumerate() {
            ids[index] = row.tokens[row.tokens.len() - 1];
            positions[index] = row.tokens.len() as u32 - 1;
            lengths[index] = row.tokens.len() as u32;
        }
        let source_lengths = self.source_lengths();
        let program = self.generator.decode()?;
        if program.has_input("source_lengths") {
            program.write("source_lengths", bytemuck::cast_slice(&source_lengths))?;
        }
        program.write("ids", bytemuck::cast_slice(&ids))?;
        program.write("positions", bytemuck::cast_slice(&positions))?;
        if program.has_input("lengths") {
            program.write("lengths", bytemuck::cast_slice(&lengths))?;
        }
        Ok(program)
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

fn check_prompt(generator: &Generator, prompt: &[u32], number: usize) -> Result<()> {
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
