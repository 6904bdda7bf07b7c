//! `wgformer experiment`: compares models on the same task, as a table, charts and JSON.

use super::args::{ExperimentArgs, Subject};
use super::device::Device;
use super::progress::{Progress, SOON};
use super::{outln, picture, print_json, read_texts, table};
use crate::bench::experiment::{
    self, Contender, Learned, Lesson, expert_contenders, nesting_contenders, recursion_contenders,
};
use crate::error::{Error, Result};
use crate::io::{Tokenizer, write_atomic};
use crate::program::human_count;
use crate::train::Corpus;
use std::fmt::Write;
use std::process::ExitCode;

/// The share of a text that is held out.
const HELD_OUT: f64 = 0.1;
/// The maximum depth of nesting in training, and in the test.
const DEPTHS: (usize, usize) = (3, 5);

pub(super) fn run(options: &ExperimentArgs) -> Result<ExitCode> {
    let device = Device::open(&options.common)?;
    let gpu = device.gpu.clone();
    let length = options.length;
    let contenders = match options.subject {
        Subject::Experts => expert_contenders(length),
        Subject::Recursions => recursion_contenders(length),
        Subject::Nesting => nesting_contenders(length),
    };
    let text = match options.subject {
        Subject::Nesting if !options.data.is_empty() => {
            return Err(Error::input("data", "nested expressions are generated: leave it out"));
        }
        Subject::Nesting => None,
        _ if options.data.is_empty() => {
            return Err(Error::input("data", "a text to train on is needed: give --data FILE"));
        }
        _ => Some(read_texts(&options.data)?),
    };
    let corpus = match &text {
        Some(text) => {
            let tokenizer = Tokenizer::characters(text)?;
            Some((Corpus::new(&tokenizer.encode(text)?, HELD_OUT)?, tokenizer.vocab_size()))
        }
        None => None,
    };
    std::fs::create_dir_all(&options.out).map_err(|e| Error::file(&options.out, e))?;
    let bar = Progress::new(
        options.seeds.saturating_mul(contenders.len() as u64).saturating_mul(options.steps),
        "steps",
        SOON,
    );
    let mut all: Vec<Learned> = Vec::new();
    // All contenders for one seed, then the next seed, so that changes of the machine's speed affect all of them.
    for seed in 0..options.seeds {
        for contender in &contenders {
            let lesson = Lesson { rows: options.batch, length, steps: options.steps, rate: options.lr, seed };
            bar.set_message(format!("{}, seed {seed}", contender.name));
            let mut watch = |_| bar.inc();
            let learned = match &corpus {
                Some((corpus, vocabulary)) => {
                    experiment::learn_text(&gpu, contender, corpus, *vocabulary, &lesson, &mut watch)?
                }
                None => experiment::learn_nesting(&gpu, contender, DEPTHS, &lesson, &mut watch)?,
            };
            all.push(learned);
            // Save the results so far, in case the next run fails.
            save(options, &contenders, &all)?;
        }
    }
    bar.finish();
    if options.common.json {
        print_json(&all)?;
    } else {
        print(&contenders, &all)?;
        outln!("results and charts  {}", options.out.display())?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Writes results and charts.
fn save(options: &ExperimentArgs, contenders: &[Contender], all: &[Learned]) -> Result<()> {
    let subject = options.subject.name();
    let json = serde_json::to_vec_pretty(all).map_err(|e| Error::input("results", e.to_string()))?;
    write_atomic(options.out.join(format!("{subject}.json")), &json)?;
    let axes: [(&str, &str, fn(&experiment::Point) -> f64); 2] = [
        ("flops", "floating-point operations of training", |point| point.flops),
        ("time", "seconds of training", |point| point.seconds.max(1e-3)),
    ];
    for (name, label, of) in axes {
        let curves: Vec<(String, Vec<(f64, f64)>)> = contenders
            .iter()
            .map(|contender| (contender.name.clone(), mean_curve(&runs(contender, all), of)))
            .filter(|(_, points)| !points.is_empty())
            .collect();
        let picture = picture::curves(label, "held-out loss (nats per token)", &curves)?;
        write_atomic(options.out.join(format!("{subject}-{name}.svg")), picture.as_bytes())?;
    }
    let last: Vec<(String, Vec<(f64, f64)>)> = contenders
        .iter()
        .filter_map(|contender| {
            let runs = runs(contender, all);
            let parameters = runs.first()?.parameters as f64;
            Some((contender.name.clone(), vec![(parameters, mean(&runs, final_loss).0)]))
        })
        .collect();
    let picture = picture::curves("parameters", "held-out loss (nats per token)", &last)?;
    write_atomic(options.out.join(format!("{subject}-parameters.svg")), picture.as_bytes())?;
    write_atomic(options.out.join(format!("{subject}.md")), markdown(contenders, all).as_bytes())
}

fn runs<'a>(contender: &Contender, all: &'a [Learned]) -> Vec<&'a Learned> {
    all.iter().filter(|learned| learned.name == contender.name).collect()
}

/// The mean over seeds at each point of the curves.
fn mean_curve(runs: &[&Learned], of: fn(&experiment::Point) -> f64) -> Vec<(f64, f64)> {
    let points = runs.iter().map(|run| run.curve.len()).min().unwrap_or(0);
    let count = runs.len() as f64;
    let at = |i: usize, of: &dyn Fn(&experiment::Point) -> f64| {
        runs.iter().map(|run| of(&run.curve[i])).sum::<f64>() / count
    };
    (0..points).map(|i| (at(i, &of), at(i, &|point| point.loss))).collect()
}

fn final_loss(run: &Learned) -> f64 {
    run.curve.last().map_or(f64::NAN, |point| point.loss)
}

/// Mean and spread (half the range) over seeds.
fn mean(runs: &[&Learned], of: impl Fn(&Learned) -> f64) -> (f64, f64) {
    let values: Vec<f64> = runs.iter().map(|run| of(run)).collect();
    let (low, high) = values.iter().fold((f64::MAX, f64::MIN), |(l, h), &x| (l.min(x), h.max(x)));
    (values.iter().sum::<f64>() / values.len().max(1) as f64, (high - low) / 2.0)
}

/// Headings and cells of the results, for the terminal and the document.
fn cells(contenders: &[Contender], all: &[Learned]) -> (Vec<String>, Vec<Vec<String>>) {
    let depths: Vec<usize> =
        all.first().map_or(Vec::new(), |run| run.accuracy.iter().map(|(depth, _)| *depth).collect());
    let text = depths.is_empty();
    let mut head: Vec<String> =
        ["model", "parameters", "forward flop per token", "held-out loss", "training, s"].map(str::to_owned).into();
    if text {
        head.extend(["loss, causal decisions", "mean depth in decoding", "decoded tokens/s"].map(str::to_owned));
    }
    head.extend(depths.iter().map(|depth| format!("right, depth {depth}")));
    let mut rows = Vec::new();
    for contender in contenders {
        let runs = runs(contender, all);
        let Some(first) = runs.first() else { continue };
        let spread = |(mean, spread): (f64, f64), digits: usize| format!("{mean:.digits$} ± {spread:.digits$}");
        let seconds = |run: &Learned| run.curve.last().map_or(f64::NAN, |point| point.seconds);
        let mut row = vec![
            contender.name.clone(),
            human_count(first.parameters as u64),
            human_count(first.forward_flops),
            spread(mean(&runs, final_loss), 3),
            format!("{:.1}", mean(&runs, seconds).0),
        ];
        if text {
            let depth =
                first.depth.map_or("".into(), |_| format!("{:.2}", mean(&runs, |run| run.depth.unwrap_or(0.0)).0));
            row.extend([
                spread(mean(&runs, |run| run.causal_loss), 3),
                depth,
                format!("{:.0}", mean(&runs, |run| run.decoded_per_second).0),
            ]);
        }
        for index in 0..depths.len() {
            row.push(format!("{:.0} %", 100.0 * mean(&runs, |run| run.accuracy[index].1).0));
        }
        rows.push(row);
    }
    (head, rows)
}

fn print(contenders: &[Contender], all: &[Learned]) -> Result<()> {
    let (head, rows) = cells(contenders, all);
    let mut table = table(&head.iter().map(String::as_str).collect::<Vec<_>>());
    rows.into_iter().for_each(|row| {
        table.add_row(row);
    });
    outln!("{table}")
}

fn markdown(contenders: &[Contender], all: &[Learned]) -> String {
    let (head, rows) = cells(contenders, all);
    let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
    let mut text = line(&head);
    let _ = writeln!(text, "|{}", "---|".repeat(head.len()));
    rows.iter().for_each(|row| text.push_str(&line(row)));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_has_means_and_spreads_over_seeds() {
        let contenders = &expert_contenders(16)[..1];
        let run = |seed: u64, loss: f64| Learned {
            name: contenders[0].name.clone(),
            seed,
            parameters: 1000,
            forward_flops: 2000,
            curve: vec![experiment::Point { step: 1, flops: 1.0, seconds: 2.0, loss }],
            causal_loss: loss,
            depth: None,
            decoded_per_second: 10.0,
            accuracy: Vec::new(),
        };
        let all = [run(0, 2.0), run(1, 2.5)];
        let text = markdown(contenders, &all);
        assert!(text.contains("| dense | 1.0k | 2.0k | 2.250 ± 0.250 | 2.0 |"), "{text}");
        assert_eq!(mean_curve(&[&all[0], &all[1]], |point| point.flops), [(1.0, 2.25)]);
    }
}
