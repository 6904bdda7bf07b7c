//! Models that were split into several files.

use super::metadata::Metadata;
use crate::error::{Error, Result};
#[cfg(feature = "files")]
use crate::io::{folder::is_there, shards};
#[cfg(feature = "files")]
use std::path::{Path, PathBuf};

const COUNT: &str = "split.count";
const NUMBER: &str = "split.no";
/// The most parts of a model: names have five digits.
const MOST: u64 = 99_999;

/// The number of a part, from 1, and the number of parts.
///
/// # Errors
/// [`Error::Format`] if there is no such part.
pub(super) fn part(metadata: &Metadata<'_>) -> Result<(u64, u64)> {
    let count = metadata.count(COUNT)?.unwrap_or(1).max(1);
    let number = metadata.count(NUMBER)?.unwrap_or(0);
    match number < count && count <= MOST {
        true => Ok((number + 1, count)),
        false => {
            Err(metadata
                .refuse(NUMBER, format!("is {number} of {count} parts, which is impossible: the file is damaged")))
        }
    }
}

/// Refuses a part that is alone.
pub(super) fn check_whole(metadata: &Metadata<'_>) -> Result<()> {
    match part(metadata)? {
        (_, 1) => Ok(()),
        (number, count) => {
            let message = format!(
                "is part {number} of {count} of a model: open its first part by its path, with the others beside it"
            );
            Err(Error::format(metadata.path, message))
        }
    }
}

/// The files after the first of a model; none if it has one file.
///
/// # Errors
/// [`Error::Format`] if this is not the first part, or others are missing.
#[cfg(feature = "files")]
pub(super) fn others(metadata: &Metadata<'_>) -> Result<Vec<PathBuf>> {
    let path = metadata.path;
    let (number, count) = part(metadata)?;
    let sibling = |number: u64| shards::sibling(path, number as u32, count as u32, "gguf");
    if number > 1 {
        let first = sibling(1).map_or_else(|| "the first".into(), |path| path.display().to_string());
        let message = format!("is part {number} of {count} of a model: give its first part, {first}");
        return Err(Error::format(path, message));
    }
    let found: Vec<PathBuf> = (2..=count).map_while(|number| sibling(number).filter(|part| is_there(part))).collect();
    if found.len() as u64 == count - 1 {
        return Ok(found);
    }
    let missing = sibling(found.len() as u64 + 2);
    let missing = missing.as_deref().and_then(Path::file_name).unwrap_or_default().to_string_lossy();
    let message = if missing.is_empty() {
        format!(
            "is part 1 of {count}, but its name does not say so: the parts are found as NAME-00001-of-{count:05}.gguf and so on"
        )
    } else if found.is_empty() {
        format!("is part 1 of {count}: the others are missing; {missing} should be beside it")
    } else {
        format!("is part 1 of {count}: part {} is missing; {missing} should be beside it", found.len() + 2)
    };
    Err(Error::format(path, message))
}
