//! The `config.json`.

use super::{NomicBert, NomicSpelling};
use crate::error::Result;
use crate::io::Config;
use crate::models::heads::HeadKinds;
use crate::models::rope::{RopeKeys, rope_config, rope_with, rotary_share};
use crate::models::settings::{
    activation, activation_name, count, json_f32, layer_count, must_divide, optional_count, positive_number, rate,
    rate_or, reject_if_true,
};
use crate::models::{EncoderHead, heads, passed_on_beside};
use crate::ops::{Activation, RopeOptions, RopeScaling};
use serde_json::{Value, json};

const CLASS: &str = "NomicBert";
/// Its heads, by the ends of classes' names.
const HEADS: HeadKinds = &[
    ("Model", EncoderHead::None),
    ("ForMaskedLM", EncoderHead::MaskedLanguageModel),
    ("ForPreTraining", EncoderHead::MaskedLanguageModel),
    ("ForSequenceClassification", EncoderHead::SequenceClassification { labels: 0 }),
    ("ForTokenClassification", EncoderHead::TokenClassification { labels: 0 }),
];
/// The published code rounds widths of gated feed-forward networks up to a multiple of this.
const MULTIPLE: usize = 256;
/// Names of gated feed-forward networks in published files, with the activation of the gate.
const GATES: [(&str, Activation); 3] =
    [("swiglu", Activation::Silu), ("geglu", Activation::GeluErf), ("glu", Activation::Sigmoid)];
const FACTOR: &str = "rotary_scaling_factor";
const TRAINED: &str = "max_trained_positions";
const MULTIPLE_OF_WORDS: &str = "pad_vocab_size_multiple";

/// The keys of a spelling.
struct Keys {
    d_model: &'static str,
    layers: &'static str,
    heads: &'static str,
    d_ff: &'static str,
    positions: (&'static str, usize),
    epsilon: (&'static str, f32),
    dropout: &'static str,
    attention_dropout: &'static str,
}

impl NomicSpelling {
    fn keys(self) -> Keys {
        match self {
            Self::Transformers => Keys {
                d_model: "hidden_size",
                layers: "num_hidden_layers",
                heads: "num_attention_heads",
                d_ff: "intermediate_size",
                positions: ("max_position_embeddings", 2048),
                epsilon: ("layer_norm_eps", 1e-12),
                dropout: "hidden_dropout_prob",
                attention_dropout: "attention_probs_dropout_prob",
            },
            Self::Published => Keys {
                d_model: "n_embd",
                layers: "n_layer",
                heads: "n_head",
                d_ff: "n_inner",
                positions: ("n_positions", 1024),
                epsilon: ("layer_norm_epsilon", 1e-5),
                dropout: "resid_pdrop",
                attention_dropout: "attn_pdrop",
            },
        }
    }
}

impl NomicBert {
    /// A model of these sizes, the rest as the family has it where its files say nothing, without a head, with a feed-forward network four times
    /// as wide.
    ///
    /// # Errors
    /// [`crate::Error::Format`] that names the size that is wrong.
    pub fn new(vocabulary: usize, d_model: usize, layers: usize, heads: usize) -> Result<Self> {
        let config = json!({"vocab_size": vocabulary, "hidden_size": d_model, "num_hidden_layers": layers, "num_attention_heads": heads,
                            "intermediate_size": d_model.saturating_mul(4)});
        Self::from_config(&Config::new("the sizes given", config)?)
    }

    /// The model of a `config.json` with `model_type` `nomic_bert`, with the keys of transformers or of the files that Nomic published.
    ///
    /// # Errors
    /// [`crate::Error::Format`] that names the key whose value is missing, wrong or not supported.
    pub fn from_config(config: &Config) -> Result<Self> {
        let spelling = match config.has("n_embd") {
            true => NomicSpelling::Published,
            false => NomicSpelling::Transformers,
        };
        let keys = spelling.keys();
        let published = spelling == NomicSpelling::Published;
        without_what_is_not_read(config)?;
        let (d_model, heads) = (count(config, keys.d_model)?, count(config, keys.heads)?);
        must_divide(config, keys.heads, heads, d_model, keys.d_model)?;
        let head_dim = d_model / heads;
        if optional_count(config, "head_dim")?.is_some_and(|own| own != head_dim) {
            return Err(config.refuse("head_dim", format!("must be {}, divided by {}", keys.d_model, keys.heads)));
        }
        if head_dim % 2 == 1 {
            let message = format!("makes heads {head_dim} wide; rotary positions need an even width");
            return Err(config.refuse(keys.heads, message));
        }
        let positions = optional_count(config, keys.positions.0)?.unwrap_or(keys.positions.1);
        let d_ff = match published {
            true => optional_count(config, keys.d_ff)?.unwrap_or(8 * d_model / 3).next_multiple_of(MULTIPLE),
            false => optional_count(config, keys.d_ff)?.unwrap_or(3072),
        };
        let words = optional_count(config, MULTIPLE_OF_WORDS)?.unwrap_or(1);
        let dropout = rate(config, keys.dropout)?;
        let padding = match config.value().get("pad_token_id") {
            None => (!published).then_some(0),
            Some(_) => config.optional("pad_token_id")?,
        };
        let (rope, max_position) = rope(config, published, [head_dim, positions])?;
        Ok(Self {
            spelling,
            vocabulary: count(config, "vocab_size")?.next_multiple_of(words),
            max_position,
            types: config.get_or("type_vocab_size", 2)?,
            d_model,
            layers: layer_count(config, keys.layers)?,
            heads,
            d_ff,
            activation: gate(config, published)?,
            epsilon: positive_number(config, keys.epsilon.0, keys.epsilon.1)?,
            rope,
            dropout,
            attention_dropout: rate(config, keys.attention_dropout)?,
            classifier_dropout: rate_or(config, "classifier_dropout", dropout)?,
            padding,
            head: heads::head(config, CLASS, HEADS)?,
            pooler: false,
            head_bias: !published,
            init_std: config.get_or("initializer_range", 0.02)?,
            extra: passed_on_beside(config, padding),
        })
    }

    /// The `config.json`.
    pub(super) fn to_config(&self) -> Value {
        let keys = self.spelling.keys();
        let mut config = json!({
            "model_type": "nomic_bert",
            "architectures": [heads::class(CLASS, self.head, HEADS)],
            "vocab_size": self.vocabulary,
            "type_vocab_size": self.types,
            "initializer_range": self.init_std,
            "pad_token_id": self.padding,
            "tie_word_embeddings": true,
            "dtype": "float32",
        });
        let mut set = |key: &str, value: Value| config[key] = value;
        set(keys.d_model, self.d_model.into());
        set(keys.layers, self.layers.into());
        set(keys.heads, self.heads.into());
        set(keys.d_ff, self.d_ff.into());
        set(keys.positions.0, self.max_position.into());
        set(keys.epsilon.0, json_f32(self.epsilon).into());
        set(keys.dropout, json_f32(self.dropout).into());
        set(keys.attention_dropout, json_f32(self.attention_dropout).into());
        set("classifier_dropout", json_f32(self.classifier_dropout).into());
        match self.spelling {
            NomicSpelling::Transformers => {
                set("hidden_act", activation_name(self.activation).into());
                set("rope_parameters", rope_config(&self.rope));
            }
            NomicSpelling::Published => {
                let gate = GATES.iter().find(|(_, activation)| *activation == self.activation);
                set("activation_function", gate.map_or("swiglu", |(name, _)| name).into());
                set("rotary_emb_base", json_f32(self.rope.theta).into());
                set("rotary_emb_fraction", rotary_share(&self.rope, self.d_model / self.heads).into());
                if let RopeScaling::Dynamic { factor } = self.rope.scaling {
                    set(FACTOR, json_f32(factor).into());
                    set(TRAINED, self.max_position.into());
                }
                for key in ["qkv_proj_bias", "mlp_fc1_bias", "mlp_fc2_bias", "prenorm", "rotary_emb_interleaved"] {
                    set(key, false.into());
                }
            }
        }
        heads::write(self.head, &mut config);
        for (key, value) in &self.extra {
            config[key] = value.clone();
        }
        config
    }
}

/// Refuses what the family's code can do and its published models do not.
fn without_what_is_not_read(config: &Config) -> Result<()> {
    const EXPERTS: &str = "moe_every_n_layers";
    if let Some(every) = config.optional::<i64>(EXPERTS)?.filter(|every| *every > 0) {
        let message = format!(
            "is {every}: this is a nomic-bert-moe, as nomic-embed-text-v2-moe, whose experts are not read; nomic-embed-text-v1 and v1.5 are"
        );
        return Err(config.refuse(EXPERTS, message));
    }
    for key in ["prenorm", "parallel_block", "use_rms_norm", "causal", "rotary_emb_interleaved"] {
        reject_if_true(config, key)?;
    }
    if config.has("n_embd") {
        for key in ["qkv_proj_bias", "mlp_fc1_bias", "mlp_fc2_bias"] {
            if config.get_or(key, true)? {
                return Err(config.refuse(key, "is true, or missing; only false is supported"));
            }
        }
    }
    if config.optional::<f64>("rotary_emb_scale_base")?.is_some() {
        return Err(config.refuse("rotary_emb_scale_base", "is set; only null is supported"));
    }
    if !config.get_or("tie_word_embeddings", true)? {
        return Err(config.refuse("tie_word_embeddings", "is false; only true is supported"));
    }
    Ok(())
}

/// The activation of the gates.
fn gate(config: &Config, published: bool) -> Result<Activation> {
    const KEY: &str = "activation_function";
    if !published {
        return activation(config, "hidden_act", "silu");
    }
    let name: String = config.get_or(KEY, "gelu_new".to_owned())?;
    let known = GATES.iter().find(|(known, _)| *known == name);
    known
        .map(|(_, activation)| *activation)
        .ok_or_else(|| config.refuse(KEY, format!("is \"{name}\"; supported are swiglu, geglu and glu")))
}

/// The rotary positions, and how many there are. Beyond the trained length published files may stretch them by the length of a batch, which is
/// not done here: a text ends there.
fn rope(config: &Config, published: bool, [head_dim, positions]: [usize; 2]) -> Result<(RopeOptions, usize)> {
    const SHARE: &str = "rotary_emb_fraction";
    if !published {
        let keys = RopeKeys { theta: ("rope_theta", 1000.0), share: None, trained: None };
        return Ok((rope_with(config, keys, [head_dim, positions])?, positions));
    }
    if !(config.get_or(SHARE, 0.0)? > 0.0) {
        return Err(config.refuse(SHARE, "is 0, or missing: learned positions are not read"));
    }
    let keys = RopeKeys { theta: ("rotary_emb_base", 10_000.0), share: Some((SHARE, 0.0)), trained: None };
    let factor = config.optional::<f32>(FACTOR)?.filter(|factor| *factor != 0.0);
    let Some(_) = factor else { return Ok((rope_with(config, keys, [head_dim, positions])?, positions)) };
    let factor = positive_number(config, FACTOR, 1.0)?;
    let positions = positions.min(optional_count(config, TRAINED)?.unwrap_or(2048));
    let options = rope_with(config, keys, [head_dim, positions])?;
    Ok((RopeOptions { scaling: RopeScaling::Dynamic { factor }, ..options }, positions))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models::{Model, model};

    /// The keys of nomic-embed-text-v1.5, smaller.
    fn published(more: &Value) -> Value {
        let mut config = json!({"model_type": "nomic_bert", "architectures": ["NomicBertModel"], "activation_function": "swiglu", "attn_pdrop": 0.0,
            "causal": false, "embd_pdrop": 0.0, "layer_norm_epsilon": 1e-12, "max_trained_positions": 2048, "mlp_fc1_bias": false,
            "mlp_fc2_bias": false, "n_embd": 24, "n_head": 2, "n_inner": 256, "n_layer": 3, "n_positions": 8192, "pad_vocab_size_multiple": 64,
            "prenorm": false, "qkv_proj_bias": false, "resid_pdrop": 0.0, "rotary_emb_base": 1000, "rotary_emb_fraction": 1.0,
            "rotary_emb_interleaved": false, "rotary_emb_scale_base": null, "rotary_scaling_factor": null, "type_vocab_size": 2,
            "use_rms_norm": false, "vocab_size": 30522, "scale_attn_weights": true, "summary_type": "cls_index"});
        for (key, value) in more.as_object().into_iter().flatten() {
            config[key] = value.clone();
        }
        config
    }

    fn read(config: Value) -> Result<NomicBert> {
        NomicBert::from_config(&Config::new("config.json", config)?)
    }

    #[test]
    fn both_spellings_are_the_same_model_and_survive_the_round_trip() {
        let first = read(published(&json!({}))).unwrap();
        assert_eq!((first.vocabulary, first.max_position, first.rope.theta), (30_528, 8192, 1000.0));
        let native = json!({"model_type": "nomic_bert", "architectures": ["NomicBertModel"], "hidden_size": 24, "num_attention_heads": 2,
            "num_hidden_layers": 3, "intermediate_size": 256, "max_position_embeddings": 8192, "vocab_size": 30528, "pad_token_id": null,
            "rope_parameters": {"rope_type": "default", "rope_theta": 1000.0}});
        let second = read(native).unwrap();
        let alike =
            NomicBert { spelling: NomicSpelling::Published, head_bias: false, extra: Vec::new(), ..second.clone() };
        assert_eq!(alike, NomicBert { extra: Vec::new(), ..first.clone() });
        for model in [first, second] {
            assert_eq!(read(model.config()).unwrap(), model);
        }
        let stretched = read(published(&json!({"rotary_scaling_factor": 2.0}))).unwrap();
        assert_eq!(stretched.max_position, 2048);
        assert_eq!(read(stretched.config()).unwrap(), stretched);
        let narrow = read(published(&json!({"n_inner": 100, "rotary_emb_fraction": 0.5}))).unwrap();
        assert_eq!((narrow.d_ff, narrow.rope.rotary_dim), (256, Some(6)));
        assert_eq!(read(narrow.config()).unwrap(), narrow);
    }

    #[test]
    fn what_is_not_read_is_refused_by_name() {
        let refused =
            |more: Value| model(&Config::new("config.json", published(&more)).unwrap()).unwrap_err().to_string();
        for (more, wanted) in [
            (
                json!({"moe_every_n_layers": 2, "num_experts": 8}),
                "\"moe_every_n_layers\" is 2: this is a nomic-bert-moe",
            ),
            (json!({"qkv_proj_bias": true}), "\"qkv_proj_bias\" is true, or missing; only false"),
            (json!({"activation_function": "gelu"}), "\"gelu\"; supported are swiglu, geglu and glu"),
            (json!({"prenorm": true}), "\"prenorm\" is true; only false is supported"),
            (json!({"rotary_emb_fraction": 0.0}), "learned positions are not read"),
            (json!({"rotary_emb_interleaved": true}), "\"rotary_emb_interleaved\" is true"),
            (json!({"n_head": 5}), "it must divide n_embd, which is 24"),
            (json!({"n_head": 8}), "makes heads 3 wide; rotary positions need an even width"),
            (json!({"architectures": ["NomicBertForMultipleChoice"]}), "supported are NomicBert with"),
        ] {
            let message = refused(more);
            assert!(message.contains(wanted), "{message}");
        }
    }

    #[test]
    fn parameters_are_those_of_published_files() {
        let of = |class: &str| read(published(&json!({"architectures": [class]}))).unwrap().parameters().unwrap();
        let names = |class: &str| of(class).into_iter().map(|(name, _)| name).collect::<Vec<_>>();
        let plain = names("NomicBertModel");
        assert_eq!(plain.len(), 4 + 3 * 9);
        assert!(plain.contains(&"encoder.layers.2.attn.Wqkv.weight".into()) && plain.contains(&"emb_ln.bias".into()));
        let words = names("NomicBertForPreTraining");
        assert!(words.contains(&"bert.encoder.layers.2.mlp.fc11.weight".into()), "{words:?}");
        assert!(words.contains(&"cls.predictions.transform.layer_norm.weight".into()));
        assert!(!words.contains(&"cls.predictions.transform.dense.bias".into()));
    }
}
