//! `wgformer embed` and `wgformer search` with a small encoder.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[path = "common/command.rs"]
mod common;

use common::{refusal, succeed, wgformer};
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use wgformer::io::Tensors;

/// An encoder of bytes, of 48 positions, trained for a step.
fn encoder(folder: &Path) -> PathBuf {
    let text = common::text(folder);
    let mut train = wgformer();
    train.args(["train", "--steps", "1", "--model", "transformer", "--sides", "encoder", "--tokenizer", "bytes"]);
    train.args(["--layers", "2", "--heads", "2", "--width", "24", "--context", "48", "--batch", "2"]);
    succeed(train.arg("--data").arg(text).arg("--out").arg(folder.join("run")));
    folder.join("run/model")
}

fn embed(model: &Path, more: &[&str]) -> Command {
    let mut command = wgformer();
    command.arg("embed").arg(model).args(more);
    command
}

fn search(index: &Path, more: &[&str]) -> Command {
    let mut command = wgformer();
    command.arg("search").arg(index).args(more);
    command
}

fn lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn vector(line: &Value) -> Vec<f64> {
    line["vector"].as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect()
}

fn near(a: &[f64], b: &[f64], tolerance: f64) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| (a - b).abs() <= tolerance)
}

fn length(vector: &[f64]) -> f64 {
    vector.iter().map(|x| x * x).sum::<f64>().sqrt()
}

fn put(path: PathBuf, value: &Value) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, value.to_string()).unwrap();
}

#[test]
fn vectors_of_a_batch_are_those_of_single_texts() {
    let folder = tempfile::tempdir().unwrap();
    let model = encoder(folder.path());
    let long = "x🙂 ".repeat(30);
    let texts = ["It is a truth", "a wife", "x", "naïve\u{a0}天 🙂", long.as_str()];
    let file = folder.path().join("texts.jsonl");
    let records: Vec<String> = texts.iter().map(|text| json!({"text": text, "id": 7}).to_string()).collect();
    fs::write(&file, records.join("\n")).unwrap();
    let file = file.to_str().unwrap();
    for more in [&[][..], &["--windows"], &["--pooling", "cls"], &["--prefix", "query: "]] {
        let all = lines(&succeed(embed(&model, more).arg(file)));
        assert_eq!(all.len(), texts.len());
        for (text, line) in texts.iter().zip(&all) {
            assert_eq!(line["text"], *text);
            let alone = lines(&succeed(embed(&model, more).args(["--text", text])));
            assert!(near(&vector(line), &vector(&alone[0]), 1e-5), "{text} {more:?}");
            assert!((length(&vector(line)) - 1.0).abs() <= 1e-5);
        }
    }
    let plain = lines(&succeed(embed(&model, &["--json"]).arg(file)));
    assert_eq!(plain[2]["id"], 7);
    // A prefix is read in front; windows change only what is too long.
    let [prefixed, windows, cls] = [&["--prefix", "query: "][..], &["--windows"], &["--pooling", "cls"]]
        .map(|more| lines(&succeed(embed(&model, more).arg(file))));
    let by_hand = lines(&succeed(&mut embed(&model, &["--text", "query: a wife"])));
    assert!(near(&vector(&prefixed[1]), &vector(&by_hand[0]), 1e-5));
    for at in 0..texts.len() {
        assert_eq!(near(&vector(&plain[at]), &vector(&windows[at]), 1e-5), at < 4, "{at}");
        assert!(!near(&vector(&plain[at]), &vector(&cls[at]), 1e-3) || at == 2);
    }
    // A matrix, with the places of its texts.
    let out = folder.path().join("v.safetensors");
    succeed(embed(&model, &["--out"]).arg(&out).arg(file));
    let tensors = Tensors::open(&out).unwrap();
    let matrix = tensors.get("vectors").unwrap();
    assert_eq!(matrix.shape.dims(), [5, 24]);
    let row: Vec<f64> = matrix.to_f32().unwrap()[24..48].iter().map(|x| f64::from(*x)).collect();
    assert!(near(&row, &vector(&plain[1]), 1e-6));
    let places: Value = serde_json::from_str(&fs::read_to_string(folder.path().join("v.json")).unwrap()).unwrap();
    assert_eq!((&places["texts"][3]["line"], &places["dimensions"]), (&json!(4), &json!(24)));
}

#[test]
fn folders_of_sentence_transformers_say_how_texts_become_vectors() {
    let folder = tempfile::tempdir().unwrap();
    let model = encoder(folder.path());
    let one = |more: &[&str]| vector(&lines(&succeed(embed(&model, more).args(["--text", "A wife in want of it"])))[0]);
    let (mean, cls) = (one(&[]), one(&["--pooling", "cls"]));
    let module = |kind: &str, path: &str| json!({"type": format!("sentence_transformers.models.{kind}"), "path": path});
    let modules = |kinds: &[(&str, &str)]| {
        put(model.join("modules.json"), &kinds.iter().map(|(kind, path)| module(kind, path)).collect());
    };
    let pooling = |mode: &str| {
        let mut config = json!({"word_embedding_dimension": 24, "pooling_mode_mean_tokens": false});
        config[mode] = true.into();
        put(model.join("1_Pooling/config.json"), &config);
    };
    modules(&[("Transformer", ""), ("Pooling", "1_Pooling"), ("Normalize", "2_Normalize")]);
    pooling("pooling_mode_cls_token");
    assert!(near(&one(&[]), &cls, 1e-6));
    pooling("pooling_mode_mean_tokens");
    assert!(near(&one(&[]), &mean, 1e-6));
    // Without Normalize vectors keep their lengths.
    modules(&[("Transformer", ""), ("Pooling", "1_Pooling")]);
    let raw = one(&[]);
    assert!((length(&raw) - 1.0).abs() > 1e-2);
    let unit: Vec<f64> = raw.iter().map(|x| x / length(&raw)).collect();
    assert!(near(&unit, &mean, 1e-5));
    // Lengths, lower case and prompts.
    modules(&[("Transformer", ""), ("Pooling", "1_Pooling"), ("Normalize", "2_Normalize")]);
    put(model.join("sentence_bert_config.json"), &json!({"max_seq_length": 6, "do_lower_case": true}));
    let cut = vector(&lines(&succeed(&mut embed(&model, &["--text", "a wife"])))[0]);
    assert!(near(&one(&[]), &cut, 1e-5));
    assert!(!near(&one(&["--windows"]), &cut, 1e-3));
    put(model.join("sentence_bert_config.json"), &json!({"max_seq_length": null}));
    let prompts = json!({"prompts": {"query": "q: ", "document": ""}, "default_prompt_name": "query"});
    put(model.join("config_sentence_transformers.json"), &prompts);
    assert!(near(&one(&[]), &one(&["--prefix", "q: "]), 1e-6) && near(&one(&["--prompt", "query"]), &one(&[]), 1e-6));
    assert!(near(&one(&["--prompt", "document"]), &mean, 1e-6));
    let said = refusal(embed(&model, &["--prompt", "code"]).args(["--text", "a"]));
    assert!(said.contains("it has document, query"), "{said}");
    pooling("pooling_mode_max_tokens");
    assert!(refusal(embed(&model, &["--text", "a"]).arg("--json")).contains("mean and cls are known"));
    modules(&[("Transformer", ""), ("Dense", "2_Dense")]);
    assert!(refusal(&mut embed(&model, &["--text", "a"])).contains("a module Dense"));
    put(model.join("modules.json"), &json!({"a": 1}));
    assert!(refusal(&mut embed(&model, &["--text", "a"])).contains("no list of modules"));
    modules(&[("Pooling", "../elsewhere")]);
    assert!(refusal(&mut embed(&model, &["--text", "a"])).contains("not a plain file name"));
}

#[test]
fn what_cannot_be_embedded_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let model = encoder(folder.path());
    let file = folder.path().join("texts.txt");
    let said = |content: &[u8]| {
        fs::write(&file, content).unwrap();
        refusal(embed(&model, &[]).arg(&file))
    };
    assert!(said(b"").contains("holds no examples"));
    assert!(said(b"one\ncaf\xe9").contains("is not UTF-8 text (line 2"));
    assert!(said(b"{\"text\": \"a\"}\n{\"text\": \" \"}").contains("line 2: the text is empty"));
    assert!(refusal(embed(&model, &["--text", "a", "--prefix"]).arg("p".repeat(60))).contains("shorten it"));
    assert!(refusal(&mut embed(&model, &["--text", "a", "--out", "v.npy"])).contains("should end in .safetensors"));
    assert!(refusal(&mut embed(&model, &["--text", "a", "--pooling", "max"])).contains("it must be mean or cls"));
    // A line of 1 MB is read as far as the model reads, or whole.
    fs::write(&file, "word ".repeat(200_000)).unwrap();
    for more in [&[][..], &["--windows"]] {
        assert_eq!(lines(&succeed(embed(&model, more).arg(&file))).len(), 1);
    }
    let decoder = common::small_model(folder.path());
    assert!(refusal(&mut embed(&decoder, &["--text", "a"])).contains("needs an encoder"));
}

/// A folder of three files with an index.
struct Library {
    folder: tempfile::TempDir,
    model: PathBuf,
}

impl Library {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let model = encoder(folder.path());
        let library = Self { folder, model };
        library.write("a.txt", "A single man\nin want of a wife.\n\nThe sea was calm 🙂 that day.");
        library.write("sub/b.md", "naïve\u{a0}cats sleep\r\n\r\nBread is baked in ovens.");
        fs::write(library.docs().join("picture.png"), b"\x89PNG\xff\xfe").unwrap();
        library
    }

    fn docs(&self) -> PathBuf {
        self.folder.path().join("docs")
    }

    fn index(&self) -> PathBuf {
        self.folder.path().join("index")
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.docs().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn search(&self, more: &[&str]) -> Command {
        search(&self.index(), more)
    }

    /// What an update says.
    fn add(&self) -> Value {
        let mut command = self.search(&["--json", "--model"]);
        let said = succeed(command.arg(&self.model).arg("--add").arg(self.docs()));
        serde_json::from_str(&said).unwrap()
    }

    fn found(&self, more: &[&str], query: &str) -> Vec<Value> {
        let said = succeed(self.search(&["--json", query]).args(more));
        let line: Value = serde_json::from_str(&said).unwrap();
        line["found"].as_array().unwrap().clone()
    }
}

#[test]
fn an_index_follows_its_files() {
    let library = Library::new();
    // What lies beside the texts is the index itself.
    let within = library.docs().join("index");
    for _ in 0..2 {
        let mut add = search(&within, &["--json", "--model"]);
        let said = succeed(add.arg(&library.model).arg("--add").arg(library.docs()));
        assert_eq!(serde_json::from_str::<Value>(&said).unwrap()["files"], 2);
    }
    fs::remove_dir_all(within).unwrap();
    let said = library.add();
    assert_eq!(said, json!({"files": 2, "passages": 4, "read": 2, "unchanged": 0, "removed": 0, "skipped": 1}));
    // A passage is nearest to itself.
    for (text, file, line) in [
        ("A single man\nin want of a wife.", "a.txt", 1),
        ("The sea was calm 🙂 that day.", "a.txt", 4),
        ("naïve\u{a0}cats sleep", "b.md", 1),
        ("Bread is baked in ovens.", "b.md", 3),
    ] {
        let found = library.found(&[], text);
        assert_eq!(found.len(), 4);
        assert_eq!((&found[0]["text"], &found[0]["line"]), (&json!(text), &json!(line)));
        assert!(found[0]["file"].as_str().unwrap().ends_with(file));
        assert!((found[0]["score"].as_f64().unwrap() - 1.0).abs() <= 1e-5);
        assert!(found.is_sorted_by(|a, b| a["score"].as_f64() >= b["score"].as_f64()));
        // The score is the cosine of what embed says.
        let [query, other] = [text, found[2]["text"].as_str().unwrap()].map(|text| {
            vector(&lines(&succeed(embed(&library.model, &["--windows", "--text", text]).arg("--json")))[0])
        });
        let cosine: f64 = query.iter().zip(&other).map(|(a, b)| a * b).sum();
        assert!((cosine - found[2]["score"].as_f64().unwrap()).abs() <= 1e-5);
    }
    assert_eq!(library.found(&["--top", "2"], "a").len(), 2);
    let shown = succeed(&mut library.search(&["Bread is baked in ovens.", "wife"]));
    assert!(shown.contains("b.md:3  Bread is baked") && shown.lines().count() == 10, "{shown}");

    let unread = json!({"files": 2, "passages": 4, "read": 0, "unchanged": 2, "removed": 0, "skipped": 1});
    assert_eq!(library.add(), unread);
    // The same text again, later: nothing is read by the model.
    let text = fs::read_to_string(library.docs().join("a.txt")).unwrap();
    std::thread::sleep(std::time::Duration::from_millis(20));
    library.write("a.txt", &text);
    assert_eq!(library.add(), unread);
    library.write("a.txt", "Only this, which is new.");
    let found = library.found(&[], "The sea was calm 🙂 that day.");
    assert!(found[0]["text"].is_null(), "a changed file is not quoted");
    let said = library.add();
    assert_eq!((&said["read"], &said["unchanged"], &said["passages"]), (&json!(1), &json!(1), &json!(3)));
    assert_eq!(library.found(&[], "Only this, which is new.")[0]["text"], "Only this, which is new.");
    fs::remove_file(library.docs().join("sub/b.md")).unwrap();
    let said = library.add();
    assert_eq!((&said["removed"], &said["passages"]), (&json!(1), &json!(1)));
    let vectors = fs::read_dir(library.index()).unwrap().count();
    assert_eq!(vectors, 2, "one file of vectors, and the index");
    assert!(refusal(library.search(&["--add"]).arg(library.docs().join("none"))).contains("none"));
    assert!(refusal(library.search(&["--add"]).arg(library.docs().join("picture.png"))).contains("is not UTF-8"));
}

#[test]
fn texts_are_divided_as_asked_and_never_longer_than_the_model_reads() {
    let library = Library::new();
    let sentence = "Some words are told about a long day at the sea.";
    library.write("sub/b.md", &format!("{}\nlast", [sentence; 4].join(" ")));
    fs::remove_file(library.docs().join("a.txt")).unwrap();
    for (kind, line) in [("lines", 2), ("paragraphs", 1), ("windows", 1)] {
        let index = library.folder.path().join(kind);
        let mut add = search(&index, &["--passages", kind, "--model"]);
        succeed(add.arg(&library.model).arg("--add").arg(library.docs()));
        let said = succeed(&mut search(&index, &["--json", "last"]));
        let found: Value = serde_json::from_str(&said).unwrap();
        let found = found["found"].as_array().unwrap();
        assert!((5..=6).contains(&found.len()), "{kind} {found:?}");
        let content: Value = serde_json::from_str(&fs::read_to_string(index.join("index.json")).unwrap()).unwrap();
        let text = fs::read_to_string(library.docs().join("sub/b.md")).unwrap();
        let place = |passage: &Value, key: &str| passage[key].as_u64().unwrap() as usize;
        let passages = content["files"][0]["passages"].as_array().unwrap();
        let texts: Vec<&str> = passages.iter().map(|p| &text[place(p, "start")..place(p, "end")]).collect();
        assert!(texts.iter().all(|text| text.len() <= 48));
        // Nothing is lost.
        let joined: String = texts.concat().split_whitespace().collect();
        assert_eq!(joined, text.split_whitespace().collect::<String>());
        let last = found.iter().find(|hit| hit["text"].as_str().unwrap().ends_with("last")).unwrap();
        assert_eq!(last["line"], line, "{kind}");
    }
    let other = refusal(&mut search(&library.folder.path().join("lines"), &["--passages", "windows", "a"]));
    assert!(other.contains("made with another"), "{other}");
}

#[test]
fn a_damaged_index_says_what_to_do() {
    let library = Library::new();
    let none = refusal(&mut library.search(&["a"]));
    assert!(none.contains("make one with --model MODEL --add FILES"), "{none}");
    assert!(refusal(&mut library.search(&[])).contains("there is none: give one"));
    library.add();
    assert!(refusal(&mut library.search(&[" "])).contains("is empty"));
    // A query that is longer than the model reads.
    assert_eq!(library.found(&[], &"x🙂 ".repeat(10_000)).len(), 4);
    let path = library.index().join("index.json");
    let whole = fs::read_to_string(&path).unwrap();
    let value: Value = serde_json::from_str(&whole).unwrap();
    let changed = |change: &dyn Fn(&mut Value)| {
        let mut value = value.clone();
        change(&mut value);
        fs::write(&path, value.to_string()).unwrap();
        let said = refusal(&mut library.search(&["a"]));
        fs::write(&path, &whole).unwrap();
        said
    };
    for (change, wanted) in [
        (&(|v: &mut Value| v["version"] = 9.into()) as &dyn Fn(&mut Value), "is of version 9"),
        (&|v| v["files"][0]["passages"] = json!([]), "build it again"),
        (&|v| v["files"][0]["passages"][0]["end"] = 0.into(), "a passage is empty"),
        (&|v| v["fingerprint"] = "0".into(), "its vectors are others"),
        (&|v| v["vectors"] = "../v.safetensors".into(), "not a plain file name"),
        (&|v| v["vectors"] = "v.safetensors".into(), "build it again"),
        (&|v| v["settings"] = json!(3), "is damaged"),
        (&|v| v["settings"]["weights"] = "0".into(), "other weights"),
    ] {
        let said = changed(change);
        assert!(said.contains(wanted), "{wanted}: {said}");
    }
    fs::write(&path, &whole[..whole.len() / 2]).unwrap();
    assert!(refusal(&mut library.search(&["a"])).contains("index.json"));
    fs::write(&path, &whole).unwrap();
    let vectors = library.index().join(value["vectors"].as_str().unwrap());
    let mut bytes = fs::read(&vectors).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&vectors, &bytes).unwrap();
    assert!(refusal(&mut library.search(&["a"])).contains("its vectors are others): delete"));
    fs::remove_file(&vectors).unwrap();
    assert!(refusal(&mut library.search(&["a"])).contains("build it again"));
}

#[test]
fn what_is_relevant_is_measured_beside_words() {
    let library = Library::new();
    library.add();
    let examples = library.folder.path().join("queries.jsonl");
    let write = |entries: &[Value]| {
        fs::write(&examples, entries.iter().map(|entry| format!("{entry}\n")).collect::<String>()).unwrap();
    };
    // Each passage asks for itself; words find it in two of three.
    write(&[
        json!({"query": "Bread is baked in ovens.", "relevant": ["b.md:3"]}),
        json!({"query": "The sea was calm 🙂 that day.", "relevant": "The sea was calm 🙂 that day."}),
        json!({"query": "naïve\u{a0}cats sleep", "relevant": ["sub/b.md"]}),
    ]);
    let page = library.folder.path().join("page.html");
    let said = succeed(library.search(&["--json", "--eval"]).arg(&examples).arg("--html").arg(&page));
    let said: Value = serde_json::from_str(&said).unwrap();
    assert_eq!((&said["queries"], &said["passages"]), (&json!(3), &json!(4)));
    let close =
        |found: &Value, wanted: f64| assert!((found.as_f64().unwrap() - wanted).abs() <= 1e-9, "{found} {wanted}");
    close(&said["metrics"]["vectors"]["MRR@10"], 1.0);
    close(&said["metrics"]["vectors"]["recall@1"], 2.5 / 3.0);
    close(&said["metrics"]["vectors"]["recall@10"], 1.0);
    close(&said["metrics"]["bm25"]["MRR@10"], 1.0);
    // Of the two passages of b.md words find one.
    close(&said["metrics"]["bm25"]["recall@100"], 2.5 / 3.0);
    let second = 1.0 / 3_f64.log2();
    close(&said["metrics"]["bm25"]["nDCG@10"], (2.0 + 1.0 / (1.0 + second)) / 3.0);
    let page = fs::read_to_string(page).unwrap();
    assert!(page.contains("BM25") && page.contains("Bread is baked in ovens."));
    let table = succeed(library.search(&["--eval"]).arg(&examples));
    assert!(table.contains("nDCG@10") && table.contains("3 queries, 4 passages"), "{table}");
    for (entry, wanted) in [
        (json!({"query": "a", "relevant": ["nowhere"]}), "line 1: \"nowhere\" is no passage"),
        (json!({"query": "a"}), "\"relevant\" is needed"),
        (json!({"query": " ", "relevant": ["a.txt:1"]}), "a \"query\" is needed"),
    ] {
        write(&[entry]);
        let said = refusal(library.search(&["--eval"]).arg(&examples));
        assert!(said.contains(wanted), "{said}");
    }
}
