//! A dispatch as plain data.

use super::{Constant, Kernel, Snippet};
use crate::dtype::DType;
use crate::shape::Shape;
use crate::software::page_strided;
use std::ops::Range;

/// A tensor as a dispatch binds it: a range of a slot, a shape and an element type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct View {
    /// The slot: a number that the planner maps to a buffer and an offset.
    pub slot: usize,
    /// The offset of the view in its slot, in elements.
    pub start: usize,
    /// The extents.
    pub shape: Shape,
    /// The element type.
    pub dtype: DType,
}

impl View {
    /// The number of elements.
    #[must_use]
    pub fn numel(&self) -> usize {
        self.shape.numel()
    }

    /// Bytes in memory.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.dtype.bytes(self.numel())
    }

    /// The byte range of the slot that the view spans; the whole slot if it is quantised, since quants and scales are stored apart.
    #[must_use]
    pub(crate) fn span(&self) -> Range<u64> {
        if self.dtype.is_quantised() {
            return 0..u64::MAX;
        }
        let start = self.dtype.bytes(self.start);
        start..start.saturating_add(self.bytes())
    }

    /// The words of a quantised view's quants and those of its scales; `whole` is the number of weights of its tensor.
    #[must_use]
    pub fn blocks(&self, whole: usize) -> [Self; 2] {
        let words =
            |start: usize, count: usize| Self { slot: self.slot, start, shape: [count].into(), dtype: DType::U32 };
        let (block, per_block, scales) = (self.dtype.block(), self.dtype.quant_words(), self.dtype.scale_words());
        let (first, count) = (self.start / block, self.numel() / block);
        let first_scale = self.dtype.first_scale(whole) + first * scales;
        [words(first * per_block, count * per_block), words(first_scale, count * scales)]
    }

    /// A range of the elements, as one axis.
    #[must_use]
    pub fn window(&self, range: &Range<usize>) -> Self {
        Self { slot: self.slot, start: self.start + range.start, shape: Shape::new([range.len()]), dtype: self.dtype }
    }
}

/// The access of a dispatch to a binding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Access {
    /// `var<storage, read>`
    Read,
    /// `var<storage, read>` in the kernel's text; a CPU driver reads it through a texture of four words a texel.
    #[doc(hidden)]
    Texture {
        /// A storage texture, not a sampled one.
        storage: bool,
        /// The texture is a view of the tensor's own memory; otherwise the program copies the tensor first.
        shared: bool,
    },
    /// `var<storage, read_write>`; every element is written before it is read.
    Write,
    /// `var<storage, read_write>`; the old content is read.
    Update,
}

impl Access {
    /// Whether the dispatch leaves the tensor unchanged.
    #[must_use]
    pub fn only_reads(self) -> bool {
        matches!(self, Self::Read | Self::Texture { .. })
    }

    /// Whether the tensor is bound as a buffer.
    #[must_use]
    pub(crate) fn is_buffer(self) -> bool {
        !matches!(self, Self::Texture { .. })
    }
}

/// One binding of a dispatch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Binding {
    /// The tensor.
    pub view: View,
    /// How the dispatch accesses it.
    pub access: Access,
    /// The row stride is a multiple of a page and the kernel reads many rows together, so rows compete for few cache sets: where it reads
    /// through textures, a copy with padded rows pays.
    pub(crate) page_strided: bool,
}

impl Binding {
    /// A tensor and how it is accessed.
    #[must_use]
    pub fn new(view: View, access: Access) -> Self {
        Self { view, access, page_strided: false }
    }
}

/// One kernel launch: plain data that prints, compares and can be replayed on any device.
#[derive(Clone, Debug)]
pub struct Dispatch {
    /// The kernel.
    pub kernel: &'static Kernel,
    /// A dotted path for people: the node's label, set by the recorder.
    pub label: String,
    /// Constants of this variant, in the order of their declaration.
    pub constants: Vec<(&'static str, Constant)>,
    /// Shared texts in front of the kernel.
    pub snippets: Vec<&'static Snippet>,
    /// The words of `Params` after `base` and `groups`.
    pub params: Vec<u32>,
    /// Storage and texture bindings, from `@binding(1)` on.
    pub bindings: Vec<Binding>,
    /// Workgroups.
    pub groups: u32,
    /// Floating-point operations; a multiply-add counts as two.
    pub flops: u64,
    /// Whether the kernel copies its parameters to registers before anything else.
    #[doc(hidden)]
    pub params_first: bool,
    /// Whether an op of the crate made the launch from tensors that passed its shape rule. Set by the recorder.
    pub(crate) own: bool,
    /// Whether a parameter or the number of workgroups exceeds 32 bits.
    pub(crate) too_large: bool,
}

impl Dispatch {
    /// A launch of `kernel` with nothing bound yet.
    #[must_use]
    pub fn new(kernel: &'static Kernel) -> Self {
        Self {
            kernel,
            label: String::new(),
            constants: Vec::new(),
            snippets: Vec::new(),
            params: Vec::new(),
            bindings: Vec::new(),
            groups: 1,
            flops: 0,
            params_first: false,
            own: false,
            too_large: false,
        }
    }

    /// Puts `const name = value;` in front of the text.
    #[must_use]
    pub fn constant(mut self, name: &'static str, value: impl Into<Constant>) -> Self {
        self.constants.push((name, value.into()));
        self
    }

    /// Puts a shared text in front of the kernel; a repeated one is added once.
    #[must_use]
    pub fn snippet(mut self, snippet: &'static Snippet) -> Self {
        if !self.snippets.contains(&snippet) {
            self.snippets.push(snippet);
        }
        self
    }

    /// Appends an unsigned word to `Params`. A value beyond 32 bits is refused when memory is planned.
    #[must_use]
    pub fn param(mut self, value: usize) -> Self {
        self.params.push(u32::try_from(value).unwrap_or(u32::MAX));
        self.too_large |= u32::try_from(value).is_err();
        self
    }

    /// Appends a float to `Params`.
    #[must_use]
    pub fn param_f32(mut self, value: f32) -> Self {
        self.params.push(value.to_bits());
        self
    }

    /// Binds a tensor that is read.
    #[must_use]
    pub fn read(self, view: View) -> Self {
        self.bind(view, Access::Read)
    }

    /// Binds a tensor of which the kernel reads many rows together, `row` bytes apart, each element `uses` times.
    #[must_use]
    pub(crate) fn read_strided(mut self, view: View, row: u64, uses: usize) -> Self {
        self.bindings.push(Binding { page_strided: page_strided(row, uses), ..Binding::new(view, Access::Read) });
        self
    }

    /// Binds a tensor that is written in full.
    #[must_use]
    pub fn write(self, view: View) -> Self {
        self.bind(view, Access::Write)
    }

    /// Binds a tensor that is read and written.
    #[must_use]
    pub fn update(self, view: View) -> Self {
        self.bind(view, Access::Update)
    }

    fn bind(mut self, view: View, access: Access) -> Self {
        self.bindings.push(Binding::new(view, access));
        self
    }

    /// Sets the number of workgroups, which must fit 32 bits. A launch of none is left out.
    #[must_use]
    pub fn groups(mut self, groups: usize) -> Self {
        self.groups = u32::try_from(groups).unwrap_or(u32::MAX);
        self.too_large |= u32::try_from(groups).is_err();
        self
    }

    /// Sets the number of workgroups of `size` that cover `invocations`.
    #[must_use]
    pub fn groups_for(self, invocations: usize, size: usize) -> Self {
        self.groups(invocations.div_ceil(size))
    }

    /// Sets the number of floating-point operations.
    #[must_use]
    pub fn flops(mut self, flops: u64) -> Self {
        self.flops = flops;
        self
    }

    /// Whether the text is compiled without wgpu's checks: all its parts are trusted ([`Kernel::trusted`]). The crate's own parts are trusted
    /// only in launches of the crate's ops.
    #[must_use]
    pub fn is_trusted(&self) -> bool {
        self.snippets.iter().chain([&self.kernel]).all(|part| part.is_trusted(self.own))
    }

    /// Bytes of all bindings, updates counted twice: a lower bound of the traffic.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        let once = |b: &Binding| b.view.bytes() * if b.access == Access::Update { 2 } else { 1 };
        self.bindings.iter().map(once).sum()
    }
}
