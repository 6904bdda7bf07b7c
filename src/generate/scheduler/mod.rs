//! Continuous batching: requests of different lengths join and leave at every token.

mod limits;
mod pages;
mod programs;

use super::generator::check_model;
use super::row::Row;
use super::sampling::SamplingOptions;
use super::session::{Finish, Room};
use crate::error::{Error, Result};
use crate::gpu::{Gpu, Readback};
use crate::io::TextOf;
use crate::models::Decoder;
use crate::ops::LogitEdit;
use crate::program::Weights;
pub use limits::{SchedulerLimits, SchedulerStats};
use pages::{Held, Pages};
use programs::{Programs, Reading};
use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;

/// The number of a request to a [`Scheduler`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(u64);

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A generated token of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RequestToken {
    /// The request.
    pub request: RequestId,
    /// The token.
    pub id: u32,
    /// The text that became certain with it, if the scheduler decodes text: see [`super::Token::text`].
    pub text: String,
    /// Set on the last token of an answer.
    pub finish: Option<Finish>,
}

/// What a step of a [`Scheduler`] brought.
#[derive(Debug)]
#[non_exhaustive]
pub enum SchedulerEvent {
    /// A token.
    Token(RequestToken),
    /// A request has ended without an answer.
    Failed {
        /// The request.
        request: RequestId,
        /// Why.
        error: Error,
    },
}

/// A decoder that answers many requests at once, over one cache of keys and values.
///
/// A step reads a piece of one prompt and adds a token to every request whose prompt has been read, so a request begins when it comes, not when
/// a batch ends, and a long prompt holds nobody up for longer than a piece. The cache is cut into pages of [`SchedulerLimits::PAGE`] positions,
/// of which a request holds what its tokens need; prompts that begin alike share pages, and what has been computed of a prompt is kept for later
/// ones until the room is needed. If pages run out, the youngest request gives its own up and is read again later. Answers do not depend on
/// other requests, up to rounding (1e-5 of the largest logit). Kwon et al., "PagedAttention", 2023 (arXiv 2309.06180); Yu et al., "Orca", 2022.
///
/// Models with an encoder, with recursions, or with rotary positions that change as a text grows are for [`super::Generator`].
pub struct Scheduler {
    programs: Programs,
    pages: Pages,
    limits: SchedulerLimits,
    room: Room,
    text: Option<TextOf>,
    queue: VecDeque<Request>,
    running: Vec<Request>,
    stats: SchedulerStats,
    next: u64,
}

/// A request that waits or is being answered.
#[derive(Debug)]
struct Request {
    id: RequestId,
    row: Row,
    options: SamplingOptions,
    held: Held,
    /// How its next token is chosen, once that has been asked: a step that was dropped asks no second time.
    asked: Option<(Vec<LogitEdit>, [u32; 5])>,
    /// Tokens whose keys and values are in the pages.
    computed: usize,
}

impl Request {
    /// Tokens that have not been read.
    fn unread(&self) -> usize {
        self.row.tokens.len() - self.computed
    }
}

/// A step that was submitted: the requests that get a token, and those that have read a piece.
#[derive(Debug)]
struct Submitted {
    tokens: Vec<(Vec<RequestId>, Readback)>,
    read: Vec<(RequestId, usize)>,
    failed: Vec<SchedulerEvent>,
}

impl fmt::Debug for Scheduler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scheduler").field("limits", &self.limits).field("stats", &self.stats()).finish_non_exhaustive()
    }
}

impl Scheduler {
    /// Prepares a decoder. The cache belongs to this scheduler, in the type that the store says ([`Weights::with_cache`]); the weights are shared.
    ///
    /// # Errors
    /// [`Error::Input`] if a limit is out of range, the store lacks a weight, or the model is not for a scheduler.
    pub fn new(gpu: &Gpu, model: Arc<dyn Decoder>, weights: &Weights, limits: SchedulerLimits) -> Result<Self> {
        limits.check(model.dimensions().max_position)?;
        if model.encoder().is_some() {
            return Err(Error::input("model", "it has an encoder: a Generator answers its prompts"));
        }
        if let Some(trained) = check_model(model.as_ref(), weights, limits.max_tokens)?.first() {
            let message = format!(
                "it is {}, but positions of this model change beyond {trained} tokens: lower it to that, or use a Generator",
                limits.max_tokens
            );
            return Err(Error::input("max_tokens", message));
        }
        let dimensions = model.dimensions();
        let room = Room {
            vocabulary: dimensions.vocabulary,
            max_tokens: limits.max_tokens,
            positions: dimensions.max_position,
            answer_apart: false,
        };
        Ok(Self {
            programs: Programs::new(gpu, model, weights, limits)?,
            pages: Pages::new(limits.pages(), SchedulerLimits::PAGE),
            limits,
            room,
            text: None,
            queue: VecDeque::new(),
            running: Vec::new(),
            stats: SchedulerStats { pages: limits.pages(), ..Default::default() },
            next: 1,
        })
    }

    /// Sets the decoding of tokens to text, for stop texts and [`RequestToken::text`].
    #[must_use]
    pub fn with_text(mut self, text: TextOf) -> Self {
        self.text = Some(text);
        self
    }

    /// The limits.
    #[must_use]
    pub fn limits(&self) -> SchedulerLimits {
        self.limits
    }

    /// Prepares the programs for plain sampling now, so that the first requests do not wait for them.
    ///
    /// # Errors
    /// Those of the model; [`Error::OutOfMemory`].
    pub fn prepare(&mut self) -> Result<()> {
        self.programs.prepare(1, self.limits.piece)?;
        let rows = (0..).map(|power| 1 << power).take_while(|rows| *rows < 2 * self.limits.requests);
        rows.into_iter().try_for_each(|rows: usize| self.programs.prepare(rows, 1))
    }

    /// Takes a request, which waits for its turn.
    ///
    /// # Errors
    /// [`Error::Input`] if it could never be answered: the prompt is empty, too long or has unknown tokens, or an option is out of range.
    pub fn submit(&mut self, prompt: &[u32], options: &SamplingOptions) -> Result<RequestId> {
        options.validate()?;
        if !options.stop.is_empty() && self.text.is_none() {
            return Err(Error::input("stop", "stop texts need a scheduler that decodes text (with_text)"));
        }
        self.room.check(prompt).map_err(|message| Error::input("prompt", message))?;
        if options.max_new_tokens == 0 {
            return Err(Error::input("max_new_tokens", "it is 0: a request makes at least one token"));
        }
        let id = RequestId(self.next);
        self.next += 1;
        let row = Row::new(Vec::new(), prompt.to_vec(), options, 0, self.text.clone())?;
        let (held, options) = (Held::default(), options.clone());
        self.queue.push_back(Request { id, row, options, held, asked: None, computed: 0 });
        Ok(id)
    }

    /// Ends a request; returns whether there was one of this number.
    pub fn cancel(&mut self, request: RequestId) -> bool {
        let waiting = self.queue.iter().position(|other| other.id == request);
        let found = waiting.and_then(|at| self.queue.remove(at)).is_some();
        found || self.end(request)
    }

    /// Whether there is nothing to do.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.queue.is_empty() && self.running.is_empty()
    }

    /// What it has done and has to do.
    #[must_use]
    pub fn stats(&self) -> SchedulerStats {
        let (queued, running, pages_held) = (self.queue.len(), self.running.len(), self.pages.held());
        SchedulerStats { queued, running, pages_held, ..self.stats }
    }

    /// One step: a piece of a prompt, and a token for each request whose prompt has been read. It blocks on the device: within an async executor
    /// use [`Scheduler::step_async`]. Nothing comes of it if there is nothing to do.
    ///
    /// # Errors
    /// [`Error::DeviceLost`]; [`Error::OutOfMemory`]. What concerns one request is an event.
    pub fn step(&mut self) -> Result<Vec<SchedulerEvent>> {
        let mut step = pollster::block_on(self.begin(false))?;
        let mut drawn = Vec::new();
        for (ids, readback) in step.tokens.drain(..) {
            drawn.push((ids, readback.wait()?));
        }
        self.finish(step, drawn)
    }

    /// The same for an executor, in frames if the application draws them ([`Gpu::begin_frame`]). What is dropped before its end is done again by the next step.
    ///
    /// # Errors
    /// Those of [`Scheduler::step`].
    pub async fn step_async(&mut self) -> Result<Vec<SchedulerEvent>> {
        let mut step = self.begin(true).await?;
        let mut drawn = Vec::new();
        for (ids, readback) in step.tokens.drain(..) {
            drawn.push((ids, readback.await?));
        }
        self.finish(step, drawn)
    }

    /// Submits the runs of a step, in an application's frames if so told, else without waiting.
    async fn begin(&mut self, in_frames: bool) -> Result<Submitted> {
        self.admit();
        let piece = self.limits.piece;
        let reader = self.running.iter().find(|request| request.unread() > 1).map(|request| request.id);
        let planned = |request: &Request| match request.unread() {
            1 => 1,
            unread if Some(request.id) == reader => unread.min(piece),
            _ => 0,
        };
        self.make_room(planned);
        let mut step = Submitted { tokens: Vec::new(), read: Vec::new(), failed: Vec::new() };
        // Requests that add a token, and the one that reads.
        for reads in [false, true] {
            let mut chosen = Vec::new();
            let mut rows = Vec::new();
            for request in &mut self.running {
                let count = planned(request);
                if count == 0 || (Some(request.id) == reader) != reads {
                    continue;
                }
                let last = count == request.unread();
                if last && request.asked.is_none() {
                    match request.row.ask(&request.options, self.room.vocabulary) {
                        Ok(asked) => request.asked = Some(asked),
                        Err(error) => {
                            step.failed.push(SchedulerEvent::Failed { request: request.id, error });
                            continue;
                        }
                    }
                }
                let (edits, choice) = match &request.asked {
                    Some((edits, choice)) if last => (&edits[..], *choice),
                    _ => (&[][..], [0; 5]),
                };
                step.read.push((request.id, count));
                chosen.push((request.id, last));
                rows.push(Reading {
                    tokens: &request.row.tokens[request.computed..][..count],
                    position: request.computed,
                    pages: &request.held.pages,
                    edits,
                    choice,
                });
            }
            if rows.is_empty() {
                continue;
            }
            let readback = self.programs.run(&rows, in_frames).await?;
            self.stats.runs += 1;
            // Nothing is asked of a piece that is not the last.
            if chosen.iter().any(|(_, last)| *last) {
                step.tokens.push((chosen.into_iter().map(|(id, _)| id).collect(), readback));
            }
        }
        Ok(step)
    }

    /// Takes in what a step gave.
    fn finish(&mut self, step: Submitted, drawn: Vec<(Vec<RequestId>, Vec<u8>)>) -> Result<Vec<SchedulerEvent>> {
        let mut events = step.failed;
        for (id, count) in step.read {
            let Some(request) = self.running.iter_mut().find(|request| request.id == id) else { continue };
            let of_prompt = |tokens: usize| tokens.min(request.row.prompt) as u64;
            self.stats.prompt_tokens += of_prompt(request.computed + count) - of_prompt(request.computed);
            request.computed += count;
            self.pages.remember(&mut request.held, &request.row.tokens, request.computed);
        }
        for (ids, bytes) in drawn {
            let tokens: Vec<u32> = bytemuck::pod_collect_to_vec(&bytes);
            for (id, drawn) in ids.into_iter().zip(tokens) {
                let Some(request) = self.running.iter_mut().find(|request| request.id == id) else { continue };
                request.asked = None;
                match request.row.accept(drawn, &request.options, self.limits.max_tokens) {
                    Ok((token, text)) => {
                        self.stats.new_tokens += 1;
                        let finish = request.row.finish;
                        events.push(SchedulerEvent::Token(RequestToken { request: id, id: token, text, finish }));
                    }
                    Err(error) => events.push(SchedulerEvent::Failed { request: id, error }),
                }
            }
        }
        for event in &events {
            match event {
                SchedulerEvent::Token(RequestToken { request, finish: Some(_), .. })
                | SchedulerEvent::Failed { request, .. } => {
                    self.end(*request);
                }
                SchedulerEvent::Token(_) => {}
            }
        }
        Ok(events)
    }

    /// Lets requests that wait begin, in their order, while there are rows and pages for their prompts.
    fn admit(&mut self) {
        while self.running.len() < self.limits.requests
            && let Some(mut request) = self.queue.pop_front()
        {
            request.held = self.pages.begin(&request.row.tokens);
            let shared = request.held.pages.len();
            let needed = (request.row.tokens.len() + 1).div_ceil(SchedulerLimits::PAGE);
            if needed.saturating_sub(shared) > self.pages.available() && !self.running.is_empty() {
                self.pages.release(std::mem::take(&mut request.held));
                self.queue.push_front(request);
                return;
            }
            request.computed = shared * SchedulerLimits::PAGE;
            self.stats.shared_tokens += request.computed as u64;
            self.running.push(request);
        }
    }

    /// Gives every request the pages that its step needs, the oldest first; the youngest goes back to the queue where there are none.
    fn make_room(&mut self, planned: impl Fn(&Request) -> usize) {
        let mut at = 0;
        while at < self.running.len() {
            let request = &mut self.running[at];
            let needed = match planned(request) {
                0 => 0,
                count => (request.computed + count).div_ceil(SchedulerLimits::PAGE),
            };
            if request.held.pages.len() >= needed || self.pages.extend(&mut request.held) {
                at += usize::from(request.held.pages.len() >= needed);
            } else if let Some(youngest) = self.running.pop() {
                self.put_back(youngest);
            }
        }
    }

    /// Puts a request back, in front of all that wait.
    fn put_back(&mut self, mut request: Request) {
        self.pages.release(std::mem::take(&mut request.held));
        request.computed = 0;
        self.stats.preempted += 1;
        self.queue.push_front(request);
    }

    /// Ends a request that is being answered.
    fn end(&mut self, id: RequestId) -> bool {
        let Some(at) = self.running.iter().position(|request| request.id == id) else { return false };
        let request = self.running.remove(at);
        self.pages.release(request.held);
        true
    }
}
