// pairs1: numbers stored in pairs, one pair at a time. pairs4 has the same names for four pairs at a time.

alias Element = f32;

struct Pairs { first: Element, second: Element }

// (a, b) as they lie in memory, and back.
fn unzip(low: Element, high: Element) -> Pairs { return Pairs(low, high); }
fn zip(pairs: Pairs) -> Pairs { return pairs; }
