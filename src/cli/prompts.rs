//! Reads prompts from the command line, files and standard input.

use super::args::GenerateArgs;
use super::progress::Lines;
use crate::error::{Error, Result};
use crate::io::file::read_pipe;
use crate::io::read_text;
use std::path::Path;
use std::time::Duration;

/// The name of standard input in options.
const STDIN: &str = "-";
/// The path in [`Error::File`] for standard input.
const INPUT: &str = "standard input";
/// The default prompt.
const NONE: &str = "\n";
/// The largest prompt.
const LIMIT: u64 = 1 << 30;
/// The time after which waiting for standard input prints a note.
const QUIET: Duration = Duration::from_secs(2);

/// The prompts of a command: from options and files, else piped input.
pub(super) fn read(options: &GenerateArgs) -> Result<Vec<String>> {
    let mut prompts = Vec::new();
    let (texts, files) = (&options.prompt, &options.prompt_file);
    let stdin = texts.iter().filter(|text| *text == STDIN).count()
        + files.iter().filter(|path| path.as_os_str() == STDIN).count();
    if stdin > 1 {
        return Err(Error::input("prompt", "standard input (-) can be read only once"));
    }
    for text in texts {
        prompts.push(if text == STDIN { standard_input()? } else { text.clone() });
    }
    for path in files {
        let text = if path.as_os_str() == STDIN { standard_input()? } else { without_line_end(read_text(path)?) };
        prompts.push(text);
    }
    if prompts.is_empty() {
        let piped = if is_piped() { standard_input()? } else { String::new() };
        prompts.push(if piped.is_empty() { NONE.to_owned() } else { piped });
    }
    Ok(prompts)
}

fn standard_input() -> Result<String> {
    let _waiting =
        Lines::start(QUIET, |_| "[waiting for a prompt on standard input; -p TEXT sets it on the command line]".into());
    let text = read_pipe(Path::new(INPUT), std::io::stdin().lock(), LIMIT)?;
    Ok(without_line_end(text))
}

/// A text without the final line break of editors and `echo`.
fn without_line_end(mut text: String) -> String {
    if text.ends_with('\n') {
        text.pop();
        if text.ends_with('\r') {
            text.pop();
        }
    }
    text
}

/// Whether input is piped in: not a terminal and, on Unix, not a device such as `/dev/null` or a socket.
pub(super) fn is_piped() -> bool {
    #[cfg(unix)]
    {
        use std::os::fd::AsFd;
        use std::os::unix::fs::FileTypeExt;
        let file = std::io::stdin().as_fd().try_clone_to_owned().map(std::fs::File::from);
        file.and_then(|file| file.metadata()).is_ok_and(|m| m.file_type().is_fifo() || m.file_type().is_file())
    }
    #[cfg(not(unix))]
    {
        use std::io::IsTerminal;
        !std::io::stdin().is_terminal()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_end_is_no_part_of_a_prompt() {
        for (text, wanted) in
            [("a", "a"), ("a\n", "a"), ("a\r\n", "a"), ("a\n\n", "a\n"), ("\n", ""), ("a \n", "a "), ("", "")]
        {
            assert_eq!(without_line_end(text.into()), wanted);
        }
    }
}
