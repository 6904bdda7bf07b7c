//! Sides as stacks of blocks.

use super::{Positions, SHARED, Side, Transformer};
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::graph::{Graph, Initial, Tensor};
use crate::models::model::DECODER_SALT;
use crate::models::{Hidden, LmHead, TokenInputs};
use crate::nn::{
    self, Attention, Balance, Block, FeedForward, Heads, LinearConfig, Mask, NormKind, QkvNames, Recursion, Stack,
};
use crate::ops::{self, WeightLayout};

impl Transformer {
    fn norm(&self) -> NormKind {
        NormKind::Layer { eps: self.epsilon }
    }

    pub(super) fn linear(&self) -> LinearConfig {
        LinearConfig::out_in(true).with_std(self.init_std)
    }

    fn attention(&self, module: &'static str, heads: usize, mask: Mask) -> Attention {
        let heads = Heads { query: heads, key_value: heads, head_dim: self.d_model / heads };
        let names = (module, QkvNames::Separate(["q_proj", "k_proj", "v_proj"]), "out_proj");
        Attention { dropout: self.attention_dropout, ..Attention::new(names, self.linear(), heads, mask) }
    }

    fn feed_forward(&self, side: &Side, layer: usize) -> FeedForward {
        let activation = self.activation;
        match side.mixture.as_ref().filter(|mixture| !mixture.dense_layers.contains(&layer)) {
            Some(mixture) => FeedForward::Experts {
                experts: mixture.experts.clone(),
                activation,
                choice: side.expert_choice,
                std: [self.init_std; 2],
            },
            None => FeedForward::Plain {
                names: ["fc1", "fc2"],
                d_ff: side.d_ff,
                activation,
                linear: self.linear(),
                output_linear: self.linear(),
            },
        }
    }

    pub(super) fn stack(&self, side: &Side, decodes: bool) -> Stack {
        let name = if decodes { "decoder" } else { "encoder" };
        let mask = if decodes { Mask::Causal } else { Mask::Bidirectional };
        let cross = || {
            let attention = self.attention("encoder_attn", side.heads, Mask::Bidirectional);
            ("encoder_attn_layer_norm".into(), attention)
        };
        let block = |layer: usize| Block {
            prefix: format!("model.{name}.layers.{layer}"),
            norm: self.norm(),
            order: self.order,
            attention_norm: "self_attn_layer_norm".into(),
            attention: self.attention("self_attn", side.heads, mask),
            cross: (decodes && self.encoder.is_some()).then(cross),
            feed_forward_norm: "final_layer_norm".into(),
            feed_forward: self.feed_forward(side, layer),
            parallel: false,
            dropout: self.dropout,
            activation_dropout: self.activation_dropout,
            residual_scale: 1.0,
        };
        let stored = side.recursion.as_ref().map_or(side.layers, Recursion::stored);
        Stack {
            blocks: (0..stored).map(block).collect(),
            recursion: side.recursion.clone().map(|recursion| Recursion { std: self.init_std, ..recursion }),
            final_norm: self.final_norm.then(|| (self.norm(), format!("model.{name}.layer_norm"))),
            balance: side.mixture.as_ref().map_or_else(Balance::default, |mixture| mixture.balance),
            salt: if decodes { DECODER_SALT } else { 0 },
        }
    }

    /// The table of words of a side.
    fn table(&self, g: &mut Graph, side: &str) -> Result<Tensor> {
        let words = Initial::Normal(self.init_std);
        match self.decoder_vocabulary {
            Some(own) => {
                let tokens = if side == "decoder" { own } else { self.vocabulary };
                g.matrix(&format!("model.{side}.embed_tokens.weight"), [tokens, self.d_model], words)
            }
            None => g.matrix(SHARED, [self.vocabulary, self.d_model], words),
        }
    }

    /// Tokens that the head tells apart.
    pub(super) fn target_vocabulary(&self) -> usize {
        self.decoder_vocabulary.unwrap_or(self.vocabulary)
    }

    /// Words and positions.
    fn embeddings(&self, g: &mut Graph, name: &str, inputs: &TokenInputs, salt: u32) -> Result<Tensor> {
        let table = self.table(g, name)?;
        let mut x = ops::embedding_with_padding(g, table, inputs.ids, self.padding)?;
        if self.scale_embedding {
            x = ops::scale(g, x, (self.d_model as f32).sqrt())?;
        }
        let (count, d_model) = (self.max_position, self.d_model);
        let positions = match self.positions {
            Positions::Learned { offset } => {
                let rows = Initial::Normal(self.init_std);
                let table =
                    g.matrix(&format!("model.{name}.embed_positions.weight"), [count + offset, d_model], rows)?;
                let ids = ops::shift_ids(g, inputs.positions, offset as u32)?;
                ops::embedding(g, table, ids)?
            }
            Positions::Sinusoidal | Positions::SinusoidalHalves => {
                let shape = [inputs.max_position, d_model];
                let table = match self.positions {
                    Positions::Sinusoidal => ops::sinusoidal_table(shape[0], shape[1])?,
                    _ => ops::sinusoidal_table_halves(shape[0], shape[1])?,
                };
                let table = g.constant("sinusoids", table, DType::F32);
                ops::embedding(g, table, inputs.positions)?
            }
        };
        x = ops::add(g, x, positions)?;
        if self.embedding_norm {
            x = self.norm().apply(g, &format!("model.{name}.layernorm_embedding"), x)?;
        }
        nn::dropout(g, x, self.dropout, inputs.dropout_seed, 2 * salt)
    }

    /// The states of a side.
    pub(super) fn run(
        &self,
        g: &mut Graph,
        side: Option<&Side>,
        decodes: bool,
        inputs: &TokenInputs,
    ) -> Result<Hidden> {
        let name = if decodes { "decoder" } else { "encoder" };
        let side = side.ok_or_else(|| Error::Graph(format!("this model has no {name}")))?;
        inputs.check(self.max_position, "max_position_embeddings")?;
        let stack = self.stack(side, decodes);
        let run = |g: &mut Graph| {
            let x = g.scope("embedding", |g| self.embeddings(g, name, inputs, stack.salt))?;
            stack.run(g, x, inputs)
        };
        // A model of one side has the names of one.
        if self.encoder.is_some() && self.decoder.is_some() { g.scope(name, run) } else { run(g) }
    }

    pub(super) fn sides(&self) -> impl Iterator<Item = (&Side, bool)> {
        self.encoder.iter().map(|side| (side, false)).chain(self.decoder.iter().map(|side| (side, true)))
    }

    pub(super) fn table_head(&self, g: &mut Graph) -> Result<LmHead> {
        let tokens = self.target_vocabulary();
        if self.unused_shared {
            g.matrix(SHARED, [self.vocabulary, self.d_model], Initial::Normal(self.init_std))?;
        }
        let weight = match self.tied {
            true => self.table(g, "decoder")?,
            false => g.matrix("lm_head.weight", [tokens, self.d_model], Initial::Normal(self.init_std))?,
        };
        let bias = match self.logits_bias {
            true => {
                let bias = g.full_precision("final_logits_bias", [1, tokens], Initial::Zeros)?;
                let bias = ops::detach(g, bias)?;
                Some(ops::reshape(g, bias, [tokens])?)
            }
            false => None,
        };
        Ok(LmHead { weight, bias, layout: WeightLayout::OutIn, scale: 1.0, soft_cap: None })
    }
}
