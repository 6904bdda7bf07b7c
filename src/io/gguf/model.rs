//! A model in GGUF: its configuration, and its tensors under the names of Hugging Face.

use super::architectures::{self, Architecture};
use super::metadata::Metadata;
use super::reader::Info;
use super::source::Source;
use super::{Faults, TABLE};
use crate::error::{Error, Result};
use crate::io::safetensors::Found;
use crate::io::tensor_ref::Change;
use crate::shape::Shape;
use serde_json::{Value, json};
use std::collections::BTreeSet;

const ARCHITECTURE: &str = "general.architecture";
/// Tensors of each block that old converters wrote and that nothing uses.
const OF_OLD_CONVERTERS: &str = "attn_rot_embd";
/// More than any model has.
const MOST_EXPERTS: usize = 1 << 16;
/// A vector in files that is a matrix of one row at Hugging Face.
const ROWS: [&str; 1] = ["ffn_gate_inp_shexp"];

/// The architecture of a file, which must be of a whole model.
pub(super) fn architecture(metadata: &Metadata<'_>) -> Result<&'static Architecture> {
    const TYPE: &str = "general.type";
    match metadata.text(TYPE)? {
        Some("adapter") => {
            let base = metadata.text("general.base_model.0.name")?;
            let base = base.map_or_else(String::new, |base| format!(", {base:?}"));
            let message = format!(
                "this is a LoRA adapter, not a model: give its base model{base}, or the adapter's folder in PEFT's form"
            );
            return Err(Error::format(metadata.path, message));
        }
        None | Some("model") => {}
        Some(other) => return Err(metadata.refuse(TYPE, format!("is \"{other}\": the file is not a model"))),
    }
    let name = metadata.expect_text(ARCHITECTURE)?;
    Architecture::named(name).ok_or_else(|| {
        let names: Vec<&str> = architectures::ALL.iter().map(|known| known.name).collect();
        metadata.refuse(ARCHITECTURE, format!("is {name}, which is not read yet; {} are", names.join(", ")))
    })
}

/// A model as its file or files describe it.
pub(super) struct Model<'a> {
    pub(super) architecture: &'static Architecture,
    pub(super) source: &'a Source<'a>,
}

impl Model<'_> {
    /// The `config.json`.
    pub(super) fn config(&self, faults: &mut Faults) -> Result<Value> {
        let Source { metadata, .. } = self.source;
        let vocabulary = self.source.extent(TABLE, 0);
        let vocabulary = vocabulary.ok_or_else(|| self.source.damaged(format!("has no tensor {TABLE:?}")))?;
        let [model_type, class] = self.architecture.family;
        let config = json!({"model_type": model_type, "architectures": [class], "vocab_size": vocabulary});
        let mut config = (self.architecture.config)(self.source, config)?;
        for key in self.source.unread() {
            let message = "is not known here, and the model may compute something else by it";
            faults.note(metadata.refuse(&key, message))?;
        }
        let token = |role: &str| metadata.token(role, vocabulary as usize);
        for (key, theirs) in [("bos", "bos_token_id"), ("padding", "pad_token_id")] {
            config[theirs] = json!(token(key)?);
        }
        // A turn of a chat may end with another token than a text, and a message within it.
        let mut ends = Vec::new();
        for role in ["eos", "eot", "eom"] {
            ends.extend(token(role)?.filter(|id| !ends.contains(id)));
        }
        match ends.as_slice() {
            [] => {}
            [one] => config["eos_token_id"] = json!(one),
            several => config["eos_token_id"] = json!(several),
        }
        Ok(config)
    }

    /// The tensors under Hugging Face's names. Unknown ones keep theirs, so that a model can report them.
    pub(super) fn found(&self) -> Result<Vec<Found>> {
        let Source { tensors, .. } = self.source;
        let gated = tensors.keys().any(|name| name.ends_with(".ffn_gate.weight"));
        let (mut all, mut names, mut old) = (Vec::new(), BTreeSet::new(), 0);
        for (&name, info) in tensors.iter().filter(|(name, _)| !architectures::POSITIONS.contains(name)) {
            if name.split('.').any(|part| part == OF_OLD_CONVERTERS) {
                old += 1;
                continue;
            }
            for found in self.one(name, info, gated)? {
                if !names.insert(found.name.clone()) {
                    return Err(self.source.damaged(format!("has tensor {:?} under two names", found.name)));
                }
                all.push(found);
            }
        }
        if old > 0 {
            let path = self.source.metadata.path.display();
            log::warn!("{path}: {old} tensors {OF_OLD_CONVERTERS} of an old converter are not used");
        }
        Ok(all)
    }

    /// A tensor, or the tensors of all experts that it is made of.
    fn one(&self, name: &str, info: &Info, gated: bool) -> Result<Vec<Found>> {
        let Info { file, dtype, shape, range } = info.clone();
        let whole = |name: String, shape: Shape, change: Change| Found {
            name,
            file,
            dtype,
            shape,
            range: range.clone(),
            change,
        };
        let Some(named) = self.architecture.names.find(name, gated) else {
            return Ok(vec![whole(name.to_owned(), shape, Change::None)]);
        };
        let dims = shape.dims();
        if let Some((front, back)) = named.theirs.split_once('*') {
            let [count @ 1..=MOST_EXPERTS, part @ ..] = dims else {
                return Err(self
                    .source
                    .damaged(format!("tensor {name:?} of shape {shape} has no axis of 1 to {MOST_EXPERTS} experts")));
            };
            // A row is whole blocks, and so is an expert.
            let size = range.len() / count;
            let part = |expert: usize| Found {
                name: format!("{front}{expert}{back}"),
                file,
                dtype,
                shape: part.into(),
                range: range.start + expert * size..range.start + (expert + 1) * size,
                change: Change::None,
            };
            return Ok((0..*count).map(part).collect());
        }
        let (mut shape, mut change) = (shape.clone(), self.change(name, named.part, &shape)?);
        if self.architecture.in_out && dims.len() == 2 && name.starts_with("blk.") {
            shape = [dims[1], dims[0]].into();
            change = Change::Transposed;
        }
        if ROWS.contains(&named.part) && shape.rank() == 1 {
            shape = [1, shape.last()].into();
        }
        Ok(vec![whole(named.theirs, shape, change)])
    }

    /// How a tensor of the file differs from Hugging Face's.
    fn change(&self, name: &str, part: &str, shape: &Shape) -> Result<Change> {
        if self.architecture.one_plus && name.ends_with("norm.weight") {
            return Ok(Change::OnePlus);
        }
        if !self.architecture.pairs || !matches!(part, "attn_q" | "attn_k") {
            return Ok(Change::None);
        }
        let [queries, keys] = architectures::heads(self.source)?;
        let heads = if part == "attn_q" { queries } else { keys };
        let rows = shape.dims().first().copied().unwrap_or(0) as u64;
        if heads == 0 || !rows.is_multiple_of(heads.saturating_mul(2)) {
            let message =
                format!("tensor {name:?} has {rows} rows, which cannot be split into pairs for {heads} heads");
            return Err(self.source.damaged(message));
        }
        Ok(Change::Paired(heads as usize))
    }
}
