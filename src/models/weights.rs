//! Weights from files into the store and back, every name and shape checked.

use super::{Decoder, decoder};
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::gpu::Gpu;
use crate::io::{Config, Contents, ModelFolder, NamedTensor, TensorRef, Tensors};
use crate::program::Weights;
use crate::shape::TensorType;
use std::collections::HashSet;
use std::path::Path;

/// A decoder and its weights from a Hugging Face folder. Matrices are stored as `storage`; training needs f32.
///
/// # Errors
/// Those of [`decoder`] and [`load_weights`].
pub fn load(gpu: &Gpu, folder: &ModelFolder, storage: DType) -> Result<(Box<dyn Decoder>, Weights)> {
    let mut model = decoder(&folder.config)?;
    model.set_storage(storage);
    let weights = Weights::new(gpu);
    load_weights(model.as_ref(), &folder.tensors, &weights)?;
    Ok((model, weights))
}

/// Copies the tensors of a file to the store. Nothing is copied unless all of them fit the model.
///
/// Names may lack the model's prefix, and buffers that are no parameters are left aside.
///
/// # Errors
/// [`Error::Format`] that lists missing and surplus tensors and wrong shapes; [`Error::NonFinite`] that names a tensor
/// with a NaN or an infinity; [`Error::OutOfMemory`].
pub fn load_weights(model: &dyn Decoder, tensors: &Tensors, weights: &Weights) -> Result<()> {
    let parameters = model.parameters()?;
    let found = matched(model, &parameters, tensors)?;
    for ((name, ty), tensor) in parameters.iter().zip(found) {
        check_finite(name, ty.dtype, &tensor)?;
        weights.ensure(name, ty)?;
        weights.upload(name, &tensor.to_words(ty.dtype)?)?;
    }
    Ok(())
}

/// The tensor of each parameter.
fn matched<'a>(
    model: &dyn Decoder,
    parameters: &[(String, TensorType)],
    tensors: &'a Tensors,
) -> Result<Vec<TensorRef<'a>>> {
    let (mut found, mut used) = (Vec::new(), HashSet::new());
    let (mut missing, mut wrong) = (Vec::new(), Vec::new());
    for (name, ty) in parameters {
        let bare = name.strip_prefix(model.base_prefix()).unwrap_or(name);
        let Some(tensor) = tensors.get(name).or_else(|| tensors.get(bare)) else {
            missing.push(name.clone());
            continue;
        };
        used.insert(tensor.name.to_owned());
        if *tensor.shape == ty.shape {
            found.push(tensor);
        } else {
            wrong.push(format!("{name} has shape {}, the config says {}", tensor.shape, ty.shape));
        }
    }
    let ignored = |name: &str| model.ignores(name) || model.ignores(&format!("{}{name}", model.base_prefix()));
    let surplus: Vec<String> =
        tensors.names().filter(|name| !used.contains(*name) && !ignored(name)).map(str::to_owned).collect();
    let problems: Vec<String> = [("missing", missing), ("not of this model", surplus), ("of the wrong shape", wrong)]
        .into_iter()
        .filter(|(_, names)| !names.is_empty())
        .map(|(what, names)| format!("{} {what}: {}", names.len(), listed(&names)))
        .collect();
    if problems.is_empty() {
        return Ok(found);
    }
    Err(Error::format(tensors.path(), format!("the tensors do not fit the config: {}", problems.join("; "))))
}

/// The first few of a list.
fn listed(names: &[String]) -> String {
    const SHOWN: usize = 8;
    let mut text = names.iter().take(SHOWN).cloned().collect::<Vec<_>>().join(", ");
    if names.len() > SHOWN {
        text += &format!(" and {} more", names.len() - SHOWN);
    }
    text
}

fn check_finite(name: &str, storage: DType, tensor: &TensorRef<'_>) -> Result<()> {
    let limit = if storage == DType::F16 { 65504.0 } else { f32::MAX };
    let values = tensor.to_f32()?;
    let Some(index) = values.iter().position(|x| !(x.abs() <= limit)) else { return Ok(()) };
    let message = match values[index] {
        x if x.is_finite() => format!("element {index} is {x}, too large for f16; store the weights as bf16 or f32"),
        x => format!("element {index} is {x}; the file is damaged, or its training diverged"),
    };
    Err(Error::NonFinite { what: format!("weight {name}"), message })
}

/// The parameters as they lie in the store, to be written to a file.
///
/// # Errors
/// [`Error::Input`] if the store lacks one; [`Error::DeviceLost`].
pub fn named_tensors(model: &dyn Decoder, weights: &Weights) -> Result<Vec<NamedTensor<'static>>> {
    let tensor = |(name, ty): (String, TensorType)| {
        let bytes = weights.download(&name)?;
        Ok(NamedTensor::new(name, ty, bytes))
    };
    model.parameters()?.into_iter().map(tensor).collect()
}

/// Saves a Hugging Face folder. Tokenizer, generation settings and other small files come from the folder `origin` that
/// the model was loaded from.
///
/// # Errors
/// [`Error::File`] if it cannot be written; [`Error::DeviceLost`].
pub fn save(
    model: &dyn Decoder,
    weights: &Weights,
    origin: Option<&ModelFolder>,
    path: impl AsRef<Path>,
) -> Result<()> {
    let mut config = model.config();
    config["dtype"] = match model.storage() {
        DType::F16 => "float16".into(),
        DType::BF16 => "bfloat16".into(),
        _ => "float32".into(),
    };
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
