//! What is trained, and on what: the two things a trainer is given.

use crate::error::Result;
use crate::graph::{Graph, Tensor};
use crate::shape::TensorType;

/// The input that a model with dropout reads its seed from, `(2)` u32. The trainer writes it.
pub const DROPOUT_SEED: &str = "dropout_seed";

/// A model with a loss that is to fall.
pub trait Objective {
    /// The parameters to train: names and types as the graph asks for them.
    ///
    /// # Errors
    /// Those of the model.
    fn parameters(&self) -> Result<Vec<(String, TensorType)>>;

    /// Adds the model, with inputs of its own, and gives the scalar loss of one micro-batch. In training, a model with
    /// dropout adds the input [`DROPOUT_SEED`].
    ///
    /// # Errors
    /// Those of the ops.
    fn loss(&self, g: &mut Graph, training: bool) -> Result<Tensor>;
}

/// The inputs of one micro-batch: names, and bytes as they lie in GPU memory.
pub type Feeds = Vec<(String, Vec<u8>)>;

/// A supply of micro-batches that can be entered anywhere: what makes a resumed run the same as an uninterrupted one.
pub trait Batches {
    /// Micro-batch `index`, counted from the start of the run: the same index always gives the same bytes.
    ///
    /// # Errors
    /// Whatever keeps the data from being read.
    fn batch(&self, index: u64) -> Result<Feeds>;

    /// The number of micro-batches of one pass over the data.
    fn count(&self) -> u64;

    /// Tokens of a micro-batch, for the speed that is reported.
    fn tokens(&self) -> u64;
}
