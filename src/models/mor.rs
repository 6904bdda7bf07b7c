//! Mixture of recursions on Llama layers: Bae et al., arXiv 2507.10524.

use super::llama::BlockTokens;
use super::settings::{count, part_count, positive_number, shortest};
use super::{Decoder, Dimensions, Head, Hidden, Initial, Inputs, Llama};
use crate::dtype::DType;
use crate::error::Result;
use crate::graph::{Graph, Tensor};
use crate::io::Config;
use crate::nn::{
    self, BlockOutput, ExpertChoice, Gated, KeyValues, Memory, Pass, Recursed, Rotary, Router, RouterFunction,
    RouterKind, TokenChoice, Tokens,
};
use crate::ops::{self, Choice, RopeOptions, RouterLoss, SelectOptions};
use serde_json::{Value, json};
use std::collections::HashMap;

/// Which layers share their weights. With `b` stored layers that recur and `R` recursions:
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sharing {
    /// `1 … b`, again `1 … b`, and so on.
    Cycle,
    /// As `Cycle`, between a first and a last layer of their own.
    MiddleCycle,
    /// `1`, `R` times in a row, then `2`, and so on.
    Sequence,
    /// As `Sequence`, between a first and a last layer of their own.
    MiddleSequence,
}

impl Sharing {
    const ALL: [(&str, Self); 4] = [
        ("cycle", Self::Cycle),
        ("middle_cycle", Self::MiddleCycle),
        ("sequence", Self::Sequence),
        ("middle_sequence", Self::MiddleSequence),
    ];

    /// Whether the first and the last layer are not shared.
    fn has_ends(self) -> bool {
        matches!(self, Self::MiddleCycle | Self::MiddleSequence)
    }

    /// Whether the whole block is used again, not each layer for itself.
    fn is_cycle(self) -> bool {
        matches!(self, Self::Cycle | Self::MiddleCycle)
    }
}

/// Who decides how often a token goes through the block.
#[derive(Clone, Debug, PartialEq)]
pub enum Routing {
    /// Nobody: all tokens go through it `R` times.
    None,
    /// Each recursion chooses its tokens.
    ExpertChoice(ExpertChoice),
    /// Each token chooses its depth.
    TokenChoice(TokenChoice),
}

/// A Llama decoder whose middle is one block of layers, used several times, for each token as often as a router decides.
///
/// Layers are stored once: `model.layers.0` up to the number of different ones. Padding is on the right of each row, and a
/// mask is taken as the number of real tokens.
#[derive(Clone, Debug, PartialEq)]
pub struct Mor {
    /// The decoder without recursions; its layers are the uses of all layers by a token that goes all the way.
    pub llama: Llama,
    /// How often the block is used.
    pub recursions: usize,
    /// Which layers share their weights.
    pub sharing: Sharing,
    /// Who decides.
    pub routing: Routing,
    /// Recursions after the first attend to keys and values of the first, and keep none.
    pub kv_sharing: bool,
}

/// One use of a stored layer.
#[derive(Clone, Copy, Debug)]
struct Use {
    layer: usize,
    /// Its number among all uses.
    number: usize,
    memory: Memory,
    /// Attends to what the layer's first use left.
    shared: bool,
}

/// What the layers of a pass have in common, and what they leave behind.
#[derive(Debug)]
struct Walk<'a> {
    inputs: &'a Inputs,
    rotary: Rotary<'a>,
    /// Keys and values of each layer's first use.
    kept: HashMap<usize, KeyValues>,
    gates: Vec<Gated>,
    /// The positions of the tokens that each gate saw.
    places: Vec<Tensor>,
}

impl Mor {
    /// The model of a `config.json` with `model_type` mor: the keys of Llama, and `num_recursions`, `sharing`, `routing`,
    /// `capacity`, `capacity_warmup_steps`, `router_alpha`, `router_function`, `router`, `router_aux_coef`, `router_z_coef`, `router_bias`, `sampling`,
    /// `kv_sharing`, `num_modules`.
    ///
    /// # Errors
    /// [`crate::Error::Format`] that names the key whose value is missing, wrong or not supported.
    pub fn from_config(config: &Config) -> Result<Self> {
        let llama = Llama::from_config(config)?;
        let recursions = count(config, "num_recursions")?;
        let sharing = choice(config, "sharing", "middle_cycle", &Sharing::ALL)?;
        let ends = if sharing.has_ends() { 2 } else { 0 };
        if llama.layers <= ends || !(llama.layers - ends).is_multiple_of(recursions) {
            let layers = llama.layers;
            let inner = layers.saturating_sub(ends);
            let fit: Vec<String> = (1..=inner).filter(|r| inner.is_multiple_of(*r)).map(|r| r.to_string()).collect();
            let hint = if fit.is_empty() { String::new() } else { format!(" (it is one of {})", fit.join(", ")) };
            let message = format!(
                "is {layers}; without {ends} at the ends it must be a multiple of num_recursions, {recursions}{hint}"
            );
            return Err(config.refuse("num_hidden_layers", message));
        }
        let kv_sharing = config.get_or("kv_sharing", false)?;
        let modules = if config.has("num_modules") { part_count(config, "num_modules")? } else { 1 };
        let kind =
            choice(config, "routing", "expert_choice", &[("none", 0), ("expert_choice", 1), ("token_choice", 2)])?;
        if kind != 2 && modules > 1 {
            return Err(config.refuse("num_modules", format!("is {modules}; only token_choice has several modules")));
        }
        if kind != 0 && !sharing.is_cycle() {
            let message = "repeats each layer in a row; routing needs \"cycle\" or \"middle_cycle\", and \"routing\": \"none\" takes any";
            return Err(config.refuse("sharing", message));
        }
        let routing = match kind {
            1 => Routing::ExpertChoice(expert_choice(config, recursions, kv_sharing)?),
            2 => Routing::TokenChoice(token_choice(config, recursions, modules, kv_sharing)?),
            _ => Routing::None,
        };
        Ok(Self { llama, recursions, sharing, routing, kv_sharing })
    }

    /// Layers of a block.
    #[must_use]
    pub fn block_layers(&self) -> usize {
        (self.llama.layers - 2 * self.first()) / self.recursions
    }

    /// The layers of the decoder without recursions that a stored layer stands for, ascending: those that are tied together.
    /// Blocks to choose from stand for the same ones.
    #[must_use]
    pub fn tied(&self, stored: usize) -> Vec<usize> {
        let (first, block) = (self.first(), self.block_layers());
        if stored < first {
            return vec![stored];
        }
        if stored >= self.behind() {
            return vec![self.llama.layers - 1];
        }
        let place = (stored - first) % block;
        let of = |turn| if self.sharing.is_cycle() { turn * block + place } else { place * self.recursions + turn };
        (0..self.recursions).map(|turn| first + of(turn)).collect()
    }

    /// Where a stored layer of a block stands in it, and the first layer and the number of layers of the decoder without
    /// recursions that the block is used for; none of a layer that does not recur.
    pub(super) fn place_in_block(&self, stored: usize) -> Option<(usize, usize, usize)> {
        let inside = (self.first()..self.behind()).contains(&stored);
        let (first, block) = (self.first(), self.block_layers());
        inside.then(|| ((stored - first) % block, first, block * self.recursions))
    }

    /// The first layer of the (first) block.
    fn first(&self) -> usize {
        usize::from(self.sharing.has_ends())
    }

    fn modules(&self) -> usize {
        if let Routing::TokenChoice(choice) = &self.routing { choice.modules } else { 1 }
    }

    /// The layer behind the blocks.
    fn behind(&self) -> usize {
        self.first() + self.modules() * self.block_layers()
    }

    /// Adds uses of layers one after the other: the stream, and the sum that is still to be added to it.
    fn chain(
        &self,
        g: &mut Graph,
        uses: &[Use],
        x: Tensor,
        tokens: BlockTokens,
        walk: &mut Walk<'_>,
    ) -> Result<(Tensor, Tensor)> {
        let norm = |layer: usize| format!("model.layers.{layer}.input_layernorm");
        let epsilon = self.llama.epsilon;
        let mut normed = nn::rms_norm(g, &norm(uses[0].layer), x, epsilon)?;
        let (mut x, mut last) = (x, None);
        for (i, &Use { layer, number, memory, shared }) in uses.iter().enumerate() {
            let memory = walk.kept.get(&layer).filter(|_| shared).map_or(memory, |kept| Memory::Shared(*kept));
            (x, normed) = g.scope(format!("blocks.{number}"), |g| {
                let tokens = BlockTokens { memory, ..tokens };
                let block = self.llama.block([layer, number], walk.inputs, tokens, walk.rotary);
                let out = block.run(g, &format!("model.layers.{layer}"), x, normed)?;
                let BlockOutput { x, added, .. } = out;
                walk.kept.entry(layer).or_insert(out.kept);
                if let Some(gate) = out.gate {
                    walk.gates.push(gate);
                    walk.places.push(tokens.positions);
                }
                match uses.get(i + 1) {
                    Some(next) => nn::add_rms_norm(g, &norm(next.layer), added, x, epsilon),
                    None => {
                        last = Some(added);
                        Ok((x, x))
                    }
                }
            })?;
        }
        Ok((x, last.unwrap_or(normed)))
    }

    /// The uses of the layers by a model without routers.
    fn plain(&self, inputs: &Inputs) -> Vec<Use> {
        let (first, block, turns) = (self.first(), self.block_layers(), self.recursions);
        let mut order: Vec<(usize, usize)> = (0..first).map(|layer| (layer, 0)).collect();
        if self.sharing.is_cycle() {
            order.extend((0..turns).flat_map(|turn| (first..first + block).map(move |layer| (layer, turn))));
        } else {
            order.extend((first..first + block).flat_map(|layer| (0..turns).map(move |turn| (layer, turn))));
        }
        order.extend((0..first).map(|i| (self.behind() + i, 0)));
        let memory = |turn: usize| match inputs.memory {
            Memory::Prefill { capacity, lengths } => {
                Memory::Slots { turn, capacity, slots: inputs.positions, lengths, fresh: true }
            }
            Memory::Decode { capacity, lengths } => {
                Memory::Slots { turn, capacity, slots: inputs.positions, lengths, fresh: false }
            }
            memory => memory,
        };
        let shared = |turn: usize| self.kv_sharing && turn > 0;
        let uses = order.into_iter().enumerate();
        uses.map(|(number, (layer, turn))| Use { layer, number, memory: memory(turn), shared: shared(turn) }).collect()
    }

    /// The recursions of a model with routers, from and to the states of all tokens.
    fn routed(&self, g: &mut Graph, x: Tensor, walk: &mut Walk<'_>) -> Result<Recursed> {
        let inputs = walk.inputs;
        let lengths = match inputs.memory {
            Memory::Whole { key_mask: Some(mask) } => {
                let real = Choice::Between { low: 1, high: u32::MAX };
                Some(ops::select(g, mask, real, &SelectOptions::default())?.counts)
            }
            Memory::Prefill { lengths, .. } => Some(lengths),
            _ => None,
        };
        let Inputs { positions, structure, .. } = *inputs;
        let tokens = Tokens { states: x, positions, structure, lengths, compact: false };
        let mut number = self.first();
        let block = |g: &mut Graph, pass: Pass| {
            let first = self.first() + pass.module * self.block_layers();
            let shared = self.kv_sharing && pass.turn > 0;
            let layers = (first..first + self.block_layers()).zip(number..);
            let uses: Vec<Use> =
                layers.map(|(layer, number)| Use { layer, number, memory: pass.memory, shared }).collect();
            number += uses.len();
            let Tokens { states, positions, structure, .. } = pass.tokens;
            let lengths = pass.tokens.ragged(g);
            let tokens = BlockTokens { positions, memory: pass.memory, structure, lengths };
            let (x, added) = self.chain(g, &uses, states, tokens, walk)?;
            ops::add(g, added, x)
        };
        match &self.routing {
            Routing::ExpertChoice(choice) => choice.run(g, tokens, inputs.memory, inputs.training, block),
            Routing::TokenChoice(choice) => choice.run(g, tokens, inputs.memory, inputs.training, block),
            Routing::None => Err(crate::Error::Graph("a model without routers has nothing to route".into())),
        }
    }
}

impl Decoder for Mor {
    fn config(&self) -> Value {
        let mut config = self.llama.config();
        config["model_type"] = "mor".into();
        config["architectures"] = json!(["MorForCausalLM"]);
        config["num_recursions"] = self.recursions.into();
        config["kv_sharing"] = self.kv_sharing.into();
        let name = |(name, _): &(&'static str, Sharing)| *name;
        config["sharing"] = Sharing::ALL.iter().find(|(_, s)| *s == self.sharing).map(name).into();
        let router = match &self.routing {
            Routing::None => {
                config["routing"] = "none".into();
                return config;
            }
            Routing::ExpertChoice(choice) => {
                config["routing"] = "expert_choice".into();
                config["capacity"] = choice.capacity.clone().into();
                config["capacity_warmup_steps"] = choice.warmup.into();
                config["sampling"] = if choice.second { "aux_router" } else { "aux_loss" }.into();
                choice.router
            }
            Routing::TokenChoice(choice) => {
                config["routing"] = "token_choice".into();
                config["num_modules"] = choice.modules.into();
                config["router_bias"] = shortest(choice.bias_rate).into();
                choice.router
            }
        };
        let function = FUNCTIONS.iter().find(|(_, function)| *function == router.function);
        config["router_function"] = function.map(|(name, _)| *name).into();
        let kind = KINDS.iter().find(|(_, kind)| *kind == router.kind);
        config["router"] = kind.map(|(name, _)| *name).into();
        config["router_alpha"] = shortest(router.alpha).into();
        config["router_aux_coef"] = shortest(router.loss.aux).into();
        config["router_z_coef"] = shortest(router.loss.z).into();
        config
    }

    fn dimensions(&self) -> Dimensions {
        self.llama.dimensions()
    }

    fn storage(&self) -> DType {
        self.llama.storage
    }

    fn set_storage(&mut self, storage: DType) {
        self.llama.storage = storage;
    }

    fn hidden(&self, g: &mut Graph, inputs: &Inputs) -> Result<Hidden> {
        inputs.check(self.llama.positions, "max_position_embeddings")?;
        let table = [self.llama.vocabulary, self.llama.width];
        let mut x =
            g.scope("embedding", |g| nn::embedding(g, "model.embed_tokens", inputs.ids, table, self.llama.storage))?;
        let options = RopeOptions { max_positions: inputs.places, ..self.llama.rope };
        let table = ops::rope_table(g, self.llama.heads.width, &options)?;
        let rotary = Rotary { table, options: &options };
        let end = |layer: usize, number: usize| [Use { layer, number, memory: inputs.memory, shared: false }];
        let mut walk = Walk { inputs, rotary, kept: HashMap::new(), gates: Vec::new(), places: Vec::new() };
        if self.routing == Routing::None {
            let (x, added) = self.chain(g, &self.plain(inputs), x, inputs.into(), &mut walk)?;
            let states = nn::add_rms_norm(g, "model.norm", added, x, self.llama.epsilon)?.1;
            return self.llama.with_gates(g, states.into(), &walk.gates, inputs.training);
        }
        if self.sharing.has_ends() {
            let (stream, added) = self.chain(g, &end(0, 0), x, inputs.into(), &mut walk)?;
            x = ops::add(g, added, stream)?;
        }
        let Recursed { mut states, auxiliary, routing, routers } = self.routed(g, x, &mut walk)?;
        if self.sharing.has_ends() {
            let uses = end(self.behind(), self.first() + self.modules() * self.recursions * self.block_layers());
            let (x, added) = self.chain(g, &uses, states, inputs.into(), &mut walk)?;
            states = nn::add_rms_norm(g, "model.norm", added, x, self.llama.epsilon)?.1;
        } else {
            states = nn::rms_norm(g, "model.norm", states, self.llama.epsilon)?;
        }
        let mut hidden = Hidden { states, auxiliary: Some(auxiliary), routing, routers };
        let places = walk.places.iter().enumerate().map(|(index, places)| (format!("positions.{index}"), *places));
        hidden.routing.extend(places);
        self.llama.with_gates(g, hidden, &walk.gates, inputs.training)
    }

    fn head(&self, g: &mut Graph) -> Result<Head> {
        self.llama.head(g)
    }

    fn drops(&self) -> bool {
        self.llama.drops()
    }

    fn initial(&self, parameter: &str) -> Initial {
        if parameter == nn::CAPACITY_STEP { Initial::Zeros } else { self.llama.initial(parameter) }
    }

    fn ways(&self, router: &str) -> usize {
        if router == "depth" { self.recursions * self.modules() } else { self.llama.ways(router) }
    }

    fn base_prefix(&self) -> &'static str {
        self.llama.base_prefix()
    }

    fn ignores(&self, tensor: &str) -> bool {
        // A run without a warm-up may go on from one that had it.
        tensor == nn::CAPACITY_STEP || self.llama.ignores(tensor)
    }

    /// What is computed: a recursion over a share of the tokens counts its share, and that squared for attention. Where
    /// tokens choose their depth, kernels run over all of them.
    fn forward_flops(&self, context: usize) -> u64 {
        let with = |layers: usize, context: usize| {
            let mut llama = self.llama.clone();
            llama.layers = layers;
            llama.forward_flops(context)
        };
        let layers = |layers: usize, context: usize| with(layers, context) - with(0, context);
        let shares = match &self.routing {
            Routing::ExpertChoice(choice) => choice.capacity.clone(),
            _ => vec![1.0; self.recursions * self.modules()],
        };
        let block = |share: &f64| {
            let seen = (context as f64 * share) as usize;
            (share * layers(self.block_layers(), seen) as f64) as u64
        };
        let ends = with(2 * self.first(), context);
        ends + shares.iter().map(block).sum::<u64>()
    }
}

const FUNCTIONS: [(&str, RouterFunction); 4] = [
    ("sigmoid", RouterFunction::Sigmoid),
    ("tanh", RouterFunction::Tanh),
    ("null", RouterFunction::Identity),
    ("softmax", RouterFunction::Softmax),
];
const KINDS: [(&str, RouterKind); 2] = [("linear", RouterKind::Linear), ("mlp", RouterKind::Mlp)];

/// The value of a key that names one of several things.
fn choice<T: Copy>(config: &Config, key: &str, default: &str, all: &[(&str, T)]) -> Result<T> {
    let name = config.get_or(key, default.to_owned())?;
    let found = all.iter().find(|(other, _)| *other == name);
    let names = || all.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ");
    found
        .map(|(_, value)| *value)
        .ok_or_else(|| config.refuse(key, format!("is \"{name}\"; supported are {}", names())))
}

/// A number that is not negative.
fn coefficient(config: &Config, key: &str, default: f32) -> Result<f32> {
    let number: f32 = config.get_or(key, default)?;
    match number >= 0.0 && number.is_finite() {
        true => Ok(number),
        false => Err(config.refuse(key, format!("is {number}; 0 or a positive number is needed"))),
    }
}

fn expert_choice(config: &Config, recursions: usize, shared: bool) -> Result<ExpertChoice> {
    // A null is a function too: none.
    let null = config.value().get("router_function").is_some_and(Value::is_null);
    let function = match null {
        true => RouterFunction::Identity,
        false => choice(config, "router_function", "sigmoid", &FUNCTIONS[..3])?,
    };
    let loss = RouterLoss {
        aux: coefficient(config, "router_aux_coef", 0.001)?,
        z: coefficient(config, "router_z_coef", 0.0)?,
    };
    let kind = choice(config, "router", "linear", &KINDS)?;
    let router = Router { kind, function, alpha: positive_number(config, "router_alpha", 0.1)?, loss };
    let default = || (0..recursions).map(|r| (recursions - r) as f64 / recursions as f64).collect();
    let capacity: Vec<f64> = config.optional("capacity")?.unwrap_or_else(default);
    let shares = capacity.iter().all(|share| *share > 0.0 && *share <= 1.0);
    if capacity.len() != recursions || !shares || capacity.windows(2).any(|pair| pair[1] > pair[0]) {
        let message = format!(
            "is {capacity:?}; {recursions} shares above 0 and up to 1, one a recursion, none larger than the one before, are needed"
        );
        return Err(config.refuse("capacity", message));
    }
    if shared && capacity[0] < 1.0 {
        let message = format!("begins with {}; kv_sharing needs a first recursion of all tokens, 1", capacity[0]);
        return Err(config.refuse("capacity", message));
    }
    let second = choice(config, "sampling", "aux_loss", &[("aux_loss", false), ("aux_router", true)])?;
    let warmup = config.get_or("capacity_warmup_steps", 0)?;
    if warmup > ops::warm_capacity::MOST_STEPS {
        let message = format!("is {warmup}; up to {} steps can be counted", ops::warm_capacity::MOST_STEPS);
        return Err(config.refuse("capacity_warmup_steps", message));
    }
    Ok(ExpertChoice { router, capacity, second, shared, warmup })
}

fn token_choice(config: &Config, recursions: usize, modules: usize, shared: bool) -> Result<TokenChoice> {
    let functions = [FUNCTIONS[3], FUNCTIONS[0]];
    let function = choice(config, "router_function", "softmax", &functions)?;
    let alpha = if function == RouterFunction::Softmax { 1.0 } else { 0.1 };
    let loss =
        RouterLoss { aux: coefficient(config, "router_aux_coef", 0.1)?, z: coefficient(config, "router_z_coef", 0.0)? };
    let kind = choice(config, "router", "linear", &KINDS)?;
    let router = Router { kind, function, alpha: positive_number(config, "router_alpha", alpha)?, loss };
    if shared && modules > 1 {
        let message = "is true; with several modules no recursion has keys and values of all tokens";
        return Err(config.refuse("kv_sharing", message));
    }
    let bias_rate = coefficient(config, "router_bias", 0.0)?;
    Ok(TokenChoice { router, recursions, modules, shared, bias_rate })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn model(more: Value) -> Result<Mor> {
        let mut config = json!({"model_type": "mor", "vocab_size": 97, "hidden_size": 36, "num_attention_heads": 6,
                                "num_hidden_layers": 8, "intermediate_size": 51, "num_recursions": 3});
        for (key, value) in more.as_object().into_iter().flatten() {
            config[key] = value.clone();
        }
        Mor::from_config(&Config::new("config.json", config)?)
    }

    #[test]
    fn a_config_survives_the_round_trip() {
        for more in [
            json!({}),
            json!({"sampling": "aux_router", "router": "mlp", "router_function": null, "capacity": [1.0, 0.5, 0.5]}),
            json!({"capacity_warmup_steps": 500}),
            json!({"sharing": "cycle", "num_hidden_layers": 6, "router_function": "tanh", "kv_sharing": true}),
            json!({"routing": "token_choice", "num_modules": 3, "router_function": "sigmoid", "router_bias": 0.001}),
            json!({"routing": "none", "sharing": "middle_sequence"}),
        ] {
            let first = model(more).unwrap();
            let again = Mor::from_config(&Config::new("config.json", first.config()).unwrap()).unwrap();
            assert_eq!(first, again);
        }
    }

    #[test]
    fn wrong_values_are_refused_by_key() {
        let refused = |more: Value| model(more).unwrap_err().to_string();
        assert_eq!(
            refused(json!({"num_hidden_layers": 9})),
            "config.json: \"num_hidden_layers\" is 9; without 2 at the ends it must be a multiple of num_recursions, 3 (it is one of 1, 7)"
        );
        assert!(refused(json!({"sharing": "sequence", "num_hidden_layers": 9})).contains("routing needs \"cycle\""));
        assert!(refused(json!({"sharing": "round"})).contains("supported are cycle, middle_cycle, sequence"));
        assert!(refused(json!({"capacity": [1.0, 0.5]})).contains("3 shares above 0 and up to 1"));
        assert!(refused(json!({"capacity": [1.0, 0.5, 0.6]})).contains("none larger than the one before"));
        assert!(refused(json!({"capacity": [0.9, 0.5, 0.4], "kv_sharing": true})).contains("begins with 0.9"));
        assert!(refused(json!({"capacity_warmup_steps": 20_000_000})).contains("up to 16777216 steps"));
        assert!(refused(json!({"capacity_warmup_steps": -1})).contains("capacity_warmup_steps"));
        assert!(refused(json!({"num_modules": 2})).contains("only token_choice has several modules"));
        let modules = json!({"routing": "token_choice", "num_modules": 2, "kv_sharing": true});
        assert!(refused(modules).contains("\"kv_sharing\" is true; with several modules"));
        assert!(refused(json!({"router_function": "softmax"})).contains("supported are sigmoid, tanh, null"));
        assert!(refused(json!({"router_aux_coef": -1.0})).contains("0 or a positive number"));
    }

    #[test]
    fn names_are_those_of_stored_layers() {
        let names = |more: Value| -> Vec<String> {
            let names = model(more).unwrap().parameters().unwrap().into_iter().map(|(name, _)| name);
            names.filter(|name| name.contains("router") || name.ends_with("k_proj.weight")).collect()
        };
        assert_eq!(names(json!({})).len(), 4 + 3);
        assert!(names(json!({})).contains(&"model.routers.2.weight".to_owned()));
        let modules = names(json!({"routing": "token_choice", "num_modules": 2}));
        assert_eq!(modules.len(), 2 + 2 * 2 + 1);
        assert!(modules.contains(&"model.layers.5.self_attn.k_proj.weight".to_owned()));
        let steps = |more: Value| {
            let model = model(more).unwrap();
            assert_eq!(model.initial("model.capacity_step"), Initial::Zeros);
            model.parameters().unwrap().iter().filter(|(name, _)| name == "model.capacity_step").count()
        };
        assert_eq!((steps(json!({})), steps(json!({"capacity_warmup_steps": 9}))), (0, 1));
        assert!(names(json!({"sampling": "aux_router"})).contains(&"model.aux_routers.0.weight".to_owned()));
    }

    #[test]
    fn a_share_of_the_tokens_costs_its_share() {
        let flops = |capacity: Value| model(json!({"capacity": capacity})).unwrap().forward_flops(0);
        let (all, less) = (flops(json!([1.0, 1.0, 1.0])), flops(json!([1.0, 0.5, 0.25])));
        let block = (all - flops(json!([1.0, 1.0, 0.5]))) * 2;
        assert_eq!(all - less, block * 5 / 4);
    }
}
