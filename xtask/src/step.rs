//! One thing CI does: shown, timed, and explained when it fails.

use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// A command with what to do when it fails.
pub(crate) struct Step {
    /// One or two words.
    pub(crate) name: String,
    /// What to do about a failure.
    pub(crate) advice: &'static str,
    action: Action,
}

enum Action {
    /// A program with its arguments and extra environment.
    Program { program: String, arguments: Vec<String>, environment: Vec<(String, String)> },
    /// A part of this program, with how to call it.
    Ours { shown: &'static str, call: fn() -> Result<()> },
}

impl Step {
    /// Runs a program.
    pub(crate) fn program(name: &str, program: &str, arguments: &[&str]) -> Self {
        Self {
            name: name.to_owned(),
            advice: "",
            action: Action::Program {
                program: program.to_owned(),
                arguments: arguments.iter().map(|&argument| argument.to_owned()).collect(),
                environment: Vec::new(),
            },
        }
    }

    /// Calls a part of this program; `shown` is the command that does the same.
    pub(crate) fn ours(name: &str, shown: &'static str, call: fn() -> Result<()>) -> Self {
        Self { name: name.to_owned(), advice: "", action: Action::Ours { shown, call } }
    }

    /// Adds a variable to the program's environment.
    pub(crate) fn with(mut self, variable: &str, value: &str) -> Self {
        if let Action::Program { environment, .. } = &mut self.action {
            environment.push((variable.to_owned(), value.to_owned()));
        }
        self
    }

    /// Says what to do about a failure.
    pub(crate) fn advise(self, advice: &'static str) -> Self {
        Self { advice, ..self }
    }

    /// The command as one would type it.
    pub(crate) fn command_line(&self) -> String {
        match &self.action {
            Action::Ours { shown, .. } => (*shown).to_owned(),
            Action::Program { program, arguments, environment } => {
                let program =
                    program.rsplit_once("/bin/").map_or(program.as_str(), |(_, name)| name);
                let variables = environment.iter().map(|(name, value)| format!("{name}='{value}'"));
                let words = variables.chain([program.to_owned()]).chain(arguments.iter().cloned());
                words.collect::<Vec<_>>().join(" ")
            }
        }
    }

    /// Does it. Its output goes to ours.
    fn run(&self) -> Result<()> {
        let (program, arguments, environment) = match &self.action {
            Action::Ours { call, .. } => return call(),
            Action::Program { program, arguments, environment } => {
                (program, arguments, environment)
            }
        };
        let status = Command::new(program)
            .args(arguments)
            .envs(environment.iter().map(|(name, value)| (name, value)))
            .status()
            .with_context(|| format!("{program} does not start"))?;
        if !status.success() {
            bail!("{program} ended with {status}");
        }
        Ok(())
    }
}

/// Runs the steps in order, stops at the first that fails, and prints how long each took.
///
/// The last line counts the steps: printed when all pass, else the error, which the caller prints.
pub(crate) fn run_all(steps: &[Step]) -> Result<()> {
    let mut times: Vec<(&str, Duration)> = Vec::new();
    for (index, step) in steps.iter().enumerate() {
        println!("\n=== [{}/{}] {}", index + 1, steps.len(), step.name);
        println!("    $ {}", step.command_line());
        let start = Instant::now();
        let result = step.run();
        let elapsed = start.elapsed();
        times.push((&step.name, elapsed));
        if let Err(error) = result {
            println!("--- {} FAILED after {:.1} s", step.name, elapsed.as_secs_f64());
            print_times(&times);
            println!("failed: {}: {error:#}\n    $ {}", step.name, step.command_line());
            if !step.advice.is_empty() {
                println!("what to do: {}", step.advice);
            }
            bail!("{index} passed, 1 failed, {} not run", steps.len() - index - 1);
        }
        println!("--- {} ok, {:.1} s", step.name, elapsed.as_secs_f64());
    }
    print_times(&times);
    println!("{} passed, 0 failed", steps.len());
    Ok(())
}

fn print_times(times: &[(&str, Duration)]) {
    println!();
    for (name, time) in times {
        println!("  {name:<28} {:>8.1} s", time.as_secs_f64());
    }
    let total: Duration = times.iter().map(|(_, time)| time).sum();
    println!("  {:<28} {:>8.1} s", "total", total.as_secs_f64());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_line_can_be_pasted() {
        let step = Step::program("x", "/opt/bin/cargo", &["doc"]).with("FLAGS", "-D warnings");
        assert_eq!(step.command_line(), "FLAGS='-D warnings' cargo doc");
    }

    #[test]
    fn the_first_failure_ends_the_run() {
        let steps = [
            Step::program("fails", "false", &[]).advise("nothing"),
            Step::ours("unreached", "x", || panic!("it ran after a failure")),
        ];
        let error = run_all(&steps).expect_err("the first step fails");
        assert_eq!(error.to_string(), "0 passed, 1 failed, 1 not run");
    }

    #[test]
    fn a_step_that_does_not_start_fails() {
        let steps = [
            Step::program("passes", "true", &[]),
            Step::program("is missing", "no-such-program", &[]),
        ];
        let error = run_all(&steps).expect_err("the second step cannot start");
        assert_eq!(error.to_string(), "1 passed, 1 failed, 0 not run");
    }
}
