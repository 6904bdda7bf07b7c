//! Matching of a file's tensors to a model's parameters, and the reason if they do not fit.

use super::{Model, stacked};
use crate::error::{Error, Result};
use crate::io::{TensorRef, Tensors};
use crate::shape::TensorType;
use std::collections::{BTreeSet, HashSet};

/// The names of heads.
const HEADS: [&str; 2] = ["lm_head.weight", "embed_out.weight"];
/// Ends of names by which quantising programs call what they make of a weight.
const QUANTISED: [&str; 9] = [
    ".qweight",
    ".qzeros",
    ".weight_packed",
    ".weight_scale",
    ".weight_scale_inv",
    ".weight.absmax",
    ".weight.quant_map",
    ".SCB",
    ".input_scale",
];

/// The tensors of a file under the names of a model.
pub(super) struct Names<'m, 'a> {
    model: &'m dyn Model,
    tensors: &'a Tensors,
    /// The prefix that a wrapper put before all names.
    prefix: String,
}

impl<'m, 'a> Names<'m, 'a> {
    /// Where no name is as the model has it, what a wrapper put in front of all of them is taken off.
    pub(super) fn new(model: &'m dyn Model, tensors: &'a Tensors, parameters: &[(String, TensorType)]) -> Self {
        let mut names = Self { model, tensors, prefix: String::new() };
        let files = parameters.iter().flat_map(|(name, ty)| stacked::file_tensors(name, ty));
        let files: Vec<String> = files.map(|(name, _)| name).collect();
        if files.iter().all(|name| names.get(name).is_none()) {
            let front = |name: &str| {
                let fronts = tensors.names().filter_map(|there| there.strip_suffix(name)?.strip_suffix('.'));
                fronts.min_by_key(|front| front.len()).map(|front| format!("{front}."))
            };
            let bare = |name: &String| front(name).or_else(|| front(names.bare(name)));
            names.prefix = files.first().and_then(bare).unwrap_or_default();
        }
        names
    }

    /// What a wrapper put in front of all names; nothing if it is empty.
    pub(super) fn prefix(&self) -> &str {
        &self.prefix
    }

    fn bare<'b>(&self, name: &'b str) -> &'b str {
        self.model.naming().bare(name)
    }

    /// The tensor of that name, which may lack the model's prefix.
    pub(super) fn get(&self, name: &str) -> Option<TensorRef<'a>> {
        let under = |name: &str| match self.prefix.as_str() {
            "" => self.tensors.get(name),
            prefix => self.tensors.get(&format!("{prefix}{name}")),
        };
        let either = |name: &str| under(name).or_else(|| under(self.bare(name)));
        either(name).or_else(|| self.model.naming().older(name).find_map(|older| either(&older)))
    }

    /// Copies of parameters that are left aside, with these, by name.
    fn tied(&self, parameters: &[(String, TensorType)]) -> Vec<[(&'static str, TensorRef<'a>); 2]> {
        let is_parameter = |name: &str| parameters.iter().any(|(known, _)| known == name);
        let pairs = self.model.naming().tied.iter().filter(|(copy, name)| !is_parameter(copy) && is_parameter(name));
        pairs.filter_map(|(copy, name)| Some([(*copy, self.get(copy)?), (*name, self.get(name)?)])).collect()
    }

    /// A tensor's name as the model would have it.
    fn own<'b>(&self, tensor: &'b str) -> &'b str {
        tensor.strip_prefix(&self.prefix).unwrap_or(tensor)
    }
}

/// The tensor of each parameter, or its parts. Tensors that are none of the model's are left aside with a warning, if the model
/// would compute the same with them.
///
/// # Errors
/// [`Error::Format`] that says why they do not fit, and lists what is missing, surplus or of a wrong shape.
pub(super) fn matched<'a>(
    model: &dyn Model,
    parameters: &[(String, TensorType)],
    tensors: &'a Tensors,
) -> Result<Vec<Vec<TensorRef<'a>>>> {
    let names = Names::new(model, tensors, parameters);
    let (mut found, mut used) = (Vec::new(), HashSet::new());
    let mut misfit = Misfit::default();
    for (name, ty) in parameters.iter().flat_map(|(name, ty)| stacked::file_tensors(name, ty)) {
        misfit.blocks.extend(block(&name).map(str::to_owned));
        let Some(tensor) = names.get(&name) else {
            misfit.missing.push(name);
            continue;
        };
        used.insert(tensor.name.to_owned());
        misfit.begun.extend(block(&name).map(str::to_owned));
        if *tensor.shape == ty.shape {
            found.push(tensor);
        } else {
            misfit.wrong.push((name, tensor.shape.to_string(), ty.shape.to_string()));
        }
    }
    let naming = model.naming();
    let base = naming.base;
    for tensor in tensors.names().filter(|name| !used.contains(*name) && !naming.ignores(names.own(name))) {
        let own = names.own(tensor);
        let inside =
            block(own).is_some_and(|b| misfit.blocks.contains(b) || misfit.blocks.contains(&format!("{base}{b}")));
        // A GGUF file's names that have no place in the model stay as they are.
        let list = if inside || own.starts_with("blk.") { &mut misfit.inside } else { &mut misfit.surplus };
        list.push(tensor.to_owned());
    }
    if !(misfit.missing.is_empty() && misfit.inside.is_empty() && misfit.wrong.is_empty()) {
        return Err(Error::format(tensors.path(), misfit.message(found.is_empty())));
    }
    check_tied(&names, parameters)?;
    let path = tensors.path().display();
    if !names.prefix().is_empty() {
        log::warn!("{path}: all names begin with {:?}, which is taken off", names.prefix());
    }
    if !misfit.surplus.is_empty() {
        let (count, list) = (misfit.surplus.len(), listed(&misfit.surplus));
        log::warn!("{path}: {count} tensors are not of this model and are not used: {list}");
    }
    let mut found = found.into_iter();
    let parts =
        |(name, ty): &(String, TensorType)| found.by_ref().take(stacked::file_tensors(name, ty).len()).collect();
    Ok(parameters.iter().map(parts).collect())
}

/// The beginning of a name up to the number of its block, and a dot.
fn block(name: &str) -> Option<&str> {
    let mut end = 0;
    for part in name.split_inclusive('.') {
        end += part.len();
        let number = part.strip_suffix('.').is_some_and(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()));
        if number {
            return Some(&name[..end]);
        }
    }
    None
}

/// The tensors that do not fit.
#[derive(Default)]
struct Misfit {
    /// Where the names of the model's blocks end.
    blocks: BTreeSet<String>,
    /// Those of which the file has something.
    begun: BTreeSet<String>,
    missing: Vec<String>,
    /// Not of this model, and in one of its blocks, so that the file's model computes something else.
    inside: Vec<String>,
    /// Not of this model.
    surplus: Vec<String>,
    /// Name, shape in the file, shape by the config.
    wrong: Vec<(String, String, String)>,
}

impl Misfit {
    fn message(&self, nothing_fits: bool) -> String {
        if let Some(cause) = self.other_form() {
            return cause;
        }
        let wrong = self
            .wrong
            .iter()
            .map(|(name, there, wanted)| format!("{name} has shape {there}, the config says {wanted}"));
        let surplus: Vec<String> = self.inside.iter().chain(&self.surplus).cloned().collect();
        let problems =
            [("missing", &self.missing), ("not of this model", &surplus), ("of the wrong shape", &wrong.collect())]
                .into_iter()
                .filter(|(_, names)| !names.is_empty())
                .map(|(what, names)| format!("{} {what}: {}", names.len(), listed(names)))
                .collect::<Vec<_>>()
                .join("; ");
        match self.cause(nothing_fits) {
            Some(cause) => format!("{cause} ({problems})"),
            None => format!("the tensors do not fit the config: {problems}"),
        }
    }

    /// That the file holds no plain weights.
    fn other_form(&self) -> Option<String> {
        let surplus = || self.inside.iter().chain(&self.surplus);
        if let Some(name) = surplus().find(|name| name.contains(".lora_A.") || name.contains(".lora_B.")) {
            let merge = "give the adapter's own folder, with adapter_config.json";
            return Some(format!("holds a LoRA adapter's tensors ({name}): {merge}"));
        }
        let quantised = |name: &&String| QUANTISED.iter().any(|end| name.ends_with(end));
        let name = surplus().find(quantised).filter(|_| !self.missing.is_empty() || !self.inside.is_empty())?;
        let instead = "give the folder with the unquantised weights, or the model as a GGUF file";
        Some(format!("holds quantised weights in a form that is not read ({name}): {instead}"))
    }

    /// The reason that they do not fit, if it can be told.
    fn cause(&self, nothing_fits: bool) -> Option<String> {
        let head = |name: &String| HEADS.contains(&name.as_str());
        if nothing_fits && self.wrong.is_empty() {
            return Some("holds no tensor of this model: is config.json that of another one?".into());
        }
        if self.missing.len() == 1 && self.missing.iter().all(head) {
            let save = "save the model again with Python's AutoModelForCausalLM (AutoModel leaves the head out), or, if its head \
                        is the embedding, set tie_word_embeddings to true in config.json";
            return Some(format!("holds no head: {save}"));
        }
        if let Some((name, there, wanted)) = self.wrong.iter().find(|(name, ..)| is_table(name)) {
            let sizes = format!("{name} has shape {there}, config.json asks for {wanted}");
            return Some(format!(
                "does not have the vocabulary or the width of config.json, {sizes}: are they of one model?"
            ));
        }
        let lacking = |name: &String| block(name).is_some_and(|block| !self.begun.contains(block));
        if self.missing.iter().all(lacking) && !self.missing.is_empty() && self.wrong.is_empty() {
            let (there, wanted) = (self.begun.len(), self.blocks.len());
            return Some(format!(
                "holds {there} of the {wanted} blocks of config.json: a part of the model is missing"
            ));
        }
        let bias = |name: &String| name.ends_with("_proj.bias");
        if self.missing.is_empty() && self.wrong.is_empty() && self.inside.iter().all(bias) {
            let keys = "attention_bias, mlp_bias or qkv_bias";
            return Some(format!(
                "holds biases that the model of config.json does not have: {keys} should be true there"
            ));
        }
        if self.missing.iter().all(bias) && self.inside.is_empty() && self.wrong.is_empty() {
            let keys = "attention_bias, mlp_bias or qkv_bias";
            return Some(format!("lacks biases that the model of config.json has: {keys} should be false there"));
        }
        None
    }
}

/// Whether a name is that of the table of tokens or of the head.
fn is_table(name: &str) -> bool {
    HEADS.contains(&name)
        || ["embed_tokens.weight", "wte.weight", "embed_in.weight"].iter().any(|end| name.ends_with(end))
}

/// Refuses copies of parameters that are left aside and are not the same.
fn check_tied(names: &Names<'_, '_>, parameters: &[(String, TensorType)]) -> Result<()> {
    // Of a file that is read part by part, who reads it compares them.
    let there = names.tied(parameters).into_iter().filter(|[a, b]| !a.1.absent && !b.1.absent);
    there.into_iter().try_for_each(|[copy, parameter]| check_same(names.tensors, copy, parameter))
}

/// Copies of parameters that are left aside and must be the same, with these, by name.
pub(super) fn tied<'a>(
    model: &dyn Model,
    parameters: &[(String, TensorType)],
    tensors: &'a Tensors,
) -> Vec<[(&'static str, TensorRef<'a>); 2]> {
    Names::new(model, tensors, parameters).tied(parameters)
}

/// # Errors
/// [`Error::Format`] if a copy is not the same as a parameter.
pub(super) fn check_same(
    tensors: &Tensors,
    (copy, found): (&str, TensorRef<'_>),
    (name, parameter): (&str, TensorRef<'_>),
) -> Result<()> {
    if same(&found, &parameter)? {
        return Ok(());
    }
    let hint = if HEADS.contains(&copy) { "; set tie_word_embeddings to false" } else { "" };
    let message = format!("{copy} differs from {name} although the config ties them{hint}");
    Err(Error::format(tensors.path(), message))
}

fn same(a: &TensorRef<'_>, b: &TensorRef<'_>) -> Result<bool> {
    Ok(a.shape == b.shape && (a.dtype == b.dtype && a.bytes == b.bytes || a.to_f32()? == b.to_f32()?))
}

/// The first few of a list.
fn listed(names: &[String]) -> String {
    const SHOWN: usize = 8;
    let mut text = names.iter().take(SHOWN).cloned().collect::<Vec<_>>().join(", ");
    if names.len() > SHOWN {
        text += &format!(" and {} more", names.len() - SHOWN);
    }
    text
}

#[cfg(test)]
#[path = "names_tests.rs"]
mod tests;
