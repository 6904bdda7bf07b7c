//! What is trained, and on what: the two things a trainer is given.

use super::measured::Measured;
use crate::error::Result;
use crate::graph::{Graph, Storage, Tensor};
use crate::shape::TensorType;

/// The input that a model with dropout reads its seed from, `(2)` u32. The trainer writes it.
pub const DROPOUT_SEED: &str = "dropout_seed";

/// A model with a loss that is to fall.
pub trait Objective {
    /// The parameters to train: names and types as a graph with that storage asks for them.
    ///
    /// # Errors
    /// Those of the model.
    fn parameters(&self, storage: &Storage) -> Result<Vec<(String, TensorType)>>;

    /// Those of the parameters that do not learn: what checkpoints keep, and no gradient reaches.
    fn frozen(&self) -> Vec<String> {
        Vec::new()
    }

    /// Adds the model, with inputs of its own, and gives the scalar loss of one micro-batch. In training, a model with
    /// dropout adds the input [`DROPOUT_SEED`].
    ///
    /// # Errors
    /// Those of the ops.
    fn loss(&self, g: &mut Graph, training: bool) -> Result<Tensor>;

    /// The loss in training by its parts, so that micro-batches of a step weigh by their labels that count, and what the routers of the
    /// model do, if that is to come with the reports of steps. Without parts all micro-batches weigh the same.
    ///
    /// # Errors
    /// As [`Objective::loss`].
    fn measured(&self, g: &mut Graph) -> Result<Measured> {
        Ok(self.loss(g, true)?.into())
    }
}

/// The inputs of one micro-batch: names, and bytes as they lie in GPU memory.
pub type Feeds = Vec<(String, Vec<u8>)>;

/// An endless supply of micro-batches that knows where it stands.
pub trait BatchSource {
    /// The next micro-batch.
    ///
    /// # Errors
    /// Whatever keeps the data from being read.
    fn next_feeds(&mut self) -> Result<Feeds>;

    /// Where the next micro-batch begins. A checkpoint keeps it, and a source made from it goes on with the same bytes.
    fn position(&self) -> serde_json::Value;

    /// Tokens of a micro-batch, for the speed that is reported.
    fn tokens(&self) -> u64;
}

/// A batch of held-out data.
#[derive(Clone, Debug, PartialEq)]
pub struct HeldOut {
    /// The inputs.
    pub feeds: Feeds,
    /// The weight of its loss in the mean: how many labels count.
    pub weight: f64,
}
