//! The folder of a training run: settings, micro-batches and results.

use crate::error::{Error, Result};
use crate::io::{Config, TensorRef, Tensors};
use crate::shape::Shape;
use crate::train::{AdamOptions, Decay, Schedule, StepOptions};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The prefixes of the names of results.
const RESULTS: [&str; 3] = ["final.", "exp_avg.", "exp_avg_sq."];

/// A training run that PyTorch made.
#[derive(Debug)]
pub(super) struct Trajectory {
    /// The folder of the model that the run starts from.
    pub(super) model: PathBuf,
    pub(super) options: StepOptions,
    pub(super) steps: Vec<Step>,
    /// The parameters whose moments the file has.
    pub(super) moments: Vec<String>,
    /// PyTorch's errors in f32.
    pub(super) pytorch_f32: BTreeMap<String, f64>,
    pub(super) tensors: Tensors,
    settings: Settings,
    batches: usize,
}

/// One step, as `trajectory.json` has it.
#[derive(Debug, Deserialize)]
pub(super) struct Step {
    step: usize,
    pub(super) micro_batches: Vec<usize>,
    pub(super) counted_labels: Vec<usize>,
    pub(super) lr: f64,
    pub(super) loss: f64,
    pub(super) grad_norm: f64,
    /// One per micro-batch.
    pub(super) aux_loss: Option<Vec<f64>>,
}

#[derive(Debug, Deserialize)]
struct Settings {
    steps: usize,
    lr: f64,
    final_lr_share: f64,
    warmup_steps: u64,
    beta1: f64,
    beta2: f64,
    eps: f32,
    weight_decay: f32,
    max_norm: f32,
}

impl Trajectory {
    /// Opens a folder. Its model is searched in `goldens`, else as a path, else in the folder `goldens` beside the folder's parent.
    pub(super) fn open(folder: &Path, goldens: Option<&Path>) -> Result<Self> {
        let config = Config::read(folder.join("trajectory.json"))?;
        let settings: Settings = config.get("settings")?;
        let steps: Vec<Step> = config.get("steps")?;
        let tensors = Tensors::open(folder.join("trajectory.safetensors"))?;
        let batches = tensors.expect("input_ids")?.shape.dims().first().copied().unwrap_or(0);
        let file = Self {
            model: model_folder(&config, folder, goldens)?,
            options: settings.options(),
            steps,
            moments: config.get("moments")?,
            pytorch_f32: config.get_or("pytorch_f32", BTreeMap::new())?,
            tensors,
            settings,
            batches,
        };
        file.check(&config)?;
        Ok(file)
    }

    /// Refuses what does not fit together.
    fn check(&self, config: &Config) -> Result<()> {
        let refuse = |key: &str, message: String| Err(config.refuse(key, message));
        self.options.check().or_else(|e| refuse("settings", format!("cannot be used: {e}")))?;
        for schedule in [self.settings.warm_up(), self.settings.decay()] {
            schedule.check().or_else(|e| refuse("settings", format!("cannot be used: {e}")))?;
        }
        if self.steps.len() != self.settings.steps || self.steps.is_empty() {
            return refuse(
                "steps",
                format!("has {} entries, but settings.steps is {}", self.steps.len(), self.settings.steps),
            );
        }
        for (at, step) in (1..).zip(&self.steps) {
            let (count, batches) = (step.micro_batches.len(), self.batches);
            let says = |what: &str| refuse("steps", format!("entry {at} {what}"));
            if step.step != at {
                return says(&format!("has \"step\" {}: steps are numbered from 1", step.step));
            }
            if count == 0 || !step.micro_batches.iter().all(|batch| *batch < batches) {
                return says(&format!(
                    "needs micro_batches, one or more, each below {batches} (the rows of input_ids)"
                ));
            }
            let auxiliary = step.aux_loss.as_ref().map_or(count, Vec::len);
            if step.counted_labels.len() != count || auxiliary != count {
                return says("needs one of counted_labels, and of aux_loss if it has any, per micro-batch");
            }
        }
        for tensor in self.tensors.iter().filter(|tensor| self.input(tensor.name).is_some()) {
            tensor.to_i32()?;
        }
        for name in &self.moments {
            for moment in &RESULTS[1..] {
                self.tensors.expect(&format!("{moment}{name}"))?;
            }
        }
        Ok(())
    }

    /// The shape of an input of one micro-batch.
    pub(super) fn shape(&self, name: &str) -> Option<Shape> {
        let tensor = self.input(name)?;
        Some(Shape::from(tensor.shape.dims().get(1..)?))
    }

    /// The values of an input of a micro-batch.
    pub(super) fn values(&self, name: &str, batch: usize) -> Option<Vec<i32>> {
        let tensor = self.input(name)?;
        let size = tensor.shape.numel() / self.batches.max(1);
        Some(tensor.to_i32().ok()?.get(batch * size..(batch + 1) * size)?.to_vec())
    }

    /// A tensor with a slice for every micro-batch.
    fn input(&self, name: &str) -> Option<TensorRef<'_>> {
        let result = RESULTS.iter().any(|result| name.starts_with(result));
        self.tensors.get(name).filter(|tensor| !result && tensor.shape.dims().first() == Some(&self.batches))
    }

    /// The learning rate of a step, counted from 0: linear warm-up, then half a cosine from the step after the warm-up to the last step.
    pub(super) fn rate(&self, step: usize) -> f64 {
        let (step, warm_up) = (step as u64, self.settings.warmup_steps);
        match step.checked_sub(warm_up) {
            None => self.settings.warm_up().rate(step),
            Some(since) => self.settings.decay().rate(since + 1),
        }
    }
}

impl Settings {
    fn options(&self) -> StepOptions {
        let Self { beta1, beta2, eps, weight_decay, max_norm, .. } = *self;
        StepOptions {
            adam: AdamOptions { beta1, beta2, epsilon: eps, weight_decay },
            max_norm,
            ..StepOptions::default()
        }
    }

    fn warm_up(&self) -> Schedule {
        let steps = self.warmup_steps.max(self.steps as u64);
        Schedule { peak: self.lr, warmup: self.warmup_steps, steps, decay: Decay::Constant }
    }

    fn decay(&self) -> Schedule {
        let steps = (self.steps as u64).saturating_sub(self.warmup_steps);
        Schedule { peak: self.lr, warmup: 0, steps, decay: Decay::Cosine { floor: self.final_lr_share } }
    }
}

/// The folder of the model that a run starts from.
fn model_folder(config: &Config, folder: &Path, goldens: Option<&Path>) -> Result<PathBuf> {
    let name: PathBuf = config.get("model")?;
    let beside = std::fs::canonicalize(folder).map_err(|e| Error::file(folder, e))?;
    let beside = beside.ancestors().nth(2).map(|root| root.join("goldens"));
    let folders = match goldens {
        Some(goldens) => vec![goldens.join(&name)],
        None => [Some(folder.join(&name)), beside.map(|goldens| goldens.join(&name))].into_iter().flatten().collect(),
    };
    if let Some(found) = folders.iter().find(|folder| folder.join("config.json").is_file()) {
        return Ok(found.clone());
    }
    let folders: Vec<String> = folders.iter().map(|folder| folder.display().to_string()).collect();
    let message =
        format!("is {}, but {} has no config.json: name the folder of goldens", name.display(), folders.join(" or "));
    Err(config.refuse("model", format!("{message} (--goldens)")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::{NamedTensor, safetensors};
    use crate::shape::TensorType;
    use serde_json::{Value, json};

    /// A folder with this run; its model is never opened.
    fn folder(change: impl Fn(&mut Value)) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        let (run, model) = (root.path().join("trajectories/run"), root.path().join("goldens/model"));
        std::fs::create_dir_all(&run).unwrap();
        std::fs::create_dir_all(&model).unwrap();
        std::fs::write(model.join("config.json"), "{}").unwrap();
        let step = |n: usize, batches: &[usize]| json!({"step": n, "micro_batches": batches, "counted_labels": batches, "lr": 0.1, "loss": 2.0, "grad_norm": 1.0});
        let mut value = json!({
            "model": "model", "moments": ["w"], "steps": [step(1, &[0]), step(2, &[1, 0])],
            "settings": {"steps": 2, "lr": 0.1, "final_lr_share": 0.1, "warmup_steps": 1, "beta1": 0.9, "beta2": 0.999,
                         "eps": 1e-8, "weight_decay": 0.1, "max_norm": 1.0},
        });
        change(&mut value);
        std::fs::write(run.join("trajectory.json"), value.to_string()).unwrap();
        let moment = |name: &'static str| NamedTensor::f32(name, [1], &[0.0]);
        let ids = bytemuck::cast_slice(&[1_i32, 2, 3, 4, 5, 6]);
        let ids = NamedTensor::new("input_ids", TensorType::new([2, 1, 3], crate::DType::I32), ids);
        let tensors = [ids, moment("exp_avg.w"), moment("exp_avg_sq.w")];
        safetensors::write(run.join("trajectory.safetensors"), &tensors).unwrap();
        root
    }

    fn open(change: impl Fn(&mut Value)) -> Result<Trajectory> {
        Trajectory::open(&folder(change).path().join("trajectories/run"), None)
    }

    #[test]
    fn a_run_is_read_with_its_model_and_its_micro_batches() {
        let file = open(|_| ()).unwrap();
        assert!(file.model.ends_with("goldens/model"));
        assert_eq!((file.shape("input_ids"), file.shape("labels")), (Some(Shape::from([1, 3])), None));
        assert_eq!(file.values("input_ids", 1).unwrap(), [4, 5, 6]);
        assert_eq!(file.shape("exp_avg.w"), None);
        assert_eq!(file.options.adam.beta2, 0.999);
    }

    #[test]
    fn what_is_missing_or_false_is_named() {
        let said = |change: fn(&mut Value)| open(change).unwrap_err().to_string();
        for key in ["beta2", "eps", "weight_decay", "max_norm", "warmup_steps", "final_lr_share", "lr", "steps"] {
            let message =
                open(|run| drop(run["settings"].as_object_mut().unwrap().remove(key))).unwrap_err().to_string();
            assert!(message.contains(&format!("missing field `{key}`")), "{message}");
        }
        for key in ["model", "settings", "steps", "moments"] {
            let message = open(|run| drop(run.as_object_mut().unwrap().remove(key))).unwrap_err().to_string();
            assert!(message.contains(&format!("has no \"{key}\"")), "{message}");
        }
        assert!(said(|run| run["settings"]["steps"] = 3.into()).contains("has 2 entries, but settings.steps is 3"));
        assert!(said(|run| run["settings"]["beta1"] = 1.into()).contains("beta1"));
        assert!(said(|run| run["steps"][1]["micro_batches"] = json!([0, 2])).contains("entry 2 needs micro_batches"));
        assert!(said(|run| run["steps"][1]["step"] = 4.into()).contains("entry 2 has \"step\" 4"));
        assert!(said(|run| run["moments"][0] = "b".into()).contains("exp_avg.b"));
        assert!(said(|run| run["model"] = "other".into()).contains("is other, but "));
        let folder = folder(|_| ());
        let run = folder.path().join("trajectories/run");
        assert!(Trajectory::open(&run, Some(&folder.path().join("goldens"))).is_ok());
        assert!(Trajectory::open(&run, Some(folder.path())).unwrap_err().to_string().contains("--goldens"));
    }

    #[test]
    fn rates_rise_to_the_peak_and_fall_to_the_last_step() {
        let long = |run: &mut Value| {
            let steps = (1..=6).map(
                |n| json!({"step": n, "micro_batches": [0], "counted_labels": [1], "lr": 1, "loss": 1, "grad_norm": 1}),
            );
            run["steps"] = steps.collect();
            run["settings"]["steps"] = 6.into();
            run["settings"]["warmup_steps"] = 2.into();
        };
        let file = open(long).unwrap();
        let expected =
            [0.05, 0.1, 0.01 + 0.045 * (1.0 + 0.5_f64.sqrt()), 0.055, 0.01 + 0.045 * (1.0 - 0.5_f64.sqrt()), 0.01];
        for (step, expected) in expected.into_iter().enumerate() {
            approx::assert_relative_eq!(file.rate(step), expected, epsilon = 1e-12);
        }
    }
}
