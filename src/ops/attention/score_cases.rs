//! Attention with extreme scores: masks in the bias, and products far from zero.

use super::cases::{Wish, case};
use crate::case::{Case, Feed};
use crate::dtype::DType;

/// The least finite number, as a mask.
const LEAST: f64 = f32::MIN as f64;
const HIDDEN: f64 = f64::NEG_INFINITY;
/// Shifts next to which f32 still holds 64ths.
const SHIFTS: [f64; 4] = [-196_608.0, 196_608.0, -10_000.0, 0.0];

/// The scores of a case: how q, k and the bias are changed.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Scores {
    /// Rows of the bias with one key that counts, with hidden keys, with nothing but hidden keys, with 1e30 and −1e30.
    Masks,
    /// Rows of the bias that are the least finite number wherever a key is not hidden, or −1e30: scores vanish beside it.
    Least,
    /// A bias far from zero. Scores are 64ths, which f32 holds exactly beside it.
    Shifted,
    /// Products far from zero, likewise: in the first batch row all on one side of it.
    Large,
    /// Products of some ±1e30, which f32 holds exactly: the keys with the largest share all weight.
    Huge,
}

impl Scores {
    /// A feed of q, k or the bias as these scores want it; others stay as they are.
    pub(super) fn of(self, feed: Feed) -> Feed {
        let Some((name, each)) = self.change(&feed) else { return feed };
        let values = feed.value().data.iter().enumerate().map(|(i, &x)| DType::F32.round(each(i, x)));
        Feed::given(name, feed.value().shape.clone(), DType::F32, values).differentiated()
    }

    /// What a feed's elements become, from their index and what they were.
    fn change(self, feed: &Feed) -> Option<(&'static str, Box<dyn Fn(usize, f64) -> f64>)> {
        let dims = feed.value().shape.dims().to_vec();
        let last = dims.last().copied().unwrap_or(1);
        let batch = feed.value().data.len() / dims.first().copied().unwrap_or(1);
        let (quarters, huge) = (|x: f64| (4.0 * x).round() / 4.0, 2_f64.powi(50));
        Some(match (feed.name(), self) {
            ("bias", Self::Masks) => ("bias", Box::new(move |i, x| mask(i / last, i % last, last, x))),
            ("bias", Self::Least) => ("bias", Box::new(move |i, _| least(i / last, i % last))),
            ("bias", Self::Shifted) => ("bias", Box::new(move |i, x| SHIFTS[i / last % 4] + (64.0 * x).round() / 64.0)),
            ("q", Self::Shifted) => ("q", Box::new(move |_, x| quarters(x))),
            ("k", Self::Shifted) => ("k", Box::new(move |_, x| quarters(x))),
            ("q", Self::Large) => ("q", Box::new(move |i, x| if i % last == 0 { 524_288.0 } else { quarters(x) })),
            ("k", Self::Large) => {
                let side = move |i: usize| if i < batch || (i / last).is_multiple_of(3) { -1.5 } else { 1.5 };
                ("k", Box::new(move |i, x| if i % last == 0 { side(i) } else { quarters(x) }))
            }
            ("q", Self::Huge) => ("q", Box::new(move |i, x| if i % last == 0 { huge * quarters(x) } else { 0.0 })),
            ("k", Self::Huge) => ("k", Box::new(move |_, x| huge * quarters(x))),
            _ => return None,
        })
    }
}

/// The bias of a row and a key, of so many, that was `drawn`.
fn mask(row: usize, key: usize, keys: usize, drawn: f64) -> f64 {
    let chosen = key == (5 * row + 3) % keys;
    match row % 7 {
        0 if !chosen => LEAST,
        1 if key % 3 == 1 => HIDDEN,
        2 => HIDDEN,
        3 => {
            if chosen {
                1e30
            } else {
                -1e30
            }
        }
        4 if key.is_multiple_of(2) => LEAST,
        5 if !chosen => HIDDEN,
        _ => drawn,
    }
}

fn least(row: usize, key: usize) -> f64 {
    match row % 3 {
        1 if key.is_multiple_of(2) => HIDDEN,
        2 => -1e30,
        _ => LEAST,
    }
}

/// The cases of one variant.
pub(super) fn sweep(plain: Wish) -> Vec<Case> {
    let scores = |scores| Wish { scores: Some(scores), bias: Some(true), ..plain };
    let (masks, least) = (scores(Scores::Masks), scores(Scores::Least));
    let everything = |wish| Wish { lengths: Some([37, 20]), mask: true, positions: true, causal: true, ..wish };
    let scale = Some(0.25);
    let [large, huge] = [Scores::Large, Scores::Huge].map(|s| Wish { scale, bias: None, ..scores(s) });
    vec![
        case("masks in the bias", [2, 33, 41, 4, 2, 12], masks),
        case("masks in the bias, few queries", [2, 3, 133, 4, 2, 20], masks),
        // Masks that meet leave rows in which scores vanish.
        case("masks in the bias, everything", [2, 33, 41, 4, 2, 12], everything(masks)).differences_of(&["v"]),
        case("masks in the bias, dropout", [2, 31, 33, 2, 1, 12], Wish { drop: Some(0.3), causal: true, ..masks })
            .differences_of(&["v"]),
        case("the least bias", [2, 33, 41, 4, 2, 12], Wish { bias: Some(false), ..least }).differences_of(&["v"]),
        case("the least bias, few queries", [1, 3, 133, 4, 2, 20], least).differences_of(&["v"]),
        case("the least bias, everything", [2, 33, 41, 4, 2, 12], everything(least)).differences_of(&["v"]),
        case("the least bias, dropout", [2, 31, 33, 2, 1, 12], Wish { drop: Some(0.3), ..least })
            .differences_of(&["v"]),
        case("shifted scores", [1, 33, 41, 2, 2, 12], Wish { scale, ..scores(Scores::Shifted) }),
        case("shifted scores, few queries", [1, 4, 133, 4, 2, 20], Wish { scale, ..scores(Scores::Shifted) }),
        // Steps move scores too far for a difference, or are lost.
        case("large scores", [2, 33, 41, 2, 1, 12], large).differences_of(&["v"]),
        case("large scores, causal", [2, 33, 41, 2, 1, 12], Wish { causal: true, ..large }).differences_of(&["v"]),
        case("large scores, few queries", [2, 2, 133, 4, 2, 20], large).differences_of(&["v"]),
        case("huge scores", [1, 33, 41, 2, 1, 12], huge).differences_of(&["v"]),
        case("huge scores, few queries", [1, 2, 133, 4, 2, 20], huge).differences_of(&["v"]),
    ]
}
