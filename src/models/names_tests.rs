use super::*;
use crate::dtype::DType;
use crate::io::{Config, NamedTensor};
use crate::models::weights::tests::file;
use crate::models::{Gpt2, Llama};
use serde_json::{Value, json};

fn model() -> Gpt2 {
    let config = json!({"vocab_size": 5, "n_embd": 4, "n_head": 2, "n_layer": 1, "n_positions": 3});
    Gpt2::from_config(&Config::new("config.json", config).unwrap()).unwrap()
}

#[test]
fn old_checkpoints_lack_the_prefix_and_have_buffers() {
    let parameters = model().parameters().unwrap();
    let bare = |name: &str| name.strip_prefix("transformer.").unwrap_or(name).to_owned();
    let mut names: Vec<_> = parameters.iter().map(|(name, ty)| (bare(name), ty.clone())).collect();
    names.push(("h.0.attn.bias".into(), TensorType::f32([1, 1, 3, 3])));
    names.push(("h.0.attn.masked_bias".into(), TensorType::f32([1])));
    names.push(("lm_head.weight".into(), TensorType::f32([5, 4])));
    let (_folder, tensors) = file(names.clone(), 0.5);
    let found = matched(&model(), &parameters, &tensors).unwrap();
    assert!(found.iter().zip(&parameters).all(|(t, (name, _))| t[0].name == bare(name)));
    names.retain(|(name, _)| name != "ln_f.bias");
    names.push(("h.1.ln_1.bias".into(), TensorType::f32([4])));
    let (_folder, tensors) = file(names, 0.5);
    let message = matched(&model(), &parameters, &tensors).unwrap_err().to_string();
    let wanted = "1 missing: transformer.ln_f.bias; 1 not of this model: h.1.ln_1.bias";
    assert!(message.ends_with(wanted), "{message}");
}

#[test]
fn a_tied_head_that_differs_from_the_embedding_is_refused() {
    let parameters = model().parameters().unwrap();
    let with_head = |head: NamedTensor<'static>| {
        let folder = tempfile::tempdir().unwrap();
        let value = |ty: &TensorType| vec![0.5; ty.shape.numel()];
        let all = parameters.iter().map(|(name, ty)| NamedTensor::f32(name, ty.shape.clone(), &value(ty)));
        let all: Vec<NamedTensor<'_>> = all.chain([head]).collect();
        crate::io::safetensors::write(folder.path().join("model.safetensors"), &all).unwrap();
        let tensors = Tensors::open(folder.path()).unwrap();
        matched(&model(), &parameters, &tensors).map(|_| ()).map_err(|e| e.to_string())
    };
    let head =
        |shape: [usize; 2], value: f32| NamedTensor::f32("lm_head.weight", shape, &vec![value; shape[0] * shape[1]]);
    with_head(head([5, 4], 0.5)).unwrap();
    let half = TensorType::new([5, 4], DType::F16);
    let equal = NamedTensor::new("lm_head.weight", half.clone(), crate::program::pack(&[0.5; 20], half.dtype));
    with_head(equal).unwrap();
    for wrong in [head([5, 4], 0.25), head([4, 5], 0.5)] {
        let message = with_head(wrong).unwrap_err();
        assert!(message.contains("model.safetensors: lm_head.weight differs from transformer.wte.weight"), "{message}");
    }
}

fn llama(more: Value) -> Llama {
    let mut config = json!({"model_type": "llama", "vocab_size": 5, "hidden_size": 4, "num_attention_heads": 2,
                            "num_hidden_layers": 2, "intermediate_size": 6, "max_position_embeddings": 8});
    for (key, value) in more.as_object().into_iter().flatten() {
        config[key] = value.clone();
    }
    Llama::from_config(&Config::new("config.json", config).unwrap()).unwrap()
}

/// The error of reading a llama of other sizes from a file with these tensors and more.
fn said(of: Value, is: Value, keep: impl Fn(&str) -> Option<String>, more: &[&str]) -> String {
    let parameters = llama(of).parameters().unwrap();
    let names = parameters.iter().filter_map(|(name, ty)| Some((keep(name)?, ty.clone())));
    let more = more.iter().map(|name| ((*name).to_owned(), TensorType::f32([3])));
    let (_folder, tensors) = file(names.chain(more), 0.5);
    let model = llama(is);
    let wanted = model.parameters().unwrap();
    matched(&model, &wanted, &tensors).map_or_else(
        |error| error.to_string(),
        |found| {
            assert!(found.iter().zip(&wanted).all(|(t, (name, _))| t[0].name.ends_with(name)));
            String::new()
        },
    )
}

#[test]
fn what_a_wrapper_put_in_front_is_taken_off() {
    for prefix in ["module.", "_orig_mod.", "model.", "transformer.", "module._orig_mod.", "language_model."] {
        let all = |name: &str| Some(format!("{prefix}{name}"));
        let buffer = format!("{prefix}model.layers.0.self_attn.rotary_emb.inv_freq");
        assert_eq!(said(json!({}), json!({}), all, &["vision.layers.0.x", &buffer]), "", "{prefix}");
    }
}

#[test]
fn the_cause_stands_in_front_of_the_list() {
    let whole = |name: &str| Some(name.to_owned());
    let plain = |is: Value, more: &[&str]| said(json!({}), is, whole, more);
    assert_eq!(plain(json!({}), &["v_head.summary.weight", "model.layers.2.mlp.up_proj.weight"]), "");
    let inside = plain(json!({}), &["model.layers.1.self_attn.q_norm.weight"]);
    assert!(inside.ends_with("1 not of this model: model.layers.1.self_attn.q_norm.weight"), "{inside}");
    assert!(plain(json!({}), &["layers.1.x.weight"]).contains("not of this model: layers.1.x"));
    let biases = said(json!({"attention_bias": true}), json!({}), whole, &[]);
    assert!(biases.contains("holds biases that the model of config.json does not have: attention_bias"), "{biases}");
    let biases = plain(json!({"mlp_bias": true}), &[]);
    assert!(biases.contains("lacks biases that the model of config.json has"), "{biases}");
    let blocks = plain(json!({"num_hidden_layers": 5}), &[]);
    assert!(
        blocks.contains("holds 2 of the 5 blocks of config.json: a part of the model is missing (27 missing"),
        "{blocks}"
    );
    let table = plain(json!({"vocab_size": 7}), &[]);
    assert!(
        table.contains(
            "does not have the vocabulary or the width of config.json, model.embed_tokens.weight has shape [5, 4]"
        ),
        "{table}"
    );
    let head = |name: &str| (name != "lm_head.weight").then(|| name.trim_start_matches("model.").to_owned());
    let head = said(json!({"tie_word_embeddings": false}), json!({"tie_word_embeddings": false}), head, &[]);
    assert!(head.contains("holds no head") && head.contains("AutoModelForCausalLM"), "{head}");
    let other = said(json!({}), json!({}), |name| Some(format!("{name}s")), &[]);
    assert!(other.contains("holds no tensor of this model"), "{other}");
}

#[test]
fn weights_in_another_form_are_known_by_their_names() {
    let packed = |name: &str| Some(name.replace("_proj.weight", "_proj.qweight"));
    let message = said(json!({}), json!({}), packed, &[]);
    assert!(message.contains("quantised weights in a form that is not read (model.layers.0."), "{message}");
    assert!(!message.contains("missing"), "{message}");
    let adapter =
        said(json!({}), json!({}), |_| None, &["base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"]);
    assert!(adapter.contains("holds a LoRA adapter's tensors"), "{adapter}");
}
