//! Kernels as data: WGSL files, the dispatches that name them, and the shader text assembled from both.
//!
//! Conventions of every kernel:
//!
//! * The entry point is named like the file.
//! * `@binding(0)` is `var<uniform> p: Params`, a struct of 4-byte members that begins with `base: u32, groups: u32`.
//!   The grid is one-dimensional: a workgroup's index is `p.base + w.x + w.y * n.x` (`w` the workgroup id, `n` the
//!   number of workgroups), and a workgroup whose index is `p.groups` or more returns at once. So long dispatches
//!   can be cut into ranges, and grids past 65,535 folded into two dimensions, without a change of the kernel. CPU drivers get a text that
//!   copies `p` first (the room `software`).
//! * Then come the storage bindings in the order of the calls of [`Dispatch::read`], [`Dispatch::write`] and
//!   [`Dispatch::update`], each declared in a line of its own. Read-only ones become textures on CPU drivers (the same).
//! * A type that is constructed or zeroed has one name in a text: either the alias `Block` or `array<vec4f, 4>`, not both. naga writes
//!   HLSL helpers for each name, and no compiler accepts them twice.
//! * No index leaves a binding, for any content of the bindings: every load and store of the crate's kernels is guarded by the kernel itself,
//!   because they are compiled without wgpu's checks. Kernels of applications are compiled with them ([`Kernel::new`]).

mod assemble;
mod dispatch;
mod elements;
mod launch;
mod source;

pub use crate::gpu::{AdapterClass, Caps, Dialect, MatrixUnits, TunedVariants};
pub use assemble::{ShaderText, assemble};
pub use dispatch::{Access, Binding, Dispatch, View};
pub use elements::{elements, width};
pub use launch::{Launch, TuningProblem};
pub(crate) use source::kernel;
pub use source::{Constant, Kernel, Snippet};
