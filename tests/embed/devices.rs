//! Several devices and models side by side: frames, losses, memory.

use super::alone;
use super::own_buffers::on_every_device;
use futures::StreamExt;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;
use wgformer::generate::{GenerateLimits, Generator, SamplingOptions};
use wgformer::gpu::{GpuOptions, Polling};
use wgformer::io::Config;
use wgformer::models::{self, Decoder};
use wgformer::program::{OwnBuffers, Residents};
use wgformer::train::{Batches, Event, LanguageModel, RunOptions, Schedule, StepOptions, Trainer};
use wgformer::{DType, Error, Gpu, Graph, Program, Weights, ops};

/// The share of a frame: a small one, so that steps take many frames.
const SHARE: Duration = Duration::from_millis(1);

fn adopted(adapter: &wgpu::Adapter, polling: Polling) -> Gpu {
    let (device, queue) = pollster::block_on(adapter.request_device(&wgpu::DeviceDescriptor::default())).unwrap();
    Gpu::adopt_with(device, queue, &GpuOptions::default().with_polling(polling)).unwrap()
}

fn model() -> Arc<dyn Decoder> {
    let config = serde_json::json!({"model_type": "gpt2", "vocab_size": 61, "n_embd": 32, "n_head": 2, "n_layer": 2,
        "n_positions": 64, "embd_pdrop": 0.0, "resid_pdrop": 0.0, "attn_pdrop": 0.0});
    models::decoder(&Config::new("config.json", config).unwrap()).unwrap().into()
}

fn greedy(tokens: usize) -> SamplingOptions {
    SamplingOptions::default().with_max_new_tokens(tokens).with_temperature(0.0)
}

const LIMITS: GenerateLimits = GenerateLimits::new(1, 48);
const PROMPT: [u32; 9] = [3, 1, 4, 1, 5, 9, 2, 6, 5];

/// The greedy answer all at once.
fn answer(gpu: &Gpu, weights: &Weights) -> Vec<u32> {
    let mut generator = Generator::new(gpu, model(), weights, LIMITS).unwrap();
    let answers = generator.generate(&[PROMPT.to_vec()], &greedy(12), |_| std::ops::ControlFlow::Continue(()));
    answers.unwrap().remove(0).tokens
}

/// Draws frames until a future is done; returns its output and the number of frames.
fn in_frames<T>(gpu: &Gpu, future: impl Future<Output = T>) -> (T, usize) {
    let mut future = pin!(future);
    for frame in 1..100_000 {
        gpu.begin_frame(SHARE).unwrap();
        if let Poll::Ready(done) = future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            gpu.end_frames();
            return (done, frame);
        }
        gpu.device().poll(wgpu::PollType::Poll).unwrap();
        std::thread::sleep(Duration::from_micros(300));
    }
    panic!("it takes more than 100,000 frames");
}

#[test]
fn models_are_prepared_answer_and_learn_in_frames_with_the_same_bits() {
    let _alone = alone();
    for adapter in Gpu::adapters() {
        let gpu = adopted(&adapter, Polling::Application);
        // A slow device, so that there is something to cut.
        gpu.assume_speed(0.0);
        let weights = Weights::new(&gpu);
        model().initialise(&weights, 7).unwrap();
        let wanted = answer(&gpu, &weights);
        // Kernels are compiled already: a device of its own has none.
        let fresh = adopted(&adapter, Polling::Application);
        fresh.assume_speed(0.0);
        let same = Weights::new(&fresh);
        model().initialise(&same, 7).unwrap();
        let mut generator = Generator::new(&fresh, model(), &same, LIMITS).unwrap();
        let mut told = Vec::new();
        let (prepared, frames) =
            in_frames(&fresh, generator.prepare_async(PROMPT.len(), &greedy(12), |share| told.push(share)));
        prepared.unwrap();
        assert!(frames > 10 && told.last() == Some(&1.0), "{frames} frames, {told:?}");
        assert!(told.windows(2).all(|pair| pair[0] <= pair[1]), "{told:?}");
        let submitted = fresh.submissions();
        let stream = async {
            let tokens = generator.stream(&[PROMPT.to_vec()], &greedy(12)).unwrap();
            tokens.map(|token| token.unwrap().id).collect::<Vec<u32>>().await
        };
        let (tokens, frames) = in_frames(&fresh, stream);
        let pieces = fresh.submissions() - submitted;
        eprintln!("[{:?} {}] {frames} frames, {pieces} pieces", fresh.info().backend, fresh.info().name);
        assert_eq!(tokens, wanted);
        // Twelve runs; each in several pieces, at most one frame each.
        assert!(pieces > 24 && frames > 24, "{pieces} pieces in {frames} frames");

        let losses = |gpu: &Gpu, frames: bool| -> Vec<u32> {
            let weights = Weights::new(gpu);
            model().initialise(&weights, 3).unwrap();
            let objective = LanguageModel { model: model(), rows: 2, length: 16, options: Default::default() };
            let run = RunOptions::default().with_steps(3);
            let schedule = Schedule::constant(1e-2);
            let mut trainer = Trainer::new(gpu, &weights, &objective, StepOptions::default(), run, schedule).unwrap();
            let tokens: Vec<u32> = (0..400).map(|i| (i * i + i / 3) % 61).collect();
            let mut batches = Batches::new(tokens.into(), 2, 16, 5).unwrap();
            let mut losses = Vec::new();
            let mut report = |event: &Event| {
                if let Event::Step(step) = event {
                    losses.push(step.report.loss.to_bits());
                }
            };
            for _ in 0..3 {
                if frames {
                    in_frames(gpu, trainer.step_async(&mut batches, 0, &mut report)).0.unwrap();
                } else {
                    trainer.submit_step(&mut batches).unwrap();
                    trainer.reports(0, &mut report).unwrap();
                }
            }
            losses
        };
        let wanted = losses(&gpu, false);
        assert!(losses(&fresh, true) == wanted && wanted.len() == 3, "training differs in frames");
    }
}

#[test]
fn a_preparation_is_given_up_and_a_run_goes_on_when_no_frames_are_drawn_any_more() {
    let _alone = alone();
    on_every_device(|gpu| {
        let mut g = Graph::new();
        let mut x = g.input("x", [1 << 12], DType::F32).unwrap();
        for _ in 0..9 {
            x = ops::scale(&mut g, x, 2.0).unwrap();
        }
        g.output("out", x).unwrap();
        let (weights, own) = (Weights::new(gpu), OwnBuffers::new());
        let mut given_up = Program::preparing(gpu, &g, &weights, &own).unwrap();
        assert!(given_up.advance(Duration::ZERO).unwrap() && given_up.progress() < 0.2);
        assert!(gpu.memory_held() > 1 << 12);
        drop(given_up);
        assert_eq!(gpu.memory_held(), 0);
        let program = pollster::block_on(Program::preparing(gpu, &g, &weights, &own).unwrap().finish_async(|_| ()));
        let program = program.unwrap();
        program.write("x", bytemuck::cast_slice(&vec![1.0_f32; 1 << 12])).unwrap();
        gpu.assume_speed(0.0);
        gpu.begin_frame(Duration::from_micros(1)).unwrap();
        let mut step = pin!(async { program.run_async(&["out"]).await?.remove(0).await });
        let mut context = Context::from_waker(Waker::noop());
        // The frame was over before it began.
        std::thread::sleep(Duration::from_millis(1));
        assert!(step.as_mut().poll(&mut context).is_pending());
        gpu.end_frames();
        let bytes = pollster::block_on(step).unwrap();
        assert!(bytemuck::pod_collect_to_vec::<u8, f32>(&bytes).iter().all(|x| *x == 512.0));
    });
}

#[test]
fn one_device_is_lost_the_other_goes_on_and_all_comes_back_with_the_same_bits() {
    let _alone = alone();
    for adapter in Gpu::adapters() {
        let [first, second] = [(); 2].map(|()| adopted(&adapter, Polling::Engine));
        let made = |gpu: &Gpu| {
            let weights = Weights::new(gpu);
            model().initialise(&weights, 11).unwrap();
            weights
        };
        let weights = [made(&first), made(&second)];
        // What the application keeps: the bytes of the weights, or the file that they come from.
        let kept: Vec<(String, Vec<u8>)> =
            weights[0].names().into_iter().map(|name| (name.clone(), weights[0].download(&name).unwrap())).collect();
        let wanted = answer(&first, &weights[0]);
        assert_eq!(answer(&second, &weights[1]), wanted);
        let mut lost = Generator::new(&first, model(), &weights[0], LIMITS).unwrap();
        let mut goes_on = Generator::new(&second, model(), &weights[1], LIMITS).unwrap();
        let options = greedy(12);
        let prompts = [PROMPT.to_vec()];
        let mut streams =
            [lost.stream(&prompts, &options).unwrap().boxed(), goes_on.stream(&prompts, &options).unwrap().boxed()];
        let mut found = Vec::new();
        for _ in 0..3 {
            assert!(pollster::block_on(streams[0].next()).unwrap().is_ok());
            found.push(pollster::block_on(streams[1].next()).unwrap().unwrap().id);
        }
        first.device().destroy();
        let told = pollster::block_on(streams[0].next()).unwrap();
        assert!(matches!(told, Err(Error::DeviceLost { .. })), "{told:?}");
        assert!(matches!(first.begin_frame(SHARE), Err(Error::DeviceLost { .. })));
        let waits = pollster::block_on(first.wait_async());
        assert!(matches!(waits, Err(Error::DeviceLost { .. })), "{waits:?}");
        while let Some(token) = pollster::block_on(streams[1].next()) {
            found.push(token.unwrap().id);
        }
        assert_eq!(found, wanted, "the other device");
        second.check().unwrap();
        // A new device of the same adapter, and the same again.
        let again = adopted(&adapter, Polling::Engine);
        let restored = Weights::new(&again);
        for (name, ty) in model().parameters().unwrap() {
            let (_, bytes) = kept.iter().find(|(kept, _)| *kept == name).unwrap();
            restored.ensure(&name, &ty).unwrap();
            restored.upload(&name, bytes).unwrap();
        }
        assert_eq!(answer(&again, &restored), wanted, "what was lost");
        for (name, bytes) in &kept {
            assert!(restored.download(name).unwrap() == *bytes, "{name}");
        }
    }
}

#[test]
fn idle_models_make_room_and_come_back_with_the_same_bits() {
    let _alone = alone();
    on_every_device(|gpu| {
        let make = |seed: u64| {
            move || -> Result<(Weights, Generator), Error> {
                let weights = Weights::new(gpu);
                model().initialise(&weights, seed)?;
                let mut generator = Generator::new(gpu, model(), &weights, LIMITS)?;
                generator.prepare(PROMPT.len(), &greedy(12))?;
                Ok((weights, generator))
            }
        };
        assert_eq!(gpu.memory_held(), 0);
        let one = make(1)().unwrap();
        let size = gpu.memory_held();
        let wanted = answer(gpu, &one.0);
        drop(one);
        assert_eq!(gpu.memory_held(), 0, "all of it is given back");
        gpu.limit_memory(Some(2 * size + size / 2));
        let models = Residents::new(gpu);
        let first = models.get("1", make(1)).unwrap();
        models.get("2", make(2)).unwrap();
        assert_eq!((models.names(), gpu.memory_held()), (vec!["1".to_owned(), "2".to_owned()], 2 * size));
        // The first is in use, so the second one makes room, though it was used later.
        models.get("3", make(3)).unwrap();
        assert_eq!(models.names(), ["1", "3"]);
        let third = models.get("3", || panic!("it is there")).unwrap();
        let error = models.get("2", make(2)).map(drop).unwrap_err();
        assert!(matches!(error, Error::OutOfMemory { .. }), "{error}");
        assert!(error.to_string().contains("Gpu::limit_memory"), "{error}");
        drop((first, third));
        models.get("2", make(2)).unwrap();
        let made = pollster::block_on(models.get_async("1", async || make(1)())).unwrap();
        assert_eq!(models.names(), ["2", "1"]);
        gpu.limit_memory(None);
        assert_eq!(answer(gpu, &made.0), wanted, "made again");
        assert!(!models.release("1") && models.release("2") && !models.release("2"));
    });
}
