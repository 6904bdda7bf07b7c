//! Whole small models as cases: a step of the task that each was made for, against the f64 twin of its own graph.

use crate::case::{Built, Case, Tolerance};
use crate::error::{Error, Result};
use crate::graph::{Array, Graph, Tensor, Values};
use crate::io::Config;
use crate::models::{self, Initial, Model, initial_values};
use crate::shape::Shape;
use crate::tasks::{TaskMode, task_of};
use serde_json::{Value, json};

/// Gradients that are small beside the model's largest (a key's bias has none in exact arithmetic) are measured by this share of it.
const FLOOR: f64 = 1e-3;

/// Encoders, decoders and both, dense, with experts and with recursions, and the families: small and of awkward sizes.
#[must_use]
pub fn small() -> Vec<Case> {
    families().into_iter().map(|(title, config)| case(&title, config, [3, 11, 7])).collect()
}

/// One layer a side of models as people run them, with their widths, heads and head sizes; vocabularies are cut.
#[must_use]
pub fn wide() -> Vec<Case> {
    let decoder = |kind: &str, sizes: [u64; 5], more: Value| {
        let [width, heads, kv_heads, head_dim, d_ff] = sizes;
        let config = json!({"model_type": kind, "vocab_size": 4099, "hidden_size": width, "num_attention_heads": heads,
            "num_key_value_heads": kv_heads, "head_dim": head_dim, "intermediate_size": d_ff, "num_hidden_layers": 1,
            "max_position_embeddings": 2048, "n_embd": width, "n_head": heads, "n_layer": 1, "n_positions": 1024});
        merged(config, more)
    };
    let encoder = |kind: &str, class: &str, sizes: [u64; 3]| {
        let [width, heads, d_ff] = sizes;
        json!({"model_type": kind, "architectures": [class], "vocab_size": 4099, "hidden_size": width,
            "num_attention_heads": heads, "num_hidden_layers": 1, "intermediate_size": d_ff, "max_position_embeddings": 512,
            "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0, "num_labels": 3})
    };
    let t5 = json!({"model_type": "t5", "vocab_size": 4099, "d_model": 512, "d_kv": 64, "d_ff": 2048, "num_heads": 8, "num_layers": 1,
        "num_decoder_layers": 1, "dropout_rate": 0.0, "relative_attention_num_buckets": 32, "relative_attention_max_distance": 128});
    let no_dropout = json!({"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0, "vocab_size": 50257});
    let experts = json!({"num_local_experts": 8, "num_experts_per_tok": 2});
    let all = [
        ("GPT-2 of 124 M", decoder("gpt2", [768, 12, 12, 64, 3072], no_dropout), [1, 9, 0]),
        ("SmolLM2 of 135 M", decoder("llama", [576, 9, 3, 64, 1536], json!({"tie_word_embeddings": true})), [1, 65, 0]),
        ("Qwen2 of 0.5 B", decoder("qwen2", [896, 14, 2, 64, 4864], json!({"tie_word_embeddings": true})), [1, 33, 0]),
        (
            "Qwen3 of 0.6 B",
            decoder("qwen3", [1024, 16, 8, 128, 3072], json!({"tie_word_embeddings": true})),
            [1, 33, 0],
        ),
        (
            "Gemma 2 of a narrow kind",
            decoder("gemma2", [1152, 4, 1, 256, 3456], json!({"query_pre_attn_scalar": 256})),
            [1, 33, 0],
        ),
        ("Mixtral, narrow", decoder("mixtral", [512, 8, 4, 64, 896], experts), [1, 65, 0]),
        ("BERT base", encoder("bert", "BertForTokenClassification", [768, 12, 3072]), [2, 33, 0]),
        ("MiniLM", encoder("bert", "BertForMaskedLM", [384, 12, 1536]), [2, 65, 0]),
        ("T5 small", t5, [1, 33, 17]),
    ];
    all.into_iter().map(|(title, config, sizes)| case(&format!("{title}, one layer"), config, sizes)).collect()
}

fn case(title: &str, config: Value, sizes: [usize; 3]) -> Case {
    let make = move |seed| step(models::model(&Config::new("config.json", config.clone())?)?.as_ref(), sizes, seed);
    let forward = Tolerance { nmse: 1e-9, worst: 5e-5 };
    let backward = Tolerance { nmse: 1e-7, worst: 5e-4 };
    Case::whole(format!("model {title}"), FLOOR, make).tolerance(forward, backward)
}

fn merged(mut base: Value, more: Value) -> Value {
    for (key, value) in more.as_object().into_iter().flatten() {
        base[key] = value.clone();
    }
    base
}

/// A step of the task that a model was made for, with values of all inputs and parameters of a seed.
fn step(model: &dyn Model, [batch, time, said]: [usize; 3], seed: u64) -> Result<Built> {
    let vocabulary = model.config()["vocab_size"].as_u64().unwrap_or(97).max(2);
    let task = task_of(model)?;
    let (rows, answers): (Shape, Shape) = match task.name() {
        "multiple-choice" => ([batch, 4, time].into(), [batch].into()),
        "sequence-to-sequence" => ([batch, time].into(), [batch, said].into()),
        "sequence-classification" | "next-sentence" => ([batch, time].into(), [batch].into()),
        _ => ([batch, time].into(), [batch, time].into()),
    };
    let typed = model.config()["model_type"] == "bert";
    let shapes = |name: &str| match name {
        "input_ids" | "attention_mask" => Some(rows.clone()),
        "token_type_ids" => typed.then(|| rows.clone()),
        "labels" => Some(answers.clone()),
        "next_sentence_label" | "sentence_order_label" | "start_positions" | "end_positions" => Some([batch].into()),
        _ => None,
    };
    let (mut g, training) = (Graph::new(), model.has_dropout());
    let made = task.graph(&mut g, model, &shapes, TaskMode::new(training))?;
    let loss = made.loss_and_stats(&mut g, true)?.loss(&mut g)?;
    let mut values = Values::new();
    for (name, tensor) in g.inputs() {
        let shape = g.shape(tensor).clone();
        let last = shape.last();
        let value = |i: usize| match name {
            "attention_mask" => f64::from(u8::from(i % last < last - i / last % 4)),
            "token_type_ids" => f64::from(u8::from(i % last > 4)),
            "labels" if answers.rank() == 1 => ((i * 3 + 1) % 2) as f64,
            "labels" if i % 4 == 3 => -100.0,
            "labels" if task.name() == "token-classification" => (i % 5) as f64,
            "labels" if task.name() == "replaced-token-detection" => (i % 2) as f64,
            "next_sentence_label" | "sentence_order_label" => (i % 2) as f64,
            "start_positions" | "end_positions" => (i * 5 % time) as f64,
            "dropout_seed" => (4321 + i) as f64,
            _ => ((i as u64 * 31 + 7 + seed) * (i as u64 + 3) % vocabulary) as f64,
        };
        values.insert(name.into(), Array::from_fn(shape, value));
    }
    let initials = model.initials()?;
    // A spread that makes a missing bias, scale or gain visible, and keeps sums over wide rows of the size of small ones.
    let deviation = 0.3 * (36.0 / model.dimensions().d_model.max(36) as f64).sqrt();
    for (name, ty) in model.parameters()? {
        let centre = if initials[&name] == Initial::Ones { 1.0 } else { 0.0 };
        let data = initial_values(Initial::Normal(deviation), ty.shape.numel(), 5 + seed, &name);
        let data = data.into_iter().map(|x| ty.dtype.round(centre + x)).collect();
        values.insert(name, Array::new(ty.shape, data)?);
    }
    let parameters: Vec<(String, Tensor)> = g.parameters().map(|(n, t)| (n.to_owned(), t)).collect();
    let tensors: Vec<Tensor> = parameters.iter().map(|(_, t)| *t).collect();
    let mut wanted = made.outputs;
    wanted.push(("loss".into(), loss));
    for ((name, _), gradient) in parameters.iter().zip(g.differentiate(loss, &tensors)?) {
        match gradient {
            Some(gradient) => wanted.push((format!("grad.{name}"), gradient)),
            None if name == "final_logits_bias" || name.starts_with("pooler.") => (),
            None => return Err(Error::Graph(format!("{name} has no gradient"))),
        }
    }
    Ok(Built { graph: g, values, results: wanted, loss: Some(loss) })
}

/// The plain transformer of some layers a side, of one kind.
fn transformer(sides: &str, kind: &str) -> Value {
    let base = json!({"model_type": "transformer", "vocab_size": 97, "hidden_size": 36, "num_attention_heads": 4,
                      "intermediate_size": 51, "max_position_embeddings": 64, "pad_token_id": 1, "dropout": 0.0, "hidden_act": "gelu"});
    let layers = if kind == "recursions" { 5 } else { 2 };
    let sides = match sides {
        "encoder" => json!({"num_encoder_layers": layers}),
        "decoder" => json!({"num_decoder_layers": layers}),
        _ => json!({"num_encoder_layers": layers, "num_decoder_layers": layers}),
    };
    let kind = match kind {
        "experts" => json!({"num_local_experts": 4, "num_experts_per_tok": 2, "router_aux_loss_coef": 0.01}),
        "recursions" => json!({"num_recursions": 3, "routing": "token_choice", "router_z_coef": 0.01}),
        _ => json!({}),
    };
    merged(merged(base, sides), kind)
}

/// All of {encoder, decoder, both} × {dense, experts, recursions}.
fn nine() -> Vec<(String, Value)> {
    let mut all = Vec::new();
    for sides in ["encoder", "decoder", "encoder and decoder"] {
        for kind in ["dense", "experts", "recursions"] {
            all.push((format!("{sides}, {kind}"), transformer(sides, kind)));
        }
    }
    all
}

/// Configurations with titles: all of {encoder, decoder, both} × {dense, experts, recursions}, and behind these nine variants as families
/// use them.
#[must_use]
pub fn families() -> Vec<(String, Value)> {
    let bert = |class: &str| {
        json!({"model_type": "bert", "architectures": [class], "vocab_size": 97, "hidden_size": 36, "num_attention_heads": 4,
               "num_hidden_layers": 2, "intermediate_size": 51, "max_position_embeddings": 64, "num_labels": 5,
               "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0})
    };
    let t5 = json!({"model_type": "t5", "vocab_size": 97, "d_model": 36, "d_kv": 7, "d_ff": 51, "num_heads": 5, "num_layers": 2,
                    "num_decoder_layers": 3, "dropout_rate": 0.0, "relative_attention_num_buckets": 8,
                    "relative_attention_max_distance": 13});
    let bart = json!({"model_type": "bart", "vocab_size": 97, "d_model": 36, "encoder_layers": 2, "decoder_layers": 1,
                      "encoder_attention_heads": 4, "decoder_attention_heads": 3, "encoder_ffn_dim": 51, "decoder_ffn_dim": 33,
                      "max_position_embeddings": 64, "pad_token_id": 1, "decoder_start_token_id": 2, "dropout": 0.0});
    let mut all = nine();
    for head in [
        "Model",
        "ForPreTraining",
        "ForNextSentencePrediction",
        "ForMultipleChoice",
        "ForTokenClassification",
        "ForQuestionAnswering",
    ] {
        all.push((format!("BERT, {head}"), bert(&format!("Bert{head}"))));
    }
    let relatives = [
        ("roberta", "RobertaForSequenceClassification"),
        ("modernbert", "ModernBertForSequenceClassification"),
        ("nomic_bert", "NomicBertForSequenceClassification"),
        ("xlm-roberta", "XLMRobertaForMaskedLM"),
        ("distilbert", "DistilBertForMultipleChoice"),
        ("electra", "ElectraForPreTraining"),
        ("albert", "AlbertForPreTraining"),
    ];
    for (family, class) in relatives {
        let sizes = json!({"model_type": family, "type_vocab_size": 2, "embedding_size": 20, "num_hidden_groups": 2, "num_hidden_layers": 3,
                           "num_labels": 2, "dim": 36, "n_heads": 4, "n_layers": 2, "hidden_dim": 51, "dropout": 0.0,
                           "attention_dropout": 0.0, "seq_classif_dropout": 0.0, "classifier_dropout_prob": 0.0,
                           "local_attention": 4, "classifier_pooling": "mean", "pad_token_id": if family.ends_with("roberta") { 1 } else { 0 },
                           "num_attention_heads": 3});
        all.push((class.to_owned(), merged(bert(class), sizes)));
    }
    let own = [
        (
            "encoder, experts that choose",
            merged(transformer("encoder", "experts"), json!({"expert_choice_factor": 1.5})),
        ),
        (
            "decoder, recursions that choose",
            merged(transformer("decoder", "recursions"), json!({"routing": "expert_choice"})),
        ),
        ("encoder and decoder, norms in front", merged(transformer("both", "dense"), json!({"norm_first": true}))),
        (
            "encoder and decoder, with dropout",
            merged(
                transformer("both", "dense"),
                json!({"dropout": 0.2,
            "attention_dropout": 0.1, "activation_dropout": 0.1}),
            ),
        ),
        ("T5", t5.clone()),
        ("T5, its encoder", merged(t5.clone(), json!({"architectures": ["T5EncoderModel"]}))),
        (
            "Switch Transformer",
            merged(
                t5.clone(),
                json!({"model_type": "switch_transformers", "num_experts": 3, "expert_capacity": 4,
                       "num_sparse_encoder_layers": 1, "num_sparse_decoder_layers": 1}),
            ),
        ),
        (
            "T5, gated, with a head of its own",
            merged(t5.clone(), json!({"feed_forward_proj": "gated-gelu", "tie_word_embeddings": false})),
        ),
        (
            "mT5",
            merged(t5, json!({"model_type": "mt5", "feed_forward_proj": "gated-gelu", "tie_word_embeddings": false})),
        ),
        ("BART", bart.clone()),
        ("mBART", merged(bart.clone(), json!({"model_type": "mbart"}))),
        (
            "Pegasus",
            merged(bart.clone(), json!({"model_type": "pegasus", "pad_token_id": 0, "decoder_start_token_id": 0})),
        ),
        (
            "Marian",
            merged(bart, json!({"model_type": "marian", "scale_embedding": true, "decoder_attention_heads": 4})),
        ),
    ];
    all.extend(own.map(|(title, config)| (title.to_owned(), config)));
    all
}
