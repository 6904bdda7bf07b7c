//! Batches of rows.

use super::*;
use crate::io::Config;
use crate::models;
use serde_json::json;

fn model() -> Arc<dyn Model> {
    let config = json!({
        "model_type": "bert", "architectures": ["BertForSequenceClassification"], "vocab_size": 50, "hidden_size": 8,
        "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16, "num_labels": 3,
        "problem_type": "single_label_classification",
    });
    models::model(&Config::new("test", config).unwrap()).unwrap().into()
}

fn rows(count: u32) -> Arc<[Row]> {
    let row = |i: u32| {
        let mut shares = vec![0.0; 3];
        shares[i as usize % 3] = 1.0;
        Row {
            ids: (0..1 + i * 7 % 40).map(|at| 1 + at % 49).collect(),
            types: Vec::new(),
            target: Target::Shares(shares),
        }
    };
    (0..count).map(row).collect()
}

fn floats(feeds: &Feeds, name: &str) -> Vec<f32> {
    bytemuck::pod_collect_to_vec(&feeds.iter().find(|(known, _)| known == name).unwrap().1)
}

#[test]
fn a_pass_has_each_row_once_and_what_is_missing_in_a_batch_does_not_count() {
    let (model, rows) = (model(), rows(103));
    let sizes = RowSize::for_rows(rows.iter(), 8);
    assert!(sizes.len() <= SIZES && sizes.windows(2).all(|pair| pair[0].read < pair[1].read));
    let objective = TaskObjective::on_rows(model, &rows, sizes[0]).unwrap();
    let start = DataState { seed: 5, epoch: 0, cursor: 0, text: 0 };
    let mut run = RowBatches::resume(rows.clone(), &objective, sizes.clone(), start).unwrap();
    let (mut tokens, mut seen) = (0, 0.0);
    for _ in 0..run.batches.len() {
        let feeds = run.next_feeds().unwrap();
        // The loss is the mean over the batch: 8 times the mean over the rows that are there.
        let labels = floats(&feeds, "labels");
        assert!((labels.iter().sum::<f32>() - 8.0).abs() < 1e-4, "{labels:?}");
        seen += labels.chunks_exact(3).filter(|row| row.iter().any(|share| *share > 0.0)).count() as f64;
        tokens += run.tokens();
    }
    let all: usize = rows.iter().map(|row| row.ids.len()).sum();
    assert_eq!((tokens as usize, seen as usize), (all, 103));
    run.next_feeds().unwrap();
    let state: DataState = serde_json::from_value(run.position()).unwrap();
    assert_eq!((state.epoch, state.cursor), (1, 1));
    let mut resumed = RowBatches::resume(rows.clone(), &objective, sizes.clone(), state).unwrap();
    assert!((0..20).all(|_| run.next_feeds().unwrap() == resumed.next_feeds().unwrap()));
    let held_out = rows_held_out(&rows, &objective, &sizes);
    assert_eq!(held_out.iter().map(|batch| batch.weight).sum::<f64>(), 103.0);
    let others = RowBatches::resume(rows[1..].into(), &objective, sizes.clone(), state).unwrap_err().to_string();
    assert!(others.contains("other examples"), "{others}");
    let short = RowBatches::resume(rows, &objective, sizes[..1].to_vec(), start).unwrap_err().to_string();
    assert!(short.contains("longer than all sizes"), "{short}");
}

#[test]
fn answers_stand_behind_their_start_and_padding_does_not_count() {
    let answer = |ids: &[u32]| Row {
        ids: vec![1, 2, 3],
        types: Vec::new(),
        target: Target::Answer { start: 9, ids: ids.to_vec() },
    };
    let rows = [answer(&[4, 5]), answer(&[6, 7, 8])];
    let size = RowSize { rows: 3, read: 4, said: 4 };
    let feeds = feeds(&rows.iter().collect::<Vec<_>>(), size, true);
    let words = |name: &str| -> Vec<i32> {
        bytemuck::pod_collect_to_vec(&feeds.iter().find(|(known, _)| known == name).unwrap().1)
    };
    assert_eq!(words("input_ids"), [1, 2, 3, 0, 1, 2, 3, 0, 0, 0, 0, 0]);
    assert_eq!(words(MASK), [1, 1, 1, 0, 1, 1, 1, 0, 1, 0, 0, 0]);
    assert_eq!(words("decoder_input_ids"), [9, 4, 0, 0, 9, 6, 7, 0, 0, 0, 0, 0]);
    assert_eq!(words("decoder_attention_mask"), [1, 1, 0, 0, 1, 1, 1, 0, 1, 0, 0, 0]);
    assert_eq!(words("labels"), [4, 5, -100, -100, 6, 7, 8, -100, -100, -100, -100, -100]);
    assert_eq!(weight(&rows.iter().collect::<Vec<_>>()), 5.0);
}

#[test]
fn sizes_follow_both_lengths() {
    let row = |read: usize, said: usize| Row {
        ids: vec![1; read],
        types: Vec::new(),
        target: Target::Answer { start: 0, ids: vec![1; said] },
    };
    let few = [row(5, 3), row(100, 3), row(5, 90)];
    let sizes: Vec<(usize, usize)> = RowSize::for_rows(&few, 2).iter().map(|size| (size.read, size.said)).collect();
    assert_eq!(sizes, [(8, 4), (8, 90), (100, 4)]);
    assert_eq!(row(90, 2).size_in(&RowSize::for_rows(&few, 2)), Some(2));
    let many: Vec<Row> = (1..60).flat_map(|read| [row(read, 1 + read * 2 / 3), row(read, 70 - read)]).collect();
    let sizes = RowSize::for_rows(&many, 2);
    assert!(sizes.len() == SIZES && many.iter().all(|row| row.size_in(&sizes).is_some()), "{sizes:?}");
    let (used, room) = many.iter().fold((0, 0), |(used, room), row| {
        let size = sizes[row.size_in(&sizes).unwrap()];
        (used + row.ids.len() + row.said(), room + size.read + size.said)
    });
    assert!(room * 10 < used * 15, "{room} positions for {used} tokens");
}
