//! Many requests over one cache: each gets what it would get alone, whoever comes and goes, on every adapter of this machine.

mod common;
#[path = "common/models.rs"]
mod small;

use libtest_mimic::Failed;
use serde_json::{Value, json};
use small::{decoder, gpt2, llama, logits_of, mor, token, upload, weights_of};
use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;
use wgformer::generate::{
    Finish, GenerateLimits, Generator, RequestId, SamplingOptions, Scheduler, SchedulerEvent, SchedulerLimits,
    TokenRules,
};
use wgformer::graph::Values;
use wgformer::models::Decoder;
use wgformer::{DType, Error, Gpu, Result, Weights};

fn main() {
    let mut trials = Vec::new();
    for (name, device) in common::adapters_also_as_gpus(&mut trials) {
        type Test = fn(&Gpu) -> Result<(), Failed>;
        let tests: [(&str, Test); 6] = [
            ("answers are those of whole forward passes", answers_are_those_of_whole_passes),
            ("sampled answers are those of each request alone", sampled_answers_are_those_alone),
            ("prompts that begin alike are read once", beginnings_are_shared),
            ("requests that lose their pages go on", requests_without_pages_go_on),
            ("caches of fewer bits", caches_of_fewer_bits),
            ("refused, failed and cancelled requests leave others alone", refusals_leave_others_alone),
        ];
        trials.extend(tests.map(|(title, test)| device.trial(format!("[{name}] {title}"), test)));
    }
    common::run(trials);
}

const LIMITS: SchedulerLimits = SchedulerLimits { requests: 4, tokens: 256, max_tokens: 64, piece: 16 };

fn prompt(length: usize) -> Vec<u32> {
    (0..length).map(|i| token(i + 11 * length) as u32).collect()
}

fn loaded(gpu: &Gpu, config: &Value) -> Result<(Arc<dyn Decoder>, Values, Weights)> {
    let model: Arc<dyn Decoder> = decoder(config)?.into();
    let values = weights_of(model.as_ref())?;
    let weights = upload(gpu, model.as_ref(), &values)?;
    Ok((model, values, weights))
}

/// The tokens of each request, until nothing is left to do; one that comes late is submitted after some steps.
fn run(
    scheduler: &mut Scheduler,
    late: &[(usize, Vec<u32>, SamplingOptions)],
) -> Result<BTreeMap<RequestId, Vec<u32>>> {
    let mut answers: BTreeMap<RequestId, Vec<u32>> = BTreeMap::new();
    for step in 0.. {
        for (_, prompt, options) in late.iter().filter(|(at, ..)| *at == step) {
            scheduler.submit(prompt, options)?;
        }
        let rest = late.iter().any(|(at, ..)| *at > step);
        if scheduler.is_idle() && !rest {
            break;
        }
        for event in scheduler.step()? {
            match event {
                SchedulerEvent::Token(token) => answers.entry(token.request).or_default().push(token.id),
                SchedulerEvent::Failed { error, .. } => return Err(error),
                _ => (),
            }
        }
    }
    Ok(answers)
}

/// Whether each token is the likeliest, or less likely than that by at most `slack` in its logit.
fn follows(
    (model, values): (&dyn Decoder, &mut Values),
    prompt: &[u32],
    answer: &[u32],
    slack: f64,
) -> Result<(), Failed> {
    let text = [prompt, answer].concat();
    let logits = logits_of(model, values, &text)?;
    for t in prompt.len()..text.len() {
        let row = logits.row(t - 1);
        let largest = row.iter().fold(f64::NEG_INFINITY, |m, &x| m.max(x));
        if !(row[text[t] as usize] >= largest - slack) {
            let short = largest - row[text[t] as usize];
            return Err(format!("token {t} of {text:?} is less likely than another by {short:.1e}").into());
        }
    }
    Ok(())
}

/// Prompts shorter and longer than a piece, and more of them than rows, that come at different times and end at different times.
fn answers_are_those_of_whole_passes(gpu: &Gpu) -> Result<(), Failed> {
    let window = json!({"model_type": "mistral", "sliding_window": 6});
    let experts = json!({"model_type": "mixtral", "num_local_experts": 3, "num_experts_per_tok": 2});
    for config in [gpt2(json!({})), llama(json!({})), llama(window), llama(experts)] {
        let (model, mut values, weights) = loaded(gpu, &config)?;
        let mut scheduler = Scheduler::new(gpu, model.clone(), &weights, LIMITS)?;
        let requests: Vec<(usize, Vec<u32>, SamplingOptions)> =
            [(0, 7, 9), (0, 1, 5), (0, 40, 12), (1, 33, 3), (2, 5, 20), (7, 17, 8)]
                .map(|(step, length, count)| (step, prompt(length), SamplingOptions::greedy(count)))
                .into();
        let answers = run(&mut scheduler, &requests)?;
        if answers.len() != requests.len() {
            return Err(format!("{} answers", answers.len()).into());
        }
        for ((_, prompt, options), answer) in requests.iter().zip(answers.values()) {
            if answer.len() != options.max_new_tokens {
                return Err(format!("{} tokens, expected {}", answer.len(), options.max_new_tokens).into());
            }
            follows((model.as_ref(), &mut values), prompt, answer, 1e-4)?;
        }
        let stats = scheduler.stats();
        let read: usize = requests.iter().map(|(_, prompt, _)| prompt.len()).sum();
        if (stats.pages_held, stats.running, stats.prompt_tokens) != (0, 0, read as u64) {
            return Err(format!("{stats:?} at the end").into());
        }
    }
    Ok(())
}

fn sampled_answers_are_those_alone(gpu: &Gpu) -> Result<(), Failed> {
    let (model, _, weights) = loaded(gpu, &llama(json!({})))?;
    let limits = GenerateLimits::new(1, LIMITS.max_tokens);
    let mut alone = Generator::new(gpu, model.clone(), &weights, limits)?;
    let mut scheduler = Scheduler::new(gpu, model, &weights, LIMITS)?;
    let options = |seed| {
        SamplingOptions::default()
            .with_max_new_tokens(10)
            .with_temperature(0.8)
            .with_top_k(20)
            .with_repetition_penalty(if seed % 2 == 0 { 1.2 } else { 1.0 })
            .with_seed(seed)
    };
    let requests: Vec<_> =
        [(0, 3), (0, 30), (1, 9), (3, 21)].iter().map(|&(step, n)| (step, prompt(n), options(n as u64))).collect();
    let together = run(&mut scheduler, &requests)?;
    for ((_, prompt, options), together) in requests.iter().zip(together.values()) {
        let answers = alone.generate(std::slice::from_ref(prompt), options, |_| ControlFlow::Continue(()))?;
        if answers[0].tokens != *together {
            return Err(format!("{:?} alone, {together:?} among others", answers[0].tokens).into());
        }
    }
    Ok(())
}

fn beginnings_are_shared(gpu: &Gpu) -> Result<(), Failed> {
    let (model, mut values, weights) = loaded(gpu, &llama(json!({})))?;
    let mut scheduler = Scheduler::new(gpu, model.clone(), &weights, LIMITS)?;
    let begin = prompt(37);
    let other = [&begin[..20], &[5, 6, 7]].concat();
    for (prompt, shared) in [(&begin, 0), (&begin, 32), (&other, 48)] {
        let answers = run(&mut scheduler, &[(0, prompt.clone(), SamplingOptions::greedy(6))])?;
        for answer in answers.values() {
            follows((model.as_ref(), &mut values), prompt, answer, 1e-4)?;
        }
        if scheduler.stats().shared_tokens != shared {
            return Err(format!("{:?}, expected {shared} shared tokens", scheduler.stats()).into());
        }
    }
    // An answer is read once, too, by who goes on from it.
    let answer = run(&mut scheduler, &[(0, begin.clone(), SamplingOptions::greedy(20))])?;
    let more = [&begin[..], answer.values().next().ok_or("no answer")?, &[3, 4]].concat();
    let before = scheduler.stats().shared_tokens;
    run(&mut scheduler, &[(0, more, SamplingOptions::greedy(2))])?;
    match scheduler.stats().shared_tokens - before {
        48 => Ok(()),
        shared => Err(format!("{shared} tokens of a conversation are shared").into()),
    }
}

/// All four requests would need 16 pages; there are 5.
fn requests_without_pages_go_on(gpu: &Gpu) -> Result<(), Failed> {
    let (model, mut values, weights) = loaded(gpu, &llama(json!({})))?;
    let limits = LIMITS.with_tokens(80);
    let mut scheduler = Scheduler::new(gpu, model.clone(), &weights, limits)?;
    let requests: Vec<_> = [3, 5, 7, 9].map(|n| (0, prompt(n), SamplingOptions::greedy(50))).into();
    let answers = run(&mut scheduler, &requests)?;
    for ((_, prompt, _), answer) in requests.iter().zip(answers.values()) {
        if answer.len() != 50 {
            return Err(format!("{} tokens", answer.len()).into());
        }
        follows((model.as_ref(), &mut values), prompt, answer, 1e-4)?;
    }
    match scheduler.stats() {
        stats if stats.preempted > 0 && stats.pages_held == 0 => Ok(()),
        stats => Err(format!("{stats:?}").into()),
    }
}

fn caches_of_fewer_bits(gpu: &Gpu) -> Result<(), Failed> {
    let heads = json!({"hidden_size": 64, "num_attention_heads": 2, "head_dim": 32});
    let (model, mut values, weights) = loaded(gpu, &llama(heads))?;
    let prompts = [prompt(21), prompt(6)];
    for (dtype, slack) in [(DType::F16, 1e-2), (DType::Q8_0, 1e-1)] {
        let weights = weights.share().with_cache(dtype);
        let mut scheduler = Scheduler::new(gpu, model.clone(), &weights, LIMITS)?;
        let requests: Vec<_> = prompts.iter().map(|prompt| (0, prompt.clone(), SamplingOptions::greedy(12))).collect();
        let scheduled = run(&mut scheduler, &requests)?.into_values().collect::<Vec<_>>();
        let limits = GenerateLimits::new(2, 64);
        let mut generator = Generator::new(gpu, model.clone(), &weights, limits)?;
        let generated = generator.generate(&prompts, &SamplingOptions::greedy(12), |_| ControlFlow::Continue(()))?;
        for (prompt, answer) in prompts.iter().cycle().zip(scheduled.iter().chain(generated.iter().map(|a| &a.tokens)))
        {
            follows((model.as_ref(), &mut values), prompt, answer, slack)
                .map_err(|failed| format!("{dtype}: {}", failed.message().unwrap_or_default()))?;
        }
    }
    Ok(())
}

fn refusals_leave_others_alone(gpu: &Gpu) -> Result<(), Failed> {
    let (model, mut values, weights) = loaded(gpu, &llama(json!({})))?;
    let refusal = |made: Result<Scheduler>| made.err().map_or_else(String::new, |error| error.to_string());
    for (limits, words) in [
        (LIMITS.with_requests(0), "requests: it is 0"),
        (LIMITS.with_max_tokens(301), "must be 2 to the model's 300"),
        (LIMITS.with_tokens(48), "at least max_tokens, 64"),
        (LIMITS.with_piece(0), "piece: it is 0"),
    ] {
        let message = refusal(Scheduler::new(gpu, model.clone(), &weights, limits));
        if !message.contains(words) {
            return Err(format!("{message}, expected {words}").into());
        }
    }
    let recursions = loaded(gpu, &mor(json!({"routing": "none"})))?;
    let message = refusal(Scheduler::new(gpu, recursions.0, &recursions.2, LIMITS));
    if !message.contains("recursions") {
        return Err(message.into());
    }
    let mut scheduler = Scheduler::new(gpu, model.clone(), &weights, LIMITS)?;
    let greedy = SamplingOptions::greedy(8);
    for (prompt, options) in [
        (vec![], greedy.clone()),
        (prompt(64), greedy.clone()),
        (vec![97], greedy.clone()),
        (vec![1], greedy.clone().with_stop(vec!["x".into()])),
        (vec![1], greedy.clone().with_top_p(2.0)),
        (vec![1], SamplingOptions::greedy(0)),
    ] {
        if !matches!(scheduler.submit(&prompt, &options), Err(Error::Input { .. })) {
            return Err(format!("{prompt:?} with {options:?} is taken").into());
        }
    }
    let good = scheduler.submit(&prompt(9), &greedy)?;
    let suppress = (0..97).collect();
    let rules = TokenRules::default().with_suppress(suppress);
    let failing = scheduler.submit(&prompt(4), &greedy.clone().with_rules(rules))?;
    let cancelled = scheduler.submit(&prompt(30), &greedy)?;
    let (mut answer, mut failed) = (Vec::new(), Vec::new());
    while !scheduler.is_idle() {
        for event in scheduler.step()? {
            match event {
                SchedulerEvent::Token(token) if token.request == good => {
                    answer.push(token.id);
                    if token.finish.is_some_and(|finish| finish != Finish::Length) {
                        return Err(format!("{token:?}").into());
                    }
                }
                SchedulerEvent::Token(token) if token.request == failing => return Err(format!("{token:?}").into()),
                SchedulerEvent::Token(_) => {}
                SchedulerEvent::Failed { request, .. } => failed.push(request),
                _ => (),
            }
        }
        scheduler.cancel(cancelled);
    }
    if failed != [failing] || scheduler.cancel(cancelled) || scheduler.stats().pages_held != 0 {
        return Err(format!("{failed:?} failed, {:?}", scheduler.stats()).into());
    }
    follows((model.as_ref(), &mut values), &prompt(9), &answer, 1e-4)
}
