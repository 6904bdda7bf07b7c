//! Model folders: unusual, incomplete, of another kind; saving and loading again.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on fails")]

use serde_json::{Value, json};
use std::path::Path;
use wgformer::io::{Config, Contents, ModelFolder, NamedTensor, Tensors};
use wgformer::models::{self, Decoder, file_tensors};
use wgformer::{DType, Gpu};

fn gpu() -> Gpu {
    let adapters = Gpu::adapters();
    Gpu::open(adapters.first().unwrap_or_else(|| panic!("no adapter: install a Vulkan driver"))).unwrap()
}

fn with(mut config: Value, more: &Value) -> Value {
    for (key, value) in more.as_object().into_iter().flatten() {
        config[key] = value.clone();
    }
    config
}

fn base(family: &str) -> Value {
    match family {
        "gpt2" => {
            json!({"model_type": "gpt2", "vocab_size": 11, "n_embd": 8, "n_head": 2, "n_layer": 2, "n_positions": 6})
        }
        "mor" => with(base("llama"), &json!({"model_type": "mor", "num_hidden_layers": 5, "num_recursions": 3})),
        "mixtral" => with(base("llama"), &json!({"model_type": "mixtral", "num_local_experts": 4})),
        "qwen2_moe" => with(
            base("llama"),
            &json!({"model_type": "qwen2_moe", "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 6}),
        ),
        _ => json!({"model_type": "llama", "vocab_size": 11, "hidden_size": 8, "num_attention_heads": 2,
                    "num_key_value_heads": 2, "num_hidden_layers": 2, "intermediate_size": 12,
                    "max_position_embeddings": 6}),
    }
}

fn decoder(config: Value) -> Box<dyn Decoder> {
    models::decoder(&Config::new("config.json", config).unwrap()).unwrap()
}

/// The tensors of a model as a file has them, with distinct numbers.
fn tensors(model: &dyn Decoder) -> Vec<NamedTensor<'static>> {
    let parts = model.parameters().unwrap();
    let parts = parts.iter().flat_map(|(name, ty)| file_tensors(name, ty));
    let values =
        |count: usize, salt: usize| -> Vec<f32> { (0..count).map(|i| ((i + 7 * salt) as f32 * 0.37).sin()).collect() };
    let tensor = |(salt, (name, ty)): (usize, (String, wgformer::TensorType))| {
        let count = ty.shape.numel();
        NamedTensor::f32(name, ty.shape, &values(count, salt))
    };
    parts.enumerate().map(tensor).collect()
}

fn save(path: &Path, config: &Value, tensors: &[NamedTensor<'_>]) {
    Contents { config, generation: None, tensors, tokenizer: None, companions: &[] }.save(path).unwrap();
}

/// A folder with a small llama whose config has these keys, or lacks those that are null here.
fn folder(more: &Value) -> tempfile::TempDir {
    let home = tempfile::tempdir().unwrap();
    let mut config = with(base("llama"), more);
    let model = decoder(base("llama"));
    config.as_object_mut().unwrap().retain(|_, value| !value.is_null());
    save(&home.path().join("model"), &config, &tensors(model.as_ref()));
    home
}

fn load(home: &tempfile::TempDir, storage: impl Into<Option<DType>>) -> Result<(), String> {
    let folder = ModelFolder::open(home.path().join("model")).map_err(|e| e.to_string())?;
    models::load(&gpu(), &folder, storage).map(|_| ()).map_err(|e| e.to_string())
}

fn refused(home: &tempfile::TempDir) -> String {
    match load(home, None) {
        Err(message) => message,
        Ok(()) => panic!("it was accepted"),
    }
}

/// Every key that changes the names or shapes of weights, away from its default.
const KEYS: [(&str, &[&str]); 5] = [
    (
        "gpt2",
        &[
            r#"{}"#,
            r#"{"tie_word_embeddings": false}"#,
            r#"{"n_inner": 10}"#,
            r#"{"n_layer": 3}"#,
            r#"{"n_positions": 9}"#,
        ],
    ),
    (
        "llama",
        &[
            r#"{}"#,
            r#"{"tie_word_embeddings": true}"#,
            r#"{"attention_bias": true}"#,
            r#"{"mlp_bias": true}"#,
            r#"{"head_dim": 6}"#,
            r#"{"num_key_value_heads": 1}"#,
            r#"{"num_key_value_heads": null, "num_attention_heads": 4}"#,
        ],
    ),
    (
        "mixtral",
        &[
            r#"{}"#,
            r#"{"tie_word_embeddings": true}"#,
            r#"{"num_local_experts": 3}"#,
            r#"{"router_bias_rate": 0.001}"#,
            r#"{"router_noise": true}"#,
            r#"{"mlp_bias": true}"#,
            r#"{"attention_bias": true}"#,
            r#"{"head_dim": 6, "num_key_value_heads": 1}"#,
            r#"{"mlp_only_layers": [1]}"#,
            r#"{"decoder_sparse_step": 2}"#,
        ],
    ),
    (
        "qwen2_moe",
        &[
            r#"{}"#,
            r#"{"qkv_bias": false}"#,
            r#"{"qkv_bias": true}"#,
            r#"{"attention_bias": true}"#,
            r#"{"shared_expert_intermediate_size": 10}"#,
            r#"{"mlp_only_layers": [0]}"#,
            r#"{"decoder_sparse_step": 2, "intermediate_size": 14}"#,
            r#"{"mlp_only_layers": [1], "mlp_bias": true}"#,
            r#"{"router_bias_rate": 0.001}"#,
            r#"{"router_noise": true}"#,
            r#"{"num_experts": 5, "moe_intermediate_size": 4}"#,
        ],
    ),
    (
        "mor",
        &[
            r#"{}"#,
            r#"{"sampling": "aux_router"}"#,
            r#"{"router": "mlp"}"#,
            r#"{"router": "mlp", "routing": "token_choice"}"#,
            r#"{"router_function": null}"#,
            r#"{"capacity_warmup_steps": 9}"#,
            r#"{"kv_sharing": true}"#,
            r#"{"sharing": "cycle", "num_hidden_layers": 6}"#,
            r#"{"sharing": "sequence", "routing": "none", "num_hidden_layers": 6}"#,
            r#"{"sharing": "middle_sequence", "routing": "none"}"#,
            r#"{"routing": "token_choice", "num_modules": 2, "router_bias": 0.01}"#,
            r#"{"routing": "token_choice", "router_function": "sigmoid"}"#,
            r#"{"num_recursions": 1}"#,
            r#"{"num_local_experts": 4, "router_bias_rate": 0.001}"#,
            r#"{"num_local_experts": 4, "attention_bias": true}"#,
            r#"{"num_local_experts": 4, "mlp_only_layers": [1]}"#,
            r#"{"attention_bias": true, "mlp_bias": true, "tie_word_embeddings": true}"#,
        ],
    ),
];

#[test]
fn what_is_saved_loads_again_with_every_key_that_changes_the_weights() {
    let gpu = gpu();
    for (family, more) in KEYS.iter().flat_map(|(family, all)| all.iter().map(move |more| (*family, *more))) {
        let home = tempfile::tempdir().unwrap();
        let config = with(base(family), &serde_json::from_str(more).unwrap());
        let model = decoder(config.clone());
        let given = tensors(model.as_ref());
        save(&home.path().join("first"), &config, &given);
        let first = ModelFolder::open(home.path().join("first")).unwrap();
        let (model, weights) = models::load(&gpu, &first, DType::F32).unwrap();
        models::save(model.as_ref(), &weights, Some(&first), home.path().join("second")).unwrap();
        let second = ModelFolder::open(home.path().join("second")).unwrap();
        let what = format!("{family} with {more}");
        let again = models::load(&gpu, &second, DType::F32).unwrap_or_else(|e| panic!("{what}: {e}"));
        let names =
            |tensors: &Tensors| tensors.iter().map(|t| (t.name.to_owned(), t.shape.clone())).collect::<Vec<_>>();
        assert_eq!(names(&first.tensors), names(&second.tensors), "{what}");
        for (a, b) in first.tensors.iter().zip(second.tensors.iter()) {
            assert_eq!(a.to_f32().unwrap(), b.to_f32().unwrap(), "{what}: {}", a.name);
        }
        assert_eq!(again.0.config(), model.config(), "{what}");
        for (name, ty) in again.0.parameters().unwrap() {
            let (a, b) = (weights.download(&name).unwrap(), again.1.download(&name).unwrap());
            assert!(a == b && !a.is_empty(), "{what}: {name}, {ty}");
        }
    }
}

#[test]
fn a_folder_without_a_family_goes_by_its_class() {
    load(&folder(&json!({"model_type": null, "architectures": ["LlamaForCausalLM"]})), None).unwrap();
    let message = refused(&folder(&json!({"model_type": null, "architectures": ["MambaForCausalLM"]})));
    assert!(message.contains("\"architectures\" is \"MambaForCausalLM\", which is not read yet"), "{message}");
    let message = refused(&folder(&json!({"model_type": "mamba"})));
    assert!(
        message.contains("\"model_type\" is \"mamba\", which is not read yet; gpt2, gpt_neox, llama, "),
        "{message}"
    );
}

#[test]
fn numbers_that_python_writes_do_not_matter_where_nobody_asks() {
    let home = folder(&json!({}));
    let path = home.path().join("model/config.json");
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, text.replacen('{', "{\"time_step_limit\": [0.0, Infinity, -Infinity, NaN],", 1)).unwrap();
    std::fs::write(home.path().join("model/generation_config.json"), "{\"penalty\": NaN}").unwrap();
    load(&home, None).unwrap();
    std::fs::write(&path, text.replacen('{', "{\"rope_theta\": Infinity,", 1)).unwrap();
    let message = refused(&home);
    assert!(message.contains("\"rope_theta\" is not usable") && message.contains("\"Infinity\""), "{message}");
}

#[test]
fn weights_in_another_form_are_refused_by_what_they_are() {
    for (method, name) in [("awq", "AWQ"), ("gptq", "GPTQ"), ("bitsandbytes", "BITSANDBYTES"), ("fp8", "FP8")] {
        let message = refused(&folder(&json!({"quantization_config": {"quant_method": method}})));
        assert!(
            message.contains(&format!("\"quantization_config\" says {name}, which is not read: give")),
            "{message}"
        );
        assert!(!message.contains("missing"), "{message}");
    }
    let home = folder(&json!({}));
    let model = home.path().join("model");
    std::fs::rename(model.join("model.safetensors"), model.join("adapter_model.safetensors")).unwrap();
    std::fs::write(model.join("adapter_config.json"), r#"{"base_model_name_or_path": "some/base"}"#).unwrap();
    for _ in 0..2 {
        let message = refused(&home);
        assert!(
            message.contains("this is a LoRA adapter, not a model, and its base model, \"some/base\""),
            "{message}"
        );
        // Adapters have no config.json of their own.
        let _ = std::fs::remove_file(model.join("config.json"));
    }
}

#[test]
fn parts_without_their_index_are_read_and_a_missing_one_is_named() {
    let home = folder(&json!({}));
    let model = home.path().join("model");
    let all = tensors(decoder(base("llama")).as_ref());
    let whole = ModelFolder::open(&model).unwrap().tensors.len();
    let (a, b) = all.split_at(5);
    for (number, part) in [(1, a), (2, b)] {
        wgformer::io::safetensors::write(model.join(format!("model-0000{number}-of-00002.safetensors")), part).unwrap();
    }
    std::fs::remove_file(model.join("model.safetensors")).unwrap();
    load(&home, None).unwrap();
    assert_eq!(ModelFolder::open(&model).unwrap().tensors.len(), whole);
    std::fs::remove_file(model.join("model-00001-of-00002.safetensors")).unwrap();
    let message = refused(&home);
    let wanted = "neither model.safetensors.index.json nor model-00001-of-00002.safetensors: download what is missing";
    assert!(message.contains(wanted), "{message}");
}

#[test]
fn folders_that_hold_something_else_say_what_to_do() {
    let home = folder(&json!({}));
    let model = home.path().join("model");
    std::fs::rename(model.join("model.safetensors"), model.join("pytorch_model.bin")).unwrap();
    let message = refused(&home);
    assert!(message.contains("AutoModelForCausalLM.from_pretrained(FOLDER).save_pretrained(FOLDER"), "{message}");
    std::fs::rename(model.join("pytorch_model.bin"), model.join("small.gguf")).unwrap();
    assert!(refused(&home).contains("holds small.gguf: give this file itself"));
    std::fs::remove_file(model.join("config.json")).unwrap();
    assert!(refused(&home).contains("has no config.json but has small.gguf: use the path of that file"));
}

#[test]
fn numbers_too_large_for_half_precision_are_named() {
    let home = tempfile::tempdir().unwrap();
    let model = decoder(base("llama"));
    let mut all = tensors(model.as_ref());
    let name = "model.layers.1.mlp.up_proj.weight";
    let mut values = vec![0.5_f32; 12 * 8];
    values[13] = 302_555.7;
    let place = all.iter().position(|tensor| tensor.name == name).unwrap();
    all[place] = NamedTensor::f32(name, [12, 8], &values);
    save(&home.path().join("model"), &base("llama"), &all);
    load(&home, DType::BF16).unwrap();
    let message = load(&home, DType::F16).unwrap_err();
    assert!(message.starts_with(&format!("weight {name}: element 13 is 302555.7, too large for f16")), "{message}");
}

#[test]
fn experts_can_be_quantised() {
    let home = tempfile::tempdir().unwrap();
    let config = with(base("mixtral"), &json!({"hidden_size": 32, "intermediate_size": 32}));
    save(&home.path().join("model"), &config, &tensors(decoder(config.clone()).as_ref()));
    load(&home, DType::BF16).unwrap();
    load(&home, DType::Q8_0).unwrap();
    // Rows of 32 are no blocks of 256.
    load(&home, DType::Q4K).unwrap();
}
