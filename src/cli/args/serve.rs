//! Arguments of `wgformer serve`.

use super::{CacheStorage, Common, InferenceStorage};
use crate::cli::numbers::{positive, ratio};
use clap::Args;
use std::net::IpAddr;
use std::path::PathBuf;

#[derive(Debug, Args)]
#[command(
    after_help = "The key of --api-key may be in $WGFORMER_API_KEY instead, where other users of the machine do not see it."
)]
pub(in crate::cli) struct ServeArgs {
    #[command(flatten)]
    pub(in crate::cli) common: Common,
    /// The model: a folder with config.json, model.safetensors, tokenizer.json, or a GGUF file. A decoder answers chats and completions, an
    /// encoder makes vectors
    #[arg(value_name = "MODEL")]
    pub(in crate::cli) model: PathBuf,
    /// The folder of an encoder that makes vectors, beside a decoder
    #[arg(long, value_name = "DIR")]
    pub(in crate::cli) embedding_model: Option<PathBuf>,
    /// The folder of a LoRA adapter for the model, as Python's peft has it
    #[arg(long, value_name = "DIR")]
    pub(in crate::cli) lora: Option<PathBuf>,
    /// Storage type of matrices; quantised types round to the nearest value [default: as in the file]
    #[arg(long, value_enum)]
    pub(in crate::cli) dtype: Option<InferenceStorage>,
    /// The address to listen at; other machines can connect to 0.0.0.0
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1")]
    pub(in crate::cli) host: IpAddr,
    /// The port; 0: a free one
    #[arg(long, default_value_t = 8080)]
    pub(in crate::cli) port: u16,
    /// The model's name for clients [default: that of its folder or file]
    #[arg(long)]
    pub(in crate::cli) name: Option<String>,
    /// The key that clients must give [default: none is asked for]
    #[arg(long, value_name = "KEY")]
    pub(in crate::cli) api_key: Option<String>,
    /// Prompts that are answered at once
    #[arg(long, value_name = "COUNT", default_value_t = 8, value_parser = positive)]
    pub(in crate::cli) parallel: usize,
    /// Prompts that wait; those beyond are refused (status 429)
    #[arg(long, value_name = "COUNT", default_value_t = 56, value_parser = positive)]
    pub(in crate::cli) queue: usize,
    /// The most tokens of a prompt and its answer together [default: the model's maximum, at most 4096]
    #[arg(long, value_parser = positive)]
    pub(in crate::cli) context: Option<usize>,
    /// Tokens that the cache has room for, of all prompts and answers together [default: twice --context]
    #[arg(long, value_name = "COUNT", value_parser = positive)]
    pub(in crate::cli) cache_tokens: Option<usize>,
    /// Storage type of the keys and values in the cache: half or a quarter of the memory, and of what a long text makes a token cost
    #[arg(long, value_enum, default_value = "f32")]
    pub(in crate::cli) cache: CacheStorage,
    /// The most tokens of an answer [default: as many as --context leaves]
    #[arg(long, short = 'n', value_name = "COUNT", value_parser = positive)]
    pub(in crate::cli) max_tokens: Option<usize>,
    /// The most seconds of a request
    #[arg(long, value_name = "SECONDS", default_value_t = 600.0, value_parser = ratio)]
    pub(in crate::cli) timeout: f64,
}
