//! The initialisation of fresh parameters.

/// The initial values of a fresh parameter, chosen by its layer.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum Initial {
    /// Zeros: biases.
    Zeros,
    /// Ones: the gains of norms.
    Ones,
    /// Normal numbers around zero with this standard deviation.
    Normal(f64),
    /// Rows of sines and cosines in turn, so many columns each: positions that begin as [`crate::ops::sinusoidal_table`] has them.
    Sinusoids {
        /// The columns.
        columns: usize,
    },
}
