//! Decoders that continue texts, without an encoder: what their families say of themselves, and what is the same for all of them.

use super::{Decoder, Dimensions, Hidden, Initial, LmHead, Model, Naming, TokenInputs};
use crate::error::Result;
use crate::graph::Graph;
use crate::nn::{self, Stack};
use crate::ops;
use serde_json::Value;
use std::fmt::Debug;

/// What stands in front of such a decoder's blocks and behind them, as data. Names are those of files.
pub(super) struct CausalParts {
    /// The sizes.
    pub(super) dimensions: Dimensions,
    /// The key of the longest sequence.
    pub(super) longest: &'static str,
    /// The names of its parameters.
    pub(super) naming: Naming,
    /// The table of words.
    pub(super) words: &'static str,
    /// The token whose row learns nothing from being looked up.
    pub(super) padding: Option<u32>,
    /// The factor of what is looked up.
    pub(super) scale: f32,
    /// The table of learned positions, if there is one.
    pub(super) positions: Option<&'static str>,
    /// The rate of dropout on embeddings.
    pub(super) dropout: f32,
    /// The weight of the head, which is the table of words where it is tied.
    pub(super) head: &'static str,
    /// The factor of logits.
    pub(super) logit_scale: f32,
    /// The soft cap of logits.
    pub(super) logit_cap: Option<f32>,
    /// The standard deviation of fresh tables and heads.
    pub(super) std: f64,
}

/// A family of such decoders.
pub(super) trait CausalFamily: Debug + Send + Sync + 'static {
    /// The `config.json`.
    fn written(&self) -> Value;

    /// The blocks.
    fn stack(&self) -> Stack;

    /// What stands in front of them and behind them.
    fn parts(&self) -> CausalParts;
}

impl<F: CausalFamily> Model for F {
    fn config(&self) -> Value {
        self.written()
    }

    fn dimensions(&self) -> Dimensions {
        self.parts().dimensions
    }

    fn naming(&self) -> Naming {
        self.parts().naming
    }

    fn stacks(&self) -> Vec<Stack> {
        vec![self.stack()]
    }

    fn dropout_rates(&self) -> Vec<f32> {
        vec![self.parts().dropout]
    }

    fn decoder(&self) -> Option<&dyn Decoder> {
        Some(self)
    }

    fn into_decoder(self: Box<Self>) -> Option<Box<dyn Decoder>> {
        Some(self)
    }
}

impl<F: CausalFamily> Decoder for F {
    fn decode(&self, g: &mut Graph, inputs: &TokenInputs) -> Result<Hidden> {
        let parts = self.parts();
        let Dimensions { vocabulary, max_position, d_model, .. } = parts.dimensions;
        inputs.check(max_position, parts.longest)?;
        let x = g.scope("embedding", |g| {
            let table = g.matrix(parts.words, [vocabulary, d_model], Initial::Normal(parts.std))?;
            let mut x = ops::embedding_with_padding(g, table, inputs.ids, parts.padding)?;
            x = nn::scaled(g, x, parts.scale)?;
            if let Some(positions) = parts.positions {
                let table = g.matrix(positions, [max_position, d_model], Initial::Normal(parts.std))?;
                let positions = ops::embedding(g, table, inputs.positions)?;
                x = ops::add(g, x, positions)?;
            }
            nn::dropout(g, x, parts.dropout, inputs.dropout_seed, 0)
        })?;
        self.stack().run(g, x, inputs)
    }

    fn lm_head(&self, g: &mut Graph) -> Result<LmHead> {
        let CausalParts { dimensions, head, logit_scale, logit_cap, std, .. } = self.parts();
        let head = LmHead::new(g, head, [dimensions.vocabulary, dimensions.d_model], std)?;
        Ok(LmHead { scale: logit_scale, soft_cap: logit_cap, ..head })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dtype::DType;
    use crate::graph::{Array, Values};
    use crate::io::Config;
    use crate::ops::CrossEntropyOptions;
    use serde_json::json;

    /// The gradient of each row of the table of words, of a text in which the token of padding stands.
    fn rows(more: Value) -> Result<Vec<Vec<f64>>> {
        const IDS: [f64; 5] = [1.0, 3.0, 6.0, 3.0, 2.0];
        let mut config = json!({"model_type": "llama", "vocab_size": 7, "hidden_size": 4, "num_attention_heads": 2,
                                "num_hidden_layers": 1, "intermediate_size": 5, "head_dim": 2});
        for (key, value) in more.as_object().into_iter().flatten() {
            config[key] = value.clone();
        }
        let model = crate::models::decoder(&Config::new("config.json", config)?)?;
        let mut g = Graph::new();
        let (ids, labels) = (g.input("ids", [1, 5], DType::U32)?, g.input("labels", [1, 5], DType::I32)?);
        let inputs = TokenInputs::new(&mut g, ids)?;
        let states = model.decode(&mut g, &inputs)?.states;
        let loss = model.loss_of(&mut g, states, labels, &CrossEntropyOptions::default())?;
        let fill = |(name, tensor)| {
            let value = |i: usize| (1.3 * i as f64 + str::len(name) as f64).sin();
            (name.to_owned(), Array::from_fn(g.shape(tensor).clone(), value))
        };
        let mut values: Values = g.parameters().map(fill).collect();
        values.insert("ids".into(), Array::new([1, 5], IDS.to_vec())?);
        values.insert("labels".into(), Array::new([1, 5], [IDS.to_vec(), vec![1.0]].concat()[1..].to_vec())?);
        let Some((_, table)) = g.parameters().next() else { return Ok(Vec::new()) };
        let Some(gradient) = g.differentiate(loss, &[table])?[0] else { return Ok(Vec::new()) };
        let found = g.evaluate(&values, &[gradient])?.remove(0);
        Ok((0..7).map(|row| found.row(row).to_vec()).collect())
    }

    #[test]
    fn the_token_of_padding_learns_nothing_from_being_looked_up() -> Result<()> {
        let is_zero = |row: &[f64]| row.iter().all(|x| *x == 0.0);
        // Where the key is missing a Llama has none; negative ids count from behind, and those that are no word mean nothing.
        for (padding, rests) in [(None, 9), (Some(json!(3)), 3), (Some(json!(-1)), 6), (Some(json!(7)), 9)] {
            let mut key = json!({});
            if let Some(id) = &padding {
                key[crate::models::PADDING] = id.clone();
            }
            for (row, gradient) in rows(key)?.iter().enumerate() {
                let idle = row == rests || ![1, 2, 3, 6].contains(&row);
                assert_eq!(is_zero(gradient), idle, "{padding:?}, row {row}");
            }
        }
        // The head's part of a table that is tied counts.
        let tied = |padding: Value| rows(json!({"tie_word_embeddings": true, "pad_token_id": padding}));
        let (all, some) = (tied(Value::Null)?, tied(json!(3))?);
        for row in 0..7 {
            assert!(!is_zero(&some[row]));
            assert_eq!(all[row] == some[row], row != 3, "row {row}");
        }
        // Some families have one without the key.
        for (family, padding) in
            [("llama", None), ("gemma", Some(0)), ("olmoe", Some(1)), ("smollm3", None), ("phi3", None)]
        {
            let config = json!({"model_type": family, "vocab_size": 7, "hidden_size": 4, "num_attention_heads": 4, "num_key_value_heads": 4,
                                "num_hidden_layers": 1, "intermediate_size": 5, "head_dim": 2, "num_experts": 2, "num_experts_per_tok": 1});
            let model = crate::models::Llama::from_config(&Config::new("config.json", config)?)?;
            assert_eq!((model.padding, &model.config()["pad_token_id"]), (padding, &json!(padding)), "{family}");
        }
        Ok(())
    }
}
