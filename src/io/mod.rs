//! Files: safetensors, GGUF, Hugging Face folders, tokenizers, checkpoints; trees over texts. Bytes and names, no models.
//!
//! Everything that is written is written to a temporary name, synced and renamed, so that a kill at any moment leaves the old
//! file or the new one. Everything that is read is checked, and what is wrong with it is said with the file's path.

pub mod checkpoint;
mod config;
mod convert;
pub mod file;
pub mod folder;
pub mod gguf;
mod kept;
pub mod safetensors;
pub mod structure;
pub mod tokenizer;

pub use checkpoint::{Checkpoint, Checkpoints};
pub use config::Config;
pub use convert::FileType;
pub use file::{read_json, read_text, write_atomic};
pub use folder::{Contents, ModelFolder};
pub use kept::{load_pipelines, load_tuning, pipelines_file, save_pipelines, save_tuning, tuning_file};
pub use safetensors::{NamedTensor, TensorRef, Tensors};
pub use structure::Span;
pub use tokenizer::{Encoding, TextStream, Tokenizer};
