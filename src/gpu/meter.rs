//! The time of the engine's passes by the device's own timestamps, from which its speed is learnt.
//!
//! Two timestamps, where the passes begin and end, go the way of a readback that nobody waits for: they are looked at when the next
//! run begins. One measurement is under way at a time, with buffers that are made once.

use super::{AdapterClass, Gpu};
use crate::error::Result;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;
use web_time::Instant;

/// Measurements that follow one another at once, until the speed is known well.
const EAGER: u32 = 8;
/// The time between those that come later.
const PAUSE: Duration = Duration::from_secs(2);
/// Bytes of two timestamps.
const SIZE: u64 = 16;

/// What measures on one device.
#[derive(Debug)]
pub(super) struct Meter {
    class: AdapterClass,
    queries: wgpu::QuerySet,
    resolved: wgpu::Buffer,
    staging: wgpu::Buffer,
    /// Nanoseconds of a tick.
    period: f64,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    measured: u32,
    last: Option<Instant>,
    flying: Option<Flying>,
}

/// A measurement that was begun.
#[derive(Debug)]
struct Flying {
    begun: Instant,
    arrived: Arc<OnceLock<Arrived>>,
}

/// When the timestamps were there, and the operations between them; nothing if they will never be.
type Arrived = Option<(Instant, f64)>;

/// Where a measurement ends: in wgpu's callback, or nowhere.
#[derive(Debug)]
struct Note(Arc<OnceLock<Arrived>>);

impl Drop for Note {
    fn drop(&mut self) {
        let _ = self.0.set(None);
    }
}

/// The passes that are measured: the first has [`Stopwatch::begin`], the last [`Stopwatch::end`], and behind them comes
/// [`Stopwatch::stop`].
#[derive(Debug)]
pub(crate) struct Stopwatch<'a> {
    meter: &'a Meter,
    note: Note,
    /// The number of the measurement.
    pub(crate) number: u32,
}

impl Gpu {
    /// Makes what is needed to measure, so that no run has to.
    pub(crate) fn prepare_meter(&self) {
        let _ = self.meter();
    }

    fn meter(&self) -> Option<&Meter> {
        // What cannot be made, for want of memory, is done without.
        self.inner.meter.get_or_init(|| Meter::new(self).ok().flatten()).as_ref()
    }

    /// A measurement of what is encoded next, if the device has timestamps and it is time for one.
    pub(crate) fn stopwatch(&self) -> Option<Stopwatch<'_>> {
        let meter = self.inner.meter.get()?.as_ref()?;
        let mut state = meter.state.try_lock().ok()?;
        meter.collect(self, &mut state);
        let due = state.measured < EAGER || state.last.is_none_or(|last| last.elapsed() >= PAUSE);
        if state.flying.is_some() || !due {
            return None;
        }
        let arrived = Arc::default();
        let note = Note(Arc::clone(&arrived));
        let begun = Instant::now();
        state.flying = Some(Flying { begun, arrived });
        let number = state.measured;
        (state.measured, state.last) = (number.saturating_add(1), Some(begun));
        Some(Stopwatch { meter, note, number })
    }

    /// Learns from a measurement that has arrived.
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
        let Some((begun, arrived)) = state.flying.as_ref().and_then(|f| Some((f.begun, *f.arrived.get()?))) else {
            return;
        };
        state.flying = None;
        let Some((end, cost)) = arrived else { return };
        let stamps =
            self.staging.slice(..).get_mapped_range().map(|view| bytemuck::pod_read_unaligned::<[u64; 2]>(&view));
        let unmapped = gpu.scoped("unmapping timestamps", || self.staging.unmap());
        if let (Ok([first, last]), Ok(())) = (stamps, unmapped) {
            let most = end.saturating_duration_since(begun).as_secs_f64();
            gpu.inner.faults.speed.timed(self.class, cost, seconds(first, last, self.period), most);
        }
    }
}

/// The seconds between two timestamps: what ran backwards is negative, and a counter may pass its end.
fn seconds(first: u64, last: u64, period: f64) -> f64 {
    last.wrapping_sub(first) as i64 as f64 * period / 1e9
}

impl Stopwatch<'_> {
    /// The timestamps of a pass that is the first, the last, both or neither.
    pub(crate) fn of_pass(&self, first: bool, last: bool) -> Option<wgpu::ComputePassTimestampWrites<'_>> {
        (first || last).then_some(wgpu::ComputePassTimestampWrites {
            query_set: &self.meter.queries,
            beginning_of_pass_write_index: first.then_some(0),
            end_of_pass_write_index: last.then_some(1),
        })
    }

    /// Encodes what brings the timestamps home, behind passes that cost so many operations.
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
        assert_eq!(seconds(u64::MAX - 1, 499_999_998, 2.0), 1.0, "past its end");
        assert!(seconds(9, 5, 1.0) < 0.0, "backwards");
        assert_eq!(seconds(0, 1 << 40, 0.0), 0.0, "no period");
    }
}
