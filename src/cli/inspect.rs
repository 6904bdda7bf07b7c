//! `wgformer inspect`: shows the recording of a step of a model.

use super::args::InspectArgs;
use super::device::Device;
use super::{attention, model, outln, print_json, routing, table};
use crate::bench::step_graph;
use crate::error::{Result, human_bytes};
use crate::kernel::Dispatch;
use crate::program::{MemoryReport, Plan, Program, Recording, human_count};
use serde_json::json;
use std::collections::BTreeMap;
use std::process::ExitCode;

pub(super) fn run(options: &InspectArgs) -> Result<ExitCode> {
    if let Some(text) = &options.routing {
        return routing::run(options, text);
    }
    if let Some(text) = &options.attention {
        return attention::run(options, text);
    }
    let device = Device::open(&options.common)?;
    let gpu = &device.gpu;
    let (model, storage) = model::of_step(&options.step)?;
    let size = model::step_size(&options.step, model.as_ref())?;
    let recording = Program::record(gpu, &step_graph(options.step.step.into(), gpu.caps(), &model, &storage, size)?)?;
    let plan = Plan::new(&recording, gpu.caps())?;
    let memory = MemoryReport::new(&recording, &plan);
    if options.common.json {
        let mut value = json!({
            "adapter": gpu.info().name,
            "parameters": model.parameter_count()?,
            "dispatches": recording.dispatches.len(),
            "flops": recording.flops(),
            "bytes": recording.bytes(),
            "memory": memory,
            "kernels": kernels(&recording),
        });
        if options.list {
            let row = |d: &Dispatch| json!({ "label": d.label, "kernel": d.kernel.name, "flops": d.flops, "bytes": d.bytes() });
            value["list"] = recording.dispatches.iter().map(row).collect();
        }
        print_json(&value)?;
        return Ok(ExitCode::SUCCESS);
    }
    outln!("{}", model::headline(&options.step, model.as_ref(), gpu)?)?;
    if options.list {
        outln!("{recording}")?;
    }
    print_kernels(&recording)?;
    outln!("{memory}")?;
    Ok(ExitCode::SUCCESS)
}

/// Launches, operations and bytes by kernel.
fn kernels(recording: &Recording) -> BTreeMap<&'static str, [u64; 3]> {
    let mut sums: BTreeMap<&'static str, [u64; 3]> = BTreeMap::new();
    for dispatch in &recording.dispatches {
        let sum = sums.entry(dispatch.kernel.name).or_default();
        sum[0] += 1;
        sum[1] += dispatch.flops;
        sum[2] += dispatch.bytes();
    }
    sums
}

fn print_kernels(recording: &Recording) -> Result<()> {
    let mut table = table(&["kernel", "dispatches", "flop", "bytes bound"]);
    let mut rows: Vec<_> = kernels(recording).into_iter().collect();
    rows.sort_by_key(|(_, sum)| std::cmp::Reverse(sum[1]));
    for (kernel, [count, flops, bytes]) in rows {
        table.add_row([kernel.to_owned(), count.to_string(), human_count(flops), human_bytes(bytes)]);
    }
    let total =
        [recording.dispatches.len().to_string(), human_count(recording.flops()), human_bytes(recording.bytes())];
    let [count, flops, bytes] = total;
    table.add_row(["total".to_owned(), count, flops, bytes]);
    outln!("{table}")
}
