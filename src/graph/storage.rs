//! How the matrices of a model lie in GPU memory.

use crate::dtype::DType;
use std::collections::HashMap;
use std::sync::Arc;

/// The types of a model's matrices: one for all, but for those that are named. Biases and gains are f32 always.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Storage {
    /// The type of what is not named. Training needs f32.
    pub dtype: DType,
    /// Types by the parameters' names: files may mix them.
    pub by_name: Arc<HashMap<String, DType>>,
}

impl Storage {
    /// The type of the matrix of that name.
    #[must_use]
    pub fn of(&self, name: &str) -> DType {
        self.by_name.get(name).copied().unwrap_or(self.dtype)
    }

    /// The type of all matrices; f32 if there are several.
    #[must_use]
    pub fn common(&self) -> DType {
        let mut types = self.by_name.values().copied();
        let first = types.next().unwrap_or(self.dtype);
        if types.all(|dtype| dtype == first) { first } else { DType::F32 }
    }
}

impl From<DType> for Storage {
    fn from(dtype: DType) -> Self {
        Self { dtype, by_name: Arc::default() }
    }
}
