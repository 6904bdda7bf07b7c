//! A side of the comparison as a process: threads of the other one, which never quite sleep in burn, take nothing of its time.

use crate::workload::{self, Workload};
use crate::{burn_side, our_side, quantile};
use burn::tensor::wgpu::wgpu;
use std::error::Error;
use std::io::{BufRead, BufReader, Write, stdin};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};
use wgformer::Gpu;

/// How long a side's turn lasts at least.
const TURN: Duration = Duration::from_millis(100);

/// What runs once, waits for the end, and says how many seconds of it count.
pub type Run = Box<dyn FnMut() -> Result<f64, Box<dyn Error>>>;

/// What makes a workload ready.
type Prepare = Box<dyn Fn(&Workload) -> Result<Run, Box<dyn Error>>>;

/// The measured engine.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
pub enum Side {
    Wgformer,
    Burn,
}

impl Side {
    /// Answers orders from standard input, a line each, until there are no more: the name of a workload, which is prepared and run
    /// twice, with the seconds of the first run; an empty line with those of a turn.
    pub fn serve(self, adapter: &wgpu::Adapter) -> Result<(), Box<dyn Error>> {
        let prepare: Prepare = match self {
            Self::Wgformer => {
                let gpu = Gpu::open(adapter)?;
                Box::new(move |workload| our_side::prepare(workload, &gpu))
            }
            Self::Burn => {
                let device = burn_side::open(adapter)?;
                Box::new(move |workload| burn_side::prepare(workload, &device))
            }
        };
        let mut run: Option<Run> = None;
        for order in stdin().lines() {
            let order = order?;
            let seconds = match (workload::all().iter().find(|w| w.name() == order), &mut run) {
                (Some(workload), _) => {
                    // The last one's memory first.
                    drop(run.take());
                    let mut new = prepare(workload)?;
                    let start = Instant::now();
                    new()?;
                    let first = start.elapsed().as_secs_f64();
                    new()?;
                    run = Some(new);
                    first
                }
                (None, Some(run)) => turn(run)?,
                (None, None) => return Err(format!("there is no workload \"{order}\"").into()),
            };
            println!("{seconds}");
        }
        Ok(())
    }
}

/// The median of a side's runs, back to back for a while: the first one finds the caches full of the other side's data.
fn turn(run: &mut Run) -> Result<f64, Box<dyn Error>> {
    let (start, mut times) = (Instant::now(), Vec::new());
    while times.is_empty() || start.elapsed() < TURN {
        times.push(run()?);
    }
    Ok(quantile(&mut times, 0.5))
}

/// A side's process. It is stopped unless it has an order to answer.
#[derive(Debug)]
pub struct SideProcess {
    side: Side,
    child: Child,
    orders: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl SideProcess {
    /// Starts a side on the adapter of an index.
    pub fn start(side: Side, adapter: usize) -> Result<Self, Box<dyn Error>> {
        let name = if let Side::Burn = side { "burn" } else { "wgformer" };
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["--side", name, "--adapter", &adapter.to_string()]).stdin(Stdio::piped()).stdout(Stdio::piped());
        // In its own process group: a closing terminal hangs up every group that has a stopped process.
        #[cfg(unix)]
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        let mut child = command.spawn()?;
        let (orders, answers) = (child.stdin.take(), child.stdout.take());
        let (Some(orders), Some(answers)) = (orders, answers) else { return Err("a process without pipes".into()) };
        Ok(Self { side, child, orders, answers: BufReader::new(answers) })
    }

    /// Prepares a workload and runs it twice; the seconds of the first run.
    pub fn prepare(&mut self, workload: &Workload) -> Result<f64, Box<dyn Error>> {
        self.order(&workload.name())
    }

    /// The seconds of a turn.
    pub fn turn(&mut self) -> Result<f64, Box<dyn Error>> {
        self.order("")
    }

    fn order(&mut self, order: &str) -> Result<f64, Box<dyn Error>> {
        self.pause(false)?;
        writeln!(self.orders, "{order}")?;
        let mut answer = String::new();
        self.answers.read_line(&mut answer)?;
        if answer.is_empty() {
            return Err(format!("the process of {:?} ended; what it said is above", self.side).into());
        }
        self.pause(true)?;
        Ok(answer.trim_end().parse()?)
    }

    #[cfg(unix)]
    fn pause(&self, pause: bool) -> Result<(), Box<dyn Error>> {
        use rustix::process::{Pid, Signal, kill_process};
        Ok(kill_process(Pid::from_child(&self.child), if pause { Signal::STOP } else { Signal::CONT })?)
    }

    /// Elsewhere the other side's threads go on.
    #[cfg(not(unix))]
    fn pause(&self, _: bool) -> Result<(), Box<dyn Error>> {
        Ok(())
    }
}

impl Drop for SideProcess {
    fn drop(&mut self) {
        // It holds nothing that must be saved.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
