//! Bytes as text: UTF-8, and UTF-16 where a mark says so.

use crate::error::{Error, Result};
use std::path::Path;

/// How files begin that are often taken for text.
const NO_TEXT: [(&[u8], &str); 6] = [
    (b"\x1f\x8b", "compressed by gzip: unpack it first"),
    (b"\x28\xb5\x2f\xfd", "compressed by zstd: unpack it first"),
    (b"BZh", "compressed by bzip2: unpack it first"),
    (b"\xfd7zXZ", "compressed by xz: unpack it first"),
    (b"PK\x03\x04", "a zip archive or a spreadsheet: unpack it, or save it as CSV"),
    (b"PAR1", "a Parquet file: save it as JSON lines or CSV"),
];

/// The text of a file. The mark in front of it is left out.
pub(crate) fn decode(path: &Path, mut bytes: Vec<u8>) -> Result<String> {
    let utf16 = match bytes.get(..2) {
        Some([0xff, 0xfe]) => Some(u16::from_le_bytes as fn([u8; 2]) -> u16),
        Some([0xfe, 0xff]) => Some(u16::from_be_bytes as fn([u8; 2]) -> u16),
        _ => None,
    };
    if let Some(unit) = utf16 {
        return decode_utf16(&bytes[2..], unit).ok_or_else(|| {
            Error::format(path, "begins like UTF-16 and is not; convert it to UTF-8, for example with iconv")
        });
    }
    if bytes.starts_with("\u{FEFF}".as_bytes()) {
        bytes.drain(..'\u{FEFF}'.len_utf8());
    }
    String::from_utf8(bytes).map_err(|e| {
        let (at, bytes) = (e.utf8_error().valid_up_to(), e.as_bytes());
        if let Some((_, what)) = NO_TEXT.iter().find(|(start, _)| bytes.starts_with(start)) {
            return Error::format(path, format!("is not UTF-8 text but {what}"));
        }
        let line = 1 + bytes[..at].iter().filter(|byte| **byte == b'\n').count();
        let message =
            format!("is not UTF-8 text (line {line}: byte {at} is not); convert it, for example with iconv -t UTF-8");
        Error::format(path, message)
    })
}

fn decode_utf16(bytes: &[u8], unit: impl Fn([u8; 2]) -> u16) -> Option<String> {
    let (units, rest) = bytes.as_chunks::<2>();
    let text = char::decode_utf16(units.iter().map(|bytes| unit(*bytes))).collect::<Result<String, _>>().ok()?;
    rest.is_empty().then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(bytes: &[u8]) -> String {
        decode(Path::new("a.txt"), bytes.to_vec()).unwrap()
    }

    fn refused(bytes: &[u8]) -> String {
        decode(Path::new("a.txt"), bytes.to_vec()).unwrap_err().to_string()
    }

    #[test]
    fn marks_say_how_a_text_is_stored() {
        assert_eq!(text("\u{FEFF}one\u{FEFF}".as_bytes()), "one\u{FEFF}");
        assert_eq!(text(b""), "");
        let wanted = "naïve 天 🙂\r\n";
        for (mark, unit) in [([0xff, 0xfe], u16::to_le_bytes as fn(u16) -> [u8; 2]), ([0xfe, 0xff], u16::to_be_bytes)] {
            let units = wanted.encode_utf16().flat_map(unit);
            let mut bytes: Vec<u8> = mark.into_iter().chain(units).collect();
            assert_eq!(text(&bytes), wanted);
            bytes.push(0x41);
            assert!(refused(&bytes).contains("begins like UTF-16"));
        }
        assert!(refused(&[0xff, 0xfe, 0x00, 0xd8]).contains("begins like UTF-16"), "half of a pair");
    }

    #[test]
    fn what_is_not_text_is_refused_with_the_place() {
        let message = refused(b"one\ncaf\xe9");
        assert!(message.contains("line 2") && message.contains("byte 7") && message.contains("iconv"), "{message}");
        assert!(refused(b"\x1f\x8b\x08\x00\xff").contains("gzip: unpack it"));
        assert!(refused(b"PAR1\xff").contains("Parquet"));
        assert_eq!(text(b"PAR1 is a word"), "PAR1 is a word");
    }
}
