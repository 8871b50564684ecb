//! What a command says when it did not do what it was asked: what, why, what to try. Not here: the exit codes' meaning.

use std::fmt::Write as _;

pub(crate) use pipelines::errors::chain;
use serde_json::json;
use server::http::api::model::API_VERSION;

use super::{
    exit::Exit,
    output::{Paint, clean},
};

/// A command that failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    /// How the process ends.
    pub(crate) exit: Exit,
    /// What could not be done: `cannot approve shop/3`.
    pub(crate) what: String,
    /// Why.
    pub(crate) why: Option<String>,
    /// What to try, the best first.
    pub(crate) next: Vec<String>,
    /// Under this id the server's log has more.
    pub(crate) request_id: Option<String>,
}

impl Failure {
    /// A failure with nothing but its name.
    pub(crate) fn new(exit: Exit, what: impl Into<String>) -> Self {
        Self { exit, what: what.into(), why: None, next: Vec::new(), request_id: None }
    }

    /// A failure of the command line or of a file given to it.
    pub(crate) fn usage(what: impl Into<String>) -> Self {
        Self::new(Exit::Usage, what)
    }

    /// With its reason.
    pub(crate) fn why(mut self, why: impl Into<String>) -> Self {
        self.why = Some(why.into());
        self
    }

    /// With the reason that an error and its causes give.
    pub(crate) fn because(self, error: &dyn std::error::Error) -> Self {
        self.why(chain(error))
    }

    /// With something to try.
    pub(crate) fn next(mut self, next: impl Into<String>) -> Self {
        self.next.push(next.into());
        self
    }

    /// The reader of our output went away: nothing to say to nobody.
    pub(crate) fn closed() -> Self {
        Self::new(Exit::Ok, "")
    }

    /// As people read it.
    pub(crate) fn text(&self, paint: Paint) -> String {
        let mut text = format!("{} {}\n", paint.bad("error:"), clean(&self.what));
        if let Some(why) = &self.why {
            let mut lines = why.lines();
            let _ = writeln!(text, "  {} {}", paint.dim("why:"), clean(lines.next().unwrap_or_default()));
            for line in lines {
                let _ = writeln!(text, "       {}", clean(line));
            }
        }
        if let Some((first, others)) = self.next.split_first() {
            let others: String = others.iter().map(|other| format!("   (or: {})", clean(other))).collect();
            let _ = writeln!(text, "  {} {}{others}", paint.dim("try:"), clean(first));
        }
        if let Some(id) = &self.request_id {
            let _ = writeln!(text, "   {} {}", paint.dim("id:"), clean(id));
        }
        text
    }

    /// As programs read it: one line.
    pub(crate) fn json(&self) -> String {
        json!({
            "apiVersion": API_VERSION,
            "kind": "Error",
            "exit": self.exit.code(),
            "what": self.what,
            "why": self.why,
            "try": self.next,
            "request_id": self.request_id,
        })
        .to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn promote_refused() -> Failure {
        Failure::new(Exit::Unexpected, "cannot promote checkout 1.9.0")
            .why("canary success 98.1 % < 99.0 % (3 of 5 checks failed)")
            .next("windlass rollout status checkout")
            .next("windlass rollout abort checkout")
    }

    #[test]
    fn an_error_says_what_why_and_what_to_try() {
        insta::assert_snapshot!(promote_refused().text(Paint::OFF), @r"
        error: cannot promote checkout 1.9.0
          why: canary success 98.1 % < 99.0 % (3 of 5 checks failed)
          try: windlass rollout status checkout   (or: windlass rollout abort checkout)
        ");
    }

    #[test]
    fn an_error_for_programs_is_one_versioned_line() {
        let json = promote_refused().json();
        assert_eq!(json.lines().count(), 1);
        let read: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!((&read["apiVersion"], &read["kind"]), (&json!("windlass/v1"), &json!("Error")));
        assert_eq!((&read["exit"], &read["try"][1]), (&json!(1), &json!("windlass rollout abort checkout")));
    }

    #[test]
    fn what_a_server_says_cannot_steer_the_terminal() {
        let text = Failure::new(Exit::Unexpected, "cannot x").why("a\u{1b}[2Jb\u{7}").text(Paint::OFF);
        assert!(!text.contains('\u{1b}') && !text.contains('\u{7}'), "{text:?}");
    }
}
