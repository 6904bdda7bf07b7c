//! Arguments of models: their family, size and storage.

use crate::DType;
use crate::cli::numbers::positive;
use crate::models::LayerInit;
use clap::builder::PossibleValue;
use clap::{Args, ValueEnum};

/// Model families that can be trained from scratch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(in crate::cli) enum Family {
    /// Learned positions, layer norm, GELU
    Gpt2,
    /// Rotary positions, RMS norm, gated SiLU
    Llama,
    /// The original transformer: sinusoidal positions, layer norm after each sum, ReLU; see --sides
    Transformer,
}

/// The sides of a transformer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(in crate::cli) enum Sides {
    /// Reads the whole text, and learns to predict masked tokens
    Encoder,
    /// Continues a text, and learns to predict the next token
    Decoder,
    /// An encoder reads the first half of a row, a decoder learns to write the second half
    Both,
}

/// Element types that weights can be stored in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(in crate::cli) enum Storage {
    /// 32-bit float
    F32,
    /// 16-bit IEEE float; training keeps f32 masters and scales the loss
    F16,
    /// 16-bit brain float; training keeps f32 masters
    Bf16,
}

impl From<Storage> for DType {
    fn from(storage: Storage) -> Self {
        match storage {
            Storage::F32 => Self::F32,
            Storage::F16 => Self::F16,
            Storage::Bf16 => Self::BF16,
        }
    }
}

/// A storage type of weights for inference.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::cli) struct InferenceStorage {
    dtype: DType,
    help: &'static str,
}

impl InferenceStorage {
    const fn new(dtype: DType, help: &'static str) -> Self {
        Self { dtype, help }
    }
}

impl ValueEnum for InferenceStorage {
    fn value_variants<'a>() -> &'a [Self] {
        const ALL: &[InferenceStorage] = &[
            InferenceStorage::new(DType::F32, "32-bit float"),
            InferenceStorage::new(DType::F16, "16-bit IEEE float"),
            InferenceStorage::new(DType::BF16, "16-bit brain float"),
            InferenceStorage::new(DType::Q8_0, "8 bits, a scale for 32 weights"),
            InferenceStorage::new(DType::Q6K, "6 bits, a scale for 16 weights, in blocks of 256"),
            InferenceStorage::new(DType::Q5K, "5 bits, a scale and a minimum for 32 weights, in blocks of 256"),
            InferenceStorage::new(DType::Q5_1, "5 bits, a scale and an offset for 32 weights"),
            InferenceStorage::new(DType::Q5_0, "5 bits, a scale for 32 weights"),
            InferenceStorage::new(DType::Q4K, "4 bits, a scale and a minimum for 32 weights, in blocks of 256"),
            InferenceStorage::new(DType::Q4_1, "4 bits, a scale and an offset for 32 weights"),
            InferenceStorage::new(DType::Q4_0, "4 bits, a scale for 32 weights"),
            InferenceStorage::new(DType::IQ4NL, "4 bits in uneven steps, a scale for 32 weights"),
            InferenceStorage::new(DType::IQ4XS, "4 bits in uneven steps, a scale for 32 weights, in blocks of 256"),
            InferenceStorage::new(DType::MXFP4, "4-bit floats, a power of two for 32 weights"),
            InferenceStorage::new(DType::Q3K, "3 bits, a scale for 16 weights, in blocks of 256"),
            InferenceStorage::new(DType::Q2K, "2 bits, a scale and a minimum for 16 weights, in blocks of 256"),
        ];
        ALL
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(PossibleValue::new(self.dtype.name()).help(self.help))
    }
}

impl From<InferenceStorage> for DType {
    fn from(storage: InferenceStorage) -> Self {
        storage.dtype
    }
}

/// Storage types of keys and values.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(in crate::cli) enum CacheStorage {
    /// 32-bit float
    #[default]
    F32,
    /// 16-bit float
    F16,
    /// Blocks of 32 in 8 bits with a scale
    #[value(name = "q8_0")]
    Q8_0,
}

impl From<CacheStorage> for DType {
    fn from(storage: CacheStorage) -> Self {
        match storage {
            CacheStorage::F32 => Self::F32,
            CacheStorage::F16 => Self::F16,
            CacheStorage::Q8_0 => Self::Q8_0,
        }
    }
}

/// The initial weights of recursive layers when a trained model becomes a recursive one.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(in crate::cli) enum MorInit {
    /// Layers at even intervals, including the first and the last
    Stepwise,
    /// The mean of the layers that become one recursive layer
    Average,
    /// The first layers
    Lower,
}

impl From<MorInit> for LayerInit {
    fn from(init: MorInit) -> Self {
        match init {
            MorInit::Stepwise => Self::Stepwise,
            MorInit::Average => Self::Average,
            MorInit::Lower => Self::Lower,
        }
    }
}

/// The size of a new model.
#[derive(Clone, Debug, Args)]
pub(in crate::cli) struct ModelArgs {
    /// Model family [default: gpt2; llama with --moe or --mor; transformer with --sides]
    #[arg(long, value_enum)]
    pub(in crate::cli) model: Option<Family>,
    /// The sides of a transformer [default: decoder]
    #[arg(long, value_enum)]
    pub(in crate::cli) sides: Option<Sides>,
    /// Blocks
    #[arg(long, default_value_t = 4, value_parser = positive)]
    pub(in crate::cli) layers: usize,
    /// Attention heads
    #[arg(long, default_value_t = 4, value_parser = positive)]
    pub(in crate::cli) heads: usize,
    /// Heads of keys and values (llama) [default: the number of heads]
    #[arg(long, value_parser = positive)]
    pub(in crate::cli) kv_heads: Option<usize>,
    /// Size of the residual stream, d_model
    #[arg(long, default_value_t = 128, value_parser = positive)]
    pub(in crate::cli) width: usize,
    /// Tokens of context [default: 128, or the model's maximum if that is less]
    #[arg(long, value_parser = positive)]
    pub(in crate::cli) context: Option<usize>,
    /// Mixture of experts, in a llama or transformer: E:K (K of E experts per token), optionally with config.json keys after commas
    /// (8:2,router_aux_loss_coef=0.01), or a JSON file of keys
    #[arg(long, value_name = "E:K|FILE")]
    pub(in crate::cli) moe: Option<String>,
    /// Mixture of recursions, in a llama or transformer: R or R:ROUTING (expert_choice, token_choice, none), optionally with config.json keys
    /// after commas (3:token_choice,sharing=cycle), or a JSON file of keys
    #[arg(long, value_name = "R:ROUTING|FILE")]
    pub(in crate::cli) mor: Option<String>,
}
