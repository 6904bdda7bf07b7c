//! Writing inputs without creating GPU objects in steady state: a ring of mapped buffers.
//!
//! wgpu's own `StagingBelt` panics on a lost device and grows without bound when the CPU runs ahead; `Queue::write_buffer`
//! creates a staging buffer a call. [`Uploads`] writes into mapped chunks, encodes the copies, and has the chunks
//! mapped again when the submission is done. When all chunks are in flight it waits for the oldest work, for seconds, so
//! that the CPU does not run far ahead.

use super::Gpu;
use super::readback::check_range;
use crate::error::{Error, Result};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Bytes of a chunk of the ring behind [`Gpu::write`].
const CHUNK: u64 = 1 << 20;
/// Chunks of a ring before it waits.
const CHUNKS: usize = 4;
/// Between two looks whether a chunk came home; a wait in the driver would be one for the latest work.
const NAP: Duration = Duration::from_micros(100);
/// Naps after which another chunk is made: some 15 seconds.
const MOST_NAPS: u32 = 100_000;
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
    /// A ring with chunks of this many bytes: best a little more than what one step writes. Chunks are created when
    /// they are first needed.
    #[must_use]
    pub fn new(gpu: &Gpu, chunk_bytes: u64) -> Self {
        Self { gpu: gpu.clone(), ring: Ring::new(chunk_bytes) }
    }

    /// Encodes a copy of `bytes` into a buffer. The bytes are taken now; they arrive when the encoder is submitted, in
    /// the order of its commands.
    ///
    /// # Errors
    /// [`Error::Input`] if the range is not in the buffer or not aligned to 4 bytes, or the buffer is no `COPY_DST`;
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

    /// Gets a chunk ready, so that the next write of up to its size need not wait for one.
    pub(crate) fn reserve(&mut self) -> Result<()> {
        self.ring.room(&self.gpu).map(drop)
    }

    /// Closes what was written for this encoder; to be called before it is submitted. The chunks come back by
    /// themselves.
    ///
    /// # Errors
    /// [`Error::Validation`].
    pub fn finish(&mut self, encoder: &wgpu::CommandEncoder) -> Result<()> {
        self.ring.finish(&self.gpu, encoder)
    }
}

impl Drop for Uploads {
    fn drop(&mut self) {
        // An encoder that was written for and is submitted later must not find its chunks mapped.
        let _ = self.ring.close(&self.gpu);
    }
}

impl Gpu {
    /// Writes bytes to a buffer, in order with what is submitted; large ones in pieces, so that staging memory stays
    /// bounded.
    ///
    /// # Errors
    /// As [`Uploads::write`].
    pub fn write(&self, buffer: &wgpu::Buffer, offset: u64, bytes: &[u8]) -> Result<()> {
        let rings = || self.inner.rings.lock().unwrap_or_else(PoisonError::into_inner);
        // No lock is held meanwhile: wgpu's callbacks, which may write as well, run while this waits and submits.
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

/// The ring itself, which knows no [`Gpu`], so that a `Gpu` can own one.
#[derive(Debug)]
pub(super) struct Ring {
    chunk_bytes: u64,
    active: Vec<Chunk>,
    home: Arc<Mutex<Home>>,
}

/// A mapped buffer and how much of it is written.
#[derive(Debug)]
struct Chunk {
    buffer: wgpu::Buffer,
    used: u64,
}

/// Where chunks return to.
#[derive(Debug, Default)]
struct Home {
    free: Vec<wgpu::Buffer>,
    flying: usize,
}

/// Lives in wgpu's callback and brings a chunk home; dropped uncalled (the encoder was never submitted), the chunk goes.
struct Return {
    buffer: Option<wgpu::Buffer>,
    home: Arc<Mutex<Home>>,
}

impl Return {
    fn mapped(mut self, result: Result<(), wgpu::BufferAsyncError>) {
        if let (Ok(()), Some(buffer)) = (result, self.buffer.take()) {
            self.home.lock().unwrap_or_else(PoisonError::into_inner).free.push(buffer);
        }
    }
}

impl Drop for Return {
    fn drop(&mut self) {
        self.home.lock().unwrap_or_else(PoisonError::into_inner).flying -= 1;
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
        Self { chunk_bytes, active: Vec::new(), home: Arc::default() }
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

    /// The chunk that is written next, with room left.
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

    /// A chunk that came home; waits for one if too many are in flight.
    fn free(&self, gpu: &Gpu) -> Result<Option<wgpu::Buffer>> {
        let mut naps = 0;
        loop {
            let idle = gpu.poll()?;
            let mut home = self.home.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(buffer) = home.free.pop() {
                return Ok(Some(buffer));
            }
            // Once the queue is idle, what is not home was never submitted. A browser cannot be waited for. And who would bring a chunk
            // home may itself wait for this thread, in a callback that runs the same program.
            if idle || home.flying < CHUNKS || naps == MOST_NAPS || cfg!(target_arch = "wasm32") {
                return Ok(None);
            }
            drop(home);
            naps += 1;
            std::thread::sleep(NAP);
        }
    }

    fn finish(&mut self, gpu: &Gpu, encoder: &wgpu::CommandEncoder) -> Result<()> {
        for buffer in self.close(gpu)? {
            self.home.lock().unwrap_or_else(PoisonError::into_inner).flying += 1;
            let home = Return { buffer: Some(buffer.clone()), home: self.home.clone() };
            encoder.map_buffer_on_submit(&buffer, wgpu::MapMode::Write, .., move |result| home.mapped(result));
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
