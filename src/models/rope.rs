//! Rotary positions in a `config.json`.

use super::settings::{count, json_f32, optional_count, positive_number};
use crate::error::Result;
use crate::io::Config;
use crate::ops::{RopeOptions, RopeScaling};
use serde_json::{Value, json};

/// The older `rope_scaling`, which goes first as in transformers, or `rope_parameters`, or only `rope_theta`.
pub(super) fn rope_options(config: &Config, max_positions: usize, theta: f32) -> Result<RopeOptions> {
    must_be_whole(config)?;
    let theta = positive_number(config, "rope_theta", theta)?;
    let mut options = RopeOptions { theta, max_positions, ..Default::default() };
    let scaling = config.section("rope_scaling")?.filter(|inner| *inner.value() != json!({}));
    let inner = match scaling {
        Some(inner) => inner,
        None => match config.section("rope_parameters")? {
            Some(inner) => inner,
            None => return Ok(options),
        },
    };
    must_be_whole(&inner)?;
    options.theta = positive_number(&inner, "rope_theta", theta)?;
    let needed = |key: &str| match inner.has(key) {
        true => positive_number(&inner, key, 1.0),
        false => Err(inner.refuse(key, "is missing, and this rope_type needs it")),
    };
    // Before transformers 4.43 the key was `type`.
    let kind = inner.get_or("rope_type", inner.get_or("type", "default".to_owned())?)?;
    options.scaling = match kind.as_str() {
        "default" => RopeScaling::None,
        "linear" => RopeScaling::Linear { factor: needed("factor")? },
        "llama3" => RopeScaling::Llama3 {
            factor: needed("factor")?,
            low_freq_factor: needed("low_freq_factor")?,
            high_freq_factor: needed("high_freq_factor")?,
            original_max_position: count(&inner, "original_max_position_embeddings")?,
        },
        "dynamic" => RopeScaling::Dynamic { factor: needed("factor")? },
        "yarn" => yarn(&inner, max_positions)?,
        _ => {
            let message = format!("is \"{kind}\"; supported are default, linear, dynamic, yarn and llama3");
            return Err(inner.refuse("rope_type", message));
        }
    };
    Ok(options)
}

/// YaRN's, the defaults being transformers'.
fn yarn(config: &Config, max_positions: usize) -> Result<RopeScaling> {
    let original_max_position = optional_count(config, "original_max_position_embeddings")?.unwrap_or(max_positions);
    let factor = positive_number(config, "factor", max_positions as f32 / original_max_position as f32)?;
    let scale = |by: f64| if factor <= 1.0 { 1.0 } else { 0.1 * by * f64::from(factor).ln() + 1.0 };
    let given = |key: &str| config.get_or(key, 0.0_f64);
    let (over, under) = (given("mscale")?, given("mscale_all_dim")?);
    let attention = if over != 0.0 && under != 0.0 { scale(over) / scale(under) } else { scale(1.0) };
    Ok(RopeScaling::Yarn {
        factor,
        fast: positive_number(config, "beta_fast", 32.0)?,
        slow: positive_number(config, "beta_slow", 1.0)?,
        whole: config.get_or("truncate", true)?,
        attention: positive_number(config, "attention_factor", attention as f32)?,
        original_max_position,
    })
}

/// Refuses heads of which only a part is turned.
fn must_be_whole(config: &Config) -> Result<()> {
    match config.get_or("partial_rotary_factor", 1.0)? == 1.0 {
        true => Ok(()),
        false => Err(config.refuse("partial_rotary_factor", "is not 1; only 1 is supported")),
    }
}

pub(super) fn rope_config(rope: &RopeOptions) -> Value {
    let theta = json_f32(rope.theta);
    match rope.scaling {
        RopeScaling::None => json!({"rope_type": "default", "rope_theta": theta}),
        RopeScaling::Linear { factor } => {
            json!({"rope_type": "linear", "rope_theta": theta, "factor": json_f32(factor)})
        }
        RopeScaling::Dynamic { factor } => {
            json!({"rope_type": "dynamic", "rope_theta": theta, "factor": json_f32(factor)})
        }
        RopeScaling::Yarn { factor, fast, slow, whole, attention, original_max_position } => json!({
            "rope_type": "yarn",
            "rope_theta": theta,
            "factor": json_f32(factor),
            "beta_fast": json_f32(fast),
            "beta_slow": json_f32(slow),
            "truncate": whole,
            "attention_factor": json_f32(attention),
            "original_max_position_embeddings": original_max_position,
        }),
        RopeScaling::Llama3 { factor, low_freq_factor, high_freq_factor, original_max_position } => json!({
            "rope_type": "llama3",
            "rope_theta": theta,
            "factor": json_f32(factor),
            "low_freq_factor": json_f32(low_freq_factor),
            "high_freq_factor": json_f32(high_freq_factor),
            "original_max_position_embeddings": original_max_position,
        }),
    }
}
