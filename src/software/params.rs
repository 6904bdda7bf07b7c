//! Copies a kernel's parameters to private variables first, on CPU drivers.
//!
//! These drivers load a member of a uniform buffer in every iteration of a loop again, lane by lane. A private copy stays in registers.
//! Kernels read `p` in either case. Browsers are excluded: their compilers treat values of private variables as non-uniform.

use super::Quirks;
use crate::kernel::Dispatch;

/// The declaration of parameters in kernels.
const UNIFORM: &str = "var<uniform> p: Params;";

/// Has a dispatch copy its parameters first where that is faster.
pub(super) fn params_first(quirks: &Quirks, dispatch: Dispatch) -> Dispatch {
    let native = !cfg!(target_arch = "wasm32");
    Dispatch { params_first: native && quirks.params_first, ..dispatch }
}

/// The text with its parameters copied to a private variable at the beginning of the entry point. Line numbers stay the same.
pub(super) fn copy_params(text: &str, entry: &str) -> String {
    let private = "var<uniform> params: Params; var<private> p: Params;";
    let text = text.replacen(UNIFORM, private, 1);
    let body = text.find(&format!("fn {entry}(")).and_then(|at| Some(at + text[at..].find('{')? + 1));
    match body {
        Some(body) => format!("{} p = params;{}", &text[..body], &text[body..]),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_copied_at_the_beginning_of_the_entry_point() {
        let text = "@group(0) @binding(0) var<uniform> p: Params;\nfn f() { }\n@compute\nfn twice(\n    i: u32,\n) {\n    x = p.n;\n}\n";
        let copied = copy_params(text, "twice");
        assert_eq!(
            copied,
            "@group(0) @binding(0) var<uniform> params: Params; var<private> p: Params;\nfn f() { }\n@compute\nfn twice(\n    \
             i: u32,\n) { p = params;\n    x = p.n;\n}\n"
        );
    }
}
