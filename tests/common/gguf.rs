//! A small GGUF file of a Llama, written by the formulas of the format.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use half::{bf16, f16};
use std::collections::BTreeMap;

pub(crate) const VOCABULARY: usize = 288;
const WIDTH: usize = 64;
const HEADS: usize = 4;
const KEY_HEADS: usize = 2;
const INNER: usize = 256;
const LAYERS: usize = 2;

fn text(bytes: &mut Vec<u8>, text: &str) {
    bytes.extend((text.len() as u64).to_le_bytes());
    bytes.extend(text.as_bytes());
}

/// A value of the metadata.
#[derive(Clone)]
pub(crate) enum Meta {
    U32(u32),
    F32(f32),
    Flag(bool),
    Text(&'static str),
    Texts(Vec<String>),
    Integers(Vec<i32>),
    Floats(Vec<f32>),
    /// A type and what follows it.
    Raw(Vec<u8>),
}

impl Meta {
    fn write(&self, bytes: &mut Vec<u8>) {
        let mut kind = |kind: u32| bytes.extend(kind.to_le_bytes());
        match self {
            Self::U32(value) => {
                kind(4);
                bytes.extend(value.to_le_bytes());
            }
            Self::F32(value) => {
                kind(6);
                bytes.extend(value.to_le_bytes());
            }
            Self::Flag(value) => {
                kind(7);
                bytes.push(u8::from(*value));
            }
            Self::Text(value) => {
                kind(8);
                text(bytes, value);
            }
            Self::Texts(values) => {
                kind(9);
                bytes.extend(8_u32.to_le_bytes());
                bytes.extend((values.len() as u64).to_le_bytes());
                values.iter().for_each(|value| text(bytes, value));
            }
            Self::Integers(values) => {
                kind(9);
                bytes.extend(5_u32.to_le_bytes());
                bytes.extend((values.len() as u64).to_le_bytes());
                values.iter().for_each(|value| bytes.extend(value.to_le_bytes()));
            }
            Self::Floats(values) => {
                kind(9);
                bytes.extend(6_u32.to_le_bytes());
                bytes.extend((values.len() as u64).to_le_bytes());
                values.iter().for_each(|value| bytes.extend(value.to_le_bytes()));
            }
            Self::Raw(value) => bytes.extend(value),
        }
    }
}

/// A tensor of the file: its type number, and its values in Hugging Face's order.
pub(crate) struct Made {
    pub(crate) name: String,
    pub(crate) theirs: String,
    pub(crate) shape: Vec<usize>,
    pub(crate) kind: u32,
    pub(crate) bytes: Vec<u8>,
    pub(crate) values: Vec<f64>,
}

/// Reproducible numbers.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        self.0 >> 33
    }

    /// From -0.3 to 0.3.
    fn weight(&mut self) -> f32 {
        (self.next() % 1000) as f32 * 6e-4 - 0.3
    }

    /// A row of `width` weights as the type has them in a file, and their values.
    fn row(&mut self, kind: u32, width: usize) -> (Vec<u8>, Vec<f64>) {
        let (mut bytes, mut values) = (Vec::new(), Vec::new());
        let half = |x: f32| f16::from_f32(x);
        while values.len() < width {
            match kind {
                0 => {
                    let x = self.weight();
                    bytes.extend(x.to_le_bytes());
                    values.push(f64::from(x));
                }
                1 => {
                    let x = half(self.weight());
                    bytes.extend(x.to_le_bytes());
                    values.push(x.to_f64());
                }
                30 => {
                    let x = bf16::from_f32(self.weight());
                    bytes.extend(x.to_le_bytes());
                    values.push(x.to_f64());
                }
                _ => self.block(kind, &mut bytes, &mut values),
            }
        }
        (bytes, values)
    }

    /// A block by the formulas: q8_0 d q, q4_0 d (q - 8), q4_1 d q + m; low nibbles first, high nibbles 16 later.
    fn block(&mut self, kind: u32, bytes: &mut Vec<u8>, values: &mut Vec<f64>) {
        let d = f16::from_f32(0.002 + (self.next() % 100) as f32 * 1e-4);
        let m = f16::from_f32(self.weight() - 0.1);
        if kind == 14 {
            return self.large_block(d, bytes, values);
        }
        bytes.extend(d.to_le_bytes());
        if kind == 8 {
            for _ in 0..32 {
                let q = (self.next() % 256) as u8 as i8;
                bytes.push(q as u8);
                values.push(d.to_f64() * f64::from(q));
            }
            return;
        }
        if kind == 3 {
            bytes.extend(m.to_le_bytes());
        }
        let quants: Vec<u8> = (0..32).map(|_| (self.next() % 16) as u8).collect();
        bytes.extend((0..16).map(|j| quants[j] | quants[j + 16] << 4));
        values.extend(quants.iter().map(|&q| match kind {
            2 => d.to_f64() * (f64::from(q) - 8.0),
            _ => d.to_f64() * f64::from(q) + m.to_f64(),
        }));
    }

    /// A block of q6_k, d s (q - 32): weight n has its low bits in byte n % 64 of its half of 128, low nibbles first, and its high ones
    /// in byte n % 32.
    fn large_block(&mut self, d: f16, bytes: &mut Vec<u8>, values: &mut Vec<f64>) {
        let d = f16::from_f32(d.to_f32() / 64.0);
        let quants: Vec<u8> = (0..256).map(|_| (self.next() % 64) as u8).collect();
        let scales: Vec<i8> = (0..16).map(|_| (self.next() % 256) as u8 as i8).collect();
        let (mut low, mut high) = ([0; 128], [0; 64]);
        for (n, q) in quants.iter().enumerate() {
            let (side, n) = (n / 128, n % 128);
            low[64 * side + n % 64] |= (q & 15) << (4 * (n / 64));
            high[32 * side + n % 32] |= (q >> 4) << (2 * (n / 32));
        }
        bytes.extend(low);
        bytes.extend(high);
        bytes.extend(scales.iter().map(|s| *s as u8));
        bytes.extend(d.to_le_bytes());
        values.extend((0..256).map(|n| d.to_f64() * f64::from(scales[n / 16]) * (f64::from(quants[n]) - 32.0)));
    }

    /// A matrix; `heads`: its rows are written in pairs, for rotary positions that rotate neighbours.
    fn matrix(&mut self, name: &str, theirs: &str, [rows, width]: [usize; 2], kind: u32, heads: usize) -> Made {
        let all: Vec<_> = (0..rows).map(|_| self.row(kind, width)).collect();
        let values = all.iter().flat_map(|(_, values)| values.clone()).collect();
        let order: Vec<usize> = match heads {
            0 => (0..rows).collect(),
            heads => {
                let head = rows / heads;
                // Row 2 i + half of a head in the file is row half · head/2 + i.
                (0..rows).map(|row| row / head * head + row % head % 2 * (head / 2) + row % head / 2).collect()
            }
        };
        let bytes = order.iter().flat_map(|&row| all[row].0.clone()).collect();
        Made { name: name.into(), theirs: theirs.into(), shape: vec![rows, width], kind, bytes, values }
    }

    fn gains(&mut self, name: &str, theirs: &str) -> Made {
        let (bytes, values): (Vec<[u8; 4]>, Vec<f64>) = (0..WIDTH)
            .map(|_| {
                let x = 1.0 + self.weight();
                (x.to_le_bytes(), f64::from(x))
            })
            .unzip();
        Made { name: name.into(), theirs: theirs.into(), shape: vec![WIDTH], kind: 0, bytes: bytes.concat(), values }
    }
}

/// A small Llama with a tensor of every type.
pub(crate) fn tensors() -> Vec<Made> {
    let mut n = Numbers(1);
    let mut all = vec![n.matrix("token_embd.weight", "model.embed_tokens.weight", [VOCABULARY, WIDTH], 8, 0)];
    let head = WIDTH / HEADS;
    for layer in 0..LAYERS {
        let ours = |name: &str| format!("blk.{layer}.{name}.weight");
        let theirs = |name: &str| format!("model.layers.{layer}.{name}.weight");
        for (name, hugging_face, shape, kind, heads) in [
            ("attn_q", "self_attn.q_proj", [WIDTH, WIDTH], [3, 2][layer], HEADS),
            ("attn_k", "self_attn.k_proj", [KEY_HEADS * head, WIDTH], [2, 0][layer], KEY_HEADS),
            ("attn_v", "self_attn.v_proj", [KEY_HEADS * head, WIDTH], 1, 0),
            ("attn_output", "self_attn.o_proj", [WIDTH, WIDTH], 30, 0),
            ("ffn_gate", "mlp.gate_proj", [INNER, WIDTH], 3, 0),
            ("ffn_up", "mlp.up_proj", [INNER, WIDTH], 2, 0),
            ("ffn_down", "mlp.down_proj", [WIDTH, INNER], [8, 14][layer], 0),
        ] {
            all.push(n.matrix(&ours(name), &theirs(hugging_face), shape, kind, heads));
        }
        all.push(n.gains(&ours("attn_norm"), &theirs("input_layernorm")));
        all.push(n.gains(&ours("ffn_norm"), &theirs("post_attention_layernorm")));
    }
    all.push(n.gains("output_norm.weight", "model.norm.weight"));
    all
}

/// The character that byte-level tokenizers write for a byte.
fn byte_character(byte: u32) -> char {
    let prints = |b: u32| matches!(b, 0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff);
    let rank = (0..byte).filter(|&b| !prints(b)).count() as u32;
    char::from_u32(if prints(byte) { byte } else { 0x100 + rank }).unwrap()
}

/// Bytes, two words, an end and fillers.
pub(crate) fn metadata() -> BTreeMap<&'static str, Meta> {
    let mut tokens: Vec<String> = (0..256).map(|byte| byte_character(byte).to_string()).collect();
    tokens.extend(["Ġt", "he", "Ġthe"].map(str::to_owned));
    tokens.push("<|end|>".into());
    tokens.extend((tokens.len()..VOCABULARY).map(|id| format!("<filler{id}>")));
    let types = (0..VOCABULARY).map(|id| if id < 259 { 1 } else { 3 }).collect();
    BTreeMap::from([
        ("general.architecture", Meta::Text("llama")),
        ("llama.attention.head_count", Meta::U32(HEADS as u32)),
        ("llama.attention.head_count_kv", Meta::U32(KEY_HEADS as u32)),
        ("llama.attention.layer_norm_rms_epsilon", Meta::F32(1e-5)),
        ("llama.block_count", Meta::U32(LAYERS as u32)),
        ("llama.context_length", Meta::U32(128)),
        ("llama.embedding_length", Meta::U32(WIDTH as u32)),
        ("llama.feed_forward_length", Meta::U32(INNER as u32)),
        ("llama.rope.dimension_count", Meta::U32((WIDTH / HEADS) as u32)),
        ("llama.rope.freq_base", Meta::F32(5000.0)),
        ("tokenizer.ggml.add_bos_token", Meta::Flag(false)),
        ("tokenizer.ggml.eos_token_id", Meta::U32(259)),
        ("tokenizer.ggml.merges", Meta::Texts(["Ġ t", "h e", "Ġt he"].map(str::to_owned).into())),
        ("tokenizer.ggml.model", Meta::Text("gpt2")),
        ("tokenizer.ggml.pre", Meta::Text("smollm")),
        ("tokenizer.ggml.token_type", Meta::Integers(types)),
        ("tokenizer.ggml.tokens", Meta::Texts(tokens)),
    ])
}

/// The file, and where its data begin.
pub(crate) fn file(metadata: &BTreeMap<&'static str, Meta>, tensors: &[Made]) -> (Vec<u8>, usize) {
    let mut bytes = b"GGUF".to_vec();
    bytes.extend(3_u32.to_le_bytes());
    bytes.extend((tensors.len() as u64).to_le_bytes());
    bytes.extend((metadata.len() as u64).to_le_bytes());
    for (key, value) in metadata {
        text(&mut bytes, key);
        value.write(&mut bytes);
    }
    let mut data: Vec<u8> = Vec::new();
    for made in tensors {
        text(&mut bytes, &made.name);
        bytes.extend((made.shape.len() as u32).to_le_bytes());
        made.shape.iter().rev().for_each(|&extent| bytes.extend((extent as u64).to_le_bytes()));
        bytes.extend(made.kind.to_le_bytes());
        bytes.extend((data.len() as u64).to_le_bytes());
        data.extend(&made.bytes);
        data.resize(data.len().next_multiple_of(32), 0);
    }
    bytes.resize(bytes.len().next_multiple_of(32), 0);
    let start = bytes.len();
    bytes.extend(data);
    (bytes, start)
}
