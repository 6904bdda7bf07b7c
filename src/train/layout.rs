//! The flat layout of a model's parameters, so that one dispatch can update all of them.

use crate::dtype::DType;
use crate::error::{Error, Result, human_bytes};
use crate::graph::{Array, Storage};
use crate::kernel::Caps;
use crate::ops::BLOCK;
use crate::program::Weights;
use crate::shape::TensorType;
use std::sync::Arc;

/// The slot of one parameter in its shard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParameterSlot {
    /// The parameter's name.
    pub name: String,
    /// Its type as the model reads it.
    pub ty: TensorType,
    /// The offset in the shard's flat ranges, in elements.
    pub offset: usize,
}

/// Parameters whose values, gradients and moments are flat ranges of one layout.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shard {
    /// The parameters, those in half precision first.
    pub parameters: Vec<ParameterSlot>,
    /// Elements of each flat range, gaps included: a multiple of [`BLOCK`].
    pub total: usize,
    /// The number of leading elements with a half-precision copy, which the model reads.
    pub half: usize,
}

/// The flat ranges of a model: one shard, or several if the parameters do not fit into one buffer.
///
/// Values, gradients and both moments are flat ranges of f32 with the same layout. Parameters that the model reads in half precision have
/// their f32 master in the flat range and a copy in a separate range, at the same offsets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FlatLayout {
    /// The shards.
    pub shards: Vec<Shard>,
    /// The half-precision type, if there is any.
    pub half_type: Option<DType>,
}

/// The kinds of flat ranges.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Range {
    /// The f32 values that are trained.
    Parameters,
    /// The gradients of the step.
    Gradients,
    /// Adam's first moment.
    FirstMoment,
    /// Adam's second moment.
    SecondMoment,
    /// The half-precision copies.
    Half,
}

impl Range {
    /// The name of the range of shard `shard` in the weights store.
    #[must_use]
    pub(crate) fn name(self, shard: usize) -> String {
        let kind = match self {
            Self::Parameters => "flat.parameters",
            Self::Gradients => "flat.gradients",
            Self::FirstMoment => "flat.first_moment",
            Self::SecondMoment => "flat.second_moment",
            Self::Half => "flat.half",
        };
        if shard == 0 { kind.into() } else { format!("{kind}.{shard}") }
    }
}

impl FlatLayout {
    /// Lays out parameters for an adapter.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`] if a single parameter exceeds a buffer, [`Error::Input`] if there are no parameters, one is not a float, or
    /// both half-precision types occur.
    pub fn new(parameters: &[(String, TensorType)], caps: &Caps) -> Result<Self> {
        let half_type = half_type(parameters)?;
        // Kernels count elements in 32 bits.
        let limit = (caps.max_buffer_bytes / 4).min(u64::from(u32::MAX)) as usize / BLOCK * BLOCK;
        let mut shards: Vec<Shard> = Vec::new();
        let (halves, full): (Vec<_>, Vec<_>) = parameters.iter().partition(|(_, ty)| ty.dtype != DType::F32);
        for (name, ty) in halves.into_iter().chain(full) {
            let half = ty.dtype != DType::F32;
            // Two blocks of half precision have the size of one f32 block, and both must be aligned.
            let size = ty.shape.numel().max(1).next_multiple_of(if half { 2 * BLOCK } else { BLOCK });
            if size > limit {
                return Err(too_large(name, ty, caps));
            }
            match shards.last_mut() {
                Some(shard) if shard.total + size <= limit => shard.push(name, ty, size, half),
                _ => {
                    let mut shard = Shard { parameters: Vec::new(), total: 0, half: 0 };
                    shard.push(name, ty, size, half);
                    shards.push(shard);
                }
            }
        }
        Ok(Self { shards, half_type })
    }

    /// Moves the parameters into flat ranges of the store, with their values. Programs that were prepared before keep using the old memory.
    ///
    /// # Errors
    /// [`Error::Shape`] if the store has a parameter of another type; [`Error::OutOfMemory`].
    pub fn move_into_flat(&self, weights: &Weights) -> Result<()> {
        for (index, shard) in self.shards.iter().enumerate() {
            let mut full = Vec::new();
            let mut halves = Vec::new();
            for slot in &shard.parameters {
                let ParameterSlot { name, ty, offset } = slot;
                if ty.dtype == DType::F32 {
                    full.push((name.clone(), ty.clone(), *offset));
                } else {
                    full.push((slot.master(), TensorType::f32(ty.shape.clone()), *offset));
                    halves.push((name.clone(), ty.clone(), *offset));
                }
            }
            let masters_known = halves.iter().all(|(name, ..)| weights.get(&master(name)).is_some());
            weights.move_into_flat(&Range::Parameters.name(index), &TensorType::f32([shard.total]), &full)?;
            if let (Some(half_type), true) = (self.half_type, shard.half > 0) {
                let whole = TensorType::new([shard.half], half_type);
                weights.move_into_flat(&Range::Half.name(index), &whole, &halves)?;
                if !masters_known {
                    shard.widen(weights)?;
                }
            }
        }
        Ok(())
    }

    /// The learning-rate and decay multipliers of a shard's blocks, from the `multipliers` of each parameter.
    pub fn table(&self, shard: usize, multipliers: impl Fn(&ParameterSlot) -> [f64; 2]) -> Array {
        let shard = &self.shards[shard];
        let mut table = Array::zeros(Self::table_shape(shard));
        for slot in &shard.parameters {
            let (first, multipliers) = (slot.offset / BLOCK, multipliers(slot));
            for block in first..first + slot.ty.shape.numel().div_ceil(BLOCK) {
                table.row_mut(block).copy_from_slice(&multipliers);
            }
        }
        table
    }

    /// The shape of a shard's [`FlatLayout::table`].
    pub(super) fn table_shape(shard: &Shard) -> [usize; 2] {
        [shard.total / BLOCK, 2]
    }

    /// The types of all parameters as the model reads them; those that are not trained are stored as in `base`.
    #[must_use]
    pub fn storage(&self, base: &Storage) -> Storage {
        let types = self.parameters().map(|placed| (placed.name.clone(), placed.ty.dtype));
        let by_name = base.by_name.iter().map(|(name, dtype)| (name.clone(), *dtype)).chain(types).collect();
        Storage { by_name: Arc::new(by_name), ..base.clone() }
    }

    /// All parameters, shard by shard.
    pub fn parameters(&self) -> impl Iterator<Item = &ParameterSlot> {
        self.shards.iter().flat_map(|shard| &shard.parameters)
    }
}

impl ParameterSlot {
    /// The name of the f32 master: that of the parameter itself unless the model reads a half-precision copy.
    #[must_use]
    pub fn master(&self) -> String {
        if self.ty.dtype == DType::F32 { self.name.clone() } else { master(&self.name) }
    }
}

impl Shard {
    fn push(&mut self, name: &str, ty: &TensorType, size: usize, half: bool) {
        self.parameters.push(ParameterSlot { name: name.into(), ty: ty.clone(), offset: self.total });
        self.total += size;
        if half {
            self.half = self.total;
        }
    }

    /// Fills the masters from the half-precision values: the start of training from a half-precision checkpoint.
    fn widen(&self, weights: &Weights) -> Result<()> {
        for slot in self.parameters.iter().filter(|p| p.ty.dtype != DType::F32) {
            let count = slot.ty.shape.numel();
            let values = weights.download(&slot.name)?;
            let values = values.chunks_exact(2).take(count).map(|pair| u16::from_le_bytes([pair[0], pair[1]]));
            let wide: Vec<u8> = match slot.ty.dtype {
                DType::BF16 => values.flat_map(|bits| half::bf16::from_bits(bits).to_f32().to_le_bytes()).collect(),
                _ => values.flat_map(|bits| half::f16::from_bits(bits).to_f32().to_le_bytes()).collect(),
            };
            weights.upload(&slot.master(), &wide)?;
        }
        Ok(())
    }
}

fn master(name: &str) -> String {
    format!("master.{name}")
}

fn half_type(parameters: &[(String, TensorType)]) -> Result<Option<DType>> {
    let mut found = None;
    if parameters.is_empty() {
        return Err(Error::input("parameters", "there is nothing to train: the list of parameters is empty"));
    }
    for (name, ty) in parameters {
        match (ty.dtype, found) {
            (DType::F32, _) => {}
            (DType::F16 | DType::BF16, None) => found = Some(ty.dtype),
            (dtype, Some(other)) if dtype == other => {}
            (dtype @ (DType::F16 | DType::BF16), Some(other)) => {
                return Err(Error::input(
                    name,
                    format!("it is {dtype}, but others are {other}: use one half-precision type"),
                ));
            }
            (dtype, _) if dtype.is_quantised() => {
                let message = format!("it is {dtype}, but quantised weights are for inference: load the model as f32");
                return Err(Error::input(name, message));
            }
            (dtype, _) => return Err(Error::input(name, format!("it is {dtype}, but only floats can be trained"))),
        }
    }
    Ok(found)
}

fn too_large(name: &str, ty: &TensorType, caps: &Caps) -> Error {
    Error::OutOfMemory {
        what: format!("training \"{name}\", {ty},"),
        needed: human_bytes(ty.shape.numel() as u64 * 4),
        available: format!("{} in one buffer", human_bytes(caps.max_buffer_bytes)),
        hint: "Use a smaller vocabulary or d_model, or another adapter".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parameters(types: &[(&str, usize, DType)]) -> Vec<(String, TensorType)> {
        types.iter().map(|&(name, count, dtype)| (name.into(), TensorType::new([count], dtype))).collect()
    }

    #[test]
    fn half_precision_comes_first_and_offsets_are_aligned_in_both_ranges() {
        let list = parameters(&[("gain", 65, DType::F32), ("w", 129, DType::BF16), ("b", 1, DType::F32)]);
        let layout = FlatLayout::new(&list, &Caps::baseline()).unwrap();
        let places: Vec<_> = layout.parameters().map(|p| (p.name.as_str(), p.offset)).collect();
        assert_eq!(places, [("w", 0), ("gain", 256), ("b", 384)]);
        assert_eq!((layout.shards[0].total, layout.shards[0].half), (448, 256));
        let table = layout.table(0, |p| [1.0, p.offset as f64]);
        assert_eq!(table.row(4), [1.0, 256.0]);
        assert_eq!(table.row(3), [0.0, 0.0]);
    }

    #[test]
    fn a_shard_never_splits_a_tensor() {
        let caps = Caps { max_buffer_bytes: 128 * 4, ..Caps::baseline() };
        let list = parameters(&[("a", 64, DType::F32), ("b", 100, DType::F32), ("c", 10, DType::F32)]);
        let layout = FlatLayout::new(&list, &caps).unwrap();
        let names: Vec<Vec<&str>> =
            layout.shards.iter().map(|s| s.parameters.iter().map(|p| p.name.as_str()).collect()).collect();
        assert_eq!(names, [vec!["a"], vec!["b"], vec!["c"]]);
        assert_eq!(Range::Gradients.name(2), "flat.gradients.2");
        let error = FlatLayout::new(&parameters(&[("huge", 129, DType::F32)]), &caps).unwrap_err().to_string();
        assert!(error.contains("training \"huge\", f32[129], needs 516 B"), "{error}");
    }

    #[test]
    fn what_can_not_be_trained_is_refused() {
        let caps = Caps::baseline();
        let mixed = parameters(&[("a", 1, DType::F16), ("b", 1, DType::BF16)]);
        assert!(FlatLayout::new(&mixed, &caps).unwrap_err().to_string().contains("use one half-precision type"));
        let integers = parameters(&[("ids", 1, DType::U32)]);
        assert!(FlatLayout::new(&integers, &caps).unwrap_err().to_string().contains("only floats"));
        assert!(FlatLayout::new(&[], &caps).unwrap_err().to_string().contains("nothing to train"));
    }
}
