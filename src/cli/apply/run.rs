//! `wgformer run`: whatever a model was trained for.

use super::{answer, classify, coref, embed, fill, tag, write};
use crate::cli::args::{
    AnswerArgs, ClassifyArgs, CorefArgs, EmbedArgs, FillArgs, RunArgs, TagArgs, VectorArgs, WriteArgs,
};
use crate::error::{Error, Result};
use crate::tasks::apply::{Application, Resolver, TaskFile};
use std::process::ExitCode;

pub(in crate::cli) fn run(options: RunArgs) -> Result<ExitCode> {
    let RunArgs { apply, question } = options;
    let folder = crate::cli::model::opened(&apply.model, apply.lora.as_deref())?;
    let model = crate::models::model_of(&folder)?;
    let place = apply.lora.as_deref().filter(|adapter| adapter.join(crate::io::TASK).exists()).unwrap_or(&apply.model);
    let task = TaskFile::of(place, model.as_ref())?.task;
    drop((folder, model));
    crate::cli::output::note(format_args!("[the model is for: {}]", task.name()));
    match task {
        Application::Classify => {
            let hypothesis = String::new();
            classify::run(&ClassifyArgs { apply, labels: Vec::new(), hypothesis, several: false })
        }
        Application::Tag => tag::run(&TagArgs { apply, least: 0.0 }),
        Application::Answer => answer::run(&AnswerArgs { apply, question, none_above: None, max_tokens: None }),
        Application::Coref => coref::run(&CorefArgs { apply, window: Resolver::WINDOW, alone: false }),
        Application::Embed => {
            let vector = VectorArgs::default();
            embed::run(&EmbedArgs { apply, vector, prompt: None, windows: false, out: None })
        }
        Application::Fill => fill::run(&FillArgs { apply, top: 5 }),
        task if task.writes() => {
            let (max_tokens, beams, length_penalty, prefix) = (None, None, None, None);
            write::run(&WriteArgs { apply, max_tokens, beams, length_penalty, prefix, batch: 16 }, task)
        }
        other => {
            let message = format!("this model is for {}: use wgformer {0}", other.name());
            Err(Error::input("model", message))
        }
    }
}
