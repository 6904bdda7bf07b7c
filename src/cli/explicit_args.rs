//! The explicit options of a run, saved with its checkpoints, so that a resumed run keeps them.

use super::args::{Cli, Command, NEW_MODEL_OPTIONS, TrainArgs};
use crate::error::{Error, Result};
use crate::io::file::read_json_if_there;
use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, CommandFactory, Parser};
use std::collections::BTreeMap;
use std::path::Path;

/// The file of the options in a checkpoint.
pub(super) const FILE: &str = "options.json";
/// Options of one command, which are not options of the run.
const PER_COMMAND: [&str; 3] = ["resume", "out", "json"];
/// Options that a run can't change: those of the model, the seed, and what a text is.
const FIXED: [&str; 17] = [
    "model",
    "layers",
    "heads",
    "kv_heads",
    "width",
    "moe",
    "mor",
    "mor_init",
    "dropout",
    "tokenizer",
    "from",
    "seed",
    "pack",
    "bucket",
    "task",
    "multi_label",
    "regression",
];

/// Explicit options of `wgformer train`: names, and values as text.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(super) struct ExplicitArgs(BTreeMap<String, Vec<String>>);

impl ExplicitArgs {
    /// The options on this command line.
    pub(super) fn of(matches: &ArgMatches) -> Self {
        let ids = matches.ids().map(clap::Id::as_str);
        let ids = ids.filter(|id| matches.value_source(id) == Some(ValueSource::CommandLine));
        let words = |id: &str| {
            argument(id)?;
            let raw = matches.try_get_raw(id).ok().flatten()?;
            Some((id.to_owned(), raw.map(|word| word.to_string_lossy().into_owned()).collect()))
        };
        Self(ids.filter_map(words).collect())
    }

    /// The options of a checkpoint; none if an earlier version wrote it without them.
    ///
    /// # Errors
    /// [`Error::Format`] if the file is malformed.
    pub(super) fn load(checkpoint: &Path) -> Result<Self> {
        let path = checkpoint.join(FILE);
        let Some(value) = read_json_if_there(&path)? else { return Ok(Self::default()) };
        serde_json::from_value(value).map_err(|e| Error::format(&path, e.to_string()))
    }

    /// The options as saved in a checkpoint.
    ///
    /// # Errors
    /// [`Error::Input`] if they can't be written as JSON.
    pub(super) fn to_json(&self) -> Result<Vec<u8>> {
        let saved = self.0.iter().filter(|(id, _)| !PER_COMMAND.contains(&id.as_str()));
        serde_json::to_vec_pretty(&saved.collect::<BTreeMap<_, _>>()).map_err(|e| Error::input(FILE, e.to_string()))
    }

    /// Adds the options of `older`, with which the run began, that are missing here, and returns them as command-line words.
    ///
    /// # Errors
    /// [`Error::Input`] if an option that a run can't change has another value here.
    pub(super) fn inherit(&mut self, mut older: Self) -> Result<Vec<String>> {
        if older.0.contains_key("from") {
            // These had no effect.
            older.0.retain(|id, _| !NEW_MODEL_OPTIONS.contains(&id.as_str()));
        }
        let changed = |id: &&&str| self.0.get(**id).is_some_and(|now| !same(id, now, &older.value(id)));
        // Runs of earlier versions have no saved options to compare with.
        if let Some(id) = FIXED.iter().find(changed).filter(|_| !older.0.is_empty()) {
            let began = older.value(id);
            let with = if began.is_empty() {
                format!("without --{}", id.replace('_', "-"))
            } else {
                format!("with {}", written(id, &began).join(" "))
            };
            let message =
                format!("the run began {with}, which can't change: leave the option out, or begin another run (--out)");
            return Err(Error::input(id.replace('_', "-"), message));
        }
        let new: Vec<(String, Vec<String>)> = older.0.into_iter().filter(|(id, _)| !self.0.contains_key(id)).collect();
        let words = new.iter().flat_map(|(id, values)| written(id, values)).collect();
        self.0.extend(new);
        Ok(words)
    }

    /// The number of sequences in a batch, if it is known.
    pub(super) fn batch(&self) -> Option<usize> {
        self.value("batch").first().and_then(|size| size.parse().ok())
    }

    /// The value of an option, or its default.
    fn value(&self, id: &str) -> Vec<String> {
        let moe_or_mor = ["moe", "mor"].iter().any(|option| self.0.contains_key(*option));
        let default = |arg: Arg| {
            if id == "model" {
                return vec![if moe_or_mor { "llama" } else { "gpt2" }.to_owned()];
            }
            let values = arg.get_default_values().iter();
            values.map(|value| value.to_string_lossy().into_owned()).collect()
        };
        self.0.get(id).cloned().or_else(|| argument(id).map(default)).unwrap_or_default()
    }

    /// Parses these options as arguments of `wgformer train`.
    ///
    /// # Errors
    /// [`Error::Input`] with the error of the command line.
    pub(super) fn parse(&self) -> Result<TrainArgs> {
        let words = self.0.iter().flat_map(|(id, values)| assigned(id, values));
        let line = ["wgformer", "train"].map(str::to_owned).into_iter().chain(words);
        match Cli::try_parse_from(line).map(|cli| cli.command) {
            Ok(Command::Train(options)) => Ok(*options),
            Ok(_) => Err(Error::input(FILE, "these options are not those of a training run")),
            Err(error) => {
                let message = error.render().to_string();
                let message = message.lines().next().unwrap_or_default().trim_start_matches("error: ");
                Err(Error::input("the run's options together with the present ones", message.to_owned()))
            }
        }
    }
}

/// The option of `wgformer train` with that id; `None` for groups of options.
fn argument(id: &str) -> Option<Arg> {
    Cli::command().find_subcommand("train")?.get_arguments().find(|arg| arg.get_id() == id).cloned()
}

/// Whether two values of an option are equivalent.
fn same(id: &str, a: &[String], b: &[String]) -> bool {
    let number = |values: &[String]| values.first().and_then(|value| value.parse::<f64>().ok());
    let place = |values: &[String]| values.first().and_then(|path| std::fs::canonicalize(path).ok());
    a == b
        || match id {
            "dropout" => number(a).is_some_and(|a| number(b) == Some(a)),
            "from" => place(a).is_some_and(|a| place(b) == Some(a)),
            _ => false,
        }
}

/// The name of an option on a command line, and its values; a flag has none.
fn parts<'a>(id: &str, values: &'a [String]) -> (String, &'a [String]) {
    let arg = argument(id);
    let name = format!("--{}", arg.as_ref().and_then(Arg::get_long).unwrap_or(id));
    let flag = arg.is_some_and(|arg| matches!(arg.get_action(), ArgAction::SetTrue));
    (name, if flag { &[] } else { values })
}

/// An option as command-line words.
fn written(id: &str, values: &[String]) -> Vec<String> {
    let (name, values) = parts(id, values);
    std::iter::once(name).chain(values.iter().cloned()).collect()
}

/// An option as `--name=value`, so that values may begin with a dash.
fn assigned(id: &str, values: &[String]) -> Vec<String> {
    match parts(id, values) {
        (name, []) => vec![name],
        (name, values) => values.iter().map(|value| format!("{name}={value}")).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(line: &str) -> ExplicitArgs {
        let words = ["wgformer", "train"].into_iter().chain(line.split_whitespace());
        let matches = Cli::command().try_get_matches_from(words).unwrap();
        ExplicitArgs::of(matches.subcommand().unwrap().1)
    }

    #[test]
    fn a_resumed_run_keeps_its_options_except_those_given_again() {
        let first =
            args("--data a.txt b.txt --batch 3 --lr 0.25 --recompute --out x --tokenizer bytes --dtype bf16 --json");
        let saved: ExplicitArgs = serde_json::from_slice(&first.to_json().unwrap()).unwrap();
        let mut now = args("--resume --out y --lr 0.5 --seed 1");
        let inherited = now.inherit(saved.clone()).unwrap();
        assert_eq!(inherited.join(" "), "--batch 3 --data a.txt b.txt --dtype bf16 --recompute --tokenizer bytes");
        let options = now.parse().unwrap();
        assert_eq!((options.batch, options.lr, options.recompute, options.resume), (3, Some(0.5), true, true));
        assert_eq!((options.tokenizer.as_str(), options.out.as_path()), ("bytes", Path::new("y")));
        assert_eq!(options.data, [Path::new("a.txt"), Path::new("b.txt")]);
        assert!(!options.common.json);
        // A run that is resumed again inherits all of them.
        let again: ExplicitArgs = serde_json::from_slice(&now.to_json().unwrap()).unwrap();
        assert_eq!(again.0["lr"], ["0.5"]);
        assert_eq!(again.0["data"], saved.0["data"]);
    }

    #[test]
    fn invalid_and_changed_options_are_refused() {
        let error_of = |line: &str| args(line).parse().map(|_| String::new()).unwrap_or_else(|e| e.to_string());
        let mut now = args("--resume");
        now.inherit(serde_json::from_str(r#"{"warp": ["9"], "data": ["a"]}"#).unwrap()).unwrap();
        let message = now.parse().map(|_| String::new()).unwrap_or_else(|e| e.to_string());
        assert!(message.contains("unexpected argument '--warp'"), "{message}");
        assert_eq!(error_of("--data a --batch 3"), "");
        assert_eq!(error_of("--data=-a.txt --data=-b.txt --lr 3"), "");
        let changed = |line: &str| args(line).inherit(args("--data a --width 32")).unwrap_err().to_string();
        assert!(changed("--resume --width 64").contains("the run began with --width 32"));
        assert!(changed("--resume --seed 9").contains("the run began with --seed 1"));
        assert!(changed("--resume --moe 8:2").contains("the run began without --moe"));
        let goes_on = |now: &str, before: &str| args(now).inherit(args(before)).is_ok();
        assert!(goes_on("--resume --dropout 0.0 --model gpt2", "--data a"));
        assert!(args("--resume --layers 9").inherit(ExplicitArgs::default()).is_ok());
        assert!(goes_on("--resume --model llama", "--data a --moe 4:2"));
        assert!(!goes_on("--resume --model llama", "--data a"));
        assert!(goes_on("--resume --from ./src", "--data a --from src"));
        // Options of a new model next to --from, which earlier versions accepted, are not inherited.
        let mut now = args("--resume");
        now.inherit(serde_json::from_str(r#"{"data": ["a"], "from": ["b"], "layers": ["3"]}"#).unwrap()).unwrap();
        assert!(now.parse().is_ok());
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(ExplicitArgs::load(folder.path()).unwrap(), ExplicitArgs::default());
        std::fs::write(folder.path().join(FILE), "[1]").unwrap();
        let message = ExplicitArgs::load(folder.path()).unwrap_err().to_string();
        assert!(message.contains(FILE), "{message}");
    }
}
