//! Decoders with experts: what Mixtral (Jiang et al., arXiv 2401.04088), Qwen2-MoE (arXiv 2407.10671), Qwen3-MoE (arXiv 2505.09388) and OLMoE
//! (arXiv 2409.02060) add to Llama.

use super::settings::{count, json_f32, optional_count, part_count, positive_number, reject_if_true};
use crate::error::Result;
use crate::io::Config;
use crate::nn::{Balance, ExpertNames, Experts, SharedExpert};
use crate::ops::{GateGroups, GateOptions, GateScores};
use serde_json::{Value, json};

/// The key of random factors of experts' inputs.
const JITTER: &str = "router_jitter_noise";

/// Whose names a decoder with experts goes by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MixtureFamily {
    /// Mixtral: experts in every block.
    Mixtral,
    /// Qwen2-MoE: many small experts and a shared one; blocks may be dense.
    Qwen2,
    /// Qwen3-MoE: many small experts; blocks may be dense.
    Qwen3,
    /// OLMoE: many small experts in every block.
    Olmoe,
}

/// The experts of a decoder.
#[derive(Clone, Debug, PartialEq)]
pub struct Mixture {
    /// Whose names it goes by.
    pub family: MixtureFamily,
    /// The experts.
    pub experts: Experts,
    /// Blocks whose feed-forward network is dense.
    pub dense_layers: Vec<usize>,
    /// Load balancing.
    pub balance: Balance,
}

impl Mixture {
    /// The experts of a `config.json` of that family.
    ///
    /// Beyond the keys of the family: `expert_capacity_factor`, `router_z_loss_coef`, `router_noise`, `router_bias_rate` (a bias
    /// that keeps the load even instead of a loss), `scoring_func` (softmax or sigmoid), `n_group` and `topk_group`,
    /// `routed_scaling_factor`.
    ///
    /// # Errors
    /// [`crate::Error::Format`] that names the key whose value is missing, wrong or not supported.
    pub fn from_config(config: &Config, family: MixtureFamily, layers: usize) -> Result<Self> {
        let mixtral = family == MixtureFamily::Mixtral;
        let [of_experts, d_ff] = match family {
            MixtureFamily::Mixtral => ["num_local_experts", "intermediate_size"],
            MixtureFamily::Qwen2 => ["num_experts", "moe_intermediate_size"],
            MixtureFamily::Qwen3 => [either(config), "moe_intermediate_size"],
            MixtureFamily::Olmoe => [either(config), "intermediate_size"],
        };
        let experts = part_count(config, of_experts)?;
        let usual = match family {
            MixtureFamily::Mixtral => 2,
            MixtureFamily::Qwen2 => 4,
            MixtureFamily::Qwen3 | MixtureFamily::Olmoe => 8,
        };
        let k = optional_count(config, "num_experts_per_tok")?.unwrap_or(usual);
        let loss = if family == MixtureFamily::Olmoe { 0.01 } else { 0.001 };
        if k > experts {
            let message = format!("is {k}; there are only {experts} experts ({of_experts})");
            return Err(config.refuse("num_experts_per_tok", message));
        }
        let bias_rate = not_negative(config, "router_bias_rate", 0.0)?;
        let capacity = config.optional::<f32>("expert_capacity_factor")?;
        if capacity.is_some_and(|factor| !(factor > 0.0 && factor.is_finite())) {
            return Err(config.refuse("expert_capacity_factor", "must be a positive number, or absent to drop nothing"));
        }
        Ok(Self {
            family,
            experts: Experts {
                count: experts,
                d_ff: count(config, d_ff)?,
                gate: gate(config, k, mixtral)?,
                shared: shared(config, family)?,
                capacity,
                biased: bias_rate > 0.0,
                noisy: config.get_or("router_noise", false)?,
                // A key of Mixtral's; the others have no jitter whatever it says.
                jitter: if mixtral { not_negative(config, JITTER, 0.0)? } else { 0.0 },
                names: if mixtral { ExpertNames::MIXTRAL } else { ExpertNames::QWEN2 },
            },
            dense_layers: dense_layers(config, layers)?,
            balance: Balance {
                loss: not_negative(config, "router_aux_loss_coef", loss)?,
                z: not_negative(config, "router_z_loss_coef", 0.0)?,
                bias_rate,
            },
        })
    }

    /// Adds the keys to a config.
    pub fn write(&self, config: &mut Value) {
        let Experts { count, d_ff, gate, shared, capacity, noisy, jitter, .. } = &self.experts;
        let mut set = |key: &str, value: Value| config[key] = value;
        match self.family {
            MixtureFamily::Mixtral => {
                set("model_type", "mixtral".into());
                set("architectures", json!(["MixtralForCausalLM"]));
                set("num_local_experts", json!(count));
                set(JITTER, json!(json_f32(*jitter)));
                set("intermediate_size", json!(d_ff));
                set("sliding_window", Value::Null);
            }
            MixtureFamily::Qwen2 => {
                set("model_type", "qwen2_moe".into());
                set("architectures", json!(["Qwen2MoeForCausalLM"]));
                set("num_experts", json!(count));
                set("moe_intermediate_size", json!(d_ff));
                set("shared_expert_intermediate_size", json!(shared.map_or(0, |shared| shared.d_ff)));
                set("decoder_sparse_step", json!(1));
                set("mlp_only_layers", json!(self.dense_layers));
            }
            MixtureFamily::Qwen3 => {
                set("num_experts", json!(count));
                set("moe_intermediate_size", json!(d_ff));
                set("decoder_sparse_step", json!(1));
                set("mlp_only_layers", json!(self.dense_layers));
            }
            MixtureFamily::Olmoe => {
                set("num_experts", json!(count));
                set("intermediate_size", json!(d_ff));
            }
        }
        set("norm_topk_prob", json!(gate.renormalise));
        set("num_experts_per_tok", json!(gate.k));
        set("router_aux_loss_coef", json!(json_f32(self.balance.loss)));
        // Keys of this project, only where they say something.
        let own = [
            ("router_z_loss_coef", json!(json_f32(self.balance.z)), self.balance.z > 0.0),
            ("router_bias_rate", json!(json_f32(self.balance.bias_rate)), self.balance.bias_rate > 0.0),
            ("router_noise", json!(true), *noisy),
            ("expert_capacity_factor", json!(capacity.map(json_f32)), capacity.is_some()),
            // Blocks of a Mixtral all have experts; here they need not.
            ("mlp_only_layers", json!(self.dense_layers), !self.dense_layers.is_empty()),
            ("scoring_func", json!("sigmoid"), gate.scores == GateScores::Sigmoid),
            ("routed_scaling_factor", json!(json_f32(gate.scale)), (gate.scale - 1.0).abs() > 0.0),
            ("n_group", json!(gate.groups.map(|g| g.count)), gate.groups.is_some()),
            ("topk_group", json!(gate.groups.map(|g| g.keep)), gate.groups.is_some()),
        ];
        own.into_iter().filter(|(.., says)| *says).for_each(|(key, value, _)| set(key, value));
    }
}

fn not_negative(config: &Config, key: &str, default: f32) -> Result<f32> {
    let number: f32 = config.get_or(key, default)?;
    match number >= 0.0 && number.is_finite() {
        true => Ok(number),
        false => Err(config.refuse(key, format!("is {number}; 0 or a positive number is needed"))),
    }
}

fn gate(config: &Config, k: usize, mixtral: bool) -> Result<GateOptions> {
    let scores = match config.get_or("scoring_func", "softmax".to_owned())?.as_str() {
        "softmax" => GateScores::Softmax,
        "sigmoid" => GateScores::Sigmoid,
        other => {
            return Err(config.refuse("scoring_func", format!("is \"{other}\"; supported are softmax and sigmoid")));
        }
    };
    let groups = match (optional_count(config, "n_group")?, optional_count(config, "topk_group")?) {
        (None | Some(1), _) => None,
        (Some(groups), keep) => Some(GateGroups { count: groups, keep: keep.unwrap_or(groups) }),
    };
    Ok(GateOptions {
        k,
        scores,
        renormalise: config.get_or("norm_topk_prob", mixtral)?,
        scale: positive_number(config, "routed_scaling_factor", 1.0)?,
        groups,
    })
}

/// The key of the number of experts: newer files of some families have Mixtral's.
fn either(config: &Config) -> &'static str {
    if config.has("num_local_experts") && !config.has("num_experts") { "num_local_experts" } else { "num_experts" }
}

fn shared(config: &Config, family: MixtureFamily) -> Result<Option<SharedExpert>> {
    if family != MixtureFamily::Qwen2 {
        return Ok(None);
    }
    let d_ff: usize = config.get_or("shared_expert_intermediate_size", 0)?;
    Ok((d_ff > 0).then_some(SharedExpert { d_ff, gated: true }))
}

/// The blocks without experts.
fn dense_layers(config: &Config, layers: usize) -> Result<Vec<usize>> {
    let family = super::model_type(config)?;
    // Other families do not have windows.
    if !["mixtral", "qwen2_moe", "qwen3_moe"].contains(&family.as_str()) {
        reject_if_true(config, "use_sliding_window")?;
        if config.optional::<Value>("sliding_window")?.is_some_and(|window| !window.is_null()) {
            return Err(config.refuse("sliding_window", "is set; only attention over all tokens is supported"));
        }
    }
    let step = optional_count(config, "decoder_sparse_step")?.unwrap_or(1);
    let dense: Vec<usize> = config.get_or("mlp_only_layers", Vec::new())?;
    Ok((0..layers).filter(|layer| dense.contains(layer) || (layer + 1) % step != 0).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dtype::DType;
    use crate::graph::{Array, Graph, Storage, Tensor, Values};
    use crate::kernel::Caps;
    use crate::models::decoder;
    use crate::nn::{GateOutput, RouterDecision, RouterStats};
    use crate::ops::CrossEntropyOptions;
    use crate::program::Recording;
    use crate::train::{IDS, LABELS, LanguageModel, Objective, Part, SCALARS, StepOptions, TrainStep};

    fn config(more: Value) -> Value {
        let mut config = json!({"model_type": "mixtral", "vocab_size": 13, "hidden_size": 6, "num_attention_heads": 2,
                                "num_key_value_heads": 1, "head_dim": 4, "num_hidden_layers": 2,
                                "intermediate_size": 5, "num_local_experts": 7, "num_experts_per_tok": 3,
                                "max_position_embeddings": 16, "router_bias_rate": 0.125});
        for (key, value) in more.as_object().into_iter().flatten() {
            config[key] = value.clone();
        }
        config
    }

    fn step(config: &Value, recompute: bool) -> Result<Graph> {
        let model = decoder(&Config::new("config.json", config.clone())?)?.into();
        let objective = LanguageModel { model, rows: 2, length: 6, options: CrossEntropyOptions::default() };
        let options = StepOptions { recompute, ..StepOptions::default() };
        let step = TrainStep::new(&objective.parameters(&Storage::default())?, &Caps::baseline(), options)?;
        step.graph(Part::Whole, |g| objective.loss_and_stats(g))
    }

    fn report(g: &Graph) -> Result<Array> {
        let mut values = Values::new();
        for (name, tensor) in g.inputs().chain(g.parameters()) {
            let salt = name.bytes().map(f64::from).sum::<f64>();
            let value = |i: usize| match name {
                IDS | LABELS => (i * 5 % 13) as f64,
                SCALARS => f64::from(StepOptions::default().scalars(0.01).to_array()[i]),
                _ => (i as f64 * 0.37 + salt).sin(),
            };
            values.insert(name.into(), Array::from_fn(g.shape(tensor).clone(), value));
        }
        Ok(g.evaluate(&values, &[g.outputs()[0].1])?.remove(0))
    }

    /// How many biases move in a step that records, with and without recomputation, and reports the same.
    fn moved(more: Value) -> Result<usize> {
        let config = config(more);
        let (plain, again) = (step(&config, false)?, step(&config, true)?);
        for g in [&plain, &again] {
            Recording::new(g, &Caps::baseline())?;
        }
        assert!(again.to_string().contains(" again.blocks.0."));
        for (plain, again) in report(&plain)?.data.iter().zip(report(&again)?.data) {
            approx::assert_relative_eq!(*plain, again, max_relative = 1e-9);
        }
        let updates = |g: &Graph| g.nodes().iter().filter(|node| node.label.ends_with("update_bias")).count();
        assert_eq!(updates(&plain), updates(&again));
        Ok(updates(&plain))
    }

    #[test]
    fn biases_move_behind_blocks_that_are_computed_again() -> Result<()> {
        assert_eq!(moved(json!({}))?, 2);
        assert_eq!(moved(json!({"expert_capacity_factor": 1.25}))?, 2);
        Ok(())
    }

    #[test]
    fn a_layer_that_is_used_several_times_has_a_bias_that_moves_once() -> Result<()> {
        for routing in ["none", "expert_choice", "token_choice"] {
            let more = json!({"model_type": "mor", "num_hidden_layers": 5, "num_recursions": 3, "routing": routing});
            assert_eq!(moved(more)?, 3, "{routing}");
        }
        let modules = json!({"model_type": "mor", "num_hidden_layers": 5, "num_recursions": 3, "num_modules": 2,
                             "routing": "token_choice", "router_bias": 0.01});
        assert_eq!(moved(modules)?, 5);
        Ok(())
    }

    #[test]
    fn loads_of_all_uses_count() -> Result<()> {
        let config = Config::new("config.json", config(json!({"num_local_experts": 2, "num_experts_per_tok": 1})))?;
        let mixture = Mixture::from_config(&config, MixtureFamily::Mixtral, 1)?;
        let mut g = Graph::new();
        let bias = g.parameter("bias", [2], DType::F32)?;
        let mut gates = Vec::new();
        // The first use alone would move the bias the other way.
        for counts in [[3.0, 1.0], [1.0, 9.0]] {
            let counts = g.constant("counts", Array::new([2], counts.to_vec())?, DType::F32);
            let sums = RouterStats { sums: counts, decision: RouterDecision::Experts };
            gates.push(GateOutput {
                scores: counts,
                lse: counts,
                counts,
                chosen: counts,
                bias: Some(bias),
                share: None,
                by_text: None,
                sums,
            });
        }
        mixture.balance.update_biases(&mut g, &gates)?;
        let moved = Tensor { node: g.nodes().len() as u32 - 1, output: 0 };
        let values = Values::from([("bias".to_owned(), Array::zeros([2]))]);
        assert_eq!(g.evaluate(&values, &[moved])?[0].data, [0.125, -0.125]);
        Ok(())
    }
}
