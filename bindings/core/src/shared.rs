//! A model that several threads use, one call at a time.

use crate::session::Session;
use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use wgformer::{Error, Result};

thread_local! {
    /// Its address is the thread's number.
    static THREAD: u8 = const { 0 };
}

/// A model that several threads use, one call at a time: the others wait.
#[derive(Clone)]
pub struct Shared(Arc<Inner>);

struct Inner {
    session: Mutex<Session>,
    /// The thread that uses it; 0: none.
    user: AtomicUsize,
}

/// The model, until it is dropped.
pub struct Guard<'a> {
    session: MutexGuard<'a, Session>,
    user: &'a AtomicUsize,
}

fn thread() -> usize {
    THREAD.with(|number| std::ptr::from_ref(number).addr())
}

impl Shared {
    /// Shares a model.
    #[must_use]
    pub fn new(session: Session) -> Self {
        Self(Arc::new(Inner { session: Mutex::new(session), user: AtomicUsize::new(0) }))
    }

    /// Waits until no other thread uses the model.
    ///
    /// # Errors
    /// [`Error::Input`] if this thread uses it already, as in a callback, or a call before ended by a defect of the engine.
    pub fn lock(&self) -> Result<Guard<'_>> {
        let Inner { session, user } = self.0.as_ref();
        if user.load(Ordering::Acquire) == thread() {
            let message =
                "this thread uses it already: what is called during an answer cannot use the model that answers";
            return Err(Error::input("model", message));
        }
        let broken = |_| Error::input("model", "a call before ended by a defect of the engine: load the model again");
        let session = session.lock().map_err(broken)?;
        user.store(thread(), Ordering::Release);
        Ok(Guard { session, user })
    }
}

impl Drop for Guard<'_> {
    fn drop(&mut self) {
        self.user.store(0, Ordering::Release);
    }
}

impl Deref for Guard<'_> {
    type Target = Session;

    fn deref(&self) -> &Session {
        &self.session
    }
}

impl DerefMut for Guard<'_> {
    fn deref_mut(&mut self) -> &mut Session {
        &mut self.session
    }
}
