//! Low-rank adapters of models (LoRA): which layers have one, their weights in files as PEFT has them, and what they add to a base.

mod config;
mod files;
mod pattern;

pub use config::{LoraConfig, Targets};
pub(super) use files::merged;
#[cfg(feature = "files")]
pub use files::save_adapter;
pub use files::{PREFIX, adapter_tensors, load_adapted, load_base};

use super::Model;
use super::initialise::initial_words;
use crate::error::{Error, Result};
use crate::graph::{Adapters, Graph, LOW_RANK, LowRank, Storage};
use crate::program::Weights;
use crate::shape::TensorType;
use pattern::{first_match, module_pattern};
use std::collections::BTreeMap;
use std::sync::Arc;

const WEIGHT: &str = ".weight";

impl LoraConfig {
    /// The adapter of the layer of that name.
    fn low_rank(&self, layer: &str) -> LowRank {
        let rank = first_match(&self.rank_pattern, layer).unwrap_or(self.rank);
        let alpha = first_match(&self.alpha_pattern, layer).unwrap_or(self.alpha);
        let divisor = if self.rslora { (rank as f64).sqrt() } else { rank as f64 };
        LowRank { rank, scale: (alpha / divisor) as f32, dropout: self.dropout }
    }

    /// The adapters of a model: put them into the [`Storage`] of a store, then [`fresh_adapters`].
    ///
    /// # Errors
    /// [`Error::Input`] if a name in [`LoraConfig::targets`] or [`LoraConfig::modules_to_save`] is none of the model's, with those that are;
    /// those of [`LoraConfig::check`].
    pub fn adapters(&self, model: &dyn Model) -> Result<Adapters> {
        self.check()?;
        let linear = linear_layers(model)?;
        let of_name = |layer: &str, name: &str| {
            layer == name || layer.strip_suffix(name).is_some_and(|front| front.ends_with('.'))
        };
        let unknown = |what: &str, name: &str| {
            let mut ends: Vec<&str> = linear.iter().filter_map(|layer| layer.rsplit('.').next()).collect();
            ends.sort_unstable();
            ends.dedup();
            Error::input(
                what,
                format!(
                    "{name:?} is no linear layer of this model that can have an adapter: it has {}",
                    ends.join(", ")
                ),
            )
        };
        let chosen: Vec<&String> = match &self.targets {
            Targets::AllLinear => linear.iter().collect(),
            Targets::Pattern(pattern) => {
                let expression = module_pattern(pattern, true).map_err(|e| Error::input("target_modules", e))?;
                linear.iter().filter(|layer| expression.is_match(layer)).collect()
            }
            Targets::Names(names) => {
                if let Some(name) = names.iter().find(|name| !linear.iter().any(|layer| of_name(layer, name))) {
                    return Err(unknown("target_modules", name));
                }
                linear.iter().filter(|layer| names.iter().any(|name| of_name(layer, name))).collect()
            }
        };
        if chosen.is_empty() && self.modules_to_save.is_empty() {
            return Err(Error::input(
                "target_modules",
                "no layer of the model is among them: nothing would be trained",
            ));
        }
        let whole = whole_parameters(model, &self.modules_to_save)?;
        let saved = |layer: &str| whole.iter().any(|name| name.strip_suffix(WEIGHT) == Some(layer));
        let layers = chosen.into_iter().filter(|layer| !saved(layer));
        Ok(Adapters { layers: layers.map(|layer| (layer.clone(), self.low_rank(layer))).collect(), whole })
    }
}

/// The names of a model's linear layers that can have an adapter: not the head of a language model, and not experts.
fn linear_layers(model: &dyn Model) -> Result<Vec<String>> {
    let layers = |(name, _): &(String, TensorType)| name.strip_suffix(WEIGHT).map(str::to_owned);
    let all: BTreeMap<String, LowRank> = model
        .parameters()?
        .iter()
        .filter(|(_, ty)| ty.shape.rank() == 2)
        .filter_map(layers)
        .map(|layer| (layer, LowRank { rank: 1, scale: 1.0, dropout: 0.0 }))
        .collect();
    let probe = Storage { adapters: Some(Arc::new(Adapters { layers: all, whole: Vec::new() })), ..Storage::default() };
    // Those that ask for theirs.
    let asked = model
        .parameters_in(&probe)?
        .into_iter()
        .filter_map(|(name, _)| name.strip_suffix(LOW_RANK[0]).map(str::to_owned));
    Ok(asked.collect())
}

/// The parameters of modules.
fn whole_parameters(model: &dyn Model, modules: &[String]) -> Result<Vec<String>> {
    let names: Vec<String> = model.parameters()?.into_iter().map(|(name, _)| name).collect();
    let mut whole = Vec::new();
    for module in modules {
        let within = |name: &&String| format!(".{name}").contains(&format!(".{module}."));
        let found: Vec<String> = names.iter().filter(within).cloned().collect();
        if found.is_empty() {
            let message = format!("{module:?} is no module of this model that has parameters");
            return Err(Error::input("modules_to_save", message));
        }
        whole.extend(found.into_iter().filter(|name| !whole.contains(name)).collect::<Vec<_>>());
    }
    Ok(whole)
}

/// Fills the adapters of the store with fresh weights: A with random numbers, B with zeros, so that the model computes what it did. The same
/// seed gives the same weights.
///
/// # Errors
/// Those of the model; [`Error::OutOfMemory`].
pub fn fresh_adapters(model: &dyn Model, weights: &Weights, seed: u64) -> Result<()> {
    let Some(adapters) = weights.storage().adapters.clone() else { return Ok(()) };
    let mut g = Graph::with_storage(weights.storage());
    model.declare(&mut g)?;
    let found: Vec<_> = g.parameters().filter(|(name, _)| adapters.hold(name)).collect();
    for (name, tensor) in found {
        let Some(initial) = g.initial(name) else { continue };
        weights.ensure(name, g.ty(tensor))?;
        weights.upload(name, &initial_words(initial, g.ty(tensor), seed, name))?;
    }
    Ok(())
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
