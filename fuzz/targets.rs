//! What is given hostile bytes: each target parses them as far as a user's file would get. A panic, an abort, an endless loop or memory without
//! bound is a fault; an error is not. `cargo fuzz run NAME` runs one with coverage, `cargo test --test fuzz` all for a short time on stable Rust.

use std::collections::HashMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use wgformer::graph::Graph;
use wgformer::io::{ChatTemplate, Config, Conversation, Encoding, ModelFolder, Tensors, Tokenizer, gguf};
use wgformer::models::{self, TokenInputs};
use wgformer::tasks::data::{Format, ReadOptions, read_records};
use wgformer::{DType, Recording, Result};

/// A target by name.
pub type Target = (&'static str, fn(&[u8]));

/// All targets.
pub const TARGETS: [Target; 9] = [
    ("safetensors", safetensors),
    ("gguf", gguf_file),
    ("config", config),
    ("tokenizer", tokenizer),
    ("vocabulary", vocabulary),
    ("template", template),
    ("examples", examples),
    ("pickle", pickle),
    ("requests", requests),
];

/// An error is an answer.
fn answered<T>(result: Result<T>) -> Option<T> {
    result.inspect_err(|error| drop(error.to_string())).ok()
}

/// Reads every tensor of a store.
fn read_all(tensors: &Tensors) {
    for name in tensors.names() {
        if let Some(tensor) = tensors.get(name) {
            answered(tensor.to_f32());
        }
    }
}

pub fn safetensors(data: &[u8]) {
    if let Some(tensors) = answered(Tensors::from_bytes("model.safetensors", data.to_vec())) {
        read_all(&tensors);
    }
}

/// The parts of a model in a GGUF file: configuration, tokenizer, templates, tensors.
pub fn gguf_file(data: &[u8]) {
    let Some(folder) = answered(gguf::from_bytes("model.gguf", data.to_vec())) else { return };
    read_all(&folder.tensors);
    model(&folder);
    if let Some(tokenizer) = answered(folder.expect_tokenizer()) {
        texts(tokenizer);
    }
}

fn model(folder: &ModelFolder) {
    answered(models::model(&folder.config).and_then(|model| model.parameters()));
}

/// A `config.json`, up to the recording of a decoder of its sizes, if they are small.
pub fn config(data: &[u8]) {
    let Ok(value) = serde_json::from_slice(data) else { return };
    let Some(config) = answered(Config::new("config.json", value)) else { return };
    let small = |count: Result<u64>| answered(count).is_some_and(|count| count < 1_000_000);
    let Some(model) = answered(models::model(&config)) else { return };
    if !small(model.parameters().map(|all| all.iter().map(|(_, ty)| ty.shape.numel() as u64).sum())) {
        return;
    }
    let Some(decoder) = answered(models::decoder(&config)) else { return };
    let record = || -> Result<Recording> {
        let mut g = Graph::new();
        let ids = g.input("ids", [1, 5], DType::U32)?;
        let inputs = TokenInputs::new(&mut g, ids)?;
        let hidden = decoder.decode(&mut g, &inputs)?.states;
        let logits = decoder.logits(&mut g, hidden)?;
        g.output("logits", logits)?;
        Recording::new(&g, &wgformer::gpu::Caps::baseline())
    };
    answered(record());
}

/// Encodes and decodes texts that people write.
fn texts(tokenizer: &Tokenizer) {
    for text in ["", "It is a truth 12.5 <|im_end|> </s>", "\u{a0}\u{1f642} e\u{301}\n\n\t", "ﬁ ａ \u{0} \u{feff}"] {
        if let Some(ids) = answered(tokenizer.encode(text)) {
            answered(tokenizer.decode(&ids));
        }
        answered::<Vec<u32>>(tokenizer.encode_plain(text));
        answered::<Encoding>(tokenizer.encode_for_model(text, Some("two")));
    }
    answered(tokenizer.decode(&[0, 1, u32::MAX]));
}

pub fn tokenizer(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Some(tokenizer) = answered(Tokenizer::from_json("tokenizer.json", text.to_owned())) {
        texts(&tokenizer);
    }
}

/// A folder with these files.
fn with_files(files: &[(&str, &[u8])], run: impl FnOnce(&Path)) {
    let Ok(folder) = tempfile::tempdir() else { return };
    for (name, bytes) in files {
        if std::fs::File::create(folder.path().join(name)).and_then(|mut file| file.write_all(bytes)).is_err() {
            return;
        }
    }
    run(folder.path());
}

/// Vocabularies beside weights; the first byte chooses the kind of file.
pub fn vocabulary(data: &[u8]) {
    let Some((kind, rest)) = data.split_first() else { return };
    let name = ["tokenizer.model", "spiece.model", "vocab.txt", "vocab.json"][usize::from(*kind % 4)];
    with_files(&[(name, rest), ("merges.txt", b"#version: 0.2\na b\n")], |folder| {
        if let Some(tokenizer) = answered(Tokenizer::open(folder.join(name))) {
            texts(&tokenizer);
        }
    });
}

pub fn template(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let clock = std::sync::Arc::new(|_: &str| Ok("1 Jan 2026".to_owned()));
    let Some(template) = answered(ChatTemplate::new("chat_template.jinja", text, clock)) else { return };
    let messages = [("system", "Be brief."), ("user", "2 + 2? \u{1f642}"), ("assistant", "4"), ("user", "<|im_end|>")];
    answered(template.render(&Conversation::of_messages(messages)));
}

/// A file of examples; the first byte chooses its format.
pub fn examples(data: &[u8]) {
    let Some((kind, rest)) = data.split_first() else { return };
    let formats = Format::NAMES;
    let (extension, format) = formats[usize::from(*kind) % formats.len()];
    let name = format!("examples.{extension}");
    with_files(&[(&name, rest)], |folder| {
        let paths: [PathBuf; 1] = [folder.join(&name)];
        let mut options = ReadOptions::default().with_no_header(kind % 3 == 0);
        options.format = (kind % 2 == 0).then_some(format);
        answered(read_records(&paths, &options));
    });
}

pub fn pickle(data: &[u8]) {
    with_files(&[("pytorch_model.bin", data)], |folder| {
        if let Some(tensors) = answered(Tensors::open(folder)) {
            read_all(&tensors);
        }
    });
}

pub fn requests(data: &[u8]) {
    wgformer::serve::read_body(data);
    let _: std::result::Result<HashMap<String, serde_json::Value>, _> = serde_json::from_slice(data);
}
