//! Futures for callbacks of wgpu, with a waker and without a busy loop.

use super::{Gpu, Polling};
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::task::{Context, Poll, Waker};
use std::thread::JoinHandle;
use std::time::Duration;
use web_time::Instant;

/// How a wait for a callback ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// The callback came with success.
    Done,
    /// The callback came with an error, or the device was lost.
    Failed,
    /// The callback will never come: its encoder was never submitted, or the waiter is gone.
    Abandoned,
}

/// The outcome of a callback, shared with the waiting side.
#[derive(Debug, Default)]
pub(super) struct Signal {
    state: Mutex<(Option<Outcome>, Option<Waker>)>,
}

impl Signal {
    pub(super) fn outcome(&self) -> Option<Outcome> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).0
    }

    /// Sets the outcome, unless there is one, and wakes the waiting task.
    pub(super) fn settle(&self, outcome: Outcome) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.0.get_or_insert(outcome);
        let waker = state.1.take();
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Registers a waker; returns the outcome if there is one already.
    fn arm(&self, waker: &Waker) -> Option<Outcome> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.1 = Some(waker.clone());
        state.0
    }
}

/// Lives in wgpu's callback. If the callback is dropped uncalled, the signal is abandoned.
pub(super) struct CallbackGuard(Arc<Signal>);

impl CallbackGuard {
    pub(super) fn new(signal: &Arc<Signal>) -> Self {
        Self(signal.clone())
    }

    pub(super) fn complete(&self, success: bool) {
        self.0.settle(if success { Outcome::Done } else { Outcome::Failed });
    }
}

impl Drop for CallbackGuard {
    fn drop(&mut self) {
        self.0.settle(Outcome::Abandoned);
    }
}

/// The future of a signal. The device must be polled for callbacks to run: by the application if the options say so, else by a thread of
/// the `Gpu`, which polls while signals are pending and sleeps otherwise.
#[derive(Debug)]
pub(super) struct SignalFuture {
    gpu: Gpu,
    signal: Arc<Signal>,
    watched: bool,
}

impl SignalFuture {
    pub(super) fn new(gpu: &Gpu, signal: &Arc<Signal>) -> Self {
        Self { gpu: gpu.clone(), signal: signal.clone(), watched: false }
    }
}

impl Future for SignalFuture {
    type Output = Outcome;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Outcome> {
        let by_application = self.gpu.inner.polling == Polling::Application;
        let poll = || if by_application { self.gpu.inner.faults.known() } else { self.gpu.poll().map(drop) };
        if self.signal.outcome().is_none() && poll().is_err() {
            self.signal.settle(Outcome::Failed);
        }
        if let Some(outcome) = self.signal.arm(context.waker()) {
            return Poll::Ready(outcome);
        }
        if by_application {
            return Poll::Pending;
        }
        self.watched = self.watched || self.gpu.watch(&self.signal);
        if !self.watched {
            // No thread could be started: wake the executor at once, so that it polls again.
            context.waker().wake_by_ref();
        }
        Poll::Pending
    }
}

/// The thread that polls for futures, and its channel.
#[derive(Debug)]
pub(super) struct Watcher {
    sender: Option<mpsc::Sender<Arc<Signal>>>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Watcher {
    /// Ends the thread and waits for it, so that it is not in the driver while the process exits. The wait is bounded in case the thread is
    /// stuck, and skipped in the thread itself.
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

/// A browser runs callbacks by itself.
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

    /// One wait of the watching thread: short, because it keeps other threads from freeing resources.
    const SLICE: Duration = Duration::from_millis(1);

    impl Gpu {
        /// Has the watching thread poll until the signal is settled; false if there is no thread.
        pub(super) fn watch(&self, signal: &Arc<Signal>) -> bool {
            let watcher = self.inner.watcher.get_or_init(|| {
                let (sender, receiver) = mpsc::channel();
                let (device, faults) = (self.device().clone(), self.inner.faults.clone());
                let quirks = self.caps().quirks.clone();
                let builder = std::thread::Builder::new().name("wgformer signals".into());
                // If no thread can be started, the receiver is dropped and the send below fails.
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
