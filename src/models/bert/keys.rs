//! The keys of a `config.json` that BERT and its relatives name differently.

use super::BertFamily;
use crate::models::EncoderHead;

/// The keys that families name differently, and their defaults.
pub(super) struct Keys {
    pub(super) d_model: &'static str,
    pub(super) layers: &'static str,
    pub(super) heads: &'static str,
    pub(super) d_ff: &'static str,
    pub(super) activation: (&'static str, &'static str),
    pub(super) dropout: (&'static str, f32),
    pub(super) attention_dropout: (&'static str, f32),
}

const KEYS: Keys = Keys {
    d_model: "hidden_size",
    layers: "num_hidden_layers",
    heads: "num_attention_heads",
    d_ff: "intermediate_size",
    activation: ("hidden_act", "gelu"),
    dropout: ("hidden_dropout_prob", 0.1),
    attention_dropout: ("attention_probs_dropout_prob", 0.1),
};

impl BertFamily {
    pub(super) fn keys(self) -> Keys {
        match self {
            Self::DistilBert => Keys {
                d_model: "dim",
                layers: "n_layers",
                heads: "n_heads",
                d_ff: "hidden_dim",
                activation: ("activation", "gelu"),
                dropout: ("dropout", 0.1),
                attention_dropout: ("attention_dropout", 0.1),
            },
            Self::Albert => Keys {
                activation: ("hidden_act", "gelu_new"),
                dropout: ("hidden_dropout_prob", 0.0),
                attention_dropout: ("attention_probs_dropout_prob", 0.0),
                ..KEYS
            },
            _ => KEYS,
        }
    }

    /// The key of dropout in front of a head's layers, and its default, where that is not the rate of all others.
    pub(super) fn head_dropout(self, head: EncoderHead) -> Option<(&'static str, Option<f32>)> {
        match (self, head) {
            (Self::DistilBert, EncoderHead::QuestionAnswering) => Some(("qa_dropout", Some(0.1))),
            (Self::DistilBert, EncoderHead::SequenceClassification { .. } | EncoderHead::MultipleChoice) => {
                Some(("seq_classif_dropout", Some(0.2)))
            }
            (Self::DistilBert, _) => None,
            (Self::Electra, EncoderHead::MultipleChoice) => Some(("summary_last_dropout", Some(0.1))),
            (Self::Albert, _) => Some(("classifier_dropout_prob", Some(0.1))),
            _ => Some(("classifier_dropout", None)),
        }
    }
}
