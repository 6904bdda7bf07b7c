//! The table of the kernels of matrix products: all that is to be known of a variant, one entry each.

use super::problem::{Form, Problem};
use super::split::splits;
use super::variant::Variant;
use super::windows::load_width;
use crate::dtype::{BLOCK, DType};
use crate::kernel::{AdapterClass, Caps, Kernel, MatrixUnits, Snippet, kernel};

static TILE: Kernel = kernel!("matmul/matmul_tile");
static REGISTERS: Kernel = kernel!("matmul/matmul_registers");
static UNROLLED: Kernel = kernel!("matmul/matmul_unrolled");
static SUBGROUP: Kernel = kernel!("matmul/matmul_subgroup");
static ROW_BLOCKS: Kernel = kernel!("matmul/matmul_row_blocks");
static ROW_BLOCKS_SHUFFLE: Kernel = kernel!("matmul/matmul_row_blocks_shuffle");
static ROW: Kernel = kernel!("matmul/matmul_row");
static ROW_BLOCKS_LANES: Kernel = kernel!("matmul/matmul_row_blocks_lanes");
static ROW_ALONG: Kernel = kernel!("matmul/matmul_row_along");
static ROW_ACROSS: Kernel = kernel!("matmul/matmul_row_across");
static ROW_QUANTS: Kernel = kernel!("matmul/matmul_row_quants");
static MATRIX: Kernel = kernel!("matmul/matmul_matrix");
static UNITS_8: [Snippet; 2] = [kernel!("common/matmul_units8_f32"), kernel!("common/matmul_units8_half")];
static UNITS_16: Snippet = kernel!("common/matmul_units16_half");
static BLOCKS: Snippet = kernel!("common/matmul_blocks");
static FEW_ROWS: Snippet = kernel!("common/matmul_few_rows");
static SLICES: Snippet = kernel!("common/matmul_slices");
static SLICE_LOADS: Snippet = kernel!("common/matmul_slice_loads");

/// The most rows that the kernels for few rows take.
pub(super) const MOST_ROWS: usize = 8;

/// One variant.
pub(super) struct Entry {
    pub(super) variant: Variant,
    /// The name in reports.
    pub(super) name: &'static str,
    pub(super) kernel: &'static Kernel,
    /// The adapters that it is made for.
    pub(super) class: AdapterClass,
    /// Whether it takes groups of rows, each with a matrix of its own.
    pub(super) grouped: bool,
    /// Whether it loads both operands 16 bytes at a time.
    pub(super) wide_loads: bool,
    /// Its tiles and constants for a problem.
    pub(super) plan: fn(&Caps, &Problem) -> Plan,
    /// Whether it can compute a problem on an adapter.
    pub(super) legal: fn(&Caps, &Problem) -> bool,
}

/// The work of a variant, cut into tiles.
pub(super) struct Plan {
    /// Rows and columns of a tile.
    pub(super) tile: [usize; 2],
    /// Tiles of a workgroup.
    pub(super) tiles: usize,
    pub(super) constants: Vec<(&'static str, u32)>,
    /// Columns of tiles of a band; with one, tiles run along the columns of the result, so that B is read once.
    pub(super) band: u32,
    pub(super) snippets: Vec<&'static Snippet>,
    /// Whether the kernel leaves bounds checks out where no tile crosses an edge and no invocation is idle. Only kernels that mostly
    /// load do; for others it gains 2 % and would be another pipeline.
    pub(super) skips_checks: bool,
}

impl Plan {
    /// A tile a workgroup, without bands, with all checks.
    fn new(tile: [usize; 2], constants: Vec<(&'static str, u32)>, snippets: Vec<&'static Snippet>) -> Self {
        Self { tile, tiles: 1, constants, band: 1, snippets, skips_checks: false }
    }
}

/// All variants, by number: those of a class in the order in which they promise most.
pub(super) static TABLE: [Entry; Variant::COUNT] = ENTRIES;

pub(super) const ENTRIES: [Entry; Variant::COUNT] = [
    cpu(Variant::Row, "row", &ROW, row, |_, p| p.m <= MOST_ROWS && !p.form.a_transposed()),
    cpu(Variant::RowBlocks, "row_blocks", &ROW_BLOCKS, row, has_blocks_along_k),
    cpu(Variant::RowBlocksShuffle, "row_blocks_shuffle", &ROW_BLOCKS_SHUFFLE, shuffled_row, |caps, p| {
        caps.subgroup == Some(8) && has_blocks_along_k(caps, p)
    }),
    cpu(Variant::RowBlocksLanes, "row_blocks_lanes", &ROW_BLOCKS_LANES, shuffled_row, |caps, p| {
        caps.subgroup == Some(8) && has_blocks_along_k(caps, p)
    }),
    few(Variant::RowAlong, "row_along", &ROW_ALONG, row_along, |_, p| is_few(p, Form::Nt) && loads(p.weight, p.k)),
    few(Variant::RowAcross, "row_across", &ROW_ACROSS, row_across, |_, p| is_few(p, Form::Nn) && loads(p.weight, p.n)),
    few(Variant::RowQuants, "row_quants", &ROW_QUANTS, row_quants, has_blocks_along_k),
    tile(Variant::Tile128x64, "tile128x64", |_, _| SHAPE_128X64.plan(), |caps, _| SHAPE_128X64.fits(caps)),
    tile(Variant::Tile128, "tile128", |_, _| SHAPE_128.plan(), |caps, _| SHAPE_128.fits(caps)),
    tile(Variant::Tile64, "tile64", |_, _| SHAPE_64.plan(), |_, _| true),
    tile(Variant::Tile32, "tile32", |_, _| SHAPE_32.plan(), |_, _| true),
    tile(
        Variant::Tile128x64Double,
        "tile128x64_double",
        |_, _| SHAPE_128X64_DOUBLE.plan(),
        |caps, _| SHAPE_128X64_DOUBLE.fits(caps),
    ),
    Entry {
        kernel: &MATRIX,
        ..tile(Variant::Matrix, "matrix", |caps, _| matrix(caps), |caps, _| has_matrix_units(caps))
    },
    Entry { grouped: false, ..tile(Variant::SplitK, "split_k", |_, _| SHAPE_64.plan(), |_, p| splits(p) > 1) },
    cpu(Variant::Subgroup1, "subgroup1", &SUBGROUP, |caps, _| subgroup(caps, 1, 2), has_short_subgroups_and_rows),
    cpu(Variant::Subgroup2, "subgroup2", &SUBGROUP, |caps, _| subgroup(caps, 2, 2), has_short_subgroups_and_rows),
    cpu(Variant::Subgroup4, "subgroup4", &SUBGROUP, |caps, _| subgroup(caps, 4, 1), has_short_subgroups),
    cpu(Variant::Subgroup8, "subgroup8", &SUBGROUP, |caps, _| subgroup(caps, 8, 1), has_short_subgroups),
    cpu(Variant::SubgroupWide, "subgroup_wide", &SUBGROUP, |caps, _| subgroup(caps, 4, 2), has_short_subgroups),
    cpu(Variant::Registers, "registers", &REGISTERS, |caps, _| registers(caps, 16), |_, _| true),
    cpu(
        Variant::Unrolled,
        "unrolled",
        &UNROLLED,
        |caps, _| Plan { skips_checks: true, ..registers(caps, 8) },
        |_, _| true,
    ),
];

type MakePlan = fn(&Caps, &Problem) -> Plan;
type IsLegal = fn(&Caps, &Problem) -> bool;

const fn cpu(variant: Variant, name: &'static str, kernel: &'static Kernel, plan: MakePlan, legal: IsLegal) -> Entry {
    Entry { variant, name, kernel, class: AdapterClass::Cpu, grouped: true, wide_loads: false, plan, legal }
}

const fn tile(variant: Variant, name: &'static str, plan: MakePlan, legal: IsLegal) -> Entry {
    Entry { variant, name, kernel: &TILE, class: AdapterClass::Gpu, grouped: true, wide_loads: false, plan, legal }
}

const fn few(variant: Variant, name: &'static str, kernel: &'static Kernel, plan: MakePlan, legal: IsLegal) -> Entry {
    Entry { variant, name, kernel, class: AdapterClass::Gpu, grouped: true, wide_loads: true, plan, legal }
}

/// Few rows of A, whole vectors of four.
fn is_few(p: &Problem, form: Form) -> bool {
    p.m <= MOST_ROWS && p.form == form && p.k.is_multiple_of(4)
}

/// Whether rows of B are whole loads of 16 bytes.
fn loads(weight: DType, row: usize) -> bool {
    load_width(weight).is_some_and(|width| row.is_multiple_of(width))
}

fn has_blocks_along_k(_: &Caps, p: &Problem) -> bool {
    p.m <= MOST_ROWS && p.form.b_transposed() && p.weight.is_quantised()
}

/// Accumulators are an array with one vector per lane: wider subgroups would spill them.
fn has_short_subgroups(caps: &Caps, _: &Problem) -> bool {
    matches!(caps.subgroup, Some(4..=16))
}

/// Blocks of fewer than four rows are not loaded from a transposed A.
fn has_short_subgroups_and_rows(caps: &Caps, p: &Problem) -> bool {
    has_short_subgroups(caps, p) && !p.form.a_transposed()
}

/// Columns of tiles of a band on GPUs. Some tens to hundreds of tiles are computed at a time; 8 columns and as many rows or more read less
/// than a long column of them.
const BAND: u32 = 8;

/// The shape of a tile of `matmul_tile`.
struct Shape {
    side: u32,
    row_blocks: u32,
    column_blocks: u32,
    depth: u32,
    buffers: u32,
}

const SHAPE_32: Shape = Shape { side: 8, row_blocks: 1, column_blocks: 1, depth: 16, buffers: 1 };
const SHAPE_64: Shape = Shape { side: 16, ..SHAPE_32 };
const SHAPE_128X64: Shape = Shape { row_blocks: 2, ..SHAPE_64 };
const SHAPE_128X64_DOUBLE: Shape = Shape { buffers: 2, ..SHAPE_128X64 };
const SHAPE_128: Shape = Shape { column_blocks: 2, depth: 8, ..SHAPE_128X64 };

impl Shape {
    fn plan(&self) -> Plan {
        let Self { side, row_blocks, column_blocks, depth, buffers } = *self;
        let tile = [row_blocks, column_blocks].map(|blocks| (4 * side * blocks) as usize);
        let constants = vec![
            ("SIDE", side),
            ("ROW_BLOCKS", row_blocks),
            ("COLUMN_BLOCKS", column_blocks),
            ("DEPTH", depth),
            ("BUFFERS", buffers),
        ];
        Plan { band: BAND, ..Plan::new(tile, constants, vec![&SLICE_LOADS]) }
    }

    /// Whether an adapter has the invocations and the workgroup memory.
    fn fits(&self, caps: &Caps) -> bool {
        let blocks = self.side * (self.row_blocks + self.column_blocks);
        // See the kernel: four vectors of 16 bytes a block, with padding.
        let row = 4 * (blocks + 2) + 2 * (4 - 32 / self.depth);
        caps.max_invocations >= self.side * self.side
            && caps.workgroup_memory >= self.buffers * self.depth / 4 * row * 16
    }
}

fn has_matrix_units(caps: &Caps) -> bool {
    let Some([least, most]) = caps.subgroup_sizes else { return false };
    // Two slices with padding in the factors' type, and a band of sums for each subgroup.
    let slices = |size: u32, bytes: u32| 2 * bytes * (2 * size * (4 * size + 8)).max(4 * size * (2 * size + 8));
    let band = |size: u32| 4 * (4 * most / least) * size * (2 * size + 4);
    let memory = |size: u32, bytes: u32| slices(size, bytes) + band(size);
    let fits = |units: MatrixUnits| memory(units.size, if units.half { 2 } else { 4 }) <= caps.workgroup_memory;
    let known = |units: &MatrixUnits| matches!((units.size, units.half), (8, _) | (16, true));
    caps.matrix_units.filter(known).is_some_and(fits) && 4 * most <= caps.max_invocations
}

fn matrix(caps: &Caps) -> Plan {
    let units = caps.matrix_units.unwrap_or(MatrixUnits { size: 8, half: false });
    // Four subgroups, also if they are the largest.
    let [least, most] = caps.subgroup_sizes.unwrap_or([32; 2]);
    let snippet = if units.size == 16 { &UNITS_16 } else { &UNITS_8[usize::from(units.half)] };
    let constants = vec![("UNIT", units.size), ("INVOCATIONS", 4 * most), ("SUBGROUP_MIN", least)];
    Plan { band: BAND, ..Plan::new([4 * units.size as usize; 2], constants, vec![snippet, &BLOCKS]) }
}

/// The vector width of a CPU driver.
fn lanes(caps: &Caps) -> u32 {
    caps.subgroup.unwrap_or(8).clamp(4, 16)
}

fn registers(caps: &Caps, rows: usize) -> Plan {
    let lanes = lanes(caps);
    Plan { tiles: lanes as usize, ..Plan::new([rows, 8], vec![("LANES", lanes)], vec![&BLOCKS]) }
}

fn subgroup(caps: &Caps, rows: u32, wide: u32) -> Plan {
    let lanes = lanes(caps);
    let tile = [(rows * lanes) as usize, (4 * wide * lanes) as usize];
    Plan::new(tile, vec![("LANES", lanes), ("ROWS", rows), ("WIDE", wide)], vec![&BLOCKS])
}

fn shuffled_row(_: &Caps, p: &Problem) -> Plan {
    let rows = p.m.next_power_of_two();
    Plan::new([rows, 32], vec![("ROWS", rows as u32)], vec![&BLOCKS])
}

fn row(caps: &Caps, p: &Problem) -> Plan {
    // A GPU needs many invocations in flight and contiguous loads; a CPU wants no workgroup memory.
    let on_cpu = caps.class == AdapterClass::Cpu;
    let (lanes, slices) = if on_cpu { (lanes(caps), 1) } else { (8, 32) };
    // Columns of an invocation, in fours: a cache line on a CPU driver, if two threads still have work; four on a GPU, whose invocations
    // load contiguously.
    let span = if on_cpu && !p.form.b_transposed() { (p.n / (16 * lanes as usize)).clamp(1, 4) } else { 1 };
    let rows = p.m.next_power_of_two();
    let constants = vec![("ROWS", rows as u32), ("LANES", lanes), ("SLICES", slices), ("SPAN", span as u32)];
    let plan = Plan::new([rows, 4 * lanes as usize * span], constants, vec![&BLOCKS, &SLICES]);
    Plan { skips_checks: on_cpu && !has_blocks_along_k(caps, p), ..plan }
}

/// The work of a kernel of GPUs for few rows: tiles of `rows` and of `width` columns a lane.
fn few_rows(rows: usize, width: usize, [lanes, slices]: [u32; 2]) -> Plan {
    let constants = vec![("ROWS", rows as u32), ("LANES", lanes), ("SLICES", slices)];
    Plan::new([rows, width * lanes as usize], constants, vec![&FEW_ROWS])
}

/// Lanes and slices for so many loads along k: neighbours that read 128 bytes or more, and few that idle.
fn along_k(loads: usize) -> [u32; 2] {
    let busy = |slices: usize| 4 * loads >= 3 * loads.next_multiple_of(slices);
    match loads {
        _ if busy(32) => [4, 32],
        _ if busy(16) => [4, 16],
        _ => [8, 8],
    }
}

fn row_along(_: &Caps, p: &Problem) -> Plan {
    few_rows(p.m.next_power_of_two(), 4, along_k(p.k / load_width(p.weight).unwrap_or(1)))
}

fn row_across(_: &Caps, p: &Problem) -> Plan {
    few_rows(p.m.next_power_of_two(), load_width(p.weight).unwrap_or(1), [8, 16])
}

fn row_quants(_: &Caps, p: &Problem) -> Plan {
    few_rows(p.m.next_power_of_two().min(4), 4, along_k(p.k / BLOCK))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_stand_at_their_numbers() {
        for (number, entry) in TABLE.iter().enumerate() {
            assert_eq!(entry.variant as usize, number, "{}", entry.name);
        }
    }
}
