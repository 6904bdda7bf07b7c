//! Weights from files into the store and back, every name and shape checked.

use super::stored::AsStored;
use super::{Decoder, decoder, stack};
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::gpu::Gpu;
use crate::graph::Graph;
#[cfg(feature = "files")]
use crate::io::{Config, Contents};
use crate::io::{FileType, ModelFolder, NamedTensor, TensorRef, Tensors};
use crate::program::Weights;
use crate::quantised;
use crate::shape::TensorType;
use serde_json::Value;
use std::collections::HashSet;
#[cfg(feature = "files")]
use std::path::Path;

/// The decoder of a Hugging Face folder or a GGUF file. Matrices are stored as `storage`; without one, each as it is in the
/// file, quantised blocks as well. Training needs f32. Matrices whose rows are no whole blocks of a quantised type are
/// stored as f32 instead.
///
/// # Errors
/// Those of [`decoder`].
pub fn decoder_of(folder: &ModelFolder, storage: impl Into<Option<DType>>) -> Result<Box<dyn Decoder>> {
    let mut model = decoder(&folder.config)?;
    match storage.into() {
        Some(storage) => model.set_storage(storage),
        None => model = Box::new(AsStored::new(model, &folder.tensors)?),
    }
    Ok(model)
}

/// The decoder of [`decoder_of`] and its weights.
///
/// # Errors
/// Those of [`decoder`] and [`load_weights`].
pub fn load(gpu: &Gpu, folder: &ModelFolder, storage: impl Into<Option<DType>>) -> Result<(Box<dyn Decoder>, Weights)> {
    let model = decoder_of(folder, storage)?;
    let weights = Weights::new(gpu);
    load_weights(model.as_ref(), &folder.tensors, &weights)?;
    Ok((model, weights))
}

/// Copies the tensors of a file to the store. Nothing is copied unless all of them fit the model.
///
/// Names may lack the model's prefix, and buffers that are no parameters are left aside.
///
/// # Errors
/// [`Error::Format`] that lists missing and surplus tensors and wrong shapes, or if a tied head differs from the embedding;
/// [`Error::NonFinite`] that names a tensor with a NaN or an infinity; [`Error::OutOfMemory`].
pub fn load_weights(model: &dyn Decoder, tensors: &Tensors, weights: &Weights) -> Result<()> {
    let parameters = model.parameters()?;
    let found = matched(model, &parameters, tensors)?;
    for ((name, ty), tensors) in parameters.iter().zip(found) {
        for tensor in &tensors {
            check_finite(tensor.name, ty.dtype, tensor)?;
        }
        let words = match tensors.as_slice() {
            [tensor] if *tensor.shape == ty.shape => tensor.to_words(ty.dtype)?,
            parts => stack::join(&parts.iter().map(TensorRef::to_f32).collect::<Result<Vec<_>>>()?, ty.dtype),
        };
        weights.ensure(name, ty)?;
        weights.upload(name, &words)?;
    }
    Ok(())
}

/// The tensor of each parameter, or its parts.
pub(super) fn matched<'a>(
    model: &dyn Decoder,
    parameters: &[(String, TensorType)],
    tensors: &'a Tensors,
) -> Result<Vec<Vec<TensorRef<'a>>>> {
    let (mut found, mut used) = (Vec::new(), HashSet::new());
    let (mut missing, mut wrong) = (Vec::new(), Vec::new());
    for (name, ty) in parameters.iter().flat_map(|(name, ty)| stack::file_tensors(name, ty)) {
        let Some(tensor) = find(model, tensors, &name) else {
            missing.push(name);
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
        check_tied(model, tensors)?;
        let mut found = found.into_iter();
        let parts = |(name, ty)| found.by_ref().take(stack::file_tensors(name, ty).len()).collect();
        return Ok(parameters.iter().map(|(name, ty)| (name.as_str(), ty)).map(parts).collect());
    }
    Err(Error::format(tensors.path(), format!("the tensors do not fit the config: {}", problems.join("; "))))
}

/// The tensor of that name, which may lack the model's prefix.
fn find<'a>(model: &dyn Decoder, tensors: &'a Tensors, name: &str) -> Option<TensorRef<'a>> {
    let bare = name.strip_prefix(model.base_prefix()).unwrap_or(name);
    tensors.get(name).or_else(|| tensors.get(bare))
}

/// Refuses a head that is left aside, the model being tied, and is another one than the embedding.
fn check_tied(model: &dyn Decoder, tensors: &Tensors) -> Result<()> {
    const HEAD: &str = "lm_head.weight";
    let Some(head) = tensors.get(HEAD).filter(|_| model.ignores(HEAD)) else { return Ok(()) };
    let mut g = Graph::new();
    model.head(&mut g)?;
    let Some(embedding) = g.parameters().find_map(|(name, _)| find(model, tensors, name)) else { return Ok(()) };
    if same(&head, &embedding)? {
        return Ok(());
    }
    let message =
        format!("{HEAD} differs from the embedding although the config ties them; set tie_word_embeddings to false");
    Err(Error::format(tensors.path(), message))
}

fn same(a: &TensorRef<'_>, b: &TensorRef<'_>) -> Result<bool> {
    Ok(a.shape == b.shape && (a.dtype == b.dtype && a.bytes == b.bytes || a.to_f32()? == b.to_f32()?))
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
    let message = match values[index] {
        x if x.is_finite() => {
            format!("element {index} is {x}, too large for {storage}; store the weights as bf16 or f32")
        }
        x => format!("element {index} is {x}; the file is damaged, or its training diverged"),
    };
    Err(Error::NonFinite { what: format!("weight {name}"), message })
}

/// The parameters as they lie in the store, to be written to a file.
///
/// # Errors
/// [`Error::Input`] if the store lacks one; [`Error::DeviceLost`].
pub fn named_tensors(model: &dyn Decoder, weights: &Weights) -> Result<Vec<NamedTensor<'static>>> {
    let mut tensors = Vec::new();
    for (name, ty) in model.parameters()? {
        let parts = stack::file_tensors(&name, &ty);
        if weights.get(&name).is_none() {
            return Err(Error::input(name, "the store has no weight of this name"));
        }
        if parts.len() == 1
            || parts.iter().all(|(_, part)| part.dtype.bytes(2 * part.shape.numel()) == 2 * part.bytes())
        {
            // Parts of whole words: read back when they are written.
            tensors.extend((0..).zip(parts).map(|(index, (part, ty))| {
                let (weights, name, size) = (weights.clone(), name.clone(), ty.bytes());
                NamedTensor::later(part, ty, move || weights.download_part(&name, index * size..(index + 1) * size))
            }));
        } else {
            let bytes = stack::cut(&weights.download(&name)?, &ty);
            tensors.extend(parts.into_iter().zip(bytes).map(|((name, ty), bytes)| NamedTensor::new(name, ty, bytes)));
        }
    }
    Ok(tensors)
}

/// The model's `config.json`, with the type of the matrices that [`named_tensors`] gives.
#[must_use]
pub fn stored_config(model: &dyn Decoder) -> Value {
    let mut config = model.config();
    config["dtype"] = match model.storage() {
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
pub fn save(
    model: &dyn Decoder,
    weights: &Weights,
    origin: Option<&ModelFolder>,
    path: impl AsRef<Path>,
) -> Result<()> {
    let config = stored_config(model);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models::Gpt2;
    use serde_json::json;

    fn model() -> Gpt2 {
        let config = json!({"vocab_size": 5, "n_embd": 4, "n_head": 2, "n_layer": 1, "n_positions": 3});
        Gpt2::from_config(&Config::new("config.json", config).unwrap()).unwrap()
    }

    fn file(names: impl IntoIterator<Item = (String, TensorType)>, value: f32) -> (tempfile::TempDir, Tensors) {
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
    fn old_checkpoints_lack_the_prefix_and_have_buffers() {
        let parameters = model().parameters().unwrap();
        let bare = |name: &str| name.strip_prefix("transformer.").unwrap_or(name).to_owned();
        let mut names: Vec<_> = parameters.iter().map(|(name, ty)| (bare(name), ty.clone())).collect();
        names.push(("h.0.attn.bias".into(), TensorType::f32([1, 1, 3, 3])));
        names.push(("h.0.attn.masked_bias".into(), TensorType::f32([1])));
        names.push(("lm_head.weight".into(), TensorType::f32([5, 4])));
        let (_folder, tensors) = file(names.clone(), 0.5);
        let found = matched(&model(), &parameters, &tensors).unwrap();
        assert!(found.iter().zip(&parameters).all(|(t, (name, _))| t[0].name == bare(name)));
        names.retain(|(name, _)| name != "ln_f.bias");
        names.push(("h.1.ln_1.bias".into(), TensorType::f32([4])));
        let (_folder, tensors) = file(names, 0.5);
        let message = matched(&model(), &parameters, &tensors).unwrap_err().to_string();
        let wanted = "1 missing: transformer.ln_f.bias; 1 not of this model: h.1.ln_1.bias";
        assert!(message.ends_with(wanted), "{message}");
    }

    #[test]
    fn a_tied_head_that_differs_from_the_embedding_is_refused() {
        let parameters = model().parameters().unwrap();
        let with_head = |head: NamedTensor<'static>| {
            let folder = tempfile::tempdir().unwrap();
            let value = |ty: &TensorType| vec![0.5; ty.shape.numel()];
            let all = parameters.iter().map(|(name, ty)| NamedTensor::f32(name, ty.shape.clone(), &value(ty)));
            let all: Vec<NamedTensor<'_>> = all.chain([head]).collect();
            crate::io::safetensors::write(folder.path().join("model.safetensors"), &all).unwrap();
            let tensors = Tensors::open(folder.path()).unwrap();
            matched(&model(), &parameters, &tensors).map(|_| ()).map_err(|e| e.to_string())
        };
        let head = |shape: [usize; 2], value: f32| {
            NamedTensor::f32("lm_head.weight", shape, &vec![value; shape[0] * shape[1]])
        };
        with_head(head([5, 4], 0.5)).unwrap();
        let half = TensorType::new([5, 4], DType::F16);
        let equal = NamedTensor::new("lm_head.weight", half.clone(), crate::program::pack(&[0.5; 20], half.dtype));
        with_head(equal).unwrap();
        for wrong in [head([5, 4], 0.25), head([4, 5], 0.5)] {
            let message = with_head(wrong).unwrap_err();
            assert!(message.contains("model.safetensors: lm_head.weight differs from the embedding"), "{message}");
        }
    }

    #[test]
    fn numbers_that_half_precision_cannot_hold_are_refused() {
        let (_folder, tensors) = file([("w".to_owned(), TensorType::f32([2]))], 70000.0);
        let tensor = tensors.expect("w").unwrap();
        assert!(check_finite("w", DType::F32, &tensor).is_ok() && check_finite("w", DType::BF16, &tensor).is_ok());
        let message = check_finite("w", DType::F16, &tensor).unwrap_err().to_string();
        assert!(message.contains("too large for f16"), "{message}");
    }
}
