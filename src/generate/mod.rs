//! Generation: caches, sampling, streams of tokens.

mod generator;
mod rules;
mod sampling;
mod session;
mod settings;
mod text;

pub use crate::io::TextOf;
pub use generator::{GenerateLimits, Generator};
pub use rules::TokenRules;
pub use sampling::{SamplingOptions, sample};
pub use session::{Answer, Finish, Token};
pub use settings::GenerationSettings;
