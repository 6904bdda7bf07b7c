//! The texts with compilers other than naga: Microsoft's DXC on naga's HLSL, Chromium's Tint on the WGSL.
//!
//! `scripts/fetch-compilers.sh` fetches them. Where one is missing its test says so and checks nothing, and fails if `REQUIRE_COMPILERS`
//! names it (`dxc,tint`).
#![allow(unsafe_code, reason = "DXC is a C++ library")]

use super::launched::{Text, in_parallel, nothing_but, texts};
use super::writers;
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::c_void;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::ptr::null_mut;
use std::time::{Duration, Instant};

/// The path of a compiler's file, if it exists.
fn tool(name: &str, file: &str) -> Option<PathBuf> {
    let required = std::env::var("REQUIRE_COMPILERS").unwrap_or_default();
    let required: Vec<&str> = required.split(',').filter(|name| !name.is_empty()).collect();
    assert!(required.iter().all(|name| ["dxc", "tint"].contains(name)), "REQUIRE_COMPILERS={required:?}: dxc or tint");
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/tools").join(file);
    // Tint runs within Node.js.
    let runs = || name != "tint" || Command::new("node").arg("--version").output().is_ok();
    if path.exists() && runs() {
        return Some(path);
    }
    assert!(
        !required.contains(&name),
        "{name} is required, and {} or what runs it is missing: scripts/fetch-compilers.sh",
        path.display()
    );
    // Past the harness, which shows nothing of a test that passes.
    let _ = writeln!(std::io::stderr(), "NOT CHECKED with {name}, which scripts/fetch-compilers.sh fetches");
    None
}

/// Of texts that differ in numbers only, the first, and of those at most so many of a kernel, spread over them; all with `WGFORMER_TESTS=full`.
fn some_of_each_kernel(most: usize, distinct: BTreeMap<String, &'static Text>) -> Vec<(String, &'static Text)> {
    if std::env::var("WGFORMER_TESTS").is_ok_and(|wanted| wanted == "full") {
        return distinct.into_iter().collect();
    }
    let mut kinds = BTreeSet::new();
    let digits = |c: char| c.is_ascii_digit();
    let mut kernels: BTreeMap<&str, Vec<(String, &'static Text)>> = BTreeMap::new();
    for (code, text) in distinct {
        if kinds.insert(code.split(digits).collect::<String>()) {
            kernels.entry(text.entry).or_default().push((code, text));
        }
    }
    let spread = |all: Vec<(String, &'static Text)>| {
        let step = all.len().div_ceil(most).max(1);
        all.into_iter().step_by(step)
    };
    kernels.into_values().flat_map(spread).collect()
}

/// The complaints about distinct texts, of which each stands for a launch.
fn complain(
    most: usize,
    distinct: BTreeMap<String, &'static Text>,
    compiler: impl Fn(&[(String, &Text)]) -> Vec<Option<String>> + Sync,
) {
    let all = distinct.len();
    let distinct = some_of_each_kernel(most, distinct);
    let begin = Instant::now();
    let complaints = in_parallel(&distinct, compiler);
    assert_eq!(complaints.len(), distinct.len(), "an answer for each text");
    let _ = writeln!(std::io::stderr(), "{} of {all} texts in {:.1} s", distinct.len(), begin.elapsed().as_secs_f64());
    let complaints =
        distinct.iter().zip(complaints).filter_map(|((_, text), what)| Some(format!("{}: {}", text.name(), what?)));
    nothing_but(&complaints.collect::<Vec<_>>(), distinct.len());
}

/// The time limit of Tint for one text.
const PATIENCE: Duration = Duration::from_secs(60);

/// Tint's errors. Now and then Dawn, around it, crashes or its threads lock each other out: then another process goes on
/// from the text that has no answer, unless three have ended there.
fn tint(package: &Path, codes: &[&str]) -> Vec<Option<String>> {
    let mut answers = Vec::new();
    let mut failures = 0;
    while let Some(next) = codes.get(answers.len()) {
        let got = tint_once(package, &codes[answers.len()..]);
        failures = if got.is_empty() { failures + 1 } else { 0 };
        assert!(failures < 3, "Tint (node tests/shaders/tint.mjs) has no answer to\n{next}");
        answers.extend(got);
    }
    answers
}

/// The output of one process.
fn tint_once(package: &Path, codes: &[&str]) -> Vec<Option<String>> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/shaders/tint.mjs");
    let mut node = Command::new("node");
    let node = node.arg(script).arg(package).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
    let mut node = node.expect("node, which runs Tint, starts");
    // It reads everything before it answers.
    let input = serde_json::to_vec(codes).expect("texts as JSON");
    // An error here is a process that ends early, and without answers.
    let _ = node.stdin.take().expect("a pipe").write_all(&input);
    let output = BufReader::new(node.stdout.take().expect("a pipe"));
    let (lines, answers) = std::sync::mpsc::channel();
    let reader = std::thread::spawn(move || output.lines().map_while(Result::ok).all(|line| lines.send(line).is_ok()));
    let mut got = Vec::new();
    while let Ok(line) = answers.recv_timeout(PATIENCE) {
        // A line that was cut off is no answer.
        let Ok(answer) = serde_json::from_str(&line) else { break };
        got.push(answer);
    }
    // It has ended, or hangs.
    let _ = node.kill();
    let _ = node.wait();
    drop(answers);
    let _ = reader.join();
    got
}

#[test]
fn tint_accepts_every_text_as_browsers_get_it() {
    let Some(package) = tool("tint", "tint") else { return };
    let bad = "@compute @workgroup_size(4) fn f(@builtin(local_invocation_index) i: u32) { if (i < 2u) { workgroupBarrier(); } }";
    assert!(tint(&package, &[bad])[0].is_some(), "Tint accepts a barrier that some invocations do not reach");
    let of_browsers = texts().iter().filter(|text| text.on_gpus && !text.matrices);
    let distinct = of_browsers.map(|text| (text.for_browsers(), text)).collect();
    complain(usize::MAX, distinct, |part| {
        tint(&package, &part.iter().map(|(code, _)| code.as_str()).collect::<Vec<_>>())
    });
}

#[repr(C)]
struct Guid(u32, u16, u16, [u8; 8]);

const DXC_COMPILER: Guid = Guid(0x73e2_2d93, 0xe6ce, 0x47f3, [0xb5, 0xbf, 0xf0, 0x66, 0x4f, 0x39, 0xc1, 0xb0]);
const IDXC_COMPILER_3: Guid = Guid(0x228b_4687, 0x5a6a, 0x4730, [0x90, 0x0c, 0x97, 0x02, 0xb2, 0x20, 0x3f, 0x54]);
const IDXC_RESULT: Guid = Guid(0x5834_6cda, 0xdde7, 0x4497, [0x94, 0x61, 0x6f, 0x87, 0xaf, 0x5e, 0x06, 0x59]);
const UTF_8: u32 = 65001;

/// A text for DXC.
#[repr(C)]
struct Source(*const c_void, usize, u32);

/// An object of DXC, released at the end. Its first word leads to its methods: three that all have, two destructors, its own.
struct Object(*mut c_void);

impl Object {
    /// Method number `index`.
    ///
    /// # Safety
    /// `F` must be the type of that method.
    unsafe fn method<F: Copy>(&self, index: usize) -> F {
        assert_eq!(size_of::<F>(), size_of::<*const c_void>(), "a function's address");
        unsafe { (*self.0.cast::<*const F>()).add(index).read() }
    }

    /// The object that a method of the kind `GetResult` gives.
    fn get(&self, index: usize) -> Self {
        let mut object = null_mut();
        // SAFETY: the callers' indices are those of methods with this type.
        let code = unsafe {
            self.method::<unsafe extern "C" fn(*mut c_void, *mut *mut c_void) -> i32>(index)(self.0, &mut object)
        };
        assert!(code == 0 && !object.is_null(), "DXC gives no result: {code:#x}");
        Self(object)
    }
}

impl Drop for Object {
    fn drop(&mut self) {
        // SAFETY: `Release` is the third method of every object.
        unsafe { self.method::<unsafe extern "C" fn(*mut c_void) -> u32>(2)(self.0) };
    }
}

type Create = unsafe extern "C" fn(*const Guid, *const Guid, *mut *mut c_void) -> i32;
type Compile = unsafe extern "C" fn(
    *mut c_void,
    *const Source,
    *const *const u32,
    u32,
    *mut c_void,
    *const Guid,
    *mut *mut c_void,
) -> i32;

/// Compiles HLSL as wgpu has DXC do it, without optimisations; the first line of its complaints, if there are any.
fn dxc(compiler: &Object, entry: &str, hlsl: &str) -> Option<String> {
    let arguments = ["-E", entry, "-T", "cs_6_6", "-HV", "2018", "-no-warnings", "-Ges", "-Od", "-Vd"];
    let wide = arguments.map(|argument| argument.chars().map(u32::from).chain([0]).collect::<Vec<u32>>());
    let pointers = wide.each_ref().map(Vec::as_ptr);
    let source = Source(hlsl.as_ptr().cast(), hlsl.len(), UTF_8);
    let mut result = null_mut();
    // SAFETY: `Compile` is the first of IDxcCompiler3's own methods, and everything that it is given outlives the call.
    let code = unsafe {
        let compile = compiler.method::<Compile>(5);
        compile(compiler.0, &source, pointers.as_ptr(), pointers.len() as u32, null_mut(), &IDXC_RESULT, &mut result)
    };
    if code != 0 || result.is_null() {
        return Some(format!("DXC fails with {code:#x}"));
    }
    let result = Object(result);
    let mut status = 0;
    // SAFETY: `GetStatus` is the first of IDxcOperationResult's own methods.
    unsafe { result.method::<unsafe extern "C" fn(*mut c_void, *mut i32) -> i32>(5)(result.0, &mut status) };
    if status == 0 {
        return None;
    }
    // `GetErrorBuffer`; a blob's own methods give its address and size.
    let errors = result.get(7);
    // SAFETY: as said, and the bytes live as long as `errors`.
    let text = unsafe {
        let address = errors.method::<unsafe extern "C" fn(*mut c_void) -> *const u8>(5)(errors.0);
        let size = errors.method::<unsafe extern "C" fn(*mut c_void) -> usize>(6)(errors.0);
        String::from_utf8_lossy(std::slice::from_raw_parts(address, size)).into_owned()
    };
    Some(text.lines().find(|line| line.contains("error")).unwrap_or(&text).to_owned())
}

#[test]
fn dxc_accepts_what_direct3d_12_gets() {
    let Some(path) = tool("dxc", "dxc/libdxcompiler.so") else { return };
    // SAFETY: the library is what the script has fetched. It stays loaded until the process ends.
    let library = Box::leak(Box::new(unsafe { libloading::Library::new(path) }.expect("DXC loads")));
    // SAFETY: that is the function's type in DXC's header.
    let create = unsafe { library.get::<Create>(b"DxcCreateInstance") }.expect("DXC has its entry");
    let compiler = || {
        let mut compiler = null_mut();
        // SAFETY: the identifiers are those of the compiler and of an interface that it has.
        let code = unsafe { create(&DXC_COMPILER, &IDXC_COMPILER_3, &mut compiler) };
        assert!(code == 0 && !compiler.is_null(), "DXC makes no compiler: {code:#x}");
        Object(compiler)
    };
    assert_eq!(dxc(&compiler(), "f", "[numthreads(1, 1, 1)] void f() { }"), None);
    let twice =
        dxc(&compiler(), "f", "float g() { return 0; } float g() { return 0; } [numthreads(1, 1, 1)] void f() { }");
    assert!(
        twice.as_ref().is_some_and(|what| what.contains("redefinition")),
        "DXC accepts a function twice: {twice:?}"
    );
    let mut distinct = BTreeMap::new();
    let mut entries = BTreeMap::new();
    for text in texts().iter().filter(|text| text.on_gpus && !text.matrices) {
        let (module, info) = text.module.as_ref().expect("naga takes the text");
        let (hlsl, entry) = writers::hlsl(module, info, text.entry, false).expect("naga writes HLSL");
        entries.insert(hlsl.clone(), entry);
        distinct.insert(hlsl, text);
    }
    // It takes 0.2 s a text.
    complain(2, distinct, |part| {
        let compiler = compiler();
        part.iter().map(|(hlsl, _)| dxc(&compiler, &entries[hlsl], hlsl)).collect()
    });
}
