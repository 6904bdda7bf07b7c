//! The `config.json` of decoders with experts.

use super::super::source::Source;
use super::decoder::{CLIP, merge, with_experts};
use crate::error::Result;
use serde_json::{Value, json};

const COUNT: &str = "expert_count";
const D_FF: &str = "expert_feed_forward_length";
/// The number of the softmax among functions of routers.
const SOFTMAX: u64 = 1;

/// The experts: their number, how many a token has, their width, and whether the weights of those are divided by their sum.
struct Experts {
    count: u64,
    used: u64,
    d_ff: u64,
    divided: bool,
}

fn experts(source: &Source<'_>, divided: bool) -> Result<Experts> {
    let count = source.expect_count(COUNT)?;
    let used = source.expect_count("expert_used_count")?;
    let general = source.layers_count("feed_forward_length")?;
    let own = source.count(D_FF)?.filter(|d_ff| *d_ff > 0);
    let layers = source.expect_count("block_count")?;
    let first = (0..layers.min(64)).find(|layer| source.has(&format!("blk.{layer}.ffn_gate_inp.weight"))).unwrap_or(0);
    let stacked = format!("blk.{first}.ffn_gate_exps.weight");
    let stacked = stacked.as_str();
    let d_ff = own.or(general).ok_or_else(|| source.refuse(D_FF, "is missing"))?;
    if source.has(stacked) {
        source.check(COUNT, count, &[(stacked, 0, 1)])?;
        source.check(if own.is_some() { D_FF } else { "feed_forward_length" }, d_ff, &[(stacked, 1, 1)])?;
    } else {
        source.check("feed_forward_length", d_ff, &[(&format!("blk.{first}.ffn_gate.0.weight"), 0, 1)])?;
        let last = format!("blk.{first}.ffn_gate.{}.weight", count.saturating_sub(1));
        if !source.has(&last) {
            return Err(source.refuse(COUNT, format!("gives {count}, but tensor {last:?} is missing")));
        }
    }
    if let Some(function) = source.count("expert_gating_func")?.filter(|function| ![0, SOFTMAX].contains(function)) {
        return Err(source.refuse("expert_gating_func", format!("is {function}; only a softmax (1) is read")));
    }
    source.only("expert_weights_scale", &[0.0, 1.0])?;
    for key in ["expert_group_count", "expert_group_used_count"] {
        source.only(key, &[0.0, 1.0])?;
    }
    for key in ["moe_every_n_layers", "moe_latent_size", "router_logit_softcapping", "nextn_predict_layers"] {
        source.only(key, &[0.0])?;
    }
    let divided = source.flag("expert_weights_norm")?.unwrap_or(divided);
    Ok(Experts { count, used, d_ff, divided })
}

/// The layers without a router.
fn dense(source: &Source<'_>, config: &Value) -> Vec<u64> {
    // Layers are as many as there are tensors of them.
    let layers = config["num_hidden_layers"].as_u64().unwrap_or(0);
    (0..layers).filter(|layer| !source.has(&format!("blk.{layer}.ffn_gate_inp.weight"))).collect()
}

/// Refuses shared experts.
fn without_shared(source: &Source<'_>) -> Result<()> {
    source.only("expert_shared_count", &[0.0])?;
    source.only("expert_shared_feed_forward_length", &[0.0])
}

pub(super) fn mixtral(source: &Source<'_>, config: Value) -> Result<Value> {
    let mut config = with_experts(source, config, &[])?;
    let Experts { count, used, d_ff, divided } = experts(source, true)?;
    without_shared(source)?;
    let dense = dense(source, &config);
    merge(
        &mut config,
        json!({"model_type": "mixtral", "mlp_only_layers": dense, "architectures": ["MixtralForCausalLM"], "num_local_experts": count,
               "num_experts_per_tok": used, "intermediate_size": d_ff, "norm_topk_prob": divided}),
    );
    Ok(config)
}

/// What the mixtures of Qwen have.
fn qwen(source: &Source<'_>, config: Value, divided: bool) -> Result<Value> {
    let mut config = with_experts(source, config, &[])?;
    let Experts { count, used, d_ff, divided } = experts(source, divided)?;
    let general = source.layers_count("feed_forward_length")?.unwrap_or(d_ff);
    let dense = dense(source, &config);
    merge(
        &mut config,
        json!({"num_experts": count, "num_experts_per_tok": used, "moe_intermediate_size": d_ff, "intermediate_size": general,
               "norm_topk_prob": divided, "decoder_sparse_step": 1, "mlp_only_layers": dense}),
    );
    Ok(config)
}

pub(super) fn qwen2(source: &Source<'_>, config: Value) -> Result<Value> {
    const SHARED: &str = "expert_shared_feed_forward_length";
    let mut config = qwen(source, config, false)?;
    let up = source.tensors.keys().find(|name| name.ends_with(".ffn_up_shexp.weight")).copied();
    let shared = match source.count(SHARED)? {
        Some(shared) => shared,
        None => up.and_then(|up| source.extent(up, 0)).unwrap_or(0),
    };
    if shared > 0 {
        source.check(SHARED, shared, &[(up.unwrap_or("blk.0.ffn_up_shexp.weight"), 0, 1)])?;
    }
    source.only("expert_shared_count", &[0.0, 1.0])?;
    merge(&mut config, json!({"shared_expert_intermediate_size": shared, "qkv_bias": source.has("blk.0.attn_q.bias")}));
    Ok(config)
}

pub(super) fn qwen3(source: &Source<'_>, config: Value) -> Result<Value> {
    without_shared(source)?;
    qwen(source, config, true)
}

pub(super) fn olmoe(source: &Source<'_>, config: Value) -> Result<Value> {
    let mut config = with_experts(source, config, &[CLIP])?;
    let Experts { count, used, d_ff, divided } = experts(source, false)?;
    without_shared(source)?;
    merge(
        &mut config,
        json!({"num_experts": count, "num_experts_per_tok": used, "intermediate_size": d_ff, "norm_topk_prob": divided,
               "clip_qkv": source.some_number(CLIP)?}),
    );
    Ok(config)
}
