//! `wgformer generate` and `eval`: the text of an answer, its end, settings, and the ranges of options.

#![cfg(all(unix, feature = "cli"))]
#![allow(clippy::unwrap_used, reason = "a test says so and stops")]

#[path = "common/command.rs"]
mod common;

use common::*;
use serde_json::{Value, json};
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use wgformer::io::{ModelFolder, Tokenizer};

const PROMPT: &str = "The capital of France is";

fn case(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases").join(name)
}

/// A copy of a model with files written over: JSON, or a file of the case under another name.
fn copy(folder: &Path, name: &str, files: &[(&str, Value)]) -> PathBuf {
    let model = folder.join(format!("{name}-{}", files.len()));
    fs::create_dir_all(&model).unwrap();
    for entry in fs::read_dir(case(name)).unwrap() {
        let path = entry.unwrap().path();
        fs::copy(&path, model.join(path.file_name().unwrap())).unwrap();
    }
    for (file, content) in files {
        match content.as_str() {
            Some(other) => drop(fs::copy(case(name).join(other), model.join(file)).unwrap()),
            None => fs::write(model.join(file), content.to_string()).unwrap(),
        }
    }
    model
}

fn generate(model: &Path, more: &[&str]) -> Command {
    let mut command = wgformer();
    command.arg("generate").arg(model).args(more);
    command
}

fn in_json(model: &Path, more: &[&str]) -> Value {
    serde_json::from_str(&succeed(generate(model, more).arg("--json"))).unwrap()
}

fn tokens(answer: &Value) -> Vec<u32> {
    answer["tokens"].as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32).collect()
}

/// The command's standard error; it must succeed.
fn told(command: &mut Command) -> (String, String) {
    let output = run(command);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{command:?}: {said}");
    (String::from_utf8_lossy(&output.stdout).into_owned(), said)
}

fn with_input(command: &mut Command, input: &str) -> Output {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

/// The text of an answer is the decoded prompt and answer without the decoded prompt, as text, as a stream and as JSON.
#[test]
fn answers_are_joined_to_their_prompts() {
    let folder = tempfile::tempdir().unwrap();
    let mut joined = 0;
    for (name, tokenizer, first) in [
        ("llama_spm", "tokenizer_llama2.json", " "),
        ("llama_spm", "tokenizer_mistral.json", " "),
        ("llama_words", "tokenizer.json", " "),
        ("llama_wordpiece", "tokenizer.json", ""),
        ("llama_bytes", "tokenizer.json", ""),
    ] {
        let model = copy(folder.path(), name, &[("tokenizer.json", json!(tokenizer))]);
        let tokenizer = Tokenizer::open(&model).unwrap();
        let prompt = tokenizer.encode_prompt(PROMPT).unwrap();
        for count in ["1", "2", "3", "8", "40"] {
            let options = ["-p", PROMPT, "--greedy", "-n", count];
            let answer = in_json(&model, &options)["answers"][0].clone();
            let both: Vec<u32> = prompt.iter().copied().chain(tokens(&answer)).collect();
            let ended = answer["finish"] == "end";
            let both = tokenizer.decode(&both[..both.len() - usize::from(ended)]).unwrap();
            let wanted = both.strip_prefix(&tokenizer.decode(&prompt).unwrap()).unwrap();
            assert_eq!(answer["text"], wanted, "{name}, {count} tokens");
            assert_eq!(told(&mut generate(&model, &options)).0, format!("{PROMPT}{wanted}"), "{name}, streamed");
            assert!(wanted.starts_with(first), "{name}: {wanted:?} has no blank in front");
            let two = [&options[..], &["-p", PROMPT]].concat();
            let shown = told(&mut generate(&model, &two)).0;
            assert_eq!(shown, format!("{PROMPT}{wanted}\n---\n").repeat(2), "{name}, two prompts");
            joined += usize::from(tokens(&answer).len() > 1);
        }
    }
    assert!(joined >= 10, "too few answers of several tokens: {joined}");
}

#[test]
fn an_answer_ends_where_any_of_the_files_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let plain = copy(folder.path(), "llama_bytes", &[]);
    let options = ["-p", "It", "--greedy", "-n", "6"];
    let whole = tokens(&in_json(&plain, &options)["answers"][0]);
    assert_eq!(whole.len(), 6);
    let end = whole[3];
    let length = whole.iter().position(|&id| id == end).unwrap() + 1;
    let mut config: Value = serde_json::from_str(&fs::read_to_string(plain.join("config.json")).unwrap()).unwrap();
    config["eos_token_id"] = end.into();
    // A generation_config.json without ends does not hide those of config.json, nor the other way round.
    let by_config = [("config.json", config), ("generation_config.json", json!({"do_sample": true, "top_p": 0.9}))];
    let by_generation = [("generation_config.json", json!({"eos_token_id": [end, 256]}))];
    // One that tokenizer_config.json names counts as well.
    let token = ModelFolder::open(&plain).unwrap().tokenizer.unwrap().token(end).unwrap();
    let by_name = [("a", json!({})), ("b", json!({})), ("tokenizer_config.json", json!({"eos_token": token}))];
    for files in [&by_config[..], &by_generation, &by_name] {
        let model = copy(folder.path(), "llama_bytes", files);
        let answer = in_json(&model, &options)["answers"][0].clone();
        assert_eq!((tokens(&answer), answer["finish"].as_str()), (whole[..length].to_vec(), Some("end")), "{files:?}");
        let (shown, _) = told(&mut generate(&model, &options));
        assert_eq!(shown, format!("It{}", answer["text"].as_str().unwrap()), "the end is no text");
    }
    // An end token known by its name only.
    let answer = in_json(&case("llama3_chat.gguf"), &options)["answers"][0].clone();
    let file = ModelFolder::open(case("llama3_chat.gguf")).unwrap();
    let turn = file.expect_tokenizer().unwrap().id("<|eot_id|>").unwrap();
    assert_eq!((tokens(&answer).last(), answer["finish"].as_str()), (Some(&turn), Some("end")), "{answer}");
}

#[test]
fn stop_texts_end_an_answer_that_streams() {
    let model = case("llama_bytes");
    let options = ["-p", "It", "--greedy", "-n", "12"];
    let whole = in_json(&model, &options)["answers"][0]["text"].as_str().unwrap().to_owned();
    let stop: String = whole.chars().skip(2).take(2).collect();
    let front = &whole[..whole.find(&stop).unwrap()];
    let stopped = [&options[..], &["--stop", &stop]].concat();
    assert_eq!(told(&mut generate(&model, &stopped)).0, format!("It{front}"));
    let answer = in_json(&model, &stopped)["answers"][0].clone();
    assert_eq!((answer["text"].as_str(), answer["finish"].as_str()), (Some(front), Some("stop")));
    // A special token is no text, but stops an answer.
    let options = ["-p", "It", "--greedy", "-n", "6", "--stop", "<|eot_id|>"];
    let answer = in_json(&case("llama3_chat.gguf"), &options)["answers"][0].clone();
    assert_eq!(answer["finish"], "stop", "{answer}");
    let mixed = ["-p", "It", "--stop", "<|eot_id|> and"];
    assert!(refusal(&mut generate(&case("llama3_chat.gguf"), &mixed)).contains("give the token alone"));
}

#[test]
fn a_full_context_is_said() {
    let model = case("llama_bytes");
    let prompt = "a".repeat(250);
    let options = ["-p", &prompt, "-n", "50", "--seed", "3"];
    let answer = in_json(&model, &options)["answers"][0].clone();
    assert_eq!((tokens(&answer).len(), answer["finish"].as_str()), (6, Some("context")));
    let said = told(&mut generate(&model, &options)).1;
    assert!(said.contains("the context of 256 tokens is full"), "{said}");
    let shorter = ["-p", &prompt, "-n", "6", "--seed", "3"];
    assert_eq!(in_json(&model, &shorter)["answers"][0]["finish"], "length");
    let said = told(&mut generate(&model, &shorter)).1;
    assert!(!said.contains("is full") && said.contains("prompt: 250 tokens in"), "{said}");
    let rates = in_json(&model, &shorter);
    for key in ["/prompt/tokens_per_second", "/answer/tokens_per_second", "/tokens_per_second", "/prompt/seconds"] {
        assert!(rates.pointer(key).and_then(Value::as_f64).is_some_and(|rate| rate > 0.0), "{key} of {rates}");
    }
    assert_eq!((rates["prompt"]["tokens"].as_u64(), rates["answer"]["tokens"].as_u64()), (Some(250), Some(6)));
}

#[test]
fn beams_find_answers_that_are_at_least_as_likely() {
    let folder = tempfile::tempdir().unwrap();
    let plain = copy(folder.path(), "llama_bytes", &[]);
    let options = ["-p", "It", "-p", "was", "-n", "7"];
    let found = |model: &Path, more: &[&str]| in_json(model, &[&options, more].concat())["answers"].clone();
    let scores = |answers: &Value| -> Vec<f64> {
        answers.as_array().unwrap().iter().map(|answer| answer["score"].as_f64().unwrap()).collect()
    };
    let best = found(&plain, &["--beams", "3", "--best", "2"]);
    let prompts: Vec<&str> = best.as_array().unwrap().iter().map(|one| one["prompt"].as_str().unwrap()).collect();
    assert_eq!(prompts, ["It", "It", "was", "was"]);
    let of_best = scores(&best);
    assert!(of_best[0] >= of_best[1] && of_best[2] >= of_best[3] && of_best.iter().all(|score| *score < 0.0));
    assert_eq!(scores(&found(&plain, &["--beams", "3"])), [of_best[0], of_best[2]], "one answer is the best of two");
    // What the model's file says counts, unless tokens are drawn.
    let settings = json!({"num_beams": 3, "num_return_sequences": 2});
    let model = copy(folder.path(), "llama_bytes", &[("generation_config.json", settings)]);
    assert_eq!(found(&model, &[]), best);
    assert!(found(&model, &["--greedy"])[0].get("score").is_none());
    let said = told(generate(&model, &options).arg("--beams").arg("2"));
    assert!(said.1.contains("num_return_sequences 2") && said.0.matches("\n--- -").count() == 4, "{said:?}");
    // With an option of sampling beams are drawn, the same by a seed.
    let drawn = |seed: &str| found(&plain, &["--beams", "3", "--temperature", "3", "--top-k", "40", "--seed", seed]);
    assert_eq!(drawn("5"), drawn("5"));
    assert_ne!(drawn("5"), drawn("6"));
    for (more, wanted) in [
        (["--best", "2", "--beams", "1"], "it is an option of beam search: give --beams as well"),
        (["--beams", "2", "--best", "3"], "there are 3, but 2 beams give 1 to 2"),
        (["--beams", "65", "--best", "3"], "it must be a whole number, 1 to 64"),
        (["--beams", "4", "--greedy", "--json"], "cannot be used with"),
    ] {
        let output = run(generate(&plain, &options).args(more));
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && said.contains(wanted), "{said}");
    }
}

#[test]
fn settings_of_the_model_count_unless_options_say_otherwise() {
    let folder = tempfile::tempdir().unwrap();
    let plain = copy(folder.path(), "llama_bytes", &[]);
    let settings = json!({"do_sample": false, "repetition_penalty": 1.5, "max_new_tokens": 9, "typical_p": 0.5});
    let model = copy(folder.path(), "llama_bytes", &[("generation_config.json", settings)]);
    let of = |model: &Path, more: &[&str]| tokens(&in_json(model, &[&["-p", "It"], more].concat())["answers"][0]);
    let by_file = of(&model, &[]);
    assert_eq!(by_file, of(&plain, &["--greedy", "--repetition-penalty", "1.5", "-n", "9"]));
    assert_ne!(by_file, of(&plain, &["--greedy", "-n", "9"]), "the penalty changes nothing here");
    assert_eq!(of(&model, &["--repetition-penalty", "1", "-n", "4"]), of(&plain, &["--greedy", "-n", "4"]));
    let drawn = of(&model, &["--temperature", "2.5", "--repetition-penalty", "1"]);
    assert_eq!(drawn, of(&plain, &["--temperature", "2.5", "-n", "9"]));
    assert_ne!(drawn, of(&plain, &["--greedy", "-n", "9"]));
    let said = told(&mut generate(&model, &["-p", "It"])).1;
    let wanted =
        "generation_config.json: do_sample false (greedy), repetition_penalty 1.5, max_new_tokens 9 (options override)";
    assert!(said.contains(wanted) && said.contains("left out: typical_p 0.5"), "{said}");
    let said = told(&mut generate(&model, &["-p", "It", "-n", "2", "--greedy", "--repetition-penalty", "1"])).1;
    assert!(!said.contains("options override"), "{said}");
    assert_eq!(said.lines().filter(|line| line.starts_with("generation_config.json")).count(), 0, "{said}");
    let answer = |settings: &str, more: &[&str]| {
        fs::write(model.join("generation_config.json"), settings).unwrap();
        let answer = in_json(&model, &[&["-p", "It"], more].concat())["answers"][0].clone();
        (answer["prompt_tokens"].as_u64().unwrap(), tokens(&answer).len() as u64)
    };
    let (given, made) = answer(r#"{"max_length": 12}"#, &["--greedy"]);
    assert!(given > 0 && given + made == 12, "{given} tokens and {made} are not 12");
    assert_eq!(answer(r#"{"max_length": 12, "max_new_tokens": 5}"#, &["--greedy"]).1, 5);
    assert_eq!(answer(r#"{"max_length": 12}"#, &["--greedy", "-n", "3"]).1, 3);
    fs::write(model.join("generation_config.json"), r#"{"max_length": 1}"#).unwrap();
    let said = told(&mut generate(&model, &["-p", "It", "--greedy"])).1;
    assert!(said.contains("max_length 1 of the model's file leaves no room after"), "{said}");
    fs::write(model.join("generation_config.json"), r#"{"top_p": 7}"#).unwrap();
    let said = refusal(&mut generate(&model, &["-p", "It"]));
    assert!(said.contains("generation_config.json: top_p: it is 7"), "{said}");
}

#[test]
fn a_chat_template_is_applied_where_that_is_wanted_and_told_of_where_not() {
    let folder = tempfile::tempdir().unwrap();
    let template = "{% for m in messages %}[{{ m['role'] }}] {{ m['content'] }}{{ eos_token }}\n{% endfor %}{% if add_generation_prompt %}[assistant] {% endif %}";
    let files = [("tokenizer_config.json", json!({"chat_template": template, "eos_token": "<|endoftext|>"}))];
    let model = copy(folder.path(), "llama_bytes", &files);
    fn greedy<'a>(more: &[&'a str]) -> Vec<&'a str> {
        [&["--greedy", "-n", "5"], more].concat()
    }
    let by_hand = "[user] It is<|endoftext|>\n[assistant] ";
    let wanted = in_json(&model, &greedy(&["-p", by_hand]))["answers"][0].clone();
    let (shown, said) = told(&mut generate(&model, &greedy(&["-p", "It is", "--chat"])));
    assert_eq!(shown, wanted["text"].as_str().unwrap(), "the answer alone");
    assert!(!said.contains("chat template"), "{said}");
    let answer = in_json(&model, &greedy(&["-p", "It is", "--chat"]))["answers"][0].clone();
    assert_eq!((&answer["tokens"], answer["prompt"].as_str()), (&wanted["tokens"], Some("It is")));
    let by_hand = format!("[system] Be brief.<|endoftext|>\n{by_hand}");
    let wanted = in_json(&model, &greedy(&["-p", &by_hand]))["answers"][0].clone();
    let answer = in_json(&model, &greedy(&["-p", "It is", "--chat", "--system", "Be brief."]))["answers"][0].clone();
    assert_eq!(answer["tokens"], wanted["tokens"]);
    // The command warns of a prompt without the template's tokens only.
    let (_, said) = told(&mut generate(&model, &greedy(&["-p", "It is"])));
    assert!(said.contains("the model has a chat template") && said.contains("--chat applies the template"), "{said}");
    let (_, said) = told(&mut generate(&model, &greedy(&["-p", &by_hand])));
    assert!(!said.contains("chat template"), "{said}");
    // A template in a file of its own takes precedence.
    fs::write(model.join("chat_template.jinja"), "{{ raise_exception('only ' ~ messages|length) }}").unwrap();
    assert!(
        refusal(&mut generate(&model, &greedy(&["-p", "x", "--chat"]))).contains("refuses the conversation: only 1")
    );
    let said = refusal(&mut generate(&case("llama_bytes"), &greedy(&["-p", "x", "--chat"])));
    assert!(said.contains("the model has no chat template"), "{said}");
    assert!(refusal(&mut generate(&model, &greedy(&["-p", "x", "--system", "y"]))).contains("--chat"));
}

#[test]
fn prompts_come_from_files_and_from_standard_input() {
    let folder = tempfile::tempdir().unwrap();
    let model = case("llama_bytes");
    let file = folder.path().join("prompt.txt");
    fs::write(&file, "It is\n").unwrap();
    let file = file.to_str().unwrap();
    let wanted = told(&mut generate(&model, &["--greedy", "-n", "4", "-p", "It is"])).0;
    assert!(wanted.starts_with("It is"));
    let greedy = |more: &[&str]| generate(&model, &[&["--greedy", "-n", "4"], more].concat());
    assert_eq!(told(&mut greedy(&["--prompt-file", file])).0, wanted);
    for more in [&["-p", "-"][..], &[], &["--prompt-file", "-"]] {
        let output = with_input(&mut greedy(more), "It is\n");
        assert_eq!(String::from_utf8_lossy(&output.stdout), wanted, "{more:?}");
    }
    let mut from_file = greedy(&[]);
    let output = from_file.stdin(fs::File::open(file).unwrap()).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), wanted);
    // Prompts on the command line do not wait for standard input; two are answered.
    let both = succeed(&mut greedy(&["-p", "- It", "--prompt-file", file]));
    assert!(both.starts_with("- It") && both.contains(&format!("{wanted}\n---\n")), "{both}");
    assert!(refusal(&mut greedy(&["-p", "-", "--prompt-file", "-"])).contains("can be read only once"));
    assert!(refusal(&mut greedy(&["--prompt-file", "absent.txt"])).contains("absent.txt"));
}

#[test]
fn a_bos_stands_in_front_of_each_window_where_the_tokenizer_puts_one() {
    let folder = tempfile::tempdir().unwrap();
    let model = copy(folder.path(), "llama_bytes", &[("tokenizer.json", json!("tokenizer_bos.json"))]);
    let text = case("llama_bytes").join("text.txt");
    let in_windows = |model: &Path, context: &str, more: &[&str]| -> (f64, u64) {
        let mut eval = wgformer();
        eval.arg("eval").arg(model).arg("--data").arg(&text).args(["--context", context, "--json"]).args(more);
        let report: Value = serde_json::from_str(&succeed(&mut eval)).unwrap();
        (report["loss"].as_f64().unwrap(), report["tokens"].as_u64().unwrap())
    };
    let loss = |model: &Path, more: &[&str]| in_windows(model, "128", more);
    let close = |(loss, tokens): (f64, u64), wanted: (f64, u64)| {
        assert!(
            (loss - wanted.0).abs() < 2e-5 && tokens == wanted.1,
            "{loss} over {tokens}, where {wanted:?} is right"
        );
    };
    // PyTorch's values.
    let (with, without) = ((6.426134, 95), (6.453812, 94));
    close(loss(&model, &[]), with);
    close(loss(&model, &["--bos", "always"]), with);
    close(loss(&model, &["--bos", "never"]), without);
    let plain = case("llama_bytes");
    close(loss(&plain, &[]), without);
    close(loss(&plain, &["--bos", "always"]), with);
    // Also in windows that are shorter than the text.
    let (_, tokens) = in_windows(&model, "17", &[]);
    assert_eq!(tokens, 95);
}

#[test]
fn numbers_that_make_no_sense_are_refused_with_what_is_allowed() {
    let model = case("llama_bytes");
    let model = model.to_str().unwrap();
    for (command, option, values, wanted) in [
        ("generate", "--seed", &["-1", "x", "1.5"][..], "it must be a whole number, 0 to"),
        ("generate", "-n", &["-1", "0", "many"], "it must be a whole number, 1 to"),
        ("generate", "--temperature", &["-1", "-0.5", "NaN", "inf", "warm"], "0 (the most likely token) or more"),
        ("generate", "--top-p", &["2", "0", "-1", "NaN"], "greater than 0, up to 1 (all)"),
        ("generate", "--top-k", &["-1", "2.5"], "it must be a whole number, 0 to"),
        ("generate", "--min-p", &["-1", "1.01", "NaN"], "from 0 (all) to 1"),
        ("generate", "--repetition-penalty", &["0", "-1", "NaN", "inf"], "greater than 0; 1 changes nothing"),
        ("eval", "--context", &["-1", "0"], "it must be a whole number, 1 to"),
        ("eval", "--batch", &["-1", "0"], "it must be a whole number, 1 to"),
        ("profile", "--runs", &["-1", "0"], "it must be a whole number, 1 to"),
    ] {
        for value in values {
            let mut refused = wgformer();
            refused.args([command, model, option, value]);
            if command == "eval" {
                refused.args(["--data", "text.txt"]);
            }
            let said = refusal(&mut refused);
            assert!(said.contains(wanted) && said.contains(&format!("'{value}'")), "{option} {value}: {said}");
        }
    }
    for (option, values, wanted) in [
        ("--lr", &["-1", "NaN"][..], "a learning rate: a number"),
        ("--warmup", &["-1"], "it must be a whole number, 0 to"),
        ("--final-lr", &["-1", "1.5", "NaN"], "a number from 0 to 1"),
        ("--weight-decay", &["-1", "NaN"], "a number, 0 or more"),
        ("--clip", &["-1", "NaN", "inf"], "a number, 0 or more"),
        ("--accumulate", &["-1", "0"], "it must be a whole number, 1 to"),
        ("--patience", &["-1", "0"], "it must be a whole number, 1 to"),
        ("--dropout", &["-1", "1", "NaN"], "from 0 (inclusive) to 1 (exclusive)"),
        ("--minutes", &["-1", "0", "NaN", "inf"], "a number greater than 0"),
        ("--steps", &["-1"], "it must be a whole number, 0 to"),
    ] {
        for value in values {
            let said = refusal(wgformer().args(["train", "--data", "text.txt", option, value]));
            assert!(said.contains(wanted) && said.contains(&format!("'{value}'")), "{option} {value}: {said}");
        }
    }
    let count = run(wgformer().args(["devices", "--json"]));
    let count = serde_json::from_slice::<Value>(&count.stdout).unwrap().as_array().unwrap().len();
    for number in [count.to_string(), "256".into(), "-1".into()] {
        let said = refusal(wgformer().args(["generate", model, "-p", "x", "--adapter", &number]));
        assert!(said.contains("an index in this list, 0 to"), "--adapter {number}: {said}");
    }
}
