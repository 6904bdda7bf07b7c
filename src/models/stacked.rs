//! Weights of experts: one stacked tensor in memory, a tensor each in files.
//!
//! A parameter whose name has a `*`, `experts.*.w1.weight (E, F, C)`, is `experts.0.w1.weight (F, C)` up to
//! `experts.E-1.w1.weight` in files.

use crate::dtype::DType;
use crate::program::{pack, unpack};
use crate::quantised;
use crate::shape::TensorType;

/// The tensors that a parameter is in a file, in order: itself, or a part for every index of its first axis.
#[must_use]
pub fn file_tensors(name: &str, ty: &TensorType) -> Vec<(String, TensorType)> {
    match (name.split_once('*'), ty.shape.dims()) {
        (Some((front, back)), [count, part @ ..]) => {
            let part = TensorType::new(part, ty.dtype);
            (0..*count).map(|index| (format!("{front}{index}{back}"), part.clone())).collect()
        }
        _ => vec![(name.to_owned(), ty.clone())],
    }
}

/// Whether each part of a parameter is whole words in memory, so that parts lie there side by side; the scales of quantised ones lie apart.
pub(super) fn of_whole_words(name: &str, ty: &TensorType) -> bool {
    let whole = |part: &TensorType| part.dtype.bytes(2 * part.shape.numel()) == 2 * part.bytes();
    !ty.dtype.is_quantised() && file_tensors(name, ty).first().is_none_or(|(_, part)| whole(part))
}

/// The bytes in memory of the values of all parts.
pub(super) fn join(parts: &[Vec<f32>], dtype: DType) -> Vec<u8> {
    let values: Vec<f64> = parts.iter().flatten().map(|&x| f64::from(x)).collect();
    pack(&values, dtype)
}

/// The parts of what is in memory, each as it would lie there alone.
pub(super) fn cut(bytes: &[u8], ty: &TensorType) -> Vec<Vec<u8>> {
    let count = ty.shape.numel();
    if ty.dtype.is_quantised() {
        let blocks = quantised::to_file(ty.dtype, bytes, count);
        let part = blocks.len() / ty.shape.dims().first().copied().unwrap_or(1).max(1);
        return blocks.chunks_exact(part.max(1)).map(|part| quantised::from_file(ty.dtype, part)).collect();
    }
    let values = unpack(bytes, ty.dtype, count);
    let part = count / ty.shape.dims().first().copied().unwrap_or(1).max(1);
    values.chunks_exact(part.max(1)).map(|part| pack(part, ty.dtype)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_the_first_axis() {
        let ty = TensorType::f32([3, 2, 5]);
        let parts = file_tensors("a.experts.*.w1.weight", &ty);
        assert_eq!(parts.len(), 3);
        assert_eq!(parts[2], ("a.experts.2.w1.weight".into(), TensorType::f32([2, 5])));
        assert_eq!(file_tensors("a.expert_*.wi.weight", &ty)[1].0, "a.expert_1.wi.weight");
        assert_eq!(file_tensors("a.weight", &ty), [("a.weight".into(), ty)]);
    }

    #[test]
    fn parts_survive_the_round_trip_where_they_are_no_whole_words() {
        let parts = vec![vec![1.0, -2.0, 0.5], vec![4.0, 5.0, 6.0]];
        let ty = TensorType::new([2, 1, 3], DType::BF16);
        let cut = cut(&join(&parts, ty.dtype), &ty);
        let values: Vec<Vec<f64>> = cut.iter().map(|bytes| unpack(bytes, DType::BF16, 3)).collect();
        assert_eq!(values, [[1.0, -2.0, 0.5], [4.0, 5.0, 6.0]]);
    }

    #[test]
    fn parts_of_quantised_weights_keep_their_bits() {
        let values: Vec<f64> = (0..1024_i32).map(|i| f64::from(i % 37) - 18.0).collect();
        let ty = TensorType::new([2, 1, 512], DType::Q3K);
        let expected: Vec<Vec<u8>> = values.chunks(512).map(|part| pack(part, ty.dtype)).collect();
        assert_eq!(cut(&pack(&values, ty.dtype), &ty), expected);
    }
}
