//! Constants of a graph.

use super::Array;
use crate::shape::Shape;
use std::borrow::Cow;
use std::fmt;

/// The value of a constant, or a function that computes it, so that a table that only the device reads is not kept in memory.
pub struct Constant {
    shape: Shape,
    value: Value,
}

enum Value {
    Stored(Array),
    Computed(Box<dyn Fn() -> Array + Send + Sync>),
}

impl Constant {
    /// A stored value.
    #[must_use]
    pub fn stored(value: Array) -> Self {
        Self { shape: value.shape.clone(), value: Value::Stored(value) }
    }

    /// A value of that shape that is computed on each request, always the same.
    pub fn computed(shape: impl Into<Shape>, make: impl Fn() -> Array + Send + Sync + 'static) -> Self {
        Self { shape: shape.into(), value: Value::Computed(Box::new(make)) }
    }

    /// The shape.
    #[must_use]
    pub fn shape(&self) -> &Shape {
        &self.shape
    }

    /// The value.
    #[must_use]
    pub fn value(&self) -> Cow<'_, Array> {
        match &self.value {
            Value::Stored(value) => Cow::Borrowed(value),
            Value::Computed(make) => Cow::Owned(make()),
        }
    }
}

impl fmt::Debug for Constant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Constant").field("shape", &self.shape).finish_non_exhaustive()
    }
}
