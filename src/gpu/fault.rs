//! Turns errors of a device into [`Error`]s instead of panics.
//!
//! wgpu reports errors in four ways:
//!
//! * Validation and memory errors go to the innermost error scope of the thread: [`Gpu::scoped`] opens one around every
//!   call that can fail, so that an adopted device's own handler sees none of the engine's errors.
//! * Errors outside any scope go to the device's handler. On devices that the engine opened it keeps the first error for [`Gpu::check`];
//!   the handler of an adopted device belongs to the application and is not replaced.
//! * A lost device reports nothing: every call on it silently does nothing. [`Gpu::check`] finds the loss.
//! * `Device::poll` panics when it is the first to notice the loss; see the module `wait`.

use super::Gpu;
use super::speed::Speed;
use crate::error::{Error, Result};
#[cfg(not(target_arch = "wasm32"))]
use std::sync::Arc;
#[cfg(not(target_arch = "wasm32"))]
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

/// Errors that a device reported outside of calls, its measured speed and the lock of polls.
#[derive(Debug, Default)]
pub(super) struct Faults {
    pub(super) speed: Speed,
    /// Held by the thread that polls the device.
    pub(super) poll_lock: parking_lot::Mutex<()>,
    lost: Mutex<Option<String>>,
    pending: Mutex<Option<Error>>,
}

impl Faults {
    /// Records that the device is lost; the first reason is kept.
    pub(super) fn lose(&self, reason: &str) {
        let mut lost = self.lost.lock().unwrap_or_else(PoisonError::into_inner);
        let reason = if reason.is_empty() { "the device was destroyed, or reset by its driver" } else { reason };
        lost.get_or_insert_with(|| reason.into());
    }

    /// Keeps an error outside any scope, unless one is pending already.
    pub(super) fn keep(&self, error: wgpu::Error) {
        let error = translate("a call outside any error scope", error);
        log::error!("{error}");
        self.pending.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
    }

    /// An error if the device is known to be lost.
    pub(super) fn known(&self) -> Result<()> {
        match &*self.lost.lock().unwrap_or_else(PoisonError::into_inner) {
            None => Ok(()),
            Some(reason) => Err(Error::DeviceLost { reason: reason.clone() }),
        }
    }

    fn take(&self) -> Result<()> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner).take().map_or(Ok(()), Err)
    }
}

/// Converts an error of wgpu.
fn translate(what: &str, error: wgpu::Error) -> Error {
    match error {
        wgpu::Error::OutOfMemory { source } => Error::OutOfMemory {
            what: what.into(),
            needed: "another piece".into(),
            available: format!("no more ({})", root(&*source).trim_end_matches('.')),
            hint: "Lower the batch, the sequence length or the model size".into(),
        },
        wgpu::Error::Validation { description, .. } | wgpu::Error::Internal { description, .. } => {
            Error::Validation { what: what.into(), message: description.trim().into() }
        }
    }
}

/// The message of the innermost cause.
fn root(error: &(dyn std::error::Error + 'static)) -> String {
    error.source().map_or_else(|| error.to_string(), root)
}

impl Gpu {
    /// The state of the device: `Ok` if it answers and no error is pending.
    ///
    /// A loss is reported every time, another error once. Costs a few microseconds.
    ///
    /// # Errors
    /// [`Error::DeviceLost`]; the pending [`Error::Validation`] or [`Error::OutOfMemory`].
    pub fn check(&self) -> Result<()> {
        let faults = &self.inner.faults;
        faults.known()?;
        faults.take()?;
        self.there()
    }

    /// An error if the device is lost.
    pub(super) fn there(&self) -> Result<()> {
        let faults = &self.inner.faults;
        faults.known()?;
        if !self.alive() {
            faults.lose("");
        }
        faults.known()
    }

    /// Whether the device still answers. A lost device ignores all calls silently, except that it refuses to map a buffer at once. So this
    /// requests the mapping of a small buffer and cancels the request before anything is mapped.
    #[cfg(not(target_arch = "wasm32"))]
    fn alive(&self) -> bool {
        let mut pulse = self.inner.pulse.lock().unwrap_or_else(PoisonError::into_inner);
        let (buffer, new) = match pulse.take() {
            Some(buffer) => (buffer, false),
            None => match self.caught(|| self.pulse()) {
                (buffer, None) => (buffer, true),
                // Too little memory for it does not mean that the device is lost.
                (_, Some(_)) => return true,
            },
        };
        let refused = Arc::new(AtomicBool::new(false));
        let callback = refused.clone();
        let ((), error) = self.caught(|| {
            buffer.map_async(wgpu::MapMode::Read, .., move |result| callback.store(result.is_err(), Ordering::Relaxed));
        });
        if refused.load(Ordering::Relaxed) {
            // On a lost device the mapping of a valid buffer fails silently; an error means that the buffer itself is invalid. A new buffer is
            // invalid if the device was lost when it was made. An older one may still count as mapped, because a poll of another thread
            // finished an earlier request after it was cancelled: then another buffer is made next time.
            return error.is_some() && !new;
        }
        // This also calls the callback with an error, too late to count.
        self.caught(|| buffer.unmap());
        *pulse = Some(buffer);
        true
    }

    #[cfg(not(target_arch = "wasm32"))]
    fn pulse(&self) -> wgpu::Buffer {
        self.device().create_buffer(&wgpu::BufferDescriptor {
            label: Some("liveness check"),
            size: 8,
            usage: wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST,
            mapped_at_creation: false,
        })
    }

    /// A browser reports a loss only through the callback.
    #[cfg(target_arch = "wasm32")]
    fn alive(&self) -> bool {
        true
    }

    /// Runs calls to wgpu and returns the first error that they caused, described by `what`.
    ///
    /// In a browser errors arrive later: the call returns at once, and [`Gpu::check`] reports them.
    ///
    /// # Errors
    /// [`Error::Validation`], [`Error::OutOfMemory`]; [`Error::DeviceLost`] if that is the cause.
    pub fn scoped<T>(&self, what: &str, calls: impl FnOnce() -> T) -> Result<T> {
        match self.caught(calls) {
            (value, None) => Ok(value),
            // Objects that a lost device made silently are invalid, and their use is an error.
            (_, Some(error)) => self.there().and(Err(translate(what, error))),
        }
    }

    /// Runs calls whose errors [`Gpu::check`] reports later.
    pub(super) fn noted<T>(&self, calls: impl FnOnce() -> T) -> T {
        let (value, error) = self.caught(calls);
        error.into_iter().for_each(|error| self.inner.faults.keep(error));
        value
    }

    /// Runs calls to wgpu and also returns the first error that they caused.
    pub(super) fn caught<T>(&self, calls: impl FnOnce() -> T) -> (T, Option<wgpu::Error>) {
        if cfg!(target_arch = "wasm32") {
            return (calls(), None);
        }
        let device = self.device();
        let internal = device.push_error_scope(wgpu::ErrorFilter::Internal);
        let validation = device.push_error_scope(wgpu::ErrorFilter::Validation);
        let memory = device.push_error_scope(wgpu::ErrorFilter::OutOfMemory);
        let value = calls();
        let memory = pollster::block_on(memory.pop());
        let validation = pollster::block_on(validation.pop());
        let internal = pollster::block_on(internal.pop());
        (value, memory.or(validation).or(internal))
    }
}
