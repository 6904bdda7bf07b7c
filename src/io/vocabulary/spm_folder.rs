//! Tokenizers of folders with a file of `SentencePiece`: which number each piece has, what is around a text, by the class that read them.

use super::files::{Folder, MOST_ADDED, numbered};
use super::sentencepiece::{Algorithm, BLANK, Kind, Piece, SentencePiece};
use super::{Around, Mark, Part, spm_file, template};
use crate::error::{Error, Result};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::Path;

/// Marian's pieces of a source text, and of its translation.
pub(super) const SOURCE: &str = "source.spm";
const TARGET: &str = "target.spm";
/// The numbers of pieces of both, and of translations where they have others.
const NUMBERS: &str = "vocab.json";
const TARGET_NUMBERS: &str = "target_vocab.json";
/// mBART's languages, which have tokens behind all pieces in this order; those behind the first 25 are mBART-50's.
const LANGUAGES: [&str; 52] = [
    "ar_AR", "cs_CZ", "de_DE", "en_XX", "es_XX", "et_EE", "fi_FI", "fr_XX", "gu_IN", "hi_IN", "it_IT", "ja_XX",
    "kk_KZ", "ko_KR", "lt_LT", "lv_LV", "my_MM", "ne_NP", "nl_XX", "ro_RO", "ru_RU", "si_LK", "tr_TR", "vi_VN",
    "zh_CN", "af_ZA", "az_AZ", "bn_IN", "fa_IR", "he_IL", "hr_HR", "id_ID", "ka_GE", "km_KH", "mk_MK", "ml_IN",
    "mn_MN", "mr_IN", "pl_PL", "ps_AF", "pt_XX", "sv_SE", "sw_KE", "ta_IN", "te_IN", "th_TH", "tl_XX", "uk_UA",
    "ur_PK", "xh_ZA", "gl_ES", "sl_SI",
];

fn piece(text: impl Into<String>, kind: Kind) -> Piece {
    Piece { text: text.into(), score: 0.0, kind }
}

impl Folder {
    fn spm(&self) -> Result<SentencePiece> {
        self.spm_of(&self.file)
    }

    fn spm_of(&self, path: &Path) -> Result<SentencePiece> {
        let bytes = std::fs::read(path).map_err(|e| Error::file(path, e))?;
        let with_hint = |message| Error::format(path, format!("{message}; a tokenizer.json beside it works as well"));
        spm_file::read(&bytes).map_err(with_hint)
    }

    /// The document of a vocabulary with the tokens that were added to it, and these around a text; `types`: a second text has another type.
    fn with_added(&self, mut spm: SentencePiece, [before, behind]: [Option<&str>; 2], types: bool) -> Result<Value> {
        let all = self.added()?;
        for (&id, token) in &all {
            if id >= spm.pieces.len() + MOST_ADDED {
                return Err(
                    self.refuse(format!("has {} tokens, and {id} is the number of an added one", spm.pieces.len()))
                );
            }
            let empty = Piece { text: String::new(), score: 0.0, kind: Kind::Unused };
            spm.pieces.resize(spm.pieces.len().max(id + 1), empty);
            let kind = if token["special"] == true { Kind::Control } else { Kind::UserDefined };
            let piece = &mut spm.pieces[id];
            if piece.kind != Kind::Unknown {
                *piece =
                    Piece { text: token["content"].as_str().unwrap_or_default().to_owned(), score: piece.score, kind };
            }
        }
        // They are found before blanks are replaced.
        for piece in spm.pieces.iter_mut().filter(|piece| piece.kind == Kind::UserDefined) {
            piece.text = piece.text.replace(BLANK, " ");
        }
        let find = |token: Option<&str>| {
            let token = token?;
            let id = spm.pieces.iter().position(|piece| piece.text == token && piece.kind == Kind::Control)?;
            Some(Mark { token: &spm.pieces[id].text, id })
        };
        let around = Around { before: find(before), behind: find(behind), types }.to_json();
        let mut document = spm.document(around).map_err(|message| self.refuse(message))?;
        for token in document["added_tokens"].as_array_mut().into_iter().flatten() {
            let id = token["id"].as_u64().and_then(|id| usize::try_from(id).ok());
            if let Some(own) = id.and_then(|id| all.get(&id)) {
                let content = token["content"].take();
                *token = own.clone();
                token["content"] = content;
            }
        }
        Ok(document)
    }
}

/// Llama, Mistral, Gemma and those like them.
pub(super) fn llama(folder: &Folder) -> Result<Value> {
    let mut spm = folder.spm()?;
    if !folder.is_of(
        &["Llama", "CodeLlama", "Gemma"],
        &["llama", "mistral", "mixtral", "phi3", "gemma", "gemma2", "gemma3", "gemma3_text", "mor"],
    ) {
        return Err(folder.unknown());
    }
    // Later versions put the blank in front of the text alone.
    spm.first_only = !folder.flag("legacy", true) && folder.class() != "GemmaTokenizer";
    spm.begins_with_blank = folder.flag("add_prefix_space", spm.begins_with_blank);
    let (before, behind) = (folder.token("bos", "<s>"), folder.token("eos", "</s>"));
    let before = Some(before.as_str()).filter(|_| folder.flag("add_bos_token", true));
    let behind = Some(behind.as_str()).filter(|_| folder.flag("add_eos_token", false));
    folder.with_added(spm, [before, behind], false)
}

/// T5, ALBERT and Pegasus.
pub(super) fn spiece(folder: &Folder) -> Result<Value> {
    let mut spm = folder.spm()?;
    let step = |kind: &str| json!({ "type": kind });
    if folder.is_of(&["Albert"], &["albert"]) {
        let quotes = |of: &str| json!({"type": "Replace", "pattern": {"String": of}, "content": "\""});
        spm.normalizers = vec![quotes("``"), quotes("''")];
        if !folder.flag("keep_accents", false) {
            spm.normalizers.extend([step("NFKD"), step("StripAccents")]);
        }
        if folder.flag("do_lower_case", true) {
            spm.normalizers.push(step("Lowercase"));
        }
        let (before, behind) = (folder.token("cls", "[CLS]"), folder.token("sep", "[SEP]"));
        return folder.with_added(spm, [Some(&before), Some(&behind)], true);
    }
    if folder.is_of(&["Pegasus"], &["pegasus"]) {
        return pegasus(folder, spm);
    }
    if !folder.is_of(&["T5"], &["t5", "mt5", "umt5", "switch_transformers"]) {
        return Err(folder.unknown());
    }
    // Marks of what is left out of a text, the last one first.
    let marks = folder.setting("extra_ids").and_then(Value::as_u64).unwrap_or(100).min(1000);
    if !spm.pieces.iter().any(|piece| piece.text == "<extra_id_0>") {
        spm.pieces.extend((0..marks).rev().map(|number| piece(format!("<extra_id_{number}>"), Kind::Control)));
    }
    folder.with_added(spm, [None, Some(&folder.token("eos", "</s>"))], false)
}

/// Pegasus: behind padding and the end of a text there are marks of what was left out in training, and then the pieces from the third on.
fn pegasus(folder: &Folder, mut spm: SentencePiece) -> Result<Value> {
    let offset = folder.setting("offset").and_then(Value::as_u64).unwrap_or(103);
    if !(3..=1000).contains(&offset) || folder.is_null("mask_token_sent") {
        return Err(folder.refuse("has other marks than those of Pegasus, which are not read"));
    }
    let marks = [("pad", "<pad>"), ("eos", "</s>"), ("mask_token_sent", "<mask_1>"), ("mask", "<mask_2>")];
    let marks = marks.map(|(role, usual)| match role.strip_suffix("_token_sent") {
        Some(_) => folder.setting(role).and_then(Value::as_str).unwrap_or(usual).to_owned(),
        None => folder.token(role, usual),
    });
    let end = marks[1].clone();
    let rest = spm.pieces.split_off(spm.pieces.len().min(2));
    spm.pieces = marks
        .into_iter()
        .chain((2..offset).map(|n| format!("<unk_{n}>")))
        .map(|text| piece(text, Kind::Control))
        .collect();
    spm.pieces.extend(rest);
    folder.with_added(spm, [None, Some(&end)], false)
}

/// XLM-RoBERTa and mBART: pieces have the numbers of fairseq, which has four tokens of its own in front of them where `SentencePiece` has three,
/// and a mask, with mBART also languages, behind.
pub(super) fn fairseq(folder: &Folder) -> Result<Value> {
    let mut spm = folder.spm()?;
    let languages = match () {
        () if folder.is_of(&["XLMRoberta"], &["xlm-roberta"]) => &[][..],
        () if folder.is_of(&["MBart50"], &[]) => &LANGUAGES[..],
        () if folder.is_of(&["MBart"], &["mbart"]) => &LANGUAGES[..25],
        () => return Err(folder.unknown()),
    };
    let roles = [("bos", "<s>"), ("pad", "<pad>"), ("eos", "</s>"), ("unk", "<unk>"), ("mask", "<mask>")];
    let [bos, pad, eos, unk, mask] = roles.map(|(role, usual)| folder.token(role, usual));
    let rest = spm.pieces.split_off(spm.pieces.len().min(3));
    let control = |text: &str| piece(text, Kind::Control);
    spm.pieces = vec![control(&bos), control(&pad), control(&eos), piece(&unk, Kind::Unknown)];
    spm.pieces.extend(rest);
    spm.pieces.extend(languages.iter().map(|language| control(language)));
    spm.pieces.push(control(&mask));
    let place = |token: &str| spm.pieces.iter().position(|piece| piece.text == token && piece.kind == Kind::Control);
    let mark = |token: &str| {
        let id = place(token).ok_or_else(|| folder.refuse(format!("has no language {token:?} (src_lang)")));
        Ok(Part::Token(token.to_owned(), id?))
    };
    let around = match folder.setting("src_lang").and_then(Value::as_str).unwrap_or("en_XX") {
        _ if languages.is_empty() => {
            let [begin, end] = [mark(&bos)?, mark(&eos)?];
            let pair = [&begin, &Part::Text("A"), &end, &end, &Part::Text("B"), &end];
            template(&[&begin, &Part::Text("A"), &end], &pair)
        }
        language if languages.len() > 25 => {
            let [language, end] = [mark(language)?, mark(&eos)?];
            template(&[&language, &Part::Text("A"), &end], &[&language, &Part::Text("A"), &Part::Text("B"), &end])
        }
        language => {
            let [end, language] = [mark(&eos)?, mark(language)?];
            template(&[&Part::Text("A"), &end, &language], &[&Part::Text("A"), &Part::Text("B"), &end, &language])
        }
    };
    let mut document = folder.with_added(spm, [None; 2], false)?;
    document["post_processor"] = around;
    for token in
        document["added_tokens"].as_array_mut().into_iter().flatten().filter(|token| token["content"] == mask.as_str())
    {
        // A mask takes the blank in front of it along.
        token["lstrip"] = true.into();
    }
    Ok(document)
}

/// Marian's source texts.
pub(super) fn marian(folder: &Folder) -> Result<Value> {
    marian_side(folder, SOURCE, NUMBERS)
}

/// The vocabulary of answers, where a folder has one of its own: Marian's pieces of translations.
pub(super) fn answers(folder: &Folder) -> Result<Option<Value>> {
    if !folder.file.ends_with(SOURCE) {
        return Ok(None);
    }
    let apart = folder.path.join(TARGET_NUMBERS).is_file();
    if folder.flag("separate_vocabs", false) && !apart {
        let message =
            format!("belongs to a model with two vocabularies (separate_vocabs), and {TARGET_NUMBERS} is missing");
        return Err(folder.refuse(message));
    }
    if !apart && !folder.path.join(TARGET).is_file() {
        return Ok(None);
    }
    marian_side(folder, TARGET, if apart { TARGET_NUMBERS } else { NUMBERS }).map(Some)
}

/// The pieces of texts of one side under the numbers of a file, which may have those of the other side as well.
fn marian_side(folder: &Folder, pieces: &str, numbers: &str) -> Result<Value> {
    let spm = folder.spm_of(&folder.path.join(pieces))?;
    let path = folder.path.join(numbers);
    let numbers = numbered(&path)?;
    let known: BTreeMap<&str, f32> = spm.pieces.iter().map(|piece| (piece.text.as_str(), piece.score)).collect();
    let least = known.values().fold(0.0_f32, |least, score| least.min(*score));
    let unknown = folder.token("unk", "<unk>");
    let specials = ["eos", "pad", "bos"].map(|role| folder.token(role, if role == "pad" { "<pad>" } else { "</s>" }));
    let pieces = numbers.iter().map(|(token, id)| {
        let kind = if *token == unknown {
            Kind::Unknown
        } else if specials.contains(token) || token.starts_with(">>") && token.ends_with("<<") {
            Kind::Control
        } else if known.contains_key(token.as_str())
            || spm.algorithm == Algorithm::Unigram && token.chars().count() == 1
        {
            Kind::Normal
        } else {
            Kind::Unused
        };
        // A character that texts of this side did not have: better than none.
        let score = known.get(token.as_str()).copied().unwrap_or(least - 1000.0);
        (*id, Piece { text: token.clone(), score, kind })
    });
    let mut all = vec![Piece { text: String::new(), score: least, kind: Kind::Unused }; numbers.len()];
    for (id, piece) in pieces {
        let place = all.get_mut(id);
        *place.ok_or_else(|| {
            Error::format(&path, format!("has no more than {} tokens, and one of number {id}", numbers.len()))
        })? = piece;
    }
    folder.with_added(SentencePiece { pieces: all, ..spm }, [None, Some(&folder.token("eos", "</s>"))], false)
}
