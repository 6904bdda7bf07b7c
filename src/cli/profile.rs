//! `wgformer profile`: the time of a step by kernel and part.

use super::args::ProfileArgs;
use super::device::Device;
use super::{model, outln, print_json, table};
use crate::bench::Step;
use crate::error::Result;
use crate::program::Profile;
use serde_json::json;
use std::process::ExitCode;

pub(super) fn run(options: &ProfileArgs) -> Result<ExitCode> {
    let device = Device::open(&options.common)?;
    let gpu = device.gpu.clone();
    let (model, storage) = model::of_step(&options.step)?;
    let size = model::step_size(&options.step, model.as_ref())?;
    let step = Step::prepare(&gpu, options.step.step.into(), &model, &storage, size)?;
    let profile = step.program.profile_median(options.runs)?;
    let write_trace = || match &options.trace {
        Some(path) => crate::io::write_atomic(path, profile.trace().to_string().as_bytes()),
        None => Ok(()),
    };
    if options.common.json {
        let kernels: Vec<_> = profile.by_kernel();
        print_json(&json!({
            "adapter": gpu.info().name,
            "parameters": model.parameter_count()?,
            "tokens": step.tokens,
            "clock": if gpu.caps().timestamps { "gpu" } else { "cpu" },
            "runs": options.runs,
            "nanoseconds": profile.total(),
            "encode_nanoseconds": profile.encode,
            "kernels": kernels.iter().map(|(name, sum)| json!({ "kernel": name, "time": sum })).collect::<Vec<_>>(),
            "parts": profile.by_part().iter().map(|(name, sum)| json!({ "part": name, "time": sum })).collect::<Vec<_>>(),
            "launches": profile.launches,
        }))?;
        write_trace()?;
        return Ok(ExitCode::SUCCESS);
    }
    outln!("{}", model::headline(&options.step, model.as_ref(), &gpu)?)?;
    if !gpu.caps().timestamps {
        outln!("the adapter has no timestamps: launches are timed one by one, including the submission of each")?;
    }
    print_parts(&profile)?;
    outln!("{profile}")?;
    write_trace()?;
    if let Some(path) = &options.trace {
        outln!("trace written to {}; open it in https://ui.perfetto.dev", path.display())?;
    }
    Ok(ExitCode::SUCCESS)
}

fn print_parts(profile: &Profile) -> Result<()> {
    let total = profile.total().max(1) as f64;
    let mut table = table(&["part", "launches", "forward ms", "backward ms", "ms", "share"]);
    for (part, time) in profile.by_part() {
        let milliseconds = |nanoseconds: u64| match nanoseconds {
            0 => String::new(),
            _ => format!("{:.3}", nanoseconds as f64 / 1e6),
        };
        let share = format!("{:.1} %", 100.0 * time.total() as f64 / total);
        let [forward, backward, both] = [time.forward, time.backward, time.total()].map(milliseconds);
        table.add_row([part, time.launches.to_string(), forward, backward, both, share]);
    }
    outln!("{table}")
}
