//! wgformer for JavaScript: a page opens an engine, loads or trains models, and generates and embeds texts. `types.d.ts` describes it.
//!
//! Nothing blocks the page, and nothing runs in threads. Errors are JavaScript's, with sentences.
#![cfg(target_arch = "wasm32")]

mod engine;
mod log;

use engine::{GenerateOptions, LoadOptions, Loaded, Prompt, TrainOptions};
use futures::lock::Mutex;
use js_sys::{Function, JSON, Promise, Reflect, Uint8Array};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::json;
use std::ops::{ControlFlow, Range};
use std::rc::Rc;
use std::sync::Arc;
use wasm_bindgen::prelude::*;
use wasm_bindgen_futures::JsFuture;
use wgformer::gpu::GpuOptions;
use wgformer::io::{ModelFolder, Tensors, gguf};
use wgformer::{Error, Gpu, check};

#[wasm_bindgen(typescript_custom_section)]
const TYPES: &str = include_str!("types.d.ts");

type Result<T> = std::result::Result<T, JsError>;

#[wasm_bindgen]
extern "C" {
    #[wasm_bindgen(typescript_type = "Source")]
    pub type Source;
    #[wasm_bindgen(typescript_type = "LoadOptions")]
    pub type JsLoadOptions;
    #[wasm_bindgen(typescript_type = "GenerateOptions")]
    pub type JsGenerateOptions;
    #[wasm_bindgen(typescript_type = "TrainOptions")]
    pub type JsTrainOptions;
    #[wasm_bindgen(typescript_type = "string | Message[]")]
    pub type JsPrompt;
    #[wasm_bindgen(typescript_type = "(progress: Progress) => void")]
    pub type OnProgress;
    #[wasm_bindgen(typescript_type = "(text: string) => void")]
    pub type OnText;
    #[wasm_bindgen(typescript_type = "(step: Step) => void")]
    pub type OnStep;
    #[wasm_bindgen(typescript_type = "Info")]
    pub type Info;
    #[wasm_bindgen(typescript_type = "ModelInfo")]
    pub type ModelInfo;
    #[wasm_bindgen(typescript_type = "Answer")]
    pub type Answer;
    #[wasm_bindgen(typescript_type = "Float32Array[]")]
    pub type Vectors;
    #[wasm_bindgen(typescript_type = "Report")]
    pub type Report;
}

#[wasm_bindgen(module = "/src/source.js")]
extern "C" {
    /// An open source: `{name, length, file(name), read(start, end)}`.
    type Opened;
    #[wasm_bindgen(catch, js_name = open)]
    async fn open_source(source: &JsValue, small: Vec<String>) -> std::result::Result<JsValue, JsValue>;
    #[wasm_bindgen(method, getter)]
    fn name(this: &Opened) -> String;
    #[wasm_bindgen(method, getter)]
    fn length(this: &Opened) -> f64;
    #[wasm_bindgen(method, getter, js_name = isGguf)]
    fn is_gguf(this: &Opened) -> bool;
    #[wasm_bindgen(method)]
    fn file(this: &Opened, name: &str) -> Option<String>;
    #[wasm_bindgen(method)]
    fn read(this: &Opened, start: f64, end: f64) -> Promise;
    /// Lets the page go on where it waited for long.
    async fn pause();
    fn strftime(format: &str) -> String;
}

/// A browser's GPU, opened.
#[wasm_bindgen]
pub struct Engine {
    gpu: Gpu,
}

#[wasm_bindgen]
impl Engine {
    /// Opens the browser's GPU with all its limits and the features that the engine uses.
    pub async fn open() -> Result<Engine> {
        log::install();
        Ok(Self { gpu: Gpu::choose_async(Some(""), &GpuOptions::default()).await? })
    }

    /// The adapter, its limits and features.
    pub fn info(&self) -> Result<Info> {
        let (info, caps) = (self.gpu.info(), self.gpu.caps());
        to_js(&json!({
            "name": info.name, "driver": info.driver, "vendor": info.vendor,
            "fallback": format!("{:?}", info.device_type) == "Cpu",
            "f16": caps.f16, "subgroups": caps.subgroup_sizes, "timestamps": caps.timestamps,
            "maxInvocations": caps.max_invocations, "workgroupMemory": caps.workgroup_memory,
            "storageBindings": caps.storage_bindings, "maxBindingBytes": caps.max_binding_bytes,
            "maxBufferBytes": caps.max_buffer_bytes,
        }))
    }

    /// Loads a model: a GGUF file or a folder of Hugging Face's, from an address or from files that the user chose. What comes from an address is
    /// kept for the next visit.
    pub async fn load(
        &self,
        source: Source,
        options: Option<JsLoadOptions>,
        progress: Option<OnProgress>,
    ) -> Result<Model> {
        let (signal, options) = (Signal::of(options.as_deref()), given::<LoadOptions>("options", options.as_deref())?);
        let small = ModelFolder::SMALL.map(str::to_owned).to_vec();
        let opened: Opened = open_source(&source, small).await.map_err(error_of)?.unchecked_into();
        let (name, total) = (opened.name(), opened.length());
        let mut read = async |range: Range<u64>| {
            let failed = |error: JsValue| Error::input(&name, message_of(&error));
            if signal.aborted() {
                return Err(Error::input(&name, "loading was stopped"));
            }
            let bytes = JsFuture::from(opened.read(range.start as f64, range.end as f64)).await.map_err(failed)?;
            Ok(Uint8Array::new(&bytes).to_vec())
        };
        let file = |name: &str| opened.file(name);
        let folder = match opened.is_gguf() {
            true => gguf::open_async(&name, total as u64, &mut read).await?,
            false => ModelFolder::from_files(&name, &file, Tensors::open_async(&name, total as u64, &mut read).await?)?,
        };
        let mut done = |loaded: u64| call(progress.as_deref(), &json!({ "loaded": loaded, "total": total }));
        let clock = Arc::new(|format: &str| Ok(strftime(format)));
        let loaded = Loaded::load(&self.gpu, folder, &file, &options, clock, &mut read, &mut done).await?;
        Ok(Model::new(loaded))
    }

    /// Trains a small GPT on the characters of a text and gives it back.
    pub async fn train(&self, text: String, options: Option<JsTrainOptions>, on_step: Option<OnStep>) -> Result<Model> {
        let (signal, options) = (Signal::of(options.as_deref()), given::<TrainOptions>("options", options.as_deref())?);
        let mut watch = |step: engine::Step| {
            call(on_step.as_deref(), &step);
            signal.flow()
        };
        Ok(Model::new(engine::train(&self.gpu, &text, &options, &mut watch).await?))
    }

    /// Compares the kernels with their f64 twins, forward and backward, like `wgformer check --quick`.
    pub async fn check(&self, progress: Option<OnProgress>) -> Result<Report> {
        let cases = check::quick_cases_async(self.gpu.caps(), &mut async || pause().await).await;
        let total = cases.len();
        let mut done = async |number: usize, case: &str| {
            call(progress.as_deref(), &json!({ "loaded": number, "total": total, "what": case }));
            pause().await;
        };
        let known = check::KnownFailure::own()?;
        let report = check::check_cases_async(&self.gpu, "", &cases, &known, &mut done).await?;
        to_js(&json!({ "rows": report.rows, "compared": report.cases(), "missed": report.missed() }))
    }
}

/// A model on the GPU. One call at a time.
#[wasm_bindgen]
pub struct Model {
    loaded: Rc<Mutex<Loaded>>,
}

#[wasm_bindgen]
impl Model {
    fn new(loaded: Loaded) -> Self {
        Self { loaded: Rc::new(Mutex::new(loaded)) }
    }

    /// What the model is.
    pub fn info(&self) -> Result<ModelInfo> {
        let loaded = self.loaded.try_lock().ok_or_else(busy)?;
        let model = loaded.model();
        let size = model.dimensions();
        let config = model.config();
        to_js(&json!({
            "family": config["model_type"], "generates": loaded.generates(), "chats": loaded.has_chat_template(),
            "parameters": model.parameter_count()?, "layers": size.layers, "width": size.d_model,
            "vocabulary": size.vocabulary, "context": size.max_position,
        }))
    }

    /// Goes on from a text, or answers a conversation.
    pub async fn generate(
        &self,
        prompt: JsPrompt,
        options: Option<JsGenerateOptions>,
        on_text: Option<OnText>,
    ) -> Result<Answer> {
        let mut loaded = self.loaded.try_lock().ok_or_else(busy)?;
        let signal = Signal::of(options.as_deref());
        let options = given::<GenerateOptions>("options", options.as_deref())?;
        let prompt: Prompt = parsed("prompt", &prompt)?;
        let mut watch = |text: &str| {
            call(on_text.as_deref(), &text);
            signal.flow()
        };
        to_js(&loaded.generate(&prompt, &options, &mut watch).await?)
    }

    /// A vector for each text.
    pub async fn embed(&self, texts: Vec<String>) -> Result<Vectors> {
        let mut loaded = self.loaded.try_lock().ok_or_else(busy)?;
        let vectors = loaded.embed(&texts).await?;
        let vectors = vectors.iter().map(|vector| js_sys::Float32Array::from(vector.as_slice()));
        Ok(vectors.collect::<js_sys::Array>().unchecked_into())
    }
}

fn busy() -> JsError {
    JsError::new("the model answers another call: await it first, or stop it by its signal")
}

/// The `AbortSignal` of an object of options, if it has one.
struct Signal(JsValue);

impl Signal {
    fn of(options: Option<&JsValue>) -> Self {
        let get = |object: &JsValue, key: &str| Reflect::get(object, &key.into()).unwrap_or_default();
        Self(options.filter(|options| options.is_object()).map_or(JsValue::UNDEFINED, |options| get(options, "signal")))
    }

    fn aborted(&self) -> bool {
        self.0.is_object() && Reflect::get(&self.0, &"aborted".into()).is_ok_and(|aborted| aborted.is_truthy())
    }

    fn flow(&self) -> ControlFlow<()> {
        if self.aborted() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }
}

/// Options that were given, or the defaults.
fn given<T: DeserializeOwned + Default>(what: &str, value: Option<&JsValue>) -> Result<T> {
    match value.filter(|value| !value.is_undefined() && !value.is_null()) {
        Some(value) => parsed(what, value),
        None => Ok(T::default()),
    }
}

fn parsed<T: DeserializeOwned>(what: &str, value: &JsValue) -> Result<T> {
    let text = JSON::stringify(value).map_err(error_of)?.as_string().unwrap_or_default();
    serde_json::from_str(&text).map_err(|error| JsError::new(&format!("{what}: {error}")))
}

fn to_js<T: JsCast>(value: &impl Serialize) -> Result<T> {
    let text = serde_json::to_string(value).map_err(|error| JsError::new(&error.to_string()))?;
    JSON::parse(&text).map(JsCast::unchecked_into).map_err(error_of)
}

/// Tells a function of the page, whose errors are the page's.
fn call(function: Option<&JsValue>, value: &impl Serialize) {
    let Some(function) = function.and_then(|function| function.dyn_ref::<Function>()) else { return };
    if let Err(error) =
        to_js::<JsValue>(value).map_err(JsValue::from).and_then(|value| function.call1(&JsValue::NULL, &value))
    {
        log::error(&message_of(&error));
    }
}

fn message_of(error: &JsValue) -> String {
    let message = error.dyn_ref::<js_sys::Error>().map(|error| String::from(error.message()));
    message.or_else(|| error.as_string()).unwrap_or_else(|| format!("{error:?}"))
}

fn error_of(error: JsValue) -> JsError {
    JsError::new(&message_of(&error))
}
