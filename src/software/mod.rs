//! Code for CPU drivers, which are recognised by name: tensors that are read through textures, parameters that are copied first, waits
//! that spin.
//!
//! Other rooms use it in a few lines: [`Quirks`] are part of `Caps`; `gpu` gets memory, waits and the type of a binding, `kernel` adapted
//! texts, `program` adapted launches and prepared textures. Without the feature `software-drivers` only the quirks that results depend on
//! are compiled, and such a driver is treated as a slow GPU.

mod probe;
mod quirks;

pub(crate) use probe::{has_to_prove, proven};
pub use quirks::{Driver, Options, Quirks, Textures};

#[cfg(not(feature = "software-drivers"))]
mod absent;
#[cfg(all(feature = "software-drivers", not(any(target_arch = "wasm32", target_vendor = "apple"))))]
mod memory;
#[cfg(all(feature = "software-drivers", any(target_arch = "wasm32", target_vendor = "apple")))]
#[path = "no_memory.rs"]
mod memory;
#[cfg(feature = "software-drivers")]
mod operands;
#[cfg(feature = "software-drivers")]
mod params;
#[cfg(feature = "software-drivers")]
mod spin;
#[cfg(feature = "software-drivers")]
mod stage;
#[cfg(feature = "software-drivers")]
mod text;
#[cfg(feature = "software-drivers")]
mod texture;
#[cfg(feature = "software-drivers")]
mod texture_probe;

#[cfg(not(feature = "software-drivers"))]
pub(crate) use absent::{
    Copy, Operands, SharedMemory, Spin, adapt, adapt_text, page_strided, poll_lock_timeout, texture_binding,
    texture_bytes,
};
#[cfg(feature = "software-drivers")]
pub use stage::{Stage, Staging};
#[cfg(feature = "software-drivers")]
pub(crate) use {
    memory::SharedMemory,
    operands::{Copy, Operands, texture_bytes},
    spin::{Spin, poll_lock_timeout},
    text::{adapt, adapt_text, page_strided},
    texture::texture_binding,
};
