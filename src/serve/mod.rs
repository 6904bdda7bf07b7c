//! A server that answers requests of OpenAI's API over HTTP: chats, completions, vectors of texts.
//!
//! One thread owns the [`Scheduler`] and the embedder and waits for the GPU; connections are served by another, which a slow client cannot hold
//! up, nor can the thread of the GPU be. A client that goes away cancels its answers.

mod answer;
mod api;
mod connections;
mod embeddings;
mod fault;
mod fields;
mod metrics;
mod question;
mod reply;
mod worker;

use crate::error::{Error, Result};
use crate::generate::{SamplingOptions, Scheduler};
use crate::io::{ChatTemplate, Tokenizer};
use crate::tasks::apply::TextEmbedder;
use api::Api;
use derive_setters::Setters;
use embeddings::EmbeddingModel;
use futures::future::{Either, select};
use metrics::Metrics;
use question::TextModel;
use std::net::TcpListener;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use worker::Engine;

/// Times beyond this one do not end.
const LONGEST: Duration = Duration::from_secs(10 * 365 * 24 * 3600);
/// After the GPU is lost: answers that say so go out.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// Reads a request's body without answering it: for tests with hostile bytes.
#[doc(hidden)]
pub fn read_body(body: &[u8]) {
    drop(fields::read_body(body));
}

/// What a server lets clients do.
#[derive(Clone, Debug, PartialEq, Eq, Setters)]
#[setters(prefix = "with_", strip_option)]
#[non_exhaustive]
pub struct ServeLimits {
    /// Bytes of a request's body.
    pub body: usize,
    /// Tokens of a prompt; at most those that the scheduler takes.
    pub prompt: usize,
    /// Tokens of an answer.
    pub answer: usize,
    /// Answers of one request: its prompts times `n`.
    pub choices: usize,
    /// Prompts, and requests for vectors, that are being answered or wait. Those beyond get status 429.
    pub requests: usize,
    /// The time of a request from its head to its last token. One that is over gets status 504, or ends with `"finish_reason": "timeout"` if
    /// it streams.
    pub time: Duration,
    /// Open connections. Those beyond wait.
    pub connections: usize,
    /// The time in which the head of a request must come, and in which its body must.
    pub read: Duration,
    /// A client that reads nothing for that long is left.
    pub write: Duration,
    /// At shutdown: the time that requests have to end.
    pub grace: Duration,
}

impl Default for ServeLimits {
    fn default() -> Self {
        Self {
            body: 8 << 20,
            prompt: usize::MAX,
            answer: usize::MAX,
            choices: 16,
            requests: 64,
            time: Duration::from_secs(600),
            connections: 256,
            read: Duration::from_secs(30),
            write: Duration::from_secs(30),
            grace: Duration::from_secs(10),
        }
    }
}

/// A decoder to be served.
#[derive(Debug)]
struct Decoder {
    name: String,
    scheduler: Scheduler,
    tokenizer: Tokenizer,
    template: Option<ChatTemplate>,
    sampling: SamplingOptions,
}

/// A server of a decoder, of a model that makes vectors, or of both.
#[derive(Debug, Default)]
pub struct Server {
    limits: ServeLimits,
    key: Option<String>,
    decoder: Option<Decoder>,
    embedder: Option<(String, TextEmbedder, Tokenizer)>,
}

impl Server {
    /// A server of nothing yet.
    #[must_use]
    pub fn new(limits: ServeLimits) -> Self {
        Self { limits, ..Self::default() }
    }

    /// Requests must bring this key (`Authorization: Bearer KEY`); all but those for `/health`.
    #[must_use]
    pub fn with_key(self, key: impl Into<String>) -> Self {
        Self { key: Some(key.into()), ..self }
    }

    /// Answers prompts, by that name of the model; chats too if there is a template for them. `sampling` holds where requests say nothing; its
    /// `max_new_tokens` are those of a chat's answer. The scheduler's texts are those of the tokenizer.
    #[must_use]
    pub fn with_decoder(
        self,
        name: impl Into<String>,
        scheduler: Scheduler,
        tokenizer: &Tokenizer,
        template: Option<ChatTemplate>,
        sampling: SamplingOptions,
    ) -> Self {
        let scheduler = scheduler.with_text(tokenizer.text_of());
        let (name, tokenizer) = (name.into(), tokenizer.clone());
        Self { decoder: Some(Decoder { name, scheduler, tokenizer, template, sampling }), ..self }
    }

    /// Makes vectors of texts, by that name of the model, whose tokenizer it is.
    #[must_use]
    pub fn with_embedder(self, name: impl Into<String>, embedder: TextEmbedder, tokenizer: &Tokenizer) -> Self {
        Self { embedder: Some((name.into(), embedder, tokenizer.clone())), ..self }
    }

    /// As [`Server::serve`], on this thread.
    ///
    /// # Errors
    /// Those of [`Server::serve`].
    pub fn run(self, listener: TcpListener, shutdown: impl Future<Output = ()>) -> Result<()> {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .enable_time()
            .max_blocking_threads(threads)
            .build()
            .map_err(|e| Error::input("threads", format!("the system gives no more: {e}")))?;
        let served = runtime.block_on(self.serve(listener, shutdown));
        // What a client that went away asked for may still be read.
        runtime.shutdown_background();
        served
    }

    /// Serves until `shutdown`, and then ends requests in good order; within a runtime of tokio with time and I/O.
    ///
    /// # Errors
    /// [`Error::Input`] if there is no model, or two of one name, or the listener cannot be used; [`Error::DeviceLost`] and others of
    /// [`Scheduler::step`], of which clients are told by status 503.
    pub async fn serve(self, listener: TcpListener, shutdown: impl Future<Output = ()>) -> Result<()> {
        let Self { limits, key, decoder, embedder } = self;
        let [time, read, write] = [limits.time, limits.read, limits.write].map(|time| time.min(LONGEST));
        let limits = ServeLimits { time, read, write, ..limits };
        if decoder.is_none() && embedder.is_none() {
            return Err(Error::input("server", "it has no model to serve"));
        }
        if decoder.as_ref().zip(embedder.as_ref()).is_some_and(|(decoder, embedder)| decoder.name == embedder.0) {
            return Err(Error::input("name", "both models have the same name: give another"));
        }
        let refused = |e: std::io::Error| Error::input("listener", e.to_string());
        let address = listener.local_addr().map_err(refused)?;
        listener.set_nonblocking(true).map_err(refused)?;
        let listener = tokio::net::TcpListener::from_std(listener).map_err(refused)?;

        let embedding =
            embedder.as_ref().map(|(name, embedder, tokenizer)| EmbeddingModel::new(name.clone(), tokenizer, embedder));
        let text = decoder.as_ref().map(|decoder| text_model(decoder, &limits));
        let metrics = Arc::new(Metrics::default());
        let scheduler = decoder.map(|decoder| decoder.scheduler);
        let embedder = embedder.map(|(_, embedder, _)| embedder);
        let (engine, worker, failure) = Engine::start(scheduler, embedder, metrics.clone(), limits.requests)?;
        let grace = limits.grace;
        let api = Arc::new(Api {
            engine,
            text: text.map(Arc::new),
            embedding: embedding.map(Arc::new),
            limits,
            key,
            local: address.ip().is_loopback(),
            metrics,
            created: answer::now(),
        });
        let mut failed = None;
        let stop = async {
            match select(pin!(shutdown), failure).await {
                Either::Right((Ok(error), _)) => {
                    failed = Some(error);
                    LAST_WORDS
                }
                _ => grace,
            }
        };
        connections::serve(listener, &api, stop).await;
        // The worker ends when nobody is left who could ask it for something.
        drop(api);
        match tokio::task::spawn_blocking(move || worker.join()).await {
            Ok(Ok(())) => failed.map_or(Ok(()), Err),
            _ => Err(Error::Graph("the thread of the GPU ended by a defect".into())),
        }
    }
}

fn text_model(decoder: &Decoder, limits: &ServeLimits) -> TextModel {
    let Decoder { name, scheduler, tokenizer, template, sampling } = decoder;
    let context = scheduler.limits().max_tokens;
    TextModel {
        name: name.clone(),
        tokenizer: tokenizer.clone(),
        template: template.clone(),
        sampling: sampling.clone(),
        context,
        prompt: limits.prompt.min(context.saturating_sub(1)),
        answer: limits.answer.min(context.saturating_sub(1)).max(1),
        choices: limits.choices.min(limits.requests),
    }
}
