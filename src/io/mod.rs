//! Files: safetensors, GGUF, Hugging Face folders, tokenizers, checkpoints; trees over texts. Bytes and names, no models.
//!
//! Everything that is written is written to a temporary name, synced and renamed, so that a kill at any moment leaves the old
//! file or the new one. Everything that is read is checked, and errors name the file's path.
//!
//! Functions that open and save files need the feature `files`. Without it, as in a browser, models come from bytes:
//! [`safetensors::Tensors::from_bytes`] with [`Config::new`], [`gguf::from_bytes`]; [`safetensors::to_bytes`] gives them.
//! Texts are encoded with the feature `tokenizers`; without it a [`Tokenizer`] is only stored, and generation works on token ids.

#[cfg(feature = "files")]
mod adapter;
#[cfg(feature = "tokenizers")]
mod chat_template;
#[cfg(feature = "files")]
pub mod checkpoint;
#[cfg(feature = "files")]
mod checkpoint_record;
mod config;
mod convert;
#[cfg(feature = "files")]
mod device_cache;
#[cfg(feature = "files")]
mod encoding;
#[cfg(feature = "tokenizers")]
mod facts;
#[cfg(feature = "files")]
pub(crate) mod file;
pub mod folder;
pub mod gguf;
#[cfg(feature = "tokenizers")]
mod ordered;
#[cfg(feature = "tokenizers")]
mod pieces;
#[cfg(feature = "tokenizers")]
mod python;
mod ranges;
pub mod safetensors;
mod safetensors_write;
#[cfg(feature = "files")]
mod shards;
#[cfg(feature = "files")]
mod stored_zip;
mod tensor_ref;
mod text_stream;
#[cfg(feature = "tokenizers")]
pub mod tokenizer;
#[cfg(not(feature = "tokenizers"))]
#[path = "tokenizer_text.rs"]
pub mod tokenizer;
#[cfg(feature = "tokenizers")]
mod tokenizer_train;
#[cfg(feature = "files")]
mod torch;
#[cfg(feature = "files")]
mod torch_pickle;
pub mod tree_mask;
mod vocabulary;

#[cfg(feature = "files")]
pub(crate) use adapter::{ADAPTER_CONFIG, ADAPTER_WEIGHTS, AdapterFolder};
#[cfg(feature = "tokenizers")]
pub use chat_template::{ChatTemplate, Clock, Conversation};
#[cfg(feature = "files")]
pub use checkpoint::{Checkpoint, Checkpoints};
pub use config::Config;
pub use convert::FileType;
#[cfg(feature = "files")]
pub use device_cache::{load_pipelines, load_tuning, pipelines_file, save_pipelines, save_tuning, tuning_file};
#[cfg(feature = "files")]
pub(crate) use file::{read_json, read_text, write_atomic};
#[cfg(feature = "files")]
pub use folder::Contents;
pub use folder::{ModelFolder, TASK};
pub(crate) use ranges::part;
pub use safetensors::{NamedTensor, TensorRef, Tensors};
pub use text_stream::{TextOf, TextStream};
#[cfg(feature = "tokenizers")]
pub use tokenizer::Encoding;
pub use tokenizer::Tokenizer;
pub use tree_mask::Span;
