//! Measures the time of the engine's passes by the device's timestamps, to estimate the device's speed.
//!
//! Two timestamps, at the beginning and the end of the passes, are read back without waiting: the next run collects them. One measurement
//! is in flight at a time, with buffers that are created once.

use super::{AdapterClass, Gpu};
use crate::error::Result;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;
use web_time::Instant;

/// The first measurements follow one another without a pause.
const EAGER: u32 = 8;
/// The pause between later measurements.
const PAUSE: Duration = Duration::from_secs(2);
/// Bytes of two timestamps.
const SIZE: u64 = 16;

/// The resources of measurements on one device.
#[derive(Debug)]
pub(super) struct Meter {
    class: AdapterClass,
    queries: wgpu::QuerySet,
    resolved: wgpu::Buffer,
    staging: wgpu::Buffer,
    /// Nanoseconds per tick.
    period: f64,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    measured: u32,
    last: Option<Instant>,
    pending: Option<Pending>,
}

/// A measurement in flight.
#[derive(Debug)]
struct Pending {
    begun: Instant,
    outcome: Arc<OnceLock<Outcome>>,
}

/// The time of the readback and the operations between the timestamps; `None` if the readback will never come.
type Outcome = Option<(Instant, f64)>;

/// Settles a measurement from wgpu's callback, or as failed when the callback is dropped.
#[derive(Debug)]
struct MeterGuard(Arc<OnceLock<Outcome>>);

impl Drop for MeterGuard {
    fn drop(&mut self) {
        let _ = self.0.set(None);
    }
}

/// One measurement of passes: [`Stopwatch::of_pass`] for each pass, then [`Stopwatch::stop`].
#[derive(Debug)]
pub(crate) struct Stopwatch<'a> {
    meter: &'a Meter,
    note: MeterGuard,
    /// The number of the measurement.
    pub(crate) number: u32,
}

impl Gpu {
    /// Creates the resources of measurements, so that no run has to.
    pub(crate) fn prepare_meter(&self) {
        let _ = self.meter();
    }

    fn meter(&self) -> Option<&Meter> {
        // Without memory for them the device is not measured.
        self.inner.meter.get_or_init(|| Meter::new(self).ok().flatten()).as_ref()
    }

    /// A measurement of the passes encoded next, if the device has timestamps and a measurement is due.
    pub(crate) fn stopwatch(&self) -> Option<Stopwatch<'_>> {
        let meter = self.inner.meter.get()?.as_ref()?;
        let mut state = meter.state.try_lock().ok()?;
        meter.collect(self, &mut state);
        let due = state.measured < EAGER || state.last.is_none_or(|last| last.elapsed() >= PAUSE);
        if state.pending.is_some() || !due {
            return None;
        }
        let outcome = Arc::default();
        let note = MeterGuard(Arc::clone(&outcome));
        let begun = Instant::now();
        state.pending = Some(Pending { begun, outcome });
        let number = state.measured;
        (state.measured, state.last) = (number.saturating_add(1), Some(begun));
        Some(Stopwatch { meter, note, number })
    }

    /// Updates the speed from a measurement that has arrived.
    pub(super) fn collect_times(&self) {
        if let Some(meter) = self.inner.meter.get().and_then(Option::as_ref)
            && let Ok(mut state) = meter.state.try_lock()
        {
            meter.collect(self, &mut state);
        }
    }
}

impl Meter {
    fn new(gpu: &Gpu) -> Result<Option<Self>> {
        if !gpu.device().features().contains(wgpu::Features::TIMESTAMP_QUERY) {
            return Ok(None);
        }
        let queries = gpu.scoped("two timestamps", || {
            gpu.device().create_query_set(&wgpu::QuerySetDescriptor {
                label: Some("speed"),
                ty: wgpu::QueryType::Timestamp,
                count: 2,
            })
        })?;
        let resolve = wgpu::BufferUsages::QUERY_RESOLVE | wgpu::BufferUsages::COPY_SRC;
        let resolved = gpu.buffer("speed", SIZE, resolve)?;
        let staging = gpu.buffer("speed", SIZE, wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST)?;
        let period = f64::from(gpu.queue().get_timestamp_period());
        let class = gpu.caps().class;
        Ok(Some(Self { class, queries, resolved, staging, period, state: Mutex::default() }))
    }

    fn collect(&self, gpu: &Gpu, state: &mut State) {
        let Some((begun, outcome)) = state.pending.as_ref().and_then(|f| Some((f.begun, *f.outcome.get()?))) else {
            return;
        };
        state.pending = None;
        let Some((end, cost)) = outcome else { return };
        let stamps =
            self.staging.slice(..).get_mapped_range().map(|view| bytemuck::pod_read_unaligned::<[u64; 2]>(&view));
        let unmapped = gpu.scoped("unmapping timestamps", || self.staging.unmap());
        if let (Ok([first, last]), Ok(())) = (stamps, unmapped) {
            let most = end.saturating_duration_since(begun).as_secs_f64();
            gpu.inner.faults.speed.timed(self.class, cost, seconds(first, last, self.period), most);
        }
    }
}

/// The seconds between two timestamps. The counter may wrap; a negative result means that it ran backwards.
fn seconds(first: u64, last: u64, period: f64) -> f64 {
    last.wrapping_sub(first) as i64 as f64 * period / 1e9
}

impl Stopwatch<'_> {
    /// The timestamps of a pass: at its beginning if it is the first, at its end if it is the last.
    pub(crate) fn of_pass(&self, first: bool, last: bool) -> Option<wgpu::ComputePassTimestampWrites<'_>> {
        (first || last).then_some(wgpu::ComputePassTimestampWrites {
            query_set: &self.meter.queries,
            beginning_of_pass_write_index: first.then_some(0),
            end_of_pass_write_index: last.then_some(1),
        })
    }

    /// Encodes the readback of the timestamps after passes of `cost` operations.
    pub(crate) fn stop(self, encoder: &mut wgpu::CommandEncoder, cost: f64) {
        let Self { meter, note, .. } = self;
        encoder.resolve_query_set(&meter.queries, 0..2, &meter.resolved, 0);
        encoder.copy_buffer_to_buffer(&meter.resolved, 0, &meter.staging, 0, SIZE);
        encoder.map_buffer_on_submit(&meter.staging, wgpu::MapMode::Read, .., move |result| {
            let _ = note.0.set(result.is_ok().then(|| (Instant::now(), cost)));
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_seconds() {
        assert_eq!(seconds(5, 5, 1.0), 0.0);
        assert_eq!(seconds(u64::MAX - 1, 499_999_998, 2.0), 1.0, "wraps");
        assert!(seconds(9, 5, 1.0) < 0.0, "backwards");
        assert_eq!(seconds(0, 1 << 40, 0.0), 0.0, "no period");
    }
}
