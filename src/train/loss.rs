//! The loss and statistics of a micro-batch, and its weight in a step.

use super::objective::Feeds;
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::graph::{Graph, Tensor};
use crate::nn::RouterStats;
use crate::ops;

/// The prefix of an input of labels for the input of its weight.
const WEIGHT: &str = "optimizer.weight.";

/// A part of a loss that is a mean over labels that are not ignored.
#[derive(Clone, Debug)]
pub struct LabelMean {
    /// The mean, times its factor in the loss: a scalar.
    pub loss: Tensor,
    /// The labels.
    pub labels: Labels,
}

/// An input of labels, i32. Labels outside `0..classes` are ignored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Labels {
    /// The input's name.
    pub name: String,
    /// Classes.
    pub classes: usize,
}

/// The result of a micro-batch: a loss, and statistics that are reported with it.
///
/// A step treats its micro-batches as one batch: means over labels are over the labels of all micro-batches, and the rest of the loss is the
/// mean over the micro-batches.
#[derive(Clone, Debug, Default)]
pub struct LossAndStats {
    /// The means over labels.
    pub means: Vec<LabelMean>,
    /// A scalar in which every micro-batch has the same weight: the losses of routers, or a loss without labels.
    pub even: Option<Tensor>,
    /// Statistics of routers, from [`crate::models::Hidden::routers`]. The step sums them over its micro-batches.
    pub routers: Vec<RouterStats>,
}

/// A loss without labels and routers.
impl From<Tensor> for LossAndStats {
    fn from(loss: Tensor) -> Self {
        Self { even: Some(loss), ..Self::default() }
    }
}

impl LossAndStats {
    /// A mean over the labels of the input `name` in `0..classes`.
    #[must_use]
    pub fn over(loss: Tensor, name: &str, classes: usize) -> Self {
        Self::default().and(loss, name, classes)
    }

    /// The same with one more mean.
    #[must_use]
    pub fn and(mut self, loss: Tensor, name: &str, classes: usize) -> Self {
        self.means.push(LabelMean { loss, labels: Labels { name: name.into(), classes } });
        self
    }

    /// The loss: the sum of all parts.
    ///
    /// # Errors
    /// [`Error::Graph`] if there is none.
    pub fn loss(&self, g: &mut Graph) -> Result<Tensor> {
        sum(g, self.means.iter().map(|mean| mean.loss).chain(self.even))
    }

    /// The loss with each mean times an input with its weight.
    pub(super) fn weighted(&self, g: &mut Graph) -> Result<Tensor> {
        let mut parts = Vec::new();
        for LabelMean { loss, labels } in &self.means {
            let name = weight_name(labels);
            let weight = match g.find(&name) {
                Some(weight) => weight,
                None => g.input(&name, g.shape(*loss).clone(), DType::F32)?,
            };
            parts.push(ops::mul(g, *loss, weight)?);
        }
        sum(g, parts.into_iter().chain(self.even))
    }

    /// The labels of the means, each input once.
    #[must_use]
    pub fn labels(&self) -> Vec<Labels> {
        let mut labels: Vec<Labels> = Vec::new();
        for mean in &self.means {
            if labels.iter().all(|known| known.name != mean.labels.name) {
                labels.push(mean.labels.clone());
            }
        }
        labels
    }
}

fn sum(g: &mut Graph, mut parts: impl Iterator<Item = Tensor>) -> Result<Tensor> {
    let first = parts.next().ok_or_else(|| Error::Graph("the objective returned no loss".into()))?;
    parts.try_fold(first, |sum, part| ops::add(g, sum, part))
}

fn weight_name(labels: &Labels) -> String {
    format!("{WEIGHT}{}", labels.name)
}

impl Labels {
    /// The number of labels of a micro-batch that are not ignored.
    ///
    /// # Errors
    /// [`Error::Input`] if the micro-batch lacks the labels.
    pub fn counted(&self, feeds: &Feeds) -> Result<usize> {
        let Some((_, bytes)) = feeds.iter().find(|(name, _)| *name == self.name) else {
            let message = "a micro-batch lacks these labels, which determine its weight in the step's loss";
            return Err(Error::input(&self.name, message));
        };
        let labels = bytes.as_chunks::<4>().0.iter().map(|bytes| i32::from_le_bytes(*bytes));
        Ok(labels.filter(|label| usize::try_from(*label).is_ok_and(|label| label < self.classes)).count())
    }
}

/// Additional inputs of a step's micro-batches: the weights of their means, `K n / Σ n` for K micro-batches (of which the step takes the mean)
/// with n labels each that are not ignored.
///
/// # Errors
/// Those of [`Labels::counted`].
pub fn label_weights(labels: &[Labels], batches: &[Feeds]) -> Result<Vec<Feeds>> {
    let mut weights = vec![Feeds::new(); batches.len()];
    for labels in labels {
        let counts: Vec<usize> = batches.iter().map(|feeds| labels.counted(feeds)).collect::<Result<_>>()?;
        let all: usize = counts.iter().sum();
        for (feeds, count) in weights.iter_mut().zip(counts) {
            // If all labels are ignored, all means are 0.
            let weight = if all == 0 { 1.0 } else { (batches.len() * count) as f64 / all as f64 };
            feeds.push((weight_name(labels), (weight as f32).to_le_bytes().to_vec()));
        }
    }
    Ok(weights)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn feeds(labels: &[i32]) -> Feeds {
        vec![("labels".into(), labels.iter().flat_map(|label| label.to_le_bytes()).collect())]
    }

    #[test]
    fn a_micro_batch_weighs_by_the_labels_that_count() {
        let labels = [Labels { name: "labels".into(), classes: 7 }];
        let weights = |batches: &[Feeds]| -> Vec<f32> {
            let all = label_weights(&labels, batches).unwrap().concat();
            assert!(all.iter().all(|(name, _)| name == "optimizer.weight.labels"));
            all.iter().map(|(_, bytes)| f32::from_le_bytes(bytes[..].try_into().unwrap())).collect()
        };
        assert_eq!(weights(&[feeds(&[0, 6, -100, 7]), feeds(&[1, 2, 3, 4, 5, 6])]), [0.5, 1.5]);
        assert_eq!(weights(&[feeds(&[-100]), feeds(&[3])]), [0.0, 2.0]);
        assert_eq!(weights(&[feeds(&[-100]), feeds(&[-1])]), [1.0, 1.0]);
        let error = label_weights(&labels, &[vec![("ids".into(), Vec::new())]]).unwrap_err().to_string();
        assert!(error.contains("labels: a micro-batch lacks these labels"), "{error}");
    }

    #[test]
    fn two_means_over_the_same_labels_share_their_weight() {
        let mut g = Graph::new();
        let [a, b, c] = ["a", "b", "c"].map(|name| g.input(name, [1], DType::F32).unwrap());
        let measured = LossAndStats { even: Some(c), ..LossAndStats::over(a, "labels", 5).and(b, "labels", 5) };
        assert_eq!(measured.labels().len(), 1);
        let loss = measured.weighted(&mut g).unwrap();
        let values = [("a", 2.0), ("b", 3.0), ("c", 10.0), ("optimizer.weight.labels", 0.5)];
        let values = values.map(|(name, x)| (name.to_owned(), crate::graph::Array::new([1], vec![x]).unwrap()));
        assert_eq!(g.evaluate(&values.into_iter().collect(), &[loss]).unwrap()[0].data, [12.5]);
        assert!(LossAndStats::default().loss(&mut g).is_err());
    }
}
