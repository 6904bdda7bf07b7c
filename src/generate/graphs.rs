//! The graphs of a generator.

use super::generator::GenerateLimits;
use super::pick::TokenPick;
use crate::dtype::DType;
use crate::error::Result;
use crate::graph::{Graph, Storage, Tensor};
use crate::models::{Decoder, TokenInputs};
use crate::nn::{Context, KvSource};
use crate::ops;

/// The rows of a graph.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rows {
    /// Rows that answer one prompt, which share what an encoder gave.
    pub(super) beams: usize,
    /// Tokens of each.
    pub(super) bucket: usize,
    /// What is computed of the last.
    pub(super) pick: TokenPick,
}

/// See [`Generator::prefill_graph`](super::Generator::prefill_graph).
pub(super) fn prefill_graph(
    model: &dyn Decoder,
    storage: &Storage,
    limits: GenerateLimits,
    rows: Rows,
) -> Result<Graph> {
    let max_tokens = limits.max_tokens;
    // The beams of a prompt begin alike: it is read once, and they go on from the first one's caches.
    let (batch, beams) = (limits.batch / rows.beams, rows.beams);
    let mut g = Graph::with_storage(storage);
    let ids = g.input("ids", [batch, rows.bucket], DType::U32)?;
    let last = g.input("last", [batch], DType::U32)?;
    let lengths = g.input("lengths", [batch], DType::U32)?;
    let kv = KvSource::Prefill { capacity: max_tokens, lengths, beams };
    let context = context(model, &mut g, limits, beams)?;
    let inputs = TokenInputs { kv, context, ..TokenInputs::new(&mut g, ids)? };
    let hidden = model.decode(&mut g, &inputs)?.states;
    let hidden = as_rows(&mut g, hidden)?;
    let hidden = ops::gather_rows(&mut g, hidden, last)?;
    let logits = model.logits(&mut g, hidden)?;
    rows.pick.outputs(&mut g, logits)?;
    Ok(g)
}

/// See [`Generator::decode_graph`](super::Generator::decode_graph).
pub(super) fn decode_graph(
    model: &dyn Decoder,
    storage: &Storage,
    limits: GenerateLimits,
    rows: Rows,
) -> Result<Graph> {
    let GenerateLimits { batch, max_tokens } = limits;
    let mut g = Graph::with_storage(storage);
    let ids = g.input("ids", [batch, rows.bucket], DType::U32)?;
    let positions = g.input("positions", [batch, rows.bucket], DType::U32)?;
    let lengths = g.input("lengths", [batch], DType::U32)?;
    let kv = KvSource::Decode { capacity: max_tokens, lengths };
    let inputs = TokenInputs {
        ids,
        type_ids: None,
        context: context(model, &mut g, limits, rows.beams)?,
        positions,
        max_position: max_tokens,
        kv,
        tree: None,
        prefix: None,
        documents: None,
        dropout_seed: None,
        training: false,
    };
    let hidden = model.decode(&mut g, &inputs)?.states;
    let hidden = as_rows(&mut g, hidden)?;
    let logits = model.logits(&mut g, hidden)?;
    rows.pick.outputs(&mut g, logits)?;
    Ok(g)
}

/// The sizes of a graph whose rows keep their keys and values in pages.
#[derive(Clone, Copy, Debug)]
pub(super) struct PagedSizes {
    pub(super) rows: usize,
    /// New tokens of each.
    pub(super) time: usize,
    /// The most tokens of a row.
    pub(super) max_tokens: usize,
    /// Positions of a page.
    pub(super) page: usize,
    pub(super) pages_of_row: usize,
    /// Pages of all rows.
    pub(super) pages: usize,
    pub(super) pick: TokenPick,
}

/// The graph that adds tokens to rows of different lengths. Inputs `ids`, `positions` and `slots (B, T)`, `table (B, P)`, `lengths (B)`, and with
/// more than one token `last (B)`, as of a prefill.
pub(super) fn paged_graph(model: &dyn Decoder, storage: &Storage, sizes: &PagedSizes) -> Result<Graph> {
    let PagedSizes { rows, time, max_tokens, page, pages_of_row, pages, pick } = *sizes;
    let mut g = Graph::with_storage(storage);
    let ids = g.input("ids", [rows, time], DType::U32)?;
    let positions = g.input("positions", [rows, time], DType::U32)?;
    let slots = g.input("slots", [rows, time], DType::U32)?;
    let table = g.input("table", [rows, pages_of_row], DType::U32)?;
    let lengths = g.input("lengths", [rows], DType::U32)?;
    let kv = KvSource::Pages { table, page, pages, slots, lengths };
    let inputs = TokenInputs { positions, max_position: max_tokens, kv, ..TokenInputs::new(&mut g, ids)? };
    let hidden = model.decode(&mut g, &inputs)?.states;
    let mut hidden = as_rows(&mut g, hidden)?;
    if time > 1 {
        let last = g.input("last", [rows], DType::U32)?;
        hidden = ops::gather_rows(&mut g, hidden, last)?;
    }
    let logits = model.logits(&mut g, hidden)?;
    pick.outputs(&mut g, logits)?;
    Ok(g)
}

/// The cached keys and values of cross-attention from [`Generator::encode_graph`](super::Generator::encode_graph), for encoder-decoder models.
fn context(model: &dyn Decoder, g: &mut Graph, limits: GenerateLimits, beams: usize) -> Result<Option<Context>> {
    if model.encoder().is_none() {
        return Ok(None);
    }
    let lengths = g.input("source_lengths", [limits.batch / beams], DType::U32)?;
    Ok(Some(Context::Cached { capacity: limits.max_tokens, lengths }))
}

fn as_rows(g: &mut Graph, hidden: Tensor) -> Result<Tensor> {
    let (rows, d_model) = (g.shape(hidden).rows(), g.shape(hidden).last());
    ops::reshape(g, hidden, [rows, d_model])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::Config;
    use serde_json::json;

    #[test]
    fn a_prompt_is_read_once_for_all_of_its_beams() -> Result<()> {
        let config =
            json!({"model_type": "gpt2", "vocab_size": 11, "n_embd": 8, "n_head": 2, "n_layer": 1, "n_positions": 40});
        let model = crate::models::decoder(&Config::new("config.json", config)?)?;
        let (limits, storage) = (GenerateLimits { batch: 8, max_tokens: 32 }, Storage::default());
        let rows = Rows { beams: 4, bucket: 16, pick: TokenPick::Logits };
        let g = prefill_graph(model.as_ref(), &storage, limits, rows)?;
        let of = |name: &str| g.inputs().find(|(input, _)| *input == name).map(|(_, ids)| g.shape(ids).dims().to_vec());
        assert_eq!((of("ids"), of("last")), (Some(vec![2, 16]), Some(vec![2])));
        let caches: Vec<usize> = g.states().map(|(_, state)| g.shape(state).dims()[0]).collect();
        assert_eq!(caches, [8, 8], "rows of caches");
        Ok(())
    }
}
