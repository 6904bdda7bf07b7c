//! `wgformer classify`: classes of texts.

use super::{Opened, in_chunks, on_a_line, print_found, records};
use crate::cli::args::ClassifyArgs;
use crate::cli::outln;
use crate::error::{Error, Result};
use crate::tasks::apply::{Classified, Classifier, softmax};
use crate::tasks::data::{ClassExample, Record};
use serde_json::{Value, json};
use std::process::ExitCode;

pub(in crate::cli) fn run(options: &ClassifyArgs) -> Result<ExitCode> {
    let records = records(&options.apply)?;
    let columns = options.apply.examples.columns()?;
    let opened = Opened::new(&options.apply)?;
    let (gpu, longest) = (&opened.device.gpu, opened.longest());
    let mut classifier = Classifier::new(gpu, opened.model.clone(), &opened.weights, &opened.tokenizer, longest)?
        .with_prefix(opened.file.prefix.clone());
    opened.device.save_caches();
    let own = match options.labels.is_empty() {
        true => None,
        false => Some(Hypotheses::new(options, &classifier)?),
    };
    in_chunks(&records, "texts", |chunk, done| {
        let examples: Vec<ClassExample> =
            chunk.iter().map(|record| ClassExample::from_record(record, &columns)).collect::<Result<_>>()?;
        let found = match &own {
            Some(own) => own.classify(&mut classifier, &examples, done)?,
            None => {
                let texts: Vec<(&str, Option<&str>)> =
                    examples.iter().map(|example| (example.text.as_str(), example.second.as_deref())).collect();
                classifier.classify(&texts, done)?
            }
        };
        let names = own.as_ref().map_or(classifier.labels(), |own| own.labels);
        let values = own.is_none() && classifier.gives_values();
        let several = own.as_ref().map_or(classifier.holds_several(), |_| options.several);
        for ((record, example), found) in chunk.iter().zip(&examples).zip(&found) {
            if options.apply.common.json {
                print_json(record, found, names, several)?;
            } else if values {
                let values: Vec<String> = found.scores.iter().map(|value| format!("{value:.4}")).collect();
                outln!("{}\t{}", values.join(" "), on_a_line(&example.text))?;
            } else {
                let best = found.scores.iter().copied().fold(0.0, f64::max);
                let labels = if found.labels.is_empty() { "-".to_owned() } else { found.labels.join(", ") };
                outln!("{labels}\t{best:.4}\t{}", on_a_line(&example.text))?;
            }
        }
        Ok(())
    })?;
    Ok(ExitCode::SUCCESS)
}

fn print_json(record: &Record, found: &Classified, names: &[String], several: bool) -> Result<()> {
    let scores: serde_json::Map<String, Value> =
        names.iter().cloned().zip(found.scores.iter().map(|score| json!(score))).collect();
    let said = if several { json!(found.labels) } else { json!(found.labels.first()) };
    print_found(record, vec![("predicted", said), ("scores", scores.into())])
}

/// Classes of one's own, by whether a text entails a sentence about each (Yin et al., arXiv 1909.00161).
struct Hypotheses<'a> {
    labels: &'a [String],
    sentences: Vec<String>,
    /// The numbers of the classes that say that a sentence follows, or contradicts.
    entails: usize,
    contradicts: Option<usize>,
    several: bool,
}

impl<'a> Hypotheses<'a> {
    fn new(options: &'a ClassifyArgs, classifier: &Classifier) -> Result<Self> {
        let find = |start: &str| classifier.labels().iter().position(|label| label.to_lowercase().starts_with(start));
        let entails = find("entail").ok_or_else(|| {
            let message = format!(
                "the model has the classes {}, and none is called entailment: --labels needs a model of natural language inference",
                classifier.labels().join(", ")
            );
            Error::input("labels", message)
        })?;
        if !options.hypothesis.contains("{}") {
            return Err(Error::input("hypothesis", "it has no {} where the class belongs"));
        }
        let sentences = options.labels.iter().map(|label| options.hypothesis.replace("{}", label)).collect();
        Ok(Self { labels: &options.labels, sentences, entails, contradicts: find("contra"), several: options.several })
    }

    fn classify(
        &self,
        classifier: &mut Classifier,
        examples: &[ClassExample],
        done: &mut dyn FnMut(usize),
    ) -> Result<Vec<Classified>> {
        let count = self.sentences.len();
        let pairs: Vec<(&str, Option<&str>)> = examples
            .iter()
            .flat_map(|example| self.sentences.iter().map(|sentence| (example.text.as_str(), Some(sentence.as_str()))))
            .collect();
        let found = classifier.classify(&pairs, &mut |read| done(read / count.max(1)))?;
        let of_text = |found: &[Classified]| {
            // As the field does it: each alone against contradiction, or all by their logits of entailment together.
            let logits: Vec<f32> = found.iter().map(|found| found.logits[self.entails]).collect();
            let alone = |found: &Classified| match self.contradicts {
                Some(no) => softmax(&[found.logits[no], found.logits[self.entails]])[1],
                None => found.scores[self.entails],
            };
            let scores: Vec<f64> = if self.several { found.iter().map(alone).collect() } else { softmax(&logits) };
            let mut order: Vec<usize> = (0..scores.len()).collect();
            order.sort_by(|a, b| scores[*b].total_cmp(&scores[*a]).then(a.cmp(b)));
            let most = if self.several { usize::MAX } else { 1 };
            let holds = order.into_iter().filter(|&id| !self.several || scores[id] > 0.5).take(most);
            Classified { labels: holds.filter_map(|id| self.labels.get(id).cloned()).collect(), scores, logits }
        };
        Ok(found.chunks(count.max(1)).map(of_text).collect())
    }
}
