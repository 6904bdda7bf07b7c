//! Weights of a file that is read part by part, as from a server or a browser's storage.

use super::Model;
use super::names::{check_same, matched, tied};
use super::weights::{load_one, model_of, storage_of, with_smaller};
use crate::dtype::DType;
use crate::error::Result;
use crate::gpu::Gpu;
use crate::io::{ModelFolder, TensorRef, Tensors, part};
use crate::program::Weights;
use std::ops::Range;
use std::path::Path;

/// As [`super::load_model`], of tensors whose bytes are not here ([`Tensors::open_async`], [`crate::io::gguf::open_async`]): `read` gives a
/// range of the file's bytes, and `done` is told how many have been read. The largest tensor is in memory at a time, not the file.
///
/// # Errors
/// As [`super::load_model`]; those of `read`.
pub async fn load_model_async(
    gpu: &Gpu,
    folder: &ModelFolder,
    storage: impl Into<Option<DType>>,
    read: &mut impl AsyncFnMut(Range<u64>) -> Result<Vec<u8>>,
    done: &mut dyn FnMut(u64),
) -> Result<(Box<dyn Model>, Weights)> {
    let model = model_of(folder)?;
    let types = match storage.into() {
        Some(dtype) => dtype.into(),
        None => storage_of(model.as_ref(), &folder.tensors)?,
    };
    let weights = Weights::stored_as(gpu, types);
    let loaded = load_weights_async(model.as_ref(), &folder.tensors, &weights, read, done).await;
    loaded.map_err(|error| with_smaller(model.as_ref(), weights.storage(), error))?;
    Ok((model, weights))
}

/// As [`super::load_weights`], of tensors whose bytes `read` gives.
///
/// # Errors
/// As [`super::load_weights`]; those of `read`.
pub async fn load_weights_async(
    model: &dyn Model,
    tensors: &Tensors,
    weights: &Weights,
    read: &mut impl AsyncFnMut(Range<u64>) -> Result<Vec<u8>>,
    done: &mut dyn FnMut(u64),
) -> Result<()> {
    let parameters = model.parameters_in(&weights.storage().base())?;
    let found = matched(model, &parameters, tensors)?;
    let path = tensors.path();
    for [(copy, found), (name, parameter)] in tied(model, &parameters, tensors) {
        let bytes = [bytes_of(path, &found, read).await?, bytes_of(path, &parameter, read).await?];
        check_same(tensors, (copy, found.with_bytes(&bytes[0])), (name, parameter.with_bytes(&bytes[1])))?;
    }
    // In the order of the file, which is that of who sends it.
    let mut order: Vec<_> = parameters.iter().zip(found).collect();
    order.sort_by_key(|(_, parts)| parts.first().map(|part| part.range));
    let mut sum = 0;
    for ((name, ty), parts) in order {
        let mut bytes = Vec::with_capacity(parts.len());
        for part in &parts {
            bytes.push(bytes_of(path, part, read).await?);
        }
        sum += bytes.iter().map(|bytes| bytes.len() as u64).sum::<u64>();
        let parts: Vec<TensorRef<'_>> = parts.iter().zip(&bytes).map(|(part, bytes)| part.with_bytes(bytes)).collect();
        load_one(weights, name, ty, &parts)?;
        // What is on its way to the GPU takes memory, too.
        weights.gpu().wait_async().await?;
        done(sum);
    }
    Ok(())
}

/// The bytes of a tensor.
async fn bytes_of(
    path: &Path,
    tensor: &TensorRef<'_>,
    read: &mut impl AsyncFnMut(Range<u64>) -> Result<Vec<u8>>,
) -> Result<Vec<u8>> {
    if !tensor.absent {
        return Ok(tensor.bytes.to_vec());
    }
    let [start, end] = tensor.range;
    part(path, start as u64..end as u64, read).await
}
