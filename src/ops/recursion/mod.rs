//! Recursions of different depth: selection of tokens, losses of routers, slots of caches.

mod argmax_rows;
mod balance_loss;
mod claim_slots;
mod keep_positions;
mod pick;
mod router;
mod router_stats;
mod row_entropy;
pub(super) mod select;
mod selection_loss;
pub(crate) mod warm_capacity;

pub use argmax_rows::argmax_rows;
pub use balance_loss::{balance_loss, balance_loss_and_shares};
pub use claim_slots::{Claimed, claim_slots};
pub use keep_positions::keep_positions;
pub use pick::pick;
pub use router::RouterLoss;
pub use router_stats::Assignment;
pub(crate) use router_stats::STATS_TAIL;
pub use router_stats::router_stats;
pub use row_entropy::{binary_entropy, row_entropy};
pub use select::{NONE, SelectOptions, SelectRule, Selected, select};
pub use selection_loss::selection_loss;
pub use warm_capacity::warm_capacity;

use crate::case::Case;

/// The conformance cases of the ops.
pub(super) fn cases() -> Vec<Case> {
    [
        argmax_rows::cases(),
        balance_loss::cases(),
        claim_slots::cases(),
        keep_positions::cases(),
        pick::cases(),
        router_stats::cases(),
        select::cases(),
        selection_loss::cases(),
        warm_capacity::cases(),
    ]
    .into_iter()
    .flatten()
    .collect()
}
