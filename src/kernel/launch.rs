//! What an op sees when it is recorded: its tensors, the adapter's abilities, and where its dispatches go.

use super::{Dispatch, View};
use crate::dtype::DType;
use crate::error::Result;
use crate::gpu::{Caps, Choices};
use crate::shape::Shape;
use std::fmt::Debug;
use std::ops::Range;

/// A problem that more than one variant of a kernel can solve on the adapter: what a tuner can ask the clock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// The problem: kernel and sizes.
    pub problem: String,
    /// The variants that are legal, the default first.
    pub variants: Vec<String>,
}

/// What an op sees when it is recorded.
#[derive(Debug)]
pub struct Launch<'a> {
    caps: &'a Caps,
    choices: Option<&'a Choices>,
    questions: Vec<Question>,
    inputs: &'a [View],
    outputs: &'a [View],
    used: Vec<bool>,
    next_slot: usize,
    scratch: Vec<View>,
    dispatches: Vec<Dispatch>,
}

impl<'a> Launch<'a> {
    /// A launch of an op with these tensors; slots from `next_slot` on are free for scratch memory.
    #[must_use]
    pub fn new(caps: &'a Caps, inputs: &'a [View], outputs: &'a [View], next_slot: usize) -> Self {
        let used = vec![true; outputs.len()];
        Self {
            caps,
            choices: None,
            questions: Vec::new(),
            inputs,
            outputs,
            used,
            next_slot,
            scratch: Vec::new(),
            dispatches: Vec::new(),
        }
    }

    /// Says which variants were chosen; the defaults, unless said.
    #[must_use]
    pub fn with_choices(mut self, choices: &'a Choices) -> Self {
        self.choices = Some(choices);
        self
    }

    /// Says which outputs anything reads; all of them, unless said.
    #[must_use]
    pub fn with_used(mut self, used: Vec<bool>) -> Self {
        self.used = used;
        self
    }

    /// The adapter's abilities.
    #[must_use]
    pub fn caps(&self) -> &'a Caps {
        self.caps
    }

    /// Which of the legal variants solves a problem: the one that was chosen for it, else the default. A `problem` names
    /// kernel and sizes, and variants are known by what `{:?}` prints of them.
    pub fn choose<V: Copy + Debug>(&mut self, problem: String, default: V, legal: &[V]) -> V {
        let name = |variant: &V| format!("{variant:?}");
        let chosen = self.choices.and_then(|choices| choices.get(&problem));
        let chosen = chosen.and_then(|chosen| legal.iter().find(|v| name(v) == chosen).copied());
        let first = name(&default);
        let others = legal.iter().map(name).filter(|other| *other != first);
        let variants: Vec<String> = std::iter::once(first.clone()).chain(others).collect();
        if variants.len() > 1 && self.questions.iter().all(|known| known.problem != problem) {
            self.questions.push(Question { problem, variants });
        }
        chosen.unwrap_or(default)
    }

    /// The problems that [`Launch::choose`] was asked.
    #[must_use]
    pub fn take_questions(&mut self) -> Vec<Question> {
        std::mem::take(&mut self.questions)
    }

    /// Input `index`. One that the op does not have is an empty view of no slot, which the recorder refuses.
    #[must_use]
    pub fn input(&self, index: usize) -> View {
        self.inputs.get(index).cloned().unwrap_or_else(nothing)
    }

    /// Output `index`; as [`Launch::input`] if there is none.
    #[must_use]
    pub fn output(&self, index: usize) -> View {
        self.outputs.get(index).cloned().unwrap_or_else(nothing)
    }

    /// Whether anything reads output `index`. One that nothing reads need not be computed, and then has no memory.
    #[must_use]
    pub fn output_used(&self, index: usize) -> bool {
        self.used.get(index).copied().unwrap_or(true)
    }

    /// The number of inputs.
    #[must_use]
    pub fn input_count(&self) -> usize {
        self.inputs.len()
    }

    /// Cuts `count` elements of 4 bytes into windows that one binding can hold, for ops that go over a tensor element by
    /// element. Windows begin at multiples of 4096, which keeps the offsets of whatever goes along aligned.
    #[must_use]
    pub fn windows(&self, count: usize) -> Vec<Range<usize>> {
        const GRAIN: usize = 4096;
        let bytes = self.caps.quirks.window(self.caps.max_binding_bytes);
        let limit = ((bytes / 4) as usize / GRAIN * GRAIN).max(GRAIN);
        (0..count).step_by(limit).map(|start| start..count.min(start + limit)).collect()
    }

    /// Memory that only this op's dispatches use.
    pub fn scratch(&mut self, shape: impl Into<Shape>, dtype: DType) -> View {
        let view = View { slot: self.next_slot + self.scratch.len(), start: 0, shape: shape.into(), dtype };
        self.scratch.push(view.clone());
        view
    }

    /// Records a dispatch; one of no workgroups is left out.
    ///
    /// # Errors
    /// None today: what it binds is checked when the op has ended, the limits of the adapter when memory is planned.
    pub fn dispatch(&mut self, dispatch: Dispatch) -> Result<()> {
        if dispatch.groups > 0 {
            self.dispatches.push(dispatch);
        }
        Ok(())
    }

    /// The dispatches and the scratch memory they use.
    #[must_use]
    pub fn finish(self) -> (Vec<Dispatch>, Vec<View>) {
        (self.dispatches, self.scratch)
    }
}

/// What an op sees in place of a tensor that it does not have.
fn nothing() -> View {
    View { slot: usize::MAX, start: 0, shape: Shape::new([0]), dtype: DType::F32 }
}
