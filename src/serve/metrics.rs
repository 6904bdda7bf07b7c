//! What the server counts, as Prometheus reads it.

use crate::generate::SchedulerStats;
use hyper::StatusCode;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Durations, by their number and their sum.
#[derive(Debug, Default)]
struct Durations {
    count: u64,
    seconds: f64,
}

impl Durations {
    fn add(&mut self, time: Duration) {
        self.count += 1;
        self.seconds += time.as_secs_f64();
    }
}

#[derive(Debug, Default)]
pub(super) struct Metrics {
    requests: Mutex<BTreeMap<(&'static str, u16), u64>>,
    answers: Mutex<Durations>,
    first_tokens: Mutex<Durations>,
    /// Of the scheduler, if there is one that took a request.
    pub(super) scheduler: Mutex<Option<SchedulerStats>>,
    /// Prompts that were not answered to the end because their clients went away, or their time was over.
    pub(super) cancelled: AtomicU64,
    pub(super) embedded: AtomicU64,
}

impl Metrics {
    pub(super) fn count(&self, path: &'static str, status: StatusCode) {
        *self.requests.lock().entry((path, status.as_u16())).or_default() += 1;
    }

    /// The time from a request to the first token of its answers.
    pub(super) fn first_token(&self, time: Duration) {
        self.first_tokens.lock().add(time);
    }

    /// The time from a request to the end of its answers.
    pub(super) fn answered(&self, time: Duration) {
        self.answers.lock().add(time);
    }

    pub(super) fn text(&self) -> String {
        let mut page = Page::default();
        page.head("requests_total", "counter", "Requests by path and HTTP status.");
        for ((path, status), count) in &*self.requests.lock() {
            page.line(&format!("requests_total{{path=\"{path}\",status=\"{status}\"}}"), count);
        }
        for (name, help, durations) in [
            ("answer_seconds", "Seconds from a request to the end of its answers.", &self.answers),
            ("first_token_seconds", "Seconds from a request to the first token of its answers.", &self.first_tokens),
        ] {
            let durations = durations.lock();
            page.head(name, "summary", help);
            page.line(&format!("{name}_count"), durations.count);
            page.line(&format!("{name}_sum"), durations.seconds);
        }
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        page.counter(
            "cancelled_total",
            "Prompts whose clients went away, or whose time was over.",
            count(&self.cancelled),
        );
        page.counter("embedded_texts_total", "Texts that became vectors.", count(&self.embedded));
        if let Some(stats) = &*self.scheduler.lock() {
            let SchedulerStats { queued, running, pages_held, pages, .. } = *stats;
            page.gauge("prompts_queued", "Prompts that wait.", queued);
            page.gauge("prompts_running", "Prompts that are being answered.", running);
            page.gauge("cache_pages_held", "Pages of the cache that prompts hold.", pages_held);
            page.gauge("cache_pages", "Pages of the cache.", pages);
            page.counter("prompt_tokens_total", "Tokens of prompts.", stats.prompt_tokens);
            page.counter("shared_tokens_total", "Tokens of prompts that were cached already.", stats.shared_tokens);
            page.counter("new_tokens_total", "Tokens of answers.", stats.new_tokens);
            page.counter("preempted_total", "Prompts that gave up their pages and were read again.", stats.preempted);
            page.counter("runs_total", "Runs on the GPU.", stats.runs);
        }
        page.text
    }
}

/// A page in the text format of Prometheus. Names begin with `wgformer_`.
#[derive(Default)]
struct Page {
    text: String,
}

impl Page {
    fn head(&mut self, name: &str, kind: &str, help: &str) {
        let _ = write!(self.text, "# HELP wgformer_{name} {help}\n# TYPE wgformer_{name} {kind}\n");
    }

    fn line(&mut self, name: &str, value: impl std::fmt::Display) {
        let _ = writeln!(self.text, "wgformer_{name} {value}");
    }

    fn counter(&mut self, name: &str, help: &str, value: u64) {
        self.head(name, "counter", help);
        self.line(name, value);
    }

    fn gauge(&mut self, name: &str, help: &str, value: usize) {
        self.head(name, "gauge", help);
        self.line(name, value);
    }
}
