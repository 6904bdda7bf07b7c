//! What models with an encoder and a decoder have in common.

use super::{Decoder, Encoder};
use crate::dtype::DType;
use crate::error::Result;
use crate::graph::Graph;
use crate::nn::{Context, Stack, TokenInputs};

/// The number of a decoder's first block where something is dropped: encoders' blocks come before.
pub(super) const DECODER_SALT: u32 = 1 << 16;
/// What tells dropout behind the last block of a side from other places.
pub(super) const LAST_SALT: u32 = 1 << 27;

/// [`super::Model::declare`] of an encoder-decoder.
pub(super) fn declare(encoder: &dyn Encoder, decoder: &dyn Decoder, g: &mut Graph) -> Result<()> {
    let ids = g.input("ids", [1, 1], DType::U32)?;
    let inputs = TokenInputs::new(g, ids)?;
    let states = encoder.encode(g, &inputs)?.states;
    decoder.decode(g, &inputs.with_context(Context::States { states, key_mask: None }))?;
    decoder.lm_head(g).map(|_| ())
}

/// The floating-point operations of a stack for one token that sees `context` keys.
pub(super) fn flops(stack: &Stack, d_model: usize, context: usize) -> u64 {
    let block = |block: &crate::nn::Block| {
        let attention = |[query, key_value]: [usize; 2]| {
            2 * (2 * d_model * (query + key_value)) as u64 + 4 * (query * context) as u64
        };
        let cross = block.cross.as_ref().map_or(0, |(_, cross)| attention(cross.features()));
        attention(block.attention.features()) + cross + 2 * block.feed_forward.active_parameters(d_model) as u64
    };
    stack.blocks.iter().map(block).sum()
}
