//! `wgformer devices`: lists the adapters of this machine.

use super::args::DevicesArgs;
use super::{outln, print_json, table};
use crate::error::{Result, human_bytes};
use crate::gpu::{AdapterChoice, AdapterSummary, Gpu};
use serde::Serialize;
use std::process::ExitCode;

/// An adapter, and whether it would be used.
#[derive(Serialize)]
struct Listed<'a> {
    #[serde(flatten)]
    adapter: &'a AdapterSummary,
    chosen: bool,
}

pub(super) fn run(options: &DevicesArgs) -> Result<ExitCode> {
    let adapters = Gpu::summaries();
    let wanted = match &options.adapter {
        Some(wanted) => AdapterChoice::parse(wanted),
        None => AdapterChoice::from_env(),
    };
    if options.json {
        // A machine without adapters gives an empty list; a choice that matches none is an error.
        let chosen = if adapters.is_empty() { None } else { Some(wanted.pick(&adapters)?) };
        let listed = adapters.iter().map(|adapter| Listed { adapter, chosen: chosen == Some(adapter.index) });
        print_json(&listed.collect::<Vec<_>>())?;
        return Ok(ExitCode::SUCCESS);
    }
    let chosen = wanted.pick(&adapters)?;
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
    outln!("{table}")?;
    outln!("* is used unless --adapter or WGFORMER_ADAPTER names another one: by number, backend or part of the name")?;
    Ok(ExitCode::SUCCESS)
}
