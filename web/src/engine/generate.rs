//! Texts that go on.

use super::loaded::{Loaded, Side};
use futures::StreamExt;
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};
use std::ops::ControlFlow;
use std::pin::pin;
use std::sync::Arc;
use wgformer::generate::{Finish, GenerateLimits, Generator, SamplingOptions};
use wgformer::models::Decoder;
use wgformer::{Error, Result};

/// Tokens of an answer where nothing is said.
const TOKENS: usize = 128;
/// The fewest positions of caches: so texts of many lengths share them.
const ROOM: usize = 256;

/// A text to go on from, or a conversation.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub(crate) enum Prompt {
    Text(String),
    Messages(Vec<Message>),
}

/// A message of a conversation.
#[derive(Debug, Deserialize)]
pub(crate) struct Message {
    /// `system`, `user` or `assistant`.
    role: String,
    content: String,
}

/// Options of an answer; what is not given is as the model's files say, and greedy where they say nothing.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct GenerateOptions {
    pub(crate) max_tokens: Option<usize>,
    /// 0: greedy.
    pub(crate) temperature: Option<f32>,
    pub(crate) top_k: Option<usize>,
    pub(crate) top_p: Option<f32>,
    pub(crate) min_p: Option<f32>,
    pub(crate) repetition_penalty: Option<f32>,
    pub(crate) seed: u64,
    pub(crate) stop: Vec<String>,
    #[serde(rename = "signal")]
    pub(crate) _signal: Option<IgnoredAny>,
}

/// An answer.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Generated {
    pub(crate) text: String,
    pub(crate) tokens: Vec<u32>,
    /// `end`, `stop`, `length`, `context` or `broken_off`.
    pub(crate) finish: &'static str,
    pub(crate) prompt_tokens: usize,
}

impl Loaded {
    /// Goes on from a prompt; `watch` is told each piece of text as it comes, and can break off.
    pub(crate) async fn generate(
        &mut self,
        prompt: &Prompt,
        options: &GenerateOptions,
        watch: &mut dyn FnMut(&str) -> ControlFlow<()>,
    ) -> Result<Generated> {
        let Side::Decoder(model) = &self.side else {
            return Err(Error::input("model", "it makes vectors of texts and does not continue them: use embed"));
        };
        let model = model.clone();
        let ids = self.ids(prompt)?;
        let sampling = self.sampling(options, ids.len())?;
        let generator = self.generator_for(&model, ids.len() + sampling.max_new_tokens)?;
        let prompt_tokens = ids.len();
        let mut answer =
            Generated { text: String::new(), tokens: Vec::new(), finish: Finish::BrokenOff.name(), prompt_tokens };
        let mut tokens = pin!(generator.stream(&[ids], &sampling)?);
        while let Some(token) = tokens.next().await {
            let token = token?;
            answer.tokens.push(token.id);
            answer.text += &token.text;
            if let Some(finish) = token.finish {
                answer.finish = finish.name();
            }
            if watch(&token.text).is_break() {
                break;
            }
        }
        Ok(answer)
    }

    fn ids(&self, prompt: &Prompt) -> Result<Vec<u32>> {
        let tokenizer = self.expect_tokenizer()?;
        match prompt {
            Prompt::Text(text) => tokenizer.encode_prompt(text),
            Prompt::Messages(messages) => {
                let missing = || Error::input("prompt", "the model has no template for messages: give a text");
                let template = tokenizer.chat_template(self.clock.clone())?.ok_or_else(missing)?;
                let messages = messages.iter().map(|message| (message.role.as_str(), message.content.as_str()));
                tokenizer.encode_conversation(&template, messages)
            }
        }
    }

    fn sampling(&self, options: &GenerateOptions, given: usize) -> Result<SamplingOptions> {
        let of_file = self.settings.sampling_behind(given, TOKENS);
        let mut sampling = of_file
            .clone()
            .with_max_new_tokens(options.max_tokens.unwrap_or(of_file.max_new_tokens))
            .with_temperature(options.temperature.unwrap_or(of_file.temperature))
            .with_top_k(options.top_k.unwrap_or(of_file.top_k))
            .with_top_p(options.top_p.unwrap_or(of_file.top_p))
            .with_min_p(options.min_p.unwrap_or(of_file.min_p))
            .with_repetition_penalty(options.repetition_penalty.unwrap_or(of_file.repetition_penalty))
            .with_seed(options.seed);
        let tokenizer = self.expect_tokenizer()?;
        options.stop.iter().try_for_each(|stop| sampling.add_stop(stop, tokenizer))?;
        Ok(sampling)
    }

    /// A generator with room for so many tokens; a text that is too long is an error of the generator's.
    fn generator_for(&mut self, model: &Arc<dyn Decoder>, tokens: usize) -> Result<&mut Generator> {
        let most = model.dimensions().max_position;
        let room = tokens.next_power_of_two().max(ROOM).min(most);
        let generator = match self.generator.take() {
            Some(generator) if generator.limits().max_tokens >= room => generator,
            _ => {
                let limits = GenerateLimits::new(1, room);
                let generator = Generator::new(&self.gpu, model.clone(), &self.weights, limits)?;
                generator.with_text(self.expect_tokenizer()?.text_of())
            }
        };
        Ok(self.generator.insert(generator))
    }
}
