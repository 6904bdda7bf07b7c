//! The launches of the conformance suite, the benchmark and models on adapters of every kind, and their texts.

use super::parse;
use naga::Module;
use naga::valid::ModuleInfo;
use serde_json::{Value, json};
use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, Mutex, OnceLock};
use wgformer::DType;
use wgformer::bench::{self, StepKind, StepSize};
use wgformer::check::{Case, cases};
use wgformer::graph::Storage;
use wgformer::io::Config;
use wgformer::kernel::{AdapterClass, Caps, Dialect, Dispatch, MatrixUnits, assemble};
use wgformer::models::{self, Model};
use wgformer::program::Recording;
use wgformer::software::{Quirks, Textures};

/// Adapters of every kind for which kernels differ.
fn adapters() -> Vec<Caps> {
    let baseline = Caps::baseline();
    let named = |name: &str, class, subgroup| {
        let quirks = match class {
            AdapterClass::Gpu => Quirks::default(),
            _ => Quirks::of_results().with_params_first(true),
        };
        Caps::baseline()
            .with_name(name.into())
            .with_class(class)
            .with_subgroup(subgroup)
            .with_subgroup_sizes(subgroup.map(|size| [size; 2]))
            .with_quirks(quirks)
    };
    let textured = |name: &str, subgroup, textures| {
        let quirks = Quirks::of_results().with_textures(textures).with_max_texture_bytes(128 << 20);
        named(name, AdapterClass::Cpu, subgroup).with_quirks(quirks.with_max_textures(8).with_params_first(true))
    };
    let roomy = baseline
        .clone()
        .with_max_invocations(1024)
        .with_workgroup_memory(32768)
        .with_storage_bindings(16)
        .with_f16(true);
    let units = |size, half| {
        let name = format!("GPU with matrix units of {size}, {}", if half { "f16" } else { "f32" });
        let caps = roomy.clone().with_name(name).with_matrix_units(Some(MatrixUnits { size, half }));
        caps.with_subgroup(Some(32)).with_subgroup_sizes(Some([32; 2]))
    };
    vec![
        named("GPU with subgroups of 32", AdapterClass::Gpu, Some(32)),
        named("CPU without subgroups", AdapterClass::Cpu, None),
        named("CPU with subgroups of 4", AdapterClass::Cpu, Some(4)),
        named("CPU with subgroups of 8", AdapterClass::Cpu, Some(8)),
        named("CPU with 64-bit integers", AdapterClass::Cpu, Some(8)).with_int64(true),
        textured("CPU with storage textures", Some(8), Textures::Storage),
        textured("CPU with sampled textures", Some(4), Textures::Sampled),
        textured("CPU with sampled textures, without subgroups", None, Textures::Sampled),
        roomy
            .clone()
            .with_name("GPU of NVIDIA with higher limits".into())
            .with_vendor(0x10de)
            .with_subgroup(Some(32))
            .with_subgroup_sizes(Some([32; 2])),
        Caps::baseline().with_name("GPU with subgroups of 8 to 32".into()).with_subgroup_sizes(Some([8, 32])),
        units(8, false),
        units(8, true),
        units(16, true),
        baseline,
    ]
}

/// A dispatch, where and for which adapter it was recorded, and its shader text.
pub(super) struct Launched {
    pub(super) caps: Arc<Caps>,
    pub(super) from: Arc<str>,
    /// By the conformance suite, not by a model or the benchmark.
    pub(super) by_suite: bool,
    pub(super) dispatch: Dispatch,
    pub(super) text: Arc<str>,
}

/// Models of ordinary sizes, a layer each, and the types that their matrices are stored in.
fn all_models() -> Vec<(&'static str, Value, &'static [DType])> {
    let llama = |keys: Value| {
        let base = json!({"model_type": "llama", "vocab_size": 32000, "hidden_size": 2048, "num_hidden_layers": 1,
                          "num_attention_heads": 32, "num_key_value_heads": 4, "intermediate_size": 5632,
                          "max_position_embeddings": 2048});
        bench::experiment::with(base, keys)
    };
    let wide = |head_dim: usize| json!({"num_attention_heads": 8, "num_key_value_heads": 2, "head_dim": head_dim});
    let experts = json!({"model_type": "mixtral", "hidden_size": 256, "num_attention_heads": 8, "intermediate_size": 512,
                         "num_local_experts": 8, "num_experts_per_tok": 2, "router_aux_loss_coef": 0.01});
    let shared = json!({"model_type": "qwen2_moe", "hidden_size": 256, "num_attention_heads": 8, "num_experts": 8,
                        "num_experts_per_tok": 4, "moe_intermediate_size": 128, "shared_expert_intermediate_size": 512,
                        "router_aux_loss_coef": 0.001});
    let recursions = |routing: &str| {
        json!({"model_type": "mor", "hidden_size": 256, "num_attention_heads": 4, "intermediate_size": 512,
               "num_hidden_layers": 5, "num_recursions": 3, "routing": routing, "tie_word_embeddings": true})
    };
    let gpt2 = json!({"model_type": "gpt2", "vocab_size": 50257, "n_positions": 1024, "n_embd": 768, "n_layer": 1, "n_head": 12});
    let bert = json!({"model_type": "bert", "architectures": ["BertForMaskedLM"], "vocab_size": 30522, "hidden_size": 384,
                      "num_hidden_layers": 1, "num_attention_heads": 12, "intermediate_size": 1536});
    let t5 = json!({"model_type": "t5", "vocab_size": 32128, "d_model": 512, "d_kv": 64, "d_ff": 1024, "num_heads": 6,
                    "num_layers": 1, "feed_forward_proj": "gated-gelu", "tie_word_embeddings": false});
    let bart = json!({"model_type": "bart", "vocab_size": 50265, "d_model": 768, "encoder_layers": 1, "decoder_layers": 1,
                      "encoder_attention_heads": 12, "decoder_attention_heads": 12, "encoder_ffn_dim": 3072,
                      "decoder_ffn_dim": 3072});
    let stored: &[DType] = &[DType::F32, DType::F16, DType::BF16, DType::Q8_0, DType::Q4_0, DType::Q4_1];
    vec![
        ("GPT-2", gpt2, &stored[..2]),
        ("Llama", llama(json!({})), stored),
        ("Llama, heads of 80", llama(wide(80)), &stored[..1]),
        ("Llama, heads of 128", llama(wide(128)), &stored[..1]),
        ("Llama, heads of 256", llama(wide(256)), &stored[..1]),
        ("BERT", bert, &stored[..1]),
        ("T5", t5, &stored[..1]),
        ("BART", bart, &stored[..1]),
        ("Mixtral", llama(experts), &stored[..1]),
        ("Qwen2-MoE", llama(shared), &stored[..1]),
        ("recursions, expert choice", llama(recursions("expert_choice")), &stored[..1]),
        ("recursions, token choice", llama(recursions("token_choice")), &stored[..1]),
    ]
}

/// The recordings of everything that models do on an adapter.
fn of_models(caps: &Caps) -> wgformer::Result<Vec<(String, Recording)>> {
    let mut all = Vec::new();
    for (name, config, types) in all_models() {
        for &dtype in types {
            let model: Arc<dyn Model> = models::model(&Config::new("config.json", config.clone())?)?.into();
            let storage = Storage::from(dtype);
            let step = |kind, batch, length| -> wgformer::Result<(String, Recording)> {
                let graph = bench::step_graph(kind, caps, &model, &storage, StepSize { batch, length })?;
                Ok((format!("{kind:?} of {name} in {dtype}, {batch} of {length}"), Recording::new(&graph, caps)?))
            };
            if dtype == DType::F32 {
                all.push(step(StepKind::Train, 2, 256)?);
                all.push(step(StepKind::Evaluate, 2, 250)?);
            }
            for batch in [1, 4] {
                if model.encoder().is_some() {
                    all.push(step(StepKind::Encode, batch, 64)?);
                }
                if model.decoder().is_some() {
                    all.push(step(StepKind::Prefill, batch, 64)?);
                    all.push(step(StepKind::Decode, batch, 1024)?);
                }
            }
        }
    }
    Ok(all)
}

/// The recordings of all that the benchmark runs on an adapter.
fn of_benchmark(caps: &Caps) -> wgformer::Result<Vec<(String, Recording)>> {
    let graphs = bench::graphs(caps)?.into_iter();
    graphs.map(|(name, graph)| Ok((format!("bench {name}"), Recording::new(&graph, caps)?))).collect()
}

/// Works on parts of a list at once; results in order.
pub(super) fn in_parallel<T: Sync, R: Send>(all: &[T], work: impl Fn(&[T]) -> Vec<R> + Sync) -> Vec<R> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let work = &work;
    std::thread::scope(|scope| {
        let parts: Vec<_> =
            all.chunks(all.len().div_ceil(threads).max(1)).map(|part| scope.spawn(|| work(part))).collect();
        parts.into_iter().flat_map(|part| part.join().expect("a thread that compiles ends well")).collect()
    })
}

/// Every dispatch of every case, of models and of the benchmark on every adapter; or why something could not be recorded.
pub(super) fn launched() -> &'static [Result<Launched, String>] {
    static ALL: OnceLock<Vec<Result<Launched, String>>> = OnceLock::new();
    ALL.get_or_init(|| {
        let adapters: Vec<Arc<Caps>> = adapters().into_iter().map(Arc::new).collect();
        let texts = Mutex::new(HashSet::new());
        // A graph is built once for all adapters.
        let mut all =
            in_parallel(&cases::all(), |part| part.iter().flat_map(|case| of_case(case, &adapters, &texts)).collect());
        all.extend(in_parallel(&adapters, |part| part.iter().flat_map(|caps| of_others(caps, &texts)).collect()));
        all
    })
}

/// Most texts come again and again: one copy of each is kept.
type Texts = Mutex<HashSet<Arc<str>>>;

/// The launches of a recording.
fn launches(
    caps: &Arc<Caps>,
    from: &str,
    by_suite: bool,
    recording: wgformer::Result<Recording>,
    texts: &Texts,
) -> Vec<Result<Launched, String>> {
    let from: Arc<str> = from.into();
    let recording = match recording {
        Ok(recording) => recording,
        Err(error) => return vec![Err(format!("{from} on {}: {error}", caps.name))],
    };
    let launch = |dispatch: &Dispatch| {
        let text: Arc<str> = assemble(dispatch, Dialect::Naga).text.into();
        let mut texts = texts.lock().expect("a thread that assembles ends well");
        let text = texts.get(&text).cloned().unwrap_or_else(|| {
            texts.insert(text.clone());
            text
        });
        Ok(Launched { caps: caps.clone(), from: from.clone(), by_suite, dispatch: dispatch.clone(), text })
    };
    recording.dispatches().iter().map(launch).collect()
}

/// Those of a case on all adapters; on those with matrix units only of cases that use them, as the rest is as on others.
fn of_case(case: &Case, adapters: &[Arc<Caps>], texts: &Texts) -> Vec<Result<Launched, String>> {
    let from = format!("case \"{}\"", case.name);
    let graph = match case.graph() {
        Ok(graph) => graph,
        Err(error) => return vec![Err(format!("{from}: {error}"))],
    };
    let with_units = |caps: &&Arc<Caps>| caps.matrix_units.is_none() || case.name.contains("by matrix");
    let on = |caps: &Arc<Caps>| launches(caps, &from, true, Recording::new(&graph, caps), texts);
    adapters.iter().filter(with_units).flat_map(on).collect()
}

/// Those of models and of the benchmark on an adapter.
fn of_others(caps: &Arc<Caps>, texts: &Texts) -> Vec<Result<Launched, String>> {
    if caps.matrix_units.is_some() {
        return Vec::new();
    }
    let mut all = Vec::new();
    for (what, recordings) in [("models", of_models(caps)), ("the benchmark", of_benchmark(caps))] {
        match recordings {
            Ok(recordings) => all.extend(
                recordings.into_iter().flat_map(|(from, recording)| launches(caps, &from, false, Ok(recording), texts)),
            ),
            Err(error) => all.extend(launches(caps, what, false, Err(error), texts)),
        }
    }
    all
}

/// A text that is launched somewhere, once.
pub(super) struct Text {
    pub(super) text: Arc<str>,
    pub(super) entry: &'static str,
    /// A launch of it.
    pub(super) launched: &'static Launched,
    /// Whether all adapters that launch it have subgroups, 64-bit integers, and matrix units, which Vulkan and Metal have.
    pub(super) subgroups: bool,
    pub(super) int64: bool,
    pub(super) matrices: bool,
    /// Whether a GPU launches it: drivers for the CPU are known as such with Vulkan and OpenGL only, and never in a browser.
    pub(super) on_gpus: bool,
    /// naga's module, or its error.
    pub(super) module: Result<(Module, ModuleInfo), String>,
}

impl Text {
    pub(super) fn name(&self) -> String {
        format!("{} of {} on {}", self.entry, self.launched.from, self.launched.caps.name)
    }

    /// The text as a browser gets it.
    pub(super) fn for_browsers(&self) -> String {
        assemble(&self.launched.dispatch, Dialect::Browser).text
    }
}

/// Every text that is launched.
pub(super) fn texts() -> &'static [Text] {
    static ALL: OnceLock<Vec<Text>> = OnceLock::new();
    ALL.get_or_init(|| {
        let mut found: BTreeMap<&str, Vec<&'static Launched>> = BTreeMap::new();
        for launched in launched().iter().flatten() {
            found.entry(&launched.text).or_default().push(launched);
        }
        let text = |all: &Vec<&'static Launched>| {
            let first = all.first()?;
            let of_all = |is: fn(&Caps) -> bool| all.iter().all(|launched| is(&launched.caps));
            let (subgroups, int64) = (of_all(|caps| caps.subgroup_sizes.is_some()), of_all(|caps| caps.int64));
            let matrices = first.text.contains("coop_mat");
            Some(Text {
                text: first.text.clone(),
                entry: first.dispatch.kernel.name,
                launched: first,
                subgroups,
                int64,
                matrices,
                on_gpus: !of_all(|caps| caps.class == AdapterClass::Cpu),
                module: parse(&first.text, [subgroups, int64, matrices]),
            })
        };
        let found: Vec<Vec<&'static Launched>> = found.into_values().collect();
        in_parallel(&found, |part| part.iter().filter_map(&text).collect())
    })
}

/// Fails with the complaints about texts, if there are any.
pub(super) fn nothing_but(complaints: &[String], texts: usize) {
    let shown: Vec<&str> = complaints.iter().take(20).map(String::as_str).collect();
    assert!(complaints.is_empty(), "{} of {texts} texts, such as\n{}", complaints.len(), shown.join("\n"));
}
