use super::*;
use std::collections::HashSet;

fn task(depth: RangeInclusive<usize>, length: usize) -> ListOps {
    ListOps { depth, arguments: 2..=5, length, tree: true, lists: false }
}

fn parse(text: &str) -> Vec<u32> {
    let id = |word| NAMES.iter().position(|name| *name == word).unwrap() as u32;
    text.split(' ').map(id).collect()
}

/// Value and depth of the words of an expression, by recursion over its text.
fn by_hand<'a>(words: &mut impl Iterator<Item = &'a str>) -> Option<(u8, usize)> {
    let word = words.next().unwrap();
    if word == "]" {
        return None;
    }
    if let Ok(digit) = word.parse() {
        return Some((digit, 0));
    }
    let (mut values, mut depth) = (Vec::new(), 0);
    while let Some((value, inner)) = by_hand(words) {
        values.push(value);
        depth = depth.max(inner);
    }
    values.sort_unstable();
    let value = match word {
        "[MAX" => *values.iter().max().unwrap(),
        "[MIN" => *values.iter().min().unwrap(),
        "[MED" if values.len() % 2 == 1 => values[values.len() / 2],
        "[MED" => (values[values.len() / 2 - 1] + values[values.len() / 2]) / 2,
        "[SM" => values.iter().fold(0, |sum, value| (sum + value) % 10),
        other => panic!("{other} is no operator"),
    };
    Some((value, depth + 1))
}

#[test]
fn expressions_have_the_value_and_the_depth_they_say() {
    for (task, split) in [(task(1..=4, 64), Split::Train), (task(5..=8, 100), Split::HeldOut)] {
        for number in 0..300 {
            let sample = task.sample(3, number, split);
            let text = sample.text();
            let mut words = text.split(' ');
            assert_eq!(by_hand(&mut words), Some((sample.value, sample.depth)), "{text}");
            assert_eq!(words.collect::<Vec<_>>(), ["="], "{text}");
            assert!(task.depth.contains(&sample.depth) && sample.ids.len() <= task.length, "{text}");
            assert_eq!(evaluate(&sample.ids[..sample.ids.len() - 1]).unwrap(), sample.value);
        }
    }
}

#[test]
fn depths_and_values_are_balanced() {
    let task = task(1..=4, 80);
    let (mut values, mut depths, mut lengths) = ([0; 10], [0; 5], 0);
    for number in 0..2000 {
        let sample = task.sample(1, number, Split::Train);
        values[usize::from(sample.value)] += 1;
        depths[sample.depth] += 1;
        lengths += sample.ids.len();
    }
    assert!(values.iter().all(|&n| (150..250).contains(&n)), "{values:?}");
    assert!(depths[0] == 0 && depths[1..].iter().all(|&n| (425..575).contains(&n)), "{depths:?}");
    assert!(lengths / 2000 > 15, "expressions have {} tokens", lengths / 2000);
}

#[test]
fn the_narrowest_settings_are_enough() {
    let narrow = ListOps { depth: 1..=1, arguments: 2..=2, length: 5, tree: false, lists: false };
    narrow.check().unwrap();
    for split in [Split::Train, Split::HeldOut] {
        let values: HashSet<u8> = (0..200).map(|number| narrow.sample(0, number, split).value).collect();
        assert_eq!(values.len(), 10);
    }
    // Each level adds an operator, a bracket and a digit, and nothing else has room.
    let deep = ListOps { depth: 6..=6, arguments: 2..=4, length: 20, tree: false, lists: false };
    deep.check().unwrap();
    assert!((0..50).all(|number| deep.sample(0, number, Split::Train).ids.len() == 20));
}

#[test]
fn no_expression_is_in_both_splits() {
    let task = task(1..=2, 20);
    let of = |seed, split| (0..500).map(move |number| (seed, number, split));
    let ids = |(seed, number, split)| task.sample(seed, number, split).ids;
    let train: HashSet<Vec<u32>> = of(1, Split::Train).map(ids).collect();
    assert!(of(2, Split::HeldOut).map(ids).all(|ids| !train.contains(&ids)));
}

#[test]
fn spans_are_those_of_the_brackets() {
    let expression = parse("[MAX 2 9 [MIN 4 7 ] 0 ]");
    let sample = Sample::new(expression.clone(), evaluate(&expression).unwrap(), 2);
    assert_eq!(sample.text(), "[MAX 2 9 [MIN 4 7 ] 0 ] =");
    assert_eq!((sample.value, sample.label()), (9, 10));
    let ends: Vec<(u32, u32)> = sample.spans.iter().map(|span| (span.first, span.last)).collect();
    assert_eq!(ends, [(0, 8), (1, 1), (2, 2), (3, 6), (4, 4), (5, 5), (3, 6), (7, 7), (0, 8), (0, 9)]);
}

#[test]
fn what_is_no_expression_is_named() {
    assert_eq!(evaluate(&parse("7")).unwrap(), 7);
    assert_eq!(evaluate(&parse("[MED 9 2 5 4 ]")).unwrap(), 4);
    assert_eq!(evaluate(&parse("[SM 9 [MAX 2 8 ] 5 ]")).unwrap(), 2);
    let refused = |text| evaluate(&parse(text)).unwrap_err().to_string();
    assert!(refused("[MAX 2 ] 3").contains("3 at position 3 follows a complete expression"));
    assert!(refused("[MAX ]").contains("] at position 1 closes an empty list"));
    assert!(refused("]").contains("] at position 0 closes no open list"));
    assert!(refused("[MAX 1 = ]").contains("= at position 2 is not allowed in an expression"));
    assert!(refused("[MAX 1").contains("the end at position 2 ends an incomplete expression"));
    assert!(evaluate(&[]).is_err() && evaluate(&[99]).unwrap_err().to_string().contains("an unknown id"));
}

#[test]
fn settings_that_make_no_sense_are_named() {
    let refused = |task: ListOps| ListOpsBatches::new(task, 2, 0).unwrap_err().to_string();
    assert!(refused(task(0..=2, 50)).contains("ListOps depth: is 0..=2"));
    #[allow(clippy::reversed_empty_ranges, reason = "this is what is refused")]
    let empty = task(3..=2, 50);
    assert!(refused(empty).contains("ListOps depth: is 3..=2"));
    assert!(refused(ListOps { arguments: 1..=2, ..task(1..=2, 50) }).contains("ListOps arguments: are 1..=2"));
    assert!(refused(task(1..=5, 16)).contains("ListOps length: is 16; depth 5 needs 17 tokens or more"));
    assert!(ListOpsBatches::new(task(1..=5, 17), 0, 0).unwrap_err().to_string().contains("0 rows"));
    assert!(task(1..=5, 16).held_out(2, 3, 0).is_err());
}

fn numbers(feeds: &Feeds, name: &str) -> Vec<i32> {
    let (_, bytes) = feeds.iter().find(|(n, _)| n == name).unwrap();
    bytes.chunks(4).map(|b| i32::from_le_bytes(b.try_into().unwrap())).collect()
}

#[test]
fn only_the_value_has_a_label() {
    let task = task(1..=3, 40);
    let feeds = ListOpsBatches::new(task.clone(), 7, 5).unwrap().next_feeds().unwrap();
    let (ids, labels) = (numbers(&feeds, IDS), numbers(&feeds, LABELS));
    let spans = numbers(&feeds, TREE_MASK);
    assert_eq!((ids.len(), labels.len(), spans.len()), (280, 280, 840));
    for row in 0..7 {
        let sample = task.sample(5, row as u64, Split::Train);
        let end = sample.ids.len() - 1;
        for at in 0..40 {
            let cell = row * 40 + at;
            let label = if at == end { sample.label() as i32 } else { IGNORED };
            assert_eq!((labels[cell], ids[cell]), (label, sample.ids.get(at).map_or(0, |&id| id as i32)));
            let span = sample.spans.get(at).copied().unwrap_or(Span::leaf(at));
            assert_eq!(spans[3 * cell..][..3], [span.position, span.first, span.last].map(|x| x as i32));
        }
    }
    let plain = ListOps { tree: false, ..task };
    assert_eq!(ListOpsBatches::new(plain, 1, 5).unwrap().next_feeds().unwrap().len(), 2);
}

#[test]
fn closing_brackets_may_have_the_values_of_their_lists() {
    let task = ListOps { lists: true, ..task(1..=3, 40) };
    let labels = numbers(&ListOpsBatches::new(task.clone(), 7, 5).unwrap().next_feeds().unwrap(), LABELS);
    let mut lists = 0;
    for row in 0..7 {
        let ids = task.sample(5, row as u64, Split::Train).ids;
        for (at, &label) in labels[row * 40..][..40].iter().enumerate() {
            // The list that ends here is the shortest stretch up to here with as many brackets closed as opened.
            let list = (ids.get(at) == Some(&CLOSE)).then(|| {
                let starts = (0..at).rev().map(|start| &ids[start..=at]);
                starts.filter_map(|stretch| evaluate(stretch).ok()).next().unwrap()
            });
            let whole = (at + 1 == ids.len()).then(|| evaluate(&ids[..at]).unwrap());
            let value = list.or(whole);
            assert_eq!(label, value.map_or(IGNORED, |value| (ZERO + u32::from(value)) as i32));
            lists += usize::from(list.is_some());
        }
    }
    assert!(lists > 10);
    let held_out = numbers(&task.held_out(4, 4, 9).unwrap()[0].feeds, LABELS);
    assert_eq!(held_out.iter().filter(|&&label| label != IGNORED).count(), 4);
}

#[test]
fn a_resumed_run_sees_the_same_batches() {
    let mut run = ListOpsBatches::new(task(1..=3, 40), 3, 11).unwrap();
    run.next_feeds().unwrap();
    let state = serde_json::from_value(run.position()).unwrap();
    let mut resumed = ListOpsBatches::resume(task(1..=3, 40), 3, state).unwrap();
    for _ in 0..5 {
        assert_eq!(run.next_feeds().unwrap(), resumed.next_feeds().unwrap());
    }
    let mut other = ListOpsBatches::new(task(1..=3, 40), 3, 12).unwrap();
    other.next_feeds().unwrap();
    assert_ne!(run.next_feeds().unwrap(), other.next_feeds().unwrap());
    assert_eq!(run.positions(), 120);
    assert!((3..120).contains(&run.tokens()), "{} tokens without padding", run.tokens());
}

#[test]
fn the_expressions_of_a_seed_never_change() {
    // Runs that were saved by an older version must go on as they were.
    let texts: Vec<String> = (0..2).map(|number| task(1..=3, 32).sample(7, number, Split::Train).text()).collect();
    assert_eq!(texts, ["[SM 7 4 ] =", "[MIN 0 6 [SM 4 [MIN 5 6 ] 2 7 ] ] ="]);
}

#[test]
fn held_out_batches_are_filled_up_with_nothing() {
    let batches = task(4..=4, 40).held_out(4, 6, 9).unwrap();
    assert_eq!(batches.iter().map(|b| b.weight).collect::<Vec<_>>(), [4.0, 2.0]);
    let labels = numbers(&batches[1].feeds, LABELS);
    assert_eq!((labels.len(), labels.iter().filter(|&&label| label >= 0).count()), (160, 2));
    assert!(numbers(&batches[1].feeds, IDS)[80..].iter().all(|&id| id == PAD as i32));
}
