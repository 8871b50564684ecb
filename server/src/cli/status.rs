//! `windlass status`: the board, and one service with why it is not live yet.

use pipelines::ids::ServiceName;
use server::http::api::model::{self, Answer, List};

use super::{
    Context,
    exit::Exit,
    failure::Failure,
    output::{Paint, ago, clean, fields, now, state, table},
};

/// Show all services at one glance, or one of them, with why it is not live yet
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Only this one, with its stations
    service: Option<ServiceName>,
    /// Only what waits for you
    #[arg(long, conflicts_with = "service")]
    needs_you: bool,
}

/// Shows it.
pub(crate) async fn run(context: &Context, arguments: &Arguments) -> Result<Exit, Failure> {
    let client = context.target.client()?;
    match &arguments.service {
        Some(service) => {
            let what = format!("cannot show {service}");
            let path = format!("api/v1/services/{service}/status");
            let row: Answer<model::BoardRow> = client.get(&what, &path, &[]).await?;
            context.out.answer(&row, one)?;
        }
        None => {
            let query = [("needs_you", arguments.needs_you.to_string())];
            let rows: Answer<List<model::BoardRow>> =
                client.get("cannot show the board", "api/v1/board", &query).await?;
            context.out.answer(&rows, |paint, rows| board(paint, &rows.items, arguments.needs_you))?;
        }
    }
    Ok(Exit::Ok)
}

/// What a row is about, in one word of state.
fn standing(row: &model::BoardRow) -> &str {
    match (row.subject.as_str(), &row.release, &row.run) {
        ("release", Some(release), _) => &release.state,
        ("run", _, Some(run)) => &run.state,
        _ => "idle",
    }
}

/// `412 (a1b2c3d)`: the number of what a row is about and its commit.
fn subject(row: &model::BoardRow) -> String {
    let (number, commit) = match (row.subject.as_str(), &row.release, &row.run) {
        ("release", Some(release), _) => (release.number, &release.commit),
        ("run", _, Some(run)) => (run.number, &run.commit),
        _ => return "-".into(),
    };
    format!("{number} ({})", short(&commit.sha))
}

/// The first characters of a commit, as people write it.
pub(crate) fn short(sha: &str) -> String {
    clean(sha).chars().take(7).collect()
}

fn board(paint: Paint, rows: &[model::BoardRow], only_yours: bool) -> String {
    if rows.is_empty() && only_yours {
        return "nothing waits for you\n".into();
    }
    if rows.is_empty() {
        return "no service is registered yet: windlass service add NAME --repository URL\n".into();
    }
    let line = |row: &model::BoardRow| {
        let live = row.live.as_ref().map_or_else(|| "-".to_owned(), |live| live.number.to_string());
        let name = if row.group == "needs_you" { paint.bold(&clean(&row.service)) } else { clean(&row.service) };
        vec![name, subject(row), state(paint, standing(row)), live, clean(&row.why.text)]
    };
    table(paint, &["SERVICE", "NUMBER", "STATE", "LIVE", "WHY"], &rows.iter().map(line).collect::<Vec<_>>())
}

fn one(paint: Paint, row: &model::BoardRow) -> String {
    let commit = match (row.subject.as_str(), &row.release, &row.run) {
        ("release", Some(release), _) => Some(&release.commit),
        (_, _, Some(run)) => Some(&run.commit),
        _ => None,
    };
    let commit = commit.map(|commit| format!("{} {}", clean(&commit.subject), paint.dim(&clean(&commit.author))));
    let live = row.live.as_ref().map(|live| {
        let since = live.live_at_ms.map(|at| format!(", since {}", ago(at, now()))).unwrap_or_default();
        format!("{} ({}){since}", live.number, short(&live.commit.sha))
    });
    let urls = row.release.as_ref();
    let text = fields(
        paint,
        &[
            ("service", paint.bold(&clean(&row.service))),
            ("number", subject(row)),
            ("commit", commit.unwrap_or_default()),
            ("state", state(paint, standing(row))),
            ("why", clean(&row.why.text)),
            ("fault", row.why.fault.as_ref().map(|fault| paint.bad(&fault_text(fault))).unwrap_or_default()),
            ("repository", row.poll_fault.as_ref().map(|fault| paint.bad(&fault_text(fault))).unwrap_or_default()),
            ("digest", urls.map(|release| clean(&release.digest)).unwrap_or_default()),
            ("test", urls.map(|release| clean(&release.test_url)).unwrap_or_default()),
            ("production", urls.map(|release| clean(&release.production_url)).unwrap_or_default()),
            ("live", live.unwrap_or_else(|| "nothing yet".into())),
        ],
    );
    format!("{}\n{text}", train(paint, &row.stations))
}

/// The stations of the train in one line: shape, word, colour.
fn train(paint: Paint, stations: &[model::Station]) -> String {
    let one = |station: &model::Station| {
        let name = clean(&station.name.replace('_', " "));
        match station.state.as_str() {
            "done" => paint.good(&format!("✓ {name}")),
            "moving" => paint.moving(&format!("● {name}")),
            "waiting" => paint.warn(&format!("! {name}")),
            "failed" | "fault" => paint.bad(&format!("✗ {name}")),
            "stopped" => paint.dim(&format!("- {name}")),
            _ => paint.dim(&format!("· {name}")),
        }
    };
    stations.iter().map(one).collect::<Vec<_>>().join(" → ")
}

/// A trouble of the infrastructure in one line.
pub(crate) fn fault_text(fault: &model::Fault) -> String {
    let next = ago(fault.next_at_ms, now());
    format!("{}: {} ({} tries, next {next})", clean(&fault.party), clean(&fault.error), fault.tries)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn station(name: &str, state: &str) -> model::Station {
        model::Station { name: name.into(), state: state.into(), at_ms: None }
    }

    #[test]
    fn a_train_shows_shape_and_word_of_each_station() {
        let stations = [station("commit", "done"), station("test_registry", "fault"), station("live", "to_come")];
        assert_eq!(train(Paint::OFF, &stations), "✓ commit → ✗ test registry → · live");
    }

    fn row() -> model::BoardRow {
        serde_json::from_value(serde_json::json!({
            "service": "shop", "group": "needs_you", "subject": "nothing", "stations": [], "run": null, "release": null,
            "rollout": null, "live": null, "waiting_release": null, "poll_fault": null,
            "why": {"word": "nothing_pushed", "text": "nothing was pushed yet", "next": "push",
                    "person": {"kind": "anyone", "names": []}, "until_ms": null, "fault": null},
        }))
        .unwrap()
    }

    #[test]
    fn the_board_says_why_for_each_service() {
        insta::assert_snapshot!(board(Paint::OFF, &[row()], false), @r"
        SERVICE  NUMBER  STATE   LIVE  WHY
        shop     -       - idle  -     nothing was pushed yet
        ");
    }

    #[test]
    fn one_service_says_why_it_is_not_live() {
        let text = one(Paint::OFF, &row());
        assert!(text.contains("nothing was pushed yet") && text.contains("nothing yet"), "{text}");
    }
}
