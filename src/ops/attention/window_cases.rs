//! Attention with windows, prefixes and soft caps.

use super::cases::{Wish, case};
use super::score_cases::Scores;
use super::variant::AttentionVariant;
use crate::case::Case;

/// The cases of one variant.
pub(super) fn sweep(plain: Wish) -> Vec<Case> {
    let causal = Wish { causal: true, ..plain };
    let near = |window: usize, wish: Wish| Wish { window: Some(window), ..wish };
    let capped = |cap: f32, wish: Wish| Wish { cap: Some(cap), ..wish };
    let everything = Wish { lengths: Some([66, 50]), mask: true, bias: Some(true), positions: true, ..causal };
    let large = Wish { scale: Some(0.25), scores: Some(Scores::Large), ..capped(20.0, near(7, causal)) };
    let few = Wish { positions: true, lengths: Some([130, 60]), ..near(40, causal) };
    let both = Wish { positions: true, drop: Some(0.2), ..near(3, plain) };
    let all = Wish { drop: Some(0.2), ..capped(3.0, near(30, everything)) };
    let first = Wish { prefix: Some([132, 9]), lengths: Some([133, 131]), ..near(40, causal) };
    let texts = Wish { ranges: true, ..plain };
    let packed =
        Wish { mask: true, drop: Some(0.2), lengths: Some([66, 60]), ..near(9, Wish { causal: true, ..texts }) };
    let distant = Wish { bias: Some(false), by_distance: true, ..texts };
    let mut cases = vec![
        case("texts side by side, few queries", [2, 3, 133, 4, 2, 20], texts),
        case("window, causal, groups", [2, 70, 70, 4, 2, 12], near(7, causal)),
        case("window of itself, more queries", [1, 40, 33, 2, 2, 12], near(1, causal)),
        case("window, both sides", [1, 70, 70, 2, 2, 16], near(7, plain)),
        case("window, both sides, mask", [3, 37, 41, 2, 1, 12], Wish { mask: true, ..near(7, plain) }),
        case("window, few queries", [1, 3, 141, 4, 2, 20], near(7, causal)),
        case("window, few queries, positions", [7, 3, 133, 2, 1, 12], few),
        case("window of all, positions", [2, 33, 35, 2, 1, 12], Wish { positions: true, ..near(99, causal) }),
        case("window, both sides, positions, dropout", [2, 34, 67, 2, 1, 12], both),
        case("window, soft cap, everything", [2, 33, 69, 4, 2, 12], all),
        case("prefix, dropout", [2, 33, 33, 2, 1, 12], Wish { prefix: Some([9, 50]), drop: Some(0.2), ..causal }),
        case("prefix, window, lengths, few queries", [2, 4, 133, 4, 2, 12], first),
        case("soft cap", [2, 33, 35, 4, 2, 12], capped(1.5, causal)),
        case("soft cap, few queries, bias", [2, 3, 133, 4, 2, 20], Wish { bias: Some(false), ..capped(50.0, plain) }),
        // Steps are lost beside numbers so large.
        case("soft cap, window, large scores", [2, 33, 41, 2, 1, 12], large).differences_of(&["v"]),
    ];
    let rows = [AttentionVariant::PerThread, AttentionVariant::Shuffle, AttentionVariant::Tile];
    // The other variants are of few queries.
    if plain.variant.is_some_and(|variant| rows.contains(&variant)) {
        cases.extend([
            case("texts side by side", [2, 90, 90, 2, 2, 16], texts),
            case("texts side by side, causal, groups", [1, 77, 77, 4, 2, 64], Wish { causal: true, ..texts }),
            case("texts side by side, window, mask, dropout", [2, 70, 70, 2, 1, 12], packed),
            case("texts side by side, bias by distance", [2, 75, 75, 2, 2, 12], distant),
            case(
                "texts side by side, bias, soft cap",
                [2, 67, 67, 2, 1, 12],
                Wish { bias: Some(false), ..capped(3.0, texts) },
            ),
            case("texts side by side, other keys", [2, 70, 41, 2, 2, 12], texts),
        ]);
    }
    cases
}
