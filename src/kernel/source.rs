//! Kernels and snippets as texts, and which of them are trusted.

use std::fmt;

/// A kernel: one WGSL file with one entry point of the same name.
///
/// wgpu compiles it with checks: an index outside its binding accesses another element *of* that binding, or nothing, and workgroup memory
/// starts as zero. [`Kernel::trusted`] leaves the checks out.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct Kernel {
    /// The name of the entry point and of the file, without folder and extension.
    pub name: &'static str,
    /// The file without its extension; for the crate's own, its path below `shaders/`.
    pub(super) file: &'static str,
    /// The file's text.
    pub source: &'static str,
    trust: Trust,
}

/// The authority that allows compiling a text without checks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Trust {
    /// None: it is compiled with checks.
    Checked,
    /// The crate, in launches that its own ops make from shapes that they have checked.
    Own,
    /// The author, for every launch.
    Author,
}

impl Kernel {
    /// A kernel from its name and text.
    #[must_use]
    pub const fn new(name: &'static str, source: &'static str) -> Self {
        Self { name, file: name, source, trust: Trust::Checked }
    }

    /// A kernel that is compiled without checks, for speed (a few percent on most GPUs; more where loads are few).
    ///
    /// A dispatch is unchecked only if its kernel and all its snippets are trusted.
    ///
    /// # Safety
    /// In every dispatch of the text, with any parameters, constants, bindings, number of workgroups and contents of bindings:
    ///
    /// * each index into a binding is below the `arrayLength` of that binding, and each index into an array, vector or matrix is below
    ///   its length;
    /// * each variable of a workgroup's memory is written before it is read;
    /// * each loop ends.
    #[must_use]
    #[allow(unsafe_code, reason = "the promise about the text cannot be checked")]
    pub const unsafe fn trusted(name: &'static str, source: &'static str) -> Self {
        Self { name, file: name, source, trust: Trust::Author }
    }

    /// One of the crate's own: see [`kernel!`].
    ///
    /// # Safety
    /// The conditions of [`Kernel::trusted`], in every dispatch that an op of the crate makes from inputs that passed its shape rule.
    #[allow(unsafe_code, reason = "the promise about the text cannot be checked")]
    pub(crate) const unsafe fn own(file: &'static str, source: &'static str) -> Self {
        Self { name: stem(file), file, source, trust: Trust::Own }
    }

    /// Whether it is compiled without checks in a launch of an op of the crate (`own`) or of another op.
    pub(super) fn is_trusted(&self, own: bool) -> bool {
        match self.trust {
            Trust::Checked => false,
            Trust::Own => own,
            Trust::Author => true,
        }
    }
}

/// The part behind the last slash.
const fn stem(file: &'static str) -> &'static str {
    let mut at = file.len();
    while at > 0 && file.as_bytes()[at - 1] != b'/' {
        at -= 1;
    }
    file.split_at(at).1
}

/// The kernel or snippet in a file of `shaders/`, by its path without extension (`kernel!("norm/norm_threads")`): the only place where the
/// crate trusts its own texts.
macro_rules! kernel {
    ($file:expr) => {{
        #[allow(unsafe_code, reason = "the crate's own texts are trusted here, and nowhere else")]
// SAFETY: the ops' shape rules check the sizes that bound the kernels' indices, and kernels guard indices that come out of buffers.
        // The conformance suite also runs them with checks and compares, and a test feeds hostile indices.
        const KERNEL: $crate::kernel::Kernel = unsafe {
            $crate::kernel::Kernel::own($file, include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/shaders/", $file, ".wgsl")))
        };
        KERNEL
    }};
}
pub(crate) use kernel;

/// A shared piece of WGSL: functions and aliases for kernels, without an entry point. A constant gives the number of a binding in it.
pub type Snippet = Kernel;

/// A constant that goes in front of a kernel's text.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum Constant {
    /// `const NAME: u32`
    U32(u32),
    /// `const NAME: f32`
    F32(f32),
    /// `const NAME: bool`
    Bool(bool),
}

impl From<u32> for Constant {
    fn from(value: u32) -> Self {
        Self::U32(value)
    }
}

impl From<f32> for Constant {
    fn from(value: f32) -> Self {
        Self::F32(value)
    }
}

impl From<bool> for Constant {
    fn from(value: bool) -> Self {
        Self::Bool(value)
    }
}

impl fmt::Display for Constant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::U32(value) => write!(f, "{value}u"),
            Self::F32(value) => write!(f, "{value:?}f"),
            Self::Bool(value) => write!(f, "{value}"),
        }
    }
}
