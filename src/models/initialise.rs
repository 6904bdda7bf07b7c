//! Fresh weights.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

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
    match initial {
        Initial::Zeros => vec![0.0; count],
        Initial::Ones => vec![1.0; count],
        Initial::Normal(deviation) => {
            let mut rng = ChaCha8Rng::seed_from_u64(seed);
            rng.set_stream(hash(name));
            let mut values = Vec::with_capacity(count + 1);
            while values.len() < count {
                let (a, b) = normal_pair(&mut rng);
                values.extend([deviation * a, deviation * b]);
            }
            values.truncate(count);
            values
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
}
