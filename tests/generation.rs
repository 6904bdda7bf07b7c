//! Generation against whole forward passes, streams, seeds and refusals, on every adapter of this machine.

mod common;
#[path = "common/models.rs"]
mod small;

use futures::StreamExt;
use libtest_mimic::Failed;
use serde_json::{Value, json};
use small::{decoder, gpt2, llama, logits_of, merged, mor, token, upload, weights_of};
use std::ops::ControlFlow;
use std::sync::Arc;
use wgformer::generate::{
    BeamOptions, BeamSearch, EarlyStopping, Finish, GenerateLimits, Generator, SamplingOptions, ScoredAnswer, Token,
    TokenPick, TokenRules,
};
use wgformer::gpu::GpuOptions;
use wgformer::graph::Values;
use wgformer::models::Decoder;
use wgformer::ops::TokenChoice;
use wgformer::program::Program;
use wgformer::software::Options;
use wgformer::{DType, Gpu, Result, Weights};

fn main() {
    let mut trials = Vec::new();
    for (name, device) in common::adapters_also_as_gpus(&mut trials) {
        type Test = fn(&Gpu) -> Result<(), Failed>;
        let tests: [(&str, Test); 10] = [
            ("greedy tokens are those of whole forward passes", greedy_follows_whole_passes),
            ("a stream gives the tokens of generate", streams_agree),
            ("looking up gives the tokens of greedy decoding", lookups_agree),
            ("seeds decide what is drawn", seeds_decide),
            ("beams of a batch are those of each prompt alone", beams_are_those_of_each_prompt),
            ("answers of beams have the scores of whole forward passes", scores_are_those_of_whole_passes),
            ("drawn tokens are those that the logits give", draws_follow_the_logits),
            ("a step gives back at most 1 KiB a row", readbacks_are_small),
            ("refused prompts and limits", refusals),
            ("each answer is of the weights as they are", answers_follow_the_weights),
        ];
        trials.extend(tests.map(|(title, test)| device.trial(format!("[{name}] {title}"), test)));
    }
    common::run(trials);
}

fn generator(gpu: &Gpu, config: &Value, batch: usize, max_tokens: usize) -> Result<(Generator, Values)> {
    let model: Arc<dyn Decoder> = decoder(config)?.into();
    let values = weights_of(model.as_ref())?;
    let weights = upload(gpu, model.as_ref(), &values)?;
    Ok((Generator::new(gpu, model, &weights, GenerateLimits::new(batch, max_tokens))?, values))
}

fn prompt(length: usize) -> Vec<u32> {
    (0..length).map(|i| token(i + 11 * length) as u32).collect()
}

/// Prompts of different lengths in one batch, more prompts than rows: each token must be the most likely one of a whole
/// forward pass in f64.
fn greedy_follows_whole_passes(gpu: &Gpu) -> Result<(), Failed> {
    let sequence = json!({"routing": "none", "sharing": "sequence", "num_hidden_layers": 4, "num_recursions": 2});
    let depths = json!({"routing": "token_choice", "num_modules": 2});
    let window = json!({"model_type": "mistral", "sliding_window": 6});
    let long_mor = mor(merged(depths.clone(), long_rope()));
    for config in
        [gpt2(json!({})), llama(json!({})), llama(window), mor(sequence), mor(depths), llama(long_rope()), long_mor]
    {
        let (mut generator, mut values) = generator(gpu, &config, 3, 40)?;
        let prompts = [prompt(7), prompt(1), prompt(18), prompt(5)];
        let options = SamplingOptions::greedy(9);
        let answers = generator.generate(&prompts, &options, |_| ControlFlow::Continue(()))?;
        if answers.len() != prompts.len() {
            return Err(format!("{} answers to {} prompts", answers.len(), prompts.len()).into());
        }
        let model = decoder(&config)?;
        for (prompt, answer) in prompts.iter().zip(&answers) {
            if answer.tokens.len() != 9 || answer.finish != Finish::Length {
                return Err(format!("{answer:?} is no answer of 9 tokens").into());
            }
            let text = [prompt.as_slice(), &answer.tokens].concat();
            let logits = logits_of(model.as_ref(), &mut values, &text)?;
            for t in prompt.len()..text.len() {
                let row = logits.row(t - 1);
                let largest = row.iter().fold(f64::NEG_INFINITY, |m, &x| m.max(x));
                if !(row[text[t] as usize] >= largest - 1e-4) {
                    return Err(format!("token {t} of {text:?} is not the likeliest").into());
                }
            }
        }
    }
    Ok(())
}

/// Texts that repeat themselves, so that drafts come true, and up to the end of the caches; others do without.
fn lookups_agree(gpu: &Gpu) -> Result<(), Failed> {
    let window = json!({"model_type": "mistral", "sliding_window": 6});
    for config in [gpt2(json!({})), llama(json!({})), llama(window), mor(json!({"routing": "none"}))] {
        let (mut plain, _) = generator(gpu, &config, 3, 60)?;
        let (drafting, _) = generator(gpu, &config, 3, 60)?;
        let mut drafting = drafting.with_lookup(3);
        let repeated = |n: usize| prompt(n).repeat(3);
        for (prompts, options) in [
            (vec![repeated(4), prompt(1), repeated(9)], SamplingOptions::greedy(100)),
            (vec![repeated(7)], SamplingOptions::greedy(11).with_end(vec![token(5) as u32])),
            (vec![repeated(5)], SamplingOptions::greedy(9).with_repetition_penalty(1.3)),
        ] {
            let [wanted, found] =
                [&mut plain, &mut drafting].map(|one| one.generate(&prompts, &options, |_| ControlFlow::Continue(())));
            let (wanted, found) = (wanted?, found?);
            if wanted != found {
                return Err(format!("{found:?}, expected {wanted:?}").into());
            }
        }
    }
    Ok(())
}

/// Rotary positions whose frequencies change where a text has more than 10 tokens.
fn long_rope() -> Value {
    let (short, long) = ([1.0, 1.2, 1.5], [2.0, 5.0, 9.0]);
    json!({"rope_scaling": {"rope_type": "longrope", "short_factor": short, "long_factor": long, "original_max_position_embeddings": 10}})
}

/// The sum of the logarithms of the probabilities of the tokens behind a prompt, by a whole forward pass in f64.
fn log_prob(model: &dyn Decoder, values: &mut Values, prompt: &[u32], answer: &[u32]) -> Result<f64> {
    let text = [prompt, answer].concat();
    let logits = logits_of(model, values, &text)?;
    let of = |t: usize| {
        let row = logits.row(t - 1);
        let largest = row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        row[text[t] as usize] - largest - row.iter().map(|x| (x - largest).exp()).sum::<f64>().ln()
    };
    Ok((prompt.len()..text.len()).map(of).sum())
}

/// A search with tokens that end, and rules, so that beams of a batch end at different times.
fn search(gpu: &Gpu, config: &Value, batch: usize, prompts: &[Vec<u32>]) -> Result<Vec<Vec<ScoredAnswer>>> {
    let model: Arc<dyn Decoder> = decoder(config)?.into();
    let weights = upload(gpu, model.as_ref(), &weights_of(model.as_ref())?)?;
    let beams = BeamOptions::default().with_beams(3).with_answers(3).with_early_stopping(EarlyStopping::Never);
    let mut search = BeamSearch::new(gpu, model, &weights, GenerateLimits::new(batch, 30), beams)?;
    let rules = TokenRules::default().with_no_repeat_ngram(3).with_min_new_tokens(2);
    let end = (0..6).map(|i| token(i * 5 + 3) as u32).collect();
    let options = SamplingOptions::greedy(8).with_end(end).with_rules(rules).with_repetition_penalty(1.1);
    search.search(prompts, &options, |_| ControlFlow::Continue(()))
}

fn beams_are_those_of_each_prompt(gpu: &Gpu) -> Result<(), Failed> {
    let depths = json!({"routing": "token_choice", "num_modules": 2});
    for config in [llama(json!({})), mor(depths)] {
        let prompts = [prompt(7), prompt(1), prompt(18)];
        let all = search(gpu, &config, 2, &prompts)?;
        for (prompt, together) in prompts.iter().zip(&all) {
            let alone = search(gpu, &config, 1, std::slice::from_ref(prompt))?;
            for (alone, together) in alone[0].iter().zip(together) {
                if alone.answer != together.answer || !((alone.score - together.score).abs() <= 1e-4) {
                    return Err(format!("{alone:?} alone, {together:?} among others").into());
                }
            }
        }
    }
    Ok(())
}

fn scores_are_those_of_whole_passes(gpu: &Gpu) -> Result<(), Failed> {
    let heads = llama(json!({"hidden_size": 64, "num_attention_heads": 2, "head_dim": 32}));
    for (config, cache, slack) in [
        (llama(json!({})), DType::F32, 1e-4),
        (llama(long_rope()), DType::F32, 1e-4),
        (heads.clone(), DType::F16, 1e-2),
        (heads, DType::Q8_0, 1e-1),
    ] {
        has_scores_of_whole_passes(gpu, &config, cache, slack)?;
    }
    Ok(())
}

fn has_scores_of_whole_passes(gpu: &Gpu, config: &Value, cache: DType, slack: f64) -> Result<(), Failed> {
    let model: Arc<dyn Decoder> = decoder(config)?.into();
    let mut values = weights_of(model.as_ref())?;
    let weights = upload(gpu, model.as_ref(), &values)?.with_cache(cache);
    let beams = BeamOptions::default().with_beams(5).with_answers(5).with_length_penalty(0.5);
    let mut search = BeamSearch::new(gpu, model.clone(), &weights, GenerateLimits::new(2, 30), beams)?;
    let options = SamplingOptions::greedy(9).with_end(vec![token(3) as u32]);
    let prompts = [prompt(4), prompt(9)];
    let found = search.search(&prompts, &options, |_| ControlFlow::Continue(()))?;
    for (prompt, answers) in prompts.iter().zip(&found) {
        if answers.len() != 5 {
            return Err(format!("{} answers", answers.len()).into());
        }
        for ScoredAnswer { answer, score, .. } in answers {
            let sum = log_prob(model.as_ref(), &mut values, prompt, &answer.tokens)?;
            let wanted = sum / (answer.tokens.len() as f64).sqrt();
            if !((wanted - score).abs() <= slack) {
                return Err(format!("{cache}: the score is {score}, but should be {wanted}: {answer:?}").into());
            }
        }
    }
    Ok(())
}

/// One step whose logits and tokens are both known, for each rule of sampling.
fn draws_follow_the_logits(gpu: &Gpu) -> Result<(), Failed> {
    let model = decoder(&gpt2(json!({})))?;
    let weights = upload(gpu, model.as_ref(), &weights_of(model.as_ref())?)?;
    let limits = GenerateLimits::new(2, 16);
    let program = |pick| {
        Program::new(gpu, &Generator::prefill_graph(model.as_ref(), weights.storage(), limits, 4, pick)?, &weights)
    };
    let (whole, drawn) = (program(TokenPick::Logits)?, program(TokenPick::Draw { edits: 0 })?);
    for one in [&whole, &drawn] {
        let ids: Vec<u32> = (0..8).map(|i| token(i) as u32).collect();
        one.write("ids", bytemuck::cast_slice(&ids))?;
        one.write("last", bytemuck::cast_slice(&[3_u32, 6]))?;
    }
    whole.run()?;
    let logits = whole.read_f32("logits")?;
    let columns = logits.len() / 2;
    let choice = TokenChoice { scale: 1.0, top_k: 0, top_p: 1.0, min_p: 0.0, random: 0.0 };
    for n in 0..20 {
        let random = n as f32 / 20.0 + 0.013;
        let rows =
            [TokenChoice { random, ..choice }, TokenChoice { random, top_k: 40, top_p: 0.8, scale: 2.0, ..choice }];
        let words: Vec<u32> = rows.iter().flat_map(TokenChoice::words).collect();
        drawn.write("choices", bytemuck::cast_slice(&words))?;
        drawn.run()?;
        let tokens: Vec<u32> = bytemuck::pod_collect_to_vec(&drawn.read("tokens")?);
        for (row, (choice, token)) in rows.iter().zip(tokens).enumerate() {
            let logits: Vec<f64> = logits[row * columns..][..columns].iter().map(|x| f64::from(*x)).collect();
            if choice.of(&logits) != token {
                return Err(format!("{choice:?} gives {}, the GPU {token}", choice.of(&logits)).into());
            }
        }
    }
    Ok(())
}

/// The bytes that a step reads back of each row, whatever the vocabulary, for each way of choosing tokens.
fn readbacks_are_small(gpu: &Gpu) -> Result<(), Failed> {
    let model = decoder(&gpt2(json!({"vocab_size": 50_257, "n_embd": 10, "n_layer": 1})))?;
    let weights = upload(gpu, model.as_ref(), &weights_of(model.as_ref())?)?;
    let limits = GenerateLimits::new(3, 32);
    let end = vec![7, 8, 9];
    let (greedy, sampled) = (
        SamplingOptions::greedy(4).with_end(end.clone()).with_repetition_penalty(1.2),
        SamplingOptions::default().with_end(end).with_top_k(100).with_top_p(0.9),
    );
    let beams = |beams, drawn| BeamOptions::default().with_beams(beams).with_drawn(drawn);
    let of_beams = |beams, options| TokenPick::of_beams(beams, options, limits, model.as_ref());
    for (pick, wanted) in [
        (TokenPick::of(&greedy, limits, model.as_ref()), 4),
        (TokenPick::of(&sampled, limits, model.as_ref()), 4),
        (of_beams(beams(4, false), &greedy), (4 + 3) * 8),
        (of_beams(beams(64, false), &greedy), (64 + 3) * 8),
        (of_beams(beams(4, true), &sampled), 100 * 8),
        (of_beams(beams(4, true), &sampled.clone().with_top_k(128)), 1024),
    ] {
        let graph = Generator::decode_graph(model.as_ref(), weights.storage(), limits, pick)?;
        let program = Program::new(gpu, &graph, &weights)?;
        program.run()?;
        let read = graph.outputs().iter().map(|(name, _)| Ok(program.read(name)?.len())).sum::<Result<usize>>()?;
        if read != wanted * limits.batch || wanted > 1024 {
            return Err(format!("{pick:?} gives back {read} bytes of 3 rows").into());
        }
    }
    Ok(())
}

fn streams_agree(gpu: &Gpu) -> Result<(), Failed> {
    let (mut generator, _) = generator(gpu, &llama(json!({})), 2, 32)?;
    let options = SamplingOptions::default().with_max_new_tokens(6).with_seed(4);
    let prompts = [prompt(4), prompt(9)];
    let mut seen: Vec<Token> = Vec::new();
    let answers = generator.generate(&prompts, &options, |token| {
        seen.push(token.clone());
        ControlFlow::Continue(())
    })?;
    let streamed: Vec<Token> = futures::executor::block_on(async {
        generator.stream(&prompts, &options)?.collect::<Vec<_>>().await.into_iter().collect::<Result<_>>()
    })?;
    // A stream that is dropped half way leaves the generator usable.
    let first = futures::executor::block_on(async { generator.stream(&prompts, &options)?.next().await.transpose() })?;
    let of = |p: usize| streamed.iter().filter(|t| t.prompt == p).map(|t| t.id).collect::<Vec<_>>();
    let same = streamed == seen && of(0) == answers[0].tokens && of(1) == answers[1].tokens;
    if !same || first.as_ref() != seen.first() || seen.len() != 12 {
        return Err(format!("{seen:?} and {streamed:?} differ").into());
    }
    let broken_off = generator.generate(&prompts, &options, |_| ControlFlow::Break(()))?;
    match broken_off.iter().all(|answer| answer.tokens.len() == 1 && answer.finish == Finish::BrokenOff) {
        true => Ok(()),
        false => Err(format!("breaking off gave {broken_off:?}").into()),
    }
}

/// Weights that change between answers, also where they are read through textures, copied or in the weights' own memory.
fn answers_follow_the_weights(gpu: &Gpu) -> Result<(), Failed> {
    let adapter = gpu.info();
    let found = Gpu::adapters().into_iter().find(|a| a.get_info() == *adapter).ok_or("the adapter is gone")?;
    for copied_textures in [false, true] {
        let options = GpuOptions::default()
            .with_software(Options::default().with_texture_work(0).with_copied_textures(copied_textures));
        follows_its_weights(&Gpu::open_with(&found, &options)?)?;
    }
    Ok(())
}

fn follows_its_weights(gpu: &Gpu) -> Result<(), Failed> {
    let model: Arc<dyn Decoder> = decoder(&llama(json!({})))?.into();
    let limits = GenerateLimits::new(2, 32);
    let values = weights_of(model.as_ref())?;
    let weights = upload(gpu, model.as_ref(), &values)?;
    let mut generator = Generator::new(gpu, model.clone(), &weights, limits)?;
    let prompts = [prompt(7), prompt(3)];
    let answers = |generator: &mut Generator| -> Result<Vec<Vec<u32>>> {
        let answers = generator.generate(&prompts, &SamplingOptions::greedy(12), |_| ControlFlow::Continue(()))?;
        Ok(answers.into_iter().map(|answer| answer.tokens).collect())
    };
    let first = answers(&mut generator)?;
    let names: Vec<&String> = values.keys().collect();
    for (index, name) in names.iter().enumerate() {
        // Reversed, so that it differs from every other weight.
        let mut data: Vec<f32> = values[*name].data.iter().map(|&x| x as f32).collect();
        data.reverse();
        if index % 2 == 0 {
            weights.upload(name, bytemuck::cast_slice(&data))?;
        }
    }
    let second = answers(&mut generator)?;
    let fresh = answers(&mut Generator::new(gpu, model, &weights, limits)?)?;
    match second == fresh && second != first {
        true => Ok(()),
        false => Err(format!("{first:?}, then {second:?}, where a new generator says {fresh:?}").into()),
    }
}

fn seeds_decide(gpu: &Gpu) -> Result<(), Failed> {
    let (mut wide, _) = generator(gpu, &gpt2(json!({})), 2, 64)?;
    let (mut narrow, _) = generator(gpu, &gpt2(json!({})), 1, 48)?;
    let options = |seed| SamplingOptions::default().with_max_new_tokens(12).with_seed(seed).with_temperature(1.5);
    let quiet = |_: &Token| ControlFlow::Continue(());
    let prompts = [prompt(3), prompt(6)];
    let a = wide.generate(&prompts, &options(1), quiet)?;
    let b = narrow.generate(&prompts, &options(1), quiet)?;
    let c = wide.generate(&prompts, &options(2), quiet)?;
    if a != b || a == c {
        return Err(format!("{a:?}, {b:?}, {c:?}").into());
    }
    // The third token ends the answer if it is an end token; a stop text is cut off.
    let third = a[0].tokens[2];
    let ended = wide.generate(&prompts[..1], &options(1).with_end(vec![third]), quiet)?;
    let length = a[0].tokens.iter().position(|&id| id == third).unwrap_or(0) + 1;
    if ended[0].tokens != a[0].tokens[..length] || ended[0].finish != Finish::End {
        return Err(format!("{ended:?} should end at {third}").into());
    }
    let mut spelling = wide.with_text(Arc::new(|ids| Ok(ids.iter().map(|id| format!("<{id}>")).collect())));
    let stop = format!("{}><{}", a[0].tokens[1], a[0].tokens[2]);
    let stopped = spelling.generate(&prompts[..1], &options(1).with_stop(vec![stop.clone()]), quiet)?;
    let text = stopped[0].text.clone().unwrap_or_default();
    match stopped[0].finish == Finish::Stop && text.starts_with('<') && !text.contains(&stop) {
        true => Ok(()),
        false => Err(format!("{stopped:?} should stop at {stop}").into()),
    }
}

fn refusals(gpu: &Gpu) -> Result<(), Failed> {
    let (mut generator, _) = generator(gpu, &gpt2(json!({})), 1, 20)?;
    let mut refused =
        |prompt: Vec<u32>, options: &SamplingOptions, words: &str| match generator
            .generate(&[prompt], options, |_| ControlFlow::Continue(()))
        {
            Err(error) if error.to_string().contains(words) => Ok(()),
            other => Err(Failed::from(format!("expected \"{words}\", got {other:?}"))),
        };
    let greedy = SamplingOptions::greedy(4);
    refused(Vec::new(), &greedy, "it is empty")?;
    refused(prompt(20), &greedy, "it has 20 tokens")?;
    refused(prompt(20), &greedy, "the model allows 300")?;
    refused(vec![1, 97], &greedy, "token 97 is out of range: the vocabulary has 97")?;
    refused(prompt(3), &greedy.clone().with_temperature(-0.5), "temperature")?;
    refused(prompt(3), &greedy.clone().with_stop(vec!["x".into()]), "with_text")?;
    // The room of the caches ends an answer.
    let answers = generator.generate(&[prompt(17)], &SamplingOptions::greedy(100), |_| ControlFlow::Continue(()))?;
    if answers[0].tokens.len() != 3 || answers[0].finish != Finish::Context {
        return Err(format!("{answers:?} should have 3 tokens").into());
    }
    let model: Arc<dyn Decoder> = decoder(&gpt2(json!({})))?.into();
    let limits = GenerateLimits::new(1, 301);
    let long = Generator::new(gpu, model.clone(), &Weights::new(gpu), limits).err().map(|e| e.to_string());
    let limits = GenerateLimits::new(1, 30);
    let bare = Generator::new(gpu, model, &Weights::new(gpu), limits).err().map(|e| e.to_string());
    match (long, bare) {
        (Some(long), Some(bare)) if long.contains("2 to 300") && bare.contains("lacks this weight") => Ok(()),
        other => Err(format!("{other:?}").into()),
    }
}
