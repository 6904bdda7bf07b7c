//! Weights from files into the store and back, every name and shape checked.

use super::family::other_family;
use super::initialise::initialise_some;
#[cfg(feature = "files")]
use super::lora::LoraConfig;
use super::names::{Names, matched};
use super::{Decoder, Model, lora, model, model_type, stacked};
use crate::dtype::DType;
use crate::error::{Error, Result, human_bytes};
use crate::gpu::Gpu;
use crate::graph::Storage;
#[cfg(feature = "files")]
use crate::io::gguf::{GgufContents, GgufWritten};
#[cfg(feature = "files")]
use crate::io::{ADAPTER_CONFIG, Contents};
use crate::io::{Config, FileType, ModelFolder, NamedTensor, TensorRef, Tensors};
use crate::program::Weights;
use crate::quantised;
use crate::shape::TensorType;
use serde_json::Value;
use std::collections::HashMap;
#[cfg(feature = "files")]
use std::path::Path;
use std::sync::Arc;

/// The model of a Hugging Face folder or a GGUF file. Where `model_type` and the class in `architectures` are of two families, it is that of
/// `model_type`, unless only the other's tensors are there, which is noted in the log.
///
/// # Errors
/// Those of [`model`].
pub fn model_of(folder: &ModelFolder) -> Result<Box<dyn Model>> {
    let read = |config: &Config| {
        let mut model = model(config)?;
        model.adapt_to_tensors(&|end| folder.tensors.names().any(|name| name.ends_with(end)));
        Ok(model)
    };
    let named = read(&folder.config);
    let Some((family, class)) = other_family(&folder.config)? else { return named };
    let fits = |model: &dyn Model| {
        model.parameters().is_ok_and(|parameters| matched(model, &parameters, &folder.tensors).is_ok())
    };
    if named.as_ref().is_ok_and(|model| fits(model.as_ref())) {
        return named;
    }
    let mut keys = folder.config.value().clone();
    keys["model_type"] = family.name.into();
    match read(&folder.config.with_value(keys)) {
        Ok(other) if fits(other.as_ref()) => {
            let source = folder.config.source().display();
            log::warn!("{source}: the tensors are those of \"architectures\", {class}, and not of \"model_type\"");
            Ok(other)
        }
        _ => named,
    }
}

/// The decoder of a Hugging Face folder or a GGUF file, as [`model_of`].
///
/// # Errors
/// Those of [`super::decoder`].
pub fn decoder_of(folder: &ModelFolder) -> Result<Box<dyn Decoder>> {
    let family = model_type(&folder.config)?;
    let message = || format!("is \"{family}\", which reads texts and does not continue them");
    let refuse = || folder.config.refuse("model_type", message());
    model_of(folder)?.into_decoder().ok_or_else(refuse)
}

/// The types that the matrices of a model have in a file, quantised blocks as well. Types that the GPU does not know become f32.
///
/// # Errors
/// As [`Model::declare`].
pub fn storage_of(model: &dyn Model, tensors: &Tensors) -> Result<Storage> {
    let mut types = HashMap::new();
    let parameters = model.parameters()?;
    let names = Names::new(model, tensors, &parameters);
    for (name, ty) in parameters.iter().filter(|(_, ty)| ty.shape.rank() >= 2) {
        // Parts of a stack are of one type.
        let part = stacked::file_tensors(name, ty).swap_remove(0).0;
        let stored = names.get(&part).and_then(|tensor| tensor.same());
        let stored = stored.filter(|d| d.is_weight() && d.holds_rows_of(ty.shape.last()));
        types.insert(name.clone(), stored.unwrap_or(DType::F32));
    }
    Ok(Storage { by_name: Arc::new(types), ..Storage::default() })
}

/// The decoder of [`decoder_of`] and its weights. Matrices are stored as `storage`; without one, each as [`storage_of`] says. Training
/// needs f32, f16 or bf16. Matrices whose rows are no whole blocks of a quantised type are stored as [`DType::for_rows_of`] says.
///
/// # Errors
/// Those of [`super::decoder`] and [`load_weights`].
pub fn load(gpu: &Gpu, folder: &ModelFolder, storage: impl Into<Option<DType>>) -> Result<(Box<dyn Decoder>, Weights)> {
    let model = decoder_of(folder)?;
    let weights = stored(gpu, model.as_ref(), folder, storage.into())?;
    Ok((model, weights))
}

/// The model of [`model_of`] and its weights, as [`load`] stores them.
///
/// # Errors
/// Those of [`model`] and [`load_weights`].
pub fn load_model(
    gpu: &Gpu,
    folder: &ModelFolder,
    storage: impl Into<Option<DType>>,
) -> Result<(Box<dyn Model>, Weights)> {
    let model = model_of(folder)?;
    let weights = stored(gpu, model.as_ref(), folder, storage.into())?;
    Ok((model, weights))
}

fn stored(gpu: &Gpu, model: &dyn Model, folder: &ModelFolder, storage: Option<DType>) -> Result<Weights> {
    let storage = storage.map_or_else(|| storage_of(model, &folder.tensors), |dtype| Ok(dtype.into()))?;
    #[cfg(feature = "files")]
    if let Some(adapter) = &folder.adapter {
        let config = LoraConfig::parse(&adapter.path.join(ADAPTER_CONFIG), &adapter.config)?;
        return lora::load_adapted(gpu, model, storage, &folder.tensors, (&config, &adapter.tensors));
    }
    let weights = Weights::stored_as(gpu, storage);
    load_weights(model, &folder.tensors, &weights).map_err(|error| with_smaller(model, weights.storage(), error))?;
    Ok(weights)
}

/// Types that a user of less memory may choose.
const SMALLER: [DType; 4] = [DType::F16, DType::Q8_0, DType::Q4K, DType::Q2K];

/// Where the memory does not hold the weights: what they take, and what they would in fewer bits.
pub(super) fn with_smaller(model: &dyn Model, storage: &Storage, error: Error) -> Error {
    let Error::OutOfMemory { what, needed, available, hint } = error else { return error };
    let bytes = |storage: &Storage| -> Option<u64> {
        let parameters = model.parameters_in(storage).ok()?;
        Some(parameters.iter().fold(0_u64, |sum, (_, ty)| sum.saturating_add(ty.bytes())))
    };
    let Some(now) = bytes(storage) else { return Error::OutOfMemory { what, needed, available, hint } };
    let fewer = SMALLER.into_iter().filter_map(|dtype| Some((dtype, bytes(&dtype.into())?)));
    let fewer: Vec<String> = fewer
        .filter(|(_, bytes)| *bytes < now / 10 * 9)
        .map(|(dtype, bytes)| format!("{} as {dtype}", human_bytes(bytes)))
        .collect();
    let hint = match fewer.as_slice() {
        [] => format!("The weights take {} in all, and fewer bits would not help: {hint}", human_bytes(now)),
        fewer => {
            format!("The weights take {} in all; they would take {} (--dtype)", human_bytes(now), fewer.join(", "))
        }
    };
    Error::OutOfMemory { what, needed, available, hint }
}

/// Copies the tensors of a file to the store; adapters are not among them. Nothing is copied unless all of the model's are there.
///
/// Names may lack the model's prefix, or have another one in front of them all. Buffers that are no parameters are left aside;
/// so are, with a warning, tensors that are no part of the model, but not those within its blocks.
///
/// # Errors
/// [`Error::Format`] that lists missing and surplus tensors and wrong shapes, with the cause where it can be told, or if a tied
/// head differs from the embedding; [`Error::NonFinite`] that names a tensor with a NaN or an infinity; [`Error::Input`] that
/// names one with a number that the type in memory cannot hold; [`Error::OutOfMemory`].
pub fn load_weights(model: &dyn Model, tensors: &Tensors, weights: &Weights) -> Result<()> {
    load_weights_beside(model, tensors, weights, &[], 0)
}

/// As [`load_weights`], but the parameters `fresh` ([`super::fresh_head`]) get fresh values by a seed.
///
/// # Errors
/// As [`load_weights`].
pub fn load_weights_beside(
    model: &dyn Model,
    tensors: &Tensors,
    weights: &Weights,
    fresh: &[String],
    seed: u64,
) -> Result<()> {
    let mut parameters = model.parameters_in(&weights.storage().base())?;
    parameters.retain(|(name, _)| !fresh.contains(name));
    let found = matched(model, &parameters, tensors)?;
    for ((name, ty), tensors) in parameters.iter().zip(found) {
        load_one(weights, name, ty, &tensors)?;
    }
    if fresh.is_empty() {
        Ok(())
    } else {
        initialise_some(model, weights, seed, &|name| fresh.iter().any(|x| x == name))
    }
}

/// Copies a parameter, which the file has as one tensor or in parts, to the store.
pub(super) fn load_one(weights: &Weights, name: &str, ty: &TensorType, tensors: &[TensorRef<'_>]) -> Result<()> {
    for tensor in tensors {
        check_finite(tensor.name, ty.dtype, tensor)?;
    }
    let words = match tensors {
        [tensor] if *tensor.shape == ty.shape => tensor.to_words(ty.dtype)?,
        // Blocks stay as they are.
        parts if parts.iter().all(|part| part.dtype == FileType::Blocks(ty.dtype)) => {
            let blocks: Vec<&[u8]> = parts.iter().map(|part| part.bytes).collect();
            quantised::from_file(ty.dtype, &blocks.concat())
        }
        parts if stacked::of_whole_words(name, ty) => {
            parts.iter().map(|part| part.to_words(ty.dtype)).collect::<Result<Vec<_>>>()?.concat()
        }
        parts => stacked::join(&parts.iter().map(TensorRef::to_f32).collect::<Result<Vec<_>>>()?, ty.dtype),
    };
    weights.ensure(name, ty)?;
    weights.upload(name, &words)
}

/// What a file calls the tensors of a model: by the name that [`named_tensors`] gives them, the name that they have there.
///
/// # Errors
/// Those of [`load_weights`] for files whose tensors are not the model's.
pub fn names_in(model: &dyn Model, tensors: &Tensors) -> Result<HashMap<String, String>> {
    let parameters = model.parameters()?;
    let found = matched(model, &parameters, tensors)?;
    let own = parameters.iter().flat_map(|(name, ty)| stacked::file_tensors(name, ty));
    Ok(own.zip(found.into_iter().flatten()).map(|((own, _), there)| (own, there.name.to_owned())).collect())
}

pub(super) fn check_finite(name: &str, storage: DType, tensor: &TensorRef<'_>) -> Result<()> {
    // The largest f16, which scales are as well.
    let limit = if storage == DType::F16 || storage.is_quantised() { 65504.0 } else { f32::MAX };
    if tensor.dtype == FileType::Blocks(storage) {
        let Some(index) = quantised::bad_scale(storage, tensor.bytes) else { return Ok(()) };
        let message = format!("the scale of block {index} is no finite number; the file is damaged");
        return Err(Error::NonFinite { what: format!("weight {name}"), message });
    }
    let values = tensor.to_f32()?;
    let Some(index) = values.iter().position(|x| !(x.abs() <= limit)) else { return Ok(()) };
    let (x, what) = (values[index], format!("weight {name}"));
    if x.is_finite() {
        let message =
            format!("element {index} is {x}, too large for {storage}; hold the weights as bf16 or f32 (--dtype)");
        return Err(Error::input(what, message));
    }
    let message = format!("element {index} is {x}; the file is damaged, or its training diverged");
    Err(Error::NonFinite { what, message })
}

/// The parameters as they lie in the store, to be written to a file. An adapter is merged into the layer that has it.
///
/// # Errors
/// [`Error::Input`] if the store lacks one, or a layer with an adapter is quantised; [`Error::DeviceLost`].
pub fn named_tensors(model: &dyn Model, weights: &Weights) -> Result<Vec<NamedTensor<'static>>> {
    let mut tensors = Vec::new();
    let in_out = model.naming().in_out;
    for (name, ty) in model.parameters_in(&weights.storage().base())? {
        let parts = stacked::file_tensors(&name, &ty);
        if weights.get(&name).is_none() {
            return Err(Error::input(name, "the store has no weight of this name"));
        }
        if let Some(adapter) = name.strip_suffix(".weight").and_then(|layer| weights.storage().low_rank(layer)) {
            let (weights, own, whole) = (weights.clone(), name.clone(), ty.clone());
            let bytes = move || lora::merged(&weights, &own, &whole, adapter, in_out);
            tensors.push(NamedTensor::later(name, ty, bytes));
        } else if parts.len() == 1 || stacked::of_whole_words(&name, &ty) {
            // Parts of whole words: read back when they are written.
            tensors.extend((0..).zip(parts).map(|(index, (part, ty))| {
                let (weights, name, size) = (weights.clone(), name.clone(), ty.bytes());
                NamedTensor::later(part, ty, move || weights.download_part(&name, index * size..(index + 1) * size))
            }));
        } else {
            let bytes = stacked::cut(&weights.download(&name)?, &ty);
            tensors.extend(parts.into_iter().zip(bytes).map(|((name, ty), bytes)| NamedTensor::new(name, ty, bytes)));
        }
    }
    Ok(tensors)
}

/// The model's `config.json`, with the type of the matrices that [`named_tensors`] gives.
#[must_use]
pub fn stored_config(model: &dyn Model, weights: &Weights) -> Value {
    let mut config = model.config();
    config["dtype"] = match weights.storage().common() {
        DType::F16 => "float16".into(),
        DType::BF16 => "bfloat16".into(),
        _ => "float32".into(),
    };
    config
}

/// Saves a Hugging Face folder. Tokenizer, generation settings and other small files come from the folder `origin` that
/// the model was loaded from.
///
/// # Errors
/// [`Error::File`] if it cannot be written; [`Error::DeviceLost`].
#[cfg(feature = "files")]
pub fn save(model: &dyn Model, weights: &Weights, origin: Option<&ModelFolder>, path: impl AsRef<Path>) -> Result<()> {
    let config = stored_config(model, weights);
    let companions = origin.map_or_else(|| Ok(Vec::new()), ModelFolder::companions)?;
    let contents = Contents {
        config: &config,
        generation: origin.and_then(|folder| folder.generation.as_ref()).map(Config::value),
        tensors: &named_tensors(model, weights)?,
        tokenizer: origin.and_then(|folder| folder.tokenizer.as_ref()),
        companions: &companions,
    };
    contents.save(path)
}

/// How an encoder's states become vectors, in a configuration.
#[cfg(feature = "files")]
const POOLING: &str = "pooling";

/// Saves a GGUF file whose matrices are of that type. The store holds f32; name, tokenizer and the `pooling` of its configuration are those of
/// `origin`.
///
/// # Errors
/// [`Error::Input`] if the store holds other types, or the model has no form in GGUF; [`Error::File`]; [`Error::DeviceLost`].
#[cfg(feature = "files")]
pub fn save_gguf(
    model: &dyn Model,
    weights: &Weights,
    origin: Option<&ModelFolder>,
    path: impl AsRef<Path>,
    dtype: DType,
) -> Result<GgufWritten> {
    if weights.storage().base() != Storage::default() {
        return Err(Error::input("weights", "they are held in fewer bits: load the model as f32 to write it"));
    }
    let name = origin.and_then(|folder| folder.path.file_stem()).map(|name| name.to_string_lossy().into_owned());
    let mut config = stored_config(model, weights);
    if let Some(pooling) = origin.and_then(|folder| folder.config.value().get(POOLING)) {
        config[POOLING] = pooling.clone();
    }
    let contents = GgufContents {
        config: &config,
        tensors: &named_tensors(model, weights)?,
        tokenizer: origin.and_then(|folder| folder.tokenizer.as_ref()),
        name: name.as_deref().unwrap_or("model"),
        dtype,
    };
    contents.write(path)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A file of tensors of one value.
    pub(in crate::models) fn file(
        names: impl IntoIterator<Item = (String, TensorType)>,
        value: f32,
    ) -> (tempfile::TempDir, Tensors) {
        let folder = tempfile::tempdir().unwrap();
        let tensors: Vec<NamedTensor<'_>> = names
            .into_iter()
            .map(|(name, ty)| NamedTensor::f32(name, ty.shape.clone(), &vec![value; ty.shape.numel()]))
            .collect();
        crate::io::safetensors::write(folder.path().join("model.safetensors"), &tensors).unwrap();
        let tensors = Tensors::open(folder.path()).unwrap();
        (folder, tensors)
    }

    #[test]
    fn numbers_that_half_precision_cannot_hold_are_refused() {
        let (_folder, tensors) = file([("w".to_owned(), TensorType::f32([2]))], 70000.0);
        let tensor = tensors.expect("w").unwrap();
        assert!(check_finite("w", DType::F32, &tensor).is_ok() && check_finite("w", DType::BF16, &tensor).is_ok());
        let message = check_finite("w", DType::F16, &tensor).unwrap_err().to_string();
        assert!(message.starts_with("weight w: element 0 is 70000, too large for f16"), "{message}");
    }

    #[test]
    fn who_lacks_memory_is_told_what_would_do() {
        let config = serde_json::json!({"model_type": "llama", "vocab_size": 1000, "hidden_size": 256, "num_attention_heads": 4,
                                        "num_hidden_layers": 2, "intermediate_size": 512});
        let model = model(&Config::new("config.json", config).unwrap()).unwrap();
        let full = || Error::OutOfMemory {
            what: "w".into(),
            needed: "9 GB".into(),
            available: "1 GB".into(),
            hint: "Lower it".into(),
        };
        let told = |dtype: DType| with_smaller(model.as_ref(), &dtype.into(), full()).to_string();
        let message = told(DType::F32);
        assert!(message.contains("The weights take 7.0 MiB in all; they would take 3.5 MiB as f16, "), "{message}");
        assert!(message.contains(" as q4_k, ") && message.ends_with(" as q2_k (--dtype)"), "{message}");
        assert!(told(DType::Q2K).contains("fewer bits would not help: Lower it"));
        let other = with_smaller(model.as_ref(), &Storage::default(), Error::Graph("x".into()));
        assert!(matches!(other, Error::Graph(_)));
    }
}
