//! Kernels with a fault each, which the suite must find: a test of the tests.
//!
//! Each mutation replaces a piece of a kernel's text, as somebody's mistake would, and names the case that tells. The case must pass with the
//! kernel as it is.

use libtest_mimic::{Arguments, Failed, Trial};
use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use wgformer::check::{Case, KnownFailure, cases, check_cases_by, quick_cases};
use wgformer::gpu::{AdapterClass, GpuOptions};
use wgformer::kernel::{Dispatch, Kernel};
use wgformer::{Gpu, Recording};

/// What is wrong, the kernel or shared text, what stands there, what the mutation puts there, and the case that finds it.
type Mutation = [&'static str; 5];

const MUTATIONS: &[Mutation] = &[
    ["an element too few", "add", "if (i < p.count)", "if (i + 1u < p.count)", "add [1, 1]"],
    [
        "a missing barrier of a sum",
        "reduce_workgroup",
        "workgroupBarrier();\n        if (lane < step) { lane_values[lane] += lane_values[lane + step]; }",
        "if (lane < step) { lane_values[lane] += lane_values[lane + step]; }",
        "sum [257]",
    ],
    [
        "a sum over half of the lanes",
        "reduce_workgroup",
        "for (var step = LANES / 2u; step > 0u; step /= 2u) {\n        workgroupBarrier();\n        if (lane < step) { lane_values[lane] += ",
        "for (var step = LANES / 4u; step > 0u; step /= 2u) {\n        workgroupBarrier();\n        if (lane < step) { lane_values[lane] += ",
        "sum [257]",
    ],
    [
        "a race for the next sum",
        "reduce_workgroup",
        "    // The next call must not write before all have read.\n    workgroupBarrier();\n",
        "",
        "layer_norm [257] Some(Workgroup)",
    ],
    ["a missing barrier of a tile", "transpose", "    workgroupBarrier();\n", "", "layout of integers"],
    [
        "a tile's bound on the wrong axis",
        "transpose",
        "if (column + k < p.columns && row + along < p.rows)",
        "if (column + k < p.rows && row + along < p.columns)",
        "layout of integers",
    ],
    [
        "a wrong pitch",
        "transpose",
        "out[first + (column + k) * p.rows + row + along]",
        "out[first + (column + k) * p.columns + row + along]",
        "layout of integers",
    ],
    [
        "a norm's gradient without its mean",
        "norm_backward_threads",
        "select(0.0, total(level) * share, CENTERED)",
        "0.0",
        "layer_norm [31, 64] None",
    ],
    [
        "a norm's gradient without the residual's",
        "norm_backward_threads",
        "if (RESIDUAL) { d += dsum[first + c]; }",
        "",
        "add_layer_norm [31, 64] None",
    ],
    [
        "a norm's gradient without its gain",
        "norm_backward_threads",
        "let g = gain_of(c) * dout[first + c];\n        var d",
        "let g = dout[first + c];\n        var d",
        "rms_norm [31, 64] None",
    ],
    [
        "eps outside of the root",
        "norm_threads",
        "inverseSqrt(m.squares / m.count + p.eps)",
        "inverseSqrt(m.squares / m.count) + p.eps",
        "rms_norm [257] Some(Threads)",
    ],
    [
        "a softmax's gradient without its level",
        "softmax_backward_threads",
        "dx[i] = y[i] * (dout[i] - level);",
        "dx[i] = y[i] * dout[i];",
        "softmax [257] Threads",
    ],
    [
        "a rotation the other way",
        "rope",
        "let sine = cos_sin.second * p.direction;",
        "let sine = cos_sin.second;",
        "rope_rows [4, 33] a text a row",
    ],
    [
        "pairs of a rotation swapped",
        "rope",
        "select(unit, 2u * unit, INTERLEAVED)",
        "select(2u * unit, unit, INTERLEAVED)",
        "rope_rows [1, 1] a text a row",
    ],
    [
        "positions of another head",
        "rope",
        "positions[row / p.heads]",
        "positions[row % p.heads]",
        "rope_rows [4, 33] a text a row",
    ],
    ["a cache that keeps its old values", "cache_write", "    values[at] = new_values[index];\n", "", "cache_write"],
    [
        "a window's first key of another row",
        "attention_mask_limits",
        "row_words() + (p.queries + 31u) / 32u + query",
        "row_words() + (p.queries + 31u) / 32u + query / 2u",
        "attention Tile texts side by side [2, 90, 90, 2, 2, 16]",
    ],
    [
        "masked keys that count",
        "attention_mask_limits",
        "if (!MASKED) { return vec4<bool>(true); }",
        "return vec4<bool>(true);",
        "attention Tile mask [3, 5, 37, 2, 2, 12]",
    ],
    [
        "a limit of keys of the next row",
        "attention_mask_limits",
        "return key_limits[limits_row(batch) + (p.queries + 31u) / 32u + query];",
        "return key_limits[limits_row(batch) + (p.queries + 31u) / 32u + min(query + 1u, p.queries - 1u)];",
        "attention of picked tokens of a tree",
    ],
    [
        "a tree's relation in one direction",
        "attention_spans",
        "return above | below;",
        "return above;",
        "attention of picked tokens of a tree",
    ],
    [
        "delta of the wrong head",
        "attention_delta",
        "let at = (batch * p.heads + head) * p.queries + query;",
        "let at = (batch * p.heads + head) * p.queries + p.queries - 1u - query;",
        "attention of picked tokens of a tree",
    ],
    [
        "the last class left out",
        "cross_entropy_backward",
        "* 512u, p.columns)",
        "* 512u, p.columns - 1u)",
        "cross_entropy of far logits",
    ],
    [
        "a loss without its smoothing",
        "cross_entropy_threads",
        "p.smoothing * (log_sum - total(sum) / f32(classes))",
        "p.smoothing * log_sum",
        "linear_cross_entropy capped InOut",
    ],
    [
        "rows that are left out count",
        "cross_entropy_threads",
        "if (label >= 0 && u32(label) < classes)",
        "if (u32(max(label, 0)) < classes)",
        "cross_entropy of far logits",
    ],
    [
        "the last of equal rows is lost",
        "scatter_rows",
        "for (var k = first; k < end; k++)",
        "for (var k = first; k + 1u < end || k == first; k++)",
        "gather_rows 31 of [5, 33]",
    ],
    [
        "a missing zero of rows in no window",
        "gather_rows",
        "        out[i] = Element();\n",
        "",
        "gather_words 1 of [1, 3]",
    ],
    [
        "a chunk's partial sum from its second element",
        "scatter_partials",
        "sum(low, min(starts[first + 1u], high), column)",
        "sum(low + 1u, min(starts[first + 1u], high), column)",
        "scatter_rows, long segments: one row, 1 columns",
    ],
    [
        "moments that forget",
        "adamw",
        "let v1 = (1.0 - a2) * v[i] + a2 * g * g;",
        "let v1 = a2 * g * g;",
        "adamw blocks 1",
    ],
    [
        "weight decay of the gradient",
        "adamw",
        "control[7] * multipliers.y * before",
        "control[7] * multipliers.y * g",
        "adamw blocks 31",
    ],
    [
        "a missing barrier of a norm of gradients",
        "global_norm_partials",
        "        workgroupBarrier();\n",
        "",
        "global_norm blocks [1]",
    ],
    [
        "an expert left out",
        "expert_combine",
        "slot < (token + 1u) * p.top_k",
        "slot + 1u < (token + 1u) * p.top_k",
        "expert_choice_feed_forward [1, 1, 1] 1 and 1",
    ],
    [
        "a capacity with one place more",
        "limit_capacity",
        "< p.capacity)",
        "<= p.capacity)",
        "router_stats [3 · 11, 5], k 2, padded: true",
    ],
    [
        "a scan that includes itself",
        "radix_scan",
        "var next = totals[lane] - total;",
        "var next = totals[lane];",
        "route [1, 1, 1], mixed",
    ],
    [
        "a count without a zero",
        "radix_count",
        "    atomicStore(&histogram[lane], 0u);\n",
        "    if (group == 0u) { atomicStore(&histogram[lane], 7u); }\n",
        "route [1, 2, 8], mixed",
    ],
    [
        "a gate's gradient by the activation",
        "gated_backward",
        "narrow(d_activate4(ACTIVATION, x))",
        "narrow(activate4(ACTIVATION, x))",
        "gated Relu [1, 1]",
    ],
    [
        "axes of a permutation swapped",
        "permute",
        "(rest % p.extent3) * p.stride3",
        "(rest % p.extent3) * p.stride2",
        "layout of integers",
    ],
    ["dropout that does not scale", "dropout", "x[i] * p.scale, random.x", "x[i], random.x", "dropout [1] rate 0.5"],
    [
        "a product of the wrong lane",
        "matmul_problem",
        "s += x.w * y[3];",
        "s += x.z * y[3];",
        "matmul Tn of a deep product",
    ],
    [
        "a tile without a barrier",
        "matmul_tile",
        "        workgroupBarrier();\n        x0 = fetch_a",
        "        x0 = fetch_a",
        "matmul Nn [3, 260, 68]",
    ],
];

fn main() {
    let arguments = Arguments::from_args();
    let adapters = Gpu::adapters();
    let mut trials = Vec::new();
    let fastest = adapters.iter().find(|adapter| adapter.get_info().name.contains("llvmpipe")).or(adapters.first());
    let Some(adapter) = fastest else {
        trials.push(Trial::test("an adapter is there", || Err("no adapter: install a Vulkan driver".into())));
        libtest_mimic::run(&arguments, trials).exit();
    };
    let as_gpu = GpuOptions::default().with_class(AdapterClass::Gpu);
    let gpus: Vec<Gpu> =
        [GpuOptions::default(), as_gpu].iter().filter_map(|options| Gpu::open_with(adapter, options).ok()).collect();
    let shared = Arc::new((gpus, Mutex::new(())));
    let all: HashMap<String, Arc<Case>> = cases::all().into_iter().map(|c| (c.name.clone(), Arc::new(c))).collect();
    let all = Arc::new(all);
    trials.push(Trial::test("there are enough mutations", || {
        if MUTATIONS.len() >= 25 { Ok(()) } else { Err("fewer than 25".into()) }
    }));
    let devices = shared.clone();
    trials.push(Trial::test(
        "a driver that computes garbage in one kernel is found by a quick check, which names it",
        move || {
            let _one = devices.1.lock().unwrap_or_else(PoisonError::into_inner);
            garbage_is_named(devices.0.first().ok_or("no device")?)
        },
    ));
    for mutation in MUTATIONS {
        let (shared, all) = (shared.clone(), all.clone());
        trials.push(Trial::test(format!("{}: {}", mutation[1], mutation[0]), move || {
            let _one = shared.1.lock().unwrap_or_else(PoisonError::into_inner);
            if std::env::var_os("FIND_CASES").is_some() {
                return find(mutation, &shared.0, &all);
            }
            let case = all.get(mutation[4]).ok_or_else(|| format!("there is no case \"{}\"", mutation[4]))?;
            let gpu =
                (shared.0.iter().find(|gpu| launches(case, gpu, mutation[1]))).ok_or("the case does not launch it")?;
            if !case.run_changed(gpu, |recording| recording)?.passed() {
                return Err("the case misses without the mutation".into());
            }
            if case.run_changed(gpu, |recording| mutated(&recording, mutation))?.passed() {
                return Err("the mutation is not found".into());
            }
            Ok(())
        }));
    }
    drop(adapters);
    libtest_mimic::run(&arguments, trials).exit();
}

/// One kernel of a driver is wrong: the quick choice finds it, and names it and at most the one that runs beside it alone.
fn garbage_is_named(gpu: &Gpu) -> Result<(), Failed> {
    let wrong = ["", "gated_backward", "let d = dout[i];", "let d = 1.5 * dout[i];", ""];
    let (of_it, others): (Vec<Case>, Vec<Case>) =
        quick_cases(gpu.caps()).into_iter().partition(|case| launches(case, gpu, wrong[1]));
    let name = of_it.first().ok_or("the quick choice does not launch the kernel")?.name.clone();
    let others =
        others.into_iter().filter(|case| ["softmax", "gated", "add", "sum"].iter().any(|op| case.name.starts_with(op)));
    let cases: Vec<Case> = of_it.into_iter().chain(others).collect();
    let mut run = |_: usize, case: &Case| Ok(vec![case.run_changed(gpu, |recording| mutated(&recording, &wrong))]);
    let report = check_cases_by(gpu, "", &cases, &[], &mut run)?;
    let named = report.suspects.iter().any(|kernel| kernel.starts_with(wrong[1])) && report.suspects.len() <= 2;
    if report.passed() || !named {
        return Err(format!("{} missed, suspects: {:?}", report.missed(), report.suspects).into());
    }
    // The same failure is known, and another one no longer is.
    let known = serde_json::json!([{"message": "off by", "case": name, "link": "https://example.org"},
                                   {"message": "off by", "case": "add", "link": "https://example.org"}]);
    let known = KnownFailure::list(Path::new("known.json"), &known.to_string())?;
    let missed = report.missed();
    let report = check_cases_by(gpu, "", &cases, &known, &mut run)?;
    let gone: Vec<&str> = report.now_right.iter().map(|failure| failure.case.as_str()).collect();
    if report.missed() >= missed || gone != ["add"] || report.passed() {
        return Err(format!("{} missed; passes now: {gone:?}", report.missed()).into());
    }
    Ok(())
}

/// Whether a case launches a kernel, or one with a shared text, on a device.
fn launches(case: &Case, gpu: &Gpu, name: &str) -> bool {
    let has = |dispatch: &Dispatch| texts(dispatch).any(|text| text.name == name);
    case.recording(gpu.caps()).is_ok_and(|recording| recording.dispatches().iter().any(has))
}

fn texts(dispatch: &Dispatch) -> impl Iterator<Item = &'static Kernel> {
    std::iter::once(dispatch.kernel).chain(dispatch.snippets.iter().copied())
}

/// The recording with a mutation in each of its kernels that has the text.
fn mutated(recording: &Recording, [_, name, from, to, _]: &Mutation) -> Recording {
    let change = |text: &'static Kernel| -> &'static Kernel {
        if text.name != *name {
            return text;
        }
        assert_eq!(text.source.matches(from).count().min(1), 1, "{name} has no \"{from}\"");
        let source: &'static str = text.source.replace(from, to).leak();
        Box::leak(Box::new(Kernel::new(text.name, source)))
    };
    let dispatches = recording.dispatches().iter().cloned().map(|mut dispatch| {
        dispatch.kernel = change(dispatch.kernel);
        dispatch.snippets = dispatch.snippets.iter().map(|text| change(text)).collect();
        dispatch
    });
    Recording::from_parts(recording.slots().to_vec(), dispatches.collect(), recording.outputs().to_vec())
}

/// Prints cases that find a mutation, the shortest names first.
fn find(mutation: &Mutation, gpus: &[Gpu], all: &HashMap<String, Arc<Case>>) -> Result<(), Failed> {
    let mut names: Vec<&String> = all.keys().collect();
    names.sort_unstable_by_key(|name| (name.len(), (*name).clone()));
    let mut found = Vec::new();
    for name in names {
        let Some(gpu) = gpus.iter().find(|gpu| launches(&all[name], gpu, mutation[1])) else { continue };
        let run = all[name].run_changed(gpu, |recording| mutated(&recording, mutation));
        if run.is_ok_and(|run| !run.passed()) {
            found.push(name.as_str());
        }
        if found.len() == 2 {
            break;
        }
    }
    println!("{} | {} | {}", mutation[1], mutation[0], found.join(" | "));
    if found.is_empty() { Err("no case finds it".into()) } else { Ok(()) }
}
