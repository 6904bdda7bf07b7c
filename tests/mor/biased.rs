//! Recursions whose scores have a bias by distance: decoding token by token against reading the whole text.

use libtest_mimic::Failed;
use wgformer::graph::{Array, Values};
use wgformer::models::{Initial, TokenInputs, initial_values};
use wgformer::nn::{self, KvSource, RecursionRouting, RelativeBias, RelativeBuckets, Sharing};
use wgformer::ops::{Activation, RouterLoss};
use wgformer::program::pack;
use wgformer::{DType, Gpu, Graph, Program, Result, Tensor, Weights};

const BATCH: usize = 2;
const WHOLE: usize = 21;
const D_MODEL: usize = 12;

/// Recursions of each kind, and the biases.
pub(crate) fn recursions() -> Vec<(&'static str, nn::Recursion, RelativeBias)> {
    let router = |function| nn::Router {
        kind: nn::RouterKind::Linear,
        function,
        alpha: 0.8,
        loss: RouterLoss { aux: 0.01, z: 0.0 },
    };
    let expert_choice = |capacity: [f64; 3], kv_sharing| {
        let (router, capacity) = (router(nn::RouterFunction::Sigmoid), capacity.to_vec());
        let routing = nn::ExpertChoiceRouting { router, capacity, aux_router: false, kv_sharing, warmup: 0 };
        RecursionRouting::ExpertChoice(routing)
    };
    let token_choice = RecursionRouting::TokenChoice(nn::TokenChoiceRouting {
        router: router(nn::RouterFunction::Softmax),
        recursions: 3,
        modules: 2,
        kv_sharing: false,
        bias_rate: 0.0,
    });
    let recursion = |routing, sharing, kv_sharing| nn::Recursion {
        prefix: "model.".into(),
        recursions: 3,
        sharing,
        routing,
        kv_sharing,
        layers: 5,
        std: 0.02,
    };
    let learned = RelativeBias::Buckets(RelativeBuckets {
        name: "bias".into(),
        buckets: 8,
        max_distance: 14,
        bidirectional: false,
        std: 1.0,
    });
    let middle = Sharing::MiddleCycle;
    vec![
        ("recursions choose", recursion(expert_choice([0.9, 0.6, 0.4], false), middle, false), learned.clone()),
        (
            "recursions choose, shared keys, linear",
            recursion(expert_choice([1.0, 0.6, 0.4], true), middle, true),
            RelativeBias::Alibi,
        ),
        ("tokens choose, two modules", recursion(token_choice, middle, false), learned.clone()),
        ("nobody chooses", recursion(RecursionRouting::None, Sharing::MiddleSequence, false), learned),
    ]
}

fn stack(recursion: &nn::Recursion, relative: &RelativeBias) -> nn::Stack {
    let linear = nn::LinearConfig::out_in(false);
    let heads = nn::Heads { query: 4, key_value: 2, head_dim: 3 };
    let names = ("attention", nn::QkvNames::Separate(["q", "k", "v"]), "out");
    let attention = nn::Attention {
        relative: Some(relative.clone()),
        ..nn::Attention::new(names, linear, heads, nn::Mask::Causal)
    };
    let block = |layer: usize| nn::Block {
        prefix: format!("layers.{layer}"),
        norm: nn::NormKind::Rms { eps: 1e-5 },
        order: nn::NormOrder::Pre,
        attention_norm: "norm_1".into(),
        attention: attention.clone(),
        cross: None,
        feed_forward_norm: "norm_2".into(),
        feed_forward: nn::FeedForward::Plain {
            names: ["up", "down"],
            d_ff: 19,
            activation: Activation::Silu,
            linear,
            output_linear: linear,
        },
        parallel: false,
        dropout: 0.0,
        activation_dropout: 0.0,
        residual_scale: 1.0,
    };
    let (blocks, recursion) = ((0..recursion.stored()).map(block).collect(), Some(recursion.clone()));
    nn::Stack { blocks, recursion, final_norm: None, balance: nn::Balance::default(), salt: 0 }
}

/// The graph of so many tokens of each row: at first, or behind what is in the caches.
fn graph(stack: &nn::Stack, time: usize, first: bool) -> Result<(Graph, nn::Hidden)> {
    let mut g = Graph::new();
    // A stack reads states: only the shape of ids counts.
    let ids = g.constant("ids", Array::zeros([BATCH, time]), DType::U32);
    let x = g.input("x", [BATCH, time, D_MODEL], DType::F32)?;
    let (lengths, capacity) = (g.input("lengths", [BATCH], DType::U32)?, WHOLE + 4);
    let inputs = TokenInputs::new(&mut g, ids)?;
    let inputs = match first {
        true => TokenInputs { kv: KvSource::Prefill { capacity, lengths, beams: 1 }, ..inputs },
        false => {
            let at = g.input("positions", [BATCH, time], DType::U32)?;
            TokenInputs { kv: KvSource::Decode { capacity, lengths }, ..inputs.with_positions(at, capacity) }
        }
    };
    let hidden = stack.run(&mut g, x, &inputs)?;
    g.output("states", hidden.states)?;
    Ok((g, hidden))
}

/// The state of a row's token.
fn state(row: usize, t: usize) -> impl Iterator<Item = f64> {
    (0..D_MODEL).map(move |i| DType::F32.round(((row * 57 + t * 13 + i) as f64 * 0.73).sin()))
}

/// Two texts of which different parts are read at once, padded on the right, and the rest token by token: all states must be those of
/// reading the whole texts, in f64.
pub(crate) fn biased_decoding(gpu: &Gpu, recursion: &nn::Recursion, relative: &RelativeBias) -> Result<(), Failed> {
    const PROMPT: usize = 9;
    let prompts = [7, 2];
    let stack = stack(recursion, relative);
    let (g, hidden) = graph(&stack, WHOLE, true)?;
    let (mut values, weights) = (Values::new(), Weights::new(gpu));
    for (name, tensor) in g.parameters() {
        let (ty, centre) = (g.ty(tensor), f64::from(u8::from(name.contains("norm"))));
        let data = initial_values(Initial::Normal(0.4), ty.shape.numel(), 5, name);
        let data = data.into_iter().map(|x| DType::F32.round(centre + x)).collect();
        let array = Array::new(ty.shape.clone(), data)?;
        weights.ensure(name, ty)?;
        weights.upload(name, &pack(&array.data, DType::F32))?;
        values.insert(name.to_owned(), array);
    }
    let texts = (0..BATCH * WHOLE).flat_map(|i| state(i / WHOLE, i % WHOLE)).collect();
    values.insert("x".into(), Array::new([BATCH, WHOLE, D_MODEL], texts)?);
    values.insert("lengths".into(), Array::from_fn([BATCH], |_| WHOLE as f64));
    let expected = g.evaluate(&values, &[hidden.states])?.remove(0);
    let routers: Vec<Tensor> =
        hidden.routing.iter().filter(|(name, _)| name.starts_with("router_logits")).map(|(_, t)| *t).collect();
    for logits in g.evaluate(&values, &routers)? {
        let yes = logits.data.iter().filter(|l| **l >= 0.0).count();
        if yes == 0 || yes == logits.data.len() {
            return Err("a router says the same of all tokens: the test would show little".into());
        }
    }
    let [prefill, decode] = [(PROMPT, true), (1, false)].map(|(time, first)| -> Result<Program> {
        let program = Program::new(gpu, &graph(&stack, time, first)?.0, &weights)?;
        program.fill_temporaries(f32::NAN.to_bits())?;
        Ok(program)
    });
    let (prefill, decode) = (prefill?, decode?);
    let words = |values: [usize; 2]| bytemuck::cast::<[u32; 2], [u8; 8]>(values.map(|v| v as u32));
    let compare = |program: &Program, time: usize, at: [usize; 2]| -> Result<(), Failed> {
        let got = program.read_f32("states")?;
        for (row, &t) in at.iter().enumerate() {
            let expected = expected.row(row * WHOLE + t);
            let column = if time == 1 { 0 } else { t };
            let got = &got[(row * time + column) * D_MODEL..][..D_MODEL];
            let size = expected.iter().fold(0.0_f64, |m, x| m.max(x.abs()));
            if !got.iter().zip(expected).all(|(a, b)| (f64::from(*a) - b).abs() <= 1e-4 * size) {
                return Err(format!("the state at position {t} of row {row} is another one").into());
            }
        }
        Ok(())
    };
    // Twice, so that the second prompt finds the caches used.
    for _ in 0..2 {
        let texts: Vec<f64> = (0..BATCH * PROMPT).flat_map(|i| state(i / PROMPT, i % PROMPT)).collect();
        prefill.write("x", &pack(&texts, DType::F32))?;
        if prefill.has_input("lengths") {
            prefill.write("lengths", &words(prompts))?;
        }
        prefill.run()?;
        compare(&prefill, PROMPT, prompts.map(|n| n - 1))?;
        for step in 0..WHOLE - prompts[0] {
            let at = prompts.map(|n| n + step);
            let new: Vec<f64> = (0..BATCH).flat_map(|row| state(row, at[row])).collect();
            decode.write("x", &pack(&new, DType::F32))?;
            decode.write("positions", &words(at))?;
            if decode.has_input("lengths") {
                decode.write("lengths", &words(at.map(|n| n + 1)))?;
            }
            decode.run()?;
            compare(&decode, 1, at)?;
        }
    }
    Ok(())
}
