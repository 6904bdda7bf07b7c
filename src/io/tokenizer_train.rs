//! Making tokenizers: of bytes, of characters, and byte-level BPEs trained on a text.

use super::facts::guarded;
use super::pieces::pieces;
use super::tokenizer::{END_OF_TEXT, PIECE, Tokenizer};
use crate::error::{Error, Result};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use tokenizers::models::bpe::{BPE, BpeTrainer};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::{AddedToken, TokenizerBuilder};

/// The alphabet and the end of a text: no byte-level BPE is smaller.
const SMALLEST_BPE: usize = 257;
/// The largest: merges beyond it are never trained for a model that fits a device.
const LARGEST_BPE: usize = 1 << 20;

impl Tokenizer {
    /// One token a byte: 256 tokens, and every text can be written with them.
    ///
    /// # Errors
    /// None that is known: the tokenizer is made of constants.
    pub fn bytes() -> Result<Self> {
        let vocabulary = (0..=255u8).map(|byte| (byte_character(byte).to_string(), u32::from(byte))).collect();
        let level = json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false, "use_regex": false});
        Self::without_merges("bytes", &vocabulary, &level, &level)
    }

    /// One token a character: those that occur in `text`, in the order of their code points.
    ///
    /// # Errors
    /// [`Error::Input`] if the text is empty.
    pub fn characters(text: &str) -> Result<Self> {
        let alphabet: BTreeSet<char> = text.chars().collect();
        if alphabet.is_empty() {
            return Err(Error::input("text", "is empty: there are no characters to make tokens of"));
        }
        let vocabulary = alphabet.into_iter().zip(0u32..).map(|(c, id)| (c.to_string(), id)).collect();
        Self::without_merges("characters", &vocabulary, &Value::Null, &json!({"type": "Fuse"}))
    }

    fn without_merges(label: &str, vocabulary: &BTreeMap<String, u32>, before: &Value, after: &Value) -> Result<Self> {
        let json = json!({
            "version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "normalizer": null,
            "pre_tokenizer": before, "post_processor": null, "decoder": after,
            "model": {
                "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
                "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "ignore_merges": false,
                "vocab": vocabulary, "merges": [],
            },
        });
        Self::from_json(label, json.to_string())
    }

    /// A byte-level BPE of at most `vocab_size` tokens, trained on a text. The same text gives the same tokenizer.
    ///
    /// # Errors
    /// [`Error::Input`] if the size is below 257 (256 bytes and the end of a text) or the text is empty.
    pub fn train_bpe(text: &str, vocab_size: usize) -> Result<Self> {
        if vocab_size < SMALLEST_BPE {
            let message = format!("is {vocab_size}; a byte-level BPE needs {SMALLEST_BPE} or more, or choose bytes");
            return Err(Error::input("vocabulary size", message));
        }
        if vocab_size > LARGEST_BPE {
            let message = format!("is {vocab_size}; at most {LARGEST_BPE} is supported");
            return Err(Error::input("vocabulary size", message));
        }
        if text.is_empty() {
            return Err(Error::input("text", "is empty: there is nothing to train a tokenizer on"));
        }
        let trained = || -> tokenizers::Result<String> {
            let level = ByteLevel::new(false, false, true);
            let mut tokenizer =
                TokenizerBuilder::<BPE, tokenizers::NormalizerWrapper, _, tokenizers::PostProcessorWrapper, _>::new()
                    .with_model(BPE::default())
                    .with_pre_tokenizer(Some(level))
                    .with_decoder(Some(level))
                    .build()?;
            let mut trainer = BpeTrainer::builder()
                .show_progress(false)
                .vocab_size(vocab_size)
                .min_frequency(2)
                .initial_alphabet((0..=255).map(byte_character).collect())
                .special_tokens(vec![AddedToken::from(END_OF_TEXT, true)])
                .build();
            tokenizer.train(&mut trainer, pieces(text, PIECE).into_iter())?;
            tokenizer.to_string(false)
        };
        const LABEL: &str = "trained BPE";
        let json = guarded(Path::new(LABEL), trained)?
            .map_err(|e| Error::input("text", format!("no BPE could be trained on it: {e}")))?;
        Self::from_json(LABEL, json)
    }
}

/// Special tokens of encoders: in front of a text, behind it and between two, of padding, and for what is masked.
const FRAME: [&str; 4] = ["[CLS]", "[SEP]", "[PAD]", "[MASK]"];

impl Tokenizer {
    /// The same with the tokens that encoders have around texts, `[CLS] a [SEP]` and `[CLS] a [SEP] b [SEP]`, and `[PAD]` and `[MASK]`. A tokenizer
    /// that has such tokens stays as it is.
    ///
    /// # Errors
    /// [`Error::Format`] if the tokenizer is not one that this library made.
    pub fn for_encoder(&self) -> Result<Self> {
        if self.special("cls").is_some() {
            return Ok(self.clone());
        }
        const LABEL: &str = "tokenizer";
        let mut json: Value = serde_json::from_str(self.to_json()).map_err(|e| Error::format(LABEL, e.to_string()))?;
        let ids: Vec<usize> = (self.vocab_size()..).take(FRAME.len()).collect();
        let Some(added) = json["added_tokens"].as_array_mut() else {
            return Err(Error::format(LABEL, "has no list of added_tokens, so that none can be added"));
        };
        added.extend(FRAME.iter().zip(&ids).map(|(token, id)| {
            json!({"id": id, "content": token, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false, "special": true})
        }));
        let special = |at: usize, part: u32| json!({"SpecialToken": {"id": FRAME[at], "type_id": part}});
        let text = |name: &str, part: u32| json!({"Sequence": {"id": name, "type_id": part}});
        let token = |at: usize| json!({"id": FRAME[at], "ids": [ids[at]], "tokens": [FRAME[at]]});
        json["post_processor"] = json!({
            "type": "TemplateProcessing",
            "single": [special(0, 0), text("A", 0), special(1, 0)],
            "pair": [special(0, 0), text("A", 0), special(1, 0), text("B", 1), special(1, 1)],
            "special_tokens": {FRAME[0]: token(0), FRAME[1]: token(1)},
        });
        Self::from_json(LABEL, json.to_string())
    }
}

/// The character that byte-level tokenizers write for a byte: itself if it prints, else one from U+0100 on.
fn byte_character(byte: u8) -> char {
    let prints = |b: u8| matches!(b, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff);
    if prints(byte) {
        return char::from(byte);
    }
    let rank = (0..byte).filter(|&b| !prints(b)).count() as u32;
    char::from_u32(0x100 + rank).unwrap_or(char::REPLACEMENT_CHARACTER)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tokenizer_for_encoders_has_their_tokens_around_texts() {
        let plain = Tokenizer::train_bpe("the cat sat on the mat", 262).unwrap();
        let tokenizer = plain.for_encoder().unwrap();
        let [cls, sep] = ["[CLS]", "[SEP]"].map(|token| tokenizer.id(token).unwrap());
        assert_eq!(tokenizer.vocab_size(), plain.vocab_size() + 4);
        let one = tokenizer.encode_for_model("the cat", None).unwrap();
        assert_eq!((one.ids.first(), one.ids.last()), (Some(&cls), Some(&sep)));
        assert_eq!(one.ids[1..one.ids.len() - 1], plain.encode("the cat").unwrap());
        let two = tokenizer.encode_for_model("the cat", Some("sat")).unwrap();
        assert_eq!(two.ids.iter().filter(|id| **id == sep).count(), 2);
        assert_eq!(two.type_ids.iter().filter(|part| **part == 1).count(), plain.encode("sat").unwrap().len() + 1);
        assert_eq!(tokenizer.for_encoder().unwrap().special("mask"), tokenizer.id("[MASK]"));
    }
}
