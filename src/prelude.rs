//! What most programs name: `use wgformer::prelude::*`.
//!
//! ```
//! use wgformer::prelude::*;
//!
//! # fn main() -> Result<()> {
//! let mut g = Graph::new();
//! let x = g.input("x", [2, 3], DType::F32)?;
//! let y = ops::scale(&mut g, x, 2.0)?;
//! g.output("y", y)?;
//! let gpu = Gpu::choose(None)?;
//! let program = Program::new(&gpu, &g, &Weights::new(&gpu))?;
//! program.write("x", bytemuck::cast_slice(&[1.0_f32, 2.0, 3.0, 4.0, 5.0, 6.0]))?;
//! program.run()?;
//! assert_eq!(program.read_f32("y")?, [2.0, 4.0, 6.0, 8.0, 10.0, 12.0]);
//! # Ok(())
//! # }
//! ```

pub use crate::error::{Error, Result};
pub use crate::generate::{
    Answer, BeamOptions, BeamSearch, Finish, GenerateLimits, GenerationSettings, Generator, SamplingOptions, Scheduler,
    SchedulerEvent, SchedulerLimits, TokenRules,
};
pub use crate::gpu::{AdapterClass, Caps, Gpu, GpuOptions};
pub use crate::graph::{Graph, Tensor};
#[cfg(feature = "tokenizers")]
pub use crate::io::Conversation;
pub use crate::io::{Config, ModelFolder, Tokenizer};
pub use crate::models::{self, Decoder, Encoder, Model};
pub use crate::program::{Program, Recording, Weights};
pub use crate::shape::{Shape, TensorType};
#[cfg(feature = "tokenizers")]
pub use crate::tasks::TextEmbedder;
pub use crate::train::{Event, LanguageModel, Objective, Outcome, RunOptions, Trainer};
pub use crate::{DType, nn, ops};
