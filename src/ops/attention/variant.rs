//! The kernels of attention, and the choice for an adapter.

use super::spec::{AttentionSpec, Sizes, by_vectors};
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::kernel::{AdapterClass, Caps, Dispatch, Kernel, Launch, Snippet, kernel};

static SHUFFLE: Snippet = kernel!("common/attention_shuffle");
static FEW: Snippet = kernel!("common/attention_few");
static TILE: Snippet = kernel!("common/attention_tile");

/// A kernel of attention.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AttentionVariant {
    /// One invocation for a few rows. Legal everywhere.
    PerThread,
    /// One subgroup for 8 to 16 rows, which lanes share by shuffles: for CPU drivers with subgroups.
    Shuffle,
    /// One workgroup for 16 to 64 rows, through workgroup memory: for GPUs.
    Tile,
    /// Split-K: one workgroup for 64 keys, and a second launch that merges. For decoding on GPUs. Forward only.
    SplitK,
    /// Split-K with one invocation for 32 keys, and a second launch that merges. For decoding on CPU drivers without subgroups. Forward only.
    SplitKPerThread,
    /// One subgroup for a query head; the lanes divide the keys. For decoding on CPU drivers with subgroups. Forward only.
    Subgroup,
}

impl AttentionVariant {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::PerThread, Self::Shuffle, Self::Tile, Self::SplitK, Self::SplitKPerThread, Self::Subgroup];

    /// Whether loops over `along` keys or queries stay within the driver's limit of iterations.
    fn ends(self, caps: &Caps, sizes: &Sizes, along: usize) -> bool {
        let vectors = if sizes.head_dim.is_multiple_of(4) { sizes.head_dim / 4 } else { sizes.head_dim };
        // As measured with Mesa's drivers, which unroll loops of up to 32 iterations without barriers.
        let iterations = match self {
            Self::PerThread if vectors <= 32 => along.div_ceil(4),
            Self::PerThread => along.div_ceil(4) * (2 * vectors + 1),
            Self::Shuffle => along.div_ceil(8) * if vectors <= 16 { 16 } else { 24 },
            Self::Tile => along.div_ceil(32) * (2 * vectors + 40),
            Self::SplitK | Self::SplitKPerThread | Self::Subgroup => return true,
        };
        iterations <= caps.max_loop_iterations()
    }

    /// Whether the adapter can run the variant with `bindings` storage bindings on these sizes, with loops over `along` keys or queries.
    fn legal(self, caps: &Caps, sizes: &Sizes, bindings: usize, along: usize) -> bool {
        let fits = sizes.head_dim.is_multiple_of(4) && bindings <= caps.storage_bindings as usize;
        let fits = fits && self.ends(caps, sizes, along);
        match self {
            Self::PerThread => true,
            Self::Shuffle => {
                fits && sizes.kv == DType::F32
                    && !sizes.paged
                    && sizes.head_dim <= 128
                    && matches!(caps.subgroup, Some(4 | 8))
            }
            Self::Tile => fits,
            Self::SplitK | Self::SplitKPerThread | Self::Subgroup => false,
        }
    }

    /// For a backward op: the requested variant if it is legal, else the adapter's default.
    fn choose(wish: Option<Self>, caps: &Caps, sizes: &Sizes, bindings: usize, along: usize) -> Self {
        let default = match caps.class {
            AdapterClass::Gpu => Self::Tile,
            AdapterClass::Cpu => Self::Shuffle,
        };
        let legal = |v: &Self| v.legal(caps, sizes, bindings, along);
        // On CPU drivers `PerThread` is faster than `Tile`, but compiles slowly for a large head_dim.
        let rows = caps.class == AdapterClass::Cpu && sizes.head_dim <= 64;
        let other = if rows { Self::PerThread } else { Self::Tile };
        let found = wish.into_iter().chain([default, other]).find(legal);
        found.unwrap_or(Self::PerThread)
    }

    /// The variants that a tuner may choose from, for a backward op.
    fn candidates(caps: &Caps, sizes: &Sizes, bindings: usize, along: usize) -> Vec<Self> {
        let mut legal: Vec<Self> = Self::ALL.into_iter().filter(|v| v.legal(caps, sizes, bindings, along)).collect();
        // The least promising last.
        legal.sort_by_key(|v| *v == Self::PerThread);
        legal
    }

    /// The variant of a launch of a backward op: the requested one, the tuned one, or the default. With a limits tensor the work depends on its
    /// content, which the tuner does not know.
    pub(super) fn for_backward(
        cx: &mut Launch<'_>,
        name: &str,
        spec: &AttentionSpec,
        sizes: &Sizes,
        bindings: usize,
        along: usize,
    ) -> Result<Self> {
        let default = Self::choose(spec.variant, cx.caps(), sizes, bindings, along);
        if !default.ends(cx.caps(), sizes, along) {
            return Err(Error::Unsupported {
                what: format!("{name} of {along} rows with a head_dim of {}", sizes.head_dim),
                needs: format!("loops of more than {} iterations", cx.caps().max_loop_iterations()),
                adapter: cx.caps().name.clone(),
                hint: "Use shorter sequences, or a GPU".into(),
            });
        }
        if spec.variant.is_some() || spec.key_limits {
            return Ok(default);
        }
        let mut legal = Self::candidates(cx.caps(), sizes, bindings, along);
        legal.retain(|variant| variant.ends(cx.caps(), sizes, along));
        Ok(cx.choose(spec.problem(name, sizes), default, &legal))
    }

    /// The same for the forward op. Variants for few queries are not tuned.
    pub(super) fn for_forward(
        cx: &mut Launch<'_>,
        name: &str,
        spec: &AttentionSpec,
        sizes: &Sizes,
        bindings: usize,
    ) -> Result<Self> {
        // The kernels for few queries (decoding) have no dropout.
        match Self::choose_forward(spec.variant, cx.caps(), sizes, bindings) {
            few @ (Self::SplitK | Self::SplitKPerThread | Self::Subgroup) if spec.drop.is_none() => Ok(few),
            _ => Self::for_backward(cx, name, spec, sizes, bindings, sizes.keys),
        }
    }

    /// For the forward op: keys are split where there are too few queries to keep an adapter busy.
    pub(super) fn choose_forward(wish: Option<Self>, caps: &Caps, sizes: &Sizes, bindings: usize) -> Self {
        let decoding = sizes.queries <= 4 && sizes.keys > 32;
        let subgroup = caps.subgroup.is_some() && sizes.head_dim.is_multiple_of(4) && sizes.head_dim <= 128;
        match wish {
            Some(Self::Subgroup) if !subgroup => Self::SplitKPerThread,
            Some(few @ (Self::SplitK | Self::SplitKPerThread | Self::Subgroup)) => few,
            None if decoding && caps.class == AdapterClass::Cpu && subgroup => Self::Subgroup,
            None if decoding && caps.class == AdapterClass::Cpu => Self::SplitKPerThread,
            None if decoding => Self::SplitK,
            _ => Self::choose(wish, caps, sizes, bindings, sizes.keys),
        }
    }

    /// The number of keys of a split, if the variant splits them.
    pub(super) fn split(self) -> Option<usize> {
        match self {
            Self::SplitK => Some(64),
            Self::SplitKPerThread => Some(32),
            Self::PerThread | Self::Shuffle | Self::Tile | Self::Subgroup => None,
        }
    }
}

/// The kernels of an op, one for each variant.
#[derive(Debug)]
pub(super) struct Kernels {
    pub per_thread: &'static Kernel,
    pub shuffle: &'static Kernel,
    pub tile: &'static Kernel,
    /// The invocations of the tile kernel that share out one output.
    pub tile_owners: usize,
    /// For few queries, with keys split among workgroups, invocations, or the lanes of a subgroup.
    pub few: Option<[&'static Kernel; 3]>,
}

impl Kernels {
    fn for_few(&self, which: usize) -> &'static Kernel {
        self.few.map_or(self.per_thread, |kernels| kernels[which])
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
        let vectors = (sizes.head_dim / 4) as u32;
        let split = variant.split().unwrap_or(sizes.keys);
        match variant {
            AttentionVariant::PerThread => {
                let own = rows_per_thread(caps, sizes, rows);
                let dispatch = by_vectors(self.per_thread, sizes.head_dim).constant("ROWS", own as u32);
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
                let tile = TileShape::new(caps, vectors as usize, self.tile_owners, heads, rows);
                let dispatch = by_vectors(self.tile, sizes.head_dim).snippet(&TILE);
                let dispatch = dispatch.constant("ROWS", tile.rows as u32).constant("LANES", tile.lanes as u32);
                let dispatch = dispatch.constant("OWNERS", self.tile_owners as u32);
                dispatch.groups(heads * rows.div_ceil(tile.rows))
            }
            AttentionVariant::SplitK => {
                let pack = heads_of_split(sizes);
                let dispatch = by_vectors(self.for_few(0), sizes.head_dim).constant("GROUP", pack as u32);
                dispatch.groups(heads / pack * rows * sizes.keys.div_ceil(split))
            }
            AttentionVariant::SplitKPerThread => {
                let lanes = caps.subgroup.unwrap_or(8);
                let dispatch = by_vectors(self.for_few(1), sizes.head_dim).snippet(&FEW).constant("LANES", lanes);
                let dispatch = dispatch.constant("SPLIT", split as u32);
                dispatch.groups_for(heads * rows * sizes.keys.div_ceil(split), lanes as usize)
            }
            AttentionVariant::Subgroup => {
                let dispatch = by_vectors(self.for_few(2), sizes.head_dim).snippet(&FEW);
                dispatch.constant("LANES", caps.subgroup.unwrap_or(8)).groups(heads * rows)
            }
        }
    }
}

/// The tile of a workgroup of a tile kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct TileShape {
    rows: usize,
    /// Invocations side by side on a row of output.
    lanes: usize,
}

impl TileShape {
    /// For `rows` rows of `heads` heads: the most rows a tile that fit workgroup memory, leave each of `owners` invocations 4 rows of
    /// 2 vectors of output at most, and give a GPU enough workgroups.
    fn new(caps: &Caps, vectors: usize, owners: usize, heads: usize, rows: usize) -> Self {
        let shape = |rows: usize| {
            let lanes = (4 * owners / rows).min(vectors.next_power_of_two());
            Self { rows, lanes: lanes.clamp(8.max(owners / rows), 32) }
        };
        // Two tiles of 8 vectors a row, 512 vectors of other rows, 32 of statistics, and padding.
        let fits = |tile: &Self| tile.rows * 256 + 9216 <= caps.workgroup_memory as usize && 2 * tile.lanes >= vectors;
        let fills = |tile: &Self| caps.class == AdapterClass::Cpu || heads * rows.div_ceil(tile.rows) >= 48;
        [64, 32].map(shape).into_iter().find(|tile| fits(tile) && fills(tile)).unwrap_or_else(|| shape(16))
    }
}

/// The query heads of a workgroup of the split-K kernel: they share keys, which are loaded once, and workgroup memory.
fn heads_of_split(sizes: &Sizes) -> usize {
    let most = if sizes.head_dim > 128 { 4 } else { 8 };
    let shared_by = sizes.heads / sizes.kv_heads;
    (1..=most).rev().find(|n| shared_by.is_multiple_of(*n)).unwrap_or(1)
}

/// The rows of an invocation of the per-thread kernels. On CPU drivers loads are expensive and spills cheap, but the compile time grows with
/// the square of the spilled registers.
fn rows_per_thread(caps: &Caps, sizes: &Sizes, count: usize) -> usize {
    match caps.class {
        AdapterClass::Cpu if count >= 16 => (32 / sizes.head_dim.next_power_of_two()).clamp(1, 4),
        _ => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::software::Quirks;

    const SIZES: Sizes =
        Sizes { batch: 1, queries: 64, keys: 64, heads: 4, kv_heads: 2, head_dim: 64, kv: DType::F32, paged: false };

    #[test]
    fn the_default_depends_on_the_adapter() {
        let gpu = Caps::baseline();
        let cpu = Caps { class: AdapterClass::Cpu, subgroup: Some(8), ..Caps::baseline() };
        let bare = Caps { class: AdapterClass::Cpu, ..Caps::baseline() };
        let choose = |caps, bindings| AttentionVariant::choose(None, caps, &SIZES, bindings, 64);
        assert_eq!(choose(&gpu, 8), AttentionVariant::Tile);
        assert_eq!(choose(&gpu, 9), AttentionVariant::PerThread);
        assert_eq!(choose(&cpu, 8), AttentionVariant::Shuffle);
        assert_eq!(choose(&bare, 8), AttentionVariant::PerThread);
        let wide = Sizes { head_dim: 128, ..SIZES };
        assert_eq!(AttentionVariant::choose(None, &bare, &wide, 8, 64), AttentionVariant::Tile);
        let odd = Sizes { head_dim: 33, ..SIZES };
        assert_eq!(
            AttentionVariant::choose(Some(AttentionVariant::Tile), &gpu, &odd, 6, 64),
            AttentionVariant::PerThread
        );
    }

    #[test]
    fn loops_stay_within_the_limit_of_the_driver() {
        let gpu = Caps::baseline();
        let cpu =
            Caps { class: AdapterClass::Cpu, subgroup: Some(8), quirks: Quirks::of_results(), ..Caps::baseline() };
        let choose = |caps: &Caps, head_dim, along| {
            let sizes = Sizes { head_dim, keys: along, ..SIZES };
            let found = AttentionVariant::choose(None, caps, &sizes, 6, along);
            (found, found.ends(caps, &sizes, along))
        };
        assert_eq!(choose(&cpu, 64, 16_384), (AttentionVariant::Shuffle, true));
        assert_eq!(choose(&cpu, 64, 65_536), (AttentionVariant::PerThread, true));
        assert_eq!(choose(&cpu, 256, 12_000), (AttentionVariant::Tile, true));
        assert_eq!(choose(&cpu, 256, 16_384), (AttentionVariant::PerThread, false));
        assert_eq!(choose(&cpu, 33, 3_500), (AttentionVariant::PerThread, true));
        assert_eq!(choose(&cpu, 33, 4_096), (AttentionVariant::PerThread, false));
        assert_eq!(choose(&gpu, 256, 1 << 20), (AttentionVariant::Tile, true));
        assert_eq!(choose(&gpu, 33, 1 << 20), (AttentionVariant::PerThread, true));
    }

    #[test]
    fn tiles_fit_registers_and_workgroup_memory() {
        let (baseline, roomy) = (Caps::baseline(), Caps { workgroup_memory: 32768, ..Caps::baseline() });
        let shape = |caps, head_dim: usize, owners, rows| {
            let tile = TileShape::new(caps, head_dim / 4, owners, 12, rows);
            [tile.rows, tile.lanes]
        };
        let widths = [32, 64, 80, 128, 256];
        let each = |owners, rows| widths.map(|head_dim| shape(&roomy, head_dim, owners, rows));
        assert_eq!(each(256, 1024), [[64, 8], [64, 16], [64, 16], [64, 16], [32, 32]]);
        assert_eq!(each(128, 1024), [[64, 8], [64, 8], [32, 16], [32, 16], [16, 32]]);
        assert_eq!(each(256, 128), [[32, 8], [32, 16], [32, 32], [32, 32], [32, 32]]);
        for (head_dim, owners) in (4..=256).step_by(4).flat_map(|d| [(d, 128), (d, 256)]) {
            for (caps, count) in [(&roomy, 1024), (&roomy, 128), (&roomy, 1), (&baseline, 1024)] {
                let [rows, lanes] = shape(caps, head_dim, owners, count);
                assert!(rows * 256 + 9216 <= caps.workgroup_memory as usize, "{head_dim}");
                assert!((1..=4).contains(&(rows * lanes / owners)) && 8 * lanes >= head_dim, "{head_dim}");
            }
        }
    }

    #[test]
    fn few_queries_split_the_keys() {
        let gpu = Caps::baseline();
        let token = Sizes { queries: 1, ..SIZES };
        assert_eq!(AttentionVariant::choose_forward(None, &gpu, &token, 5), AttentionVariant::SplitK);
        let cpu = Caps { class: AdapterClass::Cpu, ..Caps::baseline() };
        assert_eq!(AttentionVariant::choose_forward(None, &cpu, &token, 5), AttentionVariant::SplitKPerThread);
        let lanes = Caps { subgroup: Some(8), ..cpu };
        assert_eq!(AttentionVariant::choose_forward(None, &lanes, &token, 5), AttentionVariant::Subgroup);
        let wide = Sizes { head_dim: 132, ..token };
        assert_eq!(AttentionVariant::choose_forward(None, &lanes, &wide, 5), AttentionVariant::SplitKPerThread);
        assert_eq!(AttentionVariant::choose_forward(None, &gpu, &SIZES, 5), AttentionVariant::Tile);
    }

    #[test]
    fn a_split_serves_heads_that_share_keys() {
        let heads = |heads, kv_heads, head_dim| heads_of_split(&Sizes { heads, kv_heads, head_dim, ..SIZES });
        assert_eq!(heads(12, 12, 64), 1);
        assert_eq!(heads(32, 8, 128), 4);
        assert_eq!(heads(9, 1, 64), 3);
        assert_eq!(heads(16, 2, 256), 4);
    }
}
