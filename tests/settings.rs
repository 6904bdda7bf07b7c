//! Answers by the settings of a `generation_config.json`, each against what transformers gives (`tests/settings/answers.json`), and drawn beams.

mod common;

use libtest_mimic::Failed;
use serde_json::Value;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use wgformer::generate::{BeamOptions, BeamSearch, GenerateLimits, GenerationSettings, Generator, SamplingOptions};
use wgformer::io::{Config, ModelFolder};
use wgformer::models::{self, Decoder};
use wgformer::{DType, Gpu, Weights};

fn main() {
    let mut trials = Vec::new();
    // What settings do is decided on the CPU, so that one adapter shows it.
    for (name, device) in common::adapters(&mut trials).into_iter().take(1) {
        type Test = fn(&Gpu) -> Result<(), Failed>;
        let tests: [(&str, Test); 2] = [
            ("answers by each setting are those of transformers", answers_follow_settings),
            ("beams are drawn by their seed", beams_are_drawn),
        ];
        trials.extend(tests.map(|(title, test)| device.trial(format!("[{name}] {title}"), test)));
    }
    common::run(trials);
}

fn open(gpu: &Gpu, name: &str) -> Result<(Arc<dyn Decoder>, Weights), Failed> {
    let folder = ModelFolder::open(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/goldens").join(name))?;
    let (model, weights) = models::load(gpu, &folder, DType::F32)?;
    Ok((model.into(), weights))
}

/// The options that settings give for answers of so many tokens behind a prompt.
fn options_of(settings: &GenerationSettings, before: usize, end: &[u32]) -> SamplingOptions {
    SamplingOptions::greedy(12)
        .with_end(end.to_vec())
        .with_repetition_penalty(settings.repetition_penalty.unwrap_or(1.0))
        .with_renormalise(settings.renormalise.unwrap_or(false))
        .with_rules(settings.rules_behind(before))
}

fn answers_follow_settings(gpu: &Gpu) -> Result<(), Failed> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/settings/answers.json");
    let cases: Vec<Value> = serde_json::from_str(&std::fs::read_to_string(path)?)?;
    let (mut wrong, mut kinds) = (Vec::new(), std::collections::BTreeSet::new());
    let mut opened: Option<(String, Arc<dyn Decoder>, Generator, Weights)> = None;
    let limits = GenerateLimits::new(1, 24);
    for case in &cases {
        let name: String = serde_json::from_value(case["model"].clone())?;
        if opened.as_ref().is_none_or(|(open, ..)| *open != name) {
            let (model, weights) = open(gpu, &name)?;
            let generator = Generator::new(gpu, model.clone(), &weights, limits)?;
            opened = Some((name, model, generator, weights));
        }
        let Some((_, model, generator, weights)) = &mut opened else { continue };
        let prompt: Vec<u32> = serde_json::from_value(case["prompt"].clone())?;
        let end: Vec<u32> = serde_json::from_value(case["end"].clone())?;
        let expected: Vec<Vec<u32>> = serde_json::from_value(case["answers"].clone())?;
        let settings = GenerationSettings::read(&Config::new("generation_config.json", case["settings"].clone())?)?;
        let before = if model.encoder().is_some() { 1 } else { prompt.len() };
        let options = options_of(&settings, before, &end);
        let quiet = |_: usize| ControlFlow::Continue(());
        let found: Vec<Vec<u32>> = match settings.beams {
            None => {
                let answers = generator.generate(&[prompt], &options, |_| ControlFlow::Continue(()))?;
                answers.into_iter().map(|answer| answer.tokens).collect()
            }
            Some(beams) => {
                let mut search = BeamSearch::new(gpu, model.clone(), weights, limits, settings.beam_options(beams))?;
                let answers = search.search(&[prompt], &options, quiet)?.remove(0);
                answers.into_iter().map(|found| found.answer.tokens).collect()
            }
        };
        if found != expected {
            wrong.push(format!("{}: {found:?}, but should be {expected:?}", case["settings"]));
        }
        kinds.extend(case["settings"].as_object().into_iter().flat_map(|settings| settings.keys().cloned()));
    }
    match wrong.is_empty() && cases.len() > 60 && kinds.len() > 17 {
        true => Ok(()),
        false => Err(format!("of {} cases with {kinds:?}:\n{}", cases.len(), wrong.join("\n")).into()),
    }
}

/// One seed gives one answer, seeds differ, a batch draws what each prompt draws alone, and with one candidate a row nothing is left to chance.
fn beams_are_drawn(gpu: &Gpu) -> Result<(), Failed> {
    let (model, weights) = open(gpu, "gpt2")?;
    let beams = BeamOptions::default().with_beams(3).with_answers(3).with_drawn(true);
    let prompts = [vec![5, 9, 33], vec![70, 11, 12, 48, 50]];
    let drawn = |beams: BeamOptions, batch: usize, options: SamplingOptions| {
        let limits = GenerateLimits::new(batch, 20);
        let mut search = BeamSearch::new(gpu, model.clone(), &weights, limits, beams)?;
        search.search(&prompts, &options, |_| ControlFlow::Continue(()))
    };
    let options = |seed| {
        SamplingOptions::default()
            .with_max_new_tokens(7)
            .with_temperature(1.5)
            .with_top_k(40)
            .with_top_p(0.95)
            .with_seed(seed)
    };
    let found = drawn(beams, 2, options(1))?;
    let tokens = |found: &[Vec<wgformer::generate::ScoredAnswer>]| -> Vec<Vec<Vec<u32>>> {
        found.iter().map(|all| all.iter().map(|one| one.answer.tokens.clone()).collect()).collect()
    };
    if tokens(&drawn(beams, 2, options(1))?) != tokens(&found)
        || tokens(&drawn(beams, 1, options(1))?) != tokens(&found)
    {
        return Err(format!("one seed gave other answers than {found:?}").into());
    }
    if tokens(&drawn(beams, 2, options(2))?) == tokens(&found) {
        return Err(format!("two seeds gave {found:?}").into());
    }
    let likeliest = drawn(beams.with_drawn(false), 2, SamplingOptions::greedy(7))?;
    if tokens(&likeliest) == tokens(&found) {
        return Err("what was drawn is the likeliest".into());
    }
    // Where sampling leaves the likeliest token and one more at most, a temperature near 0 takes the likeliest.
    let cold = options(1).with_temperature(1e-3).with_top_k(1).with_min_p(0.99);
    let one = beams.with_beams(2).with_answers(1);
    let (cold, greedy) = (drawn(one, 2, cold)?, {
        let limits = GenerateLimits::new(2, 20);
        let mut generator = Generator::new(gpu, model.clone(), &weights, limits)?;
        generator.generate(&prompts, &SamplingOptions::greedy(7), |_| ControlFlow::Continue(()))?
    });
    for (found, greedy) in cold.iter().zip(&greedy) {
        if found[0].answer.tokens != greedy.tokens {
            return Err(format!("{found:?} should be {greedy:?}").into());
        }
    }
    let refused = drawn(beams, 2, options(1).with_top_k(0)).err().map(|error| error.to_string());
    match refused {
        Some(message) if message == "top_k: it is 0, but beams that are drawn need 1 to 128" => Ok(()),
        other => Err(format!("{other:?}").into()),
    }
}
