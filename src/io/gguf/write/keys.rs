//! What a `config.json` is in the keys of a GGUF file: the inverse of what the reader makes of them.

use super::super::architectures::{self, Architecture};
use super::layout::{Entry, Item};
use crate::error::{Error, Result};
use serde_json::Value;

fn refuse(key: &str, message: impl Into<String>) -> Error {
    Error::input(key, message)
}

/// The architecture of a family.
pub(super) fn architecture(config: &Value) -> Result<&'static Architecture> {
    let family = config["model_type"].as_str().unwrap_or_default();
    let name = match family {
        // These are Llamas in GGUF.
        "mistral" | "mixtral" => "llama",
        "gemma3" => "gemma3",
        other => architectures::ALL.iter().find(|known| known.family[0] == other).map_or(other, |known| known.name),
    };
    Architecture::named(name).ok_or_else(|| {
        let all = super::writable().join(", ");
        refuse("model_type", format!("\"{family}\" has no form in GGUF here; {all} have: write a Hugging Face folder"))
    })
}

/// Files have no key for another scale of scores than that of a head's width: the part of the queries that takes it on, and its factor.
pub(super) fn scores(architecture: &Architecture, config: &Value) -> Option<(&'static str, f32)> {
    let part = match architecture.name {
        "gemma2" => "attn_q",
        "gemma3" => "attn_q_norm",
        _ => return None,
    };
    let scalar = config["query_pre_attn_scalar"].as_f64()?;
    let layers = config["num_hidden_layers"].as_u64()?;
    let head = match architectures::LARGEST_GEMMA.contains(&layers) {
        true => config["hidden_size"].as_f64()? / config["num_attention_heads"].as_f64()?,
        false => config["head_dim"].as_f64()?,
    };
    Some((part, (head / scalar).sqrt() as f32)).filter(|(_, factor)| (factor - 1.0).abs() > 0.0)
}

/// Makes the entries of an architecture.
struct Keys<'a> {
    architecture: &'static str,
    config: &'a Value,
    entries: Vec<Entry>,
}

impl Keys<'_> {
    fn put(&mut self, key: &str, item: Item) {
        self.entries.push(Entry::new(format!("{}.{key}", self.architecture), item));
    }

    /// A count of the configuration, under another name.
    fn count(&mut self, key: &str, theirs: &str) -> Result<()> {
        let count = self.config[theirs].as_u64().and_then(|count| u32::try_from(count).ok());
        let count = count.ok_or_else(|| refuse(theirs, "it is no count"))?;
        self.put(key, Item::Count(count));
        Ok(())
    }

    /// The same, where there is one.
    fn some_count(&mut self, key: &str, theirs: &str) -> Result<()> {
        if self.config[theirs].is_null() { Ok(()) } else { self.count(key, theirs) }
    }

    /// A number of the configuration, under another name, where there is one.
    fn some_number(&mut self, key: &str, theirs: &str) {
        if let Some(number) = self.config[theirs].as_f64() {
            self.put(key, Item::Number(number as f32));
        }
    }
}

/// The entries that describe a model.
pub(super) fn entries(architecture: &'static Architecture, config: &Value, name: &str) -> Result<Vec<Entry>> {
    let mut keys = Keys { architecture: architecture.name, config, entries: Vec::new() };
    keys.entries.push(Entry::text("general.architecture", architecture.name));
    keys.entries.push(Entry::text("general.type", "model"));
    keys.entries.push(Entry::text("general.name", name));
    keys.entries.push(Entry::new("general.quantization_version", Item::Count(2)));
    // Files without a tokenizer say it nowhere else.
    keys.count("vocab_size", "vocab_size")?;
    match architecture.name {
        "gpt2" => gpt2(&mut keys)?,
        "bert" => bert(&mut keys)?,
        "nomic-bert" => nomic_bert(&mut keys)?,
        "t5" => t5(&mut keys)?,
        _ => decoder(&mut keys)?,
    }
    Ok(keys.entries)
}

fn gpt2(keys: &mut Keys<'_>) -> Result<()> {
    keys.count("embedding_length", "n_embd")?;
    keys.count("block_count", "n_layer")?;
    keys.count("context_length", "n_positions")?;
    keys.count("attention.head_count", "n_head")?;
    let d_ff = match keys.config["n_inner"].as_u64() {
        Some(d_ff) => d_ff,
        None => 4 * keys.config["n_embd"].as_u64().unwrap_or(0),
    };
    keys.put("feed_forward_length", Item::Count(d_ff as u32));
    keys.some_number("attention.layer_norm_epsilon", "layer_norm_epsilon");
    if keys.config["activation_function"].as_str().is_some_and(|name| name != "gelu_new") {
        return Err(refuse("activation_function", "GGUF files of gpt2 have gelu_new"));
    }
    Ok(())
}

fn bert(keys: &mut Keys<'_>) -> Result<()> {
    keys.count("embedding_length", "hidden_size")?;
    keys.count("block_count", "num_hidden_layers")?;
    keys.count("context_length", "max_position_embeddings")?;
    keys.count("attention.head_count", "num_attention_heads")?;
    keys.count("feed_forward_length", "intermediate_size")?;
    keys.some_number("attention.layer_norm_epsilon", "layer_norm_eps");
    reads_whole_texts(keys);
    Ok(())
}

/// What encoders have.
fn reads_whole_texts(keys: &mut Keys<'_>) {
    let types = keys.config["type_vocab_size"].as_u64().unwrap_or(0);
    keys.entries.push(Entry::new("tokenizer.ggml.token_type_count", Item::Count(types as u32)));
    keys.put("attention.causal", Item::Flag(false));
    let pooling = match keys.config["pooling"].as_str() {
        Some("mean") => 1,
        Some("cls") => 2,
        _ => 0,
    };
    keys.put("pooling_type", Item::Count(pooling));
}

fn nomic_bert(keys: &mut Keys<'_>) -> Result<()> {
    let config = keys.config;
    // Its files have one of two spellings.
    let name = |own: &'static str, published: &'static str| if config[own].is_null() { published } else { own };
    for (key, own, published) in [
        ("embedding_length", "hidden_size", "n_embd"),
        ("block_count", "num_hidden_layers", "n_layer"),
        ("context_length", "max_position_embeddings", "n_positions"),
        ("attention.head_count", "num_attention_heads", "n_head"),
        ("feed_forward_length", "intermediate_size", "n_inner"),
    ] {
        keys.count(key, name(own, published))?;
    }
    keys.some_number("attention.layer_norm_epsilon", name("layer_norm_eps", "layer_norm_epsilon"));
    let gate = config[name("hidden_act", "activation_function")].as_str().unwrap_or("silu");
    if !matches!(gate, "silu" | "swiglu") {
        return Err(refuse(
            "activation",
            format!("\"{gate}\" has no form in GGUF files of nomic-bert: they have silu"),
        ));
    }
    let share = config["rotary_emb_fraction"].as_f64().unwrap_or(1.0);
    let kind = config["rope_parameters"]["rope_type"].as_str().unwrap_or("default");
    if share != 1.0 || kind != "default" {
        return Err(refuse("rope_parameters", "GGUF files of nomic-bert have plain rotary positions of whole heads"));
    }
    let theta = config["rope_parameters"]["rope_theta"].as_f64().or(config["rotary_emb_base"].as_f64());
    keys.put("rope.freq_base", Item::Number(theta.unwrap_or(1000.0) as f32));
    reads_whole_texts(keys);
    Ok(())
}

fn t5(keys: &mut Keys<'_>) -> Result<()> {
    keys.count("embedding_length", "d_model")?;
    keys.count("block_count", "num_layers")?;
    keys.some_count("decoder_block_count", "num_decoder_layers")?;
    keys.count("attention.head_count", "num_heads")?;
    keys.count("attention.key_length", "d_kv")?;
    keys.count("attention.value_length", "d_kv")?;
    keys.count("feed_forward_length", "d_ff")?;
    keys.count("attention.relative_buckets_count", "relative_attention_num_buckets")?;
    keys.some_count("decoder_start_token_id", "decoder_start_token_id")?;
    let epsilon = keys.config["layer_norm_epsilon"].as_f64().unwrap_or(1e-6) as f32;
    keys.put("attention.layer_norm_epsilon", Item::Number(epsilon));
    keys.put("attention.layer_norm_rms_epsilon", Item::Number(epsilon));
    keys.put("context_length", Item::Count(512));
    Ok(())
}

fn decoder(keys: &mut Keys<'_>) -> Result<()> {
    keys.count("embedding_length", "hidden_size")?;
    keys.count("block_count", "num_hidden_layers")?;
    keys.count("context_length", "max_position_embeddings")?;
    keys.count("attention.head_count", "num_attention_heads")?;
    keys.count("attention.head_count_kv", "num_key_value_heads")?;
    keys.count("attention.key_length", "head_dim")?;
    keys.count("attention.value_length", "head_dim")?;
    keys.count("feed_forward_length", "intermediate_size")?;
    keys.some_number("attention.layer_norm_rms_epsilon", "rms_norm_eps");
    let activation =
        ["hidden_act", "hidden_activation"].iter().find_map(|key| keys.config[*key].as_str()).unwrap_or("silu");
    let usual = if keys.architecture.starts_with("gemma") { "gelu_pytorch_tanh" } else { "silu" };
    if activation != usual {
        return Err(refuse(
            "hidden_act",
            format!("\"{activation}\" has no form in GGUF files of {}: they have {usual}", keys.architecture),
        ));
    }
    let turned = keys.config["no_rope_layers"].as_array().into_iter().flatten();
    if turned.enumerate().any(|(at, turned)| (*turned == 0) != ((at + 1) % 4 == 0)) {
        return Err(refuse("no_rope_layers", "files have every fourth layer without positions, and no key for others"));
    }
    experts(keys)?;
    windows(keys)?;
    for (key, theirs) in [
        ("attn_logit_softcapping", "attn_logit_softcapping"),
        ("final_logit_softcapping", "final_logit_softcapping"),
        ("embedding_scale", "embedding_multiplier"),
        ("residual_scale", "residual_multiplier"),
        ("attention.scale", "attention_multiplier"),
        ("logit_scale", "logits_scaling"),
        ("attention.clamp_kqv", "clip_qkv"),
    ] {
        keys.some_number(key, theirs);
    }
    rope(keys)
}

fn experts(keys: &mut Keys<'_>) -> Result<()> {
    let count = ["num_experts", "num_local_experts"].into_iter().find(|key| !keys.config[*key].is_null());
    let Some(count) = count else { return Ok(()) };
    if keys.config["mlp_only_layers"].as_array().is_some_and(|layers| !layers.is_empty()) {
        let message =
            format!("files of {} have experts in every layer, and layers of this model have none", keys.architecture);
        return Err(refuse("mlp_only_layers", message));
    }
    keys.count("expert_count", count)?;
    keys.count("expert_used_count", "num_experts_per_tok")?;
    keys.some_count("expert_feed_forward_length", "moe_intermediate_size")?;
    keys.some_count("expert_shared_feed_forward_length", "shared_expert_intermediate_size")?;
    if let Some(divided) = keys.config["norm_topk_prob"].as_bool() {
        // What each family does without the key.
        let usual = matches!(keys.architecture, "llama" | "qwen3moe");
        if divided != usual {
            keys.put("expert_weights_norm", Item::Flag(divided));
        }
    }
    Ok(())
}

fn windows(keys: &mut Keys<'_>) -> Result<()> {
    let used = keys.config["use_sliding_window"].as_bool().unwrap_or(true);
    let Some(window) = keys.config["sliding_window"].as_u64().filter(|_| used) else { return Ok(()) };
    keys.put("attention.sliding_window", Item::Count(window as u32));
    let kinds = keys.config["layer_types"].as_array().cloned().unwrap_or_default();
    let slides: Vec<bool> = kinds.iter().map(|kind| kind == "sliding_attention").collect();
    let usual = match keys.architecture {
        "gemma2" => Some(2),
        "gemma3" => Some(6),
        _ => None,
    };
    let regular =
        usual.is_some_and(|every| slides.iter().enumerate().all(|(at, slides)| *slides == ((at + 1) % every != 0)));
    if slides.contains(&false) && !regular {
        keys.put("attention.sliding_window_pattern", Item::Flags(slides));
    }
    Ok(())
}

/// The rotary positions of all layers, or of those without a window.
fn positions_of(config: &Value) -> &Value {
    let all = &config["rope_parameters"];
    if all["full_attention"].is_null() { all } else { &all["full_attention"] }
}

fn rope(keys: &mut Keys<'_>) -> Result<()> {
    let config = keys.config;
    let parameters = positions_of(config);
    let theta = parameters["rope_theta"].as_f64().or(config["rope_theta"].as_f64()).unwrap_or(10_000.0);
    keys.put("rope.freq_base", Item::Number(theta as f32));
    if let Some(local) = config["rope_parameters"]["sliding_attention"]["rope_theta"].as_f64() {
        keys.put("rope.freq_base_swa", Item::Number(local as f32));
    }
    let head = config["head_dim"].as_u64().unwrap_or(0) as f64;
    let share =
        parameters["partial_rotary_factor"].as_f64().or(config["partial_rotary_factor"].as_f64()).unwrap_or(1.0);
    keys.put("rope.dimension_count", Item::Count((head * share) as u32));
    let number = |key: &str| parameters[key].as_f64().map(|number| number as f32);
    match parameters["rope_type"].as_str().unwrap_or("default") {
        // Their factors are tensors.
        "default" | "llama3" => {}
        "longrope" => {
            if let Some(trained) = parameters["original_max_position_embeddings"].as_u64() {
                keys.put("rope.scaling.original_context_length", Item::Count(trained as u32));
            }
            keys.put("rope.scaling.attn_factor", Item::Number(number("attention_factor").unwrap_or(1.0)));
        }
        kind @ ("linear" | "yarn") => {
            keys.put("rope.scaling.type", Item::Text(kind.to_owned()));
            let factor = number("factor").unwrap_or(1.0);
            keys.put("rope.scaling.factor", Item::Number(factor));
            if kind == "yarn" {
                let trained = parameters["original_max_position_embeddings"].as_u64().unwrap_or(0);
                keys.put("rope.scaling.original_context_length", Item::Count(trained as u32));
                let usual = 1.0 + 0.1 * factor.max(1.0).ln();
                let attention = number("attention_factor").unwrap_or(usual) / usual;
                keys.put("rope.scaling.yarn_attn_factor", Item::Number(attention));
                keys.put("rope.scaling.yarn_beta_fast", Item::Number(number("beta_fast").unwrap_or(32.0)));
                keys.put("rope.scaling.yarn_beta_slow", Item::Number(number("beta_slow").unwrap_or(1.0)));
            }
        }
        other => return Err(refuse("rope_type", format!("\"{other}\" has no form in GGUF"))),
    }
    Ok(())
}

/// The factors of rotary positions that files have as tensors.
pub(super) fn positions(config: &Value) -> Vec<(String, Vec<f32>)> {
    let parameters = positions_of(config);
    let list = |key: &str| -> Vec<f32> {
        let numbers = parameters[key].as_array().into_iter().flatten();
        numbers.filter_map(Value::as_f64).map(|number| number as f32).collect()
    };
    match parameters["rope_type"].as_str() {
        Some("longrope") => vec![
            ("rope_factors_long.weight".into(), list("long_factor")),
            ("rope_factors_short.weight".into(), list("short_factor")),
        ],
        Some("llama3") => vec![("rope_freqs.weight".into(), llama3(config, parameters))],
        _ => Vec::new(),
    }
}

/// What Llama 3.1's settings divide the frequency of each pair by.
fn llama3(config: &Value, parameters: &Value) -> Vec<f32> {
    let number = |key: &str, usual: f64| parameters[key].as_f64().unwrap_or(usual);
    let (factor, low, high) = (number("factor", 8.0), number("low_freq_factor", 1.0), number("high_freq_factor", 4.0));
    let (original, theta) = (number("original_max_position_embeddings", 8192.0), number("rope_theta", 500_000.0));
    let head = config["head_dim"].as_u64().unwrap_or(0);
    let of = |pair: u64| {
        let turns = original / (std::f64::consts::TAU * theta.powf(2.0 * pair as f64 / head as f64));
        let kept = ((turns - low) / (high - low)).clamp(0.0, 1.0);
        (1.0 / ((1.0 - kept) / factor + kept)) as f32
    };
    (0..head / 2).map(of).collect()
}
