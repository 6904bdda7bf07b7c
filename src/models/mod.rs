//! Model families: configuration, graph, names of weights.
//!
//! A decoder is built from a `config.json` with [`decoder`], or from a whole Hugging Face folder or a GGUF file with [`load`].

mod family;
mod gpt2;
mod initialise;
mod llama;
mod mixture;
mod mor;
mod names;
mod routing;
pub mod settings;
mod stack;
mod stored;
mod trained;
mod weights;

use family::{check_plain, families, model_type};
pub use gpt2::Gpt2;
pub use initialise::{Initial, initial_values, initial_words};
pub use llama::Llama;
pub use mixture::{Mixture, MixtureFamily};
pub use mor::{Mor, Routing, Sharing};
pub use routing::{TokenRoutes, token_routes};
pub use stack::file_tensors;
pub use trained::{BlockFrom, recur};
#[cfg(feature = "files")]
pub use weights::save;
pub use weights::{decoder_of, load, load_weights, named_tensors, stored_config};

use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::graph::{Array, Graph, Tensor};
use crate::io::Config;
use crate::nn::{Memory, RouterSums};
use crate::ops::{self, AttentionDropout, CrossEntropyOptions, WeightLayout};
use crate::program::Weights;
use crate::shape::TensorType;
use serde_json::Value;
use std::fmt::Debug;

/// The most tokens of one step. None that fits a device comes near it, and what is made of each token on the CPU fits.
const MOST_TOKENS: usize = 1 << 26;

/// The sizes that training and generation need to know of a decoder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dimensions {
    /// Tokens of the vocabulary.
    pub vocabulary: usize,
    /// The longest sequence.
    pub positions: usize,
    /// The width of hidden states.
    pub width: usize,
    /// Layers.
    pub layers: usize,
}

/// What a decoder's graph is fed with.
#[derive(Clone, Copy, Debug)]
pub struct Inputs {
    /// Token ids, `(B, T)` u32.
    pub ids: Tensor,
    /// The position of each token, `(B, T)` u32.
    pub positions: Tensor,
    /// What all positions are below.
    pub places: usize,
    /// Where attention finds keys and values.
    pub memory: Memory,
    /// The spans of the tokens, `(B, T, 3)` u32, by which attention is limited as [`crate::ops::AttentionOptions`] says:
    /// only with whole sequences.
    pub structure: Option<Tensor>,
    /// The seed of dropout and noise, `(2)` u32; none: nothing is dropped.
    pub dropout_seed: Option<Tensor>,
    /// Whether this is a step of training: experts have a capacity, and what balances them learns.
    pub training: bool,
}

impl Inputs {
    /// Whole sequences without padding, at positions 0, 1, 2, …
    ///
    /// # Errors
    /// [`Error::Shape`] if the ids are not `(B, T)`, or more than 2²⁶ tokens.
    pub fn new(g: &mut Graph, ids: Tensor) -> Result<Self> {
        let [batch, time] = g.shape(ids).expect("ids")?;
        if batch.saturating_mul(time) > MOST_TOKENS {
            let what = format!("{batch} × {time} tokens are more than the {MOST_TOKENS} of a step: lower the batch");
            return Err(Error::shape("ids", what));
        }
        let positions = Array::from_fn([batch, time], |i| (i % time.max(1)) as f64);
        let positions = g.constant("positions", positions, DType::U32);
        let memory = Memory::Whole { key_mask: None };
        Ok(Self { ids, positions, places: time, memory, structure: None, dropout_seed: None, training: false })
    }

    /// The same with a mask `(B, T)` u32 that is 0 on padding.
    #[must_use]
    pub fn with_mask(self, mask: Tensor) -> Self {
        Self { memory: Memory::Whole { key_mask: Some(mask) }, ..self }
    }

    /// The same with other positions, `(B, T)` u32, all of them below `places`.
    #[must_use]
    pub fn with_positions(self, positions: Tensor, places: usize) -> Self {
        Self { positions, places, ..self }
    }

    /// The same with attention limited by a structure, `(B, T, 3)` u32.
    #[must_use]
    pub fn with_structure(self, structure: Tensor) -> Self {
        Self { structure: Some(structure), ..self }
    }

    /// The same as a step of training.
    #[must_use]
    pub fn for_training(self) -> Self {
        Self { training: true, ..self }
    }

    /// The same with dropout, as in training.
    #[must_use]
    pub fn with_dropout(self, seed: Tensor) -> Self {
        Self { dropout_seed: Some(seed), ..self }
    }

    /// Refuses more positions than a model has.
    fn check(&self, positions: usize, key: &str) -> Result<()> {
        if self.places <= positions {
            return Ok(());
        }
        let message = format!("{} tokens are too many: the model has {positions} positions ({key})", self.places);
        Err(Error::shape("ids", message))
    }
}

/// What the blocks of a decoder give.
#[derive(Clone, Debug)]
pub struct Hidden {
    /// The hidden states behind the last norm, `(B, T, C)`.
    pub states: Tensor,
    /// The losses of the routers, each times its coefficient: a scalar that training adds to its loss.
    pub auxiliary: Option<Tensor>,
    /// What the routers did, by name: `router_logits.0`, `selected.0`, `depth`, `aux_loss`, `experts.3` and, where that gate saw
    /// some of the tokens only, their `positions.3`.
    pub routing: Vec<(String, Tensor)>,
    /// Loads, entropy and drops of each router, in the order of the pass: what training reports. It costs nothing unless
    /// something reads it.
    pub routers: Vec<RouterSums>,
}

/// Without routers.
impl From<Tensor> for Hidden {
    fn from(states: Tensor) -> Self {
        Self { states, auxiliary: None, routing: Vec::new(), routers: Vec::new() }
    }
}

/// The last layer of a decoder: from hidden states to logits.
#[derive(Clone, Copy, Debug)]
pub struct Head {
    /// The weight; with tied embeddings the table itself.
    pub weight: Tensor,
    /// The bias.
    pub bias: Option<Tensor>,
    /// Which axis of the weight is the input's.
    pub layout: WeightLayout,
}

/// A decoder language model: what training, generation and checks know of it.
pub trait Decoder: Debug + Send + Sync {
    /// The `config.json` that describes the model, with the keys that Hugging Face uses.
    fn config(&self) -> Value;

    /// The sizes.
    fn dimensions(&self) -> Dimensions;

    /// How matrices lie in GPU memory. Training needs f32.
    fn storage(&self) -> DType;

    /// Changes how matrices lie in GPU memory.
    fn set_storage(&mut self, storage: DType);

    /// The hidden states, and what the routers did on the way, if there are any.
    ///
    /// # Errors
    /// Those of the ops.
    fn hidden(&self, g: &mut Graph, inputs: &Inputs) -> Result<Hidden>;

    /// The last layer.
    ///
    /// # Errors
    /// Those of the graph.
    fn head(&self, g: &mut Graph) -> Result<Head>;

    /// Whether training drops anything, so that it needs a seed.
    fn drops(&self) -> bool;

    /// What a fresh parameter is filled with.
    fn initial(&self, parameter: &str) -> Initial;

    /// How many ways the router of that name chooses from, as [`Hidden::routing`] has them; 1 without routers.
    fn ways(&self, _router: &str) -> usize {
        1
    }

    /// What stands in front of the names of all parameters but the head's. Checkpoints may leave it out.
    fn base_prefix(&self) -> &'static str;

    /// Whether a tensor of a checkpoint is no parameter and can be left aside.
    fn ignores(&self, tensor: &str) -> bool;

    /// Floating-point operations of the forward pass for one token that sees `context` keys; training takes three times
    /// as many.
    fn forward_flops(&self, context: usize) -> u64;

    /// The logits, `(…, V)`, of hidden states `(…, C)`.
    ///
    /// # Errors
    /// Those of the ops.
    fn logits(&self, g: &mut Graph, hidden: Tensor) -> Result<Tensor> {
        let head = self.head(g)?;
        g.scope("head", |g| ops::linear(g, hidden, head.weight, head.bias, head.layout))
    }

    /// The mean cross-entropy against `labels (B, T)` i32. `labels[t]` is the token behind `ids[t]`; negative ones do not
    /// count. All logits are never in memory at once. The losses of the routers are not in it.
    ///
    /// # Errors
    /// Those of the ops.
    fn loss_of(&self, g: &mut Graph, hidden: Tensor, labels: Tensor, options: &CrossEntropyOptions) -> Result<Tensor> {
        let head = self.head(g)?;
        g.scope("head", |g| ops::linear_cross_entropy(g, hidden, head.weight, head.bias, head.layout, labels, options))
    }

    /// The parameters in the order of their first use: names as Hugging Face gives them, and types.
    ///
    /// # Errors
    /// Those of the ops: a configuration whose numbers do not fit together.
    fn parameters(&self) -> Result<Vec<(String, TensorType)>> {
        let mut g = Graph::new();
        let ids = g.input("ids", [1, 1], DType::U32)?;
        let inputs = Inputs::new(&mut g, ids)?;
        self.hidden(&mut g, &inputs)?;
        self.head(&mut g)?;
        Ok(g.parameters().map(|(name, tensor)| (name.to_owned(), g.ty(tensor).clone())).collect())
    }

    /// The number of trained values.
    ///
    /// # Errors
    /// As [`Decoder::parameters`].
    fn parameter_count(&self) -> Result<usize> {
        Ok(self.parameters()?.iter().map(|(_, ty)| ty.shape.numel()).sum())
    }

    /// Fills the store with fresh weights. The same seed gives the same weights.
    ///
    /// # Errors
    /// As [`Decoder::parameters`]; [`Error::OutOfMemory`].
    fn initialise(&self, weights: &Weights, seed: u64) -> Result<()> {
        for (name, ty) in self.parameters()? {
            weights.ensure(&name, &ty)?;
            weights.upload(&name, &initial_words(self.initial(&name), &ty, seed, &name))?;
        }
        Ok(())
    }
}

/// The decoder that a `config.json` describes.
///
/// # Errors
/// [`Error::Format`] that names the key whose value is missing, wrong or not supported.
pub fn decoder(config: &Config) -> Result<Box<dyn Decoder>> {
    let family = model_type(config)?;
    check_plain(config)?;
    match family.as_str() {
        "gpt2" => Ok(Box::new(Gpt2::from_config(config)?)),
        "llama" | "mixtral" | "qwen2_moe" => Ok(Box::new(Llama::from_config(config)?)),
        "mor" => Ok(Box::new(Mor::from_config(config)?)),
        other => {
            let message = format!("is \"{other}\", which is not read yet; {} are", families());
            Err(config.refuse("model_type", message))
        }
    }
}

/// The tokens that end an answer: `eos_token_id` of a `config.json` or `generation_config.json`, none, one or several. Those
/// beyond the vocabulary, which real models have, are noted in the log.
///
/// # Errors
/// [`Error::Format`] if the key has a value that is no token's number and no list of them.
pub fn end_tokens(config: &Config, vocabulary: usize) -> Result<Vec<u32>> {
    const KEY: &str = "eos_token_id";
    let values = match config.value().get(KEY) {
        None | Some(Value::Null) => return Ok(Vec::new()),
        Some(Value::Array(several)) => several.as_slice(),
        Some(one) => std::slice::from_ref(one),
    };
    let id = |value: &Value| {
        let id = value.as_u64().and_then(|id| u32::try_from(id).ok());
        id.ok_or_else(|| config.refuse(KEY, format!("has {value}; the number of a token or a list of them is needed")))
    };
    let ids: Vec<u32> = values.iter().map(id).collect::<Result<_>>()?;
    for id in ids.iter().filter(|&&id| id as usize >= vocabulary) {
        let source = config.source().display();
        log::warn!("{source}: \"{KEY}\" has {id}; the vocabulary ends before {vocabulary}, so it will never come");
    }
    Ok(ids)
}

/// Dropout of the probabilities of an attention layer, if it is a step that drops something.
fn attention_dropout(rate: f32, inputs: &Inputs, layer: usize) -> Option<AttentionDropout> {
    let seed = inputs.dropout_seed.filter(|_| rate > 0.0)?;
    Some(AttentionDropout { rate, seed, salt: layer as u32 })
}

/// Keys of a `config.json` that are no business of the graph and are passed on to a saved one.
fn passed_on(config: &Config) -> Vec<(String, Value)> {
    const KEYS: [&str; 3] = ["bos_token_id", "eos_token_id", "pad_token_id"];
    // A null is passed on as well: without it readers take their family's default.
    KEYS.iter().filter_map(|key| Some(((*key).to_owned(), config.value().get(*key)?.clone()))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn an_unknown_family_is_refused_by_name() {
        let refused = |config| decoder(&Config::new("config.json", config).unwrap()).unwrap_err().to_string();
        assert_eq!(
            refused(json!({"model_type": "mamba"})),
            "config.json: \"model_type\" is \"mamba\", which is not read yet; gpt2, llama, mixtral, qwen2_moe, mor are"
        );
        assert_eq!(refused(json!({})), "config.json: has no \"model_type\" or \"architectures\"");
        assert!(
            refused(json!({"architectures": ["MambaForCausalLM"]}))
                .contains("\"architectures\" is \"MambaForCausalLM\"")
        );
    }

    #[test]
    fn one_or_several_tokens_end_an_answer() {
        let of = |config: Value| end_tokens(&Config::new("config.json", config).unwrap(), 97);
        let ids = |value: Value| of(json!({"eos_token_id": value})).unwrap();
        assert_eq!(ids(json!(2)), [2]);
        assert_eq!(ids(json!([2, 7])), [2, 7]);
        assert_eq!(ids(json!(5000)), [5000], "beyond the vocabulary");
        assert!(ids(Value::Null).is_empty() && of(json!({})).unwrap().is_empty());
        for wrong in [json!("3"), json!(["3"]), json!(3.0), json!([[3]]), json!(-1), json!({}), json!(10_u64.pow(12))] {
            let message = of(json!({"eos_token_id": wrong})).unwrap_err().to_string();
            assert!(message.starts_with("config.json: \"eos_token_id\" has "), "{message}");
        }
    }
}
