//! The programs of a generator with their inputs written.

use super::generator::Generator;
use super::pick::TokenPick;
use crate::error::Result;
use crate::ops::LogitEdit;
use crate::program::Program;

/// The tokens of a batch.
#[derive(Clone, Debug, Default)]
pub(super) struct Texts<'a> {
    /// What the encoder reads, a text for each prompt; none without one.
    pub(super) sources: Vec<&'a [u32]>,
    /// What the decoder has read, for each row, the token that is to be read now included.
    pub(super) rows: Vec<&'a [u32]>,
    /// What each row may go on with, to be checked together with its last token; none: nothing.
    pub(super) drafts: Vec<Vec<u32>>,
}

/// The tokens that a row with a draft adds at most.
pub(super) fn added(drafts: &[Vec<u32>]) -> usize {
    1 + drafts.iter().map(Vec::len).max().unwrap_or(0)
}

impl Generator {
    /// The encoder program.
    pub(super) fn feed_encoder(&mut self, texts: &Texts<'_>) -> Result<&Program> {
        let longest = texts.sources.iter().map(|source| source.len()).max().unwrap_or(1);
        let (contexts, lengths) = (self.limits.batch / self.beams, self.source_lengths(texts));
        let (program, bucket) = self.encode(longest)?;
        let mut ids = vec![0_u32; contexts * bucket];
        for (index, source) in texts.sources.iter().enumerate() {
            ids[index * bucket..][..source.len()].copy_from_slice(source);
        }
        program.write("source_ids", bytemuck::cast_slice(&ids))?;
        program.write("source_lengths", bytemuck::cast_slice(&lengths))?;
        Ok(program)
    }

    /// The number of tokens of each prompt for the encoder; one where there is no prompt.
    fn source_lengths(&self, texts: &Texts<'_>) -> Vec<u32> {
        let mut lengths = vec![1; self.limits.batch / self.beams];
        lengths.iter_mut().zip(&texts.sources).for_each(|(length, source)| *length = source.len().max(1) as u32);
        lengths
    }

    /// The program that reads the first of every `beams` rows from the beginning.
    pub(super) fn feed_prefill(&mut self, pick: TokenPick, beams: usize, texts: &Texts<'_>) -> Result<&Program> {
        let longest = texts.rows.iter().map(|row| row.len()).max().unwrap_or(1);
        let source_lengths = self.source_lengths(texts);
        let batch = self.limits.batch / beams;
        let (program, bucket) = self.prefill(pick, beams, longest)?;
        let mut ids = vec![0_u32; batch * bucket];
        // Rows without a text read their first token, and the result is ignored.
        let mut last: Vec<u32> = (0..batch).map(|row| (row * bucket) as u32).collect();
        for (index, row) in texts.rows.iter().step_by(beams).enumerate() {
            ids[index * bucket..][..row.len()].copy_from_slice(row);
            last[index] += row.len() as u32 - 1;
        }
        program.write("ids", bytemuck::cast_slice(&ids))?;
        program.write("last", bytemuck::cast_slice(&last))?;
        if program.has_input("lengths") {
            let lengths: Vec<u32> = last.iter().zip(0..).map(|(last, row)| last - row * bucket as u32 + 1).collect();
            program.write("lengths", bytemuck::cast_slice(&lengths))?;
        }
        if program.has_input("source_lengths") {
            program.write("source_lengths", bytemuck::cast_slice(&source_lengths))?;
        }
        Ok(program)
    }

    /// The program that adds the last token of every row, and its draft. Behind a shorter draft stand tokens of no consequence.
    pub(super) fn feed_decode(&mut self, pick: TokenPick, texts: &Texts<'_>) -> Result<&Program> {
        let (batch, count, room) = (self.limits.batch, added(&texts.drafts), self.limits.max_tokens as u32);
        let (mut ids, mut lengths) = (vec![0_u32; batch * count], vec![count as u32; batch]);
        let mut positions: Vec<u32> = (0..batch * count).map(|i| (i % count) as u32).collect();
        for (index, row) in texts.rows.iter().enumerate() {
            let draft = texts.drafts.get(index).map_or(&[][..], Vec::as_slice);
            let (first, at) = (row.len() as u32 - 1, index * count);
            ids[at] = row[row.len() - 1];
            ids[at + 1..][..draft.len()].copy_from_slice(draft);
            for (position, number) in positions[at..][..count].iter_mut().zip(first..) {
                *position = number.min(room - 1);
            }
            lengths[index] = (first + count as u32).min(room);
        }
        let source_lengths = self.source_lengths(texts);
        let program = self.decode(pick, count)?;
        program.write("ids", bytemuck::cast_slice(&ids))?;
        program.write("positions", bytemuck::cast_slice(&positions))?;
        if program.has_input("lengths") {
            program.write("lengths", bytemuck::cast_slice(&lengths))?;
        }
        if program.has_input("source_lengths") {
            program.write("source_lengths", bytemuck::cast_slice(&source_lengths))?;
        }
        Ok(program)
    }
}

/// Writes the edits of each row, of which others have none.
pub(super) fn feed_edits(program: &Program, pick: TokenPick, rows: usize, edits: &[Vec<LogitEdit>]) -> Result<()> {
    let most = pick.edits();
    if most == 0 {
        return Ok(());
    }
    let mut words = vec![LogitEdit::None.words(); rows * most];
    for (row, edits) in edits.iter().enumerate() {
        words[row * most..].iter_mut().zip(edits).for_each(|(words, edit)| *words = edit.words());
    }
    program.write("edits", bytemuck::cast_slice(&words))
}
