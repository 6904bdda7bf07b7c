//! What exists only for drivers that compute on the CPU, which are known by their names: tensors that are read through textures,
//! parameters that are copied first, waits that stay awake.
//!
//! Other rooms meet it in a few places: [`Quirks`] stand in `Caps`; `gpu` asks for memory, waits and a binding's type, `kernel` has a
//! text adapted, `program` has launches adapted and textures prepared. Without the feature `software-drivers` nothing of it is compiled
//! but the quirks that results depend on, and such a driver is taken for a slow GPU.

mod probe;
mod quirks;

pub(crate) use probe::{has_to_prove, proven};
pub use quirks::{Driver, Options, Quirks, Textures};

#[cfg(not(feature = "software-drivers"))]
mod absent;
#[cfg(feature = "software-drivers")]
mod awake;
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
mod stage;
#[cfg(feature = "software-drivers")]
mod text;
#[cfg(feature = "software-drivers")]
mod texture;
#[cfg(feature = "software-drivers")]
mod texture_probe;

#[cfg(not(feature = "software-drivers"))]
pub(crate) use absent::{
    Awake, Copy, Operands, SharedMemory, adapt, adapt_text, crowded, patience, texture_binding, texture_bytes,
};
#[cfg(feature = "software-drivers")]
pub use stage::{Stage, Staging};
#[cfg(feature = "software-drivers")]
pub(crate) use {
    awake::{Awake, patience},
    memory::SharedMemory,
    operands::{Copy, Operands, texture_bytes},
    text::{adapt, adapt_text, crowded},
    texture::texture_binding,
};
