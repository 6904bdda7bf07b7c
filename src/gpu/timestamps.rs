//! Times of single dispatches, measured by the GPU.

use super::{Gpu, Readback};
use crate::error::{Error, Result};

/// The most queries that one query set holds.
const SET: u32 = wgpu::QUERY_SET_MAX_QUERIES;

/// A row of timestamps that a compute pass writes between its dispatches.
#[derive(Debug)]
pub struct Timestamps {
    gpu: Gpu,
    sets: Vec<wgpu::QuerySet>,
    resolved: wgpu::Buffer,
    count: u32,
    period: f64,
}

impl Timestamps {
    /// A row of `count` timestamps; `None` if the device cannot write them inside a pass.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`], [`Error::DeviceLost`].
    pub fn new(gpu: &Gpu, count: u32) -> Result<Option<Self>> {
        if !gpu.caps().timestamps {
            return Ok(None);
        }
        let sets = gpu.scoped("a row of timestamps", || {
            let set = |first: u32| {
                gpu.device().create_query_set(&wgpu::QuerySetDescriptor {
                    label: Some("timestamps"),
                    ty: wgpu::QueryType::Timestamp,
                    count: (count - first).min(SET),
                })
            };
            (0..count).step_by(SET as usize).map(set).collect()
        })?;
        let usage = wgpu::BufferUsages::QUERY_RESOLVE | wgpu::BufferUsages::COPY_SRC;
        let resolved = gpu.buffer("timestamps", u64::from(count) * 8, usage)?;
        let period = f64::from(gpu.queue().get_timestamp_period());
        Ok(Some(Self { gpu: gpu.clone(), sets, resolved, count, period }))
    }

    /// The number of timestamps.
    #[must_use]
    pub fn count(&self) -> u32 {
        self.count
    }

    /// Writes the timestamp `index` at this point of a pass; one past the end is not written.
    pub fn write(&self, pass: &mut wgpu::ComputePass<'_>, index: u32) {
        if let Some(set) = self.sets.get((index / SET) as usize).filter(|_| index < self.count) {
            pass.write_timestamp(set, index % SET);
        }
    }

    /// Encodes the readback of the first `used` timestamps, which must all have been written: drivers wait for those that were not.
    ///
    /// # Errors
    /// [`Error::Input`] if there are not as many; [`Error::OutOfMemory`], [`Error::DeviceLost`].
    pub fn resolve(&self, encoder: &mut wgpu::CommandEncoder, used: u32) -> Result<Readback> {
        if used > self.count {
            return Err(Error::input("timestamps", format!("{used} are wanted, but there are only {}", self.count)));
        }
        for (set, first) in self.sets.iter().zip((0..used).step_by(SET as usize)) {
            encoder.resolve_query_set(set, 0..(used - first).min(SET), &self.resolved, u64::from(first) * 8);
        }
        self.gpu.readback(encoder, &self.resolved, 0, u64::from(used) * 8)
    }

    /// The bytes of such a readback as nanoseconds since the first timestamp.
    #[must_use]
    pub fn nanoseconds(&self, bytes: &[u8]) -> Vec<f64> {
        let ticks: Vec<u64> = bytemuck::pod_collect_to_vec(&bytes[..bytes.len() / 8 * 8]);
        let first = ticks.first().copied().unwrap_or(0);
        // The counter may wrap between two timestamps.
        ticks.iter().map(|tick| tick.wrapping_sub(first) as i64 as f64 * self.period).collect()
    }
}
