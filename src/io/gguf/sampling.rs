//! The sampling settings of a file, under the names of `generation_config.json`.

use super::metadata::Metadata;
use super::reader::Value;
use crate::error::Result;
use serde_json::{Map, json};

const KEY: &str = "general.sampling.";

/// The settings of the metadata: supported ones under the names of `generation_config.json`, others that have an effect under their own.
pub(super) fn generation(metadata: &Metadata<'_>) -> Result<Option<serde_json::Value>> {
    let number = |key: &str| metadata.number(&format!("{KEY}{key}"));
    let mut found = Map::new();
    // 0 or less means "off" in these files.
    if let Some(temperature) = number("temp")? {
        found.insert("temperature".into(), json!(temperature.max(0.0)));
    }
    if let Some(top_k) = number("top_k")? {
        found.insert("top_k".into(), json!(top_k.max(0.0) as u64));
    }
    for (theirs, ours) in [("top_p", "top_p"), ("min_p", "min_p")] {
        if let Some(value) = number(theirs)? {
            found.insert(ours.into(), json!(value));
        }
    }
    // The number of tokens that the penalty covers: none, all (-1), or the last ones, which is not supported.
    let last = number("penalty_last_n")?;
    if let Some(penalty) = number("penalty_repeat")?.filter(|_| last != Some(0.0)) {
        found.insert("repetition_penalty".into(), json!(penalty));
        if let Some(last) = last.filter(|last| *last > 0.0 && penalty != 1.0) {
            found.insert(format!("{KEY}penalty_last_n"), json!(last));
        }
    }
    for key in ["xtc_probability", "mirostat"] {
        if let Some(value) = number(key)?.filter(|value| *value > 0.0) {
            found.insert(format!("{KEY}{key}"), json!(value));
        }
    }
    let order = format!("{KEY}sequence");
    if matches!(metadata.values.get(order.as_str()), Some(Value::Text(_))) {
        let text = metadata.text(&order)?;
        found.insert(order, json!(text));
    }
    Ok((!found.is_empty()).then_some(found.into()))
}
