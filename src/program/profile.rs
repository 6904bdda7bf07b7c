//! Profiles: the time of each dispatch of a run, also as a trace for Perfetto.

use super::launches::{Launches, Step};
use super::{Program, Recording, human_count};
use crate::error::Result;
use crate::gpu::Timestamps;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use web_time::Instant;

impl Program {
    /// Runs once and times every launch: as [`Program::profile_median`] of one run.
    ///
    /// # Errors
    /// As [`Program::profile_median`].
    pub fn profile(&self) -> Result<Profile> {
        self.profile_median(1)
    }

    /// Runs several times and takes the median time of each launch: by the GPU's timestamps, or, without them, by the clock, one launch at a
    /// time (which adds the cost of a submission to each).
    ///
    /// # Errors
    /// [`Error::OutOfMemory`](crate::Error::OutOfMemory), [`Error::DeviceLost`](crate::Error::DeviceLost).
    pub fn profile_median(&self, runs: usize) -> Result<Profile> {
        self.run()?;
        self.gpu().wait(None)?;
        let launches = self.cut_now();
        let timestamps = Timestamps::new(self.gpu(), launches.steps.len() as u32 + 1)?;
        let (mut durations, mut encodes) = (vec![Vec::new(); launches.steps.len()], Vec::new());
        for _ in 0..runs.max(1) {
            let start = Instant::now();
            self.run()?;
            encodes.push(start.elapsed().as_nanos() as f64);
            self.gpu().wait(None)?;
            let ends = match &timestamps {
                Some(timestamps) => self.timed_by_gpu(&launches, timestamps)?,
                None => self.timed_by_clock(&launches)?,
            };
            let mut last = 0.0;
            for (durations, end) in durations.iter_mut().zip(ends) {
                durations.push((end - std::mem::replace(&mut last, end)).max(0.0));
            }
        }
        let durations: Vec<f64> = durations.into_iter().map(median).collect();
        Ok(Profile::new(self.recording(), &launches, &durations, median(encodes) as u64))
    }

    /// Runs `repeats` times in one submission, with the inputs that were sent last, and returns the seconds of one run: by the GPU's clock if
    /// `timestamps` (at least two) are given, else from the submission to the end of the wait.
    ///
    /// No budget applies: a run must be shorter than the time limit of the driver's watchdog divided by `repeats`.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`](crate::Error::OutOfMemory), [`Error::DeviceLost`](crate::Error::DeviceLost).
    pub fn time(&self, timestamps: Option<&Timestamps>, repeats: u32) -> Result<f64> {
        let launches = self.cut_now();
        let mut encoder = self.gpu().encoder("timing");
        let stamp = |encoder: &mut wgpu::CommandEncoder, index| {
            if let Some(timestamps) = timestamps {
                // In a pass of its own, since a run may begin with copies.
                timestamps.write(&mut encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default()), index);
            }
        };
        stamp(&mut encoder, 0);
        for _ in 0..repeats {
            launches.encode(&mut encoder, 0..launches.steps.len(), None);
        }
        stamp(&mut encoder, 1);
        let readback = timestamps.map(|t| t.resolve(&mut encoder, 2)).transpose()?;
        let start = Instant::now();
        let submission = self.gpu().submit("a timing", [encoder])?;
        self.gpu().wait(Some(&submission))?;
        let by_clock = start.elapsed().as_secs_f64();
        let stamps = match (timestamps, readback) {
            (Some(timestamps), Some(readback)) => timestamps.nanoseconds(&readback.after(&submission).wait()?),
            _ => Vec::new(),
        };
        // A counter too coarse for the run reads 0; a counter that jumped reads more than the clock.
        let by_gpu = stamps.get(1).map(|end| end / 1e9).filter(|s| *s > 0.0 && *s <= by_clock);
        Ok(by_gpu.unwrap_or(by_clock) / f64::from(repeats.max(1)))
    }

    /// The end of each launch in nanoseconds from the start of the run, by the GPU.
    fn timed_by_gpu(&self, launches: &Launches, timestamps: &Timestamps) -> Result<Vec<f64>> {
        let mut encoder = self.gpu().encoder("profile");
        timestamps.write(&mut encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default()), 0);
        for range in self.submissions(launches) {
            let next = self.gpu().encoder("profile");
            self.gpu().submit("a profile", [std::mem::replace(&mut encoder, next)])?;
            launches.encode_with(&mut encoder, range, None, |pass, index| timestamps.write(pass, index as u32 + 1));
        }
        let readback = timestamps.resolve(&mut encoder, timestamps.count())?;
        let submission = self.gpu().submit("a profile", [encoder])?;
        let times = timestamps.nanoseconds(&readback.after(&submission).wait()?);
        Ok(times[1.min(times.len())..].to_vec())
    }

    /// The same by the clock of the CPU.
    fn timed_by_clock(&self, launches: &Launches) -> Result<Vec<f64>> {
        let start = Instant::now();
        let mut ends = Vec::with_capacity(launches.steps.len());
        for index in 0..launches.steps.len() {
            let mut encoder = self.gpu().encoder("profile");
            launches.encode(&mut encoder, index..index + 1, None);
            let submission = self.gpu().submit("a profile", [encoder])?;
            self.gpu().wait(Some(&submission))?;
            ends.push(start.elapsed().as_nanos() as f64);
        }
        Ok(ends)
    }
}

/// The median; the lower one of two middle values, 0 without values.
fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len().saturating_sub(1) / 2).copied().unwrap_or(0.0)
}

/// The time of one launch.
#[derive(Clone, Debug, serde::Serialize)]
#[non_exhaustive]
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
#[non_exhaustive]
pub struct Profile {
    /// The launches in order.
    pub launches: Vec<LaunchTime>,
    /// Nanoseconds of CPU time to encode and submit the run.
    pub encode: u64,
}

/// The sum over the launches of one kernel.
#[derive(Clone, Copy, Debug, Default, serde::Serialize)]
#[non_exhaustive]
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

/// The sum over the launches of one part of a model.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
#[non_exhaustive]
pub struct PartTime {
    /// How many launches.
    pub launches: u64,
    /// Nanoseconds of the forward pass and of launches of neither pass.
    pub forward: u64,
    /// Nanoseconds of the backward pass.
    pub backward: u64,
}

impl PartTime {
    /// Nanoseconds of both passes.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.forward + self.backward
    }
}

impl Profile {
    /// A profile from the nanoseconds that each launch took.
    fn new(recording: &Recording, launches: &Launches, durations: &[f64], encode: u64) -> Self {
        let mut end = 0.0;
        let launch = |(step, duration): (&Arc<Step>, &f64)| {
            let dispatch = &recording.dispatches[step.dispatch];
            let start = end;
            end += duration;
            let part = |whole: u64| (whole as f64 * step.share) as u64;
            LaunchTime {
                label: dispatch.label.clone(),
                kernel: dispatch.kernel.name,
                start: start as u64,
                duration: *duration as u64,
                flops: part(dispatch.flops),
                bytes: part(dispatch.bytes()),
            }
        };
        Self { launches: launches.steps.iter().zip(durations).map(launch).collect(), encode }
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

    /// The sums by part of the model, in the order of their first launch. A part is the label without `grad.` in front and the op's name at
    /// the end, such as `blocks.0.attention`. Forward and backward pass are separate.
    #[must_use]
    pub fn by_part(&self) -> Vec<(String, PartTime)> {
        let mut parts: Vec<(String, PartTime)> = Vec::new();
        for launch in &self.launches {
            let (label, backward) = match launch.label.strip_prefix("grad.") {
                Some(rest) => (rest, true),
                None => (launch.label.as_str(), false),
            };
            let part = label.rsplit_once('.').map_or("(outside)", |(part, _)| part);
            let index = parts.iter().position(|(name, _)| name == part).unwrap_or_else(|| {
                parts.push((part.to_owned(), PartTime::default()));
                parts.len() - 1
            });
            let sum = &mut parts[index].1;
            sum.launches += 1;
            *(if backward { &mut sum.backward } else { &mut sum.forward }) += launch.duration;
        }
        parts
    }

    /// The run in the trace event format of Perfetto and Chromium.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_come_in_order_and_both_passes_are_one_part() {
        let launch = |label: &str, duration| LaunchTime {
            label: label.into(),
            kernel: "add",
            start: 0,
            duration,
            flops: 0,
            bytes: 0,
        };
        let labels = [("embedding.add", 1), ("blocks.0.attention.linear", 2), ("head.linear", 4)];
        let grads = [("grad.head.matmul", 8), ("grad.blocks.0.attention.matmul", 16), ("add", 32), ("head.add", 64)];
        let launches = labels.iter().chain(&grads).map(|(label, duration)| launch(label, *duration)).collect();
        let parts = Profile { launches, encode: 0 }.by_part();
        let found: Vec<_> = parts.iter().map(|(name, p)| (name.as_str(), p.launches, p.forward, p.backward)).collect();
        let wanted =
            [("embedding", 1, 1, 0), ("blocks.0.attention", 2, 2, 16), ("head", 3, 68, 8), ("(outside)", 1, 32, 0)];
        assert_eq!(found, wanted);
    }
}
