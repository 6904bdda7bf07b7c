//! Shapes of tensors: row-major, contiguous, the last axis fastest.

use crate::dtype::DType;
use crate::error::{Error, Result};
use std::fmt;

/// The extents of a tensor's axes, outermost first. A scalar has no axis and one element.
#[derive(Clone, PartialEq, Eq, Hash, Default)]
pub struct Shape(Vec<usize>);

impl Shape {
    /// A shape from its extents.
    pub fn new(dims: impl Into<Vec<usize>>) -> Self {
        Self(dims.into())
    }

    /// The extents, outermost first.
    #[must_use]
    pub fn dims(&self) -> &[usize] {
        &self.0
    }

    /// The number of axes.
    #[must_use]
    pub fn rank(&self) -> usize {
        self.0.len()
    }

    /// The number of elements; [`usize::MAX`] where it is more.
    #[must_use]
    pub fn numel(&self) -> usize {
        product(&self.0)
    }

    /// The extent of the last axis; 1 for a scalar.
    #[must_use]
    pub fn last(&self) -> usize {
        self.0.last().copied().unwrap_or(1)
    }

    /// The number of rows: the product of all axes but the last.
    #[must_use]
    pub fn rows(&self) -> usize {
        product(&self.0[..self.0.len().saturating_sub(1)])
    }

    /// The shape with its last axis replaced.
    #[must_use]
    pub fn with_last(&self, last: usize) -> Self {
        let mut dims = self.0.clone();
        match dims.last_mut() {
            Some(end) => *end = last,
            None => dims.push(last),
        }
        Self(dims)
    }

    /// The extents as a fixed-size array, or an error that names `what`.
    ///
    /// # Errors
    /// [`Error::Shape`] if the rank is not `N`.
    pub fn expect<const N: usize>(&self, what: &str) -> Result<[usize; N]> {
        <[usize; N]>::try_from(self.0.as_slice())
            .map_err(|_| Error::shape(what, format!("expected {N} axes, got shape {self}")))
    }
}

/// Sizes come from files and may be anything: too large is refused where memory is asked for, and must not be a small
/// number until then.
pub(crate) fn product(extents: &[usize]) -> usize {
    extents.iter().fold(1, |product, &extent| product.saturating_mul(extent))
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0)
    }
}

impl fmt::Debug for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0)
    }
}

impl From<&[usize]> for Shape {
    fn from(dims: &[usize]) -> Self {
        Self(dims.to_vec())
    }
}

impl<const N: usize> From<[usize; N]> for Shape {
    fn from(dims: [usize; N]) -> Self {
        Self(dims.to_vec())
    }
}

impl From<Vec<usize>> for Shape {
    fn from(dims: Vec<usize>) -> Self {
        Self(dims)
    }
}

/// Shape and element type: all that is known of a tensor before there is data.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TensorType {
    /// The extents.
    pub shape: Shape,
    /// The element type.
    pub dtype: DType,
}

impl TensorType {
    /// A type from its parts.
    pub fn new(shape: impl Into<Shape>, dtype: DType) -> Self {
        Self { shape: shape.into(), dtype }
    }

    /// An f32 tensor.
    pub fn f32(shape: impl Into<Shape>) -> Self {
        Self::new(shape, DType::F32)
    }

    /// Bytes in GPU memory.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.dtype.bytes(self.shape.numel())
    }
}

impl fmt::Display for TensorType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.dtype, self.shape)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_that_no_number_holds_stay_large() {
        let huge = Shape::from([1 << 40, 1 << 40, 1 << 40]);
        assert_eq!((huge.numel(), huge.rows()), (usize::MAX, usize::MAX));
        assert_eq!(Shape::from([usize::MAX, 2, 0]).numel(), 0);
        assert_eq!(
            (Shape::from([2, 3, 5]).numel(), Shape::from([2, 3, 5]).rows(), Shape::default().numel()),
            (30, 6, 1)
        );
    }
}
