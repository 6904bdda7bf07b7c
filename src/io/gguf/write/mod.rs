//! Writing a model as a GGUF file that other programs read.

mod keys;
mod layout;
mod tokens;

use super::architectures::{self, Architecture};
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::io::file::write_atomic_with;
use crate::io::safetensors_write::NamedTensor;
use crate::io::tokenizer::Tokenizer;
use crate::shape::Shape;
use layout::{Entry, Layout};
use serde_json::Value;
use std::collections::BTreeMap;
use std::io;
use std::path::Path;

/// What a GGUF file is made of.
#[derive(Clone, Copy, Debug)]
pub struct GgufContents<'a> {
    /// The `config.json`.
    pub config: &'a Value,
    /// The tensors in f32 under Hugging Face's names, read back when they are written.
    pub tensors: &'a [NamedTensor<'a>],
    /// The tokenizer; without one the file has none.
    pub tokenizer: Option<&'a Tokenizer>,
    /// The name of the model, for people.
    pub name: &'a str,
    /// The type of matrices. Rows that are no whole blocks of it have the next type that fits; the head, or the table that is the head as
    /// well, has at least 6 bits; norms, biases, routers and positions are f32.
    pub dtype: DType,
}

/// What was written.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct GgufWritten {
    /// The architecture, as the file calls it.
    pub architecture: &'static str,
    /// Bytes of the file.
    pub bytes: u64,
    /// Matrices of another type than was asked for, since their rows are no whole blocks of it.
    pub others: usize,
    /// Why the file has no tokenizer, if it has none.
    pub no_tokenizer: Option<String>,
}

impl GgufContents<'_> {
    /// Writes the file, atomically.
    ///
    /// # Errors
    /// [`Error::Input`] if the family, or something of the model, has no form in GGUF; [`Error::File`] if the file cannot be written.
    pub fn write(&self, path: impl AsRef<Path>) -> Result<GgufWritten> {
        let path = path.as_ref();
        let architecture = keys::architecture(self.config)?;
        let mut entries = keys::entries(architecture, self.config, self.name)?;
        let no_tokenizer = match self.tokenizer.map(tokens::entries) {
            Some(Ok(more)) => {
                entries.extend(more);
                None
            }
            Some(Err(why)) => Some(why),
            None => Some("the model has none".into()),
        };
        if no_tokenizer.is_some() {
            entries.push(Entry::text("tokenizer.ggml.model", "no_vocab"));
        }
        let tensors = self.laid_out(architecture)?;
        let others = tensors.iter().filter(|tensor| tensor.is_matrix && tensor.dtype != self.dtype).count();
        let layout = Layout::new(&entries, &tensors)?;
        write_atomic_with(path, |writer| layout.write_to(writer, &tensors))?;
        Ok(GgufWritten { architecture: architecture.name, bytes: layout.bytes(), others, no_tokenizer })
    }

    /// The tensors of the file.
    fn laid_out(&self, architecture: &'static Architecture) -> Result<Vec<Out<'_>>> {
        let tied = self.config["tie_word_embeddings"].as_bool().unwrap_or(false);
        let mut found: BTreeMap<String, Vec<(usize, &NamedTensor<'_>)>> = BTreeMap::new();
        for tensor in self.tensors {
            let Some((name, expert)) = architecture.names.of_theirs(&tensor.name) else {
                let message = format!("GGUF files of {} have no name for it", architecture.name);
                return Err(Error::input(tensor.name.as_ref(), message));
            };
            found.entry(name).or_default().push((expert.unwrap_or(0), tensor));
        }
        if tied {
            found.remove("output.weight");
        }
        let heads =
            ["num_attention_heads", "num_key_value_heads"].map(|key| self.config[key].as_u64().unwrap_or(0) as usize);
        let scores = keys::scores(architecture, self.config);
        let mut all = Vec::new();
        for (name, mut parts) in found {
            parts.sort_by_key(|(expert, _)| *expert);
            let stacked = name.contains("_exps.");
            if parts.iter().enumerate().any(|(at, (expert, _))| at != *expert) || !stacked && parts.len() != 1 {
                return Err(Error::input(name, "an expert of it is missing, or is there twice"));
            }
            let parts: Vec<&NamedTensor<'_>> = parts.into_iter().map(|(_, tensor)| tensor).collect();
            all.push(Out::new(architecture, name, stacked, parts, heads, scores));
        }
        for (name, values) in keys::positions(self.config) {
            let shape = [values.len()].into();
            all.push(Out { name, shape, dtype: DType::F32, is_matrix: false, content: Content::Values(values) });
        }
        for tensor in &mut all {
            let is_head = matches!(tensor.name.as_str(), "output.weight") || tied && tensor.name == "token_embd.weight";
            if tensor.is_matrix {
                tensor.dtype = dtype_of(self.dtype, is_head).for_rows_of(tensor.shape.last());
            }
        }
        Ok(all)
    }
}

/// The type of a matrix: logits suffer the most from few bits.
fn dtype_of(dtype: DType, is_head: bool) -> DType {
    let few = dtype.is_quantised() && !matches!(dtype, DType::Q8_0 | DType::Q6K);
    if is_head && few { DType::Q6K } else { dtype }
}

/// A tensor of the file.
pub(super) struct Out<'a> {
    pub(super) name: String,
    pub(super) shape: Shape,
    pub(super) dtype: DType,
    is_matrix: bool,
    content: Content<'a>,
}

/// Where its numbers come from.
enum Content<'a> {
    Values(Vec<f32>),
    /// Of each expert one; else one. Changed, and times a factor.
    Tensors(Vec<&'a NamedTensor<'a>>, Change, f32),
}

/// How the numbers of a file differ from those at Hugging Face.
#[derive(Clone, Copy)]
enum Change {
    None,
    /// The halves of the rows of so many heads become pairs.
    Pairs(usize),
    OnePlus,
    Transposed,
}

impl<'a> Out<'a> {
    fn new(
        architecture: &Architecture,
        name: String,
        stacked: bool,
        parts: Vec<&'a NamedTensor<'a>>,
        [queries, keys]: [usize; 2],
        scores: Option<(&str, f32)>,
    ) -> Self {
        let of = parts[0].ty.shape.dims();
        let part = name.rsplit('.').nth(1).unwrap_or_default();
        let change = match part {
            _ if architecture.one_plus && name.ends_with("norm.weight") => Change::OnePlus,
            "attn_q" if architecture.pairs => Change::Pairs(queries),
            "attn_k" if architecture.pairs => Change::Pairs(if keys == 0 { queries } else { keys }),
            _ if architecture.in_out && of.len() == 2 && name.starts_with("blk.") => Change::Transposed,
            _ => Change::None,
        };
        let shape = match (of, change) {
            ([rows, columns], Change::Transposed) => [*columns, *rows].into(),
            // A matrix of one row is a vector in files.
            ([1, columns], _) if part == "ffn_gate_inp_shexp" => [*columns].into(),
            (dims, _) if stacked => Shape::new([&[parts.len()], dims].concat()),
            (dims, _) => Shape::new(dims),
        };
        let factor = scores.map_or(1.0, |(of, factor)| if part == of { factor } else { 1.0 });
        let plain = ["norm", "ffn_gate_inp", "position_embd", "token_types", "rel_b"];
        let is_matrix = shape.rank() > 1 && !plain.iter().any(|plain| name.contains(plain));
        Self { name, shape, dtype: DType::F32, is_matrix, content: Content::Tensors(parts, change, factor) }
    }

    /// Bytes in the file.
    pub(super) fn bytes(&self) -> u64 {
        layout::bytes(self.dtype, self.shape.numel())
    }

    /// Writes its numbers, one expert after the other.
    pub(super) fn write_to(&self, writer: &mut dyn io::Write) -> io::Result<()> {
        let mut put = |values: &[f32]| writer.write_all(&layout::encoded(self.dtype, values));
        match &self.content {
            Content::Values(values) => put(values),
            Content::Tensors(parts, change, factor) => parts.iter().try_for_each(|part| {
                let values = part.values().map_err(io::Error::other)?;
                let mut values = change.of(values, &part.ty.shape);
                values.iter_mut().for_each(|x| *x *= factor);
                put(&values)
            }),
        }
    }
}

impl Change {
    fn of(self, mut values: Vec<f32>, shape: &Shape) -> Vec<f32> {
        let rows = shape.dims().first().copied().unwrap_or(1).max(1);
        let row = values.len() / rows;
        match self {
            Self::None => values,
            Self::OnePlus => {
                values.iter_mut().for_each(|x| *x += 1.0);
                values
            }
            Self::Pairs(heads) => {
                let head = rows / heads.max(1);
                let from = |at: usize| at / head * head + at % head / 2 + at % 2 * (head / 2);
                (0..rows).flat_map(|at| values[from(at) * row..][..row].iter().copied()).collect()
            }
            Self::Transposed => (0..values.len()).map(|at| values[at % rows * row + at / rows]).collect(),
        }
    }
}

/// The architectures that can be written.
pub(super) fn writable() -> Vec<&'static str> {
    architectures::ALL.iter().map(|architecture| architecture.name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::convert::halves_apart;

    #[test]
    fn changes_are_undone_by_those_of_the_reader() {
        let values: Vec<f32> = (0..24).map(|x| x as f32).collect();
        let bytes = |values: &[f32]| values.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>();
        let paired = Change::Pairs(2).of(values.clone(), &[8, 3].into());
        assert_eq!(paired[..9], [0.0, 1.0, 2.0, 6.0, 7.0, 8.0, 3.0, 4.0, 5.0]);
        assert_eq!(halves_apart(&bytes(&paired), 8, 2), bytes(&values));
        let turned = Change::Transposed.of(values.clone(), &[8, 3].into());
        assert_eq!(turned[..9], [0.0, 3.0, 6.0, 9.0, 12.0, 15.0, 18.0, 21.0, 1.0]);
        assert_eq!(Change::OnePlus.of(vec![-1.0, 0.5], &[2].into()), [0.0, 1.5]);
    }
}
