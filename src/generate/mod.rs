//! Generation: caches, sampling, streams of tokens.

mod generator;
mod sampling;
mod session;

pub use generator::{GenerateLimits, Generator, TextOf};
pub use sampling::{SamplingOptions, sample};
pub use session::{Answer, Finish, Token};
