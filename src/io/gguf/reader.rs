//! The bytes of a GGUF file: header, metadata, and where the tensors lie. Every value is checked before use, and
//! no allocation depends on an unchecked number.
//!
//! Layout, little-endian: `GGUF`, version u32, tensors u64, metadata entries u64; each entry a key, a type u32 and a value;
//! each tensor a name, axes u32, extents u64 (the fastest first), type u32, offset u64; then, aligned, the data. A text is
//! its length u64 and its bytes; a list the type of its items u32, their number u64, and the items.

use super::super::convert::{FileType, OtherBlocks};
use crate::error::human_bytes;
use crate::quantised;
use crate::shape::Shape;
use safetensors::Dtype;
use std::collections::BTreeMap;
use std::ops::Range;

/// The first bytes of every file.
pub(super) const MAGIC: &[u8; 4] = b"GGUF";
/// The default alignment of tensors.
const ALIGNMENT: u64 = 32;
/// The most axes of a tensor; more mean damage.
const MOST_AXES: u32 = 4;

const AGAIN: &str = "copy or download it again";

/// Reads numbers and texts, and never past the end.
#[derive(Clone, Copy, Debug)]
struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    fn left(&self) -> usize {
        self.bytes.len() - self.at
    }

    fn take(&mut self, count: u64, what: &str) -> Result<&'a [u8], String> {
        let left = self.left();
        match usize::try_from(count).ok().filter(|&count| count <= left) {
            Some(count) => {
                self.at += count;
                Ok(&self.bytes[self.at - count..self.at])
            }
            None => Err(format!("is truncated or damaged: {what} needs {count} bytes, {left} follow; {AGAIN}")),
        }
    }

    fn array<const N: usize>(&mut self, what: &str) -> Result<[u8; N], String> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N as u64, what)?);
        Ok(array)
    }

    fn u32(&mut self, what: &str) -> Result<u32, String> {
        self.array(what).map(u32::from_le_bytes)
    }

    fn u64(&mut self, what: &str) -> Result<u64, String> {
        self.array(what).map(u64::from_le_bytes)
    }

    fn bytes(&mut self, what: &str) -> Result<&'a [u8], String> {
        let length = self.u64(what)?;
        self.take(length, what)
    }

    fn name(&mut self, what: &str) -> Result<&'a str, String> {
        let bytes = self.bytes(what)?;
        std::str::from_utf8(bytes).map_err(|_| format!("is damaged: {what} is not UTF-8; {AGAIN}"))
    }
}

/// A value of the metadata.
#[derive(Clone, Copy, Debug)]
pub(super) enum Value<'a> {
    Unsigned(u64),
    Signed(i64),
    Float(f64),
    Flag(bool),
    /// UTF-8 in a valid file.
    Text(&'a [u8]),
    List(List<'a>),
}

/// A list of the metadata; its items are read on request.
#[derive(Clone, Copy, Debug)]
pub(super) struct List<'a> {
    kind: u32,
    count: usize,
    items: Cursor<'a>,
}

const TEXT: u32 = 8;
const LIST: u32 = 9;
/// The deepest nesting of lists that is read.
const DEEPEST: u32 = 4;

/// The bytes of a number by its type in the file.
fn number_bytes(kind: u32) -> Option<usize> {
    match kind {
        0 | 1 | 7 => Some(1),
        2 | 3 => Some(2),
        4..=6 => Some(4),
        10..=12 => Some(8),
        _ => None,
    }
}

fn value<'a>(cursor: &mut Cursor<'a>, kind: u32, key: &str) -> Result<Value<'a>, String> {
    Ok(match kind {
        0 => Value::Unsigned(cursor.array::<1>(key)?[0].into()),
        1 => Value::Signed(i8::from_le_bytes(cursor.array(key)?).into()),
        2 => Value::Unsigned(u16::from_le_bytes(cursor.array(key)?).into()),
        3 => Value::Signed(i16::from_le_bytes(cursor.array(key)?).into()),
        4 => Value::Unsigned(cursor.u32(key)?.into()),
        5 => Value::Signed(i32::from_le_bytes(cursor.array(key)?).into()),
        6 => Value::Float(f32::from_le_bytes(cursor.array(key)?).into()),
        7 => Value::Flag(cursor.array::<1>(key)?[0] != 0),
        TEXT => Value::Text(cursor.bytes(key)?),
        LIST => Value::List(list(cursor, key)?),
        10 => Value::Unsigned(cursor.u64(key)?),
        11 => Value::Signed(i64::from_le_bytes(cursor.array(key)?)),
        12 => Value::Float(f64::from_le_bytes(cursor.array(key)?)),
        _ => return Err(format!("is damaged or has a newer format: {key:?} has the unknown type {kind}")),
    })
}

fn list<'a>(cursor: &mut Cursor<'a>, key: &str) -> Result<List<'a>, String> {
    let (kind, count) = (cursor.u32(key)?, cursor.u64(key)?);
    let mut items = *cursor;
    skip(cursor, key, (kind, count), 0)?;
    items.bytes = &items.bytes[..cursor.at];
    // The file has at least that many bytes.
    Ok(List { kind, count: count as usize, items })
}

/// Skips the items of a list, which may be lists; `level` counts the nesting.
fn skip(cursor: &mut Cursor<'_>, key: &str, (kind, count): (u32, u64), level: u32) -> Result<(), String> {
    match kind {
        // Each item has at least a length, so a false count ends at the end of the file.
        TEXT => (0..count).try_for_each(|_| cursor.bytes(key).map(|_| ())),
        LIST if level < DEEPEST => (0..count).try_for_each(|_| {
            let inner = (cursor.u32(key)?, cursor.u64(key)?);
            skip(cursor, key, inner, level + 1)
        }),
        LIST => Err(format!("is damaged: {key:?} lists lists of lists, more than {DEEPEST} levels down")),
        _ => {
            let size = number_bytes(kind).ok_or_else(|| format!("is damaged: {key:?} lists items of type {kind}"))?;
            cursor.take(count.saturating_mul(size as u64), key).map(|_| ())
        }
    }
}

impl<'a> List<'a> {
    pub(super) fn count(&self) -> usize {
        self.count
    }

    /// The items as texts, which need not be UTF-8; `None` if they are others.
    pub(super) fn texts(mut self, key: &str) -> Option<Result<Vec<&'a [u8]>, String>> {
        (self.kind == TEXT).then(|| (0..self.count).map(|_| self.items.bytes(key)).collect())
    }

    /// The items, each as `pick` makes it; `None` if there is one of which it makes nothing.
    fn each<T>(mut self, key: &str, pick: impl Fn(Value<'a>) -> Option<T>) -> Option<Vec<T>> {
        let mut all = Vec::new();
        for _ in 0..self.count {
            all.push(pick(value(&mut self.items, self.kind, key).ok()?)?);
        }
        Some(all)
    }

    /// The items as numbers, `None` if they are others.
    pub(super) fn numbers(self, key: &str) -> Option<Vec<f64>> {
        self.each(key, |value| match value {
            Value::Float(number) => Some(number),
            Value::Unsigned(number) => Some(number as f64),
            Value::Signed(number) => Some(number as f64),
            _ => None,
        })
    }

    /// The items as flags, `None` if they are others.
    pub(super) fn flags(self, key: &str) -> Option<Vec<bool>> {
        self.each(key, |value| match value {
            Value::Flag(flag) => Some(flag),
            Value::Unsigned(number) => Some(number != 0),
            Value::Signed(number) => Some(number != 0),
            _ => None,
        })
    }

    /// The items as whole numbers, `None` if they are others.
    pub(super) fn integers(self, key: &str) -> Option<Vec<i64>> {
        self.each(key, |value| match value {
            Value::Unsigned(number) => i64::try_from(number).ok(),
            Value::Signed(number) => Some(number),
            _ => None,
        })
    }
}

/// A tensor and where its bytes lie in the file.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Info {
    /// The number of its file.
    pub(super) file: usize,
    pub(super) dtype: FileType,
    pub(super) shape: Shape,
    pub(super) range: Range<usize>,
}

/// The header and metadata of a file, up to its tensors.
#[derive(Debug)]
pub(super) struct Header<'a> {
    pub(super) metadata: BTreeMap<&'a str, Value<'a>>,
    tensors: u64,
    cursor: Cursor<'a>,
}

impl<'a> Header<'a> {
    pub(super) fn read(bytes: &'a [u8]) -> Result<Self, String> {
        let mut cursor = Cursor { bytes, at: 0 };
        check_version(&mut cursor)?;
        let (tensors, entries) = (cursor.u64("the header")?, cursor.u64("the header")?);
        let mut metadata = BTreeMap::new();
        for _ in 0..entries {
            let key = cursor.name("a key of the metadata")?;
            let kind = cursor.u32(key)?;
            if metadata.insert(key, value(&mut cursor, kind, key)?).is_some() {
                return Err(format!("is damaged: it holds {key:?} twice; {AGAIN}"));
            }
        }
        Ok(Self { metadata, tensors, cursor })
    }

    /// The tensors, by name; `file` is the number of this file, and `length` its length.
    pub(super) fn tensors(&self, file: usize, length: usize) -> Result<BTreeMap<&'a str, Info>, String> {
        let mut cursor = self.cursor;
        let mut claims = BTreeMap::new();
        for _ in 0..self.tensors {
            let name = cursor.name("the name of a tensor")?;
            if claims.insert(name, Claim::read(&mut cursor, name)?).is_some() {
                return Err(format!("is damaged: it holds tensor {name:?} twice; {AGAIN}"));
            }
        }
        let alignment = alignment(&self.metadata)?;
        let start = (cursor.at as u64).next_multiple_of(alignment);
        let locate =
            |(name, claim): (&'a str, Claim)| Ok((name, claim.locate(name, start, alignment, (file, length))?));
        let tensors = claims.into_iter().map(locate).collect::<Result<BTreeMap<_, _>, String>>()?;
        check_apart(&tensors)?;
        Ok(tensors)
    }
}

fn check_version(cursor: &mut Cursor<'_>) -> Result<(), String> {
    if cursor.bytes.starts_with(b"version https://git-lfs") {
        return Err("is a Git LFS pointer, not the weights: run `git lfs pull` in its folder".into());
    }
    if !cursor.bytes.starts_with(MAGIC) {
        return Err("is no GGUF file: give one, or a folder with config.json and model.safetensors".into());
    }
    cursor.at = MAGIC.len();
    match cursor.u32("the version")? {
        2 | 3 => Ok(()),
        version if (2..=3).contains(&version.swap_bytes()) => {
            Err("is a big-endian GGUF file, and only little-endian ones are read: convert it on the machine it is from"
                .into())
        }
        version => Err(format!("has version {version} of GGUF; versions 2 and 3 are read: convert the model again")),
    }
}

fn alignment(metadata: &BTreeMap<&str, Value<'_>>) -> Result<u64, String> {
    match metadata.get("general.alignment") {
        None => Ok(ALIGNMENT),
        Some(Value::Unsigned(alignment)) if alignment.is_power_of_two() && *alignment <= 1 << 20 => Ok(*alignment),
        Some(other) => Err(format!("is damaged: general.alignment is {other:?}, not a power of two; {AGAIN}")),
    }
}

/// The file's description of a tensor.
struct Claim {
    dtype: FileType,
    shape: Shape,
    bytes: usize,
    offset: u64,
}

impl Claim {
    fn read(cursor: &mut Cursor<'_>, name: &str) -> Result<Self, String> {
        let damaged = |what: String| format!("is damaged: tensor {name:?} {what}; {AGAIN}");
        let axes = cursor.u32(name)?;
        if !(1..=MOST_AXES).contains(&axes) {
            return Err(damaged(format!("has {axes} axes")));
        }
        let mut extents = Vec::new();
        for _ in 0..axes {
            extents.push(usize::try_from(cursor.u64(name)?).unwrap_or(usize::MAX));
        }
        let count = extents.iter().try_fold(1_usize, |count, &extent| count.checked_mul(extent));
        let number = cursor.u32(name)?;
        let dtype = file_type(number).ok_or_else(|| {
            let update = "it is newer than this wgformer, or the file is damaged";
            format!("tensor {name:?} has the unknown type {number}: {update}")
        })?;
        let block = dtype.block();
        if !extents[0].is_multiple_of(block) {
            return Err(damaged(format!("has rows of {}, which are not whole blocks of {block}", extents[0])));
        }
        let bytes = count.filter(|&count| count > 0).and_then(|count| dtype.bytes(count));
        let bytes = bytes.ok_or_else(|| damaged(format!("has the extents {extents:?}")))?;
        extents.reverse();
        Ok(Self { dtype, shape: extents.into(), bytes, offset: cursor.u64(name)? })
    }

    /// Where it lies in a file, of that number and length, whose data begin at `start`.
    fn locate(self, name: &str, start: u64, alignment: u64, (file, length): (usize, usize)) -> Result<Info, String> {
        if !self.offset.is_multiple_of(alignment) {
            let offset = self.offset;
            return Err(format!(
                "is damaged: tensor {name:?} has the offset {offset}, no multiple of {alignment}; {AGAIN}"
            ));
        }
        let first = start.checked_add(self.offset).and_then(|first| usize::try_from(first).ok());
        let range = first.and_then(|first| Some(first..first.checked_add(self.bytes)?));
        match range {
            Some(range) if range.end <= length => Ok(Info { file, dtype: self.dtype, shape: self.shape, range }),
            _ => {
                let (takes, has) = (human_bytes(self.bytes as u64), human_bytes(length as u64));
                Err(format!("is truncated: tensor {name:?} of {takes} needs more than the file's {has}; {AGAIN}"))
            }
        }
    }
}

/// The element type by its number.
fn file_type(number: u32) -> Option<FileType> {
    let plain = match number {
        0 => Dtype::F32,
        1 => Dtype::F16,
        24 => Dtype::I8,
        25 => Dtype::I16,
        26 => Dtype::I32,
        27 => Dtype::I64,
        28 => Dtype::F64,
        30 => Dtype::BF16,
        _ => {
            let other = || OTHERS.iter().find(|(other, _)| *other == number).map(|(_, ty)| FileType::Other(*ty));
            return quantised::of_file_number(number).map(FileType::Blocks).or_else(other);
        }
    };
    Some(FileType::Plain(plain))
}

/// Quantised types that are not read, by their number.
const OTHERS: [(u32, OtherBlocks); 11] = [
    (9, OtherBlocks { name: "Q8_1", weights: 32, bytes: 36 }),
    (15, OtherBlocks { name: "Q8_K", weights: 256, bytes: 292 }),
    (16, OtherBlocks { name: "IQ2_XXS", weights: 256, bytes: 66 }),
    (17, OtherBlocks { name: "IQ2_XS", weights: 256, bytes: 74 }),
    (18, OtherBlocks { name: "IQ3_XXS", weights: 256, bytes: 98 }),
    (19, OtherBlocks { name: "IQ1_S", weights: 256, bytes: 50 }),
    (21, OtherBlocks { name: "IQ3_S", weights: 256, bytes: 110 }),
    (22, OtherBlocks { name: "IQ2_S", weights: 256, bytes: 82 }),
    (29, OtherBlocks { name: "IQ1_M", weights: 256, bytes: 56 }),
    (34, OtherBlocks { name: "TQ1_0", weights: 256, bytes: 54 }),
    (35, OtherBlocks { name: "TQ2_0", weights: 256, bytes: 66 }),
];

/// Refuses tensors that overlap.
fn check_apart(tensors: &BTreeMap<&str, Info>) -> Result<(), String> {
    let mut ranges: Vec<(&Range<usize>, &str)> = tensors.iter().map(|(name, info)| (&info.range, *name)).collect();
    ranges.sort_by_key(|(range, _)| range.start);
    match ranges.windows(2).find(|pair| pair[0].0.end > pair[1].0.start) {
        None => Ok(()),
        Some(pair) => Err(format!("is damaged: tensors {:?} and {:?} overlap; {AGAIN}", pair[0].1, pair[1].1)),
    }
}

#[cfg(test)]
mod tests;
