//! Element types of tensors.

use std::fmt;

/// The type of a tensor's elements as they lie in GPU memory.
///
/// The 16-bit types are storage types: kernels widen them to f32 on load. Two of them share a 32-bit word, the
/// element of the lower index in the low half.
///
/// The quantised types hold weights for inference in blocks of 32 or 256 ([`DType::block`]) along the last axis, whose extent must be a
/// multiple of that. Their names are those of GGUF files. What a block is in a file and in memory is said in [`crate::quantised`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum DType {
    /// 32-bit IEEE float: the type of all arithmetic.
    #[default]
    F32,
    /// 16-bit IEEE float, packed in pairs.
    F16,
    /// 16-bit brain float (the upper half of an f32), packed in pairs.
    BF16,
    /// 32-bit unsigned integer: token ids, indices, counters.
    U32,
    /// 32-bit signed integer: labels, where a negative one means "ignore".
    I32,
    /// 8 bits a weight: `x = d q`, q from -128 to 127.
    Q8_0,
    /// 4 bits a weight: `x = d (q - 8)`.
    Q4_0,
    /// 4 bits a weight: `x = d q + m`.
    Q4_1,
    /// 5 bits a weight: `x = d (q - 16)`.
    Q5_0,
    /// 5 bits a weight: `x = d q + m`.
    Q5_1,
    /// 2 bits a weight: `x = d s q - e m`, s and m of 16 weights, from 0 to 15.
    #[serde(rename = "q2_k")]
    Q2K,
    /// 3 bits a weight: `x = d s (q - 4)`, s of 16 weights, from -32 to 31.
    #[serde(rename = "q3_k")]
    Q3K,
    /// 4 bits a weight: `x = d s q - e m`, s and m of 32 weights, from 0 to 63.
    #[serde(rename = "q4_k")]
    Q4K,
    /// 5 bits a weight: `x = d s q - e m`, s and m of 32 weights, from 0 to 63.
    #[serde(rename = "q5_k")]
    Q5K,
    /// 6 bits a weight: `x = d s (q - 32)`, s of 16 weights, from -128 to 127.
    #[serde(rename = "q6_k")]
    Q6K,
    /// 4 bits a weight: `x = d T[q]`, T a table of 16 steps from -127 to 113, closer together around zero.
    #[serde(rename = "iq4_nl")]
    IQ4NL,
    /// 4 bits a weight: `x = d s T[q]` with the table of iq4_nl, s of 32 weights, from -32 to 31.
    #[serde(rename = "iq4_xs")]
    IQ4XS,
    /// 4-bit floats (E2M1) with a power of two for 32 of them: `x = 2^(e - 127) f`, f one of ±0, 0.5, 1, 1.5, 2, 3, 4, 6.
    MXFP4,
}

/// Words that the scales of a quantised tensor are aligned to: 256 bytes, the largest offset alignment there is.
const SCALES_ALIGNMENT: usize = 64;

/// Weights of the smallest block of the quantised types; the others' are multiples of it.
pub const BLOCK: usize = 32;

impl DType {
    /// The quantised types.
    pub const QUANTISED: [Self; 13] = [
        Self::Q8_0,
        Self::Q4_0,
        Self::Q4_1,
        Self::Q5_0,
        Self::Q5_1,
        Self::Q2K,
        Self::Q3K,
        Self::Q4K,
        Self::Q5K,
        Self::Q6K,
        Self::IQ4NL,
        Self::IQ4XS,
        Self::MXFP4,
    ];

    /// The name, and for a quantised type the weights of a block, the words of their quants, and those of their scales.
    const fn layout(self) -> (&'static str, [usize; 3]) {
        match self {
            Self::F32 => ("f32", [1, 0, 0]),
            Self::F16 => ("f16", [1, 0, 0]),
            Self::BF16 => ("bf16", [1, 0, 0]),
            Self::U32 => ("u32", [1, 0, 0]),
            Self::I32 => ("i32", [1, 0, 0]),
            Self::Q8_0 => ("q8_0", [32, 8, 1]),
            Self::Q4_0 => ("q4_0", [32, 4, 1]),
            Self::Q4_1 => ("q4_1", [32, 4, 1]),
            Self::Q5_0 => ("q5_0", [32, 4, 2]),
            Self::Q5_1 => ("q5_1", [32, 4, 2]),
            Self::Q2K => ("q2_k", [256, 16, 6]),
            Self::Q3K => ("q3_k", [256, 16, 13]),
            Self::Q4K => ("q4_k", [256, 32, 6]),
            Self::Q5K => ("q5_k", [256, 32, 14]),
            Self::Q6K => ("q6_k", [256, 32, 21]),
            Self::IQ4NL => ("iq4_nl", [32, 4, 1]),
            Self::IQ4XS => ("iq4_xs", [256, 32, 3]),
            Self::MXFP4 => ("mxfp4", [32, 4, 1]),
        }
    }

    /// The name, as options and reports have it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        self.layout().0
    }

    /// Weights of a block; 1 for types without blocks.
    #[must_use]
    pub const fn block(self) -> usize {
        self.layout().1[0]
    }

    /// Words that the quants of a block take, without what lies with its scales; 0 for types without blocks.
    #[must_use]
    pub const fn quant_words(self) -> usize {
        self.layout().1[1]
    }

    /// Words that the scales of a block take, with what lies there of its quants; 0 for types without blocks.
    #[must_use]
    pub const fn scale_words(self) -> usize {
        self.layout().1[2]
    }

    /// Bytes that `count` elements occupy, rounded up to whole 32-bit words; [`u64::MAX`] where it is more.
    #[must_use]
    pub fn bytes(self, count: usize) -> u64 {
        let words = match self {
            Self::F32 | Self::U32 | Self::I32 => count,
            Self::F16 | Self::BF16 => count.div_ceil(2),
            _ => self.first_scale(count).saturating_add(count.div_ceil(self.block()) * self.scale_words()),
        };
        (words as u64).saturating_mul(4)
    }

    /// The word at which the scales of a tensor of `count` weights begin, behind the quants: where a binding may begin.
    #[must_use]
    pub fn first_scale(self, count: usize) -> usize {
        (count.div_ceil(self.block()) * self.quant_words()).next_multiple_of(SCALES_ALIGNMENT)
    }

    /// Whether weights of this type lie in blocks with a scale.
    #[must_use]
    pub fn is_quantised(self) -> bool {
        self.quant_words() > 0
    }

    /// Whether products and tables can be of this type: a float or a quantised one.
    #[must_use]
    pub fn is_weight(self) -> bool {
        self.is_float() || self.is_quantised()
    }

    /// Whether rows of that many elements can be of this type: quantised ones are whole blocks.
    #[must_use]
    pub fn holds_rows_of(self, width: usize) -> bool {
        width.is_multiple_of(self.block())
    }

    /// This type, or what takes its place for rows that it cannot hold: the nearest type with blocks of 32, as llama.cpp chooses it, else f32.
    #[must_use]
    pub fn for_rows_of(self, width: usize) -> Self {
        if self.holds_rows_of(width) {
            return self;
        }
        let other = match self {
            Self::Q2K | Self::Q3K => Self::Q4_0,
            Self::Q4K => Self::Q5_0,
            Self::Q5K => Self::Q5_1,
            Self::Q6K => Self::Q8_0,
            Self::IQ4XS => Self::IQ4NL,
            _ => Self::F32,
        };
        if other.holds_rows_of(width) { other } else { Self::F32 }
    }

    /// Whether gradients flow through tensors of this type.
    #[must_use]
    pub fn is_float(self) -> bool {
        matches!(self, Self::F32 | Self::F16 | Self::BF16)
    }

    /// The value after a round trip through this type, to nearest even. The quantised types round whole blocks, not
    /// values ([`crate::quantised`]): here they are taken for f32.
    #[must_use]
    pub fn round(self, value: f64) -> f64 {
        match self {
            Self::F16 => half::f16::from_f32(value as f32).to_f64(),
            Self::BF16 => half::bf16::from_f32(value as f32).to_f64(),
            Self::U32 => f64::from(value as u32),
            Self::I32 => f64::from(value as i32),
            _ => f64::from(value as f32),
        }
    }
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_that_no_number_holds_stay_large() {
        for dtype in [DType::F32, DType::BF16, DType::U32].into_iter().chain(DType::QUANTISED) {
            assert!(dtype.bytes(usize::MAX) > dtype.bytes(1 << 50), "{dtype}");
        }
        assert_eq!(
            (DType::F16.bytes(3), DType::Q8_0.bytes(64), DType::Q6K.bytes(512)),
            (8, 4 * (64 + 2), 4 * (64 + 42))
        );
    }
}
