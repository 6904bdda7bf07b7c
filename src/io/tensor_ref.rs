//! A tensor of a file, and its elements in other types.

use super::convert::{self, FileType, Numbers};
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::shape::Shape;
use std::path::Path;

/// One tensor of a file: what it is and its bytes, little-endian and row-major.
#[derive(Clone, Copy, Debug)]
pub struct TensorRef<'a> {
    pub(super) path: &'a Path,
    /// The name.
    pub name: &'a str,
    /// The element type in the file.
    pub dtype: FileType,
    /// The extents.
    pub shape: &'a Shape,
    /// The elements in the order of the file, which is not that of the conversions below where a file pairs rows for
    /// rotary positions.
    pub bytes: &'a [u8],
    pub(super) paired: usize,
}

impl<'a> TensorRef<'a> {
    fn numbers(&self) -> Numbers<'a> {
        let bytes = match self.paired {
            0 => self.bytes.into(),
            heads => convert::halves_apart(self.bytes, self.shape.dims().first().copied().unwrap_or(1), heads).into(),
        };
        Numbers { dtype: self.dtype, row_len: self.shape.last(), bytes }
    }

    fn refuse(&self, message: String) -> Error {
        Error::format(self.path, format!("tensor {:?}: {message}", self.name))
    }

    /// The elements as f32, rounded to nearest.
    ///
    /// # Errors
    /// [`Error::Format`] for element types that hold no plain numbers (8-bit floats and smaller, complex).
    pub fn to_f32(&self) -> Result<Vec<f32>> {
        self.numbers().to_f32().map_err(|m| self.refuse(m))
    }

    /// The elements as i32.
    ///
    /// # Errors
    /// [`Error::Format`] if they are no integers or one does not fit.
    pub fn to_i32(&self) -> Result<Vec<i32>> {
        self.numbers().to_integers("i32").map_err(|m| self.refuse(m))
    }

    /// The elements as u32.
    ///
    /// # Errors
    /// [`Error::Format`] if they are no integers or one does not fit.
    pub fn to_u32(&self) -> Result<Vec<u32>> {
        self.numbers().to_integers("u32").map_err(|m| self.refuse(m))
    }

    /// The elements as they lie in GPU memory when stored as `dtype`: 16-bit types packed in pairs, the last word filled up
    /// with zero; weights of the file's own quantised type stay as they are, others are rounded to a quantised type.
    ///
    /// # Errors
    /// As the other conversions.
    pub fn to_words(&self, dtype: DType) -> Result<Vec<u8>> {
        self.numbers().to_words(dtype).map_err(|m| self.refuse(m))
    }
}
