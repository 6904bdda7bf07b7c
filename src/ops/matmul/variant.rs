//! The kernels of matrix products, and the choice for an adapter.

use super::problem::Problem;
use super::table::{ENTRIES, Entry, TABLE};
use crate::case::{Case, Tolerance};
use crate::kernel::{AdapterClass, Caps};

/// A kernel of matrix products. All give the same sums up to rounding; [`Variant::legal`] lists those that fit a problem.
///
/// Their kernels, tiles and limits stand in the table of `table.rs`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Variant {
    /// Up to 8 rows, B read once.
    Row,
    /// The same for a quantised B whose blocks are along k, block by block.
    RowBlocks,
    /// The same, with A broadcast by shuffles in subgroups of 8.
    RowBlocksShuffle,
    /// The same, with a row of A in each lane.
    RowBlocksLanes,
    /// Up to 8 rows, B transposed and read once by loads of 16 bytes along k.
    RowAlong,
    /// Up to 8 rows, B not transposed and read once by loads of 16 bytes along its columns.
    RowAcross,
    /// Up to 8 rows, B transposed, quantised and read once by loads of 16 bytes, block by block.
    RowQuants,
    /// 128×64 tiles in workgroup memory, 256 invocations of 8×4 elements.
    Tile128x64,
    /// 128×128 tiles in workgroup memory, 256 invocations of 8×8 elements.
    Tile128,
    /// 64×64 tiles in workgroup memory, 256 invocations.
    Tile64,
    /// 32×32 tiles in workgroup memory, 64 invocations.
    Tile32,
    /// 128×64 tiles, two slices in workgroup memory.
    Tile128x64Double,
    /// Tiles of four matrices by four on matrix units ([`crate::gpu::MatrixUnits`]).
    Matrix,
    /// 64×64 tiles of stretches of k, and a second pass that sums them in order.
    SplitK,
    /// Subgroup shuffles, a row of the tile and two vectors of columns per lane: 8×64 tiles for subgroups of 8.
    Subgroup1,
    /// Subgroup shuffles, 2 rows of the tile and two vectors of columns per lane: 16×64 tiles for subgroups of 8.
    Subgroup2,
    /// Subgroup shuffles, 4 rows of the tile per lane: 32×32 tiles for subgroups of 8.
    Subgroup4,
    /// Subgroup shuffles, 8 rows of the tile per lane: 64×32 tiles for subgroups of 8.
    Subgroup8,
    /// Subgroup shuffles, 4 rows and two vectors of columns per lane: 32×64 tiles for subgroups of 8.
    SubgroupWide,
    /// 16×8 tiles in registers, one invocation each.
    Registers,
    /// 8×8 tiles in registers, unrolled, one invocation each.
    #[serde(alias = "lines")]
    Unrolled,
}

/// The fewest tiles of 64×64, of 128×64 and of 128×128 that keep a GPU busy.
const MIN_TILES: [usize; 3] = [48, 96, 256];

impl Variant {
    pub(super) const COUNT: usize = 21;

    /// All of them.
    pub const ALL: [Self; Self::COUNT] = {
        let mut all = [Self::Row; Self::COUNT];
        let mut i = 0;
        while i < Self::COUNT {
            all[i] = ENTRIES[i].variant;
            i += 1;
        }
        all
    };

    pub(super) fn entry(self) -> &'static Entry {
        &TABLE[self as usize]
    }

    /// The name in reports.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.entry().name
    }

    /// A case that this kernel runs, with the tolerance of its rounding.
    pub(in crate::ops) fn case(self, case: Case) -> Case {
        // Factors in f16 have errors of 2⁻¹² of their size on average.
        let rounded = Tolerance { nmse: 1e-6, worst: 2e-3 };
        if self == Self::Matrix { case.tolerance(rounded, rounded) } else { case }
    }

    /// Whether subgroups compute tiles whose operands they spread by shuffles.
    pub(super) fn is_of_subgroups(self) -> bool {
        matches!(self, Self::Subgroup1 | Self::Subgroup2 | Self::Subgroup4 | Self::Subgroup8 | Self::SubgroupWide)
    }

    /// Whether it takes groups of rows, each with a matrix of its own.
    pub(in crate::ops) fn takes_groups(self) -> bool {
        self.entry().grouped
    }

    /// The variants that can compute this problem on this adapter, the most promising first.
    #[must_use]
    pub fn legal(caps: &Caps, problem: &Problem) -> Vec<Self> {
        let mut legal: Vec<Self> = Self::ALL.into_iter().filter(|v| v.is_legal(caps, problem)).collect();
        // Those for the other class of adapters last.
        legal.sort_by_key(|v| v.entry().class != caps.class);
        legal
    }

    fn is_legal(self, caps: &Caps, problem: &Problem) -> bool {
        (self.entry().legal)(caps, problem)
    }

    /// The default, the same on every run:
    ///
    /// | adapter | rows | variant |
    /// |---|---|---|
    /// | GPU, rows of whole loads of 16 bytes | up to 8 | row_quants, row_along or row_across |
    /// | GPU, others | up to 8 | row |
    /// | GPU with matrix units in use | more | matrix |
    /// | AMD's and NVIDIA's GPUs | more, 256 tiles of 128×128 or more that are nearly filled | tile128 |
    /// | the same, other GPUs if 4 divides the stored rows | more, 96 tiles of 128×64 or more that are nearly filled | tile128x64 |
    /// | GPU | more, 48 tiles of 64×64 or more | tile64 |
    /// | GPU | more, fewer tiles | tile32 |
    /// | CPU, fixed subgroups of 8, B quantised along k | up to 4 | row_blocks_shuffle |
    /// | CPU, others, B quantised along k | up to 4 | row_blocks |
    /// | CPU, others | up to 4 | row |
    /// | CPU, fixed subgroups of 8, B quantised along k | 5 to 8 | row_blocks_lanes |
    /// | CPU, fixed subgroups of 8 to 16, A not transposed | 5 to 8, 9 to 16 | subgroup1, subgroup2 |
    /// | CPU, fixed subgroups of 8 to 16 | more than 4, 4 tiles of 32×64 or more that columns fill | subgroup_wide |
    /// | CPU, fixed subgroups of 8 to 16 | more than 4, others | subgroup4 |
    /// | CPU, fixed subgroups of 4 | more than 4 | unrolled |
    /// | CPU, others | more than 4 | registers |
    #[must_use]
    pub fn choose(caps: &Caps, problem: &Problem) -> Self {
        let few: &[Self] = match caps.class {
            AdapterClass::Gpu => &[Self::RowQuants, Self::RowAlong, Self::RowAcross, Self::Row],
            AdapterClass::Cpu if problem.m <= 4 => &[Self::RowBlocksShuffle, Self::RowBlocks, Self::Row],
            AdapterClass::Cpu => &[Self::RowBlocksLanes],
        };
        if let Some(row) = few.iter().find(|v| v.is_legal(caps, problem)) {
            return *row;
        }
        match caps.class {
            AdapterClass::Gpu => Self::choose_tile(caps, problem),
            AdapterClass::Cpu if caps.subgroup == Some(4) => Self::Unrolled,
            AdapterClass::Cpu if caps.subgroup < Some(8) || !Self::Subgroup4.is_legal(caps, problem) => Self::Registers,
            AdapterClass::Cpu if problem.m <= 8 && Self::Subgroup1.is_legal(caps, problem) => Self::Subgroup1,
            AdapterClass::Cpu if problem.m <= 16 && Self::Subgroup2.is_legal(caps, problem) => Self::Subgroup2,
            AdapterClass::Cpu => {
                let wide = problem.batch * problem.m.div_ceil(32) * problem.n.div_ceil(64);
                let fills = wide >= 4 && !(1..=32).contains(&(problem.n % 64));
                if fills { Self::SubgroupWide } else { Self::Subgroup4 }
            }
        }
    }

    /// The default of a GPU for more rows than those of the kernels for few rows.
    fn choose_tile(caps: &Caps, problem: &Problem) -> Self {
        if Self::Matrix.is_legal(caps, problem) {
            return Self::Matrix;
        }
        let tiles =
            |rows: usize, columns: usize| problem.batch * problem.m.div_ceil(rows) * problem.n.div_ceil(columns);
        // An eighth of the work may fall on rows or columns past the edge: what larger tiles save is little more.
        let filled = |extent: usize| extent.next_multiple_of(128) - extent <= extent / 8;
        let [least64, least128x64, least128] = MIN_TILES;
        // Other compilers spill 8×8 sums an invocation, and Intel's spills 8×4 where operands are loaded one element at a time.
        let many_registers = matches!(caps.vendor, AMD | NVIDIA);
        let fours = problem.stored_a().1.is_multiple_of(4) && problem.stored_b().1.is_multiple_of(4);
        if many_registers && tiles(128, 128) >= least128 && filled(problem.m) && filled(problem.n) {
            return Self::Tile128;
        }
        if tiles(128, 64) >= least128x64 && filled(problem.m) && (many_registers || fours) {
            return Self::Tile128x64;
        }
        if tiles(64, 64) >= least64 { Self::Tile64 } else { Self::Tile32 }
    }
}

/// Vendors by the PCI registry.
const AMD: u32 = 0x1002;
const NVIDIA: u32 = 0x10de;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dtype::DType;
    use crate::ops::matmul::Form;

    #[test]
    fn larger_products_get_larger_tiles() {
        let choose = |vendor, form, [m, n, k]: [usize; 3]| {
            let caps = Caps { vendor, ..Caps::baseline() };
            Variant::choose(&caps, &Problem { form, batch: 1, m, n, k, weight: DType::F32 })
        };
        let (intel, apple) = (0x8086, 0x106b);
        for vendor in [0, intel, apple, AMD, NVIDIA] {
            assert_eq!(choose(vendor, Form::Nn, [256, 256, 512]), Variant::Tile32);
            assert_eq!(choose(vendor, Form::Nn, [512, 512, 512]), Variant::Tile64);
            assert_eq!(choose(vendor, Form::Nn, [1024, 1024, 512]), Variant::Tile128x64);
            assert_eq!(choose(vendor, Form::Nn, [64, 50304, 512]), Variant::Tile64, "half of a row of tiles is empty");
            let many_registers = vendor == AMD || vendor == NVIDIA;
            let huge = if many_registers { Variant::Tile128 } else { Variant::Tile128x64 };
            assert_eq!(choose(vendor, Form::Nt, [2048, 50304, 512]), huge);
            let odd = if many_registers { Variant::Tile128 } else { Variant::Tile64 };
            assert_eq!(choose(vendor, Form::Tn, [50257, 768, 2048]), odd, "rows of an odd length");
        }
    }

    #[test]
    fn names_stay() {
        for variant in Variant::ALL {
            assert_eq!(serde_json::to_value(variant).unwrap(), variant.name());
        }
        let old: Variant = serde_json::from_value("lines".into()).unwrap();
        assert_eq!(old, Variant::Unrolled);
    }
}
