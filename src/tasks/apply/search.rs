//! The nearest of many vectors, found on the GPU.

use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::gpu::Gpu;
use crate::graph::Graph;
use crate::ops::{self, SelectOptions, SelectRule};
use crate::program::{Program, Weights};
use crate::shape::TensorType;
use crate::tasks::embed::to_unit_length;
use std::cmp::Ordering;
use std::collections::BTreeMap;

/// The most queries at a time, and vectors that one program reads.
const QUERIES: usize = 32;
const VECTORS: usize = 1 << 16;

/// A vector that was found.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct Hit {
    /// Its number.
    pub number: usize,
    /// How near it is: the cosine of the angle, −1 to 1.
    pub score: f32,
}

impl Hit {
    /// The better first; of equals the earlier.
    pub(super) fn order(&self, other: &Self) -> Ordering {
        other.score.total_cmp(&self.score).then(self.number.cmp(&other.number))
    }
}

/// Vectors on a device, and the nearest of them to others: `scores = queries · vectorsᵀ` (Q, N) of vectors of length 1, of which each row's
/// largest are selected. The vectors lie in parts of at most 65,536, as many as a binding holds.
#[derive(Debug)]
pub struct VectorIndex {
    gpu: Gpu,
    weights: Weights,
    dimensions: usize,
    /// Vectors in each part; all but the last are of the same size.
    parts: Vec<usize>,
    /// By part, rows of queries, and results of each.
    programs: BTreeMap<(usize, usize, usize), Program>,
}

impl VectorIndex {
    /// Uploads vectors (N, `dimensions`), in a row, each divided by its length.
    ///
    /// # Errors
    /// [`Error::Input`] if they are not rows of that many finite numbers; [`Error::OutOfMemory`].
    pub fn new(gpu: &Gpu, vectors: &[f32], dimensions: usize) -> Result<Self> {
        if dimensions == 0 || !vectors.len().is_multiple_of(dimensions) {
            let message = format!("{} numbers are no rows of {dimensions}", vectors.len());
            return Err(Error::input("vectors", message));
        }
        let bytes = 4 * dimensions as u64;
        let window = usize::try_from(gpu.caps().max_binding_bytes / bytes).unwrap_or(VECTORS);
        // The scores of a part are one binding, too.
        let scores = usize::try_from(gpu.caps().max_binding_bytes / (4 * QUERIES as u64)).unwrap_or(VECTORS);
        let window = window.min(scores).min(VECTORS);
        if window == 0 {
            return Err(Error::input("vectors", format!("one of {dimensions} numbers is too large for the device")));
        }
        Self::in_parts(gpu, vectors, dimensions, window)
    }

    fn in_parts(gpu: &Gpu, vectors: &[f32], dimensions: usize, window: usize) -> Result<Self> {
        let (weights, mut parts) = (Weights::new(gpu), Vec::new());
        for part in vectors.chunks(window * dimensions) {
            let mut part = part.to_vec();
            for vector in part.chunks_exact_mut(dimensions) {
                to_unit_length(vector);
                check(vector, dimensions)?;
            }
            let (name, rows) = (name(parts.len()), part.len() / dimensions);
            weights.ensure(&name, &TensorType::new([rows, dimensions], DType::F32))?;
            weights.upload(&name, bytemuck::cast_slice(&part))?;
            parts.push(rows);
        }
        Ok(Self { gpu: gpu.clone(), weights, dimensions, parts, programs: BTreeMap::new() })
    }

    /// How many vectors there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.parts.iter().sum()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }

    /// The `top` vectors that are nearest to each query, the nearest first, of equals the earlier; fewer if there are not as many.
    ///
    /// # Errors
    /// [`Error::Input`] if a query has another size, or is not finite; [`Error::DeviceLost`].
    pub fn search(&mut self, queries: &[Vec<f32>], top: usize) -> Result<Vec<Vec<Hit>>> {
        let mut found = Vec::with_capacity(queries.len());
        for some in queries.chunks(QUERIES) {
            let rows = some.len().next_power_of_two();
            let mut words = Vec::with_capacity(rows * self.dimensions);
            for query in some {
                check(query, self.dimensions)?;
                let mut query = query.clone();
                to_unit_length(&mut query);
                words.extend(query);
            }
            words.resize(rows * self.dimensions, 0.0);
            let mut hits = vec![Vec::new(); some.len()];
            let mut first = 0;
            for part in 0..self.parts.len() {
                self.search_part(part, (&words, rows), top, |row, number, score| {
                    if let Some(hits) = hits.get_mut(row) {
                        hits.push(Hit { number: first + number, score });
                    }
                })?;
                first += self.parts[part];
            }
            for mut hits in hits {
                hits.sort_by(Hit::order);
                hits.truncate(top);
                found.push(hits);
            }
        }
        Ok(found)
    }

    fn search_part(
        &mut self,
        part: usize,
        (queries, rows): (&[f32], usize),
        top: usize,
        mut each: impl FnMut(usize, usize, f32),
    ) -> Result<()> {
        let size = self.parts[part];
        let count = top.min(size);
        if count == 0 {
            return Ok(());
        }
        let key = (part, rows, count);
        if !self.programs.contains_key(&key) {
            let graph = self.graph(part, rows, count)?;
            self.programs.insert(key, Program::new(&self.gpu, &graph, &self.weights)?);
        }
        let missing = || Error::Graph("the program of a search is missing".into());
        let program = self.programs.get(&key).ok_or_else(missing)?;
        program.write("queries", bytemuck::cast_slice(queries))?;
        program.run()?;
        let index = program.read("index")?;
        let index: Vec<u32> = bytemuck::pod_collect_to_vec(&index);
        let scores = program.read_f32("scores")?;
        for (place, score) in index.into_iter().zip(scores) {
            each(place as usize / size, place as usize % size, score);
        }
        Ok(())
    }

    /// Input `queries (Q, C)`; outputs `index (Q · count)` u32, query · N + vector, and `scores (Q · count)`.
    fn graph(&self, part: usize, rows: usize, count: usize) -> Result<Graph> {
        let size = self.parts[part];
        let mut g = Graph::new();
        let queries = g.input("queries", [rows, self.dimensions], DType::F32)?;
        let vectors = g.parameter(&name(part), [size, self.dimensions], DType::F32)?;
        let scores = ops::matmul_nt(&mut g, queries, vectors)?;
        let index = ops::select(&mut g, scores, SelectRule::Top(count), &SelectOptions::default())?.index;
        let all = ops::reshape(&mut g, scores, [rows * size, 1])?;
        let scores = ops::gather_rows(&mut g, all, index)?;
        g.output("index", index)?;
        g.output("scores", scores)?;
        Ok(g)
    }
}

fn name(part: usize) -> String {
    format!("vectors.{part}")
}

fn check(vector: &[f32], dimensions: usize) -> Result<()> {
    if vector.len() != dimensions {
        let message = format!("one has {} numbers, {dimensions} are needed: it is of another model", vector.len());
        return Err(Error::input("vectors", message));
    }
    match vector.iter().any(|x| !x.is_finite()) {
        true => Err(Error::input("vectors", "one has numbers that are not finite")),
        false => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_against(index: &mut VectorIndex, vectors: &[f32], queries: &[Vec<f32>]) {
        let length = |v: &[f32]| v.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt();
        for top in [1, 9, 1000] {
            let found = index.search(queries, top).unwrap();
            assert_eq!(found.len(), queries.len());
            for (query, hits) in queries.iter().zip(&found) {
                let cosine = |number: usize| {
                    let vector = &vectors[number * query.len()..][..query.len()];
                    let product: f64 = vector.iter().zip(query).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum();
                    product / (length(vector) * length(query))
                };
                let mut wanted: Vec<f64> = (0..vectors.len() / query.len()).map(cosine).collect();
                wanted.sort_by(|a, b| b.total_cmp(a));
                assert_eq!(hits.len(), top.min(wanted.len()));
                for (hit, wanted) in hits.iter().zip(&wanted) {
                    assert!((f64::from(hit.score) - wanted).abs() <= 1e-6);
                    assert!((cosine(hit.number) - wanted).abs() <= 1e-6);
                }
            }
        }
    }

    #[test]
    fn the_nearest_are_those_of_plain_arithmetic_on_every_adapter() {
        const DIMENSIONS: usize = 7;
        let value = |i: usize| (f64::from(i as u32) * 12.9898).sin() as f32;
        let vectors: Vec<f32> = (0..301 * DIMENSIONS).map(value).collect();
        let queries: Vec<Vec<f32>> =
            (0..37).map(|q| (0..DIMENSIONS).map(|k| value(5000 + q * DIMENSIONS + k)).collect()).collect();
        for adapter in Gpu::adapters() {
            let gpu = Gpu::open(&adapter).unwrap();
            let mut index = VectorIndex::new(&gpu, &vectors, DIMENSIONS).unwrap();
            // As a large index is held.
            let parted = VectorIndex::in_parts(&gpu, &vectors, DIMENSIONS, 120).unwrap();
            assert_eq!((parted.parts.as_slice(), parted.len()), (&[120, 120, 61][..], 301));
            check_against(&mut index, &vectors, &queries);
            check_against(&mut { parted }, &vectors, &queries);
            assert!(index.search(&[vec![1.0; 3]], 1).unwrap_err().to_string().contains("another model"));
            assert!(index.search(&[vec![f32::NAN; DIMENSIONS]], 1).is_err());
            assert!(VectorIndex::new(&gpu, &[1.0; 8], 7).is_err());
            assert_eq!(VectorIndex::new(&gpu, &[], 7).unwrap().search(&queries[..1], 3).unwrap(), [vec![]]);
        }
    }
}
