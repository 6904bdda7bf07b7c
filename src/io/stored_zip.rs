//! ZIP archives whose files are stored as they are, as PyTorch writes them: where each file's bytes lie.

use std::collections::HashMap;
use std::ops::Range;

const END: &[u8] = b"PK\x05\x06";
const END_64: &[u8] = b"PK\x06\x06";
const END_64_PLACE: &[u8] = b"PK\x06\x07";
const ENTRY: &[u8] = b"PK\x01\x02";
const FILE: &[u8] = b"PK\x03\x04";

/// The places of the files, by name.
///
/// # Errors
/// What is damaged, or is not just stored.
pub(super) fn places(bytes: &[u8]) -> Result<HashMap<String, Range<usize>>, String> {
    let damaged = || "is a damaged ZIP archive; copy or download it again".to_owned();
    // The end has a comment of at most 64 KiB behind it.
    let from = bytes.len().saturating_sub(END_LENGTH + usize::from(u16::MAX));
    let end = bytes[from..].windows(END.len()).rposition(|window| window == END).ok_or_else(damaged)? + from;
    if bytes.len() - end < END_LENGTH {
        return Err(damaged());
    }
    let (mut count, mut at) = (number(bytes, end + 10, 2), number(bytes, end + 16, 4));
    // A large archive has an end of 64-bit numbers, whose place is said in front of this one.
    if let Some(place) = end.checked_sub(20).filter(|place| bytes[*place..].starts_with(END_64_PLACE)) {
        let end =
            number(bytes, place + 8, 8).filter(|end| bytes.get(*end..).is_some_and(|rest| rest.starts_with(END_64)));
        let end = end.ok_or_else(damaged)?;
        (count, at) = (number(bytes, end + 32, 8), number(bytes, end + 48, 8));
    }
    let (count, mut at) = (count.ok_or_else(damaged)?, at.ok_or_else(damaged)?);
    let mut places = HashMap::new();
    for _ in 0..count {
        let (entry, next) = entry(bytes, at).ok_or_else(damaged)?;
        let Entry { name, stored, range } = entry;
        if !stored {
            return Err(format!("holds {name:?} compressed or encrypted, which PyTorch does not do"));
        }
        if places.insert(name, range).is_some() {
            return Err(damaged());
        }
        at = next;
    }
    Ok(places)
}

/// Bytes of the end without its comment.
const END_LENGTH: usize = 22;
/// Bytes of an entry without its name and what follows.
const ENTRY_LENGTH: usize = 46;
/// The same of the head of a file.
const FILE_LENGTH: usize = 30;

struct Entry {
    name: String,
    stored: bool,
    range: Range<usize>,
}

/// The entry at a place, and where the next one is.
fn entry(bytes: &[u8], at: usize) -> Option<(Entry, usize)> {
    if !bytes.get(at..)?.starts_with(ENTRY) {
        return None;
    }
    let field = |place: usize, width: usize| number(bytes, at.checked_add(place)?, width);
    let (flags, method) = (field(8, 2)?, field(10, 2)?);
    let (mut packed, mut size, mut head) = (field(20, 4)?, field(24, 4)?, field(42, 4)?);
    let [name, extra, comment] = [field(28, 2)?, field(30, 2)?, field(32, 2)?];
    let name_at = at.checked_add(ENTRY_LENGTH)?;
    let extra_at = name_at.checked_add(name)?;
    let next = extra_at.checked_add(extra)?.checked_add(comment)?;
    let name = String::from_utf8_lossy(bytes.get(name_at..extra_at)?).into_owned();
    // Numbers that do not fit 32 bits follow in a field of their own, in this order.
    let mut rest = bytes.get(extra_at..extra_at.checked_add(extra)?)?;
    while let Some((tag, length)) = number(rest, 0, 2).zip(number(rest, 2, 2)) {
        let content = rest.get(4..4_usize.checked_add(length)?)?;
        if tag == 1 {
            let mut place = 0;
            for value in [&mut size, &mut packed, &mut head] {
                if *value == u32::MAX as usize {
                    *value = number(content, place, 8)?;
                    place += 8;
                }
            }
        }
        rest = &rest[4 + length..];
    }
    if !bytes.get(head..)?.starts_with(FILE) {
        return None;
    }
    let names = number(bytes, head.checked_add(26)?, 2)?.checked_add(number(bytes, head.checked_add(28)?, 2)?)?;
    let start = head.checked_add(FILE_LENGTH)?.checked_add(names)?;
    let end = start.checked_add(size).filter(|end| *end <= bytes.len())?;
    let stored = method == 0 && flags & 1 == 0 && packed == size;
    Some((Entry { name, stored, range: start..end }, next))
}

/// A little-endian number of up to 8 bytes.
fn number(bytes: &[u8], at: usize, width: usize) -> Option<usize> {
    let bytes = bytes.get(at..at.checked_add(width)?)?;
    let value = bytes.iter().rev().try_fold(0_u64, |value, byte| Some(value.checked_mul(256)? | u64::from(*byte)));
    usize::try_from(value?).ok()
}
