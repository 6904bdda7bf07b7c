//! Parameters that a kernel reads once, in front of everything else, on drivers that compute on the CPU.
//!
//! Such drivers load a member of a uniform buffer within a loop again in each round, lane by lane, as they load from any
//! buffer. A private copy lies in registers. Kernels do not know of it: they read `p` in either case. Not in browsers, whose
//! compilers take whatever comes from a private variable for something that differs between invocations.

use super::Quirks;
use crate::kernel::Dispatch;

/// How kernels declare their parameters.
const UNIFORM: &str = "var<uniform> p: Params;";

/// Has a dispatch copy its parameters first where the adapter is faster for it.
pub(super) fn params_first(quirks: &Quirks, dispatch: Dispatch) -> Dispatch {
    let native = !cfg!(target_arch = "wasm32");
    Dispatch { params_first: native && quirks.params_first, ..dispatch }
}

/// The text with its parameters copied to a private variable at the beginning of the entry point. Lines keep their numbers.
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
