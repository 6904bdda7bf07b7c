//! The kernels of matrix products, and the choice for an adapter.

use super::problem::Problem;
use crate::kernel::{AdapterClass, Caps};

/// A kernel of matrix products. All give the same sums up to rounding; [`Variant::legal`] lists those that fit a problem.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Variant {
    /// 64×64 tiles in workgroup memory, 256 invocations.
    Tile64,
    /// 32×32 tiles in workgroup memory, 64 invocations.
    Tile32,
    /// 16×8 tiles in registers, one invocation each.
    Registers,
    /// 8×8 tiles in registers, unrolled, one invocation each.
    #[serde(alias = "lines")]
    Unrolled,
    /// Subgroup shuffles, 4 rows of the tile per lane: 32×32 tiles for subgroups of 8.
    Subgroup4,
    /// Subgroup shuffles, 8 rows of the tile per lane: 64×32 tiles for subgroups of 8.
    Subgroup8,
    /// Subgroup shuffles, 4 rows and two vectors of columns per lane: 32×64 tiles for subgroups of 8.
    SubgroupWide,
    /// Up to 8 rows, B read once.
    Row,
    /// The same for a quantised B whose blocks are along k, block by block.
    RowBlocks,
    /// The same, with A broadcast by shuffles in subgroups of 8.
    RowBlocksShuffle,
}

/// The most rows that [`Variant::Row`] takes.
const MOST_ROWS: usize = 8;

impl Variant {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::Row,
        Self::RowBlocks,
        Self::RowBlocksShuffle,
        Self::Tile64,
        Self::Tile32,
        Self::Subgroup4,
        Self::Subgroup8,
        Self::SubgroupWide,
        Self::Registers,
        Self::Unrolled,
    ];

    /// The name in reports.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Tile64 => "tile64",
            Self::Tile32 => "tile32",
            Self::Registers => "registers",
            Self::Unrolled => "unrolled",
            Self::Subgroup4 => "subgroup4",
            Self::Subgroup8 => "subgroup8",
            Self::SubgroupWide => "subgroup_wide",
            Self::Row => "row",
            Self::RowBlocks => "row_blocks",
            Self::RowBlocksShuffle => "row_blocks_shuffle",
        }
    }

    /// The variants that can compute this problem on this adapter, the most promising first.
    #[must_use]
    pub fn legal(caps: &Caps, problem: &Problem) -> Vec<Self> {
        let mut legal: Vec<Self> = Self::ALL.into_iter().filter(|v| v.is_legal(caps, problem)).collect();
        // Those for the other class of adapters last.
        legal.sort_by_key(|v| matches!(v, Self::Tile64 | Self::Tile32) == (caps.class == AdapterClass::Cpu));
        legal
    }

    fn is_legal(self, caps: &Caps, problem: &Problem) -> bool {
        match self {
            Self::Tile64 | Self::Tile32 | Self::Registers | Self::Unrolled => true,
            // Accumulators are an array with one vector per lane: wider subgroups would spill them.
            Self::Subgroup4 | Self::Subgroup8 | Self::SubgroupWide => matches!(caps.subgroup, Some(4..=16)),
            Self::Row => problem.m <= MOST_ROWS && !problem.form.a_transposed(),
            Self::RowBlocksShuffle => Self::RowBlocks.is_legal(caps, problem) && caps.subgroup == Some(8),
            Self::RowBlocks => problem.m <= MOST_ROWS && problem.form.b_transposed() && problem.weight.is_quantised(),
        }
    }

    /// The default, the same on every run:
    ///
    /// | adapter | rows | variant |
    /// |---|---|---|
    /// | CPU, fixed subgroups of 8, B quantised along k | up to 4 | row_blocks_shuffle |
    /// | others, B quantised along k | as for row | row_blocks |
    /// | GPU | up to 8 | row |
    /// | GPU | more, 48 tiles of 64×64 or more | tile64 |
    /// | GPU | more, fewer tiles | tile32 |
    /// | CPU | up to 4 | row |
    /// | CPU, fixed subgroups of 8 to 16 | more than 4, 4 tiles of 32×64 or more that columns fill | subgroup_wide |
    /// | CPU, fixed subgroups of 8 to 16 | more than 4, others | subgroup4 |
    /// | CPU, fixed subgroups of 4 | more than 4 | unrolled |
    /// | CPU, others | more than 4 | registers |
    #[must_use]
    pub fn choose(caps: &Caps, problem: &Problem) -> Self {
        let most = if caps.class == AdapterClass::Gpu { MOST_ROWS } else { 4 };
        if problem.m <= most && Self::RowBlocks.is_legal(caps, problem) {
            let shuffle = caps.class == AdapterClass::Cpu && Self::RowBlocksShuffle.is_legal(caps, problem);
            return if shuffle { Self::RowBlocksShuffle } else { Self::RowBlocks };
        }
        if problem.m <= most && Self::Row.is_legal(caps, problem) {
            return Self::Row;
        }
        let tiles = problem.batch * problem.m.div_ceil(64) * problem.n.div_ceil(64);
        let wide = problem.batch * problem.m.div_ceil(32) * problem.n.div_ceil(64);
        let fills = wide >= 4 && !(1..=32).contains(&(problem.n % 64));
        match caps.class {
            AdapterClass::Gpu if tiles >= 48 => Self::Tile64,
            AdapterClass::Gpu => Self::Tile32,
            AdapterClass::Cpu if caps.subgroup == Some(4) => Self::Unrolled,
            AdapterClass::Cpu if caps.subgroup < Some(8) || !Self::Subgroup4.is_legal(caps, problem) => Self::Registers,
            AdapterClass::Cpu if fills => Self::SubgroupWide,
            AdapterClass::Cpu => Self::Subgroup4,
        }
    }
}
