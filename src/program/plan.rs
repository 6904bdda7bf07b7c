//! The memory plan: an offset in an arena for each temporary, such that temporaries share memory over the step.
//!
//! Temporaries are placed greedily by size into the best-fitting gap among those that are alive at the same time
//! (Pisarchyk and Lee 2020, arXiv:2001.03288). WebGPU forbids that one dispatch reads and writes one buffer, so the
//! temporaries are spread over a few arenas such that no dispatch reads from an arena that it writes to. Reads through a texture in the
//! memory of an arena do not count.

use super::{Recording, Source};
use crate::error::{Error, Result, human_bytes};
use crate::kernel::{Binding, Caps, View};
use std::collections::HashSet;

/// Alignment of tensors in arenas, in bytes: a binding offset that every adapter accepts.
const ALIGNMENT: u64 = 256;

/// The memory of a temporary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Allocation {
    /// The arena.
    pub arena: usize,
    /// The offset in bytes.
    pub offset: u64,
}

/// The memory of all temporaries of a recording.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The allocation of each slot; `None` for slots that are not temporaries or that no dispatch touches.
    pub allocations: Vec<Option<Allocation>>,
    /// The size of each arena in bytes.
    pub arenas: Vec<u64>,
    /// The most bytes that are alive at the same time: a lower bound for any plan.
    pub lower_bound: u64,
}

/// A temporary to be placed.
struct Item {
    slot: usize,
    size: u64,
    first: usize,
    last: usize,
}

impl Plan {
    /// Plans the temporaries of a recording.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`] if a tensor is larger than one binding of the device; [`Error::Unsupported`] if a dispatch has more bindings
    /// than the adapter allows; [`Error::Graph`] if a dispatch reads and writes one tensor, or binds memory that does not exist.
    pub fn new(recording: &Recording, caps: &Caps) -> Result<Self> {
        Self::without(recording, caps, &HashSet::new())
    }

    /// As [`Plan::new`], without the slots that lie elsewhere.
    pub(super) fn without(recording: &Recording, caps: &Caps, elsewhere: &HashSet<usize>) -> Result<Self> {
        check_limits(recording, caps)?;
        let mut items = lifetimes(recording);
        items.retain(|item| !elsewhere.contains(&item.slot));
        let conflicts = conflicts(recording);
        let lower_bound = lower_bound(&items, recording.dispatches.len());
        let orders: [fn(&Item) -> (u64, u64); 3] = [
            |i| (u64::MAX - i.size, i.first as u64),
            |i| (u64::MAX - (i.last - i.first + 1) as u64, u64::MAX - i.size),
            |i| (u64::MAX - i.size.saturating_mul((i.last - i.first + 1) as u64), i.first as u64),
        ];
        let plans = orders.iter().map(|order| place(&items, *order, &conflicts, recording.slots.len(), caps));
        let best = plans.min_by_key(|(_, arenas)| arenas.iter().copied().fold(0, u64::saturating_add));
        let (allocations, arenas) = best.unwrap_or_default();
        Ok(Self { allocations, arenas, lower_bound })
    }

    /// Plans temporaries that share no memory, each between two bands of [`Plan::BAND`] bytes that belong to none: what is written there was
    /// written outside a tensor. Their memory is larger than that of [`Plan::new`].
    ///
    /// # Errors
    /// As [`Plan::new`].
    pub(crate) fn apart(recording: &Recording, caps: &Caps) -> Result<Self> {
        check_limits(recording, caps)?;
        let mut items = lifetimes(recording);
        let lower_bound = lower_bound(&items, recording.dispatches.len());
        for item in &mut items {
            (item.first, item.last) = (0, recording.dispatches.len());
            item.size += 2 * Self::BAND;
        }
        let order = |item: &Item| item.slot;
        let (mut allocations, arenas) = place(&items, order, &conflicts(recording), recording.slots.len(), caps);
        allocations.iter_mut().flatten().for_each(|place| place.offset += Self::BAND);
        Ok(Self { allocations, arenas, lower_bound })
    }

    /// The bytes between temporaries that [`Plan::apart`] keeps apart.
    pub(crate) const BAND: u64 = ALIGNMENT;

    /// Bytes of all arenas.
    #[must_use]
    pub fn peak(&self) -> u64 {
        self.arenas.iter().sum()
    }
}

fn check_limits(recording: &Recording, caps: &Caps) -> Result<()> {
    for (name, view) in &recording.outputs {
        within(recording, view).map_err(|what| Error::Graph(format!("the output {name} {what}")))?;
    }
    for dispatch in &recording.dispatches {
        for binding in &dispatch.bindings {
            within(recording, &binding.view)
                .map_err(|what| Error::Graph(format!("{} ({}) {what}", dispatch.label, dispatch.kernel.name)))?;
        }
        let count = dispatch.bindings.iter().filter(|b| b.access.is_buffer()).count();
        if count > caps.storage_bindings as usize {
            return Err(Error::Unsupported {
                what: format!("{} ({})", dispatch.label, dispatch.kernel.name),
                needs: format!("{count} storage buffers in one shader (the limit is {})", caps.storage_bindings),
                adapter: caps.name.clone(),
                hint: "Request a higher max_storage_buffers_per_shader_stage when opening the device".into(),
            });
        }
        for (index, binding) in dispatch.bindings.iter().enumerate() {
            let bytes = binding.view.bytes();
            let most = match binding.access.is_buffer() {
                true => caps.max_binding_bytes,
                false => caps.quirks.max_texture_bytes,
            };
            if bytes > most {
                return Err(Error::OutOfMemory {
                    what: format!("{} of {}", recording.slots[binding.view.slot].label, dispatch.label),
                    needed: human_bytes(bytes),
                    available: format!("{} in one binding", human_bytes(most)),
                    hint: "Lower the batch, the sequence length or the vocabulary, or, if the device is the application's, open it \
                           with the adapter's own limits"
                        .into(),
                });
            }
            let buffer = |b: &Binding| b.access.is_buffer();
            let twice = dispatch.bindings[..index].iter().any(|other| {
                let reads = [other, binding].map(|b| b.access.only_reads());
                let mixed =
                    reads[0] != reads[1] && other.view.slot == binding.view.slot && buffer(other) && buffer(binding);
                mixed || (reads != [true; 2] && overlaps(&other.view, &binding.view))
            });
            if twice {
                let what = format!(
                    "{} binds {} twice and writes to it",
                    dispatch.label, recording.slots[binding.view.slot].label
                );
                return Err(Error::Graph(what));
            }
        }
        let groups = u64::from(caps.max_groups).pow(2);
        if dispatch.too_large || u64::from(dispatch.groups) > groups {
            return Err(Error::Unsupported {
                what: format!("{} ({})", dispatch.label, dispatch.kernel.name),
                needs: format!("numbers of more than 32 bits, or more than {groups} workgroups"),
                adapter: caps.name.clone(),
                hint: "Lower the batch, the sequence length or the model's sizes".into(),
            });
        }
    }
    for slot in recording.slots.iter().filter(|slot| matches!(slot.source, Source::Temporary)) {
        if slot.ty.bytes() > caps.max_buffer_bytes {
            return Err(Error::OutOfMemory {
                what: slot.label.clone(),
                needed: human_bytes(slot.ty.bytes()),
                available: format!("{} in one buffer", human_bytes(caps.max_buffer_bytes)),
                hint: "Lower the batch, the sequence length or the model's sizes".into(),
            });
        }
    }
    Ok(())
}

/// Refuses views outside their slot's memory.
fn within(recording: &Recording, view: &View) -> std::result::Result<(), String> {
    let Some(slot) = recording.slots.get(view.slot) else { return Err("binds memory that does not exist".into()) };
    let (span, bytes) = (view.span(), slot.ty.bytes());
    match span.end <= bytes || (view.dtype.is_quantised() && view.bytes() <= bytes) {
        true => Ok(()),
        false => Err(format!("binds bytes {} to {} of {}, which has only {bytes}", span.start, span.end, slot.label)),
    }
}

fn overlaps(a: &View, b: &View) -> bool {
    let (a_span, b_span) = (a.span(), b.span());
    a.slot == b.slot && a_span.start < b_span.end && b_span.start < a_span.end
}

/// The temporaries with the first and the last dispatch that touches them; outputs live to the end.
fn lifetimes(recording: &Recording) -> Vec<Item> {
    let mut spans: Vec<Option<(usize, usize)>> = vec![None; recording.slots.len()];
    for (index, dispatch) in recording.dispatches.iter().enumerate() {
        for binding in &dispatch.bindings {
            let span = spans[binding.view.slot].get_or_insert((index, index));
            span.1 = index;
        }
    }
    for (_, view) in &recording.outputs {
        let span = spans[view.slot].get_or_insert((0, 0));
        span.1 = recording.dispatches.len();
    }
    let item = |(slot, span): (usize, &Option<(usize, usize)>)| {
        let temporary = matches!(recording.slots[slot].source, Source::Temporary);
        let size = recording.slots[slot].ty.bytes().next_multiple_of(ALIGNMENT).max(ALIGNMENT);
        span.filter(|_| temporary).map(|(first, last)| Item { slot, size, first, last })
    };
    spans.iter().enumerate().filter_map(item).collect()
}

/// For each slot, the slots that must be in another buffer: some dispatch reads one of the two and writes the other.
fn conflicts(recording: &Recording) -> Vec<HashSet<usize>> {
    let mut conflicts = vec![HashSet::new(); recording.slots.len()];
    for dispatch in &recording.dispatches {
        let buffers = dispatch.bindings.iter().filter(|b| b.access.is_buffer());
        let (read, written): (Vec<_>, Vec<_>) = buffers.partition(|b| b.access.only_reads());
        for a in &read {
            for b in &written {
                conflicts[a.view.slot].insert(b.view.slot);
                conflicts[b.view.slot].insert(a.view.slot);
            }
        }
    }
    conflicts
}

fn lower_bound(items: &[Item], dispatches: usize) -> u64 {
    let mut change = vec![0_i128; dispatches + 2];
    for item in items {
        change[item.first] += i128::from(item.size);
        change[item.last + 1] -= i128::from(item.size);
    }
    let mut live = 0;
    let peak = change.iter().map(|c| {
        live += c;
        live
    });
    peak.max().unwrap_or(0) as u64
}

type Arena<'a> = (u64, Vec<(u64, &'a Item)>);

/// Places items in the given order, each where its arena grows least.
fn place<K: Ord>(
    items: &[Item],
    order: impl Fn(&Item) -> K,
    conflicts: &[HashSet<usize>],
    slots: usize,
    caps: &Caps,
) -> (Vec<Option<Allocation>>, Vec<u64>) {
    let mut sorted: Vec<&Item> = items.iter().collect();
    sorted.sort_by_key(|item| (order(item), item.slot));
    let mut arenas: Vec<Arena<'_>> = Vec::new();
    let mut allocations: Vec<Option<Allocation>> = vec![None; slots];
    for item in sorted {
        let mut best: Option<(u64, usize, u64)> = None;
        for (index, (size, placed)) in arenas.iter().enumerate() {
            if placed.iter().any(|(_, other)| conflicts[item.slot].contains(&other.slot)) {
                continue;
            }
            let offset = best_gap(item, placed);
            let growth = (offset + item.size).saturating_sub(*size);
            if size + growth <= caps.max_buffer_bytes && best.is_none_or(|(least, ..)| growth < least) {
                best = Some((growth, index, offset));
            }
        }
        let (growth, index, offset) = best.unwrap_or_else(|| {
            arenas.push((0, Vec::new()));
            (item.size, arenas.len() - 1, 0)
        });
        let (size, placed) = &mut arenas[index];
        *size += growth;
        let at = placed.partition_point(|(other, _)| *other <= offset);
        placed.insert(at, (offset, item));
        allocations[item.slot] = Some(Allocation { arena: index, offset });
    }
    (allocations, arenas.iter().map(|(size, _)| *size).collect())
}

/// The smallest gap that fits the item among items alive at the same time; the end if there is none.
fn best_gap(item: &Item, placed: &[(u64, &Item)]) -> u64 {
    let mut end = 0;
    let mut best: Option<(u64, u64)> = None;
    for (offset, other) in placed {
        if other.first > item.last || item.first > other.last {
            continue;
        }
        let gap = offset.saturating_sub(end);
        if gap >= item.size && best.is_none_or(|(least, _)| gap < least) {
            best = Some((gap, end));
        }
        end = end.max(offset + other.size);
    }
    best.map_or(end, |(_, offset)| offset)
}
