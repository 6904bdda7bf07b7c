//! The width of loads: four f32 at a time where sizes allow it.

use super::{Snippet, kernel};

static ELEMENTS4: Snippet = kernel!("common/elements4");
static ELEMENTS1: Snippet = kernel!("common/elements1");

/// How many f32 one load takes where runs of `count` of them are read: 4 if 4 divides it, else 1.
#[must_use]
pub fn width(count: usize) -> usize {
    if count.is_multiple_of(4) { 4 } else { 1 }
}

/// The shared text that defines `Element`, `WIDTH` and what goes with them for a width.
#[must_use]
pub fn elements(width: usize) -> &'static Snippet {
    if width == 4 { &ELEMENTS4 } else { &ELEMENTS1 }
}
