//! The beams of one prompt: which go on, and which have ended.

use super::sampling::SamplingOptions;
use derive_setters::Setters;
use rand::Rng;
use rand_chacha::ChaCha8Rng;
use std::cmp::Ordering;

/// What makes a beam worse than all that are alive.
const DEAD: f64 = -1e9;

/// When beam search ends: `early_stopping` of a `generation_config.json`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum EarlyStopping {
    /// When the best beam that goes on, scored as if it ended now, is no better than the worst that has ended (`false`).
    #[default]
    Heuristic,
    /// As soon as enough beams have ended (`true`).
    AtOnce,
    /// When no beam can become better than the worst that has ended, were all further tokens certain (`"never"`).
    Never,
}

/// Options of beam search.
#[derive(Clone, Copy, Debug, PartialEq, Setters)]
#[setters(prefix = "with_", strip_option)]
#[non_exhaustive]
pub struct BeamOptions {
    /// The beams of a prompt.
    pub beams: usize,
    /// The score of an answer is the sum of the logarithms of its tokens' probabilities over its length to this power; above 0 it favours long
    /// answers, below 0 short ones.
    pub length_penalty: f64,
    /// When the search ends.
    pub early_stopping: EarlyStopping,
    /// The answers of a prompt, the best first; at most `beams`.
    pub answers: usize,
    /// `do_sample`: continuations are drawn, without one coming twice, by the probabilities of their whole texts, behind temperature, top-k (1 to
    /// 128), top-p and min-p for each beam, and scored by what these leave. Else the likeliest are taken.
    pub drawn: bool,
}

impl Default for BeamOptions {
    fn default() -> Self {
        Self { beams: 4, length_penalty: 1.0, early_stopping: EarlyStopping::Heuristic, answers: 1, drawn: false }
    }
}

/// A beam that ended.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Ended {
    /// Prompt and answer.
    pub(super) tokens: Vec<u32>,
    pub(super) score: f64,
}

/// A beam that goes on.
#[derive(Clone, Debug)]
struct Running {
    tokens: Vec<u32>,
    /// The sum of the logarithms of its tokens' probabilities.
    sum: f64,
    /// The beam it came from in the last step.
    parent: usize,
}

/// The beams of one prompt.
///
/// The rules are those of transformers: of the best `(1 + end tokens) · beams` continuations, at least `2 · beams`, the best `beams` that do not
/// end go on, and those of the first `beams` that end are kept, the best `beams` of all.
#[derive(Clone, Debug)]
pub(super) struct Hypotheses {
    options: BeamOptions,
    /// The length of the prompt.
    prompt: usize,
    running: Vec<Running>,
    ended: Vec<Ended>,
    done: bool,
    /// What draws, if continuations are drawn.
    random: Option<ChaCha8Rng>,
}

/// A continuation of a beam.
#[derive(Clone, Copy, Debug)]
struct Continuation {
    beam: usize,
    token: u32,
    sum: f64,
    ends: bool,
}

impl Hypotheses {
    pub(super) fn new(prompt: &[u32], options: BeamOptions, random: Option<ChaCha8Rng>) -> Self {
        // All begin alike, so only the first counts.
        let beam = |index| Running { tokens: prompt.to_vec(), sum: if index == 0 { 0.0 } else { DEAD }, parent: index };
        let running = (0..options.beams).map(beam).collect();
        Self { options, prompt: prompt.len(), running, ended: Vec::new(), done: false, random }
    }

    pub(super) fn done(&self) -> bool {
        self.done
    }

    /// Ends the search as it stands.
    pub(super) fn stop(&mut self) {
        self.done = true;
    }

    /// What each beam has read and is to read.
    pub(super) fn rows(&self) -> impl Iterator<Item = &[u32]> {
        self.running.iter().map(|beam| &beam.tokens[..])
    }

    /// The beam that each came from.
    pub(super) fn parents(&self) -> impl Iterator<Item = usize> {
        self.running.iter().map(|beam| beam.parent)
    }

    /// The number of continuations of all beams that are looked at.
    pub(super) fn width(beams: usize, options: &SamplingOptions) -> usize {
        (options.end.len() + options.stop_tokens.len() + 1).max(2) * beams
    }

    /// The number of likeliest tokens of a beam that can count: as many as there are beams may go on, or end among the best of all, and each end
    /// token may stand before one that goes on. Where texts end answers, any token may, and all that are looked at count.
    pub(super) fn of_a_row(beams: usize, options: &SamplingOptions) -> usize {
        let ends = options.end.len() + options.stop_tokens.len();
        if options.stop.is_empty() { beams + ends.max(1) } else { Self::width(beams, options) }
    }

    /// Takes the likeliest tokens of each beam, with the logarithms of their probabilities. `ends`: whether an answer ends with a token behind
    /// such a text. Answers have at most `longest` tokens.
    pub(super) fn advance<E>(
        &mut self,
        likeliest: &[Vec<(u32, f64)>],
        width: usize,
        longest: usize,
        mut ends: impl FnMut(&[u32], u32) -> Result<bool, E>,
    ) -> Result<(), E> {
        let made = self.running.first().map_or(0, |beam| beam.tokens.len() - self.prompt) + 1;
        let mut all = Vec::new();
        for (beam, tokens) in likeliest.iter().enumerate().take(self.running.len()) {
            let sum = self.running[beam].sum;
            all.extend(tokens.iter().map(|&(token, p)| Continuation { beam, token, sum: sum + p, ends: false }));
        }
        all.sort_by(better);
        if let Some(random) = &mut self.random {
            draw(&mut all, width, random);
        }
        all.truncate(width);
        for one in &mut all {
            one.ends = made >= longest || ends(&self.running[one.beam].tokens, one.token)?;
        }
        let BeamOptions { beams, length_penalty, early_stopping, .. } = self.options;
        let grown = |one: &Continuation| {
            let mut tokens = self.running[one.beam].tokens.clone();
            tokens.push(one.token);
            tokens
        };
        for one in all.iter().take(beams).filter(|one| one.ends && one.sum > DEAD / 2.0) {
            self.ended.push(Ended { tokens: grown(one), score: one.sum / (made as f64).powf(length_penalty) });
        }
        self.ended.sort_by(|a, b| b.score.total_cmp(&a.score));
        self.ended.truncate(beams);
        let all_end = all.iter().all(|one| one.ends);
        let mut alive: Vec<Continuation> = all
            .iter()
            .map(|one| Continuation { sum: if one.ends { one.sum + DEAD } else { one.sum }, ..*one })
            .collect();
        alive.sort_by(|a, b| b.sum.total_cmp(&a.sum));
        let of = |one: &Continuation| Running { tokens: grown(one), sum: one.sum, parent: one.beam };
        let running: Vec<Running> = alive.iter().take(beams).map(of).collect();
        if running.len() < beams {
            // The vocabulary is smaller than what is looked at: the rest repeats the last, and counts for nothing.
            self.done = running.is_empty();
        }
        let missing = beams - running.len();
        let spare = running.last().map(|last| Running { sum: DEAD, ..last.clone() });
        self.running = running.into_iter().chain(spare.into_iter().cycle().take(missing)).collect();
        let full = self.ended.len() == beams;
        let length = if early_stopping == EarlyStopping::Never && length_penalty > 0.0 { longest } else { made };
        let best = self.running.first().map_or(DEAD, |beam| beam.sum) / (length as f64).powf(length_penalty);
        let worst = self.ended.last().filter(|_| full).map_or(DEAD, |ended| ended.score);
        let at_once = early_stopping == EarlyStopping::AtOnce && full;
        self.done |= all_end || at_once || best <= worst;
        Ok(())
    }

    /// The best answers with their scores; where none has ended, the beams that went on.
    pub(super) fn answers(mut self) -> Vec<Ended> {
        if self.ended.len() < self.options.answers {
            let penalty = self.options.length_penalty;
            let score = |beam: &Running| beam.sum / ((beam.tokens.len() - self.prompt).max(1) as f64).powf(penalty);
            let open = self.running.iter().filter(|beam| beam.sum > DEAD / 2.0);
            let open: Vec<Ended> = open.map(|beam| Ended { tokens: beam.tokens.clone(), score: score(beam) }).collect();
            self.ended.extend(open);
        }
        self.ended.truncate(self.options.answers);
        self.ended
    }
}

/// Keeps so many continuations, the likeliest first, each drawn by its probability among those that are left: the largest of the logarithms with
/// Gumbel noise on each (Kool et al., arXiv 1903.06059).
fn draw(all: &mut Vec<Continuation>, count: usize, random: &mut ChaCha8Rng) {
    let mut noisy: Vec<(f64, Continuation)> =
        all.iter().map(|one| (one.sum - (-(1.0 - random.random::<f64>()).ln()).ln(), *one)).collect();
    noisy.sort_by(|a, b| b.0.total_cmp(&a.0));
    noisy.truncate(count);
    *all = noisy.into_iter().map(|(_, one)| one).collect();
    all.sort_by(better);
}

/// The likelier first; of equals the earlier beam, then the lower token.
fn better(a: &Continuation, b: &Continuation) -> Ordering {
    b.sum.total_cmp(&a.sum).then(a.beam.cmp(&b.beam)).then(a.token.cmp(&b.token))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;
    use std::convert::Infallible;

    /// Runs a search over a table of probabilities by the last token; token 0 ends.
    fn search(table: &[&[f64]], options: BeamOptions, longest: usize) -> Vec<(Vec<u32>, f64)> {
        let mut beams = Hypotheses::new(&[1], options, None);
        while !beams.done() {
            let row = |tokens: &[u32]| -> Vec<(u32, f64)> {
                let last = tokens[tokens.len() - 1] as usize;
                (0..).zip(table[last].iter().map(|p| p.ln())).collect()
            };
            let likeliest: Vec<Vec<(u32, f64)>> = beams.rows().map(row).collect();
            let ends = |_: &[u32], token| Ok::<_, Infallible>(token == 0);
            beams.advance(&likeliest, 2 * options.beams, longest, ends).unwrap();
        }
        beams.answers().into_iter().map(|ended| (ended.tokens, ended.score)).collect()
    }

    /// After 1 the likeliest token, 2, leads nowhere: only a beam finds 1 3 0.
    const TABLE: [&[f64]; 4] =
        [&[1.0, 1e-9, 1e-9, 1e-9], &[0.05, 0.05, 0.5, 0.4], &[0.3, 0.3, 0.2, 0.2], &[0.9, 0.04, 0.03, 0.03]];

    #[test]
    fn a_beam_finds_what_greed_misses() {
        let options = BeamOptions { beams: 2, answers: 2, length_penalty: 1.0, ..BeamOptions::default() };
        let best = search(&TABLE, options, 5);
        assert_eq!(best[0].0, [1, 3, 0]);
        approx::assert_relative_eq!(best[0].1, (0.4_f64 * 0.9).ln() / 2.0, epsilon = 1e-12);
        assert!(best[0].1 >= best[1].1 && best.len() == 2);
        let greedy = search(&TABLE, BeamOptions { beams: 1, answers: 1, ..options }, 5);
        assert_eq!(greedy[0].0[..2], [1, 2]);
    }

    /// Pairs of four tokens of one beam, without one coming twice: the probability of {a, b} is p_a p_b (1 / (1 − p_a) + 1 / (1 − p_b)).
    #[test]
    fn continuations_are_drawn_by_their_probabilities() {
        let probabilities = [0.1_f64, 0.2, 0.3, 0.4];
        let mut random = ChaCha8Rng::seed_from_u64(3);
        let (mut counts, draws) = (std::collections::BTreeMap::new(), 20_000);
        for _ in 0..draws {
            let token = |(token, p): (u32, f64)| Continuation { beam: 0, token, sum: p.ln() - 7.0, ends: false };
            let mut all: Vec<Continuation> = (0..).zip(probabilities).map(token).collect();
            draw(&mut all, 2, &mut random);
            assert!(all.len() == 2 && all[0].sum > all[1].sum);
            *counts.entry((all[1].token, all[0].token)).or_insert(0) += 1;
        }
        let mut chi_squared = 0.0;
        for (a, b) in (0..4_usize).flat_map(|b| (0..b).map(move |a| (a, b))) {
            let (p, q) = (probabilities[a], probabilities[b]);
            let expected = f64::from(draws) * p * q * (1.0 / (1.0 - p) + 1.0 / (1.0 - q));
            let got = f64::from(counts.get(&(a as u32, b as u32)).copied().unwrap_or(0));
            chi_squared += (got - expected).powi(2) / expected;
        }
        // 20.5 is the 99.9 % point at 5 degrees of freedom; the seed is fixed.
        assert!(chi_squared < 20.5, "{counts:?} gives {chi_squared}");
    }

    #[test]
    fn the_penalty_of_length_and_the_end_of_the_search() {
        let long = BeamOptions { beams: 3, length_penalty: 4.0, ..BeamOptions::default() };
        let short = BeamOptions { length_penalty: -4.0, ..long };
        assert!(search(&TABLE, long, 6)[0].0.len() > search(&TABLE, short, 6)[0].0.len());
        for early_stopping in [EarlyStopping::AtOnce, EarlyStopping::Heuristic, EarlyStopping::Never] {
            let found =
                search(&TABLE, BeamOptions { beams: 3, answers: 3, early_stopping, ..BeamOptions::default() }, 4);
            assert!(found.len() == 3 && found.iter().all(|(tokens, _)| tokens.len() <= 5), "{found:?}");
        }
        // The longest answers end where they are cut.
        assert_eq!(search(&TABLE, long, 1)[0].0.len(), 2);
    }
}
