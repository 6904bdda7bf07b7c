//! A server on a small model, and a client that shows the bytes of an exchange.

use futures::channel::oneshot;
use serde_json::Value;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use wgformer::generate::{GenerateLimits, Generator, SamplingOptions, Scheduler, SchedulerLimits};
use wgformer::io::{ChatTemplate, Config, ModelFolder, Tokenizer};
use wgformer::models::{self, Decoder, decoder};
use wgformer::serve::{ServeLimits, Server};
use wgformer::{Gpu, Weights};

pub(crate) const NAME: &str = "tiny";
pub(crate) const TEMPLATE: &str =
    "{% for m in messages %}{{ m.role }}: {{ m.content }}<|endoftext|>{% endfor %}assistant: ";
/// Nothing that is waited for takes longer, by far.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) fn case() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases/llama_bytes")
}

pub(crate) fn gpu() -> Gpu {
    static GPU: OnceLock<Gpu> = OnceLock::new();
    GPU.get_or_init(|| Gpu::choose(None).unwrap()).clone()
}

/// The tiny model, made for texts of 8192 bytes.
pub(crate) struct Tiny {
    pub(crate) model: Arc<dyn Decoder>,
    pub(crate) weights: Weights,
    pub(crate) tokenizer: Tokenizer,
    pub(crate) template: ChatTemplate,
}

impl Tiny {
    pub(crate) fn on(gpu: &Gpu) -> Self {
        let folder = ModelFolder::open(case()).unwrap();
        let mut config = folder.config.value().clone();
        config["max_position_embeddings"] = 8192.into();
        let model: Arc<dyn Decoder> = decoder(&Config::new("config.json", config).unwrap()).unwrap().into();
        let weights = Weights::new(gpu);
        models::load_weights(model.as_ref(), &folder.tensors, &weights).unwrap();
        let tokenizer = folder.tokenizer.unwrap();
        let template = ChatTemplate::new("template", TEMPLATE, Arc::new(|_| Ok("today".into()))).unwrap();
        Self { model, weights, tokenizer, template }
    }

    /// The greedy answer of a generator to a text with special tokens.
    pub(crate) fn greedy(&self, prompt: &str, tokens: usize) -> String {
        let limits = GenerateLimits::new(1, prompt.len() + tokens);
        let mut generator = Generator::new(&gpu(), self.model.clone(), &self.weights, limits)
            .unwrap()
            .with_text(self.tokenizer.text_of());
        let options = SamplingOptions::greedy(tokens).with_end(vec![256]);
        let ids = self.tokenizer.encode(prompt).unwrap();
        let answers = generator.generate(&[ids], &options, |_| std::ops::ControlFlow::Continue(())).unwrap();
        answers[0].text.clone().unwrap()
    }
}

pub(crate) struct TestServer {
    pub(crate) address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<wgformer::Result<()>>>,
}

impl TestServer {
    /// Serves the tiny model, with `requests` rows.
    pub(crate) fn of_tiny(limits: ServeLimits, requests: usize) -> Self {
        Self::of_tiny_on(&gpu(), limits, requests, |server| server)
    }

    pub(crate) fn of_tiny_on(
        gpu: &Gpu,
        limits: ServeLimits,
        requests: usize,
        more: impl FnOnce(Server) -> Server,
    ) -> Self {
        let tiny = Tiny::on(gpu);
        let scheduling = SchedulerLimits::default().with_requests(requests).with_tokens(32768).with_max_tokens(8192);
        let scheduler = Scheduler::new(gpu, tiny.model, &tiny.weights, scheduling).unwrap();
        let sampling = SamplingOptions::default().with_end(vec![256]).with_max_new_tokens(24);
        let server = Server::new(limits).with_decoder(NAME, scheduler, &tiny.tokenizer, Some(tiny.template), sampling);
        Self::of(more(server))
    }

    pub(crate) fn of(server: Server) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let thread = std::thread::spawn(move || {
            server.run(listener, async {
                let _ = stopped.await;
            })
        });
        Self { address, stop: Some(stop), thread: Some(thread) }
    }

    pub(crate) fn post(&self, path: &str, body: &Value) -> Response {
        self.request("POST", path, &[("Content-Type", "application/json")], &body.to_string())
    }

    pub(crate) fn get(&self, path: &str) -> Response {
        self.request("GET", path, &[], "")
    }

    pub(crate) fn request(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Response {
        let mut reader = self.send(method, path, headers, body);
        let head = Head::read(&mut reader);
        Response { body: String::from_utf8(head.body(&mut reader)).unwrap(), head }
    }

    /// Sends a request; the answer is for the caller to read.
    pub(crate) fn send(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> BufReader<TcpStream> {
        let mut socket = self.connect();
        let mut head = format!("{method} {path} HTTP/1.1\r\nConnection: close\r\nContent-Length: {}\r\n", body.len());
        if !headers.iter().any(|(name, _)| *name == "Host") {
            head += "Host: localhost\r\n";
        }
        for (name, value) in headers {
            head += &format!("{name}: {value}\r\n");
        }
        socket.write_all(format!("{head}\r\n{body}").as_bytes()).unwrap();
        BufReader::new(socket)
    }

    pub(crate) fn connect(&self) -> TcpStream {
        let socket = TcpStream::connect(self.address).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket
    }

    /// A stream of events.
    pub(crate) fn stream(&self, path: &str, body: &Value) -> Events {
        let mut body = body.clone();
        body["stream"] = true.into();
        let mut reader = self.send("POST", path, &[("Content-Type", "application/json")], &body.to_string());
        let head = Head::read(&mut reader);
        assert_eq!(head.status, 200, "{}", String::from_utf8_lossy(&head.body(&mut reader)));
        assert_eq!(head.header("content-type"), Some("text/event-stream"));
        Events { reader, rest: String::new() }
    }

    /// A number of `/metrics`.
    pub(crate) fn metric(&self, name: &str) -> f64 {
        let page = self.get("/metrics").body;
        let line = page.lines().find(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(' ')));
        line.unwrap_or_else(|| panic!("no {name} in {page}")).rsplit_once(' ').unwrap().1.parse().unwrap()
    }

    /// Waits until numbers of `/metrics` fulfil a condition.
    pub(crate) fn wait_for(&self, name: &str, fits: impl Fn(f64) -> bool) {
        let begun = Instant::now();
        while !fits(self.metric(name)) {
            assert!(begun.elapsed() < PATIENCE, "{name} is {}", self.metric(name));
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Waits until nothing is answered, nor waits for it.
    pub(crate) fn wait_until_idle(&self) {
        self.wait_for("wgformer_prompts_queued", |queued| queued == 0.0);
        self.wait_for("wgformer_prompts_running", |running| running == 0.0);
    }

    pub(crate) fn begin_to_stop(&mut self) {
        let _ = self.stop.take().unwrap().send(());
    }

    /// How the server ended.
    pub(crate) fn ended(mut self) -> wgformer::Result<()> {
        self.thread.take().unwrap().join().unwrap()
    }
}

impl Drop for TestServer {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take().filter(|_| !std::thread::panicking()) {
            thread.join().unwrap().unwrap();
        }
    }
}

/// The head of an answer.
pub(crate) struct Head {
    pub(crate) status: u16,
    headers: Vec<(String, String)>,
}

impl Head {
    pub(crate) fn read(reader: &mut impl BufRead) -> Self {
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        let status = line.split(' ').nth(1).unwrap_or_else(|| panic!("no status: {line:?}")).parse().unwrap();
        let mut headers = Vec::new();
        loop {
            line.clear();
            reader.read_line(&mut line).unwrap();
            let Some((name, value)) = line.trim_end().split_once(':') else { break };
            headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
        Self { status, headers }
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    fn body(&self, reader: &mut impl BufRead) -> Vec<u8> {
        let mut body = Vec::new();
        if self.header("transfer-encoding") == Some("chunked") {
            while let Some(chunk) = chunk(reader) {
                body.extend(chunk);
            }
        } else {
            reader.read_to_end(&mut body).unwrap();
        }
        body
    }
}

/// The next chunk of a body; none at its end, or where it breaks off.
fn chunk(reader: &mut impl BufRead) -> Option<Vec<u8>> {
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    let size = usize::from_str_radix(line.trim(), 16).ok().filter(|size| *size > 0)?;
    let mut bytes = vec![0; size + 2];
    reader.read_exact(&mut bytes).ok()?;
    bytes.truncate(size);
    Some(bytes)
}

pub(crate) struct Response {
    pub(crate) head: Head,
    pub(crate) body: String,
}

impl Response {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|e| panic!("{e}: {}", self.body))
    }

    /// The answer, which must be one.
    pub(crate) fn good(&self) -> Value {
        assert_eq!(self.head.status, 200, "{}", self.body);
        self.json()
    }
}

/// Server-sent events.
pub(crate) struct Events {
    reader: BufReader<TcpStream>,
    rest: String,
}

impl Iterator for Events {
    type Item = String;

    /// The data of the next event.
    fn next(&mut self) -> Option<String> {
        loop {
            if let Some((event, rest)) = self.rest.split_once("\n\n") {
                let (event, rest) = (event.to_owned(), rest.to_owned());
                self.rest = rest;
                if let Some(data) = event.strip_prefix("data: ") {
                    return Some(data.to_owned());
                }
                assert!(event.starts_with(':'), "{event:?} is no event");
                continue;
            }
            self.rest += std::str::from_utf8(&chunk(&mut self.reader)?).unwrap();
        }
    }
}

/// The texts of a stream by choice, their finish reasons, and the usage, of a stream that ended well.
pub(crate) fn gathered(events: Events, kind: &str, choices: usize) -> (Vec<String>, Vec<String>, Option<Value>) {
    let (mut texts, mut finishes) = (vec![String::new(); choices], vec![String::new(); choices]);
    let (mut usage, mut ended) = (None, false);
    for data in events {
        assert!(!ended, "{data} behind the end");
        if data == "[DONE]" {
            ended = true;
            continue;
        }
        let chunk: Value = serde_json::from_str(&data).unwrap();
        if chunk["usage"].is_object() {
            assert_eq!(chunk["choices"], Value::Array(Vec::new()));
            usage = Some(chunk["usage"].clone());
            continue;
        }
        let choice = &chunk["choices"][0];
        let index = choice["index"].as_u64().unwrap_or_else(|| panic!("{data}")) as usize;
        assert!(finishes[index].is_empty(), "{data} behind the end of choice {index}");
        let text = if kind == "chat" { &choice["delta"]["content"] } else { &choice["text"] };
        texts[index] += text.as_str().unwrap_or_default();
        finishes[index] = choice["finish_reason"].as_str().unwrap_or_default().to_owned();
    }
    assert!(ended, "the stream broke off");
    (texts, finishes, usage)
}
