//! Indices out of range that come from data: other memory stays unchanged, and nothing crashes. On every adapter.

use wgformer::gpu::{AdapterClass, GpuOptions};
use wgformer::ops::{
    self, AttentionOptions, CrossEntropyOptions, RopeOptions, RouterLoss, SelectOptions, SelectRule, SortedIndex,
};
use wgformer::{DType, Gpu, Graph, Program, Result, Tensor, Weights};

const COUNT: usize = 8;
const ROWS: usize = 4;
const WIDTH: usize = 12;
/// Indices of which one is in range.
const IDS: [u32; COUNT] = [u32::MAX, 0x7fff_ffff, 0x8000_0000, 4, 5, 3, 0x4000_0000, 0xffff_fff0];
const CANARIES: usize = 6;

type Build = fn(&mut Graph, x: Tensor, table: Tensor, ids: Tensor) -> Result<Tensor>;

/// Lists as an application may make them.
fn forged(g: &mut Graph, ids: Tensor) -> Result<SortedIndex> {
    let starts = ops::slice(g, ids, 0, 0, ROWS + 1)?;
    Ok(SortedIndex { order: ids, starts, ..ops::sort_index(g, ids, ROWS)? })
}

fn zeros(g: &mut Graph) -> Result<Tensor> {
    ops::zeros(g, [1, COUNT, 2, WIDTH])
}

/// Attention of rows, and its gradients.
fn attend(g: &mut Graph, x: Tensor, shape: [usize; 4], options: &AttentionOptions) -> Result<Tensor> {
    let rows = ops::reshape(g, x, shape)?;
    let out = ops::attention(g, rows, rows, rows, options)?;
    let loss = ops::sum(g, out)?;
    Ok(g.differentiate(loss, &[x])?[0].unwrap_or(loss))
}

const CASES: [(&str, Build); 24] = [
    ("attention to lengths", |g, x, _, ids| {
        attend(g, x, [COUNT, 1, 1, WIDTH], &AttentionOptions::default().with_lengths(ids))
    }),
    ("attention with a prefix", |g, x, _, ids| {
        let options = AttentionOptions::default().with_causal(true).with_prefix(ids);
        attend(g, x, [COUNT, 1, 1, WIDTH], &options)
    }),
    ("attention at positions", |g, x, _, ids| {
        let positions = ops::reshape(g, ids, [1, COUNT])?;
        let options = AttentionOptions::default().with_causal(true).with_query_positions(positions);
        attend(g, x, [1, COUNT, 1, WIDTH], &options)
    }),
    ("attention at positions in a window", |g, x, _, ids| {
        let positions = ops::reshape(g, ids, [1, COUNT])?;
        let options = AttentionOptions::default().with_window(3).with_query_positions(positions);
        attend(g, x, [1, COUNT, 1, WIDTH], &options)
    }),
    ("attention of a tree, with a mask", |g, x, _, ids| {
        let tree = g.state("spans", [1, COUNT, 3], DType::U32)?;
        let key_mask = ops::reshape(g, ids, [1, COUNT])?;
        let options = AttentionOptions::default().with_tree(tree).with_key_mask(key_mask);
        attend(g, x, [1, COUNT, 1, WIDTH], &options)
    }),
    ("select of lengths", |g, x, _, ids| {
        let options = SelectOptions::default().with_lengths(ids);
        let taken = ops::select(g, x, SelectRule::Top(5), &options)?;
        ops::reshape(g, taken.index, [COUNT, 5])
    }),
    ("select of so many", |g, x, _, ids| {
        let taken = ops::select(g, x, SelectRule::Top(5), &SelectOptions::default().with_most((ids, 2)))?;
        ops::reshape(g, taken.index, [COUNT, 5])
    }),
    ("mask_rows", |g, x, _, ids| ops::mask_rows(g, x, ids)),
    ("gather_unique", |g, x, _, ids| ops::gather_unique(g, x, ids, ids)),
    ("claim_slots and a cache", |g, x, _, ids| {
        let used = g.state("used", [COUNT], DType::U32)?;
        let positions = ops::claim_slots(g, used, ids, 1, false)?.slots;
        let positions = ops::reshape(g, positions, [COUNT, 1])?;
        let caches =
            [g.state("keys", [COUNT, 3, 1, WIDTH], DType::F32)?, g.state("values", [COUNT, 3, 1, WIDTH], DType::F32)?];
        let new = ops::reshape(g, x, [COUNT, 1, 1, WIDTH])?;
        ops::cache_write(g, caches, [new, new], positions)?;
        // The caches go on with each run.
        ops::scale(g, x, 1.0)
    }),
    ("selection_loss", |g, x, _, ids| {
        let logits = ops::slice(g, x, 1, 0, 1)?;
        let logits = ops::reshape(g, logits, [1, COUNT])?;
        let lengths = ops::slice(g, ids, 0, 0, 1)?;
        let loss = ops::selection_loss(g, logits, ids, Some(lengths), RouterLoss { aux: 0.1, z: 0.1 })?;
        ops::sum(g, loss)
    }),
    ("balance_loss", |g, x, _, ids| {
        let lengths = ops::slice(g, ids, 0, 0, 2)?;
        ops::balance_loss(g, x, x, ids, Some(lengths), RouterLoss { aux: 0.1, z: 0.1 })
    }),
    ("gather_rows", |g, _, table, ids| ops::gather_rows(g, table, ids)),
    ("scatter_rows", |g, x, _, ids| ops::scatter_rows(g, x, ids, ROWS)),
    ("scatter_rows of forged lists", |g, x, _, ids| {
        let lists = forged(g, ids)?;
        ops::scatter_rows_sorted(g, x, lists)
    }),
    ("embedding", |g, _, table, ids| ops::embedding(g, table, ids)),
    ("gradient of embedding", |g, _, table, ids| {
        let rows = ops::embedding(g, table, ids)?;
        let squares = ops::mul(g, rows, rows)?;
        let loss = ops::sum(g, squares)?;
        Ok(g.differentiate(loss, &[table])?[0].unwrap_or(loss))
    }),
    ("pick", |g, x, _, ids| ops::pick(g, x, ids)),
    ("cross_entropy", |g, x, _, _| {
        let labels = g.state("labels", [COUNT], DType::I32)?;
        ops::cross_entropy(g, x, labels, &CrossEntropyOptions::default())
    }),
    ("limit_capacity of forged lists", |g, _, _, ids| {
        let lists = forged(g, ids)?;
        ops::limit_capacity(g, lists, 1)
    }),
    ("rope", |g, _, _, ids| {
        let options = RopeOptions::default().with_max_positions(ROWS);
        let table = ops::rope_table(g, WIDTH, &options)?;
        let positions = ops::reshape(g, ids, [1, COUNT])?;
        let x = zeros(g)?;
        ops::rope(g, x, positions, table, &options)
    }),
    ("cache_write", |g, _, _, ids| {
        let caches =
            [g.state("keys", [1, ROWS, 2, WIDTH], DType::F32)?, g.state("values", [1, ROWS, 2, WIDTH], DType::F32)?];
        let positions = ops::reshape(g, ids, [1, COUNT])?;
        let new = [zeros(g)?, zeros(g)?];
        Ok(ops::cache_write(g, caches, new, positions)?.0)
    }),
    ("grouped_linear", |g, x, _, ids| {
        let chosen = ops::reshape(g, ids, [COUNT, 1])?;
        let routing = ops::route(g, chosen, ROWS)?;
        let weight = g.parameter("weight", [ROWS, 5, WIDTH], DType::F32)?;
        ops::grouped_linear(g, x, weight, &routing)
    }),
    ("grouped_linear of forged lists", |g, x, _, ids| {
        let chosen = ops::reshape(g, ids, [COUNT, 1])?;
        let sorted = forged(g, ids)?;
        let routing = ops::ExpertDispatch { sorted, tokens: ids, rows: ids, ..ops::route(g, chosen, ROWS)? };
        let weight = g.parameter("weight", [ROWS, 5, WIDTH], DType::F32)?;
        let out = ops::grouped_linear(g, x, weight, &routing)?;
        let loss = ops::sum(g, out)?;
        Ok(g.differentiate(loss, &[x])?[0].unwrap_or(loss))
    }),
];

fn run(gpu: &Gpu, name: &str, build: Build) -> Result<()> {
    let mut g = Graph::new();
    let secret = g.parameter("a secret", [ROWS * WIDTH], DType::F32)?;
    let x = g.parameter("x", [COUNT, WIDTH], DType::F32)?;
    let table = g.parameter("table", [ROWS, WIDTH], DType::F32)?;
    let other = g.parameter("z secret", [ROWS * WIDTH], DType::F32)?;
    let ids = g.input("ids", [COUNT], DType::U32)?;
    let mut canaries = Vec::new();
    for index in 1..CANARIES {
        canaries.push(ops::scale(&mut g, secret, index as f32)?);
    }
    let out = build(&mut g, x, table, ids)?;
    canaries.push(ops::scale(&mut g, other, CANARIES as f32)?);
    g.output("out", out)?;
    for (index, tensor) in canaries.into_iter().enumerate() {
        g.output(&format!("canary {index}"), tensor)?;
    }
    let weights = Weights::for_graph(gpu, &g, "flat")?;
    for (secret, count) in
        [("a secret", ROWS * WIDTH), ("z secret", ROWS * WIDTH), ("x", COUNT * WIDTH), ("table", ROWS * WIDTH)]
    {
        weights.upload(secret, bytemuck::cast_slice(&vec![3.0_f32; count]))?;
    }
    let program = Program::new(gpu, &g, &weights)?;
    // As an application's pass may write them: `Program::write` would refuse some.
    if program.has_input("ids") {
        let (buffer, offset, _) = program.input_buffer("ids")?;
        gpu.queue().write_buffer(buffer, offset, bytemuck::cast_slice(&IDS));
    }
    if g.find("labels").is_some() {
        weights.upload("labels", bytemuck::cast_slice(&IDS))?;
    }
    if g.find("spans").is_some() {
        weights.upload("spans", bytemuck::cast_slice(&IDS.repeat(3)))?;
    }
    for _ in 0..2 {
        program.run()?;
        for index in 0..CANARIES {
            let found = program.read_f32(&format!("canary {index}"))?;
            assert!(found.iter().all(|v| *v == 3.0 * (index + 1) as f32), "{name}: canary {index} is {found:?}");
        }
        for secret in ["a secret", "z secret", "x", "table"] {
            let found: Vec<f32> = bytemuck::pod_collect_to_vec(&weights.download(secret)?);
            assert!(found.iter().all(|v| *v == 3.0), "{name}: {secret} is {found:?}");
        }
    }
    let first = program.read("out")?;
    program.run()?;
    assert_eq!(first, program.read("out")?, "{name}: another run, other bits");
    gpu.check()
}

#[test]
fn indices_that_name_nothing_harm_nothing() {
    let adapters = Gpu::adapters();
    assert!(!adapters.is_empty(), "no adapter: install a Vulkan driver (mesa-vulkan-drivers)");
    for adapter in adapters {
        for class in [AdapterClass::Cpu, AdapterClass::Gpu] {
            let gpu = Gpu::open_with(&adapter, &GpuOptions::default().with_class(class)).unwrap();
            for (case, build) in CASES {
                let name = format!("{:?} {}, {class:?}: {case}", gpu.info().backend, gpu.info().name);
                run(&gpu, &name, build).unwrap_or_else(|error| panic!("{name}: {error}"));
            }
        }
    }
}
