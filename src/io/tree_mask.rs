//! Trees over texts: which span each token covers, from brackets, parents, levels, indentation or headings.
//!
//! The spans of a text are the `tree` of [`crate::ops::attention`]: two tokens see each other where the span of one of them covers
//! the other. All functions take time linear in the text, or nearly so.

use crate::error::{Error, Result};

/// A token's position in its text, and the positions of the first and the last token of the span that it covers, both
/// inclusive. A token that covers no other is its whole span.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Span {
    /// The token's position.
    pub position: u32,
    /// The first position of its span.
    pub first: u32,
    /// The last position of its span.
    pub last: u32,
}

impl Span {
    /// A token that covers only itself.
    #[must_use]
    pub fn leaf(position: usize) -> Self {
        Self::new(position, position, position)
    }

    fn new(position: usize, first: usize, last: usize) -> Self {
        Self { position: position as u32, first: first as u32, last: last as u32 }
    }

    /// Whether this token's span covers the other.
    #[must_use]
    pub fn covers(self, other: Self) -> bool {
        (self.first..=self.last).contains(&other.position)
    }

    /// Whether two tokens see each other. A causal model sees only the one that stands in front.
    #[must_use]
    pub fn sees(self, other: Self) -> bool {
        self.covers(other) || other.covers(self)
    }
}

/// Spans in the layout of GPU memory: three u32 a token.
#[must_use]
pub fn span_bytes(spans: &[Span]) -> Vec<u8> {
    spans.iter().flat_map(|s| [s.position, s.first, s.last]).flat_map(u32::to_le_bytes).collect()
}

/// The spans of a text in brackets. An opening bracket and the closing one that belongs to it both cover all from the one
/// to the other: in a causal model the closing one sees the tokens between them. Other tokens cover only themselves.
///
/// # Errors
/// [`Error::Input`] that names the position of a bracket without a partner.
pub fn spans_of_brackets<T>(tokens: &[T], open: impl Fn(&T) -> bool, close: impl Fn(&T) -> bool) -> Result<Vec<Span>> {
    let mut spans: Vec<Span> = (0..tokens.len()).map(Span::leaf).collect();
    let mut begun = Vec::new();
    for (at, token) in tokens.iter().enumerate() {
        if open(token) {
            begun.push(at);
        } else if close(token) {
            let Some(first) = begun.pop() else {
                return Err(Error::input("brackets", format!("the closing one at position {at} has no opening one")));
            };
            spans[first] = Span::new(first, first, at);
            spans[at] = Span::new(at, first, at);
        }
    }
    match begun.pop() {
        Some(at) => Err(Error::input("brackets", format!("the one at position {at} is never closed"))),
        None => Ok(spans),
    }
}

/// The spans of a tree, or of several, in which every node knows its parent; a root is its own parent. A node covers all
/// nodes below it.
///
/// # Errors
/// [`Error::Input`] that names a node whose parent does not exist, a node that is above itself, or a node below which
/// there is a gap, so that its span would cross another.
pub fn spans_of_parents(parents: &[usize]) -> Result<Vec<Span>> {
    let count = parents.len();
    let refuse = |node: usize, what: String| Err(Error::input("parents", format!("node {node} {what}")));
    if let Some(node) = parents.iter().position(|&parent| parent >= count) {
        return refuse(node, format!("has the parent {}, but there are {count} nodes", parents[node]));
    }
    let depth = match depths(parents) {
        Ok(depth) => depth,
        Err(node) => return refuse(node, "is above itself: the parents go round in a circle".into()),
    };
    let mut spans: Vec<Span> = (0..count).map(Span::leaf).collect();
    let mut sizes = vec![1; count];
    let mut deepest_first: Vec<usize> = (0..count).collect();
    deepest_first.sort_by_key(|&node| std::cmp::Reverse(depth[node]));
    for node in deepest_first {
        let parent = parents[node];
        if parent != node {
            spans[parent].first = spans[parent].first.min(spans[node].first);
            spans[parent].last = spans[parent].last.max(spans[node].last);
            sizes[parent] += sizes[node];
        }
    }
    let gap = (0..count).find(|&node| (spans[node].last - spans[node].first) as usize + 1 != sizes[node]);
    let Some(node) = gap else { return Ok(spans) };
    let Span { first, last, .. } = spans[node];
    let below = |mut other: usize| {
        while other != node && parents[other] != other {
            other = parents[other];
        }
        other == node
    };
    let stranger = (first as usize..=last as usize).find(|&other| !below(other)).unwrap_or(node);
    refuse(node, format!("covers nodes from {first} to {last}, but node {stranger} is not below it: spans would cross"))
}

/// How far each node is from its root, or a node that is above itself.
fn depths(parents: &[usize]) -> Result<Vec<usize>, usize> {
    const UNKNOWN: usize = usize::MAX;
    const VISITING: usize = usize::MAX - 1;
    let mut depth = vec![UNKNOWN; parents.len()];
    let mut path = Vec::new();
    for start in 0..parents.len() {
        let mut node = start;
        while depth[node] == UNKNOWN && parents[node] != node {
            depth[node] = VISITING;
            path.push(node);
            node = parents[node];
        }
        if depth[node] == VISITING {
            return Err(node);
        }
        if depth[node] == UNKNOWN {
            depth[node] = 0;
        }
        let mut below = depth[node];
        while let Some(node) = path.pop() {
            below += 1;
            depth[node] = below;
        }
    }
    Ok(depth)
}

/// The spans of an outline: a unit covers those behind it that are on a deeper level, up to the next that is not.
#[must_use]
pub fn spans_of_levels(levels: &[usize]) -> Vec<Span> {
    let mut spans: Vec<Span> = (0..levels.len()).map(|at| Span::new(at, at, levels.len() - 1)).collect();
    let mut open: Vec<usize> = Vec::new();
    for (at, &level) in levels.iter().enumerate() {
        while let Some(unit) = open.pop_if(|unit| levels[*unit] >= level) {
            spans[unit].last = at as u32 - 1;
        }
        open.push(at);
    }
    spans
}

/// The spans of lines, as in code: a line covers those after it that are indented further. A tab goes on to the next
/// multiple of 8 columns. An empty line has the level of the next line with text.
#[must_use]
pub fn spans_of_indentation<S: AsRef<str>>(lines: &[S]) -> Vec<Span> {
    let mut levels = vec![0; lines.len()];
    let mut next = 0;
    for (at, line) in lines.iter().enumerate().rev() {
        let line = line.as_ref();
        if !line.trim().is_empty() {
            let indent = line.chars().take_while(|c| c.is_whitespace());
            next = indent.fold(0, |column, c| if c == '\t' { (column / 8 + 1) * 8 } else { column + 1 });
        }
        levels[at] = next;
    }
    spans_of_levels(&levels)
}

/// The spans of the lines of a Markdown document: a heading covers all up to the next that is not below it, another line
/// nothing. Lines between fences are no headings.
#[must_use]
pub fn spans_of_headings<S: AsRef<str>>(lines: &[S]) -> Vec<Span> {
    /// Below all headings.
    const TEXT: usize = 7;
    let mut fence: Option<&str> = None;
    let level = |line: &S| {
        let line = line.as_ref().trim_start();
        let mark = ["```", "~~~"].into_iter().find(|mark| line.starts_with(mark));
        match (fence, mark) {
            (None, Some(mark)) => fence = Some(mark),
            (Some(open), Some(mark)) if open == mark => fence = None,
            _ => (),
        }
        let text = line.trim_start_matches('#');
        let depth = line.len() - text.len();
        let heading = (1..=6).contains(&depth) && (text.is_empty() || text.starts_with([' ', '\t']));
        if heading && fence.is_none() { depth } else { TEXT }
    };
    let levels: Vec<usize> = lines.iter().map(level).collect();
    spans_of_levels(&levels)
}

/// The spans of tokens from those of the units (lines, say) that they make up: unit `i` has `tokens[i]` tokens, which all
/// cover what the unit covers, and so see each other.
///
/// # Errors
/// [`Error::Input`] if there are not as many units as counts, or a span reaches beyond the units.
pub fn spread_spans(units: &[Span], tokens: &[usize]) -> Result<Vec<Span>> {
    if units.len() != tokens.len() {
        let message = format!("{} units have spans, {} have a count: give one of each", units.len(), tokens.len());
        return Err(Error::input("tokens of units", message));
    }
    let mut starts = vec![0];
    starts.extend(tokens.iter().scan(0, |end, count| {
        *end += count;
        Some(*end)
    }));
    let mut spans = Vec::with_capacity(starts[tokens.len()]);
    for (at, (unit, &count)) in units.iter().zip(tokens).enumerate() {
        let (first, last) = (unit.first as usize, unit.last as usize);
        if first > at || last < at || last >= units.len() {
            let message =
                format!("covers {first} to {last}: it must be one of these, and there are {} units", units.len());
            return Err(Error::input(format!("unit {at}"), message));
        }
        let (first, last) = (starts[first], starts[last + 1]);
        spans.extend((starts[at]..starts[at] + count).map(|token| Span::new(token, first, last - 1)));
    }
    Ok(spans)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// First and last of each span, all positions checked.
    fn ends(spans: &[Span]) -> Vec<(u32, u32)> {
        assert!(spans.iter().enumerate().all(|(at, span)| span.position as usize == at));
        spans.iter().map(|span| (span.first, span.last)).collect()
    }

    fn brackets(text: &str) -> Result<Vec<Span>> {
        let tokens: Vec<char> = text.chars().collect();
        spans_of_brackets(&tokens, |c| *c == '(', |c| *c == ')')
    }

    #[test]
    fn both_brackets_cover_what_stands_between_them() {
        let spans = brackets("a(b(c)d)()").unwrap();
        let expected = [(0, 0), (1, 7), (2, 2), (3, 5), (4, 4), (3, 5), (6, 6), (1, 7), (8, 9), (8, 9)];
        assert_eq!(ends(&spans), expected);
        assert!(brackets("").unwrap().is_empty());
        let sees = |i: usize| -> String {
            "a(b(c)d)()".chars().zip(&spans).filter(|(_, other)| spans[i].sees(**other)).map(|(c, _)| c).collect()
        };
        assert_eq!((sees(4).as_str(), sees(2).as_str(), sees(7).as_str()), ("((c))", "(b)", "(b(c)d)"));
    }

    #[test]
    fn a_bracket_without_a_partner_is_named() {
        let refused = |text: &str| brackets(text).unwrap_err().to_string();
        assert_eq!(refused("(a))b("), "brackets: the closing one at position 3 has no opening one");
        assert_eq!(refused("((a)"), "brackets: the one at position 0 is never closed");
        assert_eq!(refused("(a)("), "brackets: the one at position 3 is never closed");
        assert_eq!(refused(")"), "brackets: the closing one at position 0 has no opening one");
    }

    #[test]
    fn a_node_heads_what_is_below_it() {
        // 2 is the root, above 0 (with 1) and 4 (with 3 and 5).
        assert_eq!(
            ends(&spans_of_parents(&[2, 0, 2, 4, 2, 4]).unwrap()),
            [(0, 1), (1, 1), (0, 5), (3, 3), (3, 5), (5, 5)]
        );
        assert_eq!(ends(&spans_of_parents(&[0, 0, 2, 2]).unwrap()), [(0, 1), (1, 1), (2, 3), (3, 3)]);
        assert!(spans_of_parents(&[]).unwrap().is_empty());
    }

    #[test]
    fn parents_that_make_no_tree_of_spans_are_named() {
        let refused = |parents: &[usize]| spans_of_parents(parents).unwrap_err().to_string();
        assert_eq!(refused(&[0, 5]), "parents: node 1 has the parent 5, but there are 2 nodes");
        assert_eq!(refused(&[0, 2, 3, 1]), "parents: node 1 is above itself: the parents go round in a circle");
        assert_eq!(
            refused(&[0, 0, 1, 0, 1]),
            "parents: node 1 covers nodes from 1 to 4, but node 3 is not below it: spans would cross"
        );
        assert!(refused(&[0, 1, 0]).contains("node 0 covers nodes from 0 to 2, but node 1 is not below it"));
    }

    #[test]
    fn lines_head_what_is_indented_further() {
        let code = ["def f():", "    a", "", "    if b:", "\tc", "", "def g():", "  d", " e", ""];
        assert_eq!(
            ends(&spans_of_indentation(&code)),
            [(0, 4), (1, 1), (2, 2), (3, 4), (4, 4), (5, 5), (6, 8), (7, 7), (8, 8), (9, 9)]
        );
        assert!(spans_of_indentation::<&str>(&[]).is_empty());
    }

    #[test]
    fn headings_head_their_sections() {
        let text = ["intro", "# A", "a", "## B", "```", "# code", "```", "b", "#hash", "# C", "### D", "## E"];
        let expected =
            [(0, 0), (1, 8), (2, 2), (3, 8), (4, 4), (5, 5), (6, 6), (7, 7), (8, 8), (9, 11), (10, 10), (11, 11)];
        assert_eq!(ends(&spans_of_headings(&text)), expected);
    }

    #[test]
    fn tokens_head_what_their_line_heads() {
        let lines = spans_of_levels(&[0, 1, 1, 0]);
        let spans = spread_spans(&lines, &[2, 3, 0, 1]).unwrap();
        assert_eq!(ends(&spans), [(0, 4), (0, 4), (2, 4), (2, 4), (2, 4), (5, 5)]);
        let message = spread_spans(&lines, &[1]).unwrap_err().to_string();
        assert!(message.contains("4 units have spans, 1 have a count"), "{message}");
        let message = spread_spans(&[Span::new(0, 0, 7)], &[1]).unwrap_err().to_string();
        assert!(message.contains("unit 0: covers 0 to 7"), "{message}");
    }

    #[test]
    fn three_words_a_token_in_memory() {
        let bytes = span_bytes(&[Span::new(1, 0, 258)]);
        assert_eq!(bytes, [1, 0, 0, 0, 0, 0, 0, 0, 2, 1, 0, 0]);
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn tokens_see_those_above_and_below_them(levels in prop::collection::vec(0usize..5, 1..40)) {
            // The parent of a unit is the nearest in front that is on a higher level.
            let parent = |at: usize| (0..at).rev().find(|&other| levels[other] < levels[at]).unwrap_or(at);
            let parents: Vec<usize> = (0..levels.len()).map(parent).collect();
            let spans = spans_of_levels(&levels);
            prop_assert_eq!(&spans, &spans_of_parents(&parents).unwrap());
            let above = |upper: usize, mut at: usize| loop {
                if at == upper { break true; }
                if parents[at] == at { break false; }
                at = parents[at];
            };
            for i in 0..levels.len() {
                for j in 0..levels.len() {
                    prop_assert_eq!(spans[i].sees(spans[j]), above(i, j) || above(j, i));
                }
            }
        }

        #[test]
        fn any_parents_give_spans_or_an_error(parents in prop::collection::vec(0usize..12, 0..12)) {
            if let Ok(spans) = spans_of_parents(&parents) {
                for (node, &parent) in parents.iter().enumerate() {
                    prop_assert!(spans[parent].first <= spans[node].first && spans[node].last <= spans[parent].last);
                }
            }
        }

        #[test]
        fn any_brackets_give_spans_or_an_error(text in "[()a]{0,30}") {
            if let Ok(spans) = brackets(&text) {
                prop_assert_eq!(spans.len(), text.len());
            }
        }
    }
}
