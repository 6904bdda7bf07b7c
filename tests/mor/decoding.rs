//! Decoding token by token against reading the whole text.

use super::small::{decoder, upload, weights_of};
use super::{mor, token};
use libtest_mimic::Failed;
use serde_json::{Value, json};
use wgformer::generate::{GenerateLimits, Generator, TokenPick};
use wgformer::graph::{Array, Values};
use wgformer::models::{Decoder, TokenInputs};
use wgformer::nn::KvSource;
use wgformer::{DType, Error, Gpu, Graph, Program, Result, Tensor};

pub(crate) fn decoders() -> Vec<(&'static str, Value)> {
    vec![
        ("recursions choose", mor(json!({}))),
        (
            "four recursions of all layers",
            mor(json!({"sharing": "cycle", "num_hidden_layers": 8, "num_recursions": 4,
                                                      "capacity": [0.8, 0.5, 0.5, 0.2]})),
        ),
        ("shared keys", mor(json!({"kv_sharing": true, "num_hidden_layers": 8}))),
        ("capacities that warmed up", mor(json!({"capacity_warmup_steps": 3}))),
        ("a second router", mor(json!({"sampling": "aux_router", "router": "mlp", "router_function": "tanh"}))),
        ("tokens choose", mor(json!({"routing": "token_choice", "num_hidden_layers": 8}))),
        (
            "tokens choose, two modules",
            mor(json!({"routing": "token_choice", "num_modules": 2, "sharing": "cycle",
                                                   "num_hidden_layers": 3})),
        ),
        ("tokens choose, shared keys", mor(json!({"routing": "token_choice", "kv_sharing": true}))),
        ("nobody chooses", mor(json!({"routing": "none", "num_hidden_layers": 8}))),
        (
            "nobody chooses, shared keys, layers in a row",
            mor(json!({"routing": "none", "kv_sharing": true,
                                                                     "sharing": "middle_sequence"})),
        ),
    ]
}

/// Two texts of which different parts are read as prompts, padded on the right, and the rest token by token: all logits
/// must be those of reading the whole texts at once, in f64.
pub(crate) fn decoding_follows_reading(gpu: &Gpu, config: &Value) -> Result<(), Failed> {
    const WHOLE: usize = 21;
    let prompts = [7, 2];
    let (model, limits) = (decoder(config)?, GenerateLimits::new(2, 30));
    let mut values = weights_of(model.as_ref())?;
    let weights = upload(gpu, model.as_ref(), &values)?;
    let expected = read_whole(model.as_ref(), &mut values, WHOLE)?;
    let prefill = Program::new(
        gpu,
        &Generator::prefill_graph(model.as_ref(), weights.storage(), limits, 9, TokenPick::Logits)?,
        &weights,
    )?;
    let decode = Program::new(
        gpu,
        &Generator::decode_graph(model.as_ref(), weights.storage(), limits, TokenPick::Logits)?,
        &weights,
    )?;
    prefill.fill_temporaries(f32::NAN.to_bits())?;
    decode.fill_temporaries(f32::NAN.to_bits())?;
    let words = |values: &[usize]| values.iter().flat_map(|v| (*v as u32).to_le_bytes()).collect::<Vec<u8>>();
    // Twice, so that the second prompt finds the caches used.
    for round in 0..2 {
        let ids: Vec<u32> = (0..2 * 9).map(|i| token(i / 9, i % 9)).collect();
        prefill.write("ids", bytemuck::cast_slice(&ids))?;
        prefill.write("last", &words(&[prompts[0] - 1, 9 + prompts[1] - 1]))?;
        if prefill.has_input("lengths") {
            prefill.write("lengths", &words(&prompts))?;
        }
        prefill.run()?;
        compare(&prefill.read_f32("logits")?, &expected, prompts.map(|n| n - 1), WHOLE)?;
        for step in 0..WHOLE - prompts[0] - round {
            let at = prompts.map(|n| n + step);
            decode.write("ids", bytemuck::cast_slice(&[token(0, at[0]), token(1, at[1])]))?;
            decode.write("positions", &words(&at))?;
            if decode.has_input("lengths") {
                decode.write("lengths", &words(&at.map(|n| n + 1)))?;
            }
            decode.run()?;
            compare(&decode.read_f32("logits")?, &expected, at, WHOLE)?;
        }
    }
    Ok(())
}

/// The logits at all positions of both texts, routed as in decoding.
fn read_whole(model: &dyn Decoder, values: &mut Values, time: usize) -> Result<Array> {
    let mut g = Graph::new();
    let ids = g.input("ids", [2, time], DType::U32)?;
    let lengths = g.input("lengths", [2], DType::U32)?;
    values.insert("ids".into(), Array::from_fn([2, time], |i| f64::from(token(i / time, i % time))));
    values.insert("lengths".into(), Array::from_fn([2], |_| time as f64));
    let kv = KvSource::Prefill { capacity: time, lengths, beams: 1 };
    let inputs = TokenInputs { kv, ..TokenInputs::new(&mut g, ids)? };
    let hidden = model.decode(&mut g, &inputs)?;
    let logits = model.logits(&mut g, hidden.states)?;
    let found = g.evaluate(values, &[logits])?.remove(0);
    let selected: Vec<Tensor> =
        hidden.routing.iter().filter(|(name, _)| name.starts_with("router_logits")).map(|(_, t)| *t).collect();
    for logits in g.evaluate(values, &selected)? {
        let yes = logits.data.iter().filter(|l| **l >= 0.0).count();
        if yes == 0 || yes == logits.data.len() {
            return Err(Error::Graph("a router says the same of all tokens: the test would show little".into()));
        }
    }
    Ok(found)
}

fn compare(got: &[f32], expected: &Array, at: [usize; 2], time: usize) -> Result<(), Failed> {
    for (row, &t) in at.iter().enumerate() {
        let expected = expected.row(row * time + t);
        let size = expected.iter().fold(0.0_f64, |m, x| m.max(x.abs()));
        let got = &got[row * expected.len()..][..expected.len()];
        let errors = got.iter().zip(expected).map(|(a, b)| (f64::from(*a) - b).abs() / size);
        let error = errors.fold(0.0_f64, |m, e| if e > m || e.is_nan() { e } else { m });
        if !(error <= 1e-4) {
            return Err(format!("the logits at position {t} of row {row} are off by {error:.1e}").into());
        }
    }
    Ok(())
}
