//! Files that exist whole or not at all: reading with limits, writing by rename.

use super::encoding::decode;
use crate::error::{Error, Result, human_bytes};
use std::borrow::Cow;
use std::fs::File;
use std::io::{self, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

/// The largest text that is read into memory.
pub(crate) const TEXT_LIMIT: u64 = 8 << 30;
/// The largest configuration, tokenizer or index.
const JSON_LIMIT: u64 = 256 << 20;

/// Opens a regular file and refuses everything else (a FIFO would block, a folder fails late).
///
/// # Errors
/// [`Error::File`] if it cannot be opened, [`Error::Format`] if it is not a regular file.
pub(crate) fn open(path: &Path) -> Result<(File, u64)> {
    let metadata = std::fs::metadata(path).map_err(|e| Error::file(path, e))?;
    if metadata.is_dir() {
        return Err(Error::format(path, "is a folder, a file was expected"));
    }
    if !metadata.is_file() {
        return Err(Error::format(path, "is a device, a pipe or a socket, a file was expected"));
    }
    let file = File::open(path).map_err(|e| Error::file(path, e))?;
    Ok((file, metadata.len()))
}

/// Reads a text file, or a pipe to its end: UTF-8, or UTF-16 with its mark. The mark that some editors put in front is left out.
///
/// # Errors
/// [`Error::File`] if it cannot be read, [`Error::Format`] if it is too large or is neither.
pub(crate) fn read_text(path: impl AsRef<Path>) -> Result<String> {
    let path = path.as_ref();
    match is_pipe(path) {
        true => {
            let pipe = File::open(path).map_err(|e| Error::file(path, e))?;
            read_pipe(path, pipe, TEXT_LIMIT)
        }
        false => read_limited(path, TEXT_LIMIT),
    }
}

/// Whether a name is that of a pipe: a FIFO, or `/dev/stdin` with one behind it.
fn is_pipe(path: &Path) -> bool {
    #[cfg(unix)]
    {
        use std::os::unix::fs::FileTypeExt;
        std::fs::metadata(path).is_ok_and(|metadata| metadata.file_type().is_fifo())
    }
    #[cfg(not(unix))]
    {
        let _ = path;
        false
    }
}

/// The content of a pipe; `path` names it in messages.
///
/// # Errors
/// As [`read_text`].
pub(crate) fn read_pipe(path: &Path, pipe: impl Read, limit: u64) -> Result<String> {
    let mut bytes = Vec::new();
    pipe.take(limit + 1).read_to_end(&mut bytes).map_err(|e| Error::file(path, e))?;
    if bytes.len() as u64 > limit {
        return Err(Error::format(path, format!("gives more than the {} allowed", human_bytes(limit))));
    }
    decode(path, bytes)
}

fn read_limited(path: &Path, limit: u64) -> Result<String> {
    let (file, length) = open(path)?;
    if length > limit {
        let message = format!("has {}, more than the {} allowed", human_bytes(length), human_bytes(limit));
        return Err(Error::format(path, message));
    }
    let mut bytes = Vec::new();
    bytes.try_reserve_exact(length as usize).map_err(|_| {
        Error::format(path, format!("has {}, more than the free memory; split it", human_bytes(length)))
    })?;
    file.take(limit).read_to_end(&mut bytes).map_err(|e| Error::file(path, e))?;
    decode(path, bytes)
}

/// Reads a JSON file. The numbers `Infinity`, `-Infinity` and `NaN`, which Python writes and JSON does not have, become texts.
///
/// # Errors
/// As [`read_text`]; [`Error::Format`] if it is not JSON.
pub(crate) fn read_json(path: impl AsRef<Path>) -> Result<serde_json::Value> {
    let path = path.as_ref();
    let text = read_json_text(path)?;
    serde_json::from_str(&plain_json(&text)).map_err(|e| Error::format(path, format!("is not valid JSON: {e}")))
}

/// The text of a JSON file.
///
/// # Errors
/// As [`read_text`].
pub(crate) fn read_json_text(path: &Path) -> Result<String> {
    read_limited(path, JSON_LIMIT)
}

/// JSON in which numbers that only Python knows are texts: a key that is not read does not matter, and one that is read is refused
/// with what it holds.
pub(crate) fn plain_json(text: &str) -> Cow<'_, str> {
    const NUMBERS: [&str; 3] = ["-Infinity", "Infinity", "NaN"];
    if !NUMBERS.iter().any(|number| text.contains(number)) {
        return text.into();
    }
    let (mut plain, mut rest) = (String::with_capacity(text.len() + 16), text);
    while let Some(next) = rest.chars().next() {
        let taken = if next == '"' { text_length(rest) } else { next.len_utf8() };
        match NUMBERS.iter().find(|number| rest.starts_with(**number)) {
            Some(number) => {
                plain.extend(["\"", number, "\""]);
                rest = &rest[number.len()..];
            }
            None => {
                plain.push_str(&rest[..taken]);
                rest = &rest[taken..];
            }
        }
    }
    plain.into()
}

/// Bytes of the JSON text that begins here, with both its quotation marks.
fn text_length(rest: &str) -> usize {
    let mut escaped = true;
    let end = rest.bytes().position(|byte| {
        let ends = byte == b'"' && !escaped;
        escaped = byte == b'\\' && !escaped;
        ends
    });
    end.map_or(rest.len(), |end| end + 1)
}

/// Reads a JSON file if it exists.
///
/// # Errors
/// As [`read_json`], except that a missing file is `None`.
pub(crate) fn read_json_if_there(path: &Path) -> Result<Option<serde_json::Value>> {
    if path.symlink_metadata().is_ok() { read_json(path).map(Some) } else { Ok(None) }
}

/// Writes a file so that a reader, or a kill at any moment, sees either the old content or the new one: into a temporary
/// file of the same folder, synced to disk, then renamed.
///
/// # Errors
/// [`Error::File`] with the path if anything fails; the old file is then untouched and the temporary one removed.
pub(crate) fn write_atomic(path: impl AsRef<Path>, bytes: &[u8]) -> Result<()> {
    write_atomic_with(path.as_ref(), |w| w.write_all(bytes))
}

/// As [`write_atomic`], the content coming from a function.
///
/// # Errors
/// As [`write_atomic`].
pub(crate) fn write_atomic_with(path: &Path, fill: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> Result<()> {
    // Renaming onto a device or a folder would replace the one or fail on the other.
    if std::fs::metadata(path).is_ok_and(|m| !m.is_file()) {
        return Err(Error::format(path, "exists and is not a regular file: choose another name"));
    }
    let folder = parent(path);
    let result = (|| {
        let mut temporary = temporary_file(folder)?;
        write_synced(temporary.as_file_mut(), fill)?;
        temporary.persist(path).map_err(|e| e.error)?;
        sync_folder(folder)
    })();
    result.map_err(|e| failed(path, e))
}

/// The error behind a failed write: that of the content's source, else that of the file.
pub(crate) fn failed(path: &Path, error: io::Error) -> Error {
    error.downcast::<Error>().unwrap_or_else(|e| Error::file(path, explain(e)))
}

/// Writes to a file and waits until it lies on the disk.
pub(crate) fn write_synced(file: &mut File, fill: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> io::Result<()> {
    let mut writer = BufWriter::with_capacity(1 << 18, &mut *file);
    fill(&mut writer)?;
    writer.flush()?;
    drop(writer);
    file.sync_all()
}

/// Makes renames and new names in a folder survive a power cut, where the system can.
pub(crate) fn sync_folder(folder: &Path) -> io::Result<()> {
    #[cfg(unix)]
    File::open(folder)?.sync_all()?;
    #[cfg(not(unix))]
    let _ = folder;
    Ok(())
}

/// The folder of a path.
pub(crate) fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

/// The error, with advice if there is any.
pub(crate) fn explain(error: io::Error) -> io::Error {
    let hint = match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => "make room on the disk, or write elsewhere",
        io::ErrorKind::FileTooLarge => "the file size limit of the system (ulimit -f) or of the file system is reached",
        io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::PermissionDenied => "choose a folder that can be written",
        io::ErrorKind::NotADirectory => "a part of its path is a file: choose another name",
        io::ErrorKind::NotFound => "its folder does not exist: create it first",
        _ => return error,
    };
    io::Error::new(error.kind(), format!("could not be written: {error}; {hint}"))
}

fn temporary_file(folder: &Path) -> io::Result<tempfile::NamedTempFile> {
    let mut builder = tempfile::Builder::new();
    builder.prefix(".writing-").suffix(".tmp");
    // Other users may read what others may read; tempfile's own default is for secrets. The umask still applies.
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    builder.tempfile_in(folder)
}

/// Checks that a name found in a file means a file beside it, not one elsewhere on the disk.
pub(crate) fn plain_name(container: &Path, name: &str) -> Result<PathBuf> {
    let plain = !name.is_empty() && name != "." && name != ".." && !name.contains(['/', '\\', ':', '\0']);
    if plain {
        Ok(parent(container).join(name))
    } else {
        Err(Error::format(container, format!("names the file {name:?}, which is not a plain file name")))
    }
}

/// A 64-bit fingerprint of a file's bytes that finds torn and damaged files (not forged ones): FNV-1a over 64-bit words,
/// then over the length. Each step is a bijection of the state, so one changed word always changes the result.
#[derive(Clone, Debug)]
pub(crate) struct Fingerprint {
    hash: u64,
    tail: Vec<u8>,
    length: u64,
}

impl Fingerprint {
    pub(crate) fn new() -> Self {
        Self { hash: 0xcbf2_9ce4_8422_2325, tail: Vec::with_capacity(8), length: 0 }
    }

    fn word(&mut self, word: u64) {
        self.hash = (self.hash ^ word).wrapping_mul(0x0000_0100_0000_01b3);
        // Multiplying moves changes upwards only; the shift brings them back down.
        self.hash ^= self.hash >> 32;
    }

    pub(crate) fn update(&mut self, mut bytes: &[u8]) {
        self.length += bytes.len() as u64;
        if !self.tail.is_empty() {
            let take = (8 - self.tail.len()).min(bytes.len());
            self.tail.extend_from_slice(&bytes[..take]);
            bytes = &bytes[take..];
            if self.tail.len() < 8 {
                return;
            }
            let word = to_word(&self.tail);
            self.word(word);
            self.tail.clear();
        }
        let words = bytes.chunks_exact(8);
        self.tail.extend_from_slice(words.remainder());
        for word in words {
            self.word(to_word(word));
        }
    }

    pub(crate) fn finish(mut self) -> String {
        let (tail, length) = (to_word(&self.tail), self.length);
        self.word(tail);
        self.word(length);
        format!("{:016x}", self.hash)
    }

    pub(crate) fn of(bytes: &[u8]) -> String {
        let mut fingerprint = Self::new();
        fingerprint.update(bytes);
        fingerprint.finish()
    }
}

/// Up to eight bytes as a little-endian word.
fn to_word(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |word, &byte| (word << 8) | u64::from(byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fingerprint_does_not_depend_on_how_bytes_arrive_and_sees_every_flip() {
        let bytes: Vec<u8> = (0..61u32).map(|i| (i * 37) as u8).collect();
        let whole = Fingerprint::of(&bytes);
        for cut in 0..bytes.len() {
            let mut parts = Fingerprint::new();
            parts.update(&bytes[..cut]);
            parts.update(&bytes[cut..]);
            assert_eq!(parts.finish(), whole);
            for bit in 0..8 {
                let mut flipped = bytes.clone();
                flipped[cut] ^= 1 << bit;
                assert_ne!(Fingerprint::of(&flipped), whole);
            }
            assert_ne!(Fingerprint::of(&bytes[..cut]), whole);
        }
        let mut longer = bytes.clone();
        longer.push(0);
        assert_ne!(Fingerprint::of(&longer), whole);
    }

    #[test]
    fn an_existing_file_is_replaced_whole_or_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.txt");
        write_atomic(&path, b"old").unwrap();
        write_atomic(&path, b"new").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"new");
        let failed = write_atomic_with(&path, |w| {
            w.write_all(b"half")?;
            Err(io::Error::from(io::ErrorKind::StorageFull))
        });
        let message = failed.unwrap_err().to_string();
        assert!(message.contains("a.txt") && message.contains("make room"), "{message}");
        assert_eq!(std::fs::read(&path).unwrap(), b"new");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "a temporary file was left");
    }

    #[test]
    fn folders_devices_and_missing_folders_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let refused = |path: &Path| write_atomic(path, b"x").unwrap_err().to_string();
        assert!(refused(folder.path()).contains("not a regular file"));
        assert!(refused(&folder.path().join("no/such")).contains("create it first"));
        assert!(read_text(folder.path()).unwrap_err().to_string().contains("is a folder"));
        #[cfg(unix)]
        {
            assert!(refused(Path::new("/dev/full")).contains("not a regular file"));
            assert!(read_text("/dev/zero").unwrap_err().to_string().contains("a device"));
        }
    }

    #[test]
    fn text_is_read_without_its_mark() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notepad.txt");
        std::fs::write(&path, "\u{FEFF}one\u{FEFF}").unwrap();
        assert_eq!(read_text(&path).unwrap(), "one\u{FEFF}");
        std::fs::write(&path, "").unwrap();
        assert_eq!(read_text(&path).unwrap(), "");
        let large = File::create(&path).unwrap();
        large.set_len(JSON_LIMIT + 1).unwrap();
        assert!(read_json(&path).unwrap_err().to_string().contains("more than the 256.0 MiB"));
    }

    #[test]
    fn numbers_that_only_python_knows_are_read_as_texts() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config.json");
        let text = r#"{"a\"NaN": [1.5, NaN,Infinity], "b": -Infinity, "NaN": "Infinity \\", "c": {"d":NaN}, "é": 2}"#;
        std::fs::write(&path, text).unwrap();
        let expected = serde_json::json!({"a\"NaN": [1.5, "NaN", "Infinity"], "b": "-Infinity", "NaN": "Infinity \\",
                                          "c": {"d": "NaN"}, "é": 2});
        assert_eq!(read_json(&path).unwrap(), expected);
        assert_eq!(plain_json(r#"{"a": 1}"#), r#"{"a": 1}"#);
        for broken in ["{\"NaN", "NaN \"", "{\"a\": Infinite}", "-NaN", "[NaN\\"] {
            std::fs::write(&path, broken).unwrap();
            assert!(read_json(&path).unwrap_err().to_string().contains("not valid JSON"), "{broken}");
        }
    }
}
