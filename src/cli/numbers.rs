//! Parses values of options; errors say what is allowed.

/// Parses an integer in a range.
fn whole<T: std::str::FromStr + PartialOrd + std::fmt::Display>(text: &str, least: T, most: T) -> Result<T, String> {
    match text.parse() {
        Ok(value) if value >= least && value <= most => Ok(value),
        _ => Err(format!("it must be a whole number, {least} to {most}")),
    }
}

/// Parses a number that fulfils a condition.
fn number<T: std::str::FromStr + Copy>(text: &str, fits: impl Fn(T) -> bool, allowed: &str) -> Result<T, String> {
    text.parse().ok().filter(|&value| fits(value)).ok_or_else(|| format!("it must be {allowed}"))
}

/// Sizes and counts.
pub(super) fn positive(text: &str) -> Result<usize, String> {
    whole(text, 1, 1 << 40)
}

pub(super) fn count(text: &str) -> Result<u64, String> {
    whole(text, 0, u64::MAX)
}

pub(super) fn count_from_1(text: &str) -> Result<u64, String> {
    whole(text, 1, u64::MAX)
}

pub(super) fn small_count_from_1(text: &str) -> Result<u32, String> {
    whole(text, 1, u32::MAX)
}

/// Probabilities of dropping.
pub(super) fn rate(text: &str) -> Result<f64, String> {
    number(text, |rate: f64| (0.0..1.0).contains(&rate), "a number from 0 (inclusive) to 1 (exclusive)")
}

pub(super) fn share(text: &str) -> Result<f64, String> {
    number(text, |share: f64| (0.0..=1.0).contains(&share), "a number from 0 to 1")
}

pub(super) fn layer_decay(text: &str) -> Result<f64, String> {
    number(text, |share: f64| share > 0.0 && share <= 1.0, "a number greater than 0, up to 1")
}

pub(super) fn not_negative(text: &str) -> Result<f64, String> {
    number(text, |value: f64| value >= 0.0 && value.is_finite(), "a number, 0 or more")
}

pub(super) fn learning_rate(text: &str) -> Result<f64, String> {
    let allowed = "a learning rate: a number, 0 or more";
    number(text, |value: f64| value >= 0.0 && value.is_finite(), allowed)
}

pub(super) fn minutes(text: &str) -> Result<f64, String> {
    number(text, |minutes: f64| minutes > 0.0 && minutes.is_finite(), "a number greater than 0")
}

/// A finite number above 0.
pub(super) fn ratio(text: &str) -> Result<f64, String> {
    number(text, |value: f64| value > 0.0 && value.is_finite(), "a number greater than 0")
}

pub(super) fn temperature(text: &str) -> Result<f32, String> {
    number(text, |value: f32| value >= 0.0 && value.is_finite(), "a number: 0 (the most likely token) or more")
}

pub(super) fn beams(text: &str) -> Result<usize, String> {
    whole(text, 1, crate::ops::MAX_BEAMS)
}

pub(super) fn length_penalty(text: &str) -> Result<f64, String> {
    number(text, |value: f64| value.is_finite(), "a number")
}

pub(super) fn ngram(text: &str) -> Result<usize, String> {
    whole(text, 0, 1 << 40)
}

pub(super) fn top_k(text: &str) -> Result<usize, String> {
    whole(text, 0, 1 << 40).map_err(|e| format!("{e} (0: all)"))
}

pub(super) fn top_p(text: &str) -> Result<f32, String> {
    number(text, |value: f32| value > 0.0 && value <= 1.0, "a number greater than 0, up to 1 (all)")
}

pub(super) fn min_p(text: &str) -> Result<f32, String> {
    number(text, |value: f32| (0.0..=1.0).contains(&value), "a number from 0 (all) to 1")
}

pub(super) fn penalty(text: &str) -> Result<f32, String> {
    number(text, |value: f32| value > 0.0 && value.is_finite(), "a number greater than 0; 1 changes nothing")
}

pub(super) fn stop(text: &str) -> Result<String, String> {
    if text.is_empty() { Err("it is empty: give the text to stop at".into()) } else { Ok(text.into()) }
}
