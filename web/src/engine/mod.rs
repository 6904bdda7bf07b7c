//! What a page does, without JavaScript: the tests run the same natively.

mod embed;
mod generate;
mod loaded;
mod train;

pub(crate) use generate::{GenerateOptions, Prompt};
pub(crate) use loaded::{LoadOptions, Loaded};
pub(crate) use train::{Step, TrainOptions, train};
