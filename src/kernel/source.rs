//! Kernels and snippets as texts, and whose indices are trusted.

use std::fmt;

/// A kernel: one WGSL file with one entry point of the same name.
///
/// wgpu compiles it with checks: an index that leaves its binding reads or writes something else *within* that binding, or nothing, and a
/// workgroup's memory is zero at first. [`Kernel::trusted`] leaves them out.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct Kernel {
    /// What the entry point is called, and the file without its folder and ending.
    pub name: &'static str,
    /// The file, without its ending: for the crate's own, its place below `shaders/`.
    pub(super) file: &'static str,
    /// The file's text.
    pub source: &'static str,
    trust: Trust,
}

/// Who answers for a text that is compiled without checks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Trust {
    /// Nobody.
    Checked,
    /// The crate, for launches that its own ops make of shapes that they have checked.
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

    /// A kernel that is compiled without checks, for the speed of it (a few percent on most GPUs; more where loads are few).
    ///
    /// A dispatch goes unchecked only if its kernel and all its snippets are trusted.
    ///
    /// # Safety
    /// In every dispatch that can be made of the text, with any parameters, constants, bindings and number of workgroups, and whatever
    /// the bindings hold:
    ///
    /// * each index into a binding is below the `arrayLength` of that binding, and each index into an array, vector or matrix is below
    ///   its length;
    /// * each variable of a workgroup's memory is written before it is read;
    /// * each loop ends.
    #[must_use]
    #[allow(unsafe_code, reason = "what is said of a text cannot be checked")]
    pub const unsafe fn trusted(name: &'static str, source: &'static str) -> Self {
        Self { name, file: name, source, trust: Trust::Author }
    }

    /// One of the crate's own: see [`kernel!`].
    ///
    /// # Safety
    /// In every dispatch that an op of the crate makes of inputs that its shape rule let through, whatever the inputs hold, the same as
    /// for [`Kernel::trusted`].
    #[allow(unsafe_code, reason = "what is said of a text cannot be checked")]
    pub(crate) const unsafe fn own(file: &'static str, source: &'static str) -> Self {
        Self { name: stem(file), file, source, trust: Trust::Own }
    }

    /// Whether it goes unchecked in a launch that an op of the crate (`own`), or another one, made.
    pub(super) fn is_trusted(&self, own: bool) -> bool {
        match self.trust {
            Trust::Checked => false,
            Trust::Own => own,
            Trust::Author => true,
        }
    }
}

/// What stands behind the last slash.
const fn stem(file: &'static str) -> &'static str {
    let mut at = file.len();
    while at > 0 && file.as_bytes()[at - 1] != b'/' {
        at -= 1;
    }
    file.split_at(at).1
}

/// The kernel or snippet in a file of `shaders/`, by its folder and name there without the ending (`kernel!("norm/norm_threads")`): the one
/// place where the crate trusts its own texts.
macro_rules! kernel {
    ($file:expr) => {{
        #[allow(unsafe_code, reason = "the crate's own texts are trusted here, and nowhere else")]
        // SAFETY: the kernels guard their indices by sizes that the ops' shape rules have checked, and those that come out of buffers by
        // themselves; the conformance suite runs them with checks as well and finds the same, and hostile indices are a test.
        const KERNEL: $crate::kernel::Kernel = unsafe {
            $crate::kernel::Kernel::own($file, include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/shaders/", $file, ".wgsl")))
        };
        KERNEL
    }};
}
pub(crate) use kernel;

/// A shared piece of WGSL: functions and aliases that kernels build on, without an entry point of its own. A binding in
/// it has its number from a constant.
pub type Snippet = Kernel;

/// A constant that goes in front of a kernel's text.
#[derive(Clone, Copy, Debug, PartialEq)]
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
