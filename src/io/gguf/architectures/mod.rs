//! The architectures that are read: for each, the family of Hugging Face, how tensors are called there, and what `config.json` says.
//!
//! A new one needs an entry in [`ALL`].

mod decoder;
mod mixture;
mod names;
mod others;
mod rope;

#[cfg(feature = "files")]
pub(super) use decoder::LARGEST_GEMMA;
pub(super) use decoder::heads;
pub(super) use rope::TENSORS as POSITIONS;

use super::source::Source;
use crate::error::Result;
use names::Names;
use serde_json::Value;

/// An architecture of GGUF files.
#[derive(Clone, Copy)]
pub(super) struct Architecture {
    /// Its name in files.
    pub(super) name: &'static str,
    /// The `model_type` and the class of Hugging Face; [`Architecture::config`] may choose another.
    pub(super) family: [&'static str; 2],
    /// What tensors are called.
    pub(super) names: Names,
    /// Parts of each block that a Llama does not have, and without which a file's tensors are not of this architecture.
    pub(super) own: &'static [&'static str],
    /// Whether rows of queries and keys lie in pairs for rotary positions that rotate neighbours.
    pub(super) pairs: bool,
    /// Whether norms hold 1 + what Hugging Face's hold.
    pub(super) one_plus: bool,
    /// Whether Hugging Face's linear weights are (in, out), and not (out, in).
    pub(super) in_out: bool,
    /// Makes the `config.json` of what most decoders have.
    pub(super) config: fn(&Source<'_>, Value) -> Result<Value>,
}

const LLAMA: Architecture = Architecture {
    name: "llama",
    family: ["llama", "LlamaForCausalLM"],
    names: names::LLAMA,
    own: &[],
    pairs: true,
    one_plus: false,
    in_out: false,
    config: decoder::llama,
};
const QWEN2: Architecture = Architecture {
    name: "qwen2",
    family: ["qwen2", "Qwen2ForCausalLM"],
    pairs: false,
    config: decoder::qwen2,
    ..LLAMA
};
/// A Llama under another name.
const HALVES: Architecture = Architecture { family: ["llama", "LlamaForCausalLM"], config: decoder::plain, ..QWEN2 };
const GEMMA: Architecture = Architecture {
    name: "gemma",
    family: ["gemma", "GemmaForCausalLM"],
    one_plus: true,
    config: decoder::plain,
    ..QWEN2
};
const GEMMA2: Architecture = Architecture {
    name: "gemma2",
    family: ["gemma2", "Gemma2ForCausalLM"],
    names: names::GEMMA2,
    own: &["post_attention_norm"],
    config: decoder::gemma2,
    ..GEMMA
};

/// All of them.
pub(super) const ALL: &[Architecture] = &[
    LLAMA,
    QWEN2,
    Architecture {
        name: "qwen2moe",
        family: ["qwen2_moe", "Qwen2MoeForCausalLM"],
        names: names::MIXTURE,
        config: mixture::qwen2,
        ..QWEN2
    },
    Architecture { name: "qwen3", family: ["qwen3", "Qwen3ForCausalLM"], config: decoder::qwen3, ..QWEN2 },
    Architecture {
        name: "qwen3moe",
        family: ["qwen3_moe", "Qwen3MoeForCausalLM"],
        names: names::MIXTURE,
        config: mixture::qwen3,
        ..QWEN2
    },
    GEMMA,
    GEMMA2,
    Architecture {
        name: "gemma3",
        family: ["gemma3_text", "Gemma3ForCausalLM"],
        own: &["post_attention_norm", "attn_q_norm"],
        config: decoder::gemma3,
        ..GEMMA2
    },
    Architecture {
        name: "phi3",
        family: ["phi3", "Phi3ForCausalLM"],
        names: names::PHI3,
        config: decoder::phi3,
        ..QWEN2
    },
    Architecture {
        name: "olmoe",
        family: ["olmoe", "OlmoeForCausalLM"],
        names: names::MIXTURE,
        config: mixture::olmoe,
        ..QWEN2
    },
    Architecture { name: "granite", family: ["granite", "GraniteForCausalLM"], config: decoder::granite, ..LLAMA },
    Architecture { name: "smollm3", family: ["smollm3", "SmolLM3ForCausalLM"], config: decoder::plain, ..LLAMA },
    Architecture {
        name: "gpt2",
        family: ["gpt2", "GPT2LMHeadModel"],
        names: names::GPT2,
        own: &["attn_qkv"],
        in_out: true,
        config: others::gpt2,
        ..QWEN2
    },
    Architecture { name: "bert", family: ["bert", "BertModel"], names: names::BERT, config: others::bert, ..QWEN2 },
    Architecture {
        name: "nomic-bert",
        family: ["nomic_bert", "NomicBertModel"],
        names: names::NOMIC_BERT,
        config: others::nomic_bert,
        ..QWEN2
    },
    Architecture {
        name: "t5",
        family: ["t5", "T5ForConditionalGeneration"],
        names: names::T5,
        config: others::t5,
        ..QWEN2
    },
];

impl Architecture {
    /// The one of that name.
    pub(super) fn named(name: &str) -> Option<&'static Self> {
        ALL.iter().find(|known| known.name == name)
    }

    /// This one; or, if the file has none of its own tensors and all of a Llama's, a Llama's with rotary halves, as all but Llama have them.
    pub(super) fn by_tensors(&'static self, source: &Source<'_>) -> &'static Self {
        const LLAMAS: [&str; 9] =
            ["attn_norm", "attn_q", "attn_k", "attn_v", "attn_output", "ffn_norm", "ffn_gate", "ffn_up", "ffn_down"];
        let has = |part: &&str| source.has(&format!("blk.0.{part}.weight"));
        if self.own.is_empty() || self.own.iter().any(has) || !LLAMAS.iter().all(has) {
            return self;
        }
        let path = source.metadata.path.display();
        log::warn!(
            "{path}: \"general.architecture\" is {}, but its tensors are a Llama's ({} are missing): it is read as a Llama",
            self.name,
            self.own.join(" and ")
        );
        &HALVES
    }
}
