//! Which tensors are copied into textures before which dispatch, for kernels that read them through one.
//!
//! A few textures serve the whole step. A tensor that is still in one from an earlier dispatch is not copied again, and a copy takes
//! the place of what is read last from then on (Belady 1966), which is known.

use crate::kernel::{Access, View};
use crate::program::{Recording, Source};
use std::cmp::Reverse;

/// Textures that a step may use: more let tensors stay for longer.
const MOST: usize = 6;

/// The way of one binding through a texture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stage {
    /// The binding of the dispatch, from 0.
    pub binding: usize,
    /// The texture.
    pub texture: usize,
    /// Whether the tensor must be copied there first.
    pub copy: bool,
}

/// The textures of a step, and what is copied into them before each dispatch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Staging {
    /// The textures: bytes of the largest tensor that each takes.
    pub textures: Vec<u64>,
    /// For each dispatch, its bindings that are textures.
    pub stages: Vec<Vec<Stage>>,
}

/// What a texture holds at some point of the step.
struct Held {
    view: View,
    /// The dispatch that read it last.
    used: usize,
    /// The dispatch that reads it next, before anything changes it.
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
            // What is there already first, so that no copy takes its place.
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

    /// The texture for a tensor at a dispatch, and whether it has to be copied there.
    fn place(&mut self, read: &Read<'_>, held: &mut Vec<Held>) -> (usize, bool) {
        let Read { view, dispatch, next, .. } = *read;
        if let Some(found) = held.iter().position(|h| h.used == dispatch && same(&h.view, view)) {
            held[found].next = next;
            return (found, false);
        }
        let bytes = view.bytes();
        let suits = |t: usize| (bytes..=4 * bytes).contains(&self.textures[t]);
        // Of those that this dispatch does not need: first what nothing reads again, then what is read last; of about the size.
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

/// What each dispatch reads through textures, and when it is read next.
fn reads(recording: &Recording) -> Vec<Vec<Read<'_>>> {
    let stored = |slot: usize| matches!(recording.slots[slot].source, Source::Parameter(_) | Source::State(_));
    // Backwards: the first read behind each dispatch with nothing written in between.
    let mut behind: Vec<(&View, usize)> = Vec::new();
    let mut all: Vec<Vec<Read<'_>>> = Vec::with_capacity(recording.dispatches.len());
    for (index, dispatch) in recording.dispatches.iter().enumerate().rev() {
        for written in dispatch.bindings.iter().filter(|b| !b.access.only_reads()) {
            // Weights and states may be parts of one another.
            let slot = written.view.slot;
            behind.retain(|(view, ..)| view.slot != slot && !(stored(view.slot) && stored(slot)));
        }
        let through = dispatch.bindings.iter().enumerate().filter_map(|(binding, b)| match b.access {
            Access::Texture { shared: false, .. } => Some((binding, &b.view)),
            _ => None,
        });
        let read = |(binding, view)| {
            let next = behind.iter().find(|(v, _)| same(v, view)).map(|(_, next)| *next);
            Read { binding, view, dispatch: index, next }
        };
        let reads: Vec<Read<'_>> = through.map(read).collect();
        for read in &reads {
            behind.retain(|(v, _)| !same(v, read.view));
            behind.push((read.view, index));
        }
        all.push(reads);
    }
    all.reverse();
    all
}
