//! Texts that go on.

use crate::session::Session;
use std::ops::ControlFlow;
use wgformer::generate::{Answer, GenerateLimits, Generator, SamplingOptions, Token};
use wgformer::{Error, Result};

/// Tokens of an answer where neither options nor files say.
const TOKENS: usize = 128;
/// The fewest positions of caches: so texts of many lengths share them.
const ROOM: usize = 256;
/// The most prompts that are answered at a time.
const BATCH: usize = 8;

/// Options of answers. What is not given is as the model's files say, and greedy where they say nothing.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct GenerateOptions {
    /// The most tokens of an answer.
    pub max_tokens: Option<usize>,
    /// The divisor of logits; 0: greedy.
    pub temperature: Option<f32>,
    /// Draw from so many of the likeliest tokens; 0: all.
    pub top_k: Option<usize>,
    /// Draw from the likeliest tokens with this probability together; 1: all.
    pub top_p: Option<f32>,
    /// Draw from tokens with at least this share of the likeliest's probability; 0: all.
    pub min_p: Option<f32>,
    /// Tokens that occurred are less likely; 1: as likely as before.
    pub repetition_penalty: Option<f32>,
    /// The same seed gives the same tokens.
    pub seed: u64,
    /// Texts that end an answer, which has none of them.
    pub stop: Vec<String>,
}

impl Session {
    /// Answers prompts, given as tokens; `watch` is told each token as it comes, and can break off.
    ///
    /// # Errors
    /// [`Error::Input`] if the model continues no texts, a prompt is empty or too long, or an option is out of range; those of
    /// [`Generator::generate`].
    pub fn generate(
        &mut self,
        prompts: &[Vec<u32>],
        options: &GenerateOptions,
        watch: &mut dyn FnMut(&Token) -> ControlFlow<()>,
    ) -> Result<Vec<Answer>> {
        self.expect_decoder()?;
        if prompts.is_empty() {
            return Ok(Vec::new());
        }
        let longest = prompts.iter().map(Vec::len).max().unwrap_or(0);
        // The token that a decoder behind an encoder begins with is one of its answer's length.
        let given = if self.model.encoder().is_some() { 1 } else { longest };
        let sampling = self.sampling(options, given)?;
        let answer = sampling.max_new_tokens.saturating_add(1);
        let room = if given == longest { longest.saturating_add(answer - 1) } else { longest.max(answer) };
        self.generator_for(prompts.len().min(BATCH), room)?.generate(prompts, &sampling, |token| watch(token))
    }

    fn sampling(&self, options: &GenerateOptions, given: usize) -> Result<SamplingOptions> {
        let file = &self.settings;
        if !file.unsupported.is_empty() {
            let message =
                format!("its files ask for a way of generating that is not supported: {}", file.unsupported.join(", "));
            return Err(Error::input("model", message));
        }
        let of_file = file.sampling_behind(given, TOKENS);
        let mut sampling = of_file
            .clone()
            .with_max_new_tokens(options.max_tokens.unwrap_or(of_file.max_new_tokens))
            .with_temperature(options.temperature.unwrap_or(of_file.temperature))
            .with_top_k(options.top_k.unwrap_or(of_file.top_k))
            .with_top_p(options.top_p.unwrap_or(of_file.top_p))
            .with_min_p(options.min_p.unwrap_or(of_file.min_p))
            .with_repetition_penalty(options.repetition_penalty.unwrap_or(of_file.repetition_penalty))
            .with_seed(options.seed);
        for stop in &options.stop {
            sampling.add_stop(stop, self.expect_tokenizer()?)?;
        }
        if let Some(tokenizer) = self.tokenizer() {
            // Stop texts of a file that mix text and special tokens cannot be matched.
            file.stop.iter().for_each(|stop| drop(sampling.add_stop(stop, tokenizer)));
        }
        Ok(sampling)
    }

    /// A generator with room for so many tokens of so many prompts; a text that is too long is an error of the generator's.
    fn generator_for(&mut self, batch: usize, tokens: usize) -> Result<&mut Generator> {
        let room = tokens.checked_next_power_of_two().unwrap_or(usize::MAX).max(ROOM).min(self.context);
        let fits = |limits: GenerateLimits| limits.batch == batch && limits.max_tokens >= room;
        let generator = match self.generator.take() {
            Some(generator) if fits(generator.limits()) => generator,
            _ => {
                let (limits, decoder) = (GenerateLimits::new(batch, room), self.expect_decoder()?.clone());
                let generator = Generator::new(&self.gpu, decoder, &self.weights, limits)?;
                match self.tokenizer() {
                    Some(tokenizer) => generator.with_text(tokenizer.text_of()),
                    None => generator,
                }
            }
        };
        Ok(self.generator.insert(generator))
    }
}
