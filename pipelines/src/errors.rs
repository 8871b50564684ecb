//! How an error is told in one line. Not here: errors themselves, which live in the module they come from.

use std::error::Error;

/// An error with its causes in one line. A cause whose words stand there already is left out: not every library keeps to
/// the rule that an error does not repeat its source.
#[must_use]
pub fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let words = error.to_string();
        if !text.contains(&words) {
            text.push_str(": ");
            text.push_str(&words);
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("{0}")]
    struct Told(&'static str, #[source] Option<Box<Told>>);

    #[test]
    fn causes_follow_each_other_and_none_is_said_twice() {
        let deep = Told("no route", None);
        let middle = Told("connect: no route", Some(Box::new(deep)));
        let error = Told("cannot ask", Some(Box::new(middle)));
        assert_eq!(chain(&error), "cannot ask: connect: no route");
    }
}
