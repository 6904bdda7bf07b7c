//! Steps and minima of least squared error.

/// Improvements of a first guess.
const ROUNDS: usize = 4;

/// The step whose multiples come nearest to the weights, `Σ (x - step c)²` being least: from each start on, codes c by `code(x / step)`
/// and the step `Σ x c / Σ c²` that is best for them take turns.
pub(super) fn best_step(values: &[f32], starts: &[f64], code: impl Fn(f64) -> f64) -> f64 {
    let mut best = (0.0, 0.0);
    for &start in starts {
        let mut step = start;
        for _ in 0..ROUNDS {
            let (mut xc, mut cc) = (0.0, 0.0);
            for &x in values {
                let (x, c) = (f64::from(x), code(f64::from(x) / step));
                (xc, cc) = (xc + x * c, cc + c * c);
            }
            // What the squared error is less than Σ x².
            let gain = xc * xc / cc;
            // Not if the step or all codes are zero.
            if !(gain > best.0) {
                break;
            }
            step = xc / cc;
            best = (gain, step);
        }
    }
    best.1
}

/// The step and the minimum, both at least 0, with which `Σ (x - step q + minimum)²` is least for q from 0 to `most`: from some steps on,
/// quants and the line that is best for them take turns.
pub(super) fn best_line(values: &[f32], most: f64) -> (f64, f64) {
    let (low, high) = values.iter().fold((0.0_f32, f32::MIN), |(low, high), &x| (low.min(x), high.max(x)));
    let (low, high) = (f64::from(low), f64::from(high));
    let widest = (high - low) / most;
    let mut best = (f64::INFINITY, widest, -low);
    if widest == 0.0 {
        return (0.0, -low);
    }
    for part in [1.0, 0.8] {
        let (mut step, mut minimum) = (widest * part, -low);
        for _ in 0..ROUNDS {
            let sums = Sums::new(values, |x| ((x + minimum) / step).round().clamp(0.0, most));
            let Some((a, b)) = sums.line() else { break };
            let error = sums.error(a, b);
            if !(error < best.0) {
                break;
            }
            (step, minimum) = (a, -b);
            best = (error, step, minimum);
        }
    }
    (best.1, best.2)
}

/// Sums over weights x and their quants q.
#[derive(Default)]
struct Sums {
    count: f64,
    q: f64,
    qq: f64,
    x: f64,
    xq: f64,
    xx: f64,
}

impl Sums {
    fn new(values: &[f32], quant: impl Fn(f64) -> f64) -> Self {
        let mut sums = Self { count: values.len() as f64, ..Self::default() };
        for &x in values {
            let x = f64::from(x);
            let q = quant(x);
            sums.q += q;
            sums.qq += q * q;
            sums.x += x;
            sums.xq += x * q;
            sums.xx += x * x;
        }
        sums
    }

    /// The best a > 0 and b ≤ 0 of a q + b.
    fn line(&self) -> Option<(f64, f64)> {
        let determinant = self.count * self.qq - self.q * self.q;
        let a = (self.count * self.xq - self.q * self.x) / determinant;
        let b = (self.x - a * self.q) / self.count;
        let (a, b) = if b > 0.0 { (self.xq / self.qq, 0.0) } else { (a, b) };
        (a > 0.0 && a.is_finite()).then_some((a, b))
    }

    /// Σ (x - a q - b)².
    fn error(&self, a: f64, b: f64) -> f64 {
        self.xx + a * a * self.qq + b * b * self.count - 2.0 * (a * self.xq + b * self.x - a * b * self.q)
    }
}
