//! The heads of encoders, by the class that `architectures` names.

use super::EncoderHead;
use super::settings::part_count;
use crate::error::Result;
use crate::io::Config;
use serde_json::{Map, Value, json};

/// Heads by the ends of classes' names.
pub(super) type HeadKinds = &'static [(&'static str, EncoderHead)];

/// The head of a model of the family whose classes begin with `family` and end as `kinds` says; without `architectures` there is none.
pub(super) fn head(config: &Config, family: &str, kinds: HeadKinds) -> Result<EncoderHead> {
    const KEY: &str = "architectures";
    let classes: Vec<String> = config.get_or(KEY, Vec::new())?;
    let Some(class) = classes.first() else { return Ok(EncoderHead::None) };
    let end = class.strip_prefix(family);
    let Some((_, kind)) = kinds.iter().find(|(known, _)| end == Some(known)) else {
        let ends: Vec<&str> = kinds.iter().map(|(end, _)| *end).collect();
        let (last, front) = ends.split_last().map_or(("", String::new()), |(last, front)| (*last, front.join(", ")));
        let message = format!("is \"{class}\"; supported are {family} with {front} and {last} behind it");
        return Err(config.refuse(KEY, message));
    };
    Ok(match kind {
        EncoderHead::SequenceClassification { .. } => {
            problem_type(config)?;
            EncoderHead::SequenceClassification { labels: labels(config)? }
        }
        EncoderHead::TokenClassification { .. } => EncoderHead::TokenClassification { labels: labels(config)? },
        kind => *kind,
    })
}

/// The class of a head.
pub(super) fn class(family: &str, head: EncoderHead, kinds: HeadKinds) -> String {
    let same = |kind: EncoderHead| std::mem::discriminant(&kind) == std::mem::discriminant(&head);
    let end = kinds.iter().find(|(_, kind)| same(*kind)).map_or("Model", |(end, _)| *end);
    format!("{family}{end}")
}

/// Adds the names of classes, unless the config has them from the file it was read from.
pub(super) fn write(head: EncoderHead, config: &mut Value) {
    let (EncoderHead::SequenceClassification { labels } | EncoderHead::TokenClassification { labels }) = head else {
        return;
    };
    let names: Map<String, Value> =
        (0..labels).map(|label| (label.to_string(), format!("LABEL_{label}").into())).collect();
    let ids: Map<String, Value> = (0..labels).map(|label| (format!("LABEL_{label}"), label.into())).collect();
    config["id2label"] = json!(names);
    config["label2id"] = json!(ids);
}

/// Refuses a kind of labels that there is not.
fn problem_type(config: &Config) -> Result<()> {
    const KINDS: [&str; 3] = ["regression", "single_label_classification", "multi_label_classification"];
    match config.optional::<String>("problem_type")? {
        Some(kind) if !KINDS.contains(&kind.as_str()) => {
            Err(config.refuse("problem_type", format!("is \"{kind}\"; supported are {}", KINDS.join(", "))))
        }
        _ => Ok(()),
    }
}

/// The number of classes: `num_labels`, or the names in `id2label`; 2 without either.
pub(super) fn labels(config: &Config) -> Result<usize> {
    let named: Option<Map<String, Value>> = config.optional("id2label")?;
    match (named, config.has("num_labels")) {
        (Some(names), _) if !names.is_empty() => Ok(names.len()),
        (_, true) => part_count(config, "num_labels"),
        _ => Ok(2),
    }
}
