//! Writes keys and values into a cache in place.

use crate::case::{Case, Feed, Tolerance};
use crate::dtype::{BLOCK, DType};
use crate::error::{Error, Result};
use crate::graph::{Alias, Array, Graph, Op, Tensor};
use crate::kernel::{Dispatch, Kernel, Launch, Snippet, kernel};
use crate::quantised::{dequantise, quantise};
use crate::shape::TensorType;

static PLACE: Snippet = kernel!("common/cache_place");
static CACHE_WRITE: Kernel = kernel!("attention/cache_write");
static CACHE_WRITE_F16: Kernel = kernel!("attention/cache_write_f16");
static CACHE_WRITE_Q8_0: Kernel = kernel!("attention/cache_write_q8_0");

/// `cache[b·R, positions[b, t]] = new[b, t]` for both caches, keys and values, in place; positions out of range are dropped. Of R rows of the
/// caches for each row of new tokens (beams that begin alike) the first is written.
///
/// Shapes: `caches` (B·R, S, H, D) of one type, states: f32, f16 (D a multiple of 4) or q8_0 (of 32), to which they are rounded; `new`
/// (B, T, H, D) f32; `positions` (B, T) u32, distinct within a batch row. The results are the caches after the writes; nothing may read the old ones afterwards. No gradient.
///
/// # Errors
/// [`Error::Shape`] that names the operand that does not fit.
pub fn cache_write(
    g: &mut Graph,
    caches: [Tensor; 2],
    new: [Tensor; 2],
    positions: Tensor,
) -> Result<(Tensor, Tensor)> {
    let dtype = g.dtype(caches[0]);
    let written = g.put(CacheWrite { dtype }, &[caches[0], caches[1], new[0], new[1], positions])?;
    Ok((written[0], written[1]))
}

/// See [`cache_write`].
#[derive(Clone, Copy, Debug)]
struct CacheWrite {
    dtype: DType,
}

/// Elements that an invocation writes, of which a head has a multiple; none for types that caches do not have.
fn vector(dtype: DType) -> Option<usize> {
    match dtype {
        DType::F32 => Some(1),
        DType::F16 => Some(4),
        DType::Q8_0 => Some(BLOCK),
        _ => None,
    }
}

impl CacheWrite {
    /// What the caches hold of new keys or values.
    fn rounded(self, new: &Array) -> Array {
        if !self.dtype.is_quantised() {
            return new.map(|x| self.dtype.round(x));
        }
        let values: Vec<f32> = new.data.iter().map(|&x| x as f32).collect();
        Array { shape: new.shape.clone(), data: dequantise(self.dtype, &quantise(self.dtype, &values), values.len()) }
    }
}

impl Op for CacheWrite {
    fn name(&self) -> &'static str {
        "cache_write"
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>> {
        let [caches @ .., positions] = inputs else {
            return Err(Error::shape("cache_write", "expected 5 inputs, got none"));
        };
        let [keys, values, new @ ..] = caches else {
            return Err(Error::shape("cache_write", format!("expected 5 inputs, got {}", inputs.len())));
        };
        let [rows, _, heads, head_dim] = keys.shape.expect("cache_write, cache (B·R, S, H, D)")?;
        if !vector(keys.dtype).is_some_and(|vector| head_dim.is_multiple_of(vector)) || values != keys {
            return Err(Error::shape(
                "cache_write",
                format!(
                    "the caches are {keys} and {values}, expected one shape of f32, of f16 with heads of a multiple of 4, or of q8_0 of 32"
                ),
            ));
        }
        let [batch, count, _, _] = new[0].shape.expect("cache_write, new (B, T, H, D)")?;
        let batch = if batch > 0 && rows % batch == 0 { batch } else { rows };
        let expected = TensorType::f32([batch, count, heads, head_dim]);
        if let Some(new) = new.iter().find(|new| **new != expected) {
            return Err(Error::shape(
                "cache_write",
                format!(
                    "new is {new}, but the cache {keys}: only T and S may differ, and the cache have several rows for each"
                ),
            ));
        }
        let expected = TensorType::new([batch, count], DType::U32);
        if *positions != expected {
            return Err(Error::shape("cache_write", format!("positions is {positions}, expected {expected}")));
        }
        Ok(vec![keys.clone(), values.clone()])
    }

    fn reference(&self, inputs: &[&Array]) -> Result<Vec<Array>> {
        let [keys, values, new_keys, new_values, positions] = inputs else {
            return Err(Error::shape(self.name(), "expected 5 inputs"));
        };
        let written = |cache: &Array, new: &Array| {
            let mut cache = cache.clone();
            let [rows, slots, heads, head_dim] = cache.shape.expect("cache_write, cache")?;
            let (batch, count, row) = (positions.shape.rows(), positions.shape.last(), heads * head_dim);
            let beams = rows / batch.max(1);
            for (b, t) in (0..batch).flat_map(|b| (0..count).map(move |t| (b, t))) {
                let position = positions.row(b)[t] as usize;
                if position < slots {
                    let (to, from) = ((b * beams * slots + position) * row, (b * count + t) * row);
                    cache.data[to..to + row].copy_from_slice(&new.data[from..from + row]);
                }
            }
            Ok(cache)
        };
        let [new_keys, new_values] = [new_keys, new_values].map(|new| self.rounded(new));
        let [new_keys, new_values] = [&new_keys, &new_values];
        Ok(vec![written(keys, new_keys)?, written(values, new_values)?])
    }

    fn launch(&self, cx: &mut Launch<'_>) -> Result<()> {
        let [rows, slots, heads, head_dim] = cx.output(0).shape.expect("cache_write, cache")?;
        let [batch, count, ..] = cx.input(2).shape.expect::<4>("cache_write, new")?;
        let vector = vector(self.dtype).unwrap_or(1);
        let elements = cx.input(2).numel() / vector;
        let dispatch = match self.dtype {
            DType::F16 => Dispatch::new(&CACHE_WRITE_F16),
            DType::Q8_0 => {
                let first = self.dtype.first_scale(cx.output(0).numel());
                Dispatch::new(&CACHE_WRITE_Q8_0).constant("KV_SCALES", first as u32)
            }
            _ => Dispatch::new(&CACHE_WRITE),
        };
        let dispatch = dispatch.snippet(&PLACE).read(cx.input(2)).read(cx.input(3)).read(cx.input(4));
        let dispatch = dispatch.update(cx.output(0)).update(cx.output(1));
        let dispatch = dispatch.param(elements).param(count).param(slots * (rows / batch.max(1))).param(slots);
        let dispatch = dispatch.param(heads * head_dim / vector);
        cx.dispatch(dispatch.groups_for(elements, 64))
    }

    fn alias(&self, index: usize) -> Option<Alias> {
        Some(Alias::InPlace(index))
    }
}

/// The conformance cases: three tokens in two batch rows go into a cache of as many rows, or three for each; some positions are outside.
pub(super) fn cases() -> Vec<Case> {
    let beams = [1, 3].map(|beams| case(beams, DType::F32, 5));
    beams.into_iter().chain([case(1, DType::F16, 12), case(3, DType::F16, 4), case(1, DType::Q8_0, 64)]).collect()
}

fn case(beams: usize, dtype: DType, head_dim: usize) -> Case {
    let positions = [4.0, 0.0, 7.0, 1.0, 4_294_967_295.0, 2_147_483_648.0];
    let new = |name| Feed::normal(name, [2, 3, 3, head_dim]).fixed();
    let feeds = vec![new("keys"), new("values"), Feed::given("positions", [2, 3], DType::U32, positions)];
    let name = if beams == 1 { "cache_write".to_owned() } else { format!("cache_write, {beams} beams") };
    let name = if dtype == DType::F32 { name } else { format!("{name}, {dtype}") };
    let case = Case::new(name, feeds, move |g, x| {
        let keys = g.state("key_cache", [2 * beams, 7, 3, head_dim], dtype)?;
        let values = g.state("value_cache", [2 * beams, 7, 3, head_dim], dtype)?;
        let (keys, values) = cache_write(g, [keys, values], [x[0], x[1]], x[2])?;
        Ok(vec![keys, values])
    });
    // Drivers may round halves to either side, and a step of 8 bits may go to the other side of the middle.
    let step = match dtype {
        DType::F16 => Tolerance { nmse: 1e-6, worst: 1e-3 },
        DType::Q8_0 => Tolerance { nmse: 1e-4, worst: 1e-2 },
        _ => return case,
    };
    case.tolerance(step, step)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operands_that_do_not_fit_are_named() {
        let mut g = Graph::new();
        let caches = ["keys", "values"].map(|name| g.state(name, [2, 8, 3, 4], DType::F32).unwrap());
        let new = g.input("new", [2, 1, 3, 4], DType::F32).unwrap();
        let wide = g.input("wide", [2, 1, 3, 5], DType::F32).unwrap();
        let positions = g.input("positions", [2, 1], DType::U32).unwrap();
        let long = g.input("long", [2, 2], DType::U32).unwrap();
        let other = g.state("other", [2, 8, 3, 5], DType::F32).unwrap();
        let mut refused = |caches, new, positions| cache_write(&mut g, caches, new, positions).unwrap_err().to_string();
        let error = refused(caches, [new, wide], positions);
        assert!(error.contains("new is f32[2, 1, 3, 5], but the cache f32[2, 8, 3, 4]"), "{error}");
        let error = refused(caches, [new, new], long);
        assert!(error.contains("positions is u32[2, 2], expected u32[2, 1]"), "{error}");
        let error = refused([caches[0], other], [new, new], positions);
        assert!(error.contains("the caches are f32[2, 8, 3, 4] and f32[2, 8, 3, 5]"), "{error}");
    }

    #[test]
    fn positions_outside_are_dropped() {
        let cache = Array::zeros([1, 2, 1, 1]);
        let new = Array::from_fn([1, 3, 1, 1], |i| i as f64 + 1.0);
        let more = Array::from_fn([1, 3, 1, 1], |i| i as f64 + 7.0);
        let positions = Array::new([1, 3], vec![1.0, 2.0, 4294967295.0]).unwrap();
        let out = CacheWrite { dtype: DType::F32 }.reference(&[&cache, &cache, &new, &more, &positions]).unwrap();
        assert_eq!((&out[0].data[..], &out[1].data[..]), (&[0.0, 1.0][..], &[0.0, 7.0][..]));
    }
}
