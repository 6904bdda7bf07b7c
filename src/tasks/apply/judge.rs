//! How good a model is at its task.

use super::judge_coref::coref;
use super::judge_pairs::pairs;
use super::{
    Answerer, Application, Classifier, EmbedSettings, Examples, Resolver, Tagger, TaskFile, TextEmbedder, Writer,
    WriterOptions,
};
use crate::error::{Error, Result};
use crate::generate::SamplingOptions;
use crate::gpu::Gpu;
use crate::io::{Config, Tokenizer};
use crate::models::{self, Model};
use crate::program::Weights;
use crate::tasks::data::{ClassExample, PairExample, QuestionExample, SpanExample};
use crate::tasks::metrics::{
    BleuOptions, ChrfOptions, ClassReport, Classification, Edits, Entity, EntityCounts, MultiLabel, Scores, bleu,
    character_error_rate, chrf, entities, exact_match, rouge_l, token_f1,
};
use std::ops::Range;
use std::sync::Arc;

/// What a model says to an example, beside what was wanted.
#[derive(Clone, Debug, PartialEq)]
pub struct Case {
    /// What the model read.
    pub input: String,
    /// What was wanted.
    pub wanted: String,
    /// What it said.
    pub said: String,
    /// Whether that is right.
    pub right: bool,
}

/// The scores of a class.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct ClassScores {
    /// Its name.
    pub class: String,
    /// Precision, recall and F1.
    pub scores: Scores,
    /// How many are of it.
    pub support: u64,
}

/// How good a model is.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Verdict {
    /// Metrics by name. The first is what a run is measured by; more is better.
    pub metrics: Vec<(String, f64)>,
    /// The scores of each class.
    pub classes: Vec<ClassScores>,
    /// How many of a true class (row) were predicted as each class (column), in the order of `classes`.
    pub confusion: Vec<Vec<u64>>,
    /// What the model said to each example.
    pub cases: Vec<Case>,
}

impl Verdict {
    /// The metric that a run is measured by.
    #[must_use]
    pub fn main(&self) -> (&str, f64) {
        self.metrics.first().map_or(("", 0.0), |(name, value)| (name.as_str(), *value))
    }
}

/// A model ready for a task whose answers can be judged.
#[derive(Debug)]
#[non_exhaustive]
pub enum Judge {
    /// Of classes.
    Classifier(Classifier),
    /// Of labelled parts.
    Tagger(Tagger),
    /// Of answers.
    Answerer(Answerer),
    /// Of mentions.
    Resolver(Resolver),
    /// Of vectors.
    Embedder(TextEmbedder, Gpu),
    /// Of texts, for that use.
    Writer(Box<Writer>, Application),
}

impl Judge {
    /// Makes a model ready for the task of its file. Texts that it writes have at most `sizes.longest_answer` tokens.
    ///
    /// # Errors
    /// [`Error::Input`] if the model is not made for the task.
    pub fn new(
        gpu: &Gpu,
        model: Arc<dyn Model>,
        weights: &Weights,
        (tokenizer, file): (&Tokenizer, &TaskFile),
        sizes: WriterOptions,
    ) -> Result<Self> {
        let longest = file.context.unwrap_or(usize::MAX);
        Ok(match file.task {
            Application::Classify => {
                let made = Classifier::new(gpu, model, weights, tokenizer, longest)?;
                Self::Classifier(made.with_prefix(file.prefix.clone()))
            }
            Application::Tag => Self::Tagger(Tagger::new(gpu, model, weights, tokenizer, longest)?),
            Application::Answer => Self::Answerer(Answerer::new(gpu, model, weights, tokenizer, longest)?),
            Application::Coref => Self::Resolver(Resolver::new(gpu, model, weights, tokenizer, longest)?),
            Application::Embed => {
                let made = TextEmbedder::new(gpu, model, weights, tokenizer, EmbedSettings::from(file))?;
                Self::Embedder(made, gpu.clone())
            }
            task if task.writes() => {
                let config = Config::new("config.json", model.config())?;
                let mut end = models::end_tokens(&config, model.dimensions().vocabulary)?;
                end.extend(tokenizer.ends());
                // A decoder has a type of its own beside other models.
                let decoder = models::model(&config)?.into_decoder();
                let decoder = decoder.ok_or_else(|| Error::input("model", "it has no decoder, and writes nothing"))?;
                let options = SamplingOptions { end, ..SamplingOptions::default() };
                let writer = Writer::new(gpu, decoder.into(), weights, (tokenizer, file), sizes, options)?;
                Self::Writer(Box::new(writer), task)
            }
            other => return Err(Error::input("task", format!("{} has no metric", other.name()))),
        })
    }

    /// Judges the model by examples; `done` is told how many it has read.
    ///
    /// # Errors
    /// [`Error::Input`] if the examples are of another kind; those of the model.
    pub fn judge(&mut self, examples: &Examples, done: &mut dyn FnMut(usize)) -> Result<Verdict> {
        match (self, examples) {
            (Self::Classifier(classifier), Examples::Classes(examples)) => classes(classifier, examples, done),
            (Self::Tagger(tagger), Examples::Spans(examples)) => tags(tagger, examples, done),
            (Self::Answerer(answerer), Examples::Questions(examples)) => answers(answerer, examples, done),
            (Self::Resolver(resolver), Examples::Corefs(examples)) => coref(resolver, examples, done),
            (Self::Embedder(embedder, gpu), Examples::Pairs(examples)) => pairs(embedder, gpu, examples, done),
            (Self::Writer(writer, task), Examples::Pairs(examples)) => texts(writer, *task, examples, done),
            _ => Err(Error::input("examples", "they are of another task than the model")),
        }
    }
}

pub(super) fn named(metrics: &[(&str, f64)]) -> Vec<(String, f64)> {
    metrics.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect()
}

fn scored<N: Into<String>>(
    names: impl IntoIterator<Item = N>,
    reports: impl IntoIterator<Item = ClassReport>,
) -> Vec<ClassScores> {
    let one = |(name, report): (N, ClassReport)| ClassScores {
        class: name.into(),
        scores: report.scores,
        support: report.support,
    };
    names.into_iter().zip(reports).map(one).collect()
}

fn ratio(a: f64, b: f64) -> f64 {
    if b == 0.0 { 0.0 } else { a / b }
}

fn classes(classifier: &mut Classifier, examples: &[ClassExample], done: &mut dyn FnMut(usize)) -> Result<Verdict> {
    let texts: Vec<(&str, Option<&str>)> =
        examples.iter().map(|example| (example.text.as_str(), example.second.as_deref())).collect();
    let found = classifier.classify(&texts, done)?;
    let labels = classifier.labels().to_vec();
    if classifier.gives_values() {
        return values(examples, &found.iter().map(|found| found.scores.clone()).collect::<Vec<_>>());
    }
    let case = |(example, found): (&ClassExample, &super::Classified)| {
        let (mut wanted, mut said) = (example.labels.clone(), found.labels.clone());
        wanted.sort();
        said.sort();
        let right = wanted == said;
        let input = [Some(example.text.as_str()), example.second.as_deref()];
        let input = input.into_iter().flatten().collect::<Vec<_>>().join(" / ");
        Case { input, wanted: wanted.join(", "), said: said.join(", "), right }
    };
    let cases: Vec<Case> = examples.iter().zip(&found).map(case).collect();
    let right = ratio(cases.iter().filter(|case| case.right).count() as f64, cases.len() as f64);
    if classifier.holds_several() {
        let held = |of: &[String]| labels.iter().map(|label| of.contains(label)).collect::<Vec<bool>>();
        let truth: Vec<Vec<bool>> = examples.iter().map(|example| held(&example.labels)).collect();
        let said: Vec<Vec<bool>> = found.iter().map(|found| held(&found.labels)).collect();
        let counts = MultiLabel::new(labels.len(), &truth, &said)
            .ok_or_else(|| Error::input("examples", "their classes can't be counted"))?;
        let (micro, macro_f1) = (counts.averages().micro, counts.averages().macro_.f1);
        let classes = scored(labels, counts.by_class());
        let metrics = named(&[("micro F1", micro.f1), ("macro F1", macro_f1), ("exact match", right)]);
        return Ok(Verdict { metrics, classes, confusion: Vec::new(), cases });
    }
    let id = |label: Option<&String>| labels.iter().position(|known| Some(known) == label);
    // A class that the model does not know is one more, which it never says.
    let truth: Vec<usize> = examples.iter().map(|x| id(x.labels.first()).unwrap_or(labels.len())).collect();
    let said: Vec<usize> = found.iter().map(|x| id(x.labels.first()).unwrap_or(labels.len())).collect();
    let unknown = usize::from(truth.contains(&labels.len()));
    let counts = Classification::new(labels.len() + unknown, &truth, &said)
        .ok_or_else(|| Error::input("examples", "their classes can't be counted"))?;
    let averages = counts.averages();
    let names = labels.iter().cloned().chain(std::iter::repeat_n("(not the model's)".to_owned(), unknown));
    let classes = scored(names, counts.by_class());
    let metrics = named(&[
        ("accuracy", counts.accuracy()),
        ("macro F1", averages.macro_of_present.f1),
        ("correlation", counts.correlation()),
    ]);
    Ok(Verdict { metrics, classes, confusion: counts.confusion, cases })
}

/// Values by the share of their variance that is explained, R².
fn values(examples: &[ClassExample], found: &[Vec<f64>]) -> Result<Verdict> {
    let number = |label: &String| {
        label.trim().parse::<f64>().map_err(|_| Error::input("label", format!("{label:?} is no number")))
    };
    let wanted: Vec<Vec<f64>> =
        examples.iter().map(|example| example.labels.iter().map(number).collect()).collect::<Result<_>>()?;
    let pairs: Vec<(f64, f64)> = wanted.iter().flatten().copied().zip(found.iter().flatten().copied()).collect();
    let mean = ratio(pairs.iter().map(|(wanted, _)| wanted).sum(), pairs.len() as f64);
    let spread: f64 = pairs.iter().map(|(wanted, _)| (wanted - mean).powi(2)).sum();
    let errors: f64 = pairs.iter().map(|(wanted, said)| (wanted - said).powi(2)).sum();
    let metrics =
        named(&[("R²", 1.0 - ratio(errors, spread)), ("mean squared error", ratio(errors, pairs.len() as f64))]);
    let shown = |values: &[f64]| values.iter().map(|x| format!("{x:.4}")).collect::<Vec<_>>().join(", ");
    let case = |((example, wanted), said): ((&ClassExample, &Vec<f64>), &Vec<f64>)| Case {
        input: example.text.clone(),
        wanted: shown(wanted),
        said: shown(said),
        right: wanted.iter().zip(said).all(|(a, b)| (a - b).abs() <= 0.05 * a.abs().max(1.0)),
    };
    let cases = examples.iter().zip(&wanted).zip(found).map(case).collect();
    Ok(Verdict { metrics, cases, ..Verdict::default() })
}

fn tags(tagger: &mut Tagger, examples: &[SpanExample], done: &mut dyn FnMut(usize)) -> Result<Verdict> {
    let words: Vec<Vec<Range<usize>>> = examples.iter().map(SpanExample::word_ranges).collect();
    let pairs: Vec<(&str, &[Range<usize>])> =
        examples.iter().map(|example| example.text.as_str()).zip(words.iter().map(Vec::as_slice)).collect();
    let found = tagger.tag_words(&pairs, done)?;
    let mut counts = EntityCounts::default();
    let (mut cases, mut right_words, mut all_words) = (Vec::new(), 0_usize, 0_usize);
    for ((example, found), words) in examples.iter().zip(&found).zip(&words) {
        let truth = example.to_tags()?.tags;
        let said: Vec<&str> = found.iter().map(|(tag, _)| tag.as_str()).collect();
        right_words += truth.iter().zip(&said).filter(|(a, b)| a == *b).count();
        all_words += truth.len();
        let (wanted, said) = (entities(&truth), entities(&said));
        counts.add(&wanted, &said);
        let shown = |entities: &[Entity]| {
            let one = |entity: &Entity| {
                let (first, last) = (words.get(entity.first)?, words.get(entity.last)?);
                Some(format!("{} ({})", example.text.get(first.start..last.end)?, entity.class))
            };
            entities.iter().filter_map(one).collect::<Vec<_>>().join(", ")
        };
        let right = wanted == said;
        cases.push(Case { input: example.text.clone(), wanted: shown(&wanted), said: shown(&said), right });
    }
    let micro = counts.averages().map(|averages| averages.micro).unwrap_or_default();
    let metrics = named(&[
        ("span F1", micro.f1),
        ("precision", micro.precision),
        ("recall", micro.recall),
        ("word accuracy", ratio(right_words as f64, all_words as f64)),
    ]);
    let (names, reports): (Vec<&str>, Vec<ClassReport>) = counts.by_class().into_iter().unzip();
    let classes = scored(names, reports);
    Ok(Verdict { metrics, classes, confusion: Vec::new(), cases })
}

fn answers(answerer: &mut Answerer, examples: &[QuestionExample], done: &mut dyn FnMut(usize)) -> Result<Verdict> {
    let questions: Vec<(&str, &str)> =
        examples.iter().map(|example| (example.question.as_str(), example.context.as_str())).collect();
    let found = answerer.answer(&questions, done)?;
    // Where some have no answer, none is said if it scores higher: the rules of SQuAD 2.0.
    let some_have_none = examples.iter().any(|example| example.impossible || example.answers.is_empty());
    let (mut exact, mut f1, mut cases) = (0.0, 0.0, Vec::new());
    for (example, found) in examples.iter().zip(&found) {
        let said = if some_have_none && found.none > 0.0 { "" } else { found.text.as_str() };
        let wanted: Vec<&str> =
            if example.impossible { Vec::new() } else { example.answers.iter().map(|x| x.text.as_str()).collect() };
        let right = exact_match(said, &wanted);
        exact += f64::from(u8::from(right));
        f1 += token_f1(said, &wanted, if some_have_none { 1.0 } else { 0.0 });
        cases.push(Case {
            input: format!("{} / {}", example.question, example.context),
            wanted: wanted.join(" | "),
            said: said.to_owned(),
            right,
        });
    }
    let count = examples.len() as f64;
    Ok(Verdict {
        metrics: named(&[("F1", ratio(f1, count)), ("exact match", ratio(exact, count))]),
        cases,
        ..Verdict::default()
    })
}

fn texts(
    writer: &mut Writer,
    task: Application,
    examples: &[PairExample],
    done: &mut dyn FnMut(usize),
) -> Result<Verdict> {
    let sources: Vec<&str> = examples.iter().map(|example| example.source.as_str()).collect();
    let said = writer.write(&sources, done)?;
    let wanted: Vec<&str> = examples.iter().map(|example| example.target.as_deref().unwrap_or_default()).collect();
    let case = |((example, wanted), said): ((&PairExample, &&str), &String)| Case {
        input: example.source.clone(),
        wanted: (*wanted).to_owned(),
        said: said.clone(),
        right: said.trim() == wanted.trim(),
    };
    let cases: Vec<Case> = examples.iter().zip(&wanted).zip(&said).map(case).collect();
    let count = cases.len() as f64;
    let exact = ratio(cases.iter().filter(|case| case.right).count() as f64, count);
    let said: Vec<&str> = said.iter().map(String::as_str).collect();
    let errors = character_error_rate(&wanted, &said).map_or(0.0, Edits::rate);
    let references: Vec<Vec<&str>> = wanted.iter().map(|wanted| vec![*wanted]).collect();
    let rouge = ratio(wanted.iter().zip(&said).map(|(wanted, said)| rouge_l(wanted, said).f1).sum(), count);
    let bleu = bleu(&said, &references, &BleuOptions::default()).map_or(0.0, |bleu| bleu.score);
    let chrf = chrf(&said, &references, &ChrfOptions::default()).unwrap_or(0.0);
    let mut metrics = named(&[
        ("exact match", exact),
        ("BLEU", bleu),
        ("chrF", chrf),
        ("ROUGE-L", rouge),
        ("character error rate", errors),
    ]);
    let main = match task {
        Application::Translate => 1,
        Application::Summarise => 3,
        _ => 0,
    };
    metrics[..=main].rotate_right(1);
    Ok(Verdict { metrics, cases, ..Verdict::default() })
}
