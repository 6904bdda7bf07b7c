//! How kernels are tuned, and the tuned variants as plain data.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::time::Duration;

/// How much time the tuner may take for each program that is prepared, before its first run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Tuning {
    /// None: kernels run as tuned before, else in the default variants of the adapter's class.
    #[default]
    Off,
    /// 2 seconds; the default variant of each kernel is compared with the most promising other one.
    Fast,
    /// 2 minutes; all variants.
    Full,
    /// This long; all variants.
    Within(Duration),
}

impl Tuning {
    /// The most variants timed for a problem.
    #[must_use]
    pub fn candidates(self) -> usize {
        if self == Self::Fast { 2 } else { usize::MAX }
    }

    /// The time; `None` without tuning.
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

/// The tuned variant for each problem, both by name. Other problems get the default of the adapter's class, which is the same on every
/// run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TunedVariants(BTreeMap<String, String>);

impl TunedVariants {
    /// The tuned variant for a problem.
    #[must_use]
    pub fn get(&self, problem: &str) -> Option<&str> {
        self.0.get(problem).map(String::as_str)
    }

    /// Sets the variant for a problem.
    pub fn insert(&mut self, problem: impl Into<String>, variant: impl Into<String>) {
        self.0.insert(problem.into(), variant.into());
    }

    /// Adds the entries of `other`, which override existing ones.
    pub fn extend(&mut self, other: Self) {
        self.0.extend(other.0);
    }

    /// The number of problems.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is no entry.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Problems and their variants, sorted by problem.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(problem, variant)| (problem.as_str(), variant.as_str()))
    }
}
