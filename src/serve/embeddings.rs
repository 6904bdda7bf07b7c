//! `/v1/embeddings`.

use super::fault::Fault;
use super::fields::{Fields, shown};
use crate::io::Tokenizer;
use crate::tasks::apply::TextEmbedder;
use serde::Serialize;
use serde_json::Value;

/// The most texts of a request, as in OpenAI's API.
const TEXTS: usize = 2048;

/// What of an embedder is needed to read requests.
#[derive(Debug)]
pub(super) struct EmbeddingModel {
    pub(super) name: String,
    tokenizer: Tokenizer,
    prefix: String,
    longest: usize,
    dimensions: usize,
}

/// A request for vectors.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Texts {
    pub(super) texts: Vec<String>,
    pub(super) base64: bool,
    pub(super) tokens: usize,
}

impl EmbeddingModel {
    pub(super) fn new(name: String, tokenizer: &Tokenizer, embedder: &TextEmbedder) -> Self {
        Self {
            name,
            tokenizer: tokenizer.clone(),
            prefix: embedder.settings().prefix.clone(),
            longest: embedder.longest(),
            dimensions: embedder.dimensions(),
        }
    }

    /// The texts of a request.
    pub(super) fn read(&self, fields: &Fields) -> Result<Texts, Fault> {
        let input = fields.required("input")?;
        let texts = fields.texts("input", TEXTS).map_err(|fault| match input {
            Value::Array(list) if list.iter().any(|part| part.is_u64() || part.is_array()) => Fault::field(
                "input",
                "token numbers are not taken: give texts (in LangChain: check_embedding_ctx_length=False)",
            ),
            _ => fault,
        })?;
        let texts: Vec<String> = texts.unwrap_or_default().into_iter().map(str::to_owned).collect();
        let base64 = match fields.text("encoding_format")? {
            None | Some("float") => false,
            Some("base64") => true,
            Some(_) => return Err(Fault::field("encoding_format", "it must be float or base64")),
        };
        if let Some(wanted) = fields.get("dimensions").filter(|wanted| wanted.as_u64() != Some(self.dimensions as u64))
        {
            let message = format!("it is {}, but the model has {}", shown(wanted), self.dimensions);
            return Err(Fault::field("dimensions", message));
        }
        if texts.is_empty() {
            return Err(Fault::field("input", "there is no text"));
        }
        let mut tokens = 0;
        for (number, text) in texts.iter().enumerate() {
            let refused = |message: String| Fault::field(&format!("input[{number}]"), message);
            if text.trim().is_empty() {
                return Err(refused("the text is empty: leave it out".to_owned()));
            }
            let count = self.tokenizer.encode_for_model(&format!("{}{text}", self.prefix), None)?.ids.len();
            if count > self.longest {
                let message = format!("it has {count} tokens, and the model reads {}: divide it", self.longest);
                return Err(refused(message).with_code("context_length_exceeded"));
            }
            tokens += count;
        }
        Ok(Texts { texts, base64, tokens })
    }
}

#[derive(Serialize)]
#[serde(untagged)]
enum Vector {
    Numbers(Vec<f32>),
    /// Of little-endian f32.
    Base64(String),
}

#[derive(Serialize)]
struct Item {
    object: &'static str,
    index: usize,
    embedding: Vector,
}

#[derive(Serialize)]
struct Usage {
    prompt_tokens: usize,
    total_tokens: usize,
}

#[derive(Serialize)]
struct List<'a> {
    object: &'static str,
    data: Vec<Item>,
    model: &'a str,
    usage: Usage,
}

/// The vectors in JSON.
pub(super) fn body(model: &str, vectors: Vec<Vec<f32>>, base64: bool, tokens: usize) -> Result<String, Fault> {
    let vector = |numbers: Vec<f32>| match base64 {
        true => Vector::Base64(base64::encode(numbers.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>())),
        false => Vector::Numbers(numbers),
    };
    let item = |(index, numbers)| Item { object: "embedding", index, embedding: vector(numbers) };
    let data = vectors.into_iter().enumerate().map(item).collect();
    let usage = Usage { prompt_tokens: tokens, total_tokens: tokens };
    serde_json::to_string(&List { object: "list", data, model, usage })
        .map_err(|e| Fault::new(hyper::StatusCode::INTERNAL_SERVER_ERROR, e.to_string()))
}
