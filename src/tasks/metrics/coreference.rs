//! Coreference: MUC (Vilain et al. 1995) and B³ (Bagga and Baldwin 1998), as the CoNLL scorer computes them.

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
    let sum = |of: &dyn Fn(&(Clusters, Clusters)) -> [usize; 2]| {
        let [kept, links] = documents.iter().map(of).fold([0, 0], |a, b| [a[0] + b[0], a[1] + b[1]]);
        ratio(kept as f64, links as f64)
    };
    Scores::of(sum(&|(key, response)| kept(response, key)), sum(&|(key, response)| kept(key, response)))
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
    let sum = |of: &dyn Fn(&(Clusters, Clusters)) -> [f64; 2]| {
        let [right, all] = documents.iter().map(of).fold([0.0, 0.0], |a, b| [a[0] + b[0], a[1] + b[1]]);
        ratio(right, all)
    };
    Scores::of(sum(&|(key, response)| shares(response, key)), sum(&|(key, response)| shares(key, response)))
}

#[cfg(test)]
mod tests {
    use super::super::cases::{close_scores, file, of};
    use super::*;

    #[test]
    fn values_are_those_of_the_papers_and_the_reference() {
        let file = file("coreference.json");
        for case in of(&file, 20) {
            let documents = case["documents"].as_array().unwrap();
            let clusters = |value: &serde_json::Value| -> Clusters { serde_json::from_value(value.clone()).unwrap() };
            let documents: Vec<(Clusters, Clusters)> =
                documents.iter().map(|d| (clusters(&d["key"]), clusters(&d["response"]))).collect();
            close_scores(muc(&documents), &case["expected"]["muc"], &case["name"]);
            close_scores(b_cubed(&documents), &case["expected"]["b3"], &case["name"]);
        }
    }
}
