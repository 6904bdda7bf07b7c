//! Mixture of experts: dispatch of tokens to experts and back, entirely on the GPU.
//!
//! A gate gives every token `K` of `E` experts: its slots `t K + k`. [`route`] sorts the slots by expert, stably, so that each expert's rows
//! are contiguous; grouped products gather the token's row of each slot while loading, and the last step sums a token's slots in order. No
//! atomic counters and no float atomics: the same bits on every run. Nothing is dropped, whatever the distribution; a slot whose expert is
//! `E` or more has no expert and gives zeros.
//!
//! Gale et al., `MegaBlocks`, 2022 (arXiv 2211.15841); Tan et al., `ScatterMoE`, 2024 (arXiv 2403.08245); Guo et al., `SonicMoE`,
//! 2025 (arXiv 2512.14080), whose backward pass needs no expert outputs.

mod balance;
mod capacity;
mod cases;
mod combine;
mod expert_choice;
mod feed_forward;
mod gate;
mod gate_backward;
mod gate_cases;
pub(super) mod gate_options;
mod linear;
mod noise;
mod output;
mod slots;

pub use balance::{load_balance_loss, load_counts, load_factors, router_z_loss, routing_entropy, update_bias};
pub use capacity::limit_capacity;
pub use expert_choice::{ExpertSelection, expert_choice, expert_choice_by_scores, expert_choice_feed_forward};
pub use feed_forward::{ExpertWeights, expert_feed_forward};
pub use gate::top_k_gate;
pub use gate_options::{GateGroups, GateOptions, GateScores};
pub(crate) use linear::GroupedLinear;
pub use linear::grouped_linear;
pub use noise::noisy_logits;
pub use output::expert_output;
pub use slots::{ExpertDispatch, route};

use crate::case::Case;

/// The conformance cases of the ops.
pub(super) fn cases() -> Vec<Case> {
    [cases::cases(), gate_cases::cases(), balance::cases(), noise::cases(), expert_choice::cases()]
        .into_iter()
        .flatten()
        .collect()
}
