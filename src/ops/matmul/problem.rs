//! The problem of a matrix product: its sizes, without kernels.

use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::shape::{Shape, TensorType};
use std::fmt;

/// Which operands are transposed in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Form {
    /// `A · B`: A (M, K), B (K, N).
    Nn,
    /// `A · Bᵀ`: A (M, K), B (N, K).
    Nt,
    /// `Aᵀ · B`: A (K, M), B (K, N).
    Tn,
}

impl Form {
    /// Whether A is stored as (K, M).
    #[must_use]
    pub fn a_transposed(self) -> bool {
        self == Self::Tn
    }

    /// Whether B is stored as (N, K).
    #[must_use]
    pub fn b_transposed(self) -> bool {
        self == Self::Nt
    }
}

/// The sizes of a matrix product: `batch` times (M, K) · (K, N).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Problem {
    /// Which operands are transposed.
    pub form: Form,
    /// Matrices.
    pub batch: usize,
    /// Rows of the result.
    pub m: usize,
    /// Columns of the result.
    pub n: usize,
    /// The extent that is summed over.
    pub k: usize,
    /// The storage type of B.
    pub weight: DType,
}

/// The name for the tuner: `matmul Nn 1x512x768x3072 f32` for batch, M, N, K.
impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { form, batch, m, n, k, weight } = self;
        write!(f, "matmul {form:?} {batch}x{m}x{n}x{k} {weight}")
    }
}

impl Problem {
    /// The problem of two operands, and the shape of its result.
    ///
    /// `flat`: all leading axes of both operands count as rows (only for [`Form::Tn`], where they are summed over).
    ///
    /// # Errors
    /// [`Error::Shape`] that names the operand that does not fit.
    pub fn new(name: &str, form: Form, flat: bool, a: &TensorType, b: &TensorType) -> Result<(Self, Shape)> {
        let fail = |what: String| Err(Error::shape(name, what));
        if a.dtype != DType::F32 {
            return fail(format!("a is {a}, but must be f32"));
        }
        if !b.dtype.is_weight() || (form == Form::Tn && b.dtype != DType::F32) {
            let allowed = if form == Form::Tn { "f32" } else { "f32, f16, bf16 or quantised" };
            return fail(format!("b is {b}, but must be {allowed}"));
        }
        if !b.dtype.holds_rows_of(b.shape.last()) {
            let block = b.dtype.block();
            return fail(format!("b is {b}, but its rows must be multiples of {block}: store it as f16 or f32"));
        }
        for (which, ty) in [("a", a), ("b", b)] {
            let least = if which == "b" && !flat { 2 } else { 1 };
            if ty.shape.rank() < least || ty.shape.numel() == 0 {
                return fail(format!("{which} is {ty}, but must have at least {least} axes and one element"));
            }
        }
        let leading = |ty: &TensorType| {
            let dims = ty.shape.dims();
            dims[..dims.len().saturating_sub(2)].to_vec()
        };
        let shared = flat || b.shape.rank() == 2;
        if !shared && leading(a) != leading(b) {
            return fail(format!("the leading extents of a ({a}) and b ({b}) differ; b may also have 2 axes"));
        }
        if flat && a.shape.dims()[..a.shape.rank() - 1] != b.shape.dims()[..b.shape.rank() - 1] {
            return fail(format!("the rows of a ({a}) and b ({b}) differ"));
        }
        let rows = |ty: &TensorType| if shared { ty.shape.rows() } else { ty.shape.dims()[ty.shape.rank() - 2] };
        let batch = if shared { 1 } else { leading(a).iter().product() };
        let (m, k) = if form.a_transposed() { (a.shape.last(), rows(a)) } else { (rows(a), a.shape.last()) };
        let (n, b_k) = if form.b_transposed() { (rows(b), b.shape.last()) } else { (b.shape.last(), rows(b)) };
        if k != b_k {
            return fail(format!("a ({a}) is summed over {k} elements, but b ({b}) over {b_k}"));
        }
        let shape = match (form, shared) {
            (Form::Tn, true) => Shape::from([m, n]),
            (Form::Tn, false) => {
                let mut dims = leading(a);
                dims.extend([m, n]);
                dims.into()
            }
            _ => a.shape.with_last(n),
        };
        Ok((Self { form, batch, m, n, k, weight: b.dtype }, shape))
    }

    /// Floating-point operations; a multiply-add counts as two.
    #[must_use]
    pub fn flops(&self) -> u64 {
        2 * self.batch as u64 * self.m as u64 * self.n as u64 * self.k as u64
    }

    /// Rows and columns of A in memory.
    #[must_use]
    pub fn stored_a(&self) -> (usize, usize) {
        if self.form.a_transposed() { (self.k, self.m) } else { (self.m, self.k) }
    }

    /// Rows and columns of B in memory.
    #[must_use]
    pub fn stored_b(&self) -> (usize, usize) {
        if self.form.b_transposed() { (self.n, self.k) } else { (self.k, self.n) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(form: Form, flat: bool, a: &[usize], b: TensorType) -> String {
        Problem::new("matmul", form, flat, &TensorType::f32(a), &b).unwrap_err().to_string()
    }

    #[test]
    fn says_which_operand_does_not_fit() {
        let f32 = |dims: &[usize]| TensorType::f32(dims);
        assert_eq!(
            message(Form::Nn, false, &[2, 3], f32(&[4, 5])),
            "matmul: a (f32[2, 3]) is summed over 3 elements, but b (f32[4, 5]) over 4"
        );
        assert_eq!(
            message(Form::Nn, false, &[7, 2, 3], f32(&[6, 3, 5])),
            "matmul: the leading extents of a (f32[7, 2, 3]) and b (f32[6, 3, 5]) differ; b may also have 2 axes"
        );
        assert_eq!(
            message(Form::Nt, false, &[2, 0], f32(&[4, 0])),
            "matmul: a is f32[2, 0], but must have at least 1 axes and one element"
        );
        assert_eq!(
            message(Form::Tn, false, &[3, 2], TensorType::new([3, 4], DType::F16)),
            "matmul: b is f16[3, 4], but must be f32"
        );
        assert_eq!(
            message(Form::Tn, true, &[2, 3, 4], f32(&[3, 2, 5])),
            "matmul: the rows of a (f32[2, 3, 4]) and b (f32[3, 2, 5]) differ"
        );
    }

    #[test]
    fn flattens_leading_axes_into_rows() {
        let (p, shape) =
            Problem::new("m", Form::Nt, false, &TensorType::f32([2, 3, 5]), &TensorType::f32([7, 5])).unwrap();
        assert_eq!((p.batch, p.m, p.n, p.k, shape), (1, 6, 7, 5, Shape::from([2, 3, 7])));
        let (p, shape) =
            Problem::new("m", Form::Tn, true, &TensorType::f32([2, 3, 5]), &TensorType::f32([2, 3, 7])).unwrap();
        assert_eq!((p.batch, p.m, p.n, p.k, shape), (1, 5, 7, 6, Shape::from([5, 7])));
        let (p, shape) =
            Problem::new("m", Form::Tn, false, &TensorType::f32([2, 3, 5]), &TensorType::f32([2, 3, 7])).unwrap();
        assert_eq!((p.batch, p.m, p.n, p.k, shape), (2, 5, 7, 3, Shape::from([2, 5, 7])));
    }
}
