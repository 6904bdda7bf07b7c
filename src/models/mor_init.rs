//! Mixtures of recursions that start from a trained Llama: Bae et al., "Relaxed Recursive Transformers", arXiv 2410.20672.

use super::initialise::initial_words;
use super::names::matched;
use super::weights::check_finite;
use super::{Llama, Model, model_type};
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::gpu::Gpu;
use crate::io::{Config, ModelFolder, TensorRef};
use crate::nn::{CAPACITY_STEP, Recursion};
use crate::program::{Weights, pack};
use std::collections::HashMap;

/// The trained layers that a layer that recurs starts from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum LayerInit {
    /// Layers at even intervals, from the first of those that recur to the last.
    Stepwise,
    /// The mean of the layers that it takes the place of: [`Recursion::tied`].
    Average,
    /// The first ones.
    Lower,
}

impl LayerInit {
    /// The trained layers whose mean a stored layer starts as.
    #[must_use]
    pub fn layers(self, recursion: &Recursion, stored: usize) -> Vec<usize> {
        let Some((index, first, count)) = recursion.index_in_block(stored) else { return recursion.tied(stored) };
        match self {
            Self::Average => recursion.tied(stored),
            Self::Lower => vec![first + index],
            Self::Stepwise => {
                let steps = recursion.block_layers().saturating_sub(1).max(1);
                // To the nearest layer.
                vec![first + (2 * index * (count - 1) + steps) / (2 * steps)]
            }
        }
    }
}

/// The mixture of recursions of `config` with the weights of a trained Llama of as many layers as one of its tokens can go
/// through: embedding, head and layers that do not recur as they are, layers that recur as `from` says, routers fresh.
///
/// With one recursion and `"routing": "none"` it is the Llama.
///
/// # Errors
/// [`Error::Format`] if `config` is none of a mixture of recursions, the folder holds another family, or its layers, names or
/// shapes do not fit; [`Error::NonFinite`]; [`Error::OutOfMemory`].
pub fn uptrain_from_llama(
    gpu: &Gpu,
    config: &Config,
    folder: &ModelFolder,
    from: LayerInit,
    storage: DType,
    seed: u64,
) -> Result<(Llama, Weights)> {
    let family = model_type(&folder.config)?;
    if family != "llama" {
        let what = if family == "mor" { "; it goes on as what it is, without new recursions" } else { "" };
        return Err(folder
            .config
            .refuse("model_type", format!("is \"{family}\"; recursions start from a llama{what}")));
    }
    let llama = Llama::from_config(&folder.config)?;
    let model = Llama::from_config(config)?;
    let Some(recursion) = model.recursion.clone() else {
        return Err(config.refuse("model_type", "is no mixture of recursions (mor)"));
    };
    if model.layers != llama.layers {
        let message = format!(
            "is {}; the trained model has {} layers, and a token that goes all the way must go through as many",
            model.layers, llama.layers
        );
        return Err(config.refuse("num_hidden_layers", message));
    }
    if model.mixture.is_some() {
        return Err(config.refuse("num_local_experts", "is set; the trained model has no experts to start from"));
    }
    let names = llama.parameters()?;
    let found = matched(&llama, &names, &folder.tensors)?;
    let trained: HashMap<&str, &TensorRef<'_>> =
        names.iter().zip(&found).filter_map(|((name, _), parts)| Some((name.as_str(), parts.first()?))).collect();
    let (weights, initials) = (Weights::stored_as(gpu, storage), model.initials()?);
    for (name, ty) in model.parameters_in(weights.storage())? {
        let sources: Vec<&TensorRef<'_>> = sources(&recursion, from, &name)
            .iter()
            .filter_map(|source| trained.get(source.as_str()).copied())
            .collect();
        if let Some(wrong) = sources.iter().find(|source| *source.shape != ty.shape) {
            let message = format!("{} has shape {}, the new model needs {}", wrong.name, wrong.shape, ty.shape);
            return Err(Error::format(folder.tensors.path(), message));
        }
        for source in &sources {
            check_finite(source.name, storage, source)?;
        }
        let words = match sources.as_slice() {
            [] if is_new(&name) => {
                initials.get(&name).map_or_else(Vec::new, |new| initial_words(*new, &ty, seed, &name))
            }
            [] => return Err(Error::format(folder.tensors.path(), format!("has nothing for the new model's {name}"))),
            [only] => only.to_words(ty.dtype)?,
            several => pack(&mean(several)?, ty.dtype),
        };
        weights.ensure(&name, &ty)?;
        weights.upload(&name, &words)?;
    }
    Ok((model, weights))
}

/// Whether a parameter is not in a Llama: routers, and the count of steps.
fn is_new(name: &str) -> bool {
    ["model.router", "model.aux_routers."].iter().any(|new| name.starts_with(new)) || name.ends_with(CAPACITY_STEP)
}

/// The trained parameters whose mean a parameter starts as.
fn sources(recursion: &Recursion, from: LayerInit, name: &str) -> Vec<String> {
    let layer = name.strip_prefix("model.layers.").and_then(|rest| rest.split_once('.'));
    match layer.and_then(|(number, rest)| Some((number.parse().ok()?, rest))) {
        Some((stored, rest)) => {
            from.layers(recursion, stored).into_iter().map(|layer| format!("model.layers.{layer}.{rest}")).collect()
        }
        None => vec![name.to_owned()],
    }
}

fn mean(tensors: &[&TensorRef<'_>]) -> Result<Vec<f64>> {
    let mut sum = Vec::new();
    for tensor in tensors {
        let values = tensor.to_f32()?;
        sum.resize(values.len(), 0.0);
        sum.iter_mut().zip(values).for_each(|(sum, x)| *sum += f64::from(x));
    }
    sum.iter_mut().for_each(|sum| *sum /= tensors.len() as f64);
    Ok(sum)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn model(more: Value) -> Recursion {
        let mut config = json!({"model_type": "mor", "vocab_size": 97, "hidden_size": 36, "num_attention_heads": 6,
                                "num_hidden_layers": 8, "intermediate_size": 51, "num_recursions": 3});
        for (key, value) in more.as_object().into_iter().flatten() {
            config[key] = value.clone();
        }
        Llama::from_config(&Config::new("config.json", config).unwrap()).unwrap().recursion.unwrap()
    }

    fn layers(model: &Recursion, from: LayerInit, stored: usize) -> Vec<Vec<usize>> {
        (0..stored).map(|layer| from.layers(model, layer)).collect()
    }

    #[test]
    fn layers_that_are_tied_stand_where_they_are_used() {
        let ends = model(json!({}));
        assert_eq!(layers(&ends, LayerInit::Average, 4), [vec![0], vec![1, 3, 5], vec![2, 4, 6], vec![7]]);
        let rows = model(json!({"sharing": "middle_sequence", "routing": "none"}));
        assert_eq!(layers(&rows, LayerInit::Average, 4), [vec![0], vec![1, 2, 3], vec![4, 5, 6], vec![7]]);
        let cycle = json!({"sharing": "cycle", "num_hidden_layers": 6, "routing": "token_choice", "num_modules": 2});
        let cycle = model(cycle);
        let both = [vec![0, 2, 4], vec![1, 3, 5], vec![0, 2, 4], vec![1, 3, 5]];
        assert_eq!(layers(&cycle, LayerInit::Average, 4), both);
    }

    #[test]
    fn one_layer_is_the_first_or_at_an_even_interval() {
        let ends = model(json!({}));
        assert_eq!(layers(&ends, LayerInit::Lower, 4), [[0], [1], [2], [7]]);
        assert_eq!(layers(&ends, LayerInit::Stepwise, 4), [[0], [1], [6], [7]]);
        let three = model(json!({"sharing": "cycle", "num_hidden_layers": 9}));
        assert_eq!(layers(&three, LayerInit::Stepwise, 3), [[0], [4], [8]]);
        let one = model(json!({"sharing": "cycle", "num_hidden_layers": 3}));
        assert_eq!(layers(&one, LayerInit::Stepwise, 1), [[0]]);
        for from in [LayerInit::Stepwise, LayerInit::Average, LayerInit::Lower] {
            let once = model(json!({"num_recursions": 1}));
            assert_eq!(layers(&once, from, 8), (0..8).map(|layer| vec![layer]).collect::<Vec<_>>());
        }
    }
}
