//! The blocks of a T5.

use super::T5;
use crate::models::model::DECODER_SALT;
use crate::nn::{
    Attention, Balance, Block, FeedForward, Heads, LinearConfig, Mask, NormKind, NormOrder, QkvNames, RelativeBias,
    RelativeBuckets, Stack,
};

impl T5 {
    pub(super) fn norm(&self) -> NormKind {
        NormKind::Rms { eps: self.epsilon }
    }

    /// The standard deviation of a fresh matrix that so many features go into.
    pub(super) fn std(&self, features: usize) -> f64 {
        self.factor / (features as f64).sqrt()
    }

    /// A layer that so many features go into.
    pub(super) fn linear(&self, features: usize) -> LinearConfig {
        LinearConfig::out_in(false).with_std(self.std(features))
    }

    pub(super) fn attention(&self, module: &'static str, mask: Mask, relative: Option<RelativeBias>) -> Attention {
        let heads = Heads { query: self.heads, key_value: self.heads, head_dim: self.head_dim };
        Attention {
            // Scores have no scale: fresh queries do.
            query_std: self.std(self.d_model * self.head_dim),
            output_linear: self.linear(self.heads * self.head_dim),
            scale: Some(1.0),
            relative,
            dropout: self.dropout,
            ..Attention::new((module, QkvNames::Separate(["q", "k", "v"]), "o"), self.linear(self.d_model), heads, mask)
        }
    }

    pub(super) fn stack(&self, side: &'static str) -> Stack {
        let decodes = side == "decoder";
        let (layers, mask) =
            if decodes { (self.decoder_layers, Mask::Causal) } else { (self.layers, Mask::Bidirectional) };
        let relative = RelativeBias::Buckets(RelativeBuckets {
            name: format!("{side}.block.0.layer.0.SelfAttention.relative_attention_bias.weight"),
            buckets: self.buckets,
            max_distance: self.max_distance,
            bidirectional: !decodes,
            std: self.std(self.d_model),
        });
        let norm = if decodes { "layer.2.layer_norm" } else { "layer.1.layer_norm" };
        let (module, plain) = match (decodes, self.switch.is_some()) {
            (true, false) => ("layer.2.DenseReluDense", ["layer.2.DenseReluDense.wi", "layer.2.DenseReluDense.wo"]),
            (false, false) => ("layer.1.DenseReluDense", ["layer.1.DenseReluDense.wi", "layer.1.DenseReluDense.wo"]),
            (true, true) => ("layer.2.mlp", ["layer.2.mlp.wi", "layer.2.mlp.wo"]),
            (false, true) => ("layer.1.mlp", ["layer.1.mlp.wi", "layer.1.mlp.wo"]),
        };
        let (d_ff, activation) = (self.d_ff, self.activation);
        let (linear, output_linear) = (self.linear(self.d_model), self.linear(d_ff));
        let feed_forward = match self.gated {
            true => {
                let names = ["wi_0", "wi_1", "wo"];
                FeedForward::Gated { module, names, d_ff, activation, linear, output_linear }
            }
            false => FeedForward::Plain { names: plain, d_ff, activation, linear, output_linear },
        };
        let cross =
            || ("layer.1.layer_norm".into(), self.attention("layer.1.EncDecAttention", Mask::Bidirectional, None));
        let sparse = |layer: usize| self.switch.as_ref()?.feed_forward(self, side, layer);
        let block = |layer: usize| Block {
            prefix: format!("{side}.block.{layer}"),
            norm: self.norm(),
            order: NormOrder::Pre,
            attention_norm: "layer.0.layer_norm".into(),
            attention: self.attention("layer.0.SelfAttention", mask, Some(relative.clone())),
            cross: decodes.then(cross),
            feed_forward_norm: norm.into(),
            feed_forward: sparse(layer).unwrap_or_else(|| feed_forward.clone()),
            parallel: false,
            dropout: self.dropout,
            activation_dropout: self.dropout,
            residual_scale: 1.0,
        };
        Stack {
            blocks: (0..layers).map(block).collect(),
            recursion: None,
            final_norm: Some((self.norm(), format!("{side}.final_layer_norm"))),
            balance: self.switch.as_ref().map_or_else(Balance::default, |switch| switch.balance(side)),
            salt: if decodes { DECODER_SALT } else { 0 },
        }
    }
}
