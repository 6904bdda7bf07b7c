//! The source of keys and values: the tokens themselves, or caches.

use super::{Attention, AttentionUse, Mask, Ring};
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::graph::{Array, Graph, Tensor};
use crate::nn::relative::RelativeBias;
use crate::ops::{self, AttentionOptions, KeyPages};

/// The source of the keys and values of self-attention.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum KvSource {
    /// Whole sequences attend to themselves; keys whose mask `(B, T)` is 0 are padding.
    Uncached {
        /// 1 on real tokens; none: all are real.
        key_mask: Option<Tensor>,
    },
    /// As `Uncached`, from position 0 on, and keys and values are kept in caches of `capacity` positions.
    /// Rows may be padded on the right: no real token sees what stands behind it.
    Prefill {
        /// Positions of a cache.
        capacity: usize,
        /// Real tokens of each row, `(B)`.
        lengths: Tensor,
        /// Rows of the caches for each row, which begin alike: the first of them is written.
        beams: usize,
    },
    /// New tokens at their positions attend to all that the caches hold, and are kept there as well.
    Decode {
        /// Positions of a cache.
        capacity: usize,
        /// Positions in use per row `(B)`, the new tokens included.
        lengths: Tensor,
    },
    /// New tokens at their positions attend to all that their rows have in pages of caches that all rows share, and are kept there as well.
    Pages {
        /// The page of each so many positions of a row, `(B, P)`: see [`crate::ops::KeyPages`].
        table: Tensor,
        /// Positions of a page.
        page: usize,
        /// Pages of a cache.
        pages: usize,
        /// The slot of each new token among those of all pages, `(B, T)`; none where it is too large.
        slots: Tensor,
        /// Positions in use per row `(B)`, the new tokens included.
        lengths: Tensor,
    },
    /// Some tokens of each row side by side, in the order of their positions: they attend to each other only.
    Packed {
        /// The number in use, `(B)`; none: all.
        lengths: Option<Tensor>,
    },
    /// As `Packed`, and keys and values are kept side by side as well, in caches that belong to one recursion of a layer that is
    /// used several times.
    Slots {
        /// The recursion.
        recursion: usize,
        /// Slots of a cache.
        capacity: usize,
        /// The slot of each new token, `(B, T)`.
        slots: Tensor,
        /// Slots in use per row `(B)`, the new tokens included.
        lengths: Tensor,
        /// The position of the token in each slot, `(B, capacity)`, for biases by distance; none: its slot.
        positions: Option<Tensor>,
        /// Nothing has been kept before the new tokens.
        cache_is_empty: bool,
        /// As of `Prefill`; 1 where something has been kept.
        beams: usize,
    },
    /// Tokens attend to keys and values that are there already, those up to their own position.
    Reuse(KeyValues),
}

/// Keys and values that queries attended to.
#[derive(Clone, Copy, Debug)]
pub struct KeyValues {
    /// The keys, `(B, S, H, D)`.
    pub keys: Tensor,
    /// The values, of the same shape.
    pub values: Tensor,
    /// The number in use, `(B)`; none: all.
    pub lengths: Option<Tensor>,
    /// The position of each, `(B, S)`; none: 0, 1, 2, …
    pub positions: Option<Tensor>,
}

impl Attention {
    /// Attention of `q (B, T, H, D)` over `k, v (B, T, Hkv, D)` and what is kept under `module`.
    pub(super) fn attend(
        &self,
        g: &mut Graph,
        module: &str,
        [q, k, v]: [Tensor; 3],
        with: &AttentionUse<'_>,
    ) -> Result<(Tensor, KeyValues)> {
        let (causal, dropout) = (self.mask != Mask::Bidirectional, self.dropout(with));
        let (scale, window, soft_cap) = (self.scale, self.window, self.soft_cap);
        let mut options = AttentionOptions { causal, scale, window, soft_cap, dropout, ..Default::default() };
        let mut found =
            KeyValues { keys: k, values: v, lengths: None, positions: with.picked.then_some(with.positions) };
        let whole = matches!(with.kv, KvSource::Uncached { .. } | KvSource::Packed { .. });
        if !causal && !whole {
            let what = "tokens that see later ones have no caches: only whole sequences attend in both directions";
            return Err(Error::shape("attention", what));
        }
        if with.tree.is_some() && !whole {
            let what = "a tree mask needs whole sequences: a later token may cover what is in the cache";
            return Err(Error::shape("attention", what));
        }
        if with.documents.is_some() && !matches!(with.kv, KvSource::Uncached { .. }) {
            return Err(Error::shape("attention", "only whole sequences hold several texts in a row"));
        }
        options.key_ranges = with.documents.map(|documents| documents.ranges);
        if self.mask == Mask::Prefix {
            options.prefix = prefix(with)?;
        }
        options.tree = with.tree;
        match with.kv {
            KvSource::Uncached { key_mask } => options.key_mask = key_mask,
            KvSource::Prefill { capacity, beams, .. } => {
                let (capacity, slots) = match self.ring(with) {
                    Some(ring) => (ring.size, ring.slots),
                    None => (capacity, with.positions),
                };
                self.write_caches(g, module, [capacity, beams], slots, [k, v])?;
            }
            KvSource::Decode { capacity, lengths } => match self.ring(with) {
                Some(ring) => {
                    (found.keys, found.values) = self.write_caches(g, module, [ring.size, 1], ring.slots, [k, v])?;
                    found.lengths = Some(ring.held);
                    // A new token sees all that the ring holds.
                    (options.causal, options.window) = (false, None);
                }
                None => {
                    (found.keys, found.values) = self.write_caches(g, module, [capacity, 1], with.positions, [k, v])?;
                    found.lengths = Some(lengths);
                    options.query_positions = Some(with.positions);
                }
            },
            KvSource::Pages { table, page, pages, slots, lengths } => {
                if self.mask != Mask::Causal {
                    return Err(Error::shape("attention", "pages are for tokens that see those before them only"));
                }
                (found.keys, found.values) = self.write_pages(g, module, page.saturating_mul(pages), slots, [k, v])?;
                found.lengths = Some(lengths);
                options.query_positions = Some(with.positions);
                options.pages = Some(KeyPages { table, size: page });
            }
            KvSource::Packed { lengths } => found.lengths = lengths,
            KvSource::Slots { recursion, capacity, slots, lengths, positions, cache_is_empty, beams } => {
                let module =
                    if recursion == 0 { module.to_owned() } else { format!("{module}.recursions.{recursion}") };
                let caches = self.write_caches(g, &module, [capacity, beams], slots, [k, v])?;
                found.lengths = Some(lengths);
                if !cache_is_empty {
                    (found.keys, found.values) = caches;
                    found.positions = positions;
                    options.query_positions = Some(slots);
                }
            }
            KvSource::Reuse(kv) => {
                if kv.positions.is_some() {
                    let what = "keys and values of tokens that were picked can't be shared: the first recursion must take all tokens";
                    return Err(Error::shape("attention", what));
                }
                found = kv;
                options.query_positions = Some(with.positions);
            }
        }
        options.bias = match &self.relative {
            Some(relative) if with.picked || found.positions.is_some() => {
                Some(self.picked_bias(g, relative, with, &found)?)
            }
            _ => self.bias(with.tables)?,
        };
        if let (Some(bias), None) = (options.bias, options.pages) {
            check_distances(g, bias, q, found.keys)?;
        }
        options.lengths = found.lengths;
        Ok((ops::attention(g, q, found.keys, found.values, &options)?, found))
    }

    /// The tokens that a cache of `capacity` positions keeps as a ring: those of the window, where all that a new token sees are in it.
    pub(crate) fn ring_size(&self, capacity: usize) -> Option<usize> {
        let plain = self.mask == Mask::Causal && self.relative.is_none();
        self.window.filter(|window| plain && *window < capacity)
    }

    /// The ring of the caches, if they are one.
    fn ring(&self, with: &AttentionUse<'_>) -> Option<Ring> {
        let (KvSource::Prefill { capacity, .. } | KvSource::Decode { capacity, .. }) = with.kv else { return None };
        let size = self.ring_size(capacity)?;
        with.tables.rings.iter().copied().find(|ring| ring.size == size)
    }

    /// The bias of tokens of which some are missing, `(B, H, T, S)`, by their positions.
    fn picked_bias(
        &self,
        g: &mut Graph,
        relative: &RelativeBias,
        with: &AttentionUse<'_>,
        found: &KeyValues,
    ) -> Result<Tensor> {
        let [batch, keys, ..] = g.shape(found.keys).expect::<4>("attention, k (B, T, H, D)")?;
        let positions = match found.positions {
            Some(positions) => positions,
            None => all_positions(g, batch, keys),
        };
        let most = with.tables.max_position.max(keys);
        g.scope("relative_bias", |g| relative.between(g, self.heads.query, [with.positions, positions], most))
    }

    /// Writes keys and values to the caches, at these positions, and gives the caches.
    fn write_caches(
        &self,
        g: &mut Graph,
        module: &str,
        [capacity, beams]: [usize; 2],
        positions: Tensor,
        [k, v]: [Tensor; 2],
    ) -> Result<(Tensor, Tensor)> {
        let [batch, ..] = g.shape(k).expect::<4>("attention, k (B, T, H, D)")?;
        let caches = self.caches(g, module, batch * beams, capacity)?;
        ops::cache_write(g, caches, [k, v], positions)
    }

    /// The same to caches of one row of slots.
    fn write_pages(
        &self,
        g: &mut Graph,
        module: &str,
        capacity: usize,
        slots: Tensor,
        [k, v]: [Tensor; 2],
    ) -> Result<(Tensor, Tensor)> {
        let [batch, time, heads, head_dim] = g.shape(k).expect("attention, k (B, T, H, D)")?;
        let caches = self.caches(g, module, 1, capacity)?;
        let slots = ops::reshape(g, slots, [1, batch * time])?;
        let k = ops::reshape(g, k, [1, batch * time, heads, head_dim])?;
        let v = ops::reshape(g, v, [1, batch * time, heads, head_dim])?;
        ops::cache_write(g, caches, [k, v], slots)
    }

    /// The caches of a module.
    pub(super) fn caches(&self, g: &mut Graph, module: &str, batch: usize, capacity: usize) -> Result<[Tensor; 2]> {
        let shape = [batch, capacity, self.heads.key_value, self.heads.head_dim];
        let dtype = g.storage().cache_of(self.heads.head_dim);
        let keys = g.state(&format!("{module}.key_cache"), shape, dtype)?;
        let values = g.state(&format!("{module}.value_cache"), shape, dtype)?;
        Ok([keys, values])
    }
}

/// Whether a state holds what a decoder keeps of each row: keys, values, slots in use and the positions of their tokens.
#[must_use]
pub(crate) fn is_cache(state: &str) -> bool {
    [".key_cache", ".value_cache", ".used", ".slot_positions"].iter().any(|end| state.ends_with(end))
}

/// How many keys of each row all queries see.
fn prefix(with: &AttentionUse<'_>) -> Result<Option<Tensor>> {
    let refuse = |what: &str| Err(Error::shape("attention", what));
    if with.documents.is_some() {
        return refuse("a row of several texts has no prefix: Mask::Prefix needs a row for each");
    }
    match (with.kv, with.prefix) {
        (KvSource::Uncached { .. } | KvSource::Prefill { .. }, None) => {
            refuse("the inputs do not say how long the prefix of a row is: TokenInputs::with_prefix")
        }
        // A new token stands behind the prefix, or else the inputs say how long it is.
        (KvSource::Uncached { .. } | KvSource::Prefill { .. } | KvSource::Decode { .. }, prefix) => Ok(prefix),
        _ => refuse("tokens picked out of a sequence have no prefix: Mask::Prefix needs all tokens"),
    }
}

/// Positions 0, 1, 2, … of so many keys of each row.
pub(in crate::nn) fn all_positions(g: &mut Graph, batch: usize, keys: usize) -> Tensor {
    g.constant_with("key_positions", [batch, keys], DType::U32, move || {
        Array::from_fn([batch, keys], |i| (i % keys.max(1)) as f64)
    })
}

/// Refuses a bias that is not of these queries and keys.
fn check_distances(g: &Graph, bias: Tensor, q: Tensor, keys: Tensor) -> Result<()> {
    let ([_, queries, _, _], [_, keys, _, _]) = (g.shape(q).expect("q")?, g.shape(keys).expect("keys")?);
    match *g.shape(bias).dims() {
        [_, distances] if distances + 1 == queries + keys => Ok(()),
        [_, .., rows, columns] if [rows, columns] == [queries, keys] => Ok(()),
        _ => {
            let what = "the relative bias is not of these queries and keys";
            Err(Error::shape("attention", what))
        }
    }
}
