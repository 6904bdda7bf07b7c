//! The ops that are timed one by one, each as a small graph.

use crate::dtype::DType;
use crate::error::Result;
use crate::gpu::{AdapterClass, Caps, Gpu};
use crate::graph::{Array, Graph, Tensor};
use crate::nn::{self, ExpertMode, ExpertNames, Experts, LinearConfig};
use crate::ops::{
    self, Activation, AttentionOptions, BLOCK, CrossEntropyOptions, GateOptions, LogitEdit, OptimizerControl,
    TokenChoice,
};
use crate::program::{Program, Source, Weights};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

type Build = Box<dyn Fn(&mut Graph) -> Result<Vec<Tensor>>>;

/// An op at one size.
pub(super) struct Kernel {
    /// The row's name.
    pub(super) name: String,
    /// Operations, and the least bytes that must move: operands once, results once.
    pub(super) work: [f64; 2],
    /// Whether it is part of the quick benchmark.
    pub(super) quick: bool,
    /// The exclusive upper bound of integer operands.
    below: u32,
    build: Build,
}

/// The number of distinct values of operands, which repeat: more than the tokens of a vocabulary.
const VALUES: usize = 1 << 18;

impl Kernel {
    fn new(name: String, work: [f64; 2], build: impl Fn(&mut Graph) -> Result<Vec<Tensor>> + 'static) -> Self {
        Self { name, work, quick: false, below: 1, build: Box::new(build) }
    }

    /// With integer operands.
    fn below(self, below: usize) -> Self {
        Self { below: below as u32, ..self }
    }

    fn quick(self) -> Self {
        Self { quick: true, ..self }
    }

    /// The op's graph.
    pub(super) fn graph(&self) -> Result<Graph> {
        let mut g = Graph::new();
        for (index, tensor) in (self.build)(&mut g)?.into_iter().enumerate() {
            g.output(&format!("out{index}"), tensor)?;
        }
        Ok(g)
    }

    /// The program with random operands.
    pub(super) fn prepare(&self, gpu: &Gpu) -> Result<Program> {
        let weights = Weights::new(gpu);
        let program = Program::new(gpu, &self.graph()?, &weights)?;
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        for slot in &program.recording().slots {
            let count = slot.ty.shape.numel();
            match &slot.source {
                Source::Input(name) if slot.ty.dtype == DType::F32 => {
                    program.write(name, bytemuck::cast_slice(&CONTROL[..count.min(CONTROL.len())]))?;
                }
                Source::Input(name) => {
                    let words: Vec<u32> = (0..count).map(|_| rng.random_range(0..self.below)).collect();
                    program.write(name, bytemuck::cast_slice(&words))?;
                }
                Source::Parameter(name) => weights.upload(name, &floats(&mut rng, count, -1.0))?,
                // Second moments are not negative.
                Source::State(name) => weights.upload(name, &floats(&mut rng, count, 0.0))?,
                Source::Constant(..) | Source::Temporary => {}
            }
        }
        Ok(program)
    }
}

/// The control tensor of an ordinary step of AdamW: coefficient, rate, corrections, β1, β2, ε, decay; the rest is zero.
const CONTROL: [f32; OptimizerControl::LEN] =
    [1.0, 1e-3, 0.1, 0.05, 0.9, 0.95, 1e-8, 0.1, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0];

/// `count` numbers from `low` up to 1, as bytes.
fn floats(rng: &mut ChaCha8Rng, count: usize, low: f32) -> Vec<u8> {
    let values: Vec<f32> = (0..VALUES.min(count)).map(|_| rng.random_range(low..1.0)).collect();
    values.iter().cycle().take(count).flat_map(|value| value.to_le_bytes()).collect()
}

/// Every op of the benchmark at the sizes that suit the adapter.
pub(super) fn all(caps: &Caps) -> Vec<Kernel> {
    let mut all = vec![
        matmul([256, 256, 256]).quick(),
        matmul([512, 512, 512]),
        matmul([1024, 1024, 1024]),
        matmul([256, 768, 3072]),
        transposed("matmul_nt 1024x1024x1024", ops::matmul_nt),
        transposed("matmul_tn 1024x1024x1024", ops::matmul_tn),
        Kernel { name: "gemv 1x768x3072".into(), ..matmul([1, 768, 3072]).quick() },
        attention(256, false).quick(),
        attention(1024, false),
        attention(256, true),
        attention(1024, true),
        layer_norm(1024, 768).quick(),
        softmax(1024, 1024).quick(),
        experts(8, 2, 384, 1536, 1024),
        feed_forward(384, 1536, 2048),
    ];
    // Sizes for a small GPU take a CPU driver seconds.
    let roomy = caps.class == AdapterClass::Gpu && caps.max_binding_bytes >= 1 << 28;
    all.push(cross_entropy(1024, if roomy { 50257 } else { 8192 }).quick());
    all.push(embedding(1024, 768, if roomy { 50257 } else { 8192 }).quick());
    all.push(adamw(if roomy { 1 << 24 } else { 1 << 20 }).quick());
    for vocabulary in [32_000, 152_064, 256_000] {
        all.extend([false, true].map(|drawn| draw(vocabulary, drawn)));
    }
    all.push(edit_logits(8, 32_000, 256));
    all.push(reorder_beams(4, 1024));
    all
}

/// Bytes of this many f32.
fn bytes(count: usize) -> f64 {
    4.0 * count as f64
}

fn product([m, k, n]: [usize; 3]) -> [f64; 2] {
    [2.0 * (m * k * n) as f64, bytes(m * k + k * n + m * n)]
}

fn operand(g: &mut Graph, name: &str, shape: &[usize]) -> Result<Tensor> {
    g.parameter(name, shape, DType::F32)
}

fn matmul([m, k, n]: [usize; 3]) -> Kernel {
    Kernel::new(format!("matmul {m}x{k}x{n}"), product([m, k, n]), move |g| {
        let (a, b) = (operand(g, "a", &[m, k])?, operand(g, "b", &[k, n])?);
        Ok(vec![ops::matmul(g, a, b)?])
    })
}

fn transposed(name: &str, op: fn(&mut Graph, Tensor, Tensor) -> Result<Tensor>) -> Kernel {
    Kernel::new(name.into(), product([1024; 3]), move |g| {
        let (a, b) = (operand(g, "a", &[1024, 1024])?, operand(g, "b", &[1024, 1024])?);
        Ok(vec![op(g, a, b)?])
    })
}

/// Causal attention of 12 heads of 64. Half the square counts; the backward pass has five products where the forward
/// pass has two.
fn attention(tokens: usize, backward: bool) -> Kernel {
    let (heads, head_dim) = (12, 64);
    let forward = 2.0 * (heads * tokens * tokens * head_dim) as f64;
    let tensor = bytes(tokens * heads * head_dim);
    let (what, work) = match backward {
        false => ("forward", [forward, 4.0 * tensor]),
        true => ("forward+backward", [3.5 * forward, 12.0 * tensor]),
    };
    Kernel::new(format!("attention {what} T{tokens}"), work, move |g| {
        let shape = [1, tokens, heads, head_dim];
        let [q, k, v] = [operand(g, "q", &shape)?, operand(g, "k", &shape)?, operand(g, "v", &shape)?];
        let out = ops::attention(g, q, k, v, &AttentionOptions { causal: true, ..Default::default() })?;
        if !backward {
            return Ok(vec![out]);
        }
        let upstream = operand(g, "upstream", &shape)?;
        let grads = g.differentiate_from(&[(out, upstream)], &[q, k, v])?;
        Ok(grads.into_iter().flatten().collect())
    })
}

/// A gate with random logits and its experts. The backward pass has two products for each of the forward pass; the gate's own products do not
/// count.
fn experts(count: usize, k: usize, d_model: usize, d_ff: usize, tokens: usize) -> Kernel {
    let flops = 18.0 * (tokens * k * d_model * d_ff) as f64;
    let work = [flops, bytes(3 * tokens * d_model + 6 * count * d_model * d_ff)];
    let name = format!("experts forward+backward {count} experts top-{k} d{d_model} ff{d_ff} {tokens} tokens");
    Kernel::new(name, work, move |g| {
        let x = operand(g, "x", &[tokens, d_model])?;
        let experts = Experts {
            count,
            d_ff,
            gate: GateOptions::new(k),
            shared: None,
            capacity: None,
            biased: false,
            noisy: false,
            jitter: 0.0,
            names: ExpertNames::MIXTRAL,
        };
        let activation = Activation::Silu;
        let mode = ExpertMode { activation, training: true, seed: None, lengths: None, std: [0.02; 2] };
        let out = nn::expert_feed_forward(g, "layer", x, &experts, mode)?.0;
        forward_and_backward(g, out)
    })
}

/// A dense network with the d_ff of an expert.
fn feed_forward(d_model: usize, d_ff: usize, tokens: usize) -> Kernel {
    let work = [18.0 * (tokens * d_model * d_ff) as f64, bytes(3 * tokens * d_model + 6 * d_model * d_ff)];
    let name = format!("dense feed-forward forward+backward d{d_model} ff{d_ff} {tokens} tokens");
    Kernel::new(name, work, move |g| {
        let x = operand(g, "x", &[tokens, d_model])?;
        let config = LinearConfig::out_in(false);
        let out = nn::gated_feed_forward(g, ["gate", "up", "down"], x, d_ff, Activation::Silu, [config; 2], None)?;
        forward_and_backward(g, out)
    })
}

/// A result, and the gradients of all its operands.
fn forward_and_backward(g: &mut Graph, out: Tensor) -> Result<Vec<Tensor>> {
    let operands: Vec<Tensor> = g.parameters().map(|(_, tensor)| tensor).collect();
    let shape = g.shape(out).clone();
    let upstream = operand(g, "upstream", shape.dims())?;
    let gradients = g.differentiate_from(&[(out, upstream)], &operands)?;
    Ok(std::iter::once(out).chain(gradients.into_iter().flatten()).collect())
}

fn layer_norm(rows: usize, columns: usize) -> Kernel {
    let work = [8.0 * (rows * columns) as f64, bytes(2 * rows * columns + 2 * columns)];
    Kernel::new(format!("layer_norm {rows}x{columns}"), work, move |g| {
        let x = operand(g, "x", &[rows, columns])?;
        let (gain, bias) = (operand(g, "gain", &[columns])?, operand(g, "bias", &[columns])?);
        Ok(vec![ops::layer_norm(g, x, gain, Some(bias), 1e-5)?])
    })
}

fn softmax(rows: usize, columns: usize) -> Kernel {
    let work = [4.0 * (rows * columns) as f64, bytes(2 * rows * columns)];
    Kernel::new(format!("softmax {rows}x{columns}"), work, move |g| {
        let x = operand(g, "x", &[rows, columns])?;
        Ok(vec![ops::softmax(g, x)?])
    })
}

fn cross_entropy(rows: usize, vocabulary: usize) -> Kernel {
    let work = [4.0 * (rows * vocabulary) as f64, bytes(rows * vocabulary + rows)];
    let kernel = Kernel::new(format!("cross_entropy {rows}x{vocabulary}"), work, move |g| {
        let logits = operand(g, "logits", &[rows, vocabulary])?;
        let labels = g.input("labels", [rows], DType::I32)?;
        Ok(vec![ops::cross_entropy(g, logits, labels, &CrossEntropyOptions::default())?])
    });
    kernel.below(vocabulary)
}

fn embedding(rows: usize, columns: usize, vocabulary: usize) -> Kernel {
    let work = [0.0, bytes(2 * rows * columns + rows)];
    let kernel = Kernel::new(format!("embedding {rows}x{columns} of {vocabulary}"), work, move |g| {
        let table = operand(g, "table", &[vocabulary, columns])?;
        let ids = g.input("ids", [rows], DType::U32)?;
        Ok(vec![ops::embedding(g, table, ids)?])
    });
    kernel.below(vocabulary)
}

/// A token of one row: the likeliest, or one drawn by top-k 50 and top-p 0.9.
fn draw(vocabulary: usize, drawn: bool) -> Kernel {
    let choice = TokenChoice { scale: f32::from(u8::from(drawn)), top_k: 50, top_p: 0.9, min_p: 0.0, random: 0.4 };
    let name = format!("draw 1x{vocabulary}{}", if drawn { ", top-k 50, top-p 0.9" } else { ", likeliest" });
    Kernel::new(name, [4.0 * vocabulary as f64, bytes(vocabulary)], move |g| {
        let logits = operand(g, "logits", &[1, vocabulary])?;
        let words = Array::from_fn([1, 5], |i| f64::from(choice.words()[i]));
        let choices = g.constant("choices", words, DType::U32);
        Ok(vec![ops::draw(g, logits, choices)?])
    })
}

/// Penalties of so many tokens of each row, which are read and written.
fn edit_logits(rows: usize, vocabulary: usize, edits: usize) -> Kernel {
    let name = format!("edit_logits {rows}x{vocabulary}, {edits} edits a row");
    Kernel::new(name, [3.0 * (rows * edits) as f64, bytes(6 * rows * edits)], move |g| {
        let logits = g.state("logits", [rows, vocabulary], DType::F32)?;
        let words = Array::from_fn([rows, edits, 4], |i| {
            let words = LogitEdit::penalise((i / 4 % edits * 97 % vocabulary) as u32, 1.1).words();
            f64::from(words[i % 4])
        });
        let words = g.constant("edits", words, DType::U32);
        Ok(vec![ops::edit_logits(g, logits, words)?])
    })
}

/// The keys of a layer of 8 heads of 64 for a group of beams, each of which goes on from the next: read and written.
fn reorder_beams(beams: usize, tokens: usize) -> Kernel {
    let words = beams * tokens * 512;
    Kernel::new(format!("reorder_beams {beams} beams, {tokens} tokens"), [0.0, bytes(2 * words)], move |g| {
        let cache = g.state("cache", [beams, tokens, 8, 64], DType::F32)?;
        let parents = g.constant("parents", Array::from_fn([beams], |i| ((i + 1) % beams) as f64), DType::U32);
        let used = g.constant("used", Array::from_fn([beams], |_| tokens as f64), DType::U32);
        Ok(vec![ops::reorder_beams(g, cache, parents, used, beams)?])
    })
}

/// Parameters and both moments are read and written, gradients read.
fn adamw(count: usize) -> Kernel {
    let work = [16.0 * count as f64, bytes(7 * count)];
    Kernel::new(format!("adamw {count}"), work, move |g| {
        let mut range = |name: &str| g.state(name, [count], DType::F32);
        let [x, grad, m, v] = [range("x")?, range("grad")?, range("m")?, range("v")?];
        let table = operand(g, "table", &[count / BLOCK, 2])?;
        let control = g.input("control", [OptimizerControl::LEN], DType::F32)?;
        Ok(ops::adamw(g, x, grad, [m, v], table, control)?.to_vec())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::program::Recording;
    use std::collections::HashSet;

    #[test]
    fn every_op_can_be_recorded_and_names_are_unique() {
        let large = Caps { max_binding_bytes: 1 << 30, max_buffer_bytes: 1 << 30, ..Caps::baseline() };
        for caps in [Caps::baseline(), Caps { class: AdapterClass::Cpu, ..Caps::baseline() }, large] {
            let mut names = HashSet::new();
            for kernel in all(&caps) {
                let recording = Recording::new(&kernel.graph().unwrap(), &caps).unwrap();
                assert!(!recording.dispatches.is_empty() && kernel.work[1] > 0.0, "{}", kernel.name);
                // The least that must move is not more than what is bound.
                assert!(kernel.work[1] <= recording.bytes() as f64, "{} {}", kernel.name, recording.bytes());
                assert!(names.insert(kernel.name.clone()), "{} occurs twice", kernel.name);
            }
        }
    }
}
