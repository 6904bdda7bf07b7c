//! Writing safetensors files: tensors with names, and the file made of them.

use super::convert;
#[cfg(feature = "files")]
use super::file;
use super::safetensors::{HEADER_LIMIT, PREFIX};
use crate::error::{Error, Result};
use crate::shape::{Shape, TensorType};
use safetensors::tensor::{Metadata, TensorInfo};
use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;
use std::io::{self, Write};
#[cfg(feature = "files")]
use std::path::Path;
use std::sync::Arc;

/// A tensor to be written: name, type and bytes as they lie in GPU memory (a padded last word of 16-bit types is cut).
#[derive(Clone, Debug)]
pub struct NamedTensor<'a> {
    /// The name.
    pub name: Cow<'a, str>,
    /// Extents and element type.
    pub ty: TensorType,
    bytes: Bytes<'a>,
}

/// The elements of a tensor, little-endian and row-major.
#[derive(Clone)]
enum Bytes<'a> {
    Here(Cow<'a, [u8]>),
    /// Read when they are written, and dropped then.
    Later(Arc<dyn Fn() -> Result<Vec<u8>> + Send + Sync + 'a>),
}

impl fmt::Debug for Bytes<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Here(bytes) => write!(f, "{} bytes", bytes.len()),
            Self::Later(_) => f.write_str("bytes not read yet"),
        }
    }
}

impl<'a> NamedTensor<'a> {
    /// A tensor from its parts.
    pub fn new(name: impl Into<Cow<'a, str>>, ty: TensorType, bytes: impl Into<Cow<'a, [u8]>>) -> Self {
        Self { name: name.into(), ty, bytes: Bytes::Here(bytes.into()) }
    }

    /// A tensor whose bytes are read when they are written, so that a file need not fit into memory.
    pub fn later(
        name: impl Into<Cow<'a, str>>,
        ty: TensorType,
        bytes: impl Fn() -> Result<Vec<u8>> + Send + Sync + 'a,
    ) -> Self {
        Self { name: name.into(), ty, bytes: Bytes::Later(Arc::new(bytes)) }
    }

    /// An f32 tensor from its elements.
    pub fn f32(name: impl Into<Cow<'a, str>>, shape: impl Into<Shape>, values: &[f32]) -> Self {
        let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        Self::new(name, TensorType::f32(shape), bytes)
    }

    /// Checks that the number of bytes is that of the file or that in memory (padded to words).
    fn check(&self, bytes: &[u8], length: usize) -> Result<()> {
        if bytes.len() == length || bytes.len() as u64 == self.ty.bytes() {
            return Ok(());
        }
        let message = format!("{} has {length} bytes, got {}", self.ty, bytes.len());
        Err(Error::input(self.name.as_ref(), message))
    }

    /// The elements of a tensor of f32.
    #[cfg(feature = "files")]
    pub(crate) fn values(&self) -> Result<Vec<f32>> {
        let length = self.ty.shape.numel() * 4;
        let bytes = match &self.bytes {
            Bytes::Here(bytes) => bytes.clone(),
            Bytes::Later(get) => Cow::Owned(get()?),
        };
        self.check(&bytes, length)?;
        Ok(bytes.as_chunks().0.iter().map(|&x| f32::from_le_bytes(x)).collect())
    }

    fn write_to(&self, length: usize, writer: &mut dyn Write) -> io::Result<()> {
        let got;
        let bytes: &[u8] = match &self.bytes {
            Bytes::Here(bytes) => bytes,
            Bytes::Later(get) => {
                got = get().and_then(|bytes| self.check(&bytes, length).map(|()| bytes)).map_err(io::Error::other)?;
                &got
            }
        };
        writer.write_all(&bytes[..length])
    }
}

/// Writes tensors to a file, atomically, in the form that Hugging Face's libraries write.
///
/// # Errors
/// [`Error::Input`] if a tensor's bytes do not fit its type or a name occurs twice; [`Error::File`] if the file cannot be
/// written, which leaves an older file of that name as it was.
#[cfg(feature = "files")]
pub fn write(path: impl AsRef<Path>, tensors: &[NamedTensor<'_>]) -> Result<()> {
    let layout = Layout::new(tensors)?;
    file::write_atomic_with(path.as_ref(), |w| layout.write_to(w))
}

/// A safetensors file in memory, in the form that Hugging Face's libraries write.
///
/// # Errors
/// [`Error::Input`] if a tensor's bytes do not fit its type or a name occurs twice; and the error of a
/// tensor whose bytes could not be read.
pub fn to_bytes(tensors: &[NamedTensor<'_>]) -> Result<Vec<u8>> {
    let layout = Layout::new(tensors)?;
    let mut bytes = Vec::new();
    let written = layout.write_to(&mut bytes);
    written.map_err(|e| e.downcast::<Error>().unwrap_or_else(|e| Error::input("tensors", e.to_string())))?;
    Ok(bytes)
}

/// A safetensors file about to be written.
pub(crate) struct Layout<'a> {
    header: Vec<u8>,
    /// Each tensor with its number of bytes in the file.
    data: Vec<(&'a NamedTensor<'a>, usize)>,
}

impl<'a> Layout<'a> {
    pub(crate) fn new(tensors: &'a [NamedTensor<'a>]) -> Result<Self> {
        let mut sorted = Vec::with_capacity(tensors.len());
        for tensor in tensors {
            let dtype = convert::file_type(tensor.ty.dtype).ok_or_else(|| {
                let what = "safetensors files hold no quantised blocks; load the model as f32 to save it";
                Error::input(tensor.name.as_ref(), format!("it is {}: {what}", tensor.ty))
            })?;
            sorted.push((dtype, tensor));
        }
        // Wider elements first, so that every tensor is aligned; then by name, so that equal tensors give equal files.
        sorted.sort_by_key(|(dtype, t)| (std::cmp::Reverse(*dtype), &t.name));
        let (mut infos, mut data, mut offset) = (Vec::new(), Vec::new(), 0);
        for (dtype, tensor) in sorted {
            let length = tensor.ty.shape.numel() * dtype.bitsize() / 8;
            if let Bytes::Here(bytes) = &tensor.bytes {
                tensor.check(bytes, length)?;
            }
            let shape = tensor.ty.shape.dims().to_vec();
            let info = TensorInfo { dtype, shape, data_offsets: (offset, offset + length) };
            if tensor.name == "__metadata__" || infos.last().is_some_and(|(last, _)| *last == *tensor.name) {
                return Err(Error::input(tensor.name.as_ref(), "the name occurs twice or is reserved: rename it"));
            }
            infos.push((tensor.name.to_string(), info));
            data.push((tensor, length));
            offset += length;
        }
        let metadata = HashMap::from([("format".to_owned(), "pt".to_owned())]);
        let refused = |e: &dyn fmt::Display| Error::input("safetensors header", e.to_string());
        let count = infos.len();
        let metadata = Metadata::new(Some(metadata), infos).map_err(|e| refused(&e))?;
        if metadata.tensors().len() != count {
            return Err(refused(&"two tensors have the same name"));
        }
        let mut header = serde_json::to_vec(&metadata).map_err(|e| refused(&e))?;
        header.resize(header.len().next_multiple_of(PREFIX), b' ');
        if header.len() > HEADER_LIMIT {
            return Err(refused(&"there are too many tensors for one file"));
        }
        Ok(Self { header, data })
    }

    pub(crate) fn write_to(&self, writer: &mut dyn Write) -> io::Result<()> {
        writer.write_all(&(self.header.len() as u64).to_le_bytes())?;
        writer.write_all(&self.header)?;
        self.data.iter().try_for_each(|(tensor, length)| tensor.write_to(*length, writer))
    }
}
