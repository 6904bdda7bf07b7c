//! The `config.json` of a Llama, and of what its relatives have beside.

use super::super::source::Source;
use super::{mixture, rope};
use crate::error::Result;
use crate::io::gguf::TABLE;
use serde_json::{Value, json};

const HEADS: &str = "attention.head_count";
const KEY_HEADS: &str = "attention.head_count_kv";
const WINDOW: &str = "attention.sliding_window";
const HEAD: &str = "output.weight";
/// The layers of the largest Gemma 2 and Gemma 3, whose scores are divided by the root of the width over the heads, and not of the width
/// of a head; files do not say so.
pub(in super::super) const LARGEST_GEMMA: [u64; 2] = [46, 62];

/// Queries' and keys' heads.
pub(in super::super) fn heads(source: &Source<'_>) -> Result<[u64; 2]> {
    let heads = source.expect_layers_count(HEADS)?;
    Ok([heads, source.layers_count(KEY_HEADS)?.unwrap_or(heads)])
}

/// What all decoders with rotary positions have.
fn base(source: &Source<'_>, mut config: Value) -> Result<Value> {
    let d_model = source.expect_count("embedding_length")?;
    let [heads, key_heads] = heads(source)?;
    let head = match source.count("attention.key_length")? {
        Some(head) => head,
        None => d_model / heads.max(1),
    };
    if let Some(values) = source.count("attention.value_length")?.filter(|values| *values != head) {
        return Err(source
            .refuse("attention.value_length", format!("is {values}, and that of keys {head}: they must be equal")));
    }
    let layers = source.layers("block_count", |layer| format!("blk.{layer}.attn_norm.weight"))?;
    let [queries, keys] = [heads.saturating_mul(head), key_heads.saturating_mul(head)];
    source.check("embedding_length", d_model, &[(TABLE, 1, 1)])?;
    if source.has("blk.0.attn_qkv.weight") {
        source.check(HEADS, queries.saturating_add(keys).saturating_add(keys), &[("blk.0.attn_qkv.weight", 0, 1)])?;
    } else {
        source.check(HEADS, queries, &[("blk.0.attn_q.weight", 0, 1)])?;
        source.check(KEY_HEADS, keys, &[("blk.0.attn_k.weight", 0, 1)])?;
    }
    for key in ["attention.max_alibi_bias", "attention.group_norm_epsilon"] {
        source.only(key, &[0.0])?;
    }
    if source.flag("attention.causal")? == Some(false) {
        return Err(source
            .refuse("attention.causal", "is false; the family of this model reads texts from left to right alone"));
    }
    if source.flag("use_parallel_residual")? == Some(true) {
        return Err(source.refuse("use_parallel_residual", "is true, which the family of this model does not have"));
    }
    // The tensors say which layers have experts.
    ["leading_dense_block_count", "interleave_moe_layer_step"].iter().for_each(|key| source.leave(key));
    let more = json!({
        "max_position_embeddings": context(source)?,
        "hidden_size": d_model,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": key_heads,
        "head_dim": head,
        "rms_norm_eps": source.number("attention.layer_norm_rms_epsilon")?.unwrap_or(1e-5),
        "tie_word_embeddings": !source.has(HEAD),
        "attention_bias": source.has("blk.0.attn_q.bias"),
        "mlp_bias": source.has("blk.0.ffn_gate.bias"),
        "sliding_window": null,
    });
    merge(&mut config, more);
    Ok(config)
}

/// The longest text.
pub(super) fn context(source: &Source<'_>) -> Result<u64> {
    let positions = source.expect_count("context_length")?;
    match (4..=1 << 31).contains(&positions) {
        true => Ok(positions),
        false => Err(source.refuse("context_length", format!("is {positions}, which is not possible"))),
    }
}

pub(super) fn merge(config: &mut Value, more: Value) {
    for (key, value) in more.as_object().into_iter().flatten() {
        config[key] = value.clone();
    }
}

/// How many tokens a token sees where that is fewer than there can be.
fn window(source: &Source<'_>) -> Result<Option<u64>> {
    let context = context(source)?;
    Ok(source.count(WINDOW)?.filter(|window| *window > 0 && *window < context))
}

/// Refuses windows.
fn without_windows(source: &Source<'_>) -> Result<()> {
    match window(source)? {
        Some(window) => Err(source.refuse(WINDOW, format!("is {window}; the family of this model has no windows"))),
        None => Ok(()),
    }
}

const CAPS: [&str; 2] = ["attn_logit_softcapping", "final_logit_softcapping"];
const FACTORS: [&str; 4] = ["logit_scale", "residual_scale", "embedding_scale", "attention.scale"];
pub(super) const CLIP: &str = "attention.clamp_kqv";
/// What some families have, and the values by which it does nothing.
const OF_SOME: [(&str, &[f64]); 7] = [
    (CAPS[0], &[0.0]),
    (CAPS[1], &[0.0]),
    (CLIP, &[0.0]),
    (FACTORS[0], &[0.0, 1.0]),
    (FACTORS[1], &[0.0, 1.0]),
    (FACTORS[2], &[0.0, 1.0]),
    (FACTORS[3], &[0.0]),
];

/// Refuses what the family does not have; it has `own`.
fn without_others(source: &Source<'_>, own: &[&str]) -> Result<()> {
    OF_SOME.iter().filter(|(key, _)| !own.contains(key)).try_for_each(|(key, idle)| source.only(key, idle))
}

fn feed_forward(source: &Source<'_>, config: &mut Value) -> Result<()> {
    let d_ff = source.expect_layers_count("feed_forward_length")?;
    let gate = if source.has("blk.0.ffn_gate.weight") {
        ("blk.0.ffn_gate.weight", 0, 1)
    } else {
        ("blk.0.ffn_up.weight", 0, 2)
    };
    source.check("feed_forward_length", d_ff, &[gate])?;
    ["expert_count", "expert_used_count"].iter().for_each(|key| source.leave(key));
    config["intermediate_size"] = d_ff.into();
    Ok(())
}

/// Whole heads turn.
pub(super) fn turn_whole(source: &Source<'_>, config: &mut Value) -> Result<()> {
    let head = config["head_dim"].as_u64().unwrap_or(0);
    if let Some(turned) = source.count("rope.dimension_count")?.filter(|turned| *turned != head) {
        let message = format!("is {turned}; rotary positions of only a part of a head (of {head}) are not supported");
        return Err(source.refuse("rope.dimension_count", message));
    }
    config["rope_parameters"] = rope::parameters(source, head)?;
    Ok(())
}

/// A decoder with nothing of its own.
pub(super) fn plain(source: &Source<'_>, config: Value) -> Result<Value> {
    let mut config = base(source, config)?;
    feed_forward(source, &mut config)?;
    turn_whole(source, &mut config)?;
    without_windows(source)?;
    without_others(source, &[])?;
    Ok(config)
}

/// The same, with whatever feed-forward networks and with `own`.
pub(super) fn with_experts(source: &Source<'_>, config: Value, own: &[&str]) -> Result<Value> {
    let mut config = base(source, config)?;
    turn_whole(source, &mut config)?;
    without_windows(source)?;
    without_others(source, own)?;
    Ok(config)
}

/// Llama, Mistral or Mixtral.
pub(super) fn llama(source: &Source<'_>, config: Value) -> Result<Value> {
    if source.count("expert_count")?.is_some_and(|experts| experts > 0) {
        if source.tensors.keys().any(|name| name.contains(".ffn_gate_inp.")) {
            return mixture::mixtral(source, config);
        }
        log::warn!(
            "{}: has a count of experts and none of their tensors; it is read as dense",
            source.metadata.path.display()
        );
    }
    let Some(window) = window(source)? else { return plain(source, config) };
    let mut config = base(source, config)?;
    feed_forward(source, &mut config)?;
    turn_whole(source, &mut config)?;
    without_others(source, &[])?;
    let more = json!({"model_type": "mistral", "architectures": ["MistralForCausalLM"], "sliding_window": window});
    merge(&mut config, more);
    Ok(config)
}

/// A Qwen 2 whose file has no biases computes what a Llama does.
pub(super) fn qwen2(source: &Source<'_>, config: Value) -> Result<Value> {
    let config = plain(source, config)?;
    Ok(if config["attention_bias"] == true { config } else { as_llama(config) })
}

/// The same for a Qwen 3 without norms of queries and keys.
pub(super) fn qwen3(source: &Source<'_>, config: Value) -> Result<Value> {
    let config = plain(source, config)?;
    Ok(if source.has("blk.0.attn_q_norm.weight") { config } else { as_llama(config) })
}

fn as_llama(mut config: Value) -> Value {
    merge(&mut config, json!({"model_type": "llama", "architectures": ["LlamaForCausalLM"]}));
    config
}

/// Which layers of a Gemma have windows, `every` so many-th not, and what else files do not say.
fn gemma(source: &Source<'_>, config: &mut Value, every: u64, usual: Option<u64>) -> Result<()> {
    const PATTERN: &str = "attention.sliding_window_pattern";
    let layers = config["num_hidden_layers"].as_u64().unwrap_or(0);
    let head = match LARGEST_GEMMA.contains(&layers) {
        true => {
            config["hidden_size"].as_u64().unwrap_or(0) / config["num_attention_heads"].as_u64().unwrap_or(1).max(1)
        }
        false => config["head_dim"].as_u64().unwrap_or(0),
    };
    let window = source.count(WINDOW)?.or(usual).filter(|window| *window > 0);
    // A list with a flag for each layer, or the distance of layers without a window.
    source.leave(PATTERN);
    let flags = source.metadata.all_flags(&format!("{}.{PATTERN}", source.architecture))?;
    source.leave(PATTERN);
    let every = if flags.is_some() { every } else { source.count(PATTERN)?.unwrap_or(every) };
    if let Some(flags) = flags.as_ref().filter(|flags| flags.len() as u64 != layers) {
        return Err(source.refuse(PATTERN, format!("has {} items instead of {layers}", flags.len())));
    }
    let slides = |layer: u64| match &flags {
        _ if window.is_none() => false,
        Some(flags) => flags[layer as usize],
        None => every == 0 || !(layer + 1).is_multiple_of(every),
    };
    // Layers are as many as there are tensors of them.
    let kinds = (0..layers).map(|layer| if slides(layer) { "sliding_attention" } else { "full_attention" });
    let kinds: Vec<&str> = kinds.collect();
    merge(config, json!({"sliding_window": window, "layer_types": kinds, "query_pre_attn_scalar": head}));
    Ok(())
}

pub(super) fn gemma2(source: &Source<'_>, config: Value) -> Result<Value> {
    let mut config = base(source, config)?;
    feed_forward(source, &mut config)?;
    turn_whole(source, &mut config)?;
    gemma(source, &mut config, 2, Some(4096))?;
    for (key, usual) in CAPS.into_iter().zip([50.0, 30.0]) {
        config[key] = source.number(key)?.unwrap_or(usual).into();
    }
    without_others(source, &CAPS)?;
    Ok(config)
}

pub(super) fn gemma3(source: &Source<'_>, config: Value) -> Result<Value> {
    let mut config = base(source, config)?;
    feed_forward(source, &mut config)?;
    turn_whole(source, &mut config)?;
    gemma(source, &mut config, 6, None)?;
    // Layers with a window have their own rotary positions, and these are not stretched.
    let global = config["rope_parameters"].take();
    let local = source.number("rope.freq_base_swa")?.unwrap_or(10_000.0);
    let local = json!({"rope_type": "default", "rope_theta": local});
    config["rope_parameters"] = json!({"full_attention": global, "sliding_attention": local});
    config[CAPS[1]] = json!(source.some_number(CAPS[1])?);
    without_others(source, &CAPS[1..])?;
    Ok(config)
}

pub(super) fn granite(source: &Source<'_>, config: Value) -> Result<Value> {
    let mut config = base(source, config)?;
    feed_forward(source, &mut config)?;
    turn_whole(source, &mut config)?;
    without_windows(source)?;
    without_others(source, &FACTORS)?;
    if source.flag("rope.scaling.finetuned")? == Some(false) {
        return Err(
            source.refuse("rope.scaling.finetuned", "is false: a Granite without rotary positions, which is not read")
        );
    }
    let head = config["head_dim"].as_u64().unwrap_or(1) as f64;
    for (key, theirs, usual) in [
        ("embedding_scale", "embedding_multiplier", 1.0),
        ("residual_scale", "residual_multiplier", 1.0),
        ("attention.scale", "attention_multiplier", head.sqrt().recip()),
        ("logit_scale", "logits_scaling", 1.0),
    ] {
        config[theirs] = source.some_number(key)?.unwrap_or(usual).into();
    }
    Ok(config)
}

pub(super) fn phi3(source: &Source<'_>, config: Value) -> Result<Value> {
    let mut config = base(source, config)?;
    feed_forward(source, &mut config)?;
    let head = config["head_dim"].as_u64().unwrap_or(0);
    let turned = source.count("rope.dimension_count")?.unwrap_or(head);
    if turned == 0 || turned > head || turned % 2 == 1 {
        return Err(source.refuse("rope.dimension_count", format!("is {turned}; heads have {head} elements")));
    }
    let trained = source.count("rope.scaling.original_context_length")?.unwrap_or(context(source)?);
    let more = json!({
        "rope_parameters": rope::long(source, turned)?,
        "original_max_position_embeddings": trained,
        // The least number of which a reader makes as many elements.
        "partial_rotary_factor": if turned == head { 1.0 } else { (turned as f64 / head as f64).next_up() },
        "sliding_window": window(source)?,
    });
    merge(&mut config, more);
    without_others(source, &[])?;
    Ok(config)
}
