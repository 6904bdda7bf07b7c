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
    /// The elements as the file has them, which the conversions below change where another program orders them otherwise, or adds to them.
    pub bytes: &'a [u8],
    /// Whether the bytes are not here, because the file is read part by part.
    pub(crate) absent: bool,
    /// Their first byte in the file, and one past the last.
    pub(crate) range: [usize; 2],
    pub(super) change: Change,
}

/// How the numbers of a file differ from those of the tensor.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Change {
    /// Not at all.
    #[default]
    None,
    /// The rows of so many heads lie in pairs ([`halves_apart`](convert::halves_apart)).
    Paired(usize),
    /// 1 is added to each.
    OnePlus,
    /// Rows are columns.
    Transposed,
}

impl<'a> TensorRef<'a> {
    /// The same tensor with its bytes, which were read.
    pub(crate) fn with_bytes<'b>(&self, bytes: &'b [u8]) -> TensorRef<'b>
    where
        'a: 'b,
    {
        TensorRef { bytes, absent: false, ..*self }
    }

    fn numbers(&self) -> Result<Numbers<'a>, String> {
        if self.absent {
            return Err("its bytes are not read: load the weights by `models::load_weights_async`".into());
        }
        let row_len = self.shape.last();
        let plain = Numbers { dtype: self.dtype, row_len, bytes: self.bytes.into() };
        let rows = self.shape.dims().first().copied().unwrap_or(1);
        Ok(match self.change {
            Change::None => plain,
            Change::Paired(heads) => Numbers { bytes: convert::halves_apart(self.bytes, rows, heads).into(), ..plain },
            Change::OnePlus => Numbers::of_f32(row_len, plain.to_f32()?.into_iter().map(|x| x - 1.0)),
            Change::Transposed => {
                let values = plain.to_f32()?;
                let order = (0..rows).flat_map(|row| (0..row_len).map(move |column| column * rows + row));
                Numbers::of_f32(row_len, order.map(|at| values.get(at).copied().unwrap_or(f32::NAN)))
            }
        })
    }

    /// The type in GPU memory that holds the same numbers, if there is one.
    #[must_use]
    pub fn same(&self) -> Option<DType> {
        // Blocks go along rows.
        let same = self.dtype.same();
        if self.change == Change::Transposed { same.filter(|dtype| !dtype.is_quantised()) } else { same }
    }

    fn refuse(&self, message: String) -> Error {
        Error::format(self.path, format!("tensor {:?}: {message}", self.name))
    }

    /// The elements as f32, rounded to nearest.
    ///
    /// # Errors
    /// [`Error::Format`] for element types that hold no plain numbers (8-bit floats and smaller, complex).
    pub fn to_f32(&self) -> Result<Vec<f32>> {
        self.numbers().and_then(|numbers| numbers.to_f32()).map_err(|m| self.refuse(m))
    }

    /// The elements as i32.
    ///
    /// # Errors
    /// [`Error::Format`] if they are no integers or one does not fit.
    pub fn to_i32(&self) -> Result<Vec<i32>> {
        self.numbers().and_then(|numbers| numbers.to_integers("i32")).map_err(|m| self.refuse(m))
    }

    /// The elements as u32.
    ///
    /// # Errors
    /// [`Error::Format`] if they are no integers or one does not fit.
    pub fn to_u32(&self) -> Result<Vec<u32>> {
        self.numbers().and_then(|numbers| numbers.to_integers("u32")).map_err(|m| self.refuse(m))
    }

    /// The elements as they lie in GPU memory when stored as `dtype`: 16-bit types packed in pairs, the last word filled up
    /// with zero; weights of the file's own quantised type stay as they are, others are rounded to a quantised type.
    ///
    /// # Errors
    /// As the other conversions.
    pub fn to_words(&self, dtype: DType) -> Result<Vec<u8>> {
        self.numbers().and_then(|numbers| numbers.to_words(dtype)).map_err(|m| self.refuse(m))
    }
}
