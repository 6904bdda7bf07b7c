//! Copies of tensors into textures, on random recordings: no GPU.

use proptest::prelude::*;
use wgformer::kernel::{Access, Binding, Dispatch, Kernel, View};
use wgformer::program::{Recording, Slot, Source};
use wgformer::software::Staging;
use wgformer::{DType, TensorType};

static KERNEL: Kernel = Kernel::new("nothing", "");

/// A slot of `count` elements: a weight, a state or a temporary.
fn slot(index: usize, elements: usize, kind: u8) -> Slot {
    let source = match kind {
        0 => Source::Parameter(format!("weight {index}")),
        1 => Source::State(format!("state {index}")),
        _ => Source::Temporary,
    };
    Slot { label: index.to_string(), source, ty: TensorType::f32([elements]), below: None }
}

/// The slots; and for each dispatch its reads through textures (slot, second half only) and its updates.
type Parts = (Vec<(usize, u8)>, Vec<(Vec<(usize, bool)>, Option<usize>)>);

fn parts() -> impl Strategy<Value = Parts> {
    prop::collection::vec((2_usize..100_000, 0_u8..4), 1..12).prop_flat_map(|slots| {
        let count = slots.len();
        let reads = prop::collection::vec((0..count, any::<bool>()), 0..12);
        let dispatches = prop::collection::vec((reads, prop::option::of(0..count)), 1..40);
        (Just(slots), dispatches)
    })
}

fn recording((slots, dispatches): Parts) -> Recording {
    let slots: Vec<Slot> = slots.into_iter().enumerate().map(|(i, (n, kind))| slot(i, n, kind)).collect();
    let view = |slot: usize, half: bool| {
        let whole = slots[slot].ty.shape.numel();
        let start = if half { whole / 2 } else { 0 };
        View { slot, start, shape: [whole - start].into(), dtype: DType::F32 }
    };
    let dispatches = dispatches.into_iter().map(|(reads, written)| {
        let mut dispatch = Dispatch::new(&KERNEL);
        let binding = Binding::new;
        let read = |(slot, half)| binding(view(slot, half), Access::Texture { storage: true, shared: false });
        dispatch.bindings = reads.into_iter().filter(|(slot, ..)| Some(*slot) != written).map(read).collect();
        dispatch.bindings.extend(written.map(|slot| binding(view(slot, false), Access::Update)));
        dispatch
    });
    let dispatches = dispatches.collect();
    Recording::from_parts(slots, dispatches, Vec::new())
}

/// Whether a write to one slot may change another: itself, and weights and states, which may be parts of one another.
fn may_change(recording: &Recording, written: usize, slot: usize) -> bool {
    let stored = |slot: usize| matches!(recording.slots()[slot].source, Source::Parameter(_) | Source::State(_));
    written == slot || (stored(written) && stored(slot))
}

proptest! {
    /// Plays the copies and writes of a step: what a kernel finds in a texture is the tensor as it is at that moment.
    #[test]
    fn kernels_find_the_tensors_of_the_moment_in_textures(parts in parts()) {
        let recording = recording(parts);
        let staging = Staging::new(&recording);
        prop_assert_eq!(staging.stages.len(), recording.dispatches().len());
        let mut versions = vec![0; recording.slots().len()];
        let mut held = vec![None; staging.textures.len()];
        for (dispatch, stages) in recording.dispatches().iter().zip(&staging.stages) {
            let through = dispatch.bindings.iter().filter(|b| matches!(b.access, Access::Texture { .. })).count();
            prop_assert_eq!(stages.len(), through);
            let now = |stage: &wgformer::software::Stage, versions: &[usize]| {
                let view = &dispatch.bindings[stage.binding].view;
                Some((view.slot, view.start, view.numel(), versions[view.slot]))
            };
            for stage in stages.iter().filter(|s| s.copy) {
                held[stage.texture] = now(stage, &versions);
            }
            for stage in stages {
                let binding = &dispatch.bindings[stage.binding];
                prop_assert_eq!(held[stage.texture], now(stage, &versions));
                prop_assert!(staging.textures[stage.texture] >= binding.view.bytes());
            }
            for written in dispatch.bindings.iter().filter(|b| !b.access.only_reads()) {
                for slot in 0..versions.len() {
                    versions[slot] += usize::from(may_change(&recording, written.view.slot, slot));
                }
            }
        }
    }
}

#[test]
fn a_tensor_that_did_not_change_is_copied_once() {
    let reads = |slot| (vec![(slot, false)], None);
    let recording =
        recording((vec![(64, 2), (64, 2)], vec![reads(0), reads(1), reads(0), (vec![], Some(0)), reads(0)]));
    let staging = Staging::new(&recording);
    let copies: Vec<bool> = staging.stages.iter().flatten().map(|stage| stage.copy).collect();
    assert_eq!(copies, [true, true, false, true]);
    assert_eq!(staging.bytes(), 2 * 256);
}

#[test]
fn a_copy_takes_the_place_of_what_is_read_last() {
    let reads = |slot| (vec![(slot, false)], None);
    // One tensor more than there are textures; by age, each of the second round would have lost its place.
    let recording = recording((vec![(64, 2); 7], (0..7).chain(0..5).chain([6]).map(reads).collect()));
    let staging = Staging::new(&recording);
    let copies = staging.stages.iter().flatten().filter(|stage| stage.copy).count();
    assert_eq!((copies, staging.textures.len()), (7, 6));
}
