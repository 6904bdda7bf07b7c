//! Texts to read and texts to write.

use super::Record;
use super::columns::Columns;
use crate::error::Result;

/// The fields of a source and a target.
const PAIRS: [(&str, &str); 9] = [
    ("source", "target"),
    ("src", "tgt"),
    ("input", "output"),
    ("prompt", "completion"),
    ("prompt", "response"),
    ("question", "answer"),
    ("document", "summary"),
    ("article", "highlights"),
    ("text", "summary"),
];
/// The fields of what follows an instruction.
const RESPONSE: [&str; 3] = ["response", "output", "completion"];

/// A text to read and the text to write for it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PairExample {
    /// The text to read.
    pub source: String,
    /// The text to write; `None` if it is not given.
    pub target: Option<String>,
}

impl PairExample {
    /// The example of a record, by names that belong together such as `source` and `target`. An `instruction` comes in front of a blank line and its
    /// `input`, if that is not empty. Columns by language (`en`, `fr`), also within `translation`, must be given as [`Columns::source`] and
    /// [`Columns::target`].
    ///
    /// # Errors
    /// [`Error::Format`](crate::Error::Format) if there is no source, a given column is missing, or a field holds something else.
    pub fn from_record(record: &Record, columns: &Columns) -> Result<Self> {
        let given = columns.source.is_some() || columns.target.is_some();
        if let Some(instruction) = record.get("instruction").filter(|_| !given) {
            let mut source = instruction.text()?;
            let input = record.get("input").map(|input| input.text()).transpose()?.unwrap_or_default();
            if !input.trim().is_empty() {
                source.push_str("\n\n");
                source.push_str(&input);
            }
            let target = record.find(None, &RESPONSE)?.map(|target| target.text()).transpose()?;
            return Ok(Self { source, target });
        }
        let pair = PAIRS.iter().find_map(|(source, target)| Some((record.get(source)?, record.get(target)?)));
        let (source, target) = match pair.filter(|_| !given) {
            Some((source, target)) => (source, Some(target)),
            None => {
                let [sources, targets]: [Vec<&str>; 2] =
                    [PAIRS.iter().map(|pair| pair.0).collect(), PAIRS.iter().map(|pair| pair.1).collect()];
                // Two languages have no order of their own.
                let known: &[&str] = if record.fields.contains_key("translation") { &[] } else { &sources };
                let source = record.find(columns.source.as_ref(), known)?;
                let source = source.ok_or_else(|| record.missing(&sources))?;
                let targets: &[&str] =
                    if columns.source.is_some() && columns.target.is_none() { &[] } else { &targets };
                (source, record.find(columns.target.as_ref(), targets)?)
            }
        };
        Ok(Self { source: source.text()?, target: target.map(|target| target.text()).transpose()? })
    }
}
