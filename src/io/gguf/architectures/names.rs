//! What tensors are called in files, and at Hugging Face.

/// A name in files, and Hugging Face's.
type Pair = (&'static str, &'static str);

/// The names of an architecture.
#[derive(Clone, Copy, Debug)]
pub(in super::super) struct Names {
    /// Those outside of layers, without `.weight` and `.bias`.
    whole: &'static [Pair],
    /// Those of layers: what stands in front of a layer's number, and in each layer. A `*` stands for the number of an expert.
    layers: &'static [(Pair, &'static [&'static [Pair]])],
    /// What Hugging Face calls a projection where the file has gates, too.
    beside_gate: Option<Pair>,
}

const TABLE: Pair = ("token_embd", "model.embed_tokens");
const LLAMA_WHOLE: &[Pair] = &[TABLE, ("output", "lm_head"), ("output_norm", "model.norm")];
const LLAMA_LAYERS: Pair = ("blk.", "model.layers.");
const ATTENTION: &[Pair] = &[
    ("attn_norm", "input_layernorm"),
    ("attn_q", "self_attn.q_proj"),
    ("attn_k", "self_attn.k_proj"),
    ("attn_v", "self_attn.v_proj"),
    ("attn_q_norm", "self_attn.q_norm"),
    ("attn_k_norm", "self_attn.k_norm"),
    ("attn_output", "self_attn.o_proj"),
];
const NORM: &[Pair] = &[("ffn_norm", "post_attention_layernorm")];
const GATED: &[Pair] = &[("ffn_gate", "mlp.gate_proj"), ("ffn_up", "mlp.up_proj"), ("ffn_down", "mlp.down_proj")];
const MIXTRAL: &[Pair] = &[
    ("ffn_gate_inp", "block_sparse_moe.gate"),
    ("ffn_gate_exps", "block_sparse_moe.experts.*.w1"),
    ("ffn_up_exps", "block_sparse_moe.experts.*.w3"),
    ("ffn_down_exps", "block_sparse_moe.experts.*.w2"),
];
const EXPERTS: &[Pair] = &[
    ("ffn_gate_inp", "mlp.gate"),
    ("ffn_gate_exps", "mlp.experts.*.gate_proj"),
    ("ffn_up_exps", "mlp.experts.*.up_proj"),
    ("ffn_down_exps", "mlp.experts.*.down_proj"),
    ("ffn_gate_inp_shexp", "mlp.shared_expert_gate"),
    ("ffn_gate_shexp", "mlp.shared_expert.gate_proj"),
    ("ffn_up_shexp", "mlp.shared_expert.up_proj"),
    ("ffn_down_shexp", "mlp.shared_expert.down_proj"),
];

pub(super) const LLAMA: Names =
    Names { whole: LLAMA_WHOLE, layers: &[(LLAMA_LAYERS, &[ATTENTION, NORM, GATED, MIXTRAL])], beside_gate: None };
pub(super) const MIXTURE: Names =
    Names { whole: LLAMA_WHOLE, layers: &[(LLAMA_LAYERS, &[ATTENTION, NORM, GATED, EXPERTS])], beside_gate: None };
pub(super) const GEMMA2: Names = Names {
    whole: LLAMA_WHOLE,
    layers: &[(
        LLAMA_LAYERS,
        &[
            ATTENTION,
            GATED,
            &[
                ("post_attention_norm", "post_attention_layernorm"),
                ("ffn_norm", "pre_feedforward_layernorm"),
                ("post_ffw_norm", "post_feedforward_layernorm"),
            ],
        ],
    )],
    beside_gate: None,
};
pub(super) const PHI3: Names = Names {
    whole: LLAMA_WHOLE,
    layers: &[(
        LLAMA_LAYERS,
        &[
            ATTENTION,
            NORM,
            &[("attn_qkv", "self_attn.qkv_proj"), ("ffn_up", "mlp.gate_up_proj"), ("ffn_down", "mlp.down_proj")],
        ],
    )],
    beside_gate: None,
};
pub(super) const GPT2: Names = Names {
    whole: &[
        ("token_embd", "transformer.wte"),
        ("position_embd", "transformer.wpe"),
        ("output_norm", "transformer.ln_f"),
        ("output", "lm_head"),
    ],
    layers: &[(
        ("blk.", "transformer.h."),
        &[&[
            ("attn_norm", "ln_1"),
            ("attn_qkv", "attn.c_attn"),
            ("attn_output", "attn.c_proj"),
            ("ffn_norm", "ln_2"),
            ("ffn_up", "mlp.c_fc"),
            ("ffn_down", "mlp.c_proj"),
        ]],
    )],
    beside_gate: None,
};
pub(super) const BERT: Names = Names {
    whole: &[
        ("token_embd", "embeddings.word_embeddings"),
        ("position_embd", "embeddings.position_embeddings"),
        ("token_types", "embeddings.token_type_embeddings"),
        ("token_embd_norm", "embeddings.LayerNorm"),
        ("cls", "pooler.dense"),
    ],
    layers: &[(
        ("blk.", "encoder.layer."),
        &[&[
            ("attn_q", "attention.self.query"),
            ("attn_k", "attention.self.key"),
            ("attn_v", "attention.self.value"),
            ("attn_output", "attention.output.dense"),
            ("attn_output_norm", "attention.output.LayerNorm"),
            ("ffn_up", "intermediate.dense"),
            ("ffn_down", "output.dense"),
            ("layer_output_norm", "output.LayerNorm"),
        ]],
    )],
    beside_gate: None,
};
pub(super) const NOMIC_BERT: Names = Names {
    whole: &[
        ("token_embd", "embeddings.word_embeddings"),
        ("token_types", "embeddings.token_type_embeddings"),
        ("token_embd_norm", "emb_ln"),
    ],
    layers: &[(
        ("blk.", "encoder.layers."),
        &[&[
            ("attn_qkv", "attn.Wqkv"),
            ("attn_output", "attn.out_proj"),
            ("attn_output_norm", "norm1"),
            ("ffn_gate", "mlp.fc12"),
            ("ffn_up", "mlp.fc11"),
            ("ffn_down", "mlp.fc2"),
            ("layer_output_norm", "norm2"),
        ]],
    )],
    beside_gate: None,
};
const T5_ATTENTION: &[Pair] = &[
    ("attn_norm", "layer.0.layer_norm"),
    ("attn_q", "layer.0.SelfAttention.q"),
    ("attn_k", "layer.0.SelfAttention.k"),
    ("attn_v", "layer.0.SelfAttention.v"),
    ("attn_o", "layer.0.SelfAttention.o"),
    ("attn_rel_b", "layer.0.SelfAttention.relative_attention_bias"),
];
/// Where a block of an encoder has its feed-forward network.
const T5_SECOND: &[Pair] = &[
    ("ffn_norm", "layer.1.layer_norm"),
    ("ffn_gate", "layer.1.DenseReluDense.wi_0"),
    ("ffn_up", "layer.1.DenseReluDense.wi"),
    ("ffn_down", "layer.1.DenseReluDense.wo"),
];
const T5_THIRD: &[Pair] = &[
    ("cross_attn_norm", "layer.1.layer_norm"),
    ("cross_attn_q", "layer.1.EncDecAttention.q"),
    ("cross_attn_k", "layer.1.EncDecAttention.k"),
    ("cross_attn_v", "layer.1.EncDecAttention.v"),
    ("cross_attn_o", "layer.1.EncDecAttention.o"),
    ("cross_attn_rel_b", "layer.1.EncDecAttention.relative_attention_bias"),
    ("ffn_norm", "layer.2.layer_norm"),
    ("ffn_gate", "layer.2.DenseReluDense.wi_0"),
    ("ffn_up", "layer.2.DenseReluDense.wi"),
    ("ffn_down", "layer.2.DenseReluDense.wo"),
];
pub(super) const T5: Names = Names {
    whole: &[
        ("token_embd", "shared"),
        ("output", "lm_head"),
        ("enc.output_norm", "encoder.final_layer_norm"),
        ("dec.output_norm", "decoder.final_layer_norm"),
    ],
    layers: &[
        (("enc.blk.", "encoder.block."), &[T5_ATTENTION, T5_SECOND]),
        (("dec.blk.", "decoder.block."), &[T5_ATTENTION, T5_THIRD]),
    ],
    beside_gate: Some(("DenseReluDense.wi", "DenseReluDense.wi_1")),
};

/// A tensor's name: the file's part of it, and Hugging Face's name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in super::super) struct Named<'a> {
    /// Without a layer's number and without `.weight`: `attn_q`.
    pub(in super::super) part: &'a str,
    /// With a `*` where the file has all experts in one.
    pub(in super::super) theirs: String,
}

impl Names {
    /// A name of the file at Hugging Face, if the family has it; `gated`: the file has gates.
    pub(in super::super) fn find<'a>(&self, name: &'a str, gated: bool) -> Option<Named<'a>> {
        let (front, kind) = name.rsplit_once('.').filter(|(_, kind)| matches!(*kind, "weight" | "bias"))?;
        if let Some((_, theirs)) = self.whole.iter().find(|(ours, _)| *ours == front) {
            return Some(Named { part: front, theirs: format!("{theirs}.{kind}") });
        }
        let ((_, prefix), parts, rest) =
            self.layers.iter().find_map(|(prefix, parts)| Some((*prefix, *parts, front.strip_prefix(prefix.0)?)))?;
        let (layer, part) = rest.split_once('.')?;
        let layer: usize = layer.parse().ok()?;
        let find =
            |part: &str| parts.iter().copied().flatten().find(|(ours, _)| *ours == part).map(|(_, theirs)| *theirs);
        let (part, theirs) = match part.split_once('.') {
            None => (part, find(part)?.to_owned()),
            // Older files have a tensor for each expert.
            Some((part, expert)) => {
                let expert: usize = expert.parse().ok()?;
                (part, find(&format!("{part}_exps"))?.replacen('*', &expert.to_string(), 1))
            }
        };
        let plain =
            self.beside_gate.filter(|_| gated).and_then(|(plain, beside)| Some((theirs.strip_suffix(plain)?, beside)));
        let theirs = plain.map_or_else(|| theirs.clone(), |(front, beside)| format!("{front}{beside}"));
        Some(Named { part, theirs: format!("{prefix}{layer}.{theirs}.{kind}") })
    }
}

#[cfg(feature = "files")]
impl Names {
    /// The name in files of a tensor that is called so at Hugging Face, and its number where the file has those of all experts in one.
    pub(in super::super) fn of_theirs(&self, name: &str) -> Option<(String, Option<usize>)> {
        let (front, kind) = name.rsplit_once('.').filter(|(_, kind)| matches!(*kind, "weight" | "bias"))?;
        if let Some((ours, _)) = self.whole.iter().find(|(_, theirs)| *theirs == front) {
            return Some((format!("{ours}.{kind}"), None));
        }
        self.layers.iter().find_map(|((ours, theirs), parts)| {
            let (layer, part) = front.strip_prefix(theirs)?.split_once('.')?;
            let layer: usize = layer.parse().ok()?;
            let beside = self.beside_gate.and_then(|(plain, beside)| Some((part.strip_suffix(beside)?, plain)));
            let part = beside.map_or_else(|| part.to_owned(), |(front, plain)| format!("{front}{plain}"));
            let expert = |pattern: &str| {
                let (before, behind) = pattern.split_once('*')?;
                part.strip_prefix(before)?.strip_suffix(behind)?.parse::<usize>().ok()
            };
            parts.iter().copied().flatten().find_map(|(own, pattern)| {
                let number = expert(pattern);
                (number.is_some() || *pattern == part).then(|| (format!("{ours}{layer}.{own}.{kind}"), number))
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_become_those_of_hugging_face() {
        let of = |names: Names, name| names.find(name, true).map(|found| found.theirs).unwrap_or_default();
        let name = |name| of(LLAMA, name);
        assert_eq!(name("blk.12.attn_output.weight"), "model.layers.12.self_attn.o_proj.weight");
        assert_eq!(name("blk.0.attn_q.bias"), "model.layers.0.self_attn.q_proj.bias");
        assert_eq!(name("output_norm.weight"), "model.norm.weight");
        assert_eq!(name("blk.x.attn_q.weight") + &name("blk.1.attn_z.weight") + &name("blk.1.attn_q.scale"), "");
        assert_eq!(name("blk.3.ffn_gate_exps.weight"), "model.layers.3.block_sparse_moe.experts.*.w1.weight");
        assert_eq!(name("blk.3.ffn_down.7.weight"), "model.layers.3.block_sparse_moe.experts.7.w2.weight");
        assert_eq!(name("blk.3.ffn_down.x.weight") + &name("blk.3.attn_q.7.weight"), "");
        assert_eq!(of(T5, "dec.blk.1.cross_attn_q.weight"), "decoder.block.1.layer.1.EncDecAttention.q.weight");
        assert_eq!(of(T5, "enc.blk.1.ffn_up.weight"), "encoder.block.1.layer.1.DenseReluDense.wi_1.weight");
        assert_eq!(LLAMA.find("blk.3.attn_q.bias", false).map(|found| found.part), Some("attn_q"));
    }

    #[test]
    fn names_of_hugging_face_become_those_of_files() {
        let of = |names: Names, name| names.of_theirs(name).unwrap_or_default();
        assert_eq!(of(LLAMA, "model.layers.12.self_attn.o_proj.weight"), ("blk.12.attn_output.weight".into(), None));
        assert_eq!(of(LLAMA, "model.norm.weight").0, "output_norm.weight");
        let expert = of(LLAMA, "model.layers.3.block_sparse_moe.experts.7.w2.weight");
        assert_eq!(expert, ("blk.3.ffn_down_exps.weight".into(), Some(7)));
        assert_eq!(of(T5, "encoder.block.1.layer.1.DenseReluDense.wi_1.weight").0, "enc.blk.1.ffn_up.weight");
        assert_eq!(of(T5, "decoder.block.0.layer.2.DenseReluDense.wo.weight").0, "dec.blk.0.ffn_down.weight");
        assert!(LLAMA.of_theirs("model.layers.x.mlp.up_proj.weight").is_none());
        assert!(LLAMA.of_theirs("model.layers.1.mlp.other.weight").is_none());
    }
}
