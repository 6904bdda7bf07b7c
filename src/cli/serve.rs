//! `wgformer serve`: answers requests over HTTP.

use super::args::{GenerateArgs, ServeArgs};
use super::device::Device;
use super::generate::{add_stops, refuse_other_ways, sampling};
use super::{chat, model, outln, output, print_json};
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::generate::{GenerationSettings, Scheduler, SchedulerLimits};
use crate::io::ModelFolder;
use crate::models::{self, Model};
use crate::program::Weights;
use crate::serve::{ServeLimits, Server};
use crate::tasks::apply::{EmbedSettings, TaskFile, TextEmbedder};
use serde_json::json;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

/// The environment variable for the key of clients.
const KEY: &str = "WGFORMER_API_KEY";
/// The most tokens of a prompt and its answer if nothing says how many.
const CONTEXT: usize = 4096;

pub(super) fn run(options: &ServeArgs) -> Result<ExitCode> {
    // What is taken already is said before a model is loaded.
    let address = SocketAddr::new(options.host, options.port);
    let listener = TcpListener::bind(address).map_err(|e| Error::input("port", format!("{address}: {e}")))?;
    let address = listener.local_addr().map_err(|e| Error::input("port", e.to_string()))?;
    let device = Device::open(&options.common)?;
    let limits = ServeLimits {
        answer: options.max_tokens.unwrap_or(usize::MAX),
        requests: options.parallel.saturating_add(options.queue),
        time: Duration::try_from_secs_f64(options.timeout).unwrap_or(Duration::MAX),
        ..ServeLimits::default()
    };
    let mut server = Server::new(limits);
    let key = options.api_key.clone().or_else(|| std::env::var(KEY).ok()).filter(|key| !key.is_empty());
    if !options.host.is_loopback() && key.is_none() {
        output::note(format_args!(
            "[whoever can reach {address} can use the model: give --api-key, or leave out --host]"
        ));
    }
    if let Some(key) = key {
        server = server.with_key(key);
    }
    let folder = model::opened(&options.model, options.lora.as_deref())?;
    let (model, weights) = models::load_model(&device.gpu, &folder, options.dtype.map(DType::from))?;
    let mut names = vec![options.name.clone().unwrap_or_else(|| name_of(&options.model))];
    server = match model.decoder().is_some() {
        true => with_decoder(server, &names[0], options, &device, &folder, (model, weights))?,
        false if options.embedding_model.is_some() => {
            let message = "MODEL is an encoder that makes vectors itself: leave --embedding-model out";
            return Err(Error::input("embedding-model", message));
        }
        false => with_embedder(server, &names[0], &device, &folder, (model, &weights))?,
    };
    if let Some(path) = &options.embedding_model {
        let folder = ModelFolder::open(path)?;
        let (model, weights) = models::load_model(&device.gpu, &folder, None)?;
        server = with_embedder(server, &name_of(path), &device, &folder, (model, &weights))?;
        names.push(name_of(path));
    }
    device.save_caches();
    let url = format!("http://{address}/v1");
    match options.common.json {
        true => print_json(&json!({"url": url, "models": names, "adapter": device.gpu.info().name}))?,
        false => outln!("{url}: {}, on {}; Ctrl-C ends", names.join(" and "), device.gpu.info().name)?,
    }
    let stop = on_interrupt()?;
    let stopped = async {
        let _ = stop.await;
        output::note(format_args!("\nending what is being answered; press Ctrl-C again to stop at once"));
    };
    server.run(listener, stopped)?;
    Ok(ExitCode::SUCCESS)
}

/// Comes true at Ctrl-C or a request to terminate; a second one ends the process at once.
fn on_interrupt() -> Result<futures::channel::oneshot::Receiver<()>> {
    let (sender, stop) = futures::channel::oneshot::channel();
    let mut sender = Some(sender);
    ctrlc::set_handler(move || match sender.take() {
        Some(sender) => drop(sender.send(())),
        None => std::process::exit(130),
    })
    .map_err(|e| Error::input("Ctrl-C", e.to_string()))?;
    Ok(stop)
}

/// A model's name: that of its folder or file.
fn name_of(path: &Path) -> String {
    let path = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let name = if path.is_dir() { path.file_name() } else { path.file_stem() };
    name.map_or_else(|| "model".to_owned(), |name| name.to_string_lossy().into_owned())
}

fn with_decoder(
    server: Server,
    name: &str,
    options: &ServeArgs,
    device: &Device,
    folder: &ModelFolder,
    (model, weights): (Box<dyn Model>, Weights),
) -> Result<Server> {
    let refused =
        || Error::input("model", "it reads a text with an encoder and writes another: wgformer transform does that");
    let decoder =
        Some(model).filter(|model| model.encoder().is_none()).and_then(Model::into_decoder).ok_or_else(refused)?;
    let tokenizer = folder.expect_tokenizer()?;
    let template = tokenizer.has_chat_template().then(|| chat::template(tokenizer)).transpose()?;
    let positions = decoder.dimensions().max_position;
    let context = model::context(options.context.or(Some(CONTEXT.min(positions))), positions)?;
    let limits = SchedulerLimits {
        requests: options.parallel,
        tokens: options.cache_tokens.unwrap_or(context.saturating_mul(2)),
        max_tokens: context,
        ..SchedulerLimits::default()
    };
    let settings = GenerationSettings::of(folder, decoder.dimensions().vocabulary)?;
    refuse_other_ways(&settings, folder)?;
    if settings.beams.is_some() || !settings.ignored.is_empty() {
        let left_out = settings.ignored.iter().cloned().chain(settings.beams.map(|beams| format!("num_beams {beams}")));
        log::warn!("settings of the model that are left out: {}", left_out.collect::<Vec<_>>().join(", "));
    }
    let args = GenerateArgs { max_tokens: settings.max_new_tokens.or(Some(context)), ..GenerateArgs::default() };
    let (mut sampling, _) = sampling(&args, &settings, 0);
    if settings.temperature.is_none() && sampling.temperature != 0.0 {
        // As in OpenAI's API.
        sampling.temperature = 1.0;
    }
    add_stops(&mut sampling, tokenizer, &args, &settings)?;
    let weights = weights.with_cache(options.cache.into());
    let mut scheduler = Scheduler::new(&device.gpu, decoder.into(), &weights, limits)?;
    // The first answers do not wait for programs, and what does not fit the device is said now.
    scheduler.prepare()?;
    Ok(server.with_decoder(name, scheduler, tokenizer, template, sampling))
}

fn with_embedder(
    server: Server,
    name: &str,
    device: &Device,
    folder: &ModelFolder,
    (model, weights): (Box<dyn Model>, &Weights),
) -> Result<Server> {
    let tokenizer = folder.expect_tokenizer()?;
    let model: Arc<dyn Model> = model.into();
    let file = TaskFile::of(&folder.path, model.as_ref())?;
    let settings = EmbedSettings::of_model(folder, &file)?;
    let embedder = TextEmbedder::new(&device.gpu, model, weights, tokenizer, settings)?;
    Ok(server.with_embedder(name, embedder, tokenizer))
}
