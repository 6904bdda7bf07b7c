//! Element types of tensors.

use std::fmt;

/// The type of a tensor's elements as they lie in GPU memory.
///
/// The 16-bit types are storage types: kernels widen them to f32 on load. Two of them share a 32-bit word, the
/// element of the lower index in the low half.
///
/// The quantised types hold weights for inference in blocks of [`BLOCK`] along the last axis, whose extent must be a
/// multiple of that. How a tensor lies in memory is said in [`crate::quantised`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
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
    /// 4 bits a weight: `x = d (q - 8)`, q from 0 to 15.
    Q4_0,
    /// 4 bits a weight: `x = d q + m`, q from 0 to 15.
    Q4_1,
    /// 6 bits a weight: `x = d s (q - 32)`, q from 0 to 63, s for each half of a block from -128 to 127.
    #[serde(rename = "q6_k")]
    Q6K,
}

/// Words that the scales of a quantised tensor are aligned to: 256 bytes, the largest offset alignment there is.
const SCALES_ALIGNMENT: usize = 64;

/// Weights that share a scale in the quantised types.
pub const BLOCK: usize = 32;

impl DType {
    /// The quantised types.
    pub const QUANTISED: [Self; 4] = [Self::Q8_0, Self::Q4_0, Self::Q4_1, Self::Q6K];

    /// Bytes that `count` elements occupy, rounded up to whole 32-bit words; [`u64::MAX`] where it is more.
    #[must_use]
    pub fn bytes(self, count: usize) -> u64 {
        let words = match self {
            Self::F32 | Self::U32 | Self::I32 => count,
            Self::F16 | Self::BF16 => count.div_ceil(2),
            Self::Q8_0 | Self::Q4_0 | Self::Q4_1 | Self::Q6K => {
                self.first_scale(count).saturating_add(count.div_ceil(BLOCK) * self.scale_words())
            }
        };
        (words as u64).saturating_mul(4)
    }

    /// Words that the quants of a block take, without what lies with its scale; 0 for types without blocks.
    #[must_use]
    pub fn quant_words(self) -> usize {
        match self {
            Self::Q8_0 => BLOCK / 4,
            Self::Q4_0 | Self::Q4_1 | Self::Q6K => BLOCK / 8,
            _ => 0,
        }
    }

    /// Words that the scale of a block takes, with what lies there of its quants; 0 for types without blocks.
    #[must_use]
    pub fn scale_words(self) -> usize {
        match self {
            Self::Q6K => 3,
            _ => usize::from(self.is_quantised()),
        }
    }

    /// The word at which the scales of a tensor of `count` weights begin, behind the quants: where a binding may begin.
    #[must_use]
    pub fn first_scale(self, count: usize) -> usize {
        (count.div_ceil(BLOCK) * self.quant_words()).next_multiple_of(SCALES_ALIGNMENT)
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
        !self.is_quantised() || width.is_multiple_of(BLOCK)
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
            Self::F32 | Self::Q8_0 | Self::Q4_0 | Self::Q4_1 | Self::Q6K => f64::from(value as f32),
            Self::F16 => half::f16::from_f64(value).to_f64(),
            Self::BF16 => half::bf16::from_f64(value).to_f64(),
            Self::U32 => f64::from(value as u32),
            Self::I32 => f64::from(value as i32),
        }
    }
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::BF16 => "bf16",
            Self::U32 => "u32",
            Self::I32 => "i32",
            Self::Q8_0 => "q8_0",
            Self::Q4_0 => "q4_0",
            Self::Q4_1 => "q4_1",
            Self::Q6K => "q6_k",
        })
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
        assert_eq!((DType::F16.bytes(3), DType::Q8_0.bytes(64), DType::Q6K.bytes(64)), (8, 4 * (64 + 2), 4 * (64 + 6)));
    }
}
