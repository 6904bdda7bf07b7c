//! Whole models of awkward sizes.

use super::small::{against_twin, decoder, gpt2, llama, merged, mor, token, upload_in, weights_in};
use libtest_mimic::Failed;
use serde_json::{Value, json};
use wgformer::graph::{Array, Values};
use wgformer::io::tree_mask::spans_of_levels;
use wgformer::models::{Decoder, TokenInputs};
use wgformer::ops::{self, CrossEntropyOptions};
use wgformer::{DType, Error, Gpu, Graph, Result, Tensor};

/// A model with awkward sizes.
pub(crate) struct Case {
    pub(crate) name: &'static str,
    config: Value,
    batch: usize,
    time: usize,
    /// Real tokens of each row; empty: all.
    lengths: Vec<usize>,
    dropout: bool,
    storage: DType,
    /// Attention is limited by a tree over the tokens.
    tree: bool,
}

/// A mixture of experts.
fn mixtral(more: Value) -> Value {
    llama(merged(json!({"model_type": "mixtral", "intermediate_size": 33, "router_aux_loss_coef": 0.1}), more))
}

pub(crate) fn cases() -> Vec<Case> {
    let rope = json!({"rope_type": "llama3", "rope_theta": 10000.0, "factor": 8.0, "low_freq_factor": 1.0,
                      "high_freq_factor": 4.0, "original_max_position_embeddings": 32});
    let case = |name, config, batch, time, lengths: &[usize], dropout| Case {
        name,
        config,
        batch,
        time,
        lengths: lengths.to_vec(),
        dropout,
        storage: DType::F32,
        tree: false,
    };
    vec![
        case("gpt2 of 257 tokens", gpt2(json!({"n_inner": 51, "activation_function": "relu"})), 1, 257, &[], false),
        case(
            "gpt2 with dropout, odd scales and an untied head",
            gpt2(json!({"tie_word_embeddings": false, "scale_attn_weights": false, "activation_function": "gelu",
                        "scale_attn_by_inverse_layer_idx": true, "resid_pdrop": 0.1, "embd_pdrop": 0.2,
                        "attn_pdrop": 0.3})),
            2,
            19,
            &[],
            true,
        ),
        case(
            "llama with padding, biases, a tied head and scaled rotary positions",
            llama(
                json!({"attention_bias": true, "mlp_bias": true, "tie_word_embeddings": true, "rope_parameters": rope}),
            ),
            3,
            33,
            &[33, 20, 1],
            false,
        ),
        case(
            "llama with attention dropout and padding",
            llama(json!({"attention_dropout": 0.25})),
            2,
            33,
            &[33, 20],
            true,
        ),
        case(
            "mor with attention dropout, tokens choose",
            mor(json!({"attention_dropout": 0.25, "routing": "token_choice"})),
            2,
            19,
            &[],
            true,
        ),
        case(
            "llama of one token, five key heads",
            llama(json!({"num_key_value_heads": 5, "rope_scaling": {"type": "linear", "factor": 2.0}})),
            1,
            1,
            &[],
            false,
        ),
        case(
            "mor, four recursions of all layers, padding, tanh",
            mor(json!({"sharing": "cycle", "num_hidden_layers": 4, "num_recursions": 4, "router_function": "tanh",
                       "capacity": [0.9, 0.6, 0.6, 0.1], "router_alpha": 0.7, "router_aux_coef": 0.3,
                       "router_z_coef": 0.01})),
            3,
            19,
            &[19, 9, 1],
            false,
        ),
        case(
            "mor, shared keys, two routers of two layers",
            mor(json!({"kv_sharing": true, "sampling": "aux_router", "router": "mlp", "router_aux_coef": 0.3,
                       "num_hidden_layers": 8})),
            2,
            33,
            &[],
            false,
        ),
        case("mor of one token", mor(json!({"router_function": null})), 2, 1, &[], false),
        case(
            "mor, tokens choose a module and a depth, padding",
            mor(json!({"routing": "token_choice", "num_modules": 2, "router_function": "sigmoid", "router": "mlp",
                       "router_alpha": 0.8, "router_z_coef": 0.01})),
            3,
            19,
            &[19, 9, 1],
            false,
        ),
        case(
            "mor, tokens choose a depth, shared keys, padding",
            mor(json!({"routing": "token_choice", "kv_sharing": true, "sharing": "cycle", "num_hidden_layers": 3})),
            2,
            33,
            &[20, 33],
            false,
        ),
        case(
            "mor without routers, layers repeated in a row",
            mor(json!({"routing": "none", "sharing": "middle_sequence", "num_hidden_layers": 8})),
            2,
            9,
            &[],
            false,
        ),
        Case {
            storage: DType::BF16,
            ..case(
                "mor stored as bf16, shared keys without routers",
                mor(json!({"routing": "none", "kv_sharing": true, "sharing": "cycle", "num_hidden_layers": 4,
                           "num_recursions": 2})),
                2,
                9,
                &[9, 4],
                false,
            )
        },
        case(
            "mixtral, sigmoid scores in groups, a bias of the choice, z-loss",
            mixtral(json!({"num_local_experts": 12, "num_experts_per_tok": 3, "scoring_func": "sigmoid", "n_group": 4,
                           "topk_group": 2, "routed_scaling_factor": 2.5, "router_bias_rate": 0.25,
                           "router_z_loss_coef": 0.01})),
            2,
            33,
            &[],
            false,
        ),
        case(
            "mixtral with noise, one expert a token",
            mixtral(
                json!({"num_local_experts": 5, "num_experts_per_tok": 1, "norm_topk_prob": false, "router_noise": true}),
            ),
            2,
            19,
            &[],
            true,
        ),
        case(
            "mor whose layers have experts, recursions choose",
            mor(json!({"num_local_experts": 4, "intermediate_size": 21})),
            2,
            19,
            &[],
            false,
        ),
        case(
            "mor whose layers have experts, tokens choose, padding",
            mor(json!({"num_local_experts": 3, "intermediate_size": 21, "routing": "token_choice"})),
            2,
            19,
            &[19, 9],
            false,
        ),
        Case { tree: true, ..case("mor with a tree mask", mor(json!({})), 2, 33, &[33, 20], false) },
        Case { storage: DType::BF16, ..case("llama stored as bf16", llama(json!({})), 2, 9, &[], false) },
        Case { tree: true, ..case("llama with a tree mask", llama(json!({})), 2, 67, &[67, 20], false) },
        Case { tree: true, ..case("gpt2 with a tree mask", gpt2(json!({})), 1, 33, &[], false) },
        Case { storage: DType::F16, ..case("gpt2 stored as f16", gpt2(json!({})), 2, 9, &[], false) },
    ]
}

impl Case {
    pub(crate) fn run(&self, gpu: &Gpu) -> Result<(), Failed> {
        let model = decoder(&self.config)?;
        let mut values = weights_in(model.as_ref(), &self.storage.into())?;
        let weights = upload_in(gpu, model.as_ref(), &values, self.storage)?;
        let (g, wanted) = self.graph(model.as_ref(), &mut values)?;
        against_twin(gpu, &g, &weights, &values, &wanted, [1e-5, 2e-4])
    }

    /// The whole step, and the values of its inputs.
    fn graph(&self, model: &dyn Decoder, values: &mut Values) -> Result<(Graph, Vec<(String, Tensor)>)> {
        let (mut g, shape) = (Graph::with_storage(&self.storage.into()), [self.batch, self.time]);
        let ids = g.input("ids", shape, DType::U32)?;
        values.insert("ids".into(), Array::from_fn(shape, |i| token(i) as f64));
        let labels = g.input("labels", shape, DType::I32)?;
        let real = |i: usize| self.lengths.get(i / self.time).is_none_or(|&length| i % self.time < length);
        let label = |i: usize| if real(i) && i % 5 != 4 { token(i + 1) as f64 } else { -100.0 };
        values.insert("labels".into(), Array::from_fn(shape, label));
        let mut inputs = TokenInputs::new(&mut g, ids)?;
        if !self.lengths.is_empty() {
            inputs = inputs.with_mask(g.input("mask", shape, DType::U32)?);
            values.insert("mask".into(), Array::from_fn(shape, |i| f64::from(u8::from(real(i)))));
        }
        if self.tree {
            let shape = [self.batch, self.time, 3];
            inputs = inputs.with_tree(g.input("tree", shape, DType::U32)?);
            let levels = |row: usize| (0..self.time).map(|i| token(i + row) % 5).collect::<Vec<_>>();
            let spans = (0..self.batch).flat_map(|row| spans_of_levels(&levels(row)));
            let words = spans.flat_map(|span| [span.position, span.first, span.last]).map(f64::from);
            values.insert("tree".into(), Array::new(shape, words.collect())?);
        }
        if self.dropout {
            inputs = inputs.with_dropout(g.input("seed", [2], DType::U32)?);
            values.insert("seed".into(), Array::new([2], vec![12345.0, 678.0])?);
        }
        let hidden = model.decode(&mut g, &inputs)?;
        let logits = model.logits(&mut g, hidden.states)?;
        let mut loss = model.loss_of(&mut g, hidden.states, labels, &CrossEntropyOptions::default())?;
        if let Some(auxiliary) = hidden.auxiliary {
            loss = ops::add(&mut g, loss, auxiliary)?;
        }
        let mut wanted = vec![("logits".to_owned(), logits), ("loss".to_owned(), loss)];
        let parameters: Vec<(String, Tensor)> = g.parameters().map(|(n, t)| (n.to_owned(), t)).collect();
        let tensors: Vec<Tensor> = parameters.iter().map(|(_, t)| *t).collect();
        for ((name, _), gradient) in parameters.iter().zip(g.differentiate(loss, &tensors)?) {
            match gradient {
                Some(gradient) => wanted.push((format!("grad.{name}"), gradient)),
                // It changes the choice only, and moves by the loads.
                None if name.ends_with("correction_bias") => (),
                None => return Err(Error::Graph(format!("{name} has no gradient"))),
            }
        }
        for (name, tensor) in &wanted {
            g.output(name, *tensor)?;
        }
        Ok((g, wanted))
    }
}
