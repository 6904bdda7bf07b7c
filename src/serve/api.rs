//! The endpoints.

use super::ServeLimits;
use super::answer::{Answers, Choice};
use super::embeddings::{self, EmbeddingModel};
use super::fault::Fault;
use super::fields::Fields;
use super::metrics::Metrics;
use super::question::{Kind, TextModel};
use super::reply::{Reply, events, json, whole};
use super::worker::Engine;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST};
use hyper::{HeaderMap, Method, Request, StatusCode};
use serde_json::{Value, json};
use std::hint::black_box;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use tokio::time::{Instant, timeout_at};

const CHAT: &str = "/v1/chat/completions";
const COMPLETIONS: &str = "/v1/completions";
const EMBEDDINGS: &str = "/v1/embeddings";
const MODELS: &str = "/v1/models";
const METRICS: &str = "/metrics";
const HEALTH: &str = "/health";
/// All paths, with whether they are posted to.
const PATHS: [(&str, bool); 6] =
    [(CHAT, true), (COMPLETIONS, true), (EMBEDDINGS, true), (MODELS, false), (METRICS, false), (HEALTH, false)];
/// So many times the largest body is read and thrown away, so that its sender gets to see the answer.
const DRAINED: usize = 8;

/// What all requests share.
#[derive(Debug)]
pub(super) struct Api {
    pub(super) engine: Engine,
    pub(super) text: Option<Arc<TextModel>>,
    pub(super) embedding: Option<Arc<EmbeddingModel>>,
    pub(super) limits: ServeLimits,
    pub(super) key: Option<String>,
    /// Whether only this machine can connect.
    pub(super) local: bool,
    pub(super) metrics: Arc<Metrics>,
    pub(super) created: u64,
}

impl Api {
    /// The answer to any request.
    pub(super) async fn handle(&self, request: Request<Incoming>) -> Reply {
        let path = request.uri().path();
        let known = PATHS.iter().find(|(known, _)| *known == path).map(|(known, _)| *known);
        let listed = path.strip_prefix(MODELS).is_some_and(|rest| rest.starts_with('/')).then_some(MODELS);
        let endpoint = known.or(listed).unwrap_or("other");
        let reply = self.answer(endpoint, request).await.unwrap_or_else(|fault| fault.reply());
        self.metrics.count(endpoint, reply.status());
        reply
    }

    async fn answer(&self, endpoint: &str, request: Request<Incoming>) -> Result<Reply, Fault> {
        self.check_host(request.headers())?;
        if endpoint != HEALTH {
            self.check_key(request.headers())?;
        }
        let posted = PATHS.iter().any(|(path, posted)| *path == endpoint && *posted);
        let fits = match *request.method() {
            Method::POST => posted,
            Method::GET | Method::HEAD => !posted,
            _ => false,
        };
        if endpoint != "other" && !fits {
            let method = if posted { "POST" } else { "GET" };
            return Err(Fault::new(StatusCode::METHOD_NOT_ALLOWED, format!("{endpoint} takes {method}")));
        }
        let begun = Instant::now();
        match endpoint {
            CHAT => self.write(Kind::Chat, request, begun).await,
            COMPLETIONS => self.write(Kind::Completion, request, begun).await,
            EMBEDDINGS => self.embed(request, begun).await,
            MODELS => self.models(request.uri().path()),
            METRICS => Ok(whole(StatusCode::OK, "text/plain; version=0.0.4", self.metrics.text())),
            HEALTH => Ok(json(StatusCode::OK, json!({"status": "ok"}).to_string())),
            _ => Err(Fault::new(StatusCode::NOT_FOUND, format!("there is no {}", request.uri().path()))),
        }
    }

    async fn write(&self, kind: Kind, request: Request<Incoming>, begun: Instant) -> Result<Reply, Fault> {
        let deadline = begun + self.limits.time;
        let fields = self.fields(request).await?;
        let model = self.text.clone().ok_or_else(|| {
            let name = self.embedding.as_ref().map_or("", |model| &model.name);
            let message = format!("{name} makes vectors and writes nothing: use {EMBEDDINGS}");
            Fault::new(StatusCode::NOT_FOUND, message).with_code("model_not_found")
        })?;
        check_model(&fields, &model.name)?;
        let name = model.name.clone();
        let question = on_a_thread(move || model.read(kind, &fields)).await?;
        let choices = vec![Choice::default(); question.prompts.len()];
        let asked = timeout_at(deadline, self.engine.answer(question.prompts));
        let updates = asked.await.map_err(|_| Fault::late())??;
        let metrics = self.metrics.clone();
        let prompt_tokens = question.prompt_tokens;
        let answers =
            Answers { kind, model: name, prompt_tokens, updates, begun, deadline, metrics, choices, tokens: 0 };
        match question.stream {
            true => Ok(events(answers.events(question.include_usage))),
            false => Ok(json(StatusCode::OK, answers.whole().await?)),
        }
    }

    async fn embed(&self, request: Request<Incoming>, begun: Instant) -> Result<Reply, Fault> {
        let deadline = begun + self.limits.time;
        let fields = self.fields(request).await?;
        let model = self.embedding.clone().ok_or_else(|| {
            let message = "the server has no model that makes vectors: start it with --embedding-model";
            Fault::new(StatusCode::NOT_FOUND, message).with_code("model_not_found")
        })?;
        check_model(&fields, &model.name)?;
        let name = model.name.clone();
        let embeddings::Texts { texts, base64, tokens } = on_a_thread(move || model.read(&fields)).await?;
        let count = texts.len() as u64;
        let vectors = timeout_at(deadline, self.engine.embed(texts)).await.map_err(|_| Fault::late())??;
        self.metrics.embedded.fetch_add(count, Ordering::Relaxed);
        let body = on_a_thread(move || embeddings::body(&name, vectors, base64, tokens)).await?;
        Ok(json(StatusCode::OK, body))
    }

    /// The list of models, or one of them.
    fn models(&self, path: &str) -> Result<Reply, Fault> {
        let names = self.text.iter().map(|model| &model.name).chain(self.embedding.iter().map(|model| &model.name));
        let about =
            |name: &String| json!({"id": name, "object": "model", "created": self.created, "owned_by": "wgformer"});
        let mut models = names.map(|name| (name, about(name)));
        let body = match path.strip_prefix(MODELS).and_then(|rest| rest.strip_prefix('/')) {
            None => json!({"object": "list", "data": models.map(|(_, about)| about).collect::<Vec<Value>>()}),
            Some(wanted) => models.find(|(name, _)| *name == wanted).ok_or_else(|| unknown_model(wanted))?.1,
        };
        Ok(json(StatusCode::OK, body.to_string()))
    }

    /// A page of a browser, whose name an attacker may have pointed at this machine, must not read answers: only names of this machine are
    /// taken where there is no key.
    fn check_host(&self, headers: &HeaderMap) -> Result<(), Fault> {
        let Some(host) = headers.get(HOST).filter(|_| self.local && self.key.is_none()) else { return Ok(()) };
        let host = host.to_str().unwrap_or_default();
        let name = host.rsplit_once(':').filter(|(_, port)| !port.ends_with(']')).map_or(host, |(name, _)| name);
        let bare = name.trim_start_matches('[').trim_end_matches(']');
        if name.eq_ignore_ascii_case("localhost") || bare.parse::<IpAddr>().is_ok() {
            return Ok(());
        }
        let message = "the server was asked by a name that is not this machine's: use localhost, or give it an API key";
        Err(Fault::new(StatusCode::FORBIDDEN, message))
    }

    fn check_key(&self, headers: &HeaderMap) -> Result<(), Fault> {
        let Some(key) = &self.key else { return Ok(()) };
        let given = headers.get(AUTHORIZATION).and_then(|value| value.as_bytes().strip_prefix(b"Bearer "));
        match given.is_some_and(|given| equal(given, key.as_bytes())) {
            true => Ok(()),
            false => {
                let message = "the API key is missing or wrong: Authorization: Bearer KEY";
                Err(Fault::new(StatusCode::UNAUTHORIZED, message).with_code("invalid_api_key"))
            }
        }
    }

    /// The fields of a body.
    async fn fields(&self, request: Request<Incoming>) -> Result<Fields, Fault> {
        // A page of a browser cannot send this without asking first.
        let kind = request.headers().get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
        if !kind.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case("application/json") {
            let message = "the body must be JSON: Content-Type: application/json";
            return Err(Fault::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, message));
        }
        let body = self.body(request.into_body()).await?;
        on_a_thread(move || Fields::of(&body)).await
    }

    async fn body(&self, mut body: Incoming) -> Result<Vec<u8>, Fault> {
        let (deadline, most) = (Instant::now() + self.limits.read, self.limits.body);
        let mut bytes = Vec::new();
        let mut length = 0;
        loop {
            let slow = |_| Fault::new(StatusCode::REQUEST_TIMEOUT, "the body did not come in time");
            let Some(frame) = timeout_at(deadline, body.frame()).await.map_err(slow)? else { break };
            let broken = |e| Fault::new(StatusCode::BAD_REQUEST, format!("the body broke off: {e}"));
            let Ok(data) = frame.map_err(broken)?.into_data() else { continue };
            length += data.len();
            if length <= most {
                bytes.extend_from_slice(&data);
            } else if length / DRAINED > most {
                break;
            }
        }
        if length > most {
            let message = format!("the body is larger than {}", crate::error::human_bytes(most as u64));
            return Err(Fault::new(StatusCode::PAYLOAD_TOO_LARGE, message));
        }
        Ok(bytes)
    }
}

/// Work that takes long for large requests.
async fn on_a_thread<T: Send + 'static>(work: impl FnOnce() -> Result<T, Fault> + Send + 'static) -> Result<T, Fault> {
    let failed = |_| Fault::new(StatusCode::INTERNAL_SERVER_ERROR, "the request could not be read, which is a defect");
    tokio::task::spawn_blocking(work).await.map_err(failed)?
}

/// A request may leave the model out.
fn check_model(fields: &Fields, name: &str) -> Result<(), Fault> {
    match fields.text("model")? {
        Some(wanted) if wanted != name => Err(unknown_model(wanted)),
        _ => Ok(()),
    }
}

fn unknown_model(name: &str) -> Fault {
    let fault = Fault::new(StatusCode::NOT_FOUND, format!("there is no model {name:?} here: GET {MODELS} lists them"));
    Fault { param: Some("model".into()), ..fault }.with_code("model_not_found")
}

/// Compares in a time that depends on lengths only.
fn equal(given: &[u8], key: &[u8]) -> bool {
    let other = given.iter().zip(key).fold(0, |other, (a, b)| black_box(other | (a ^ b)));
    given.len() == key.len() && other == 0
}
