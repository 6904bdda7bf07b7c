//! Folders of Hugging Face's form as GGUF files, converted by the facts of the format, and compared.

use super::gpus;
use super::made::{Made, Meta, file};
use super::names::{EXPERTS, GEMMA2, NAMES};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use wgformer::check::check_golden;
use wgformer::io::{ModelFolder, NamedTensor, Tensors, gguf, safetensors};
use wgformer::{DType, TensorType, models};

type Keys = BTreeMap<&'static str, Meta>;

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/goldens").join(name)
}

pub(crate) fn leaked(text: String) -> &'static str {
    text.leak()
}

/// A folder as the tensors and the metadata of a file of that architecture.
pub(crate) struct Conversion {
    pub(crate) architecture: &'static str,
    pub(crate) config: Value,
    pub(crate) tensors: Tensors,
    /// A tensor for each expert, as older files have them.
    pub(crate) apart: bool,
}

impl Conversion {
    pub(crate) fn new(name: &str, architecture: &'static str) -> Self {
        let folder = ModelFolder::open(golden(name)).unwrap();
        Self { architecture, config: folder.config.value().clone(), tensors: folder.tensors, apart: false }
    }

    pub(crate) fn count(&self, key: &str) -> u32 {
        self.config[key].as_u64().unwrap_or_else(|| panic!("no {key}")) as u32
    }

    fn name(&self, theirs: &str) -> String {
        let (front, kind) = theirs.rsplit_once('.').unwrap();
        let number = front.split('.').find(|part| part.parse::<u32>().is_ok());
        let general =
            number.map_or_else(|| front.to_owned(), |number| front.replacen(&format!(".{number}."), ".N.", 1));
        let both = self.architecture == "gemma2" || self.architecture == "gemma3";
        let own = GEMMA2.iter().filter(|_| both).find_map(|(theirs, ours)| {
            (general == format!("model.layers.N.{theirs}")).then(|| format!("blk.N.{ours}"))
        });
        let known = || NAMES.iter().find(|(known, _)| *known == general).map(|(_, ours)| (*ours).to_owned());
        let ours = own.or_else(known).unwrap_or_else(|| panic!("{theirs} has no name"));
        format!("{}.{kind}", ours.replacen('N', number.unwrap_or("N"), 1))
    }

    /// The tensors, each changed as the converter changes it.
    pub(crate) fn made(&self) -> Vec<Made> {
        let pairs = ["llama", "granite", "smollm3"].contains(&self.architecture);
        let (mut all, mut experts) = (Vec::new(), BTreeMap::<(String, usize), (Vec<usize>, Vec<f32>)>::new());
        for tensor in self.tensors.iter() {
            let (mut shape, mut values) = (tensor.shape.dims().to_vec(), tensor.to_f32().unwrap());
            let parts: Vec<&str> = tensor.name.split('.').collect();
            if let Some(at) = parts.iter().position(|part| *part == "experts") {
                let [_, _, ours] = EXPERTS.iter().find(|names| names[..2].contains(&parts[at + 2])).unwrap();
                experts.insert((format!("blk.{}.{ours}", parts[2]), parts[at + 1].parse().unwrap()), (shape, values));
                continue;
            }
            let name = self.name(tensor.name);
            if pairs && (name.contains(".attn_q.") || name.contains(".attn_k.")) {
                let heads =
                    self.count(if name.contains("attn_q") { "num_attention_heads" } else { "num_key_value_heads" });
                let (row, head) = (values.len() / shape[0], shape[0] / heads as usize);
                // Row 2 i + half of a head in the file is row half · head/2 + i.
                let order = (0..shape[0]).map(|r| r / head * head + r % head % 2 * (head / 2) + r % head / 2);
                values = order.flat_map(|r| values[r * row..(r + 1) * row].to_vec()).collect();
            }
            if self.architecture.starts_with("gemma") && name.ends_with("norm.weight") {
                values.iter_mut().for_each(|x| *x += 1.0);
            }
            if self.architecture == "gpt2" && name.starts_with("blk.") && shape.len() == 2 {
                let [rows, columns] = [shape[0], shape[1]];
                values = (0..columns)
                    .flat_map(|c| (0..rows).map(move |r| (r, c)))
                    .map(|(r, c)| values[r * columns + c])
                    .collect();
                shape.reverse();
            }
            // Scores are divided by the root of a head's width in these files, and by that of another number in this folder.
            if let Some(scalar) = self.config["query_pre_attn_scalar"].as_f64().filter(|_| {
                name.ends_with("attn_q_norm.weight") || self.architecture == "gemma2" && name.ends_with("attn_q.weight")
            }) {
                let factor = (f64::from(self.count("head_dim")) / scalar).sqrt() as f32;
                values.iter_mut().for_each(|x| *x *= factor);
            }
            if name.ends_with("ffn_gate_inp_shexp.weight") {
                shape.remove(0);
            }
            all.push(made(name, shape, &values));
        }
        if self.apart {
            all.extend(experts.iter().map(|((name, expert), (shape, values))| {
                made(format!("{name}.{expert}.weight"), shape.clone(), values)
            }));
            return all;
        }
        let mut stacked = BTreeMap::<String, (Vec<usize>, Vec<f32>)>::new();
        for ((name, _), (shape, values)) in experts {
            let stack = stacked
                .entry(format!("{name}_exps.weight"))
                .or_insert_with(|| ([&[0][..], &shape].concat(), Vec::new()));
            stack.0[0] += 1;
            stack.1.extend(values);
        }
        all.extend(stacked.into_iter().map(|(name, (shape, values))| made(name, shape, &values)));
        all
    }

    /// The keys that all have, and `more` of the architecture.
    pub(crate) fn metadata(&self, more: &[(&str, Meta)]) -> Keys {
        let mut keys = Keys::from([("general.architecture", Meta::Text(self.architecture))]);
        let either = |names: &[&str]| {
            names.iter().find_map(|name| self.config[*name].as_u64()).map(|count| Meta::U32(count as u32))
        };
        for (key, names) in [
            ("embedding_length", &["hidden_size", "n_embd", "d_model"][..]),
            ("block_count", &["num_hidden_layers", "n_layer", "num_layers"]),
            ("attention.head_count", &["num_attention_heads", "n_head", "num_heads"]),
            ("attention.head_count_kv", &["num_key_value_heads"]),
            ("context_length", &["max_position_embeddings", "n_positions"]),
            ("feed_forward_length", &["intermediate_size", "d_ff"]),
            ("vocab_size", &["vocab_size"]),
            ("attention.sliding_window", &["sliding_window"]),
            ("expert_count", &["num_local_experts", "num_experts"]),
            ("expert_used_count", &["num_experts_per_tok"]),
            ("expert_feed_forward_length", &["moe_intermediate_size"]),
            ("expert_shared_feed_forward_length", &["shared_expert_intermediate_size"]),
            ("attention.key_length", &["head_dim", "d_kv"]),
            ("attention.value_length", &["head_dim", "d_kv"]),
        ] {
            if let Some(count) = either(names) {
                keys.insert(leaked(format!("{}.{key}", self.architecture)), count);
            }
        }
        let number = |value: &Value| value.as_f64().map(|number| Meta::F32(number as f32));
        for (key, value) in [
            ("attention.layer_norm_rms_epsilon", &self.config["rms_norm_eps"]),
            ("attention.layer_norm_epsilon", &self.config["layer_norm_eps"]),
            ("attention.layer_norm_epsilon", &self.config["layer_norm_epsilon"]),
            ("rope.freq_base", &self.config["rope_theta"]),
            ("rope.freq_base", &self.config["rope_parameters"]["rope_theta"]),
        ] {
            if let Some(number) = number(value) {
                keys.insert(leaked(format!("{}.{key}", self.architecture)), number);
            }
        }
        for (key, value) in more {
            keys.insert(leaked(format!("{}.{key}", self.architecture)), value.clone());
        }
        keys
    }
}

pub(crate) fn made(name: String, shape: Vec<usize>, values: &[f32]) -> Made {
    let bytes = values.iter().flat_map(|x| x.to_le_bytes()).collect();
    Made { theirs: name.clone(), name, shape, kind: 0, bytes, values: Vec::new() }
}

/// That the file computes what PyTorch computes from the golden folder, on every adapter, and is saved as such a folder.
pub(crate) fn check(name: &str, bytes: Vec<u8>) {
    let opened = gguf::from_bytes(name, bytes).unwrap_or_else(|error| panic!("{error}"));
    let home = tempfile::tempdir().unwrap();
    let gpus = gpus();
    let (model, weights) = models::load_model(&gpus[0], &opened, DType::F32).unwrap_or_else(|error| panic!("{error}"));
    models::save(model.as_ref(), &weights, Some(&opened), home.path()).unwrap();
    let all = Tensors::open(golden(name).join("golden.safetensors")).unwrap();
    let tensors: Vec<NamedTensor<'_>> = all
        .iter()
        .filter(|tensor| !tensor.name.starts_with("grad."))
        .map(|tensor| match tensor.dtype.same() {
            Some(dtype) if tensor.dtype.is_integer() => {
                NamedTensor::new(tensor.name, TensorType::new(tensor.shape.clone(), dtype), tensor.bytes.to_vec())
            }
            _ => NamedTensor::f32(tensor.name, tensor.shape.clone(), &tensor.to_f32().unwrap()),
        })
        .collect();
    safetensors::write(home.path().join("golden.safetensors"), &tensors).unwrap();
    let generated = golden(name).join("generated.safetensors");
    if generated.exists() {
        std::fs::copy(generated, home.path().join("generated.safetensors")).unwrap();
        std::fs::copy(golden(name).join("generation_config.json"), home.path().join("generation_config.json")).unwrap();
    }
    for gpu in &gpus {
        let report = check_golden(gpu, home.path()).unwrap_or_else(|error| panic!("{name}: {error}"));
        let rows: Vec<_> = report.rows.iter().filter(|row| row.what != "loss" && row.what != "aux_loss").collect();
        assert!(
            rows.iter().any(|row| row.what == "logits" || row.what == "last_hidden_state"),
            "{name}: nothing compared"
        );
        for row in rows {
            println!("{name} {}: {:.1e}", row.what, row.error);
            assert!(
                row.passed,
                "{name}, {}, on {}: error {:.1e}, allowed {:.1e}",
                row.what,
                gpu.info().name,
                row.error,
                row.limit
            );
        }
    }
}

pub(crate) fn convert(name: &str, architecture: &'static str, more: &[(&str, Meta)]) {
    let conversion = Conversion::new(name, architecture);
    check(name, file(&conversion.metadata(more), &conversion.made()).0);
}
