//! Starting this binary as a child, talking to it by lines, killing it, and noticing when it hangs.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

use serde_json::{Value, json};
use server::store::engine::EngineKind;

use crate::kit;

const TASK: &str = "WINDLASS_STORE_CHILD";

/// A child that says nothing for so long hangs.
const SILENCE: Duration = Duration::from_secs(120);

/// What this process is to do, if it is a child.
pub(crate) fn task() -> Option<Value> {
    std::env::var(TASK).ok().and_then(|task| serde_json::from_str(&task).ok())
}

/// The task of a child.
pub(crate) fn new_task(job: &str, kind: EngineKind, folder: &Path, more: Value) -> Value {
    json!({"job": job, "engine": kit::name(kind), "folder": kit::text(folder), "more": more})
}

/// A child process; killed when it is dropped.
pub(crate) struct Running {
    process: Child,
    lines: Receiver<String>,
    errors: tempfile::NamedTempFile,
}

impl Running {
    pub(crate) fn start(task: &Value) -> Result<Self, String> {
        Running::start_under(&[], task)
    }

    /// Starts it under another program, a tracer.
    pub(crate) fn start_under(wrapper: &[&str], task: &Value) -> Result<Self, String> {
        let own = std::env::current_exe().map_err(|error| error.to_string())?;
        let mut command = match wrapper {
            [] => Command::new(own),
            [program, arguments @ ..] => {
                let mut command = Command::new(program);
                command.args(arguments).arg(own);
                command
            }
        };
        let errors = tempfile::NamedTempFile::new().map_err(|error| error.to_string())?;
        let stderr = errors.reopen().map_err(|error| error.to_string())?;
        command.env(TASK, task.to_string()).env("RUST_BACKTRACE", "0");
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(stderr);
        let mut process = command.spawn().map_err(|error| error.to_string())?;
        let stdout = process.stdout.take().ok_or("the child has no output")?;
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        Ok(Running { process, lines, errors })
    }

    /// Hands it a line of input.
    pub(crate) fn tell(&mut self, line: &Value) -> Result<(), String> {
        let stdin = self.process.stdin.as_mut().ok_or("the child takes no input")?;
        writeln!(stdin, "{line}").and_then(|()| stdin.flush()).map_err(|error| error.to_string())
    }

    /// The next line; `None` when it has ended.
    pub(crate) fn line(&mut self) -> Result<Option<String>, String> {
        match self.lines.recv_timeout(SILENCE) {
            Ok(line) => Ok(Some(line)),
            Err(RecvTimeoutError::Disconnected) => Ok(None),
            Err(RecvTimeoutError::Timeout) => {
                let said = self.last_words();
                let _ = self.process.kill();
                Err(format!("hangs: silent for {} s; {said}", SILENCE.as_secs()))
            }
        }
    }

    /// SIGKILL, and what it had still said.
    pub(crate) fn kill(mut self) -> Result<Vec<String>, String> {
        self.process.kill().map_err(|error| error.to_string())?;
        self.process.wait().map_err(|error| error.to_string())?;
        Ok(self.lines.iter().collect())
    }

    /// The one JSON line that says how it went, whatever the end; everything else is a failure.
    pub(crate) fn report(&mut self) -> Result<Value, String> {
        while let Some(line) = self.line()? {
            if let Ok(report @ Value::Object(_)) = serde_json::from_str(&line) {
                return match report["problem"].as_str() {
                    Some(problem) => Err(format!("{problem}; {}", self.last_words())),
                    None => Ok(report),
                };
            }
        }
        let status = self.process.wait().map_err(|error| error.to_string())?;
        Err(format!("ended without a report ({status}); {}", self.last_words()))
    }

    /// Waits for its end, which must be a good one.
    pub(crate) fn end(mut self) -> Result<(), String> {
        while self.line()?.is_some() {}
        let status = self.process.wait().map_err(|error| error.to_string())?;
        if status.success() { Ok(()) } else { Err(format!("ended badly ({status}); {}", self.last_words())) }
    }

    fn last_words(&self) -> String {
        let words = std::fs::read(self.errors.path()).unwrap_or_default();
        let words = String::from_utf8_lossy(&words).replace('\n', " ");
        let start = words.char_indices().rev().nth(600).map_or(0, |(at, _)| at);
        format!("its last words: {}", words[start..].trim())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
