//! Properties of the choice of tests that `make test` runs, on invented names.

#[path = "common/choice.rs"]
mod choice;

use std::collections::BTreeSet;

const DEVICES: [&str; 8] = [
    "Vulkan one (LLVM 15, 256 bits)",
    "Vulkan one (LLVM 15, 256 bits), buffers",
    "Vulkan one (LLVM 15, 256 bits), as a GPU",
    "Vulkan two",
    "Vulkan two, buffers",
    "Vulkan two, as a GPU",
    "Gl one",
    "Gl one, as a GPU",
];

fn names(titles: usize) -> Vec<String> {
    let device = |device: &str| (0..titles).map(|title| format!("[{device}] case {title}")).collect::<Vec<_>>();
    DEVICES.iter().flat_map(|name| device(name)).chain(["[f64] case 0".into(), "of no device".into()]).collect()
}

/// Each case launches two kernels of twelve, one of which depends on the mode.
fn covers(device: &str, title: &str) -> Vec<String> {
    let number = title.bytes().filter(u8::is_ascii_digit).fold(0, |n, digit| n * 10 + usize::from(digit - b'0'));
    let other = if device.ends_with("as a GPU") { "gpu" } else { "plain" };
    vec![format!("kernel {}", number % 7), format!("{other} {}", number % 5)]
}

fn chosen(names: &[String]) -> BTreeSet<&str> {
    choice::chosen(&names.iter().map(String::as_str).collect::<Vec<_>>(), covers)
}

fn split(name: &str) -> Option<(&str, &str)> {
    name.strip_prefix('[')?.split_once("] ").filter(|(device, _)| *device != "f64")
}

/// The adapter of a device, and the mode.
fn parts(device: &str) -> (String, String) {
    let modes = [", buffers", ", as a GPU"];
    let mode = modes.into_iter().find(|mode| device.ends_with(mode)).unwrap_or_default();
    (device.trim_end_matches(mode).into(), mode.into())
}

/// The coverage of a set of tests: cases, kernels by adapter and by mode, adapters in modes.
fn covered<'a>(names: impl Iterator<Item = &'a str>) -> BTreeSet<[String; 2]> {
    let mut all = BTreeSet::new();
    for (device, title) in names.filter_map(split) {
        let (adapter, mode) = parts(device);
        all.insert(["case".into(), title.into()]);
        all.insert([format!("adapter {adapter}"), mode.clone()]);
        for kernel in covers(device, title) {
            all.insert([kernel.clone(), adapter.clone()]);
            all.insert([kernel, format!("mode{mode}")]);
        }
    }
    all
}

#[test]
fn what_all_tests_cover_the_chosen_ones_cover() {
    for titles in [1, 5, 40, 300] {
        let names = names(titles);
        let chosen = chosen(&names);
        assert!(chosen.contains("[f64] case 0") && chosen.contains("of no device"));
        assert_eq!(covered(chosen.iter().copied()), covered(names.iter().map(String::as_str)), "{titles} cases");
        assert!(titles < 40 || chosen.len() < names.len() / 3, "{} of {}", chosen.len(), names.len());
    }
}

#[test]
fn a_new_case_takes_only_what_it_covers() {
    let (before, after) = (names(60), names(61));
    let (before, after) = (chosen(&before), chosen(&after));
    let fresh: Vec<_> = after.difference(&before).collect();
    assert!(!fresh.is_empty() && fresh.iter().all(|name| name.ends_with("case 60")), "{fresh:?}");
}

/// Of a name with a tab, adapters have what is before it, and modes the whole.
#[test]
fn variants_run_in_each_mode_and_kernels_on_each_adapter() {
    let variants = |device: &str, title: &str| -> Vec<String> {
        covers(device, title)
            .iter()
            .map(|kernel| format!("{kernel}\t{}", title.len() + title.ends_with('7') as usize))
            .collect()
    };
    let names = names(60);
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let chosen = choice::chosen(&names, variants);
    let covered = |names: &mut dyn Iterator<Item = &str>| {
        let mut all = BTreeSet::new();
        for (device, title) in names.filter_map(split) {
            let (adapter, mode) = parts(device);
            for variant in variants(device, title) {
                let kernel = variant.split('\t').next().unwrap_or_default();
                all.extend([[kernel.to_owned(), adapter.clone()], [variant.clone(), mode.clone()]]);
            }
        }
        all
    };
    assert_eq!(covered(&mut chosen.iter().copied()), covered(&mut names.iter().copied()));
    let without =
        |device: &str, title: &str| variants(device, title).iter().map(|name| name.replace('\t', " ")).collect();
    assert!(chosen.len() < choice::chosen(&names, without).len());
}
