//! What fresh parameters are filled with.

/// What a fresh parameter is filled with: the layer that asks a graph for it says so.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Initial {
    /// Zeros: biases.
    Zeros,
    /// Ones: the gains of norms.
    Ones,
    /// Normal numbers around zero with this standard deviation.
    Normal(f64),
}
