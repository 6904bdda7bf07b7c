//! A model.

use crate::errors::work;
use crate::stream::Stream;
use crate::{Gpu, raised};
use numpy::{IntoPyArray, PyArray1, PyArray2, PyArrayMethods, PyReadonlyArray2, PyUntypedArrayMethods};
use pyo3::prelude::*;
use pyo3::types::PyDict;
use std::ops::ControlFlow;
use std::path::PathBuf;
use wgformer::generate::Token;
use wgformer::train::AdamOptions;
use wgformer::{DType, Error};
use wgformer_bindings::{GenerateOptions, LoadOptions, Session, Shared, TokenBatch, TrainOptions, dtype};

const WEIGHTS: [DType; 3] = [DType::F32, DType::F16, DType::BF16];
const CACHES: [DType; 3] = [DType::F32, DType::F16, DType::Q8_0];

/// A model on a GPU.
#[pyclass(frozen, module = "wgformer._wgformer")]
pub(crate) struct Model {
    shared: Shared,
}

/// Options of loading: type of weights, type of caches, context, tokenizer.
type Loading = (Option<String>, Option<String>, Option<usize>, Option<PathBuf>);

fn load_options((weights, cache, context, tokenizer): Loading) -> wgformer::Result<LoadOptions> {
    let types = [&WEIGHTS[..], &DType::QUANTISED[..]].concat();
    Ok(LoadOptions {
        dtype: weights.map(|name| dtype("dtype", &name, &types)).transpose()?,
        cache: cache.map(|name| dtype("cache", &name, &CACHES)).transpose()?,
        context,
        tokenizer,
    })
}

/// Tokens with what goes with them, copied out of Python's arrays, so that other threads may change those.
struct Owned {
    ids: Vec<u32>,
    mask: Option<Vec<u32>>,
    types: Option<Vec<u32>>,
    rows: usize,
    length: usize,
}

impl Owned {
    fn new(
        ids: &PyReadonlyArray2<'_, u32>,
        mask: Option<&PyReadonlyArray2<'_, u32>>,
        types: Option<&PyReadonlyArray2<'_, u32>>,
    ) -> PyResult<Self> {
        let copy = |array: &PyReadonlyArray2<'_, u32>| array.to_vec().map_err(PyErr::from);
        let [rows, length] = [ids.shape()[0], ids.shape()[1]];
        let (mask, types) = (mask.map(copy).transpose()?, types.map(copy).transpose()?);
        Ok(Self { ids: copy(ids)?, mask, types, rows, length })
    }

    fn batch(&self) -> TokenBatch<'_> {
        let Self { rows, length, .. } = *self;
        TokenBatch { ids: &self.ids, mask: self.mask.as_deref(), types: self.types.as_deref(), rows, length }
    }
}

#[pymethods]
impl Model {
    #[staticmethod]
    fn load(py: Python<'_>, gpu: &Gpu, path: PathBuf, options: Loading) -> PyResult<Self> {
        let session = work(py, || Session::load(&gpu.gpu, &path, &load_options(options)?))?;
        Ok(Self { shared: Shared::new(session) })
    }

    #[staticmethod]
    fn new(py: Python<'_>, gpu: &Gpu, config: &str, seed: u64, options: Loading) -> PyResult<Self> {
        let session = work(py, || Session::new(&gpu.gpu, config, seed, &load_options(options)?))?;
        Ok(Self { shared: Shared::new(session) })
    }

    fn info<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let info = work(py, || self.shared.lock()?.info())?;
        let dict = PyDict::new(py);
        dict.set_item("family", info.family)?;
        dict.set_item("parameters", info.parameters)?;
        dict.set_item("vocabulary", info.vocabulary)?;
        dict.set_item("context", info.context)?;
        dict.set_item("width", info.width)?;
        dict.set_item("layers", info.layers)?;
        dict.set_item("generates", info.generates)?;
        dict.set_item("embeds", info.embeds)?;
        dict.set_item("has_tokenizer", info.has_tokenizer)?;
        dict.set_item("chats", info.chats)?;
        Ok(dict)
    }

    fn config(&self, py: Python<'_>) -> PyResult<String> {
        work(py, || Ok(self.shared.lock()?.config()))
    }

    fn tokenize(&self, py: Python<'_>, text: &str) -> PyResult<Vec<u32>> {
        work(py, || self.shared.lock()?.tokenize(text))
    }

    fn tokenize_chat(&self, py: Python<'_>, messages: Vec<(String, String)>) -> PyResult<Vec<u32>> {
        work(py, || self.shared.lock()?.tokenize_chat(&messages))
    }

    fn detokenize(&self, py: Python<'_>, ids: Vec<u32>) -> PyResult<String> {
        work(py, || self.shared.lock()?.detokenize(&ids))
    }

    /// Text, tokens and end of each answer. Signals are heard behind each token.
    fn generate(
        &self,
        py: Python<'_>,
        prompts: Vec<Vec<u32>>,
        options: &Bound<'_, PyDict>,
    ) -> PyResult<Vec<(Option<String>, Vec<u32>, &'static str)>> {
        let options = generate_options(options)?;
        let mut interrupt = None;
        let answers = work(py, || {
            let mut watch = |_: &Token| match Python::attach(signals) {
                Ok(()) => ControlFlow::Continue(()),
                Err(error) => {
                    interrupt = Some(error);
                    ControlFlow::Break(())
                }
            };
            self.shared.lock()?.generate(&prompts, &options, &mut watch)
        });
        if let Some(interrupt) = interrupt {
            return Err(interrupt);
        }
        Ok(answers?.into_iter().map(|answer| (answer.text, answer.tokens, answer.finish.name())).collect())
    }

    fn stream(&self, prompt: Vec<u32>, options: &Bound<'_, PyDict>) -> PyResult<Stream> {
        Ok(Stream::start(self.shared.clone(), prompt, generate_options(options)?))
    }

    /// (texts, width)
    fn embed<'py>(&self, py: Python<'py>, texts: Vec<String>) -> PyResult<Bound<'py, PyArray2<f32>>> {
        let (values, width) = work(py, || {
            let mut session = self.shared.lock()?;
            let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
            Ok((session.embed(&texts)?, session.info()?.width))
        })?;
        values.into_pyarray(py).reshape([texts.len(), width])
    }

    /// What it is, its values, their shape.
    fn forward<'py>(
        &self,
        py: Python<'py>,
        ids: PyReadonlyArray2<'py, u32>,
        mask: Option<PyReadonlyArray2<'py, u32>>,
        types: Option<PyReadonlyArray2<'py, u32>>,
    ) -> PyResult<(&'static str, Bound<'py, PyArray1<f32>>, Vec<usize>)> {
        let owned = Owned::new(&ids, mask.as_ref(), types.as_ref())?;
        let found = work(py, || self.shared.lock()?.forward(owned.batch()))?;
        Ok((found.name, found.values.into_pyarray(py), found.shape))
    }

    fn loss(
        &self,
        py: Python<'_>,
        ids: PyReadonlyArray2<'_, u32>,
        mask: Option<PyReadonlyArray2<'_, u32>>,
        labels: Option<PyReadonlyArray2<'_, i32>>,
    ) -> PyResult<f32> {
        let owned = Owned::new(&ids, mask.as_ref(), None)?;
        let labels = labels.map(|labels| labels.to_vec()).transpose()?;
        work(py, || self.shared.lock()?.loss(owned.batch(), labels.as_deref()))
    }

    fn begin_training(&self, py: Python<'_>, options: &Bound<'_, PyDict>) -> PyResult<()> {
        let mut read = TrainOptions::default();
        for (key, value) in options.iter() {
            let AdamOptions { beta1, beta2, epsilon, weight_decay } = &mut read.adam;
            match key.extract::<String>()?.as_str() {
                "beta1" => *beta1 = value.extract()?,
                "beta2" => *beta2 = value.extract()?,
                "eps" => *epsilon = value.extract()?,
                "weight_decay" => *weight_decay = value.extract()?,
                "max_norm" => read.max_norm = value.extract()?,
                "accumulation" => read.accumulation = value.extract()?,
                "recompute" => read.recompute = value.extract()?,
                "seed" => read.seed = value.extract()?,
                other => return Err(raised(py, &Error::input(other, "is no option of training"))),
            }
        }
        work(py, || self.shared.lock()?.begin_training(read))
    }

    /// Number, loss, norm of gradients, whether it was skipped.
    fn train_step(
        &self,
        py: Python<'_>,
        ids: PyReadonlyArray2<'_, u32>,
        labels: Option<PyReadonlyArray2<'_, i32>>,
        learning_rate: f64,
    ) -> PyResult<(u64, f32, f32, bool)> {
        let owned = Owned::new(&ids, None, None)?;
        let labels = labels.map(|labels| labels.to_vec()).transpose()?;
        let step = work(py, || self.shared.lock()?.train_step(owned.batch(), labels.as_deref(), learning_rate))?;
        Ok((step.step, step.loss, step.norm, step.skipped))
    }

    fn save(&self, py: Python<'_>, path: PathBuf) -> PyResult<()> {
        work(py, || self.shared.lock()?.save(&path))
    }
}

/// Hears signals, such as Ctrl-C.
fn signals(py: Python<'_>) -> PyResult<()> {
    py.check_signals()
}

/// Options by name; what is `None` is as the model's files say.
fn generate_options(options: &Bound<'_, PyDict>) -> PyResult<GenerateOptions> {
    let mut read = GenerateOptions::default();
    for (key, value) in options.iter() {
        match key.extract::<String>()?.as_str() {
            "max_tokens" => read.max_tokens = value.extract()?,
            "temperature" => read.temperature = value.extract()?,
            "top_k" => read.top_k = value.extract()?,
            "top_p" => read.top_p = value.extract()?,
            "min_p" => read.min_p = value.extract()?,
            "repetition_penalty" => read.repetition_penalty = value.extract()?,
            "seed" => read.seed = value.extract()?,
            "stop" => read.stop = value.extract()?,
            other => return Err(raised(options.py(), &Error::input(other, "is no option of generating"))),
        }
    }
    Ok(read)
}
