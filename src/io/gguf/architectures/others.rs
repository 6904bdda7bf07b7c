//! The `config.json` of GPT-2, BERT and T5.

use super::super::source::Source;
use super::decoder::{context, heads, merge, turn_whole};
use crate::error::Result;
use crate::io::gguf::TABLE;
use serde_json::{Value, json};

const EPSILON: &str = "attention.layer_norm_epsilon";

/// Width, heads, width of feed-forward networks.
fn sizes(source: &Source<'_>, up: &str) -> Result<[u64; 3]> {
    let d_model = source.expect_count("embedding_length")?;
    source.check("embedding_length", d_model, &[(TABLE, 1, 1)])?;
    let [query, key] = heads(source)?;
    if query != key {
        return Err(source.refuse(
            "attention.head_count_kv",
            format!("is {key}; the family of this model has as many as of queries, {query}"),
        ));
    }
    let d_ff = source.expect_layers_count("feed_forward_length")?;
    source.check("feed_forward_length", d_ff, &[(up, 0, 1)])?;
    Ok([d_model, query, d_ff])
}

pub(super) fn gpt2(source: &Source<'_>, mut config: Value) -> Result<Value> {
    let [d_model, heads, d_ff] = sizes(source, "blk.0.ffn_up.weight")?;
    let more = json!({
        "n_embd": d_model,
        "n_head": heads,
        "n_layer": source.layers("block_count", |layer| format!("blk.{layer}.attn_output.weight"))?,
        "n_positions": context(source)?,
        "n_inner": d_ff,
        "layer_norm_epsilon": source.number(EPSILON)?.unwrap_or(1e-5),
        "tie_word_embeddings": !source.has("output.weight"),
    });
    merge(&mut config, more);
    Ok(config)
}

pub(super) fn bert(source: &Source<'_>, mut config: Value) -> Result<Value> {
    let [d_model, heads, d_ff] = sizes(source, "blk.0.ffn_up.weight")?;
    in_both_directions(source)?;
    let positions = source.extent("position_embd.weight", 0);
    let positions = positions.ok_or_else(|| {
        source.damaged("has no tensor \"position_embd.weight\": a BERT without learned positions is not read")
    })?;
    source.expect_count("context_length")?;
    let more = json!({
        "hidden_size": d_model,
        "num_attention_heads": heads,
        "num_hidden_layers": source.layers("block_count", |layer| format!("blk.{layer}.attn_output.weight"))?,
        "intermediate_size": d_ff,
        "max_position_embeddings": positions,
        "type_vocab_size": source.extent("token_types.weight", 0).unwrap_or(1),
        "layer_norm_eps": source.number(EPSILON)?.unwrap_or(1e-12),
        "pooling": pooling(source)?,
    });
    merge(&mut config, more);
    Ok(config)
}

/// How the states of a text become its vector, where the file says so.
fn pooling(source: &Source<'_>) -> Result<Option<&'static str>> {
    match source.count("pooling_type")? {
        None | Some(0) => Ok(None),
        Some(1) => Ok(Some("mean")),
        Some(2) => Ok(Some("cls")),
        Some(other) => {
            Err(source.refuse("pooling_type", format!("is {other}; none (0), mean (1) and cls (2) are read")))
        }
    }
}

/// Refuses encoders whose tokens see only those in front of them.
fn in_both_directions(source: &Source<'_>) -> Result<()> {
    match source.flag("attention.causal")? {
        Some(true) => Err(source.refuse("attention.causal", "is true; only encoders are read")),
        _ => Ok(()),
    }
}

pub(super) fn nomic_bert(source: &Source<'_>, mut config: Value) -> Result<Value> {
    let [d_model, heads, d_ff] = sizes(source, "blk.0.ffn_up.weight")?;
    in_both_directions(source)?;
    source.check("embedding_length", d_model, &[("blk.0.attn_output.weight", 1, 1)])?;
    let head = d_model / heads.max(1);
    for key in ["attention.key_length", "attention.value_length"] {
        source.only(key, &[head as f64])?;
    }
    let more = json!({
        "hidden_size": d_model,
        "num_attention_heads": heads,
        "head_dim": head,
        "num_hidden_layers": source.layers("block_count", |layer| format!("blk.{layer}.attn_output.weight"))?,
        "intermediate_size": d_ff,
        "max_position_embeddings": context(source)?,
        "type_vocab_size": source.extent("token_types.weight", 0).unwrap_or(0),
        "layer_norm_eps": source.number(EPSILON)?.unwrap_or(1e-12),
        "pooling": pooling(source)?,
    });
    merge(&mut config, more);
    turn_whole(source, &mut config)?;
    Ok(config)
}

pub(super) fn t5(source: &Source<'_>, mut config: Value) -> Result<Value> {
    let [d_model, heads, d_ff] = sizes(source, "enc.blk.0.ffn_up.weight")?;
    let head = match source.count("attention.key_length")? {
        Some(head) => head,
        None => d_model / heads.max(1),
    };
    source.check("attention.head_count", heads.saturating_mul(head), &[("enc.blk.0.attn_q.weight", 0, 1)])?;
    source.only("attention.value_length", &[head as f64])?;
    source.expect_count("context_length")?;
    let encoder = source.layers("block_count", |layer| format!("enc.blk.{layer}.attn_q.weight"))?;
    let decoder = match source.has_key("decoder_block_count") {
        true => source.layers("decoder_block_count", |layer| format!("dec.blk.{layer}.attn_q.weight"))?,
        false => encoder,
    };
    let epsilon = source.number("attention.layer_norm_rms_epsilon")?.or(source.number(EPSILON)?);
    let more = json!({
        "d_model": d_model,
        "num_heads": heads,
        "d_kv": head,
        "d_ff": d_ff,
        "num_layers": encoder,
        "num_decoder_layers": decoder,
        "feed_forward_proj": if source.has("enc.blk.0.ffn_gate.weight") { "gated-gelu" } else { "relu" },
        "relative_attention_num_buckets": source.expect_count("attention.relative_buckets_count")?,
        "layer_norm_epsilon": epsilon.unwrap_or(1e-6),
        "tie_word_embeddings": !source.has("output.weight"),
        "is_encoder_decoder": true,
        "decoder_start_token_id": source.count("decoder_start_token_id")?.unwrap_or(0),
    });
    merge(&mut config, more);
    Ok(config)
}
