//! What a server says of itself to somebody who is far away.

use reqwest::StatusCode;

use super::{Check, clock, difference_s};
use crate::cli::{client::Target, failure::Failure};

/// All checks that can be made from here.
pub(super) async fn look(target: &Target) -> Vec<Check> {
    let client = match target.anonymous() {
        Ok(client) => client,
        Err(failure) => return vec![of("server", failure)],
    };
    let mut checks = Vec::new();
    let headers = match client.get_plain("cannot reach the server", "healthz").await {
        Ok((StatusCode::OK, headers)) => {
            checks.push(Check::good("server", format!("{} answers", client.base())));
            headers
        }
        Ok((status, _)) => {
            let evidence = format!("{} answered {status} for /healthz", client.base());
            return vec![Check::bad("server", evidence, "check the address: is another program there?")];
        }
        Err(failure) => return vec![of("server", failure)],
    };
    let date = headers.get("date").and_then(|value| value.to_str().ok());
    if let Some(difference) = date.and_then(|date| difference_s(date, jiff::Timestamp::now())) {
        checks.push(clock("clock".into(), &format!("the server {}", client.base()), difference));
    }
    checks
}

fn of(name: &str, failure: Failure) -> Check {
    let fix = failure.next.join("; or: ");
    Check::bad(name, failure.why.unwrap_or(failure.what), fix)
}
