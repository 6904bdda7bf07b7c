//! Which tensors are copied into textures before which dispatch, for kernels that read them through one.
//!
//! A few textures serve the whole step. A tensor that is still in one from an earlier dispatch is not copied again.

use super::{Recording, Source};
use crate::kernel::{Access, View};

/// Textures of one kind that a step may use: more let tensors stay for longer.
const MOST: usize = 6;

/// A texture that tensors are copied into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StageTexture {
    /// Bytes of the largest tensor that it takes.
    pub bytes: u64,
    /// Of unsigned words, not floats.
    pub words: bool,
}

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
    /// The textures.
    pub textures: Vec<StageTexture>,
    /// For each dispatch, its bindings that are textures.
    pub stages: Vec<Vec<Stage>>,
}

/// What a texture holds at some point of the step.
struct Held {
    view: Option<View>,
    used: usize,
}

impl Staging {
    /// The staging of a recording.
    #[must_use]
    pub fn new(recording: &Recording) -> Self {
        let mut staging = Self::default();
        let mut held: Vec<Held> = Vec::new();
        for (index, dispatch) in recording.dispatches.iter().enumerate() {
            let through = dispatch.bindings.iter().enumerate().filter_map(|(binding, b)| match b.access {
                Access::Texture(texels) => Some((binding, &b.view, texels.words)),
                _ => None,
            });
            // What is there already first, so that no copy takes its place.
            for (_, view, words) in through.clone() {
                if let Some(found) = staging.find(view, words, &held) {
                    held[found].used = index;
                }
            }
            let stage = |(binding, view, words)| {
                let (texture, copy) = staging.place(view, words, index, &mut held);
                Stage { binding, texture, copy }
            };
            let stages = through.map(stage).collect();
            staging.stages.push(stages);
            for written in dispatch.bindings.iter().filter(|b| !b.access.only_reads()) {
                forget(recording, &mut held, written.view.slot);
            }
        }
        staging
    }

    /// Bytes of all textures.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.textures.iter().map(|t| t.bytes).sum()
    }

    /// The texture that holds a tensor.
    fn find(&self, view: &View, words: bool, held: &[Held]) -> Option<usize> {
        let same = |v: &View| {
            v.slot == view.slot && v.start == view.start && v.numel() == view.numel() && v.dtype == view.dtype
        };
        (0..held.len()).find(|&t| self.textures[t].words == words && held[t].view.as_ref().is_some_and(same))
    }

    /// The texture for a tensor at a dispatch, and whether it has to be copied there.
    fn place(&mut self, view: &View, words: bool, dispatch: usize, held: &mut Vec<Held>) -> (usize, bool) {
        if let Some(found) = self.find(view, words, held) {
            return (found, false);
        }
        let bytes = view.bytes();
        let kind: Vec<usize> = (0..held.len()).filter(|&t| self.textures[t].words == words).collect();
        // Of those that this dispatch does not need, the one that was not used for longest; one of about the size first.
        let suits = |t: usize| (bytes..=4 * bytes).contains(&self.textures[t].bytes);
        let free = kind.iter().copied().filter(|&t| held[t].used < dispatch || held[t].view.is_none());
        let oldest = free.min_by_key(|&t| (!suits(t), held[t].view.is_some(), held[t].used));
        let found = oldest.filter(|&t| kind.len() >= MOST || (suits(t) && held[t].view.is_none()));
        let texture = found.unwrap_or_else(|| {
            self.textures.push(StageTexture { bytes, words });
            held.push(Held { view: None, used: dispatch });
            held.len() - 1
        });
        self.textures[texture].bytes = self.textures[texture].bytes.max(bytes);
        held[texture] = Held { view: Some(view.clone()), used: dispatch };
        (texture, true)
    }
}

/// What is in a slot has changed: copies of it are worth nothing. Weights and states may be parts of one another.
fn forget(recording: &Recording, held: &mut [Held], slot: usize) {
    let stored = |slot: usize| matches!(recording.slots[slot].source, Source::Parameter(_) | Source::State(_));
    for h in held {
        if h.view.as_ref().is_some_and(|v| v.slot == slot || (stored(v.slot) && stored(slot))) {
            h.view = None;
        }
    }
}
