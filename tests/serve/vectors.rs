//! Vectors of texts.

use super::client::{NAME, TestServer, gpu};
use super::models;
use super::{CHAT, chat};
use serde_json::{Value, json};
use std::sync::Arc;
use wgformer::Gpu;
use wgformer::io::{Config, Tokenizer};
use wgformer::models::Model;
use wgformer::serve::{ServeLimits, Server};
use wgformer::tasks::apply::{EmbedSettings, TextEmbedder};

const VECTORS: &str = "/v1/embeddings";
pub(crate) const MODEL: &str = "vectors";

/// An encoder of bytes for texts of at most 38, with random weights.
pub(crate) fn embedder(gpu: &Gpu) -> (TextEmbedder, Tokenizer) {
    let tokenizer = Tokenizer::bytes().unwrap().for_encoder().unwrap();
    let config = json!({
        "model_type": "bert", "architectures": ["BertModel"], "vocab_size": tokenizer.vocab_size(), "hidden_size": 24, "num_hidden_layers": 1,
        "num_attention_heads": 2, "intermediate_size": 32, "max_position_embeddings": 40, "type_vocab_size": 2,
    });
    let model: Arc<dyn Model> = wgformer::models::model(&Config::new("config.json", config).unwrap()).unwrap().into();
    let weights = models::upload(gpu, model.as_ref(), &models::weights_of(model.as_ref()).unwrap()).unwrap();
    let embedder = TextEmbedder::new(gpu, model, &weights, &tokenizer, EmbedSettings::default()).unwrap();
    (embedder, tokenizer)
}

fn floats(value: &Value) -> Vec<f32> {
    value.as_array().unwrap().iter().map(|x| x.as_f64().unwrap() as f32).collect()
}

#[test]
fn vectors_are_those_of_the_embedder_as_numbers_and_in_base64() {
    let (mut direct, _) = embedder(&gpu());
    let (served, tokenizer) = embedder(&gpu());
    let server = TestServer::of(Server::new(ServeLimits::default()).with_embedder(MODEL, served, &tokenizer));
    let texts: Vec<String> = (0..40).map(|i| format!("text {i} {}", "x".repeat(i % 20))).collect();
    let refs: Vec<&str> = texts.iter().map(String::as_str).collect();
    let wanted = direct.embed(&refs, &mut |_| ()).unwrap();
    let answer = server.post(VECTORS, &json!({"model": MODEL, "input": texts, "dimensions": 24})).good();
    assert_eq!((answer["object"].as_str(), answer["model"].as_str()), (Some("list"), Some(MODEL)));
    let data = answer["data"].as_array().unwrap();
    assert_eq!(data.len(), texts.len());
    for (number, (item, wanted)) in data.iter().zip(&wanted).enumerate() {
        assert_eq!((item["object"].as_str(), item["index"].as_u64()), (Some("embedding"), Some(number as u64)));
        let got = floats(&item["embedding"]);
        let far = got.iter().zip(wanted).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(far <= 1e-5 && got.len() == 24, "{number}: {far}");
    }
    let tokens: usize = texts.iter().map(|text| text.len() + 2).sum();
    assert_eq!(answer["usage"], json!({"prompt_tokens": tokens, "total_tokens": tokens}));
    let encoded = server.post(VECTORS, &json!({"input": texts[3], "encoding_format": "base64"})).good();
    let bytes = base64_bytes(encoded["data"][0]["embedding"].as_str().unwrap());
    let numbers: Vec<f32> = bytes.chunks(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect();
    let far = numbers.iter().zip(&wanted[3]).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(far <= 1e-5 && numbers.len() == 24, "{far}");

    let long = "x".repeat(39);
    for (body, status, param, words) in [
        (json!({}), 400, Some("input"), "missing"),
        (json!({"input": []}), 400, Some("input"), "no text"),
        (json!({"input": ["a", " "]}), 400, Some("input[1]"), "empty"),
        (json!({"input": [1, 2]}), 400, Some("input"), "token numbers"),
        (json!({"input": ["a", 2]}), 400, Some("input"), "token numbers"),
        (json!({"input": {"a": 1}}), 400, Some("input"), "a text or a list"),
        (json!({"input": long}), 400, Some("input[0]"), "it has 41 tokens, and the model reads 40"),
        (json!({"input": "a", "encoding_format": "hex"}), 400, Some("encoding_format"), "float or base64"),
        (json!({"input": "a", "dimensions": 12}), 400, Some("dimensions"), "the model has 24"),
        (json!({"input": "a", "model": NAME}), 404, Some("model"), "no model"),
    ] {
        let response = server.post(VECTORS, &body);
        let error = &response.json()["error"];
        assert_eq!((response.head.status, error["param"].as_str()), (status, param), "{body}: {error}");
        assert!(error["message"].as_str().unwrap().contains(words), "{body}: {error}");
    }
    let refused = server.post(CHAT, &chat("Hi", json!({})));
    assert!(refused.head.status == 404 && refused.body.contains("makes vectors"), "{}", refused.body);
    assert_eq!(server.metric("wgformer_embedded_texts_total"), 41.0);
}

/// The bytes that a text in base64 stands for.
fn base64_bytes(text: &str) -> Vec<u8> {
    const DIGITS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let digit = |byte: u8| DIGITS.iter().position(|digit| *digit == byte).unwrap() as u32;
    let mut bytes = Vec::new();
    for group in text.trim_end_matches('=').as_bytes().chunks(4) {
        let bits = group.iter().fold(0, |bits, byte| bits << 6 | digit(*byte)) << (6 * (4 - group.len()));
        bytes.extend(&bits.to_be_bytes()[1..group.len()]);
    }
    bytes
}

#[test]
fn a_decoder_and_an_embedder_are_served_side_by_side() {
    let (mut direct, _) = embedder(&gpu());
    let (served, tokenizer) = embedder(&gpu());
    let server = TestServer::of_tiny_on(&gpu(), ServeLimits::default(), 2, |server| {
        server.with_embedder(MODEL, served, &tokenizer)
    });
    let names: Vec<Value> =
        server.get("/v1/models").good()["data"].as_array().unwrap().iter().map(|m| m["id"].clone()).collect();
    assert_eq!(names, [NAME, MODEL]);
    let wanted = direct.embed(&["a text"], &mut |_| ()).unwrap().remove(0);
    let mut events = server.stream(CHAT, &chat("Hi", json!({"max_tokens": 2000, "logit_bias": {"256": -100}})));
    assert!(events.next().is_some());
    for _ in 0..3 {
        let answer = server.post(VECTORS, &json!({"model": MODEL, "input": "a text"})).good();
        let got = floats(&answer["data"][0]["embedding"]);
        assert!(got.iter().zip(&wanted).all(|(a, b)| (a - b).abs() <= 1e-5));
    }
    assert!(server.metric("wgformer_prompts_running") == 1.0, "the answer goes on in between");
    assert_eq!(server.post(VECTORS, &json!({"model": NAME, "input": "a"})).head.status, 404);
}

#[test]
fn models_of_one_name_are_refused() {
    let (served, tokenizer) = embedder(&gpu());
    let listener = || std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let nothing = Server::new(ServeLimits::default()).run(listener(), async {}).unwrap_err().to_string();
    assert!(nothing.contains("no model"), "{nothing}");
    let server = TestServer::of_tiny_on(&gpu(), ServeLimits::default(), 2, |server| {
        server.with_embedder(NAME, served, &tokenizer)
    });
    assert!(server.ended().unwrap_err().to_string().contains("the same name"));
}
