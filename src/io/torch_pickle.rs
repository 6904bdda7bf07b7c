//! The part of Python's pickle that checkpoints of PyTorch need, read as data: nothing is imported and nothing is called.
//!
//! Values lie in lists and refer to each other by number, so that neither depth nor sharing of what a file claims costs more than its bytes.

use super::convert::FileType;
use safetensors::Dtype;
use std::collections::HashMap;

/// A function or type that checkpoints name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Global {
    OrderedDict,
    Size,
    /// `_rebuild_tensor`, and `_rebuild_tensor_v2` with more arguments behind.
    Tensor,
    Parameter,
    Storage(FileType),
}

/// A value on the stack.
#[derive(Clone, Copy, Debug)]
pub(super) enum Value<'a> {
    Mark,
    /// None, floats, integers of more than 64 bits.
    Other,
    Int(i64),
    Text(&'a str),
    /// A tuple or a list.
    Sequence(usize),
    Dict(usize),
    Global(usize),
    Storage(usize),
    Tensor(usize),
}

/// A storage: the numbers of one or several tensors.
#[derive(Clone, Debug)]
pub(super) struct Storage<'a> {
    pub(super) key: &'a str,
    pub(super) dtype: FileType,
    pub(super) count: usize,
}

/// A tensor: a view of a storage.
#[derive(Clone, Debug)]
pub(super) struct View {
    pub(super) storage: usize,
    pub(super) offset: usize,
    pub(super) shape: Vec<usize>,
    pub(super) strides: Vec<usize>,
}

/// A reader of pickles that lie one behind another.
#[derive(Debug)]
pub(super) struct Pickles<'a> {
    bytes: &'a [u8],
    pub(super) at: usize,
    stack: Vec<Value<'a>>,
    sequences: Vec<Vec<Value<'a>>>,
    dicts: Vec<Vec<(Value<'a>, Value<'a>)>>,
    globals: Vec<Global>,
    pub(super) storages: Vec<Storage<'a>>,
    pub(super) tensors: Vec<View>,
}

/// The most axes of a tensor.
const MOST_AXES: usize = 64;

const TRUNCATED: &str = "its pickle is truncated";

impl<'a> Pickles<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self {
            bytes,
            at: 0,
            stack: Vec::new(),
            sequences: Vec::new(),
            dicts: Vec::new(),
            globals: Vec::new(),
            storages: Vec::new(),
            tensors: Vec::new(),
        }
    }

    /// The entries of a dictionary.
    pub(super) fn entries(&self, value: Value<'a>) -> Option<&[(Value<'a>, Value<'a>)]> {
        match value {
            Value::Dict(at) => self.dicts.get(at).map(Vec::as_slice),
            _ => None,
        }
    }

    /// The values of a tuple or a list.
    pub(super) fn sequence(&self, value: Value<'a>) -> Option<&[Value<'a>]> {
        match value {
            Value::Sequence(at) => self.sequences.get(at).map(Vec::as_slice),
            _ => None,
        }
    }

    /// Reads the next pickle.
    pub(super) fn next(&mut self) -> Result<Value<'a>, String> {
        let mut memo: HashMap<u32, Value<'a>> = HashMap::new();
        self.stack.clear();
        loop {
            let code = self.take(1)?[0];
            match code {
                // PROTO, FRAME
                0x80 => drop(self.take(1)?),
                0x95 => drop(self.take(8)?),
                b'(' => self.stack.push(Value::Mark),
                b'.' => return self.pop(),
                b'0' => drop(self.pop()?),
                // NONE, NEWTRUE, NEWFALSE
                b'N' => self.stack.push(Value::Other),
                0x88 => self.stack.push(Value::Int(1)),
                0x89 => self.stack.push(Value::Int(0)),
                b'K' => self.integer(1)?,
                b'M' => self.integer(2)?,
                b'J' => {
                    let value = i32::from_le_bytes(self.array()?);
                    self.stack.push(Value::Int(i64::from(value)));
                }
                // LONG1
                0x8a => self.long()?,
                b'G' => {
                    self.take(8)?;
                    self.stack.push(Value::Other);
                }
                // SHORT_BINUNICODE, BINUNICODE, SHORT_BINSTRING, BINSTRING
                0x8c | b'U' => {
                    let count = usize::from(self.take(1)?[0]);
                    self.text(count)?;
                }
                b'X' | b'T' => {
                    let count = u32::from_le_bytes(self.array()?) as usize;
                    self.text(count)?;
                }
                b'}' => self.dict(Vec::new()),
                b']' | b')' => self.tuple(Vec::new()),
                b't' | b'l' => {
                    let values = self.until_mark()?;
                    self.tuple(values);
                }
                0x85..=0x87 => {
                    let count = usize::from(code - 0x84);
                    let from = self.stack.len().checked_sub(count).ok_or("its pickle takes more than it has")?;
                    let values = self.stack.split_off(from);
                    self.tuple(values);
                }
                b'd' => {
                    let values = self.until_mark()?;
                    self.dict(pairs(&values));
                }
                // BINPUT, LONG_BINPUT, MEMOIZE
                b'q' | b'r' | 0x94 => {
                    let index = match code {
                        b'q' => u32::from(self.take(1)?[0]),
                        b'r' => u32::from_le_bytes(self.array()?),
                        _ => memo.len() as u32,
                    };
                    let top = *self.stack.last().ok_or("its pickle keeps what is not there")?;
                    memo.insert(index, top);
                }
                b'h' | b'j' => {
                    let index =
                        if code == b'h' { u32::from(self.take(1)?[0]) } else { u32::from_le_bytes(self.array()?) };
                    self.stack.push(*memo.get(&index).ok_or("its pickle asks for what it has not kept")?);
                }
                b'c' => {
                    let (module, name) = (self.line()?, self.line()?);
                    self.global(module, name)?;
                }
                // STACK_GLOBAL
                0x93 => match [self.pop()?, self.pop()?] {
                    [Value::Text(name), Value::Text(module)] => self.global(module, name)?,
                    _ => return Err("its pickle names a function by what is no text".to_owned()),
                },
                b'Q' => {
                    let id = self.pop()?;
                    self.storage(id)?;
                }
                b'R' => {
                    let (arguments, function) = (self.pop()?, self.pop()?);
                    self.call(function, arguments)?;
                }
                // BUILD: attributes of an object, such as the versions of a state dict's modules, are left out.
                b'b' => drop(self.pop()?),
                b's' => {
                    let (value, key) = (self.pop()?, self.pop()?);
                    self.add_entries(vec![(key, value)])?;
                }
                b'u' => {
                    let values = self.until_mark()?;
                    self.add_entries(pairs(&values))?;
                }
                b'a' => {
                    let value = self.pop()?;
                    self.append(vec![value])?;
                }
                b'e' => {
                    let values = self.until_mark()?;
                    self.append(values)?;
                }
                other => {
                    return Err(format!(
                        "its pickle has the instruction {other:#04x}, which is not read: only tensors are"
                    ));
                }
            }
        }
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8], String> {
        let end = self.at.checked_add(count).filter(|end| *end <= self.bytes.len()).ok_or(TRUNCATED)?;
        let taken = &self.bytes[self.at..end];
        self.at = end;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], String> {
        self.take(N)?.try_into().map_err(|_| TRUNCATED.to_owned())
    }

    fn line(&mut self) -> Result<&'a str, String> {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let end = rest.iter().position(|byte| *byte == b'\n').ok_or(TRUNCATED)?;
        let line = self.take(end)?;
        self.take(1)?;
        std::str::from_utf8(line).map_err(|_| "its pickle has text that is not UTF-8".to_owned())
    }

    fn pop(&mut self) -> Result<Value<'a>, String> {
        self.stack.pop().ok_or_else(|| "its pickle takes more than it has".to_owned())
    }

    fn until_mark(&mut self) -> Result<Vec<Value<'a>>, String> {
        let mark = self.stack.iter().rposition(|value| matches!(value, Value::Mark));
        let values = self.stack.split_off(mark.ok_or("its pickle has no mark where it needs one")? + 1);
        self.stack.pop();
        Ok(values)
    }

    fn integer(&mut self, bytes: usize) -> Result<(), String> {
        let value = self.take(bytes)?.iter().rev().fold(0, |value, byte| value << 8 | i64::from(*byte));
        self.stack.push(Value::Int(value));
        Ok(())
    }

    fn long(&mut self) -> Result<(), String> {
        let count = usize::from(self.take(1)?[0]);
        let bytes = self.take(count)?;
        let mut whole = [if bytes.last().is_some_and(|last| *last >= 128) { 255 } else { 0 }; 8];
        self.stack.push(match whole.get_mut(..count) {
            Some(low) => {
                low.copy_from_slice(bytes);
                Value::Int(i64::from_le_bytes(whole))
            }
            None => Value::Other,
        });
        Ok(())
    }

    fn text(&mut self, count: usize) -> Result<(), String> {
        let text = std::str::from_utf8(self.take(count)?).map_err(|_| "its pickle has text that is not UTF-8")?;
        self.stack.push(Value::Text(text));
        Ok(())
    }

    fn tuple(&mut self, values: Vec<Value<'a>>) {
        self.stack.push(Value::Sequence(self.sequences.len()));
        self.sequences.push(values);
    }

    fn dict(&mut self, entries: Vec<(Value<'a>, Value<'a>)>) {
        self.stack.push(Value::Dict(self.dicts.len()));
        self.dicts.push(entries);
    }

    fn add_entries(&mut self, entries: Vec<(Value<'a>, Value<'a>)>) -> Result<(), String> {
        match self.stack.last() {
            Some(Value::Dict(at)) => self.dicts[*at].extend(entries),
            _ => return Err("its pickle adds an entry to what is no dictionary".to_owned()),
        }
        Ok(())
    }

    fn append(&mut self, values: Vec<Value<'a>>) -> Result<(), String> {
        match self.stack.last() {
            Some(Value::Sequence(at)) => self.sequences[*at].extend(values),
            _ => return Err("its pickle appends to what is no list".to_owned()),
        }
        Ok(())
    }

    fn global(&mut self, module: &str, name: &str) -> Result<(), String> {
        let plain = |dtype| Some(Global::Storage(FileType::Plain(dtype)));
        let known = match (module, name) {
            ("collections", "OrderedDict") => Some(Global::OrderedDict),
            ("torch", "Size") => Some(Global::Size),
            ("torch._utils", "_rebuild_tensor" | "_rebuild_tensor_v2") => Some(Global::Tensor),
            ("torch._utils", "_rebuild_parameter") => Some(Global::Parameter),
            ("torch", "FloatStorage") => plain(Dtype::F32),
            ("torch", "HalfStorage") => plain(Dtype::F16),
            ("torch", "BFloat16Storage") => plain(Dtype::BF16),
            ("torch", "DoubleStorage") => plain(Dtype::F64),
            ("torch", "LongStorage") => plain(Dtype::I64),
            ("torch", "IntStorage") => plain(Dtype::I32),
            ("torch", "ShortStorage") => plain(Dtype::I16),
            ("torch", "CharStorage") => plain(Dtype::I8),
            ("torch", "ByteStorage") => plain(Dtype::U8),
            ("torch", "BoolStorage") => plain(Dtype::BOOL),
            _ => None,
        };
        let what = || format!("its pickle calls {module:?}.{name:?}, which is not done: only tensors are read");
        self.stack.push(Value::Global(self.globals.len()));
        self.globals.push(known.ok_or_else(what)?);
        Ok(())
    }

    /// `("storage", type, key, location, count)`; older files have the part of another storage behind, or nothing.
    fn storage(&mut self, id: Value<'a>) -> Result<(), String> {
        let wrong = || "its pickle refers to what is no storage".to_owned();
        let parts = self.sequence(id).ok_or_else(wrong)?;
        let &[Value::Text("storage"), Value::Global(global), Value::Text(key), _, Value::Int(count), ref view @ ..] =
            parts
        else {
            return Err(wrong());
        };
        if !matches!(view, [] | [Value::Other]) {
            return Err("one of its storages is a part of another, which is not read".to_owned());
        }
        let Some(Global::Storage(dtype)) = self.globals.get(global).copied() else { return Err(wrong()) };
        let count = usize::try_from(count).map_err(|_| wrong())?;
        self.stack.push(Value::Storage(self.storages.len()));
        self.storages.push(Storage { key, dtype, count });
        Ok(())
    }

    fn call(&mut self, function: Value<'a>, arguments: Value<'a>) -> Result<(), String> {
        let wrong = || "its pickle calls a function with arguments that do not fit".to_owned();
        let arguments = self.sequence(arguments).ok_or_else(wrong)?;
        let Value::Global(global) = function else { return Err("its pickle calls what is no function".to_owned()) };
        match (self.globals.get(global), arguments) {
            (Some(Global::OrderedDict), []) => self.dict(Vec::new()),
            (Some(Global::Size), &[shape @ Value::Sequence(_)]) => self.stack.push(shape),
            (Some(Global::Parameter), &[tensor @ Value::Tensor(_), ..]) => self.stack.push(tensor),
            (Some(Global::Tensor), &[Value::Storage(storage), Value::Int(offset), shape, strides, ..]) => {
                let extents = |value| -> Option<Vec<usize>> {
                    let extent = |value: &Value<'_>| match value {
                        Value::Int(extent) => usize::try_from(*extent).ok(),
                        _ => None,
                    };
                    self.sequence(value).filter(|all| all.len() <= MOST_AXES)?.iter().map(extent).collect()
                };
                let (shape, strides) = (extents(shape).ok_or_else(wrong)?, extents(strides).ok_or_else(wrong)?);
                let offset = usize::try_from(offset).map_err(|_| wrong())?;
                self.stack.push(Value::Tensor(self.tensors.len()));
                self.tensors.push(View { storage, offset, shape, strides });
            }
            _ => return Err(wrong()),
        }
        Ok(())
    }
}

/// Keys and values that lie one behind the other.
fn pairs<'a>(values: &[Value<'a>]) -> Vec<(Value<'a>, Value<'a>)> {
    values.chunks_exact(2).map(|pair| (pair[0], pair[1])).collect()
}
