//! Writes inputs through a ring of mapped buffers, without creating GPU objects in steady state.
//!
//! wgpu's own `StagingBelt` panics on a lost device and grows without bound when the CPU runs ahead; `Queue::write_buffer`
//! creates a staging buffer per call. [`Uploads`] writes into mapped chunks, encodes the copies, and maps the chunks again when the
//! submission is done. When all chunks are in flight it waits for the oldest one, up to some seconds, so that the CPU does not run far
//! ahead.

use super::readback::check_range;
use super::{Gpu, Polling};
use crate::error::{Error, Result};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Bytes of a chunk of the ring behind [`Gpu::write`].
const CHUNK: u64 = 1 << 20;
/// Chunks of a ring before it waits.
const CHUNKS: usize = 4;
/// Chunks that a ring keeps: a large upload that may not wait needs more for a moment.
const MOST_FREE: usize = 2 * CHUNKS;
/// The pause between two polls for a free chunk; a wait in the driver would wait for the latest work.
const POLL_PAUSE: Duration = Duration::from_micros(100);
/// Polls after which another chunk is created: some 15 seconds.
const MAX_POLLS: u32 = 100_000;
/// Bytes that [`Gpu::write`] puts into one submission.
const BATCH: usize = 2 << 20;

/// A ring of mapped buffers through which bytes go to the GPU.
///
/// For each encoder: [`Uploads::write`] as often as needed, then [`Uploads::finish`] once, then submit.
#[derive(Debug)]
pub struct Uploads {
    gpu: Gpu,
    ring: Ring,
}

impl Uploads {
    /// A ring with chunks of this many bytes, ideally a little more than one step writes. Chunks are created on first use.
    #[must_use]
    pub fn new(gpu: &Gpu, chunk_bytes: u64) -> Self {
        Self { gpu: gpu.clone(), ring: Ring::new(chunk_bytes) }
    }

    /// Encodes a copy of `bytes` into a buffer. The bytes are taken now; the copy runs in the order of the encoder's commands.
    ///
    /// # Errors
    /// [`Error::Input`] if the range is outside the buffer or not aligned to 4 bytes, or the buffer lacks `COPY_DST`;
    /// [`Error::OutOfMemory`], [`Error::DeviceLost`].
    pub fn write(
        &mut self,
        encoder: &mut wgpu::CommandEncoder,
        buffer: &wgpu::Buffer,
        offset: u64,
        bytes: &[u8],
    ) -> Result<()> {
        self.ring.write(&self.gpu, encoder, buffer, offset, bytes)
    }

    /// Gets a chunk ready, so that the next write of up to its size does not wait.
    pub(crate) fn reserve(&mut self) -> Result<()> {
        self.ring.room(&self.gpu).map(drop)
    }

    /// Ends the writes for this encoder; call it before the encoder is submitted. The chunks return to the ring by themselves.
    ///
    /// # Errors
    /// [`Error::Validation`].
    pub fn finish(&mut self, encoder: &wgpu::CommandEncoder) -> Result<()> {
        self.ring.finish(&self.gpu, encoder)
    }
}

impl Drop for Uploads {
    fn drop(&mut self) {
        // If the encoder is submitted later, its chunks must not be mapped.
        let _ = self.ring.close(&self.gpu);
    }
}

impl Gpu {
    /// Writes bytes to a buffer, in order with submissions; large writes in pieces, so that staging memory stays bounded.
    ///
    /// # Errors
    /// As [`Uploads::write`].
    pub fn write(&self, buffer: &wgpu::Buffer, offset: u64, bytes: &[u8]) -> Result<()> {
        let rings = || self.inner.rings.lock().unwrap_or_else(PoisonError::into_inner);
        // No lock is held meanwhile: wgpu's callbacks may also write while this waits and submits.
        let mut ring = rings().pop().unwrap_or_default();
        let mut at = offset;
        let written = bytes.chunks(BATCH).try_for_each(|batch| {
            let mut encoder = self.encoder("write");
            ring.write(self, &mut encoder, buffer, at, batch)?;
            ring.finish(self, &encoder)?;
            at += batch.len() as u64;
            self.submit("writing a buffer", [encoder]).map(drop)
        });
        rings().push(ring);
        written
    }
}

/// The ring without a [`Gpu`], so that a `Gpu` can own it.
#[derive(Debug)]
pub(super) struct Ring {
    chunk_bytes: u64,
    active: Vec<Chunk>,
    pool: Arc<Mutex<StagingPool>>,
}

/// A mapped buffer and its number of written bytes.
#[derive(Debug)]
struct Chunk {
    buffer: wgpu::Buffer,
    used: u64,
}

/// Free chunks, and the number of chunks in flight.
#[derive(Debug, Default)]
struct StagingPool {
    free: Vec<wgpu::Buffer>,
    in_flight: usize,
}

/// Lives in wgpu's callback and returns a chunk to the pool. If the callback is dropped uncalled (the encoder was never submitted), the
/// chunk is dropped.
struct ChunkGuard {
    buffer: Option<wgpu::Buffer>,
    pool: Arc<Mutex<StagingPool>>,
}

impl ChunkGuard {
    fn mapped(mut self, result: Result<(), wgpu::BufferAsyncError>) {
        if let (Ok(()), Some(buffer)) = (result, self.buffer.take()) {
            let mut pool = self.pool.lock().unwrap_or_else(PoisonError::into_inner);
            if pool.free.len() < MOST_FREE {
                pool.free.push(buffer);
            }
        }
    }
}

impl Drop for ChunkGuard {
    fn drop(&mut self) {
        self.pool.lock().unwrap_or_else(PoisonError::into_inner).in_flight -= 1;
    }
}

impl Default for Ring {
    fn default() -> Self {
        Self::new(CHUNK)
    }
}

impl Ring {
    fn new(chunk_bytes: u64) -> Self {
        let chunk_bytes = chunk_bytes.clamp(256, 1 << 30).next_multiple_of(wgpu::MAP_ALIGNMENT);
        Self { chunk_bytes, active: Vec::new(), pool: Arc::default() }
    }

    fn write(
        &mut self,
        gpu: &Gpu,
        encoder: &mut wgpu::CommandEncoder,
        buffer: &wgpu::Buffer,
        offset: u64,
        bytes: &[u8],
    ) -> Result<()> {
        check_range("upload", buffer, wgpu::BufferUsages::COPY_DST, offset, bytes.len() as u64)?;
        let (mut rest, mut at) = (bytes, offset);
        while !rest.is_empty() {
            let chunk = self.room(gpu)?;
            let size = (chunk.buffer.size() - chunk.used).min(rest.len() as u64);
            let (now, later) = rest.split_at(size as usize);
            match chunk.buffer.slice(chunk.used..chunk.used + size).get_mapped_range_mut() {
                Ok(mut view) => view.copy_from_slice(now),
                Err(error) => {
                    gpu.check()?;
                    return Err(Error::Validation { what: "an upload".into(), message: error.to_string() });
                }
            }
            encoder.copy_buffer_to_buffer(&chunk.buffer, chunk.used, buffer, at, size);
            chunk.used = (chunk.used + size).next_multiple_of(wgpu::MAP_ALIGNMENT);
            at += size;
            rest = later;
        }
        Ok(())
    }

    /// The chunk to write next, with room left.
    fn room(&mut self, gpu: &Gpu) -> Result<&mut Chunk> {
        if self.active.last().is_none_or(|chunk| chunk.used >= chunk.buffer.size()) {
            let buffer = match self.free(gpu)? {
                Some(buffer) => buffer,
                None => gpu.mapped_buffer("upload", self.chunk_bytes)?,
            };
            self.active.push(Chunk { buffer, used: 0 });
        }
        let last = self.active.len() - 1;
        Ok(&mut self.active[last])
    }

    /// A free chunk; waits for one if too many are in flight.
    fn free(&self, gpu: &Gpu) -> Result<Option<wgpu::Buffer>> {
        let mut polls = 0;
        loop {
            // Where the application polls, it gets another chunk at once.
            let (idle, waits) = match gpu.inner.polling {
                Polling::Engine => (gpu.poll()?, true),
                Polling::Application => (false, false),
            };
            let mut pool = self.pool.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(buffer) = pool.free.pop() {
                return Ok(Some(buffer));
            }
            // When the queue is idle, missing chunks were never submitted. A browser cannot block. And the thread that would return a chunk may
            // wait for this thread, in a callback that runs the same program.
            if idle || !waits || pool.in_flight < CHUNKS || polls == MAX_POLLS || cfg!(target_arch = "wasm32") {
                return Ok(None);
            }
            drop(pool);
            polls += 1;
            std::thread::sleep(POLL_PAUSE);
        }
    }

    fn finish(&mut self, gpu: &Gpu, encoder: &wgpu::CommandEncoder) -> Result<()> {
        for buffer in self.close(gpu)? {
            self.pool.lock().unwrap_or_else(PoisonError::into_inner).in_flight += 1;
            let guard = ChunkGuard { buffer: Some(buffer.clone()), pool: self.pool.clone() };
            encoder.map_buffer_on_submit(&buffer, wgpu::MapMode::Write, .., move |result| guard.mapped(result));
        }
        Ok(())
    }

    /// Unmaps the chunks that were written.
    fn close(&mut self, gpu: &Gpu) -> Result<Vec<wgpu::Buffer>> {
        let chunks: Vec<wgpu::Buffer> = self.active.drain(..).map(|chunk| chunk.buffer).collect();
        gpu.scoped("unmapping the uploads", || chunks.iter().for_each(wgpu::Buffer::unmap))?;
        Ok(chunks)
    }
}
