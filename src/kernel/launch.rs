//! What an op sees when it is recorded: its tensors, the adapter's abilities, and where its dispatches go.

use super::{Dispatch, View};
use crate::dtype::DType;
use crate::error::Result;
use crate::shape::Shape;

/// The kind of adapter, as far as the choice of kernels goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AdapterClass {
    /// A graphics processor.
    Gpu,
    /// A driver that runs shaders on the CPU.
    Cpu,
}

/// What an adapter can do: plain data, so that a step can be recorded for an adapter that is not there.
#[derive(Clone, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub struct Caps {
    /// The adapter's name.
    pub name: String,
    /// GPU or CPU.
    pub class: AdapterClass,
    /// The subgroup size, if subgroup functions are there and the size is the same everywhere.
    pub subgroup: Option<u32>,
    /// 16-bit float arithmetic in shaders.
    pub f16: bool,
    /// Timestamps inside a pass.
    pub timestamps: bool,
    /// Invocations of a workgroup.
    pub max_invocations: u32,
    /// Bytes of workgroup memory.
    pub workgroup_memory: u32,
    /// Storage buffers of a shader.
    pub storage_bindings: u32,
    /// Bytes of one storage binding.
    pub max_binding_bytes: u64,
    /// Bytes of one buffer.
    pub max_buffer_bytes: u64,
    /// Alignment of binding offsets in bytes.
    pub offset_alignment: u64,
    /// Workgroups in one dimension of a dispatch.
    pub max_groups: u32,
}

impl Caps {
    /// The least that any WebGPU adapter offers: the portable variants of all kernels fit.
    #[must_use]
    pub fn baseline() -> Self {
        Self {
            name: "baseline".into(),
            class: AdapterClass::Gpu,
            subgroup: None,
            f16: false,
            timestamps: false,
            max_invocations: 256,
            workgroup_memory: 16384,
            storage_bindings: 8,
            max_binding_bytes: 128 << 20,
            max_buffer_bytes: 256 << 20,
            offset_alignment: 256,
            max_groups: 65535,
        }
    }
}

/// What an op sees when it is recorded.
#[derive(Debug)]
pub struct Launch<'a> {
    caps: &'a Caps,
    inputs: &'a [View],
    outputs: &'a [View],
    next_slot: usize,
    scratch: Vec<View>,
    dispatches: Vec<Dispatch>,
}

impl<'a> Launch<'a> {
    /// A launch of an op with these tensors; slots from `next_slot` on are free for scratch memory.
    #[must_use]
    pub fn new(caps: &'a Caps, inputs: &'a [View], outputs: &'a [View], next_slot: usize) -> Self {
        Self { caps, inputs, outputs, next_slot, scratch: Vec::new(), dispatches: Vec::new() }
    }

    /// The adapter's abilities.
    #[must_use]
    pub fn caps(&self) -> &'a Caps {
        self.caps
    }

    /// Input `index`.
    #[must_use]
    pub fn input(&self, index: usize) -> View {
        self.inputs[index].clone()
    }

    /// Output `index`.
    #[must_use]
    pub fn output(&self, index: usize) -> View {
        self.outputs[index].clone()
    }

    /// The number of inputs.
    #[must_use]
    pub fn input_count(&self) -> usize {
        self.inputs.len()
    }

    /// Memory that only this op's dispatches use.
    pub fn scratch(&mut self, shape: impl Into<Shape>, dtype: DType) -> View {
        let view = View { slot: self.next_slot + self.scratch.len(), start: 0, shape: shape.into(), dtype };
        self.scratch.push(view.clone());
        view
    }

    /// Records a dispatch.
    ///
    /// # Errors
    /// None today; the limits of the adapter are checked when the recording is planned.
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
