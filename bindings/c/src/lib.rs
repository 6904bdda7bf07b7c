//! wgformer for C: `include/wgformer.h` describes it.
//!
//! Every function catches panics, takes null pointers and bad UTF-8 for errors, and returns a code by the kind of its error. The text of a thread's last
//! error is kept for that thread: so signatures stay plain, nothing has to be freed, and threads do not see one another's errors.

mod failure;
pub mod gpu;
pub mod model;
pub mod options;
mod pointers;
pub mod text;
pub mod train;
