//! The conformance suite as library code: an application can run it on its users' GPUs.
//!
//! A [`Case`] builds a small graph. Its outputs and the gradients of its inputs are computed on the GPU and by the f64
//! references, and compared; the references' gradients are compared with finite differences. [`check_cases`] runs cases on a device and makes
//! a [`DeviceReport`]; reports of several devices are a [`CheckReport`], which is written as JSON and as tables.

pub mod cases;
#[cfg(feature = "files")]
mod generated;
#[cfg(feature = "files")]
mod golden;
mod known;
pub mod models;
mod report;
mod run;
mod suite;
mod timing;
#[cfg(feature = "files")]
mod trajectory;

pub use crate::case::{Case, Feed, Results, Tolerance};
#[cfg(feature = "files")]
pub use golden::{GoldenReport, GoldenRow, check_golden};
pub use known::KnownFailure;
pub use report::CheckReport;
pub use run::{CaseOptions, CaseRun, Comparison, kernels_of};
pub use suite::{
    DeviceReport, Miss, SuiteRow, check_cases, check_cases_async, check_cases_by, quick_cases, quick_cases_async,
};
pub use timing::{CaseTime, support_of, time_case};
#[cfg(feature = "files")]
pub use trajectory::{Figure, TrajectoryReport, TrajectoryRow, check_trajectory};
