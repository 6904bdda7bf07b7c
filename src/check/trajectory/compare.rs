//! Compares final weights and moments with those of the file.

use super::{Figure, TrajectoryRow};
use crate::check::golden::{larger, relative_error};
use crate::error::Result;
use crate::io::Tensors;
use crate::models::Model;
use std::collections::{BTreeMap, HashSet};
use std::ops::Range;

/// The largest error of a weight over the largest entry of its tensor.
pub(super) const WEIGHT_LIMIT: f64 = 3e-4;
/// The same for moments.
pub(super) const MOMENT_LIMIT: f64 = 5e-4;

/// A tensor of the model, as files store it.
#[derive(Clone, Debug)]
pub(super) struct Part {
    /// Its names in files.
    pub(super) names: Vec<String>,
    /// The values before the first step.
    pub(super) start: Vec<f64>,
    /// The values after the last step, and both moments if it was trained.
    pub(super) weight: Vec<f64>,
    pub(super) moments: Option<[Vec<f64>; 2]>,
    /// Elements that are not compared.
    pub(super) no_gradient: Vec<Range<usize>>,
}

/// The names that files may have for a tensor of a model.
pub(super) fn names(model: &dyn Model, name: &str) -> Vec<String> {
    let mut names = Vec::new();
    for name in std::iter::once(name.to_owned()).chain(model.naming().older(name)) {
        names.extend(name.strip_prefix(model.naming().base).map(str::to_owned));
        names.push(name);
    }
    names
}

impl Part {
    /// The elements that are compared.
    fn kept(&self, values: &[f64]) -> Vec<f64> {
        let counts = |index: &usize| !self.no_gradient.iter().any(|range| range.contains(index));
        (0..values.len()).filter(counts).map(|index| values[index]).collect()
    }

    /// Its name in the file, after `kind`, and the elements to compare.
    fn find(&self, file: &Tensors, kind: &str) -> Result<Option<(String, Vec<f64>)>> {
        let Some(tensor) = self.names.iter().find_map(|name| file.get(&format!("{kind}{name}"))) else {
            return Ok(None);
        };
        let values: Vec<f64> = tensor.to_f32()?.into_iter().map(f64::from).collect();
        Ok(Some((tensor.name.to_owned(), self.kept(&values))))
    }
}

/// A row for each weight and each moment of the file, and for each without a counterpart; then the elements left out.
pub(super) fn rows(model: &dyn Model, parts: &[Part], file: &Tensors) -> Result<(Vec<TrajectoryRow>, Vec<String>)> {
    let (mut rows, mut used, mut left_out) = (Vec::new(), HashSet::new(), Vec::new());
    let mut moments = Vec::new();
    for part in parts {
        left_out
            .extend(part.no_gradient.iter().map(|range| format!("{}[{range:?}]", part.names[part.names.len() - 1])));
        match part.find(file, "final.")? {
            Some((name, expected)) => {
                let (got, start) = (part.kept(&part.weight), part.kept(&part.start));
                used.insert(name.clone());
                // A bias of keys may have no gradient at all.
                if !(expected.is_empty() && got.is_empty()) {
                    let mut row = TrajectoryRow::new(name, relative_error(&got, &expected, 0.0), WEIGHT_LIMIT);
                    row.over_movement = Some(over_movement(&got, &expected, &start));
                    rows.push(row);
                }
            }
            // Tensors that are not trained may be missing.
            None if part.moments.is_none() => (),
            None => rows.push(lacking(format!("final.{}, which the file lacks", part.names[0]))),
        }
        for (index, kind) in ["exp_avg.", "exp_avg_sq."].into_iter().enumerate() {
            let (Some((name, expected)), Some(got)) = (part.find(file, kind)?, &part.moments) else { continue };
            used.insert(name.clone());
            let got = part.kept(&got[index]);
            if !(expected.is_empty() && got.is_empty()) {
                moments.push(TrajectoryRow::new(name, relative_error(&got, &expected, 0.0), MOMENT_LIMIT));
            }
        }
    }
    rows.extend(moments);
    for (kind, name) in file.names().filter_map(|name| Some((name, name.split_once('.')?))).filter_map(result) {
        // The file may have tied weights twice.
        let ignored = kind == "final" && model.naming().ignores(name);
        if !used.contains(&format!("{kind}.{name}")) && !ignored {
            rows.push(lacking(format!("{kind}.{name}, which the model lacks")));
        }
    }
    Ok((rows, left_out))
}

/// The kind and the name of a result.
fn result<'a>((_, (kind, name)): (&str, (&'a str, &'a str))) -> Option<(&'a str, &'a str)> {
    ["final", "exp_avg", "exp_avg_sq"].contains(&kind).then_some((kind, name))
}

fn lacking(what: String) -> TrajectoryRow {
    TrajectoryRow::new(what, f64::NAN, 0.0)
}

/// The largest error over the largest change from the start; 0 without an error.
fn over_movement(got: &[f64], expected: &[f64], start: &[f64]) -> f64 {
    if got.len() != expected.len() || start.len() != expected.len() {
        return f64::NAN;
    }
    let difference = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, larger);
    let (error, movement) = (difference(got, expected), difference(expected, start));
    if error == 0.0 { 0.0 } else { error / movement }
}

/// The largest error of each kind, and PyTorch's in f32.
pub(super) fn figures(rows: &[TrajectoryRow], pytorch: &BTreeMap<String, f64>) -> Vec<Figure> {
    let worst = |kind: &str| {
        let errors = rows.iter().filter(|row| row.what.starts_with(kind)).map(|row| row.error);
        errors.fold(0.0, larger)
    };
    let moved = rows.iter().filter_map(|row| row.over_movement).fold(0.0, larger);
    let figure = |what: &'static str, error: f64| Figure { what, error, pytorch_f32: pytorch.get(what).copied() };
    vec![
        figure("loss", worst("loss")),
        figure("grad_norm", worst("grad_norm")),
        figure("weights", worst("final.")),
        figure("weights_over_movement", moved),
        figure("exp_avg", worst("exp_avg.")),
        figure("exp_avg_sq", worst("exp_avg_sq.")),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::{Config, NamedTensor, safetensors};
    use crate::models;
    use serde_json::json;

    fn model() -> Box<dyn Model> {
        let config =
            json!({"model_type": "gpt2", "vocab_size": 7, "n_embd": 2, "n_head": 1, "n_layer": 1, "n_positions": 4});
        models::model(&Config::new("config.json", config).unwrap()).unwrap()
    }

    fn part(name: &str, weight: &[f64]) -> Part {
        let model = model();
        let zeros = vec![0.0; weight.len()];
        let moments = Some([weight.to_vec(), weight.to_vec()]);
        Part {
            names: names(model.as_ref(), name),
            start: zeros,
            weight: weight.to_vec(),
            moments,
            no_gradient: model.no_gradient(name),
        }
    }

    fn compared(parts: &[Part], tensors: &[(&str, &[f32])]) -> (Vec<TrajectoryRow>, Vec<String>) {
        let tensors: Vec<NamedTensor<'_>> =
            tensors.iter().map(|(name, values)| NamedTensor::f32(*name, [values.len()], values)).collect();
        let file = Tensors::from_bytes("test", safetensors::to_bytes(&tensors).unwrap()).unwrap();
        rows(model().as_ref(), parts, &file).unwrap()
    }

    #[test]
    fn a_weight_that_went_a_thousandth_too_far_is_missed() {
        let parts = [part("transformer.ln_f.bias", &[0.5 * 1.001, 0.25])];
        let (rows, _) = compared(&parts, &[("final.ln_f.bias", &[0.5, 0.25]), ("exp_avg.ln_f.bias", &[0.5, 0.25])]);
        assert_eq!(rows.len(), 2);
        assert!(!rows[0].passed && (rows[0].over_movement.unwrap() - 1e-3).abs() < 1e-9, "{rows:?}");
        assert!(!rows[1].passed, "{rows:?}");
        let close = [part("transformer.ln_f.bias", &[0.5 * 1.000_1, 0.25])];
        assert!(compared(&close, &[("final.transformer.ln_f.bias", &[0.5, 0.25])]).0.iter().all(|row| row.passed));
    }

    #[test]
    fn what_is_not_a_number_or_has_no_counterpart_never_passes() {
        let nan = [part("transformer.ln_f.bias", &[f64::NAN, 0.25])];
        let (rows, _) = compared(&nan, &[("final.ln_f.bias", &[0.5, 0.25])]);
        assert!(!rows[0].passed && figures(&rows, &BTreeMap::new())[2].error.is_nan());
        let file: [(&str, &[f32]); 1] = [("final.ln_f.bias", &[f32::NAN, 0.25])];
        assert!(!compared(&[part("transformer.ln_f.bias", &[0.5, 0.25])], &file).0[0].passed);
        let (rows, _) = compared(&[part("transformer.ln_f.bias", &[0.5])], &[("final.h.9.bias", &[1.0])]);
        assert!(rows.len() == 2 && rows.iter().all(|row| !row.passed), "{rows:?}");
        let shorter: [(&str, &[f32]); 1] = [("final.ln_f.bias", &[0.5])];
        assert!(!compared(&[part("transformer.ln_f.bias", &[0.5, 0.25])], &shorter).0[0].passed);
        // The head is the table of tokens.
        assert!(compared(&[], &[("final.lm_head.weight", &[1.0])]).0.is_empty());
    }

    #[test]
    fn biases_of_keys_do_not_count_and_are_listed() {
        let name = "transformer.h.0.attn.c_attn.bias";
        let (rows, left_out) = compared(
            &[part(name, &[1.0, 2.0, 9.0, 9.0, 3.0, 4.0])],
            &[("final.h.0.attn.c_attn.bias", &[1.0, 2.0, 0.0, 0.0, 3.0, 4.0])],
        );
        assert!(rows.len() == 1 && rows[0].passed && rows[0].error == 0.0, "{rows:?}");
        assert_eq!(left_out, ["transformer.h.0.attn.c_attn.bias[2..4]"]);
    }
}
