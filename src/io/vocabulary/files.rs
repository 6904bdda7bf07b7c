//! Tokenizers of folders without a `tokenizer.json`: files of `SentencePiece`, `vocab.json` with `merges.txt`, `vocab.txt`.

use super::byte_level::ByteLevel;
use super::spm_folder;
use super::wordpiece::WordPiece;
use super::words::Rule;
use super::{Around, Mark, added, distinct};
use crate::error::{Error, Result};
use crate::io::file;
use crate::io::folder::{CHAT_TEMPLATE, ROLES};
use crate::io::tokenizer::Tokenizer;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Files that a tokenizer is made of, the first of them that is there counting.
const FILES: [(&str, Maker); 6] = [
    ("tokenizer.model", spm_folder::llama),
    ("spiece.model", spm_folder::spiece),
    ("sentencepiece.bpe.model", spm_folder::fairseq),
    (spm_folder::SOURCE, spm_folder::marian),
    ("merges.txt", byte_level),
    ("vocab.txt", word_piece),
];
/// Templates of conversations beside the main one.
const MORE_TEMPLATES: &str = "additional_chat_templates";
/// What GPT-2 and Qwen have in all roles unless a file says otherwise.
const END_OF_TEXT: &str = "<|endoftext|>";
/// How far behind a vocabulary tokens may be added.
pub(super) const MOST_ADDED: usize = 1 << 16;

type Maker = fn(&Folder) -> Result<Value>;

/// What the files beside a tokenizer say: the names of special tokens by their roles, and templates of conversations. The first that has a
/// key counts.
pub(in crate::io) fn beside(folder: &Path) -> Result<Vec<Value>> {
    let mut all = Vec::new();
    let mut templates = Vec::new();
    let template = folder.join(CHAT_TEMPLATE);
    if template.symlink_metadata().is_ok() {
        templates.push(json!({"name": "default", "template": file::read_text(&template)?}));
    }
    let others = folder.join(MORE_TEMPLATES);
    if others.is_dir() {
        let entries = std::fs::read_dir(&others).map_err(|e| Error::file(&others, e))?;
        let mut paths: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
        paths.retain(|path| path.extension().is_some_and(|extension| extension == "jinja"));
        paths.sort();
        for path in paths {
            let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            templates.push(json!({"name": name, "template": file::read_text(&path)?}));
        }
    }
    if !templates.is_empty() {
        all.push(json!({ "chat_template": templates }));
    }
    for name in ROLES {
        all.extend(file::read_json_if_there(&folder.join(name))?);
    }
    Ok(all)
}

/// A folder and what its small files say.
pub(super) struct Folder {
    pub(super) path: PathBuf,
    /// The file that the vocabulary is in.
    pub(super) file: PathBuf,
    /// `tokenizer_config.json` and the files like it.
    names: Vec<Value>,
    model_type: String,
}

/// The tokenizer of a folder that has none of Hugging Face's form, if it has another.
///
/// # Errors
/// [`Error::File`] or [`Error::Format`] with the path of what cannot be read.
pub(in crate::io) fn tokenizer(folder: &Path, model_type: &str) -> Result<Option<Tokenizer>> {
    let there = FILES.iter().find(|(name, _)| folder.join(name).is_file());
    let Some((name, make)) = there else { return Ok(None) };
    let names = beside(folder)?;
    let folder = Folder { path: folder.to_owned(), file: folder.join(name), names, model_type: model_type.to_owned() };
    let made = |document: Value| Tokenizer::from_json_with(&folder.file, document.to_string(), &folder.names);
    let tokenizer = made(make(&folder)?)?;
    Ok(Some(match spm_folder::answers(&folder)? {
        Some(document) => tokenizer.with_answers(&made(document)?),
        None => tokenizer,
    }))
}

impl Folder {
    pub(super) fn refuse(&self, message: impl AsRef<str>) -> Error {
        Error::format(&self.file, format!("{}; a tokenizer.json beside it works as well", message.as_ref()))
    }

    /// That nothing is known of the class of the tokenizer.
    pub(super) fn unknown(&self) -> Error {
        let class = if self.class().is_empty() { "tokenizer" } else { self.class() };
        let how = "AutoTokenizer.from_pretrained(FOLDER).save_pretrained(FOLDER) of Python's transformers makes one";
        let class = format!("is of a {class} of {}, whose rules are not known", self.model_type);
        Error::format(&self.file, format!("{class}; a tokenizer.json beside it works as well: {how}"))
    }

    /// A setting of `tokenizer_config.json`.
    pub(super) fn setting(&self, key: &str) -> Option<&Value> {
        self.names.iter().find_map(|names| names.get(key).filter(|value| !value.is_null()))
    }

    /// Whether a setting is there and null.
    pub(super) fn is_null(&self, key: &str) -> bool {
        self.names.iter().any(|names| names.get(key).is_some_and(Value::is_null))
    }

    pub(super) fn flag(&self, key: &str, default: bool) -> bool {
        self.setting(key).and_then(Value::as_bool).unwrap_or(default)
    }

    /// The token of a role.
    pub(super) fn token(&self, role: &str, default: &str) -> String {
        let named = self.setting(&format!("{role}_token"));
        let named = named.and_then(|value| value.as_str().or_else(|| value.get("content")?.as_str()));
        named.unwrap_or(default).to_owned()
    }

    /// The class of the tokenizer, without the mark of its fast form.
    pub(super) fn class(&self) -> &str {
        let class = self.setting("tokenizer_class").and_then(Value::as_str).unwrap_or_default();
        class.strip_suffix("Fast").unwrap_or(class)
    }

    /// Whether the class, or where none is named the family, is one of these.
    pub(super) fn is_of(&self, classes: &[&str], families: &[&str]) -> bool {
        match self.class() {
            "" | "PreTrainedTokenizer" => families.contains(&self.model_type.as_str()),
            class => classes.iter().any(|known| class.strip_suffix("Tokenizer") == Some(known)),
        }
    }

    /// Tokens that are found in a text first, by their ids, as a `tokenizer.json` has them.
    pub(super) fn added(&self) -> Result<BTreeMap<usize, Value>> {
        let mut all = BTreeMap::new();
        if let Some(tokens) = file::read_json_if_there(&self.path.join("added_tokens.json"))? {
            let tokens = tokens.as_object().cloned().unwrap_or_default();
            all.extend(tokens.iter().filter_map(|(token, id)| {
                let id = usize::try_from(id.as_u64()?).ok()?;
                Some((id, added(id, token, false)))
            }));
        }
        let listed = self.setting("added_tokens_decoder").and_then(Value::as_object);
        for (id, token) in listed.into_iter().flatten() {
            let (Ok(id), Some(content)) = (id.parse::<usize>(), token["content"].as_str()) else { continue };
            let mut one = added(id, content, false);
            for key in ["single_word", "lstrip", "rstrip", "normalized", "special"] {
                if let Some(on) = token[key].as_bool() {
                    one[key] = on.into();
                }
            }
            all.insert(id, one);
        }
        Ok(all)
    }
}

/// The tokens of a `vocab.json` with their numbers.
pub(super) fn numbered(path: &Path) -> Result<BTreeMap<String, usize>> {
    let value = crate::io::read_json(path)?;
    let object = value.as_object().ok_or_else(|| Error::format(path, "is no object {\"token\": number, …}"))?;
    let number = |(token, id): (&String, &Value)| {
        let id = id.as_u64().and_then(|id| usize::try_from(id).ok()).filter(|id| *id < object.len() + MOST_ADDED);
        let id = id.ok_or_else(|| Error::format(path, format!("token {token:?} has no number of a vocabulary")));
        Ok((token.clone(), id?))
    };
    object.iter().filter(|(token, _)| !token.is_empty()).map(number).collect()
}

/// GPT-2, RoBERTa, BART and Qwen.
fn byte_level(folder: &Folder) -> Result<Value> {
    let vocabulary = folder.path.join("vocab.json");
    let numbers = numbered(&vocabulary)?;
    let pairs = folder.is_of(&["Roberta", "Bart", "Longformer", "LED"], &["roberta", "bart"]);
    let qwen = folder.is_of(&["Qwen2"], &["qwen2", "qwen2_moe", "qwen3", "qwen3_moe"]);
    if !(pairs || qwen || folder.is_of(&["GPT2"], &["gpt2"])) {
        return Err(folder.unknown());
    }
    if folder.flag("add_prefix_space", false) {
        return Err(folder.refuse("add_prefix_space is true in tokenizer_config.json, which is not read"));
    }
    let text = file::read_text(&folder.file)?;
    let lines = text.lines().filter(|line| !line.starts_with("#version") && !line.is_empty());
    let merge = |line: &str| match line.split_once(' ') {
        Some((a, b)) if !a.is_empty() && !b.is_empty() && !b.contains(' ') => Ok([a.to_owned(), b.to_owned()]),
        _ => Err(folder.refuse(format!("{line:?} is no pair of tokens"))),
    };
    let merges: Vec<[String; 2]> = lines.map(merge).collect::<Result<_>>()?;
    let rule = Rule::named(if qwen { "qwen2" } else { "gpt-2" }).ok_or_else(|| folder.refuse("has no rules"))?;
    let mut listed = folder.added()?;
    for role in ["bos", "eos", "unk", "pad", "mask"] {
        let token = folder.token(role, if pairs { usual(role) } else { END_OF_TEXT });
        if let Some(&id) = numbers.get(&token) {
            listed.entry(id).or_insert_with(|| {
                let mut one = added(id, &token, true);
                // A mask takes the blank in front of it along.
                one["lstrip"] = (role == "mask").into();
                one
            });
        }
    }
    let own = listed.iter().filter_map(|(id, token)| Some((token["content"].as_str()?, *id)));
    let vocabulary: BTreeMap<&str, usize> =
        numbers.iter().map(|(token, id)| (token.as_str(), *id)).chain(own).collect();
    let around = if pairs {
        let id = |role: &str| {
            let token = folder.token(role, usual(role));
            let id = vocabulary.get(token.as_str()).copied();
            id.map(|id| json!([token, id])).ok_or_else(|| folder.refuse(format!("vocab.json has no token {token:?}")))
        };
        json!({"type": "RobertaProcessing", "sep": id("eos")?, "cls": id("bos")?, "trim_offsets": true, "add_prefix_space": false})
    } else {
        Value::Null
    };
    let normalizer = if qwen { json!({"type": "NFC"}) } else { Value::Null };
    let added = listed.values().cloned().collect();
    Ok(ByteLevel { vocabulary, merges, rule, added, marked: false, normalizer }.document(around))
}

/// What RoBERTa calls its tokens.
fn usual(role: &str) -> &'static str {
    match role {
        "bos" | "cls" => "<s>",
        "eos" | "sep" => "</s>",
        "unk" => "<unk>",
        "pad" => "<pad>",
        _ => "<mask>",
    }
}

/// BERT, DistilBERT and ELECTRA.
fn word_piece(folder: &Folder) -> Result<Value> {
    if !folder.is_of(&["Bert", "DistilBert", "Electra"], &["bert", "distilbert", "electra"]) {
        return Err(folder.unknown());
    }
    let text = file::read_text(&folder.file)?;
    let (tokens, repeated) = distinct(text.lines().map(str::to_owned));
    if repeated > 0 {
        log::warn!("{}: {repeated} tokens are empty or occur twice; no text is encoded as them", folder.file.display());
    }
    let roles = ["cls", "sep", "unk", "pad", "mask"];
    let special = roles.map(|role| folder.token(role, &format!("[{}]", role.to_uppercase())));
    let find = |token: &str| tokens.iter().position(|known| known == token);
    let id = |role: usize| {
        let token = special[role].as_str();
        let id = find(token).ok_or_else(|| folder.refuse(format!("has no token {token:?}")));
        Ok(Mark { token, id: id? })
    };
    let lower_case = folder.flag("do_lower_case", true);
    let word_piece = WordPiece {
        tokens: &tokens,
        unknown: id(2)?.token,
        special: special.iter().filter_map(|token| find(token)).collect(),
        lower_case,
        strip_accents: folder.flag("strip_accents", lower_case),
        chinese: folder.flag("tokenize_chinese_chars", true),
    };
    let around = Around { before: Some(id(0)?), behind: Some(id(1)?), types: true };
    Ok(word_piece.document(around.to_json()))
}
