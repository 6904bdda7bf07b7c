//! A run in pieces, for applications that do other work on the device meanwhile.

use super::launches::Launches;
use super::program::uploads_of;
use super::{Budget, Program};
use crate::error::{Error, Result};
use std::ops::Range;
use std::sync::Arc;

/// One run of a program, encoded piece by piece ([`Program::pieces`]).
#[derive(Debug)]
#[must_use = "nothing is encoded before `Pieces::encode`"]
pub struct Pieces<'a> {
    program: &'a Program,
    launches: Arc<Launches>,
    budget: Budget,
    next: usize,
    /// The number of the run, after it began.
    run: Option<u64>,
}

/// State of the run that began last.
#[derive(Debug, Default)]
pub(super) struct Begun {
    number: u64,
    /// The inputs that the first piece sent, until the last piece is encoded.
    sent: Vec<Range<usize>>,
}

impl Begun {
    /// Begins another run; returns its number, and the inputs to send again because a run in pieces was left unfinished.
    pub(super) fn begin(&mut self) -> (u64, Vec<Range<usize>>) {
        self.number += 1;
        (self.number, std::mem::take(&mut self.sent))
    }
}

impl Program {
    /// One run in pieces of up to `budget` each, for an application that draws frames and encodes one piece a frame into its own encoder.
    /// [`Budget::lasting`] gives the budget of a time.
    ///
    /// Longer dispatches are cut on the first call and when the budget changes by half; otherwise this call and encoding the pieces create
    /// nothing. The results are bit-identical to [`Program::run`].
    ///
    /// # Errors
    /// [`Error::OutOfMemory`]; [`Error::DeviceLost`].
    pub fn pieces(&self, budget: Budget) -> Result<Pieces<'_>> {
        let launches = self.cut_within(&self.pieces, budget)?;
        Ok(Pieces { program: self, launches, budget, next: 0, run: None })
    }
}

impl Pieces<'_> {
    /// Encodes the next piece, of at least one launch; returns whether another remains. The encoders must be submitted in this order;
    /// they may hold any other commands before, between and after the pieces.
    ///
    /// The first piece begins the run and takes the inputs' values; a later [`Program::write`] is for the next run. Outputs and states are
    /// valid when the last piece was submitted; before that they are undefined.
    ///
    /// The pieces may be dropped unfinished: then the outputs stay undefined until the next run, which sends the inputs again, and states
    /// may be updated in part.
    ///
    /// # Errors
    /// [`Error::Graph`] if another run of the program began since the first piece (which ends this run), or if no piece is left; the errors of
    /// [`Program::encode`].
    pub fn encode(&mut self, encoder: &mut wgpu::CommandEncoder) -> Result<bool> {
        self.encode_within(encoder, self.budget)?;
        Ok(!self.is_done())
    }

    /// As [`Pieces::encode`], but a piece within this budget; returns its operations.
    pub(super) fn encode_within(&mut self, encoder: &mut wgpu::CommandEncoder, budget: Budget) -> Result<f64> {
        let program = self.program;
        if self.is_done() {
            return Err(Error::Graph("all pieces of the run are encoded; `Program::pieces` begins another".into()));
        }
        let running = program.running.lock();
        let mut uploads = uploads_of(&running)?;
        match self.run {
            None => {
                let number = program.begin();
                let sent = program.send_inputs(&mut uploads, encoder)?;
                program.begun().sent = sent;
                self.run = Some(number);
            }
            Some(number) if program.begun().number != number => {
                let message = "another run of the program began between the pieces of this one and overwrote its values: begin again \
                               with `Program::pieces`";
                return Err(Error::Graph(message.into()));
            }
            Some(_) => {}
        }
        let range = self.launches.piece(self.next, budget);
        let cost = self.launches.cost(range.clone());
        self.next = range.end;
        program.gpu().application_submits();
        self.launches.encode(encoder, range, program.gpu().stopwatch());
        if self.is_done() {
            program.own.copy(&program.memory, encoder);
            program.begun().sent.clear();
        }
        Ok(cost)
    }

    /// Whether all pieces are encoded.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.run.is_some() && self.next == self.launches.steps.len()
    }

    /// The share of the run's operations that are encoded, from 0 to 1.
    #[must_use]
    pub fn progress(&self) -> f64 {
        let whole = self.launches.cost(0..self.launches.steps.len());
        if self.is_done() || whole == 0.0 {
            f64::from(u8::from(self.is_done()))
        } else {
            self.launches.cost(0..self.next) / whole
        }
    }
}
