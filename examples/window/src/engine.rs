//! The engine's side: a model that learns, and one conversation with it, as tasks that go on a little in each frame.

use futures::StreamExt;
use futures::channel::mpsc::{UnboundedReceiver, UnboundedSender, unbounded};
use futures::channel::oneshot;
use futures::executor::LocalPool;
use futures::task::LocalSpawnExt;
use serde_json::json;
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use wgformer::generate::{GenerateLimits, Generator, SamplingOptions};
use wgformer::io::{Config, Tokenizer};
use wgformer::models::{self, Decoder, TokenInputs};
use wgformer::ops;
use wgformer::program::OwnBuffers;
use wgformer::train::{Batches, Event, LanguageModel, REPORT, RunOptions, Schedule, StepOptions, Trainer};
use wgformer::{DType, Error, Gpu, Graph, Program, Weights};

/// What the engine may take of a frame.
pub const SHARE: Duration = Duration::from_millis(6);
/// Steps that the curve of losses shows.
pub const CURVE: u64 = 256;
/// Tokens of a row, which are characters.
pub const CONTEXT: usize = 48;
pub const LAYERS: usize = 2;
pub const HEADS: usize = 4;
const WIDTH: usize = 64;
const ROWS: usize = 8;
/// Where the loss stands in a report, in bytes.
const LOSS_AT: u64 = 36;
/// Steps between two looks at the attention.
const LOOK: u64 = 4;

/// A tensor in a buffer, for whoever draws it.
#[derive(Clone)]
pub struct Shown {
    pub buffer: wgpu::Buffer,
    pub offset: u64,
    pub rows: usize,
    pub columns: usize,
}

/// What the window shows. The pictures are buffers of the engine's and of the window's: nothing of them is read back.
#[derive(Default)]
pub struct State {
    /// What is being prepared, and the share that is done.
    pub preparing: Option<(&'static str, f64)>,
    pub losses: Vec<f32>,
    /// The attention of each head.
    pub attention: Vec<Shown>,
    pub weights: Option<Shown>,
    pub answer: String,
    pub tokens: usize,
    pub answering: bool,
    pub error: Option<String>,
}

/// The engine on the window's device.
pub struct Engine {
    pub gpu: Gpu,
    pub state: Rc<RefCell<State>>,
    /// The losses of the latest steps, filled on the device.
    pub curve: wgpu::Buffer,
    training: Rc<Cell<bool>>,
    resume: UnboundedSender<()>,
    pool: LocalPool,
    prompts: UnboundedSender<String>,
}

impl Engine {
    /// Begins to prepare, to learn the text and to wait for prompts.
    pub fn new(device: wgpu::Device, queue: wgpu::Queue, text: &str) -> Result<Self, Error> {
        let gpu = Gpu::adopt(device, queue)?;
        let tokenizer = Tokenizer::characters(text)?;
        let config = json!({
            "model_type": "gpt2", "architectures": ["GPT2LMHeadModel"], "vocab_size": tokenizer.vocab_size(),
            "n_positions": CONTEXT, "n_embd": WIDTH, "n_layer": LAYERS, "n_head": HEADS,
            "embd_pdrop": 0.0, "resid_pdrop": 0.0, "attn_pdrop": 0.0, "bos_token_id": null, "eos_token_id": null,
        });
        let model: Arc<dyn Decoder> = models::decoder(&Config::new("window", config)?)?.into();
        let weights = Weights::new(&gpu);
        model.initialise(&weights, 0)?;
        let usage = wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_DST;
        let curve = gpu.buffer("curve", CURVE * 4, usage)?;
        let (state, training) = (Rc::new(RefCell::new(State::default())), Rc::new(Cell::new(true)));
        let (prompts, mut asked) = unbounded::<String>();
        let (resume, resumed) = unbounded();
        let pool = LocalPool::new();

        let learner = Learner {
            gpu: gpu.clone(),
            model: model.clone(),
            weights: weights.clone(),
            tokens: tokenizer.encode(text)?,
            curve: curve.clone(),
            state: state.clone(),
            training: training.clone(),
            resumed,
        };
        let told = state.clone();
        let (started, ready) = oneshot::channel();
        spawn(&pool, async move {
            if let Err(error) = learner.learn(started).await {
                told.borrow_mut().error = Some(error.to_string());
            }
        })?;
        let (told, device, answered) = (state.clone(), gpu.clone(), resume.clone());
        spawn(&pool, async move {
            // The trainer moves the weights into one range; programs made before would read the old ones.
            if ready.await.is_err() {
                return;
            }
            let answers = async {
                let limits = GenerateLimits::new(1, CONTEXT);
                let generator = Generator::new(&device, model, &weights, limits)?;
                let mut generator = generator.with_text(tokenizer.text_of());
                while let Some(prompt) = asked.next().await {
                    answer(&mut generator, &tokenizer, &prompt, &told).await?;
                    let _ = answered.unbounded_send(());
                }
                Ok::<(), Error>(())
            };
            if let Err(error) = answers.await {
                told.borrow_mut().error = Some(error.to_string());
            }
        })?;
        Ok(Self { gpu, state, curve, training, resume, pool, prompts })
    }

    /// Goes on in the frame that is drawn next.
    pub fn frame(&mut self) {
        if let Err(error) = self.gpu.begin_frame(SHARE) {
            // A lost device is told here; an application would open another, and begin again from what it saved.
            self.state.borrow_mut().error = Some(error.to_string());
        }
        self.pool.run_until_stalled();
    }

    /// Whether it learns.
    pub fn learns(&self) -> bool {
        self.training.get()
    }

    /// Has it learn, or pause.
    pub fn learn(&self, training: bool) {
        self.training.set(training);
        if training {
            let _ = self.resume.unbounded_send(());
        }
    }

    /// Has the model continue a text.
    pub fn ask(&self, prompt: &str) {
        self.state.borrow_mut().answering = true;
        // The task ends only with an error, which is shown.
        let _ = self.prompts.unbounded_send(prompt.to_owned());
    }
}

fn spawn(pool: &LocalPool, task: impl Future<Output = ()> + 'static) -> Result<(), Error> {
    pool.spawner().spawn_local(task).map_err(|error| Error::Graph(error.to_string()))
}

/// Streams an answer into the state.
async fn answer(
    generator: &mut Generator,
    tokenizer: &Tokenizer,
    prompt: &str,
    state: &RefCell<State>,
) -> Result<(), Error> {
    // Characters that the text lacks have no token.
    let known: String =
        prompt.chars().filter(|c| tokenizer.encode(&c.to_string()).is_ok_and(|t| !t.is_empty())).collect();
    let mut ids = tokenizer.encode(&known)?;
    ids.drain(..ids.len().saturating_sub(CONTEXT / 2));
    state.borrow_mut().answer = known;
    if !ids.is_empty() {
        let options = SamplingOptions::default().with_max_new_tokens(CONTEXT).with_temperature(0.3).with_top_k(20);
        let preparing = |share| state.borrow_mut().preparing = Some(("the conversation", share));
        generator.prepare_async(CONTEXT / 2, &options, preparing).await?;
        state.borrow_mut().preparing = None;
        let mut tokens = generator.stream(&[ids], &options)?;
        while let Some(token) = tokens.next().await {
            let mut state = state.borrow_mut();
            state.answer += &token?.text;
            state.tokens += 1;
        }
    }
    state.borrow_mut().answering = false;
    Ok(())
}

/// What learns.
struct Learner {
    gpu: Gpu,
    model: Arc<dyn Decoder>,
    weights: Weights,
    tokens: Vec<u32>,
    curve: wgpu::Buffer,
    state: Rc<RefCell<State>>,
    training: Rc<Cell<bool>>,
    resumed: UnboundedReceiver<()>,
}

impl Learner {
    async fn learn(mut self, started: oneshot::Sender<()>) -> Result<(), Error> {
        let mut batches = Batches::new(self.tokens.clone().into(), ROWS, CONTEXT, 0)?;
        let mut trainer = self.trainer().await?;
        let look = self.looker().await?;
        let _ = started.send(());
        let mut step = 0;
        loop {
            // What is cached of an answer's tokens holds for the weights that it was computed with.
            while !self.training.get() || self.state.borrow().answering {
                if self.resumed.next().await.is_none() {
                    return Ok(());
                }
            }
            let state = self.state.clone();
            let mut report = move |event: &Event| {
                if let Event::Step(step) = event {
                    state.borrow_mut().losses.push(step.report.loss);
                }
            };
            trainer.step_async(&mut batches, 0, &mut report).await?;
            self.record(&trainer, step)?;
            step += 1;
            if step % LOOK == 1 {
                look.run_async(&[]).await?;
            }
        }
    }

    /// The trainer. Its kernels take seconds to compile on some drivers, so a thread makes it.
    async fn trainer(&self) -> Result<Trainer, Error> {
        self.state.borrow_mut().preparing = Some(("to learn", 0.0));
        let (gpu, model, weights) = (self.gpu.clone(), self.model.clone(), self.weights.clone());
        let (made, trainer) = oneshot::channel();
        std::thread::spawn(move || {
            let objective = LanguageModel { model, rows: ROWS, length: CONTEXT, options: Default::default() };
            let (run, schedule) = (RunOptions::default().with_steps(u64::MAX), Schedule::constant(3e-3));
            let _ = made.send(Trainer::new(&gpu, &weights, &objective, StepOptions::default(), run, schedule));
        });
        trainer.await.unwrap_or_else(|_| Err(Error::Graph("the thread that makes the trainer is gone".into())))
    }

    /// Copies the loss of the step from the engine's report into the curve: from buffer to buffer.
    fn record(&self, trainer: &Trainer, step: u64) -> Result<(), Error> {
        let (report, offset, _) = trainer.program().output_buffer(REPORT)?;
        let mut encoder = self.gpu.encoder("the curve");
        encoder.copy_buffer_to_buffer(report, offset + LOSS_AT, &self.curve, step % CURVE * 4, 4);
        self.gpu.submit("the curve", [encoder]).map(drop)
    }

    /// A program that computes how each head looks at the beginning of the text, and its pictures.
    async fn looker(&self) -> Result<Program, Error> {
        let mut g = Graph::with_storage(self.weights.storage());
        let ids = g.input("ids", [1, CONTEXT], DType::U32)?;
        let inputs = TokenInputs::new(&mut g, ids)?;
        self.model.decode(&mut g, &inputs)?;
        let found = ops::attention_weights(&mut g)?;
        for (layer, attention) in found.iter().enumerate() {
            g.output(&layer.to_string(), attention.weights)?;
        }
        let preparing = |share| self.state.borrow_mut().preparing = Some(("the pictures", share));
        let preparation = Program::preparing(&self.gpu, &g, &self.weights, &OwnBuffers::new())?;
        let program = preparation.finish_async(preparing).await?;
        let mut state = self.state.borrow_mut();
        state.preparing = None;
        program.write("ids", bytemuck::cast_slice(&self.tokens[..CONTEXT]))?;
        for layer in 0..found.len() {
            let (buffer, offset, size) = program.output_buffer(&layer.to_string())?;
            for head in 0..HEADS as u64 {
                let offset = offset + head * size / HEADS as u64;
                state.attention.push(Shown { buffer: buffer.clone(), offset, rows: CONTEXT, columns: CONTEXT });
            }
        }
        let name = self.weights.names().into_iter().find(|name| name.ends_with("attn.c_attn.weight"));
        let weight = name.and_then(|name| self.weights.get(&name));
        state.weights = weight.map(|weight| {
            let columns = weight.ty.shape.last();
            Shown { buffer: weight.buffer, offset: weight.offset, rows: weight.ty.shape.numel() / columns, columns }
        });
        Ok(program)
    }
}
