//! Readers of `config.json` keys for model families, with errors that name the key and say what is supported.

use super::PADDING;
use crate::error::Result;
use crate::io::Config;
use crate::ops::Activation;

/// Kernels count in 32 bits.
const LARGEST: usize = u32::MAX as usize;
/// Each layer is nodes of a graph: more than any model has, and few enough to build.
const MOST_LAYERS: usize = 4096;
/// Each part of a model that has weights of its own.
const MOST_PARTS: usize = 1 << 16;

/// A count that must be there and be positive.
///
/// # Errors
/// [`Error::Format`](crate::Error::Format) that names the key.
pub(crate) fn count(config: &Config, key: &str) -> Result<usize> {
    within(config, key, config.get(key)?, LARGEST)
}

/// A count that must be positive if it is there.
///
/// # Errors
/// As [`count`].
pub(crate) fn optional_count(config: &Config, key: &str) -> Result<Option<usize>> {
    config.optional(key)?.map(|count| within(config, key, count, LARGEST)).transpose()
}

/// A number of layers.
///
/// # Errors
/// As [`count`]; and if there are more than any model has.
pub(crate) fn layer_count(config: &Config, key: &str) -> Result<usize> {
    within(config, key, config.get(key)?, MOST_LAYERS)
}

/// A number of parts with weights of their own: experts, modules.
///
/// # Errors
/// As [`layer_count`].
pub(crate) fn part_count(config: &Config, key: &str) -> Result<usize> {
    within(config, key, config.get(key)?, MOST_PARTS)
}

fn within(config: &Config, key: &str, count: usize, most: usize) -> Result<usize> {
    match count {
        0 => Err(config.refuse(key, "is 0; at least 1 is needed")),
        _ if count > most => Err(config.refuse(key, format!("is {count}; at most {most} is supported"))),
        _ => Ok(count),
    }
}

/// The token of padding, whose row of a table of so many words learns nothing from being looked up; what `default` says without the key.
/// Negative ids count from behind the last word, as in PyTorch; an id that is no word has no row.
///
/// # Errors
/// As [`count`], if it is no whole number.
pub(crate) fn padding(config: &Config, vocabulary: usize, default: Option<u32>) -> Result<Option<u32>> {
    let id = match config.value().get(PADDING) {
        None => default.map(i64::from),
        Some(_) => config.optional::<i64>(PADDING)?,
    };
    let id = id.map(|id| if id < 0 { id.saturating_add_unsigned(vocabulary as u64) } else { id });
    Ok(id.and_then(|id| u32::try_from(id).ok()).filter(|id| (*id as usize) < vocabulary))
}

/// A rate of dropout, or 0.
///
/// # Errors
/// As [`count`].
pub(crate) fn rate(config: &Config, key: &str) -> Result<f32> {
    rate_or(config, key, 0.0)
}

/// A rate of dropout, or its default.
///
/// # Errors
/// As [`count`].
pub(crate) fn rate_or(config: &Config, key: &str, default: f32) -> Result<f32> {
    let rate: f32 = config.get_or(key, default)?;
    match (0.0..1.0).contains(&rate) {
        true => Ok(rate),
        false => Err(config.refuse(key, format!("is {rate}; a rate from 0 up to, but not, 1 is needed"))),
    }
}

/// A positive number, or its default.
///
/// # Errors
/// As [`count`].
pub(crate) fn positive_number(config: &Config, key: &str, default: f32) -> Result<f32> {
    let number: f32 = config.get_or(key, default)?;
    match number > 0.0 && number.is_finite() {
        true => Ok(number),
        false => Err(config.refuse(key, format!("is {number}; a positive number is needed"))),
    }
}

/// An activation under one of the names that Hugging Face gives it.
///
/// # Errors
/// As [`count`], listing the activations there are.
pub(crate) fn activation(config: &Config, key: &str, default: &str) -> Result<Activation> {
    activation_of(config, key, &config.get_or(key, default.to_owned())?)
}

/// The activation of that name, which the value of a key has in it.
///
/// # Errors
/// As [`activation`].
pub(crate) fn activation_of(config: &Config, key: &str, name: &str) -> Result<Activation> {
    match name {
        "relu" => Ok(Activation::Relu),
        "gelu_new" | "gelu_pytorch_tanh" | "gelu_fast" => Ok(Activation::GeluTanh),
        "gelu" | "gelu_python" => Ok(Activation::GeluErf),
        "silu" | "swish" => Ok(Activation::Silu),
        "tanh" => Ok(Activation::Tanh),
        "sigmoid" => Ok(Activation::Sigmoid),
        _ => {
            let names = "relu, gelu_new, gelu_pytorch_tanh, gelu_fast, gelu, gelu_python, silu, swish, tanh, sigmoid";
            Err(config.refuse(key, format!("is \"{name}\"; supported are {names}")))
        }
    }
}

/// The name that Hugging Face gives an activation.
#[must_use]
pub(crate) fn activation_name(activation: Activation) -> &'static str {
    match activation {
        Activation::Relu => "relu",
        Activation::GeluTanh => "gelu_new",
        Activation::GeluErf => "gelu",
        Activation::Silu => "silu",
        Activation::Tanh => "tanh",
        Activation::Sigmoid => "sigmoid",
    }
}

/// Refuses a flag that is on: what it asks for is not built.
///
/// # Errors
/// As [`count`].
pub(crate) fn reject_if_true(config: &Config, key: &str) -> Result<()> {
    if config.get_or(key, false)? { Err(config.refuse(key, "is true; only false is supported")) } else { Ok(()) }
}

/// Refuses a number that does not divide another.
///
/// # Errors
/// As [`count`].
pub(crate) fn must_divide(config: &Config, key: &str, number: usize, whole: usize, of: &str) -> Result<()> {
    if whole.is_multiple_of(number) {
        return Ok(());
    }
    Err(config.refuse(key, format!("is {number}; it must divide {of}, which is {whole}")))
}

/// An f32 as the shortest decimal number that reads back as the same f32, so that a config says 1e-5 and not
/// 9.999999747378752e-6.
#[must_use]
pub(crate) fn json_f32(value: f32) -> f64 {
    value.to_string().parse().unwrap_or_else(|_| f64::from(value))
}
