//! The examples of uses: an adapter of one's own text, a service, a search.

use super::{adapter, alone, search, service};
use std::ops::ControlFlow;
use wgformer::Gpu;
use wgformer::generate::{GenerateLimits, Generator, SamplingOptions, SchedulerLimits};
use wgformer::io::{ModelFolder, Tensors, Tokenizer};
use wgformer::models::{self, Decoder};
use wgformer::train::{LanguageModel, RunOptions, Schedule, StepOptions, Trainer, held_out};

/// The first adapter: what they compute is tested on all elsewhere.
fn gpu() -> Gpu {
    Gpu::choose(None).unwrap()
}

#[test]
fn an_adapter_learns_a_text_beside_its_base_and_opens_with_it() {
    let _alone = alone();
    let (gpu, home) = (gpu(), tempfile::tempdir().unwrap());
    let (base, out) = (home.path().join("base"), home.path().join("out"));
    adapter::new_model(&gpu, &base).unwrap();
    let before = std::fs::read(base.join("model.safetensors")).unwrap();
    let text = "the user's own words, which no other model knows. ".repeat(12);
    let learned = adapter::learn(&gpu, &base, &text, &out).unwrap();
    assert!(learned.after < learned.before - 0.2, "{learned:?}");
    assert!(before == std::fs::read(base.join("model.safetensors")).unwrap(), "the base stays");
    let kept = Tensors::open(out.join("adapter_model.safetensors")).unwrap();
    // Two for each of seven linear layers in two blocks.
    assert_eq!(kept.len(), 28);
    let opened = ModelFolder::open(&out).unwrap();
    let (model, weights) = models::load(&gpu, &opened, None).unwrap();
    let tokenizer = Tokenizer::bytes().unwrap();
    let model: std::sync::Arc<dyn Decoder> = model.into();
    // Nothing but the adapter was trained: beside the base, it gives the same loss.
    let objective = LanguageModel { model: model.clone(), rows: 4, length: 32, options: Default::default() };
    let (run, schedule) = (RunOptions::default(), Schedule::constant(0.0));
    let mut trainer = Trainer::new(&gpu, &weights, &objective, StepOptions::default(), run, schedule).unwrap();
    let loss = trainer.evaluate(&held_out(&tokenizer.encode(&text).unwrap(), 4, 32)).unwrap();
    assert!((loss - learned.after).abs() < 1e-5 * loss, "{learned:?}, opened {loss}");
}

#[test]
fn a_service_answers_all_at_once_as_each_alone() {
    let _alone = alone();
    let gpu = gpu();
    let (model, weights) = service::new_model(&gpu).unwrap();
    let options = SamplingOptions::default().with_max_new_tokens(10).with_temperature(0.0);
    let prompts: Vec<Vec<u32>> = (1..=6).map(|n| (0..3 + n).map(|i| (i * 7 + n) % 97).collect()).collect();
    let limits = GenerateLimits::new(1, 64);
    let mut alone = Generator::new(&gpu, model.clone(), &weights, limits).unwrap();
    let answers = alone.generate(&prompts, &options, |_| ControlFlow::Continue(())).unwrap();
    let limits = SchedulerLimits { requests: 4, tokens: 256, max_tokens: 64, piece: 16 };
    let (sender, thread) = service::start(&gpu, model, &weights, limits).unwrap();
    let clients: Vec<_> =
        prompts.iter().map(|prompt| service::ask(&sender, prompt.clone(), &options).unwrap()).collect();
    // One goes away, and one asks for what cannot be.
    drop(service::ask(&sender, prompts[0].clone(), &options).unwrap());
    let refused = service::ask(&sender, vec![97], &options).unwrap();
    for (client, alone) in clients.into_iter().zip(answers) {
        assert_eq!(client.into_iter().collect::<Result<Vec<u32>, _>>().unwrap(), alone.tokens);
    }
    let message = refused.recv().unwrap().unwrap_err().to_string();
    assert!(message.contains("97"), "{message}");
    drop(sender);
    let stats = thread.join().unwrap().unwrap();
    assert!(stats.new_tokens >= 60 && stats.running == 0, "{stats:?}");
}

#[test]
fn a_search_finds_what_plain_arithmetic_does() {
    let _alone = alone();
    let gpu = gpu();
    let embedder = search::new_embedder(&gpu).unwrap();
    let mut read = 0;
    let mut found = search::Search::new(&gpu, embedder, &search::TEXTS, &mut |rows| read = rows).unwrap();
    assert_eq!(read, search::TEXTS.len());
    for (number, text) in search::TEXTS.iter().enumerate() {
        let hits = found.find(text, 3).unwrap();
        assert!(hits[0].number == number && (hits[0].score - 1.0).abs() < 1e-4, "{text}: {hits:?}");
        let product = |other: &[f32]| found.vectors[number].iter().zip(other).map(|(a, b)| a * b).sum::<f32>();
        let mut all: Vec<(usize, f32)> = found.vectors.iter().map(|other| product(other)).enumerate().collect();
        all.sort_by(|a, b| b.1.total_cmp(&a.1));
        for (hit, (number, score)) in hits.iter().zip(all) {
            assert!(hit.number == number && (hit.score - score).abs() < 1e-4, "{hits:?}");
        }
    }
}
