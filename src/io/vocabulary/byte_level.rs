//! Vocabularies of byte-level merges, as GPT-2 has them: a character for each byte, and merges of neighbours in order.

use super::words::Rule;
use super::{Parts, document, sequence, unmarked};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// The characters for bytes that do not stand for themselves begin here.
const OTHERS: u32 = 0x100;

/// The character for a byte: itself if it prints, else the next of those from U+0100 on.
pub(in crate::io) fn character(byte: u8) -> char {
    let prints = |byte: u8| matches!(byte, 0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff);
    let before = (0..byte).filter(|&byte| !prints(byte)).count() as u32;
    if prints(byte) { char::from(byte) } else { char::from_u32(OTHERS + before).unwrap_or_default() }
}

/// A vocabulary with its merges.
#[derive(Clone, Debug)]
pub(in crate::io) struct ByteLevel<'a> {
    pub(in crate::io) vocabulary: BTreeMap<&'a str, usize>,
    pub(in crate::io) merges: Vec<[String; 2]>,
    pub(in crate::io) rule: Rule,
    /// Tokens that are found in a text first.
    pub(in crate::io) added: Vec<Value>,
    /// Whether some tokens are marked.
    pub(in crate::io) marked: bool,
    /// What is done with a text before; null: nothing.
    pub(in crate::io) normalizer: Value,
}

impl ByteLevel<'_> {
    /// The `tokenizer.json`, with `around` as its post-processor.
    pub(in crate::io) fn document(self, around: Value) -> Value {
        let level = json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true});
        document(Parts {
            added: self.added,
            normalizer: self.normalizer,
            pre_tokenizer: self.rule.pre_tokenizer(),
            around,
            decoder: if self.marked { sequence("decoders", vec![unmarked(), level]) } else { level },
            model: json!({
                "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
                "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false,
                "ignore_merges": self.rule.ignore_merges, "vocab": self.vocabulary, "merges": self.merges,
            }),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn every_byte_has_a_character() {
        let all: HashSet<char> = (0..=255).map(character).collect();
        assert_eq!(all.len(), 256);
        assert_eq!(['\n', ' ', '!', 'é'].map(|c| character(c as u32 as u8)), ['Ċ', 'Ġ', '!', 'é']);
    }
}
