//! The inputs of a trainer: an objective and a source of batches.

use super::loss::LossAndStats;
use crate::error::Result;
use crate::graph::{Graph, Storage, Tensor};
use crate::shape::TensorType;

pub use crate::nn::DROPOUT_SEED;

/// A model with a loss to minimise.
pub trait Objective {
    /// The parameters to train: names and types as in a graph with that storage. Beside adapters, a trainer leaves those out that stay
    /// ([`Storage::trains`]).
    ///
    /// # Errors
    /// Those of the model.
    fn parameters(&self, storage: &Storage) -> Result<Vec<(String, TensorType)>>;

    /// Parameters that are saved in checkpoints but not trained, because no gradient reaches them.
    fn frozen(&self) -> Vec<String> {
        Vec::new()
    }

    /// Adds the model with its inputs, and returns the scalar loss of one micro-batch. In training, a model with dropout adds the input
    /// [`DROPOUT_SEED`].
    ///
    /// # Errors
    /// Those of the ops.
    fn loss(&self, g: &mut Graph, training: bool) -> Result<Tensor>;

    /// The loss in training by its parts, so that micro-batches of a step are weighted by their number of labels, and the statistics of routers
    /// for the reports of steps. Without parts all micro-batches have the same weight.
    ///
    /// # Errors
    /// As [`Objective::loss`].
    fn loss_and_stats(&self, g: &mut Graph) -> Result<LossAndStats> {
        Ok(self.loss(g, true)?.into())
    }
}

/// The inputs of one micro-batch: names, and the bytes of GPU memory.
pub type Feeds = Vec<(String, Vec<u8>)>;

/// An endless source of micro-batches with a position.
pub trait BatchSource {
    /// The next micro-batch.
    ///
    /// # Errors
    /// Errors of reading the data.
    fn next_feeds(&mut self) -> Result<Feeds>;

    /// The position of the next micro-batch. Checkpoints save it, and a source created from it continues with the same bytes.
    fn position(&self) -> serde_json::Value;

    /// Tokens of the last micro-batch, or of each, without padding: for the speed that is reported.
    fn tokens(&self) -> u64;

    /// The same with padding, of which the share is reported.
    fn positions(&self) -> u64 {
        self.tokens()
    }
}

/// A batch of held-out data.
#[derive(Clone, Debug, PartialEq)]
pub struct HeldOut {
    /// The inputs.
    pub feeds: Feeds,
    /// The weight of its loss in the mean: the number of labels that are not ignored.
    pub weight: f64,
}
