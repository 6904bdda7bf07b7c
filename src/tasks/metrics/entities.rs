//! Entities by tags of words, as conlleval and seqeval count them.

use super::{ClassReport, Scores, ratio};
use std::collections::{BTreeMap, HashSet};

/// An entity of a sentence.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Entity {
    /// Its class.
    pub class: String,
    /// Its first word.
    pub first: usize,
    /// Its last word.
    pub last: usize,
}

/// How tags mark entities.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TagScheme {
    /// `B-` on the first word, `I-` on others.
    Iob2,
    /// `S-` on a single word; `B-`, `I-`, `E-` on the first, the inner and the last of several.
    Iobes,
    /// As [`TagScheme::Iobes`] with `U-` and `L-` in place of `S-` and `E-`.
    Bilou,
}

/// The mark and the class of a tag; `None` outside of entities. A tag without a mark is inside of its class.
fn parts(tag: &str) -> Option<(char, &str)> {
    let mut rest = tag.chars();
    match (tag, rest.next(), rest.as_str()) {
        ("O" | "", ..) | (_, None, _) => None,
        (_, Some(mark), "") => Some((mark, "_")),
        (_, Some(mark), rest) => Some(rest.strip_prefix('-').map_or(('I', tag), |class| (mark, class))),
    }
}

/// The entities of a sentence as conlleval reads tags (Tjong Kim Sang and De Meulder 2003): `B-`, `S-`, another class, and whatever follows `O`, `E-`
/// or `S-` begin one.
#[must_use]
pub fn entities<T: AsRef<str>>(tags: &[T]) -> Vec<Entity> {
    let mut found: Vec<Entity> = Vec::new();
    let mut before = None;
    for (at, tag) in tags.iter().enumerate() {
        let now = parts(tag.as_ref());
        if let Some((mark, class)) = now {
            let goes_on = |(last, of): (char, &str)| {
                of == class && !matches!(mark, 'B' | 'S' | 'U') && !matches!(last, 'E' | 'S' | 'L' | 'U')
            };
            match found.last_mut() {
                Some(entity) if before.is_some_and(goes_on) => entity.last = at,
                _ => found.push(Entity { class: class.to_owned(), first: at, last: at }),
            }
        }
        before = now;
    }
    found
}

/// The entities of a sentence whose tags follow a scheme from the first word to the one behind the last, as seqeval's strict mode has them.
#[must_use]
pub fn strict_entities<T: AsRef<str>>(tags: &[T], scheme: TagScheme) -> Vec<Entity> {
    let [single, end] = match scheme {
        TagScheme::Iob2 => [None, None],
        TagScheme::Iobes => [Some('S'), Some('E')],
        TagScheme::Bilou => [Some('U'), Some('L')],
    };
    let parts: Vec<_> = tags.iter().map(|tag| parts(tag.as_ref())).collect();
    let (mut found, mut at) = (Vec::new(), 0);
    while let Some(tag) = parts.get(at) {
        let first = at;
        at += 1;
        let Some((begin, class)) = *tag else { continue };
        if begin != 'B' && Some(begin) != single {
            continue;
        }
        let mut last = begin;
        while let Some(Some((mark, of))) = parts.get(at)
            && *of == class
            && matches!(last, 'B' | 'I')
            && (*mark == 'I' || Some(*mark) == end)
        {
            last = *mark;
            at += 1;
        }
        if scheme == TagScheme::Iob2 || Some(last) == single || Some(last) == end {
            found.push(Entity { class: class.to_owned(), first, last: at - 1 });
        }
    }
    found
}

/// The counts of true, predicted and right entities of each class.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EntityCounts {
    by_class: BTreeMap<String, [u64; 3]>,
}

/// The averages over the classes of entities.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct EntityAverages {
    /// Of all entities together.
    pub micro: Scores,
    /// Of the classes alike that are true or predicted somewhere.
    pub macro_: Scores,
    /// By how many are of each class.
    pub weighted: Scores,
}

impl EntityCounts {
    /// Adds a sentence. A predicted entity is right if its class and both its ends are.
    pub fn add(&mut self, truth: &[Entity], predicted: &[Entity]) {
        let (truth, predicted): (HashSet<_>, HashSet<_>) = (truth.iter().collect(), predicted.iter().collect());
        let mut count = |entity: &Entity, column: usize| {
            self.by_class.entry(entity.class.clone()).or_default()[column] += 1;
        };
        truth.iter().for_each(|entity| count(entity, 0));
        predicted.iter().for_each(|entity| count(entity, 1));
        truth.intersection(&predicted).for_each(|entity| count(entity, 2));
    }

    /// The scores of each class that is true or predicted somewhere.
    #[must_use]
    pub fn by_class(&self) -> BTreeMap<&str, ClassReport> {
        self.by_class.iter().map(|(class, counts)| (class.as_str(), report(*counts))).collect()
    }

    /// The averages; `None` if there is no entity at all.
    #[must_use]
    pub fn averages(&self) -> Option<EntityAverages> {
        let reports: Vec<ClassReport> = self.by_class.values().map(|counts| report(*counts)).collect();
        let all = self.by_class.values().fold([0; 3], |sum, counts| [0, 1, 2].map(|i| sum[i] + counts[i]));
        let mean =
            |weight: &dyn Fn(&ClassReport) -> f64| Scores::weighted(reports.iter().map(|r| (weight(r), r.scores)));
        (!reports.is_empty()).then(|| EntityAverages {
            micro: report(all).scores,
            macro_: mean(&|_| 1.0),
            weighted: mean(&|report| report.support as f64),
        })
    }
}

fn report([support, said, right]: [u64; 3]) -> ClassReport {
    ClassReport { scores: Scores::new(right as f64, said as f64, support as f64), support }
}

/// The share of words with the right tag. `None` if there are not as many of both.
#[must_use]
pub fn tag_accuracy<T: PartialEq>(truth: &[Vec<T>], predicted: &[Vec<T>]) -> Option<f64> {
    let pairs = || truth.iter().zip(predicted);
    let alike = truth.len() == predicted.len() && pairs().all(|(a, b)| a.len() == b.len());
    let right: usize = pairs().map(|(a, b)| a.iter().zip(b).filter(|(a, b)| a == b).count()).sum();
    alike.then(|| ratio(right as f64, truth.iter().map(Vec::len).sum::<usize>() as f64))
}

#[cfg(test)]
mod tests {
    use super::super::cases::{close, file, of};
    use super::*;
    use serde_json::{Value, json};

    #[test]
    fn values_are_those_of_seqeval() {
        let file = file("entities.json");
        for case in of(&file, 18) {
            let tags = |key: &str| -> Vec<Vec<String>> { serde_json::from_value(case[key].clone()).unwrap() };
            let (truth, predicted, expected) = (tags("true"), tags("predicted"), &case["expected"]);
            close(tag_accuracy(&truth, &predicted).unwrap(), &expected["token_accuracy"], &case["name"]);
            let scheme = if case["scheme"] == "IOBES" { TagScheme::Iobes } else { TagScheme::Iob2 };
            let strict = |tags: &Vec<String>| strict_entities(tags, scheme);
            let default = |tags: &Vec<String>| entities(tags);
            let readings: [(&str, &dyn Fn(&Vec<String>) -> Vec<Entity>); 2] =
                [("default", &default), ("strict", &strict)];
            for (reading, read) in readings {
                let name = json!([case["name"], reading]);
                let found = [&truth, &predicted].map(|tags| tags.iter().map(read).collect::<Vec<_>>());
                for (found, key) in found.iter().zip(["entities_true", "entities_predicted"]) {
                    let listed = |e: &Entity| json!([e.class, e.first, e.last]);
                    let listed: Vec<Vec<Value>> = found.iter().map(|s| s.iter().map(listed).collect()).collect();
                    assert_eq!(json!(listed), expected[reading][key], "{name}");
                }
                let mut counts = EntityCounts::default();
                found[0].iter().zip(&found[1]).for_each(|(truth, predicted)| counts.add(truth, predicted));
                check(&counts, &expected[reading]["report"], &name);
            }
        }
        assert_eq!(tag_accuracy(&[vec!["O"]], &[vec![]]), None);
    }

    fn check(counts: &EntityCounts, expected: &Value, name: &Value) {
        let Some(expected) = expected.as_object() else {
            assert_eq!(counts.averages(), None, "{name}");
            return;
        };
        let scores = |found: Scores, key: &str| {
            for (value, part) in [(found.precision, "precision"), (found.recall, "recall"), (found.f1, "f1-score")] {
                close(value, &expected[key][part], &json!([name, key]));
            }
        };
        let averages = counts.averages().unwrap();
        scores(averages.micro, "micro avg");
        scores(averages.macro_, "macro avg");
        scores(averages.weighted, "weighted avg");
        let classes = counts.by_class();
        assert_eq!(classes.len() + 3, expected.len(), "{name}");
        for (class, report) in classes {
            scores(report.scores, class);
            assert_eq!(json!(report.support), expected[class]["support"], "{name}");
        }
    }

    #[test]
    fn odd_tags_are_read() {
        let found = |tags: &[&str]| -> Vec<(String, usize, usize)> {
            entities(tags).into_iter().map(|e| (e.class, e.first, e.last)).collect()
        };
        assert_eq!(found(&["U-A", "U-A", "B-B", "L-B"]), [("A".into(), 0, 0), ("A".into(), 1, 1), ("B".into(), 2, 3)]);
        assert_eq!(found(&["PER", "PER", "", "B", "I", "B-x-y", "É"]).len(), 4);
        assert_eq!(strict_entities(&["B-A", "L-A", "U-A", "B-A"], TagScheme::Bilou).len(), 2);
    }
}
