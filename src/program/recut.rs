//! Cuts the launches of a program again, between runs, when the measured speed of the device changed.

use super::launches::Launches;
use super::{Budget, Program};
use crate::error::{Error, Result};
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How long who wants to stop may have to wait for a submission of usual kernels; slow ones take several times as long.
const SHORT: Duration = Duration::from_millis(150);

/// The current launches.
#[derive(Clone, Debug)]
pub(super) struct Cutting {
    pub(super) launches: Arc<Launches>,
    /// The budget at the last check.
    pub(super) considered: Budget,
}

pub(super) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Program {
    /// The number of launches of a run now: the dispatches of the recording, each range of a cut one counted.
    #[must_use]
    pub fn launches(&self) -> usize {
        self.cut_now().steps.len()
    }

    pub(super) fn cut_now(&self) -> Arc<Launches> {
        locked(&self.cutting).launches.clone()
    }

    /// The launches for the next run, cut again if the speed of the device changed. Runs in flight keep theirs.
    pub(super) fn cut_next(&self) -> Result<Arc<Launches>> {
        let budget = self.budget(&self.cut_now());
        self.cut_within(&self.cutting, budget)
    }

    pub(super) fn cut_within(&self, cutting: &Mutex<Cutting>, budget: Budget) -> Result<Arc<Launches>> {
        // No lock is held meanwhile, since wgpu's callbacks may run the program.
        let Cutting { mut launches, considered } = locked(cutting).clone();
        if !budget.differs(considered) {
            return Ok(launches);
        }
        if launches.outdated(&self.recording, budget) {
            match launches.again(&self.gpu, &self.recording, &self.memory, budget) {
                Ok(made) => launches = Arc::new(made),
                Err(error @ Error::DeviceLost { .. }) => return Err(error),
                Err(error) => log::warn!("long launches stay as they are: {error}"),
            }
        }
        *locked(cutting) = Cutting { launches: launches.clone(), considered: budget };
        Ok(launches)
    }

    /// The budget of a submission now.
    fn budget(&self, launches: &Launches) -> Budget {
        if self.follows { Budget::now(&self.gpu) } else { launches.budget() }
    }

    /// The launches that go into one submission each.
    pub(super) fn submissions(&self, launches: &Launches) -> Vec<Range<usize>> {
        launches.submissions(self.budget(launches))
    }

    /// As [`Program::submissions`], each short enough for who may stop behind it.
    pub(super) fn short_submissions(&self, launches: &Launches) -> Vec<Range<usize>> {
        let (budget, short) = (self.budget(launches), Budget::lasting(&self.gpu, SHORT));
        launches.submissions(if short.submission < budget.submission { short } else { budget })
    }
}
