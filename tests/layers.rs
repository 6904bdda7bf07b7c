//! Stacks of blocks that no family uses, against the f64 twin of their own graph, on every adapter of this machine.

mod common;
#[path = "common/models.rs"]
mod small;

use libtest_mimic::Failed;
use small::against_twin;
use wgformer::graph::{Array, Values};
use wgformer::models::TokenInputs;
use wgformer::nn;
use wgformer::ops;
use wgformer::program::pack;
use wgformer::{DType, Gpu, Graph, Result, Tensor, Weights};

fn main() {
    let mut trials = Vec::new();
    for (name, device) in common::adapters(&mut trials) {
        trials.push(device.trial(format!("[{name}] a stack whose tokens see a prefix"), prefixes_are_seen));
        for mask in [nn::Mask::Causal, nn::Mask::Bidirectional] {
            let relative = nn::RelativeBias::Alibi;
            let test = move |gpu: &Gpu| twin(gpu, mask, Some(relative.clone())).map(|_| ());
            trials.push(device.trial(format!("[{name}] a stack with linear biases, {mask:?}"), test));
            let test = move |gpu: &Gpu| texts_are_apart(gpu, mask);
            trials.push(device.trial(format!("[{name}] a stack with linear biases, two texts a row, {mask:?}"), test));
        }
    }
    common::run(trials);
}

const SHAPE: [usize; 3] = [2, 35, 20];

/// A stack of two blocks with such attention.
fn stack(mask: nn::Mask, relative: Option<&nn::RelativeBias>, dropout: f32) -> nn::Stack {
    let linear = nn::LinearConfig::out_in(true);
    let heads = nn::Heads { query: 5, key_value: 1, head_dim: 4 };
    let names = ("attention", nn::QkvNames::Separate(["q", "k", "v"]), "out");
    let block = |layer: usize| nn::Block {
        prefix: format!("layers.{layer}"),
        norm: nn::NormKind::Rms { eps: 1e-5 },
        order: nn::NormOrder::Pre,
        attention_norm: "norm_1".into(),
        attention: nn::Attention {
            dropout,
            window: (layer == 1).then_some(SHAPE[1]),
            relative: relative.cloned(),
            ..nn::Attention::new(names, linear, heads, mask)
        },
        cross: None,
        feed_forward_norm: "norm_2".into(),
        feed_forward: nn::FeedForward::Plain {
            names: ["up", "down"],
            d_ff: 31,
            activation: ops::Activation::Silu,
            linear,
            output_linear: linear,
        },
        parallel: false,
        dropout: 0.0,
        activation_dropout: 0.0,
        residual_scale: 1.0,
    };
    let blocks = (0..2).map(block).collect();
    nn::Stack { blocks, recursion: None, final_norm: None, balance: nn::Balance::default(), salt: 0 }
}

/// A stack with dropout and a window that hides nothing, against its f64 twin; and its graph, the values of its inputs, and its states.
fn twin(gpu: &Gpu, mask: nn::Mask, relative: Option<nn::RelativeBias>) -> Result<(Graph, Values, Tensor), Failed> {
    let [batch, time, _] = SHAPE;
    let mut g = Graph::new();
    // A stack reads states: only the shape of ids counts.
    let ids = g.constant("ids", Array::zeros([batch, time]), DType::U32);
    let x = g.input("x", SHAPE, DType::F32)?;
    let seed = g.input("seed", [2], DType::U32)?;
    let mut inputs = TokenInputs::new(&mut g, ids)?.with_dropout(seed);
    if mask == nn::Mask::Prefix {
        inputs = inputs.with_prefix(g.input("prefix", [batch], DType::U32)?);
    }
    let states = stack(mask, relative.as_ref(), 0.2).run(&mut g, x, &inputs)?.states;
    let values = against_itself(gpu, &mut g, [x, states])?;
    Ok((g, values, states))
}

/// The states of a graph, and the gradients of a loss of them, against its f64 twin; and the values of its inputs.
fn against_itself(gpu: &Gpu, g: &mut Graph, [x, states]: [Tensor; 2]) -> Result<Values, Failed> {
    let upstream = g.input("upstream", SHAPE, DType::F32)?;
    let loss = ops::mul(g, states, upstream)?;
    let loss = ops::mean(g, loss)?;
    let mut wanted = vec![("states".to_owned(), states)];
    let parameters: Vec<(String, Tensor)> = g.parameters().map(|(n, t)| (n.to_owned(), t)).collect();
    let wrt: Vec<Tensor> = parameters.iter().map(|(_, t)| *t).chain([x]).collect();
    for (tensor, gradient) in
        parameters.iter().map(|(name, _)| name.as_str()).chain(["x"]).zip(g.differentiate(loss, &wrt)?)
    {
        wanted.push((format!("grad.{tensor}"), gradient.ok_or("no gradient")?));
    }
    for (name, tensor) in &wanted {
        g.output(name, *tensor)?;
    }
    let mut values = Values::new();
    let weights = Weights::new(gpu);
    for (name, tensor) in g.parameters().chain(g.inputs()) {
        let shape = g.shape(tensor).clone();
        let phase = name.len() as f64;
        let value = |i: usize| match name {
            "prefix" => [20.0, 3.0][i],
            "seed" => 77.0 + i as f64,
            _ => DType::F32.round(0.4 * (i as f64 * 0.7 + phase).sin()),
        };
        values.insert(name.to_owned(), Array::from_fn(shape, value));
    }
    for (name, tensor) in g.parameters() {
        weights.ensure(name, g.ty(tensor))?;
        weights.upload(name, &pack(&values[name].data, DType::F32))?;
    }
    against_twin(gpu, g, &weights, &values, &wanted, [1e-5, 2e-4])?;
    Ok(values)
}

/// A token of the prefix changes the first state; one behind it does not.
fn prefixes_are_seen(gpu: &Gpu) -> Result<(), Failed> {
    let [_, time, d_model] = SHAPE;
    let (g, values, states) = twin(gpu, nn::Mask::Prefix, None)?;
    let first = |changed: usize| -> Result<Vec<f64>> {
        let mut values = values.clone();
        if let Some(x) = values.get_mut("x") {
            x.data[changed * d_model] += 1.0;
        }
        Ok(g.evaluate(&values, &[states])?.remove(0).data[..d_model].to_vec())
    };
    let (none, within, behind) = (first(time)?, first(19)?, first(20)?);
    if none == within || none != behind {
        return Err("the first token sees what is behind its prefix, or not what is in it".into());
    }
    Ok(())
}

/// Two texts in each row, by linear biases: each has the states that it has alone.
fn texts_are_apart(gpu: &Gpu, mask: nn::Mask) -> Result<(), Failed> {
    let [batch, time, d_model] = SHAPE;
    let (stack, first) = (stack(mask, Some(&nn::RelativeBias::Alibi), 0.0), 13);
    let run = |[from, end]: [usize; 2], apart: bool| -> Result<(Graph, [Tensor; 2])> {
        let (mut g, count) = (Graph::new(), end - from);
        let ids = g.constant("ids", Array::zeros([batch, count]), DType::U32);
        let x = g.input("x", [batch, count, d_model], DType::F32)?;
        let mut inputs = TokenInputs::new(&mut g, ids)?;
        if apart {
            let place = |i: usize| if i % time < first { [0, first] } else { [first, time] };
            let ranges = Array::from_fn([batch, time, 2], |i| place(i / 2)[i % 2] as f64);
            let positions = Array::from_fn([batch, time], |i| (i % time - place(i)[0]) as f64);
            let ranges = g.constant("ranges", ranges, DType::U32);
            let positions = g.constant("text_positions", positions, DType::U32);
            inputs = inputs.with_documents(nn::Documents { ranges, context: None }, positions, time);
        }
        let states = stack.run(&mut g, x, &inputs)?.states;
        Ok((g, [x, states]))
    };
    let (mut g, [x, states]) = run([0, time], true)?;
    let values = against_itself(gpu, &mut g, [x, states])?;
    let together = g.evaluate(&values, &[states])?.remove(0);
    for [from, end] in [[0, first], [first, time]] {
        let (g, [_, states]) = run([from, end], false)?;
        let part = |array: &Array| {
            let row = |b: usize| array.data[(b * time + from) * d_model..(b * time + end) * d_model].to_vec();
            Array::new([batch, end - from, d_model], (0..batch).flat_map(row).collect())
        };
        let mut alone = values.clone();
        alone.insert("x".into(), part(&values["x"])?);
        let alone = g.evaluate(&alone, &[states])?.remove(0);
        if !alone.data.iter().zip(&part(&together)?.data).all(|(a, b)| (a - b).abs() <= 1e-12) {
            return Err(format!("the text from token {from} on has other states alone").into());
        }
    }
    Ok(())
}
