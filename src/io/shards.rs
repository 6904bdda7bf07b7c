//! Models in several files, and errors for folders without a readable model.

use super::adapter::{ADAPTER_CONFIG, ADAPTER_WEIGHTS};
use super::folder::is_there;
use super::safetensors::{INDEX, SINGLE};
use crate::error::{Error, Result};
use std::path::{Path, PathBuf};

/// The transformers code that saves a readable model, for messages.
pub(super) const CONVERT: &str =
    "with Python: AutoModelForCausalLM.from_pretrained(FOLDER).save_pretrained(FOLDER, safe_serialization=True)";

/// The number of a part and how many there are, by a file's name: `model-00001-of-00002.gguf`.
pub(super) fn part(name: &str, extension: &str) -> Option<(u32, u32)> {
    let (front, count) = name.strip_suffix(extension)?.strip_suffix('.')?.rsplit_once("-of-")?;
    let (_, number) = front.rsplit_once('-')?;
    let digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok()).flatten();
    let (number, count) = (digits(number)?, digits(count)?);
    (1..=count).contains(&number).then_some((number, count))
}

/// The file with another part of the same model.
pub(super) fn sibling(path: &Path, number: u32, count: u32, extension: &str) -> Option<PathBuf> {
    let name = path.file_name()?.to_str()?;
    part(name, extension)?;
    let (front, _) = name.rsplit_once("-of-")?;
    let (stem, digits) = front.rsplit_once('-')?;
    let width = digits.len();
    Some(path.with_file_name(format!("{stem}-{number:0width$}-of-{count:0width$}.{extension}")))
}

/// The parts of a model in safetensors, if a folder has some.
///
/// # Errors
/// [`Error::Format`] if one is missing; [`Error::File`].
pub(super) fn without_index(folder: &Path) -> Result<Option<Vec<PathBuf>>> {
    const EXTENSION: &str = "safetensors";
    let names = names(folder)?;
    let Some(first) = names.iter().find(|name| name.starts_with("model-") && part(name, EXTENSION).is_some()) else {
        return Ok(None);
    };
    let count = part(first, EXTENSION).map_or(0, |(_, count)| count);
    let path = folder.join(first);
    let files = (1..=count).map_while(|number| sibling(&path, number, count, EXTENSION).filter(|part| is_there(part)));
    let files: Vec<PathBuf> = files.collect();
    if files.len() as u64 == u64::from(count) {
        return Ok(Some(files));
    }
    let missing = sibling(&path, files.len() as u32 + 1, count, EXTENSION).unwrap_or_default();
    let missing = missing.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let message = format!("holds {first}, but neither {INDEX} nor {missing}: download what is missing");
    Err(Error::format(folder, message))
}

/// The names of a folder's files, in order.
fn names(folder: &Path) -> Result<Vec<String>> {
    let failed = |e| Error::file(folder, e);
    let mut names = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(failed)? {
        names.push(entry.map_err(failed)?.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    Ok(names)
}

/// A GGUF file of a folder, if it has one.
pub(super) fn gguf(folder: &Path) -> Option<String> {
    names(folder).unwrap_or_default().into_iter().find(|name| name.ends_with(".gguf"))
}

/// The error message for a folder without readable weights.
pub(super) fn no_weights(folder: &Path) -> String {
    let pickles = ["tf_model.h5", "flax_model.msgpack"];
    if let Some(other) = pickles.iter().find(|name| is_there(&folder.join(name))) {
        return format!("holds {other} but no {SINGLE}; convert it once {CONVERT}");
    }
    if let Some(other) = gguf(folder) {
        return format!("holds {other}: give this file itself");
    }
    let names = names(folder).unwrap_or_default();
    let of = |extension: &str| names.iter().find(|name| name.ends_with(extension));
    if let Some(other) = of(".safetensors") {
        return format!("holds {other} but no {SINGLE}: if it is the whole model, rename it");
    }
    if let Some(other) = [".bin", ".pt", ".pth"].into_iter().find_map(of) {
        return format!("holds {other} but no {SINGLE}; if it is the whole model, convert it once {CONVERT}");
    }
    format!("holds neither {SINGLE} nor {INDEX}: is it the folder of a model?")
}

/// Whether a folder is that of an adapter.
pub(super) fn is_adapter(folder: &Path) -> bool {
    let there = |name: &str| is_there(&folder.join(name));
    (there(ADAPTER_CONFIG) || there(ADAPTER_WEIGHTS)) && !there(SINGLE) && !there(INDEX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_known_by_their_names() {
        assert_eq!(part("model-00001-of-00012.safetensors", "safetensors"), Some((1, 12)));
        assert_eq!(part("a-of-b-00002-of-00002.gguf", "gguf"), Some((2, 2)));
        for other in
            ["model.gguf", "x-00003-of-00002.gguf", "x-0-of-2.gguf", "x-1-of-2.bin", "x-+1-of-2.gguf", "-of-.gguf"]
        {
            assert_eq!(part(other, "gguf"), None, "{other}");
        }
        let next = sibling(Path::new("a/b-00001-of-00002.gguf"), 2, 2, "gguf");
        assert_eq!(next.as_deref(), Some(Path::new("a/b-00002-of-00002.gguf")));
    }

    #[test]
    fn what_a_folder_holds_instead_of_a_model_is_said() {
        for (name, wanted) in [
            ("tf_model.h5", "AutoModelForCausalLM.from_pretrained"),
            ("q.gguf", "holds q.gguf: give this file itself"),
            ("mine.safetensors", "mine.safetensors but no model.safetensors: if it is the whole model, rename it"),
            ("consolidated.00.pth", "consolidated.00.pth but no model.safetensors; if it is"),
            ("notes.txt", "is it the folder of a model?"),
        ] {
            let folder = tempfile::tempdir().unwrap();
            std::fs::write(folder.path().join(name), "").unwrap();
            let message = no_weights(folder.path());
            assert!(message.contains(wanted), "{message}");
        }
    }
}
