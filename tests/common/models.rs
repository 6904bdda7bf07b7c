//! Small models of awkward sizes, and weights for them.
#![allow(dead_code, reason = "each of the tests uses a part")]

use libtest_mimic::Failed;
use serde_json::{Value, json};
use wgformer::graph::{Array, Storage, Values};
use wgformer::io::Config;
use wgformer::models::{self, Decoder, Initial, Model, TokenInputs, initial_values};
use wgformer::ops::RopeScaling;
use wgformer::program::pack;
use wgformer::{DType, Gpu, Graph, Program, Result, Tensor, Weights};

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

/// Weights with a spread that makes a missing bias, scale or gain visible.
pub(crate) fn weights_of(model: &dyn Model) -> Result<Values> {
    weights_in(model, &Storage::default())
}

/// The same, rounded to the types of a store.
pub(crate) fn weights_in(model: &dyn Model, storage: &Storage) -> Result<Values> {
    let (mut values, initials) = (Values::new(), model.initials()?);
    for (name, ty) in model.parameters_in(storage)? {
        let (centre, deviation) = match initials[&name] {
            Initial::Ones => (1.0, 0.3),
            Initial::Zeros => (0.0, 0.3),
            _ => (0.0, 0.25),
        };
        let data = initial_values(Initial::Normal(deviation), ty.shape.numel(), 5, &name);
        let data = data.into_iter().map(|x| ty.dtype.round(centre + x)).collect();
        values.insert(name, Array::new(ty.shape, data)?);
    }
    Ok(values)
}

pub(crate) fn upload(gpu: &Gpu, model: &dyn Model, values: &Values) -> Result<Weights> {
    upload_in(gpu, model, values, DType::F32)
}

pub(crate) fn upload_in(gpu: &Gpu, model: &dyn Model, values: &Values, dtype: DType) -> Result<Weights> {
    let weights = Weights::stored_as(gpu, dtype);
    for (name, ty) in model.parameters_in(weights.storage())? {
        weights.ensure(&name, &ty)?;
        weights.upload(&name, &pack(&values[&name].data, ty.dtype))?;
    }
    Ok(weights)
}

/// Token `i` of a reproducible text over 97 tokens.
pub(crate) fn token(i: usize) -> usize {
    (i * i * 31 + i * 7 + 3) % 97
}

/// Runs a graph with the outputs `wanted`, and compares each with its f64 twin: the largest error over the tensor's largest entry; for
/// gradients at least over a thousandth of the largest gradient. `limits` are those of outputs and of gradients.
pub(crate) fn against_twin(
    gpu: &Gpu,
    g: &Graph,
    weights: &Weights,
    values: &Values,
    wanted: &[(String, Tensor)],
    limits: [f64; 2],
) -> std::result::Result<(), Failed> {
    against_twin_by(gpu, g, weights, values, wanted, |name| limits[usize::from(name.starts_with("grad."))])
}

/// As [`against_twin`], with the limit of each name.
pub(crate) fn against_twin_by(
    gpu: &Gpu,
    g: &Graph,
    weights: &Weights,
    values: &Values,
    wanted: &[(String, Tensor)],
    limit: impl Fn(&str) -> f64,
) -> std::result::Result<(), Failed> {
    let tensors: Vec<Tensor> = wanted.iter().map(|(_, t)| *t).collect();
    let expected = g.evaluate(values, &tensors)?;
    let program = Program::new(gpu, g, weights)?;
    program.fill_temporaries(f32::NAN.to_bits())?;
    // The others are read by nothing, and no inputs of the program.
    for (name, tensor) in g.inputs().filter(|(name, _)| values.contains_key(*name)) {
        program.write(name, &pack(&values[name].data, g.dtype(tensor)))?;
    }
    program.run()?;
    let size = |array: &Array| array.data.iter().fold(0.0_f64, |m, x| m.max(x.abs()));
    let gradients = || wanted.iter().zip(&expected).filter(|((name, _), _)| name.starts_with("grad."));
    let floor = 1e-3 * gradients().fold(0.0_f64, |m, (_, array)| m.max(size(array)));
    let mut failed = Vec::new();
    for ((name, _), expected) in wanted.iter().zip(&expected) {
        let got = program.read_f32(name)?;
        let errors = got.iter().zip(&expected.data).map(|(a, b)| (f64::from(*a) - b).abs());
        let error = errors.fold(0.0_f64, |m, e| if e > m || e.is_nan() { e } else { m });
        let least = if name.starts_with("grad.") { floor } else { 0.0 };
        let (scale, limit) = (size(expected).max(least), limit(name));
        if !(error / scale <= limit) || got.len() != expected.data.len() {
            failed.push(format!("{name}: error {:.1e}, allowed {limit:.1e}", error / scale));
        }
    }
    if failed.is_empty() { Ok(()) } else { Err(failed.join("\n").into()) }
}

/// The logits at each token of a text, by a whole forward pass in f64; with LongRoPE by one that ends with that token.
pub(crate) fn logits_of(model: &dyn Decoder, values: &mut Values, text: &[u32]) -> Result<Array> {
    let blocks = model.stacks().into_iter().flat_map(|stack| stack.blocks);
    let mut rotary = blocks.filter_map(|block| block.attention.rotary);
    if !rotary.any(|rotary| matches!(rotary.scaling, RopeScaling::Long { .. })) {
        return whole_pass(model, values, text);
    }
    let mut rows = Vec::new();
    for end in 1..=text.len() {
        rows.extend_from_slice(whole_pass(model, values, &text[..end])?.row(end - 1));
    }
    Array::new([1, text.len(), rows.len() / text.len()], rows)
}

fn whole_pass(model: &dyn Decoder, values: &mut Values, text: &[u32]) -> Result<Array> {
    let mut g = Graph::new();
    let ids = g.input("ids", [1, text.len()], DType::U32)?;
    values.insert("ids".into(), Array::from_fn([1, text.len()], |i| f64::from(text[i])));
    let inputs = TokenInputs::new(&mut g, ids)?;
    let hidden = model.decode(&mut g, &inputs)?.states;
    let logits = model.logits(&mut g, hidden)?;
    Ok(g.evaluate(values, &[logits])?.remove(0))
}
