//! Arguments for low-rank adapters: `wgformer train --lora` and `wgformer convert`.

use super::{Common, InferenceStorage};
use crate::cli::numbers::{positive, rate};
use crate::models::lora::{LoraConfig, Targets};
use clap::Args;
use std::path::{Path, PathBuf};

#[derive(Clone, Debug, Args)]
pub(in crate::cli) struct LoraArgs {
    /// Train low-rank adapters of this rank beside the weights of --from, which stay as they are (LoRA); the result is a folder as
    /// Python's peft has it
    #[arg(long, value_name = "RANK", value_parser = positive, requires = "from", conflicts_with_all = ["dtype", "mor", "moe"])]
    pub(in crate::cli) lora: Option<usize>,
    /// The adapters' results are multiplied by this number over the rank [default: twice the rank]
    #[arg(long, value_name = "NUMBER", requires = "lora")]
    pub(in crate::cli) lora_alpha: Option<f64>,
    /// Linear layers with an adapter, by the ends of their names, for example q_proj,v_proj [default: all of the blocks]
    #[arg(long, value_name = "NAMES", value_delimiter = ',', requires = "lora")]
    pub(in crate::cli) lora_targets: Vec<String>,
    /// The share of an adapter's input that is dropped
    #[arg(long, value_name = "RATE", default_value_t = 0.0, value_parser = rate, requires = "lora")]
    pub(in crate::cli) lora_dropout: f64,
    /// Divide alpha by the root of the rank, so that high ranks learn as fast (rsLoRA)
    #[arg(long, requires = "lora")]
    pub(in crate::cli) rslora: bool,
    /// Modules to train as a whole beside the adapters, for example lm_head
    #[arg(long, value_name = "NAMES", value_delimiter = ',', requires = "lora")]
    pub(in crate::cli) lora_whole: Vec<String>,
    /// Storage type of the weights that stay as they are, also of 4 bits (QLoRA) [default: as in the file]
    #[arg(long, value_enum, value_name = "TYPE", requires = "lora")]
    pub(in crate::cli) lora_base: Option<InferenceStorage>,
}

impl LoraArgs {
    /// The adapters of a model from that folder, if some are asked for.
    pub(in crate::cli) fn config(&self, from: &Path) -> Option<LoraConfig> {
        let rank = self.lora?;
        let base = from.canonicalize().unwrap_or_else(|_| from.to_owned());
        Some(LoraConfig {
            rank,
            alpha: self.lora_alpha.unwrap_or(2.0 * rank as f64),
            dropout: self.lora_dropout as f32,
            rslora: self.rslora,
            targets: match self.lora_targets.as_slice() {
                [] => Targets::AllLinear,
                names => Targets::Names(names.to_vec()),
            },
            modules_to_save: self.lora_whole.clone(),
            base: base.to_string_lossy().into_owned(),
            ..LoraConfig::default()
        })
    }
}

#[derive(Debug, Args)]
pub(in crate::cli) struct ConvertArgs {
    #[command(flatten)]
    pub(in crate::cli) common: Common,
    /// The model: a folder with config.json, model.safetensors, tokenizer.json, the folder of an adapter, or a GGUF file
    #[arg(value_name = "MODEL")]
    pub(in crate::cli) model: PathBuf,
    /// The folder of a LoRA adapter for the model, as Python's peft has it
    #[arg(long, value_name = "DIR")]
    pub(in crate::cli) lora: Option<PathBuf>,
    /// The new folder, or a new file whose name ends in .gguf
    #[arg(value_name = "OUT")]
    pub(in crate::cli) out: PathBuf,
    /// Type of the matrices; a GGUF file may have any, a folder f32, f16 or bf16 [default: f32, of a GGUF file f16]
    #[arg(long, value_enum)]
    pub(in crate::cli) dtype: Option<InferenceStorage>,
}
