//! Small models of awkward sizes, and weights for them.
#![allow(dead_code, reason = "each of the tests uses a part")]

use serde_json::{Value, json};
use wgformer::graph::{Array, Values};
use wgformer::io::Config;
use wgformer::models::{self, Decoder, Initial, initial_values};
use wgformer::program::pack;
use wgformer::{Gpu, Result, Weights};

pub(crate) fn gpt2(more: Value) -> Value {
    merged(
        json!({"model_type": "gpt2", "vocab_size": 97, "n_embd": 35, "n_head": 5, "n_layer": 2, "n_positions": 300}),
        more,
    )
}

pub(crate) fn llama(more: Value) -> Value {
    let base = json!({"model_type": "llama", "vocab_size": 97, "hidden_size": 35, "num_attention_heads": 5,
                      "num_key_value_heads": 1, "head_dim": 6, "num_hidden_layers": 2, "intermediate_size": 51,
                      "max_position_embeddings": 300});
    merged(base, more)
}

/// A mixture of recursions.
pub(crate) fn mor(more: Value) -> Value {
    let base = json!({"model_type": "mor", "num_hidden_layers": 5, "num_recursions": 3, "tie_word_embeddings": true});
    llama(merged(base, more))
}

pub(crate) fn merged(mut base: Value, more: Value) -> Value {
    for (key, value) in more.as_object().into_iter().flatten() {
        base[key] = value.clone();
    }
    base
}

pub(crate) fn decoder(config: &Value) -> Result<Box<dyn Decoder>> {
    models::decoder(&Config::new("config.json", config.clone())?)
}

/// Weights wide enough that a missing bias, scale or gain shows.
pub(crate) fn weights_of(model: &dyn Decoder) -> Result<Values> {
    let mut values = Values::new();
    for (name, ty) in model.parameters()? {
        let (centre, deviation) = match model.initial(&name) {
            Initial::Ones => (1.0, 0.3),
            Initial::Zeros => (0.0, 0.3),
            Initial::Normal(_) => (0.0, 0.25),
        };
        let data = initial_values(Initial::Normal(deviation), ty.shape.numel(), 5, &name);
        let data = data.into_iter().map(|x| ty.dtype.round(centre + x)).collect();
        values.insert(name, Array::new(ty.shape, data)?);
    }
    Ok(values)
}

pub(crate) fn upload(gpu: &Gpu, model: &dyn Decoder, values: &Values) -> Result<Weights> {
    let weights = Weights::new(gpu);
    for (name, ty) in model.parameters()? {
        weights.ensure(&name, &ty)?;
        weights.upload(&name, &pack(&values[&name].data, ty.dtype))?;
    }
    Ok(weights)
}

/// Token `i` of a reproducible text over 97 tokens.
pub(crate) fn token(i: usize) -> usize {
    (i * i * 31 + i * 7 + 3) % 97
}
