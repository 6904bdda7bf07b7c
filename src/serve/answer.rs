//! From tokens to the JSON and the streams of OpenAI's API.

use super::fault::Fault;
use super::metrics::Metrics;
use super::question::Kind;
use super::reply::event;
use super::worker::Update;
use crate::generate::Finish;
use futures::{Stream, stream};
use hyper::body::Bytes;
use serde_json::{Value, json};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::time::{Instant, timeout_at};

/// A stream in which nothing happens says so after this time, so that nobody between takes the connection for dead.
const SILENCE: Duration = Duration::from_secs(15);

/// The answers of a request as they come. Dropping it cancels what is left.
pub(super) struct Answers {
    pub(super) kind: Kind,
    pub(super) model: String,
    pub(super) prompt_tokens: usize,
    pub(super) updates: UnboundedReceiver<Update>,
    pub(super) begun: Instant,
    pub(super) deadline: Instant,
    pub(super) metrics: Arc<Metrics>,
    pub(super) choices: Vec<Choice>,
    pub(super) tokens: usize,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Choice {
    text: String,
    finish: Option<&'static str>,
}

impl Answers {
    fn finished(&self) -> bool {
        self.choices.iter().all(|choice| choice.finish.is_some())
    }

    /// The next update, or nothing until then.
    async fn next(&mut self, until: Instant) -> Result<Option<(usize, String, Option<&'static str>)>, Fault> {
        let (choice, text, finish) = match timeout_at(until, self.updates.recv()).await {
            Ok(Some(Update::Token { choice, text, finish })) => (choice, text, finish.map(reason)),
            Ok(Some(Update::Failed(fault))) => return Err(fault),
            Ok(None) => return Err(Fault::unavailable()),
            Err(_) => return Ok(None),
        };
        if self.tokens == 0 {
            self.metrics.first_token(self.begun.elapsed());
        }
        self.tokens += 1;
        if let Some(choice) = self.choices.get_mut(choice) {
            choice.finish = finish;
        }
        if self.finished() {
            self.metrics.answered(self.begun.elapsed());
        }
        Ok(Some((choice, text, finish)))
    }

    fn usage(&self) -> Value {
        let total = self.prompt_tokens + self.tokens;
        json!({"prompt_tokens": self.prompt_tokens, "completion_tokens": self.tokens, "total_tokens": total})
    }

    /// All answers at once.
    pub(super) async fn whole(mut self) -> Result<String, Fault> {
        while !self.finished() {
            let (choice, text, _) = self.next(self.deadline).await?.ok_or_else(Fault::late)?;
            if let Some(choice) = self.choices.get_mut(choice) {
                choice.text.push_str(&text);
            }
        }
        let choice = |(index, Choice { text, finish }): (usize, &Choice)| match self.kind {
            Kind::Chat => {
                let message = json!({"role": "assistant", "content": text, "refusal": null});
                json!({"index": index, "message": message, "logprobs": null, "finish_reason": finish})
            }
            Kind::Completion => json!({"index": index, "text": text, "logprobs": null, "finish_reason": finish}),
        };
        let choices: Vec<Value> = self.choices.iter().enumerate().map(choice).collect();
        let mut answer = Head::new(self.kind, &self.model, false).with(choices);
        answer["usage"] = self.usage();
        Ok(answer.to_string())
    }

    /// Server-sent events, one or more for each piece of text.
    pub(super) fn events(self, include_usage: bool) -> impl Stream<Item = Bytes> + Send {
        let head = Head::new(self.kind, &self.model, true);
        let mut streaming = Streaming { answers: self, head, include_usage, ready: VecDeque::new(), ended: false };
        streaming.begin();
        stream::unfold(streaming, Streaming::next)
    }
}

/// What all objects of an answer share.
struct Head {
    id: String,
    object: &'static str,
    created: u64,
    model: String,
}

impl Head {
    fn new(kind: Kind, model: &str, stream: bool) -> Self {
        let (prefix, object) = match (kind, stream) {
            (Kind::Chat, true) => ("chatcmpl", "chat.completion.chunk"),
            (Kind::Chat, false) => ("chatcmpl", "chat.completion"),
            (Kind::Completion, _) => ("cmpl", "text_completion"),
        };
        Self {
            id: format!("{prefix}-{:032x}", rand::random::<u128>()),
            object,
            created: now(),
            model: model.to_owned(),
        }
    }

    fn with(&self, choices: Vec<Value>) -> Value {
        let Self { id, object, created, model } = self;
        json!({"id": id, "object": object, "created": created, "model": model, "choices": choices})
    }
}

/// The time in seconds since 1970.
pub(super) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

fn reason(finish: Finish) -> &'static str {
    match finish {
        Finish::End | Finish::Stop => "stop",
        Finish::Length | Finish::Context | Finish::BrokenOff => "length",
    }
}

struct Streaming {
    answers: Answers,
    head: Head,
    include_usage: bool,
    ready: VecDeque<Bytes>,
    ended: bool,
}

impl Streaming {
    async fn next(mut self) -> Option<(Bytes, Self)> {
        while self.ready.is_empty() && !self.ended {
            let silence = Instant::now() + SILENCE;
            match self.answers.next(silence.min(self.answers.deadline)).await {
                Ok(Some((choice, text, finish))) => self.piece(choice, &text, finish),
                Ok(None) if Instant::now() >= self.answers.deadline => {
                    let open = |(index, choice): (usize, &Choice)| choice.finish.is_none().then_some(index);
                    let open: Vec<usize> = self.answers.choices.iter().enumerate().filter_map(open).collect();
                    open.into_iter().for_each(|choice| self.piece(choice, "", Some("timeout")));
                    self.end();
                }
                Ok(None) => self.ready.push_back(Bytes::from_static(b": waiting\n\n")),
                Err(fault) => {
                    self.ready.push_back(event(&fault.body()));
                    self.ended = true;
                }
            }
            if self.answers.finished() && !self.ended {
                self.end();
            }
        }
        self.ready.pop_front().map(|event| (event, self))
    }

    fn push(&mut self, choices: Vec<Value>) {
        let mut chunk = self.head.with(choices);
        if self.include_usage {
            chunk["usage"] = Value::Null;
        }
        self.ready.push_back(event(&chunk));
    }

    fn delta(&mut self, index: usize, delta: &Value, finish: Option<&'static str>) {
        self.push(vec![json!({"index": index, "delta": delta, "logprobs": null, "finish_reason": finish})]);
    }

    /// A chat begins with the role of each answer.
    fn begin(&mut self) {
        if self.answers.kind == Kind::Chat {
            for index in 0..self.answers.choices.len() {
                self.delta(index, &json!({"role": "assistant", "content": ""}), None);
            }
        }
    }

    /// A piece of an answer. There is none of a token whose text is not certain yet.
    fn piece(&mut self, index: usize, text: &str, finish: Option<&'static str>) {
        match self.answers.kind {
            Kind::Chat => {
                if !text.is_empty() {
                    self.delta(index, &json!({"content": text}), None);
                }
                if finish.is_some() {
                    self.delta(index, &json!({}), finish);
                }
            }
            Kind::Completion if !text.is_empty() || finish.is_some() => {
                self.push(vec![json!({"index": index, "text": text, "logprobs": null, "finish_reason": finish})]);
            }
            Kind::Completion => (),
        }
    }

    fn end(&mut self) {
        if self.include_usage {
            let mut chunk = self.head.with(Vec::new());
            chunk["usage"] = self.answers.usage();
            self.ready.push_back(event(&chunk));
        }
        self.ready.push_back(event(&"[DONE]"));
        self.ended = true;
    }
}
