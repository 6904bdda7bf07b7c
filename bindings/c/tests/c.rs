//! A program in C, and those of the guide, compiled against the header and run: `check.c` compares with golden files.
#![allow(clippy::expect_used, clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on fails")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use wgformer::io::{TensorRef, Tensors};

/// The tokens of the models that are tested: a character each, as Python's `string.printable` orders them.
const CHARACTERS: &str =
    "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~ \t\n";
const TEMPLATE: &str = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}<assistant>";

fn root() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
}

fn json(value: &str) -> String {
    format!("\"{}\"", value.replace('\\', "\\\\").replace('"', "\\\"").replace('\t', "\\t").replace('\n', "\\n"))
}

/// The tokenizer of the first characters.
fn tokenizer(count: usize) -> String {
    let entries = CHARACTERS.chars().take(count).enumerate();
    let entries: Vec<String> = entries.map(|(id, c)| format!("{}: {id}", json(&c.to_string()))).collect();
    format!(
        r#"{{"version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "normalizer": null, "post_processor": null,
            "pre_tokenizer": {{"type": "Split", "pattern": {{"Regex": "(?s)."}}, "behavior": "Isolated", "invert": false}},
            "decoder": {{"type": "Fuse"}},
            "model": {{"type": "WordLevel", "unk_token": "0", "vocab": {{{}}}}}}}"#,
        entries.join(", ")
    )
}

/// A golden model with a tokenizer.
fn model(golden: &str, to: &Path, characters: usize) -> Tensors {
    let from = root().join("tests/goldens").join(golden);
    fs::create_dir_all(to).unwrap();
    for file in ["config.json", "model.safetensors"] {
        fs::copy(from.join(file), to.join(file)).unwrap();
    }
    fs::write(to.join("tokenizer.json"), tokenizer(characters)).unwrap();
    fs::write(to.join("tokenizer_config.json"), format!("{{\"chat_template\": {}}}", json(TEMPLATE))).unwrap();
    Tensors::open(from.join("golden.safetensors")).unwrap()
}

fn integers(tensor: TensorRef<'_>) -> Vec<u32> {
    tensor.to_u32().unwrap()
}

fn write(folder: &Path, name: &str, words: impl IntoIterator<Item = u32>) {
    fs::write(folder.join(name), words.into_iter().flat_map(u32::to_le_bytes).collect::<Vec<u8>>()).unwrap();
}

fn write_floats(folder: &Path, name: &str, values: &[f32]) {
    write(folder, name, values.iter().map(|x| x.to_bits()));
}

/// Models, and what PyTorch computed of them, for `check.c`.
fn make(folder: &Path) {
    let golden = model("gpt2", &folder.join("decoder"), 97);
    write(folder, "ids", integers(golden.expect("input_ids").unwrap()));
    for name in ["logits", "loss"] {
        write_floats(folder, name, &golden.expect(name).unwrap().to_f32().unwrap());
    }
    let generated = Tensors::open(root().join("tests/goldens/gpt2/generated.safetensors")).unwrap();
    let (prompt, greedy) = (generated.expect("prompt").unwrap(), generated.expect("greedy").unwrap());
    let [rows, length] = prompt.shape.expect("prompt").unwrap();
    let [_, whole] = greedy.shape.expect("greedy").unwrap();
    let answer: Vec<u32> = integers(greedy)[length..whole].to_vec();
    assert!(rows > 0 && answer.len() > 4 && !answer.contains(&2), "an answer without an end token: {answer:?}");
    write(folder, "prompt", integers(prompt)[..length].iter().copied());
    write(folder, "greedy", answer);

    // Vectors: means of the states of real tokens, of length 1.
    let golden = model("t5-encoder", &folder.join("encoder"), 31);
    let states = golden.expect("last_hidden_state").unwrap();
    let [rows, length, width] = states.shape.expect("states").unwrap();
    let (states, ids) = (states.to_f32().unwrap(), integers(golden.expect("input_ids").unwrap()));
    let mask = integers(golden.expect("attention_mask").unwrap());
    let (mut texts, mut vectors) = (String::new(), Vec::new());
    for row in 0..rows {
        let real: Vec<usize> = (row * length..(row + 1) * length).filter(|at| mask[*at] == 1).collect();
        texts.extend(real.iter().map(|at| CHARACTERS.chars().nth(ids[*at] as usize).unwrap()));
        texts.push('\n');
        let sum = |x: usize| real.iter().map(|at| f64::from(states[at * width + x])).sum::<f64>();
        let sums: Vec<f64> = (0..width).map(sum).collect();
        let norm = sums.iter().map(|x| x * x).sum::<f64>().sqrt();
        vectors.extend(sums.iter().map(|x| (x / norm) as f32));
    }
    fs::write(folder.join("texts"), texts).unwrap();
    write_floats(folder, "vectors", &vectors);
}

/// Where cargo has put the libraries: beside this test.
fn libraries() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    test.parent().unwrap().to_owned()
}

fn run(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{command:?}: {}\n{text}", output.status);
    text
}

/// Compiles a program, with warnings as errors.
fn compile(source: &Path, program: &Path, link: &[&str]) {
    let compiler = std::env::var_os("CC").unwrap_or_else(|| "cc".into());
    let mut command = Command::new(compiler);
    command.args(["-std=c11", "-Wall", "-Wextra", "-Wpedantic", "-Werror", "-g"]);
    command.arg(source).arg("-I").arg(root().join("bindings/c/include")).arg("-o").arg(program);
    run(command.args(link).args(["-lm", "-lpthread", "-ldl"]));
}

fn shared() -> Vec<String> {
    let folder = libraries().display().to_string();
    vec![format!("-L{folder}"), "-lwgformer_c".into(), format!("-Wl,-rpath,{folder}")]
}

fn words(link: &[String]) -> Vec<&str> {
    link.iter().map(String::as_str).collect()
}

#[test]
fn a_program_in_c_computes_what_the_golden_files_say() {
    let home = tempfile::tempdir().unwrap();
    make(home.path());
    let program = home.path().join("check");
    compile(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/check.c"), &program, &words(&shared()));
    print!("{}", run(Command::new(&program).arg(home.path())));
}

/// The programs of the guide, by the name in their first line, with their arguments; the last is linked with the static library.
#[test]
fn the_programs_of_the_guide_run() {
    let home = tempfile::tempdir().unwrap();
    make(home.path());
    let guide = fs::read_to_string(root().join("docs/guide/c.md")).unwrap();
    let statically = vec![libraries().join("libwgformer_c.a").display().to_string(), "-lgcc_s".into()];
    let runs: [(&str, &[&str], Vec<String>, &str); 3] = [
        ("generate.c", &["decoder", "It is"], shared(), "It is"),
        ("embed.c", &["encoder"], shared(), "is nearest to"),
        ("train.c", &["decoder", "saved"], statically, "saved"),
    ];
    let blocks: Vec<&str> = guide.split("```c\n").skip(1).filter_map(|block| block.split("```").next()).collect();
    assert_eq!(blocks.len(), runs.len(), "each program of the guide is run");
    for ((name, arguments, link, wanted), block) in runs.into_iter().zip(blocks) {
        assert!(block.starts_with(&format!("/* {name}")), "{name} is not the next program: {block}");
        let source = home.path().join(name);
        fs::write(&source, block).unwrap();
        let program = source.with_extension("");
        compile(&source, &program, &words(&link));
        let text = run(Command::new(&program).args(arguments).current_dir(home.path()));
        assert!(text.contains(wanted), "{name} says {text}");
    }
}

/// C++ compilers take the header as it is.
#[test]
fn the_header_is_one_of_cpp_too() {
    let home = tempfile::tempdir().unwrap();
    let source = home.path().join("header.cpp");
    fs::write(&source, "#include \"wgformer.h\"\nint main() { return wgf_version() == nullptr; }\n").unwrap();
    let include = root().join("bindings/c/include");
    run(Command::new("c++")
        .args(["-std=c++11", "-Wall", "-Wextra", "-Werror", "-fsyntax-only", "-I"])
        .arg(include)
        .arg(source));
}
