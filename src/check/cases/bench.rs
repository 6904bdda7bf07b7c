//! What the benchmark measures an adapter's ceilings with.

use crate::bench::{Copy, MultiplyAdd};
use crate::check::{Case, Feed};
use crate::gpu::{AdapterClass, Caps};

pub(super) fn cases() -> Vec<Case> {
    let classes = [AdapterClass::Gpu, AdapterClass::Cpu];
    let caps = || classes.into_iter().map(|class| Caps { class, ..Caps::baseline() });
    let mut cases = Vec::new();
    for count in [4, 31 * 4, 33 * 4, 257 * 4, 5000] {
        let feeds = || vec![Feed::normal("x", [count]).fixed()];
        for op in caps().flat_map(|caps| MultiplyAdd::variants(&caps)).map(|op| MultiplyAdd { rounds: 3, ..op }) {
            let name = format!("multiply and add {count}, {} chains, {} steps, {}", op.chains, op.unroll, op.lanes);
            cases.push(Case::new(name, feeds(), move |g, x| Ok(vec![g.put1(op, x)?])));
        }
        for op in Copy::variants(&Caps::baseline()) {
            let name = format!("copy {count}, {} by {}", op.lanes, op.each);
            cases.push(Case::new(name, feeds(), move |g, x| Ok(vec![g.put1(op, x)?])));
        }
    }
    cases
}
