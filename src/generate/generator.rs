//! A decoder prepared for generation: programs that read prompts, and one that adds a token.

use super::graphs::{Rows, decode_graph, prefill_graph};
use super::pick::TokenPick;
use super::prepare::Part;
use super::sampling::SamplingOptions;
use super::session::{Answer, Session, Token};
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::gpu::Gpu;
use crate::graph::{Graph, Storage};
use crate::io::TextOf;
use crate::models::{Decoder, TokenInputs};
use crate::nn::{self, Block, KvSource};
use crate::ops::{self, RopeOptions};
use crate::program::{Program, Weights};
use derive_setters::Setters;
use futures::{Stream, StreamExt, stream};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::ops::ControlFlow;
use std::sync::Arc;

/// Prompts are padded to a power of two of at least this many tokens, so that few programs serve all lengths.
const SMALLEST_BUCKET: usize = 16;

/// The limits of a generator.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Setters)]
#[setters(prefix = "with_", strip_option)]
#[non_exhaustive]
pub struct GenerateLimits {
    /// The most prompts at a time.
    pub batch: usize,
    /// The most tokens of a prompt and its answer together; with an encoder, of each.
    pub max_tokens: usize,
}

impl GenerateLimits {
    /// `batch` prompts at a time, each with its answer of at most `max_tokens` tokens.
    #[must_use]
    pub const fn new(batch: usize, max_tokens: usize) -> Self {
        Self { batch, max_tokens }
    }
}

/// A decoder with its caches on one device.
///
/// Keys and values of all layers are cached, `(batch, max_tokens, kv_heads, head_dim)` each. One run reads the prompts and chooses the token
/// behind each; every further token takes one run over the batch. The GPU chooses ([`ops::draw`]), and a run gives back one token a row.
///
/// An encoder-decoder model reads prompts with its encoder, in one run that also computes and caches the keys and values of cross-attention.
/// Answers begin with the model's start token ([`Decoder::start_token`]), which is not part of them.
pub struct Generator {
    pub(super) gpu: Gpu,
    pub(super) model: Arc<dyn Decoder>,
    pub(super) limits: GenerateLimits,
    /// Rows that answer one prompt; `limits.batch` counts rows.
    pub(super) beams: usize,
    pub(super) text: Option<TextOf>,
    /// Lengths beyond which all tokens of a text have other rotary positions than before: what is cached of them does not hold any more.
    trained: BTreeSet<usize>,
    pub(super) weights: Weights,
    pub(super) encode: BTreeMap<usize, Program>,
    /// By the number of rows that each text is read for, and the padded length.
    pub(super) prefill: BTreeMap<(TokenPick, usize, usize), Program>,
    /// By the tokens that are added to each row.
    pub(super) decode: BTreeMap<(TokenPick, usize), Program>,
    /// The most tokens of an answer that are drafted and checked at once.
    drafts: usize,
    reorder: Option<Program>,
}

impl fmt::Debug for Generator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Generator").field("model", &self.model).field("limits", &self.limits).finish_non_exhaustive()
    }
}

impl Generator {
    /// Prepares a decoder. The caches belong to this generator; the weights are shared with the store.
    ///
    /// # Errors
    /// [`Error::Input`] if the limits exceed the model's or the store lacks a weight.
    pub fn new(gpu: &Gpu, model: Arc<dyn Decoder>, weights: &Weights, limits: GenerateLimits) -> Result<Self> {
        let positions = model.dimensions().max_position;
        if limits.batch == 0 {
            return Err(Error::input("batch", "it is 0, but must be at least 1"));
        }
        if limits.max_tokens < 2 || limits.max_tokens > positions {
            let message = format!("it is {}, but the model allows 2 to {positions}", limits.max_tokens);
            return Err(Error::input("max_tokens", message));
        }
        let trained = check_model(model.as_ref(), weights, limits.max_tokens)?;
        Ok(Self {
            gpu: gpu.clone(),
            model,
            limits,
            beams: 1,
            text: None,
            trained,
            weights: weights.share(),
            encode: BTreeMap::new(),
            prefill: BTreeMap::new(),
            decode: BTreeMap::new(),
            drafts: 0,
            reorder: None,
        })
    }

    /// Sets the decoding of tokens to text, for stop texts, [`Token::text`] and [`Answer::text`].
    #[must_use]
    pub fn with_text(mut self, text: TextOf) -> Self {
        self.text = Some(text);
        self
    }

    /// Speculates: where a greedy answer repeats something of its text, up to `tokens` tokens that followed there are checked in one run, which costs
    /// little more than one token's. The tokens are those of greedy decoding without it. Sampling, penalties, rules, and models with windows,
    /// recursions, an encoder, or positions that change as a text grows do without.
    #[must_use]
    pub fn with_lookup(mut self, tokens: usize) -> Self {
        let plain = self.model.encoder().is_none() && self.trained.is_empty();
        let in_order = self.model.stacks().iter().all(|stack| {
            let ring = |block: &Block| block.attention.ring_size(self.limits.max_tokens).is_some();
            stack.recursion.is_none() && !stack.blocks.iter().any(ring)
        });
        self.drafts = if plain && in_order { tokens } else { 0 };
        self
    }

    /// The tokens that are drafted of answers by such options.
    pub(super) fn drafts(&self, options: &SamplingOptions, pick: TokenPick) -> usize {
        if options.temperature == 0.0 && pick.edits() == 0 { self.drafts } else { 0 }
    }

    /// The limits.
    #[must_use]
    pub fn limits(&self) -> GenerateLimits {
        self.limits
    }

    /// The token that answers begin with, if an encoder reads the prompts.
    pub(super) fn start(&self) -> Option<u32> {
        self.model.start_token().filter(|_| self.model.encoder().is_some())
    }

    /// The encoder program for prompts of up to `length` tokens, and the padded length.
    pub(super) fn encode(&mut self, length: usize) -> Result<(&Program, usize)> {
        let bucket = self.bucket(length);
        self.ensure(Part::Encode(bucket)).map(|program| (program, bucket))
    }

    /// The padded length.
    pub(super) fn bucket(&self, length: usize) -> usize {
        length.next_power_of_two().max(SMALLEST_BUCKET).min(self.limits.max_tokens)
    }

    /// The program that reads texts of up to `length` tokens, each for so many rows of the caches, and the padded length.
    pub(super) fn prefill(&mut self, pick: TokenPick, beams: usize, length: usize) -> Result<(&Program, usize)> {
        let bucket = self.bucket(length);
        self.ensure(Part::Prefill(pick, beams, bucket)).map(|program| (program, bucket))
    }

    /// Whether a text that now has so many tokens must be read again, because what is cached of it holds for shorter ones only.
    pub(super) fn outgrown(&self, tokens: usize) -> bool {
        tokens > 0 && self.trained.contains(&(tokens - 1))
    }

    /// The program that adds so many tokens to every row.
    pub(super) fn decode(&mut self, pick: TokenPick, tokens: usize) -> Result<&Program> {
        self.ensure(Part::Decode(pick, tokens))
    }

    pub(super) fn graph_of_decode(&self, pick: TokenPick, tokens: usize) -> Result<Graph> {
        let sizes = Rows { beams: self.beams, bucket: tokens, pick };
        decode_graph(self.model.as_ref(), self.weights.storage(), self.limits, sizes)
    }

    /// The program that lets beams go on from one another's caches. Inputs `parents (rows)`, each a beam of its prompt's, and `used (rows)`,
    /// the positions in use.
    pub(super) fn reorder(&mut self, pick: TokenPick) -> Result<&Program> {
        if self.reorder.is_none() {
            let (rows, beams) = (self.limits.batch, self.beams);
            let decode = self.graph_of_decode(pick, 1)?;
            let mut g = Graph::with_storage(self.weights.storage());
            let parents = g.input("parents", [rows], DType::U32)?;
            let used = g.input("used", [rows], DType::U32)?;
            for (name, state) in decode.states().filter(|(name, _)| nn::is_cache(name)) {
                // Caches of what an encoder gave belong to all beams of a prompt.
                if decode.shape(state).dims().first() == Some(&rows) {
                    let state = g.state(name, decode.shape(state).clone(), decode.dtype(state))?;
                    ops::reorder_beams(&mut g, state, parents, used, beams)?;
                }
            }
            self.reorder = Some(Program::new(&self.gpu, &g, &self.weights)?);
        }
        self.reorder.as_ref().ok_or_else(|| Error::Graph("the program that reorders beams is missing".into()))
    }

    /// The graph whose encoder reads prompts of `bucket` tokens and caches keys and values of cross-attention. Inputs `source_ids (B, bucket)` and
    /// `source_lengths (B)`.
    ///
    /// # Errors
    /// Those of the model; [`Error::Graph`] if it has no encoder.
    pub fn encode_graph(
        model: &dyn Decoder,
        storage: &Storage,
        limits: GenerateLimits,
        bucket: usize,
    ) -> Result<Graph> {
        let GenerateLimits { batch, max_tokens } = limits;
        let encoder = model.encoder().ok_or_else(|| Error::Graph("this model has no encoder".into()))?;
        let mut g = Graph::with_storage(storage);
        let ids = g.input("source_ids", [batch, bucket], DType::U32)?;
        let lengths = g.input("source_lengths", [batch], DType::U32)?;
        let kv = KvSource::Packed { lengths: Some(lengths) };
        let inputs = TokenInputs { kv, ..TokenInputs::new(&mut g, ids)? };
        let states = encoder.encode(&mut g, &inputs)?.states;
        model.cache_context(&mut g, states, max_tokens)?;
        Ok(g)
    }

    /// The graph that reads prompts of `bucket` tokens. Inputs `ids (B, bucket)`; `last (B)`, the index of each row's last token among all
    /// `B · bucket` tokens; and `lengths (B)`, which only models with recursions read. With an encoder also `source_lengths (B)`, the number
    /// of tokens that it read. Further inputs and the outputs are those of `pick`.
    ///
    /// # Errors
    /// Those of the model.
    pub fn prefill_graph(
        model: &dyn Decoder,
        storage: &Storage,
        limits: GenerateLimits,
        bucket: usize,
        pick: TokenPick,
    ) -> Result<Graph> {
        prefill_graph(model, storage, limits, Rows { beams: 1, bucket, pick })
    }

    /// The graph that adds a token to every row. Inputs `ids (B, 1)`, `positions (B, 1)` and `lengths (B)`, which includes the new token. With an
    /// encoder also `source_lengths (B)`. Further inputs and the outputs are those of `pick`.
    ///
    /// # Errors
    /// Those of the model.
    pub fn decode_graph(
        model: &dyn Decoder,
        storage: &Storage,
        limits: GenerateLimits,
        pick: TokenPick,
    ) -> Result<Graph> {
        decode_graph(model, storage, limits, Rows { beams: 1, bucket: 1, pick })
    }

    /// Answers any number of prompts, `batch` at a time. `watch` receives each token as it comes, with the text that is certain by then, and can
    /// break off. It blocks on the GPU: within an async executor use [`Generator::stream`].
    ///
    /// # Errors
    /// [`Error::Input`] if a prompt is empty, too long or has unknown tokens, or an option is out of range;
    /// [`Error::NonFinite`] if the logits are not finite; [`Error::DeviceLost`]; [`Error::OutOfMemory`].
    pub fn generate(
        &mut self,
        prompts: &[Vec<u32>],
        options: &SamplingOptions,
        mut watch: impl FnMut(&Token) -> ControlFlow<()>,
    ) -> Result<Vec<Answer>> {
        let mut answers = Vec::with_capacity(prompts.len());
        let batch = self.limits.batch;
        for (chunk, prompts) in prompts.chunks(batch).enumerate() {
            let mut session = Session::new(self, prompts, options, chunk * batch)?;
            'session: while let Some(tokens) = pollster::block_on(session.submit(false))? {
                for token in session.accept(&tokens.wait()?)? {
                    if watch(&token).is_break() {
                        break 'session;
                    }
                }
            }
            let broken_off = !session.finished();
            answers.extend(session.answers()?);
            if broken_off {
                break;
            }
        }
        Ok(answers)
    }

    /// Answers up to `batch` prompts as a stream of tokens for any executor, in frames if the application draws them ([`Gpu::begin_frame`]). Dropping it
    /// stops the work.
    ///
    /// # Errors
    /// As [`Generator::generate`]; [`Error::Input`] if there are more prompts than `batch`.
    pub fn stream<'a>(
        &'a mut self,
        prompts: &[Vec<u32>],
        options: &SamplingOptions,
    ) -> Result<impl Stream<Item = Result<Token>> + Send + 'a> {
        let session = Session::new(self, prompts, options, 0)?;
        let steps = stream::try_unfold((session, VecDeque::new()), |(mut session, mut ready)| async move {
            if ready.is_empty()
                && let Some(tokens) = session.submit(true).await?
            {
                ready.extend(session.accept(&tokens.await?)?);
            }
            Ok(ready.pop_front().map(|token| (token, (session, ready))))
        });
        Ok(steps.boxed())
    }
}

/// Refuses a store that lacks weights; gives the lengths beyond which all tokens of a text have other rotary positions than before.
pub(super) fn check_model(model: &dyn Decoder, weights: &Weights, max_tokens: usize) -> Result<BTreeSet<usize>> {
    for (name, _) in model.parameters()? {
        if weights.get(&name).is_none() {
            return Err(Error::input(name, "the store lacks this weight: load or initialise the model first"));
        }
    }
    let attention = model.stacks().into_iter().flat_map(|stack| stack.blocks).map(|block| block.attention);
    let rotary = attention.filter_map(|attention| attention.rotary);
    let with_room = |rotary| RopeOptions { max_positions: max_tokens, ..rotary };
    Ok(rotary.filter_map(|rotary| with_room(rotary).goes_by_length()).collect())
}
