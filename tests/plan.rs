//! The memory plan and the cuts, on random recordings: no GPU.

use proptest::prelude::*;
use wgformer::kernel::{Access, Binding, Caps, Dispatch, Kernel, View};
use wgformer::program::{Budget, Plan, Recording, Slot, Source, cut, submissions};
use wgformer::software::Quirks;
use wgformer::{DType, Error, TensorType};

static KERNEL: Kernel = Kernel::new("nothing", "");

fn temporary(elements: usize) -> Slot {
    Slot { label: "t".into(), source: Source::Temporary, ty: TensorType::f32([elements]), below: None }
}

fn binding(slot: usize, slots: &[Slot], access: Access) -> Binding {
    let view = View { slot, start: 0, shape: slots[slot].ty.shape.clone(), dtype: DType::F32 };
    Binding::new(view, access)
}

/// A chain of ops, each of which reads some earlier tensors and writes a new one.
fn recordings() -> impl Strategy<Value = Recording> {
    prop::collection::vec((1_usize..5000, prop::collection::vec(any::<prop::sample::Index>(), 0..4)), 1..60).prop_map(
        |ops| {
            let slots: Vec<Slot> = ops.iter().map(|(size, _)| temporary(*size)).collect();
            let mut dispatches = Vec::new();
            for (index, (_, reads)) in ops.iter().enumerate() {
                let mut sources: Vec<usize> =
                    reads.iter().filter(|_| index > 0).map(|r| r.index(index.max(1))).collect();
                sources.sort_unstable();
                sources.dedup();
                let mut dispatch = Dispatch::new(&KERNEL);
                dispatch.bindings = sources.iter().map(|&s| binding(s, &slots, Access::Read)).collect();
                dispatch.bindings.push(binding(index, &slots, Access::Write));
                dispatches.push(dispatch);
            }
            let last = slots.len() - 1;
            let outputs = vec![("out".into(), binding(last, &slots, Access::Read).view)];
            Recording::from_parts(slots, dispatches, outputs)
        },
    )
}

/// The first and last dispatch that touches a slot; the output stays alive.
fn span(recording: &Recording, slot: usize) -> Option<(usize, usize)> {
    let touches = |d: &Dispatch| d.bindings.iter().any(|b| b.view.slot == slot);
    let first = recording.dispatches().iter().position(touches)?;
    let last = recording.dispatches().iter().rposition(touches)?;
    let is_output = recording.outputs().iter().any(|(_, v)| v.slot == slot);
    Some((first, if is_output { recording.dispatches().len() } else { last }))
}

proptest! {
    #[test]
    fn what_is_read_through_textures_may_lie_in_the_arena_that_is_written(recording in recordings(), shared: bool) {
        let mut dispatches = recording.dispatches().to_vec();
        for binding in dispatches.iter_mut().flat_map(|d| &mut d.bindings).filter(|b| b.access == Access::Read) {
            binding.access = Access::Texture { storage: true, shared };
        }
        let recording = Recording::from_parts(recording.slots().to_vec(), dispatches, recording.outputs().to_vec());
        let quirks = Quirks::default().with_max_texture_bytes(1 << 20);
        let caps = Caps::baseline().with_quirks(quirks);
        let plan = Plan::new(&recording, &caps).unwrap();
        prop_assert_eq!(plan.arenas.len(), 1);
    }

    #[test]
    fn what_lives_together_does_not_overlap(recording in recordings()) {
        let plan = Plan::new(&recording, &Caps::baseline()).unwrap();
        for a in 0..recording.slots().len() {
            for b in 0..a {
                let (Some(x), Some(y)) = (plan.allocations[a], plan.allocations[b]) else { continue };
                let (Some(s), Some(t)) = (span(&recording, a), span(&recording, b)) else { continue };
                let together = s.0 <= t.1 && t.0 <= s.1;
                let (size_a, size_b) = (recording.slots()[a].ty.bytes(), recording.slots()[b].ty.bytes());
                let apart = x.offset + size_a <= y.offset || y.offset + size_b <= x.offset;
                prop_assert!(!together || x.arena != y.arena || apart, "slots {a} and {b} overlap");
            }
        }
    }

    #[test]
    fn no_dispatch_reads_the_arena_it_writes(recording in recordings()) {
        let plan = Plan::new(&recording, &Caps::baseline()).unwrap();
        for dispatch in recording.dispatches() {
            let arena = |b: &Binding| plan.allocations[b.view.slot].map(|p| p.arena);
            let (reads, writes): (Vec<_>, Vec<_>) = dispatch.bindings.iter().partition(|b| b.access == Access::Read);
            prop_assert!(reads.iter().all(|r| writes.iter().all(|w| arena(r) != arena(w))));
        }
    }

    #[test]
    fn a_plan_fits_its_arenas_and_is_aligned(recording in recordings()) {
        let plan = Plan::new(&recording, &Caps::baseline()).unwrap();
        prop_assert!(plan.peak() >= plan.lower_bound);
        for (slot, place) in plan.allocations.iter().enumerate() {
            if let Some(place) = place {
                prop_assert_eq!(place.offset % 256, 0);
                prop_assert!(place.offset + recording.slots()[slot].ty.bytes() <= plan.arenas[place.arena]);
            }
        }
    }

    #[test]
    fn cuts_cover_every_workgroup_once(groups in 1_u32..100_000, flops in 0_u64..1_000_000_000_000, budget in 1e3..1e12_f64) {
        let dispatch = Dispatch::new(&KERNEL).groups(groups as usize).flops(flops);
        let ranges = cut(&dispatch, Budget { submission: budget, dispatch: budget });
        let mut next = 0;
        for range in &ranges {
            prop_assert_eq!(range.start, next);
            prop_assert!(range.end > range.start);
            next = range.end;
        }
        prop_assert_eq!(next, groups);
    }

    #[test]
    fn submissions_cover_every_step_within_the_budget(costs in prop::collection::vec(0.0..100.0_f64, 0..200), budget in 1.0..500.0_f64) {
        let ranges = submissions(&costs, Budget { submission: budget, dispatch: budget });
        let mut next = 0;
        for range in &ranges {
            prop_assert_eq!(range.start, next);
            next = range.end;
            let sum: f64 = costs[range.clone()].iter().sum();
            prop_assert!(sum <= budget || range.len() == 1);
        }
        prop_assert_eq!(next, costs.len());
    }
}

#[test]
fn a_tensor_larger_than_a_binding_is_refused_with_its_size() {
    let slots = vec![temporary(40 << 20)];
    let mut dispatch = Dispatch::new(&KERNEL);
    dispatch.bindings = vec![binding(0, &slots, Access::Write)];
    let recording = Recording::from_parts(slots, vec![dispatch], Vec::new());
    let error = Plan::new(&recording, &Caps::baseline()).unwrap_err();
    assert!(matches!(error, Error::OutOfMemory { .. }));
    let text = error.to_string();
    assert!(text.contains("160.0 MiB") && text.contains("128.0 MiB in one binding"), "{text}");
}

#[test]
fn reading_and_writing_one_tensor_is_refused() {
    let slots = vec![temporary(64)];
    let mut dispatch = Dispatch::new(&KERNEL);
    dispatch.bindings = vec![binding(0, &slots, Access::Read), binding(0, &slots, Access::Write)];
    let recording = Recording::from_parts(slots, vec![dispatch], Vec::new());
    let error = Plan::new(&recording, &Caps::baseline()).unwrap_err();
    assert!(error.to_string().contains("twice"), "{error}");
}
