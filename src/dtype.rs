//! Element types of tensors.

use std::fmt;

/// The type of a tensor's elements as they lie in GPU memory.
///
/// The 16-bit types are storage types: kernels widen them to f32 on load. Two of them share a 32-bit word, the
/// element of the lower index in the low half.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DType {
    /// 32-bit IEEE float: the type of all arithmetic.
    F32,
    /// 16-bit IEEE float, packed in pairs.
    F16,
    /// 16-bit brain float (the upper half of an f32), packed in pairs.
    BF16,
    /// 32-bit unsigned integer: token ids, indices, counters.
    U32,
    /// 32-bit signed integer: labels, where a negative one means "ignore".
    I32,
}

impl DType {
    /// Bytes that `count` elements occupy, rounded up to whole 32-bit words.
    #[must_use]
    pub fn bytes(self, count: usize) -> u64 {
        match self {
            Self::F32 | Self::U32 | Self::I32 => count as u64 * 4,
            Self::F16 | Self::BF16 => count.div_ceil(2) as u64 * 4,
        }
    }

    /// Whether gradients flow through tensors of this type.
    #[must_use]
    pub fn is_float(self) -> bool {
        matches!(self, Self::F32 | Self::F16 | Self::BF16)
    }

    /// The value after a round trip through this type, to nearest even.
    #[must_use]
    pub fn round(self, value: f64) -> f64 {
        match self {
            Self::F32 => f64::from(value as f32),
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
        })
    }
}
