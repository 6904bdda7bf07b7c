//! Waiting for a callback of wgpu, with a waker and without a busy loop.

use super::{Gpu, Polling};
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::task::{Context, Poll, Waker};
use std::thread::JoinHandle;
use std::time::Duration;
use web_time::Instant;

/// How it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// The callback came, with success.
    Done,
    /// The callback came with an error, or the device was lost.
    Failed,
    /// The callback will never come: what it belongs to was never submitted, or nobody waits any more.
    Abandoned,
}

/// Where a callback leaves its word for the waiting side.
#[derive(Debug, Default)]
pub(super) struct Signal {
    state: Mutex<(Option<Outcome>, Option<Waker>)>,
}

impl Signal {
    pub(super) fn outcome(&self) -> Option<Outcome> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).0
    }

    /// Notes an outcome, unless there is one, and wakes who waits.
    pub(super) fn settle(&self, outcome: Outcome) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.0.get_or_insert(outcome);
        let waker = state.1.take();
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Registers a waker; the outcome, if there is one already.
    fn arm(&self, waker: &Waker) -> Option<Outcome> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.1 = Some(waker.clone());
        state.0
    }
}

/// Lives in wgpu's callback; if that is dropped uncalled, it will never come.
pub(super) struct Landing(Arc<Signal>);

impl Landing {
    pub(super) fn new(signal: &Arc<Signal>) -> Self {
        Self(signal.clone())
    }

    pub(super) fn landed(&self, success: bool) {
        self.0.settle(if success { Outcome::Done } else { Outcome::Failed });
    }
}

impl Drop for Landing {
    fn drop(&mut self) {
        self.0.settle(Outcome::Abandoned);
    }
}

/// The future of a signal. Somebody must poll the device for callbacks to come: the application, if it said so, else a thread of the
/// `Gpu`, which does it while it waits for signals, and sleeps otherwise.
#[derive(Debug)]
pub(super) struct Arrival {
    gpu: Gpu,
    signal: Arc<Signal>,
    watched: bool,
}

impl Arrival {
    pub(super) fn new(gpu: &Gpu, signal: &Arc<Signal>) -> Self {
        Self { gpu: gpu.clone(), signal: signal.clone(), watched: false }
    }
}

impl Future for Arrival {
    type Output = Outcome;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Outcome> {
        let theirs = self.gpu.inner.polling == Polling::Application;
        let poll = || if theirs { self.gpu.inner.faults.known() } else { self.gpu.poll().map(drop) };
        if self.signal.outcome().is_none() && poll().is_err() {
            self.signal.settle(Outcome::Failed);
        }
        if let Some(outcome) = self.signal.arm(context.waker()) {
            return Poll::Ready(outcome);
        }
        if theirs {
            return Poll::Pending;
        }
        self.watched = self.watched || self.gpu.watch(&self.signal);
        if !self.watched {
            // No thread to be had: the executor comes back at once, and every visit polls.
            context.waker().wake_by_ref();
        }
        Poll::Pending
    }
}

/// The thread that polls for futures, and the way to it.
#[derive(Debug)]
pub(super) struct Watcher {
    sender: Option<mpsc::Sender<Arc<Signal>>>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Watcher {
    /// Lets the thread end, and waits for that: a driver must not be taken down by it while the process exits. Not for long, should it
    /// be stuck, and not in the thread itself.
    fn drop(&mut self) {
        self.sender = None;
        let start = Instant::now();
        if let Some(thread) = self.thread.take().filter(|t| t.thread().id() != std::thread::current().id()) {
            while !thread.is_finished() && start.elapsed() < Duration::from_secs(1) {
                std::thread::sleep(Duration::from_micros(100));
            }
        }
    }
}

/// A browser calls back by itself.
#[cfg(target_arch = "wasm32")]
impl Gpu {
    fn watch(&self, _signal: &Arc<Signal>) -> bool {
        true
    }
}

#[cfg(not(target_arch = "wasm32"))]
mod watcher {
    use super::{Gpu, Outcome, Signal, Watcher};
    use crate::gpu::fault::Faults;
    use crate::gpu::wait::{Polled, Wait};
    use crate::software::Quirks;
    use std::sync::{Arc, mpsc};
    use std::time::Duration;

    /// One wait of the watching thread: short, because it keeps others from freeing resources.
    const SLICE: Duration = Duration::from_millis(1);

    impl Gpu {
        /// Has the watching thread poll until the signal is settled; false if there is no such thread.
        pub(super) fn watch(&self, signal: &Arc<Signal>) -> bool {
            let watcher = self.inner.watcher.get_or_init(|| {
                let (sender, receiver) = mpsc::channel();
                let (device, faults) = (self.device().clone(), self.inner.faults.clone());
                let quirks = self.caps().quirks.clone();
                let builder = std::thread::Builder::new().name("wgformer signals".into());
                // If no thread can be had, the receiver is dropped, and the send below fails.
                let thread = builder.spawn(move || watch(&device, &faults, &quirks, &receiver)).ok();
                Watcher { sender: Some(sender), thread }
            });
            watcher.sender.as_ref().is_some_and(|sender| sender.send(signal.clone()).is_ok())
        }
    }

    /// The body of the thread; it ends with the `Gpu`, which holds the sender.
    fn watch(device: &wgpu::Device, faults: &Faults, quirks: &Quirks, receiver: &mpsc::Receiver<Arc<Signal>>) {
        while let Ok(first) = receiver.recv() {
            let mut waiting = vec![first];
            let wait = Wait::new(quirks, SLICE);
            while !waiting.is_empty() {
                waiting.extend(receiver.try_iter());
                match wait.slice(device, faults, None) {
                    Ok(polled) => {
                        waiting.retain(|signal| signal.outcome().is_none());
                        if polled != Polled::Busy && !waiting.is_empty() {
                            // Their encoders are not submitted yet.
                            std::thread::sleep(SLICE);
                        }
                    }
                    Err(_) => waiting.drain(..).for_each(|signal| signal.settle(Outcome::Failed)),
                }
            }
        }
    }
}
