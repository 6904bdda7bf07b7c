//! Weight sharing between layers, and routing of tokens through them.

use super::{ExpertChoiceRouting, TokenChoiceRouting};

/// Weight sharing between layers. With `b` stored layers that recur and `R` recursions:
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Sharing {
    /// `1 … b`, again `1 … b`, and so on.
    Cycle,
    /// As `Cycle`, between a first and a last layer of their own.
    MiddleCycle,
    /// `1`, `R` times in a row, then `2`, and so on.
    Sequence,
    /// As `Sequence`, between a first and a last layer of their own.
    MiddleSequence,
}

impl Sharing {
    /// Whether the first and the last layer are not shared.
    #[must_use]
    pub fn has_ends(self) -> bool {
        matches!(self, Self::MiddleCycle | Self::MiddleSequence)
    }

    /// Whether the whole block is used again, not each layer for itself.
    #[must_use]
    pub fn is_cycle(self) -> bool {
        matches!(self, Self::Cycle | Self::MiddleCycle)
    }
}

/// The routing of tokens through the recursions.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum RecursionRouting {
    /// No router: all tokens go through it `R` times.
    None,
    /// Each recursion chooses its tokens.
    ExpertChoice(ExpertChoiceRouting),
    /// Each token chooses its depth.
    TokenChoice(TokenChoiceRouting),
}

/// The recursions of a stack: its middle is one block of layers, used several times, for each token as often as a router decides.
///
/// Layers are stored once. Padding is on the right of each row, and a mask is taken as the number of real tokens.
#[derive(Clone, Debug, PartialEq)]
pub struct Recursion {
    /// The prefix of the names of the routers' weights: `model.`
    pub prefix: String,
    /// The number of recursions.
    pub recursions: usize,
    /// The layers that share their weights.
    pub sharing: Sharing,
    /// The routing of tokens.
    pub routing: RecursionRouting,
    /// Recursions after the first attend to keys and values of the first, and keep none.
    pub kv_sharing: bool,
    /// The uses of all layers by a token that goes all the way: the layers of the model without recursions.
    pub layers: usize,
    /// The standard deviation of fresh routers.
    pub std: f64,
}

impl Recursion {
    /// Layers of a block.
    #[must_use]
    pub fn block_layers(&self) -> usize {
        (self.layers - 2 * self.first()) / self.recursions
    }

    /// The first layer of the (first) block.
    #[must_use]
    pub fn first(&self) -> usize {
        usize::from(self.sharing.has_ends())
    }

    /// Blocks to choose from.
    #[must_use]
    pub fn modules(&self) -> usize {
        if let RecursionRouting::TokenChoice(choice) = &self.routing { choice.modules } else { 1 }
    }

    /// The layer behind the blocks.
    #[must_use]
    pub fn behind(&self) -> usize {
        self.first() + self.modules() * self.block_layers()
    }

    /// Layers that are stored.
    #[must_use]
    pub fn stored(&self) -> usize {
        self.behind() + self.first()
    }

    /// The layers of the model without recursions that a stored layer stands for, ascending: those that are tied together.
    /// Blocks to choose from stand for the same ones.
    #[must_use]
    pub fn tied(&self, stored: usize) -> Vec<usize> {
        let (first, block) = (self.first(), self.block_layers());
        if stored < first {
            return vec![stored];
        }
        if stored >= self.behind() {
            return vec![self.layers - 1];
        }
        let index = (stored - first) % block;
        let of = |recursion| match self.sharing.is_cycle() {
            true => recursion * block + index,
            false => index * self.recursions + recursion,
        };
        (0..self.recursions).map(|recursion| first + of(recursion)).collect()
    }

    /// The index of a stored layer within its block, and the first layer and the number of layers of the model without
    /// recursions that the block is used for; none of a layer that does not recur.
    pub(crate) fn index_in_block(&self, stored: usize) -> Option<(usize, usize, usize)> {
        let inside = (self.first()..self.behind()).contains(&stored);
        let (first, block) = (self.first(), self.block_layers());
        inside.then(|| ((stored - first) % block, first, block * self.recursions))
    }

    /// The uses of all layers where routers decide, those of every module counted.
    pub(crate) fn routed_uses(&self) -> usize {
        2 * self.first() + self.modules() * self.recursions * self.block_layers()
    }

    /// The stored layers in the order of their uses by a model without routers, each with its recursion.
    pub(crate) fn order(&self) -> Vec<(usize, usize)> {
        let (first, block) = (self.first(), self.block_layers());
        let recursions = 0..self.recursions;
        let layers = first..first + block;
        let mut order: Vec<(usize, usize)> = (0..first).map(|layer| (layer, 0)).collect();
        match self.sharing.is_cycle() {
            true => order.extend(recursions.flat_map(|r| layers.clone().map(move |layer| (layer, r)))),
            false => order.extend(layers.flat_map(|layer| recursions.clone().map(move |r| (layer, r)))),
        }
        order.extend((0..first).map(|i| (self.behind() + i, 0)));
        order
    }
}
