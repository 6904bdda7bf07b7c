//! Texts with mentions, and which of them are of the same.

use super::Record;
use super::columns::{Columns, byte_of};
use crate::error::Result;
use serde_json::Value;
use std::ops::Range;

/// The fields of a text.
const TEXT: [&str; 4] = ["text", "document", "content", "body"];

/// A text with mentions, which lie on borders of characters, and clusters of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CorefExample {
    /// The text.
    pub text: String,
    /// The mentions, in bytes, in the order of their beginnings, of equal ones the longer first; none is there twice.
    pub mentions: Vec<Range<usize>>,
    /// Which mentions are of the same, by their numbers; `None` if it is not given.
    pub clusters: Option<Vec<Vec<usize>>>,
}

impl CorefExample {
    /// The example of a record: `text`; `mentions`, a list of `{"start", "end"}` or `[start, end]` in characters (code points), `end` one past the
    /// last; `clusters`, a list of lists of mentions, each by its number in `mentions`, from 0, or by its place in the same form.
    ///
    /// # Errors
    /// [`Error::Format`](crate::Error::Format) if there is no text, a mention lies outside of it or stands in two clusters, or a field holds
    /// something else.
    pub fn from_record(record: &Record, columns: &Columns) -> Result<Self> {
        let text = record.require(columns.text.as_ref(), &TEXT)?.text()?;
        // Where characters begin, and where the text ends.
        let place = |value: &Value| -> Result<Range<usize>> {
            let ends = match value.as_array().map(Vec::as_slice) {
                Some([start, end]) => [start.as_u64(), end.as_u64()],
                _ => [value["start"].as_u64(), value["end"].as_u64()],
            };
            let byte = |at: Option<u64>| byte_of(&text, usize::try_from(at?).ok()?);
            match ends.map(byte) {
                [Some(start), Some(end)] if start < end => Ok(start..end),
                _ => {
                    let length = text.chars().count();
                    let message = format!(
                        "{value} is no mention: write {{\"start\": 0, \"end\": 4}} in characters, of which the text has {length}"
                    );
                    Err(record.error(message))
                }
            }
        };
        let list = |name: &str, value: &Value| -> Result<Vec<Value>> {
            let list = value.as_array().cloned();
            list.ok_or_else(|| record.error(format!("{name:?} is {value}, a list was expected")))
        };
        let numbered: Vec<Range<usize>> = match record.get("mentions") {
            Some(field) => list("mentions", field.value)?.iter().map(place).collect::<Result<_>>()?,
            None => Vec::new(),
        };
        let mut mentions = numbered.clone();
        let mut clusters: Option<Vec<Vec<Range<usize>>>> = None;
        if let Some(field) = record.get("clusters") {
            let mut found = Vec::new();
            for cluster in list("clusters", field.value)? {
                let mut one = Vec::new();
                for entry in list("clusters", &cluster)? {
                    one.push(match entry.as_u64() {
                        Some(number) => {
                            let known = usize::try_from(number).ok().and_then(|number| numbered.get(number)).cloned();
                            let count = numbered.len();
                            known
                                .ok_or_else(|| record.error(format!("there is no mention {number}: it has {count}")))?
                        }
                        None => place(&entry)?,
                    });
                }
                mentions.extend(one.iter().cloned());
                found.push(one);
            }
            clusters = Some(found);
        }
        mentions.sort_by_key(|mention| (mention.start, std::cmp::Reverse(mention.end)));
        mentions.dedup();
        let number = |mention: &Range<usize>| mentions.iter().position(|known| known == mention);
        let clusters = clusters.map(|clusters| {
            let ids = |cluster: &Vec<Range<usize>>| {
                let mut ids: Vec<usize> = cluster.iter().filter_map(number).collect();
                ids.sort_unstable();
                ids.dedup();
                ids
            };
            clusters.iter().map(ids).filter(|ids| !ids.is_empty()).collect::<Vec<_>>()
        });
        let mut seen = vec![false; mentions.len()];
        for &id in clusters.iter().flatten().flatten() {
            if std::mem::replace(&mut seen[id], true) {
                let mention = text.get(mentions[id].clone()).unwrap_or_default();
                return Err(record.error(format!("the mention {mention:?} is in two clusters")));
            }
        }
        Ok(Self { text, mentions, clusters })
    }

    /// For each mention the number of its cluster.
    #[must_use]
    pub fn cluster_of(&self) -> Vec<Option<usize>> {
        let mut of = vec![None; self.mentions.len()];
        for (number, cluster) in self.clusters.iter().flatten().enumerate() {
            for mention in cluster {
                if let Some(of) = of.get_mut(*mention) {
                    *of = Some(number);
                }
            }
        }
        of
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Format, ReadOptions, read_records};
    use super::*;
    use crate::error::Error;

    fn example(json: &str) -> std::result::Result<CorefExample, Error> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.jsonl");
        std::fs::write(&path, json).unwrap();
        let records = read_records(&[path], &ReadOptions::default())?;
        CorefExample::from_record(&records[0], &Columns::default())
    }

    #[test]
    fn mentions_and_clusters_are_read_in_both_forms() {
        let text = r#""text": "🙂 Anna said\u00a0she saw Bob.", "mentions": [{"start": 12, "end": 15}, [2, 6]]"#;
        let by_number = example(&format!("{{{text}, \"clusters\": [[1, 0]]}}")).unwrap();
        let parts: Vec<&str> = by_number.mentions.iter().map(|m| &by_number.text[m.clone()]).collect();
        assert_eq!((parts, by_number.clusters.clone()), (vec!["Anna", "she"], Some(vec![vec![0, 1]])));
        let by_place =
            example(&format!(r#"{{{text}, "clusters": [[[2, 6], {{"start": 12, "end": 15}}], [[20, 23]]]}}"#));
        let by_place = by_place.unwrap();
        assert_eq!((by_place.mentions.len(), by_place.clusters.clone()), (3, Some(vec![vec![0, 1], vec![2]])));
        assert_eq!(by_place.cluster_of(), [Some(0), Some(0), Some(1)]);
        assert_eq!(example(r#"{"text": "a"}"#).unwrap(), CorefExample { text: "a".into(), ..Default::default() });
        for (more, wanted) in [
            ("\"clusters\": [[0], [0, 1]]", "is in two clusters"),
            ("\"clusters\": [[7]]", "there is no mention 7: it has 2"),
            ("\"clusters\": [3]", "a list was expected"),
            ("\"clusters\": [[[5, 5]]]", "is no mention"),
            ("\"clusters\": [[[5, 99]]]", "of which the text has 24"),
            ("\"clusters\": [[{}]]", "is no mention"),
        ] {
            let said = example(&format!("{{{text}, {more}}}")).unwrap_err().to_string();
            assert!(said.contains(wanted), "{said}");
        }
    }

    #[test]
    fn documents_of_conll_2012_are_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.v4_gold_conll");
        let row = |word: &str, coref: &str| format!("bc/x 0 0 {word} NN * - - - - * {coref}\n");
        let mut text = "#begin document (bc/x); part 000\n".to_owned();
        text += &[("Anna", "(3|(1"), ("Smith", "1)"), ("'s", "3)"), ("dog", "-"), ("barks", "-")]
            .map(|(word, coref)| row(word, coref))
            .concat();
        text += "\n";
        text += &[("She", "(1)"), ("smiles", "-")].map(|(word, coref)| row(word, coref)).concat();
        text += "\n#end document\n#begin document (bc/x); part 001\n";
        text += &row("Bob", "(2)");
        text += "#end document\n";
        std::fs::write(&path, &text).unwrap();
        for format in [None, Some(Format::Conll)] {
            let options = ReadOptions { format, ..ReadOptions::default() };
            let records = read_records(std::slice::from_ref(&path), &options).unwrap();
            assert_eq!(records.len(), 2);
            let one = CorefExample::from_record(&records[0], &Columns::default()).unwrap();
            assert_eq!(one.text, "Anna Smith 's dog barks She smiles");
            let clusters: Vec<Vec<&str>> = one
                .clusters
                .iter()
                .flatten()
                .map(|cluster| cluster.iter().map(|m| &one.text[one.mentions[*m].clone()]).collect())
                .collect();
            assert_eq!(clusters, [vec!["Anna Smith", "She"], vec!["Anna Smith 's"]]);
        }
        for (wrong, wanted) in [("(1", "is not closed"), ("1)", "is not opened"), ("x", "no mark of mentions")] {
            let text = format!("#begin document (x); part 000\n{}#end document\n", row("a", wrong));
            std::fs::write(&path, text).unwrap();
            let said = read_records(std::slice::from_ref(&path), &ReadOptions::default()).unwrap_err().to_string();
            assert!(said.contains(wanted), "{said}");
        }
    }
}
