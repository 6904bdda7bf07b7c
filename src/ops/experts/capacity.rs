//! The capacity limit of experts.

use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::graph::{Array, Graph, Op, Tensor};
use crate::kernel::{Dispatch, Kernel, Launch, kernel};
use crate::ops::SortedIndex;
use crate::shape::TensorType;

static LIMIT_CAPACITY: Kernel = kernel!("experts/limit_capacity");

/// `out[m] = index[m]` if `#{l < m : index[l] = index[m]} < capacity`, else `rows`: the unsorted index of `sorted`, (M) u32, limited to the
/// first `capacity` slots of each row. The other slots get `rows`, which is no row. Integers, no gradient.
///
/// After another sort, the slots past the last start are the dropped ones: M − starts\[rows\], including those that had no row before.
///
/// Fedus et al., `Switch Transformers`, 2021 (arXiv 2101.03961): capacity = T K / E · factor.
///
/// # Errors
/// [`Error::Shape`] if the parts of `sorted` do not fit together.
pub fn limit_capacity(g: &mut Graph, sorted: SortedIndex, capacity: usize) -> Result<Tensor> {
    g.put1(LimitCapacity { rows: sorted.rows, capacity }, &[sorted.index, sorted.order, sorted.starts])
}

/// See [`limit_capacity`].
#[derive(Debug)]
struct LimitCapacity {
    rows: usize,
    capacity: usize,
}

impl Op for LimitCapacity {
    fn name(&self) -> &'static str {
        "limit_capacity"
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>> {
        let [index, order, starts] = [&inputs[0], &inputs[1], &inputs[2]];
        let fits = index.dtype == DType::U32 && index.shape.rank() == 1 && index.shape.numel() > 0 && order == index;
        if !fits || *starts != TensorType::new([self.rows.saturating_add(1)], DType::U32) {
            let what = format!("index {index}, order {order} and starts {starts} for {} rows", self.rows);
            return Err(Error::shape("limit_capacity", what));
        }
        Ok(vec![index.clone()])
    }

    fn reference(&self, inputs: &[&Array]) -> Result<Vec<Array>> {
        let mut taken = vec![0; self.rows];
        let mut limit = |row: f64| match taken.get_mut(row as usize) {
            Some(taken) if *taken < self.capacity => {
                *taken += 1;
                row
            }
            _ => self.rows as f64,
        };
        let index = inputs[0];
        Ok(vec![Array::from_fn(index.shape.clone(), |m| limit(index.data[m]))])
    }

    fn launch(&self, cx: &mut Launch<'_>) -> Result<()> {
        let (index, order, starts, out) = (cx.input(0), cx.input(1), cx.input(2), cx.output(0));
        let count = index.numel();
        cx.dispatch(
            Dispatch::new(&LIMIT_CAPACITY)
                .read(index)
                .read(order)
                .read(starts)
                .write(out)
                .param(count)
                .param(self.rows)
                .param(self.capacity)
                .groups_for(count, 64),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::Values;
    use crate::ops::sort_index;

    #[test]
    fn the_first_slots_stay_and_the_rest_is_counted() -> Result<()> {
        let mut g = Graph::new();
        let index = g.input("index", [9], DType::U32)?;
        let sorted = sort_index(&mut g, index, 3)?;
        let limited = limit_capacity(&mut g, sorted, 2)?;
        let again = sort_index(&mut g, limited, 3)?;
        let slots = [1.0, 0.0, 1.0, 1.0, 7.0, 0.0, 2.0, 0.0, 1.0];
        let values = Values::from([("index".to_owned(), Array::new([9], slots.to_vec())?)]);
        let found = g.evaluate(&values, &[limited, again.starts])?;
        assert_eq!(found[0].data, [1.0, 0.0, 1.0, 3.0, 3.0, 0.0, 2.0, 3.0, 3.0]);
        // Three slots were dropped, and one had no expert.
        assert_eq!(found[1].data, [0.0, 2.0, 4.0, 5.0]);
        Ok(())
    }
}
