//! What a launch may reach: an op's kernels read what the op was given and write what it gives. Ops come from applications, too.

use crate::error::{Error, Result};
use crate::graph::{Alias, Node};
use crate::kernel::{Access, Binding, Dispatch, View};

/// The memory of one node.
pub(super) struct Given<'a> {
    pub(super) node: &'a Node,
    pub(super) inputs: &'a [View],
    pub(super) outputs: &'a [View],
    pub(super) scratch: &'a [View],
    /// Which outputs anything reads.
    pub(super) used: &'a [bool],
    /// Which outputs lie in an input and are there already.
    pub(super) parts: &'a [bool],
}

impl Given<'_> {
    /// Refuses launches that reach elsewhere, or leave an output unwritten.
    pub(super) fn check(&self, launched: &[Dispatch]) -> Result<()> {
        for dispatch in launched {
            for (number, binding) in dispatch.bindings.iter().enumerate() {
                self.check_binding(binding, self.node.own).map_err(|what| {
                    let place = format!("{}: binding {} of {}", self.node.label, number + 1, dispatch.kernel.name);
                    Error::Graph(format!("{place} {what}"))
                })?;
            }
        }
        let written = |view: &View| {
            let bindings = launched.iter().flat_map(|dispatch| &dispatch.bindings);
            bindings.filter(|b| !b.access.only_reads()).any(|b| b.view.slot == view.slot)
        };
        for (index, output) in self.outputs.iter().enumerate() {
            let fresh = self.node.aliases[index].is_none() && !self.parts[index];
            if fresh && self.used[index] && output.numel() > 0 && !written(output) {
                let what = format!("{} launches nothing that writes its output {index}", self.node.label);
                return Err(Error::Graph(what));
            }
        }
        Ok(())
    }

    fn check_binding(&self, binding: &Binding, own: bool) -> std::result::Result<(), String> {
        if matches!(binding.access, Access::Texture { .. }) {
            return Err("is a texture, which only the recorder decides: bind it with Dispatch::read".into());
        }
        if !own && binding.view.bytes() == 0 {
            return Err("is empty, and an empty binding reaches to the end of its buffer: launch nothing then".into());
        }
        let reads = binding.access.only_reads();
        let of = |views: &[View]| views.iter().any(|view| contains(view, &binding.view));
        let written = self.outputs.iter().enumerate().any(|(index, view)| {
            let kept = self.parts[index] || matches!(self.node.aliases[index], Some(Alias::View(_)));
            (reads || !kept) && contains(view, &binding.view)
        });
        match written || of(self.scratch) || (reads && of(self.inputs)) {
            true => Ok(()),
            false if !reads && of(self.inputs) => {
                Err("writes an input of the op that no output is an update of (Op::alias)".into())
            }
            false => Err("reaches beyond the op's inputs, outputs and scratch memory".into()),
        }
    }
}

/// Whether a view lies in another one.
fn contains(whole: &View, part: &View) -> bool {
    let (outer, inner) = (whole.span(), part.span());
    whole.slot == part.slot && outer.start <= inner.start && inner.end <= outer.end
}
