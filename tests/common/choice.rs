//! The tests of devices that run: all with `WGFORMER_TESTS=full` or with names on the command line, else a choice.
//!
//! A test of a device is named `[ADAPTER] TITLE`, or `[ADAPTER, MODE] TITLE` where the device is not opened by default.
//! Each title runs on at least one device, not OpenGL's where there is another. Each name that titles cover (the caller gives them: kernels) is covered on each adapter and in
//! each mode; of a name with a tab, the whole in each mode and what is before the tab on each adapter (a kernel and its variant). Each pair of adapter and mode runs a title. Among candidates the title that covers most wins, of equals the one with the
//! least hash, and adapters and modes take turns: few tests cover much. The choice is the same on every run, and a new test takes over only
//! the names that it covers. The other tests count as ignored.
#![allow(dead_code, reason = "each of the tests uses a part")]

use libtest_mimic::{Arguments, Trial};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::panic::resume_unwind;
use std::sync::{Mutex, PoisonError};
use wgformer::Gpu;

/// The environment variable that asks for all tests.
const ALL: &str = "WGFORMER_TESTS";

/// Devices that live until all tests are done: dropping one while another of its adapter compiles makes OpenGL wait and give up.
static KEPT: Mutex<Vec<Gpu>> = Mutex::new(Vec::new());

/// Keeps a device until all tests are done.
pub(crate) fn keep(gpu: &Gpu) {
    KEPT.lock().unwrap_or_else(PoisonError::into_inner).push(gpu.clone());
}

/// Runs the tests, and exits.
pub(crate) fn run(arguments: &Arguments, trials: Vec<Trial>, covers: impl Fn(&str, &str) -> Vec<String> + Sync) -> ! {
    let all = std::env::var(ALL).is_ok_and(|wanted| wanted == "full");
    let by_name = arguments.filter.is_some() || arguments.ignored || arguments.include_ignored || arguments.list;
    let trials = if all || by_name { trials } else { reduced(trials, covers) };
    let conclusion = libtest_mimic::run(arguments, trials);
    // Drop devices and their threads before the process ends its drivers.
    KEPT.lock().unwrap_or_else(PoisonError::into_inner).clear();
    conclusion.exit();
}

/// The tests; those that are not chosen are ignored.
fn reduced(trials: Vec<Trial>, covers: impl Fn(&str, &str) -> Vec<String> + Sync) -> Vec<Trial> {
    let names: Vec<&str> = trials.iter().map(Trial::name).collect();
    let seen = Mutex::new(BTreeSet::new());
    let chosen = chosen(&names, |device, title| {
        let covered = covers(device, title);
        seen.lock().unwrap_or_else(PoisonError::into_inner).extend(covered.iter().cloned());
        covered
    });
    let devices = names.iter().filter(|name| device_of(name).is_some()).count();
    let variants = seen.into_inner().unwrap_or_else(PoisonError::into_inner).len();
    let count = chosen.len() + devices - names.len();
    println!(
        "{count} of {devices} tests of devices are chosen, for {variants} kernels and variants; {ALL}=full runs all"
    );
    let chosen: BTreeSet<String> = chosen.into_iter().map(str::to_owned).collect();
    trials
        .into_iter()
        .map(|trial| {
            let there = chosen.contains(trial.name());
            trial.with_ignored_flag(!there)
        })
        .collect()
}

/// Device and title of a test.
fn device_of(name: &str) -> Option<(&str, &str)> {
    name.strip_prefix('[')?.split_once("] ").filter(|(device, _)| *device != "f64")
}

/// The names of the tests that run, among them all that are of no device.
pub(crate) fn chosen<'a>(names: &[&'a str], covers: impl Fn(&str, &str) -> Vec<String> + Sync) -> BTreeSet<&'a str> {
    let devices: BTreeSet<&str> = names.iter().filter_map(|name| Some(device_of(name)?.0)).collect();
    let parts = |device: &'a str| {
        let whole = |other: &&&str| device.strip_prefix(**other).is_some_and(|mode| mode.starts_with(", "));
        devices.iter().find(whole).map_or((device, ""), |adapter| (*adapter, &device[adapter.len()..]))
    };
    let adapters: BTreeSet<&str> = devices.iter().map(|device| parts(device).0).collect();
    let modes: BTreeSet<&str> = devices.iter().map(|device| parts(device).1).collect();
    let place = |all: &BTreeSet<&str>, one: &str| all.iter().position(|other| *other == one).unwrap_or(0) as u64;
    let (mut least, mut titles) = (BTreeMap::new(), BTreeMap::new());
    let mut chosen = BTreeSet::new();
    for (name, covered) in names.iter().zip(covered_by(names, covers)) {
        let Some((device, title)) = device_of(name) else {
            chosen.insert(*name);
            continue;
        };
        let (adapter, mode) = parts(device);
        let print = fingerprint(title);
        // One title on as many devices as there are modes has each adapter in another mode.
        let turn = (place(&adapters, adapter) + place(&modes, mode)).wrapping_add(print >> 8);
        let turn = turn % adapters.len().max(modes.len()) as u64;
        let rank = (Reverse(covered.len()), print, turn, *name);
        // OpenGL's compilers take several times as long: it runs what it has to cover.
        let slow = adapter.starts_with("Gl ");
        let (adapter, mode) = (format!("adapter {adapter}"), format!("mode {mode}"));
        let mut purposes = vec![vec![adapter.clone(), mode.clone()]];
        for covered in covered {
            let of_adapters = covered.split('\t').next().unwrap_or_default().to_owned();
            purposes.push(vec![of_adapters, adapter.clone()]);
            purposes.push(vec![covered, mode.clone()]);
        }
        for purpose in purposes {
            let best = least.entry(purpose).or_insert(rank);
            *best = rank.min(*best);
        }
        let best = titles.entry(title).or_insert((slow, rank));
        *best = (slow, rank).min(*best);
    }
    chosen.extend(least.into_values().map(|(.., name)| name));
    chosen.extend(titles.into_values().map(|(_, (.., name))| name));
    chosen
}

/// What each of the tests covers, found by all processors.
fn covered_by(names: &[&str], covers: impl Fn(&str, &str) -> Vec<String> + Sync) -> Vec<Vec<String>> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let find = |name: &&str| device_of(name).map(|(device, title)| covers(device, title)).unwrap_or_default();
    std::thread::scope(|scope| {
        let parts = names.chunks(names.len().div_ceil(threads).max(1));
        let found: Vec<_> = parts.map(|part| scope.spawn(|| part.iter().map(find).collect::<Vec<_>>())).collect();
        found.into_iter().flat_map(|part| part.join().unwrap_or_else(|panic| resume_unwind(panic))).collect()
    })
}

/// FNV-1a, with its high bits brought down.
fn fingerprint(text: &str) -> u64 {
    let hash = text
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3));
    (hash ^ (hash >> 32)).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}
