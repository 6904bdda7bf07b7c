//! The `wgformer` command: its arguments, and one file per subcommand.

mod apply;
mod args;
mod attention;
mod beams;
mod bench;
mod chat;
mod check;
mod conversation;
mod convert;
mod device;
mod devices;
mod eval;
mod experiment;
mod explicit_args;
mod generate;
mod inspect;
mod model;
mod moe_mor_args;
mod numbers;
mod output;
mod page;
mod picture;
mod plot;
mod profile;
mod progress;
mod prompts;
mod routing;
#[cfg(feature = "serve")]
mod serve;
mod train;
mod verdict;

use crate::error::{Error, Result};
use crate::io::read_text;
use crate::tasks::apply::Application;
use args::{Cli, Command};
use clap::FromArgMatches;
use explicit_args::ExplicitArgs;
use output::outln;
use std::process::ExitCode;

/// The exit code when standard output is closed: a shell reports it for a program that SIGPIPE ended.
const BROKEN_PIPE: u8 = 141;

/// Runs the command line of this process. An error is printed to standard error as one sentence, and the exit code is 1.
#[must_use]
pub fn main() -> ExitCode {
    let filter = env_logger::Env::default().default_filter_or("warn,wgpu_hal=off,wgpu_core=off");
    env_logger::Builder::from_env(filter).init();
    let matches = args::command().get_matches();
    let cli = match Cli::from_arg_matches(&matches) {
        Ok(cli) => cli,
        Err(error) => error.format(&mut args::command()).exit(),
    };
    let explicit = matches.subcommand().map(|(_, matches)| ExplicitArgs::of(matches)).unwrap_or_default();
    match run(cli, explicit) {
        Ok(code) => code,
        Err(error) if output::is_broken_pipe(&error) => ExitCode::from(BROKEN_PIPE),
        Err(error) => {
            output::note(format_args!("error: {error}"));
            ExitCode::FAILURE
        }
    }
}

fn run(cli: Cli, explicit: ExplicitArgs) -> Result<ExitCode> {
    match cli.command {
        Command::Devices(options) => devices::run(&options),
        Command::Train(options) => train::run(&options, explicit),
        Command::Generate(options) => generate::run(&options),
        Command::Chat(options) => conversation::run(&options),
        #[cfg(feature = "serve")]
        Command::Serve(options) => serve::run(&options),
        Command::Eval(options) => eval::run(&options),
        Command::Convert(options) => convert::run(&options),
        Command::Inspect(options) => inspect::run(&options),
        Command::Profile(options) => profile::run(&options),
        Command::Bench(options) => bench::run(&options),
        Command::Check(options) => check::run(&options),
        Command::Classify(options) => apply::classify(&options),
        Command::Tag(options) => apply::tag(&options),
        Command::Answer(options) => apply::answer(&options),
        Command::Coref(options) => apply::coref(&options),
        Command::Embed(options) => apply::embed(&options),
        Command::Fill(options) => apply::fill(&options),
        Command::Translate(options) => apply::write(&options, Application::Translate),
        Command::Summarise(options) => apply::write(&options, Application::Summarise),
        Command::Correct(options) => apply::write(&options, Application::Correct),
        Command::Transform(options) => apply::write(&options, Application::Transform),
        Command::Score(options) => apply::score(&options),
        Command::Search(options) => apply::search(&options),
        Command::Run(options) => apply::run(options),
        Command::Experiment(options) => experiment::run(&options),
    }
}

/// Prints a value as one JSON document.
fn print_json(value: &impl serde::Serialize) -> Result<()> {
    let text = serde_json::to_string_pretty(value).map_err(|e| Error::input("output", e.to_string()))?;
    outln!("{text}")
}

/// The texts of files, concatenated.
fn read_texts(files: &[std::path::PathBuf]) -> Result<String> {
    let mut text = String::new();
    for file in files {
        let more = read_text(file)?;
        if text.is_empty() {
            text = more;
            continue;
        }
        text.try_reserve(more.len()).map_err(|_| Error::format(file, "the text does not fit the memory: split it"))?;
        text.push_str(&more);
    }
    Ok(text)
}

/// A table as wide as it needs to be.
fn table(head: &[&str]) -> comfy_table::Table {
    let mut table = comfy_table::Table::new();
    table.load_preset(comfy_table::presets::UTF8_FULL_CONDENSED).set_header(head);
    table
}
