//! Models for the page, and what comes of them natively.

use crate::engine::{GenerateOptions, LoadOptions, Loaded, Prompt, TrainOptions, train};
use libtest_mimic::Failed;
use pollster::block_on;
use serde_json::{Value, json};
use std::fs;
use std::ops::{ControlFlow, Range};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use wgformer::io::{ModelFolder, Tensors, Tokenizer, gguf};
use wgformer::{Error, Gpu};

const PROMPT: &str = "it was a dark and st";
const TOKENS: usize = 24;
const SENTENCES: [&str; 3] = ["a cat sat on the mat", "dogs bark", "the rain in spain stays mainly in the plain"];
const QUESTION: &str = "The capital of France is";
const GGUF_TOKENS: usize = 6;
/// What has a token in the models of `tests/goldens`, of 97 tokens.
const ALPHABET: &str = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789 .,;:!?-'()\n";

/// An answer.
pub(crate) struct Answer {
    pub(crate) tokens: Vec<u32>,
    pub(crate) text: String,
    pub(crate) finish: &'static str,
}

/// What the page is to do, and what must come of it.
pub(crate) struct Plan {
    pub(crate) answer: Answer,
    pub(crate) vectors: Vec<Vec<f64>>,
    pub(crate) losses: Vec<f64>,
    pub(crate) trained: Vec<u32>,
    pub(crate) gguf_answer: Option<Answer>,
}

fn training() -> Value {
    json!({"steps": 12, "layers": 2, "heads": 2, "width": 32, "context": 32, "batch": 4, "learningRate": 0.003, "seed": 7})
}

fn text() -> Result<String, Failed> {
    let novel = fs::read_dir("data")?.filter_map(Result::ok).map(|entry| entry.path());
    let novel = novel.filter(|path| path.extension().is_some_and(|extension| extension == "txt")).min();
    let text = fs::read_to_string(novel.ok_or("no text in data/")?)?;
    Ok(text.chars().take(4000).collect())
}

/// The real model in a GGUF file, if there is one.
pub(crate) fn real_gguf() -> Option<PathBuf> {
    std::env::var_os("WGFORMER_SMOLLM2").map(PathBuf::from)
}

/// Makes the folder of models that the page is served.
pub(crate) fn make(folder: &Path) -> Result<(), Failed> {
    let characters = Tokenizer::characters(ALPHABET)?;
    for (name, golden, tokenizer) in
        [("decoder", "llama", characters.clone()), ("encoder", "bert-base-model", characters.for_encoder()?)]
    {
        let (from, to) = (Path::new("tests/goldens").join(golden), folder.join(name));
        fs::create_dir(&to)?;
        for file in ["config.json", "model.safetensors"] {
            fs::copy(from.join(file), to.join(file))?;
        }
        tokenizer.save(to.join("tokenizer.json"))?;
    }
    fs::write(folder.join("damaged.gguf"), b"GGUF\x03\0\0\0\x01\0\0\0\0\0\0\0")?;
    let gguf = real_gguf().and_then(|path| Some(path.file_name()?.to_string_lossy().into_owned()));
    let plan = json!({
        "prompt": PROMPT, "tokens": TOKENS, "sentences": SENTENCES, "text": text()?, "training": training(),
        "gguf": gguf, "question": QUESTION, "ggufTokens": GGUF_TOKENS,
    });
    fs::write(folder.join("plan.json"), plan.to_string())?;
    Ok(())
}

/// Does natively what the page does.
pub(crate) fn plan(folder: &Path) -> Result<Plan, Failed> {
    let gpu = Gpu::choose(None)?;
    let mut decoder = load(&gpu, &folder.join("decoder"))?;
    let mut encoder = load(&gpu, &folder.join("encoder"))?;
    let sentences = SENTENCES.map(str::to_owned);
    let vectors = block_on(encoder.embed(&sentences))?;
    let text = text()?;
    let options: TrainOptions = serde_json::from_value(training())?;
    let mut losses = Vec::new();
    let mut watch = |step: crate::engine::Step| {
        losses.push(f64::from(step.loss));
        ControlFlow::Continue(())
    };
    let mut trained = block_on(train(&gpu, &text, &options, &mut watch))?;
    let start: String = text.chars().take(8).collect();
    let gguf_answer = match real_gguf() {
        Some(path) => Some(answer(&mut load(&gpu, &path)?, QUESTION, GGUF_TOKENS)?),
        None => None,
    };
    Ok(Plan {
        answer: answer(&mut decoder, PROMPT, TOKENS)?,
        vectors: vectors.iter().map(|vector| vector.iter().map(|x| f64::from(*x)).collect()).collect(),
        losses,
        trained: answer(&mut trained, &start, TOKENS)?.tokens,
        gguf_answer,
    })
}

/// By the road of the page: part by part.
fn load(gpu: &Gpu, path: &Path) -> Result<Loaded, Failed> {
    let weights = if path.is_dir() { path.join("model.safetensors") } else { path.to_owned() };
    let bytes = fs::read(&weights)?;
    let mut read = async |range: Range<u64>| {
        let part = bytes.get(range.start as usize..range.end as usize).map(<[u8]>::to_vec);
        part.ok_or_else(|| Error::input("range", "is outside the file"))
    };
    let file = |name: &str| fs::read_to_string(path.join(name)).ok();
    let length = bytes.len() as u64;
    let folder = match path.is_dir() {
        true => ModelFolder::from_files(path, &file, block_on(Tensors::open_async(&weights, length, &mut read))?)?,
        false => block_on(gguf::open_async(path, length, &mut read))?,
    };
    let clock = Arc::new(|_: &str| Ok(String::new()));
    let options = LoadOptions::default();
    Ok(block_on(Loaded::load(gpu, folder, &file, &options, clock, &mut read, &mut |_| ()))?)
}

fn answer(model: &mut Loaded, prompt: &str, tokens: usize) -> Result<Answer, Failed> {
    let options = GenerateOptions { max_tokens: Some(tokens), ..GenerateOptions::default() };
    let prompt = Prompt::Text(prompt.to_owned());
    let answer = block_on(model.generate(&prompt, &options, &mut |_| ControlFlow::Continue(())))?;
    Ok(Answer { tokens: answer.tokens, text: answer.text, finish: answer.finish })
}
