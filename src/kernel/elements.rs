//! The vector width of loads: four f32 where sizes allow it.

use super::{Snippet, kernel};

static ELEMENTS4: Snippet = kernel!("common/elements4");
static ELEMENTS1: Snippet = kernel!("common/elements1");

/// The f32 values of one load for runs of `count` values: 4 if 4 divides `count`, else 1.
#[must_use]
pub fn width(count: usize) -> usize {
    if count.is_multiple_of(4) { 4 } else { 1 }
}

/// The snippet that defines `Element`, `WIDTH` and their helpers for a vector width.
#[must_use]
pub fn elements(width: usize) -> &'static Snippet {
    if width == 4 { &ELEMENTS4 } else { &ELEMENTS1 }
}
