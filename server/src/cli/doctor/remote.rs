//! What a server says of itself to somebody who is far away.

use reqwest::StatusCode;
use server::http::api::model::{self, Answer, List};

use super::{Check, Verdict, clock, difference_s};
use crate::cli::{
    client::{Client, Target},
    failure::Failure,
    output::clean,
    status::fault_text,
};

/// All checks that can be made from here; with what the server sees itself, unless that was looked at already.
pub(super) async fn look(target: &Target, is_far: bool) -> Vec<Check> {
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
    // Only who has signed in is told what is behind the server.
    if let Ok(client) = target.client() {
        checks.extend(signed_in(&client, is_far).await);
    }
    checks
}

async fn signed_in(client: &Client, is_far: bool) -> Vec<Check> {
    let who: Answer<model::Whoami> = match client.get("cannot ask who you are", "api/v1/whoami", &[]).await {
        Ok(who) => who,
        Err(failure) => return vec![of("login", failure)],
    };
    let role = who.it.role.word().replace('_', " ");
    let mut checks = vec![Check::good("login", format!("as {} ({role})", who.it.account))];
    if is_far {
        match client.get::<Answer<model::Health>>("cannot ask how the server is", "api/v1/health", &[]).await {
            Ok(health) => checks.extend(health.it.findings.into_iter().map(seen)),
            Err(failure) => checks.push(of("health", failure)),
        }
    }
    let board: Answer<List<model::BoardRow>> = match client.get("cannot read the board", "api/v1/board", &[]).await {
        Ok(board) => board,
        Err(failure) => return checks.into_iter().chain([of("services", failure)]).collect(),
    };
    let rows = board.it.items;
    let faults: Vec<Check> = rows.iter().flat_map(faults).collect();
    if faults.is_empty() {
        checks.push(Check::good("services", format!("nothing is in the way of any of {}", rows.len())));
    }
    checks.extend(faults);
    checks
}

/// What the server sees itself.
fn seen(finding: model::Finding) -> Check {
    let verdict = match finding.state.as_str() {
        "good" => Verdict::Good,
        "warning" => Verdict::Warning,
        _ => Verdict::Bad,
    };
    let name = clean(&finding.name.replace('_', " "));
    Check { name, verdict, evidence: finding.evidence, fix: finding.fix }
}

/// What the infrastructure keeps from happening for a service.
fn faults(row: &model::BoardRow) -> Vec<Check> {
    let faults = [&row.poll_fault, &row.why.fault].into_iter().flatten();
    faults
        .map(|fault| {
            let fix = match fault.party.as_str() {
                "git" => "correct its repository address or credential: windlass service edit",
                "runner" => "see whether a runner is there: runner.parallel_runs in the configuration",
                _ => "windlass doctor --config FILE on the server's machine",
            };
            Check::bad(format!("service {}", row.service), fault_text(fault), fix)
        })
        .collect()
}

fn of(name: &str, failure: Failure) -> Check {
    let fix = failure.next.join("; or: ");
    Check::bad(name, failure.why.unwrap_or(failure.what), fix)
}
