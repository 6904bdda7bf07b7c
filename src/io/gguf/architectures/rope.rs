//! Rotary positions, as the `rope_parameters` of a `config.json`.

use super::super::source::Source;
use super::decoder::context;
use crate::error::Result;
use serde_json::{Value, json};

const FACTORS: &str = "rope_freqs.weight";
const LONG: &str = "rope_factors_long.weight";
const SHORT: &str = "rope_factors_short.weight";
/// Tensors that are read here, and are none of the model's.
pub(in super::super) const TENSORS: [&str; 3] = [FACTORS, LONG, SHORT];
/// The frequency factors of rotary positions in Llama 3.1 and later; files hold only the result.
const LLAMA3: (f64, f64, f64) = (1.0, 4.0, 8192.0);
/// Keys that say something with YaRN alone.
const OF_YARN: [&str; 6] = [
    "rope.scaling.original_context_length",
    "rope.scaling.yarn_ext_factor",
    "rope.scaling.yarn_attn_factor",
    "rope.scaling.yarn_beta_fast",
    "rope.scaling.yarn_beta_slow",
    "rope.scaling.yarn_log_multiplier",
];

fn theta(source: &Source<'_>) -> Result<f64> {
    Ok(source.number("rope.freq_base")?.unwrap_or(10000.0))
}

/// How far positions are stretched, and how.
fn scaling<'a>(source: &'a Source<'_>) -> Result<(Option<&'a str>, Option<f64>)> {
    let factor = source.number("rope.scaling.factor")?;
    let linear = source.number("rope.scale_linear")?;
    Ok((source.text("rope.scaling.type")?, factor.or(linear).filter(|factor| *factor != 0.0)))
}

/// Plain, scaled linearly, by YaRN, or with the file's factor for each pair of a head.
pub(super) fn parameters(source: &Source<'_>, head: u64) -> Result<Value> {
    let theta = theta(source)?;
    let (kind, factor) = scaling(source)?;
    source.only("rope.scaling.alpha", &[0.0, 1.0])?;
    if kind != Some("yarn") {
        source.only("rope.scaling.attn_factor", &[0.0, 1.0])?;
        OF_YARN.iter().for_each(|key| source.leave(key));
    }
    let plain = match (kind, factor) {
        (Some("none"), _) | (None, None) => json!({"rope_type": "default", "rope_theta": theta}),
        (Some("linear") | None, Some(factor)) => json!({"rope_type": "linear", "rope_theta": theta, "factor": factor}),
        (Some("yarn"), Some(factor)) => yarn(source, theta, factor)?,
        (Some("linear" | "yarn"), None) => return Err(source.refuse("rope.scaling.factor", "is missing")),
        (Some(other), _) => {
            let message = format!("is \"{other}\", which is not read here; none, linear and yarn are");
            return Err(source.refuse("rope.scaling.type", message));
        }
    };
    let Some(factors) = source.values(FACTORS)? else { return Ok(plain) };
    if plain["rope_type"] == "yarn" {
        return Err(source
            .damaged(format!("has tensor {FACTORS:?} and stretches positions by yarn as well; one of them is read")));
    }
    check_factors(source, FACTORS, &factors, head)?;
    let stretched = plain["factor"].as_f64().unwrap_or(1.0);
    if let Some(llama3) = llama3(&factors, theta, head).filter(|_| stretched == 1.0) {
        return Ok(llama3);
    }
    // What LongRoPE does with one list of factors for all lengths.
    let factors: Vec<f64> = factors.iter().map(|factor| f64::from(*factor) * stretched).collect();
    Ok(json!({"rope_type": "longrope", "rope_theta": theta, "short_factor": factors, "long_factor": factors,
              "attention_factor": 1.0, "factor": 1.0, "original_max_position_embeddings": context(source)?}))
}

fn check_factors(source: &Source<'_>, name: &str, factors: &[f32], turned: u64) -> Result<()> {
    if factors.len() as u64 * 2 == turned && factors.iter().all(|factor| *factor > 0.0 && factor.is_finite()) {
        return Ok(());
    }
    let message = format!("tensor {name:?} needs {} positive numbers, one for each pair of a head", turned / 2);
    Err(source.damaged(message))
}

/// LongRoPE (Ding et al., arXiv 2402.13753), or plain.
pub(super) fn long(source: &Source<'_>, turned: u64) -> Result<Value> {
    let theta = theta(source)?;
    let attention = source.number("rope.scaling.attn_factor")?.unwrap_or(1.0);
    let (kind, factor) = scaling(source)?;
    let (Some(short), Some(long)) = (source.values(SHORT)?, source.values(LONG)?) else {
        return match (kind, factor) {
            (None | Some("none"), None | Some(1.0)) if attention == 1.0 => {
                Ok(json!({"rope_type": "default", "rope_theta": theta}))
            }
            (kind, _) => {
                let message = format!(
                    "is \"{}\"; without tensors {SHORT:?} and {LONG:?} positions that are stretched are not read here",
                    kind.unwrap_or("linear")
                );
                Err(source.refuse("rope.scaling.type", message))
            }
        };
    };
    check_factors(source, SHORT, &short, turned)?;
    check_factors(source, LONG, &long, turned)?;
    Ok(
        json!({"rope_type": "longrope", "rope_theta": theta, "short_factor": short, "long_factor": long, "attention_factor": attention}),
    )
}

/// YaRN by the keys of a file, with llama.cpp's defaults.
fn yarn(source: &Source<'_>, theta: f64, factor: f64) -> Result<Value> {
    let number = |key: &str| source.number(&format!("rope.scaling.{key}"));
    let original = match source.count("rope.scaling.original_context_length")? {
        Some(original) => original,
        None => context(source)?,
    };
    source.only("rope.scaling.yarn_ext_factor", &[-1.0, 1.0])?;
    source.only("rope.scaling.yarn_log_multiplier", &[0.0])?;
    // Cosines and sines are multiplied by this; a file may have a further factor.
    let attention = number("attn_factor")?.or(number("yarn_attn_factor")?).unwrap_or(1.0);
    Ok(json!({
        "rope_type": "yarn", "rope_theta": theta, "factor": factor, "original_max_position_embeddings": original,
        "attention_factor": attention * (1.0 + 0.1 * factor.max(1.0).ln()),
        "beta_fast": number("yarn_beta_fast")?.unwrap_or(32.0), "beta_slow": number("yarn_beta_slow")?.unwrap_or(1.0),
    }))
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
    factors.iter().enumerate().all(close).then(|| {
        json!({"rope_type": "llama3", "rope_theta": theta, "factor": factor, "low_freq_factor": low,
               "high_freq_factor": high, "original_max_position_embeddings": original as u64})
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn factors_of_llama_3_are_recognised() {
        // A head of 8 with theta 500000 and factor 8: the second pair rotates 8192 / (2 pi 26.6) = 49 times, the third 1.8 times.
        let kept = (8192.0 / (std::f64::consts::TAU * 500_000.0_f64.powf(0.5)) - 1.0) / 3.0;
        let third = 1.0 / ((1.0 - kept) / 8.0 + kept);
        let value = llama3(&[1.0, 1.0, third as f32, 8.0], 500_000.0, 8).unwrap_or_default();
        assert_eq!((value["rope_type"].as_str(), value["factor"].as_f64()), (Some("llama3"), Some(8.0)));
        assert!(llama3(&[1.0, 1.0, 2.0, 8.0], 500_000.0, 8).is_none());
    }
}
