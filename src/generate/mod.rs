//! Generation: caches, sampling, beams, streams of tokens.

mod beams;
mod feed;
mod generator;
mod graphs;
mod hypotheses;
mod lookup;
mod pick;
mod prepare;
mod row;
mod rules;
mod sampling;
mod scheduler;
mod session;
mod settings;
mod text;
mod unsupported;
mod warp;

pub use crate::io::TextOf;
pub use beams::{BeamSearch, ScoredAnswer};
pub use generator::{GenerateLimits, Generator};
pub use hypotheses::{BeamOptions, EarlyStopping};
pub use pick::TokenPick;
pub use rules::TokenRules;
pub use sampling::SamplingOptions;
pub use scheduler::{RequestId, RequestToken, Scheduler, SchedulerEvent, SchedulerLimits, SchedulerStats};
pub use session::{Answer, Finish, Token};
pub use settings::GenerationSettings;
