//! Rotary positions in a `config.json`.

use super::settings::{json_f32, optional_count, positive_number};
use crate::error::Result;
use crate::io::Config;
use crate::ops::{RopeOptions, RopeScaling};
use serde_json::{Value, json};

/// What a family calls its rotary positions beside `rope_scaling` and `rope_parameters`, and what it takes of them.
#[derive(Clone, Copy, Debug)]
pub(super) struct RopeKeys {
    /// The key of the base, and the base without it.
    pub theta: (&'static str, f32),
    /// The key of the share of a head that is rotated, and the share without it. None: heads are rotated as a whole.
    pub share: Option<(&'static str, f64)>,
    /// The trained length, where a key of the model goes before that of the rotary positions. Such families know LongRoPE alone.
    pub trained: Option<usize>,
}

/// The rotary positions of a family that rotates whole heads: the older `rope_scaling`, which goes first as in transformers, or
/// `rope_parameters`, or only `rope_theta`.
pub(super) fn rope_options(config: &Config, max_positions: usize, theta: f32) -> Result<RopeOptions> {
    rope_with(config, RopeKeys { theta: ("rope_theta", theta), share: None, trained: None }, [0, max_positions])
}

/// The same with a family's keys, for heads of so many elements and so many positions.
pub(super) fn rope_with(config: &Config, keys: RopeKeys, [head_dim, max_positions]: [usize; 2]) -> Result<RopeOptions> {
    let theta = positive_number(config, keys.theta.0, keys.theta.1)?;
    let mut options = RopeOptions { theta, max_positions, ..Default::default() };
    let scaling = config.section("rope_scaling")?.filter(|inner| *inner.value() != json!({}));
    let inner = match scaling {
        Some(inner) => Some(inner),
        None => config.section("rope_parameters")?,
    };
    match keys.share {
        None => [Some(config), inner.as_ref()].into_iter().flatten().try_for_each(must_be_whole)?,
        Some((key, share)) => options.rotary_dim = rotated(config, inner.as_ref(), (key, share), head_dim)?,
    }
    let Some(inner) = inner else { return Ok(options) };
    options.theta = positive_number(&inner, "rope_theta", theta)?;
    let needed = |key: &str| match inner.has(key) {
        true => positive_number(&inner, key, 1.0),
        false => Err(inner.refuse(key, "is missing, and this rope_type needs it")),
    };
    // Before transformers 4.43 the key was `type`.
    let kind: String = inner.get_or("rope_type", inner.get_or("type", "default".to_owned())?)?;
    let kind = match (kind.as_str(), keys.trained) {
        // LongRoPE's older names.
        ("su" | "yarn", Some(_)) => "longrope",
        (kind, _) => kind,
    };
    let trained = || match keys.trained {
        Some(length) => Ok(length),
        None => Ok(optional_count(&inner, "original_max_position_embeddings")?.unwrap_or(max_positions)),
    };
    options.scaling = match (kind, keys.trained) {
        ("default", _) => RopeScaling::None,
        ("longrope", _) => long(&inner, options.rotated(head_dim).len() / 2, [trained()?, max_positions])?,
        (_, Some(_)) => {
            return Err(inner.refuse("rope_type", format!("is \"{kind}\"; supported are default and longrope")));
        }
        ("linear", _) => RopeScaling::Linear { factor: needed("factor")? },
        ("llama3", _) => RopeScaling::Llama3 {
            factor: needed("factor")?,
            low_freq_factor: needed("low_freq_factor")?,
            high_freq_factor: needed("high_freq_factor")?,
            original_max_position: trained()?,
        },
        ("dynamic", _) => RopeScaling::Dynamic { factor: needed("factor")? },
        ("yarn", _) => yarn(&inner, max_positions)?,
        _ => {
            let message = format!("is \"{kind}\"; supported are default, linear, dynamic, yarn, longrope and llama3");
            return Err(inner.refuse("rope_type", message));
        }
    };
    Ok(options)
}

/// How many elements of a head are rotated, rounded down as PyTorch does; none: all.
fn rotated(
    config: &Config,
    inner: Option<&Config>,
    (key, default): (&str, f64),
    head_dim: usize,
) -> Result<Option<usize>> {
    const KEY: &str = "partial_rotary_factor";
    let (of, key) = match inner.filter(|inner| inner.has(KEY)) {
        Some(inner) => (inner, KEY),
        None => (config, key),
    };
    let share: f64 = of.get_or(key, default)?;
    let count = (head_dim as f64 * share) as usize;
    if !(share <= 1.0) || count == 0 || count.next_multiple_of(2) > head_dim {
        let message = format!(
            "is {share}, which can't be rotated of heads of {head_dim}: at least 1 element and at most 1 of the head, in pairs"
        );
        return Err(of.refuse(key, message));
    }
    Ok((count < head_dim).then_some(count))
}

/// LongRoPE's, for so many pairs.
fn long(config: &Config, pairs: usize, [original_max_position, max_positions]: [usize; 2]) -> Result<RopeScaling> {
    let factors = |key: &str| {
        let factors: Vec<f32> = config.get(key)?;
        if pairs > 0 && factors.len() != pairs {
            return Err(config.refuse(key, format!("has {} factors; there are {pairs} pairs", factors.len())));
        }
        match factors.iter().all(|factor| *factor > 0.0 && factor.is_finite()) {
            true => Ok(factors.into()),
            false => Err(config.refuse(key, "needs positive numbers")),
        }
    };
    let ratio = max_positions as f32 / original_max_position as f32;
    let factor = f64::from(positive_number(config, "factor", ratio)?);
    Ok(RopeScaling::Long {
        short: factors("short_factor")?,
        long: factors("long_factor")?,
        attention: positive_number(config, "attention_factor", long_attention(factor, original_max_position))?,
        original_max_position,
    })
}

/// What LongRoPE multiplies cosines and sines by, unless a file says otherwise.
fn long_attention(factor: f64, original_max_position: usize) -> f32 {
    match factor <= 1.0 {
        true => 1.0,
        false => (1.0 + factor.ln() / (original_max_position as f64).ln()).sqrt() as f32,
    }
}

/// LongRoPE as Phi-3's files had it before transformers 5, which took these keys alone; an attention factor of its own needs the others.
pub(super) fn older_long(rope: &RopeOptions, max_positions: usize) -> Value {
    let all = rope_config(rope);
    let RopeScaling::Long { attention, original_max_position, .. } = rope.scaling else { return all };
    let ratio = f64::from(max_positions as f32 / original_max_position as f32);
    if (attention - long_attention(ratio, original_max_position)).abs() > 0.0 {
        return all;
    }
    json!({"type": "longrope", "short_factor": all["short_factor"], "long_factor": all["long_factor"]})
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

/// The share of a head of so many elements that is rotated, such that a reader counts as many.
pub(super) fn rotary_share(rope: &RopeOptions, head_dim: usize) -> f64 {
    let Some(count) = rope.rotary_dim else { return 1.0 };
    let share = count as f64 / head_dim as f64;
    if ((head_dim as f64 * share) as usize) < count { share.next_up() } else { share }
}

pub(super) fn rope_config(rope: &RopeOptions) -> Value {
    let theta = json_f32(rope.theta);
    match rope.scaling {
        RopeScaling::Long { ref short, ref long, attention, original_max_position } => {
            let numbers = |factors: &[f32]| factors.iter().map(|factor| json_f32(*factor)).collect::<Vec<f64>>();
            json!({
                "rope_type": "longrope",
                "rope_theta": theta,
                "short_factor": numbers(short),
                "long_factor": numbers(long),
                "attention_factor": json_f32(attention),
                "original_max_position_embeddings": original_max_position,
            })
        }
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
