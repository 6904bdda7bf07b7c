//! An answer, token by token: a thread of its own generates, Python waits for what it sends.

use crate::errors::{raised, words};
use pyo3::prelude::*;
use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{JoinHandle, spawn};
use std::time::Duration;
use wgformer::generate::{Finish, Token};
use wgformer::{Error, Result};
use wgformer_bindings::{GenerateOptions, Shared};

/// How often signals are heard while nothing comes.
const LISTEN: Duration = Duration::from_millis(50);

/// An answer that goes on while Python looks elsewhere.
#[pyclass(frozen, module = "wgformer._wgformer")]
pub(crate) struct Stream {
    /// None: it has ended.
    tokens: Mutex<Option<Receiver<Result<Token>>>>,
    stop: Arc<AtomicBool>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Stream {
    pub(crate) fn start(shared: Shared, prompt: Vec<u32>, options: GenerateOptions) -> Self {
        let (sender, receiver) = channel();
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = spawn(move || generate(&shared, prompt, &options, &stopped, &sender));
        Self { tokens: Mutex::new(Some(receiver)), stop, thread: Mutex::new(Some(thread)) }
    }

    fn end(&self) {
        self.stop.store(true, Ordering::Relaxed);
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        // Panics were caught within.
        drop(thread.map(JoinHandle::join));
    }
}

fn generate(
    shared: &Shared,
    prompt: Vec<u32>,
    options: &GenerateOptions,
    stop: &AtomicBool,
    sender: &Sender<Result<Token>>,
) {
    let mut watch = |token: &Token| {
        let gone = sender.send(Ok(token.clone())).is_err();
        if gone || stop.load(Ordering::Relaxed) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    let work = || shared.lock()?.generate(&[prompt], options, &mut watch);
    let done = catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| Err(Error::Graph(words(panic.as_ref()))));
    if let Err(error) = done {
        // Nobody may be there to hear of it.
        let _ = sender.send(Err(error));
    }
}

#[pymethods]
impl Stream {
    /// Token, text and end (or none) of the next token; `None` behind the last.
    fn next(&self, py: Python<'_>) -> PyResult<Option<(u32, String, Option<&'static str>)>> {
        loop {
            let received = py.detach(|| {
                let mut tokens = self.tokens.lock().unwrap_or_else(PoisonError::into_inner);
                let received = tokens.as_ref().map_or(Err(RecvTimeoutError::Disconnected), |r| r.recv_timeout(LISTEN));
                if matches!(received, Err(RecvTimeoutError::Disconnected) | Ok(Err(_))) {
                    *tokens = None;
                }
                received
            });
            match received {
                Ok(Ok(token)) => return Ok(Some((token.id, token.text, token.finish.map(Finish::name)))),
                Ok(Err(error)) => return Err(raised(py, &error)),
                Err(RecvTimeoutError::Disconnected) => return Ok(None),
                Err(RecvTimeoutError::Timeout) => py.check_signals()?,
            }
        }
    }

    /// Ends the answer, and waits until the model is free.
    fn close(&self, py: Python<'_>) {
        py.detach(|| self.end());
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.end();
    }
}
