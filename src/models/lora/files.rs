//! Adapters in files, as PEFT names them, and merged into their base.

use super::{LoraConfig, WEIGHT};
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::gpu::Gpu;
use crate::graph::{Adapters, LOW_RANK, LowRank, Storage};
#[cfg(feature = "files")]
use crate::io::{ADAPTER_CONFIG, ADAPTER_WEIGHTS, safetensors, write_atomic};
use crate::io::{NamedTensor, TensorRef, Tensors};
use crate::models::Model;
#[cfg(doc)]
use crate::models::load_weights;
use crate::models::load_weights_beside;
use crate::models::weights::check_finite;
#[cfg(feature = "files")]
use crate::models::{Encoder, EncoderHead};
use crate::program::{Weights, pack, unpack};
use crate::shape::TensorType;
use std::collections::{BTreeMap, BTreeSet};
#[cfg(feature = "files")]
use std::path::Path;
use std::sync::Arc;

/// What PEFT puts in front of all names.
pub const PREFIX: &str = "base_model.model.";

/// The adapters that a file has: layers and ranks by its tensors, factors by its configuration.
///
/// # Errors
/// [`Error::Format`] with a tensor that is not the model's, or does not fit the configuration.
fn adapters_of(model: &dyn Model, config: &LoraConfig, tensors: &Tensors) -> Result<Adapters> {
    let refuse = |message: String| Error::format(tensors.path(), message);
    let linear: BTreeSet<String> = super::linear_layers(model)?.into_iter().collect();
    let parameters = model.parameters()?;
    let mut layers = BTreeMap::new();
    let mut whole = Vec::new();
    for name in tensors.names() {
        let own = name.strip_prefix(PREFIX).unwrap_or(name);
        let of_model = |known: &str| known == own || model.naming().bare(known) == own;
        let layer = LOW_RANK.iter().find_map(|end| own.strip_suffix(end));
        if let Some(layer) = layer {
            let same = |known: &&String| known.as_str() == layer || model.naming().bare(known) == layer;
            let Some(known) = linear.iter().find(same) else {
                return Err(refuse(format!(
                    "{name} belongs to no linear layer of the base model that can have an adapter"
                )));
            };
            layers.insert(known.clone(), config.low_rank(known));
        } else if let Some((known, _)) = parameters.iter().find(|(known, _)| of_model(known)) {
            whole.push(known.clone());
        } else {
            return Err(refuse(format!(
                "{name} is neither an adapter's nor the base model's: is it of another model?"
            )));
        }
    }
    if layers.is_empty() && whole.is_empty() {
        return Err(refuse("holds no tensors of an adapter".into()));
    }
    Ok(Adapters { layers, whole })
}

/// A store with the weights of a base model, stored as `storage`, and those of a trained adapter.
///
/// # Errors
/// [`Error::Format`] with what of the adapter is not the model's; those of [`load_weights`].
pub fn load_adapted(
    gpu: &Gpu,
    model: &dyn Model,
    storage: Storage,
    base: &Tensors,
    (config, adapter): (&LoraConfig, &Tensors),
) -> Result<Weights> {
    let adapters = adapters_of(model, config, adapter)?;
    // What was trained as a whole may be a head that the base does not have.
    let whole = adapters.whole.clone();
    let weights = beside(gpu, model, storage, base, adapters, (&whole, 0))?;
    load_adapter(model, adapter, &weights)?;
    Ok(weights)
}

/// A store with the weights of a base model, stored as `storage`, for new adapters beside them: [`super::fresh_adapters`]. The parameters
/// `fresh` get fresh values by a seed, as [`load_weights_beside`] has it.
///
/// # Errors
/// Those of [`LoraConfig::adapters`] and [`load_weights`].
pub fn load_base(
    gpu: &Gpu,
    model: &dyn Model,
    storage: Storage,
    tensors: &Tensors,
    config: &LoraConfig,
    (fresh, seed): (&[String], u64),
) -> Result<Weights> {
    beside(gpu, model, storage, tensors, config.adapters(model)?, (fresh, seed))
}

/// A store with the weights of a base model whose storage has these adapters. What is trained as a whole is f32.
fn beside(
    gpu: &Gpu,
    model: &dyn Model,
    storage: Storage,
    base: &Tensors,
    adapters: Adapters,
    (fresh, seed): (&[String], u64),
) -> Result<Weights> {
    let whole = adapters.whole.iter().map(|name| (name.clone(), DType::F32));
    let by_name = storage.by_name.iter().map(|(name, dtype)| (name.clone(), *dtype)).chain(whole).collect();
    let storage = Storage { by_name: Arc::new(by_name), adapters: Some(Arc::new(adapters)), ..storage };
    let weights = Weights::stored_as(gpu, storage);
    load_weights_beside(model, base, &weights, fresh, seed)?;
    Ok(weights)
}

/// Copies an adapter's tensors to the store, whose storage has the adapters.
///
/// # Errors
/// [`Error::Format`] that names a tensor that is missing or of another shape; [`Error::NonFinite`]; [`Error::OutOfMemory`].
fn load_adapter(model: &dyn Model, tensors: &Tensors, weights: &Weights) -> Result<()> {
    for (name, ty) in trained(model, weights.storage())? {
        let forms = [name.as_str(), model.naming().bare(&name)];
        let find = |form: &str| tensors.get(&format!("{PREFIX}{form}")).or_else(|| tensors.get(form));
        let Some(tensor) = forms.into_iter().find_map(find) else {
            return Err(Error::format(
                tensors.path(),
                format!("lacks {PREFIX}{name}, which its configuration or its counterpart asks for"),
            ));
        };
        if *tensor.shape != ty.shape {
            let message = format!(
                "{} has shape {}, but {} is needed: the base model or the rank is another one",
                tensor.name, tensor.shape, ty.shape
            );
            return Err(Error::format(tensors.path(), message));
        }
        check_finite(tensor.name, ty.dtype, &tensor)?;
        weights.ensure(&name, &ty)?;
        weights.upload(&name, &TensorRef::to_words(&tensor, ty.dtype)?)?;
    }
    Ok(())
}

/// The parameters that are trained, with their types.
fn trained(model: &dyn Model, storage: &Storage) -> Result<Vec<(String, TensorType)>> {
    let mut parameters = model.parameters_in(storage)?;
    parameters.retain(|(name, _)| storage.trains(name));
    Ok(parameters)
}

/// The adapters of a store as PEFT's files have them.
///
/// # Errors
/// [`Error::Input`] if the store has no adapters; those of the model.
pub fn adapter_tensors(model: &dyn Model, weights: &Weights) -> Result<Vec<NamedTensor<'static>>> {
    if weights.storage().adapters.is_none() {
        return Err(Error::input("adapter", "the store has none: give its storage the adapters of a LoraConfig"));
    }
    let tensor = |(name, ty): (String, TensorType)| {
        let (weights, own) = (weights.clone(), name.clone());
        NamedTensor::later(format!("{PREFIX}{name}"), ty, move || weights.download(&own))
    };
    Ok(trained(model, weights.storage())?.into_iter().map(tensor).collect())
}

/// Saves the adapters of a store as a folder that PEFT reads: `adapter_config.json` and `adapter_model.safetensors`.
///
/// # Errors
/// Those of [`adapter_tensors`]; [`Error::File`]; [`Error::DeviceLost`].
#[cfg(feature = "files")]
pub fn save_adapter(model: &dyn Model, weights: &Weights, config: &LoraConfig, path: impl AsRef<Path>) -> Result<()> {
    let path = path.as_ref();
    let tensors = adapter_tensors(model, weights)?;
    std::fs::create_dir_all(path).map_err(|e| Error::file(path, e))?;
    safetensors::write(path.join(ADAPTER_WEIGHTS), &tensors)?;
    let mut json = config.to_json();
    // PEFT's word for weights that are (in, out).
    json["fan_in_fan_out"] = model.naming().in_out.into();
    json["task_type"] = task_type(model).into();
    let text = serde_json::to_string_pretty(&json).map_err(|e| Error::input("adapter_config.json", e.to_string()))?;
    write_atomic(path.join(ADAPTER_CONFIG), text.as_bytes())
}

/// PEFT's word for what the model is for.
#[cfg(feature = "files")]
fn task_type(model: &dyn Model) -> &'static str {
    match (model.encoder().map(Encoder::head_kind), model.decoder().is_some()) {
        (Some(_), true) => "SEQ_2_SEQ_LM",
        (None, _) => "CAUSAL_LM",
        (Some(EncoderHead::SequenceClassification { .. }), _) => "SEQ_CLS",
        (Some(EncoderHead::TokenClassification { .. }), _) => "TOKEN_CLS",
        (Some(EncoderHead::QuestionAnswering), _) => "QUESTION_ANS",
        _ => "FEATURE_EXTRACTION",
    }
}

/// The weight of a linear layer with its adapter in it, `W + scale B A`, as it would lie in the store.
///
/// # Errors
/// [`Error::Input`] if W is quantised, which would round the sum; [`Error::DeviceLost`].
pub(crate) fn merged(
    weights: &Weights,
    name: &str,
    ty: &TensorType,
    adapter: LowRank,
    in_out: bool,
) -> Result<Vec<u8>> {
    let layer = name.strip_suffix(WEIGHT).unwrap_or(name);
    if ty.dtype.is_quantised() {
        let message = format!("it is {}: load the model as f32 to merge its adapter (--dtype f32)", ty.dtype);
        return Err(Error::input(name, message));
    }
    let values =
        |name: &str, dtype: DType, count: usize| Ok::<_, Error>(unpack(&weights.download(name)?, dtype, count));
    let mut w = values(name, ty.dtype, ty.shape.numel())?;
    let [a_name, b_name] = LOW_RANK.map(|end| format!("{layer}{end}"));
    let a_shape = weights.get(&a_name).map(|a| a.ty.shape);
    let features = a_shape.ok_or_else(|| Error::input(&a_name, "the store has no weight of this name"))?.last();
    let out = ty.shape.numel() / features.max(1);
    let a = values(&a_name, DType::F32, adapter.rank * features)?;
    let b = values(&b_name, DType::F32, adapter.rank * out)?;
    for (o, b) in b.chunks_exact(adapter.rank).enumerate() {
        for (b, a) in b.iter().zip(a.chunks_exact(features)) {
            for (i, a) in a.iter().enumerate() {
                w[if in_out { i * out + o } else { o * features + i }] += f64::from(adapter.scale) * b * a;
            }
        }
    }
    Ok(pack(&w, ty.dtype))
}
