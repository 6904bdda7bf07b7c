//! What the attention ops share: sizes, the specification of an attention, and the common parts of dispatches.

use super::variant::AttentionVariant;
use super::window::Window;
use crate::dtype::{BLOCK, DType};
use crate::error::{Error, Result};
use crate::kernel::{Dispatch, Kernel, Launch, Snippet, View, kernel};
use crate::ops::arithmetic::activation::ACTIVATION_SNIPPET;
use crate::ops::random::threefry;
use crate::shape::TensorType;

static SHARED: Snippet = kernel!("common/attention");
static MASK_NONE: Snippet = kernel!("common/attention_mask_none");
static MASK_CAUSAL: Snippet = kernel!("common/attention_mask_causal");
static MASK_WINDOW: Snippet = kernel!("common/attention_mask_window");
static MASK_LIMITS: Snippet = kernel!("common/attention_mask_limits");
static SPANS: Snippet = kernel!("common/attention_spans");
static SPANS_NONE: Snippet = kernel!("common/attention_spans_none");
static KEYS: Snippet = kernel!("common/attention_keys");
static KEYS_PAGED: Snippet = kernel!("common/attention_keys_paged");
static KV_F32: Snippet = kernel!("common/attention_kv_f32");
static KV_F16: Snippet = kernel!("common/attention_kv_f16");
static KV_Q8_0: Snippet = kernel!("common/attention_kv_q8_0");
static CAP: Snippet = kernel!("common/soft_cap");
static CAP_NONE: Snippet = kernel!("common/soft_cap_none");
static BIAS: Snippet = kernel!("common/attention_bias");
static BIAS_NONE: Snippet = kernel!("common/attention_bias_none");
static DROPOUT: Snippet = kernel!("common/attention_dropout");
static DROPOUT_NONE: Snippet = kernel!("common/attention_dropout_none");
static RANDOM: Snippet = kernel!("common/random");
static VECTOR1: Snippet = kernel!("common/vector1");
static VECTOR4: Snippet = kernel!("common/vector4");

/// Queries of a tile, for which the limits tensor holds the largest limit.
pub(super) const TILE: usize = 32;

/// The most pairs that are counted: times the work for a pair of any head_dim they fit 64 bits.
const MOST_PAIRS: u64 = 1 << 50;

/// The specification of an attention node, beyond the shapes of its inputs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct AttentionSpec {
    /// Masked by position. A limits tensor already includes that mask.
    pub causal: bool,
    /// The range of keys around a query's position. A limits tensor then has starts.
    pub window: Option<Window>,
    /// Whether each query has a range of keys. There is a limits tensor then, with starts.
    pub ranges: bool,
    /// The soft cap of scores.
    pub cap: Option<f32>,
    /// The factor of scores.
    pub scale: f32,
    /// Whether there is a limits tensor.
    pub key_limits: bool,
    /// Whether the limits tensor holds a mask.
    pub masked: bool,
    /// Whether the limits tensor holds spans.
    pub has_tree: bool,
    /// Whether there is a bias.
    pub bias: bool,
    /// The pages of a batch row and their keys, if keys and values lie in pages.
    pub pages: Option<[usize; 2]>,
    /// Dropout of probabilities. The seed is in the limits tensor, which then exists.
    pub drop: Option<Dropout>,
    /// The requested kernel.
    pub variant: Option<AttentionVariant>,
}

/// Dropout of probabilities.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Dropout {
    /// The probability that one is dropped.
    pub rate: f32,
    /// Distinguishes the layers of a step.
    pub salt: u32,
}

impl Dropout {
    /// A pair is dropped if its random word is below this.
    fn threshold(self) -> u32 {
        (f64::from(self.rate) * 2_f64.powi(32)) as u32
    }

    /// The factor of probabilities that are not dropped.
    pub(super) fn keep_scale(self) -> f64 {
        1.0 / (1.0 - f64::from(self.rate))
    }

    /// The second word of a counter, to which batch row and head are added. Dropout of activations does not use these counters.
    fn counter(self) -> u32 {
        1 << 31 | self.salt << 16
    }

    /// The factor of the probability of query `i` for key `j` of `keys`; `row` counts the heads of all batch rows. The same as
    /// `shaders/common/attention_dropout.wgsl`.
    pub(super) fn factor(self, seed: [u32; 2], row: usize, i: usize, j: usize, keys: usize) -> f64 {
        let pair = i as u32 * keys.div_ceil(2) as u32 + j as u32 / 2;
        let word = threefry(seed, [pair, self.counter().wrapping_add(row as u32)])[j % 2];
        if word >= self.threshold() { self.keep_scale() } else { 0.0 }
    }
}

/// The extents of an attention.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sizes {
    pub batch: usize,
    pub queries: usize,
    pub keys: usize,
    pub heads: usize,
    pub kv_heads: usize,
    pub head_dim: usize,
    /// The type of keys and values.
    pub kv: DType,
    /// Whether they lie in pages.
    pub paged: bool,
}

impl Sizes {
    /// Binds tensors (B, T, H, D) for a kernel that reads many rows of one head.
    pub(super) fn read_heads<const N: usize>(
        &self,
        dispatch: Dispatch,
        variant: AttentionVariant,
        of: [View; N],
    ) -> Dispatch {
        let uses = if variant == AttentionVariant::Shuffle { self.queries.min(self.keys) } else { 0 };
        of.into_iter().fold(dispatch, |dispatch, view| {
            let row = view.bytes() / view.shape.dims()[..2].iter().product::<usize>().max(1) as u64;
            dispatch.read_strided(view, row, uses)
        })
    }

    /// The sizes, if the operands fit together; `pages` as of [`AttentionSpec`].
    pub(super) fn new(q: &TensorType, k: &TensorType, v: &TensorType, pages: Option<[usize; 2]>) -> Result<Self> {
        let refuse = |what: String| Err(Error::shape("attention", what));
        if q.dtype != DType::F32 {
            return refuse(format!("q is {q}, expected f32"));
        }
        let [batch, queries, heads, head_dim] = q.shape.expect("attention, q (B, Tq, H, D)")?;
        let [k_batch, slots, kv_heads, k_width] = k.shape.expect("attention, k (B, Tk, Hkv, D)")?;
        let fits = match k.dtype {
            DType::F32 => true,
            DType::F16 => head_dim.is_multiple_of(4),
            DType::Q8_0 => head_dim.is_multiple_of(BLOCK),
            _ => false,
        };
        if !fits {
            let types = "f32, f16 for a head_dim that 4 divides, or q8_0 for one that 32 divides";
            return refuse(format!("k is {k}, expected {types}"));
        }
        let (k_batch, keys) = match pages {
            None => (k_batch, slots),
            Some([_, size]) if k_batch != 1 || size == 0 || size % 4 != 0 || slots % size != 0 => {
                return refuse(format!("k is {k}, expected one row of whole pages of {size} keys, a multiple of 4"));
            }
            Some([count, size]) => (batch, count.saturating_mul(size)),
        };
        if v != k {
            return refuse(format!("v is {v}, expected the type of k, {k}"));
        }
        if batch != k_batch {
            return refuse(format!("k is {k}, q {q}: the batches differ"));
        }
        if head_dim != k_width {
            return refuse(format!("k is {k}, q {q}: the head_dims differ"));
        }
        if q.shape.numel() == 0 || k.shape.numel() == 0 {
            return refuse(format!("k is {k}, q {q}: an axis is empty"));
        }
        if heads % kv_heads != 0 {
            return refuse(format!("the {heads} query heads are not a multiple of the {kv_heads} key heads"));
        }
        if head_dim > 256 {
            return refuse(format!("head_dim is {head_dim}, but the most is 256"));
        }
        Ok(Self { batch, queries, keys, heads, kv_heads, head_dim, kv: k.dtype, paged: pages.is_some() })
    }

    /// Words of the limits tensor for tiles and queries: the number of limits, and of starts.
    pub(super) fn row_words(&self) -> usize {
        self.queries.div_ceil(TILE) + self.queries
    }

    /// Where the parts of a batch row of the limits tensor begin.
    pub(super) fn parts(&self, holds: Holds) -> Parts {
        let mask = self.row_words() * if holds.starts { 2 } else { 1 };
        let seed = mask + if holds.mask { self.keys } else { 0 };
        let spans = seed + if holds.seed { 2 } else { 0 };
        Parts { mask, seed, spans, end: spans + if holds.spans { 3 * (self.queries + self.keys) } else { 0 } }
    }

    /// The number of computed pairs of a query and a key, at most [`MOST_PAIRS`]: about half of all pairs under a causal mask.
    pub(super) fn pairs(&self, spec: &AttentionSpec) -> u64 {
        let [heads, queries, keys] = [self.batch * self.heads, self.queries, self.keys].map(|count| count as u64);
        let seen = if !spec.causal || spec.key_limits {
            queries.saturating_mul(keys)
        } else {
            // The last query sees all keys, and each query before it one key less.
            let seeing = queries.min(keys);
            seeing.saturating_mul(keys - seeing).saturating_add(seeing.saturating_mul(seeing + 1) / 2)
        };
        let near = spec.window.map_or(u64::MAX, |w| {
            let each = (u64::from(w.before) + u64::from(w.after) + 1).min(keys);
            queries.saturating_mul(each)
        });
        heads.saturating_mul(seen.min(near)).min(MOST_PAIRS)
    }
}

/// The parts of a batch row of the limits tensor besides limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Holds {
    pub starts: bool,
    pub mask: bool,
    pub seed: bool,
    pub spans: bool,
}

/// The offsets of the parts of a batch row of the limits tensor (also of empty parts), and its end.
#[derive(Clone, Copy, Debug)]
pub(super) struct Parts {
    pub mask: usize,
    pub seed: usize,
    pub spans: usize,
    pub end: usize,
}

/// The optional inputs of an attention op, after its `fixed` first ones.
#[derive(Debug)]
pub(super) struct Extras<T> {
    pub key_limits: Option<T>,
    pub bias: Option<T>,
    pub pages: Option<T>,
}

impl AttentionSpec {
    /// Whether a limits tensor has starts.
    pub(super) fn has_starts(&self) -> bool {
        self.window.is_some() || self.ranges
    }

    /// Where the parts of the limits tensor are.
    pub(super) fn parts(&self, sizes: &Sizes) -> Parts {
        let (starts, seed) = (self.has_starts(), self.drop.is_some());
        sizes.parts(Holds { starts, mask: self.masked, seed, spans: self.has_tree })
    }

    /// Sorts the inputs that follow the `fixed` first ones.
    pub(super) fn extras<T>(&self, fixed: usize, input: impl Fn(usize) -> T) -> Extras<T> {
        Extras {
            key_limits: self.key_limits.then(|| input(fixed)),
            bias: self.bias.then(|| input(fixed + usize::from(self.key_limits))),
            pages: self.pages.map(|_| input(self.inputs(fixed) - 1)),
        }
    }

    /// The name of the problem for the tuner.
    pub(super) fn problem(&self, name: &str, sizes: &Sizes) -> String {
        let Sizes { batch, queries, keys, heads, kv_heads, head_dim, kv, paged } = sizes;
        let (causal, bias) = (if self.causal { " causal" } else { "" }, if self.bias { " bias" } else { "" });
        let window = self.window.map_or(String::new(), |w| format!(" window {}+{}", w.before, w.after));
        let cap = if self.cap.is_some() { " cap" } else { "" };
        let held = if *kv == DType::F32 { String::new() } else { format!(" {kv}") };
        let pages = if *paged { " pages" } else { "" };
        format!(
            "{name} {batch}x{queries}x{keys} heads {heads}/{kv_heads}x{head_dim}{causal}{window}{cap}{bias}{held}{pages}"
        )
    }

    /// The number of inputs of an op with `fixed` mandatory ones.
    pub(super) fn inputs(&self, fixed: usize) -> usize {
        fixed + [self.key_limits, self.bias, self.pages.is_some()].into_iter().filter(|there| *there).count()
    }

    /// Checks the number of inputs, q, k and v, the bias and the pages.
    pub(super) fn sizes(&self, op: &str, fixed: usize, inputs: &[TensorType]) -> Result<Sizes> {
        if inputs.len() != self.inputs(fixed) {
            return Err(Error::shape(op, format!("expected {} inputs, got {}", self.inputs(fixed), inputs.len())));
        }
        let sizes = Sizes::new(&inputs[0], &inputs[1], &inputs[2], self.pages)?;
        let extras = self.extras(fixed, |i| &inputs[i]);
        if let Some(bias) = extras.bias {
            let plane = [sizes.heads, sizes.queries, sizes.keys];
            let batched = [sizes.batch, sizes.heads, sizes.queries, sizes.keys];
            let distances = [sizes.heads, (sizes.queries + sizes.keys).saturating_sub(1)];
            let fits = [&plane[..], &batched, &distances].contains(&bias.shape.dims());
            if bias.dtype != DType::F32 || !fits {
                let what =
                    format!("bias is {bias}, expected f32{plane:?} or f32{batched:?}, or by distance f32{distances:?}");
                return Err(Error::shape("attention", what));
            }
        }
        Ok(sizes)
    }

    /// Adds the parts of all attention kernels (masks, bias, sizes) to a dispatch whose own bindings are set.
    pub(super) fn finish(&self, dispatch: Dispatch, sizes: &Sizes, extras: Extras<View>) -> Dispatch {
        let mut dispatch = dispatch.snippet(&SHARED);
        let next = |dispatch: &Dispatch| dispatch.bindings.len() as u32 + 1;
        dispatch = match extras.key_limits {
            Some(view) => {
                let binding = next(&dispatch);
                dispatch = dispatch.constant("KEY_LIMITS", binding).constant("MASKED", self.masked);
                dispatch = dispatch.constant("SEEDED", self.drop.is_some()).constant("TREE", self.has_tree);
                dispatch.constant("WINDOWED", self.has_starts()).snippet(&MASK_LIMITS).read(view)
            }
            None => match self.window {
                Some(w) => dispatch.constant("BEFORE", w.before).constant("AFTER", w.after).snippet(&MASK_WINDOW),
                None if self.causal => dispatch.snippet(&MASK_CAUSAL),
                None => dispatch.snippet(&MASK_NONE),
            },
        };
        dispatch = match self.cap {
            Some(cap) => dispatch.constant("SOFT_CAP", cap).snippet(&ACTIVATION_SNIPPET).snippet(&CAP),
            None => dispatch.snippet(&CAP_NONE),
        };
        dispatch = dispatch.snippet(if self.has_tree { &SPANS } else { &SPANS_NONE });
        let mut bias_batch = 0;
        dispatch = match extras.bias {
            Some(view) => {
                bias_batch = usize::from(view.shape.rank() == 4);
                let binding = next(&dispatch);
                let by_distance = view.shape.rank() == 2;
                dispatch.constant("BIAS", binding).constant("BIAS_BY_DISTANCE", by_distance).snippet(&BIAS).read(view)
            }
            None => dispatch.snippet(&BIAS_NONE),
        };
        dispatch = match (extras.pages, self.pages) {
            (Some(view), Some([_, size])) => {
                let binding = next(&dispatch);
                dispatch.constant("PAGES", binding).constant("PAGE", size as u32).snippet(&KEYS_PAGED).read(view)
            }
            _ => dispatch.snippet(&KEYS),
        };
        dispatch = match self.drop {
            Some(_) => dispatch.snippet(&RANDOM).snippet(&DROPOUT),
            None => dispatch.snippet(&DROPOUT_NONE),
        };
        let Sizes { batch, queries, keys, heads, kv_heads, .. } = *sizes;
        dispatch = dispatch.param(batch).param(queries).param(keys).param(heads).param(kv_heads);
        let [salt, threshold] = self.drop.map_or([0; 2], |drop| [drop.counter(), drop.threshold()]);
        dispatch = dispatch.param_f32(self.scale).param(bias_batch).param(salt as usize).param(threshold as usize);
        dispatch.param_f32(self.drop.map_or(1.0, Dropout::keep_scale) as f32)
    }
}

/// Adds how a forward kernel reads keys and values of a type, of which each tensor has so many elements.
pub(super) fn with_kv(dispatch: Dispatch, kv: DType, elements: usize) -> Dispatch {
    match kv {
        DType::F16 => dispatch.snippet(&KV_F16),
        DType::Q8_0 => dispatch.snippet(&KV_Q8_0).constant("KV_SCALES", kv.first_scale(elements) as u32),
        _ => dispatch.snippet(&KV_F32),
    }
}

/// A dispatch that reads rows of `columns` as vectors of four floats, or as single floats if 4 does not divide `columns`.
pub(super) fn by_vectors(kernel: &'static Kernel, columns: usize) -> Dispatch {
    let (snippet, length) = if columns.is_multiple_of(4) { (&VECTOR4, 4) } else { (&VECTOR1, 1) };
    Dispatch::new(kernel).snippet(snippet).constant("WIDTH", (columns / length) as u32)
}

/// The types of an op's inputs when it is recorded.
pub(super) fn input_types(cx: &Launch<'_>) -> Vec<TensorType> {
    (0..cx.input_count()).map(|i| TensorType::new(cx.input(i).shape, cx.input(i).dtype)).collect()
}
