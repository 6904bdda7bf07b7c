//! The families whose decoders are a Llama with differences: what sets them apart, as a table.

use super::table::{
    GEMMA, GEMMA2, GEMMA3, GRANITE, LLAMA, MISTRAL, MIXTRAL, MOR, OLMOE, PHI3, QWEN2, QWEN2_MOE, QWEN3, QWEN3_MOE,
    SMOLLM3,
};

/// A family whose decoders are a Llama with differences.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LlamaFamily {
    /// Llama: Touvron et al., arXiv 2302.13971 and 2307.09288; Grattafiori et al., arXiv 2407.21783.
    Llama,
    /// Mistral: Jiang et al., arXiv 2310.06825.
    Mistral,
    /// Mixtral: Jiang et al., arXiv 2401.04088.
    Mixtral,
    /// Qwen2 and Qwen2.5: arXiv 2407.10671 and 2412.15115.
    Qwen2,
    /// Qwen2-MoE: arXiv 2407.10671.
    Qwen2Moe,
    /// Qwen3: arXiv 2505.09388.
    Qwen3,
    /// Qwen3-MoE: arXiv 2505.09388.
    Qwen3Moe,
    /// OLMoE: Muennighoff et al., arXiv 2409.02060.
    Olmoe,
    /// SmolLM3: a Llama some of whose layers have no positions (Yang et al., arXiv 2501.18795).
    SmolLm3,
    /// Gemma: arXiv 2403.08295.
    Gemma,
    /// Gemma 2: arXiv 2408.00118.
    Gemma2,
    /// Gemma 3, of texts: arXiv 2503.19786.
    Gemma3,
    /// Granite 3: a Llama with four multipliers.
    Granite,
    /// Phi-3, Phi-3.5 and Phi-4-mini: Abdin et al., arXiv 2404.14219.
    Phi3,
    /// Mixture of recursions: Bae et al., arXiv 2507.10524.
    Mor,
}

/// Where the biases of attention are.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Biases {
    /// `attention_bias` says whether all four projections have one.
    Key,
    /// At queries, keys and values.
    Qkv,
    /// At queries, keys and values unless `qkv_bias` says no.
    QkvKey,
    /// Nowhere.
    None,
}

/// The norms of queries and keys.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum QkNorms {
    /// None.
    None,
    /// Of each head.
    Heads,
    /// Of all heads of a token.
    AllHeads,
}

/// The layers whose tokens see only so many.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Windows {
    /// The family has none.
    None,
    /// All layers, if `sliding_window` is there; the default is that of a missing key.
    All(Option<usize>),
    /// All layers, if `use_sliding_window` says so.
    AllIfUsed,
    /// If `use_sliding_window` says so, those of `layer_types`, or from layer `max_window_layers` on.
    FromLayer,
    /// If `use_sliding_window` says so, those of `layer_types`, or every other one before layer `max_window_layers`.
    AlternateBefore,
    /// Those of `layer_types`; or those without positions, if `use_sliding_window` says so.
    WithoutPositions,
    /// Those of `layer_types`, or all but every so many-th; the number is under `sliding_window_pattern` where that is a key.
    AllBut { every: usize, key: bool },
}

/// What sets a family apart, and the defaults of transformers for keys that its `config.json` lacks.
#[derive(Clone, Copy)]
pub(super) struct Traits {
    pub(super) model_type: &'static str,
    pub(super) class: &'static str,
    /// Key and value heads; none: as many as there are queries.
    pub(super) key_value: Option<usize>,
    /// Features of a head; none: the width over the heads.
    pub(super) head_dim: Option<usize>,
    pub(super) positions: usize,
    pub(super) epsilon: f32,
    pub(super) theta: f32,
    pub(super) tied: bool,
    /// The token of padding.
    pub(super) padding: Option<u32>,
    /// The key of the activation, and its default.
    pub(super) activation: [&'static str; 2],
    pub(super) biases: Biases,
    /// Whether `mlp_bias` is a key.
    pub(super) mlp_bias: bool,
    pub(super) qk_norm: QkNorms,
    pub(super) windows: Windows,
    /// Norms have a gain of 1 + what is stored, and embeddings are multiplied by the root of the width.
    pub(super) is_gemma: bool,
    /// There are norms before and behind each part of a block, and scores are divided by the root of `query_pre_attn_scalar`.
    pub(super) both_norms: bool,
    /// One projection gives queries, keys and values, and one gate and up. `resid_pdrop`, the share of a head that is rotated, and LongRoPE's
    /// trained length are keys.
    pub(super) is_phi: bool,
}

impl LlamaFamily {
    /// The family of a `model_type`; what is not known is a Llama.
    pub(super) fn of(model_type: &str) -> Self {
        const ALL: [LlamaFamily; 15] = [
            LlamaFamily::Llama,
            LlamaFamily::Mistral,
            LlamaFamily::Mixtral,
            LlamaFamily::Qwen2,
            LlamaFamily::Qwen2Moe,
            LlamaFamily::Qwen3,
            LlamaFamily::Qwen3Moe,
            LlamaFamily::Olmoe,
            LlamaFamily::SmolLm3,
            LlamaFamily::Gemma,
            LlamaFamily::Gemma2,
            LlamaFamily::Gemma3,
            LlamaFamily::Granite,
            LlamaFamily::Phi3,
            LlamaFamily::Mor,
        ];
        // A Gemma 3 that also sees pictures has the decoder of texts within.
        let model_type = if model_type == "gemma3" { "gemma3_text" } else { model_type };
        ALL.into_iter().find(|family| family.traits().model_type == model_type).unwrap_or(Self::Llama)
    }

    /// What sets it apart.
    pub(super) fn traits(self) -> &'static Traits {
        match self {
            Self::Llama => &LLAMA,
            Self::Mistral => &MISTRAL,
            Self::Mixtral => &MIXTRAL,
            Self::Qwen2 => &QWEN2,
            Self::Qwen2Moe => &QWEN2_MOE,
            Self::Qwen3 => &QWEN3,
            Self::Qwen3Moe => &QWEN3_MOE,
            Self::Olmoe => &OLMOE,
            Self::SmolLm3 => &SMOLLM3,
            Self::Gemma => &GEMMA,
            Self::Gemma2 => &GEMMA2,
            Self::Gemma3 => &GEMMA3,
            Self::Granite => &GRANITE,
            Self::Phi3 => &PHI3,
            Self::Mor => &MOR,
        }
    }
}
