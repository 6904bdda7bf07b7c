//! Whole models of awkward sizes against the f64 twin of their own graph, their files, and what they learn, on every adapter of
//! this machine.

mod cases;
#[path = "../common/mod.rs"]
mod common;
mod learning;
#[path = "../common/models.rs"]
mod small;

use cases::cases;
use common::choice;
use learning::{models_with_tree_masks_learn, trained_models_continue};
use libtest_mimic::{Arguments, Failed};
use serde_json::json;
use small::{decoder, llama};
use wgformer::io::ModelFolder;
use wgformer::models::{self, TokenInputs};
use wgformer::nn::KvSource;
use wgformer::program::pack;
use wgformer::{DType, Error, Gpu, Graph, Result, Weights};

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
    choice::run(&Arguments::from_args(), trials, |_, title| part_of_the_choice(title));
}

/// The name that a test covers: the family of a whole model, whose kernels run everywhere in other tests; else the title itself. None for
/// training: its results are held to be the same on all adapters, so one of them suffices.
fn part_of_the_choice(title: &str) -> Vec<String> {
    let trains = ["a trained model", "a model learns"].iter().any(|start| title.starts_with(start));
    let family = title.strip_prefix("whole model: ").and_then(|name| name.split([' ', ',']).next());
    if trains { Vec::new() } else { vec![family.unwrap_or(title).to_owned()] }
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
    // More layers in the config are an error that names the missing tensors; with fewer, the others are ignored.
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
    // As in transformers; the log warns of ignored tensors.
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

/// A cache with a tree mask is an error.
fn caches_refuse_tree_masks(_: &Gpu) -> Result<(), Failed> {
    let model = decoder(&llama(json!({})))?;
    let mut g = Graph::new();
    let ids = g.input("ids", [1, 4], DType::U32)?;
    let tree = g.input("tree", [1, 4, 3], DType::U32)?;
    let inputs = TokenInputs::new(&mut g, ids)?.with_tree(tree);
    let lengths = g.input("lengths", [1], DType::U32)?;
    let inputs = TokenInputs { kv: KvSource::Prefill { capacity: 9, lengths, beams: 1 }, ..inputs };
    match model.decode(&mut g, &inputs) {
        Err(error) if error.to_string().contains("a tree mask needs whole sequences") => Ok(()),
        other => Err(format!("not refused: {:?}", other.err()).into()),
    }
}
