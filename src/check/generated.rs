//! The generated tokens of a golden folder.
//!
//! `generated.safetensors` has `prompt` (B, P) for decoders; for encoder-decoders the texts are those of the golden file. Each other tensor holds
//! what a way of decoding gives behind it, (B, L) with the prompt or the start token in front: `greedy`, or `beamN` of N beams, with `_lpX` of
//! the length penalty X, `_nrX` without a repeated X-gram, `_es` that ends early.

use super::golden::GoldenRow;
use crate::error::{Error, Result};
use crate::generate::{
    BeamOptions, BeamSearch, EarlyStopping, GenerateLimits, GenerationSettings, Generator, SamplingOptions,
};
use crate::gpu::Gpu;
use crate::io::{Config, ModelFolder, Tensors};
use crate::models::{self, Decoder};
use crate::program::Weights;
use std::ops::ControlFlow;
use std::sync::Arc;

/// Compares all tensors of `generated.safetensors`, a row each: the number of wrong tokens.
pub(super) fn check_generated(
    gpu: &Gpu,
    model: &Arc<dyn Decoder>,
    weights: &Weights,
    files: &ModelFolder,
    generated: &Tensors,
    golden: &Tensors,
) -> Result<Vec<GoldenRow>> {
    let (prompts, length) = match generated.get("prompt") {
        Some(prompt) => {
            let [_, length] = prompt.shape.expect("prompt")?;
            (prompt.to_u32()?.chunks_exact(length.max(1)).map(<[u32]>::to_vec).collect(), length)
        }
        // Answers begin with a token of their own.
        None => (texts(golden)?, 1),
    };
    let settings = GenerationSettings::of(files, model.dimensions().vocabulary)?;
    // As in transformers, the one file says where answers end if it says it at all.
    let says = |config: &&Config| config.value().get("eos_token_id").is_some();
    let config = files.generation.as_ref().filter(says).unwrap_or(&files.config);
    let end = models::end_tokens(config, model.dimensions().vocabulary)?;
    let mut names: Vec<&str> = generated.names().filter(|name| *name != "prompt").collect();
    // The greedy answers first.
    names.sort_by_key(|name| (*name != "greedy", *name));
    let mut rows = Vec::new();
    for name in names {
        let file = generated.expect(name)?;
        let [count, whole] = file.shape.expect(name)?;
        if count != prompts.len() || whole <= length || length == 0 {
            let message = format!(
                "{name} has shape {}, which does not continue {} prompts of {length}",
                file.shape,
                prompts.len()
            );
            return Err(Error::format(generated.path(), message));
        }
        let expected = file.to_u32()?;
        let mut rules = settings.rules_behind(length);
        let beams = match name {
            "greedy" => None,
            _ => {
                let unknown = || Error::format(generated.path(), format!("{name} is no way of decoding that is known"));
                let (beams, ngram) = beams_of(name).ok_or_else(unknown)?;
                rules.no_repeat_ngram = ngram.unwrap_or(rules.no_repeat_ngram);
                Some(beams)
            }
        };
        // Answers may be cut off by the file's length or by another one, at which ends are forced.
        let forced = expected.chunks_exact(whole).all(|row| {
            let (last, before) = (row[whole - 1], &row[length..whole - 1]);
            rules.forced_last.contains(&last) || before.iter().any(|id| end.contains(id))
        });
        let longest = settings.most_new_tokens(length).filter(|_| !forced).unwrap_or(whole - length);
        let repetition_penalty = settings.repetition_penalty.unwrap_or(1.0);
        let renormalise = settings.renormalise.unwrap_or(false);
        let options = SamplingOptions {
            end: end.clone(),
            repetition_penalty,
            renormalise,
            rules,
            ..SamplingOptions::greedy(longest)
        };
        let max_tokens = prompts.iter().map(Vec::len).max().unwrap_or(0).max(whole);
        let limits = GenerateLimits { batch: count, max_tokens };
        let answers: Vec<Vec<u32>> = match beams {
            None => {
                let mut generator = Generator::new(gpu, model.clone(), weights, limits)?;
                let answers = generator.generate(&prompts, &options, |_| ControlFlow::Continue(()))?;
                answers.into_iter().map(|answer| answer.tokens).collect()
            }
            Some(beams) => {
                let mut search = BeamSearch::new(gpu, model.clone(), weights, limits, beams)?;
                let found = search.search(&prompts, &options, |_| ControlFlow::Continue(()))?;
                let best = found.into_iter().map(|answers| answers.into_iter().next());
                best.map(|best| best.map_or_else(Vec::new, |best| best.answer.tokens)).collect()
            }
        };
        let mut wrong = 0;
        for (row, answer) in expected.chunks_exact(whole).zip(&answers) {
            let expected = &row[length..];
            // Behind an end token the file is padded.
            let end = expected.iter().position(|id| options.end.contains(id)).map_or(expected.len(), |i| i + 1);
            let same = expected[..end].iter().zip(answer).filter(|(a, b)| a == b).count();
            wrong += end.max(answer.len()) - same;
        }
        rows.push(GoldenRow::new(name, wrong as f64, 0.0));
    }
    Ok(rows)
}

/// The options that a name stands for, and the size of n-grams that do not repeat.
fn beams_of(name: &str) -> Option<(BeamOptions, Option<usize>)> {
    let mut parts = name.strip_prefix("beam")?.split('_');
    let beams = parts.next()?.parse().ok()?;
    let (mut options, mut ngram) = (BeamOptions { beams, ..BeamOptions::default() }, None);
    for part in parts {
        if part == "es" {
            options.early_stopping = EarlyStopping::AtOnce;
        } else if let Some(penalty) = part.strip_prefix("lp") {
            options.length_penalty = penalty.parse().ok()?;
        } else {
            ngram = Some(part.strip_prefix("nr")?.parse().ok()?);
        }
    }
    Some((options, ngram))
}

/// The texts of a golden file, without their padding.
fn texts(golden: &Tensors) -> Result<Vec<Vec<u32>>> {
    let ids = golden.expect("input_ids")?;
    let time = ids.shape.last().max(1);
    let mask = match golden.get("attention_mask") {
        Some(mask) => mask.to_u32()?,
        None => vec![1; ids.shape.numel()],
    };
    let real = |(ids, mask): (&[u32], &[u32])| {
        ids.iter().zip(mask).filter(|(_, real)| **real != 0).map(|(id, _)| *id).collect()
    };
    Ok(ids.to_u32()?.chunks_exact(time).zip(mask.chunks_exact(time)).map(real).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_say_how_tokens_were_decoded() {
        let beams = |beams, length_penalty| BeamOptions { beams, length_penalty, ..BeamOptions::default() };
        assert_eq!(beams_of("beam4"), Some((beams(4, 1.0), None)));
        assert_eq!(beams_of("beam3_lp-0.5_nr2"), Some((beams(3, -0.5), Some(2))));
        let early = BeamOptions { early_stopping: EarlyStopping::AtOnce, ..beams(2, 1.0) };
        assert_eq!(beams_of("beam2_es"), Some((early, None)));
        assert!(beams_of("beam4_x2").is_none() && beams_of("sampled").is_none());
    }
}
