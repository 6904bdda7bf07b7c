//! Elements of parameters that no output depends on.

use super::attention::{Attention, Heads, QkvNames};
use super::block::Block;
use std::ops::Range;

impl Block {
    /// The elements of a parameter that no output depends on: biases of keys where positions do not turn them, nothing norms or clips them, and scores have no cap. Such a bias adds the same
    /// to all scores of a query, which softmax takes away. Its gradient is zero but for rounding.
    #[must_use]
    pub fn no_gradient(&self, parameter: &str) -> Vec<Range<usize>> {
        let Some(rest) = parameter.strip_prefix(&self.prefix).and_then(|rest| rest.strip_prefix('.')) else {
            return Vec::new();
        };
        let cross = self.cross.as_ref().map(|(_, attention)| attention);
        [Some(&self.attention), cross].into_iter().flatten().flat_map(|attention| attention.no_gradient(rest)).collect()
    }
}

impl Attention {
    /// The same of a layer, the name beginning with its module.
    fn no_gradient(&self, parameter: &str) -> Vec<Range<usize>> {
        let layer = parameter.strip_prefix(self.module).and_then(|rest| rest.strip_prefix('.')?.strip_suffix(".bias"));
        let Heads { query, key_value, head_dim } = self.heads;
        // The first element of the first key head, and the distance of the next.
        let (first, pitch) = match (self.qkv, layer) {
            (QkvNames::Separate([_, key, _]), Some(layer)) if layer == key => (0, head_dim),
            // Behind the queries.
            (QkvNames::Fused(name), Some(layer)) if layer == name => (query * head_dim, head_dim),
            // Behind the query of the same head.
            (QkvNames::Interleaved(name), Some(layer)) if layer == name => (head_dim, 3 * head_dim),
            _ => return Vec::new(),
        };
        if self.soft_cap.is_some() || self.qk_norm.is_some() || self.clip.is_some() {
            return Vec::new();
        }
        let turned = self.rotary.as_ref().map_or(0..0, |rotary| rotary.rotated(head_dim));
        let idle = [0..turned.start, turned.end..head_dim];
        let heads = (0..key_value).map(|head| first + head * pitch);
        let ranges = heads.flat_map(|head| idle.clone().map(|range| head + range.start..head + range.end));
        ranges.filter(|range| !range.is_empty()).collect()
    }
}
