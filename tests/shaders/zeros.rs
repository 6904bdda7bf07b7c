//! Variables in loops are given a value. WGSL says that one without is zero each time its declaration is reached; Chromium makes it zero once, so that
//! it begins a round with what the round before left in it.

use super::launched::texts;
use std::collections::BTreeSet;

/// Declarations without a value within loops.
fn without_value(text: &str) -> Vec<String> {
    let code: Vec<&str> = text.lines().map(|line| line.split("//").next().unwrap_or_default()).collect();
    let code = code.join("\n");
    let (mut blocks, mut found, mut header) = (Vec::new(), Vec::new(), String::new());
    // The parts of a loop's header end with semicolons as well.
    let mut parentheses = 0_usize;
    for letter in code.chars() {
        match letter {
            '(' => parentheses += 1,
            ')' => parentheses = parentheses.saturating_sub(1),
            _ => (),
        }
        match letter {
            '{' => {
                let first = header.split(|c: char| !c.is_alphanumeric()).find(|word| !word.is_empty());
                blocks.push(matches!(first, Some("for" | "while" | "loop" | "continuing")));
                header.clear();
            }
            '}' => {
                blocks.pop();
                header.clear();
            }
            ';' if parentheses == 0 => {
                let statement = header.trim();
                if statement.starts_with("var ") && !statement.contains('=') && blocks.contains(&true) {
                    found.push(statement.to_owned());
                }
                header.clear();
            }
            letter => header.push(letter),
        }
    }
    found
}

#[test]
fn a_declaration_in_a_loop_is_found() {
    let text = "fn f() { var a: u32; for (var i = 0u; i < 4u; i++) { if (i > 1u) { var b: vec4f; // = 0\n b.x = 1.0; } var c = 0u; } \
                loop { var d: array<array<f32, 2>, 3>; break; } while (a < 2u) { var e: u32 = 0u; a++; } var g: f32; }";
    assert_eq!(without_value(text), ["var b: vec4f", "var d: array<array<f32, 2>, 3>"]);
}

#[test]
fn variables_in_loops_have_values() {
    let mut complaints = BTreeSet::new();
    for text in texts() {
        complaints.extend(without_value(&text.text).into_iter().map(|found| format!("{}: {found}", text.entry)));
    }
    assert!(complaints.is_empty(), "give them a value, such as `var x = vec4f();`: {complaints:#?}");
}
