//! Indices from data on the device, which the host cannot check: kernels drop or clamp those out of range, as the ops say, and
//! write nowhere else. On every adapter, with the kernels for either class.

mod common;

use libtest_mimic::Failed;
use wgformer::ops::{self, AttentionOptions, CrossEntropyOptions, GateOptions, RopeOptions};
use wgformer::{DType, Gpu, Graph, Program, Tensor, TensorType, Weights};

type Check = fn(&Gpu) -> Result<(), Failed>;

const CHECKS: [(&str, Check); 7] = [
    ("ids of a table", ids_of_a_table),
    ("labels", labels),
    ("positions of a rotation", positions_of_a_rotation),
    ("positions of a cache", positions_of_a_cache),
    ("rows of a sum", rows_of_a_sum),
    ("lengths, positions and prefixes of attention", limits_of_attention),
    ("logits of a gate that are no numbers", logits_of_a_gate),
];

fn main() {
    let mut trials = Vec::new();
    for (name, device) in common::adapters_also_as_gpus(&mut trials) {
        for (title, check) in CHECKS {
            trials.push(device.trial(format!("[{name}] indices: {title}"), check));
        }
    }
    common::run(trials);
}

/// Indices inside, at both ends, and outside of `size`.
fn hostile(size: u32) -> Vec<u32> {
    vec![0, size, size - 1, size + 1, i32::MIN as u32, u32::MAX, 1, u32::MAX - 7, i32::MAX as u32]
}

/// The results of a graph whose states hold these words.
fn run(
    gpu: &Gpu,
    weights: &Weights,
    states: &[(&str, &[u32])],
    build: impl FnOnce(&mut Graph) -> wgformer::Result<Tensor>,
) -> Result<Vec<f32>, Failed> {
    let mut g = Graph::new();
    let out = build(&mut g)?;
    g.output("out", out)?;
    let program = Program::new(gpu, &g, weights)?;
    for (name, words) in states {
        weights.upload(name, bytemuck::cast_slice(words))?;
    }
    program.fill_temporaries(f32::NAN.to_bits())?;
    program.run()?;
    Ok(program.read_f32("out")?)
}

fn numbers(count: usize) -> Vec<f32> {
    (0..count).map(|i| (i * i % 23) as f32 - 11.0 + i as f32 / 64.0).collect()
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|x| x.to_bits()).collect()
}

fn equal(found: &[f32], wanted: &[f32]) -> Result<(), Failed> {
    match found == wanted {
        true => Ok(()),
        false => Err(format!("{found:?} is not {wanted:?}").into()),
    }
}

/// A missing row gives zeros.
fn ids_of_a_table(gpu: &Gpu) -> Result<(), Failed> {
    for (rows, width) in [(5, 8), (1, 3), (300, 4)] {
        let (ids, table) = (hostile(rows as u32), numbers(rows * width));
        let states: [(&str, &[u32]); 2] = [("ids", &ids), ("table", &bits(&table))];
        let found = run(gpu, &Weights::new(gpu), &states, |g| {
            let table = g.parameter("table", [rows, width], DType::F32)?;
            let ids = g.state("ids", [ids.len()], DType::U32)?;
            ops::embedding(g, table, ids)
        })?;
        let zeros = vec![0.0; width];
        let row = |id: &u32| table.chunks(width).nth(*id as usize).unwrap_or(&zeros).to_vec();
        equal(&found, &ids.iter().flat_map(row).collect::<Vec<f32>>())?;
    }
    Ok(())
}

/// A row whose label is out of range has no loss and no gradient.
fn labels(gpu: &Gpu) -> Result<(), Failed> {
    for classes in [6, 1000] {
        let labels = hostile(classes as u32);
        // 0, the last, and 1 are there.
        let logits = numbers(labels.len() * classes);
        let of = |labels: &[u32]| {
            let states: [(&str, &[u32]); 2] = [("labels", labels), ("logits", &bits(&logits))];
            run(gpu, &Weights::new(gpu), &states, |g| {
                let logits = g.parameter("logits", [labels.len(), classes], DType::F32)?;
                let labels = g.state("labels", [labels.len()], DType::I32)?;
                let loss = ops::cross_entropy(g, logits, labels, &CrossEntropyOptions::default())?;
                let gradient = g.differentiate(loss, &[logits])?;
                gradient[0].map_or(Ok(loss), |gradient| ops::add(g, gradient, gradient))
            })
        };
        let ignored: Vec<u32> = labels.iter().map(|&l| if l < classes as u32 { l } else { -100_i32 as u32 }).collect();
        let (found, wanted) = (of(&labels)?, of(&ignored)?);
        equal(&found, &wanted)?;
        let there = found.chunks(classes).filter(|row| row.iter().any(|x| *x != 0.0)).count();
        if there != 3 {
            return Err(format!("{there} rows have a gradient").into());
        }
    }
    Ok(())
}

/// Positions past the table use its last row.
fn positions_of_a_rotation(gpu: &Gpu) -> Result<(), Failed> {
    let (rows, width) = (5, 8);
    let positions = hostile(rows as u32);
    let (x, table) = (numbers(positions.len() * width), numbers(rows * width));
    let of = |positions: &[u32]| {
        let (x, table) = (bits(&x), bits(&table));
        let states: [(&str, &[u32]); 3] = [("positions", positions), ("x", &x), ("table", &table)];
        run(gpu, &Weights::new(gpu), &states, |g| {
            let x = g.state("x", [1, positions.len(), 1, width], DType::F32)?;
            let positions = g.state("positions", [1, positions.len()], DType::U32)?;
            let table = g.state("table", [rows, width / 2, 2], DType::F32)?;
            ops::rope(g, x, positions, table, &RopeOptions::default())
        })
    };
    let clamped: Vec<u32> = positions.iter().map(|&p| p.min(rows as u32 - 1)).collect();
    equal(&of(&positions)?, &of(&clamped)?)
}

/// Tokens without a slot are dropped, and memory around the caches stays unchanged.
fn positions_of_a_cache(gpu: &Gpu) -> Result<(), Failed> {
    let (slots, row) = (7, 4);
    let positions = hostile(slots as u32);
    let count = positions.len();
    let weights = Weights::new(gpu);
    let cache = || TensorType::f32([2, slots, 1, row]);
    let guard = || TensorType::f32([64]);
    let entries =
        [("before", guard()), ("keys", cache()), ("between", guard()), ("values", cache()), ("behind", guard())];
    weights.allocate("all", &entries.map(|(name, ty)| (name.to_owned(), ty)))?;
    let guards = bits(&numbers(64));
    let new = numbers(2 * count * row);
    let twice = [&positions[..], &positions[..]].concat();
    let new_words = bits(&new);
    let mut states: Vec<(&str, &[u32])> =
        ["before", "between", "behind"].iter().map(|name| (*name, &guards[..])).collect();
    states.extend([("positions", &twice[..]), ("new", &new_words[..])]);
    let found = run(gpu, &weights, &states, |g| {
        let caches =
            [g.state("keys", [2, slots, 1, row], DType::F32)?, g.state("values", [2, slots, 1, row], DType::F32)?];
        let new = g.state("new", [2, count, 1, row], DType::F32)?;
        let positions = g.state("positions", [2, count], DType::U32)?;
        let (keys, values) = ops::cache_write(g, caches, [new, new], positions)?;
        g.output("keys now", keys)?;
        Ok(values)
    })?;
    let mut wanted = vec![0.0; 2 * slots * row];
    for (i, position) in twice.iter().map(|position| *position as usize).enumerate().filter(|(_, p)| *p < slots) {
        let at = (i / count * slots + position) * row;
        wanted[at..at + row].copy_from_slice(&new[i * row..][..row]);
    }
    equal(&found, &wanted)?;
    for name in ["before", "between", "behind"] {
        if weights.download(name)? != bytemuck::cast_slice::<u32, u8>(&guards) {
            return Err(format!("what lies {name} the caches has changed").into());
        }
    }
    Ok(())
}

/// Indices out of range contribute to no row.
fn rows_of_a_sum(gpu: &Gpu) -> Result<(), Failed> {
    for (rows, width, times) in [(5, 4, 1), (3, 7, 100)] {
        let index: Vec<u32> = hostile(rows as u32).repeat(times);
        let x: Vec<f32> = (0..index.len() * width).map(|i| (i % 9) as f32).collect();
        let states: [(&str, &[u32]); 2] = [("index", &index), ("x", &bits(&x))];
        let found = run(gpu, &Weights::new(gpu), &states, |g| {
            let x = g.state("x", [index.len(), width], DType::F32)?;
            let index = g.state("index", [index.len()], DType::U32)?;
            ops::scatter_rows(g, x, index, rows)
        })?;
        let mut wanted = vec![0.0; rows * width];
        for (m, row) in index.iter().map(|row| *row as usize).enumerate().filter(|(_, row)| *row < rows) {
            for c in 0..width {
                wanted[row * width + c] += x[m * width + c];
            }
        }
        equal(&found, &wanted)?;
    }
    Ok(())
}

/// What lies behind the last key counts as the last key, for few queries and for many; forward, and in the gradients of keys and values.
fn limits_of_attention(gpu: &Gpu) -> Result<(), Failed> {
    for (queries, keys, window) in [(1, 150, Some(40)), (37, 70, None)] {
        let lengths = hostile(keys as u32);
        let batch = lengths.len();
        let positions: Vec<u32> = (0..batch * queries).map(|i| lengths[(i / queries + i) % batch]).collect();
        let prefixes: Vec<u32> = (0..batch).map(|i| lengths[(i + 5) % batch]).collect();
        let new = numbers(batch * keys * 4);
        let of = |lengths: &[u32], positions: &[u32], prefixes: &[u32]| {
            let new = bits(&new);
            let states: [(&str, &[u32]); 6] = [
                ("q", &new[..batch * queries * 4]),
                ("k", &new),
                ("v", &new),
                ("lengths", lengths),
                ("positions", positions),
                ("prefixes", prefixes),
            ];
            run(gpu, &Weights::new(gpu), &states, |g| {
                let q = g.state("q", [batch, queries, 1, 4], DType::F32)?;
                let [k, v] =
                    [g.state("k", [batch, keys, 1, 4], DType::F32)?, g.state("v", [batch, keys, 1, 4], DType::F32)?];
                let mut options = AttentionOptions::default()
                    .with_causal(true)
                    .with_lengths(g.state("lengths", [batch], DType::U32)?)
                    .with_query_positions(g.state("positions", [batch, queries], DType::U32)?)
                    .with_prefix(g.state("prefixes", [batch], DType::U32)?);
                options.window = window;
                let out = ops::attention(g, q, k, v, &options)?;
                let loss = ops::sum(g, out)?;
                let gradients = g.differentiate(loss, &[q, k, v])?;
                let gradients = gradients.into_iter().flatten().collect::<Vec<_>>();
                gradients.into_iter().try_fold(loss, |total, gradient| {
                    let weighted = ops::mul(g, gradient, gradient)?;
                    let sum = ops::sum(g, weighted)?;
                    ops::add(g, total, sum)
                })
            })
        };
        let clamped = |words: &[u32], most: usize| words.iter().map(|&word| word.min(most as u32)).collect::<Vec<_>>();
        let found = of(&lengths, &positions, &prefixes)?;
        let last = keys + window.unwrap_or(0);
        let wanted = of(&clamped(&lengths, keys), &clamped(&positions, last), &clamped(&prefixes, keys))?;
        if !found.iter().all(|x| x.is_finite() && *x != 0.0) {
            return Err(format!("{found:?}").into());
        }
        equal(&found, &wanted)?;
    }
    Ok(())
}

/// Tokens whose logits are numbers have their gradients, whatever the others have.
fn logits_of_a_gate(gpu: &Gpu) -> Result<(), Failed> {
    for (tokens, experts, k) in [(70, 6, 2), (9, 240, 8)] {
        let numbers: Vec<f32> = (0..tokens * experts).map(|i| ((i * 37 % 101) as f32).sin()).collect();
        // Of both signs, quiet and signalling, in some of the logits of a row or in all.
        let wrong = [0x7fc0_0000, 0xffff_ffff, 0x7f80_0001, 0xff80_0001];
        let odd = |i: usize| i / experts % 3 == 1 && (i / experts % 2 == 1 || i.is_multiple_of(3));
        let words = |i: usize| if odd(i) { wrong[i % 4] } else { numbers[i].to_bits() };
        let of = |words: &[u32]| {
            run(gpu, &Weights::new(gpu), &[("logits", words)], |g| {
                let logits = g.state("logits", [tokens, experts], DType::F32)?;
                let gate = ops::top_k_gate(g, logits, None, &GateOptions::new(k))?;
                let squares = ops::mul(g, gate.weights, gate.weights)?;
                let loss = ops::sum(g, squares)?;
                let gradient = g.differentiate(loss, &[logits])?;
                gradient[0].ok_or_else(|| wgformer::Error::Graph("no gradient".into()))
            })
        };
        let found = of(&(0..tokens * experts).map(words).collect::<Vec<_>>())?;
        let wanted = of(&bits(&numbers))?;
        for row in (0..tokens).filter(|row| row % 3 != 1) {
            equal(&found[row * experts..][..experts], &wanted[row * experts..][..experts])?;
        }
    }
    Ok(())
}
