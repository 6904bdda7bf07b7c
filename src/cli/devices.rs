//! `wgformer devices`: the adapters of this machine.

use super::args::DevicesArgs;
use super::{print_json, table};
use crate::error::{Result, human_bytes};
use crate::gpu::{AdapterChoice, Gpu};
use std::process::ExitCode;

pub(super) fn run(options: &DevicesArgs) -> Result<ExitCode> {
    let adapters = Gpu::summaries();
    if options.json {
        print_json(&adapters)?;
        return Ok(ExitCode::SUCCESS);
    }
    let chosen = AdapterChoice::from_env().pick(&adapters)?;
    let mut table =
        table(&["", "adapter", "backend", "type", "subgroup", "f16", "timing", "workgroup", "binding", "driver"]);
    for adapter in &adapters {
        let caps = &adapter.caps;
        let mark = if adapter.index == chosen { format!("{} *", adapter.index) } else { adapter.index.to_string() };
        let yes = |flag: bool| if flag { "yes" } else { "-" }.to_owned();
        table.add_row([
            mark,
            adapter.name.clone(),
            adapter.backend.clone(),
            adapter.device_type.clone(),
            caps.subgroup.map_or_else(|| "-".into(), |size| size.to_string()),
            yes(caps.f16),
            yes(caps.timestamps),
            format!("{} × {}", caps.max_invocations, human_bytes(u64::from(caps.workgroup_memory))),
            human_bytes(caps.max_binding_bytes),
            format!("{} {}", adapter.driver, adapter.driver_info),
        ]);
    }
    println!("{table}");
    println!("* is used unless --adapter or WGFORMER_ADAPTER names another: by number, backend or part of the name");
    Ok(ExitCode::SUCCESS)
}
