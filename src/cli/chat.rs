//! Prompts of chat models.

use super::args::GenerateArgs;
use super::say;
use crate::error::{Error, Result};
use crate::io::{Clock, Conversation, Tokenizer};
use chrono::Local;
use chrono::format::StrftimeItems;
use std::sync::Arc;

/// The tokens of prompts: within the model's chat template if that is wanted, else as they stand.
///
/// `whole`: an encoder reads them, with the special tokens that end a text.
pub(super) fn encode(
    options: &GenerateArgs,
    tokenizer: &Tokenizer,
    prompts: &[String],
    whole: bool,
) -> Result<Vec<Vec<u32>>> {
    if whole && !options.chat {
        return prompts.iter().map(|text| Ok(tokenizer.encode_for_model(text, None)?.ids)).collect();
    }
    if !options.chat {
        let ids = prompts.iter().map(|text| tokenizer.encode_prompt(text)).collect::<Result<Vec<_>>>()?;
        let plain = |ids: &Vec<u32>| {
            let own = ids.strip_prefix(tokenizer.prefix()).unwrap_or(ids);
            !own.iter().any(|&id| tokenizer.is_special(id))
        };
        if tokenizer.has_chat_template() && ids.iter().any(plain) {
            say::tell(format_args!(
                "[the model has a chat template, and the prompt is given as it stands; --chat applies it]"
            ));
        }
        return Ok(ids);
    }
    let template = tokenizer.chat_template(clock())?.ok_or_else(|| {
        Error::input(
            "chat",
            "the model has no chat template (in tokenizer_config.json, chat_template.jinja or a GGUF file)",
        )
    })?;
    let text = |prompt: &String| template.render(&Conversation::of_user(prompt, options.system.as_deref()));
    // The template writes all special tokens itself.
    prompts.iter().map(|prompt| tokenizer.encode(&text(prompt)?)).collect()
}

/// The time of this machine.
fn clock() -> Clock {
    Arc::new(|format| {
        let items = StrftimeItems::new(format)
            .parse()
            .map_err(|_| format!("strftime_now: {format:?} is no format of a time"))?;
        Ok(Local::now().format_with_items(items.iter()).to_string())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_tells_the_time_or_that_the_format_is_none() {
        let year: u32 = clock()("%Y").unwrap().parse().unwrap();
        assert!(year > 2000);
        assert!(clock()("%Q").unwrap_err().contains("no format of a time"));
    }
}
