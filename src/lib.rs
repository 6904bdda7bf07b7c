//! wgformer: a GPU compute engine for transformers on wgpu.
//!
//! A model is a [`Graph`] of symbolic ops. The graph is differentiated, planned and recorded once, and
//! every step then only encodes and submits what was prepared, on any vendor's GPU.
//!
//! # Features
//! All but the last are on by default.
//!
//! * `cli`: the `wgformer` command.
//! * `files`: opening and saving model folders, GGUF files, checkpoints. Without it models come from bytes and go to bytes.
//! * `tokenizers`: texts. Without it models are given token ids, and give them.
//! * `serve`: a server of models over HTTP.
//! * `software-drivers`: speed on drivers that compute on the CPU.
//! * `vulkan`, `gles`, `metal`, `dx12`: these backends of wgpu. Who adopts a device of the application needs none of them.
//! * `webgpu`: WebGPU in a browser (`wasm32-unknown-unknown`), with `tokenizers` or none of the others. A browser cannot be waited for, so that
//!   functions that wait are not there or give an error; the async ones are.
#![warn(missing_docs)]
// They panic where nothing can be written; the command has `say`.
#![warn(clippy::print_stdout, clippy::print_stderr)]

pub mod bench;
mod case;
pub mod check;
#[cfg(feature = "cli")]
pub mod cli;
pub mod dtype;
pub mod error;
pub mod generate;
pub mod gpu;
pub mod graph;
pub mod io;
pub mod kernel;
pub mod models;
pub mod nn;
pub mod ops;
pub mod prelude;
pub mod program;
pub mod quantised;
#[cfg(feature = "serve")]
pub mod serve;
pub mod shape;
#[doc(hidden)]
pub mod software;
pub mod tasks;
pub mod train;

pub use dtype::DType;
pub use error::{Error, Result};
pub use gpu::Gpu;
pub use graph::{Graph, Tensor};
pub use program::{Program, Recording, Weights};
pub use shape::{Shape, TensorType};
/// The wgpu whose devices, buffers and encoders this engine takes and gives.
pub use wgpu;

/// The examples of the README are compiled.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

/// Those of the guide as well.
#[cfg(doctest)]
#[doc = include_str!("../docs/guide/models.md")]
struct ModelsGuide;
#[cfg(all(doctest, feature = "serve"))]
#[doc = include_str!("../docs/guide/serve.md")]
struct ServeGuide;
