//! Plans which tensors are copied into textures before each dispatch.
//!
//! A few textures serve the whole step. A tensor that is still in a texture is not copied again, and a copy evicts the tensor whose next
//! read is the farthest (Belady 1966).

use crate::kernel::{Access, View};
use crate::program::{Recording, Source};
use std::cmp::Reverse;

/// The most textures of a step: more of them keep tensors longer.
const MOST: usize = 6;

/// The texture of one binding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stage {
    /// The binding of the dispatch, from 0.
    pub binding: usize,
    /// The texture.
    pub texture: usize,
    /// Whether the tensor must be copied first.
    pub copy: bool,
}

/// The textures of a step, and what is copied into them before each dispatch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Staging {
    /// The size of each texture: bytes of the largest tensor in it.
    pub textures: Vec<u64>,
    /// The bindings of each dispatch that are textures.
    pub stages: Vec<Vec<Stage>>,
}

/// The content of a texture at some point of the step.
struct Held {
    view: View,
    /// The dispatch that read it last.
    used: usize,
    /// The next dispatch that reads it before it changes.
    next: Option<usize>,
}

/// A tensor to be read through a texture.
#[derive(Clone, Copy)]
struct Read<'a> {
    binding: usize,
    view: &'a View,
    dispatch: usize,
    next: Option<usize>,
}

impl Staging {
    /// The staging of a recording.
    #[must_use]
    pub fn new(recording: &Recording) -> Self {
        let mut staging = Self::default();
        let mut held: Vec<Held> = Vec::new();
        for (dispatch, reads) in reads(recording).into_iter().enumerate() {
            // Content that is still valid first, so that no copy evicts it.
            held.iter_mut().filter(|h| h.next == Some(dispatch)).for_each(|h| h.used = dispatch);
            let stage = |read: &Read<'_>| {
                let (texture, copy) = staging.place(read, &mut held);
                Stage { binding: read.binding, texture, copy }
            };
            let stages = reads.iter().map(stage).collect();
            staging.stages.push(stages);
        }
        staging
    }

    /// Bytes of all textures.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.textures.iter().sum()
    }

    /// The texture for a tensor at a dispatch, and whether the tensor has to be copied.
    fn place(&mut self, read: &Read<'_>, held: &mut Vec<Held>) -> (usize, bool) {
        let Read { view, dispatch, next, .. } = *read;
        if let Some(found) = held.iter().position(|h| h.used == dispatch && same(&h.view, view)) {
            held[found].next = next;
            return (found, false);
        }
        let bytes = view.bytes();
        let suits = |t: usize| (bytes..=4 * bytes).contains(&self.textures[t]);
        // Of the textures that this dispatch does not need: first unused content, then a fitting size, then the farthest next read.
        let free = (0..held.len()).filter(|&t| held[t].used < dispatch);
        let best =
            free.min_by_key(|&t| (held[t].next.is_some(), !suits(t), held[t].next.map(Reverse), self.textures[t]));
        let found = best.filter(|&t| held.len() >= MOST || (suits(t) && held[t].next.is_none()));
        let texture = found.unwrap_or_else(|| {
            self.textures.push(bytes);
            held.push(Held { view: view.clone(), used: dispatch, next });
            held.len() - 1
        });
        self.textures[texture] = self.textures[texture].max(bytes);
        held[texture] = Held { view: view.clone(), used: dispatch, next };
        (texture, true)
    }
}

fn same(a: &View, b: &View) -> bool {
    a.slot == b.slot && a.start == b.start && a.numel() == b.numel() && a.dtype == b.dtype
}

/// The tensors that each dispatch reads through copied textures, and when each is read next.
fn reads(recording: &Recording) -> Vec<Vec<Read<'_>>> {
    let stored = |slot: usize| matches!(recording.slots[slot].source, Source::Parameter(_) | Source::State(_));
    // Backwards: the first read after each dispatch without a write in between.
    let mut next_reads: Vec<(&View, usize)> = Vec::new();
    let mut all: Vec<Vec<Read<'_>>> = Vec::with_capacity(recording.dispatches.len());
    for (index, dispatch) in recording.dispatches.iter().enumerate().rev() {
        for written in dispatch.bindings.iter().filter(|b| !b.access.only_reads()) {
            // Weights and states may overlap.
            let slot = written.view.slot;
            next_reads.retain(|(view, ..)| view.slot != slot && !(stored(view.slot) && stored(slot)));
        }
        let through = dispatch.bindings.iter().enumerate().filter_map(|(binding, b)| match b.access {
            Access::Texture { shared: false, .. } => Some((binding, &b.view)),
            _ => None,
        });
        let read = |(binding, view)| {
            let next = next_reads.iter().find(|(v, _)| same(v, view)).map(|(_, next)| *next);
            Read { binding, view, dispatch: index, next }
        };
        let reads: Vec<Read<'_>> = through.map(read).collect();
        for read in &reads {
            next_reads.retain(|(v, _)| !same(v, read.view));
            next_reads.push((read.view, index));
        }
        all.push(reads);
    }
    all.reverse();
    all
}
