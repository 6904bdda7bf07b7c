//! Recursions of different depth: which tokens go on, what their routers pay, how caches follow.

mod claim_slots;
mod router;
mod router_sums;
pub(super) mod row_entropy;
pub(super) mod select;
pub(crate) mod warm_capacity;

pub use claim_slots::{Claimed, claim_slots};
pub use router::{RouterLoss, argmax_rows, balance_loss, balance_loss_and_shares, pick, selection_loss};
pub use router_sums::{BEHIND_LOADS, Sent, router_sums};
pub use row_entropy::{binary_entropy, row_entropy};
pub use select::{Choice, NONE, SelectOptions, Selected, select};
pub use warm_capacity::{WarmCapacity, warm_capacity};
