//! A stack of blocks as data: run one after the other, or some of them several times.

use super::attention::{AttentionUse, KeyValues, KvSource, PositionTables, Ring, RotaryTable, alike};
use super::balance::Balance;
use super::block::{Block, BlockUse};
use super::experts::GateOutput;
use super::inputs::{Hidden, TokenInputs};
use super::norm::NormKind;
use super::recursion::{Pass, Recursion, RecursionOutput, RecursionRouting, RecursionUse, Tokens};
use super::relative::RelativeBias;
use crate::error::{Error, Result};
use crate::graph::{Graph, Tensor};
use crate::ops::{self, RopeOptions, SelectOptions, SelectRule};
use std::collections::HashMap;

/// The blocks of a model.
#[derive(Clone, Debug, PartialEq)]
pub struct Stack {
    /// The blocks, each stored once; those of one prefix share their weights, in a stack without caches.
    pub blocks: Vec<Block>,
    /// The recursions of some of them, if any.
    pub recursion: Option<Recursion>,
    /// The norm behind all blocks, and its name.
    pub final_norm: Option<(NormKind, String)>,
    /// Load balancing of experts.
    pub balance: Balance,
    /// Tells its blocks from those of other stacks where something is dropped: the number of the first.
    pub salt: u32,
}

/// One use of a stored block.
#[derive(Clone, Copy, Debug)]
struct BlockCall {
    block: usize,
    /// Its number among all uses.
    number: usize,
    kv: KvSource,
    /// Attends to what the block's first use left.
    shared: bool,
}

/// The tokens that some uses of blocks run over.
#[derive(Clone, Copy, Debug)]
struct Run {
    positions: Tensor,
    tree: Option<Tensor>,
    lengths: Option<Tensor>,
    /// 0 on padding.
    mask: Option<Tensor>,
    /// Tokens of the texts may be missing.
    picked: bool,
}

/// A pass through a stack, and what its blocks leave behind.
struct StackRun<'a> {
    blocks: &'a [Block],
    salt: u32,
    inputs: &'a TokenInputs,
    tables: PositionTables,
    /// Keys and values of each block's first use.
    kv: HashMap<usize, KeyValues>,
    gates: Vec<GateOutput>,
    /// The positions of the tokens that each gate saw.
    gate_positions: Vec<Tensor>,
}

impl Stack {
    /// The states behind the blocks of `x (B, T, C)`, and what the routers did on the way.
    ///
    /// # Errors
    /// [`Error::Graph`] if the recursions need another number of blocks; those of the ops.
    pub fn run(&self, g: &mut Graph, x: Tensor, inputs: &TokenInputs) -> Result<Hidden> {
        if inputs.documents.is_some() && self.recursion.is_some() {
            let what = "recursions choose among the tokens of a row: give each text a row of its own";
            return Err(Error::input("packed texts", what));
        }
        let tables = self.tables(g, inputs)?;
        let (kv, gates, gate_positions) = (HashMap::new(), Vec::new(), Vec::new());
        let salt = self.salt;
        let mut run = StackRun { blocks: &self.blocks, salt, inputs, tables, kv, gates, gate_positions };
        let mut hidden = match &self.recursion {
            None => {
                let uses = |block| BlockCall { block, number: block, kv: inputs.kv, shared: false };
                let uses: Vec<BlockCall> = (0..self.blocks.len()).map(uses).collect();
                run.chain(g, &uses, x, inputs.into())?.into()
            }
            Some(recursion) if recursion.stored() != self.blocks.len() => {
                let (stored, wanted) = (self.blocks.len(), recursion.stored());
                return Err(Error::Graph(format!("a stack of {stored} blocks recurs as one of {wanted}")));
            }
            Some(recursion) => run.recur(g, recursion, x)?,
        };
        if let Some((norm, name)) = &self.final_norm {
            hidden.states = g.scope("final_norm", |g| norm.apply(g, name, hidden.states))?;
        }
        self.with_gates(g, hidden, &run)
    }

    /// Makes the keys and values of all cross-attention of an encoder's states, `(B, S, C)`, and keeps them in caches of `capacity`
    /// positions, for [`Context::Cached`](super::Context::Cached).
    ///
    /// # Errors
    /// Those of the ops.
    pub fn cache_context(&self, g: &mut Graph, states: Tensor, capacity: usize) -> Result<()> {
        for (number, block) in self.blocks.iter().enumerate() {
            if let Some((_, cross)) = &block.cross {
                g.scope(format!("context.{number}"), |g| cross.cache_context(g, &block.prefix, states, capacity))?;
            }
        }
        Ok(())
    }

    /// The tables of positions, one for all blocks that have the same.
    fn tables(&self, g: &mut Graph, inputs: &TokenInputs) -> Result<PositionTables> {
        let mut tables = PositionTables { max_position: inputs.max_position, ..Default::default() };
        for attention in self.blocks.iter().map(|block| &block.attention) {
            let head_dim = attention.heads.head_dim;
            let known = |rotary: &RopeOptions| {
                tables.rotary.iter().any(|table| table.head_dim == head_dim && alike(&table.options, rotary))
            };
            if let Some(rotary) = attention.rotary.as_ref().filter(|rotary| !known(rotary)) {
                let options = RopeOptions { max_positions: inputs.max_position, ..rotary.clone() };
                let lengths = inputs.text_lengths().filter(|_| options.goes_by_length().is_some());
                let table = match lengths {
                    Some(_) => ops::rope_table_by_length(g, head_dim, &options)?,
                    None => ops::rope_table(g, head_dim, &options)?,
                };
                tables.rotary.push(RotaryTable { options, head_dim, table, lengths });
            }
            let heads = attention.heads.query;
            let known = |relative: &&RelativeBias| {
                tables.relative.iter().any(|(other, of, _)| other == *relative && *of == heads)
            };
            if let Some(relative) = attention.relative.as_ref().filter(|relative| !known(relative)) {
                let bias = g.scope("relative_bias", |g| relative.scores(g, heads, inputs))?;
                tables.relative.push((relative.clone(), heads, bias));
            }
            let (KvSource::Prefill { capacity, lengths, .. } | KvSource::Decode { capacity, lengths }) = inputs.kv
            else {
                continue;
            };
            let known = |size: &usize| tables.rings.iter().any(|ring| ring.size == *size);
            if let Some(size) = attention.ring_size(capacity).filter(|size| !known(size)) {
                let (slots, held) = ops::ring_slots(g, inputs.positions, lengths, size)?;
                tables.rings.push(Ring { size, slots, held });
            }
        }
        Ok(tables)
    }

    /// Adds to what the blocks gave the losses of their gates, and lets a step of training move the biases of the choice.
    fn with_gates(&self, g: &mut Graph, mut hidden: Hidden, run: &StackRun<'_>) -> Result<Hidden> {
        let gates = &run.gates;
        if gates.is_empty() {
            return Ok(hidden);
        }
        let (balance, auxiliary) = g.scope("balance", |g| self.balance.losses(g, gates))?;
        if run.inputs.training {
            self.balance.update_biases(g, gates)?;
        }
        let chosen = gates.iter().enumerate().map(|(index, gate)| (format!("experts.{index}"), gate.chosen));
        hidden.routing.extend(chosen);
        hidden.routers.extend(gates.iter().map(|gate| gate.sums));
        if !hidden.routing.iter().any(|(name, _)| name == "aux_loss") {
            hidden.routing.push(("aux_loss".into(), balance));
        }
        if gates.iter().any(|gate| gate.by_text.is_some()) {
            let z = g.scope("balance", |g| Balance::z_loss(g, gates))?;
            hidden.routing.extend(z.map(|z| ("z_loss".into(), z)));
        }
        hidden.auxiliary = match (hidden.auxiliary, auxiliary) {
            (Some(a), Some(b)) => Some(ops::add(g, a, b)?),
            (a, b) => a.or(b),
        };
        Ok(hidden)
    }
}

impl StackRun<'_> {
    /// Adds uses of blocks one after the other.
    fn chain(&mut self, g: &mut Graph, uses: &[BlockCall], mut x: Tensor, run: Run) -> Result<Tensor> {
        let Run { positions, tree, lengths, mask, picked } = run;
        for &BlockCall { block, number, kv, shared } in uses {
            let kv = self.kv.get(&block).filter(|_| shared).map_or(kv, |kv| KvSource::Reuse(*kv));
            let (seed, salt, tables) = (self.inputs.dropout_seed, self.salt + number as u32, &self.tables);
            let TokenInputs { prefix, documents, .. } = *self.inputs;
            let attention =
                AttentionUse { positions, kv, tree, prefix, documents, lengths, seed, picked, salt, tables };
            let with = BlockUse { attention, context: self.inputs.context, training: self.inputs.training, mask };
            let out = g.scope(format!("blocks.{number}"), |g| self.blocks[block].run(g, x, &with))?;
            self.kv.entry(block).or_insert(out.kv);
            if let Some(gate) = out.gate {
                self.gates.push(gate);
                self.gate_positions.push(positions);
            }
            x = out.x;
        }
        Ok(x)
    }

    /// The blocks of a stack that recurs.
    fn recur(&mut self, g: &mut Graph, recursion: &Recursion, x: Tensor) -> Result<Hidden> {
        if let KvSource::Pages { .. } = self.inputs.kv {
            return Err(Error::shape("attention", "recursions keep their keys in slots of their own, not in pages"));
        }
        if recursion.routing == RecursionRouting::None {
            return Ok(self.chain(g, &self.plain(recursion), x, self.inputs.into())?.into());
        }
        let end = |block, number| [BlockCall { block, number, kv: self.inputs.kv, shared: false }];
        let (front, back) = (end(0, 0), end(recursion.behind(), recursion.routed_uses() - 1));
        let ends = recursion.sharing.has_ends();
        let x = if ends { self.chain(g, &front, x, self.inputs.into())? } else { x };
        let RecursionOutput { mut states, auxiliary, mut routing, routers } = self.routed(g, recursion, x)?;
        if ends {
            states = self.chain(g, &back, states, self.inputs.into())?;
        }
        let positions = self.gate_positions.iter().enumerate();
        routing.extend(positions.map(|(index, positions)| (format!("positions.{index}"), *positions)));
        Ok(Hidden { states, auxiliary: Some(auxiliary), routing, routers })
    }

    /// The uses of the blocks by a model without routers.
    fn plain(&self, recursion: &Recursion) -> Vec<BlockCall> {
        let slots = self.inputs.positions;
        let kv = |recursion: usize| match self.inputs.kv {
            KvSource::Prefill { capacity, lengths, beams } => {
                let (positions, cache_is_empty) = (None, true);
                KvSource::Slots { recursion, capacity, slots, lengths, positions, cache_is_empty, beams }
            }
            KvSource::Decode { capacity, lengths } => {
                let (positions, cache_is_empty) = (None, false);
                KvSource::Slots { recursion, capacity, slots, lengths, positions, cache_is_empty, beams: 1 }
            }
            kv => kv,
        };
        let shared = |r: usize| recursion.kv_sharing && r > 0;
        let uses = recursion.order().into_iter().enumerate();
        uses.map(|(number, (block, r))| BlockCall { block, number, kv: kv(r), shared: shared(r) }).collect()
    }

    /// The recursions of a model with routers, from and to the states of all tokens.
    fn routed(&mut self, g: &mut Graph, recursion: &Recursion, x: Tensor) -> Result<RecursionOutput> {
        let inputs = self.inputs;
        let lengths = match inputs.kv {
            KvSource::Uncached { key_mask: Some(mask) } => {
                let real = SelectRule::Between { low: 1, high: u32::MAX };
                Some(ops::select(g, mask, real, &SelectOptions::default())?.counts)
            }
            KvSource::Prefill { lengths, .. } => Some(lengths),
            KvSource::Packed { lengths } => lengths,
            _ => None,
        };
        let TokenInputs { positions, tree, .. } = *inputs;
        let tokens = Tokens { states: x, positions, tree, lengths, packed: false };
        let by_distance = self.blocks.iter().any(|block| block.attention.relative.is_some());
        let mut number = recursion.first();
        let block = |g: &mut Graph, pass: Pass| {
            let first = recursion.first() + pass.module * recursion.block_layers();
            let shared = recursion.kv_sharing && pass.recursion > 0;
            let blocks = (first..first + recursion.block_layers()).zip(number..);
            let uses: Vec<BlockCall> =
                blocks.map(|(block, number)| BlockCall { block, number, kv: pass.kv, shared }).collect();
            number += uses.len();
            let Tokens { states, positions, tree, packed: picked, .. } = pass.tokens;
            let run = Run { positions, tree, lengths: pass.tokens.ragged(g), mask: None, picked };
            self.chain(g, &uses, states, run)
        };
        let one_by_one = matches!(inputs.kv, KvSource::Prefill { .. } | KvSource::Decode { .. });
        let (prefix, std) = (recursion.prefix.as_str(), recursion.std);
        let TokenInputs { kv, training, .. } = *inputs;
        let with = RecursionUse { prefix, kv, one_by_one, by_distance, training, std };
        match &recursion.routing {
            RecursionRouting::ExpertChoice(choice) => choice.run(g, tokens, with, block),
            RecursionRouting::TokenChoice(choice) => choice.run(g, tokens, with, block),
            RecursionRouting::None => Err(Error::Graph("a model without routers has nothing to route".into())),
        }
    }
}

impl From<&TokenInputs> for Run {
    fn from(inputs: &TokenInputs) -> Self {
        let mask = if let KvSource::Uncached { key_mask } = inputs.kv { key_mask } else { None };
        Self { positions: inputs.positions, tree: inputs.tree, lengths: None, mask, picked: false }
    }
}
