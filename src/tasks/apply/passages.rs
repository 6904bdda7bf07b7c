//! The files of folders, and the passages of their texts.

use super::TextEmbedder;
use super::search_files::{Passage, PassageKind};
use crate::error::{Error, Result};
use std::ops::Range;
use std::path::{Path, PathBuf};

/// Folders within folders.
const DEEPEST: usize = 64;

/// The files of a folder and of those in it, whose names do not begin with a dot. Links to folders are not followed.
pub(super) fn walk(folder: &Path, found: &mut dyn FnMut(PathBuf)) -> Result<()> {
    let mut folders = vec![(folder.to_owned(), 0)];
    while let Some((folder, depth)) = folders.pop() {
        if depth > DEEPEST {
            return Err(Error::format(folder, format!("is more than {DEEPEST} folders deep: give it by itself")));
        }
        for entry in std::fs::read_dir(&folder).map_err(|e| Error::file(&folder, e))? {
            let entry = entry.map_err(|e| Error::file(&folder, e))?;
            // A name that is no UTF-8 could not be kept in the index.
            if entry.file_name().to_str().is_none_or(|name| name.starts_with('.')) {
                continue;
            }
            let (path, kind) = (entry.path(), entry.file_type().map_err(|e| Error::file(&folder, e))?);
            if kind.is_dir() {
                folders.push((path, depth + 1));
            } else if path.is_file() {
                found(path);
            }
        }
    }
    Ok(())
}

/// A range without the blanks around it.
fn trimmed(text: &str, range: Range<usize>) -> Range<usize> {
    let part = text.get(range.clone()).unwrap_or_default();
    let start = range.start + (part.len() - part.trim_start().len());
    start..start + part.trim().len()
}

/// The ranges of a text's lines, or of what stands between blank lines, without blanks around them.
fn ranges(text: &str, kind: PassageKind) -> Vec<Range<usize>> {
    let mut found: Vec<Range<usize>> = Vec::new();
    let (mut at, mut open) = (0, false);
    for line in text.split_inclusive(['\n', '\r']) {
        let range = trimmed(text, at..at + line.len());
        // The \n of \r\n is no line.
        let rest = line == "\n" && at > 0 && text.as_bytes().get(at - 1) == Some(&b'\r');
        at += line.len();
        match found.last_mut() {
            _ if range.is_empty() => open &= rest || kind == PassageKind::Windows,
            Some(last) if open && kind != PassageKind::Lines => last.end = range.end,
            _ => {
                found.push(range);
                open = true;
            }
        }
    }
    found
}

/// The passages of a text, none longer than a model reads at a time behind a prefix.
pub(super) fn passages(text: &str, kind: PassageKind, embedder: &TextEmbedder, prefix: &str) -> Result<Vec<Passage>> {
    let mut found = Vec::new();
    let (mut line, mut counted) = (1, 0);
    for range in ranges(text, kind) {
        let parts = embedder.parts(prefix, text.get(range.clone()).unwrap_or_default())?;
        for part in parts {
            let part = trimmed(text, range.start + part.start..range.start + part.end);
            if part.is_empty() {
                continue;
            }
            line += line_ends(text.get(counted..part.start).unwrap_or_default());
            counted = part.start;
            found.push(Passage { line, start: part.start, end: part.end });
        }
    }
    Ok(found)
}

/// Line ends of all kinds.
fn line_ends(text: &str) -> usize {
    let bytes = text.as_bytes();
    let is_end = |at: usize| match bytes[at] {
        b'\n' => true,
        b'\r' => bytes.get(at + 1) != Some(&b'\n'),
        _ => false,
    };
    (0..bytes.len()).filter(|&at| is_end(at)).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(text: &str, kind: PassageKind) -> Vec<&str> {
        ranges(text, kind).into_iter().map(|range| &text[range]).collect()
    }

    #[test]
    fn texts_are_parted_at_lines_or_blank_lines() {
        let text = " one\ntwo \n\n \n\u{a0}three 🙂\r\nfour\r\n\r\nfive\rsix\r\r";
        assert_eq!(parts(text, PassageKind::Lines), ["one", "two", "three 🙂", "four", "five", "six"]);
        assert_eq!(parts(text, PassageKind::Paragraphs), ["one\ntwo", "three 🙂\r\nfour", "five\rsix"]);
        assert_eq!(parts(text, PassageKind::Windows), [text.trim()]);
        for kind in [PassageKind::Lines, PassageKind::Paragraphs, PassageKind::Windows] {
            assert!(parts("", kind).is_empty() && parts(" \n\u{a0}\r\n ", kind).is_empty());
        }
        assert_eq!(line_ends("a\nb\r\nc\rd\n"), 4);
    }

    #[test]
    fn folders_are_walked_without_hidden_files() {
        let folder = tempfile::tempdir().unwrap();
        for path in ["a.txt", ".hidden", "b/c.md", ".git/d"] {
            let path = folder.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "x").unwrap();
        }
        #[cfg(unix)]
        std::os::unix::fs::symlink(folder.path(), folder.path().join("b/loop")).unwrap();
        let mut found = Vec::new();
        walk(folder.path(), &mut |path| found.push(path)).unwrap();
        found.sort();
        assert_eq!(found, [folder.path().join("a.txt"), folder.path().join("b/c.md")]);
        assert!(walk(&folder.path().join("none"), &mut |_| ()).is_err());
    }
}
