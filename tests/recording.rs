//! The recording of a GPT's training step, without a GPU: launches, memory, refusals.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use serde_json::json;
use std::sync::Arc;
use wgformer::check::cases;
use wgformer::gpu::{AdapterClass, Caps};
use wgformer::graph::Storage;
use wgformer::io::Config;
use wgformer::kernel::{Access, Dispatch};
use wgformer::ops::{self, AttentionOptions, CrossEntropyOptions};
use wgformer::program::{Budget, MemoryReport, Plan, Recording, cost, cut};
use wgformer::software::{Quirks, Textures};
use wgformer::tasks::TaskObjective;
use wgformer::train::{LanguageModel, Objective, Part, StepOptions, TrainStep};
use wgformer::{DType, Error, Graph, Result, models};

/// The training step of a GPT-2 of some size.
fn training_step(
    layers: usize,
    d_model: usize,
    heads: usize,
    vocabulary: usize,
    rows: usize,
    length: usize,
) -> Result<Graph> {
    let config = json!({
        "model_type": "gpt2", "vocab_size": vocabulary, "n_positions": length, "n_embd": d_model, "n_layer": layers,
        "n_head": heads, "activation_function": "gelu_new", "layer_norm_epsilon": 1e-5, "tie_word_embeddings": true,
        "embd_pdrop": 0.0, "resid_pdrop": 0.0, "attn_pdrop": 0.0,
    });
    let model: Arc<dyn models::Decoder> = models::decoder(&Config::new("test", config)?)?.into();
    let objective = LanguageModel { model, rows, length, options: CrossEntropyOptions::default() };
    let step = TrainStep::new(&objective.parameters(&Storage::default())?, &Caps::baseline(), StepOptions::default())?;
    step.graph(Part::Whole, |g| objective.loss(g, true))
}

#[test]
fn the_training_step_of_a_small_gpt() {
    let recording = Recording::new(&training_step(1, 32, 2, 65, 2, 16).unwrap(), &Caps::baseline()).unwrap();
    insta::assert_snapshot!(recording);
}

#[test]
fn memory_is_near_what_is_alive_at_once() {
    for (layers, d_model, heads, vocabulary, rows, length) in
        [(6, 384, 6, 65, 4, 256), (4, 128, 4, 1024, 8, 128), (2, 48, 4, 97, 2, 17), (12, 768, 12, 50257, 4, 256)]
    {
        let graph = training_step(layers, d_model, heads, vocabulary, rows, length).unwrap();
        for caps in [Caps::baseline(), Caps::baseline().with_class(AdapterClass::Cpu).with_subgroup(Some(8))] {
            let caps = caps.with_max_binding_bytes(1 << 30).with_max_buffer_bytes(1 << 30);
            let recording = Recording::new(&graph, &caps).unwrap();
            let memory = MemoryReport::new(&recording, &Plan::new(&recording, &caps).unwrap());
            let ratio = memory.temporaries as f64 / memory.lower_bound as f64;
            println!("{layers} layers, d_model {d_model}: {memory}");
            assert!(ratio <= 1.15, "{layers} layers, d_model {d_model}: {ratio}");
        }
    }
}

/// No launch of a training step over 8,192 tokens outlasts a watchdog: each is cut into pieces within the budget of a device that is a tenth as fast
/// as usual.
#[test]
fn long_texts_have_no_launch_that_a_watchdog_ends() {
    let graph = training_step(12, 768, 12, 50257, 1, 8192).unwrap();
    let caps = Caps::baseline().with_max_binding_bytes(2 << 30).with_max_buffer_bytes(2 << 30);
    let recording = Recording::new(&graph, &caps).unwrap();
    let budget = Budget::new(&caps, None);
    let (mut longest, mut cuts) = (0.0_f64, 0);
    for dispatch in recording.dispatches() {
        let pieces = cut(dispatch, budget);
        cuts += pieces.len() - 1;
        for piece in pieces {
            longest = longest.max(cost(dispatch) * piece.len() as f64 / f64::from(dispatch.groups));
        }
    }
    println!("{cuts} cuts, the longest piece is {:.2} of the budget", longest / budget.dispatch);
    assert!(cuts > 0 && longest <= 1.05 * budget.dispatch, "{longest} of {}", budget.dispatch);
}

/// A training step over 8,192 tokens a side has no tensor with an entry for each pair of them, nor has its bias by distance.
#[test]
fn long_texts_have_no_tensor_of_their_pairs() {
    const TOKENS: usize = 8192;
    let llama = json!({"model_type": "llama", "vocab_size": 97, "hidden_size": 16, "num_attention_heads": 2,
        "num_key_value_heads": 1, "num_hidden_layers": 1, "intermediate_size": 32, "max_position_embeddings": TOKENS});
    let t5 = json!({"model_type": "t5", "vocab_size": 97, "d_model": 16, "d_kv": 8, "d_ff": 32, "num_heads": 2,
        "num_layers": 1, "dropout_rate": 0.1});
    for (config, length, biases) in [(llama, TOKENS, 0), (t5, 2 * TOKENS, 2)] {
        let model: Arc<dyn models::Model> = models::model(&Config::new("test", config).unwrap()).unwrap().into();
        let objective = TaskObjective::new(model, 1, length).unwrap();
        for caps in [Caps::baseline(), Caps::baseline().with_class(AdapterClass::Cpu).with_subgroup(Some(8))] {
            let parameters = objective.parameters(&Storage::default()).unwrap();
            let step = TrainStep::new(&parameters, &caps, StepOptions::default()).unwrap();
            let graph = step.graph(Part::Whole, |g| objective.loss(g, true)).unwrap();
            let recording = Recording::new(&graph, &caps).unwrap();
            for slot in recording.slots() {
                assert!(slot.ty.shape.numel() <= TOKENS * 128, "{} is {}", slot.label, slot.ty);
            }
            let named = |part: &str| recording.dispatches().iter().filter(|d| d.kernel.name.contains(part)).count();
            assert!(
                named("attention_forward") >= 1 && named("attention_grad_q") >= 1 && named("attention_grad_kv") >= 1
            );
            assert_eq!((named("grad_bias_by_distance"), named("grad_bias")), (biases, biases));
        }
    }
}

#[test]
fn products_take_up_the_adds_behind_them() {
    let mut g = Graph::new();
    let x = g.input("x", [5, 7], DType::F32).unwrap();
    let w = g.parameter("w", [7, 7], DType::F32).unwrap();
    let row = g.parameter("row", [7], DType::F32).unwrap();
    let y = ops::matmul(&mut g, x, w).unwrap();
    let y = ops::add_row(&mut g, y, row).unwrap();
    let y = ops::add(&mut g, x, y).unwrap();
    g.output("y", y).unwrap();
    let recording = Recording::new(&g, &Caps::baseline()).unwrap();
    assert_eq!(recording.dispatches().len(), 1, "{recording}");
    // A product that is an output is not fused away.
    let z = ops::matmul(&mut g, x, w).unwrap();
    let sum = ops::add(&mut g, z, x).unwrap();
    g.output("z", z).unwrap();
    g.output("sum", sum).unwrap();
    assert_eq!(Recording::new(&g, &Caps::baseline()).unwrap().dispatches().len(), 3);
}

#[test]
fn a_value_that_was_overwritten_is_not_read() {
    let mut g = Graph::new();
    let caches = ["keys", "values"].map(|name| g.state(name, [1, 4, 1, 2], DType::F32).unwrap());
    let new = g.input("new", [1, 1, 1, 2], DType::F32).unwrap();
    let positions = g.input("positions", [1, 1], DType::U32).unwrap();
    let (keys, values) = ops::cache_write(&mut g, caches, [new, new], positions).unwrap();
    let late = ops::scale(&mut g, caches[1], 2.0).unwrap();
    g.output("keys", keys).unwrap();
    g.output("values", values).unwrap();
    g.output("late", late).unwrap();
    let error = Recording::new(&g, &Caps::baseline()).unwrap_err();
    assert!(matches!(error, Error::Graph(_)) && error.to_string().contains("after it was overwritten"), "{error}");
}

/// The operands of the first launch that are copied into textures, on an adapter that could read all of them in place.
fn copied(g: &Graph) -> Vec<bool> {
    let quirks = Quirks::of_results().with_textures(Textures::Storage).with_shared_textures(true);
    let quirks = quirks.with_max_textures(8).with_max_texture_bytes(1 << 28);
    let caps = Caps::baseline().with_class(AdapterClass::Cpu).with_subgroup(Some(8)).with_quirks(quirks);
    let recording = Recording::new(g, &caps).unwrap();
    let access = recording.dispatches()[0].bindings.iter().map(|b| b.access);
    let copied = access.filter_map(|access| match access {
        Access::Texture { shared, .. } => Some(!shared),
        _ => None,
    });
    copied.collect()
}

#[test]
fn operands_whose_rows_lie_pages_apart_are_copied_where_they_are_used_often() {
    let product = |m: usize, k: usize, n: usize| {
        let mut g = Graph::new();
        let (a, b) = (g.input("a", [m, k], DType::F32).unwrap(), g.input("b", [k, n], DType::F32).unwrap());
        let c = ops::matmul(&mut g, a, b).unwrap();
        g.output("c", c).unwrap();
        copied(&g)
    };
    assert_eq!(product(256, 1040, 1024), [false, true]);
    assert_eq!(product(256, 1024, 1040), [true, false]);
    assert_eq!(product(255, 1024, 2048), [true, false]);
    assert_eq!(product(256, 2048, 255), [false, false]);
    let attention = |tokens: usize, heads: usize| {
        let mut g = Graph::new();
        let [q, k, v] = ["q", "k", "v"].map(|name| g.input(name, [1, tokens, heads, 64], DType::F32).unwrap());
        let options = AttentionOptions::default().with_causal(true);
        let out = ops::attention(&mut g, q, k, v, &options).unwrap();
        g.output("out", out).unwrap();
        copied(&g)
    };
    assert_eq!(attention(256, 16), [true; 3]);
    assert_eq!(attention(256, 12), [false; 3]);
    assert_eq!(attention(255, 16), [false; 3]);
}

#[test]
fn the_crates_own_ops_keep_their_speed() {
    for case in cases::all() {
        let recording = case.recording(&Caps::baseline()).unwrap();
        assert!(recording.dispatches().iter().all(Dispatch::is_trusted), "{} has checked kernels", case.name);
    }
}
