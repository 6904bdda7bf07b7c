//! Values that are known when a graph is built.

use super::Array;
use crate::shape::Shape;
use std::borrow::Cow;
use std::fmt;

/// The value of a constant, or how it is made: a table that only the device reads is not kept beside the graph.
pub struct Constant {
    shape: Shape,
    value: Value,
}

enum Value {
    Given(Array),
    Made(Box<dyn Fn() -> Array + Send + Sync>),
}

impl Constant {
    /// A value that is there.
    #[must_use]
    pub fn given(value: Array) -> Self {
        Self { shape: value.shape.clone(), value: Value::Given(value) }
    }

    /// A value of that shape which is made when it is asked for, the same each time.
    pub fn made(shape: impl Into<Shape>, make: impl Fn() -> Array + Send + Sync + 'static) -> Self {
        Self { shape: shape.into(), value: Value::Made(Box::new(make)) }
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
            Value::Given(value) => Cow::Borrowed(value),
            Value::Made(make) => Cow::Owned(make()),
        }
    }
}

impl fmt::Debug for Constant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Constant").field("shape", &self.shape).finish_non_exhaustive()
    }
}
