//! Fresh weights.

use crate::program::pack;
use crate::shape::TensorType;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Values that are packed at a time.
const CHUNK: usize = 1 << 15;

/// What a fresh parameter is filled with.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Initial {
    /// Zeros: biases.
    Zeros,
    /// Ones: the gains of norms.
    Ones,
    /// Normal numbers around zero with this standard deviation.
    Normal(f64),
}

/// The values of the parameter `name`: they depend on the seed, the name and the count only.
#[must_use]
pub fn initial_values(initial: Initial, count: usize, seed: u64, name: &str) -> Vec<f64> {
    endless(initial, seed, name).take(count).collect()
}

/// [`initial_values`] of a tensor as they lie in GPU memory.
#[must_use]
pub fn initial_words(initial: Initial, ty: &TensorType, seed: u64, name: &str) -> Vec<u8> {
    let count = ty.shape.numel();
    let mut values = endless(initial, seed, name);
    // Only numbers of a size of their own can be packed bit by bit.
    let chunk = if ty.dtype.is_quantised() { count } else { CHUNK };
    let mut bytes = Vec::with_capacity(ty.bytes() as usize);
    for first in (0..count).step_by(chunk.max(1)) {
        let some: Vec<f64> = values.by_ref().take(chunk.min(count - first)).collect();
        bytes.extend(pack(&some, ty.dtype));
    }
    bytes
}

fn endless(initial: Initial, seed: u64, name: &str) -> Box<dyn Iterator<Item = f64>> {
    match initial {
        Initial::Zeros => Box::new(std::iter::repeat(0.0)),
        Initial::Ones => Box::new(std::iter::repeat(1.0)),
        Initial::Normal(deviation) => {
            let mut rng = ChaCha8Rng::seed_from_u64(seed);
            rng.set_stream(hash(name));
            let pairs = std::iter::repeat_with(move || normal_pair(&mut rng));
            Box::new(pairs.flat_map(move |(a, b)| [deviation * a, deviation * b]))
        }
    }
}

/// Two independent standard normal numbers (Box and Muller, 1958).
fn normal_pair(rng: &mut ChaCha8Rng) -> (f64, f64) {
    let radius = (-2.0 * (1.0 - rng.random::<f64>()).ln()).sqrt();
    let (sin, cos) = (std::f64::consts::TAU * rng.random::<f64>()).sin_cos();
    (radius * cos, radius * sin)
}

/// FNV-1a.
fn hash(name: &str) -> u64 {
    name.bytes().fold(0xcbf2_9ce4_8422_2325, |h, b| (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dtype::DType;

    #[test]
    fn normal_values_have_the_deviation_asked_for_and_depend_on_seed_and_name() {
        let values = initial_values(Initial::Normal(0.02), 20001, 7, "a.weight");
        let mean = values.iter().sum::<f64>() / values.len() as f64;
        let deviation = (values.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / values.len() as f64).sqrt();
        assert!(mean.abs() < 0.0006, "{mean}");
        assert!((deviation - 0.02).abs() < 0.0004, "{deviation}");
        let beyond = values.iter().filter(|x| x.abs() > 0.04).count() as f64 / values.len() as f64;
        assert!((beyond - 0.0455).abs() < 0.006, "{beyond}");
        assert_eq!(values, initial_values(Initial::Normal(0.02), 20001, 7, "a.weight"));
        assert_ne!(values[0], initial_values(Initial::Normal(0.02), 1, 8, "a.weight")[0]);
        assert_ne!(values[0], initial_values(Initial::Normal(0.02), 1, 7, "b.weight")[0]);
    }

    #[test]
    fn words_are_those_of_the_values() {
        for (shape, dtype) in
            [(vec![3, 33], DType::F16), (vec![2, CHUNK / 2 + 16], DType::F32), (vec![5, 64], DType::Q8_0)]
        {
            let ty = TensorType::new(shape, dtype);
            let normal = Initial::Normal(0.5);
            let values = initial_values(normal, ty.shape.numel(), 3, "w");
            assert_eq!(initial_words(normal, &ty, 3, "w"), pack(&values, dtype));
        }
    }
}
