//! Encoders, decoders and both, dense, with experts and with recursions: each against its f64 twin, and each learns a text.
//!
//! `cargo test --test sides -- NAME` runs some of it.

mod common;
#[path = "common/models.rs"]
mod small;

use libtest_mimic::{Arguments, Failed, Trial};
use serde_json::{Value, json};
use small::{against_twin, merged, upload};
use std::sync::Arc;
use wgformer::graph::{Array, Graph, Values};
use wgformer::io::Config;
use wgformer::models::{self, Initial, Model, initial_values};
use wgformer::program::pack;
use wgformer::tasks::{TaskMode, TaskObjective, TextBatches, TextTask, task_of};
use wgformer::train::{Batches, Corpus, Event, RunOptions, Schedule, StepOptions, Trainer};
use wgformer::{Gpu, Result, Shape, Tensor, Weights};

/// Training steps of a model.
const STEPS: usize = 200;

fn main() {
    let mut trials = Vec::new();
    let adapters = common::adapters_also_as_gpus(&mut trials);
    // Learning runs on the fastest driver only, since other tests compare the results of all drivers.
    let fastest = adapters.iter().position(|(name, _)| name.starts_with("Vulkan llvmpipe")).unwrap_or(0);
    for (number, (name, device)) in adapters.into_iter().enumerate() {
        for (title, config) in families() {
            trials.push(device.trial(format!("[{name}] {title}"), move |gpu| twin(gpu, &config)));
        }
        if number == fastest {
            trials.push(
                device.trial(format!("[{name}] a bias of logits does not learn"), a_bias_of_logits_does_not_learn),
            );
        }
        for (title, config) in nine().into_iter().filter(|_| number == fastest) {
            trials.push(device.trial(format!("[{name}] {title}, learns a text"), move |gpu| learns(gpu, config)));
        }
    }
    trials.push(Trial::test("gradients of the twins are differences of their losses", differences));
    // One kind of a family covers the family on a driver.
    let parts = |_: &str, title: &str| title.split(", ").map(str::to_owned).collect();
    common::choice::run(&Arguments::from_args(), trials, parts)
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

/// The nine, and variants as families use them.
fn families() -> Vec<(String, Value)> {
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

fn model(config: &Value) -> Result<Box<dyn Model>> {
    models::model(&Config::new("config.json", config.clone())?)
}

/// A step of the task that a model was made for: graph, values of all inputs and parameters, what is compared.
struct Step {
    graph: Graph,
    values: Values,
    wanted: Vec<(String, Tensor)>,
    loss: Tensor,
    parameters: Vec<(String, Tensor)>,
}

fn step(model: &dyn Model) -> Result<Step> {
    let (batch, time, said) = (3, 11, 7);
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
            _ => ((i * 31 + 7) * (i + 3) % 97) as f64,
        };
        values.insert(name.into(), Array::from_fn(shape, value));
    }
    let initials = model.initials()?;
    for (name, ty) in model.parameters()? {
        let centre = if initials[&name] == Initial::Ones { 1.0 } else { 0.0 };
        let data = initial_values(Initial::Normal(0.3), ty.shape.numel(), 5, &name);
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
            None => return Err(wgformer::Error::Graph(format!("{name} has no gradient"))),
        }
    }
    Ok(Step { graph: g, values, wanted, loss, parameters })
}

fn twin(gpu: &Gpu, config: &Value) -> Result<(), Failed> {
    let model = model(config)?;
    let Step { mut graph, values, wanted, .. } = step(model.as_ref())?;
    for (name, tensor) in &wanted {
        graph.output(name, *tensor)?;
    }
    let weights = upload(gpu, model.as_ref(), &values)?;
    against_twin(gpu, &graph, &weights, &values, &wanted, [5e-5, 5e-4])
}

/// Along a random direction, for every model: (L(w + e·v) − L(w − e·v)) / 2e = gradient · v.
fn differences() -> Result<(), Failed> {
    const STEP: f64 = 1e-7;
    for (title, config) in families() {
        let model = model(&config)?;
        let Step { graph, values, wanted, loss, parameters } = step(model.as_ref())?;
        let tensors: Vec<Tensor> = wanted.iter().map(|(_, t)| *t).collect();
        let found = graph.evaluate(&values, &tensors)?;
        let mut slope = 0.0;
        let mut moved = [values.clone(), values.clone()];
        for (name, _) in parameters.iter().filter(|(name, _)| !name.contains("embed") && !name.contains("shared")) {
            let Some(at) = wanted.iter().position(|(other, _)| *other == format!("grad.{name}")) else { continue };
            let direction = initial_values(Initial::Normal(1.0), found[at].data.len(), 9, name);
            slope += found[at].data.iter().zip(&direction).map(|(a, b)| a * b).sum::<f64>();
            for (values, sign) in moved.iter_mut().zip([1.0, -1.0]) {
                let array = values.get_mut(name.as_str()).ok_or("no value")?;
                array.data.iter_mut().zip(&direction).for_each(|(x, d)| *x += sign * STEP * d);
            }
        }
        let [up, down] = [graph.evaluate(&moved[0], &[loss])?, graph.evaluate(&moved[1], &[loss])?];
        let difference = (up[0].data[0] - down[0].data[0]) / (2.0 * STEP);
        if !((difference - slope).abs() <= 1e-5 * slope.abs().max(1.0)) {
            return Err(format!("{title}: a difference of {difference} and a slope of {slope}").into());
        }
    }
    Ok(())
}

/// The first characters of a novel as numbers, and how many there are.
fn novel() -> Result<(Vec<u32>, u32), Failed> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/data/pride_and_prejudice.txt");
    let text: Vec<char> = std::fs::read_to_string(path)?.chars().take(60_000).collect();
    let mut alphabet = text.clone();
    alphabet.sort_unstable();
    alphabet.dedup();
    let id = |c: &char| alphabet.binary_search(c).map(|i| i as u32).map_err(|_| "a character without a number");
    let ids: Result<Vec<u32>, _> = text.iter().map(id).collect();
    Ok((ids?, alphabet.len() as u32))
}

/// A model learns a text: the loss of its last steps is well below that of its first ones.
fn learns(gpu: &Gpu, mut config: Value) -> Result<(), Failed> {
    let (ids, alphabet) = novel()?;
    // Two ids more: a mask, and the start of answers.
    config["vocab_size"] = (alphabet + 2).into();
    config["pad_token_id"] = (alphabet + 1).into();
    config["hidden_size"] = 64.into();
    config["intermediate_size"] = 128.into();
    config["initializer_range"] = 0.05.into();
    let model: Arc<dyn Model> = model(&config)?.into();
    let task = match task_of(model.as_ref())?.name() {
        "masked-language-model" => TextTask::Masked { mask: alphabet, below: alphabet },
        "sequence-to-sequence" => TextTask::Continued { start: alphabet + 1 },
        _ => TextTask::Next,
    };
    let (rows, length) = (8, 32);
    let objective = TaskObjective::on_text(model.clone(), rows, length)?;
    let weights = Weights::new(gpu);
    model.initialise(&weights, 1)?;
    let run = RunOptions { seed: 9, ..RunOptions::default() };
    let mut trainer = Trainer::new(gpu, &weights, &objective, StepOptions::default(), run, Schedule::constant(3e-3))?;
    let corpus = Corpus::new(&ids, 0.1)?;
    let mut data = TextBatches { rows: Batches::new(corpus.train, rows, length, 2)?, task };
    let mut losses = Vec::new();
    let mut note = |event: &Event| {
        if let Event::Step(step) = event {
            losses.push(f64::from(step.report.loss));
        }
    };
    for _ in 0..STEPS {
        trainer.submit_step(&mut data)?;
        trainer.reports(3, &mut note)?;
    }
    trainer.reports(0, &mut note)?;
    let mean = |losses: &[f64]| losses.iter().sum::<f64>() / losses.len() as f64;
    let (first, last) = (mean(&losses[..10]), mean(&losses[STEPS - 30..]));
    println!("{first:.3} → {last:.3}");
    if last < 0.9 * first { Ok(()) } else { Err(format!("{first:.3} became {last:.3}").into()) }
}

/// `final_logits_bias` is part of a BART, and no gradient reaches it.
fn a_bias_of_logits_does_not_learn(gpu: &Gpu) -> Result<(), Failed> {
    const BIAS: &str = "final_logits_bias";
    let config = families().into_iter().find(|(title, _)| title == "BART").ok_or("no BART")?.1;
    let model: Arc<dyn Model> = model(&config)?.into();
    let objective = TaskObjective::on_text(model.clone(), 2, 8)?;
    let weights = Weights::new(gpu);
    model.initialise(&weights, 1)?;
    weights.upload(BIAS, &pack(&[0.5; 97], wgformer::DType::F32))?;
    let run = RunOptions { seed: 9, ..RunOptions::default() };
    let mut trainer = Trainer::new(gpu, &weights, &objective, StepOptions::default(), run, Schedule::constant(0.1))?;
    let ids = (0..200).map(|i| (i * 7 % 90) as u32).collect();
    let mut data = TextBatches { rows: Batches::new(ids, 2, 8, 2)?, task: TextTask::Continued { start: 2 } };
    for _ in 0..3 {
        trainer.submit_step(&mut data)?;
    }
    trainer.reports(0, &mut |_: &Event| ())?;
    let same = weights.download(BIAS)? == pack(&[0.5; 97], wgformer::DType::F32);
    let learnt = weights.download("model.shared.weight")? != {
        let fresh = Weights::new(gpu);
        model.initialise(&fresh, 1)?;
        fresh.download("model.shared.weight")?
    };
    if same && learnt { Ok(()) } else { Err(format!("the bias stayed: {same}; the table learnt: {learnt}").into()) }
}
