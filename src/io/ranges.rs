//! Files that are read part by part.

use crate::error::{Error, Result};
use std::ops::Range;
use std::path::Path;

/// Bytes of a file that is read part by part.
pub(crate) async fn part(
    path: &Path,
    range: Range<u64>,
    read: &mut impl AsyncFnMut(Range<u64>) -> Result<Vec<u8>>,
) -> Result<Vec<u8>> {
    let (start, wanted) = (range.start, range.end - range.start);
    let bytes = read(range).await?;
    if bytes.len() as u64 == wanted {
        return Ok(bytes);
    }
    let message = format!("gave {} bytes for the {wanted} from byte {start} on: load it again", bytes.len());
    Err(Error::format(path, message))
}
