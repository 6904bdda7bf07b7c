//! The thread that owns the scheduler and the embedder: it waits for the GPU, so that nothing else does.

use super::fault::Fault;
use super::metrics::Metrics;
use crate::error::{Error, Result, panic_words};
use crate::generate::{Finish, RequestId, RequestToken, SamplingOptions, Scheduler, SchedulerEvent};
use crate::tasks::apply::TextEmbedder;
use std::collections::{HashMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

/// Texts that are embedded between two steps of the scheduler.
const TEXTS: usize = 16;

/// A prompt that is to be answered.
#[derive(Clone, Debug)]
pub(super) struct Prompt {
    pub(super) ids: Vec<u32>,
    pub(super) options: SamplingOptions,
}

/// What a client hears of its answers.
#[derive(Debug)]
pub(super) enum Update {
    Token { choice: usize, text: String, finish: Option<Finish> },
    Failed(Fault),
}

enum Command {
    Answer {
        prompts: Vec<Prompt>,
        updates: UnboundedSender<Update>,
        accepted: oneshot::Sender<std::result::Result<(), Fault>>,
        places: OwnedSemaphorePermit,
    },
    Embed(Embedding),
}

struct Embedding {
    texts: Vec<String>,
    vectors: Vec<Vec<f32>>,
    done: oneshot::Sender<std::result::Result<Vec<Vec<f32>>, Fault>>,
    _place: OwnedSemaphorePermit,
}

/// A request in the scheduler. Its client may go away, which is seen at the next step, and cannot hold up the others: updates pile up, at most
/// as many as the answer has tokens.
struct Running {
    choice: usize,
    updates: UnboundedSender<Update>,
    _place: Option<OwnedSemaphorePermit>,
}

/// What tasks of the server hold of the worker.
#[derive(Debug)]
pub(super) struct Engine {
    commands: Sender<Command>,
    places: Arc<Semaphore>,
}

impl Engine {
    /// Starts a worker that takes so many requests; the other end says how it ended.
    pub(super) fn start(
        scheduler: Option<Scheduler>,
        embedder: Option<TextEmbedder>,
        metrics: Arc<Metrics>,
        places: usize,
    ) -> Result<(Self, JoinHandle<()>, oneshot::Receiver<Error>)> {
        let (commands, received) = channel();
        let (failed, failure) = oneshot::channel();
        let mut worker = Worker { scheduler, embedder, metrics, running: HashMap::new(), embeddings: VecDeque::new() };
        worker.publish();
        let work = move || {
            if let Err(error) = worker.work(&received) {
                // What is sent from now on is refused, before what was taken hears of it.
                drop(received);
                worker.give_up();
                let _ = failed.send(error);
            }
        };
        let thread = std::thread::Builder::new().name("wgformer serve".into()).spawn(work);
        let thread = thread.map_err(|e| Error::input("threads", format!("the system gives no more: {e}")))?;
        let places = Arc::new(Semaphore::new(places.min(Semaphore::MAX_PERMITS)));
        Ok((Self { commands, places }, thread, failure))
    }

    /// Has prompts answered. Dropping what is returned cancels them.
    pub(super) async fn answer(&self, prompts: Vec<Prompt>) -> std::result::Result<UnboundedReceiver<Update>, Fault> {
        let places = self.places(prompts.len())?;
        let (updates, received) = unbounded_channel();
        let (accepted, answer) = oneshot::channel();
        self.send(Command::Answer { prompts, updates, accepted, places })?;
        answer.await.map_err(|_| Fault::unavailable())??;
        Ok(received)
    }

    /// The vectors of texts.
    pub(super) async fn embed(&self, texts: Vec<String>) -> std::result::Result<Vec<Vec<f32>>, Fault> {
        let place = self.places(1)?;
        let (done, vectors) = oneshot::channel();
        self.send(Command::Embed(Embedding { texts, vectors: Vec::new(), done, _place: place }))?;
        vectors.await.map_err(|_| Fault::unavailable())?
    }

    fn places(&self, count: usize) -> std::result::Result<OwnedSemaphorePermit, Fault> {
        let count = u32::try_from(count).map_err(|_| Fault::busy())?;
        self.places.clone().try_acquire_many_owned(count).map_err(|_| Fault::busy())
    }

    fn send(&self, command: Command) -> std::result::Result<(), Fault> {
        self.commands.send(command).map_err(|_| Fault::unavailable())
    }
}

struct Worker {
    scheduler: Option<Scheduler>,
    embedder: Option<TextEmbedder>,
    metrics: Arc<Metrics>,
    running: HashMap<RequestId, Running>,
    embeddings: VecDeque<Embedding>,
}

impl Worker {
    /// Works until nobody is left who could ask for something. An error is one of the engine, not of a request.
    fn work(&mut self, commands: &Receiver<Command>) -> Result<()> {
        loop {
            if self.embeddings.is_empty() && self.scheduler.as_ref().is_none_or(Scheduler::is_idle) {
                match commands.recv() {
                    Ok(command) => self.take(command),
                    Err(_) => return Ok(()),
                }
            }
            while let Ok(command) = commands.try_recv() {
                self.take(command);
            }
            self.cancel_abandoned();
            self.embed()?;
            self.step()?;
        }
    }

    fn take(&mut self, command: Command) {
        match command {
            Command::Embed(embedding) => self.embeddings.push_back(embedding),
            Command::Answer { prompts, updates, accepted, places } if !updates.is_closed() => {
                let taken = self.submit(&prompts, &updates, places);
                let _ = accepted.send(taken.map_err(Fault::from));
                self.publish();
            }
            Command::Answer { .. } => (),
        }
    }

    /// All prompts, or none.
    fn submit(
        &mut self,
        prompts: &[Prompt],
        updates: &UnboundedSender<Update>,
        mut places: OwnedSemaphorePermit,
    ) -> Result<()> {
        let Some(scheduler) = &mut self.scheduler else { return Err(Error::input("model", "it answers no prompts")) };
        let mut taken = Vec::new();
        for (choice, prompt) in prompts.iter().enumerate() {
            match guarded(|| scheduler.submit(&prompt.ids, &prompt.options)) {
                Ok(request) => {
                    taken.push(request);
                    let running = Running { choice, updates: updates.clone(), _place: places.split(1) };
                    self.running.insert(request, running);
                }
                Err(error) => {
                    for request in taken {
                        scheduler.cancel(request);
                        self.running.remove(&request);
                    }
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    /// Ends the requests whose clients went away.
    fn cancel_abandoned(&mut self) {
        self.embeddings.retain(|embedding| !embedding.done.is_closed());
        let Some(scheduler) = &mut self.scheduler else { return };
        let before = self.running.len();
        self.running.retain(|request, running| {
            let abandoned = running.updates.is_closed();
            if abandoned && scheduler.cancel(*request) {
                self.metrics.cancelled.fetch_add(1, Ordering::Relaxed);
            }
            !abandoned
        });
        if self.running.len() < before {
            self.publish();
        }
    }

    /// Some texts of the first that wait, so that answers go on in between.
    fn embed(&mut self) -> Result<()> {
        let (Some(embedder), Some(embedding)) = (&mut self.embedder, self.embeddings.front_mut()) else {
            self.embeddings.clear();
            return Ok(());
        };
        let done = embedding.vectors.len();
        let texts: Vec<&str> = embedding.texts.iter().skip(done).take(TEXTS).map(String::as_str).collect();
        let made = guarded(|| embedder.embed(&texts, &mut |_| ()));
        let lost = matches!(made, Err(Error::DeviceLost { .. }));
        let result = match made {
            Ok(vectors) => {
                embedding.vectors.extend(vectors);
                if embedding.vectors.len() < embedding.texts.len() {
                    return Ok(());
                }
                Ok(std::mem::take(&mut embedding.vectors))
            }
            Err(error) if lost => return Err(error),
            Err(error) => Err(Fault::from(error)),
        };
        if let Some(embedding) = self.embeddings.pop_front() {
            let _ = embedding.done.send(result);
        }
        Ok(())
    }

    fn step(&mut self) -> Result<()> {
        let Some(scheduler) = self.scheduler.as_mut().filter(|scheduler| !scheduler.is_idle()) else { return Ok(()) };
        let events = guarded(|| scheduler.step())?;
        // Who hears of an answer's end finds it counted.
        self.publish();
        for event in events {
            let request = match &event {
                SchedulerEvent::Token(token) => token.request,
                SchedulerEvent::Failed { request, .. } => *request,
            };
            let Some(Running { choice, updates, .. }) = self.running.get(&request) else { continue };
            let (update, last) = match event {
                SchedulerEvent::Token(RequestToken { text, finish, .. }) => {
                    (Update::Token { choice: *choice, text, finish }, finish.is_some())
                }
                SchedulerEvent::Failed { error, .. } => (Update::Failed(Fault::from(error)), true),
            };
            // A client that went away is seen before the next step.
            let _ = updates.send(update);
            if last {
                self.running.remove(&request);
            }
        }
        Ok(())
    }

    fn publish(&self) {
        if let Some(scheduler) = &self.scheduler {
            *self.metrics.scheduler.lock() = Some(scheduler.stats());
        }
    }

    /// Tells all that the engine is gone.
    fn give_up(&mut self) {
        for (_, running) in self.running.drain() {
            let _ = running.updates.send(Update::Failed(Fault::unavailable()));
        }
        for embedding in self.embeddings.drain(..) {
            let _ = embedding.done.send(Err(Fault::unavailable()));
        }
    }
}

/// A call into the engine; a panic is an error.
fn guarded<T>(call: impl FnOnce() -> Result<T>) -> Result<T> {
    catch_unwind(AssertUnwindSafe(call)).unwrap_or_else(|panic| {
        Err(Error::Graph(format!("the engine failed, which is a defect of it: {}", panic_words(&*panic))))
    })
}
