//! Tables of sinusoidal positions, computed on the CPU.

use crate::error::{Error, Result};
use crate::graph::Array;

/// The most elements of a table.
const MOST_ELEMENTS: usize = 1 << 31;

/// Sinusoidal positions, (positions, columns): sine in the even columns and cosine in the odd ones of `position / 10000^(2i / columns)`.
///
/// Paper: Vaswani et al., "Attention Is All You Need".
///
/// # Errors
/// [`Error::Shape`] if it has more than 2³¹ elements.
pub fn sinusoidal_table(positions: usize, columns: usize) -> Result<Array> {
    check_table("sinusoidal_table", positions, columns)?;
    Ok(Array::from_fn([positions, columns], |i| {
        let (position, column) = (i / columns, i % columns);
        let angle = angle(position, column / 2, columns);
        if column % 2 == 0 { angle.sin() } else { angle.cos() }
    }))
}

/// [`sinusoidal_table`] with all sines first, then the cosines, as in Marian models.
///
/// # Errors
/// As [`sinusoidal_table`].
pub fn sinusoidal_table_halves(positions: usize, columns: usize) -> Result<Array> {
    check_table("sinusoidal_table_halves", positions, columns)?;
    let sines = columns.div_ceil(2);
    Ok(Array::from_fn([positions, columns], |i| {
        let (position, column) = (i / columns, i % columns);
        if column < sines {
            angle(position, column, columns).sin()
        } else {
            angle(position, column - sines, columns).cos()
        }
    }))
}

/// Refuses a table that is too large.
pub(super) fn check_table(op: &str, positions: usize, columns: usize) -> Result<()> {
    if positions.max(1).saturating_mul(columns.max(1)) <= MOST_ELEMENTS {
        return Ok(());
    }
    let what = format!("{positions} positions of {columns} columns make too large a table: lower the context");
    Err(Error::shape(op, what))
}

fn angle(position: usize, pair: usize, columns: usize) -> f64 {
    position as f64 * 10000_f64.powf(-2.0 * pair as f64 / columns as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sinusoids_have_both_layouts() -> Result<()> {
        let (turns, halves) = (sinusoidal_table(3, 4)?, sinusoidal_table_halves(3, 4)?);
        assert_eq!(turns.row(0), [0.0, 1.0, 0.0, 1.0]);
        assert_eq!(halves.row(0), [0.0, 0.0, 1.0, 1.0]);
        assert_eq!(turns.row(2), [2_f64.sin(), 2_f64.cos(), 0.02_f64.sin(), 0.02_f64.cos()]);
        assert_eq!(halves.row(2), [2_f64.sin(), 0.02_f64.sin(), 2_f64.cos(), 0.02_f64.cos()]);
        Ok(())
    }

    #[test]
    fn tables_that_are_too_large_are_refused() {
        for result in [sinusoidal_table(usize::MAX, 4), sinusoidal_table_halves(2, usize::MAX)] {
            let message = result.map(|_| String::new()).unwrap_or_else(|e| e.to_string());
            assert!(message.contains("make too large a table: lower the context"), "{message}");
        }
    }
}
