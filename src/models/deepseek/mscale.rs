//! The factor of scores that goes with YaRN.

use crate::error::Result;
use crate::io::Config;
use crate::ops::{RopeOptions, RopeScaling};
use serde_json::json;

/// YaRN's `mscale_all_dim`, by which scores grow.
pub(super) fn score_mscale(config: &Config, rope: &RopeOptions) -> Result<f32> {
    const KEY: &str = "mscale_all_dim";
    if rope.scaling == RopeScaling::None {
        return Ok(0.0);
    }
    let older = config.section("rope_scaling")?.filter(|inner| *inner.value() != json!({}));
    let Some(inner) = older.map_or_else(|| config.section("rope_parameters"), |inner| Ok(Some(inner)))? else {
        return Ok(0.0);
    };
    let number: f32 = inner.get_or(KEY, 0.0)?;
    match number >= 0.0 && number.is_finite() {
        true if number > 0.0 && matches!(rope.scaling, RopeScaling::Long { .. }) => {
            Err(inner.refuse(KEY, "goes with a factor, which longrope does not have"))
        }
        true => Ok(number),
        false => Err(inner.refuse(KEY, format!("is {number}; 0 or a positive number is needed"))),
    }
}
