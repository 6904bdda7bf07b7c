//! Progress on standard error: a bar on a terminal, else a line now and then.

use super::output;
use indicatif::{HumanDuration, ProgressBar, ProgressStyle};
use parking_lot::{Condvar, Mutex};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// The time to the first line about work that takes minutes.
pub(super) const SOON: Duration = Duration::from_millis(500);
/// The time between two lines.
pub(super) const EVERY: Duration = Duration::from_secs(10);

/// Prints a line now and then, from another thread, until it is dropped.
#[derive(Debug)]
pub(super) struct Lines {
    done: Arc<(Mutex<bool>, Condvar)>,
    thread: Option<JoinHandle<()>>,
}

impl Lines {
    /// Prints `describe(elapsed)`, for the first time after `first`.
    pub(super) fn start(first: Duration, describe: impl Fn(Duration) -> String + Send + 'static) -> Self {
        let done = Arc::new((Mutex::new(false), Condvar::new()));
        let flag = done.clone();
        let began = Instant::now();
        let thread = std::thread::spawn(move || {
            let (done, woken) = &*flag;
            let mut done = done.lock();
            let mut next = began + first;
            while !*done {
                if woken.wait_until(&mut done, next).timed_out() && !*done {
                    output::note(format_args!("{}", describe(began.elapsed())));
                    next = Instant::now() + EVERY;
                }
            }
        });
        Self { done, thread: Some(thread) }
    }
}

impl Drop for Lines {
    fn drop(&mut self) {
        *self.done.0.lock() = true;
        self.done.1.notify_all();
        if let Some(thread) = self.thread.take() {
            // A failure to print is not an error.
            let _ = thread.join();
        }
    }
}

#[derive(Debug, Default)]
struct State {
    what: String,
    done: u64,
    total: u64,
}

/// The progress of a number of items that are done one after the other.
#[derive(Debug)]
pub(super) struct Progress {
    bar: ProgressBar,
    state: Arc<Mutex<State>>,
    /// Without a terminal.
    lines: Option<Lines>,
}

impl Progress {
    /// `total` items of a kind, such as `steps` or `rows`. Without a terminal the first line comes after `first`.
    pub(super) fn new(total: u64, kind: &'static str, first: Duration) -> Self {
        let template = format!("{{bar:30}} {{pos}}/{{len}} {kind}  {{elapsed}}, {{eta}} left  {{msg}}");
        let style = ProgressStyle::with_template(&template).unwrap_or_else(|_| ProgressStyle::default_bar());
        let bar = ProgressBar::new(total).with_style(style);
        bar.enable_steady_tick(Duration::from_millis(200));
        let state = Arc::new(Mutex::new(State { total, ..State::default() }));
        let shared = state.clone();
        let lines = bar.is_hidden().then(|| Lines::start(first, move |elapsed| line(&shared.lock(), kind, elapsed)));
        Self { bar, state, lines }
    }

    pub(super) fn set_total(&self, total: u64) {
        self.bar.set_length(total);
        self.state.lock().total = total;
    }

    /// Sets the name of the current item.
    pub(super) fn set_message(&self, what: impl Into<String>) {
        let what = what.into();
        self.bar.set_message(what.clone());
        self.state.lock().what = what;
    }

    /// Begins the next item and ends the previous one.
    pub(super) fn begin(&self, what: &str) {
        if !self.state.lock().what.is_empty() {
            self.inc();
        }
        self.set_message(what);
    }

    /// Counts one more item as done.
    pub(super) fn inc(&self) {
        self.bar.inc(1);
        self.state.lock().done += 1;
    }

    /// Prints a permanent line above the bar, if there is one.
    pub(super) fn println(&self, text: &str) {
        self.bar.println(text);
    }

    pub(super) fn finish(self) {
        self.bar.finish_and_clear();
        drop(self.lines);
    }
}

fn line(state: &State, kind: &str, elapsed: Duration) -> String {
    let State { what, done, total } = state;
    let mut line = format!("{what}: {done} of {total} {kind}, {} so far", HumanDuration(elapsed));
    if *done > 0 && total > done {
        let left = elapsed.mul_f64((total - done) as f64 / *done as f64);
        line += &format!(", about {} left", HumanDuration(left));
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_what_runs_how_far_it_is_and_how_long_it_takes() {
        let mut state = State { what: "gemv".into(), done: 0, total: 8 };
        assert_eq!(line(&state, "rows", Duration::from_secs(3)), "gemv: 0 of 8 rows, 3 seconds so far");
        state.done = 2;
        let said = line(&state, "rows", Duration::from_secs(20));
        assert_eq!(said, "gemv: 2 of 8 rows, 20 seconds so far, about 60 seconds left");
    }

    #[test]
    fn lines_end_with_what_they_tell_of() {
        let (sender, receiver) = std::sync::mpsc::channel();
        let lines = Lines::start(Duration::from_millis(1), move |_| {
            let _ = sender.send(());
            "a line of a test".into()
        });
        receiver.recv().unwrap();
        drop(lines);
        assert!(receiver.recv().is_err(), "the thread goes on");
    }
}
