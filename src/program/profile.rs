//! Where the time of a run goes, dispatch by dispatch, and as a trace that Perfetto opens.

use super::{Recording, human_count};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fmt;

/// The time of one launch.
#[derive(Clone, Debug, serde::Serialize)]
pub struct LaunchTime {
    /// The node's label.
    pub label: String,
    /// The kernel.
    pub kernel: &'static str,
    /// Nanoseconds on the GPU from the start of the run.
    pub start: u64,
    /// Nanoseconds on the GPU.
    pub duration: u64,
    /// Floating-point operations.
    pub flops: u64,
    /// Bytes bound.
    pub bytes: u64,
}

/// The times of one run.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Profile {
    /// The launches in order.
    pub launches: Vec<LaunchTime>,
    /// Nanoseconds of CPU time to encode and submit the run.
    pub encode: u64,
}

/// The sum over the launches of one kernel.
#[derive(Clone, Copy, Debug, Default, serde::Serialize)]
pub struct KernelTime {
    /// How many launches.
    pub launches: u64,
    /// Nanoseconds.
    pub duration: u64,
    /// Floating-point operations.
    pub flops: u64,
    /// Bytes bound.
    pub bytes: u64,
}

impl Profile {
    /// A profile from the begin and end of each launch in nanoseconds, `dispatches` naming what each one ran.
    #[must_use]
    pub fn new(recording: &Recording, dispatches: &[usize], times: &[(u64, u64)], encode: u64) -> Self {
        let origin = times.iter().map(|t| t.0).min().unwrap_or(0);
        let launch = |(index, time): (&usize, &(u64, u64))| {
            let dispatch = &recording.dispatches[*index];
            LaunchTime {
                label: dispatch.label.clone(),
                kernel: dispatch.kernel.name,
                start: time.0 - origin,
                duration: time.1.saturating_sub(time.0),
                flops: dispatch.flops,
                bytes: dispatch.bytes(),
            }
        };
        Self { launches: dispatches.iter().zip(times).map(launch).collect(), encode }
    }

    /// Nanoseconds of all launches.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.launches.iter().map(|l| l.duration).sum()
    }

    /// The sums by kernel, the longest first.
    #[must_use]
    pub fn by_kernel(&self) -> Vec<(&'static str, KernelTime)> {
        let mut sums: BTreeMap<&'static str, KernelTime> = BTreeMap::new();
        for launch in &self.launches {
            let sum = sums.entry(launch.kernel).or_default();
            sum.launches += 1;
            sum.duration += launch.duration;
            sum.flops += launch.flops;
            sum.bytes += launch.bytes;
        }
        let mut sums: Vec<_> = sums.into_iter().collect();
        sums.sort_by_key(|(_, sum)| std::cmp::Reverse(sum.duration));
        sums
    }

    /// The run in the trace event format that Perfetto and Chromium open.
    #[must_use]
    pub fn trace(&self) -> Value {
        let event = |l: &LaunchTime| {
            json!({
                "name": l.kernel, "cat": "gpu", "ph": "X", "pid": 1, "tid": 1,
                "ts": l.start as f64 / 1e3, "dur": l.duration as f64 / 1e3,
                "args": { "label": l.label, "flops": l.flops, "bytes": l.bytes },
            })
        };
        let encode = json!({
            "name": "encode and submit", "cat": "cpu", "ph": "X", "pid": 1, "tid": 2, "ts": 0.0, "dur": self.encode as f64 / 1e3,
        });
        let mut events: Vec<Value> = self.launches.iter().map(event).collect();
        events.push(encode);
        json!({ "traceEvents": events, "displayTimeUnit": "ms" })
    }
}

impl fmt::Display for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let total = self.total().max(1) as f64;
        writeln!(f, "{:<28} {:>8} {:>10} {:>7} {:>10} {:>9}", "kernel", "launches", "ms", "share", "GFLOP/s", "GB/s")?;
        for (kernel, sum) in self.by_kernel() {
            let nanoseconds = sum.duration.max(1) as f64;
            writeln!(
                f,
                "{kernel:<28} {:>8} {:>10.3} {:>6.1}% {:>10.2} {:>9.2}",
                sum.launches,
                nanoseconds / 1e6,
                100.0 * nanoseconds / total,
                sum.flops as f64 / nanoseconds,
                sum.bytes as f64 / nanoseconds,
            )?;
        }
        let launches = self.launches.len();
        writeln!(
            f,
            "{launches} launches, {:.3} ms on the GPU, {}flop; encoding and submitting took {:.3} ms of CPU time ({:.2} µs a launch)",
            total / 1e6,
            human_count(self.launches.iter().map(|l| l.flops).sum()),
            self.encode as f64 / 1e6,
            self.encode as f64 / 1e3 / launches.max(1) as f64,
        )
    }
}
