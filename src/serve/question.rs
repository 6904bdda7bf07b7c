//! From a request to the prompts that the scheduler gets.

use super::fault::Fault;
use super::fields::{Fields, shown, token_ids};
use super::worker::Prompt;
use crate::generate::SamplingOptions;
use crate::io::{ChatTemplate, Tokenizer};
use hyper::StatusCode;
use serde_json::Value;

/// The most tokens of a completion that does not say how many, as in OpenAI's API.
const COMPLETION: usize = 16;
/// The most stop texts, and tokens with a bias.
const STOPS: usize = 16;
const BIASES: usize = 1024;

/// Fields that would change an answer and are not supported, where they say anything.
const UNSUPPORTED: [&str; 8] =
    ["presence_penalty", "frequency_penalty", "top_logprobs", "tools", "functions", "echo", "suffix", "audio"];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Chat,
    Completion,
}

/// A request for answers.
#[derive(Debug)]
pub(super) struct Question {
    pub(super) prompts: Vec<Prompt>,
    /// Tokens of prompts, each counted once however many answers it gets.
    pub(super) prompt_tokens: usize,
    pub(super) stream: bool,
    pub(super) include_usage: bool,
}

/// What of a decoder is needed to read requests.
#[derive(Debug)]
pub(super) struct TextModel {
    pub(super) name: String,
    pub(super) tokenizer: Tokenizer,
    pub(super) template: Option<ChatTemplate>,
    /// What requests do not say.
    pub(super) sampling: SamplingOptions,
    /// The most tokens of a prompt and its answer; of a prompt, which leaves room for one; of an answer.
    pub(super) context: usize,
    pub(super) prompt: usize,
    pub(super) answer: usize,
    /// The most answers of a request.
    pub(super) choices: usize,
}

impl TextModel {
    /// The prompts of a request.
    pub(super) fn read(&self, kind: Kind, fields: &Fields) -> Result<Question, Fault> {
        let n = fields.count("n", 1, self.choices)?.unwrap_or(1);
        refuse_unsupported(fields, n)?;
        let texts = match kind {
            Kind::Chat => vec![self.chat(fields)?],
            Kind::Completion => self.texts(fields.required("prompt")?)?,
        };
        if texts.len().saturating_mul(n) > self.choices {
            let message = format!("{} prompts with n = {n} are more than {} answers", texts.len(), self.choices);
            return Err(Fault::field("prompt", message));
        }
        let (sampling, longest) = self.sampling(kind, fields)?;
        let mut prompts = Vec::with_capacity(texts.len() * n);
        for ids in &texts {
            let room = self.room(kind, ids.len())?;
            for _ in 0..n {
                let seed = sampling.seed.wrapping_add(prompts.len() as u64);
                let options = SamplingOptions { max_new_tokens: longest.min(room), seed, ..sampling.clone() };
                prompts.push(Prompt { ids: ids.clone(), options });
            }
        }
        let stream = fields.flag("stream")?;
        let include_usage = match fields.object("stream_options")?.and_then(|options| options.get("include_usage")) {
            None | Some(Value::Null) => false,
            Some(Value::Bool(wanted)) => *wanted,
            Some(other) => {
                let message = format!("it is {}, but must be true or false", shown(other));
                return Err(Fault::field("stream_options.include_usage", message));
            }
        };
        let prompt_tokens = texts.iter().map(Vec::len).sum();
        Ok(Question { prompts, prompt_tokens, stream, include_usage })
    }

    /// The most tokens of an answer behind a prompt of so many.
    fn room(&self, kind: Kind, tokens: usize) -> Result<usize, Fault> {
        let name = if kind == Kind::Chat { "messages" } else { "prompt" };
        let most = self.prompt;
        if tokens == 0 {
            return Err(Fault::field(name, "it is empty, but at least one token is needed"));
        }
        if tokens > most {
            let message = format!("it has {tokens} tokens, and {most} are the most: shorten it");
            return Err(Fault::field(name, message).with_code("context_length_exceeded"));
        }
        Ok(self.context - tokens)
    }

    fn chat(&self, fields: &Fields) -> Result<Vec<u32>, Fault> {
        let Some(template) = &self.template else {
            let message = "the model has no chat template: use /v1/completions";
            return Err(Fault::new(StatusCode::BAD_REQUEST, message));
        };
        let messages = messages(fields.required("messages")?)?;
        let messages = messages.iter().map(|(role, text)| (*role, text.as_str()));
        self.tokenizer.encode_conversation(template, messages).map_err(|error| about("messages", error))
    }

    /// The prompts of a completion: a text, token ids, or a list of either.
    fn texts(&self, prompt: &Value) -> Result<Vec<Vec<u32>>, Fault> {
        let refused = |value: &Value| {
            let wanted = "a text, a list of texts, or a list of token numbers";
            Fault::field("prompt", format!("it is {}, but must be {wanted}", shown(value)))
        };
        let one = |value: &Value| match value {
            Value::String(text) => self.tokenizer.encode_prompt(text).map_err(|error| about("prompt", error)),
            other => token_ids(other).ok_or_else(|| refused(other)),
        };
        match prompt {
            Value::Array(list) if list.is_empty() => Err(Fault::field("prompt", "the list is empty")),
            Value::Array(list) if list.len() > self.choices && !list.iter().all(Value::is_u64) => {
                let message = format!("it has {} prompts, and {} are the most", list.len(), self.choices);
                Err(Fault::field("prompt", message))
            }
            Value::Array(list) if list.iter().all(|part| part.is_string() || part.is_array()) => {
                list.iter().map(one).collect()
            }
            other => Ok(vec![one(other)?]),
        }
    }

    /// How tokens are drawn, and the most tokens of an answer.
    fn sampling(&self, kind: Kind, fields: &Fields) -> Result<(SamplingOptions, usize), Fault> {
        let mut sampling = self.sampling.clone();
        for (name, value) in [
            ("temperature", &mut sampling.temperature),
            ("top_p", &mut sampling.top_p),
            ("min_p", &mut sampling.min_p),
            ("repetition_penalty", &mut sampling.repetition_penalty),
        ] {
            *value = fields.number(name)?.unwrap_or(*value);
        }
        sampling.top_k = fields.count("top_k", 0, u32::MAX as usize)?.unwrap_or(sampling.top_k);
        sampling.seed = fields.seed()?.unwrap_or_else(rand::random);
        for stop in fields.texts("stop", STOPS)?.unwrap_or_default() {
            sampling.add_stop(stop, &self.tokenizer)?;
        }
        if let Some(biases) = fields.object("logit_bias")? {
            if biases.len() > BIASES {
                return Err(Fault::field(
                    "logit_bias",
                    format!("it has {} tokens, and {BIASES} are the most", biases.len()),
                ));
            }
            let limits = -100.0..=100.0;
            for (token, bias) in biases {
                let (Ok(token), Some(bias)) = (token.parse(), bias.as_f64().filter(|bias| limits.contains(bias)))
                else {
                    let message = "it must have numbers of tokens, and for each a number from -100 to 100";
                    return Err(Fault::field("logit_bias", message));
                };
                sampling.rules.biases.push((vec![token], bias as f32));
            }
        }
        sampling.validate()?;
        let asked = match fields.count("max_completion_tokens", 1, self.answer)? {
            None => fields.count("max_tokens", 1, self.answer)?,
            asked => asked,
        };
        let default = if kind == Kind::Chat { sampling.max_new_tokens } else { COMPLETION };
        Ok((sampling, asked.unwrap_or(default).min(self.answer)))
    }
}

/// Refuses what would give other answers than were asked for.
fn refuse_unsupported(fields: &Fields, n: usize) -> Result<(), Fault> {
    let says = |value: &Value| match value {
        Value::Null | Value::Bool(false) => false,
        Value::Bool(true) => true,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(text) => !text.is_empty(),
        Value::Array(list) => !list.is_empty(),
        Value::Object(map) => !map.is_empty(),
    };
    let mut wrong = UNSUPPORTED.iter().find(|name| fields.get(name).is_some_and(says)).copied();
    if fields.get("logprobs").is_some_and(|value| *value != Value::Bool(false)) {
        wrong = Some("logprobs");
    }
    if fields.get("response_format").is_some_and(|format| format["type"] != "text") {
        wrong = Some("response_format");
    }
    if fields.get("best_of").is_some_and(|best| best.as_u64() != Some(n as u64)) {
        wrong = Some("best_of");
    }
    match wrong {
        Some(name) => Err(Fault::field(name, "it is not supported").with_code("unsupported_parameter")),
        None => Ok(()),
    }
}

/// Messages by role and text.
fn messages(value: &Value) -> Result<Vec<(&'static str, String)>, Fault> {
    let list = value.as_array().filter(|list| !list.is_empty());
    let list = list.ok_or_else(|| Fault::field("messages", "it must be a list of at least one message"))?;
    list.iter().enumerate().map(|(index, message)| one_message(index, message)).collect()
}

fn one_message(index: usize, message: &Value) -> Result<(&'static str, String), Fault> {
    let role = match message["role"].as_str() {
        Some("system" | "developer") => "system",
        Some("user") => "user",
        Some("assistant") => "assistant",
        _ => {
            let message =
                format!("it is {}, but must be system, developer, user or assistant", shown(&message["role"]));
            return Err(Fault::field(&format!("messages[{index}].role"), message));
        }
    };
    let name = || format!("messages[{index}].content");
    let content = match &message["content"] {
        Value::String(text) => text.clone(),
        Value::Null if role == "assistant" => String::new(),
        Value::Array(parts) => {
            let text = |part: &Value| part["text"].as_str().filter(|_| part["type"] == "text").map(str::to_owned);
            let texts: Option<Vec<String>> = parts.iter().map(text).collect();
            texts
                .ok_or_else(|| {
                    Fault::field(&name(), "it has a part that is not a text, and the model reads texts only")
                })?
                .concat()
        }
        other => {
            let message = format!("it is {}, but must be a text or a list of parts {{type: text}}", shown(other));
            return Err(Fault::field(&name(), message));
        }
    };
    Ok((role, content))
}

/// An error of the tokenizer or the template, about a field.
fn about(field: &str, error: crate::Error) -> Fault {
    let fault = Fault::from(error);
    Fault { param: Some(field.to_owned()), ..fault }
}
