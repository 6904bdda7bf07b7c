//! How well mentions are joined.

use super::judge::named;
use super::{Case, Resolver, Verdict};
use crate::error::Result;
use crate::tasks::data::CorefExample;
use crate::tasks::metrics::{Clusters, b_cubed, ceaf_entities, conll_f1, lea, muc};
use std::ops::Range;

/// MUC, B³, CEAF-e, LEA and the CoNLL score, the mean of the F1 of the first three, of given mentions. Clusters of one mention count where the
/// examples have some.
pub(super) fn coref(
    resolver: &mut Resolver,
    examples: &[CorefExample],
    done: &mut dyn FnMut(usize),
) -> Result<Verdict> {
    let texts: Vec<(&str, &[Range<usize>])> =
        examples.iter().map(|example| (example.text.as_str(), example.mentions.as_slice())).collect();
    let found = resolver.resolve(&texts, done)?;
    let alone = examples.iter().any(|example| example.clusters.iter().flatten().any(|cluster| cluster.len() == 1));
    let mut documents: Vec<(Clusters, Clusters)> = Vec::new();
    let mut cases = Vec::new();
    for (example, found) in examples.iter().zip(found) {
        let mut said = found.clusters;
        said.retain(|cluster| alone || cluster.len() > 1);
        let wanted = example.clusters.clone().unwrap_or_default();
        let shown = |clusters: &[Vec<usize>]| {
            let part = |mention: &usize| example.mentions.get(*mention).and_then(|m| example.text.get(m.clone()));
            let one = |cluster: &Vec<usize>| cluster.iter().filter_map(part).collect::<Vec<_>>().join(" = ");
            clusters.iter().map(one).collect::<Vec<_>>().join("; ")
        };
        let sorted = |clusters: &[Vec<usize>]| {
            let mut clusters = clusters.to_vec();
            clusters.sort();
            clusters
        };
        let right = sorted(&wanted) == sorted(&said);
        cases.push(Case { input: example.text.clone(), wanted: shown(&wanted), said: shown(&said), right });
        let names = |clusters: Vec<Vec<usize>>| -> Clusters {
            clusters.into_iter().map(|cluster| cluster.iter().map(usize::to_string).collect()).collect()
        };
        documents.push((names(wanted), names(said)));
    }
    let metrics = named(&[
        ("CoNLL F1", conll_f1(&documents)),
        ("MUC F1", muc(&documents).f1),
        ("B³ F1", b_cubed(&documents).f1),
        ("CEAF-e F1", ceaf_entities(&documents).f1),
        ("LEA F1", lea(&documents).f1),
    ]);
    Ok(Verdict { metrics, cases, ..Verdict::default() })
}
