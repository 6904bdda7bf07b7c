//! Conversations that go on when the context is full.

use crate::error::{Error, Result};
use crate::io::{ChatTemplate, Tokenizer};
use serde::{Deserialize, Serialize};

/// A message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Turn {
    /// `system`, `user` or `assistant`.
    pub role: String,
    /// Its text.
    pub content: String,
}

/// A conversation in a model's chat template.
#[derive(Debug)]
pub struct Dialogue {
    template: ChatTemplate,
    tokenizer: Tokenizer,
    turns: Vec<Turn>,
}

impl Dialogue {
    /// A conversation that goes on behind these messages.
    #[must_use]
    pub fn new(template: ChatTemplate, tokenizer: &Tokenizer, turns: Vec<Turn>) -> Self {
        Self { template, tokenizer: tokenizer.clone(), turns }
    }

    /// All messages.
    #[must_use]
    pub fn turns(&self) -> &[Turn] {
        &self.turns
    }

    /// Adds a message.
    pub fn add(&mut self, role: &str, content: &str) {
        self.turns.push(Turn { role: role.to_owned(), content: content.to_owned() });
    }

    /// Sets the system message; an empty one is none.
    pub fn set_system(&mut self, content: &str) {
        self.turns.retain(|turn| turn.role != "system");
        if !content.is_empty() {
            self.turns.insert(0, Turn { role: "system".into(), content: content.to_owned() });
        }
    }

    /// Takes back the last message of a user, and what follows it.
    pub fn undo(&mut self) {
        if let Some(last) = self.turns.iter().rposition(|turn| turn.role == "user") {
            self.turns.truncate(last);
        }
    }

    /// Begins anew, with the same system message.
    pub fn reset(&mut self) {
        self.turns.retain(|turn| turn.role == "system");
    }

    /// The tokens of the conversation, and how many of its oldest messages are left out so that it has at most `room` tokens. The system message
    /// and the last one are never left out, and what is left begins with a user's.
    ///
    /// # Errors
    /// [`Error::Input`] if system message and last message alone have more tokens; those of the template and the tokenizer.
    pub fn prompt(&self, room: usize) -> Result<(Vec<u32>, usize)> {
        let system = self.turns.iter().take_while(|turn| turn.role == "system").count();
        let mut dropped = 0;
        loop {
            let kept = self.turns.iter().take(system).chain(self.turns.iter().skip(system + dropped));
            let messages = kept.map(|turn| (turn.role.as_str(), turn.content.as_str()));
            let ids = self.tokenizer.encode_conversation(&self.template, messages)?;
            if ids.len() <= room {
                return Ok((ids, dropped));
            }
            let first = system + dropped;
            let next =
                self.turns.iter().skip(first + 1).position(|turn| turn.role == "user").map(|at| dropped + at + 1);
            match next {
                Some(next) => dropped = next,
                None => {
                    let message = format!(
                        "the last message with the system message has {} tokens, and {room} fit beside an answer: shorten it, or give a longer \
                         context (--context) or shorter answers",
                        ids.len()
                    );
                    return Err(Error::input("message", message));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[test]
    fn the_oldest_turns_leave_and_the_system_message_stays() {
        let text = "{% for m in messages %}<{{ m.role[0] }}>{{ m.content }}{% endfor %}<a>";
        let template = ChatTemplate::new("test", text, Arc::new(|_| Ok(String::new()))).unwrap();
        let tokenizer = Tokenizer::bytes().unwrap();
        let mut dialogue = Dialogue::new(template, &tokenizer, Vec::new());
        dialogue.add("system", "be short");
        for number in 0..4 {
            dialogue.add("user", &format!("question {number}"));
            dialogue.add("assistant", &format!("answer {number}"));
        }
        dialogue.add("user", "last");
        let shown = |room: usize| {
            let (ids, dropped) = dialogue.prompt(room).unwrap();
            (tokenizer.decode(&ids).unwrap(), dropped)
        };
        assert_eq!(shown(1000).1, 0);
        let (text, dropped) = shown(60);
        assert_eq!((dropped, text.len() <= 60), (6, true), "{text}");
        assert!(text.starts_with("<s>be short<u>question 3<a>answer 3<u>last<a>"), "{text}");
        assert_eq!(shown(30).1, 8);
        let refused = dialogue.prompt(10).unwrap_err().to_string();
        assert!(refused.contains("shorten it"), "{refused}");
        assert_eq!(dialogue.turns().len(), 10);
    }
}
