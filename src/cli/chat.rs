//! Prompts of chat models.

use super::args::GenerateArgs;
use super::output;
use crate::error::{Error, Result};
use crate::io::{ChatTemplate, Clock, Tokenizer};
use chrono::Local;
use chrono::format::StrftimeItems;
use std::sync::Arc;

/// The tokens of prompts: in the model's chat template with `--chat`, else unchanged.
///
/// `whole`: an encoder reads them, with the special tokens at the end of a text.
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
            output::note(format_args!(
                "[the model has a chat template, but the prompt is used as it is; --chat applies the template]"
            ));
        }
        return Ok(ids);
    }
    let template = template(tokenizer)?;
    let system = options.system.as_deref().map(|text| ("system", text));
    // The template contains all special tokens.
    let encode = |prompt: &String| {
        tokenizer.encode_conversation(&template, system.into_iter().chain([("user", prompt.as_str())]))
    };
    prompts.iter().map(encode).collect()
}

/// The template of a model's conversations.
pub(super) fn template(tokenizer: &Tokenizer) -> Result<ChatTemplate> {
    tokenizer.chat_template(clock())?.ok_or_else(|| {
        let message = "the model has no chat template (in tokenizer_config.json, chat_template.jinja or a GGUF file)";
        Error::input("chat", message)
    })
}

/// The local time of this machine.
fn clock() -> Clock {
    Arc::new(|format| {
        let items =
            StrftimeItems::new(format).parse().map_err(|_| format!("strftime_now: {format:?} is not a time format"))?;
        Ok(Local::now().format_with_items(items.iter()).to_string())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_formats_the_time_or_refuses_the_format() {
        let year: u32 = clock()("%Y").unwrap().parse().unwrap();
        assert!(year > 2000);
        assert!(clock()("%Q").unwrap_err().contains("not a time format"));
    }
}
