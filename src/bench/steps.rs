//! The models and sizes of timed steps.

use super::experiment::{llama, with};
use super::step::{StepKind, StepSize, gpt};
use super::{Options, VOCABULARY};
use crate::error::Result;
use crate::io::Config;
use crate::models::{self, Model};
use serde_json::{Value, json};
use std::sync::Arc;

/// A step of a model with a row.
pub(super) struct Timed {
    /// The row's name.
    pub(super) name: String,
    /// The kind of step.
    pub(super) kind: StepKind,
    /// Its size.
    pub(super) size: StepSize,
    /// The model.
    pub(super) model: Arc<dyn Model>,
}

/// The steps of a GPT and the prefixes of their rows. Training comes first, when no pipeline is compiled yet.
const STEPS: [(StepKind, &str); 4] = [
    (StepKind::Train, "train"),
    (StepKind::Forward, "forward"),
    (StepKind::Prefill, "prefill"),
    (StepKind::Decode, "decode"),
];

/// The sizes of a model: layers, d_model, heads, tokens of a sequence, sequences in a batch.
#[derive(Clone, Copy)]
struct ModelSize {
    layers: usize,
    d_model: usize,
    heads: usize,
    length: usize,
    batch: usize,
}

impl ModelSize {
    /// Generation answers one prompt.
    fn step(self, kind: StepKind) -> StepSize {
        let batch = if matches!(kind, StepKind::Prefill | StepKind::Decode) { 1 } else { self.batch };
        StepSize { batch, length: self.length }
    }

    fn name(self, kind: StepKind, what: &str) -> String {
        let StepSize { batch, length } = self.step(kind);
        format!("{what} {}x{} T{length} B{batch}", self.layers, self.d_model)
    }
}

/// All steps: those of a GPT, then training of a small dense model and its sparse siblings.
pub(super) fn all(options: &Options) -> Result<Vec<Timed>> {
    let size = match options.quick {
        true => ModelSize { layers: 2, d_model: 128, heads: 4, length: 64, batch: 2 },
        false => ModelSize { layers: 6, d_model: 384, heads: 6, length: 256, batch: 4 },
    };
    let model = gpt(size.layers, size.d_model, size.heads, size.length, VOCABULARY)?;
    let timed = |(kind, what): &(StepKind, &str)| Timed {
        name: size.name(*kind, what),
        kind: *kind,
        size: size.step(*kind),
        model: model.clone(),
    };
    let mut all: Vec<Timed> = STEPS.iter().map(timed).collect();
    let size = match options.quick {
        true => ModelSize { layers: 2, d_model: 64, heads: 4, length: 64, batch: 2 },
        false => ModelSize { layers: 4, d_model: 256, heads: 16, length: 256, batch: 2 },
    };
    for (what, config) in siblings(size) {
        let kind = StepKind::Train;
        let config = with(config, json!({"vocab_size": VOCABULARY}));
        let model = models::model(&Config::new("the benchmark's model", config)?)?.into();
        all.push(Timed { name: size.name(kind, &format!("train {what}")), kind, size: size.step(kind), model });
    }
    Ok(all)
}

/// A dense Llama; one with experts and equal operations per token; one whose second half repeats the first half for a third of the tokens.
fn siblings(size: ModelSize) -> [(&'static str, Value); 3] {
    let d_ff = (size.d_model * 8 / 3).next_multiple_of(16);
    let of = |d_ff: usize| llama(size.layers, size.d_model, d_ff, size.length);
    let experts = json!({"model_type": "mixtral", "num_local_experts": 8, "num_experts_per_tok": 2,
                         "router_aux_loss_coef": 0.01});
    let recursions = json!({"model_type": "mor", "num_recursions": 2, "sharing": "cycle", "routing": "expert_choice",
                            "capacity": [1.0, 1.0 / 3.0]});
    [
        ("llama", of(d_ff)),
        ("llama 8 experts top-2", with(of(d_ff / 2), experts)),
        ("llama 2 recursions, 1/3 of the tokens", with(of(d_ff), recursions)),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::step_graph;
    use crate::kernel::Caps;
    use crate::program::Recording;
    use std::collections::HashSet;

    #[test]
    fn siblings_cost_what_their_tokens_go_through() {
        for quick in [true, false] {
            let all = all(&Options { quick, ..Options::default() }).unwrap();
            assert_eq!(all.iter().map(|timed| timed.name.as_str()).collect::<HashSet<_>>().len(), 7);
            let flops = |part: &str| {
                let timed = all.iter().find(|timed| timed.name.starts_with(part)).unwrap();
                let caps = Caps::baseline();
                let graph =
                    step_graph(timed.kind, &caps, &timed.model, &crate::graph::Storage::default(), timed.size).unwrap();
                Recording::new(&graph, &caps).unwrap().flops() as f64
            };
            let dense = flops(if quick { "train llama 2x64" } else { "train llama 4x256" });
            let (experts, recursions) = (flops("train llama 8") / dense, flops("train llama 2 rec") / dense);
            assert!((experts - 1.0).abs() < 0.1, "{experts}");
            // Two thirds of the layers, and the head.
            assert!((recursions - 0.67).abs() < 0.1, "{recursions}");
        }
    }
}
