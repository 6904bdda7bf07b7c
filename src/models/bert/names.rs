//! What BERT and its relatives call their weights, and which layers their heads have.

use super::relatives::{ALBERT, BERT, DISTILBERT, ELECTRA, ROBERTA, XLM_ROBERTA};
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
