//! Selection of candidates and its limits, rows by a unique index, and slots of caches.

use crate::check::{Case, Feed, Tolerance};
use crate::dtype::DType;
use crate::ops::{self, Choice, SelectOptions};

/// Keys of which many are equal, with both zeros and both signs among them.
fn few_values(batch: usize, candidates: usize) -> Feed {
    let value = |i: usize| [0.0, 1.5, -0.0, -2.0, 1.5, 0.25, -1e-30, 3e30][(i * i + 3 * i) % 29 % 8];
    Feed::given("keys", [batch, candidates], DType::F32, (0..batch * candidates).map(value))
}

/// Lengths that end in, before and behind the row.
fn lengths(batch: usize, candidates: usize) -> Feed {
    let length = |b: usize| [candidates / 2, 0, candidates + 7, candidates.saturating_sub(1)][b % 4] as f64;
    Feed::given("lengths", [batch], DType::U32, (0..batch).map(length))
}

fn case(name: &str, keys: Feed, choice: Choice, options: [bool; 2]) -> Case {
    let [batch, candidates] = [keys.value().shape.rows(), keys.value().shape.last()];
    let mut feeds = vec![keys.fixed()];
    if options[0] {
        feeds.push(lengths(batch, candidates));
    }
    if options[1] {
        let position = |i: usize| (3 * i % candidates + i / candidates) as f64;
        feeds.push(Feed::given("positions", [batch, candidates], DType::U32, (0..batch * candidates).map(position)));
    }
    let name = format!("select {name}, {choice:?} of [{batch}, {candidates}] {options:?}");
    Case::new(name, feeds, move |g, x| {
        let mut rest = x[1..].iter().copied();
        let mut next = |there: bool| if there { rest.next() } else { None };
        let options = SelectOptions { lengths: next(options[0]), positions: next(options[1]), most: None };
        let selected = ops::select(g, x[0], choice, &options)?;
        Ok(vec![selected.index, selected.inverse, selected.positions, selected.counts])
    })
}

pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for (batch, candidates, k) in [(1, 1, 1), (2, 31, 10), (4, 33, 33), (3, 257, 1), (2, 1000, 667), (1, 5003, 1700)] {
        let normal = || Feed::normal("keys", [batch, candidates]);
        cases.push(case("normal keys", normal(), Choice::Top(k), [false, false]));
        cases.push(case("equal keys", few_values(batch, candidates), Choice::Top(k), [false, true]));
        cases.push(case("normal keys", normal(), Choice::Top(k), [true, true]));
        cases.push(case("normal keys", normal(), Choice::AtLeast(0.25), [true, false]));
        cases.push(case("equal keys", few_values(batch, candidates), Choice::AtLeast(0.0), [false, true]));
        let depths = (0..batch * candidates).map(|i| (i * i % 7) as f64);
        let depths = Feed::given("keys", [batch, candidates], DType::U32, depths);
        cases.push(case("depths", depths, Choice::Between { low: 2, high: 4 }, [true, true]));
    }
    for (batch, candidates, most) in [(1, 1, 1), (2, 31, 10), (3, 33, 40), (2, 257, 0), (2, 1000, 667)] {
        cases.push(limited(batch, candidates, candidates, most));
        cases.push(limited(batch, candidates, candidates / 2 + 1, most));
    }
    for (step, steps, tokens) in
        [(0, 1, 1), (1, 1, 31), (0, 33, 4096), (33, 33, 257), (1000, 33, 257), (2, 7, 100), (5, 7, 257), (13, 31, 33)]
    {
        cases.push(warm(step, steps, tokens));
    }
    let same = Feed::given("keys", [2, 300], DType::F32, vec![-7.5; 600]);
    cases.push(case("all the same", same, Choice::Top(123), [false, false]));
    for (batch, candidates, k, columns) in [(1, 1, 1, 1), (2, 31, 9, 33), (3, 33, 33, 4), (2, 257, 100, 7)] {
        cases.push(rows(batch, candidates, k, columns, false));
        cases.push(rows(batch, candidates, k, columns, true));
    }
    cases.push(gathered_twice());
    for (batch, places, fresh) in [(1, 1, false), (3, 33, true), (5, 257, false), (9, 3, false)] {
        let words = |name, step: usize| {
            Feed::given(name, [batch], DType::U32, (0..batch).map(move |b| ((b * step + 1) % (places + 1)) as f64))
        };
        let name = format!("claim_slots [{batch}, {places}], fresh: {fresh}");
        cases.push(Case::new(name, vec![words("used", 5), words("counts", 3)], move |g, x| {
            // An input cannot be updated in place: a state is, which is 0 at first, after a first claim.
            let used = g.state("slots.used", [batch], DType::U32)?;
            let before = ops::claim_slots(g, used, x[0], places, true)?;
            let again = ops::claim_slots(g, before.used, x[1], places, fresh)?;
            Ok(vec![before.slots, before.lengths, again.slots, again.lengths])
        }));
    }
    cases
}

/// The largest up to the second of three limits.
fn limited(batch: usize, candidates: usize, k: usize, most: usize) -> Case {
    let limits = [0, most, candidates].map(|limit| limit as f64);
    let feeds = vec![
        few_values(batch, candidates).fixed(),
        lengths(batch, candidates),
        Feed::given("most", [3], DType::U32, limits),
    ];
    let name = format!("select Top({k}) of [{batch}, {candidates}], at most {most}");
    Case::new(name, feeds, move |g, x| {
        let mut found = Vec::new();
        for lengths in [None, Some(x[1])] {
            let options = SelectOptions { lengths, most: Some((x[2], 1)), ..SelectOptions::default() };
            let selected = ops::select(g, x[0], Choice::Top(k), &options)?;
            found.extend([selected.index, selected.inverse, selected.positions, selected.counts]);
        }
        Ok(found)
    })
}

/// Capacities of one step and the next.
fn warm(step: usize, steps: usize, tokens: usize) -> Case {
    let exact = Tolerance { nmse: 0.0, worst: 0.0 };
    let feeds = vec![Feed::given("step", [1], DType::F32, [step as f64 / 2.0])];
    let counts = [tokens, tokens - tokens / 3, tokens / 3 + 1, 1];
    Case::new(format!("warm_capacity step {step} of {steps}, {tokens} tokens"), feeds, move |g, x| {
        // An input can't be updated in place.
        let now = ops::scale(g, x[0], 2.0)?;
        let first = ops::warm_capacity(g, now, &counts[..3], tokens, steps)?;
        let next = ops::warm_capacity(g, first.step, &counts, tokens, steps)?;
        Ok(vec![first.counts, next.counts, next.step])
    })
    .tolerance(exact, exact)
}

/// Rows are gathered, halved and placed back: forward and backward of both ops.
fn rows(batch: usize, candidates: usize, k: usize, columns: usize, threshold: bool) -> Case {
    let keys = Feed::normal("keys", [batch, candidates]).fixed();
    let feeds = vec![
        keys,
        Feed::normal("x", [batch * candidates, columns]),
        Feed::normal("y", [batch * if threshold { candidates } else { k }, columns]),
    ];
    let name = format!("gather_unique and place_rows, {k} of [{batch}, {candidates}], {columns} columns, {threshold}");
    Case::new(name, feeds, move |g, x| {
        let choice = if threshold { Choice::AtLeast(0.5) } else { Choice::Top(k) };
        let s = ops::select(g, x[0], choice, &SelectOptions::default())?;
        let rows = ops::gather_unique(g, x[1], s.index, s.inverse)?;
        let product = ops::mul(g, rows, x[2])?;
        Ok(vec![rows, ops::place_rows(g, x[1], product, s.index, s.inverse)?])
    })
}

/// Rows are gathered twice: the gradients of both meet, and only one of them comes after rows were cleared.
fn gathered_twice() -> Case {
    let feeds = vec![Feed::normal("keys", [2, 33]).fixed(), Feed::normal("x", [66, 5])];
    Case::new("gather_unique twice", feeds, |g, x| {
        let first = ops::select(g, x[0], Choice::Top(20), &SelectOptions::default())?;
        let second = ops::select(g, x[0], Choice::AtLeast(0.3), &SelectOptions::default())?;
        let rows = ops::gather_unique(g, x[1], first.index, first.inverse)?;
        let others = ops::gather_unique(g, x[1], second.index, second.inverse)?;
        let square = ops::mul(g, others, others)?;
        let placed = ops::place_rows(g, x[1], square, second.index, second.inverse)?;
        Ok(vec![rows, placed])
    })
}
