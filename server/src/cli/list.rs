//! The lists of a service: what each is asked with, and how its end is told. Not here: what stands in a line.

use pipelines::ids::ServiceName;
use server::http::api::model::List;

use super::output::Paint;

/// Which part of a list.
#[derive(Debug, clap::Args)]
pub(super) struct ListArguments {
    /// Which service
    pub(super) service: ServiceName,
    /// Only those with a smaller number
    #[arg(long, value_name = "NUMBER")]
    before: Option<u64>,
    /// How many
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u8).range(1..=100))]
    limit: u8,
}

impl ListArguments {
    /// What the server is asked with.
    pub(super) fn query(&self) -> Vec<(&'static str, String)> {
        let mut query = vec![("limit", self.limit.to_string())];
        query.extend(self.before.map(|before| ("before", before.to_string())));
        query
    }
}

/// The line under a list that goes on.
pub(super) fn older<T>(paint: Paint, all: &List<T>) -> String {
    let line = |before| format!("{}\n", paint.dim(&format!("older ones: --before {before}")));
    all.next_before.map(line).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[derive(clap::Parser)]
    struct Line {
        #[command(flatten)]
        list: ListArguments,
    }

    #[test]
    fn a_list_is_asked_from_where_the_last_one_ended() {
        let query = |words: &[&str]| Line::try_parse_from(words).map(|line| line.list.query());
        assert_eq!(query(&["list", "shop"]).unwrap(), [("limit", "20".to_owned())]);
        let older = query(&["list", "shop", "--before", "7", "--limit", "2"]).unwrap();
        assert_eq!(older, [("limit", "2".to_owned()), ("before", "7".to_owned())]);
        assert!(
            query(&["list", "shop", "--limit", "0"]).is_err() && query(&["list", "shop", "--limit", "101"]).is_err()
        );
        assert_eq!(
            super::older(Paint::OFF, &List { items: vec![1], next_before: Some(7) }),
            "older ones: --before 7\n"
        );
        assert_eq!(super::older(Paint::OFF, &List { items: vec![1], next_before: None }), "");
    }
}
