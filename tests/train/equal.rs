//! Steps cut in several ways, which must equal the whole.

use super::ensure;
use super::regression::{Regression, Rows, difference, download, losses, options, schedule, trainer, wave, weights};
use libtest_mimic::Failed;
use wgformer::graph::Storage;
use wgformer::ops;
use wgformer::train::{BatchSource, Objective, Part, RunOptions, TrainStep, Trainer};
use wgformer::{DType, Gpu, Graph, Program, Recording, Result, TensorType, Weights};

pub(crate) fn two_micro_batches_equal_one_batch(gpu: &Gpu) -> Result<(), Failed> {
    // Rows 0..32 as one batch, or as two of 16: the generator numbers elements through.
    let mut whole = trainer(gpu, &Regression::new(32), options(), RunOptions::default())?;
    let wide = losses(&mut whole, &mut Rows::new(32, 3), 4)?;
    let cut = options().with_accumulation(2);
    let mut parts = trainer(gpu, &Regression::new(16), cut, RunOptions::default())?;
    let narrow = losses(&mut parts, &mut Rows::new(16, 6), 4)?;
    let error = difference(&wide, &narrow);
    ensure(error <= 1e-5, format!("losses differ by {error:e}: {wide:?} {narrow:?}"))?;
    let error = difference(&download(&whole, "flat.parameters")?, &download(&parts, "flat.parameters")?);
    ensure(error <= 1e-4, format!("weights differ by {error:e}"))
}

pub(crate) fn halves_equal_the_whole(gpu: &Gpu) -> Result<(), Failed> {
    let objective = Regression::new(33);
    let mut data = Rows::new(33, 4);
    let mut whole = trainer(gpu, &objective, options(), RunOptions::default())?;
    losses(&mut whole, &mut data, 2)?;
    let mut data = Rows::new(33, 4);
    let store = weights(gpu, &objective)?;
    let step = TrainStep::new(&objective.parameters(&Storage::default())?, gpu.caps(), options())?;
    step.layout().move_into_flat(&store)?;
    let first = Program::new(gpu, &step.graph(Part::Gradients, |g| objective.loss(g, true))?, &store)?;
    let second = Program::new(gpu, &step.graph(Part::Update, |g| objective.loss(g, true))?, &store)?;
    for index in 0..2 {
        for (name, bytes) in data.next_feeds()? {
            first.write(&name, &bytes)?;
        }
        let scalars = options().scalars(schedule().rate(index) as f32).to_array();
        second.write("optimizer.scalars", bytemuck::cast_slice(&scalars))?;
        first.run()?;
        second.run()?;
    }
    ensure(store.download("flat.parameters")? == whole.weights().download("flat.parameters")?, "weights differ")
}

pub(crate) fn several_shards_equal_one(gpu: &Gpu) -> Result<(), Failed> {
    let objective = Regression::new(33);
    let mut data = Rows::new(33, 4);
    let mut whole = trainer(gpu, &objective, options(), RunOptions::default())?;
    losses(&mut whole, &mut data, 1)?;
    let store = weights(gpu, &objective)?;
    // A limit so small that every parameter gets its own shard.
    let caps = gpu.caps().clone().with_max_buffer_bytes(128 * 4);
    let step = TrainStep::new(&objective.parameters(&Storage::default())?, &caps, options())?;
    ensure(step.layout().shards.len() > 1, "one shard")?;
    step.layout().move_into_flat(&store)?;
    let program = Program::new(gpu, &step.graph(Part::Whole, |g| objective.loss(g, true))?, &store)?;
    for (name, bytes) in Rows::new(33, 4).next_feeds()? {
        program.write(&name, &bytes)?;
    }
    program
        .write("optimizer.scalars", bytemuck::cast_slice(&options().scalars(schedule().rate(0) as f32).to_array()))?;
    program.run()?;
    for name in ["w", "b", "u"] {
        let (a, b) = (download(&whole, name)?, bytemuck::pod_collect_to_vec(&store.download(name)?));
        let error = difference(&a, &b);
        ensure(error <= 1e-5, format!("{name} differs by {error:e}"))?;
    }
    Ok(())
}

/// The update of one parameter of 10,000 elements, in bindings of 4,096.
pub(crate) fn windows_equal_the_whole(gpu: &Gpu) -> Result<(), Failed> {
    const COUNT: usize = 10_000;
    let run = |binding: u64| -> Result<Vec<Vec<u8>>> {
        let parameters = vec![("w".to_owned(), TensorType::new([COUNT, 1], DType::BF16))];
        let caps = gpu.caps().clone().with_max_binding_bytes(binding);
        let step = TrainStep::new(&parameters, &caps, options())?;
        let store = Weights::new(gpu);
        step.layout().move_into_flat(&store)?;
        let values = |seed| (0..COUNT as u64).flat_map(move |i| wave(seed, i).to_le_bytes()).collect::<Vec<u8>>();
        store.upload("master.w", &values(1))?;
        let mut g = Graph::new();
        let gradient = g.input("gradient", [COUNT], DType::F32)?;
        let flat = g.state("flat.gradients", [step.layout().shards[0].total], DType::F32)?;
        let flat = ops::pack(&mut g, flat, &[(gradient, 0)], None)?;
        g.output("flat", flat)?;
        let graphs = [g, step.graph(Part::Update, |g| g.parameter("w", [COUNT, 1], DType::BF16))?];
        for graph in graphs {
            let program = Program::prepare(gpu, Recording::new(&graph, &caps)?, &store)?;
            if graph.find("gradient").is_some() {
                program.write("gradient", &values(2))?;
            } else {
                program.write("optimizer.scalars", bytemuck::cast_slice(&options().scalars(0.1).to_array()))?;
            }
            program.run()?;
        }
        ["flat.gradients", "flat.parameters", "flat.first_moment", "flat.second_moment", "flat.half", "optimizer.state"]
            .iter()
            .map(|name| store.download(name))
            .collect()
    };
    let (cut, whole) = (run(4096 * 4)?, run(gpu.caps().max_binding_bytes)?);
    ensure(cut == whole, "windows differ from the whole")?;
    ensure(whole[1] != whole[0] && whole[2].iter().any(|byte| *byte != 0), "nothing was updated")
}

pub(crate) fn recomputation_gives_the_same_bits(gpu: &Gpu) -> Result<(), Failed> {
    let objective = Regression::new(33);
    let mut plain = trainer(gpu, &objective, options(), RunOptions::default())?;
    let again = options().with_recompute(true);
    let mut again = trainer(gpu, &objective, again, RunOptions::default())?;
    let twice = |trainer: &Trainer| -> Vec<&str> {
        let dispatches = trainer.program().recording().dispatches().iter();
        dispatches.filter(|d| d.label.contains("again.")).map(|d| d.kernel.name).collect()
    };
    // Activations are recomputed from their inputs in any case.
    ensure(twice(&plain).iter().all(|kernel| *kernel == "activation"), format!("{:?}", twice(&plain)))?;
    ensure(!twice(&plain).is_empty(), "no activation is made again")?;
    ensure(twice(&again).iter().any(|kernel| kernel.starts_with("matmul")), format!("{:?}", twice(&again)))?;
    let (a, b) = (losses(&mut plain, &mut Rows::new(33, 4), 3)?, losses(&mut again, &mut Rows::new(33, 4), 3)?);
    ensure(a == b, format!("{a:?} and {b:?}"))?;
    ensure(download(&plain, "flat.parameters")? == download(&again, "flat.parameters")?, "weights differ")
}
