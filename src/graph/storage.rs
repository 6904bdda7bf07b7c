//! The storage types of a model's matrices in GPU memory.

use crate::dtype::DType;
use std::collections::HashMap;
use std::sync::Arc;

/// The types of a model's matrices: one default, and exceptions by name. Biases and gains are always f32.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Storage {
    /// The default type. Training needs f32.
    pub dtype: DType,
    /// Exceptions by parameter name: files may mix types.
    pub by_name: Arc<HashMap<String, DType>>,
}

impl Storage {
    /// The type of the matrix of that name.
    #[must_use]
    pub fn of(&self, name: &str) -> DType {
        self.by_name.get(name).copied().unwrap_or(self.dtype)
    }

    /// The common type of all matrices; f32 if they differ.
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
