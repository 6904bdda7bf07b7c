//! The probabilities of attention that people look at: rows sum to 1, and times the values they are what the model computes.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[path = "common/command.rs"]
mod common;

use common::{refusal, succeed, wgformer};
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use wgformer::io::ModelFolder;
use wgformer::models::{self, AttentionText, Model, TokenInputs};
use wgformer::nn::Context;
use wgformer::{DType, Gpu, Graph, Program, ops};

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/goldens").join(name)
}

/// A model with rotary positions and grouped queries, one with biases by distance and cross-attention, soft caps, windows on both sides, latent
/// attention, and so on.
const FAMILIES: [&str; 11] = [
    "gpt2",
    "llama",
    "gemma2",
    "gemma3-local-global",
    "mistral",
    "deepseek-v3",
    "bert-masked-lm",
    "modernbert-masked-lm",
    "nomic-bert",
    "t5",
    "bart",
];

/// Reads tokens with both sides of a model.
fn read(g: &mut Graph, model: &dyn Model, count: usize) {
    let ids = g.input("ids", [1, count], DType::U32).unwrap();
    let inputs = TokenInputs::new(g, ids).unwrap();
    let states = model.encoder().map(|encoder| encoder.encode(g, &inputs).unwrap().states);
    if let Some(decoder) = model.decoder() {
        let inputs = match states {
            Some(states) => inputs.with_context(Context::States { states, key_mask: None }),
            None => inputs,
        };
        decoder.decode(g, &inputs).unwrap();
    }
}

#[test]
fn probabilities_times_values_are_the_output_on_every_adapter() {
    for adapter in Gpu::adapters() {
        let gpu = Gpu::open(&adapter).unwrap();
        for name in FAMILIES {
            let folder = ModelFolder::open(golden(name)).unwrap();
            let (model, weights) = models::load_model(&gpu, &folder, Some(DType::F32)).unwrap();
            let ids: Vec<u32> = (0..19_u32).map(|i| 3 + (i * i * 31 + i * 7) % 50).collect();
            let mut g = Graph::with_storage(weights.storage());
            read(&mut g, model.as_ref(), ids.len());
            let found = ops::attention_weights(&mut g).unwrap();
            assert!(!found.is_empty(), "{name}");
            for (number, attention) in found.iter().enumerate() {
                g.output(&format!("weights.{number}"), attention.weights).unwrap();
                g.output(&format!("values.{number}"), attention.qkv[2]).unwrap();
                g.output(&format!("out.{number}"), attention.out).unwrap();
            }
            let program = Program::new(&gpu, &g, &weights).unwrap();
            program.write("ids", bytemuck::cast_slice(&ids)).unwrap();
            program.run().unwrap();
            let text = AttentionText {
                ids: &ids,
                decoder_ids: if model.encoder().is_some() && model.decoder().is_some() { &ids } else { &[] },
            };
            let maps = models::attention_maps(&gpu, model.as_ref(), &weights, text).unwrap();
            assert_eq!(maps.len(), found.len());
            for (number, (attention, map)) in found.iter().zip(&maps).enumerate() {
                let read = |what: &str| program.read_f32(&format!("{what}.{number}")).unwrap();
                let (weights, values, out) = (read("weights"), read("values"), read("out"));
                let [_, heads, queries, keys] = g.shape(attention.weights).expect("weights").unwrap();
                let [_, _, kv_heads, head_dim] = g.shape(attention.qkv[2]).expect("values").unwrap();
                assert!(map.weights.iter().zip(&weights).all(|(a, b)| (a - b).abs() <= 1e-6), "{name}");
                assert_eq!((map.heads, map.queries, map.keys), (heads, queries, keys));
                let largest = out.iter().fold(1e-3_f64, |most, x| most.max(f64::from(x.abs())));
                for h in 0..heads {
                    for i in 0..queries {
                        let row = &weights[(h * queries + i) * keys..][..keys];
                        let sum: f64 = row.iter().map(|x| f64::from(*x)).sum();
                        assert!((sum - 1.0).abs() <= 1e-5, "{name} {}: a row sums to {sum}", map.layer);
                        for d in 0..head_dim {
                            let value = |j: usize| values[(j * kv_heads + h * kv_heads / heads) * head_dim + d];
                            let product: f64 =
                                row.iter().enumerate().map(|(j, w)| f64::from(*w) * f64::from(value(j))).sum();
                            let error = (product - f64::from(out[(i * heads + h) * head_dim + d])).abs();
                            assert!(error <= 1e-5 * largest, "{name} {} head {h}: {error:.1e}", map.layer);
                        }
                    }
                }
                // Decoders do not look ahead.
                if map.decoder_keys {
                    let ahead = (0..keys).any(|j| weights[j] != 0.0 && j > 0);
                    assert!(!ahead, "{name} {}", map.layer);
                }
            }
        }
    }
}

#[test]
fn layers_are_named_by_side_and_kind() {
    let gpu = Gpu::open(&Gpu::adapters()[0]).unwrap();
    let folder = ModelFolder::open(golden("t5")).unwrap();
    let (model, weights) = models::load_model(&gpu, &folder, Some(DType::F32)).unwrap();
    let maps = |text| models::attention_maps(&gpu, model.as_ref(), &weights, text).unwrap();
    let both = maps(AttentionText { ids: &[5, 6, 7, 1], decoder_ids: &[0, 9] });
    let cross: Vec<_> = both.iter().filter(|map| map.decoder_queries && !map.decoder_keys).collect();
    let own: Vec<_> = both.iter().filter(|map| map.decoder_keys).collect();
    assert!(cross.iter().all(|map| (map.queries, map.keys) == (2, 4)) && cross.len() == own.len() && !own.is_empty());
    assert!(own.iter().all(|map| (map.queries, map.keys) == (2, 2)));
    let encoder = maps(AttentionText { ids: &[5, 6, 7, 1], decoder_ids: &[] });
    assert_eq!(encoder.len() + cross.len() + own.len(), both.len());
    assert!(both[0].layer.starts_with("encoder.blocks.0.attention"), "{}", both[0].layer);
    let refused = |text| models::attention_maps(&gpu, model.as_ref(), &weights, text).is_err();
    assert!(refused(AttentionText::default()));
    let mor = ModelFolder::open(golden("mor-token-choice")).unwrap();
    let (model, weights) = models::load_model(&gpu, &mor, Some(DType::F32)).unwrap();
    let said = models::attention_maps(&gpu, model.as_ref(), &weights, AttentionText { ids: &[1], decoder_ids: &[] });
    assert!(said.unwrap_err().to_string().contains("recursions pick tokens"));
}

#[test]
fn the_command_prints_heads_and_writes_a_page() {
    let folder = tempfile::tempdir().unwrap();
    let model = common::small_model(folder.path());
    let page = folder.path().join("page.html");
    let inspect = |more: &[&str]| {
        let mut command = wgformer();
        command.arg("inspect").arg(&model).args(more);
        command
    };
    let said = succeed(inspect(&["--attention", "It is <b>", "--html"]).arg(&page));
    assert!(said.contains("decoder.blocks.0.attention") && said.contains("page.html"), "{said}");
    let html = fs::read_to_string(&page).unwrap();
    assert!(html.contains("const MAPS = [{") && !html.contains("<b>"), "a token is data, not markup");
    let said: Value = serde_json::from_str(&succeed(&mut inspect(&["--json", "--attention", "It is"]))).unwrap();
    let rows = said["attention"][0]["weights"][0].as_array().unwrap();
    assert_eq!((rows.len(), said["tokens"].as_array().unwrap().len()), (5, 5));
    assert_eq!(rows[0], serde_json::json!([1.0, 0.0, 0.0, 0.0, 0.0]));
    // A text is cut to what the model reads, and told.
    let cut = common::run(&mut inspect(&["--attention", &"It is a truth 🙂 ".repeat(50)]));
    assert!(cut.status.success() && String::from_utf8_lossy(&cut.stderr).contains("the first 15 are read"));
    assert!(refusal(&mut inspect(&["--attention", ""])).contains("it has 0 tokens"));
    assert!(refusal(&mut inspect(&["--attention", "a", "--answer", "b"])).contains("an encoder and a decoder"));
    assert!(refusal(&mut inspect(&["--html", "x.html"])).contains("--routing"));
    let mut none = wgformer();
    assert!(refusal(none.args(["inspect", "--attention", "a"])).contains("give its folder"));
}
