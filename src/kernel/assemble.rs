//! One shader text from constants, snippets and a kernel, and the way back from a line of it to a file.

use super::params::copy_params;
use super::textures::read_through_textures;
use super::{Access, Dispatch};
use std::fmt::Write;

/// An assembled shader.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShaderText {
    /// The WGSL text.
    pub text: String,
    /// The entry point.
    pub entry: &'static str,
    /// Where each part begins: its first line in the text and its name.
    parts: Vec<(usize, &'static str)>,
}

impl ShaderText {
    /// The file and line (both from 1) that line `line` of the text came from.
    #[must_use]
    pub fn place(&self, line: usize) -> String {
        let part = self.parts.iter().rev().find(|(first, _)| *first <= line);
        match part {
            Some((first, name)) => format!("{name}.wgsl:{}", line - first + 1),
            None => format!("{} (constants):{line}", self.entry),
        }
    }
}

/// The text of a dispatch's shader: constants, then snippets, then the kernel.
///
/// Textures and parameters as the dispatch has them; two dispatches with the same text share a pipeline.
#[must_use]
pub fn assemble(dispatch: &Dispatch) -> ShaderText {
    let mut text = String::new();
    for (name, value) in &dispatch.constants {
        // Writing to a string can't fail.
        let _ = writeln!(text, "const {name} = {value};");
    }
    let mut line = dispatch.constants.len() + 1;
    let mut parts = Vec::new();
    for part in dispatch.snippets.iter().copied().chain([dispatch.kernel]) {
        parts.push((line, part.name));
        text.push_str(part.source);
        line += part.source.lines().count();
        if !part.source.ends_with('\n') {
            text.push('\n');
        }
    }
    let bindings = (1..).zip(&dispatch.bindings);
    let textures: Vec<(u32, bool)> = bindings
        .filter_map(|(number, b)| match b.access {
            Access::Texture { storage, .. } => Some((number, storage)),
            _ => None,
        })
        .collect();
    if !textures.is_empty() {
        let constants: Vec<_> = dispatch.constants.iter().map(|(name, value)| (*name, value.to_string())).collect();
        text = read_through_textures(&text, &constants, &textures);
    }
    if dispatch.params_first {
        text = copy_params(&text, dispatch.kernel.name);
    }
    ShaderText { text, entry: dispatch.kernel.name, parts }
}
