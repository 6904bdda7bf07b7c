//! The storage types of a model's matrices in GPU memory, and the adapters beside them.

use crate::dtype::{BLOCK, DType};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// How a store holds a model's matrices: their types, one default and exceptions by name, and the adapters beside them. Biases and gains
/// are always f32.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Storage {
    /// The default type. Training needs f32.
    pub dtype: DType,
    /// Exceptions by parameter name: files may mix types.
    pub by_name: Arc<HashMap<String, DType>>,
    /// The type of the keys and values that decoders cache: f32, f16 or q8_0. Where heads are too narrow for it, they have the next wider.
    pub cache: DType,
    /// Low-rank adapters of linear layers. With some, they alone are trained.
    pub adapters: Option<Arc<Adapters>>,
}

/// The low-rank adapters of a model (LoRA: Hu et al., arXiv 2106.09685).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Adapters {
    /// By the name of the linear layer: its weight's without `.weight`.
    pub layers: BTreeMap<String, LowRank>,
    /// The parameters that are trained beside, as a whole.
    pub whole: Vec<String>,
}

/// The adapter of one linear layer, `y = W x + scale B (A x)`: `NAME.lora_A.weight` is A, (rank, in), `NAME.lora_B.weight` is B,
/// (out, rank), both f32.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LowRank {
    /// Rows of A.
    pub rank: usize,
    /// The factor of its result.
    pub scale: f32,
    /// The share of x that A does not see in training.
    pub dropout: f32,
}

/// What follows a layer's name in the name of A and of B.
pub const LOW_RANK: [&str; 2] = [".lora_A.weight", ".lora_B.weight"];

impl Storage {
    /// The type of the matrix of that name.
    #[must_use]
    pub fn of(&self, name: &str) -> DType {
        self.by_name.get(name).copied().unwrap_or(self.dtype)
    }

    /// The type of the caches of heads of `head_dim` elements.
    #[must_use]
    pub fn cache_of(&self, head_dim: usize) -> DType {
        match self.cache {
            DType::Q8_0 if head_dim.is_multiple_of(BLOCK) => DType::Q8_0,
            DType::Q8_0 | DType::F16 if head_dim.is_multiple_of(4) => DType::F16,
            _ => DType::F32,
        }
    }

    /// The common type of all matrices; f32 if they differ.
    #[must_use]
    pub fn common(&self) -> DType {
        let mut types = self.by_name.values().copied();
        let first = types.next().unwrap_or(self.dtype);
        if types.all(|dtype| dtype == first) { first } else { DType::F32 }
    }

    /// The adapter of the linear layer of that name.
    #[must_use]
    pub fn low_rank(&self, layer: &str) -> Option<LowRank> {
        self.adapters.as_ref()?.layers.get(layer).copied()
    }

    /// Whether training changes the parameter of that name: all do without adapters.
    #[must_use]
    pub fn trains(&self, name: &str) -> bool {
        self.adapters.as_ref().is_none_or(|adapters| adapters.train(name))
    }

    /// The same types without adapters.
    #[must_use]
    pub fn base(&self) -> Self {
        Self { adapters: None, ..self.clone() }
    }
}

impl Adapters {
    /// Whether the name is that of an adapter's matrix.
    #[must_use]
    pub fn hold(&self, name: &str) -> bool {
        LOW_RANK.iter().any(|end| name.strip_suffix(end).is_some_and(|layer| self.layers.contains_key(layer)))
    }

    /// Whether the parameter of that name is trained.
    #[must_use]
    pub fn train(&self, name: &str) -> bool {
        self.hold(name) || self.whole.iter().any(|whole| whole == name)
    }

    /// Whether training drops something in front of one of them.
    #[must_use]
    pub fn have_dropout(&self) -> bool {
        self.layers.values().any(|layer| layer.dropout > 0.0)
    }
}

impl From<DType> for Storage {
    fn from(dtype: DType) -> Self {
        Self { dtype, ..Self::default() }
    }
}
