//! Fresh weights.

use super::Model;
use crate::error::Result;
use crate::graph::Initial;
use crate::program::{Weights, pack};
use crate::shape::TensorType;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Values that are packed at a time.
const CHUNK: usize = 1 << 15;

/// The values of the parameter `name`: they depend on the seed, the name and the count only.
#[must_use]
pub fn initial_values(initial: Initial, count: usize, seed: u64, name: &str) -> Vec<f64> {
    endless(initial, seed, name).take(count).collect()
}

/// [`initial_values`] of a tensor as they lie in GPU memory.
#[must_use]
pub fn initial_words(initial: Initial, ty: &TensorType, seed: u64, name: &str) -> Vec<u8> {
    let count = ty.shape.numel();
    let mut values = endless(initial, seed, name);
    // Only numbers of a size of their own can be packed bit by bit.
    let chunk = if ty.dtype.is_quantised() { count } else { CHUNK };
    let mut bytes = Vec::with_capacity(ty.bytes() as usize);
    for first in (0..count).step_by(chunk.max(1)) {
        let some: Vec<f64> = values.by_ref().take(chunk.min(count - first)).collect();
        bytes.extend(pack(&some, ty.dtype));
    }
    bytes
}

/// Fills the store with fresh values of the parameters that are wanted.
pub(super) fn initialise_some<M: Model + ?Sized>(
    model: &M,
    weights: &Weights,
    seed: u64,
    wanted: &dyn Fn(&str) -> bool,
) -> Result<()> {
    let initials = model.initials()?;
    for (name, ty) in model.parameters_in(weights.storage())?.into_iter().filter(|(name, _)| wanted(name)) {
        let Some(initial) = initials.get(&name) else { continue };
        weights.ensure(&name, &ty)?;
        weights.upload(&name, &initial_words(*initial, &ty, seed, &name))?;
    }
    Ok(())
}

fn endless(initial: Initial, seed: u64, name: &str) -> Box<dyn Iterator<Item = f64>> {
    match initial {
        Initial::Zeros => Box::new(std::iter::repeat(0.0)),
        Initial::Ones => Box::new(std::iter::repeat(1.0)),
        Initial::Sinusoids { columns } => Box::new((0..).map(move |i: usize| {
            let columns = columns.max(1);
            let (position, column) = (i / columns, i % columns);
            let angle = position as f64 * 10000_f64.powf(-2.0 * (column / 2) as f64 / columns as f64);
            if column % 2 == 0 { angle.sin() } else { angle.cos() }
        })),
        Initial::Normal(deviation) => {
            let mut rng = ChaCha8Rng::seed_from_u64(seed);
            rng.set_stream(hash(name));
            let pairs = std::iter::repeat_with(move || normal_pair(&mut rng));
            Box::new(pairs.flat_map(move |(a, b)| [deviation * a, deviation * b]))
        }
    }
}

/// Two independent standard normal numbers (Box and Muller, 1958).
fn normal_pair(rng: &mut ChaCha8Rng) -> (f64, f64) {
    let radius = (-2.0 * (1.0 - rng.random::<f64>()).ln()).sqrt();
    let (sin, cos) = (std::f64::consts::TAU * rng.random::<f64>()).sin_cos();
    (radius * cos, radius * sin)
}

/// FNV-1a.
fn hash(name: &str) -> u64 {
    name.bytes().fold(0xcbf2_9ce4_8422_2325, |h, b| (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dtype::DType;
    use crate::io::Config;
    use serde_json::{Value, json};

    #[test]
    fn normal_values_have_the_deviation_asked_for_and_depend_on_seed_and_name() {
        let values = initial_values(Initial::Normal(0.02), 20001, 7, "a.weight");
        let mean = values.iter().sum::<f64>() / values.len() as f64;
        let deviation = (values.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / values.len() as f64).sqrt();
        assert!(mean.abs() < 0.0006, "{mean}");
        assert!((deviation - 0.02).abs() < 0.0004, "{deviation}");
        let beyond = values.iter().filter(|x| x.abs() > 0.04).count() as f64 / values.len() as f64;
        assert!((beyond - 0.0455).abs() < 0.006, "{beyond}");
        assert_eq!(values, initial_values(Initial::Normal(0.02), 20001, 7, "a.weight"));
        assert_ne!(values[0], initial_values(Initial::Normal(0.02), 1, 8, "a.weight")[0]);
        assert_ne!(values[0], initial_values(Initial::Normal(0.02), 1, 7, "b.weight")[0]);
    }

    #[test]
    fn sinusoids_are_those_of_the_table() {
        let table = crate::ops::sinusoidal_table(7, 5).unwrap();
        assert_eq!(initial_values(Initial::Sinusoids { columns: 5 }, 35, 1, "w"), table.data);
    }

    #[test]
    fn words_are_those_of_the_values() {
        for (shape, dtype) in
            [(vec![3, 33], DType::F16), (vec![2, CHUNK / 2 + 16], DType::F32), (vec![5, 64], DType::Q8_0)]
        {
            let ty = TensorType::new(shape, dtype);
            let normal = Initial::Normal(0.5);
            let values = initial_values(normal, ty.shape.numel(), 3, "w");
            assert_eq!(initial_words(normal, &ty, 3, "w"), pack(&values, dtype));
        }
    }

    /// The standard deviation of each fresh matrix, by what the families' papers and files say of its name.
    #[test]
    fn fresh_weights_are_those_of_their_family() -> Result<()> {
        let of = |config: Value| crate::models::model(&Config::new("config.json", config)?);
        let std = |initial: Initial| if let Initial::Normal(std) = initial { std } else { f64::NAN };
        let near = |name: &str, found: Initial, wanted: f64| {
            assert!((std(found) - wanted).abs() < 1e-12, "{name} is {found:?}, wanted {wanted}");
        };
        let gains = ["norm.weight", "LayerNorm.weight", "ln_1.weight", "ln_2.weight", "ln_f.weight"];
        let gpt2 =
            json!({"model_type": "gpt2", "vocab_size": 7, "n_embd": 4, "n_head": 2, "n_layer": 2, "n_positions": 3});
        let llama = |more: Value| {
            let mut config = json!({"vocab_size": 7, "hidden_size": 4, "num_attention_heads": 2, "num_key_value_heads": 1,
                                    "num_hidden_layers": 2, "intermediate_size": 6, "attention_bias": true});
            more.as_object().into_iter().flatten().for_each(|(key, value)| config[key] = value.clone());
            config
        };
        let experts =
            json!({"model_type": "mixtral", "num_local_experts": 3, "router_noise": true, "router_bias_rate": 0.1});
        let shared = json!({"model_type": "qwen2_moe", "num_experts": 5, "moe_intermediate_size": 3, "shared_expert_intermediate_size": 4});
        let mor = json!({"model_type": "mor", "num_recursions": 2, "sharing": "cycle", "capacity_warmup_steps": 3});
        let halved = 0.02 / 2.0;
        for config in [gpt2, llama(json!({"model_type": "llama"})), llama(experts), llama(shared), llama(mor)] {
            let last = ["c_proj.weight", "o_proj.weight", "down_proj.weight", "w2.weight"];
            for (name, found) in of(config)?.initials()? {
                match name.as_str() {
                    name if name.ends_with("bias") || name.ends_with("capacity_step") => {
                        assert_eq!(found, Initial::Zeros);
                    }
                    name if gains.iter().any(|end| name.ends_with(end)) => assert_eq!(found, Initial::Ones, "{name}"),
                    name if last.iter().any(|end| name.ends_with(end)) => near(name, found, halved),
                    name => near(name, found, 0.02),
                }
            }
        }
        let bert = json!({"model_type": "bert", "vocab_size": 7, "hidden_size": 4, "num_attention_heads": 2, "num_hidden_layers": 1,
                          "intermediate_size": 6, "architectures": ["BertForPreTraining"], "initializer_range": 0.3});
        let transformer = json!({"model_type": "transformer", "vocab_size": 7, "hidden_size": 4, "num_attention_heads": 2, "num_encoder_layers": 1,
                                 "num_decoder_layers": 1, "intermediate_size": 6, "num_local_experts": 3, "initializer_range": 0.3});
        for config in [bert, transformer] {
            for (name, found) in of(config)?.initials()? {
                match name.as_str() {
                    name if name.ends_with("bias") => assert_eq!(found, Initial::Zeros, "{name}"),
                    name if gains.iter().any(|end| name.ends_with(end)) => assert_eq!(found, Initial::Ones, "{name}"),
                    name => near(name, found, 0.3),
                }
            }
        }
        let t5 = json!({"model_type": "t5", "vocab_size": 7, "d_model": 9, "d_kv": 4, "num_heads": 3, "d_ff": 25, "num_layers": 1,
                        "initializer_factor": 2.0});
        for (name, found) in of(t5)?.initials()? {
            match name.as_str() {
                name if name.ends_with("norm.weight") => assert_eq!(found, Initial::Ones, "{name}"),
                name if name.ends_with(".q.weight") => near(name, found, 2.0 / 6.0),
                name if name.ends_with(".o.weight") => near(name, found, 2.0 / 12_f64.sqrt()),
                name if name.ends_with(".wo.weight") => near(name, found, 2.0 / 5.0),
                "shared.weight" => near("shared.weight", found, 2.0),
                name => near(name, found, 2.0 / 3.0),
            }
        }
        Ok(())
    }
}
