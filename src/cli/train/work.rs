//! What a training run learns: texts, or the examples of a task.

use super::data::{Data, Text, first};
use super::learner::Learner;
use super::tasks::{Lesson, Measuring};
use crate::cli::args::TrainArgs;
use crate::cli::model;
use crate::error::{Error, Result};
use crate::gpu::Gpu;
use crate::io::checkpoint::Loaded;
use crate::io::{ADAPTER_CONFIG, Contents, NamedTensor};
use crate::models::{self, Model, lora};
use crate::program::Weights;
use crate::tasks::{TaskObjective, TextTask};
use crate::train::{BatchSource, DataState, HeldOut};
use serde_json::Value;
use std::path::Path;

/// A model to train, with what it learns.
pub(super) struct Work {
    pub(super) learner: Learner,
    /// The objectives of the sizes of batches, the largest first.
    pub(super) objectives: Vec<TaskObjective>,
    kind: Kind,
}

enum Kind {
    Text { data: Data, task: TextTask, size: (usize, usize) },
    Task(Box<Lesson>),
}

impl Work {
    /// Reads the data, and makes or loads the model.
    pub(super) fn new(options: &TrainArgs, gpu: &Gpu, resumed: Option<&Loaded>) -> Result<Self> {
        if let Some(path) = options.data.iter().find(|path| path.to_str().is_none()) {
            return Err(Error::format(path, "its name is not UTF-8, so --resume could not find it again: rename it"));
        }
        if options.data.is_empty() {
            return Err(Error::input("data", "there is no run to resume here that names its texts: give --data"));
        }
        // Checkpoints of adapters do not have their base.
        let adapts =
            options.lora.lora.is_some() || options.from.as_ref().is_some_and(|from| from.join(ADAPTER_CONFIG).exists());
        let resumed = resumed.filter(|_| !adapts);
        if let Some(task) = options.task.task {
            let (learner, lesson) = Lesson::new(options, task.into(), gpu, resumed)?;
            return Ok(Self { learner, objectives: lesson.objectives.clone(), kind: Kind::Task(Box::new(lesson)) });
        }
        let text = Text::read(options)?;
        let learner = match resumed {
            // The trainer loads the weights from the checkpoint, in f32.
            Some(loaded) => Learner::from_checkpoint(&loaded.path, gpu, options.dtype.into())?,
            None => Learner::new(options, gpu, &text.all)?,
        };
        let (model, tokenizer) = (&learner.model, &learner.files.tokenizer);
        let context = model::context(options.model.context, model.dimensions().max_position)?;
        let mask = ["[MASK]", "<mask>"].iter().find_map(|token| tokenizer.id(token));
        let task = TextTask::of(model.as_ref(), mask)?;
        let data = Data::new(options, &text, tokenizer, model.as_ref(), (task, context))?;
        let objectives = data.objectives(model, options.batch, context)?;
        Ok(Self { learner, objectives, kind: Kind::Text { data, task, size: (options.batch, context) } })
    }

    /// The objective of the largest batches.
    pub(super) fn first(&self) -> Result<&TaskObjective> {
        first(&self.objectives)
    }

    /// The steps of the run, where they are given as passes over the data.
    pub(super) fn steps(&self, options: &TrainArgs) -> u64 {
        match (&self.kind, options.task.epochs) {
            (Kind::Task(lesson), Some(epochs)) => {
                epochs.saturating_mul(lesson.batches().div_ceil(u64::from(options.accumulate))).max(1)
            }
            _ => options.steps,
        }
    }

    /// Batches to train on, from a position of the run.
    pub(super) fn source(&self, state: DataState) -> Result<Box<dyn BatchSource>> {
        match &self.kind {
            Kind::Text { data, task, size } => data.source(&self.objectives, *task, *size, state),
            Kind::Task(lesson) => lesson.source(state),
        }
    }

    pub(super) fn held_out(&self) -> Result<Vec<HeldOut>> {
        match &self.kind {
            Kind::Text { data, task, size } => data.held_out(&self.objectives, *task, *size),
            Kind::Task(lesson) => Ok(lesson.held_out()),
        }
    }

    /// A line about the data.
    pub(super) fn about(&self) -> String {
        match &self.kind {
            Kind::Text { data, .. } => {
                let ([train, held_out], texts) = (data.tokens(), data.texts());
                let texts = texts.map_or_else(String::new, |texts| format!(", {texts} texts"));
                format!("text     {train} tokens, {held_out} held out{texts}")
            }
            Kind::Task(lesson) => lesson.about(),
        }
    }

    /// Whether batches are cut from within a text.
    pub(super) fn cuts(&self) -> bool {
        matches!(&self.kind, Kind::Text { data, .. } if data.texts().is_none())
    }

    /// What evaluations measure besides the loss; the best weights are kept in a folder.
    pub(super) fn measure<'a>(&'a self, gpu: &Gpu, weights: &Weights, best: &'a Path) -> Result<Option<Measuring<'a>>> {
        match &self.kind {
            Kind::Text { .. } => Ok(None),
            Kind::Task(lesson) => lesson.measure(gpu, weights, self, best),
        }
    }

    /// Writes what a run makes besides its model.
    pub(super) fn write_beside(&self, out: &Path) -> Result<()> {
        if let Kind::Task(lesson) = &self.kind { lesson.write_beside(out) } else { Ok(()) }
    }

    /// Saves the model.
    pub(super) fn save(&self, weights: &Weights, folder: &Path) -> Result<()> {
        let Learner { model, files, adapter, .. } = &self.learner;
        let config = models::stored_config(model.as_ref(), weights);
        match adapter {
            Some(adapter) => {
                lora::save_adapter(model.as_ref(), weights, adapter, folder)?;
                files.save_beside_adapter(&config, folder)
            }
            None => {
                let tensors = models::named_tensors(model.as_ref(), weights)?;
                self.contents(&config, &tensors).save(folder)
            }
        }
    }

    pub(super) fn contents<'a>(&'a self, config: &'a Value, tensors: &'a [NamedTensor<'a>]) -> Contents<'a> {
        self.learner.files.contents(config, tensors)
    }

    pub(super) fn model(&self) -> &dyn Model {
        self.learner.model.as_ref()
    }
}
