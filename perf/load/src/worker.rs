//! One process of a load: opens its connections, waits for the others, does its part, tells.

use std::io::{BufRead, Write};

use anyhow::{Context, Result};

use crate::generator::Generator;
use crate::job::{Go, Job, Line, PairsWork, Work};
use crate::outcome::Outcome;
use crate::processor;
use crate::rooms::Rooms;
use crate::slow::SlowReaders;
use crate::span::{Sampler, Span};
use crate::target::Target;

/// Reads a job from standard input, does it, and prints lines about it.
pub(crate) fn run() -> Result<()> {
    let mut lines = std::io::stdin().lock().lines();
    let mut next = || lines.next().context("the parent is gone")?.context("reading the parent");
    let job: Job = serde_json::from_str(&next()?).context("the job")?;
    processor::pin_to(job.processor)?;
    processor::wake_precisely();
    let target = job.target()?;
    let opened = |count: usize| {
        if count.is_multiple_of(OPENED_STEP) { say(&Line::Opened(count)) } else { Ok(()) }
    };
    let mut part = Part::open(&target, &job, opened)?;
    say(&Line::Ready)?;
    let span: Go = serde_json::from_str(&next()?).context("the time to begin")?;
    let mut failed = None;
    let mut sink = |sample| failed = say(&Line::Sample(sample)).err().or(failed.take());
    let outcome = part.run(&span, &mut Sampler::new(&span, job.subject, &mut sink))?;
    if let Some(error) = failed {
        return Err(error);
    }
    say(&Line::Done(Box::new(outcome)))?;
    // The parent looks at the process under test once more, with all connections open, and then
    // ends this one.
    drop(next());
    Ok(())
}

/// What a process does, with its connections open.
enum Part<'t> {
    Pairs(Box<Generator>, PairsWork),
    Rooms(Rooms),
    SlowReaders(SlowReaders<'t>),
}

impl<'t> Part<'t> {
    fn open(target: &'t Target, job: &Job, opened: impl Fn(usize) -> Result<()>) -> Result<Self> {
        // A parent that is gone is noticed when it should say when to begin.
        let opened = |count| drop(opened(count));
        Ok(match &job.work {
            Work::Pairs(work) => {
                let (numbers, script) = (work.numbers.clone(), work.script()?);
                let generator = Generator::open_at(target, job.subject, numbers, &script, opened)?;
                Self::Pairs(Box::new(generator), work.clone())
            }
            Work::Rooms(work) => Self::Rooms(Rooms::open(target, job.subject, work, opened)?),
            Work::SlowReaders(work) => {
                Self::SlowReaders(SlowReaders::open(target, job.subject, work, opened)?)
            }
        })
    }

    fn run(&mut self, span: &Span, sampler: &mut Sampler<'_>) -> Result<Outcome> {
        match self {
            Self::Pairs(generator, work) => generator.run(span, work.rate, sampler),
            Self::Rooms(rooms) => rooms.run(span, sampler),
            Self::SlowReaders(readers) => readers.run(span, sampler),
        }
    }
}

fn say(line: &Line) -> Result<()> {
    let mut text = serde_json::to_string(line)?;
    text.push('\n');
    let mut stdout = std::io::stdout().lock();
    stdout.write_all(text.as_bytes()).context("the parent does not listen")?;
    stdout.flush().context("the parent does not listen")
}

/// How many connections are opened between two words about it.
const OPENED_STEP: usize = 50;
