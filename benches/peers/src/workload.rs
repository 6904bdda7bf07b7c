//! What both sides do.

/// Layers, width, heads, tokens of a sequence, sequences of a batch and vocabulary of the model.
pub const MODEL: Model = Model { layers: 6, width: 384, heads: 6, length: 256, batch: 4, vocabulary: 65 };
/// Tokens of the prompt before decoding.
pub const PROMPT: usize = 32;
/// Tokens that are decoded one by one.
pub const DECODED: usize = 64;
/// Heads of the attention workloads.
pub const HEADS: usize = 12;
/// Width of their heads.
pub const HEAD_WIDTH: usize = 64;

/// A GPT's sizes.
#[derive(Clone, Copy, Debug)]
pub struct Model {
    pub layers: usize,
    pub width: usize,
    pub heads: usize,
    pub length: usize,
    pub batch: usize,
    pub vocabulary: usize,
}

/// A workload of both sides.
#[derive(Clone, Copy, Debug)]
pub enum Workload {
    /// (M, K) times (K, N).
    Matmul(usize, usize, usize),
    /// Causal attention over so many tokens.
    Attention { tokens: usize, backward: bool },
    /// Rows and columns.
    LayerNorm(usize, usize),
    /// Forward, backward, AdamW, the loss read back.
    Train,
    /// Forward up to all logits.
    Forward,
    /// Greedy decoding with a cache behind a prompt; only the decoding counts.
    Decode,
}

impl Workload {
    pub fn name(&self) -> String {
        match self {
            Self::Matmul(1, k, n) => format!("gemv 1x{k}x{n}"),
            Self::Matmul(m, k, n) => format!("matmul {m}x{k}x{n}"),
            Self::Attention { tokens, backward: false } => format!("attention forward T{tokens}"),
            Self::Attention { tokens, backward: true } => format!("attention forward+backward T{tokens}"),
            Self::LayerNorm(rows, columns) => format!("layer_norm {rows}x{columns}"),
            Self::Train => "gpt train".into(),
            Self::Forward => "gpt forward".into(),
            Self::Decode => "gpt decode".into(),
        }
    }

    /// The seconds of a run as people read them.
    pub fn figure(&self, seconds: f64) -> String {
        match self {
            Self::Train | Self::Forward => format!("{:.0} tokens/s", (MODEL.batch * MODEL.length) as f64 / seconds),
            Self::Decode => format!("{:.1} tokens/s", DECODED as f64 / seconds),
            _ => format!("{:.2} ms", seconds * 1e3),
        }
    }
}

pub fn all() -> Vec<Workload> {
    let attention = |tokens, backward| Workload::Attention { tokens, backward };
    vec![
        Workload::Matmul(512, 512, 512),
        Workload::Matmul(1024, 1024, 1024),
        Workload::Matmul(256, 768, 3072),
        Workload::Matmul(1, 768, 3072),
        attention(256, false),
        attention(1024, false),
        attention(256, true),
        attention(1024, true),
        Workload::LayerNorm(1024, 768),
        Workload::Train,
        Workload::Forward,
        Workload::Decode,
    ]
}

/// Numbers between -1 and 1, the same on both sides.
pub fn values(count: usize, seed: u32) -> Vec<f32> {
    let mut state = seed.wrapping_mul(2_654_435_761) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state as f32 / u32::MAX as f32 * 2.0 - 1.0
    };
    (0..count).map(|_| next()).collect()
}

/// Tokens of the vocabulary, the same on both sides.
pub fn tokens(count: usize, seed: u32) -> Vec<i32> {
    let scale = MODEL.vocabulary as f32 * 0.499;
    values(count, seed).into_iter().map(|v| ((v + 1.0) * scale) as i32).collect()
}
