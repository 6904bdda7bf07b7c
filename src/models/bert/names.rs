//! What BERT and its relatives call their weights, and which layers their heads have.

use crate::models::heads::HeadKinds;
use crate::models::{EncoderHead, Naming};
use crate::ops::Activation;

/// Whose keys, names and heads a [`Bert`](super::Bert) has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BertFamily {
    /// BERT: Devlin et al., arXiv 1810.04805.
    Bert,
    /// RoBERTa: Liu et al., arXiv 1907.11692. Positions count tokens that are no padding, from the padding's number + 1 on.
    Roberta,
    /// XLM-RoBERTa, a RoBERTa: Conneau et al., arXiv 1911.02116.
    XlmRoberta,
    /// `DistilBERT`: Sanh et al., arXiv 1910.01108. It has no parts of a text.
    DistilBert,
    /// ELECTRA: Clark et al., arXiv 2003.10555. Embeddings may be narrower than states.
    Electra,
    /// ALBERT: Lan et al., arXiv 1909.11942. Embeddings may be narrower than states, and layers share their weights.
    Albert,
}

/// The names of a family. Those of a layer stand behind the layer's prefix, those of heads are whole, the others stand behind the base.
#[derive(Clone, Copy, Debug)]
pub(super) struct Names {
    pub model_type: &'static str,
    /// The beginning of classes' names.
    pub class: &'static str,
    pub layer: &'static str,
    pub qkv: [&'static str; 3],
    pub attention_output: &'static str,
    pub attention_norm: &'static str,
    pub feed_forward: [&'static str; 2],
    pub feed_forward_norm: &'static str,
    /// From embeddings to states, where their widths differ; ALBERT has it in any case.
    pub projection: &'static str,
    /// The layer on the first token's state, if there is one.
    pub pooler: Option<&'static str>,
    pub words: WordHead,
    /// The names in files.
    pub naming: Naming,
    /// The heads there are, by the ends of classes' names.
    pub heads: HeadKinds,
}

/// The names of the head of a language model.
#[derive(Clone, Copy, Debug)]
pub(super) struct WordHead {
    pub dense: &'static str,
    pub norm: &'static str,
    /// The activation; none: the one of the feed-forward networks.
    pub activation: Option<Activation>,
    /// The last layer where it is not the table of words.
    pub decoder: &'static str,
    pub bias: &'static str,
    /// The bias of a last layer of its own, the other one being idle then; none: there is one only.
    pub own_bias: Option<&'static str>,
}

/// A head of classes: layers on the first token's state, or on each.
#[derive(Clone, Debug)]
pub(super) struct ClassHead {
    /// Whether it reads the first token only.
    pub first: bool,
    /// Whether something is dropped in front of the first layer.
    pub drop_first: bool,
    /// A layer in front of the last, and its activation.
    pub dense: Option<(String, Option<Activation>)>,
    /// Whether something is dropped in front of the last layer.
    pub drop_last: bool,
    /// The last layer.
    pub last: &'static str,
    /// Classes.
    pub labels: usize,
}

const NO_LABELS: usize = 0;
const CLASSES: EncoderHead = EncoderHead::SequenceClassification { labels: NO_LABELS };
const TAGS: EncoderHead = EncoderHead::TokenClassification { labels: NO_LABELS };
const GAMMA_AND_BETA: &[(&str, &str)] =
    &[("LayerNorm.weight", "LayerNorm.gamma"), ("LayerNorm.bias", "LayerNorm.beta")];
/// Buffers of older versions.
const BUFFERS: &[&str] = &["embeddings.position_ids", "embeddings.token_type_ids"];

const BERT: Names = Names {
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

const ROBERTA: Names = Names {
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

const XLM_ROBERTA: Names = Names { model_type: "xlm-roberta", class: "XLMRoberta", ..ROBERTA };

const DISTILBERT: Names = Names {
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

const ELECTRA: Names = Names {
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

const ALBERT: Names = Names {
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

impl BertFamily {
    pub(super) fn names(self) -> &'static Names {
        match self {
            Self::Bert => &BERT,
            Self::Roberta => &ROBERTA,
            Self::XlmRoberta => &XLM_ROBERTA,
            Self::DistilBert => &DISTILBERT,
            Self::Electra => &ELECTRA,
            Self::Albert => &ALBERT,
        }
    }

    /// Whether positions count the tokens that are no padding, behind the padding's number.
    pub(super) fn counts_from_padding(self) -> bool {
        matches!(self, Self::Roberta | Self::XlmRoberta)
    }

    /// Whether embeddings have a width of their own.
    pub(super) fn factorises(self) -> bool {
        matches!(self, Self::Electra | Self::Albert)
    }

    /// The layers of a head of classes; `activation` is that of the feed-forward networks, `summary` that of a layer by which ELECTRA chooses.
    pub(super) fn class_head(
        self,
        head: EncoderHead,
        activation: Activation,
        summary: Option<Activation>,
    ) -> Option<ClassHead> {
        let names = self.names();
        let pooler = || Some((format!("{}{}", names.naming.base, names.pooler?), Some(Activation::Tanh)));
        let of_text = |labels| match self {
            Self::Bert | Self::Albert => {
                let dense = pooler();
                ClassHead { first: true, drop_first: false, dense, drop_last: true, last: "classifier", labels }
            }
            Self::DistilBert => {
                let dense = Some(("pre_classifier".into(), Some(Activation::Relu)));
                ClassHead { first: true, drop_first: false, dense, drop_last: true, last: "classifier", labels }
            }
            Self::Roberta | Self::XlmRoberta | Self::Electra => {
                let kind = if self == Self::Electra { Activation::GeluErf } else { Activation::Tanh };
                let dense = Some(("classifier.dense".into(), Some(kind)));
                ClassHead { first: true, drop_first: true, dense, drop_last: true, last: "classifier.out_proj", labels }
            }
        };
        let of_tokens = |last, labels, drop_last| {
            let (first, drop_first, dense) = (false, false, None);
            Some(ClassHead { first, drop_first, dense, drop_last, last, labels })
        };
        match head {
            EncoderHead::SequenceClassification { labels } => Some(of_text(labels)),
            EncoderHead::MultipleChoice => {
                let dense = match self {
                    Self::Electra => Some(("sequence_summary.summary".into(), summary)),
                    Self::DistilBert => of_text(1).dense,
                    _ => pooler(),
                };
                Some(ClassHead { drop_first: false, dense, last: "classifier", ..of_text(1) })
            }
            EncoderHead::NextSentence | EncoderHead::PreTraining => {
                Some(ClassHead { drop_last: false, last: "cls.seq_relationship", ..of_text(2) })
            }
            EncoderHead::SentenceOrder => Some(ClassHead { last: "sop_classifier.classifier", ..of_text(2) }),
            EncoderHead::TokenClassification { labels } => of_tokens("classifier", labels, true),
            EncoderHead::QuestionAnswering => of_tokens("qa_outputs", 2, self == Self::DistilBert),
            EncoderHead::ReplacedTokens => {
                let dense = Some(("discriminator_predictions.dense".into(), Some(activation)));
                let head = of_tokens("discriminator_predictions.dense_prediction", 1, false)?;
                Some(ClassHead { dense, ..head })
            }
            EncoderHead::None | EncoderHead::MaskedLanguageModel | EncoderHead::NextToken => None,
        }
    }
}
