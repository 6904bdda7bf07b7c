//! Chat templates against the reference. `tests/chat` has templates like real ones, with the results of transformers 5.23's
//! `apply_chat_template` (Jinja 3.1.6) at 2026-03-05 14:07:09.

#![cfg(feature = "tokenizers")]
#![allow(clippy::unwrap_used, reason = "a test says so and stops")]

use serde_json::Value;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use wgformer::io::{ChatTemplate, Clock, Conversation};

/// The time of the reference, in the formats that the templates use.
fn clock() -> Clock {
    Arc::new(|format| {
        let parts = [("%d", "05"), ("%m", "03"), ("%b", "Mar"), ("%B", "March"), ("%Y", "2026"), ("%A", "Thursday")];
        let text = parts.iter().fold(format.to_owned(), |text, (part, value)| text.replace(part, value));
        if text.contains('%') { Err(format!("no such format in these tests: {format}")) } else { Ok(text) }
    })
}

fn template(text: &str) -> ChatTemplate {
    ChatTemplate::new("a.jinja", text, clock()).unwrap()
}

#[test]
fn conversations_become_the_texts_of_the_reference() {
    let (mut texts, mut errors) = (0, 0);
    for entry in fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/chat")).unwrap() {
        let path = entry.unwrap().path();
        let file: Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
        let special = file["special_tokens"].as_object().unwrap().iter();
        let special = special.filter_map(|(name, token)| Some((name.clone(), token.as_str()?.to_owned())));
        let template = ChatTemplate::new(&path, file["template"].as_str().unwrap(), clock()).unwrap();
        let template = template.with_special(special);
        for case in file["cases"].as_array().unwrap() {
            // As text, so that keys keep their order.
            let json = case["conversation"].as_str().unwrap();
            let made = Conversation::from_json(json).and_then(|conversation| template.render(&conversation));
            let label = format!("{}: {}", path.display(), case["name"]);
            match (case["expected"].as_str(), case["error"].as_str()) {
                (Some(expected), None) => {
                    assert_eq!(made.as_deref().unwrap_or_else(|e| panic!("{label}: {e}")), expected, "{label}");
                    texts += 1;
                }
                (None, Some(words)) => {
                    let message = made
                        .map(|text| panic!("{label} became {text:?}"))
                        .unwrap_or_else(|e: wgformer::Error| e.to_string());
                    // The error message of a template must reach the user unchanged.
                    let own = case["kind"] == "raise_exception";
                    assert!(!own || message.ends_with(words), "{label}: {message}");
                    errors += 1;
                }
                other => panic!("{label}: {other:?}"),
            }
        }
    }
    assert_eq!((texts, errors), (142, 23));
}

#[test]
fn templates_cannot_run_for_ever_or_too_deep() {
    let user = Conversation::of_user("Hi", None);
    let refused = |text: &str| template(text).render(&user).unwrap_err().to_string();
    let message = refused("{% for a in range(9999) %}{% for b in range(9999) %}{{ a * b }}{% endfor %}{% endfor %}");
    assert!(message.contains("the chat template cannot be applied (line 1)"), "{message}");
    let message = refused("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}");
    assert!(message.contains("cannot be applied"), "{message}");
    let message = refused("{{ messages | tojson(indent='x', nothing=1) }}");
    assert!(message.contains("cannot be applied"), "{message}");
    assert!(
        refused("\n{{ raise_exception('No: ' ~ messages[0].content) }}").ends_with("refuses the conversation: No: Hi")
    );
    assert!(refused("{{ strftime_now('%Q') }}").contains("no such format"));
    let damaged = ChatTemplate::new("a.jinja", "\n\n{% if %}", clock()).unwrap_err().to_string();
    assert!(damaged.starts_with("a.jinja: the chat template is not a readable template (line 3)"), "{damaged}");
    assert!(ChatTemplate::new("a.jinja", "{% if x", clock()).is_err());
}

#[test]
fn conversations_that_are_none_are_refused() {
    for (json, words) in [
        ("[]", "not an object"),
        ("{", "not valid JSON"),
        ("{}", "no list of messages"),
        (r#"{"messages": {}}"#, "no list of messages"),
        (r#"{"messages": []}"#, "no message"),
        (r#"{"messages": ["Hi"]}"#, "not an object"),
    ] {
        let message = Conversation::from_json(json).unwrap_err().to_string();
        assert!(message.starts_with("conversation: ") && message.contains(words), "{json}: {message}");
    }
    let text = "{% for m in messages %}{{ m.role }}={{ m.content }};{% endfor %}{{ add_generation_prompt }}";
    let made = template(text).render(&Conversation::of_user("<b> & 'x'", Some("Be brief.")));
    assert_eq!(made.unwrap(), "system=Be brief.;user=<b> & 'x';True");
}
