//! Writing keys and values into a cache in place.

use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::graph::{Alias, Array, Graph, Op, Tensor};
use crate::kernel::{Dispatch, Kernel, Launch};
use crate::shape::TensorType;

static CACHE_WRITE: Kernel = Kernel::new("cache_write", include_str!("../../shaders/cache_write.wgsl"));

/// `cache[b, positions[b, t]] = new[b, t]`, in place; a position outside the cache is dropped.
///
/// Shapes: `cache` (B, S, H, D) f32, a state; `new` (B, T, H, D) f32; `positions` (B, T) u32, distinct within a batch
/// row. The result is the cache after the writes; nothing may read the old one any more. No gradient.
///
/// # Errors
/// [`Error::Shape`] that names the operand that does not fit.
pub fn cache_write(g: &mut Graph, cache: Tensor, new: Tensor, positions: Tensor) -> Result<Tensor> {
    g.apply1(CacheWrite, &[cache, new, positions])
}

/// See [`cache_write`].
#[derive(Clone, Copy, Debug)]
struct CacheWrite;

impl Op for CacheWrite {
    fn name(&self) -> &'static str {
        "cache_write"
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>> {
        let [cache, new, positions] = inputs else {
            return Err(Error::shape("cache_write", format!("expected 3 inputs, got {}", inputs.len())));
        };
        let [batch, _, heads, width] = cache.shape.expect("cache_write, cache (B, S, H, D)")?;
        let [new_batch, count, new_heads, new_width] = new.shape.expect("cache_write, new (B, T, H, D)")?;
        if (batch, heads, width) != (new_batch, new_heads, new_width) {
            return Err(Error::shape(
                "cache_write",
                format!("new is {new}, the cache {cache}: only T and S may differ"),
            ));
        }
        if cache.dtype != DType::F32 || new.dtype != DType::F32 {
            return Err(Error::shape("cache_write", format!("new is {new}, the cache {cache}, expected f32")));
        }
        let expected = TensorType::new([batch, count], DType::U32);
        if *positions != expected {
            return Err(Error::shape("cache_write", format!("positions is {positions}, expected {expected}")));
        }
        Ok(vec![cache.clone()])
    }

    fn reference(&self, inputs: &[&Array]) -> Result<Vec<Array>> {
        let mut cache = inputs[0].clone();
        let [batch, slots, heads, width] = cache.shape.expect("cache_write, cache")?;
        let count = inputs[2].shape.last();
        let row = heads * width;
        for (b, t) in (0..batch).flat_map(|b| (0..count).map(move |t| (b, t))) {
            let position = inputs[2].row(b)[t] as usize;
            if position < slots {
                let (to, from) = ((b * slots + position) * row, (b * count + t) * row);
                cache.data[to..to + row].copy_from_slice(&inputs[1].data[from..from + row]);
            }
        }
        Ok(vec![cache])
    }

    fn launch(&self, cx: &mut Launch<'_>) -> Result<()> {
        let (new, out) = (cx.input(1), cx.output(0));
        let [_, slots, heads, width] = out.shape.expect("cache_write, cache")?;
        let count = new.shape.dims()[1];
        let elements = new.numel();
        let dispatch = Dispatch::new(&CACHE_WRITE).read(new).read(cx.input(2)).update(out);
        let dispatch = dispatch.param(elements).param(count).param(slots).param(heads * width);
        cx.dispatch(dispatch.groups_for(elements, 64))
    }

    fn alias(&self, _index: usize) -> Option<Alias> {
        Some(Alias::InPlace(0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operands_that_do_not_fit_are_named() {
        let mut g = Graph::new();
        let cache = g.state("cache", [2, 8, 3, 4], DType::F32).unwrap();
        let new = g.input("new", [2, 1, 3, 4], DType::F32).unwrap();
        let wide = g.input("wide", [2, 1, 3, 5], DType::F32).unwrap();
        let positions = g.input("positions", [2, 1], DType::U32).unwrap();
        let long = g.input("long", [2, 2], DType::U32).unwrap();
        let error = cache_write(&mut g, cache, wide, positions).unwrap_err().to_string();
        assert!(error.contains("new is f32[2, 1, 3, 5], the cache f32[2, 8, 3, 4]"), "{error}");
        let error = cache_write(&mut g, cache, new, long).unwrap_err().to_string();
        assert!(error.contains("positions is u32[2, 2], expected u32[2, 1]"), "{error}");
    }

    #[test]
    fn positions_outside_are_dropped() {
        let cache = Array::zeros([1, 2, 1, 1]);
        let new = Array::from_fn([1, 3, 1, 1], |i| i as f64 + 1.0);
        let positions = Array::new([1, 3], vec![1.0, 2.0, 4294967295.0]).unwrap();
        let out = CacheWrite.reference(&[&cache, &new, &positions]).unwrap();
        assert_eq!(out[0].data, [0.0, 1.0]);
    }
}
