//! Checks that an op's launches access only the op's inputs, outputs and scratch memory. Ops may come from applications.

use crate::error::{Error, Result};
use crate::graph::{Alias, Node};
use crate::kernel::{Access, Binding, Dispatch, View};

/// The memory that the launches of one node may access.
pub(super) struct NodeMemory<'a> {
    pub(super) node: &'a Node,
    pub(super) inputs: &'a [View],
    pub(super) outputs: &'a [View],
    pub(super) scratch: &'a [View],
    /// Which outputs anything reads.
    pub(super) used: &'a [bool],
    /// Which outputs are slices of an input and need no launch.
    pub(super) slices: &'a [bool],
}

impl NodeMemory<'_> {
    /// Refuses launches that access other memory or leave an output unwritten.
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
            let fresh = self.node.aliases[index].is_none() && !self.slices[index];
            if fresh && self.used[index] && output.numel() > 0 && !written(output) {
                let what = format!("no launch of {} writes its output {index}", self.node.label);
                return Err(Error::Graph(what));
            }
        }
        Ok(())
    }

    fn check_binding(&self, binding: &Binding, own: bool) -> std::result::Result<(), String> {
        if matches!(binding.access, Access::Texture { .. }) {
            return Err("is a texture, which only the recorder may choose: bind it with Dispatch::read".into());
        }
        if !own && binding.view.bytes() == 0 {
            return Err("is empty, and an empty binding covers the rest of its buffer: skip the launch".into());
        }
        let reads = binding.access.only_reads();
        let of = |views: &[View]| views.iter().any(|view| contains(view, &binding.view));
        let written = self.outputs.iter().enumerate().any(|(index, view)| {
            let read_only = self.slices[index] || matches!(self.node.aliases[index], Some(Alias::View(_)));
            (reads || !read_only) && contains(view, &binding.view)
        });
        match written || of(self.scratch) || (reads && of(self.inputs)) {
            true => Ok(()),
            false if !reads && of(self.inputs) => {
                Err("writes an input of the op that no output updates in place (Op::alias)".into())
            }
            false => Err("is outside the op's inputs, outputs and scratch memory".into()),
        }
    }
}

/// Whether `whole` contains `part`.
fn contains(whole: &View, part: &View) -> bool {
    let (outer, inner) = (whole.span(), part.span());
    whole.slot == part.slot && outer.start <= inner.start && inner.end <= outer.end
}
