//! Coreference: MUC (Vilain et al. 1995), B³ (Bagga and Baldwin 1998), CEAF (Luo 2005) and LEA (Moosavi and Strube 2016), as the CoNLL scorer
//! computes them.

use super::assignment::best_assignment;
use super::{Scores, ratio};
use std::collections::{HashMap, HashSet};

/// The clusters of mentions of a document.
pub type Clusters = Vec<Vec<String>>;

/// The cluster of each mention; of several the last.
fn places(clusters: &[Vec<String>]) -> HashMap<&str, usize> {
    let mentions = clusters.iter().enumerate().flat_map(|(i, cluster)| cluster.iter().map(move |m| (m.as_str(), i)));
    mentions.collect()
}

/// MUC over documents `(key, response)`: links that are kept. A cluster of n mentions that falls into p parts in the other partition keeps n − p of
/// its n − 1 links.
#[must_use]
pub fn muc(documents: &[(Clusters, Clusters)]) -> Scores {
    let kept = |clusters: &Clusters, others: &Clusters| {
        let others = places(others);
        clusters.iter().filter(|cluster| !cluster.is_empty()).fold([0, 0], |[kept, links], cluster| {
            let found: HashSet<usize> = cluster.iter().filter_map(|m| others.get(m.as_str()).copied()).collect();
            let alone = cluster.iter().filter(|m| !others.contains_key(m.as_str())).count();
            [kept + cluster.len() - found.len() - alone, links + cluster.len() - 1]
        })
    };
    both_ways(documents, |clusters, others| kept(clusters, others).map(|count| count as f64))
}

/// Precision and recall from what of clusters the others have, and how much there is of it, summed over documents.
fn both_ways(documents: &[(Clusters, Clusters)], of: impl Fn(&Clusters, &Clusters) -> [f64; 2]) -> Scores {
    let (mut precision, mut recall) = ([0.0; 2], [0.0; 2]);
    for (key, response) in documents {
        let (said, wanted) = (of(response, key), of(key, response));
        (precision, recall) = ([0, 1].map(|i| precision[i] + said[i]), [0, 1].map(|i| recall[i] + wanted[i]));
    }
    Scores::of(ratio(precision[0], precision[1]), ratio(recall[0], recall[1]))
}

/// B³ over documents `(key, response)`: for each mention the share of its cluster that the other partition puts with it.
#[must_use]
pub fn b_cubed(documents: &[(Clusters, Clusters)]) -> Scores {
    let shares = |clusters: &Clusters, others: &Clusters| {
        let others = places(others);
        let of = |cluster: &Vec<String>| {
            let mut counts: HashMap<usize, usize> = HashMap::new();
            cluster.iter().filter_map(|m| others.get(m.as_str())).for_each(|i| *counts.entry(*i).or_default() += 1);
            let mut squares: Vec<usize> = counts.into_values().map(|count| count * count).collect();
            squares.sort_unstable();
            ratio(squares.into_iter().sum::<usize>() as f64, cluster.len() as f64)
        };
        let mentions = clusters.iter().map(Vec::len).sum::<usize>();
        [clusters.iter().map(of).sum::<f64>(), mentions as f64]
    };
    both_ways(documents, shares)
}

/// CEAF-e over documents `(key, response)`: clusters matched one to one for the most similarity, 2 · common / (a + b) mentions.
#[must_use]
pub fn ceaf_entities(documents: &[(Clusters, Clusters)]) -> Scores {
    ceaf(documents, |common, a, b| ratio(2.0 * common, a + b))
}

/// CEAF-m over documents `(key, response)`: clusters matched one to one for the most common mentions.
#[must_use]
pub fn ceaf_mentions(documents: &[(Clusters, Clusters)]) -> Scores {
    ceaf(documents, |common, _, _| common)
}

fn ceaf(documents: &[(Clusters, Clusters)], similarity: impl Fn(f64, f64, f64) -> f64) -> Scores {
    let [mut matched, mut said, mut wanted] = [0.0; 3];
    for (key, response) in documents {
        let of = places(response);
        let row = |cluster: &Vec<String>| -> Vec<f64> {
            let mut common = vec![0.0; response.len()];
            cluster.iter().filter_map(|m| of.get(m.as_str())).for_each(|i| common[*i] += 1.0);
            let both = common.iter().zip(response);
            both.map(|(common, other)| similarity(*common, cluster.len() as f64, other.len() as f64)).collect()
        };
        let table: Vec<Vec<f64>> = key.iter().map(row).collect();
        matched += best_assignment(&table).into_iter().map(|(i, j)| table[i][j]).sum::<f64>();
        let sizes = |clusters: &Clusters| clusters.iter().map(|cluster| cluster.len() as f64).collect::<Vec<_>>();
        let whole = |clusters: &Clusters| sizes(clusters).into_iter().map(|n| similarity(n, n, n)).sum::<f64>();
        (said, wanted) = (said + whole(response), wanted + whole(key));
    }
    Scores::new(matched, said, wanted)
}

/// LEA over documents `(key, response)`: for each cluster, by how many mentions it has, the share of its links that the other partition has. A cluster
/// of one mention has one link, to itself.
#[must_use]
pub fn lea(documents: &[(Clusters, Clusters)]) -> Scores {
    let links = |n: usize| n * n.saturating_sub(1) / 2;
    let resolved = |clusters: &Clusters, others: &Clusters| -> [f64; 2] {
        let of = places(others);
        let share = |cluster: &Vec<String>| match cluster.as_slice() {
            [mention] => {
                let alone = of.get(mention.as_str()).is_some_and(|i| others[*i].len() == 1);
                f64::from(u8::from(alone))
            }
            mentions => {
                let mut common: HashMap<usize, usize> = HashMap::new();
                mentions.iter().filter_map(|m| of.get(m.as_str())).for_each(|i| *common.entry(*i).or_default() += 1);
                let kept: usize = common.into_values().map(links).sum();
                ratio(kept as f64, links(mentions.len()) as f64) * mentions.len() as f64
            }
        };
        [clusters.iter().map(share).sum(), clusters.iter().map(Vec::len).sum::<usize>() as f64]
    };
    both_ways(documents, resolved)
}

/// Mentions over documents `(key, response)`, whatever their clusters.
#[must_use]
pub fn mentions(documents: &[(Clusters, Clusters)]) -> Scores {
    let [mut both, mut said, mut wanted] = [0; 3];
    for (key, response) in documents {
        let [key, response] = [key, response].map(|clusters| clusters.iter().flatten().collect::<HashSet<_>>());
        (both, said, wanted) = (both + key.intersection(&response).count(), said + response.len(), wanted + key.len());
    }
    Scores::new(both as f64, said as f64, wanted as f64)
}

/// The mean F1 of [`muc`], [`b_cubed`] and [`ceaf_entities`] (Pradhan et al. 2012).
#[must_use]
pub fn conll_f1(documents: &[(Clusters, Clusters)]) -> f64 {
    [muc, b_cubed, ceaf_entities].map(|metric| metric(documents).f1).iter().sum::<f64>() / 3.0
}

#[cfg(test)]
mod tests {
    use super::super::cases::{close, close_scores, file, of};
    use super::*;

    #[test]
    fn values_are_those_of_the_papers_and_the_reference() {
        let file = file("coreference.json");
        for case in of(&file, 21) {
            let documents = case["documents"].as_array().unwrap();
            let clusters = |value: &serde_json::Value| -> Clusters { serde_json::from_value(value.clone()).unwrap() };
            let documents: Vec<(Clusters, Clusters)> =
                documents.iter().map(|d| (clusters(&d["key"]), clusters(&d["response"]))).collect();
            let metrics: [(fn(&[(Clusters, Clusters)]) -> Scores, &str); 6] = [
                (muc, "muc"),
                (b_cubed, "b3"),
                (ceaf_entities, "ceafe"),
                (ceaf_mentions, "ceafm"),
                (lea, "lea"),
                (mentions, "mentions"),
            ];
            for (metric, key) in metrics {
                close_scores(metric(&documents), &case["expected"][key], &serde_json::json!([case["name"], key]));
            }
            close(conll_f1(&documents), &case["expected"]["conll_f1"], &case["name"]);
        }
    }
}
