//! A service inside an application: one thread owns the scheduler, which answers all requests at once; others send prompts and receive tokens as
//! they come. A client that goes away gives its room up. (Over HTTP: `wgformer serve`, or `wgformer::serve::Server`.)
//!
//! Run it with `cargo run --example service -- MODEL_FOLDER PROMPT…`; without arguments a tiny new model answers.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use wgformer::generate::{SamplingOptions, Scheduler, SchedulerEvent, SchedulerLimits, SchedulerStats};
use wgformer::io::{Config, ModelFolder};
use wgformer::models::{self, Decoder};
use wgformer::{Error, Gpu, Result, Weights};

/// What a client asks, and where its tokens go.
pub(crate) struct Request {
    pub(crate) prompt: Vec<u32>,
    pub(crate) options: SamplingOptions,
    pub(crate) tokens: Sender<Result<u32>>,
}

/// Answers requests until all clients are gone.
///
/// # Errors
/// Those of the device; what concerns one request is sent to its client.
pub(crate) fn serve(mut scheduler: Scheduler, requests: &Receiver<Request>) -> Result<SchedulerStats> {
    let mut clients = HashMap::new();
    loop {
        // Sleeps while there is nothing to do; otherwise takes in what has come between two steps.
        let request = match scheduler.is_idle() {
            true => match requests.recv() {
                Ok(request) => Some(request),
                Err(_) => return Ok(scheduler.stats()),
            },
            false => requests.try_recv().ok(),
        };
        if let Some(Request { prompt, options, tokens }) = request {
            match scheduler.submit(&prompt, &options) {
                Ok(id) => drop(clients.insert(id, tokens)),
                Err(refused) => drop(tokens.send(Err(refused))),
            }
            continue;
        }
        for event in scheduler.step()? {
            let (id, sent, last) = match event {
                SchedulerEvent::Token(token) => (token.request, Ok(token.id), token.finish.is_some()),
                SchedulerEvent::Failed { request, error } => (request, Err(error), true),
                _ => continue,
            };
            let gone = clients.get(&id).is_some_and(|client| client.send(sent).is_err());
            if gone && !last {
                scheduler.cancel(id);
            }
            if gone || last {
                clients.remove(&id);
            }
        }
    }
}

/// Starts the service in a thread; the prompts go to the sender. It ends when all senders are gone.
///
/// # Errors
/// Those of the scheduler.
pub(crate) fn start(
    gpu: &Gpu,
    model: Arc<dyn Decoder>,
    weights: &Weights,
    limits: SchedulerLimits,
) -> Result<(Sender<Request>, std::thread::JoinHandle<Result<SchedulerStats>>)> {
    let mut scheduler = Scheduler::new(gpu, model, weights, limits)?;
    scheduler.prepare()?;
    let (sender, requests) = channel();
    Ok((sender, std::thread::spawn(move || serve(scheduler, &requests))))
}

/// A tiny model, and its weights.
///
/// # Errors
/// Those of the model.
pub(crate) fn new_model(gpu: &Gpu) -> Result<(Arc<dyn Decoder>, Weights)> {
    let config = serde_json::json!({"model_type": "llama", "vocab_size": 97, "hidden_size": 32, "intermediate_size": 64,
        "num_hidden_layers": 2, "num_attention_heads": 2, "max_position_embeddings": 64});
    let model: Arc<dyn Decoder> = models::decoder(&Config::new("config.json", config)?)?.into();
    let weights = Weights::new(gpu);
    model.initialise(&weights, 5)?;
    Ok((model, weights))
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let gpu = Gpu::choose(None)?;
    let limits = SchedulerLimits { requests: 8, tokens: 512, max_tokens: 64, piece: 16 };
    let (model, weights, prompts, tokenizer) = match arguments.split_first() {
        None => {
            let (model, weights) = new_model(&gpu)?;
            (model, weights, (1..=5_u32).map(|n| vec![n, n + 1, n + 2]).collect::<Vec<_>>(), None)
        }
        Some((folder, prompts)) => {
            let folder = ModelFolder::open(folder)?;
            let (model, weights) = models::load(&gpu, &folder, None)?;
            let tokenizer = folder.expect_tokenizer()?.clone();
            let prompts = prompts.iter().map(|p| tokenizer.encode_prompt(p)).collect::<Result<_>>()?;
            (model.into(), weights, prompts, Some(tokenizer))
        }
    };
    let (service, thread) = start(&gpu, model, &weights, limits)?;
    let options = SamplingOptions::default().with_max_new_tokens(24).with_temperature(0.0);
    let clients: Vec<_> = prompts.into_iter().map(|prompt| ask(&service, prompt, &options)).collect();
    drop(service);
    for client in clients {
        let answer = client?.into_iter().collect::<Result<Vec<u32>>>()?;
        match &tokenizer {
            Some(tokenizer) => println!("{}", tokenizer.decode(&answer)?),
            None => println!("{answer:?}"),
        }
    }
    println!("{:?}", thread.join().map_err(|_| "the service panicked")??);
    Ok(())
}

/// Sends a prompt; its tokens come from the receiver.
///
/// # Errors
/// [`Error::Input`] if the service has ended.
pub(crate) fn ask(
    service: &Sender<Request>,
    prompt: Vec<u32>,
    options: &SamplingOptions,
) -> Result<Receiver<Result<u32>>> {
    let (tokens, answer) = channel();
    let sent = service.send(Request { prompt, options: options.clone(), tokens });
    sent.map_err(|_| Error::input("service", "it has ended")).map(|()| answer)
}
