//! Chat templates: Jinja, as Hugging Face's libraries render it, with their extensions.

use super::facts::MAIN;
use super::ordered::{Json, mapping};
use super::python::{pairs, split_lines, to_json, write_python};
use super::tokenizer::Tokenizer;
use crate::error::{Error, Result};
use minijinja::syntax::SyntaxConfig;
use minijinja::value::ValueKind;
use minijinja::{Environment, ErrorKind, State, UndefinedBehavior, Value};
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Writes the time now in a format of `strftime`, for `strftime_now`. An error says what is wrong with the format.
pub type Clock = Arc<dyn Fn(&str) -> std::result::Result<String, String> + Send + Sync>;

type Rendered<T> = std::result::Result<T, minijinja::Error>;

/// The most instructions of a rendering: templates come with files, and files are hostile.
const FUEL: u64 = 20_000_000;
/// The deepest nesting of calls.
const DEPTH: usize = 100;
/// The largest template in bytes.
const LARGEST: usize = 4 << 20;
/// The longest text of a conversation in bytes.
const LONGEST: usize = 64 << 20;
const NAME: &str = "chat_template";

/// A template that makes one text of a conversation.
///
/// Blocks are trimmed and undefined values print as nothing, as in Hugging Face's libraries; `raise_exception`, `strftime_now`,
/// `tojson`, loop controls, `{% generation %}` and Python's methods of texts, lists and mappings are there; booleans, none, lists and
/// mappings print as Python prints them, except within `~`. Rendering is bounded in instructions, in depth and in length.
#[derive(Clone)]
pub struct ChatTemplate {
    environment: Arc<Environment<'static>>,
    source: PathBuf,
    special: Vec<(String, String)>,
}

impl fmt::Debug for ChatTemplate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChatTemplate").field("source", &self.source).finish_non_exhaustive()
    }
}

/// A text that does not grow beyond all bounds.
struct Text(Vec<u8>);

impl std::io::Write for Text {
    fn write(&mut self, more: &[u8]) -> std::io::Result<usize> {
        if self.0.len() + more.len() > LONGEST {
            return Err(std::io::Error::other("its text is longer than 64 MiB"));
        }
        self.0.extend_from_slice(more);
        Ok(more.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// The argument of `raise_exception`.
#[derive(Debug)]
struct Raised(String);

impl fmt::Display for Raised {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Raised {}

/// The variables of a template: `messages`, and optionally `tools`, `documents` and others.
#[derive(Clone, Debug)]
pub struct Conversation {
    variables: Value,
}

impl Conversation {
    /// One message of a user, with a system message before it if there is one. The model answers next.
    #[must_use]
    pub fn of_user(text: &str, system: Option<&str>) -> Self {
        let system = system.map(|text| ("system", text));
        Self::of_messages(system.into_iter().chain([("user", text)]))
    }

    /// Messages by role (`system`, `user`, `assistant`) and text. The model answers next.
    #[must_use]
    pub fn of_messages<'a>(messages: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        let message =
            |(role, text): (&str, &str)| mapping([("role", Value::from(role)), ("content", Value::from(text))]);
        let messages: Vec<Value> = messages.into_iter().map(message).collect();
        let variables = [("messages", Value::from(messages)), ("add_generation_prompt", Value::from(true))];
        Self { variables: mapping(variables) }
    }

    /// An object in JSON: `messages`, a list of objects with `role` and `content`, and other variables of the template. Keys of
    /// messages whose value is null are left out, and a message's reasoning is found under all of its names.
    ///
    /// # Errors
    /// [`Error::Input`] if it is not such an object.
    pub fn from_json(json: &str) -> Result<Self> {
        let refuse = |message: String| Error::input("conversation", message);
        let Json(variables) = serde_json::from_str(json).map_err(|e| refuse(format!("is not valid JSON: {e}")))?;
        if variables.kind() != ValueKind::Map {
            return Err(refuse("is JSON, but not an object with messages".into()));
        }
        let messages = variables.get_attr("messages").unwrap_or_default();
        if messages.kind() != ValueKind::Seq {
            return Err(refuse("has no list of messages".into()));
        }
        let messages = messages.try_iter().map_err(|e| refuse(e.to_string()))?;
        let messages = messages.map(|message| cleaned(&message).map_err(|e| refuse(e.to_string())));
        let messages: Vec<Value> = messages.collect::<Result<_>>()?;
        if messages.is_empty() {
            return Err(refuse("has no message".into()));
        }
        let mut pairs = pairs(&variables).map_err(|e| refuse(e.to_string()))?;
        pairs.retain(|(key, _)| key.as_str() != Some("messages"));
        pairs.push((Value::from("messages"), Value::from(messages)));
        Ok(Self { variables: mapping(pairs) })
    }
}

/// A message without its keys that are null.
fn cleaned(message: &Value) -> Rendered<Value> {
    if message.kind() != ValueKind::Map {
        return Err(minijinja::Error::new(ErrorKind::InvalidOperation, "a message is not an object"));
    }
    let mut kept = pairs(message)?;
    kept.retain(|(_, value)| !value.is_none());
    const NAMES: [&str; 3] = ["reasoning_content", "thinking", "reasoning"];
    let reasoning = NAMES.iter().find_map(|name| message.get_attr(name).ok().filter(Value::is_true));
    if let Some(reasoning) = reasoning {
        for name in &NAMES[..2] {
            if !message.get_attr(name).is_ok_and(|value| value.is_true()) {
                kept.retain(|(key, _)| key.as_str() != Some(name));
                kept.push((Value::from(*name), reasoning.clone()));
            }
        }
    }
    Ok(mapping(kept))
}

impl ChatTemplate {
    /// A template; `source` stands for its file in messages.
    ///
    /// # Errors
    /// [`Error::Format`] with the line of the syntax error.
    pub fn new(source: impl Into<PathBuf>, text: &str, clock: Clock) -> Result<Self> {
        let source = source.into();
        if text.len() > LARGEST {
            return Err(Error::format(source, "has a chat template of more than 4 MiB"));
        }
        let mut environment = Environment::new();
        let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
        environment.set_syntax(syntax.map_err(|error| refused(&source, "has no syntax", &error))?);
        environment.set_undefined_behavior(UndefinedBehavior::Lenient);
        environment.set_fuel(Some(FUEL));
        environment.set_recursion_limit(DEPTH);
        environment.set_formatter(|out, _state, value| {
            let mut text = String::new();
            write_python(&mut text, value, false, 0)?;
            out.write_str(&text).map_err(minijinja::Error::from)
        });
        environment.set_unknown_method_callback(method);
        environment.add_filter("tojson", to_json);
        environment.add_function("raise_exception", |message: String| -> Rendered<Value> {
            Err(minijinja::Error::new(ErrorKind::InvalidOperation, "raise_exception").with_source(Raised(message)))
        });
        environment.add_function("strftime_now", move |format: String| -> Rendered<String> {
            clock(&format).map_err(|message| minijinja::Error::new(ErrorKind::InvalidOperation, message))
        });
        environment
            .add_template_owned(NAME, without_generation(text))
            .map_err(|error| refused(&source, "is not a readable template", &error))?;
        Ok(Self { environment: Arc::new(environment), source, special: Vec::new() })
    }

    /// Gives it special tokens, `bos_token` and such, as variables.
    #[must_use]
    pub fn with_special(mut self, tokens: impl IntoIterator<Item = (String, String)>) -> Self {
        self.special.extend(tokens);
        self
    }

    /// The text of a conversation.
    ///
    /// # Errors
    /// [`Error::Format`] with the template's own message if it refuses the conversation, else with the failure and its line.
    pub fn render(&self, conversation: &Conversation) -> Result<String> {
        let fail = |error: minijinja::Error| refused(&self.source, "cannot be applied", &error);
        let mut variables: Vec<(Value, Value)> = Vec::new();
        for name in ["tools", "documents"] {
            variables.push((Value::from(name), Value::from(())));
        }
        let special = self.special.iter();
        variables.extend(special.map(|(name, token)| (Value::from(name.as_str()), Value::from(token.as_str()))));
        variables.extend(pairs(&conversation.variables).map_err(fail)?);
        let template = self.environment.get_template(NAME).map_err(fail)?;
        let mut text = Text(Vec::new());
        template.render_captured_to(mapping(variables), &mut text).map_err(fail)?;
        String::from_utf8(text.0)
            .map_err(|_| Error::format(&self.source, "has a chat template whose text is not UTF-8"))
    }
}

/// Stands within names of special tokens in messages, where texts are cut: no character, so that none has it.
const CUT: char = '\u{FDD0}';

impl Tokenizer {
    /// The template that makes a text of a conversation, if the model's files have one, with special tokens as its variables.
    ///
    /// # Errors
    /// [`Error::Format`] with the line of the syntax error.
    pub fn chat_template(&self, clock: Clock) -> Result<Option<ChatTemplate>> {
        self.chat_template_named(MAIN, clock)
    }

    /// The same of that name, such as `tool_use`; where there is none of that name, the main one.
    ///
    /// # Errors
    /// As [`Tokenizer::chat_template`].
    pub fn chat_template_named(&self, name: &str, clock: Clock) -> Result<Option<ChatTemplate>> {
        let (source, templates, roles) = self.conversations();
        let find = |name: &str| templates.iter().find(|(known, _)| known == name);
        let Some((_, text)) = find(name).or_else(|| find(MAIN)).or(templates.first()) else { return Ok(None) };
        let template = ChatTemplate::new(source, text, clock)?;
        let tokens = roles.iter().map(|(role, (token, _))| (format!("{role}_token"), token.clone()));
        Ok(Some(template.with_special(tokens)))
    }

    /// Whether the model's files have a template for conversations.
    #[must_use]
    pub fn has_chat_template(&self) -> bool {
        !self.conversations().1.is_empty()
    }

    /// The tokens of a conversation of messages, by role and text, in a template. Names of special tokens within messages are text like any
    /// other: nobody ends a turn by typing so.
    ///
    /// # Errors
    /// Those of [`ChatTemplate::render`] and [`Tokenizer::encode`].
    pub fn encode_conversation<'a>(
        &self,
        template: &ChatTemplate,
        messages: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Result<Vec<u32>> {
        let names = self.special_names();
        let cut = |text: &str| {
            names.iter().filter(|name| text.contains(name.as_str())).fold(text.to_owned(), |text, name| {
                let first = name.chars().next().map_or(0, char::len_utf8);
                text.replace(name.as_str(), &format!("{}{CUT}{}", &name[..first], &name[first..]))
            })
        };
        let messages: Vec<(&str, String)> = messages.into_iter().map(|(role, text)| (role, cut(text))).collect();
        let messages = messages.iter().map(|(role, text)| (*role, text.as_str()));
        let text = template.render(&Conversation::of_messages(messages))?;
        let parts: Vec<Vec<u32>> = text.split(CUT).map(|part| self.encode(part)).collect::<Result<_>>()?;
        Ok(parts.concat())
    }
}

fn refused(source: &Path, what: &str, error: &minijinja::Error) -> Error {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = cause {
        if let Some(Raised(message)) = error.downcast_ref() {
            return Error::format(source, format!("the chat template refuses the conversation: {message}"));
        }
        cause = error.source();
    }
    let line = error.line().map_or_else(String::new, |line| format!(" (line {line})"));
    let detail =
        error.detail().map_or_else(|| error.kind().to_string(), |detail| format!("{}: {detail}", error.kind()));
    Error::format(source, format!("the chat template {what}{line}: {detail}"))
}

/// The template without the tags that mark the model's answers, which are not needed here.
fn without_generation(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, tag)) = rest.split_once("{%") {
        out.push_str(before);
        let Some((inner, behind)) = tag.split_once("%}") else {
            rest = &rest[before.len()..];
            break;
        };
        let word = inner.trim_matches(['-', '+']).trim();
        let inner = match word {
            "generation" => inner.replacen(word, "if true", 1),
            "endgeneration" => inner.replacen(word, "endif", 1),
            _ => inner.to_owned(),
        };
        out.extend(["{%", &inner, "%}"]);
        rest = behind;
    }
    out.push_str(rest);
    out
}

/// Python's methods.
fn method(state: &mut State<'_, '_>, value: &Value, name: &str, args: &[Value]) -> Rendered<Value> {
    if let ("splitlines", Some(text), []) = (name, value.as_str(), args) {
        return Ok(Value::from(split_lines(text)));
    }
    minijinja_contrib::pycompat::unknown_method_callback(state, value, name, args)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_template_without_end_ends() {
        let of = |text: &str| ChatTemplate::new("test", text, Arc::new(|_| Err("no time".into()))).unwrap();
        let long = "x".repeat(100_000);
        let conversation = Conversation::of_user(&long, None);
        let message = of("{% for i in range(90000) %}{{ messages[0].content }}{% endfor %}").render(&conversation);
        let message = message.unwrap_err().to_string();
        assert!(message.starts_with("test: the chat template cannot be applied"), "{message}");
        let nested = "{% for i in range(90000) %}{% for j in range(90000) %}{% endfor %}{% endfor %}";
        assert!(of(nested).render(&conversation).unwrap_err().to_string().contains("fuel"));
    }

    #[test]
    fn a_message_cannot_end_its_turn() {
        let json = r#"{"version": "1.0", "added_tokens": [{"id": 3, "content": "<|end|>", "single_word": false, "lstrip": false,
            "rstrip": false, "normalized": false, "special": true}], "normalizer": null, "pre_tokenizer": null, "post_processor": null,
            "decoder": {"type": "Fuse"}, "model": {"type": "BPE", "unk_token": "?", "vocab": {"?": 0, "<": 1, "a": 2, "<|end|>": 3}, "merges": []}}"#;
        let tokenizer = Tokenizer::from_json("test", json.to_owned()).unwrap();
        let clock: Clock = Arc::new(|_| Err("no time".into()));
        let text = "{% for m in messages %}{{ m.content }}<|end|>{% endfor %}";
        let template = ChatTemplate::new("test", text, clock).unwrap();
        let encode = |text: &str| tokenizer.encode_conversation(&template, [("user", text)]).unwrap();
        assert_eq!(encode("a<"), [2, 1, 3]);
        let ids = encode("a<|end|>a");
        assert_eq!((ids.iter().filter(|id| **id == 3).count(), ids.last()), (1, Some(&3)));
        assert_eq!(ids[..2], [2, 1]);
    }
}
