//! Tables of positions, shared by the layers of a stack.

use crate::error::Result;
use crate::graph::{Graph, Tensor};
use crate::nn::relative::RelativeBias;
use crate::ops::{self, RopeOptions};

/// The table of rotary positions of all layers that rotate alike.
#[derive(Clone, Debug)]
pub struct RotaryTable {
    /// The rotary positions.
    pub options: RopeOptions,
    /// Features of a head.
    pub head_dim: usize,
    /// The result of [`ops::rope_table`], or with `lengths` of [`ops::rope_table_by_length`].
    pub table: Tensor,
    /// The lengths of the texts, as [`ops::rope_rows`] takes them, where frequencies go by them.
    pub lengths: Option<Tensor>,
}

impl RotaryTable {
    /// The rows of the table at these positions, `(B, T)`.
    pub(super) fn rows(&self, g: &mut Graph, positions: Tensor) -> Result<Tensor> {
        match self.lengths {
            Some(lengths) => ops::rope_rows(g, positions, lengths, &self.options),
            None => Ok(positions),
        }
    }
}

/// Tables of positions, shared by the layers of a stack.
#[derive(Clone, Debug, Default)]
pub struct PositionTables {
    /// The tables of rotary positions.
    pub rotary: Vec<RotaryTable>,
    /// Relative biases, of so many heads, `(H, 2T − 1)`, `(H, T, T)` or `(B, H, 1, capacity)`.
    pub relative: Vec<(RelativeBias, usize, Tensor)>,
    /// The rings of caches that keep the last tokens of each row.
    pub rings: Vec<Ring>,
    /// Exclusive upper bound of the positions.
    pub max_position: usize,
}

/// Where caches that keep the last tokens of each row keep new ones: see [`ops::ring_slots`].
#[derive(Clone, Copy, Debug)]
pub struct Ring {
    /// Tokens of a row.
    pub size: usize,
    /// The slot of each new token, `(B, T)`.
    pub slots: Tensor,
    /// The number of tokens that are kept, `(B)`.
    pub held: Tensor,
}
