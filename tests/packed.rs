//! Texts packed into rows are the texts alone: losses and gradients, of every family of attention.
//!
//! `cargo test --test packed -- NAME` runs some of it.

mod common;
#[path = "common/models.rs"]
mod small;

use libtest_mimic::{Failed, Trial};
use serde_json::{Value, json};
use small::{against_twin_by, gpt2, llama, merged, upload, weights_of};
use std::collections::BTreeMap;
use std::sync::Arc;
use wgformer::graph::{Array, Graph, Values};
use wgformer::io::Config;
use wgformer::models::{self, Model};
use wgformer::tasks::{Embedder, PackedTexts, PaddedTexts, TaskObjective, TextTask, padded_held_out};
use wgformer::train::{BatchSource, Event, Feeds, Objective, RunOptions, Schedule, StepOptions, Trainer};
use wgformer::{Gpu, Result, Tensor};

/// Rows of a batch, and tokens of a row.
const SIZE: (usize, usize) = (2, 24);

fn main() {
    let mut trials = vec![
        Trial::test("what can't keep texts apart is refused", refused),
        Trial::test("packed texts are the texts alone, in f64", || families().into_iter().try_for_each(alone)),
    ];
    // The kernels run on all drivers in the conformance suite.
    for (name, device) in common::adapters_also_as_gpus(&mut trials) {
        if !name.starts_with("Vulkan llvmpipe") {
            continue;
        }
        if !name.ends_with("as a GPU") {
            trials.push(device.trial(format!("[{name}] vectors of texts of like length"), vectors));
            trials.push(device.trial(format!("[{name}] batches of two sizes train as those of one"), two_sizes));
        }
        // All with the kernels of CPU drivers, two with those of GPUs.
        let few = name.ends_with("as a GPU");
        for (title, config) in families().into_iter().filter(|(title, _)| !few || ["Llama", "T5"].contains(title)) {
            trials.push(device.trial(format!("[{name}] {title}"), move |gpu| twin(gpu, &config)));
        }
    }
    common::run(trials);
}

fn families() -> Vec<(&'static str, Value)> {
    let bert = |family: &str, class: &str, more: Value| {
        let base = json!({"model_type": family, "architectures": [class], "vocab_size": 97, "hidden_size": 36, "num_attention_heads": 3,
                          "num_hidden_layers": 2, "intermediate_size": 51, "max_position_embeddings": 40, "mask_token_id": 96,
                          "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0});
        merged(base, more)
    };
    let t5 = json!({"model_type": "t5", "vocab_size": 97, "d_model": 36, "d_kv": 7, "d_ff": 51, "num_heads": 3, "num_layers": 2,
                    "dropout_rate": 0.0, "relative_attention_num_buckets": 8, "relative_attention_max_distance": 13,
                    "decoder_start_token_id": 0});
    let bart = json!({"model_type": "bart", "vocab_size": 97, "d_model": 36, "encoder_layers": 1, "decoder_layers": 2,
                      "encoder_attention_heads": 4, "decoder_attention_heads": 3, "encoder_ffn_dim": 51, "decoder_ffn_dim": 33,
                      "max_position_embeddings": 64, "pad_token_id": 1, "decoder_start_token_id": 2, "dropout": 0.0});
    let long = json!({"rope_type": "longrope", "short_factor": [1.0, 1.2, 1.5], "long_factor": [2.0, 5.0, 9.0],
                      "original_max_position_embeddings": 6});
    let experts = json!({"num_local_experts": 4, "num_experts_per_tok": 2, "router_aux_loss_coef": 0.01});
    vec![
        ("GPT-2", gpt2(json!({}))),
        ("Llama", llama(json!({}))),
        ("Llama with LongRoPE", llama(json!({"rope_scaling": long}))),
        ("Mistral with a window", llama(json!({"model_type": "mistral", "sliding_window": 4}))),
        ("Mixtral", llama(merged(json!({"model_type": "mixtral"}), experts))),
        ("BERT", bert("bert", "BertForMaskedLM", json!({}))),
        ("RoBERTa", bert("roberta", "RobertaForMaskedLM", json!({"pad_token_id": 1}))),
        (
            "ModernBERT",
            bert("modernbert", "ModernBertForMaskedLM", json!({"local_attention": 4, "num_hidden_layers": 3})),
        ),
        ("NomicBERT", bert("nomic_bert", "NomicBertForMaskedLM", json!({}))),
        ("classes of tokens", bert("bert", "BertForTokenClassification", json!({"num_labels": 5}))),
        ("replaced tokens", bert("electra", "ElectraForPreTraining", json!({"embedding_size": 20}))),
        ("T5", t5),
        ("BART", bart),
    ]
}

fn model(config: &Value) -> Result<Arc<dyn Model>> {
    Ok(models::model(&Config::new("config.json", config.clone())?)?.into())
}

/// Texts of odd lengths, without padding tokens.
fn texts() -> Arc<[Vec<u32>]> {
    let lengths = [5, 11, 3, 7, 13, 2, 6];
    let text =
        |(number, &length): (usize, &usize)| (0..length).map(|i| (number * 31 + i * 17) as u32 % 90 + 5).collect();
    lengths.iter().enumerate().map(text).collect()
}

/// The words of an input.
fn words(feeds: &Feeds, name: &str) -> Option<Vec<i32>> {
    Some(bytemuck::pod_collect_to_vec(&feeds.iter().find(|(known, _)| known == name)?.1))
}

/// A measured loss: its graph, the values of all it reads, and what is compared.
struct Measured {
    graph: Graph,
    values: Values,
    wanted: Vec<(String, Tensor)>,
}

fn measured(objective: &TaskObjective, weights: &Values, feeds: &[(String, Vec<i32>)]) -> Result<Measured> {
    let (mut g, mut values) = (Graph::new(), weights.clone());
    let loss = objective.loss(&mut g, false)?;
    for (name, tensor) in g.inputs() {
        let unread = || g.nodes().iter().all(|node| !node.inputs.contains(&tensor));
        if !feeds.iter().any(|(known, _)| known == name) && unread() {
            continue;
        }
        let (_, words) = feeds
            .iter()
            .find(|(known, _)| known == name)
            .ok_or_else(|| wgformer::Error::Graph(format!("no value for {name}")))?;
        let data = words.iter().map(|&word| f64::from(word)).collect();
        values.insert(name.into(), Array::new(g.shape(tensor).clone(), data)?);
    }
    let (names, tensors): (Vec<String>, Vec<Tensor>) = g.parameters().map(|(n, t)| (n.to_owned(), t)).unzip();
    let gradients = g.differentiate(loss, &tensors)?;
    let mut wanted = vec![("loss".to_owned(), loss)];
    wanted.extend(names.into_iter().zip(gradients).filter_map(|(name, t)| Some((format!("grad.{name}"), t?))));
    Ok(Measured { graph: g, values, wanted })
}

/// The packed batch of a model, and its weights.
fn packed(config: &Value) -> Result<(Arc<dyn Model>, Values, Feeds, Measured)> {
    let model = model(config)?;
    let objective = TaskObjective::on_packed(model.clone(), SIZE.0, SIZE.1)?;
    let classes = match objective.task.name() {
        "token-classification" => Some(5),
        "replaced-token-detection" => Some(2),
        _ => None,
    };
    // Where labels are classes, those of masked tokens stand for them.
    let task = match classes {
        Some(_) => TextTask::Masked { mask: 96, below: 96 },
        None => TextTask::of(model.as_ref(), Some(96))?,
    };
    let mut feeds = PackedTexts::new(texts(), &objective, task, 4)?.next_feeds()?;
    if let (Some(classes), Some((_, bytes))) = (classes, feeds.iter_mut().find(|(name, _)| name == "labels")) {
        let labels: Vec<i32> = bytemuck::pod_collect_to_vec(bytes);
        let labels: Vec<i32> = labels.iter().map(|&label| if label < 0 { label } else { label % classes }).collect();
        *bytes = bytemuck::cast_slice(&labels).to_vec();
    }
    let weights = weights_of(model.as_ref())?;
    let all: Vec<(String, Vec<i32>)> =
        feeds.iter().map(|(name, bytes)| (name.clone(), bytemuck::pod_collect_to_vec(bytes))).collect();
    let measured = measured(&objective, &weights, &all)?;
    Ok((model, weights, feeds, measured))
}

/// The losses and gradients of the texts alone, each weighted by its labels, are those of the batch.
fn alone((title, config): (&str, Value)) -> Result<(), Failed> {
    let (model, weights, feeds, batch) = packed(&config)?;
    let tensors: Vec<Tensor> = batch.wanted.iter().map(|(_, tensor)| *tensor).collect();
    let together = batch.graph.evaluate(&batch.values, &tensors)?;
    let continued = model.encoder().is_some() && model.decoder().is_some();
    let sides = if continued { SIZE.1 / 2 } else { SIZE.1 };
    let ranges = words(&feeds, if continued { "decoder_documents" } else { "documents" })
        .ok_or_else(|| format!("{title}: no texts"))?;
    let cross = words(&feeds, "cross_documents");
    let part = |name: &str, row: usize, [first, end]: [i32; 2]| {
        let from = row * sides;
        words(&feeds, name).map(|words| words[from + first as usize..from + end as usize].to_vec())
    };
    let (mut sums, mut labels, mut found): (BTreeMap<String, Array>, f64, usize) = (BTreeMap::new(), 0.0, 0);
    for row in 0..SIZE.0 {
        let mut at = 0;
        while at < sides {
            let pair = |ranges: &[i32]| [ranges[2 * (row * sides + at)], ranges[2 * (row * sides + at) + 1]];
            let range = pair(&ranges);
            if range[0] == range[1] {
                break;
            }
            let said = part("labels", row, range).ok_or("no labels")?;
            let mut shapes = vec![("labels".to_owned(), [1, said.len()].into())];
            let mut inputs = vec![("labels".to_owned(), said.clone())];
            let read = cross.as_ref().map_or(range, |cross| pair(cross));
            let ids = part("input_ids", row, read).ok_or("no tokens")?;
            shapes.push(("input_ids".to_owned(), [1, ids.len()].into()));
            inputs.push(("input_ids".to_owned(), ids));
            if continued {
                inputs.push(("decoder_input_ids".into(), part("decoder_input_ids", row, range).ok_or("no tokens")?));
            }
            let weight = said.iter().filter(|label| **label >= 0).count() as f64;
            at = range[1] as usize;
            found += 1;
            if weight == 0.0 {
                continue;
            }
            let objective = TaskObjective { shapes, ..TaskObjective::new(model.clone(), 1, 2)? };
            let text = measured(&objective, &weights, &inputs)?;
            let tensors: Vec<Tensor> = text.wanted.iter().map(|(_, tensor)| *tensor).collect();
            for ((name, _), value) in text.wanted.iter().zip(text.graph.evaluate(&text.values, &tensors)?) {
                let sum = sums.entry(name.clone()).or_insert_with(|| Array::zeros(value.shape.clone()));
                sum.data.iter_mut().zip(&value.data).for_each(|(sum, x)| *sum += weight * x);
            }
            labels += weight;
        }
    }
    if found < 4 || labels < 5.0 {
        return Err(format!("{title}: only {found} texts and {labels} labels").into());
    }
    for ((name, _), together) in batch.wanted.iter().zip(&together) {
        let apart = sums.get(name).ok_or_else(|| format!("{title}: {name} is missing"))?;
        let largest = together.data.iter().fold(1e-6_f64, |most, x| most.max(x.abs()));
        for (a, b) in apart.data.iter().zip(&together.data) {
            let error = (a / labels - b).abs() / largest;
            if !(error <= 1e-9) {
                return Err(format!("{title}: {name} is {b} in the batch and {} alone", a / labels).into());
            }
        }
    }
    Ok(())
}

/// A device computes the packed batch as f64 does.
fn twin(gpu: &Gpu, config: &Value) -> Result<(), Failed> {
    let (model, weights, _, Measured { mut graph, values, wanted }) = packed(config)?;
    for (name, tensor) in &wanted {
        graph.output(name, *tensor)?;
    }
    let weights = upload(gpu, model.as_ref(), &weights)?;
    // Softmax does not see what a bias of keys adds: its gradient is zero, and what is there comes of rounding.
    let is_zero = |name: &str| name.ends_with("key.bias") || name.ends_with("k_proj.bias");
    let limit = |name: &str| if is_zero(name) { 1e-4 } else { 1e-5 };
    against_twin_by(gpu, &graph, &weights, &values, &wanted, limit)
}

/// Texts that share batches by length have the vectors that they have alone, in the order in which they were given.
fn vectors(gpu: &Gpu) -> Result<(), Failed> {
    let config = json!({"model_type": "bert", "architectures": ["BertModel"], "vocab_size": 97, "hidden_size": 36, "num_attention_heads": 3,
                        "num_hidden_layers": 1, "intermediate_size": 51, "max_position_embeddings": 64});
    let model = model(&config)?;
    let weights = upload(gpu, model.as_ref(), &weights_of(model.as_ref())?)?;
    let text = |length: usize| (0..length).map(|i| (length * 31 + i * 17) as u32 % 97).collect();
    let texts: Vec<Vec<u32>> = [39, 3, 40, 16, 37, 14, 2, 38].map(text).into();
    let mut embedder = Embedder::new(gpu, model.clone(), &weights, 4)?;
    let found = embedder.embed(&texts)?;
    // Rows of 16 and of 40 tokens: 189 tokens in 224 positions.
    if !((embedder.padding() - 35.0 / 224.0).abs() <= 1e-9) {
        return Err(format!("{} is padding", embedder.padding()).into());
    }
    let mut single = Embedder::new(gpu, model, &weights, 1)?;
    for (text, found) in texts.iter().zip(&found) {
        let alone = single.embed(std::slice::from_ref(text))?.remove(0);
        if !alone.iter().zip(found).all(|(a, b)| (a - b).abs() <= 1e-5) {
            return Err(format!("a text of {} tokens has another vector alone", text.len()).into());
        }
    }
    Ok(())
}

/// Texts in rows of 16 and of 40 tokens give the losses of rows of 40.
fn two_sizes(gpu: &Gpu) -> Result<(), Failed> {
    let model = model(&families().into_iter().find(|(title, _)| *title == "BERT").ok_or("no BERT")?.1)?;
    let text = |length: usize| (0..length).map(|i| (length * 31 + i * 17) as u32 % 97).collect::<Vec<u32>>();
    let texts: Arc<[Vec<u32>]> = [39, 9, 16, 37, 14, 40].map(text).into();
    let task = TextTask::of(model.as_ref(), Some(96))?;
    let losses = |lengths: &[usize]| -> Result<(Vec<f32>, f64, u64), Failed> {
        let objectives: Result<Vec<TaskObjective>> =
            lengths.iter().map(|&length| TaskObjective::on_padded_text(model.clone(), 1, length)).collect();
        let objectives = objectives?;
        let weights = upload(gpu, model.as_ref(), &weights_of(model.as_ref())?)?;
        let (options, run) = (StepOptions::default(), RunOptions::default().with_seed(9));
        let mut trainer = Trainer::new(gpu, &weights, &objectives[0], options, run, Schedule::constant(0.01))?;
        for objective in &objectives[1..] {
            trainer.add_size(objective)?;
        }
        let mut data = PaddedTexts::new(texts.clone(), &objectives, task, 3)?;
        let (mut losses, mut positions) = (Vec::new(), 0);
        let mut note = |event: &Event| {
            if let Event::Step(step) = event {
                losses.push(step.report.loss);
            }
        };
        for _ in 0..6 {
            trainer.submit_step(&mut data)?;
            positions += data.positions();
        }
        trainer.reports(0, &mut note)?;
        let held_out = padded_held_out(texts.clone(), &objectives, task)?;
        Ok((losses, trainer.evaluate(&held_out)?, positions))
    };
    let (two, one) = (losses(&[40, 16])?, losses(&[40])?);
    let near = |a: f64, b: f64| (a - b).abs() <= 1e-5 * b.abs();
    let same = two.0.iter().zip(&one.0).all(|(a, b)| near(f64::from(*a), f64::from(*b)));
    if same && two.0.len() == 6 && near(two.1, one.1) && [two.2, one.2] == [3 * 56, 240] {
        return Ok(());
    }
    Err(format!("{two:?} and {one:?}").into())
}

fn refused() -> Result<(), Failed> {
    let message = |config: &Value| -> Result<String, Failed> {
        let objective = TaskObjective::on_packed_text(model(config)?, 1, 8);
        let made = objective.and_then(|objective| objective.loss(&mut Graph::new(), true));
        Ok(made.err().ok_or("no error")?.to_string())
    };
    let recursions = message(&small::mor(json!({})))?;
    let classes = json!({"model_type": "bert", "architectures": ["BertForSequenceClassification"], "vocab_size": 97, "hidden_size": 36,
                         "num_attention_heads": 3, "num_hidden_layers": 1, "intermediate_size": 51, "max_position_embeddings": 40});
    let objective = TaskObjective::on_packed(model(&classes)?, 1, 8)?;
    let rows = objective.loss(&mut Graph::new(), true).err().ok_or("no error")?.to_string();
    let classes = message(&classes)?;
    let refused = [
        (&recursions, "recursions choose among the tokens of a row"),
        (&classes, "can't be learnt"),
        (&rows, "can't read several texts in a row"),
    ];
    match refused.iter().find(|(message, words)| !message.contains(words)) {
        None => Ok(()),
        Some((message, words)) => Err(format!("{message}, not {words}").into()),
    }
}
