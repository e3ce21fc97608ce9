//! The control API's client in Python, as `examples/python` has it.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

/// A client of the control API in another language, which knows its schema alone.
#[derive(Debug)]
pub struct PythonClient {
    python: PathBuf,
    /// Where the relay is, and what to show there.
    connection: Vec<String>,
}

impl PythonClient {
    /// Installs what it needs below this directory, where that is missing.
    pub fn install(target: &Path, connection: &[&str]) -> Result<Self> {
        // Tests run side by side, and share what is installed.
        let _alone = INSTALLING.lock().unwrap_or_else(PoisonError::into_inner);
        let folder = target.join("python-client");
        let python = folder.join("bin/python");
        let needs = example("requirements.txt");
        let marker = folder.join("installed");
        let wanted = std::fs::read_to_string(&needs)?;
        if std::fs::read_to_string(&marker).ok().as_ref() != Some(&wanted) {
            let hint =
                "needs Python 3 with venv, and a package index: apt-get install python3-venv";
            let made = Command::new("python3").args(["-m", "venv"]).arg(&folder).output();
            text(made.context(hint)?).context(hint)?;
            let mut pip = Command::new(folder.join("bin/pip"));
            let installed = pip.args(["install", "--quiet", "--requirement"]).arg(&needs).output();
            text(installed.context(hint)?).context(hint)?;
            std::fs::write(&marker, wanted)?;
        }
        let connection = connection.iter().map(|&argument| argument.to_owned()).collect();
        Ok(Self { python, connection })
    }

    /// One call; the lines of its answer. What it says on stderr when it does not succeed is in the
    /// error.
    pub fn run(&self, arguments: &[&str]) -> Result<Vec<Value>> {
        let lines = text(self.command(arguments).output()?)?;
        lines.lines().map(|line| Ok(serde_json::from_str(line)?)).collect()
    }

    /// One call that goes on, once the first line of its answer is there.
    pub fn begin(&self, arguments: &[&str]) -> Result<Child> {
        let mut command = self.command(arguments);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
        let output = child.stdout.as_mut().context("a piped child has an output")?;
        let mut byte = [0];
        while byte != *b"\n" {
            output.read_exact(&mut byte).context("it ended without a line")?;
        }
        Ok(child)
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.python);
        command.arg(example("relay_control.py")).args(&self.connection).args(arguments);
        command
    }
}

/// What a program printed, if it succeeded.
fn text(output: Output) -> Result<String> {
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(output.status.success(), "{}: {said}", output.status);
    Ok(String::from_utf8(output.stdout)?)
}

fn example(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/python").join(file)
}

static INSTALLING: Mutex<()> = Mutex::new(());
