//! What can go wrong on a device, and how it becomes an [`Error`] instead of a panic.
//!
//! wgpu reports errors in four ways, and all of them end here:
//!
//! * Validation and memory errors go to the innermost error scope of the thread: [`Gpu::scoped`] opens one around every
//!   call that can fail, so that an adopted device's own handler sees none of the engine's errors.
//! * What no scope caught goes to the device's handler. Devices that the engine opened have one that keeps the first
//!   error for [`Gpu::check`]; the handler of an adopted device belongs to the application and stays.
//! * A lost device reports nothing: every call on it silently does nothing. [`Gpu::check`] asks for it.
//! * `Device::poll` panics when it is the first to notice the loss; see the module `wait`.

use super::Gpu;
use super::speed::Speed;
use crate::error::{Error, Result};
#[cfg(not(target_arch = "wasm32"))]
use std::sync::Arc;
#[cfg(not(target_arch = "wasm32"))]
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

/// What a device reported on its own account, and the speed that it has shown.
#[derive(Debug, Default)]
pub(super) struct Faults {
    pub(super) speed: Speed,
    /// Held by the thread that polls the device.
    pub(super) turn: parking_lot::Mutex<()>,
    lost: Mutex<Option<String>>,
    pending: Mutex<Option<Error>>,
}

impl Faults {
    /// Notes that the device is lost; the first reason stays.
    pub(super) fn lose(&self, reason: &str) {
        let mut lost = self.lost.lock().unwrap_or_else(PoisonError::into_inner);
        let reason = if reason.is_empty() { "destroyed, or reset by its driver" } else { reason };
        lost.get_or_insert_with(|| reason.into());
    }

    /// Keeps an error that no scope caught, unless one waits already.
    pub(super) fn keep(&self, error: wgpu::Error) {
        let error = translate("a call outside any error scope", error);
        log::error!("{error}");
        self.pending.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
    }

    /// The loss, if it is known.
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

/// wgpu's error in the engine's words.
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

/// The words of the innermost cause.
fn root(error: &(dyn std::error::Error + 'static)) -> String {
    error.source().map_or_else(|| error.to_string(), root)
}

impl Gpu {
    /// The device's state: `Ok` if it is there and no error waits to be told.
    ///
    /// A loss is told every time, another error once. Costs a few microseconds.
    ///
    /// # Errors
    /// [`Error::DeviceLost`]; or the [`Error::Validation`] or [`Error::OutOfMemory`] that no call could be blamed for.
    pub fn check(&self) -> Result<()> {
        let faults = &self.inner.faults;
        faults.known()?;
        faults.take()?;
        self.there()
    }

    /// Whether the device is lost.
    pub(super) fn there(&self) -> Result<()> {
        let faults = &self.inner.faults;
        faults.known()?;
        if !self.alive() {
            faults.lose("");
        }
        faults.known()
    }

    /// Whether the device still answers. A lost one swallows all calls without a word, but for one: who asks it for the mapping of
    /// a buffer is refused at once. So a small buffer is asked for, and the request taken back before anything is mapped.
    #[cfg(not(target_arch = "wasm32"))]
    fn alive(&self) -> bool {
        let mut pulse = self.inner.pulse.lock().unwrap_or_else(PoisonError::into_inner);
        let (buffer, new) = match pulse.take() {
            Some(buffer) => (buffer, false),
            None => match self.caught(|| self.pulse()) {
                (buffer, None) => (buffer, true),
                // No memory for it says nothing of the device.
                (_, Some(_)) => return true,
            },
        };
        let refused = Arc::new(AtomicBool::new(false));
        let told = refused.clone();
        let ((), error) = self.caught(|| {
            buffer.map_async(wgpu::MapMode::Read, .., move |result| told.store(result.is_err(), Ordering::Relaxed));
        });
        if refused.load(Ordering::Relaxed) {
            // A lost device says nothing more, but that a buffer that it made is invalid. An error on an older one says that a poll of
            // another thread ended the mapping of an earlier request only after that was taken back, so that the buffer still counts
            // as mapped: another one is made next time.
            return error.is_some() && !new;
        }
        // This tells the callback of an error, too: too late to count.
        self.caught(|| buffer.unmap());
        *pulse = Some(buffer);
        true
    }

    #[cfg(not(target_arch = "wasm32"))]
    fn pulse(&self) -> wgpu::Buffer {
        self.device().create_buffer(&wgpu::BufferDescriptor {
            label: Some("is the device there?"),
            size: 8,
            usage: wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST,
            mapped_at_creation: false,
        })
    }

    /// A browser tells of a loss through the callback only.
    #[cfg(target_arch = "wasm32")]
    fn alive(&self) -> bool {
        true
    }

    /// Runs calls to wgpu and returns the first error they caused, as one of `what`.
    ///
    /// In a browser errors arrive later, so there the call returns at once and [`Gpu::check`] tells of them.
    ///
    /// # Errors
    /// [`Error::Validation`], [`Error::OutOfMemory`]; [`Error::DeviceLost`] if that is behind them.
    pub fn scoped<T>(&self, what: &str, calls: impl FnOnce() -> T) -> Result<T> {
        match self.caught(calls) {
            (value, None) => Ok(value),
            // What a lost device made without a word is invalid, as its use tells.
            (_, Some(error)) => self.there().and(Err(translate(what, error))),
        }
    }

    /// Runs calls that cannot fail in the caller's eyes; [`Gpu::check`] tells of an error.
    pub(super) fn noted<T>(&self, calls: impl FnOnce() -> T) -> T {
        let (value, error) = self.caught(calls);
        error.into_iter().for_each(|error| self.inner.faults.keep(error));
        value
    }

    /// Runs calls to wgpu; gives the first error they caused, too.
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
