//! What sets each family apart from Llama.

use super::family::{Biases, QkNorms, Traits, Windows};

pub(super) const LLAMA: Traits = Traits {
    model_type: "llama",
    class: "LlamaForCausalLM",
    key_value: None,
    head_dim: None,
    positions: 2048,
    epsilon: 1e-6,
    theta: 1e4,
    tied: false,
    padding: None,
    activation: ["hidden_act", "silu"],
    biases: Biases::Key,
    mlp_bias: true,
    qk_norm: QkNorms::None,
    windows: Windows::None,
    is_gemma: false,
    both_norms: false,
    is_phi: false,
};
pub(super) const MISTRAL: Traits = Traits {
    model_type: "mistral",
    class: "MistralForCausalLM",
    key_value: Some(8),
    positions: 131_072,
    biases: Biases::None,
    mlp_bias: false,
    windows: Windows::All(Some(4096)),
    ..LLAMA
};
pub(super) const MIXTRAL: Traits = Traits {
    model_type: "mixtral",
    class: "MixtralForCausalLM",
    epsilon: 1e-5,
    theta: 1e6,
    windows: Windows::All(None),
    ..MISTRAL
};
pub(super) const QWEN2: Traits = Traits {
    model_type: "qwen2",
    class: "Qwen2ForCausalLM",
    key_value: Some(32),
    positions: 32_768,
    biases: Biases::Qkv,
    mlp_bias: false,
    windows: Windows::FromLayer,
    ..LLAMA
};
pub(super) const QWEN2_MOE: Traits = Traits {
    model_type: "qwen2_moe",
    class: "Qwen2MoeForCausalLM",
    key_value: Some(16),
    biases: Biases::QkvKey,
    windows: Windows::AlternateBefore,
    ..QWEN2
};
pub(super) const QWEN3: Traits = Traits {
    model_type: "qwen3",
    class: "Qwen3ForCausalLM",
    head_dim: Some(128),
    biases: Biases::Key,
    qk_norm: QkNorms::Heads,
    ..QWEN2
};
pub(super) const QWEN3_MOE: Traits = Traits {
    model_type: "qwen3_moe",
    class: "Qwen3MoeForCausalLM",
    key_value: Some(4),
    head_dim: None,
    windows: Windows::AllIfUsed,
    ..QWEN3
};
pub(super) const OLMOE: Traits = Traits {
    model_type: "olmoe",
    class: "OlmoeForCausalLM",
    padding: Some(1),
    positions: 4096,
    epsilon: 1e-5,
    mlp_bias: false,
    qk_norm: QkNorms::AllHeads,
    ..LLAMA
};
pub(super) const SMOLLM3: Traits = Traits {
    model_type: "smollm3",
    class: "SmolLM3ForCausalLM",
    key_value: Some(4),
    padding: Some(128_004),
    positions: 32_768,
    theta: 2e6,
    tied: true,
    windows: Windows::WithoutPositions,
    ..LLAMA
};
pub(super) const GEMMA: Traits = Traits {
    model_type: "gemma",
    class: "GemmaForCausalLM",
    key_value: Some(16),
    head_dim: Some(256),
    padding: Some(0),
    positions: 8192,
    tied: true,
    activation: ["hidden_act", "gelu_pytorch_tanh"],
    mlp_bias: false,
    is_gemma: true,
    ..LLAMA
};
pub(super) const GEMMA2: Traits = Traits {
    model_type: "gemma2",
    class: "Gemma2ForCausalLM",
    key_value: Some(4),
    activation: ["hidden_activation", "gelu_pytorch_tanh"],
    windows: Windows::AllBut { every: 2, key: false },
    both_norms: true,
    ..GEMMA
};
pub(super) const GEMMA3: Traits = Traits {
    model_type: "gemma3_text",
    class: "Gemma3ForCausalLM",
    positions: 131_072,
    theta: 1e6,
    qk_norm: QkNorms::Heads,
    windows: Windows::AllBut { every: 6, key: true },
    ..GEMMA2
};
pub(super) const GRANITE: Traits = Traits { model_type: "granite", class: "GraniteForCausalLM", ..LLAMA };
pub(super) const PHI3: Traits = Traits {
    model_type: "phi3",
    class: "Phi3ForCausalLM",
    padding: Some(32_000),
    positions: 4096,
    epsilon: 1e-5,
    biases: Biases::None,
    mlp_bias: false,
    windows: Windows::All(None),
    is_phi: true,
    ..LLAMA
};
pub(super) const MOR: Traits = Traits { model_type: "mor", class: "MorForCausalLM", ..LLAMA };
