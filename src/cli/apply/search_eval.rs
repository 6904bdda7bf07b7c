//! `wgformer search --eval`: how well an index finds what is relevant, beside a search by words.

use super::search::Searcher;
use crate::cli::args::SearchArgs;
use crate::cli::page::{STYLE, escape, section};
use crate::cli::{outln, print_json, table};
use crate::error::{Error, Result};
use crate::io::write_atomic;
use crate::tasks::apply::IndexedFile;
use crate::tasks::data::{Record, read_records};
use crate::tasks::metrics::{Bm25, Ranking};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt::Write;
use std::path::Path;
use std::process::ExitCode;

/// Results that are looked at.
const DEPTH: usize = 100;
/// Queries on the page.
const SHOWN: usize = 200;
const METRICS: [&str; 5] = ["MRR@10", "nDCG@10", "recall@1", "recall@10", "recall@100"];

/// A query with the passages that are relevant to it.
struct Query {
    text: String,
    relevant: BTreeSet<usize>,
}

/// What a way of searching found.
struct Method {
    name: &'static str,
    means: Vec<f64>,
    /// The rank of the first relevant passage of each query.
    ranks: Vec<Option<usize>>,
}

pub(super) fn run(options: &SearchArgs, searcher: &mut Searcher<'_>, examples: &Path) -> Result<ExitCode> {
    let files = searcher.index.files();
    let mut texts: Vec<String> = Vec::new();
    let mut places: Vec<(&IndexedFile, usize)> = Vec::new();
    for file in files {
        let text = file.read()?;
        for passage in &file.passages {
            let part = text.get(passage.start..passage.end);
            texts.push(part.ok_or_else(|| Error::format(&file.path, "has no such passage"))?.to_owned());
            places.push((file, passage.line));
        }
    }
    let records = read_records(&[examples.to_owned()], &Default::default())?;
    let known = Known::new(&texts, &places);
    let queries: Vec<Query> = records.iter().map(|record| known.query(record)).collect::<Result<_>>()?;
    let asked: Vec<&str> = queries.iter().map(|query| query.text.as_str()).collect();
    let found = searcher.search(&asked, DEPTH)?;
    let vectors: Vec<Vec<usize>> =
        found.into_iter().map(|hits| hits.into_iter().map(|hit| hit.number).collect()).collect();
    let words = Bm25::new(&texts);
    let by_words: Vec<Vec<usize>> = asked
        .iter()
        .map(|query| words.rank(query).into_iter().take(DEPTH).map(|(number, _)| number).collect())
        .collect();
    let methods = [method("vectors", &queries, &vectors)?, method("BM25", &queries, &by_words)?];
    if let Some(path) = &options.html {
        write_atomic(path, page(options, texts.len(), &queries, &methods).as_bytes())?;
    }
    if options.common.json {
        let scores = |method: &Method| {
            let means = METRICS.iter().zip(&method.means).map(|(name, mean)| ((*name).to_owned(), json!(mean)));
            (method.name.to_lowercase(), Value::Object(means.collect()))
        };
        let metrics: BTreeMap<String, Value> = methods.iter().map(scores).collect();
        print_json(&json!({"queries": queries.len(), "passages": texts.len(), "metrics": metrics}))?;
        return Ok(ExitCode::SUCCESS);
    }
    outln!("{} queries, {} passages", queries.len(), texts.len())?;
    let mut rows = table(&["metric", "vectors", "BM25"]);
    for (at, name) in METRICS.iter().enumerate() {
        rows.add_row([
            (*name).to_owned(),
            format!("{:.4}", methods[0].means[at]),
            format!("{:.4}", methods[1].means[at]),
        ]);
    }
    outln!("{rows}")?;
    if let Some(path) = &options.html {
        outln!("page  {}", path.display())?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Passages by their texts and files.
struct Known<'a> {
    by_text: HashMap<&'a str, Vec<usize>>,
    places: &'a [(&'a IndexedFile, usize)],
}

impl<'a> Known<'a> {
    fn new(texts: &'a [String], places: &'a [(&'a IndexedFile, usize)]) -> Self {
        let mut by_text: HashMap<&str, Vec<usize>> = HashMap::new();
        for (number, text) in texts.iter().enumerate() {
            by_text.entry(text.trim()).or_default().push(number);
        }
        Self { by_text, places }
    }

    fn query(&self, record: &Record) -> Result<Query> {
        let text = record.fields.get("query").and_then(Value::as_str).filter(|text| !text.trim().is_empty());
        let text = text.ok_or_else(|| record.error("a \"query\" is needed, which is a text"))?;
        let named: Vec<&str> = match record.fields.get("relevant") {
            Some(Value::String(one)) => vec![one],
            Some(Value::Array(all)) => all.iter().filter_map(Value::as_str).collect(),
            _ => Vec::new(),
        };
        let mut relevant = BTreeSet::new();
        for name in &named {
            let found = self.passages(name);
            if found.is_empty() {
                let message = format!(
                    "{name:?} is no passage of the index: write the passage's whole text, FILE:LINE where it begins, or FILE for all of a file"
                );
                return Err(record.error(message));
            }
            relevant.extend(found);
        }
        match relevant.is_empty() {
            true => Err(record.error("\"relevant\" is needed: a list of passages' texts, or of FILE:LINE")),
            false => Ok(Query { text: text.to_owned(), relevant }),
        }
    }

    /// The passages of a text, of `FILE:LINE`, or of a file.
    fn passages(&self, name: &str) -> Vec<usize> {
        if let Some(found) = self.by_text.get(name.trim()) {
            return found.clone();
        }
        let numbers = |fits: &dyn Fn(&IndexedFile, usize) -> bool| {
            let all = self.places.iter().enumerate();
            all.filter(|(_, (file, line))| fits(file, *line)).map(|(number, _)| number).collect::<Vec<_>>()
        };
        let line = name.rsplit_once(':').and_then(|(file, line)| Some((file, line.parse::<usize>().ok()?)));
        match line {
            Some((name, wanted)) => numbers(&|file, line| line == wanted && file.path.ends_with(name)),
            None if name.is_empty() => Vec::new(),
            None => numbers(&|file, _| file.path.ends_with(name)),
        }
    }
}

/// The metrics of what was found, the best first, of which the first [`DEPTH`] are known.
fn method(name: &'static str, queries: &[Query], found: &[Vec<usize>]) -> Result<Method> {
    let mut sums = vec![0.0; METRICS.len()];
    let mut ranks = Vec::new();
    for (query, found) in queries.iter().zip(found) {
        let mut relevance: Vec<f64> =
            found.iter().map(|number| f64::from(u8::from(query.relevant.contains(number)))).collect();
        let missing = query.relevant.len() - relevance.iter().filter(|relevance| **relevance > 0.0).count();
        // What was not found is behind all that is looked at.
        relevance.resize(DEPTH.max(relevance.len()), 0.0);
        relevance.resize(relevance.len() + missing, 1.0);
        let scores: Vec<f64> = (0..relevance.len()).map(|rank| -(rank as f64)).collect();
        let ranking = Ranking::new(&scores, &relevance).ok_or_else(|| Error::input("eval", "a ranking is empty"))?;
        let values =
            [ranking.reciprocal_rank(10), ranking.ndcg(10), ranking.recall(1), ranking.recall(10), ranking.recall(100)];
        sums.iter_mut().zip(values).for_each(|(sum, value)| *sum += value);
        ranks.push(found.iter().position(|number| query.relevant.contains(number)).map(|at| at + 1));
    }
    let means = sums.into_iter().map(|sum| sum / queries.len().max(1) as f64).collect();
    Ok(Method { name, means, ranks })
}

fn page(options: &SearchArgs, passages: usize, queries: &[Query], methods: &[Method; 2]) -> String {
    let title = escape(&format!("Search in {}", options.index.display()));
    let mut page = format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n<meta name=\"viewport\" content=\"width=device-width\">\n\
         <title>{title}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<main>\n<h1>{title}</h1>\n<p>{} queries, {passages} passages</p>\n",
        queries.len()
    );
    let mut rows = String::from("<table>\n<tr><th>metric</th><th>vectors</th><th>BM25</th></tr>\n");
    for (at, name) in METRICS.iter().enumerate() {
        let [vectors, words] = [&methods[0].means[at], &methods[1].means[at]];
        let _ = writeln!(rows, "<tr><td>{name}</td><td>{vectors:.4}</td><td>{words:.4}</td></tr>");
    }
    let text =
        "The mean over queries of each metric, by the model's vectors and by shared words (BM25, k₁ = 1.2, b = 0.75).";
    section(&mut page, "Metrics", text, &(rows + "</table>"));
    let rank = |rank: Option<usize>| rank.map_or_else(|| format!("> {DEPTH}"), |rank| rank.to_string());
    let mut order: Vec<usize> = (0..queries.len()).collect();
    order.sort_by_key(|&at| std::cmp::Reverse(methods[0].ranks[at].unwrap_or(usize::MAX)));
    let mut rows =
        String::from("<div class=\"scroll\"><table>\n<tr><th>query</th><th>vectors</th><th>BM25</th></tr>\n");
    for at in order.into_iter().take(SHOWN) {
        let (query, [vectors, words]) = (escape(&queries[at].text), [0, 1].map(|i: usize| rank(methods[i].ranks[at])));
        let _ = writeln!(rows, "<tr><td>{query}</td><td>{vectors}</td><td>{words}</td></tr>");
    }
    let text = format!("The rank of the first relevant passage, the worst by vectors first, up to {SHOWN} queries.");
    section(&mut page, "Queries", &text, &(rows + "</table></div>"));
    page + "</main>\n</body>\n</html>\n"
}
