//! What a quantised type is: where a block has its quants and scales, in a file and in GPU memory.

use crate::dtype::DType;
use half::f16;

/// The most weights of a block.
pub(super) const MOST: usize = 256;
/// The most stretches of a block, each with an s and an m of its own.
const STRETCHES: usize = 16;

/// A block of any type: `x[i] = d s[j] step(q[i]) - e m[j]`, j being the stretch of weight i.
#[derive(Clone, Copy)]
pub(super) struct Block {
    pub(super) d: f32,
    /// 0 where the type has no m.
    pub(super) e: f32,
    /// 1 where the type has no s.
    pub(super) s: [i8; STRETCHES],
    pub(super) m: [u8; STRETCHES],
    pub(super) quants: [u8; MOST],
}

impl Block {
    pub(super) const ZERO: Self = Self { d: 0.0, e: 0.0, s: [1; STRETCHES], m: [1; STRETCHES], quants: [0; MOST] };
}

/// A quantised type.
pub(super) struct Format {
    pub(super) dtype: DType,
    /// The number of the type in GGUF files.
    pub(super) number: u32,
    /// Bytes of a block in a file.
    pub(super) bytes: usize,
    /// Weights that share an s and an m.
    pub(super) stretch: usize,
    /// The low bits of the quants in a file; they alone are the quants in GPU memory.
    pub(super) low: Bits,
    /// The other bits in a file; in GPU memory they lie behind the scales.
    pub(super) high: Option<Bits>,
    /// From a file's block.
    pub(super) read_scales: fn(&[u8], &mut Block),
    /// Into a file's block.
    pub(super) write_scales: fn(&Block, &mut [u8]),
    /// The scales in GPU memory.
    pub(super) scales: Scales,
    /// What a quant stands for.
    pub(super) step: fn(u8) -> f32,
    /// The block whose weights are near given ones.
    pub(super) nearest: fn(&[f32]) -> Block,
}

/// Where bits of quants lie: from byte `at` on, `run` bytes hold the same bits of `run` weights that follow each other, above them those
/// of the next `run`, and so on until the bytes are full.
#[derive(Clone, Copy)]
pub(super) struct Bits {
    pub(super) at: usize,
    pub(super) bits: u32,
    pub(super) run: usize,
}

impl Bits {
    /// Weight by weight.
    pub(super) const fn in_order(at: usize, bits: u32) -> Self {
        Self { at, bits, run: 1 }
    }

    fn mask(self) -> u8 {
        u8::MAX >> (8 - self.bits)
    }

    /// Weights of `run` bytes.
    fn of_run(self) -> usize {
        self.run * 8 / self.bits as usize
    }

    /// Adds the bits to quants, `shift` bits up.
    fn read(self, bytes: &[u8], quants: &mut [u8], shift: u32) {
        if self.run == 1 {
            // The same, faster.
            for (quants, &byte) in quants.chunks_exact_mut(self.of_run()).zip(&bytes[self.at..]) {
                let mut rest = u32::from(byte);
                for quant in quants {
                    *quant |= (rest as u8 & self.mask()) << shift;
                    rest >>= self.bits;
                }
            }
            return;
        }
        let runs = bytes[self.at..].chunks_exact(self.run);
        for (quants, bytes) in quants.chunks_exact_mut(self.of_run()).zip(runs) {
            for (part, quants) in (0..).zip(quants.chunks_exact_mut(self.run)) {
                for (quant, byte) in quants.iter_mut().zip(bytes) {
                    *quant |= (byte >> (self.bits * part) & self.mask()) << shift;
                }
            }
        }
    }

    /// Adds those bits of the quants that are `shift` bits up to zeros.
    fn write(self, quants: &[u8], shift: u32, bytes: &mut [u8]) {
        if self.run == 1 {
            for (quants, byte) in quants.chunks_exact(self.of_run()).zip(&mut bytes[self.at..]) {
                let add = |all: u32, quant: &u8| all << self.bits | u32::from(quant >> shift & self.mask());
                *byte = quants.iter().rev().fold(0, add) as u8;
            }
            return;
        }
        let runs = bytes[self.at..].chunks_exact_mut(self.run);
        for (quants, bytes) in quants.chunks_exact(self.of_run()).zip(runs) {
            for (part, quants) in (0..).zip(quants.chunks_exact(self.run)) {
                for (quant, byte) in quants.iter().zip(bytes.iter_mut()) {
                    *byte |= (quant >> shift & self.mask()) << (self.bits * part);
                }
            }
        }
    }
}

/// The scales of a block in GPU memory, in front of the high bits.
#[derive(Clone, Copy)]
pub(super) enum Scales {
    /// d as f32.
    One,
    /// d and -e as f16, d in the low half.
    Pair,
    /// d as f32, s as i8.
    Signed,
    /// d and e as f32, s and then m as bytes.
    WithMinima,
    /// d and e as f32, s and m as halves of a byte, s in the low one.
    WithMinimaOf4Bits,
}

impl Scales {
    /// Bytes of the scales of so many stretches.
    fn bytes(self, stretches: usize) -> usize {
        match self {
            Self::One | Self::Pair => 4,
            Self::Signed => 4 + stretches,
            Self::WithMinima => 8 + 2 * stretches,
            Self::WithMinimaOf4Bits => 8 + stretches,
        }
    }

    fn write(self, block: &Block, stretches: usize, bytes: &mut [u8]) {
        if let Self::Pair = self {
            bytes[..2].copy_from_slice(&f16::from_f32(block.d).to_le_bytes());
            bytes[2..4].copy_from_slice(&f16::from_f32(-block.e).to_le_bytes());
            return;
        }
        bytes[..4].copy_from_slice(&block.d.to_le_bytes());
        if let Self::WithMinima | Self::WithMinimaOf4Bits = self {
            bytes[4..8].copy_from_slice(&block.e.to_le_bytes());
        }
        for j in 0..stretches {
            let (s, m) = (block.s[j].cast_unsigned(), block.m[j]);
            match self {
                Self::One | Self::Pair => {}
                Self::Signed => bytes[4 + j] = s,
                Self::WithMinima => (bytes[8 + j], bytes[8 + stretches + j]) = (s, m),
                Self::WithMinimaOf4Bits => bytes[8 + j] = s | m << 4,
            }
        }
    }

    fn read(self, bytes: &[u8], stretches: usize, block: &mut Block) {
        if let Self::Pair = self {
            (block.d, block.e) = (half_at(bytes, 0), -half_at(bytes, 2));
            return;
        }
        let float = |at: usize| f32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        block.d = float(0);
        if let Self::WithMinima | Self::WithMinimaOf4Bits = self {
            block.e = float(4);
        }
        for j in 0..stretches {
            match self {
                Self::One | Self::Pair => {}
                Self::Signed => block.s[j] = bytes[4 + j].cast_signed(),
                Self::WithMinima => (block.s[j], block.m[j]) = (bytes[8 + j].cast_signed(), bytes[8 + stretches + j]),
                Self::WithMinimaOf4Bits => {
                    (block.s[j], block.m[j]) = ((bytes[8 + j] & 15).cast_signed(), bytes[8 + j] >> 4);
                }
            }
        }
    }
}

impl Format {
    /// Bytes of the scales of a block in GPU memory, without high bits.
    pub(super) fn scale_bytes(&self) -> usize {
        self.scales.bytes(self.stretches())
    }

    fn stretches(&self) -> usize {
        self.dtype.block() / self.stretch
    }

    /// The high bits in the scales of GPU memory.
    fn high_behind_scales(&self) -> Option<(Bits, u32)> {
        self.high.map(|high| (Bits::in_order(self.scale_bytes(), high.bits), self.low.bits))
    }

    /// Reads a block of a file.
    pub(super) fn read_file(&self, bytes: &[u8], block: &mut Block) {
        let quants = &mut block.quants[..self.dtype.block()];
        quants.fill(0);
        self.low.read(bytes, quants, 0);
        if let Some(high) = self.high {
            high.read(bytes, quants, self.low.bits);
        }
        (self.read_scales)(bytes, block);
    }

    /// Adds a block to a file.
    pub(super) fn write_file(&self, block: &Block, file: &mut Vec<u8>) {
        let start = file.len();
        file.resize(start + self.bytes, 0);
        let (bytes, quants) = (&mut file[start..], &block.quants[..self.dtype.block()]);
        self.low.write(quants, 0, bytes);
        if let Some(high) = self.high {
            high.write(quants, self.low.bits, bytes);
        }
        (self.write_scales)(block, bytes);
    }

    /// Reads a block's words of GPU memory.
    pub(super) fn read_words(&self, quant_bytes: &[u8], scale_bytes: &[u8], block: &mut Block) {
        let quants = &mut block.quants[..self.dtype.block()];
        quants.fill(0);
        Bits::in_order(0, self.low.bits).read(quant_bytes, quants, 0);
        if let Some((high, shift)) = self.high_behind_scales() {
            high.read(scale_bytes, quants, shift);
        }
        self.scales.read(scale_bytes, self.stretches(), block);
    }

    /// Writes a block's words of GPU memory, which are zeros.
    pub(super) fn write_words(&self, block: &Block, quant_bytes: &mut [u8], scale_bytes: &mut [u8]) {
        let quants = &block.quants[..self.dtype.block()];
        Bits::in_order(0, self.low.bits).write(quants, 0, quant_bytes);
        if let Some((high, shift)) = self.high_behind_scales() {
            high.write(quants, shift, scale_bytes);
        }
        self.scales.write(block, self.stretches(), scale_bytes);
    }

    /// The weights, exactly.
    pub(super) fn values(&self, block: &Block, mut take: impl FnMut(f64)) {
        for (j, quants) in block.quants[..self.dtype.block()].chunks_exact(self.stretch).enumerate() {
            let (d, e) = (f64::from(block.d) * f64::from(block.s[j]), f64::from(block.e) * f64::from(block.m[j]));
            quants.iter().for_each(|&q| take(d * f64::from((self.step)(q)) - e));
        }
    }

    /// Whether d and e are finite, and the largest float of mxfp4 as well.
    pub(super) fn has_finite_scales(&self, bytes: &[u8], block: &mut Block) -> bool {
        (self.read_scales)(bytes, block);
        (6.0 * block.d).is_finite() && block.e.is_finite()
    }
}

/// The f16 at a byte.
pub(super) fn half_at(bytes: &[u8], at: usize) -> f32 {
    f16::from_le_bytes([bytes[at], bytes[at + 1]]).to_f32()
}

/// Writes an f16 to a byte.
pub(super) fn put_half(bytes: &mut [u8], at: usize, value: f32) {
    bytes[at..at + 2].copy_from_slice(&f16::from_f32(value).to_le_bytes());
}
