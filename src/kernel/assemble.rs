//! Assembles one shader text from constants, snippets and a kernel, and maps a line of it back to its file.

use super::{Dialect, Dispatch};
use crate::software::adapt_text;
use std::fmt::Write;

/// An assembled shader.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShaderText {
    /// The WGSL text.
    pub text: String,
    /// The entry point.
    pub entry: &'static str,
    /// The first line of each part in the text, and its file.
    parts: Vec<(usize, &'static str)>,
}

impl ShaderText {
    /// The file and line (both from 1) that line `line` of the text came from.
    #[must_use]
    pub fn location(&self, line: usize) -> String {
        let part = self.parts.iter().rev().find(|(first, _)| *first <= line);
        match part {
            Some((first, file)) => format!("{file}.wgsl:{}", line - first + 1),
            None => format!("{} (constants):{line}", self.entry),
        }
    }
}

/// The text of a dispatch's shader for one compiler: what it must enable, constants, snippets, the kernel.
///
/// Includes the driver's adaptations of the dispatch. Dispatches with the same text share a pipeline.
#[must_use]
pub fn assemble(dispatch: &Dispatch, dialect: Dialect) -> ShaderText {
    let mut text = String::new();
    for (name, value) in &dispatch.constants {
        // Writing to a string can't fail.
        let _ = writeln!(text, "const {name} = {value};");
    }
    let mut line = dispatch.constants.len() + 1;
    let mut parts = Vec::new();
    for part in dispatch.snippets.iter().copied().chain([dispatch.kernel]) {
        parts.push((line, part.file));
        text.push_str(part.source);
        line += part.source.lines().count();
        if !part.source.ends_with('\n') {
            text.push('\n');
        }
    }
    let mut text = adapt_text(dispatch, text);
    // No line break, so that lines keep their numbers.
    text.insert_str(0, &enables(&text, dialect));
    ShaderText { text, entry: dispatch.kernel.name, parts }
}

/// The `enable` directives of a text: `f16` where it is used, subgroups where the compiler demands the directive.
fn enables(text: &str, dialect: Dialect) -> String {
    let code = text.lines().map(|line| line.split("//").next().unwrap_or_default());
    let words = || code.clone().flat_map(|line| line.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_')));
    let f16 = words().any(|word| matches!(word, "f16" | "vec2h" | "vec3h" | "vec4h"));
    let subgroup = |word: &str| {
        let rest = word.strip_prefix("subgroup").unwrap_or_default();
        rest.starts_with(|c: char| c.is_ascii_uppercase()) || matches!(rest, "_size" | "_invocation_id")
    };
    let matrices = words().any(|word| word.starts_with("coop_mat"));
    let subgroups = dialect == Dialect::Browser && words().any(subgroup);
    let enable = |name, wanted| if wanted { format!("enable {name}; ") } else { String::new() };
    enable("f16", f16) + &enable("wgpu_cooperative_matrix", matrices) + &enable("subgroups", subgroups)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_goes_beyond_plain_wgsl_is_enabled() {
        let plain = "// subgroupAdd and f16\nfn f(subgroups: u32) -> u32 { return subgroups; } // subgroup_size\n";
        let shuffles = "fn f(x: f32) -> f32 { return subgroupShuffle(x, 1u); }\n";
        let builtin = "fn f(@builtin(subgroup_size) size: u32) { }\n";
        let half = "fn f(x: vec4h) { }\n";
        for (text, naga, browser) in [
            (plain, "", ""),
            (shuffles, "", "enable subgroups; "),
            (builtin, "", "enable subgroups; "),
            (half, "enable f16; ", "enable f16; "),
            (
                "alias Sum = coop_mat16x16<f32, C>;\n",
                "enable wgpu_cooperative_matrix; ",
                "enable wgpu_cooperative_matrix; ",
            ),
            (&format!("{half}{shuffles}"), "enable f16; ", "enable f16; enable subgroups; "),
        ] {
            assert_eq!(enables(text, Dialect::Naga), naga, "{text}");
            assert_eq!(enables(text, Dialect::Browser), browser, "{text}");
        }
    }
}
