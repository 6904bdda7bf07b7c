//! Files of `SentencePiece`: a small message of Protocol Buffers, of which a few fields matter.
//!
//! Fields of the message: 1 a piece (1 its text, 2 its score, 3 its kind), 2 how it was trained (3 the algorithm, 24 whether
//! blanks end words), 3 what is done with a text before (2 replacements of characters, 3 a blank in front, 4 removal of blanks).

use super::sentencepiece::{Algorithm, Kind, Piece, SentencePiece};

/// A number, or bytes.
enum Field<'a> {
    Number(u64),
    Word(u32),
    Bytes(&'a [u8]),
    Other,
}

/// Reads fields and never past the end.
struct Message<'a>(&'a [u8]);

const DAMAGED: &str = "is no readable SentencePiece file: copy or download it again";

impl<'a> Message<'a> {
    fn varint(&mut self) -> Option<u64> {
        let mut value = 0_u64;
        for shift in (0..64).step_by(7) {
            let (&byte, rest) = self.0.split_first()?;
            self.0 = rest;
            value |= u64::from(byte & 0x7f).checked_shl(shift)?;
            if byte < 0x80 {
                return Some(value);
            }
        }
        None
    }

    fn take(&mut self, count: u64) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(usize::try_from(count).ok()?)?;
        self.0 = rest;
        Some(taken)
    }

    /// The next field by its number; none at the end.
    fn next(&mut self) -> Result<Option<(u64, Field<'a>)>, String> {
        if self.0.is_empty() {
            return Ok(None);
        }
        self.field().map(Some).ok_or_else(|| DAMAGED.into())
    }

    fn field(&mut self) -> Option<(u64, Field<'a>)> {
        let key = self.varint()?;
        let field = match key & 7 {
            0 => Field::Number(self.varint()?),
            1 => self.take(8).map(|_| Field::Other)?,
            2 => {
                let length = self.varint()?;
                Field::Bytes(self.take(length)?)
            }
            5 => Field::Word(u32::from_le_bytes(self.take(4)?.try_into().ok()?)),
            _ => return None,
        };
        Some((key >> 3, field))
    }
}

fn piece(bytes: &[u8]) -> Result<Piece, String> {
    let mut piece = Piece { text: String::new(), score: 0.0, kind: Kind::Normal };
    let mut message = Message(bytes);
    while let Some(field) = message.next()? {
        match field {
            (1, Field::Bytes(text)) => piece.text = String::from_utf8(text.to_vec()).map_err(|_| DAMAGED.to_owned())?,
            (2, Field::Word(bits)) => piece.score = f32::from_bits(bits),
            (3, Field::Number(kind)) => piece.kind = Kind::of(i64::try_from(kind).unwrap_or(0)),
            _ => {}
        }
    }
    if piece.score.is_finite() { Ok(piece) } else { Err(DAMAGED.into()) }
}

/// The vocabulary of a file. An error says what is wrong.
pub(in crate::io) fn read(bytes: &[u8]) -> Result<SentencePiece, String> {
    let mut all = SentencePiece {
        pieces: Vec::new(),
        algorithm: Algorithm::Unigram,
        charsmap: Vec::new(),
        begins_with_blank: true,
        removes_blanks: true,
        normalizers: Vec::new(),
        first_only: false,
    };
    let mut message = Message(bytes);
    while let Some(field) = message.next()? {
        match field {
            (1, Field::Bytes(bytes)) => all.pieces.push(piece(bytes)?),
            (2, Field::Bytes(bytes)) => all.algorithm = algorithm(bytes)?,
            (3, Field::Bytes(bytes)) => {
                let mut inner = Message(bytes);
                while let Some(field) = inner.next()? {
                    match field {
                        (2, Field::Bytes(map)) => all.charsmap = map.to_vec(),
                        (3, Field::Number(on)) => all.begins_with_blank = on != 0,
                        (4, Field::Number(on)) => all.removes_blanks = on != 0,
                        (5, Field::Number(0)) => {
                            return Err("does not write blanks as U+2581; only that is read".into());
                        }
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    if all.pieces.is_empty() { Err(DAMAGED.into()) } else { Ok(all) }
}

fn algorithm(bytes: &[u8]) -> Result<Algorithm, String> {
    let mut found = Algorithm::Unigram;
    let mut message = Message(bytes);
    while let Some(field) = message.next()? {
        match field {
            (3, Field::Number(1)) => found = Algorithm::Unigram,
            (3, Field::Number(2)) => found = Algorithm::Merges,
            (3, Field::Number(_)) => {
                return Err("is a SentencePiece file of words or characters; unigram and bpe are read".into());
            }
            (24, Field::Number(on)) if on != 0 => {
                return Err("puts blanks behind words; only in front of them is read".into());
            }
            _ => {}
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A field of bytes.
    fn bytes(number: u8, content: &[u8]) -> Vec<u8> {
        [&[number << 3 | 2, content.len() as u8], content].concat()
    }

    fn small() -> Vec<u8> {
        let piece = |text: &str, score: f32, kind: u8| {
            let score = [&[0x15], score.to_le_bytes().as_slice()].concat();
            bytes(1, &[bytes(1, text.as_bytes()), score, vec![0x18, kind]].concat())
        };
        let trained = bytes(2, &[0x18, 2]);
        let prepared = bytes(3, &[bytes(1, b"identity"), vec![0x18, 1, 0x20, 0]].concat());
        [piece("<unk>", 0.0, 2), piece("\u{2581}a", -1.5, 1), trained, prepared].concat()
    }

    #[test]
    fn a_file_is_read_and_damaged_ones_are_refused() {
        let all = read(&small()).unwrap();
        let wanted = Piece { text: "\u{2581}a".into(), score: -1.5, kind: Kind::Normal };
        assert_eq!((all.pieces.len(), &all.pieces[1], all.pieces[0].kind), (2, &wanted, Kind::Unknown));
        assert_eq!((all.algorithm, all.begins_with_blank, all.removes_blanks), (Algorithm::Merges, true, false));
        for cut in 0..small().len() {
            let _ = read(&small()[..cut]);
        }
        for wrong in
            [&b""[..], b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", b"IQ== 0\n", b"\x0a\xff\xff\xff\xff\x0f"]
        {
            assert!(read(wrong).unwrap_err().contains("SentencePiece"));
        }
    }
}
