//! Which compiler takes a device's shader texts.

use super::Gpu;

/// Who compiles a shader text, which decides what stands in front of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Dialect {
    /// naga, the compiler within wgpu: it knows subgroup functions, and refuses the line that asks for them.
    Naga,
    /// A browser's compiler: what goes beyond plain WGSL is asked for in front (`enable subgroups;`).
    Browser,
}

impl Gpu {
    /// Who compiles this device's shader texts.
    #[must_use]
    pub fn dialect(&self) -> Dialect {
        match self.info().backend {
            wgpu::Backend::BrowserWebGpu => Dialect::Browser,
            _ => Dialect::Naga,
        }
    }
}
