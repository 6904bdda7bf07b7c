//! Windows that cover a text once, for evaluation.

use super::data::{Batch, IGNORED};
use crate::error::{Error, Result};

/// All tokens once, in order, in batches of one size, for evaluation. Missing positions of the last batch are ignored. Each token except the
/// first is predicted once.
#[must_use]
pub fn in_order(tokens: &[u32], rows: usize, length: usize) -> Vec<Batch> {
    windows(&[], tokens, rows, length.max(1))
}

/// As [`in_order`], with a prefix of special tokens in each row ([`crate::io::Tokenizer::prefix`]), so that the first token of the text is
/// predicted, too. With an empty prefix it is [`in_order`].
///
/// # Errors
/// [`Error::Input`] if rows have no room for a token after the prefix.
pub fn in_order_after(prefix: &[u32], tokens: &[u32], rows: usize, length: usize) -> Result<Vec<Batch>> {
    if length <= prefix.len() {
        let message = format!(
            "it is {length}, but there are {} special tokens before the text: there is no room for text",
            prefix.len()
        );
        return Err(Error::input("context", message));
    }
    Ok(windows(prefix, tokens, rows, length))
}

fn windows(prefix: &[u32], tokens: &[u32], rows: usize, length: usize) -> Vec<Batch> {
    let (rows, stride) = (rows.max(1), length - prefix.len());
    // The last token is only a label, unless it is also the first.
    let last = tokens.len().saturating_sub(1).max(usize::from(!prefix.is_empty() && !tokens.is_empty()));
    let starts: Vec<usize> = (0..last).step_by(stride).collect();
    let batch = |chunk: &[usize]| {
        let mut batch = Batch::with_capacity(rows, length);
        for row in 0..rows {
            let window = chunk.get(row).map(|&start| &tokens[start..tokens.len().min(start + stride + 1)]);
            batch.push(&window.map_or_else(Vec::new, |window| [prefix, window].concat()));
            // The prefix is never predicted, and the first token of a window was predicted in the previous one.
            let predicted = if chunk.get(row) == Some(&0) { 1 } else { 0 };
            let ignored = prefix.len().saturating_sub(predicted);
            batch.labels[row * length..][..ignored].fill(IGNORED);
        }
        batch
    };
    starts.chunks(rows).map(batch).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(batches: &[Batch]) -> Vec<i32> {
        batches.iter().flat_map(|b| b.labels.iter().copied()).filter(|&l| l >= 0).collect()
    }

    #[test]
    fn all_tokens_are_measured_once() {
        for count in 0..40 {
            let tokens: Vec<u32> = (0..count).collect();
            let batches = in_order(&tokens, 3, 4);
            let counted: usize = batches.iter().map(Batch::counted).sum();
            assert_eq!(counted, tokens.len().saturating_sub(1));
            assert!(labels(&batches).into_iter().eq(1..count as i32), "each token but the first is predicted once");
            let padding: usize = batches.iter().map(Batch::padding).sum();
            assert_eq!(counted + padding, 12 * batches.len(), "what predicts nothing is padding");
            assert!(batches.iter().all(|b| b.inputs.len() == 12 && b.labels.len() == 12 && b.counted() > 0));
            assert_eq!(in_order_after(&[], &tokens, 3, 4).unwrap(), batches);
        }
    }

    #[test]
    fn behind_a_prefix_the_first_token_is_measured_as_well() {
        for count in 0..40 {
            let tokens: Vec<u32> = (0..count).collect();
            for prefix in [&[900][..], &[900, 901]] {
                let batches = in_order_after(prefix, &tokens, 3, 5).unwrap();
                assert!(labels(&batches).into_iter().eq(0..count as i32), "each token is predicted once");
                assert!(batches.iter().all(|b| b.inputs.len() == 15 && b.counted() > 0));
                for row in batches.iter().flat_map(|b| b.inputs.chunks(5)).filter(|row| row.iter().any(|&id| id != 0)) {
                    assert!(row.starts_with(prefix), "{row:?}");
                }
            }
        }
        let batches = in_order_after(&[9], &[0, 1, 2, 3], 1, 3).unwrap();
        assert_eq!((&batches[0].inputs[..], &batches[0].labels[..]), (&[9, 0, 1][..], &[0, 1, 2][..]));
        assert_eq!((&batches[1].inputs[..], &batches[1].labels[..]), (&[9, 2, 3][..], &[-1, 3, -1][..]));
        assert!(in_order_after(&[9, 9], &[1], 1, 2).unwrap_err().to_string().contains("no room"));
    }
}
