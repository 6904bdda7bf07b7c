//! What differs from layer to layer in a `config.json`: windows, and positions.

use super::Llama;
use super::family::{LlamaFamily, Windows};
use crate::error::Result;
use crate::io::Config;
use crate::models::rope::{RopeKeys, older_long, rope_config, rope_options, rope_with, rotary_share};
use crate::models::settings::{json_f32, optional_count};
use crate::ops::{RopeOptions, RopeScaling};
use serde_json::{Value, json};

/// Layers whose tokens see themselves and those in front of them, so many in all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sliding {
    /// How many.
    pub size: usize,
    /// The layers.
    pub layers: Vec<usize>,
}

/// Factors, all 1 in most families.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Multipliers {
    /// Of embeddings.
    pub embedding: f32,
    /// Of what each half of a block adds to the residual stream.
    pub residual: f32,
    /// Of scores; none: `1 / sqrt(head_dim)`.
    pub scores: Option<f32>,
    /// Of logits.
    pub logits: f32,
}

impl Default for Multipliers {
    fn default() -> Self {
        Self { embedding: 1.0, residual: 1.0, scores: None, logits: 1.0 }
    }
}

const TYPES: &str = "layer_types";
const WINDOW: &str = "sliding_window";
const USED: &str = "use_sliding_window";
/// What transformers calls layers.
const SLIDES: &str = "sliding_attention";
const SEES_ALL: &str = "full_attention";
/// The length that LongRoPE was trained for, of Phi-3, what a missing key stands for, and the share of a head that is rotated.
const TRAINED: &str = "original_max_position_embeddings";
const TRAINED_DEFAULT: usize = 4096;
const SHARE: &str = "partial_rotary_factor";
/// The rotary base of layers with a window, of Gemma 3.
const LOCAL_THETA: f32 = 1e4;

/// The layers whose tokens see only so many, if there are any.
pub(super) fn sliding(
    config: &Config,
    family: LlamaFamily,
    layers: usize,
    no_rope: &[usize],
) -> Result<Option<Sliding>> {
    let windows = family.traits().windows;
    if windows == Windows::None {
        return Ok(None);
    }
    let all = |size: usize| Sliding { size, layers: (0..layers).collect() };
    // A null is no missing key: there is no window.
    let window = |default: Option<usize>| match config.value().get(WINDOW) {
        None => Ok(default),
        Some(_) => optional_count(config, WINDOW),
    };
    let used = config.get_or(USED, false)?;
    let last = config.get_or("max_window_layers", 28)?;
    let (size, slides): (Option<usize>, Vec<usize>) = match windows {
        Windows::None => return Ok(None),
        Windows::All(default) => return Ok(window(default)?.map(all)),
        Windows::AllIfUsed => return Ok(window(Some(4096))?.filter(|_| used).map(all)),
        Windows::AlternateBefore if !used => return Ok(None),
        Windows::AlternateBefore => {
            (window(Some(4096))?, (0..layers).filter(|layer| layer.is_multiple_of(2) && *layer < last).collect())
        }
        Windows::FromLayer => (window(Some(4096))?.filter(|_| used), (last..layers).collect()),
        Windows::WithoutPositions => (window(None)?, if used { no_rope.to_vec() } else { Vec::new() }),
        Windows::AllBut { every, key } => {
            let every = if key { optional_count(config, "sliding_window_pattern")?.unwrap_or(every) } else { every };
            (window(Some(4096))?, (0..layers).filter(|layer| !(layer + 1).is_multiple_of(every)).collect())
        }
    };
    let named = named(config, layers)?;
    match (size, named) {
        (Some(size), named) => {
            let layers = named.unwrap_or(slides);
            Ok((!layers.is_empty()).then_some(Sliding { size, layers }))
        }
        (None, Some(named)) if !named.is_empty() => {
            let how = if config.has(WINDOW) { format!("{USED} is not true") } else { format!("there is no {WINDOW}") };
            Err(config.refuse(TYPES, format!("has {SLIDES}, and {how}")))
        }
        (None, None) if matches!(windows, Windows::AllBut { .. }) && !slides.is_empty() => {
            Err(config.refuse(WINDOW, format!("is null; layers without a window are {SEES_ALL} in {TYPES}")))
        }
        _ => Ok(None),
    }
}

/// The layers that `layer_types` calls sliding, if it is there.
fn named(config: &Config, layers: usize) -> Result<Option<Vec<usize>>> {
    let Some(kinds) = config.optional::<Vec<String>>(TYPES)? else { return Ok(None) };
    if kinds.len() != layers || kinds.iter().any(|kind| kind != SLIDES && kind != SEES_ALL) {
        let message = format!("needs {SLIDES} or {SEES_ALL} for each of {layers} layers");
        return Err(config.refuse(TYPES, message));
    }
    Ok(Some((0..layers).filter(|layer| kinds[*layer] == SLIDES).collect()))
}

/// The layers without positions: those with a 0 in `no_rope_layers`, or every `no_rope_layer_interval`-th.
pub(super) fn without_positions(config: &Config, family: LlamaFamily, layers: usize) -> Result<Vec<usize>> {
    const KEY: &str = "no_rope_layers";
    if family != LlamaFamily::SmolLm3 {
        return Ok(Vec::new());
    }
    if let Some(turns) = config.optional::<Vec<u8>>(KEY)? {
        if turns.len() < layers {
            let message = format!("has {} numbers; each of {layers} layers needs a 0 or a 1", turns.len());
            return Err(config.refuse(KEY, message));
        }
        return Ok((0..layers).filter(|layer| turns[*layer] == 0).collect());
    }
    let every = optional_count(config, "no_rope_layer_interval")?.unwrap_or(4);
    Ok((0..layers).filter(|layer| (layer + 1).is_multiple_of(every)).collect())
}

/// Rotary positions of layers that see all, and of those with a window where these have their own.
pub(super) fn positions(
    config: &Config,
    family: LlamaFamily,
    [head_dim, max_positions]: [usize; 2],
) -> Result<(RopeOptions, Option<RopeOptions>)> {
    const PARAMETERS: &str = "rope_parameters";
    let theta = family.traits().theta;
    if family.traits().is_phi {
        let trained = Some(optional_count(config, TRAINED)?.unwrap_or(TRAINED_DEFAULT));
        let keys = RopeKeys { theta: ("rope_theta", theta), share: Some((SHARE, 1.0)), trained };
        return Ok((rope_with(config, keys, [head_dim, max_positions])?, None));
    }
    if family != LlamaFamily::Gemma3 {
        return Ok((rope_options(config, max_positions, theta)?, None));
    }
    let by_kind = config.section(PARAMETERS)?;
    if by_kind.as_ref().is_some_and(|kinds| kinds.has("rope_type") || kinds.has("rope_theta")) {
        let message = format!("is one for all layers; this family has {SEES_ALL} and {SLIDES} in it");
        return Err(config.refuse(PARAMETERS, message));
    }
    let of = |kind: &str, theta_key: &str, theta: f32, scaling: Option<Config>| {
        let own = by_kind.as_ref().map(|kinds| kinds.section(kind)).transpose()?.flatten();
        let mut parameters = own.map_or_else(|| json!({}), |own| own.value().clone());
        for (key, value) in scaling.iter().filter_map(|scaling| scaling.value().as_object()).flatten() {
            parameters[key] = value.clone();
        }
        let whole = json!({"rope_theta": config.value().get(theta_key), "rope_parameters": parameters,
                           SHARE: config.value().get(SHARE)});
        rope_options(&config.with_value(whole), max_positions, theta)
    };
    let global = of(SEES_ALL, "rope_theta", theta, config.section("rope_scaling")?)?;
    Ok((global, Some(of(SLIDES, "rope_local_base_freq", LOCAL_THETA, None)?)))
}

/// Adds the keys to a config.
pub(super) fn write(model: &Llama, config: &mut Value) {
    let mut set = |key: &str, value: Value| config[key] = value;
    let windows = model.family.traits().windows;
    let size = model.sliding.as_ref().map(|sliding| sliding.size);
    let slides = |layer: usize| model.sliding.as_ref().is_some_and(|sliding| sliding.layers.contains(&layer));
    if windows != Windows::None {
        set(WINDOW, json!(size));
    }
    if !matches!(windows, Windows::None | Windows::All(_) | Windows::AllBut { .. }) {
        set(USED, size.is_some().into());
    }
    let by_layer = !matches!(windows, Windows::None | Windows::All(_) | Windows::AllIfUsed);
    if by_layer && (size.is_some() || matches!(windows, Windows::AllBut { .. })) {
        set(TYPES, (0..model.layers).map(|layer| if slides(layer) { SLIDES } else { SEES_ALL }).collect());
    }
    if model.family == LlamaFamily::SmolLm3 {
        let turns = (0..model.layers).map(|layer| u8::from(!model.no_rope.contains(&layer)));
        set("no_rope_layers", turns.collect());
    }
    set("rope_theta", json!(json_f32(model.rope.theta)));
    let mut all = rope_config(&model.rope);
    // What older versions of transformers read.
    if model.rope.scaling != RopeScaling::None {
        let is_phi = model.family.traits().is_phi;
        set("rope_scaling", if is_phi { older_long(&model.rope, model.max_position) } else { all.clone() });
    }
    if model.family.traits().is_phi {
        let share = rotary_share(&model.rope, model.heads.head_dim);
        set(SHARE, share.into());
        all[SHARE] = share.into();
        if let RopeScaling::Long { original_max_position, .. } = model.rope.scaling {
            set(TRAINED, original_max_position.into());
        }
    }
    let parameters = match &model.local_rope {
        Some(local) => {
            set("rope_local_base_freq", json!(json_f32(local.theta)));
            json!({SEES_ALL: all, SLIDES: rope_config(local)})
        }
        None => all,
    };
    set("rope_parameters", parameters);
}
