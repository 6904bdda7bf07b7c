//! The names of BERT and of each of its relatives.

use super::names::{Names, WordHead};
use crate::models::{EncoderHead, Naming};
use crate::ops::Activation;

const NO_LABELS: usize = 0;
const CLASSES: EncoderHead = EncoderHead::SequenceClassification { labels: NO_LABELS };
const TAGS: EncoderHead = EncoderHead::TokenClassification { labels: NO_LABELS };
const GAMMA_AND_BETA: &[(&str, &str)] =
    &[("LayerNorm.weight", "LayerNorm.gamma"), ("LayerNorm.bias", "LayerNorm.beta")];
/// Buffers of older versions.
const BUFFERS: &[&str] = &["embeddings.position_ids", "embeddings.token_type_ids"];

pub(super) const BERT: Names = Names {
    model_type: "bert",
    class: "Bert",
    layer: "encoder.layer.",
    qkv: ["self.query", "self.key", "self.value"],
    attention_output: "output.dense",
    attention_norm: "attention.output.LayerNorm",
    feed_forward: ["intermediate.dense", "output.dense"],
    feed_forward_norm: "output.LayerNorm",
    projection: "embeddings_project",
    pooler: Some("pooler.dense"),
    words: WordHead {
        dense: "cls.predictions.transform.dense",
        norm: "cls.predictions.transform.LayerNorm",
        activation: None,
        decoder: "cls.predictions.decoder",
        bias: "cls.predictions.bias",
        own_bias: Some("cls.predictions.decoder.bias"),
    },
    naming: Naming {
        base: "bert.",
        ignored: BUFFERS,
        aliases: &[
            GAMMA_AND_BETA[0],
            GAMMA_AND_BETA[1],
            // Older versions of transformers have one bias for tied and untied layers.
            ("cls.predictions.decoder.bias", "cls.predictions.bias"),
        ],
        tied: &[
            ("cls.predictions.decoder.weight", "bert.embeddings.word_embeddings.weight"),
            ("cls.predictions.decoder.bias", "cls.predictions.bias"),
        ],
        in_out: false,
    },
    heads: &[
        ("Model", EncoderHead::None),
        ("ForMaskedLM", EncoderHead::MaskedLanguageModel),
        ("LMHeadModel", EncoderHead::NextToken),
        ("ForPreTraining", EncoderHead::PreTraining),
        ("ForNextSentencePrediction", EncoderHead::NextSentence),
        ("ForSequenceClassification", CLASSES),
        ("ForTokenClassification", TAGS),
        ("ForQuestionAnswering", EncoderHead::QuestionAnswering),
        ("ForMultipleChoice", EncoderHead::MultipleChoice),
    ],
};

pub(super) const ROBERTA: Names = Names {
    model_type: "roberta",
    class: "Roberta",
    words: WordHead {
        dense: "lm_head.dense",
        norm: "lm_head.layer_norm",
        activation: Some(Activation::GeluErf),
        decoder: "lm_head.decoder",
        bias: "lm_head.bias",
        own_bias: Some("lm_head.decoder.bias"),
    },
    naming: Naming {
        base: "roberta.",
        ignored: BUFFERS,
        aliases: &[GAMMA_AND_BETA[0], GAMMA_AND_BETA[1], ("lm_head.decoder.bias", "lm_head.bias")],
        tied: &[
            ("lm_head.decoder.weight", "roberta.embeddings.word_embeddings.weight"),
            ("lm_head.decoder.bias", "lm_head.bias"),
        ],
        in_out: false,
    },
    heads: &[
        ("Model", EncoderHead::None),
        ("ForMaskedLM", EncoderHead::MaskedLanguageModel),
        ("ForCausalLM", EncoderHead::NextToken),
        ("ForSequenceClassification", CLASSES),
        ("ForTokenClassification", TAGS),
        ("ForQuestionAnswering", EncoderHead::QuestionAnswering),
        ("ForMultipleChoice", EncoderHead::MultipleChoice),
    ],
    ..BERT
};

pub(super) const XLM_ROBERTA: Names = Names { model_type: "xlm-roberta", class: "XLMRoberta", ..ROBERTA };

pub(super) const DISTILBERT: Names = Names {
    model_type: "distilbert",
    class: "DistilBert",
    layer: "transformer.layer.",
    qkv: ["q_lin", "k_lin", "v_lin"],
    attention_output: "out_lin",
    attention_norm: "sa_layer_norm",
    feed_forward: ["ffn.lin1", "ffn.lin2"],
    feed_forward_norm: "output_layer_norm",
    pooler: None,
    words: WordHead {
        dense: "vocab_transform",
        norm: "vocab_layer_norm",
        activation: None,
        decoder: "vocab_projector",
        bias: "vocab_projector.bias",
        own_bias: None,
    },
    naming: Naming {
        base: "distilbert.",
        ignored: BUFFERS,
        aliases: GAMMA_AND_BETA,
        tied: &[("vocab_projector.weight", "distilbert.embeddings.word_embeddings.weight")],
        in_out: false,
    },
    heads: &[
        ("Model", EncoderHead::None),
        ("ForMaskedLM", EncoderHead::MaskedLanguageModel),
        ("ForSequenceClassification", CLASSES),
        ("ForTokenClassification", TAGS),
        ("ForQuestionAnswering", EncoderHead::QuestionAnswering),
        ("ForMultipleChoice", EncoderHead::MultipleChoice),
    ],
    ..BERT
};

pub(super) const ELECTRA: Names = Names {
    model_type: "electra",
    class: "Electra",
    pooler: None,
    words: WordHead {
        dense: "generator_predictions.dense",
        norm: "generator_predictions.LayerNorm",
        activation: Some(Activation::GeluErf),
        decoder: "generator_lm_head",
        bias: "generator_lm_head.bias",
        own_bias: None,
    },
    naming: Naming {
        base: "electra.",
        ignored: BUFFERS,
        aliases: GAMMA_AND_BETA,
        tied: &[("generator_lm_head.weight", "electra.embeddings.word_embeddings.weight")],
        in_out: false,
    },
    heads: &[
        ("Model", EncoderHead::None),
        ("ForMaskedLM", EncoderHead::MaskedLanguageModel),
        ("ForCausalLM", EncoderHead::NextToken),
        ("ForPreTraining", EncoderHead::ReplacedTokens),
        ("ForSequenceClassification", CLASSES),
        ("ForTokenClassification", TAGS),
        ("ForQuestionAnswering", EncoderHead::QuestionAnswering),
        ("ForMultipleChoice", EncoderHead::MultipleChoice),
    ],
    ..BERT
};

pub(super) const ALBERT: Names = Names {
    model_type: "albert",
    class: "Albert",
    layer: "encoder.albert_layer_groups.",
    qkv: ["query", "key", "value"],
    attention_output: "dense",
    attention_norm: "attention.LayerNorm",
    feed_forward: ["ffn", "ffn_output"],
    feed_forward_norm: "full_layer_layer_norm",
    projection: "encoder.embedding_hidden_mapping_in",
    pooler: Some("pooler"),
    words: WordHead {
        dense: "predictions.dense",
        norm: "predictions.LayerNorm",
        activation: None,
        decoder: "predictions.decoder",
        bias: "predictions.bias",
        own_bias: Some("predictions.decoder.bias"),
    },
    naming: Naming {
        base: "albert.",
        ignored: BUFFERS,
        aliases: &[GAMMA_AND_BETA[0], GAMMA_AND_BETA[1], ("predictions.decoder.bias", "predictions.bias")],
        tied: &[
            ("predictions.decoder.weight", "albert.embeddings.word_embeddings.weight"),
            ("predictions.decoder.bias", "predictions.bias"),
        ],
        in_out: false,
    },
    heads: &[
        ("Model", EncoderHead::None),
        ("ForMaskedLM", EncoderHead::MaskedLanguageModel),
        ("ForPreTraining", EncoderHead::SentenceOrder),
        ("ForSequenceClassification", CLASSES),
        ("ForTokenClassification", TAGS),
        ("ForQuestionAnswering", EncoderHead::QuestionAnswering),
        ("ForMultipleChoice", EncoderHead::MultipleChoice),
    ],
};
