//! How well a text's vector finds the text that belongs to it.

use super::judge::named;
use super::{Case, TextEmbedder, VectorIndex, Verdict};
use crate::error::{Error, Result};
use crate::gpu::Gpu;
use crate::tasks::data::PairExample;
use crate::tasks::metrics::Ranking;

/// Ranks that are looked at.
const DEPTH: usize = 100;

/// Each source among all targets: the mean of one over its own target's rank, 0 behind rank 100, and how often that is among the first. Equal
/// targets count as one.
pub(super) fn pairs(
    embedder: &mut TextEmbedder,
    gpu: &Gpu,
    examples: &[PairExample],
    done: &mut dyn FnMut(usize),
) -> Result<Verdict> {
    let missing = || Error::input("target", "one is missing: pairs of texts are needed");
    let wanted: Vec<&str> =
        examples.iter().map(|example| example.target.as_deref().ok_or_else(missing)).collect::<Result<_>>()?;
    let mut targets = wanted.clone();
    targets.sort_unstable();
    targets.dedup();
    let sources: Vec<&str> = examples.iter().map(|example| example.source.as_str()).collect();
    let vectors = embedder.embed(&targets, &mut |_| ())?;
    let mut index = VectorIndex::new(gpu, &vectors.concat(), embedder.dimensions())?;
    let queries = embedder.embed(&sources, done)?;
    let found = index.search(&queries, DEPTH)?;
    let (mut sums, mut cases) = ([0.0; 3], Vec::new());
    for ((source, wanted), hits) in sources.iter().zip(&wanted).zip(&found) {
        let scores: Vec<f64> = hits.iter().map(|hit| f64::from(hit.score)).collect();
        let said: Vec<&str> = hits.iter().filter_map(|hit| targets.get(hit.number).copied()).collect();
        let relevance: Vec<f64> = said.iter().map(|said| f64::from(u8::from(said == wanted))).collect();
        let ranking =
            Ranking::new(&scores, &relevance).ok_or_else(|| Error::input("examples", "there are none to measure"))?;
        let values = [ranking.reciprocal_rank(DEPTH), ranking.recall(1), ranking.recall(10)];
        sums.iter_mut().zip(values).for_each(|(sum, value)| *sum += value);
        let said = said.first().copied().unwrap_or_default();
        cases.push(Case {
            input: (*source).to_owned(),
            wanted: (*wanted).to_owned(),
            said: said.to_owned(),
            right: said == *wanted,
        });
    }
    let [rank, first, ten] = sums.map(|sum| sum / examples.len().max(1) as f64);
    let metrics = named(&[("MRR", rank), ("recall@1", first), ("recall@10", ten)]);
    Ok(Verdict { metrics, cases, ..Verdict::default() })
}
