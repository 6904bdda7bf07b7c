//! One shader text from constants, snippets and a kernel, and the way back from a line of it to a file.

use super::Dispatch;
use crate::software::adapt_text;
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
/// As the dispatch was adapted to a driver; two dispatches with the same text share a pipeline.
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
    let text = adapt_text(dispatch, text);
    ShaderText { text, entry: dispatch.kernel.name, parts }
}
