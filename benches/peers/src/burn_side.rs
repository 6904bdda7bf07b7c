//! The workloads with burn on its wgpu backend, with fusion and its tuner.

use crate::side::Run;
use crate::workload::{DECODED, HEAD_WIDTH, HEADS, MODEL, PROMPT, Workload, tokens, values};
use burn::module::Module;
use burn::nn::loss::CrossEntropyLossConfig;
use burn::nn::{Embedding, EmbeddingConfig, LayerNorm, LayerNormConfig, Linear, LinearConfig};
use burn::optim::{AdamWConfig, GradientsParams};
use burn::prelude::*;
use burn::tensor::activation::gelu;
use burn::tensor::module::attention;
use burn::tensor::ops::AttentionModuleOptions;
use burn::tensor::wgpu::WgpuSetup;
use burn::tensor::wgpu::wgpu;
use burn::tensor::{Int, TensorData};
use std::error::Error;
use std::time::Instant;

/// burn's device on an adapter, opened as burn opens its own, without what is experimental.
pub fn open(adapter: &wgpu::Adapter) -> Result<Device, Box<dyn Error>> {
    let left_out = wgpu::Features::MAPPABLE_PRIMARY_BUFFERS | wgpu::Features::all_experimental_mask();
    let (device, queue) = pollster::block_on(adapter.request_device(&wgpu::DeviceDescriptor {
        label: Some("burn"),
        required_features: adapter.features() - left_out,
        required_limits: adapter.limits(),
        memory_hints: wgpu::MemoryHints::MemoryUsage,
        ..Default::default()
    }))?;
    let instance = wgpu::Instance::new(wgpu::InstanceDescriptor::new_without_display_handle());
    let backend = adapter.get_info().backend;
    let setup = WgpuSetup { instance, adapter: adapter.clone(), device, queue, backend };
    Ok(Device::wgpu_options().setup(setup).init()?)
}

pub fn prepare(workload: &Workload, device: &Device) -> Result<Run, Box<dyn Error>> {
    let device = device.clone();
    Ok(match *workload {
        Workload::Matmul(m, k, n) => {
            let (a, b) = (random([m, k], 1, &device), random([k, n], 2, &device));
            timed(device, move || drop(a.clone().matmul(b.clone())))
        }
        Workload::Attention { tokens, backward } => self::attention_run(tokens, backward, device),
        Workload::LayerNorm(rows, columns) => {
            let x = random([rows, columns], 1, &device);
            let norm = LayerNormConfig::new(columns).init(&device);
            timed(device, move || drop(norm.forward(x.clone())))
        }
        Workload::Train => train(device),
        Workload::Forward => {
            let (model, batch) = (Gpt::new(&device).no_grad(), Batch::new(&device));
            timed(device, move || drop(model.forward(&batch)))
        }
        Workload::Decode => decode(device),
    })
}

/// Work whose commands are all issued when it returns; the wait for them counts.
fn timed(device: Device, mut work: impl FnMut() + 'static) -> Run {
    Box::new(move || {
        let start = Instant::now();
        work();
        device.sync()?;
        Ok(start.elapsed().as_secs_f64())
    })
}

fn random<const D: usize>(shape: [usize; D], seed: u32, device: &Device) -> Tensor<D> {
    Tensor::from_data(TensorData::new(values(shape.iter().product(), seed), shape), device)
}

fn causal() -> AttentionModuleOptions {
    AttentionModuleOptions { is_causal: true, ..Default::default() }
}

fn attention_run(tokens: usize, backward: bool, device: Device) -> Run {
    let shape = [1, HEADS, tokens, HEAD_WIDTH];
    if !backward {
        let [q, k, v] = [1, 2, 3].map(|seed| random(shape, seed, &device));
        return timed(device, move || drop(attention(q.clone(), k.clone(), v.clone(), None, None, causal())));
    }
    let tracked = device.clone().autodiff();
    let [q, k, v] = [1, 2, 3].map(|seed| random::<4>(shape, seed, &tracked).require_grad());
    let upstream = random::<4>(shape, 4, &tracked);
    timed(device, move || {
        let out = attention(q.clone(), k.clone(), v.clone(), None, None, causal());
        let gradients = (out * upstream.clone()).sum().backward();
        drop([&q, &k, &v].map(|tensor| tensor.grad(&gradients)));
    })
}

#[derive(Module, Debug)]
struct Block {
    norm1: LayerNorm,
    qkv: Linear,
    out: Linear,
    norm2: LayerNorm,
    up: Linear,
    down: Linear,
}

impl Block {
    fn new(device: &Device) -> Self {
        let linear =
            |inputs: usize, outputs: usize| LinearConfig::new(inputs * MODEL.width, outputs * MODEL.width).init(device);
        let norm = || LayerNormConfig::new(MODEL.width).init(device);
        Self {
            norm1: norm(),
            qkv: linear(1, 3),
            out: linear(1, 1),
            norm2: norm(),
            up: linear(1, 4),
            down: linear(4, 1),
        }
    }

    /// Queries, keys and values by head.
    fn heads(&self, x: &Tensor<3>) -> [Tensor<4>; 3] {
        let [batch, length, width] = x.dims();
        let all = self.qkv.forward(self.norm1.forward(x.clone()));
        [0, 1, 2].map(|part| {
            let one = all.clone().slice([0..batch, 0..length, part * width..(part + 1) * width]);
            one.reshape([batch, length, MODEL.heads, width / MODEL.heads]).swap_dims(1, 2)
        })
    }

    /// What follows attention.
    fn finish(&self, x: Tensor<3>, mixed: Tensor<4>) -> Tensor<3> {
        let [batch, length, width] = x.dims();
        let x = x + self.out.forward(mixed.swap_dims(1, 2).reshape([batch, length, width]));
        x.clone() + self.down.forward(gelu(self.up.forward(self.norm2.forward(x))))
    }

    fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        let [q, k, v] = self.heads(&x);
        self.finish(x, attention(q, k, v, None, None, causal()))
    }

    /// Behind what the cache holds, which grows.
    fn extend(&self, x: Tensor<3>, cache: &mut Option<[Tensor<4>; 2]>) -> Tensor<3> {
        let [q, k, v] = self.heads(&x);
        let (first, [k, v]) = match cache.take() {
            None => (true, [k, v]),
            Some([old_k, old_v]) => (false, [Tensor::cat(vec![old_k, k], 2), Tensor::cat(vec![old_v, v], 2)]),
        };
        *cache = Some([k.clone(), v.clone()]);
        let options = if first { causal() } else { AttentionModuleOptions::default() };
        self.finish(x, attention(q, k, v, None, None, options))
    }
}

#[derive(Module, Debug)]
struct Gpt {
    tokens: Embedding,
    positions: Embedding,
    blocks: Vec<Block>,
    norm: LayerNorm,
    head: Linear,
}

impl Gpt {
    fn new(device: &Device) -> Self {
        Self {
            tokens: EmbeddingConfig::new(MODEL.vocabulary, MODEL.width).init(device),
            positions: EmbeddingConfig::new(MODEL.length, MODEL.width).init(device),
            blocks: (0..MODEL.layers).map(|_| Block::new(device)).collect(),
            norm: LayerNormConfig::new(MODEL.width).init(device),
            head: LinearConfig::new(MODEL.width, MODEL.vocabulary).with_bias(false).init(device),
        }
    }

    fn forward(&self, batch: &Batch) -> Tensor<3> {
        let x = self.tokens.forward(batch.ids.clone()) + self.positions.forward(batch.positions.clone());
        let x = self.blocks.iter().fold(x, |x, block| block.forward(x));
        self.head.forward(self.norm.forward(x))
    }
}

struct Batch {
    ids: Tensor<2, Int>,
    positions: Tensor<2, Int>,
    labels: Tensor<1, Int>,
}

impl Batch {
    fn new(device: &Device) -> Self {
        let (batch, length) = (MODEL.batch, MODEL.length);
        let count = batch * length;
        let positions: Vec<i32> = (0..count).map(|i| (i % length) as i32).collect();
        Self {
            ids: integers([batch, length], tokens(count, 1), device),
            positions: integers([batch, length], positions, device),
            labels: integers([count], tokens(count, 2), device),
        }
    }
}

fn integers<const D: usize>(shape: [usize; D], values: Vec<i32>, device: &Device) -> Tensor<D, Int> {
    Tensor::from_data(TensorData::new(values, shape), device)
}

fn train(device: Device) -> Run {
    let tracked = device.clone().autodiff();
    let batch = Batch::new(&tracked);
    let mut model = Some(Gpt::new(&tracked));
    let mut optimizer = AdamWConfig::new().init();
    let cross_entropy = CrossEntropyLossConfig::new().init(&tracked);
    timed(device, move || {
        let Some(before) = model.take() else { return };
        let logits = before.forward(&batch).reshape([MODEL.batch * MODEL.length, MODEL.vocabulary]);
        let loss = cross_entropy.forward(logits, batch.labels.clone());
        let gradients = GradientsParams::from_grads(loss.backward(), &before);
        model = Some(optimizer.step(3e-4, before, gradients));
        // A loop shows its loss.
        let _: f32 = loss.into_scalar();
    })
}

fn decode(device: Device) -> Run {
    let model = Gpt::new(&device).no_grad();
    let prompt = tokens(PROMPT, 3);
    Box::new(move || {
        let mut caches: Vec<Option<[Tensor<4>; 2]>> = model.blocks.iter().map(|_| None).collect();
        let (mut ids, mut position, mut start) = (prompt.clone(), 0, Instant::now());
        for step in 0..=DECODED {
            let count = ids.len();
            let positions = (position..position + count).map(|p| p as i32).collect();
            position += count;
            let mut x = model.tokens.forward(integers([1, count], ids, &device))
                + model.positions.forward(integers([1, count], positions, &device));
            for (block, cache) in model.blocks.iter().zip(&mut caches) {
                x = block.extend(x, cache);
            }
            let logits = model.head.forward(model.norm.forward(x.slice([0..1, count - 1..count])));
            let id = logits.argmax(2).into_data_as::<i64>().iter::<i64>().next().unwrap_or(0);
            ids = vec![id as i32];
            if step == 0 {
                start = Instant::now();
            }
        }
        Ok(start.elapsed().as_secs_f64())
    })
}
