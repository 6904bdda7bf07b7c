//! The WGSL dialect of the compiler behind a device.

use super::Gpu;

/// The compiler of a shader text, which decides the directives in front of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Dialect {
    /// naga, the compiler of wgpu: it has subgroup functions and refuses `enable subgroups;`.
    Naga,
    /// A browser's compiler: it demands a directive for every extension (`enable subgroups;`).
    Browser,
}

impl Gpu {
    /// The compiler of this device's shader texts.
    #[must_use]
    pub fn dialect(&self) -> Dialect {
        match self.info().backend {
            wgpu::Backend::BrowserWebGpu => Dialect::Browser,
            _ => Dialect::Naga,
        }
    }
}
