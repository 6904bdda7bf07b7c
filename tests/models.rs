//! Whole models of awkward sizes against the f64 twin of their own graph, their files, and what they learn, on every adapter of
//! this machine.

mod common;
#[path = "common/models.rs"]
mod small;

use common::choice;
use libtest_mimic::{Arguments, Failed};
use serde_json::{Value, json};
use small::{against_twin, decoder, gpt2, llama, merged, mor, token, upload_in, weights_in};
use std::ops::ControlFlow;
use std::sync::Arc;
use wgformer::generate::{GenerateLimits, Generator, SamplingOptions};
use wgformer::graph::{Array, Values};
use wgformer::io::ModelFolder;
use wgformer::io::tree_mask::spans_of_levels;
use wgformer::models::{self, Decoder, TokenInputs};
use wgformer::nn::KvSource;
use wgformer::ops::{self, CrossEntropyOptions};
use wgformer::program::pack;
use wgformer::tasks::{ListOps, ListOpsBatches, listops};
use wgformer::train::{
    Batches, LanguageModel, RunOptions, Schedule, StepOptions, Trainer, TreeLanguageModel, held_out,
};
use wgformer::{DType, Error, Gpu, Graph, Result, Tensor, Weights};

fn main() {
    let mut trials = Vec::new();
    for (name, device) in common::adapters(&mut trials) {
        for case in cases() {
            trials.push(device.trial(format!("[{name}] whole model: {}", case.name), move |gpu| case.run(gpu)));
        }
        type Test = fn(&Gpu) -> Result<(), Failed>;
        let tests: [(&str, Test); 4] = [
            ("weights survive saving and loading", weights_round_trip),
            ("a trained model continues what it learnt", trained_models_continue),
            ("a model learns over texts with a tree mask", models_with_tree_masks_learn),
            ("a cache and a tree mask exclude each other", caches_refuse_tree_masks),
        ];
        trials.extend(tests.map(|(title, test)| device.trial(format!("[{name}] {title}"), test)));
    }
    choice::run(&Arguments::from_args(), trials, |_, title| vec![part_of_the_choice(title).to_owned()]);
}

/// The family of a whole model: its kernels run everywhere in other tests, so that only families must. Other tests must themselves.
fn part_of_the_choice(title: &str) -> &str {
    let family = title.strip_prefix("whole model: ").and_then(|name| name.split([' ', ',']).next());
    family.unwrap_or(title)
}

/// A model with sizes that no kernel likes.
struct Case {
    name: &'static str,
    config: Value,
    batch: usize,
    time: usize,
    /// Real tokens of each row; empty: all.
    lengths: Vec<usize>,
    dropout: bool,
    storage: DType,
    /// Attention is limited by a tree over the tokens.
    tree: bool,
}

/// A mixture of experts.
fn mixtral(more: Value) -> Value {
    llama(merged(json!({"model_type": "mixtral", "intermediate_size": 33, "router_aux_loss_coef": 0.1}), more))
}

fn cases() -> Vec<Case> {
    let rope = json!({"rope_type": "llama3", "rope_theta": 10000.0, "factor": 8.0, "low_freq_factor": 1.0,
                      "high_freq_factor": 4.0, "original_max_position_embeddings": 32});
    let case = |name, config, batch, time, lengths: &[usize], dropout| Case {
        name,
        config,
        batch,
        time,
        lengths: lengths.to_vec(),
        dropout,
        storage: DType::F32,
        tree: false,
    };
    vec![
        case("gpt2 of 257 tokens", gpt2(json!({"n_inner": 51, "activation_function": "relu"})), 1, 257, &[], false),
        case(
            "gpt2 with dropout, odd scales and an untied head",
            gpt2(json!({"tie_word_embeddings": false, "scale_attn_weights": false, "activation_function": "gelu",
                        "scale_attn_by_inverse_layer_idx": true, "resid_pdrop": 0.1, "embd_pdrop": 0.2,
                        "attn_pdrop": 0.3})),
            2,
            19,
            &[],
            true,
        ),
        case(
            "llama with padding, biases, a tied head and scaled rotary positions",
            llama(
                json!({"attention_bias": true, "mlp_bias": true, "tie_word_embeddings": true, "rope_parameters": rope}),
            ),
            3,
            33,
            &[33, 20, 1],
            false,
        ),
        case(
            "llama with attention dropout and padding",
            llama(json!({"attention_dropout": 0.25})),
            2,
            33,
            &[33, 20],
            true,
        ),
        case(
            "mor with attention dropout, tokens choose",
            mor(json!({"attention_dropout": 0.25, "routing": "token_choice"})),
            2,
            19,
            &[],
            true,
        ),
        case(
            "llama of one token, five key heads",
            llama(json!({"num_key_value_heads": 5, "rope_scaling": {"type": "linear", "factor": 2.0}})),
            1,
            1,
            &[],
            false,
        ),
        case(
            "mor, four recursions of all layers, padding, tanh",
            mor(json!({"sharing": "cycle", "num_hidden_layers": 4, "num_recursions": 4, "router_function": "tanh",
                       "capacity": [0.9, 0.6, 0.6, 0.1], "router_alpha": 0.7, "router_aux_coef": 0.3,
                       "router_z_coef": 0.01})),
            3,
            19,
            &[19, 9, 1],
            false,
        ),
        case(
            "mor, shared keys, two routers of two layers",
            mor(json!({"kv_sharing": true, "sampling": "aux_router", "router": "mlp", "router_aux_coef": 0.3,
                       "num_hidden_layers": 8})),
            2,
            33,
            &[],
            false,
        ),
        case("mor of one token", mor(json!({"router_function": null})), 2, 1, &[], false),
        case(
            "mor, tokens choose a module and a depth, padding",
            mor(json!({"routing": "token_choice", "num_modules": 2, "router_function": "sigmoid", "router": "mlp",
                       "router_alpha": 0.8, "router_z_coef": 0.01})),
            3,
            19,
            &[19, 9, 1],
            false,
        ),
        case(
            "mor, tokens choose a depth, shared keys, padding",
            mor(json!({"routing": "token_choice", "kv_sharing": true, "sharing": "cycle", "num_hidden_layers": 3})),
            2,
            33,
            &[20, 33],
            false,
        ),
        case(
            "mor without routers, layers repeated in a row",
            mor(json!({"routing": "none", "sharing": "middle_sequence", "num_hidden_layers": 8})),
            2,
            9,
            &[],
            false,
        ),
        Case {
            storage: DType::BF16,
            ..case(
                "mor stored as bf16, shared keys without routers",
                mor(json!({"routing": "none", "kv_sharing": true, "sharing": "cycle", "num_hidden_layers": 4,
                           "num_recursions": 2})),
                2,
                9,
                &[9, 4],
                false,
            )
        },
        case(
            "mixtral, sigmoid scores in groups, a bias of the choice, z-loss",
            mixtral(json!({"num_local_experts": 12, "num_experts_per_tok": 3, "scoring_func": "sigmoid", "n_group": 4,
                           "topk_group": 2, "routed_scaling_factor": 2.5, "router_bias_rate": 0.25,
                           "router_z_loss_coef": 0.01})),
            2,
            33,
            &[],
            false,
        ),
        case(
            "mixtral with noise, one expert a token",
            mixtral(
                json!({"num_local_experts": 5, "num_experts_per_tok": 1, "norm_topk_prob": false, "router_noise": true}),
            ),
            2,
            19,
            &[],
            true,
        ),
        case(
            "mor whose layers have experts, recursions choose",
            mor(json!({"num_local_experts": 4, "intermediate_size": 21})),
            2,
            19,
            &[],
            false,
        ),
        case(
            "mor whose layers have experts, tokens choose, padding",
            mor(json!({"num_local_experts": 3, "intermediate_size": 21, "routing": "token_choice"})),
            2,
            19,
            &[19, 9],
            false,
        ),
        Case { tree: true, ..case("mor with a tree mask", mor(json!({})), 2, 33, &[33, 20], false) },
        Case { storage: DType::BF16, ..case("llama stored as bf16", llama(json!({})), 2, 9, &[], false) },
        Case { tree: true, ..case("llama with a tree mask", llama(json!({})), 2, 67, &[67, 20], false) },
        Case { tree: true, ..case("gpt2 with a tree mask", gpt2(json!({})), 1, 33, &[], false) },
        Case { storage: DType::F16, ..case("gpt2 stored as f16", gpt2(json!({})), 2, 9, &[], false) },
    ]
}

impl Case {
    fn run(&self, gpu: &Gpu) -> Result<(), Failed> {
        let model = decoder(&self.config)?;
        let mut values = weights_in(model.as_ref(), &self.storage.into())?;
        let weights = upload_in(gpu, model.as_ref(), &values, self.storage)?;
        let (g, wanted) = self.graph(model.as_ref(), &mut values)?;
        against_twin(gpu, &g, &weights, &values, &wanted, [1e-5, 2e-4])
    }

    /// The whole step, and the values of its inputs.
    fn graph(&self, model: &dyn Decoder, values: &mut Values) -> Result<(Graph, Vec<(String, Tensor)>)> {
        let (mut g, shape) = (Graph::with_storage(&self.storage.into()), [self.batch, self.time]);
        let ids = g.input("ids", shape, DType::U32)?;
        values.insert("ids".into(), Array::from_fn(shape, |i| token(i) as f64));
        let labels = g.input("labels", shape, DType::I32)?;
        let real = |i: usize| self.lengths.get(i / self.time).is_none_or(|&length| i % self.time < length);
        let label = |i: usize| if real(i) && i % 5 != 4 { token(i + 1) as f64 } else { -100.0 };
        values.insert("labels".into(), Array::from_fn(shape, label));
        let mut inputs = TokenInputs::new(&mut g, ids)?;
        if !self.lengths.is_empty() {
            inputs = inputs.with_mask(g.input("mask", shape, DType::U32)?);
            values.insert("mask".into(), Array::from_fn(shape, |i| f64::from(u8::from(real(i)))));
        }
        if self.tree {
            let shape = [self.batch, self.time, 3];
            inputs = inputs.with_tree(g.input("tree", shape, DType::U32)?);
            let levels = |row: usize| (0..self.time).map(|i| token(i + row) % 5).collect::<Vec<_>>();
            let spans = (0..self.batch).flat_map(|row| spans_of_levels(&levels(row)));
            let words = spans.flat_map(|span| [span.position, span.first, span.last]).map(f64::from);
            values.insert("tree".into(), Array::new(shape, words.collect())?);
        }
        if self.dropout {
            inputs = inputs.with_dropout(g.input("seed", [2], DType::U32)?);
            values.insert("seed".into(), Array::new([2], vec![12345.0, 678.0])?);
        }
        let hidden = model.decode(&mut g, &inputs)?;
        let logits = model.logits(&mut g, hidden.states)?;
        let mut loss = model.loss_of(&mut g, hidden.states, labels, &CrossEntropyOptions::default())?;
        if let Some(auxiliary) = hidden.auxiliary {
            loss = ops::add(&mut g, loss, auxiliary)?;
        }
        let mut wanted = vec![("logits".to_owned(), logits), ("loss".to_owned(), loss)];
        let parameters: Vec<(String, Tensor)> = g.parameters().map(|(n, t)| (n.to_owned(), t)).collect();
        let tensors: Vec<Tensor> = parameters.iter().map(|(_, t)| *t).collect();
        for ((name, _), gradient) in parameters.iter().zip(g.differentiate(loss, &tensors)?) {
            match gradient {
                Some(gradient) => wanted.push((format!("grad.{name}"), gradient)),
                // It changes the choice only, and moves by the loads.
                None if name.ends_with("correction_bias") => (),
                None => return Err(Error::Graph(format!("{name} has no gradient"))),
            }
        }
        for (name, tensor) in &wanted {
            g.output(name, *tensor)?;
        }
        Ok((g, wanted))
    }
}

fn weights_round_trip(gpu: &Gpu) -> Result<(), Failed> {
    let folder = tempfile::tempdir()?;
    let model = decoder(&llama(json!({"tie_word_embeddings": true})))?;
    let weights = Weights::new(gpu);
    model.initialise(&weights, 3)?;
    models::save(model.as_ref(), &weights, None, folder.path())?;
    let load = || models::load(gpu, &ModelFolder::open(folder.path())?, DType::F32);
    let (again, loaded) = load()?;
    for (name, _) in model.parameters()? {
        if weights.download(&name)? != loaded.download(&name)? {
            return Err(format!("{name} changed").into());
        }
    }
    if again.config() != model.config() {
        return Err(format!("{} became {}", model.config(), again.config()).into());
    }
    // A config that asks for more layers is told what is missing; one with fewer leaves the others aside.
    let set = |layers: usize, width: usize| {
        let mut config = again.config();
        (config["num_hidden_layers"], config["intermediate_size"]) = (layers.into(), width.into());
        std::fs::write(folder.path().join("config.json"), config.to_string())
    };
    let refused = |layers: usize, width: usize, words: &str| -> Result<(), Failed> {
        set(layers, width)?;
        match load() {
            Err(error) if error.to_string().contains(words) => Ok(()),
            other => Err(format!("expected \"{words}\", got {:?}", other.err()).into()),
        }
    };
    refused(3, 51, "9 missing: model.layers.2.")?;
    // As Hugging Face does; the log warns of what is left aside.
    set(1, 51)?;
    let (shorter, loaded) = load()?;
    for (name, _) in shorter.parameters()? {
        if weights.download(&name)? != loaded.download(&name)? {
            return Err(format!("{name} of fewer layers changed").into());
        }
    }
    refused(2, 52, "model.layers.0.mlp.gate_proj.weight has shape [51, 35], the config says [52, 35]")?;
    weights.upload("model.norm.weight", &pack(&[f64::NAN; 35], DType::F32))?;
    models::save(model.as_ref(), &weights, None, folder.path())?;
    match load() {
        Err(Error::NonFinite { what, .. }) if what == "weight model.norm.weight" => Ok(()),
        other => Err(format!("a NaN was loaded: {:?}", other.err()).into()),
    }
}

/// Fresh models learn a text that repeats, with dropout where they have it, and then generate it.
fn trained_models_continue(gpu: &Gpu) -> Result<(), Failed> {
    let text: Vec<u32> = (0..400).map(|i| [5, 17, 3, 96, 42, 0, 61, 8, 77, 29, 50][i % 11]).collect();
    for config in [
        gpt2(json!({"resid_pdrop": 0.1, "embd_pdrop": 0.1, "attn_pdrop": 0.1})),
        llama(json!({"attention_dropout": 0.1})),
    ] {
        let model: Arc<dyn Decoder> = decoder(&config)?.into();
        let weights = Weights::new(gpu);
        model.initialise(&weights, 1)?;
        let (rows, length, steps) = (4, 16, 80);
        let objective = LanguageModel { model: model.clone(), rows, length, options: CrossEntropyOptions::default() };
        let run = RunOptions { steps, ..Default::default() };
        let schedule = Schedule::constant(0.01);
        let mut trainer = Trainer::new(gpu, &weights, &objective, StepOptions::default(), run, schedule)?;
        let held_out = held_out(&text[..80], rows, length);
        let before = trainer.evaluate(&held_out)?;
        let mut data = Batches::new(text.clone().into(), rows, length, 3)?;
        for _ in 0..steps {
            trainer.submit_step(&mut data)?;
            trainer.reports(2, &mut |_: &wgformer::train::Event| ())?;
        }
        trainer.reports(0, &mut |_: &wgformer::train::Event| ())?;
        let after = trainer.evaluate(&held_out)?;
        // An untrained model knows nothing: the loss is the logarithm of 97. The first tokens of a window stay uncertain.
        if !((before - 97.0_f64.ln()).abs() < 0.1 && after < 0.5) {
            return Err(format!("{}: the loss went from {before} to {after}", config["model_type"]).into());
        }
        let limits = GenerateLimits { batch: 1, max_tokens: 40 };
        let mut generator = Generator::new(gpu, model, trainer.weights(), limits)?;
        let prompt = text[..9].to_vec();
        let answers = generator.generate(&[prompt], &SamplingOptions::greedy(20), |_| ControlFlow::Continue(()))?;
        if answers[0].tokens != text[9..29] {
            return Err(format!("{:?} does not go on as {:?}", answers[0].tokens, &text[9..29]).into());
        }
    }
    Ok(())
}

/// Fresh models learn to do better on held-out expressions than to guess a digit, whose loss is 2.3.
fn models_with_tree_masks_learn(gpu: &Gpu) -> Result<(), Failed> {
    let vocabulary = listops::NAMES.len();
    for config in [gpt2(json!({"vocab_size": vocabulary})), llama(json!({"vocab_size": vocabulary}))] {
        let model: Arc<dyn Decoder> = decoder(&config)?.into();
        let task = ListOps { depth: 1..=1, arguments: 2..=2, length: 5, tree: true, lists: false };
        let weights = Weights::new(gpu);
        model.initialise(&weights, 1)?;
        let (rows, steps) = (64, 80);
        let plain = LanguageModel { model, rows, length: task.length, options: CrossEntropyOptions::default() };
        let objective = TreeLanguageModel(plain);
        let run = RunOptions { steps, ..Default::default() };
        let schedule = Schedule::constant(0.005);
        let mut trainer = Trainer::new(gpu, &weights, &objective, StepOptions::default(), run, schedule)?;
        let held_out = task.held_out(rows, 96, 2)?;
        let before = trainer.evaluate(&held_out)?;
        let mut data = ListOpsBatches::new(task, rows, 3)?;
        for _ in 0..steps {
            trainer.submit_step(&mut data)?;
            trainer.reports(2, &mut |_: &wgformer::train::Event| ())?;
        }
        trainer.reports(0, &mut |_: &wgformer::train::Event| ())?;
        let after = trainer.evaluate(&held_out)?;
        if !((before - (vocabulary as f64).ln()).abs() < 0.1 && after < 2.0) {
            return Err(format!("{}: the loss went from {before} to {after}", config["model_type"]).into());
        }
    }
    Ok(())
}

/// Generation has no tree mask: a model that is asked for both says so.
fn caches_refuse_tree_masks(_: &Gpu) -> Result<(), Failed> {
    let model = decoder(&llama(json!({})))?;
    let mut g = Graph::new();
    let ids = g.input("ids", [1, 4], DType::U32)?;
    let tree = g.input("tree", [1, 4, 3], DType::U32)?;
    let inputs = TokenInputs::new(&mut g, ids)?.with_tree(tree);
    let lengths = g.input("lengths", [1], DType::U32)?;
    let inputs = TokenInputs { kv: KvSource::Prefill { capacity: 9, lengths }, ..inputs };
    match model.decode(&mut g, &inputs) {
        Err(error) if error.to_string().contains("a tree mask needs whole sequences") => Ok(()),
        other => Err(format!("not refused: {:?}", other.err()).into()),
    }
}
