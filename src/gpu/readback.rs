//! Reads results back without stalling the caller.
//!
//! A [`Readback`] copies a range of a buffer into staging memory in the caller's encoder and requests its mapping at submission. The
//! caller goes on, and later polls ([`Readback::try_get`]), waits ([`Readback::wait`]) or awaits it. Staging memory comes from a pool of
//! the [`Gpu`], so steady work creates no GPU objects.

use super::signal::{CallbackGuard, Outcome, Signal, SignalFuture};
use super::wait::{Polled, SLICE, Wait};
use super::{Gpu, Polling};
use crate::error::{Error, Result, human_bytes};
use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

/// Bytes of a window of a large download: bounds its staging memory.
const WINDOW: u64 = 2 << 20;
/// Windows of a large download that are in flight together.
const WINDOWS: usize = 2;
/// The most bytes of idle staging memory in the pool.
const POOLED: u64 = 16 << 20;
/// The smallest staging buffer.
const SMALLEST: u64 = 1 << 10;

/// Idle staging buffers.
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
            // The longest idle one first.
            total -= idle.remove(0).size();
        }
    }
}

/// A readback in flight. Dropping it cancels it.
#[derive(Debug)]
#[must_use = "the bytes arrive through `try_get`, `wait` or `.await`"]
pub struct Readback {
    gpu: Gpu,
    staging: Option<wgpu::Buffer>,
    size: u64,
    signal: Arc<Signal>,
    future: SignalFuture,
    after: Option<wgpu::SubmissionIndex>,
    taken: bool,
}

impl Gpu {
    /// Encodes the readback of a buffer's range, whose bytes arrive after the encoder was submitted.
    ///
    /// # Errors
    /// [`Error::Input`] if the range is outside the buffer or not aligned to 4 bytes, or the buffer lacks `COPY_SRC`;
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
        let future = SignalFuture::new(self, &signal);
        let mut readback =
            Readback { gpu: self.clone(), staging: None, size, signal, future, after: None, taken: false };
        if size == 0 {
            readback.signal.settle(Outcome::Done);
            return Ok(readback);
        }
        let staging = self.staging(padded)?;
        encoder.copy_buffer_to_buffer(buffer, offset, &staging, 0, padded);
        let guard = CallbackGuard::new(&readback.signal);
        encoder.map_buffer_on_submit(&staging, wgpu::MapMode::Read, 0..padded, move |result| {
            guard.complete(result.is_ok());
        });
        readback.staging = Some(staging);
        Ok(readback)
    }

    /// Waits for the work submitted so far and reads bytes of a buffer back.
    ///
    /// # Errors
    /// As [`Gpu::readback`].
    pub fn read(&self, buffer: &wgpu::Buffer, offset: u64, size: u64) -> Result<Vec<u8>> {
        check_source(buffer, offset, size)?;
        let mut bytes = Vec::with_capacity(usize::try_from(size).unwrap_or(0));
        let mut in_flight = VecDeque::new();
        for (start, length) in windows(offset, size) {
            if in_flight.len() == WINDOWS {
                collect_first(&mut in_flight, &mut bytes)?;
            }
            in_flight.push_back(self.submit_window(buffer, start, length)?);
        }
        while !in_flight.is_empty() {
            collect_first(&mut in_flight, &mut bytes)?;
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
        let mut in_flight: VecDeque<Readback> = VecDeque::new();
        let mut windows = windows(offset, size);
        loop {
            while in_flight.len() < WINDOWS {
                let Some((start, length)) = windows.next() else { break };
                in_flight.push_back(self.submit_window(buffer, start, length)?);
            }
            let Some(next) = in_flight.pop_front() else { return Ok(bytes) };
            bytes.extend_from_slice(&next.await?);
        }
    }

    /// Submits the readback of one window.
    fn submit_window(&self, buffer: &wgpu::Buffer, offset: u64, size: u64) -> Result<Readback> {
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
    /// Sets the submission of the copy, so that [`Readback::wait`] does not wait for later ones.
    pub fn after(mut self, submission: &wgpu::SubmissionIndex) -> Self {
        self.after = Some(submission.clone());
        self
    }

    /// The bytes, if they have arrived; never waits. With [`Polling::Application`] they arrive when the application polls or submits.
    ///
    /// # Errors
    /// [`Error::DeviceLost`]; [`Error::Input`] if the encoder was dropped without submission, or the bytes were taken already.
    pub fn try_get(&mut self) -> Result<Option<Vec<u8>>> {
        if self.signal.outcome().is_none() && self.gpu.inner.polling == Polling::Engine {
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
    /// As [`Readback::try_get`]; [`Error::Input`] if the encoder is not submitted yet.
    pub fn wait(self) -> Result<Vec<u8>> {
        self.wait_with(<[u8]>::to_vec)
    }

    /// Waits for the bytes and passes them to `look` without a copy.
    ///
    /// # Errors
    /// As [`Readback::wait`].
    pub fn wait_with<T>(mut self, look: impl FnOnce(&[u8]) -> T) -> Result<T> {
        // Another thread may have taken the callback and not called it yet, so an idle queue is polled again.
        let mut retries = 200;
        let wait = Wait::new(&self.gpu.caps().quirks, SLICE);
        loop {
            if let Some(outcome) = self.signal.outcome() {
                return self.collect(outcome, look);
            }
            if cfg!(target_arch = "wasm32") {
                return Err(Error::input("readback", "a browser cannot block: await the readback"));
            }
            let polled = wait.slice(self.gpu.device(), &self.gpu.inner.faults, self.after.as_ref())?;
            if polled != Polled::Busy && self.signal.outcome().is_none() {
                if retries == 0 {
                    return Err(Error::input("readback", "submit its encoder before waiting"));
                }
                retries -= 1;
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
            // A failed assertion of wgpu ([`super::wait::poll`]) drops the callbacks of mappings that succeeded.
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

    /// Why a mapping failed: the device's error if there is one.
    fn refused(&self, message: &str) -> Error {
        let other = || Error::Validation { what: "reading back".into(), message: message.into() };
        self.gpu.check().err().unwrap_or_else(other)
    }
}

fn abandoned() -> Error {
    Error::input("readback", "its encoder was dropped without submission")
}

impl Future for Readback {
    type Output = Result<Vec<u8>>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.future).poll(context).map(|outcome| self.collect(outcome, <[u8]>::to_vec))
    }
}

impl Drop for Readback {
    fn drop(&mut self) {
        // Lets the watching thread forget it. A staging buffer that was not collected is dropped: a copy may still be in flight.
        self.signal.settle(Outcome::Abandoned);
    }
}

/// The size of a copy from a buffer, in whole words.
fn check_source(buffer: &wgpu::Buffer, offset: u64, size: u64) -> Result<u64> {
    let padded = size.checked_next_multiple_of(4).unwrap_or(u64::MAX - 3);
    check_range("readback", buffer, wgpu::BufferUsages::COPY_SRC, offset, padded)?;
    Ok(padded)
}

fn windows(offset: u64, size: u64) -> impl Iterator<Item = (u64, u64)> {
    let count = size.div_ceil(WINDOW);
    (0..count).map(move |i| (offset + i * WINDOW, WINDOW.min(size - i * WINDOW)))
}

fn collect_first(in_flight: &mut VecDeque<Readback>, bytes: &mut Vec<u8>) -> Result<()> {
    in_flight.pop_front().map_or(Ok(()), |readback| readback.wait_with(|part| bytes.extend_from_slice(part)))
}

/// Checks the range of a copy, before wgpu would refuse the whole encoder.
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
            format!("the buffer must be created with {usage:?}, but it has {:?}", buffer.usage()),
        ));
    }
    if !offset.is_multiple_of(4) || !size.is_multiple_of(4) {
        return Err(Error::input(what, format!("offset {offset} and size {size} must be multiples of 4 bytes")));
    }
    if offset.checked_add(size).is_none_or(|end| end > buffer.size()) {
        let (size, whole) = (human_bytes(size), human_bytes(buffer.size()));
        return Err(Error::input(what, format!("{size} at offset {offset} do not fit a buffer of {whole}")));
    }
    Ok(())
}
