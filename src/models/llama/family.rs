//! The families whose decoders are a Llama with differences: what sets them apart, as a table.

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
}

const LLAMA: Traits = Traits {
    model_type: "llama",
    class: "LlamaForCausalLM",
    key_value: None,
    head_dim: None,
    positions: 2048,
    epsilon: 1e-6,
    theta: 1e4,
    tied: false,
    activation: ["hidden_act", "silu"],
    biases: Biases::Key,
    mlp_bias: true,
    qk_norm: QkNorms::None,
    windows: Windows::None,
    is_gemma: false,
    both_norms: false,
};
const MISTRAL: Traits = Traits {
    model_type: "mistral",
    class: "MistralForCausalLM",
    key_value: Some(8),
    positions: 131_072,
    biases: Biases::None,
    mlp_bias: false,
    windows: Windows::All(Some(4096)),
    ..LLAMA
};
const MIXTRAL: Traits = Traits {
    model_type: "mixtral",
    class: "MixtralForCausalLM",
    epsilon: 1e-5,
    theta: 1e6,
    windows: Windows::All(None),
    ..MISTRAL
};
const QWEN2: Traits = Traits {
    model_type: "qwen2",
    class: "Qwen2ForCausalLM",
    key_value: Some(32),
    positions: 32_768,
    biases: Biases::Qkv,
    mlp_bias: false,
    windows: Windows::FromLayer,
    ..LLAMA
};
const QWEN2_MOE: Traits = Traits {
    model_type: "qwen2_moe",
    class: "Qwen2MoeForCausalLM",
    key_value: Some(16),
    biases: Biases::QkvKey,
    windows: Windows::AlternateBefore,
    ..QWEN2
};
const QWEN3: Traits = Traits {
    model_type: "qwen3",
    class: "Qwen3ForCausalLM",
    head_dim: Some(128),
    biases: Biases::Key,
    qk_norm: QkNorms::Heads,
    ..QWEN2
};
const QWEN3_MOE: Traits = Traits {
    model_type: "qwen3_moe",
    class: "Qwen3MoeForCausalLM",
    key_value: Some(4),
    head_dim: None,
    windows: Windows::AllIfUsed,
    ..QWEN3
};
const OLMOE: Traits = Traits {
    model_type: "olmoe",
    class: "OlmoeForCausalLM",
    positions: 4096,
    epsilon: 1e-5,
    mlp_bias: false,
    qk_norm: QkNorms::AllHeads,
    ..LLAMA
};
const SMOLLM3: Traits = Traits {
    model_type: "smollm3",
    class: "SmolLM3ForCausalLM",
    key_value: Some(4),
    positions: 32_768,
    theta: 2e6,
    tied: true,
    windows: Windows::WithoutPositions,
    ..LLAMA
};
const GEMMA: Traits = Traits {
    model_type: "gemma",
    class: "GemmaForCausalLM",
    key_value: Some(16),
    head_dim: Some(256),
    positions: 8192,
    tied: true,
    activation: ["hidden_act", "gelu_pytorch_tanh"],
    mlp_bias: false,
    is_gemma: true,
    ..LLAMA
};
const GEMMA2: Traits = Traits {
    model_type: "gemma2",
    class: "Gemma2ForCausalLM",
    key_value: Some(4),
    activation: ["hidden_activation", "gelu_pytorch_tanh"],
    windows: Windows::AllBut { every: 2, key: false },
    both_norms: true,
    ..GEMMA
};
const GEMMA3: Traits = Traits {
    model_type: "gemma3_text",
    class: "Gemma3ForCausalLM",
    positions: 131_072,
    theta: 1e6,
    qk_norm: QkNorms::Heads,
    windows: Windows::AllBut { every: 6, key: true },
    ..GEMMA2
};
const GRANITE: Traits = Traits { model_type: "granite", class: "GraniteForCausalLM", ..LLAMA };
const MOR: Traits = Traits { model_type: "mor", class: "MorForCausalLM", ..LLAMA };

impl LlamaFamily {
    /// The family of a `model_type`; what is not known is a Llama.
    pub(super) fn of(model_type: &str) -> Self {
        const ALL: [LlamaFamily; 14] = [
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
            Self::Mor => &MOR,
        }
    }
}
