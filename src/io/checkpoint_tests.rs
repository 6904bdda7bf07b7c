//! Tests of checkpoints: saves stopped at every stage, saves killed by the system, damage of every file.

use super::*;
use proptest::prelude::*;
use serde_json::json;

/// The value that every tensor of a step holds.
fn value(step: u64) -> f32 {
    step as f32 * 0.5
}

fn with_checkpoint<T>(step: u64, size: usize, use_it: impl FnOnce(&Checkpoint<'_>) -> T) -> T {
    let model = [NamedTensor::f32("w", [size], &vec![value(step); size])];
    let optimizer =
        [NamedTensor::f32("m.w", [size], &vec![value(step); size]), NamedTensor::f32("v.w", [1], &[value(step)])];
    let state = json!({"step": step, "loss": [1.0 / 3.0, 0.1], "data": {"epoch": 1, "cursor": step}});
    let files = [("config.json".to_owned(), b"{}".to_vec())];
    use_it(&Checkpoint { step, model: &model, optimizer: &optimizer, state: &state, files: &files })
}

fn save(checkpoints: &Checkpoints, step: u64) -> PathBuf {
    with_checkpoint(step, 100, |c| checkpoints.save(c)).unwrap()
}

/// The newest checkpoint, all of whose parts must be of one step.
fn newest(checkpoints: &Checkpoints) -> Loaded {
    let loaded = checkpoints.latest().unwrap().unwrap();
    for tensors in [&loaded.model, &loaded.optimizer] {
        for tensor in tensors.iter() {
            assert!(
                tensor.to_f32().unwrap().iter().all(|&v| v == value(loaded.step)),
                "{} is of another step",
                tensor.name
            );
        }
    }
    assert_eq!(loaded.state["data"]["cursor"], loaded.step);
    loaded
}

fn names(checkpoints: &Checkpoints) -> Vec<String> {
    let mut names: Vec<String> = checkpoints.folders().unwrap().into_iter().map(|(name, _)| name).collect();
    names.sort();
    names
}

#[test]
fn the_newest_are_kept_and_read_back() {
    let home = tempfile::tempdir().unwrap();
    let checkpoints = Checkpoints::new(home.path().join("run"), 2);
    assert!(checkpoints.latest().unwrap().is_none() && checkpoints.is_empty().unwrap());
    for step in [100, 200, 300] {
        save(&checkpoints, step);
    }
    assert_eq!(names(&checkpoints), ["step-000200", "step-000300"]);
    let loaded = newest(&checkpoints);
    assert_eq!((loaded.step, loaded.skipped.len()), (300, 0));
    assert_eq!(loaded.state["loss"], json!([1.0 / 3.0, 0.1]));
    assert!(loaded.engine.starts_with("wgformer "));
    assert_eq!(fs::read_to_string(checkpoints.folder().join(LATEST)).unwrap(), "step-000300\n");
    assert_eq!(fs::read(loaded.path.join("config.json")).unwrap(), b"{}");
}

#[test]
fn a_save_stopped_at_any_stage_leaves_a_whole_checkpoint() {
    use Stage::*;
    let stages = [FolderMade, ModelWritten, OptimizerWritten, FilesWritten, RecordWritten, Renamed, Pointed, Pruned];
    for keep in [1, 3] {
        for stop in stages {
            let home = tempfile::tempdir().unwrap();
            let checkpoints = Checkpoints::new(home.path(), keep);
            save(&checkpoints, 1);
            let mut reached = Vec::new();
            // As a kill would: nothing is cleaned up behind the stage.
            let stopped = with_checkpoint(2, 100, |c| {
                checkpoints.save_in_stages(c, &mut |stage| {
                    reached.push(stage);
                    if stage == stop { Err(Error::input("test", "stopped")) } else { Ok(()) }
                })
            });
            assert!(stopped.is_err());
            assert_eq!(reached, stages[..reached.len()], "the stages come in order");
            let renamed = reached.contains(&Renamed);
            let loaded = newest(&checkpoints);
            assert_eq!((loaded.step, loaded.skipped.len()), (if renamed { 2 } else { 1 }, 0), "stopped at {stop:?}");
            save(&checkpoints, 3);
            assert_eq!(newest(&checkpoints).step, 3);
            assert!(names(&checkpoints).len() <= keep, "rubbish stays after {stop:?}: {:?}", names(&checkpoints));
        }
    }
}

#[test]
fn a_failed_save_leaves_no_rubbish() {
    let home = tempfile::tempdir().unwrap();
    let checkpoints = Checkpoints::new(home.path(), 2);
    save(&checkpoints, 1);
    for name in ["../x", "state.json", "checkpoint.json", "model.safetensors", "a/b"] {
        let files = [(name.to_owned(), Vec::new())];
        let refused = with_checkpoint(2, 10, |c| checkpoints.save(&Checkpoint { files: &files, ..c.clone() }));
        assert!(refused.unwrap_err().to_string().contains(name));
    }
    assert_eq!(names(&checkpoints), ["step-000001"]);
    let file = home.path().join("file");
    fs::write(&file, "").unwrap();
    let error = with_checkpoint(1, 1, |c| Checkpoints::new(&file, 1).save(c)).unwrap_err();
    assert!(error.to_string().contains("file: "), "{error}");
}

#[test]
fn damage_is_found_and_the_older_checkpoint_taken() {
    for name in [MODEL, OPTIMIZER, STATE, RECORD, "config.json"] {
        for damage in ["cut", "flip", "grow", "remove", "empty"] {
            let home = tempfile::tempdir().unwrap();
            let checkpoints = Checkpoints::new(home.path(), 3);
            save(&checkpoints, 1);
            let file = save(&checkpoints, 2).join(name);
            let mut bytes = fs::read(&file).unwrap();
            match damage {
                "cut" => bytes.truncate(bytes.len() - 1),
                "flip" => *bytes.last_mut().unwrap() ^= 4,
                "grow" => bytes.push(b'x'),
                _ => bytes.clear(),
            }
            if damage == "remove" {
                fs::remove_file(&file).unwrap();
            } else {
                fs::write(&file, &bytes).unwrap();
            }
            let loaded = checkpoints.latest().unwrap().unwrap();
            // The last byte of the record is a line's end, which says nothing.
            let harmless = name == RECORD && damage == "cut";
            assert_eq!(loaded.step, if harmless { 2 } else { 1 }, "{damage} {name}");
            assert_eq!(loaded.skipped.len(), usize::from(!harmless), "{damage} {name}");
            assert!(harmless || loaded.skipped[0].contains(name), "{:?}", loaded.skipped);
        }
    }
}

#[test]
fn no_whole_checkpoint_is_an_error_not_a_fresh_start() {
    let home = tempfile::tempdir().unwrap();
    let checkpoints = Checkpoints::new(home.path(), 2);
    fs::remove_file(save(&checkpoints, 7).join(MODEL)).unwrap();
    let message = checkpoints.latest().unwrap_err().to_string();
    assert!(message.contains("no checkpoint is whole") && message.contains(MODEL), "{message}");
    assert!(!checkpoints.is_empty().unwrap());
}

#[test]
fn a_run_that_goes_back_is_the_newest_and_nothing_is_overwritten() {
    let home = tempfile::tempdir().unwrap();
    let checkpoints = Checkpoints::new(home.path(), 3);
    for step in [100, 200, 300] {
        save(&checkpoints, step);
    }
    save(&checkpoints, 200);
    assert_eq!(newest(&checkpoints).step, 200);
    assert_eq!(names(&checkpoints), ["step-000200", "step-000200-1", "step-000300"]);
    fs::create_dir(home.path().join("step-notes")).unwrap();
    fs::create_dir(home.path().join("step-9-old")).unwrap();
    save(&checkpoints, 250);
    assert_eq!(names(&checkpoints), ["step-000200-1", "step-000250", "step-000300", "step-9-old", "step-notes"]);
}

#[test]
fn numbers_of_the_state_come_back_to_the_last_bit() {
    let home = tempfile::tempdir().unwrap();
    let checkpoints = Checkpoints::new(home.path(), 1);
    let mut bits = 0x9e37_79b9_7f4a_7c15_u64;
    let mut numbers: Vec<f64> = (0..20_000)
        .map(|_| {
            bits = bits.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            f64::from_bits(bits)
        })
        .filter(|x| x.is_finite())
        .collect();
    numbers.extend([0.1, 1.0 / 3.0, 5e-324, f64::MAX, -0.0, 6.02e23]);
    let state = json!({"numbers": numbers, "largest": u64::MAX, "smallest": i64::MIN});
    with_checkpoint(1, 1, |c| checkpoints.save(&Checkpoint { state: &state, ..c.clone() })).unwrap();
    let loaded = checkpoints.latest().unwrap().unwrap();
    let read = loaded.state["numbers"].as_array().unwrap().iter().map(|v| v.as_f64().unwrap().to_bits());
    assert!(read.eq(numbers.iter().map(|x| x.to_bits())));
    assert_eq!((&loaded.state["largest"], &loaded.state["smallest"]), (&json!(u64::MAX), &json!(i64::MIN)));
}

/// Where a second run of this test program saves until it is killed.
const ENDLESS: &str = "WGFORMER_TEST_SAVE_UNTIL_KILLED";

#[test]
#[cfg(unix)]
fn a_killed_process_leaves_a_whole_checkpoint() {
    if let Ok(folder) = std::env::var(ENDLESS) {
        let checkpoints = Checkpoints::new(folder, 1);
        let first = checkpoints.latest().unwrap().map_or(0, |l| l.step) + 1;
        for step in first.. {
            with_checkpoint(step, 50_000, |c| checkpoints.save(c)).unwrap();
        }
    }
    let home = tempfile::tempdir().unwrap();
    let checkpoints = Checkpoints::new(home.path(), 1);
    let mut last = 0;
    for round in 0..8u64 {
        let mut child = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "io::checkpoint::tests::a_killed_process_leaves_a_whole_checkpoint"])
            .env(ENDLESS, home.path())
            .stdout(std::process::Stdio::null())
            .spawn()
            .unwrap();
        // At least one checkpoint more, then some part of the next ones.
        let begin = std::time::Instant::now();
        while checkpoints.list().unwrap().first().is_none_or(|l| l.step <= last) {
            assert!(child.try_wait().unwrap().is_none() && begin.elapsed().as_secs() < 60, "the saving process failed");
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        std::thread::sleep(std::time::Duration::from_micros(1700 * round));
        child.kill().unwrap();
        child.wait().unwrap();
        let loaded = newest(&checkpoints);
        assert!(loaded.step > last, "steps were lost");
        assert!(loaded.skipped.is_empty(), "{:?}", loaded.skipped);
        last = loaded.step;
    }
}

#[test]
fn damaged_records_never_panic() {
    let home = tempfile::tempdir().unwrap();
    let path = save(&Checkpoints::new(home.path(), 3), 1);
    let original = fs::read(path.join(RECORD)).unwrap();
    let written: Value = serde_json::from_slice(&original).unwrap();
    let config = ProptestConfig { cases: 1000, failure_persistence: None, ..ProptestConfig::default() };
    let flips = prop::collection::vec((any::<usize>(), any::<u8>()), 0..3);
    proptest!(config, |(cut in 0usize..2000, flips in flips)| {
        let mut bytes = original.clone();
        for (at, value) in flips {
            bytes[at % original.len()] = value;
        }
        bytes.truncate(cut);
        fs::write(path.join(RECORD), &bytes).unwrap();
        if let Ok(loaded) = Checkpoints::load(&path) {
            let read: Value = serde_json::from_slice(&bytes).unwrap();
            prop_assert_eq!(&read, &written, "accepted although it says something else");
            prop_assert_eq!(loaded.step, 1);
        }
    });
}
