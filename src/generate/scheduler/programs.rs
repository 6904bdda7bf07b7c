//! The programs of a scheduler, by the number of rows and the tokens of each.

use super::SchedulerLimits;
use crate::error::{Error, Result};
use crate::generate::feed::feed_edits;
use crate::generate::graphs::{PagedSizes, paged_graph};
use crate::generate::pick::TokenPick;
use crate::gpu::{Gpu, Readback};
use crate::models::Decoder;
use crate::ops::LogitEdit;
use crate::program::{Program, Weights};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Rows of prompts are padded to at least so many tokens, so that few programs serve all lengths.
const SMALLEST_PIECE: usize = 16;
/// The most programs that are kept. Penalties and rules make others: each has room for so many tokens of theirs.
const MOST_PROGRAMS: usize = 32;
/// A slot that no cache has: nothing is kept.
const NOWHERE: u32 = u32::MAX;

/// The programs, made when they are needed first.
pub(super) struct Programs {
    gpu: Gpu,
    model: Arc<dyn Decoder>,
    weights: Weights,
    limits: SchedulerLimits,
    /// Each with the number of the run that used it last.
    made: BTreeMap<(usize, usize, usize), (Program, u64)>,
    runs: u64,
}

/// What a row reads in a run.
#[derive(Debug)]
pub(super) struct Reading<'a> {
    /// Its new tokens.
    pub(super) tokens: &'a [u32],
    /// The position of the first of them.
    pub(super) position: usize,
    /// Its pages.
    pub(super) pages: &'a [u32],
    /// The edits of the logits behind its last token, and how a token is chosen.
    pub(super) edits: &'a [LogitEdit],
    pub(super) choice: [u32; 5],
}

impl Programs {
    pub(super) fn new(gpu: &Gpu, model: Arc<dyn Decoder>, weights: &Weights, limits: SchedulerLimits) -> Result<Self> {
        let programs =
            Self { gpu: gpu.clone(), model, weights: weights.share(), limits, made: BTreeMap::new(), runs: 0 };
        // What a model cannot do is told now.
        paged_graph(programs.model.as_ref(), programs.weights.storage(), &programs.sizes(1, 1, 0))?;
        Ok(programs)
    }

    fn sizes(&self, rows: usize, time: usize, edits: usize) -> PagedSizes {
        PagedSizes {
            rows,
            time,
            max_tokens: self.limits.max_tokens,
            page: SchedulerLimits::PAGE,
            pages_of_row: self.limits.pages_of_request(),
            pages: self.limits.pages(),
            pick: TokenPick::Draw { edits },
        }
    }

    /// The program for so many rows, tokens of each and edited logits of each.
    fn program(&mut self, key: (usize, usize, usize)) -> Result<&Program> {
        self.runs += 1;
        if !self.made.contains_key(&key) {
            // The one that was used the longest ago makes room.
            let oldest = self.made.iter().min_by_key(|(_, (_, used))| *used).map(|(key, _)| *key);
            if let Some(oldest) = oldest.filter(|_| self.made.len() >= MOST_PROGRAMS) {
                self.made.remove(&oldest);
            }
            let sizes = self.sizes(key.0, key.1, key.2);
            let graph = paged_graph(self.model.as_ref(), self.weights.storage(), &sizes)?;
            self.made.insert(key, (Program::new(&self.gpu, &graph, &self.weights)?, 0));
        }
        let (program, used) =
            self.made.get_mut(&key).ok_or_else(|| Error::Graph("a program of the scheduler is missing".into()))?;
        *used = self.runs;
        Ok(program)
    }

    /// Makes the programs for so many rows, and pieces of so many tokens.
    pub(super) fn prepare(&mut self, rows: usize, time: usize) -> Result<()> {
        self.program((rows.next_power_of_two(), padded(time), 0)).map(|_| ())
    }

    /// Submits a run of some rows, in an application's frames if so told, else without waiting; it gives a token for each.
    pub(super) async fn run(&mut self, rows: &[Reading<'_>], in_frames: bool) -> Result<Readback> {
        let longest = rows.iter().map(|row| row.tokens.len()).max().unwrap_or(1);
        let edits = rows.iter().map(|row| row.edits.len()).max().unwrap_or(0);
        let edits = if edits == 0 { 0 } else { edits.next_power_of_two() };
        let (count, time, most) = (rows.len().next_power_of_two(), padded(longest), self.limits.pages_of_request());
        let page = SchedulerLimits::PAGE;
        let (mut ids, mut positions) = (vec![0_u32; count * time], vec![0_u32; count * time]);
        let (mut slots, mut table) = (vec![NOWHERE; count * time], vec![0_u32; count * most]);
        let (mut lengths, mut choices) = (vec![0_u32; count], vec![0_u32; count * 5]);
        let mut last: Vec<u32> = (0..count).map(|row| (row * time) as u32).collect();
        for (index, row) in rows.iter().enumerate() {
            let first = index * time;
            for (at, id) in row.tokens.iter().enumerate() {
                let position = row.position + at;
                ids[first + at] = *id;
                positions[first + at] = position as u32;
                slots[first + at] = row.pages[position / page] * page as u32 + (position % page) as u32;
            }
            table[index * most..][..row.pages.len()].copy_from_slice(row.pages);
            lengths[index] = (row.position + row.tokens.len()) as u32;
            last[index] += row.tokens.len() as u32 - 1;
            choices[index * 5..][..5].copy_from_slice(&row.choice);
        }
        let words: Vec<Vec<LogitEdit>> = rows.iter().map(|row| row.edits.to_vec()).collect();
        let program = self.program((count, time, edits))?;
        for (name, words) in [
            ("ids", &ids),
            ("positions", &positions),
            ("slots", &slots),
            ("table", &table),
            ("lengths", &lengths),
            ("last", &last),
            ("choices", &choices),
        ] {
            if program.has_input(name) {
                program.write(name, bytemuck::cast_slice(words))?;
            }
        }
        feed_edits(program, TokenPick::Draw { edits }, count, &words)?;
        let tokens = program.run_by(&["tokens"], in_frames).await?.pop();
        tokens.ok_or_else(|| Error::Graph("the run returned no tokens".into()))
    }
}

/// The padded length of a piece.
fn padded(tokens: usize) -> usize {
    if tokens == 1 { 1 } else { tokens.next_power_of_two().max(SMALLEST_PIECE) }
}
