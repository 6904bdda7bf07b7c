//! Reads of tensors through textures on CPU drivers: which bindings, and the text for them.
//!
//! These drivers load from a buffer lane by lane, at some tens of cycles an element, and from a texture with vector instructions. The
//! kernels' texts read arrays, and [`read_through_textures`] turns these reads into texture loads.

use super::Textures;
use super::params::{copy_params, params_first};
use crate::kernel::{Access, Caps, Dispatch};
use std::fmt::Write;

/// Rows at a stride that is a multiple of this many bytes compete for few sets of a cache.
const PAGE: u64 = 4096;
/// The uses of each element of a tensor from which on a copy is a small part of the work.
const STRIDED_USES: usize = 256;

/// Whether the rows of a tensor, `row` bytes apart, compete for few sets of a cache, and its elements are used so often that a copy with
/// padded rows pays.
pub(crate) fn page_strided(row: u64, uses: usize) -> bool {
    row.is_multiple_of(PAGE) && uses >= STRIDED_USES
}

/// A launch adapted to the adapter.
pub(crate) fn adapt(caps: &Caps, dispatch: Dispatch) -> Dispatch {
    params_first(&caps.quirks, through_textures(caps, dispatch))
}

/// The text of an adapted launch: with textures, and with its parameters copied first.
pub(crate) fn adapt_text(dispatch: &Dispatch, mut text: String) -> String {
    let textures: Vec<(u32, bool)> = (1..)
        .zip(&dispatch.bindings)
        .filter_map(|(number, b)| match b.access {
            Access::Texture { storage, .. } => Some((number, storage)),
            _ => None,
        })
        .collect();
    if !textures.is_empty() {
        let constants: Vec<_> = dispatch.constants.iter().map(|(name, value)| (*name, value.to_string())).collect();
        text = read_through_textures(&text, &constants, &textures);
    }
    if dispatch.params_first { copy_params(&text, dispatch.kernel.name) } else { text }
}

/// A declaration of a read-only storage binding.
struct Declared<'a> {
    name: &'a str,
    /// `f32`, `u32`, `i32`, `vec2f`, `vec2u`, `vec4f` or `vec4u`.
    element: &'a str,
}

/// Has a dispatch read tensors through textures where that is faster.
///
/// A tensor is copied as a whole, so kernels that read little of it (rows of a table) keep reading the buffer.
fn through_textures(caps: &Caps, mut dispatch: Dispatch) -> Dispatch {
    let quirks = &caps.quirks;
    if quirks.textures == Textures::None {
        return dispatch;
    }
    let written = dispatch.bindings.iter().filter(|b| !b.access.only_reads()).map(|b| b.view.numel() as u64);
    let work = dispatch.flops.max(written.sum());
    if work < quirks.texture_work {
        return dispatch;
    }
    let constants: Vec<(&str, String)> =
        dispatch.constants.iter().map(|(name, value)| (*name, format!("{value}"))).collect();
    let mut left = quirks.max_textures;
    for number in 0..dispatch.bindings.len() {
        let binding = &dispatch.bindings[number];
        let fits = binding.access == Access::Read
            && binding.view.bytes() <= quirks.max_texture_bytes
            && (quirks.shared_textures || binding.view.numel() as u64 <= 2 * work);
        let texts = || dispatch.snippets.iter().copied().chain([dispatch.kernel]).map(|part| part.source);
        let lines = || texts().flat_map(str::lines);
        let declared = lines().find_map(|line| declaration(line, number as u32 + 1, &constants));
        let declared = declared.filter(|d| !texts().any(|text| takes_address(text, d.name)));
        if fits && left > 0 && declared.is_some_and(|d| plain(d.element, lines).is_some()) {
            let (storage, shared) =
                (quirks.textures == Textures::Storage, quirks.shared_textures && !binding.page_strided);
            dispatch.bindings[number].access = Access::Texture { storage, shared };
            left -= 1;
        }
    }
    dispatch
}

/// Whether a text takes the address of an array, also for its length: a texture has none.
fn takes_address(text: &str, name: &str) -> bool {
    text.match_indices('&').any(|(at, _)| {
        // After an operand, `&` is an "and".
        let prefix = text[..at].trim_end().ends_with(['(', ',', '=']);
        let rest = text[at + 1..].trim_start().strip_prefix(name);
        prefix
            && rest.is_some_and(|rest| !rest.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_' || c == '['))
    })
}

/// The declaration of the read-only binding of this number, if the line is that.
fn declaration<'a>(line: &'a str, number: u32, constants: &[(&str, String)]) -> Option<Declared<'a>> {
    let (binding, rest) = line.strip_prefix("@group(0) @binding(")?.split_once(") var<storage, read> ")?;
    let constant = || constants.iter().find(|(name, _)| *name == binding).map(|(_, value)| value.as_str());
    let found = binding.parse().ok().or_else(|| constant()?.trim_end_matches('u').parse::<u32>().ok())?;
    let (name, rest) = rest.split_once(": array<")?;
    let (element, _) = rest.split_once(">;")?;
    (found == number).then_some(Declared { name, element })
}

/// The plain type of a name, if a texel can hold it.
fn plain<'a, L: Iterator<Item = &'a str>>(name: &'a str, lines: impl Fn() -> L) -> Option<&'a str> {
    const PLAIN: [&str; 7] = ["f32", "u32", "i32", "vec2f", "vec2u", "vec4f", "vec4u"];
    let alias = lines().find_map(|line| line.strip_prefix("alias ")?.strip_prefix(name)?.strip_prefix(" = "));
    let plain = alias.map_or(name, |rest| rest.split(';').next().unwrap_or_default().trim());
    PLAIN.into_iter().find(|p| *p == plain)
}

/// The text with some read-only arrays (binding, and whether it is a storage texture) declared as textures, and reads of their elements as
/// texel loads. Line numbers stay the same.
pub(super) fn read_through_textures(text: &str, constants: &[(&str, String)], bindings: &[(u32, bool)]) -> String {
    let mut out = String::with_capacity(text.len() + 256 * bindings.len());
    let mut names = Vec::new();
    for line in text.lines() {
        let found =
            bindings.iter().find_map(|(number, storage)| Some((declaration(line, *number, constants)?, *storage)));
        match found {
            Some((declared, storage)) => {
                let binding = &line[..line.find("var<").unwrap_or(0)];
                let element = plain(declared.element, || text.lines()).unwrap_or("f32");
                // Writing to a string can't fail.
                let _ = writeln!(out, "{binding}{}", texture(&declared, element, storage));
                names.push(declared.name);
            }
            None => {
                out.push_str(line);
                out.push('\n');
            }
        }
    }
    reads_as_calls(&out, &names)
}

/// The declaration of a texture in place of an array, and of the function that returns an element.
fn texture(declared: &Declared<'_>, element: &str, storage: bool) -> String {
    let Declared { name, element: written } = declared;
    let (ty, level) = if storage { ("texture_storage_2d<rgba32uint, read>", "") } else { ("texture_2d<u32>", ", 0") };
    // Texels lie in rows of 1024.
    let texel = |shift: u32| {
        let i = if shift == 0 { "i".to_owned() } else { format!("(i >> {shift}u)") };
        format!("textureLoad({name}, vec2u({i} & 1023u, {i} >> 10u){level})")
    };
    let load = match element {
        "vec4f" | "vec4u" => format!("return bitcast<{element}>({});", texel(0)),
        "vec2f" | "vec2u" => {
            format!("let t = {}; return bitcast<{element}>(select(t.xy, t.zw, (i & 1u) == 1u));", texel(1))
        }
        _ => format!("return bitcast<{element}>({}[i & 3u]);", texel(2)),
    };
    format!("var {name}: {ty}; fn element_of_{name}(i: u32) -> {written} {{ {load} }}")
}

/// `name[index]` becomes `element_of_name(u32(index))` wherever `name` is not a variable or parameter of the function around it.
fn reads_as_calls(text: &str, names: &[&str]) -> String {
    let bytes = text.as_bytes();
    let mut out = String::with_capacity(text.len());
    // Open brackets, and whether each was turned into parentheses. An index may be signed.
    let mut brackets: Vec<bool> = Vec::new();
    let (mut depth, mut at) = (0_usize, 0_usize);
    // Shadowed names, and the depth of the block in which they end.
    let mut shadows: Vec<(&str, usize)> = Vec::new();
    // The word before the current one, and whether a function's parameters are being declared.
    let (mut before, mut parameters) = ("", false);
    while at < bytes.len() {
        let rest = &text[at..];
        let c = bytes[at];
        if rest.starts_with("//") {
            let end = rest.find('\n').unwrap_or(rest.len());
            out.push_str(&rest[..end]);
            at += end;
            continue;
        }
        if c.is_ascii_alphabetic() || c == b'_' {
            let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(rest.len());
            let (word, behind) = (&rest[..end], &rest[end..]);
            let declares = matches!(before, "var" | "let" | "const") || (parameters && behind.starts_with(':'));
            if names.contains(&word) && declares && (depth > 0 || parameters) {
                shadows.push((word, depth + usize::from(parameters)));
            }
            let member = out.ends_with('.');
            if names.contains(&word) && !member && behind.starts_with('[') && !shadows.iter().any(|(n, _)| *n == word) {
                let _ = write!(out, "element_of_{word}(u32(");
                brackets.push(true);
                at += end + 1;
            } else {
                out.push_str(word);
                at += end;
            }
            parameters |= word == "fn";
            before = word;
            continue;
        }
        match c {
            b'{' => {
                depth += 1;
                parameters = false;
            }
            b'}' => {
                depth = depth.saturating_sub(1);
                shadows.retain(|(_, until)| *until <= depth);
            }
            b'[' => brackets.push(false),
            _ => {}
        }
        match (c, if c == b']' { brackets.pop() } else { None }) {
            (b']', Some(true)) => out.push_str("))"),
            // Whole characters, which may be several bytes.
            _ => out.push_str(&rest[..rest.chars().next().map_or(1, char::len_utf8)]),
        }
        at += rest.chars().next().map_or(1, char::len_utf8);
        if !c.is_ascii_whitespace() && c != b'<' && c != b'>' {
            before = "";
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_told_from_an_and() {
        assert!(takes_address("let n = arrayLength(&x);", "x"));
        assert!(takes_address("f(& x, 1u)", "x"));
        assert!(!takes_address("let n = i & x1; let m = a & x[2]; b && x; (i & x)", "x"));
    }

    #[test]
    fn reads_become_loads_and_what_is_not_one_stays() {
        let text = "alias Element = vec4f;\n\
                    @group(0) @binding(1) var<storage, read> x: array<Element>;    // (rows)\n\
                    @group(0) @binding(LAST) var<storage, read> index: array<u32>;\n\
                    @group(0) @binding(3) var<storage, read_write> out: array<Element>;\n\
                    fn f(x: array<f32, 2>) -> f32 { return x[0]; }\n\
                    fn g(i: u32) { // x[i]\n\
                      out[i] = x[index[i] + 1u] + a.x[2];\n\
                      if (i > 1u) { var x: array<f32, 4>; x[1] = f(x); }\n\
                      out[x[0].x] = x[i];\n\
                    }\n";
        let constants = [("LAST", "2u".to_owned())];
        let new = read_through_textures(text, &constants, &[(1, true), (2, false)]);
        let lines: Vec<&str> = new.lines().collect();
        assert_eq!(
            lines[1],
            "@group(0) @binding(1) var x: texture_storage_2d<rgba32uint, read>; fn element_of_x(i: u32) -> Element { \
             return bitcast<vec4f>(textureLoad(x, vec2u(i & 1023u, i >> 10u))); }"
        );
        assert_eq!(
            lines[2],
            "@group(0) @binding(LAST) var index: texture_2d<u32>; fn element_of_index(i: u32) -> u32 { \
             return bitcast<u32>(textureLoad(index, vec2u((i >> 2u) & 1023u, (i >> 2u) >> 10u), 0)[i & 3u]); }"
        );
        assert_eq!(lines[4], "fn f(x: array<f32, 2>) -> f32 { return x[0]; }");
        assert_eq!(lines[5], "fn g(i: u32) { // x[i]");
        assert_eq!(lines[6], "out[i] = element_of_x(u32(element_of_index(u32(i)) + 1u)) + a.x[2];");
        assert_eq!(lines[7], "if (i > 1u) { var x: array<f32, 4>; x[1] = f(x); }");
        assert_eq!(lines[8], "out[element_of_x(u32(0)).x] = element_of_x(u32(i));");
        assert_eq!(lines.len(), text.lines().count());
    }
}
