//! The kernels that attention can be computed by, and which adapter gets which.

use super::setting::{Setting, Sizes, by_vectors};
use crate::error::{Error, Result};
use crate::kernel::{AdapterClass, Caps, Dispatch, Kernel, Launch, Snippet, kernel};

static SHUFFLE: Snippet = kernel!("common/attention_shuffle");
static FEW: Snippet = kernel!("common/attention_few");
static TILE: Snippet = kernel!("common/attention_tile");

/// A way to compute attention.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AttentionVariant {
    /// An invocation for a few rows. Legal everywhere.
    Rows,
    /// A subgroup for 8 to 16 rows, which lanes share by shuffles: for CPU drivers with subgroups.
    Shuffle,
    /// A workgroup for 32 rows, through workgroup memory: for GPUs.
    Tile,
    /// A workgroup for 64 keys, and a second launch that merges: for decoding on GPUs. Forward only.
    Split,
    /// An invocation for 32 keys, and a second launch that merges: for decoding on CPU drivers without subgroups. Forward only.
    SplitThreads,
    /// A subgroup for a query head, whose lanes share out the keys: for decoding on CPU drivers with subgroups. Forward only.
    Subgroup,
}

impl AttentionVariant {
    /// All of them.
    pub const ALL: [Self; 6] = [Self::Rows, Self::Shuffle, Self::Tile, Self::Split, Self::SplitThreads, Self::Subgroup];

    /// Whether the loops over so many keys, or queries, end before the driver leaves them.
    fn ends(self, caps: &Caps, sizes: &Sizes, along: usize) -> bool {
        let vectors = if sizes.width.is_multiple_of(4) { sizes.width / 4 } else { sizes.width };
        // What Mesa's drivers count, as measured: they unroll loops of up to 32 turns, if they have no barriers.
        let turns = match self {
            Self::Rows if vectors <= 32 => along.div_ceil(4),
            Self::Rows => along.div_ceil(4) * (2 * vectors + 1),
            Self::Shuffle => along.div_ceil(8) * if vectors <= 16 { 16 } else { 24 },
            Self::Tile => along.div_ceil(32) * 10 * vectors,
            Self::Split | Self::SplitThreads | Self::Subgroup => return true,
        };
        turns <= caps.most_turns()
    }

    /// Whether the adapter can run a kernel of it with so many storage bindings on these sizes, with loops over so many keys, or
    /// queries.
    fn legal(self, caps: &Caps, sizes: &Sizes, bindings: usize, along: usize) -> bool {
        let fits = sizes.width.is_multiple_of(4) && bindings <= caps.storage_bindings as usize;
        let fits = fits && self.ends(caps, sizes, along);
        match self {
            Self::Rows => true,
            Self::Shuffle => fits && sizes.width <= 128 && matches!(caps.subgroup, Some(4 | 8)),
            Self::Tile => fits,
            Self::Split | Self::SplitThreads | Self::Subgroup => false,
        }
    }

    /// For a backward op: the wished-for variant if it is legal, or else the adapter's default.
    fn choose(wish: Option<Self>, caps: &Caps, sizes: &Sizes, bindings: usize, along: usize) -> Self {
        let default = match caps.class {
            AdapterClass::Gpu => Self::Tile,
            AdapterClass::Cpu => Self::Shuffle,
        };
        let legal = |v: &Self| v.legal(caps, sizes, bindings, along);
        // On CPU drivers rows are faster than tiles, but compile slowly where heads are wide.
        let rows = caps.class == AdapterClass::Cpu && sizes.width <= 64;
        let other = if rows { Self::Rows } else { Self::Tile };
        let found = wish.into_iter().chain([default, other]).find(legal);
        found.unwrap_or(Self::Rows)
    }

    /// The variants that a tuner may choose from, for a backward op.
    fn candidates(caps: &Caps, sizes: &Sizes, bindings: usize, along: usize) -> Vec<Self> {
        let mut legal: Vec<Self> = Self::ALL.into_iter().filter(|v| v.legal(caps, sizes, bindings, along)).collect();
        // The least likely last.
        legal.sort_by_key(|v| *v == Self::Rows);
        legal
    }

    /// What a launch of a backward op runs: the wish, the tuner's choice, or the default. Where masks say what is seen, the
    /// work depends on their content, which a tuner does not know.
    pub(super) fn for_backward(
        cx: &mut Launch<'_>,
        name: &str,
        setting: &Setting,
        sizes: &Sizes,
        bindings: usize,
        along: usize,
    ) -> Result<Self> {
        let default = Self::choose(setting.variant, cx.caps(), sizes, bindings, along);
        if !default.ends(cx.caps(), sizes, along) {
            return Err(Error::Unsupported {
                what: format!("{name} of {along} rows in heads of {}", sizes.width),
                needs: format!("loops of more than {} turns", cx.caps().most_turns()),
                adapter: cx.caps().name.clone(),
                hint: "Use shorter sequences, or a GPU".into(),
            });
        }
        if setting.variant.is_some() || setting.visible {
            return Ok(default);
        }
        let mut legal = Self::candidates(cx.caps(), sizes, bindings, along);
        legal.retain(|variant| variant.ends(cx.caps(), sizes, along));
        Ok(cx.choose(setting.problem(name, sizes), default, &legal))
    }

    /// The same for the forward op, whose few queries are not for the tuner.
    pub(super) fn for_forward(
        cx: &mut Launch<'_>,
        name: &str,
        setting: &Setting,
        sizes: &Sizes,
        bindings: usize,
    ) -> Result<Self> {
        // Few queries are those of decoding, where nothing is dropped: the kernel for them has no dropout.
        match Self::choose_forward(setting.variant, cx.caps(), sizes, bindings) {
            few @ (Self::Split | Self::SplitThreads | Self::Subgroup) if setting.drop.is_none() => Ok(few),
            _ => Self::for_backward(cx, name, setting, sizes, bindings, sizes.keys),
        }
    }

    /// For the forward op: keys are shared out where there are too few queries to keep an adapter busy.
    pub(super) fn choose_forward(wish: Option<Self>, caps: &Caps, sizes: &Sizes, bindings: usize) -> Self {
        let decoding = sizes.queries <= 4 && sizes.keys > 32;
        let subgroup = caps.subgroup.is_some() && sizes.width.is_multiple_of(4) && sizes.width <= 128;
        match wish {
            Some(Self::Subgroup) if !subgroup => Self::SplitThreads,
            Some(few @ (Self::Split | Self::SplitThreads | Self::Subgroup)) => few,
            None if decoding && caps.class == AdapterClass::Cpu && subgroup => Self::Subgroup,
            None if decoding && caps.class == AdapterClass::Cpu => Self::SplitThreads,
            None if decoding => Self::Split,
            _ => Self::choose(wish, caps, sizes, bindings, sizes.keys),
        }
    }

    /// Keys that the sums of are merged later, where it splits them.
    pub(super) fn split(self) -> Option<usize> {
        match self {
            Self::Split => Some(64),
            Self::SplitThreads => Some(32),
            Self::Rows | Self::Shuffle | Self::Tile | Self::Subgroup => None,
        }
    }
}

/// The kernels of an op, one for each variant.
#[derive(Debug)]
pub(super) struct Kernels {
    pub rows: &'static Kernel,
    pub shuffle: &'static Kernel,
    pub tile: &'static Kernel,
    /// For few queries, whose keys are shared out: among workgroups, invocations, and the lanes of a subgroup.
    pub few: Option<[&'static Kernel; 3]>,
}

impl Kernels {
    fn for_few(&self, which: usize) -> &'static Kernel {
        self.few.map_or(self.rows, |kernels| kernels[which])
    }

    /// A launch of a variant that owns `rows` rows of each of `heads` heads: its constants and its grid.
    pub(super) fn launch(
        &self,
        variant: AttentionVariant,
        caps: &Caps,
        sizes: &Sizes,
        rows: usize,
        heads: usize,
    ) -> Dispatch {
        let heads = sizes.batch * heads;
        let vectors = (sizes.width / 4) as u32;
        let split = variant.split().unwrap_or(sizes.keys);
        match variant {
            AttentionVariant::Rows => {
                let own = rows_of_invocation(caps, sizes, rows);
                let dispatch = by_vectors(self.rows, sizes.width).constant("ROWS", own as u32);
                dispatch.groups_for(heads * rows.div_ceil(own), 64)
            }
            AttentionVariant::Shuffle => {
                let lanes = caps.subgroup.unwrap_or(8);
                let factor = if vectors <= 16 { 2 } else { 1 };
                let dispatch = Dispatch::new(self.shuffle).snippet(&SHUFFLE).constant("WIDTH", vectors);
                let dispatch = dispatch.constant("LANES", lanes).constant("R", factor);
                dispatch.groups(heads * rows.div_ceil((lanes * factor) as usize))
            }
            AttentionVariant::Tile => {
                let dispatch = Dispatch::new(self.tile).snippet(&TILE).constant("WIDTH", vectors);
                dispatch.groups(heads * rows.div_ceil(32))
            }
            AttentionVariant::Split => {
                let pack = heads_of_split(sizes);
                let dispatch = by_vectors(self.for_few(0), sizes.width).constant("GROUP", pack as u32);
                dispatch.groups(heads / pack * rows * sizes.keys.div_ceil(split))
            }
            AttentionVariant::SplitThreads => {
                let lanes = caps.subgroup.unwrap_or(8);
                let dispatch = by_vectors(self.for_few(1), sizes.width).snippet(&FEW).constant("LANES", lanes);
                let dispatch = dispatch.constant("SPLIT", split as u32);
                dispatch.groups_for(heads * rows * sizes.keys.div_ceil(split), lanes as usize)
            }
            AttentionVariant::Subgroup => {
                let dispatch = by_vectors(self.for_few(2), sizes.width).snippet(&FEW);
                dispatch.constant("LANES", caps.subgroup.unwrap_or(8)).groups(heads * rows)
            }
        }
    }
}

/// Query heads that a workgroup of the split kernel serves at once: they share keys, which are loaded once, and
/// workgroup memory.
fn heads_of_split(sizes: &Sizes) -> usize {
    let most = if sizes.width > 128 { 4 } else { 8 };
    let shared_by = sizes.heads / sizes.kv_heads;
    (1..=most).rev().find(|n| shared_by.is_multiple_of(*n)).unwrap_or(1)
}

/// Rows an invocation of the row kernels owns. On CPU drivers loads are dear and registers spill cheaply, but the time to
/// compile grows with the square of what is spilled.
fn rows_of_invocation(caps: &Caps, sizes: &Sizes, count: usize) -> usize {
    match caps.class {
        AdapterClass::Cpu if count >= 16 => (32 / sizes.width.next_power_of_two()).clamp(1, 4),
        _ => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::software::Quirks;

    const SIZES: Sizes = Sizes { batch: 1, queries: 64, keys: 64, heads: 4, kv_heads: 2, width: 64 };

    #[test]
    fn the_adapter_decides() {
        let gpu = Caps::baseline();
        let cpu = Caps { class: AdapterClass::Cpu, subgroup: Some(8), ..Caps::baseline() };
        let bare = Caps { class: AdapterClass::Cpu, ..Caps::baseline() };
        let choose = |caps, bindings| AttentionVariant::choose(None, caps, &SIZES, bindings, 64);
        assert_eq!(choose(&gpu, 8), AttentionVariant::Tile);
        assert_eq!(choose(&gpu, 9), AttentionVariant::Rows);
        assert_eq!(choose(&cpu, 8), AttentionVariant::Shuffle);
        assert_eq!(choose(&bare, 8), AttentionVariant::Rows);
        let wide = Sizes { width: 128, ..SIZES };
        assert_eq!(AttentionVariant::choose(None, &bare, &wide, 8, 64), AttentionVariant::Tile);
        let odd = Sizes { width: 33, ..SIZES };
        assert_eq!(AttentionVariant::choose(Some(AttentionVariant::Tile), &gpu, &odd, 6, 64), AttentionVariant::Rows);
    }

    #[test]
    fn loops_end_before_a_driver_leaves_them() {
        let gpu = Caps::baseline();
        let cpu =
            Caps { class: AdapterClass::Cpu, subgroup: Some(8), quirks: Quirks::of_results(), ..Caps::baseline() };
        let choose = |caps: &Caps, width, along| {
            let sizes = Sizes { width, keys: along, ..SIZES };
            let found = AttentionVariant::choose(None, caps, &sizes, 6, along);
            (found, found.ends(caps, &sizes, along))
        };
        assert_eq!(choose(&cpu, 64, 16_384), (AttentionVariant::Shuffle, true));
        assert_eq!(choose(&cpu, 64, 65_536), (AttentionVariant::Rows, true));
        assert_eq!(choose(&cpu, 256, 3_000), (AttentionVariant::Tile, true));
        assert_eq!(choose(&cpu, 256, 4_096), (AttentionVariant::Rows, false));
        assert_eq!(choose(&cpu, 33, 3_500), (AttentionVariant::Rows, true));
        assert_eq!(choose(&cpu, 33, 4_096), (AttentionVariant::Rows, false));
        assert_eq!(choose(&gpu, 256, 1 << 20), (AttentionVariant::Tile, true));
        assert_eq!(choose(&gpu, 33, 1 << 20), (AttentionVariant::Rows, true));
    }

    #[test]
    fn few_queries_split_the_keys() {
        let gpu = Caps::baseline();
        let token = Sizes { queries: 1, ..SIZES };
        assert_eq!(AttentionVariant::choose_forward(None, &gpu, &token, 5), AttentionVariant::Split);
        let cpu = Caps { class: AdapterClass::Cpu, ..Caps::baseline() };
        assert_eq!(AttentionVariant::choose_forward(None, &cpu, &token, 5), AttentionVariant::SplitThreads);
        let lanes = Caps { subgroup: Some(8), ..cpu };
        assert_eq!(AttentionVariant::choose_forward(None, &lanes, &token, 5), AttentionVariant::Subgroup);
        let wide = Sizes { width: 132, ..token };
        assert_eq!(AttentionVariant::choose_forward(None, &lanes, &wide, 5), AttentionVariant::SplitThreads);
        assert_eq!(AttentionVariant::choose_forward(None, &gpu, &SIZES, 5), AttentionVariant::Tile);
    }

    #[test]
    fn a_split_serves_heads_that_share_keys() {
        let heads = |heads, kv_heads, width| heads_of_split(&Sizes { heads, kv_heads, width, ..SIZES });
        assert_eq!(heads(12, 12, 64), 1);
        assert_eq!(heads(32, 8, 128), 4);
        assert_eq!(heads(9, 1, 64), 3);
        assert_eq!(heads(16, 2, 256), 4);
    }
}
