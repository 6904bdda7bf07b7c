//! Vectors that are learnt from pairs of texts: the loss by hand, gradients against the f64 twin and differences, and a run of the command.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[path = "common/command.rs"]
mod common;
#[path = "common/models.rs"]
mod small;

use common::{refusal, succeed, wgformer};
use serde_json::{Value, json};
use small::{against_twin, token, upload, weights_of};
use std::fs;
use std::sync::Arc;
use wgformer::graph::{Array, Values};
use wgformer::io::Config;
use wgformer::models::{self, Initial, Model, initial_values};
use wgformer::program::unpack;
use wgformer::tasks::{Embedder, Pooling, Row, RowBatches, RowSize, Target, TaskObjective};
use wgformer::train::{BatchSource, DataState, Objective};
use wgformer::{Gpu, Graph, Program, Tensor};

fn bert() -> Arc<dyn Model> {
    let config = json!({"model_type": "bert", "architectures": ["BertModel"], "vocab_size": 97, "hidden_size": 36, "num_attention_heads": 4,
                        "num_hidden_layers": 2, "intermediate_size": 51, "max_position_embeddings": 64,
                        "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0});
    models::model(&Config::new("config.json", config).unwrap()).unwrap().into()
}

fn tokens(first: usize, count: usize) -> Vec<u32> {
    (first..first + count).map(|i| token(i) as u32).collect()
}

/// Three pairs, of which two have the same target, in a batch of four.
fn pairs(pooling: Pooling) -> Vec<Row> {
    let near = |first, count| Target::Near { ids: tokens(first, count), pooling };
    vec![
        Row { ids: tokens(3, 5), types: Vec::new(), target: near(40, 9) },
        Row { ids: tokens(11, 9), types: Vec::new(), target: near(55, 3) },
        Row { ids: tokens(20, 2), types: Vec::new(), target: near(40, 9) },
    ]
}

/// The graph of the loss, and what a batch of the pairs feeds it.
fn step(model: &Arc<dyn Model>, pooling: Pooling) -> (Graph, Tensor, Values, Vec<(String, Vec<u8>)>) {
    let rows = pairs(pooling);
    let size = RowSize { rows: 4, read: 12, said: 0 };
    let objective = TaskObjective::on_rows(model.clone(), &rows, size).unwrap();
    let mut source =
        RowBatches::resume(rows.into(), &objective, vec![size], DataState { seed: 1, epoch: 0, cursor: 0, text: 0 })
            .unwrap();
    let feeds = source.next_feeds().unwrap();
    let mut g = Graph::new();
    let loss = objective.loss(&mut g, false).unwrap();
    let mut values = weights_of(model.as_ref()).unwrap();
    for (name, bytes) in &feeds {
        let tensor = g.find(name).unwrap();
        let data = unpack(bytes, g.dtype(tensor), g.shape(tensor).numel());
        values.insert(name.clone(), Array::new(g.shape(tensor).clone(), data).unwrap());
    }
    (g, loss, values, feeds.into_iter().collect())
}

#[test]
fn the_loss_is_that_of_the_vectors_of_single_texts() {
    let model = bert();
    for adapter in Gpu::adapters() {
        let gpu = Gpu::open(&adapter).unwrap();
        let (mut g, loss, values, feeds) = step(&model, Pooling::Mean);
        g.output("loss", loss).unwrap();
        let weights = upload(&gpu, model.as_ref(), &values).unwrap();
        let program = Program::new(&gpu, &g, &weights).unwrap();
        feeds.iter().for_each(|(name, bytes)| program.write(name, bytes).unwrap());
        program.run().unwrap();
        let found = f64::from(program.read_f32("loss").unwrap()[0]);
        let rows = pairs(Pooling::Mean);
        let mut embedder = Embedder::new(&gpu, model.clone(), &weights, 1).unwrap();
        let mut one = |ids: &[u32]| embedder.embed(&[ids.to_vec()]).unwrap().remove(0);
        let sources: Vec<Vec<f32>> = rows.iter().map(|row| one(&row.ids)).collect();
        let target = |row: &Row| if let Target::Near { ids, .. } = &row.target { ids.clone() } else { Vec::new() };
        let targets: Vec<Vec<f32>> = rows.iter().map(|row| one(&target(row))).collect();
        let score = |a: usize, b: usize| {
            20.0 * sources[a].iter().zip(&targets[b]).map(|(x, y)| f64::from(*x) * f64::from(*y)).sum::<f64>()
        };
        // The first and the last pair have the same target, which is no wrong one for either.
        let wrong = [[1].as_slice(), &[0, 2], &[1]];
        let each = |a: usize| {
            let others: f64 = wrong[a].iter().map(|b| score(a, *b).exp()).sum();
            (score(a, a).exp() + others).ln() - score(a, a)
        };
        let wanted = (0..3).map(each).sum::<f64>() / 3.0;
        assert!((found - wanted).abs() <= 1e-4 * wanted.max(1.0), "{found} {wanted}");
    }
}

#[test]
fn gradients_are_those_of_the_twin_and_of_differences() {
    let model = bert();
    for pooling in [Pooling::Mean, Pooling::Cls] {
        let (mut g, loss, values, _) = step(&model, pooling);
        let parameters: Vec<(String, Tensor)> = g.parameters().map(|(n, t)| (n.to_owned(), t)).collect();
        let tensors: Vec<Tensor> = parameters.iter().map(|(_, t)| *t).collect();
        let gradients = g.differentiate(loss, &tensors).unwrap();
        let mut wanted = vec![("loss".to_owned(), loss)];
        for ((name, _), gradient) in parameters.iter().zip(gradients) {
            match gradient {
                Some(gradient) => wanted.push((format!("grad.{name}"), gradient)),
                None => assert!(name.contains("pooler"), "{name} has no gradient"),
            }
        }
        // Along a random direction: (L(w + e·v) − L(w − e·v)) / 2e = gradient · v.
        let all: Vec<Tensor> = wanted.iter().map(|(_, t)| *t).collect();
        let found = g.evaluate(&values, &all).unwrap();
        let (mut slope, mut moved) = (0.0, [values.clone(), values.clone()]);
        for ((name, _), gradient) in wanted.iter().zip(&found).skip(1) {
            let name = &name["grad.".len()..];
            // The row of the padding token does not learn.
            if name.contains("word_embeddings") {
                continue;
            }
            let direction = initial_values(Initial::Normal(1.0), gradient.data.len(), 9, name);
            slope += gradient.data.iter().zip(&direction).map(|(a, b)| a * b).sum::<f64>();
            for (values, sign) in moved.iter_mut().zip([1.0, -1.0]) {
                let array = values.get_mut(name).unwrap();
                array.data.iter_mut().zip(&direction).for_each(|(x, d)| *x += sign * 1e-7 * d);
            }
        }
        let [up, down] = moved.map(|values| g.evaluate(&values, &[loss]).unwrap()[0].data[0]);
        let difference = (up - down) / 2e-7;
        assert!((difference - slope).abs() <= 1e-5 * slope.abs().max(1.0), "{difference} {slope}");
        assert!(slope.abs() > 1e-3);
        wanted.iter().for_each(|(name, tensor)| g.output(name, *tensor).unwrap());
        for adapter in Gpu::adapters() {
            let gpu = Gpu::open(&adapter).unwrap();
            let weights = upload(&gpu, model.as_ref(), &values).unwrap();
            against_twin(&gpu, &g, &weights, &values, &wanted, [5e-5, 5e-4]).unwrap();
        }
    }
}

#[test]
fn a_model_learns_which_texts_belong_together_by_the_command() {
    let folder = tempfile::tempdir().unwrap();
    let colours = ["red", "blue", "green", "black", "white", "brown", "grey", "pink"];
    let things = ["house", "car", "boat", "hat"];
    // Each colour and each thing is seen in training, and every fourth pair of them is not.
    let pairs = |held_out: bool| -> String {
        let all = (0..colours.len()).flat_map(|colour| (0..things.len()).map(move |thing| (colour, thing)));
        let some = all.filter(|(colour, thing)| ((colour + thing) % 4 == 0) == held_out);
        let pair = |(colour, thing): (usize, usize)| {
            let (colour, thing) = (colours[colour], things[thing]);
            json!({"source": format!("a {thing} of {colour}"), "target": format!("{colour} {thing}s")})
        };
        some.map(|names| format!("{}\n", pair(names))).collect()
    };
    let [data, held_out] = ["pairs.jsonl", "held-out.jsonl"].map(|name| folder.path().join(name));
    fs::write(&data, pairs(false)).unwrap();
    fs::write(&held_out, pairs(true)).unwrap();
    let train = |out: &str, steps: &str, more: &[&str]| {
        let mut command = wgformer();
        command.args(["train", "--task", "embed", "--steps", steps, "--eval-every", "20", "--tokenizer", "bytes"]);
        command.args([
            "--layers",
            "1",
            "--heads",
            "2",
            "--width",
            "32",
            "--context",
            "32",
            "--batch",
            "8",
            "--lr",
            "3e-3",
        ]);
        command.args(["--dropout", "0", "--json"]).args(more);
        command.arg("--data").arg(&data).arg("--eval-data").arg(&held_out).arg("--out").arg(folder.path().join(out));
        command
    };
    succeed(&mut train("short", "1", &[]));
    succeed(&mut train("run", "60", &["--prefix", "x: "]));
    let eval = |out: &str| {
        let mut command = wgformer();
        command.arg("eval").arg(folder.path().join(out).join("model")).arg("--data").arg(&held_out).arg("--json");
        let said: Value = serde_json::from_str(&succeed(&mut command)).unwrap();
        assert_eq!((&said["task"], &said["main"]), (&json!("embed"), &json!("MRR")));
        said["metrics"]["MRR"].as_f64().unwrap()
    };
    let (before, after) = (eval("short"), eval("run"));
    assert!(after > before + 0.1 && after > 0.6, "MRR of {before} became {after}");
    let model = folder.path().join("run/model");
    let task: Value = serde_json::from_str(&fs::read_to_string(model.join("task.json")).unwrap()).unwrap();
    assert_eq!((&task["task"], &task["pooling"], &task["prefix"]), (&json!("embed"), &json!("mean"), &json!("x: ")));
    // What it learnt is used by the other commands.
    let mut run = wgformer();
    let said = succeed(run.arg("run").arg(&model).args(["--text", "red hats"]));
    let line: Value = serde_json::from_str(&said).unwrap();
    assert_eq!(line["vector"].as_array().unwrap().len(), 32);
    // What a folder of sentence-transformers says of lower case holds for what is trained from it.
    let modules = json!([{"type": "sentence_transformers.models.Transformer", "path": ""},
                         {"type": "sentence_transformers.models.Normalize", "path": "2_Normalize"}]);
    fs::write(model.join("modules.json"), modules.to_string()).unwrap();
    fs::write(model.join("sentence_bert_config.json"), r#"{"max_seq_length": 32, "do_lower_case": true}"#).unwrap();
    let mut again = wgformer();
    again.args(["train", "--task", "embed", "--steps", "1", "--from"]).arg(&model).arg("--data").arg(&data);
    succeed(again.arg("--eval-data").arg(&held_out).arg("--out").arg(folder.path().join("again")));
    let trained = folder.path().join("again/model");
    assert!(!trained.join("sentence_bert_config.json").exists());
    let embed = |text: &str| succeed(wgformer().arg("embed").arg(&trained).args(["--json", "--text", text]));
    let vector = |text: &str| serde_json::from_str::<Value>(&embed(text)).unwrap()["vector"].clone();
    assert_eq!(vector("Red HATS"), vector("red hats"));
    fs::write(&data, "{\"source\": \"a\"}\n".repeat(9)).unwrap();
    assert!(refusal(&mut train("none", "1", &[])).contains("target"));
}

#[test]
fn texts_of_mixed_lengths_cost_at_most_a_third_more_than_their_tokens() {
    let model = bert();
    let gpu = Gpu::choose(None).unwrap();
    let weights = upload(&gpu, model.as_ref(), &weights_of(model.as_ref()).unwrap()).unwrap();
    // Lengths 1 to 64 in no order, each twice.
    let texts: Vec<Vec<u32>> = (0..128).map(|i| tokens(i, 1 + i * 37 % 64)).collect();
    for rows in [8, 64] {
        let mut embedder = Embedder::new(&gpu, model.clone(), &weights, rows).unwrap();
        assert_eq!(embedder.embed(&texts).unwrap().len(), texts.len());
        let cost = 1.0 / (1.0 - embedder.padding());
        assert!(cost <= 1.3, "batches of {rows} cost {cost:.2} of the useful tokens");
    }
}
