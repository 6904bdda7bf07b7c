//! The conformance suite as a command: on which devices, which cases, and how what they gave is told.

use super::super::args::{CheckArgs, CheckMode, Class};
use super::super::progress::{Progress, SOON};
use super::super::{outln, output, print_json, table};
use super::{page, verdict};
use crate::check::{
    Case, CaseOptions, CaseTime, CheckReport, DeviceReport, KnownFailure, Miss, Results, SuiteRow, cases, check_cases,
    quick_cases, support_of, time_case,
};
use crate::error::{Error, Result};
use crate::gpu::{AdapterChoice, AdapterClass, AdapterSummary, Gpu, GpuOptions};
use serde_json::json;
use std::process::ExitCode;

/// The mode of a device whose matrix units are in use, which round: only cases that ask for them are compared there.
const UNITS: &str = "matrix units";
/// Elements of each input whose gradient in f64 is compared with a difference.
const POINTS: usize = 12;

pub(super) fn run(options: &CheckArgs) -> Result<ExitCode> {
    if !options.merge.is_empty() {
        let mut merged: Option<CheckReport> = None;
        for path in &options.merge {
            let text = std::fs::read_to_string(path).map_err(|error| Error::file(path, error))?;
            let report = CheckReport::parse(path, &text)?;
            match &mut merged {
                Some(merged) => merged.merge(report),
                None => merged = Some(report),
            }
        }
        return tell(options, &merged.unwrap_or_default());
    }
    let has = |mode| options.mode.contains(&mode);
    if has(CheckMode::Support) || has(CheckMode::Perf) {
        if options.mode.len() > 1 {
            return Err(Error::input("--mode", "perf and support go alone, only test and grad together"));
        }
        return if has(CheckMode::Perf) { times(options) } else { support(options) };
    }
    let results = match (has(CheckMode::Test), has(CheckMode::Grad)) {
        (true, false) => Results::Outputs,
        (false, true) => Results::Gradients,
        _ => Results::All,
    };
    let how = if options.quick { CaseOptions::default() } else { CaseOptions::full() }.results(results);
    let mut known = KnownFailure::own()?;
    if let Some(path) = &options.known {
        let text = std::fs::read_to_string(path).map_err(|error| Error::file(path, error))?;
        known.extend(KnownFailure::list(path, &text)?);
    }
    let mut report = CheckReport::new(options.seed);
    let mut lost = false;
    for (gpu, mode) in devices(options)? {
        let cases = chosen(options, Some(&gpu), &mode)?;
        if cases.is_empty() {
            continue;
        }
        let progress = Progress::new(cases.len() as u64, "cases", SOON);
        let found = check_cases(&gpu, &mode, &cases, &how, &known, &mut |_, case| progress.begin(case));
        progress.finish();
        match found {
            Ok(found) => {
                if !options.common.json {
                    print(&found)?;
                }
                report.devices.push(found);
            }
            Err(error) => {
                output::note(format_args!("error: {}: {error}", name(&gpu, &mode)));
                lost = true;
            }
        }
    }
    // The twin is the same for all devices.
    let differences = if options.quick || results == Results::Outputs { 0 } else { differences(options)? };
    let code = tell(options, &report)?;
    Ok(if lost || differences > 0 { ExitCode::FAILURE } else { code })
}

/// Writes what is asked for, and says the sum of it.
fn tell(options: &CheckArgs, report: &CheckReport) -> Result<ExitCode> {
    if let Some(path) = &options.html {
        crate::io::write_atomic(path, page::page(report).as_bytes())?;
    }
    if let Some(path) = &options.markdown {
        crate::io::write_atomic(path, report.markdown().as_bytes())?;
    }
    if options.common.json {
        print_json(report)?;
        return Ok(if report.passed() { ExitCode::SUCCESS } else { ExitCode::FAILURE });
    }
    let (mut missed, mut cases) = (0, 0);
    for device in &report.devices {
        (missed, cases) = (missed + device.missed(), cases + device.cases());
        for (row, miss) in device.rows.iter().flat_map(|row| row.missed.iter().map(move |miss| (row, miss))).take(20) {
            let mode = if device.mode == "as a GPU" { " --as gpu" } else { "" };
            let (case, seed) = (&miss.case, report.seed);
            outln!("MISSED on {}{mode}: {}", device.adapter, line(miss))?;
            let adapter = format!("{}:{}", device.backend, device.adapter);
            outln!(
                "  again: wgformer check --adapter \"{adapter}\"{mode} --case \"{case}\" --seed {seed}   ({})",
                row.op
            )?;
        }
        for failure in &device.now_right {
            outln!("PASSES NOW on {}: {} {} ({})", device.adapter, failure.case, failure.message, failure.link)?;
        }
        if !device.suspects.is_empty() {
            outln!("only in runs that missed, on {}: {}", device.adapter, device.suspects.join(", "))?;
        }
    }
    if options.merge.is_empty() || options.markdown.is_none() {
        outln!("{cases} cases on {} devices compared, seed {}, {missed} missed", report.devices.len(), report.seed)?;
    }
    Ok(if report.passed() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The devices: the named adapters or all, each as it is, and CPU drivers as GPUs too; with `--quick` the best one as it is.
fn devices(options: &CheckArgs) -> Result<Vec<(Gpu, String)>> {
    let (adapters, summaries) = (Gpu::adapters(), Gpu::summaries());
    let pick = |choice: &AdapterChoice| choice.pick(&summaries);
    let picked = match &options.common.adapter {
        Some(names) => names.split(',').map(|name| pick(&AdapterChoice::parse(name))).collect::<Result<Vec<_>>>()?,
        None if options.quick || std::env::var_os(crate::gpu::ADAPTER_VARIABLE).is_some() => {
            vec![pick(&AdapterChoice::from_env())?]
        }
        None => (0..summaries.len()).collect(),
    };
    if picked.is_empty() {
        pick(&AdapterChoice::default())?;
    }
    let mut devices = Vec::new();
    for index in picked {
        let Some(adapter) = adapters.get(index) else { continue };
        for (options, mode) in modes(options, &summaries[index]) {
            devices.push((Gpu::open_with(adapter, &options)?, mode.to_owned()));
        }
    }
    Ok(devices)
}

fn modes(options: &CheckArgs, adapter: &AdapterSummary) -> Vec<(GpuOptions, &'static str)> {
    let as_class = |class| GpuOptions { class, ..GpuOptions::default() };
    let software = adapter.caps.class == AdapterClass::Cpu;
    let as_gpu = (as_class(Some(AdapterClass::Gpu)), "as a GPU");
    let mut modes = match options.common.class {
        Some(Class::Gpu) if software => vec![as_gpu],
        Some(class) => vec![(as_class(Some(class.into())), "")],
        None if options.quick || !software => vec![(GpuOptions::default(), "")],
        None => vec![(GpuOptions::default(), ""), as_gpu],
    };
    if adapter.caps.matrix_units.is_some() && (!options.quick || options.common.matrix_units) {
        let units = GpuOptions { matrix_units: true, ..as_class(Some(AdapterClass::Gpu)) };
        modes.push((units, UNITS));
    }
    modes
}

/// The cases that the options name.
fn chosen(options: &CheckArgs, gpu: Option<&Gpu>, mode: &str) -> Result<Vec<Case>> {
    let mut all = match gpu {
        Some(gpu) if options.quick => quick_cases(gpu.caps()),
        _ => cases::suite(),
    };
    let of_op = |case: &Case, op: &String| case.name.split([' ', ',']).next() == Some(op);
    if let Some(unknown) = options.op.iter().find(|op| !all.iter().any(|case| of_op(case, op))) {
        let mut ops: Vec<&str> = all.iter().filter_map(|case| case.name.split([' ', ',']).next()).collect();
        ops.dedup();
        return Err(Error::input("--op", format!("no case is of {unknown}; there are {}", ops.join(", "))));
    }
    all.retain(|case| options.op.is_empty() || options.op.iter().any(|op| of_op(case, op)));
    if let Some(wanted) = &options.case {
        let exact = all.iter().any(|case| case.name == *wanted);
        all.retain(|case| if exact { case.name == *wanted } else { case.name.contains(wanted.as_str()) });
        if all.is_empty() {
            return Err(Error::input("--case", format!("no case has \"{wanted}\" in its name")));
        }
    }
    all.retain(|case| mode != UNITS || case.name.contains("by matrix"));
    Ok(all.into_iter().map(|case| case.seeded(options.seed)).collect())
}

/// Compares the twin's gradients with finite differences; how many missed.
fn differences(options: &CheckArgs) -> Result<usize> {
    let cases = chosen(options, None, "")?;
    let progress = Progress::new(cases.len() as u64, "gradients in f64", SOON);
    let mut missed = 0;
    // Layers of real widths cost seconds for each difference.
    for case in cases.iter().filter(|case| !case.name.ends_with("one layer")) {
        progress.begin(&case.name);
        for found in case.check_gradients(POINTS)?.into_iter().filter(|found| !found.passed) {
            missed += 1;
            let (case, what, off) = (&case.name, &found.what, found.worst);
            output::note(format_args!("MISSED in f64: {case}: {what} is off by {off:.1e} from finite differences"));
        }
    }
    progress.finish();
    Ok(missed)
}

/// `--mode perf`.
fn times(options: &CheckArgs) -> Result<ExitCode> {
    let mut reports = Vec::new();
    for (gpu, mode) in devices(options)? {
        let cases = chosen(options, Some(&gpu), &mode)?;
        let progress = Progress::new(cases.len() as u64, "cases", SOON);
        let mut rows: Vec<CaseTime> = Vec::new();
        let mut failed = Vec::new();
        for case in &cases {
            progress.begin(&case.name);
            match time_case(&gpu, case, Results::All) {
                Ok(row) => rows.push(row),
                Err(error @ Error::DeviceLost { .. }) => return Err(error),
                Err(error) => failed.push(format!("{}: {error}", case.name)),
            }
        }
        progress.finish();
        if !options.common.json {
            outln!("{}", name(&gpu, &mode))?;
            let mut rows_of = table(&["case", "ms", "GFLOP/s", "GB/s"]);
            for row in &rows {
                let number = |x: f64| format!("{x:.3}");
                let cells = [number(row.seconds * 1e3), number(row.flops / 1e9), number(row.bytes / 1e9)];
                rows_of.add_row([row.case.clone()].into_iter().chain(cells));
            }
            outln!("{rows_of}")?;
            failed.iter().try_for_each(|failed| outln!("not run {failed}"))?;
        }
        reports.push(json!({ "device": DeviceReport::new(&gpu, &mode), "times": rows, "not_run": failed }));
    }
    if options.common.json {
        print_json(&reports)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// `--mode support`.
fn support(options: &CheckArgs) -> Result<ExitCode> {
    let mut reports = Vec::new();
    for (gpu, mode) in devices(options)? {
        let cases = chosen(options, Some(&gpu), &mode)?;
        let (mut supported, mut missing) = (Vec::new(), Vec::new());
        for case in &cases {
            match support_of(gpu.caps(), case) {
                Ok(kernels) => supported.push(json!({ "case": case.name, "kernels": kernels })),
                Err(error) => missing.push((case.name.clone(), error.to_string())),
            }
        }
        if !options.common.json {
            outln!("{}: {} of {} cases can run", name(&gpu, &mode), supported.len(), cases.len())?;
            missing.iter().try_for_each(|(case, why)| outln!("not {case}: {why}"))?;
        }
        reports.push(json!({ "device": DeviceReport::new(&gpu, &mode), "supported": supported, "not": missing }));
    }
    if options.common.json {
        print_json(&reports)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn name(gpu: &Gpu, mode: &str) -> String {
    let info = gpu.info();
    let mode = if mode.is_empty() { String::new() } else { format!(", {mode}") };
    format!("{} ({}){mode}", info.name, info.backend)
}

fn print(report: &DeviceReport) -> Result<()> {
    let DeviceReport { adapter, backend, driver, driver_info, mode, .. } = report;
    let mode = if mode.is_empty() { String::new() } else { format!(", {mode}") };
    outln!("{adapter} ({backend}){mode}, {driver} {driver_info}")?;
    let mut rows = table(&["op", "inputs", "cases", "runs", "forward", "backward", ""]);
    for row in &report.rows {
        let SuiteRow { op, dtype, cases, runs, .. } = row;
        let [forward, backward] = [row.forward, row.backward].map(|[_, worst]| format!("{worst:.1e}"));
        let verdict = if row.cases == 0 && row.missed.is_empty() { "-".into() } else { verdict(row.missed.is_empty()) };
        rows.add_row([op.clone(), dtype.clone(), cases.to_string(), runs.to_string(), forward, backward, verdict]);
    }
    outln!("{rows}")?;
    outln!("the largest errors are shares of a tensor's largest value")?;
    for row in &report.rows {
        row.known.iter().try_for_each(|miss| outln!("known: {}", line(miss)))?;
        row.unsupported.iter().try_for_each(|miss| outln!("not run: {}", line(miss)))?;
    }
    let (cases, runs, missed) = (report.cases(), report.runs(), report.missed());
    outln!("{cases} cases compared in {runs} runs, {missed} missed\n")?;
    Ok(())
}

fn line(miss: &Miss) -> String {
    let by = if miss.variants.is_empty() { String::new() } else { format!(" by {}", miss.variants) };
    format!("{}{by}: {}", miss.case, miss.what)
}
