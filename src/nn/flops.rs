//! The floating-point operations of blocks.

use super::attention::Attention;
use super::block::Block;
use super::recursion::{Recursion, RecursionRouting};
use super::stack::Stack;

impl Block {
    /// The floating-point operations of the forward pass for one token that sees `context` keys.
    #[must_use]
    pub fn forward_flops(&self, d_model: usize, context: usize) -> u64 {
        let attention = |attention: &Attention| {
            2 * attention.active_parameters(d_model) as u64 + 4 * (attention.features()[0] * context) as u64
        };
        let cross = self.cross.as_ref().map_or(0, |(_, cross)| attention(cross));
        attention(&self.attention) + cross + 2 * self.feed_forward.active_parameters(d_model) as u64
    }
}

impl Stack {
    /// The floating-point operations of the forward pass for one token that sees `context` keys.
    #[must_use]
    pub fn forward_flops(&self, d_model: usize, context: usize) -> u64 {
        let layers = |count: usize, context: usize| {
            self.blocks.iter().take(count).map(|block| block.forward_flops(d_model, context)).sum()
        };
        match &self.recursion {
            Some(recursion) => recursion.forward_flops(context, layers),
            None => layers(self.blocks.len(), context),
        }
    }
}

impl Recursion {
    /// The same if `layers(count, context)` takes those of so many layers: a recursion over a share of the tokens counts its share, and
    /// that squared for attention. Where tokens choose their depth, kernels run over all of them.
    fn forward_flops(&self, context: usize, layers: impl Fn(usize, usize) -> u64) -> u64 {
        let shares = match &self.routing {
            RecursionRouting::ExpertChoice(choice) => choice.capacity.clone(),
            _ => vec![1.0; self.recursions * self.modules()],
        };
        let block = |share: &f64| {
            let seen = (context as f64 * share) as usize;
            (share * layers(self.block_layers(), seen) as f64) as u64
        };
        layers(2 * self.first(), context) + shares.iter().map(block).sum::<u64>()
    }
}
