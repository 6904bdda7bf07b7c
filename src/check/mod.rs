//! The conformance suite as library code: an application can run it on its users' GPUs.
//!
//! A [`Case`] builds a small graph. Its outputs and the gradients of its inputs are computed on the GPU and by the f64
//! references, and compared; the references' gradients are compared with finite differences.

pub mod cases;
#[cfg(feature = "files")]
mod generated;
#[cfg(feature = "files")]
mod golden;
mod kernels;
mod run;
#[cfg(feature = "files")]
mod trajectory;

pub use crate::case::{Case, Feed, Tolerance};
#[cfg(feature = "files")]
pub use golden::{GoldenReport, GoldenRow, check_golden};
pub use kernels::{KernelReport, KernelRow, check_kernels, quick_cases};
pub use run::Comparison;
#[cfg(feature = "files")]
pub use trajectory::{Figure, TrajectoryReport, TrajectoryRow, check_trajectory};
