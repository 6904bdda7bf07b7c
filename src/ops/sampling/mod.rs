//! The choice of next tokens from logits, and the states of beams.

mod draw;
mod edit_logits;
mod reorder_beams;

pub use draw::{BANNED_ROW, DAMAGED_ROW, TokenChoice, draw};
pub use edit_logits::{BANNED_LOGIT, LogitEdit, edit_logits};
pub use reorder_beams::{MAX_BEAMS, reorder_beams};

use crate::case::Case;

/// The conformance cases of the ops.
pub(super) fn cases() -> Vec<Case> {
    [draw::cases(), edit_logits::cases(), reorder_beams::cases()].into_iter().flatten().collect()
}
