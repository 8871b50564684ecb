//! The exit codes of the command line: one list, for scripts to rely on.

use std::process::ExitCode;

/// How a command ends. The numbers are a promise: they never change their meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// Done; of `watch`: it ended well.
    Ok,
    /// Something failed that has no code of its own, or the server refuses it in the present state.
    Unexpected,
    /// The command line, or a file given to it, is not good.
    Usage,
    /// Nobody is signed in, or the token is not good any more.
    Login,
    /// Signed in, but not allowed.
    Forbidden,
    /// There is no such thing.
    NotFound,
    /// The run failed.
    RunFailed,
    /// The release was rejected, or nobody decided in time.
    Rejected,
    /// It was aborted, cancelled, superseded or rolled back.
    Aborted,
    /// It waits for a person.
    WaitingForPerson,
    /// The time given with `--timeout` is over.
    TimedOut,
    /// The server, or a registry, cannot be reached or does not answer.
    Unreachable,
    /// Interrupted by Ctrl-C.
    Interrupted,
}

impl Exit {
    /// All of them, in the order of their codes.
    pub(crate) const ALL: [Self; 13] = [
        Self::Ok,
        Self::Unexpected,
        Self::Usage,
        Self::Login,
        Self::Forbidden,
        Self::NotFound,
        Self::RunFailed,
        Self::Rejected,
        Self::Aborted,
        Self::WaitingForPerson,
        Self::TimedOut,
        Self::Unreachable,
        Self::Interrupted,
    ];

    /// The code that the shell sees.
    pub(crate) fn code(self) -> u8 {
        match self {
            Self::Ok => 0,
            Self::Unexpected => 1,
            Self::Usage => 2,
            Self::Login => 4,
            Self::Forbidden => 5,
            Self::NotFound => 6,
            Self::RunFailed => 10,
            Self::Rejected => 11,
            Self::Aborted => 12,
            Self::WaitingForPerson => 13,
            Self::TimedOut => 14,
            Self::Unreachable => 15,
            Self::Interrupted => 130,
        }
    }

    /// What it means, in one line of the help.
    pub(crate) fn meaning(self) -> &'static str {
        match self {
            Self::Ok => "done",
            Self::Unexpected => "something failed, or the server refuses it in the present state",
            Self::Usage => "the command line or a file given to it is not good",
            Self::Login => "not signed in: windlass login",
            Self::Forbidden => "not allowed",
            Self::NotFound => "there is no such thing",
            Self::RunFailed => "the run failed",
            Self::Rejected => "rejected, or nobody decided in time",
            Self::Aborted => "aborted, cancelled, superseded or rolled back",
            Self::WaitingForPerson => "waits for a person",
            Self::TimedOut => "the time given with --timeout is over",
            Self::Unreachable => "the server or a registry cannot be reached",
            Self::Interrupted => "interrupted",
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

/// The end of the help: what the exit codes mean.
pub(crate) fn help() -> String {
    let lines: Vec<String> = Exit::ALL.iter().map(|exit| format!("  {:>3}  {}", exit.code(), exit.meaning())).collect();
    format!("Exit codes:\n{}", lines.join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_codes_are_those_that_are_documented() {
        let codes: Vec<u8> = Exit::ALL.iter().map(|exit| exit.code()).collect();
        assert_eq!(codes, [0, 1, 2, 4, 5, 6, 10, 11, 12, 13, 14, 15, 130]);
    }

    #[test]
    fn each_code_is_explained_in_the_help() {
        insta::assert_snapshot!(help(), @r"
        Exit codes:
            0  done
            1  something failed, or the server refuses it in the present state
            2  the command line or a file given to it is not good
            4  not signed in: windlass login
            5  not allowed
            6  there is no such thing
           10  the run failed
           11  rejected, or nobody decided in time
           12  aborted, cancelled, superseded or rolled back
           13  waits for a person
           14  the time given with --timeout is over
           15  the server or a registry cannot be reached
          130  interrupted
        ");
    }
}
