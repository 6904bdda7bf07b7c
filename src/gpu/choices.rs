//! Which variant of a kernel runs which problem, as plain data.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::time::Duration;

/// How much time the tuner may take for every program that is prepared, before its first run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Tuning {
    /// None: kernels run in the defaults of the adapter's class, or as chosen before.
    #[default]
    Off,
    /// 2 seconds, in which the default of each kernel runs against the likeliest other variant.
    Fast,
    /// 2 minutes, and all variants.
    Full,
    /// As said, and all variants.
    Within(Duration),
}

impl Tuning {
    /// How many variants run for a problem.
    #[must_use]
    pub fn candidates(self) -> usize {
        if self == Self::Fast { 2 } else { usize::MAX }
    }

    /// The time, if there is any.
    #[must_use]
    pub fn budget(self) -> Option<Duration> {
        match self {
            Self::Off => None,
            Self::Fast => Some(Duration::from_secs(2)),
            Self::Full => Some(Duration::from_secs(120)),
            Self::Within(time) => Some(time),
        }
    }
}

/// Which variant of a kernel runs which problem, both by the names that print. What is not in here gets the default of the
/// adapter's class, which is the same on every run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Choices(BTreeMap<String, String>);

impl Choices {
    /// The variant chosen for a problem.
    #[must_use]
    pub fn get(&self, problem: &str) -> Option<&str> {
        self.0.get(problem).map(String::as_str)
    }

    /// Chooses a variant for a problem.
    pub fn insert(&mut self, problem: impl Into<String>, variant: impl Into<String>) {
        self.0.insert(problem.into(), variant.into());
    }

    /// Takes over the choices of another, which win.
    pub fn extend(&mut self, other: Self) {
        self.0.extend(other.0);
    }

    /// The number of problems.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether nothing is chosen.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Problems and their variants, in the order of their names.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(problem, variant)| (problem.as_str(), variant.as_str()))
    }
}
