//! The memory that stores of weights and programs hold, and the application's limit of it.

use super::Gpu;
use crate::error::{Error, Result, human_bytes};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// The bytes held on a device, and the most that may be.
#[derive(Debug)]
pub(super) struct Account {
    held: AtomicU64,
    most: AtomicU64,
}

impl Default for Account {
    fn default() -> Self {
        Self { held: AtomicU64::new(0), most: AtomicU64::new(u64::MAX) }
    }
}

/// A part of the memory; dropping it gives it back.
#[derive(Debug)]
pub(crate) struct Held {
    account: Arc<Account>,
    bytes: u64,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.account.held.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

impl Gpu {
    /// The bytes of GPU memory that stores of weights and programs of this `Gpu` hold: weights, states, temporaries, inputs, constants and textures. What
    /// [`Gpu::buffer`] made for the application, its own buffers, and the few megabytes through which uploads and readbacks go are not counted.
    #[must_use]
    pub fn memory_held(&self) -> u64 {
        self.inner.account.held.load(Ordering::Relaxed)
    }

    /// Limits [`Gpu::memory_held`] from now on: what would go beyond it is [`Error::OutOfMemory`], and what is there stays. `None` is no limit.
    /// [`crate::program::Residents`] releases models that are idle to stay within it.
    pub fn limit_memory(&self, bytes: Option<u64>) {
        self.inner.account.most.store(bytes.unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// Takes a part of the memory.
    pub(crate) fn hold(&self, what: &str, bytes: u64) -> Result<Arc<Held>> {
        let account = &self.inner.account;
        let most = account.most.load(Ordering::Relaxed);
        let more = |held: u64| held.checked_add(bytes).filter(|held| *held <= most || most == u64::MAX);
        match account.held.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more) {
            Ok(_) => Ok(Arc::new(Held { account: account.clone(), bytes })),
            Err(held) => Err(Error::OutOfMemory {
                what: what.into(),
                needed: human_bytes(bytes),
                available: format!(
                    "{} more of its limit of {}",
                    human_bytes(most.saturating_sub(held)),
                    human_bytes(most)
                ),
                hint: "Release models that are idle, or raise the limit (Gpu::limit_memory)".into(),
            }),
        }
    }
}
