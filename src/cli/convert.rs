//! `wgformer convert`: a model as a Hugging Face folder or a GGUF file, with its adapter merged into it.

use super::args::ConvertArgs;
use super::device::Device;
use super::{model, outln, output, print_json};
use crate::dtype::DType;
use crate::error::{Error, Result, human_bytes};
use crate::models;
use crate::tasks::Pooling;
use crate::tasks::apply::{EmbedSettings, TaskFile};
use serde_json::json;
use std::process::ExitCode;

pub(super) fn run(options: &ConvertArgs) -> Result<ExitCode> {
    let is_file = options.out.extension().is_some_and(|end| end.eq_ignore_ascii_case("gguf"));
    if options.out.exists() {
        let what = if is_file { "file" } else { "folder" };
        return Err(Error::format(&options.out, format!("exists: give the name of a new {what}")));
    }
    let dtype = options.dtype.map_or(if is_file { DType::F16 } else { DType::F32 }, DType::from);
    if !is_file && dtype.is_quantised() {
        let message = format!("folders hold no {dtype}: give a file whose name ends in .gguf, or f32, f16 or bf16");
        return Err(Error::input("dtype", message));
    }
    let device = Device::open(&options.common)?;
    let mut folder = model::opened(&options.model, options.lora.as_deref())?;
    // A file's matrices are rounded when they are written.
    let held = if is_file { DType::F32 } else { dtype };
    let (model, weights) = models::load_model(&device.gpu, &folder, held)?;
    let merged = weights.storage().adapters.as_ref().map_or(0, |adapters| adapters.layers.len());
    let mut report = json!({ "model": options.out, "merged_adapters": merged });
    let mut line = format!("model  {}", options.out.display());
    if is_file {
        if model.encoder().is_some() && model.decoder().is_none() {
            // Folders say it in other files, or mean the mean.
            let pooling = EmbedSettings::of_model(&folder, &TaskFile::of(&folder.path, model.as_ref())?)?.pooling;
            let name = Pooling::NAMES.iter().find(|(_, known)| *known == pooling).map(|(name, _)| *name);
            let mut config = folder.config.value().clone();
            config["pooling"] = json!(name);
            folder.config = folder.config.with_value(config);
        }
        let written = models::save_gguf(model.as_ref(), &weights, Some(&folder), &options.out, dtype)?;
        report["architecture"] = json!(written.architecture);
        report["bytes"] = json!(written.bytes);
        line = format!("{line}, {} of {dtype}", human_bytes(written.bytes));
        if written.others > 0 {
            output::note(format_args!(
                "[{} matrices have other types: their rows are no whole blocks, or they give the logits]",
                written.others
            ));
        }
        if let Some(why) = written.no_tokenizer {
            output::note(format_args!("[the file has no tokenizer: {why}]"));
        }
    } else {
        models::save(model.as_ref(), &weights, Some(&folder), &options.out)?;
    }
    if options.common.json {
        print_json(&report)?;
        return Ok(ExitCode::SUCCESS);
    }
    outln!("{line}")?;
    if merged > 0 {
        outln!("merged the adapters of {merged} layers")?;
    }
    Ok(ExitCode::SUCCESS)
}
