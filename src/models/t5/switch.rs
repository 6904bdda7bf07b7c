//! Switch Transformers: Fedus et al., arXiv 2101.03961: a T5 with experts in some layers.

use super::T5;
use crate::error::Result;
use crate::io::Config;
use crate::models::settings::{json_f32, layer_count, optional_count, part_count};
use crate::nn::{Balance, FeedForward, SwitchExperts};
use serde_json::Value;

/// The experts of a Switch Transformer.
#[derive(Clone, Debug, PartialEq)]
pub struct Switch {
    /// Experts of a layer.
    pub experts: usize,
    /// The most tokens of a row that an expert takes.
    pub capacity: usize,
    /// Whether routers have a bias.
    pub router_bias: bool,
    /// Of so many layers the second one has experts, in the encoder and in the decoder; 1: all.
    pub steps: [usize; 2],
    /// In training the inputs of experts are multiplied by random factors from `1 − jitter` to `1 + jitter`.
    pub jitter: f32,
    /// The coefficient of the load-balancing loss.
    pub loss: f32,
    /// The coefficient of the router z-loss.
    pub z: f32,
    /// Keys of a `config.json` that are passed on to a saved one.
    pub extra: Vec<(String, Value)>,
}

/// Keys that change no result of a pass, or nothing at all.
const PASSED_ON: [&str; 4] =
    ["router_ignore_padding_tokens", "add_router_probs", "num_sparse_encoder_layers", "num_sparse_decoder_layers"];
const JITTER: &str = "router_jitter_noise";
const STEPS: [&str; 2] = ["encoder_sparse_step", "decoder_sparse_step"];
const LOSSES: [&str; 2] = ["router_aux_loss_coef", "router_z_loss_coef"];

impl Switch {
    /// The experts of a `config.json` with so many layers a side.
    pub(super) fn from_config(config: &Config, layers: [usize; 2]) -> Result<Self> {
        if config.get_or("router_dtype", "float32".to_owned())? != "float32" {
            return Err(config.refuse("router_dtype", "is not \"float32\"; only that is supported"));
        }
        let step = |side: usize| -> Result<usize> {
            if config.has(STEPS[side]) {
                return layer_count(config, STEPS[side]);
            }
            let sparse: usize = config.get_or(PASSED_ON[2 + side], 3)?;
            Ok((layers[side] / sparse.max(1)).max(1))
        };
        let coefficient = |key: &str, default: f32| -> Result<f32> {
            let number: f32 = config.get_or(key, default)?;
            match number >= 0.0 && number.is_finite() {
                true => Ok(number),
                false => Err(config.refuse(key, format!("is {number}; 0 or a positive number is needed"))),
            }
        };
        let passed = PASSED_ON.iter().filter_map(|key| Some(((*key).to_owned(), config.value().get(*key)?.clone())));
        Ok(Self {
            experts: if config.has("num_experts") { part_count(config, "num_experts")? } else { 8 },
            capacity: optional_count(config, "expert_capacity")?.unwrap_or(64),
            router_bias: config.get_or("router_bias", false)?,
            steps: [step(0)?, step(1)?],
            jitter: coefficient(JITTER, 0.01)?,
            loss: coefficient(LOSSES[0], 0.001)?,
            z: coefficient(LOSSES[1], 0.001)?,
            extra: passed.collect(),
        })
    }

    /// Adds the keys to a config.
    pub(super) fn write(&self, config: &mut Value) {
        config["num_experts"] = self.experts.into();
        config["expert_capacity"] = self.capacity.into();
        config["router_bias"] = self.router_bias.into();
        config[JITTER] = json_f32(self.jitter).into();
        for (key, step) in STEPS.iter().zip(self.steps) {
            config[*key] = step.into();
        }
        config[LOSSES[0]] = json_f32(self.loss).into();
        config[LOSSES[1]] = json_f32(self.z).into();
        for (key, value) in &self.extra {
            config[key] = value.clone();
        }
    }

    /// The losses of a side's routers. Where all layers have experts transformers has none.
    pub(super) fn balance(&self, side: &str) -> Balance {
        let [loss, z] = if self.step(side) > 1 { [self.loss, self.z] } else { [0.0; 2] };
        Balance { loss, z, bias_rate: 0.0 }
    }

    fn step(&self, side: &str) -> usize {
        self.steps[usize::from(side == "decoder")]
    }

    /// The network of a layer with experts, if that one has some.
    pub(super) fn feed_forward(&self, model: &T5, side: &str, layer: usize) -> Option<FeedForward> {
        let step = self.step(side);
        let sparse = step == 1 || layer % step.max(1) == 1;
        let module = if side == "decoder" { "layer.2.mlp" } else { "layer.1.mlp" };
        sparse.then_some(FeedForward::Switch(SwitchExperts {
            module,
            count: self.experts,
            d_ff: model.d_ff,
            capacity: self.capacity,
            router_bias: self.router_bias,
            jitter: self.jitter,
            activation: model.activation,
            std: [model.factor, model.std(model.d_model), model.std(model.d_model)],
        }))
    }
}
