//! Reading results back without stalling what need not stall.
//!
//! A [`Readback`] copies a range of a buffer into staging memory within the caller's own encoder and asks for its
//! mapping at the moment of submission. The caller goes on, and later looks whether the bytes are there
//! ([`Readback::try_get`]), waits ([`Readback::wait`]) or awaits it. Staging memory comes from a pool of the [`Gpu`],
//! so steady work creates no GPU objects.

use super::Gpu;
use super::signal::{Arrival, Landing, Outcome, Signal};
use super::wait::{Polled, SLICE, Wait};
use crate::error::{Error, Result, human_bytes};
use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

/// Bytes that the blocking and async reads move at once: bounds the staging memory of a large download.
const WINDOW: u64 = 2 << 20;
/// Windows of a large download that are in flight together.
const WINDOWS: usize = 2;
/// Bytes of idle staging memory that the pool keeps.
const POOLED: u64 = 16 << 20;
/// The smallest staging buffer.
const SMALLEST: u64 = 1 << 10;

/// Staging buffers that nobody uses right now.
#[derive(Debug, Default)]
pub(super) struct Pool {
    idle: Mutex<Vec<wgpu::Buffer>>,
}

impl Pool {
    fn take(&self, size: u64) -> Option<wgpu::Buffer> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let found = idle.iter().position(|b| b.size() == size)?;
        Some(idle.swap_remove(found))
    }

    fn put(&self, buffer: wgpu::Buffer) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.push(buffer);
        let mut total: u64 = idle.iter().map(wgpu::Buffer::size).sum();
        while total > POOLED {
            // The longest idle goes first.
            total -= idle.remove(0).size();
        }
    }
}

/// Bytes on their way from a buffer to the caller. Dropping it gives up on them.
#[derive(Debug)]
#[must_use = "the bytes arrive through `try_get`, `wait` or `.await`"]
pub struct Readback {
    gpu: Gpu,
    staging: Option<wgpu::Buffer>,
    size: u64,
    signal: Arc<Signal>,
    arrival: Arrival,
    after: Option<wgpu::SubmissionIndex>,
    taken: bool,
}

impl Gpu {
    /// Encodes a copy of a buffer's range to the caller's side, to be picked up once the encoder was submitted.
    ///
    /// # Errors
    /// [`Error::Input`] if the range is not in the buffer or not aligned to 4 bytes, or the buffer is no `COPY_SRC`;
    /// [`Error::OutOfMemory`], [`Error::DeviceLost`].
    pub fn readback(
        &self,
        encoder: &mut wgpu::CommandEncoder,
        buffer: &wgpu::Buffer,
        offset: u64,
        size: u64,
    ) -> Result<Readback> {
        let padded = check_source(buffer, offset, size)?;
        self.inner.readbacks.fetch_add(1, Ordering::Relaxed);
        let signal = Arc::new(Signal::default());
        let arrival = Arrival::new(self, &signal);
        let mut readback =
            Readback { gpu: self.clone(), staging: None, size, signal, arrival, after: None, taken: false };
        if size == 0 {
            readback.signal.settle(Outcome::Done);
            return Ok(readback);
        }
        let staging = self.staging(padded)?;
        encoder.copy_buffer_to_buffer(buffer, offset, &staging, 0, padded);
        let landing = Landing::new(&readback.signal);
        encoder.map_buffer_on_submit(&staging, wgpu::MapMode::Read, 0..padded, move |result| {
            landing.landed(result.is_ok());
        });
        readback.staging = Some(staging);
        Ok(readback)
    }

    /// Reads bytes of a buffer back, waiting for the work submitted so far.
    ///
    /// # Errors
    /// As [`Gpu::readback`].
    pub fn read(&self, buffer: &wgpu::Buffer, offset: u64, size: u64) -> Result<Vec<u8>> {
        check_source(buffer, offset, size)?;
        let mut bytes = Vec::with_capacity(usize::try_from(size).unwrap_or(0));
        let mut flying = VecDeque::new();
        for (start, length) in windows(offset, size) {
            if flying.len() == WINDOWS {
                land(&mut flying, &mut bytes)?;
            }
            flying.push_back(self.fly(buffer, start, length)?);
        }
        while !flying.is_empty() {
            land(&mut flying, &mut bytes)?;
        }
        Ok(bytes)
    }

    /// The async form of [`Gpu::read`].
    ///
    /// # Errors
    /// As [`Gpu::readback`].
    pub async fn read_async(&self, buffer: &wgpu::Buffer, offset: u64, size: u64) -> Result<Vec<u8>> {
        check_source(buffer, offset, size)?;
        let mut bytes = Vec::with_capacity(usize::try_from(size).unwrap_or(0));
        let mut flying: VecDeque<Readback> = VecDeque::new();
        let mut windows = windows(offset, size);
        loop {
            while flying.len() < WINDOWS {
                let Some((start, length)) = windows.next() else { break };
                flying.push_back(self.fly(buffer, start, length)?);
            }
            let Some(next) = flying.pop_front() else { return Ok(bytes) };
            bytes.extend_from_slice(&next.await?);
        }
    }

    /// Submits the readback of one window.
    fn fly(&self, buffer: &wgpu::Buffer, offset: u64, size: u64) -> Result<Readback> {
        let mut encoder = self.encoder("read");
        let readback = self.readback(&mut encoder, buffer, offset, size)?;
        Ok(readback.after(&self.submit("reading a buffer", [encoder])?))
    }

    fn staging(&self, padded: u64) -> Result<wgpu::Buffer> {
        let size = padded.max(SMALLEST).next_power_of_two().min(self.caps().max_buffer_bytes.max(padded));
        match self.inner.pool.take(size) {
            Some(buffer) => Ok(buffer),
            None => self.buffer("readback", size, wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST),
        }
    }
}

impl Readback {
    /// Names the submission that holds the copy, so that [`Readback::wait`] does not wait for later ones.
    pub fn after(mut self, submission: &wgpu::SubmissionIndex) -> Self {
        self.after = Some(submission.clone());
        self
    }

    /// The bytes, if they are there; never waits.
    ///
    /// # Errors
    /// [`Error::DeviceLost`]; [`Error::Input`] if the encoder was dropped without being submitted, or the bytes were
    /// taken already.
    pub fn try_get(&mut self) -> Result<Option<Vec<u8>>> {
        if self.signal.outcome().is_none() {
            self.gpu.poll()?;
        }
        match self.signal.outcome() {
            None => Ok(None),
            Some(outcome) => self.collect(outcome, <[u8]>::to_vec).map(Some),
        }
    }

    /// Waits for the bytes.
    ///
    /// # Errors
    /// As [`Readback::try_get`]; and [`Error::Input`] if the encoder is not submitted yet.
    pub fn wait(self) -> Result<Vec<u8>> {
        self.wait_with(<[u8]>::to_vec)
    }

    /// Waits for the bytes and hands them to `look` where they lie, without a copy.
    ///
    /// # Errors
    /// As [`Readback::wait`].
    pub fn wait_with<T>(mut self, look: impl FnOnce(&[u8]) -> T) -> Result<T> {
        // Another thread may have fetched the callback and not called it yet, so an idle queue is looked at again.
        let mut patience = 200;
        let wait = Wait::new(&self.gpu.caps().quirks, SLICE);
        loop {
            if let Some(outcome) = self.signal.outcome() {
                return self.collect(outcome, look);
            }
            if cfg!(target_arch = "wasm32") {
                return Err(Error::input("readback", "a browser cannot be waited for: await it"));
            }
            let polled = wait.slice(self.gpu.device(), &self.gpu.inner.faults, self.after.as_ref())?;
            if polled != Polled::Busy && self.signal.outcome().is_none() {
                if patience == 0 {
                    return Err(Error::input("readback", "submit the encoder that it was encoded into before waiting"));
                }
                patience -= 1;
                std::thread::sleep(Duration::from_millis(1));
            }
        }
    }

    fn collect<T>(&mut self, outcome: Outcome, look: impl FnOnce(&[u8]) -> T) -> Result<T> {
        if std::mem::replace(&mut self.taken, true) {
            return Err(Error::input("readback", "its bytes were taken already"));
        }
        match (outcome, self.staging.take()) {
            (Outcome::Done, None) => Ok(look(&[])),
            // Where an assertion of wgpu's fails ([`super::wait::poll`]), callbacks of mappings that are there go with it.
            (Outcome::Done | Outcome::Abandoned, Some(staging)) => {
                let padded = self.size.next_multiple_of(4);
                let view = match staging.slice(..padded).get_mapped_range() {
                    Ok(view) => view,
                    Err(_) if outcome == Outcome::Abandoned => return Err(abandoned()),
                    Err(error) => return Err(self.refused(&error.to_string())),
                };
                let value = look(&view[..self.size as usize]);
                drop(view);
                self.gpu.scoped("unmapping a staging buffer", || staging.unmap())?;
                self.gpu.inner.pool.put(staging);
                Ok(value)
            }
            (Outcome::Failed, _) => Err(self.refused("the staging buffer could not be mapped")),
            (Outcome::Abandoned, None) => Err(abandoned()),
        }
    }

    /// Why a mapping failed: the device's own word if it has one.
    fn refused(&self, message: &str) -> Error {
        let other = || Error::Validation { what: "reading back".into(), message: message.into() };
        self.gpu.check().err().unwrap_or_else(other)
    }
}

fn abandoned() -> Error {
    Error::input("readback", "the encoder that it was encoded into was dropped, not submitted")
}

impl Future for Readback {
    type Output = Result<Vec<u8>>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.arrival).poll(context).map(|outcome| self.collect(outcome, <[u8]>::to_vec))
    }
}

impl Drop for Readback {
    fn drop(&mut self) {
        // Lets the watching thread forget it. The staging buffer, if not collected, goes: a copy may still be under way.
        self.signal.settle(Outcome::Abandoned);
    }
}

/// The size of a copy out of a buffer: whole words.
fn check_source(buffer: &wgpu::Buffer, offset: u64, size: u64) -> Result<u64> {
    let padded = size.checked_next_multiple_of(4).unwrap_or(u64::MAX - 3);
    check_range("readback", buffer, wgpu::BufferUsages::COPY_SRC, offset, padded)?;
    Ok(padded)
}

fn windows(offset: u64, size: u64) -> impl Iterator<Item = (u64, u64)> {
    let count = size.div_ceil(WINDOW);
    (0..count).map(move |i| (offset + i * WINDOW, WINDOW.min(size - i * WINDOW)))
}

fn land(flying: &mut VecDeque<Readback>, bytes: &mut Vec<u8>) -> Result<()> {
    flying.pop_front().map_or(Ok(()), |readback| readback.wait_with(|part| bytes.extend_from_slice(part)))
}

/// Whether a copy's end lies in the buffer and is aligned, told before wgpu would refuse the whole encoder.
pub(super) fn check_range(
    what: &str,
    buffer: &wgpu::Buffer,
    usage: wgpu::BufferUsages,
    offset: u64,
    size: u64,
) -> Result<()> {
    if !buffer.usage().contains(usage) {
        return Err(Error::input(
            what,
            format!("the buffer must be created with {usage:?}, it has {:?}", buffer.usage()),
        ));
    }
    if !offset.is_multiple_of(4) || !size.is_multiple_of(4) {
        return Err(Error::input(what, format!("offset {offset} and size {size} must be multiples of 4 bytes")));
    }
    if offset.checked_add(size).is_none_or(|end| end > buffer.size()) {
        let (size, whole) = (human_bytes(size), human_bytes(buffer.size()));
        return Err(Error::input(what, format!("{size} at offset {offset} do not fit in a buffer of {whole}")));
    }
    Ok(())
}
