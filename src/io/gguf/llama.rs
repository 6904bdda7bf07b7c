//! A Llama model in GGUF: its configuration and tensors under the names of Hugging Face.

use super::metadata::Metadata;
use super::reader::Info;
use crate::error::{Error, Result};
use crate::io::convert::Numbers;
use crate::io::safetensors::{Found, OneFile};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// The names of a block's tensors in the file, and Hugging Face's.
const BLOCK_NAMES: [(&str, &str); 9] = [
    ("attn_norm", "input_layernorm"),
    ("attn_q", "self_attn.q_proj"),
    ("attn_k", "self_attn.k_proj"),
    ("attn_v", "self_attn.v_proj"),
    ("attn_output", "self_attn.o_proj"),
    ("ffn_norm", "post_attention_layernorm"),
    ("ffn_gate", "mlp.gate_proj"),
    ("ffn_up", "mlp.up_proj"),
    ("ffn_down", "mlp.down_proj"),
];
const TABLE: &str = "token_embd.weight";
const HEAD: &str = "output.weight";
/// Tensors of each block that old converters wrote and that nothing uses.
const OF_OLD_CONVERTERS: &str = "attn_rot_embd";
const ROPE_FACTORS: &str = "rope_freqs.weight";
/// The frequency factors of rotary positions in Llama 3.1 and later; files hold only the result.
const LLAMA3: (f64, f64, f64) = (1.0, 4.0, 8192.0);

/// Hugging Face's name of a tensor of the file, if the family has it.
fn hugging_face_name(name: &str) -> Option<String> {
    match name {
        TABLE => return Some("model.embed_tokens.weight".into()),
        HEAD => return Some("lm_head.weight".into()),
        "output_norm.weight" => return Some("model.norm.weight".into()),
        _ => {}
    }
    let (layer, rest) = name.strip_prefix("blk.")?.split_once('.')?;
    let layer: usize = layer.parse().ok()?;
    let (part, kind) = rest.split_once('.').filter(|(_, kind)| matches!(*kind, "weight" | "bias"))?;
    let (_, theirs) = BLOCK_NAMES.iter().find(|(ours, _)| *ours == part)?;
    Some(format!("model.layers.{layer}.{theirs}.{kind}"))
}

/// The heads whose rows lie in pairs: those of queries and keys, for rotary positions that rotate neighbours.
fn paired(name: &str, heads: u64, key_heads: u64) -> u64 {
    match name.split('.').nth(2) {
        Some("attn_q") => heads,
        Some("attn_k") => key_heads,
        _ => 0,
    }
}

/// Refuses everything but whole models of this family.
pub(super) fn check_architecture(metadata: &Metadata<'_>) -> Result<()> {
    const TYPE: &str = "general.type";
    match metadata.text(TYPE)? {
        Some("adapter") => {
            let base = metadata.text("general.base_model.0.name")?;
            let base = base.map_or_else(String::new, |base| format!(", {base:?}"));
            let message = format!(
                "this is a LoRA adapter, not a model: give its base model{base}, or the adapter's folder in PEFT's form"
            );
            return Err(Error::format(metadata.path, message));
        }
        None | Some("model") => {}
        Some(other) => return Err(metadata.refuse(TYPE, format!("is \"{other}\": the file is not a model"))),
    }
    let architecture = metadata.expect_text("general.architecture")?;
    if architecture != "llama" {
        let message = format!("has the architecture {architecture}, which is not supported yet; llama is");
        return Err(metadata.refuse("general.architecture", message));
    }
    if let Some(experts) = metadata.count("llama.expert_count")?.filter(|&experts| experts > 0) {
        let message = format!("is {experts}: mixtures of experts are not read from GGUF files yet");
        return Err(metadata.refuse("llama.expert_count", message));
    }
    Ok(())
}

/// A model as its file or files describe it.
pub(super) struct Model<'a> {
    pub(super) metadata: &'a Metadata<'a>,
    pub(super) tensors: &'a BTreeMap<&'a str, Info>,
    pub(super) contents: &'a [OneFile],
}

impl Model<'_> {
    /// The tensors under Hugging Face's names. Unknown ones keep theirs, so that a model can report them.
    pub(super) fn found(&self) -> Result<Vec<Found>> {
        let metadata = self.metadata;
        let heads = metadata.expect_layers_count("llama.attention.head_count")?;
        let key_heads = metadata.layers_count("llama.attention.head_count_kv")?.unwrap_or(heads);
        let (mut all, mut names, mut old) = (Vec::new(), BTreeSet::new(), 0);
        for (&name, info) in self.tensors.iter().filter(|(name, _)| **name != ROPE_FACTORS) {
            if name.split('.').any(|part| part == OF_OLD_CONVERTERS) {
                old += 1;
                continue;
            }
            let paired = paired(name, heads, key_heads);
            let rows = info.shape.dims().first().copied().unwrap_or(0) as u64;
            if paired > 0 && !rows.is_multiple_of(paired.saturating_mul(2)) {
                let message =
                    format!("tensor {name:?} has {rows} rows, which cannot be split into pairs for {paired} heads");
                return Err(Error::format(metadata.path, message));
            }
            let theirs = hugging_face_name(name).unwrap_or_else(|| name.to_owned());
            if !names.insert(theirs.clone()) {
                return Err(Error::format(metadata.path, format!("has tensor {theirs:?} under two names")));
            }
            let Info { file, dtype, shape, range } = info.clone();
            all.push(Found { name: theirs, file, dtype, shape, range, paired: paired as usize });
        }
        if old > 0 {
            let path = metadata.path.display();
            log::warn!("{path}: {old} tensors {OF_OLD_CONVERTERS} of an old converter are not used");
        }
        Ok(all)
    }

    /// The `config.json` of the model.
    pub(super) fn config(&self) -> Result<Value> {
        let metadata = self.metadata;
        let (d_model, heads) =
            (count(metadata, "embedding_length")?, metadata.expect_layers_count("llama.attention.head_count")?);
        let key_heads = metadata.layers_count("llama.attention.head_count_kv")?.unwrap_or(heads);
        let head = match metadata.count("llama.attention.key_length")? {
            Some(head) => head,
            None => d_model / heads.max(1),
        };
        let rotary_dim = metadata.count("llama.rope.dimension_count")?.unwrap_or(head);
        if rotary_dim != head {
            let message =
                format!("is {rotary_dim}; rotary positions of only a part of a head (of {head}) are not supported");
            return Err(metadata.refuse("llama.rope.dimension_count", message));
        }
        let table = self.tensors.get(TABLE).and_then(|info| info.shape.dims().first().copied());
        let vocabulary = table.ok_or_else(|| Error::format(metadata.path, format!("has no tensor {TABLE:?}")))?;
        let sizes = Sizes {
            d_model,
            layers: count(metadata, "block_count")?,
            queries: heads.saturating_mul(head),
            keys: key_heads.saturating_mul(head),
            d_ff: metadata.expect_layers_count("llama.feed_forward_length")?,
        };
        sizes.check(metadata, self.tensors)?;
        let positions = count(metadata, "context_length")?;
        if !(4..=1 << 31).contains(&positions) {
            return Err(metadata.refuse("llama.context_length", format!("is {positions}, which is not possible")));
        }
        let theta = metadata.number("llama.rope.freq_base")?.unwrap_or(10000.0);
        let mut config = json!({
            "model_type": "llama",
            "architectures": ["LlamaForCausalLM"],
            "vocab_size": vocabulary,
            "max_position_embeddings": positions,
            "hidden_size": d_model,
            "num_hidden_layers": sizes.layers,
            "num_attention_heads": heads,
            "num_key_value_heads": key_heads,
            "head_dim": head,
            "intermediate_size": sizes.d_ff,
            "hidden_act": "silu",
            "rms_norm_eps": metadata.number("llama.attention.layer_norm_rms_epsilon")?.unwrap_or(1e-5),
            "tie_word_embeddings": !self.tensors.contains_key(HEAD),
            "attention_bias": self.tensors.contains_key("blk.0.attn_q.bias"),
            "mlp_bias": self.tensors.contains_key("blk.0.ffn_gate.bias"),
            "rope_parameters": self.rope(theta, head)?,
        });
        for (key, theirs) in [("bos", "bos_token_id"), ("eos", "eos_token_id"), ("padding", "pad_token_id")] {
            if let Some(id) = metadata.token(key, vocabulary)? {
                config[theirs] = json!(id);
            }
        }
        // A turn of a chat may end with another token than a text.
        let turn = metadata.token("eot", vocabulary)?;
        if let (Some(turn), Some(end)) = (turn, config["eos_token_id"].as_u64().filter(|&end| Some(end) != turn)) {
            config["eos_token_id"] = json!([end, turn]);
        }
        Ok(config)
    }

    /// Rotary positions: plain, scaled linearly, or with the file's factor for each pair of a head.
    fn rope(&self, theta: f64, head: u64) -> Result<Value> {
        let metadata = self.metadata;
        if let Some(info) = self.tensors.get(ROPE_FACTORS) {
            let bytes = &self.contents[info.file].bytes()[info.range.clone()];
            let numbers = Numbers { dtype: info.dtype, row_len: info.shape.last(), bytes: bytes.into() };
            let factors = numbers.to_f32().map_err(|message| Error::format(metadata.path, message))?;
            return llama3(&factors, theta, head).ok_or_else(|| {
                let message = format!(
                    "tensor {ROPE_FACTORS:?} stretches rotary positions otherwise than Llama 3.1 does; \
                                   this is not supported"
                );
                Error::format(metadata.path, message)
            });
        }
        let factor = metadata.number("llama.rope.scaling.factor")?.or(metadata.number("llama.rope.scale_linear")?);
        match (metadata.text("llama.rope.scaling.type")?, factor) {
            (Some("none"), _) | (None, None) => Ok(json!({"rope_type": "default", "rope_theta": theta})),
            (Some("linear") | None, Some(factor)) => {
                Ok(json!({"rope_type": "linear", "rope_theta": theta, "factor": factor}))
            }
            (Some("yarn"), Some(factor)) => yarn(metadata, theta, factor),
            (Some("linear" | "yarn"), None) => Err(metadata.refuse("llama.rope.scaling.factor", "is missing")),
            (Some(other), _) => {
                let message = format!("is \"{other}\", which is not read yet; none, linear and yarn are");
                Err(metadata.refuse("llama.rope.scaling.type", message))
            }
        }
    }
}

/// YaRN by the keys of a file, with llama.cpp's defaults.
fn yarn(metadata: &Metadata<'_>, theta: f64, factor: f64) -> Result<Value> {
    let number = |key: &str| metadata.number(&format!("llama.rope.scaling.{key}"));
    let original = match metadata.count("llama.rope.scaling.original_context_length")? {
        Some(original) => original,
        None => count(metadata, "context_length")?,
    };
    // Cosines and sines are multiplied by this; a file may have a further factor.
    let attention = number("attn_factor")?.or(number("yarn_attn_factor")?).unwrap_or(1.0);
    Ok(json!({
        "rope_type": "yarn", "rope_theta": theta, "factor": factor, "original_max_position_embeddings": original,
        "attention_factor": attention * (1.0 + 0.1 * factor.max(1.0).ln()),
        "beta_fast": number("yarn_beta_fast")?.unwrap_or(32.0), "beta_slow": number("yarn_beta_slow")?.unwrap_or(1.0),
    }))
}

/// Sizes that the metadata claims.
struct Sizes {
    d_model: u64,
    layers: u64,
    queries: u64,
    keys: u64,
    d_ff: u64,
}

impl Sizes {
    /// Compares them with the tensors, so that no model is built of a damaged number.
    fn check(&self, metadata: &Metadata<'_>, tensors: &BTreeMap<&str, Info>) -> Result<()> {
        let refuse = |key: &str, value: u64, name: &str, there: Option<&Info>| {
            let there = there.map_or("is missing".into(), |info| format!("has shape {}", info.shape));
            Err(metadata.refuse(&format!("llama.{key}"), format!("gives {value}, but tensor {name:?} {there}")))
        };
        let last = format!("blk.{}.ffn_norm.weight", self.layers.saturating_sub(1));
        if self.layers == 0 || !tensors.contains_key(last.as_str()) {
            return refuse("block_count", self.layers, &last, None);
        }
        for (key, value, name, axis) in [
            ("embedding_length", self.d_model, TABLE, 1),
            ("attention.head_count", self.queries, "blk.0.attn_q.weight", 0),
            ("attention.head_count_kv", self.keys, "blk.0.attn_k.weight", 0),
            ("feed_forward_length", self.d_ff, "blk.0.ffn_gate.weight", 0),
        ] {
            let there = tensors.get(name);
            let extent = there.and_then(|info| info.shape.dims().get(axis).copied());
            if value == 0 || extent.map(|extent| extent as u64) != Some(value) {
                return refuse(key, value, name, there);
            }
        }
        Ok(())
    }
}

fn count(metadata: &Metadata<'_>, key: &str) -> Result<u64> {
    metadata.expect_count(&format!("llama.{key}"))
}

/// Llama 3.1's settings that give these factors, if there are any.
fn llama3(factors: &[f32], theta: f64, head: u64) -> Option<Value> {
    let (low, high, original) = LLAMA3;
    let factor = factors.iter().fold(1.0_f64, |largest, &f| largest.max(f64::from(f)));
    let expected = |pair: usize| {
        let turns = original / (std::f64::consts::TAU * theta.powf(2.0 * pair as f64 / head as f64));
        let kept = ((turns - low) / (high - low)).clamp(0.0, 1.0);
        1.0 / ((1.0 - kept) / factor + kept)
    };
    let close = |(pair, &f): (usize, &f32)| (f64::from(f) / expected(pair) - 1.0).abs() < 1e-3;
    (factors.len() as u64 * 2 == head && factors.iter().enumerate().all(close)).then(|| {
        json!({"rope_type": "llama3", "rope_theta": theta, "factor": factor, "low_freq_factor": low,
               "high_freq_factor": high, "original_max_position_embeddings": original as u64})
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_become_those_of_hugging_face() {
        let name = |name| hugging_face_name(name).unwrap_or_default();
        assert_eq!(name("blk.12.attn_output.weight"), "model.layers.12.self_attn.o_proj.weight");
        assert_eq!(name("blk.0.attn_q.bias"), "model.layers.0.self_attn.q_proj.bias");
        assert_eq!(name("output_norm.weight"), "model.norm.weight");
        assert_eq!(name("blk.x.attn_q.weight") + &name("blk.1.attn_z.weight") + &name("blk.1.attn_q.scale"), "");
        assert_eq!([paired("blk.3.attn_q.weight", 9, 3), paired("blk.3.attn_k.bias", 9, 3)], [9, 3]);
        assert_eq!(paired("blk.3.attn_v.weight", 9, 3), 0);
    }

    #[test]
    fn factors_of_rotary_positions_are_recognised_or_refused() {
        // A head of 8 with theta 500000 and factor 8: the second pair rotates 8192 / (2 pi 26.6) = 49 times, the third 1.8 times.
        let kept = (8192.0 / (std::f64::consts::TAU * 500_000.0_f64.powf(0.5)) - 1.0) / 3.0;
        let third = 1.0 / ((1.0 - kept) / 8.0 + kept);
        let value = llama3(&[1.0, 1.0, third as f32, 8.0], 500_000.0, 8).unwrap_or_default();
        assert_eq!((value["rope_type"].as_str(), value["factor"].as_f64()), (Some("llama3"), Some(8.0)));
        assert!(llama3(&[1.0, 1.0, 2.0, 8.0], 500_000.0, 8).is_none());
        assert!(llama3(&[1.0, 8.0], 500_000.0, 8).is_none());
    }
}
