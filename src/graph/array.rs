//! Tensors on the CPU in f64, for references.

use crate::error::{Error, Result};
use crate::shape::Shape;

/// A row-major f64 tensor on the CPU. Integers are held exactly (below 2^53).
#[derive(Clone, Debug, PartialEq)]
pub struct Array {
    /// The extents.
    pub shape: Shape,
    /// The elements, the last axis fastest.
    pub data: Vec<f64>,
}

impl Array {
    /// An array from its parts.
    ///
    /// # Errors
    /// [`Error::Shape`] if the number of elements does not fit the shape.
    pub fn new(shape: impl Into<Shape>, data: Vec<f64>) -> Result<Self> {
        let shape = shape.into();
        if shape.numel() != data.len() {
            return Err(Error::shape(
                "array",
                format!("shape {shape} holds {} elements, got {}", shape.numel(), data.len()),
            ));
        }
        Ok(Self { shape, data })
    }

    /// An array filled by `value(index)`, the index counting elements in memory order.
    pub fn from_fn(shape: impl Into<Shape>, value: impl FnMut(usize) -> f64) -> Self {
        let shape = shape.into();
        let data = (0..shape.numel()).map(value).collect();
        Self { shape, data }
    }

    /// An array of zeros.
    pub fn zeros(shape: impl Into<Shape>) -> Self {
        Self::from_fn(shape, |_| 0.0)
    }

    /// A scalar.
    #[must_use]
    pub fn scalar(value: f64) -> Self {
        Self { shape: Shape::default(), data: vec![value] }
    }

    /// The same elements in another shape.
    ///
    /// # Errors
    /// [`Error::Shape`] if the element counts differ.
    pub fn reshape(&self, shape: impl Into<Shape>) -> Result<Self> {
        Self::new(shape, self.data.clone())
    }

    /// Applies `f` to every element.
    #[must_use]
    pub fn map(&self, f: impl Fn(f64) -> f64) -> Self {
        Self { shape: self.shape.clone(), data: self.data.iter().map(|&x| f(x)).collect() }
    }

    /// Combines two arrays of the same size element by element.
    #[must_use]
    pub fn zip(&self, other: &Self, f: impl Fn(f64, f64) -> f64) -> Self {
        let data = self.data.iter().zip(&other.data).map(|(&a, &b)| f(a, b)).collect();
        Self { shape: self.shape.clone(), data }
    }

    /// Row `index`; a row is the last axis.
    #[must_use]
    pub fn row(&self, index: usize) -> &[f64] {
        let width = self.shape.last();
        &self.data[index * width..(index + 1) * width]
    }

    /// Row `index` to write to.
    pub fn row_mut(&mut self, index: usize) -> &mut [f64] {
        let width = self.shape.last();
        &mut self.data[index * width..(index + 1) * width]
    }
}
