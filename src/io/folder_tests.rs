//! Folders saved, read back, and refused.

use super::*;
use serde_json::json;

fn save(path: &Path, first: f32) -> Result<()> {
    let tokenizer = Tokenizer::bytes().unwrap();
    let tensors = [NamedTensor::f32("wte.weight", [1, 2], &[first, 2.0])];
    let (config, generation) = (json!({"model_type": "gpt2"}), json!({"eos_token_id": 3}));
    let companions = [("vocab.txt".to_owned(), b"a\nb\n".to_vec())];
    Contents {
        config: &config,
        generation: Some(&generation),
        tensors: &tensors,
        tokenizer: Some(&tokenizer),
        companions: &companions,
    }
    .save(path)
}

#[test]
fn a_folder_reads_back_as_it_was_saved() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("deep/model");
    for first in [1.0, 5.0] {
        save(&path, first).unwrap();
        let model = ModelFolder::open(&path).unwrap();
        assert_eq!(model.config.get::<String>("model_type").unwrap(), "gpt2");
        assert_eq!(model.generation.as_ref().unwrap().get::<u32>("eos_token_id").unwrap(), 3);
        assert_eq!(model.tensors.expect("wte.weight").unwrap().to_f32().unwrap(), [first, 2.0]);
        assert_eq!(model.expect_tokenizer().unwrap().encode("hi").unwrap(), [104, 105]);
        let names: Vec<String> = model.companions().unwrap().into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["tokenizer_config.json", "vocab.txt"]);
        // An index of an older, sharded model must not outlive it.
        std::fs::write(path.join(INDEX), "{}").unwrap();
        std::fs::write(path.join("merges.txt"), "a b").unwrap();
        std::fs::write(path.join("notes.md"), "mine").unwrap();
    }
    save(&path, 6.0).unwrap();
    assert!(!path.join(INDEX).exists() && !path.join("merges.txt").exists() && path.join("notes.md").exists());
    assert_eq!(std::fs::read_dir(path.parent().unwrap()).unwrap().count(), 1, "a temporary folder was left");
}

#[test]
fn a_failed_save_leaves_nothing() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("model");
    let wrong = NamedTensor::new("w", crate::TensorType::f32([2]), vec![0; 4]);
    let config = json!({});
    let mut contents =
        Contents { config: &config, generation: None, tensors: &[wrong], tokenizer: None, companions: &[] };
    assert!(contents.save(&path).unwrap_err().to_string().contains("w: f32[2]"));
    let outside = [("../x".to_owned(), Vec::new())];
    contents.tensors = &[];
    contents.companions = &outside;
    assert!(contents.save(&path).unwrap_err().to_string().contains("../x"));
    assert_eq!(std::fs::read_dir(home.path()).unwrap().count(), 0);
    std::fs::write(&path, "a file").unwrap();
    contents.companions = &[];
    assert!(contents.save(&path).unwrap_err().to_string().contains("not a folder"));
}

#[test]
fn what_a_folder_lacks_is_named() {
    let home = tempfile::tempdir().unwrap();
    let said = |path: &Path| ModelFolder::open(path).unwrap_err().to_string();
    assert!(said(&home.path().join("none")).contains("is not a folder"));
    let message = said(home.path());
    assert!(message.contains("config.json: ") && message.contains("; a model folder has config"), "{message}");
    std::fs::write(home.path().join(CONFIG), "{\"a\": ").unwrap();
    assert!(said(home.path()).contains("not valid JSON"));
    std::fs::write(home.path().join(CONFIG), "{}").unwrap();
    assert!(said(home.path()).contains("model.safetensors"));
    safetensors::write(home.path().join(SINGLE), &[]).unwrap();
    let model = ModelFolder::open(home.path()).unwrap();
    assert!(model.expect_tokenizer().unwrap_err().to_string().contains("no tokenizer (tokenizer.json, "));
    std::fs::write(home.path().join(TOKENIZER), "{}").unwrap();
    assert!(said(home.path()).contains("tokenizer.json"));
}

#[cfg(unix)]
#[test]
fn links_that_lead_nowhere_are_named() {
    for name in [CONFIG, GENERATION, SINGLE, INDEX, TOKENIZER] {
        let home = tempfile::tempdir().unwrap();
        save(home.path(), 1.0).unwrap();
        if name == INDEX {
            std::fs::remove_file(home.path().join(SINGLE)).unwrap();
        }
        let _ = std::fs::remove_file(home.path().join(name));
        std::os::unix::fs::symlink("not/there", home.path().join(name)).unwrap();
        let message = ModelFolder::open(home.path()).unwrap_err().to_string();
        let wanted = format!("{name}: No such file or directory (os error 2); it is a link to a missing file");
        assert!(message.contains(&wanted), "{message}");
    }
}
