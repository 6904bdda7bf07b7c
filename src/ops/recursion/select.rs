//! Selects candidates of each row: the largest, or those that pass a test.

use crate::case::{Case, Feed};
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::graph::{Array, Graph, Op, Tensor};
use crate::kernel::{Dispatch, Kernel, Launch, Snippet, kernel};
use crate::ops::experts::gate_options::descending;
use crate::shape::TensorType;
use derive_setters::Setters;

static SELECT_ROWS: Kernel = kernel!("recursion/select_rows");
/// The order of floats as that of unsigned keys.
pub(in crate::ops) static ORDERED: Snippet = kernel!("common/ordered");

/// The value of an index that means no row.
pub const NONE: u32 = u32::MAX;

/// The rule by which [`select`] takes candidates.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum SelectRule {
    /// The k largest f32 keys of each row; ties go to the first.
    Top(usize),
    /// Candidates whose f32 key is at least this.
    AtLeast(f32),
    /// Candidates whose u32 key is in this range.
    Between {
        /// The least.
        low: u32,
        /// The largest.
        high: u32,
    },
}

/// Options of [`select`].
#[derive(Clone, Copy, Debug, Default, Setters)]
#[setters(prefix = "with_", strip_option)]
#[non_exhaustive]
pub struct SelectOptions {
    /// (B) u32: the number of candidates of each row; later ones are never taken.
    pub lengths: Option<Tensor>,
    /// (B, N) u32: the position of each candidate; 0, 1, 2, … if not given.
    pub positions: Option<Tensor>,
    /// Counts (R) u32 and the index of one of them, the most candidates to take per row: a limit of [`SelectRule::Top`] that is known only on
    /// the GPU. The number of slots does not change.
    pub most: Option<(Tensor, usize)>,
}

/// The selected candidates of each row, in order.
#[derive(Clone, Copy, Debug)]
pub struct Selected {
    /// (B·K) u32: the index of each taken candidate among all B·N; [`NONE`] in unused slots.
    pub index: Tensor,
    /// (B·N) u32: the slot of each candidate among all B·K; [`NONE`] for candidates that were not taken.
    pub inverse: Tensor,
    /// (B, K) u32: the position of each taken candidate; 0 in unused slots.
    pub positions: Tensor,
    /// (B) u32: the number of taken candidates.
    pub counts: Tensor,
    /// Slots of a row: k for [`SelectRule::Top`], else N.
    pub slots: usize,
}

/// Takes candidates of each row of `keys` (B, N) f32 or u32, and lists them in ascending order: an index to gather and scatter rows by. The
/// same bits on every run; of equal keys the first ones are taken. No gradient.
///
/// The k largest are found by radix select with one workgroup per row: four passes count the values of 8 bits of the keys, from the highest
/// bits down, which gives the k-th largest key; a scan then numbers the taken candidates.
///
/// # Errors
/// [`Error::Shape`] if the keys are not a matrix of the rule's type, if k is 0 or more than N, or an option does not fit the keys or the
/// rule.
pub fn select(g: &mut Graph, keys: Tensor, rule: SelectRule, options: &SelectOptions) -> Result<Selected> {
    let most = options.most.map(|(_, entry)| entry);
    let op = SelectRows { rule, lengths: options.lengths.is_some(), positions: options.positions.is_some(), most };
    let counts = options.most.map(|(counts, _)| counts);
    let inputs: Vec<Tensor> = [Some(keys), options.lengths, options.positions, counts].into_iter().flatten().collect();
    let found = g.put(op, &inputs)?;
    let slots = g.shape(found[2]).last();
    Ok(Selected { index: found[0], inverse: found[1], positions: found[2], counts: found[3], slots })
}

/// See [`select`]. Inputs: keys (B, N), then optionally lengths (B), positions (B, N) and the limits (R).
/// Outputs: index (B·K), inverse (B·N), positions (B, K), counts (B), all u32.
#[derive(Clone, Copy, Debug)]
struct SelectRows {
    rule: SelectRule,
    lengths: bool,
    positions: bool,
    /// The index of the limit.
    most: Option<usize>,
}

impl SelectRows {
    /// The optional inputs: lengths, positions and limits.
    fn sort<T>(&self, input: impl Fn(usize) -> T) -> [Option<T>; 3] {
        let after = 1 + usize::from(self.lengths);
        let last = after + usize::from(self.positions);
        [self.lengths.then(|| input(1)), self.positions.then(|| input(after)), self.most.map(|_| input(last))]
    }

    /// Whether each candidate of a row is taken, at most `most` of the largest.
    fn taken(&self, keys: &[f64], most: usize) -> Vec<bool> {
        match self.rule {
            SelectRule::Top(k) => {
                let mut order: Vec<usize> = (0..keys.len()).collect();
                order.sort_by(|&a, &b| descending(keys[a], keys[b]).then(a.cmp(&b)));
                let mut taken = vec![false; keys.len()];
                order.iter().take(k.min(most)).for_each(|&i| taken[i] = true);
                taken
            }
            SelectRule::AtLeast(threshold) => keys.iter().map(|&key| key >= f64::from(threshold)).collect(),
            SelectRule::Between { low, high } => {
                keys.iter().map(|&key| (f64::from(low)..=f64::from(high)).contains(&key)).collect()
            }
        }
    }
}

impl Op for SelectRows {
    fn name(&self) -> &'static str {
        "select"
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>> {
        let refuse = |what: String| Err(Error::shape("select", what));
        let keys = &inputs[0];
        let dtype = if matches!(self.rule, SelectRule::Between { .. }) { DType::U32 } else { DType::F32 };
        let [batch, candidates] = match keys.shape.dims() {
            &[batch, candidates] if keys.dtype == dtype && batch * candidates > 0 => [batch, candidates],
            _ => return refuse(format!("expected the keys to be {dtype}(B, N), got {keys}")),
        };
        let slots = match self.rule {
            SelectRule::Top(k) if k == 0 || k > candidates => {
                return refuse(format!("{k} of {candidates} candidates can't be taken"));
            }
            SelectRule::Top(k) => k,
            _ => candidates,
        };
        let [lengths, positions, most] = self.sort(|i| &inputs[i]);
        if let (Some(most), Some(entry)) = (most, self.most) {
            if !matches!(self.rule, SelectRule::Top(_)) {
                return refuse(format!("only SelectRule::Top has a limit, not {:?}", self.rule));
            }
            if most.dtype != DType::U32 || most.shape.rank() != 1 || entry >= most.shape.numel() {
                return refuse(format!("expected the limits to be u32(R) with an entry {entry}, got {most}"));
            }
        }
        for (what, given, shape) in
            [("lengths", lengths, &[batch] as &[usize]), ("positions", positions, &[batch, candidates])]
        {
            let expected = TensorType::new(shape, DType::U32);
            if let Some(given) = given.filter(|given| **given != expected) {
                return refuse(format!("{what} is {given}, expected {expected}"));
            }
        }
        let words = |shape: &[usize]| TensorType::new(shape, DType::U32);
        Ok(vec![words(&[batch * slots]), words(&[batch * candidates]), words(&[batch, slots]), words(&[batch])])
    }

    fn reference(&self, inputs: &[&Array]) -> Result<Vec<Array>> {
        let keys = inputs[0];
        let [batch, candidates] = keys.shape.expect("select, keys")?;
        let slots = if let SelectRule::Top(k) = self.rule { k } else { candidates };
        let [lengths, positions, most] = self.sort(|i| inputs[i]);
        let most = most.zip(self.most).map_or(candidates, |(most, entry)| most.data[entry] as usize);
        let none = |count: usize| Array::from_fn([count], |_| f64::from(NONE));
        let (mut index, mut inverse) = (none(batch * slots), none(batch * candidates));
        let (mut picked, mut counts) = (Array::zeros([batch, slots]), Array::zeros([batch]));
        for b in 0..batch {
            let length = lengths.map_or(candidates, |l| (l.data[b] as usize).min(candidates));
            let taken = self.taken(&keys.row(b)[..length], most);
            for (slot, i) in (0..length).filter(|&i| taken[i]).enumerate() {
                index.data[b * slots + slot] = (b * candidates + i) as f64;
                inverse.data[b * candidates + i] = (b * slots + slot) as f64;
                picked.row_mut(b)[slot] = positions.map_or(i as f64, |p| p.row(b)[i]);
                counts.data[b] += 1.0;
            }
        }
        Ok(vec![index, inverse, picked, counts])
    }

    fn launch(&self, cx: &mut Launch<'_>) -> Result<()> {
        let keys = cx.input(0);
        let [batch, candidates] = keys.shape.expect("select, keys")?;
        let [lengths, positions, most] = self.sort(|i| cx.input(i));
        let (mode, low, high) = match self.rule {
            SelectRule::Top(k) => (0u32, k, 0),
            SelectRule::AtLeast(threshold) => (1, threshold.to_bits() as usize, 0),
            SelectRule::Between { low, high } => (2, low as usize, high as usize),
        };
        let flags = [lengths.is_some(), positions.is_some(), most.is_some()].map(usize::from);
        // An absent input is not read, but its binding needs a buffer.
        let mut dispatch = Dispatch::new(&SELECT_ROWS)
            .snippet(&ORDERED)
            .constant("MODE", mode)
            .read(keys.clone())
            .read(lengths.unwrap_or_else(|| keys.clone()))
            .read(positions.unwrap_or_else(|| keys.clone()))
            .read(most.unwrap_or(keys));
        for output in 0..4 {
            dispatch = dispatch.write(cx.output(output));
        }
        let (slots, entry) = (cx.output(2).shape.last(), self.most.unwrap_or(0));
        for value in [candidates, slots, low, high, flags[0], flags[1], flags[2], entry] {
            dispatch = dispatch.param(value);
        }
        cx.dispatch(dispatch.groups(batch))
    }
}

/// The conformance cases.
pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for (batch, candidates, k) in [(1, 1, 1), (2, 31, 10), (4, 33, 33), (3, 257, 1), (2, 1000, 667), (1, 5003, 1700)] {
        let normal = || Feed::normal("keys", [batch, candidates]);
        cases.push(case("normal keys", normal(), SelectRule::Top(k), [false, false]));
        cases.push(case("equal keys", few_values(batch, candidates), SelectRule::Top(k), [false, true]));
        cases.push(case("normal keys", normal(), SelectRule::Top(k), [true, true]));
        cases.push(case("normal keys", normal(), SelectRule::AtLeast(0.25), [true, false]));
        cases.push(case("equal keys", few_values(batch, candidates), SelectRule::AtLeast(0.0), [false, true]));
        let depths = (0..batch * candidates).map(|i| (i * i % 7) as f64);
        let depths = Feed::given("keys", [batch, candidates], DType::U32, depths);
        cases.push(case("depths", depths, SelectRule::Between { low: 2, high: 4 }, [true, true]));
    }
    for (batch, candidates, most) in [(1, 1, 1), (2, 31, 10), (3, 33, 40), (2, 257, 0), (2, 1000, 667)] {
        cases.push(limited(batch, candidates, candidates, most));
        cases.push(limited(batch, candidates, candidates / 2 + 1, most));
    }
    let same = Feed::given("keys", [2, 300], DType::F32, vec![-7.5; 600]);
    cases.push(case("all the same", same, SelectRule::Top(123), [false, false]));
    cases
}

/// Keys of which many are equal, with both zeros and both signs among them.
fn few_values(batch: usize, candidates: usize) -> Feed {
    let value = |i: usize| [0.0, 1.5, -0.0, -2.0, 1.5, 0.25, -1e-30, 3e30][(i * i + 3 * i) % 29 % 8];
    Feed::given("keys", [batch, candidates], DType::F32, (0..batch * candidates).map(value))
}

/// Lengths that end in, before and behind the row.
fn lengths(batch: usize, candidates: usize) -> Feed {
    let length = |b: usize| [candidates / 2, 0, u32::MAX as usize, candidates.saturating_sub(1)][b % 4] as f64;
    Feed::given("lengths", [batch], DType::U32, (0..batch).map(length))
}

fn case(name: &str, keys: Feed, rule: SelectRule, options: [bool; 2]) -> Case {
    let [batch, candidates] = [keys.value().shape.rows(), keys.value().shape.last()];
    let mut feeds = vec![keys.fixed()];
    if options[0] {
        feeds.push(lengths(batch, candidates));
    }
    if options[1] {
        let position = |i: usize| (3 * i % candidates + i / candidates) as f64;
        feeds.push(Feed::given("positions", [batch, candidates], DType::U32, (0..batch * candidates).map(position)));
    }
    let name = format!("select {name}, {rule:?} of [{batch}, {candidates}] {options:?}");
    Case::new(name, feeds, move |g, x| {
        let mut rest = x[1..].iter().copied();
        let mut next = |there: bool| if there { rest.next() } else { None };
        let options = SelectOptions { lengths: next(options[0]), positions: next(options[1]), most: None };
        let selected = select(g, x[0], rule, &options)?;
        Ok(vec![selected.index, selected.inverse, selected.positions, selected.counts])
    })
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
            let selected = select(g, x[0], SelectRule::Top(k), &options)?;
            found.extend([selected.index, selected.inverse, selected.positions, selected.counts]);
        }
        Ok(found)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn misfits_are_refused_by_name() -> Result<()> {
        let mut g = Graph::new();
        let keys = g.input("keys", [2, 5], DType::F32)?;
        let lengths = g.input("lengths", [3], DType::U32)?;
        let none = SelectOptions::default();
        let mut refused = |rule, options: &SelectOptions| {
            select(&mut g, keys, rule, options).map(|_| String::new()).unwrap_or_else(|e| e.to_string())
        };
        assert_eq!(refused(SelectRule::Top(6), &none), "select: 6 of 5 candidates can't be taken");
        let message = refused(SelectRule::Between { low: 1, high: 2 }, &none);
        assert_eq!(message, "select: expected the keys to be u32(B, N), got f32[2, 5]");
        let message = refused(SelectRule::Top(2), &SelectOptions { lengths: Some(lengths), ..none });
        assert_eq!(message, "select: lengths is u32[3], expected u32[2]");
        let limited = SelectOptions { most: Some((lengths, 3)), ..none };
        let message = refused(SelectRule::Top(2), &limited);
        assert_eq!(message, "select: expected the limits to be u32(R) with an entry 3, got u32[3]");
        let message = refused(SelectRule::AtLeast(0.5), &limited);
        assert_eq!(message, "select: only SelectRule::Top has a limit, not AtLeast(0.5)");
        Ok(())
    }

    #[test]
    fn equal_keys_are_taken_from_the_front() -> Result<()> {
        let keys = Array::new([1, 6], vec![2.0, 1.0, 2.0, 3.0, -0.0, 2.0])?;
        let op = SelectRows { rule: SelectRule::Top(3), lengths: false, positions: false, most: None };
        let out = op.reference(&[&keys])?;
        assert_eq!(out[0].data, [0.0, 2.0, 3.0]);
        assert_eq!(out[3].data, [3.0]);
        Ok(())
    }

    #[test]
    fn keys_that_are_no_numbers_have_an_order_too() -> Result<()> {
        let keys = Array::from_fn([1, 240], |i| if i % 3 == 0 { f64::NAN } else { (i as f64).sin() });
        let op = SelectRows { rule: SelectRule::Top(8), lengths: false, positions: false, most: None };
        assert_eq!(op.reference(&[&keys])?[3].data, [8.0]);
        let zeros = Array::new([1, 3], vec![-0.0, -1.0, 0.0])?;
        let op = SelectRows { rule: SelectRule::Top(1), ..op };
        assert_eq!(op.reference(&[&zeros])?[0].data, [0.0]);
        Ok(())
    }
}
