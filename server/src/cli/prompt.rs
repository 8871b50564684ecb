//! Questions to a person at a terminal, and secrets that come another way. Never a secret as an argument: every process
//! of the machine could read it.

use std::{
    io::{self, BufRead as _, IsTerminal as _, Read as _, Write as _},
    path::Path,
};

use pipelines::protocol::Secret;

use super::{exit::Exit, failure::Failure, output::clean};

/// Bytes of a secret that are read at most.
const SECRET_BYTES_MAX: u64 = 64 * 1024;

/// Whether there is a person who can answer.
pub(crate) fn is_interactive() -> bool {
    io::stdin().is_terminal() && io::stderr().is_terminal()
}

/// Asks for a yes; anything but `y` or `yes` is a no.
pub(crate) fn confirm(question: &str) -> Result<bool, Failure> {
    let answer = ask_line(&format!("{question} [y/N] "))?;
    Ok(matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes"))
}

/// Asks for a line.
pub(crate) fn ask_line(question: &str) -> Result<String, Failure> {
    let failed = |error: io::Error| Failure::new(Exit::Unexpected, "cannot ask").because(&error);
    let mut err = io::stderr().lock();
    write!(err, "{}", clean(question)).and_then(|()| err.flush()).map_err(failed)?;
    let mut line = String::new();
    io::stdin().lock().take(SECRET_BYTES_MAX).read_line(&mut line).map_err(failed)?;
    Ok(line.trim_end_matches(['\r', '\n']).to_owned())
}

/// Bytes of a value that are read at most; the server has a bound of its own.
const VALUE_BYTES_MAX: u64 = 1 << 20;

/// Where the value of a secret comes from.
#[derive(Clone, Debug, Default, clap::Args)]
#[group(multiple = false)]
pub(crate) struct ValueSource {
    /// Read the value from this file
    #[arg(long, value_name = "FILE")]
    pub(crate) value_file: Option<std::path::PathBuf>,
    /// Read the value from standard input
    #[arg(long)]
    pub(crate) value_stdin: bool,
}

impl ValueSource {
    /// The value: from the file, from standard input, or typed without being shown.
    pub(crate) fn read(&self, question: &str) -> Result<Secret, Failure> {
        match (&self.value_file, self.value_stdin) {
            (Some(path), _) => {
                let name = path.display().to_string();
                let file = std::fs::File::open(path);
                let file = file.map_err(|error| Failure::usage(format!("cannot read {name}")).because(&error))?;
                value_from(file, &name)
            }
            (None, true) => value_from(io::stdin().lock(), "standard input"),
            (None, false) => typed(question, ["--value-file FILE", "--value-stdin"]),
        }
    }
}

/// All of it. The end of a line that a tool puts behind one line is no part of the value; a key of several lines keeps it.
fn value_from(reader: impl io::Read, name: &str) -> Result<Secret, Failure> {
    let mut text = String::new();
    let failed = |error: io::Error| Failure::usage(format!("cannot read {name}")).because(&error);
    reader.take(VALUE_BYTES_MAX + 1).read_to_string(&mut text).map_err(failed)?;
    if text.len() as u64 > VALUE_BYTES_MAX {
        return Err(Failure::usage(format!("cannot take a secret from {name}"))
            .why(format!("it is longer than {VALUE_BYTES_MAX} bytes")));
    }
    if text.lines().count() <= 1 {
        text.truncate(text.trim_end_matches(['\r', '\n']).len());
    }
    Ok(Secret::new(text))
}

/// Where a secret comes from.
#[derive(Clone, Debug, Default, clap::Args)]
#[group(multiple = false)]
pub(crate) struct PasswordSource {
    /// Read the password from the first line of this file
    #[arg(long, value_name = "FILE")]
    pub(crate) password_file: Option<std::path::PathBuf>,
    /// Read the password from standard input
    #[arg(long)]
    pub(crate) password_stdin: bool,
}

impl PasswordSource {
    /// The password: from the file, from standard input, or typed without being shown.
    pub(crate) fn read(&self, question: &str) -> Result<Secret, Failure> {
        match (&self.password_file, self.password_stdin) {
            (Some(path), _) => secret_file(path),
            (None, true) => secret_from(io::stdin().lock(), "standard input"),
            (None, false) => typed(question, PASSWORD_OPTIONS),
        }
    }

    /// The same for a new password: typed twice.
    pub(crate) fn read_new(&self) -> Result<Secret, Failure> {
        let first = self.read("New password: ")?;
        if self.password_file.is_none()
            && !self.password_stdin
            && typed("The same again: ", PASSWORD_OPTIONS)?.expose() != first.expose()
        {
            return Err(Failure::usage("cannot take the password").why("the two are not the same"));
        }
        Ok(first)
    }
}

/// How a password is given where nobody can be asked.
const PASSWORD_OPTIONS: [&str; 2] = ["--password-file FILE", "--password-stdin"];

fn typed(question: &str, options: [&str; 2]) -> Result<Secret, Failure> {
    if !is_interactive() {
        let failure = Failure::usage("cannot ask for a secret without a terminal");
        return Err(options.into_iter().fold(failure, Failure::next));
    }
    let failed = |error: io::Error| Failure::new(Exit::Unexpected, "cannot read the secret").because(&error);
    let terminal = console::Term::stderr();
    terminal.write_str(question).map_err(failed)?;
    Ok(Secret::new(terminal.read_secure_line().map_err(failed)?))
}

/// The first line of a file.
pub(crate) fn secret_file(path: &Path) -> Result<Secret, Failure> {
    let what = format!("cannot read {}", path.display());
    let file = std::fs::File::open(path).map_err(|error| Failure::usage(what.clone()).because(&error))?;
    secret_from(file, &path.display().to_string())
}

/// All of a file that is a secret as a whole, such as a private key.
pub(crate) fn secret_text(path: &Path) -> Result<Secret, Failure> {
    let what = format!("cannot read {}", path.display());
    let mut text = String::new();
    let file = std::fs::File::open(path).map_err(|error| Failure::usage(what.clone()).because(&error))?;
    file.take(SECRET_BYTES_MAX).read_to_string(&mut text).map_err(|error| Failure::usage(what).because(&error))?;
    Ok(Secret::new(text))
}

fn secret_from(reader: impl io::Read, name: &str) -> Result<Secret, Failure> {
    let mut text = String::new();
    let failed = |error: io::Error| Failure::usage(format!("cannot read {name}")).because(&error);
    reader.take(SECRET_BYTES_MAX).read_to_string(&mut text).map_err(failed)?;
    match text.lines().next().unwrap_or_default() {
        "" => Err(Failure::usage(format!("cannot take a secret from {name}")).why("its first line is empty")),
        line => Ok(Secret::new(line)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_all_there_is_but_the_end_of_a_single_line() {
        let read = |text: &str| value_from(text.as_bytes(), "x").unwrap().expose().to_owned();
        assert_eq!((read("t0ken\r\n").as_str(), read(" t0ken").as_str()), ("t0ken", " t0ken"));
        assert_eq!(read("a key\nof lines\n"), "a key\nof lines\n");
        assert!(value_from(io::repeat(b'x'), "x").is_err());
    }

    #[test]
    fn a_secret_is_the_first_line_and_not_empty() {
        assert_eq!(secret_from(&b"abc\r\nrest"[..], "x").unwrap().expose(), "abc");
        assert_eq!(secret_from(&b"\nabc"[..], "x").unwrap_err().exit, Exit::Usage);
        assert_eq!(secret_from(&b""[..], "x").unwrap_err().exit, Exit::Usage);
    }
}
