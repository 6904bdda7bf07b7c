//! The quality of a ranking: reciprocal rank, recall and precision at k, average precision, nDCG.

use super::ratio;

/// The relevance of the documents of one query, the best-scored first; above 0 is relevant.
#[derive(Clone, Debug, PartialEq)]
pub struct Ranking {
    relevance: Vec<f64>,
    /// The lengths of runs of equal scores.
    ties: Vec<usize>,
}

impl Ranking {
    /// The ranking by scores, higher first and of equals the earlier document. `None` if there are not as many of both.
    #[must_use]
    pub fn new(scores: &[f64], relevance: &[f64]) -> Option<Self> {
        let mut order: Vec<usize> = (0..scores.len()).collect();
        order.sort_by(|a, b| scores[*b].total_cmp(&(scores[*a] + 0.0)).then(a.cmp(b)));
        let relevance = (scores.len() == relevance.len()).then(|| order.iter().map(|i| relevance[*i]).collect())?;
        let ties = order.chunk_by(|a, b| scores[*a] == scores[*b]).map(<[usize]>::len).collect();
        Some(Self { relevance, ties })
    }

    fn hits(&self, k: usize) -> usize {
        self.relevance.iter().take(k).filter(|relevance| **relevance > 0.0).count()
    }

    /// One over the rank of the first relevant document among the first `k`; 0 without one. Its mean over queries is MRR.
    #[must_use]
    pub fn reciprocal_rank(&self, k: usize) -> f64 {
        let first = self.relevance.iter().take(k).position(|relevance| *relevance > 0.0);
        first.map_or(0.0, |at| 1.0 / (at + 1) as f64)
    }

    /// The share of the relevant documents that are among the first `k`.
    #[must_use]
    pub fn recall(&self, k: usize) -> f64 {
        ratio(self.hits(k) as f64, self.hits(usize::MAX) as f64)
    }

    /// The share of the first `k` places with relevant documents.
    #[must_use]
    pub fn precision(&self, k: usize) -> f64 {
        ratio(self.hits(k) as f64, k as f64)
    }

    /// The mean of the precisions at the ranks of the relevant documents.
    #[must_use]
    pub fn average_precision(&self) -> f64 {
        let ranks = (1..=self.relevance.len()).filter(|rank| self.relevance[rank - 1] > 0.0);
        ratio(ranks.map(|rank| self.precision(rank)).sum(), self.hits(usize::MAX) as f64)
    }

    /// The discounted gain of the first `k`, `Σ relevance / log₂(rank + 1)`, over that of the best order.
    #[must_use]
    pub fn ndcg(&self, k: usize) -> f64 {
        ratio(gain(&self.relevance, k), self.best_gain(k))
    }

    /// As [`Ranking::ndcg`], where documents of equal scores have the mean of their gains (McSherry and Najork 2008).
    #[must_use]
    pub fn ndcg_ties_averaged(&self, k: usize) -> f64 {
        let (mut relevance, mut at) = (self.relevance.clone(), 0);
        for length in &self.ties {
            let tied = &mut relevance[at..at + length];
            let mean = tied.iter().sum::<f64>() / *length as f64;
            tied.fill(mean);
            at += length;
        }
        ratio(gain(&relevance, k), self.best_gain(k))
    }

    fn best_gain(&self, k: usize) -> f64 {
        let mut best = self.relevance.clone();
        best.sort_by(|a, b| b.total_cmp(a));
        gain(&best, k)
    }
}

/// The discounted gain of the first `k`.
fn gain(relevance: &[f64], k: usize) -> f64 {
    relevance.iter().take(k).zip(2_u32..).map(|(gain, rank)| gain / f64::from(rank).log2()).sum()
}

#[cfg(test)]
mod tests {
    use super::super::cases::{close, file, of};
    use super::*;

    #[test]
    fn values_are_those_of_the_reference() {
        let file = file("retrieval.json");
        let cases = of(&file, 20);
        let (mut reciprocal, mut tied) = (0.0, 0);
        for case in cases {
            let numbers = |key: &str| -> Vec<f64> { serde_json::from_value(case[key].clone()).unwrap() };
            let ranking = Ranking::new(&numbers("scores"), &numbers("relevance")).unwrap();
            let expected = &case["expected"];
            for (found, key) in [
                (ranking.reciprocal_rank(usize::MAX), "reciprocal_rank"),
                (ranking.reciprocal_rank(10), "reciprocal_rank@10"),
                (ranking.ndcg(10), "ndcg@10"),
                (ranking.average_precision(), "average_precision"),
                (ranking.recall(1), "recall@1"),
                (ranking.recall(5), "recall@5"),
                (ranking.recall(10), "recall@10"),
                (ranking.precision(1), "precision@1"),
                (ranking.precision(5), "precision@5"),
                (ranking.precision(10), "precision@10"),
            ] {
                close(found, &expected[key], &serde_json::json!([case["name"], key]));
            }
            // scikit-learn has none for a single document.
            if !expected["ndcg@10_ties_averaged"].is_null() {
                close(ranking.ndcg_ties_averaged(10), &expected["ndcg@10_ties_averaged"], &case["name"]);
                tied += 1;
            }
            reciprocal += ranking.reciprocal_rank(usize::MAX) / cases.len() as f64;
        }
        close(reciprocal, &file["mean_of_cases"]["reciprocal_rank"], &file["reference"]);
        assert!(tied >= 19, "{tied} cases of ties");
        assert_eq!(Ranking::new(&[1.0], &[]), None);
    }
}
