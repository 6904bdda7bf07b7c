//! Several models in the memory of one device: those that are idle make room.

use crate::error::{Error, Result};
use crate::gpu::Gpu;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Models of one device by name, or whatever holds its memory. One that lacks memory releases others that are idle, the one used longest ago
/// first; a model that was released is made again when it is next asked for. A model is idle while only this holds it.
///
/// What a model keeps between uses besides its weights (caches of a conversation, weights that were trained) is lost with it: hold it, or save it.
///
/// ```
/// # use wgformer::{Error, Gpu, Graph, Program, Weights, program::Residents};
/// # fn answers(gpu: &Gpu, make: impl Fn(&str) -> Result<Program, Error>) -> Result<(), Error> {
/// gpu.limit_memory(Some(2 << 30));
/// let models = Residents::new(gpu);
/// for name in ["small", "large", "small"] {
///     let model = models.get(name, || make(name))?;
///     model.run()?;
/// }
/// # Ok(())
/// # }
/// ```
pub struct Residents<T> {
    gpu: Gpu,
    /// In the order of their last use.
    all: Mutex<Vec<(String, Arc<T>)>>,
}

impl<T> fmt::Debug for Residents<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Residents").field("names", &self.names()).finish_non_exhaustive()
    }
}

impl<T> Residents<T> {
    /// None yet.
    #[must_use]
    pub fn new(gpu: &Gpu) -> Self {
        Self { gpu: gpu.clone(), all: Mutex::default() }
    }

    fn all(&self) -> MutexGuard<'_, Vec<(String, Arc<T>)>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The names of those that are there, the one used longest ago first.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        self.all().iter().map(|(name, _)| name.clone()).collect()
    }

    /// The model of a name; where it is not there, `make` makes it, and again for each idle model that it releases for lack of memory. It blocks:
    /// within an async executor use [`Residents::get_async`].
    ///
    /// # Errors
    /// Those of `make`; [`Error::OutOfMemory`] if nothing idle is left; [`Error::DeviceLost`].
    pub fn get(&self, name: &str, make: impl Fn() -> Result<T>) -> Result<Arc<T>> {
        if let Some(known) = self.known(name) {
            return Ok(known);
        }
        loop {
            match make() {
                Ok(made) => return Ok(self.keep(name, made)),
                Err(error) => {
                    self.release_for(error)?;
                    // The memory is free when no work uses it any more.
                    self.gpu.wait(None)?;
                }
            }
        }
    }

    /// The async form of [`Residents::get`].
    ///
    /// # Errors
    /// As [`Residents::get`].
    pub async fn get_async(&self, name: &str, mut make: impl AsyncFnMut() -> Result<T>) -> Result<Arc<T>> {
        if let Some(known) = self.known(name) {
            return Ok(known);
        }
        loop {
            match make().await {
                Ok(made) => return Ok(self.keep(name, made)),
                Err(error) => {
                    self.release_for(error)?;
                    self.gpu.wait_async().await?;
                }
            }
        }
    }

    /// Releases a model; false if it is not there or is in use.
    pub fn release(&self, name: &str) -> bool {
        self.take(|known| known == name).is_some()
    }

    fn known(&self, name: &str) -> Option<Arc<T>> {
        let mut all = self.all();
        let found = all.iter().position(|(known, _)| known == name)?;
        let entry = all.remove(found);
        let model = entry.1.clone();
        all.push(entry);
        Some(model)
    }

    /// Keeps a new model, unless another thread was faster.
    fn keep(&self, name: &str, made: T) -> Arc<T> {
        self.known(name).unwrap_or_else(|| {
            let made = Arc::new(made);
            self.all().push((name.to_owned(), made.clone()));
            made
        })
    }

    /// Takes the idle model out that was used longest ago among those of such names.
    fn take(&self, of: impl Fn(&str) -> bool) -> Option<Arc<T>> {
        let mut all = self.all();
        let found = all.iter().position(|(name, model)| of(name) && Arc::strong_count(model) == 1)?;
        Some(all.remove(found).1)
    }

    /// Releases an idle model after an error for lack of memory; other errors stay errors.
    fn release_for(&self, error: Error) -> Result<()> {
        match error {
            Error::OutOfMemory { .. } if self.take(|_| true).is_some() => Ok(()),
            other => Err(other),
        }
    }
}
