//! Where the time of a run goes, dispatch by dispatch, and as a trace that Perfetto opens.

use super::{Program, Recording, human_count};
use crate::error::Result;
use crate::gpu::Timestamps;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fmt;
use std::time::Instant;

impl Program {
    /// Runs once and times every launch: by the GPU's timestamps, or, where it has none, by the clock, one launch at a
    /// time (which adds the cost of a submission to each).
    ///
    /// # Errors
    /// [`Error::OutOfMemory`](crate::Error::OutOfMemory), [`Error::DeviceLost`](crate::Error::DeviceLost).
    pub fn profile(&self) -> Result<Profile> {
        self.run()?;
        self.gpu().wait(None)?;
        let start = Instant::now();
        self.run()?;
        let encode = start.elapsed().as_nanos() as u64;
        self.gpu().wait(None)?;
        let ends = match Timestamps::new(self.gpu(), self.steps().len() as u32 + 1)? {
            Some(timestamps) => self.timed_by_gpu(&timestamps)?,
            None => self.timed_by_clock()?,
        };
        Ok(Profile::new(self, &ends, encode))
    }

    /// The nanoseconds at which each launch ended, from the start of the run, by the GPU.
    fn timed_by_gpu(&self, timestamps: &Timestamps) -> Result<Vec<f64>> {
        let mut encoder = self.gpu().encoder("profile");
        let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default());
        timestamps.write(&mut pass, 0);
        for (index, step) in self.steps().iter().enumerate() {
            step.encode(&mut pass, None);
            timestamps.write(&mut pass, index as u32 + 1);
        }
        drop(pass);
        let readback = timestamps.resolve(&mut encoder, timestamps.count())?;
        let submission = self.gpu().submit("a profile", [encoder])?;
        let times = timestamps.nanoseconds(&readback.after(&submission).wait()?);
        Ok(times[1.min(times.len())..].to_vec())
    }

    /// The same by the clock of the CPU.
    fn timed_by_clock(&self) -> Result<Vec<f64>> {
        let start = Instant::now();
        let mut ends = Vec::with_capacity(self.steps().len());
        for step in self.steps() {
            let mut encoder = self.gpu().encoder("profile");
            step.encode(&mut encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default()), None);
            let submission = self.gpu().submit("a profile", [encoder])?;
            self.gpu().wait(Some(&submission))?;
            ends.push(start.elapsed().as_nanos() as f64);
        }
        Ok(ends)
    }
}

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
    /// A profile from the nanosecond at which each launch ended.
    fn new(program: &Program, ends: &[f64], encode: u64) -> Self {
        let recording: &Recording = program.recording();
        let mut last = 0.0;
        let launch = |(step, end): (&super::program::Step, &f64)| {
            let dispatch = &recording.dispatches[step.dispatch];
            let start = std::mem::replace(&mut last, *end);
            let part = |whole: u64| (whole as f64 * step.share) as u64;
            LaunchTime {
                label: dispatch.label.clone(),
                kernel: dispatch.kernel.name,
                start: start as u64,
                duration: (end - start).max(0.0) as u64,
                flops: part(dispatch.flops),
                bytes: part(dispatch.bytes()),
            }
        };
        Self { launches: program.steps().iter().zip(ends).map(launch).collect(), encode }
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
