//! Semantic search inside an application: its texts become vectors on its GPU, and a query finds those that are nearest in meaning.
//!
//! Run it with `cargo run --example search -- MODEL_FOLDER QUERY` (an encoder such as all-MiniLM-L6-v2) and the texts on standard input, one a line;
//! without arguments a tiny new model, which knows letters but no meanings, finds a text among a few.

use std::sync::Arc;
use wgformer::io::{Config, ModelFolder, Tokenizer};
use wgformer::models::{self, Model};
use wgformer::tasks::apply::{Hit, VectorIndex};
use wgformer::tasks::{EmbedSettings, TaskFile, TextEmbedder};
use wgformer::{Gpu, Result, Weights};

/// What the example searches where it is given nothing.
pub(crate) const TEXTS: [&str; 5] = [
    "the harbour was full of ships",
    "she bought bread and two apples",
    "rain is expected in the north",
    "a quiet evening by the fire",
    "the train leaves at a quarter to nine",
];

/// The texts of an application, and how to find them.
pub(crate) struct Search {
    embedder: TextEmbedder,
    index: VectorIndex,
    /// The vectors of all texts, as an application keeps them between starts.
    pub(crate) vectors: Vec<Vec<f32>>,
}

impl Search {
    /// Reads texts; `done` is told how many.
    ///
    /// # Errors
    /// Those of the model.
    pub(crate) fn new(
        gpu: &Gpu,
        mut embedder: TextEmbedder,
        texts: &[&str],
        done: &mut dyn FnMut(usize),
    ) -> Result<Self> {
        let vectors = embedder.embed(texts, done)?;
        let index = VectorIndex::new(gpu, &vectors.concat(), embedder.dimensions())?;
        Ok(Self { embedder, index, vectors })
    }

    /// The texts that are nearest to a query, by number, the nearest first.
    ///
    /// # Errors
    /// Those of the model.
    pub(crate) fn find(&mut self, query: &str, top: usize) -> Result<Vec<Hit>> {
        let prompt = self.embedder.settings().prompts.get("query").cloned().unwrap_or_default();
        let query = self.embedder.embed_behind(&prompt, &[query], &mut |_| ())?;
        Ok(self.index.search(&query, top)?.remove(0))
    }
}

/// A tiny encoder of letters.
///
/// # Errors
/// Those of the model.
pub(crate) fn new_embedder(gpu: &Gpu) -> Result<TextEmbedder> {
    let tokenizer = Tokenizer::characters(&TEXTS.concat())?;
    let config = serde_json::json!({"model_type": "bert", "architectures": ["BertModel"], "vocab_size": tokenizer.vocab_size(),
        "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64, "max_position_embeddings": 64});
    let model: Arc<dyn Model> = models::model(&Config::new("config.json", config)?)?.into();
    let weights = Weights::new(gpu);
    model.initialise(&weights, 2)?;
    TextEmbedder::new(gpu, model, &weights, &tokenizer, EmbedSettings::default())
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let gpu = Gpu::choose(None)?;
    let (embedder, query, texts) = match &arguments[..] {
        [] => (new_embedder(&gpu)?, "ships in a harbour".to_owned(), TEXTS.map(str::to_owned).to_vec()),
        [folder, query] => {
            let folder = ModelFolder::open(folder)?;
            let (model, weights) = models::load_model(&gpu, &folder, None)?;
            let settings = EmbedSettings::of_model(&folder, &TaskFile::of(&folder.path, model.as_ref())?)?;
            let embedder = TextEmbedder::new(&gpu, model.into(), &weights, folder.expect_tokenizer()?, settings)?;
            (embedder, query.clone(), std::io::stdin().lines().collect::<std::io::Result<Vec<_>>>()?)
        }
        _ => return Err("usage: search [MODEL_FOLDER QUERY]".into()),
    };
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    let mut search = Search::new(&gpu, embedder, &texts, &mut |rows| eprint!("\r{rows} of {}", texts.len()))?;
    eprintln!("; {} numbers", search.vectors.iter().map(Vec::len).sum::<usize>());
    for hit in search.find(&query, 3)? {
        println!("{:.3}  {}", hit.score, texts[hit.number]);
    }
    Ok(())
}
