//! `wgformer convert`: a model as a Hugging Face folder, with its adapter merged into it.

use super::args::ConvertArgs;
use super::device::Device;
use super::{model, outln, print_json};
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::models;
use serde_json::json;
use std::process::ExitCode;

pub(super) fn run(options: &ConvertArgs) -> Result<ExitCode> {
    if options.out.exists() {
        return Err(Error::format(&options.out, "exists: give the name of a new folder"));
    }
    let device = Device::open(&options.common)?;
    let folder = model::opened(&options.model, options.lora.as_deref())?;
    let (model, weights) = models::load_model(&device.gpu, &folder, DType::from(options.dtype))?;
    models::save(model.as_ref(), &weights, Some(&folder), &options.out)?;
    let merged = weights.storage().adapters.as_ref().map_or(0, |adapters| adapters.layers.len());
    if options.common.json {
        print_json(&json!({ "model": options.out, "merged_adapters": merged }))?;
    } else {
        outln!("model  {}", options.out.display())?;
        if merged > 0 {
            outln!("merged the adapters of {merged} layers")?;
        }
    }
    Ok(ExitCode::SUCCESS)
}
