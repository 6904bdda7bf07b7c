//! What a scheduler takes at a time, and what it has done.

use crate::error::{Error, Result};
use derive_setters::Setters;

/// The limits of a [`super::Scheduler`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Setters)]
#[setters(prefix = "with_", strip_option)]
pub struct SchedulerLimits {
    /// The most requests that are answered at once; others wait.
    pub requests: usize,
    /// Positions of the cache that all requests share, at least `max_tokens`. A request has what its tokens need, in pages of
    /// [`SchedulerLimits::PAGE`].
    pub tokens: usize,
    /// The most tokens of a prompt and its answer together.
    pub max_tokens: usize,
    /// The most tokens of a prompt that one step reads: the longest wait of those who are being answered.
    pub piece: usize,
}

impl Default for SchedulerLimits {
    fn default() -> Self {
        Self { requests: 8, tokens: 8192, max_tokens: 2048, piece: 256 }
    }
}

impl SchedulerLimits {
    /// Positions of a page.
    pub const PAGE: usize = 16;

    /// Pages that a request may have.
    pub(super) fn pages_of_request(&self) -> usize {
        self.max_tokens.div_ceil(Self::PAGE)
    }

    /// Pages of the cache.
    pub(super) fn pages(&self) -> usize {
        self.tokens.div_ceil(Self::PAGE)
    }

    /// Checks the limits for a model of so many positions.
    pub(super) fn check(&self, positions: usize) -> Result<()> {
        let refuse = |what: &str, value: usize, wanted: String| {
            Err(Error::input(what, format!("it is {value}, but must be {wanted}")))
        };
        if self.requests == 0 {
            return refuse("requests", 0, "at least 1".into());
        }
        if self.max_tokens < 2 || self.max_tokens > positions {
            return refuse("max_tokens", self.max_tokens, format!("2 to the model's {positions}"));
        }
        if self.pages() < self.pages_of_request() || u32::try_from(self.tokens).is_err() {
            let most = u32::MAX;
            return refuse(
                "tokens",
                self.tokens,
                format!("at least max_tokens, {}, and at most {most}", self.max_tokens),
            );
        }
        match self.piece {
            0 => refuse("piece", 0, "at least 1".into()),
            _ => Ok(()),
        }
    }
}

/// What a [`super::Scheduler`] has done and has to do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct SchedulerStats {
    /// Requests that wait.
    pub queued: usize,
    /// Requests that are being answered.
    pub running: usize,
    /// Pages that they hold.
    pub pages_held: usize,
    /// Pages of the cache.
    pub pages: usize,
    /// Tokens of prompts that were read, since the start, those that were read again for want of room included.
    pub prompt_tokens: u64,
    /// Tokens of prompts that were found in the cache.
    pub shared_tokens: u64,
    /// Tokens that were made.
    pub new_tokens: u64,
    /// Requests that lost their pages to older ones and were read again.
    pub preempted: u64,
    /// Runs on the device.
    pub runs: u64,
}
