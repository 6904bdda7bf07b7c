//! Files of every architecture compute what PyTorch does.

use super::conversion::{Conversion, check, convert, leaked, made};
use super::made::{Made, Meta, file};
use std::process::Command;
use wgformer::io::{NamedTensor, Tensors, gguf, safetensors};
use wgformer::models;

#[test]
fn llamas_and_their_nearest_relatives() {
    convert("llama", "llama", &[]);
    convert("mistral", "llama", &[]);
    convert("qwen2", "qwen2", &[]);
    convert("qwen3", "qwen3", &[]);
}

#[test]
fn every_fourth_layer_of_a_smollm3_has_no_positions() {
    let conversion = Conversion::new("smollm3", "smollm3");
    let folder = gguf::from_bytes("smollm3", file(&conversion.metadata(&[]), &conversion.made()).0).unwrap();
    for tensor in conversion.tensors.iter() {
        let there = folder.tensors.expect_shape(tensor.name, tensor.shape).unwrap();
        assert_eq!(there.to_f32().unwrap(), tensor.to_f32().unwrap(), "{}", tensor.name);
    }
    let model = models::model_of(&folder).unwrap();
    assert_eq!(model.config()["no_rope_layers"], serde_json::json!([1, 1, 1, 0]));
}

#[test]
fn gemmas() {
    convert("gemma", "gemma", &[]);
    convert(
        "gemma2",
        "gemma2",
        &[("attn_logit_softcapping", Meta::F32(5.0)), ("final_logit_softcapping", Meta::F32(4.0))],
    );
    convert(
        "gemma3",
        "gemma3",
        &[("rope.freq_base", Meta::F32(1e6)), ("attention.sliding_window_pattern", Meta::U32(2))],
    );
}

#[test]
fn fused_projections_and_factors() {
    convert("phi3", "phi3", &[]);
    convert(
        "granite",
        "granite",
        &[
            ("attention.scale", Meta::F32(0.2)),
            ("embedding_scale", Meta::F32(3.0)),
            ("logit_scale", Meta::F32(2.5)),
            ("residual_scale", Meta::F32(0.4)),
        ],
    );
}

#[test]
fn gpt2_and_bert() {
    convert("gpt2", "gpt2", &[("feed_forward_length", Meta::U32(192))]);
    let mut bert = Conversion::new("bert-base-model", "bert");
    let mut kept: Vec<Made> = Vec::new();
    // Converters leave the pooler out.
    let names: Vec<String> =
        bert.tensors.names().filter(|name| !name.starts_with("pooler")).map(str::to_owned).collect();
    let plain: Vec<NamedTensor<'_>> = names
        .iter()
        .map(|name| {
            let tensor = bert.tensors.expect(name).unwrap();
            NamedTensor::f32(name.clone(), tensor.shape.clone(), &tensor.to_f32().unwrap())
        })
        .collect();
    bert.tensors = Tensors::from_bytes("bert", safetensors::to_bytes(&plain).unwrap()).unwrap();
    kept.extend(bert.made());
    let metadata = bert.metadata(&[("attention.causal", Meta::Flag(false)), ("pooling_type", Meta::U32(2))]);
    let bytes = file(&metadata, &kept).0;
    let opened = gguf::from_bytes("bert", bytes.clone()).unwrap();
    assert_eq!(opened.config.value()["pooling"], "cls");
    check("bert-base-model", bytes);
    embeds_as_it_says(&bert, &kept);
    let last = bert.metadata(&[("pooling_type", Meta::U32(3))]);
    let message = gguf::from_bytes("bert", file(&last, &kept).0).unwrap_err().to_string();
    assert!(message.contains("\"bert.pooling_type\" is 3; none (0), mean (1) and cls (2) are read"), "{message}");
}

#[test]
fn nomic_bert() {
    let more = [("attention.causal", Meta::Flag(false)), ("pooling_type", Meta::U32(1))];
    convert("nomic-bert", "nomic-bert", &more);
    let conversion = Conversion::new("nomic-bert", "nomic-bert");
    let opened = gguf::from_bytes("nomic", file(&conversion.metadata(&more), &conversion.made()).0).unwrap();
    assert_eq!(opened.config.value()["pooling"], "mean");
    let refused = |key: &str, value: Meta| {
        let metadata = conversion.metadata(&[(key, value)]);
        gguf::from_bytes("nomic", file(&metadata, &conversion.made()).0).unwrap_err().to_string()
    };
    for (key, value, wanted) in [
        ("attention.causal", Meta::Flag(true), "\"nomic-bert.attention.causal\" is true"),
        ("attention.head_count_kv", Meta::U32(2), "\"nomic-bert.attention.head_count_kv\" is 2"),
        ("attention.key_length", Meta::U32(4), "\"nomic-bert.attention.key_length\" is 4"),
        ("rope.dimension_count", Meta::U32(4), "\"nomic-bert.rope.dimension_count\" is 4"),
        ("moe_every_n_layers", Meta::U32(2), "\"nomic-bert.moe_every_n_layers\" is not known here"),
        ("block_count", Meta::U32(3), "\"nomic-bert.block_count\" gives 3, but tensor"),
    ] {
        let message = refused(key, value);
        assert!(message.contains(wanted), "{key}: {message}");
    }
}

/// That the command makes vectors by the file's words and by its pooling.
fn embeds_as_it_says(bert: &Conversion, tensors: &[Made]) {
    let mut metadata = bert.metadata(&[("attention.causal", Meta::Flag(false)), ("pooling_type", Meta::U32(2))]);
    let mut tokens: Vec<String> = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"].map(str::to_owned).into();
    tokens.extend((5..97).map(|id| format!("\u{2581}{}{}", char::from(b'a' + id % 26), char::from(b'a' + id / 26))));
    metadata.insert("tokenizer.ggml.model", Meta::Text("bert"));
    metadata
        .insert("tokenizer.ggml.token_type", Meta::Integers((0..97).map(|id| if id < 5 { 3 } else { 1 }).collect()));
    metadata.insert("tokenizer.ggml.tokens", Meta::Texts(tokens));
    for (role, id) in [("cls", 2), ("bos", 2), ("seperator", 3), ("unknown", 1), ("padding", 0), ("mask", 4)] {
        metadata.insert(leaked(format!("tokenizer.ggml.{role}_token_id")), Meta::U32(id));
    }
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("bert.gguf");
    std::fs::write(&path, file(&metadata, tensors).0).unwrap();
    let vector = |more: &[&str]| {
        let arguments = ["embed", path.to_str().unwrap(), "--text", "Fa ga HA", "--json"];
        let output = Command::new(env!("CARGO_BIN_EXE_wgformer")).args(arguments).args(more).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let (own, cls, mean) = (vector(&[]), vector(&["--pooling", "cls"]), vector(&["--pooling", "mean"]));
    assert!(own == cls && own != mean && own.contains("0."), "{own}");
}

#[test]
fn experts() {
    convert("qwen3-moe", "qwen3moe", &[]);
    convert("olmoe", "olmoe", &[]);
    convert("qwen2-moe", "qwen2moe", &[]);
    let mixtral = |apart| {
        let conversion = Conversion { apart, ..Conversion::new("mixtral", "llama") };
        check("mixtral", file(&conversion.metadata(&[]), &conversion.made()).0);
    };
    mixtral(false);
    mixtral(true);
    let conversion = Conversion::new("mixtral", "llama");
    let refused = |key: &str, value: Meta| {
        gguf::from_bytes("m", file(&conversion.metadata(&[(key, value)]), &conversion.made()).0)
            .unwrap_err()
            .to_string()
    };
    for (key, value, wanted) in [
        ("expert_gating_func", Meta::U32(2), "\"llama.expert_gating_func\" is 2; only a softmax"),
        ("expert_weights_scale", Meta::F32(2.5), "\"llama.expert_weights_scale\" is 2.5"),
        ("expert_count", Meta::U32(7), "\"llama.expert_count\" gives 7, but tensor \"blk.0.ffn_gate_exps.weight\""),
        ("expert_shared_count", Meta::U32(1), "\"llama.expert_shared_count\" is 1"),
        ("some.new_key", Meta::U32(1), "\"llama.some.new_key\" is not known here"),
        ("attn_logit_softcapping", Meta::F32(30.0), "\"llama.attn_logit_softcapping\" is 30"),
        ("attention.max_alibi_bias", Meta::F32(8.0), "\"llama.attention.max_alibi_bias\" is 8"),
    ] {
        let message = refused(key, value);
        assert!(message.contains(wanted), "{key}: {message}");
    }
}

#[test]
fn texts_that_are_answered() {
    convert("t5", "t5", &[("attention.relative_buckets_count", Meta::U32(32)), ("context_length", Meta::U32(512))]);
    let more = [
        ("attention.relative_buckets_count", Meta::U32(32)),
        ("context_length", Meta::U32(512)),
        ("decoder_block_count", Meta::U32(2)),
    ];
    convert("t5-v1.1", "t5", &more);
}

#[test]
fn rotary_positions_by_any_factors() {
    // Llama 3's stretching with other settings than those of Llama 3.1, as files have it: a factor for each pair.
    let conversion = Conversion::new("llama-rope3", "llama");
    let mut tensors = conversion.made();
    let factors: Vec<f32> = (0..8)
        .map(|pair| {
            let turns = 32.0 / (std::f64::consts::TAU * 10_000_f64.powf(f64::from(pair) / 8.0));
            let kept = ((turns - 1.0) / 3.0).clamp(0.0, 1.0);
            (1.0 / ((1.0 - kept) / 8.0 + kept)) as f32
        })
        .collect();
    tensors.push(made("rope_freqs.weight".into(), vec![8], &factors));
    check("llama-rope3", file(&conversion.metadata(&[]), &tensors).0);
    tensors.pop();
    tensors.push(made("rope_freqs.weight".into(), vec![7], &factors[..7]));
    let message = gguf::from_bytes("m", file(&conversion.metadata(&[]), &tensors).0).unwrap_err().to_string();
    assert!(message.contains("\"rope_freqs.weight\" needs 8 positive numbers"), "{message}");
    convert(
        "llama-yarn",
        "llama",
        &[
            ("rope.scaling.type", Meta::Text("yarn")),
            ("rope.scaling.factor", Meta::F32(4.0)),
            ("rope.scaling.original_context_length", Meta::U32(64)),
        ],
    );
    let conversion = Conversion::new("phi3-longrope", "phi3");
    let mut tensors = conversion.made();
    let rope = |key: &str| match conversion.config["rope_scaling"][key].as_array() {
        Some(list) => list.clone(),
        None => conversion.config["rope_parameters"][key].as_array().unwrap().clone(),
    };
    for (key, name) in [("short_factor", "rope_factors_short.weight"), ("long_factor", "rope_factors_long.weight")] {
        let values: Vec<f32> = rope(key).iter().map(|x| x.as_f64().unwrap() as f32).collect();
        tensors.push(made(name.into(), vec![values.len()], &values));
    }
    let trained = conversion.count("original_max_position_embeddings");
    let ratio = f64::from(conversion.count("max_position_embeddings")) / f64::from(trained);
    let attention = (1.0 + ratio.ln() / f64::from(trained).ln()).sqrt() as f32;
    let turned = 2 * rope("short_factor").len() as u32;
    let more = [
        ("rope.scaling.original_context_length", Meta::U32(trained)),
        ("rope.scaling.attn_factor", Meta::F32(attention)),
        ("rope.dimension_count", Meta::U32(turned)),
    ];
    check("phi3-longrope", file(&conversion.metadata(&more), &tensors).0);
}
