//! Vocabularies of `SentencePiece` (Kudo and Richardson, arXiv 1808.06226): pieces with scores, blanks written as U+2581.

use super::{Parts, added, document, marked, sequence, unmarked};
use serde_json::{Value, json};
use std::borrow::Cow;
use std::collections::{HashMap, HashSet};

/// The character that stands for a blank.
pub(in crate::io) const BLANK: &str = "\u{2581}";

/// What a piece is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::io) enum Kind {
    Normal,
    /// Stands for what has no piece.
    Unknown,
    /// No text.
    Control,
    /// Found in a text before anything is merged.
    UserDefined,
    /// Chosen for no text.
    Unused,
    /// `<0x0A>`.
    Byte,
}

impl Kind {
    /// The kind of that number in files.
    pub(in crate::io) fn of(number: i64) -> Self {
        match number {
            2 => Self::Unknown,
            3 => Self::Control,
            4 => Self::UserDefined,
            5 => Self::Unused,
            6 => Self::Byte,
            _ => Self::Normal,
        }
    }
}

/// A piece of a vocabulary.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::io) struct Piece {
    pub(in crate::io) text: String,
    pub(in crate::io) score: f32,
    pub(in crate::io) kind: Kind,
}

/// How pieces are chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::io) enum Algorithm {
    /// The pieces whose scores have the largest sum (Kudo, arXiv 1804.10959).
    Unigram,
    /// Neighbours whose union has the highest score become one, from single characters on (Sennrich et al., arXiv 1508.07909).
    Merges,
}

/// A vocabulary and what is done with a text before.
#[derive(Clone, Debug)]
pub(in crate::io) struct SentencePiece {
    pub(in crate::io) pieces: Vec<Piece>,
    pub(in crate::io) algorithm: Algorithm,
    /// Replacements of characters, as `SentencePiece` stores them; none if it is empty.
    pub(in crate::io) charsmap: Vec<u8>,
    /// Puts a blank in front of a text.
    pub(in crate::io) begins_with_blank: bool,
    /// Removes blanks around a text and all but one of several.
    pub(in crate::io) removes_blanks: bool,
    /// Steps in front of all.
    pub(in crate::io) normalizers: Vec<Value>,
    /// Whether the blank is put in front of the text alone, and not of what follows a special token, too.
    pub(in crate::io) first_only: bool,
}

impl SentencePiece {
    /// The `tokenizer.json`, with `around` as its post-processor. An error says what is missing.
    pub(in crate::io) fn document(&self, around: Value) -> Result<Value, String> {
        let mut texts: Vec<Cow<'_, str>> = self.pieces.iter().map(|piece| Cow::Borrowed(piece.text.as_str())).collect();
        let mut marks = false;
        let mut seen = HashSet::new();
        for (id, piece) in self.pieces.iter().enumerate() {
            if piece.kind == Kind::Unused || piece.text.is_empty() || !seen.insert(piece.text.as_str()) {
                texts[id] = marked(&piece.text, id).into();
                marks = true;
            }
        }
        let unknown = self.pieces.iter().position(|piece| piece.kind == Kind::Unknown);
        let byte_fallback = self.pieces.iter().any(|piece| piece.kind == Kind::Byte);
        let model = match self.algorithm {
            Algorithm::Merges => json!({
                "type": "BPE", "dropout": null, "unk_token": unknown.map(|id| texts[id].as_ref()),
                "continuing_subword_prefix": null, "end_of_word_suffix": null, "fuse_unk": true,
                "byte_fallback": byte_fallback, "ignore_merges": false,
                "vocab": texts.iter().enumerate().map(|(id, text)| (text.to_string(), json!(id))).collect::<serde_json::Map<_, _>>(),
                "merges": self.merges(),
            }),
            Algorithm::Unigram => {
                let unknown = unknown.ok_or("has no piece for what is unknown, which this kind of vocabulary needs")?;
                let pieces = texts.iter().zip(&self.pieces).map(|(text, piece)| json!([text, piece.score]));
                json!({"type": "Unigram", "unk_id": unknown, "vocab": pieces.collect::<Vec<_>>(), "byte_fallback": byte_fallback})
            }
        };
        let special = self.pieces.iter().zip(&texts).enumerate().filter_map(|(id, (piece, text))| match piece.kind {
            Kind::Control | Kind::Unknown => Some(added(id, text, true)),
            Kind::UserDefined => Some(added(id, text, false)),
            _ => None,
        });
        let blank = |content: &str, pattern: &str| json!({"type": "Replace", "pattern": {"String": pattern}, "content": content});
        let mut decoders = vec![blank(" ", BLANK), json!({"type": "ByteFallback"}), json!({"type": "Fuse"})];
        if marks {
            decoders.insert(0, unmarked());
        }
        if self.begins_with_blank {
            decoders.push(json!({"type": "Strip", "content": " ", "start": 1, "stop": 0}));
        }
        let (normalizer, pre_tokenizer) = self.preparation();
        let parts = Parts {
            added: special.collect(),
            normalizer,
            pre_tokenizer,
            around,
            decoder: sequence("decoders", decoders),
            model,
        };
        Ok(document(parts))
    }

    /// The normaliser and the pre-tokenizer.
    fn preparation(&self) -> (Value, Value) {
        let mut steps = self.normalizers.clone();
        if !self.charsmap.is_empty() {
            steps.push(json!({"type": "Precompiled", "precompiled_charsmap": base64::encode(&self.charsmap)}));
        }
        if self.removes_blanks {
            steps.push(json!({"type": "Strip", "strip_left": true, "strip_right": true}));
            steps.push(json!({"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": " "}));
        }
        if self.first_only {
            let scheme = if self.begins_with_blank { "first" } else { "never" };
            let blank = json!({"type": "Metaspace", "replacement": BLANK, "prepend_scheme": scheme, "split": false});
            return (sequence("normalizers", steps), blank);
        }
        if self.begins_with_blank {
            steps.push(json!({"type": "Prepend", "prepend": BLANK}));
        }
        steps.push(json!({"type": "Replace", "pattern": {"String": " "}, "content": BLANK}));
        (sequence("normalizers", steps), Value::Null)
    }

    /// The pairs of pieces whose union is a piece, those of the highest score first: each way to cut a piece in two.
    fn merges(&self) -> Vec<[&str; 2]> {
        let normal = self.pieces.iter().filter(|piece| piece.kind == Kind::Normal);
        let known: HashMap<&str, f32> = normal.map(|piece| (piece.text.as_str(), piece.score)).collect();
        let mut merges: Vec<(f32, [&str; 2])> = Vec::new();
        for (&text, &score) in &known {
            let cuts = text.char_indices().skip(1).map(|(at, _)| text.split_at(at));
            let both = cuts.filter(|(left, right)| known.contains_key(left) && known.contains_key(right));
            merges.extend(both.map(|(left, right)| (score, [left, right])));
        }
        merges.sort_unstable_by(|(a, left), (b, right)| {
            b.total_cmp(a).then_with(|| right[0].len().cmp(&left[0].len())).then_with(|| left.cmp(right))
        });
        merges.into_iter().map(|(_, pair)| pair).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn merges_go_by_the_score_of_the_whole() {
        let piece = |(text, score): (&str, f32)| Piece { text: text.into(), score, kind: Kind::Normal };
        let pieces = [("a", -9.0), ("b", -9.0), ("c", -9.0), ("bc", -1.0), ("ab", -2.0), ("abc", -3.0), ("xy", 0.0)];
        let vocabulary = SentencePiece {
            pieces: pieces.map(piece).into(),
            algorithm: Algorithm::Merges,
            charsmap: Vec::new(),
            begins_with_blank: true,
            removes_blanks: false,
            normalizers: Vec::new(),
            first_only: false,
        };
        assert_eq!(vocabulary.merges(), [["b", "c"], ["a", "b"], ["ab", "c"], ["a", "bc"]]);
    }
}
