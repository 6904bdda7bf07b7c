//! The programs of a generator, prepared before they are needed.

use super::generator::{GenerateLimits, Generator};
use super::graphs::{Rows, prefill_graph};
use super::pick::TokenPick;
use super::sampling::SamplingOptions;
use crate::error::{Error, Result};
use crate::graph::Graph;
use crate::program::{OwnBuffers, Program};

/// One of a generator's programs.
#[derive(Clone, Copy)]
pub(super) enum Part {
    /// By the padded length.
    Encode(usize),
    /// By the rows that each text is read for, and the padded length.
    Prefill(TokenPick, usize, usize),
    /// By the tokens that are added to each row.
    Decode(TokenPick, usize),
}

impl Generator {
    /// Prepares the programs for prompts of up to `longest` tokens now, so that the first answer by such options does not wait for them.
    ///
    /// # Errors
    /// Those of the model; [`Error::OutOfMemory`].
    pub fn prepare(&mut self, longest: usize, options: &SamplingOptions) -> Result<()> {
        self.prepare_picking(longest, TokenPick::of(options, self.limits, self.model.as_ref()))
    }

    /// The async form of [`Generator::prepare`], in frames if the application draws them ([`Gpu::begin_frame`](crate::Gpu::begin_frame)); `progress` is told the share that is
    /// done. Without it, [`Generator::stream`] prepares each program when it first needs it, at once.
    ///
    /// # Errors
    /// As [`Generator::prepare`].
    pub async fn prepare_async(
        &mut self,
        longest: usize,
        options: &SamplingOptions,
        mut progress: impl FnMut(f64),
    ) -> Result<()> {
        let parts = self.parts(longest, TokenPick::of(options, self.limits, self.model.as_ref()));
        let count = parts.len() as f64;
        for (index, part) in parts.into_iter().enumerate() {
            if self.program(part).is_some() {
                continue;
            }
            let preparation = Program::preparing(&self.gpu, &self.graph_of(part)?, &self.weights, &OwnBuffers::new())?;
            let program = preparation.finish_async(|share| progress((index as f64 + share) / count)).await?;
            self.keep(part, program);
        }
        progress(1.0);
        Ok(())
    }

    pub(super) fn prepare_picking(&mut self, longest: usize, pick: TokenPick) -> Result<()> {
        self.parts(longest, pick).into_iter().try_for_each(|part| self.ensure(part).map(|_| ()))
    }

    /// The programs for prompts of up to `longest` tokens.
    fn parts(&self, longest: usize, pick: TokenPick) -> Vec<Part> {
        let prefill = |length: usize| Part::Prefill(pick, self.beams, self.bucket(length));
        let decode = Part::Decode(pick, 1);
        match self.start() {
            Some(_) => vec![Part::Encode(self.bucket(longest)), prefill(1), decode],
            None => vec![prefill(longest), decode],
        }
    }

    fn graph_of(&self, part: Part) -> Result<Graph> {
        let (model, storage) = (self.model.as_ref(), self.weights.storage());
        match part {
            Part::Encode(bucket) => {
                let limits = GenerateLimits { batch: self.limits.batch / self.beams, ..self.limits };
                Self::encode_graph(model, storage, limits, bucket)
            }
            Part::Prefill(pick, beams, bucket) => {
                prefill_graph(model, storage, self.limits, Rows { beams, bucket, pick })
            }
            Part::Decode(pick, tokens) => self.graph_of_decode(pick, tokens),
        }
    }

    fn program(&self, part: Part) -> Option<&Program> {
        match part {
            Part::Encode(bucket) => self.encode.get(&bucket),
            Part::Prefill(pick, beams, bucket) => self.prefill.get(&(pick, beams, bucket)),
            Part::Decode(pick, tokens) => self.decode.get(&(pick, tokens)),
        }
    }

    fn keep(&mut self, part: Part, program: Program) {
        match part {
            Part::Encode(bucket) => self.encode.insert(bucket, program),
            Part::Prefill(pick, beams, bucket) => self.prefill.insert((pick, beams, bucket), program),
            Part::Decode(pick, tokens) => self.decode.insert((pick, tokens), program),
        };
    }

    /// A program, which is prepared if it is missing.
    pub(super) fn ensure(&mut self, part: Part) -> Result<&Program> {
        if self.program(part).is_none() {
            let program = Program::new(&self.gpu, &self.graph_of(part)?, &self.weights)?;
            self.keep(part, program);
        }
        self.program(part).ok_or_else(|| Error::Graph("a program of the generator is missing".into()))
    }
}
