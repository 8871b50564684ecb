//! Text of others never becomes markup: a corpus goes in by every way there is (commits, authors, branches, steps, log lines,
//! hooks, comments, names, browsers) and every page and stream is read as a browser reads it.

use std::sync::Arc;

use axum::{
    body::Body,
    http::{HeaderMap, Method, Request, StatusCode, header},
};
use pipelines::{
    ids::{RunId, ServiceName},
    journal::Origin,
    protocol::{CommitInfo, LogLine, LogStream, Report, RunnerRequest, Secret, ServerReply, StepOutcome},
    train::Event,
};
use serde_json::json;

use super::{Stage, filled, signed_in};
use crate::{
    app::{Role, approvals::actor_of, services::ServiceInput},
    http::router::routes,
    testing::{TESTER, commit, digest, test_app_with},
};

/// In every piece of the corpus: where it stands in a tag or an attribute's name, it was obeyed.
pub(crate) const MARK: &str = "xwl";

const CORPUS: [&str; 12] = [
    "<xwl-a>",
    "</bdi></code></title></textarea></script><xwl-b onload=xwl>",
    "\"><xwl-c>",
    "'><xwl-d>",
    "\" xwl-e=\"",
    "' xwl-f='",
    "<script>xwl()</script>",
    "<img src=xwl onerror=xwl>",
    "javascript:xwl()",
    "{{xwl}} ${xwl} <%=xwl%>",
    "\u{1b}]8;;javascript:xwl()\u{7}<xwl-g>\u{1b}]8;;\u{7}\u{1b}[31m<xwl-h>",
    "a\r\nset-cookie: xwl=1\r\n\r\n<xwl-i>",
];

fn all() -> String {
    CORPUS.join(" ")
}

/// The tags of a page as a browser reads them: name, and attributes with their values.
fn tags(page: &str) -> Vec<(String, Vec<(String, String)>)> {
    let chars: Vec<char> = page.chars().collect();
    let (mut at, mut found) = (0, Vec::new());
    while let Some(start) = (at..chars.len()).find(|i| chars[*i] == '<') {
        at = start + 1;
        let is_tag = chars.get(at).is_some_and(|c| c.is_ascii_alphabetic() || matches!(c, '/' | '!' | '?'));
        if !is_tag {
            continue;
        }
        let word = |from: usize| -> String {
            chars[from..].iter().take_while(|c| !c.is_whitespace() && !matches!(c, '>' | '=')).collect()
        };
        let name = word(at);
        at += name.chars().count();
        let mut attributes = Vec::new();
        while at < chars.len() && chars[at] != '>' {
            if chars[at].is_whitespace() || chars[at] == '/' {
                at += 1;
                continue;
            }
            let attribute = word(at);
            at += attribute.chars().count().max(1);
            let mut value = String::new();
            if chars.get(at) == Some(&'=') {
                at += 1;
                match chars.get(at).copied() {
                    Some(quote @ ('"' | '\'')) => {
                        value = chars[at + 1..].iter().take_while(|c| **c != quote).collect();
                        at += value.chars().count() + 2;
                    }
                    _ => {
                        value = word(at);
                        at += value.chars().count();
                    }
                }
            }
            attributes.push((attribute, value));
        }
        found.push((name.to_lowercase(), attributes));
    }
    found
}

/// Where text of the corpus was obeyed.
pub(crate) fn obeyed(page: &str) -> Vec<String> {
    let mut found = Vec::new();
    for (name, attributes) in tags(page) {
        if name.contains(MARK) {
            found.push(format!("the tag {name}"));
        }
        for (attribute, value) in attributes {
            let leads = matches!(attribute.as_str(), "href" | "src" | "action" | "formaction" | "data" | "poster");
            let is_script = value.trim_start().to_lowercase().starts_with("javascript:");
            if attribute.contains(MARK) || attribute.starts_with("on") || attribute == "style" || leads && is_script {
                found.push(format!("{attribute}={value} of {name}"));
            }
        }
    }
    let scripts = page.matches("<script").count();
    let own = page.matches("<script type=\"module\" src=\"/assets/").count();
    if scripts != own {
        found.push(format!("{scripts} scripts, {own} of ours"));
    }
    found
}

fn check_headers(what: &str, headers: &HeaderMap) {
    for (name, value) in headers {
        assert!(!name.as_str().contains(MARK), "{what}: the header {name}");
        let is_cookie = *name == header::SET_COOKIE;
        assert!(!is_cookie || !value.as_bytes().starts_with(MARK.as_bytes()), "{what}: {value:?}");
    }
}

/// A service whose every word was written by somebody who means harm.
pub(crate) async fn hostile(stage: &Stage) -> RunId {
    let name: ServiceName = "shop".parse().unwrap();
    let input = ServiceInput {
        repository_url: Some("https://git.example.com/shop.git".into()),
        hook_secret: Some(Secret::new("hook secret")),
        ..ServiceInput::default()
    };
    stage.app.service_create(name.clone(), input, Origin::server()).await.unwrap();
    // A tag releases; a branch of any name but the release branch only runs.
    triggered(stage, &name, "tag", "refs/tags/").await;
    let run = RunId::new(name.clone(), 1);
    build(stage, &run).await;
    stage.tested(&run.release()).await;
    triggered(stage, &name, "push", "refs/heads/").await;
    run
}

async fn triggered(stage: &Stage, name: &ServiceName, kind: &str, folder: &str) {
    let number = stage.app.train(name).unwrap().last_run + 1;
    let trigger = json!({
        "kind": kind, "source": "hook", "git_ref": format!("{folder}{}", all()), "commit": commit(number),
        "pull_request": null, "from_fork": false, "subject": all(), "author": all(), "author_email": all(),
        "requested_by": all(),
    });
    let trigger = serde_json::from_value(trigger).unwrap();
    let event = Event::Triggered { trigger, rerun_of: None, hold: stage.app.config.hold };
    stage.app.train_event(name, Origin::server(), event).await.unwrap();
}

async fn build(stage: &Stage, run: &RunId) {
    let runner: pipelines::ids::RunnerName = "runner-1".parse().unwrap();
    let given = stage.asked_for_work(&runner, Vec::new()).await;
    assert!(matches!(given, ServerReply::Job(_)));
    let at = stage.app.now();
    let steps = ["<xwl-a>", "\"><xwl-c>", "test"].map(str::to_owned);
    let lines: Vec<LogLine> = CORPUS
        .iter()
        .flat_map(|text| [LogStream::Stdout, LogStream::Stderr, LogStream::System].map(|stream| (text, stream)))
        .map(|(text, stream)| LogLine { at, stream, text: (*text).to_owned() })
        .collect();
    for step in &steps {
        let log = RunnerRequest::Log {
            run: run.clone(),
            attempt: 1,
            step: step.clone(),
            first_line: 0,
            lines: lines.clone(),
        };
        stage.app.agent_request(&runner, log).await.unwrap();
    }
    let plan = json!({
        "base": all(),
        "deploy": {
            "port": 8080, "host": null, "env": {}, "health_path": all(), "health_timeout_ms": 1_000, "replicas": 1,
            "memory_bytes": null, "cpu_milli": null, "command": [all()],
        },
        "test": {"testers": [TESTER], "expires_ms": 3_600_000},
        "production": {"strategy": {"kind": "rolling"}, "judge": pipelines::plan::JudgePolicy::default()},
    });
    let reports = [
        Report::CheckedOut {
            commit: CommitInfo {
                sha: stage.app.run(run).unwrap().trigger.commit,
                message: all(),
                author: all(),
                author_email: all(),
                committed_at: at,
                changes: Vec::new(),
            },
        },
        Report::Prepared {
            steps: steps.to_vec(),
            plan: Box::new(serde_json::from_value(plan).unwrap()),
            releases: true,
        },
        Report::StepStarted { step: steps[0].clone(), at },
        Report::StepFinished { step: steps[0].clone(), at, outcome: StepOutcome::Passed },
        Report::Succeeded {
            digest: digest(run.number),
            tag: all(),
            reused_from: None,
            inputs: pipelines::ids::Digest::of(b"inputs"),
        },
    ];
    for report in reports {
        stage.app.agent_request(&runner, RunnerRequest::Report { run: run.clone(), attempt: 1, report }).await.unwrap();
    }
}

/// What strangers and members send besides.
async fn sent(stage: &Stage) {
    for text in CORPUS {
        let safe: String = text.chars().filter(|c| !c.is_control() && c.is_ascii()).collect();
        let hook = Request::post("/hooks/shop")
            .header("x-gitea-event", &safe)
            .header("x-gitea-delivery", &safe)
            .header("x-gitea-signature", "00")
            .body(Body::from(text));
        assert_eq!(stage.send(hook.unwrap()).await.status, StatusCode::FORBIDDEN);
    }
    let admin = stage.caller(Role::Admin).await;
    stage.app.token_create(&admin, all(), Role::Admin, false, None).await.unwrap();
    let release = "shop/1".parse().unwrap();
    stage.app.approval_claim(&release, actor_of(&admin.account), admin.origin()).await.unwrap();
    let agent: String = all().chars().filter(|c| !c.is_control() && c.is_ascii()).collect();
    let body = "name=admin&password=password+of+admin".to_owned();
    let request = Request::post("/sign-in").header(header::USER_AGENT, agent).body(Body::from(body)).unwrap();
    assert_eq!(stage.send(request).await.status, StatusCode::SEE_OTHER);
}

async fn read(stage: &Stage, path: &str, cookie: &str) -> usize {
    let mut pages = 0;
    for path in [path.to_owned(), format!("{path}?fragment=main"), format!("{path}?{}", query())] {
        let request = Request::builder().method(Method::GET).uri(&path).header(header::COOKIE, cookie);
        let request = request.header(header::ACCEPT, "text/html").header(header::REFERER, "<xwl>");
        let answer = stage.send(request.body(Body::empty()).unwrap()).await;
        check_headers(&path, &answer.headers);
        let kind = answer.headers.get(header::CONTENT_TYPE).map(|kind| kind.to_str().unwrap().to_owned());
        let kind = kind.unwrap_or_default();
        let text = String::from_utf8_lossy(&answer.body);
        // JSON is taken by scripts that read it; a stream carries lines that a page takes in as markup.
        let markup = match kind.as_str() {
            kind if kind.starts_with("text/html") => text.into_owned(),
            kind if kind.starts_with("text/event-stream") => {
                let lines = text.lines().filter_map(|line| line.strip_prefix("data:"));
                lines.map(str::trim_start).filter(|data| !data.starts_with('{')).collect::<Vec<_>>().join("\n")
            }
            _ => continue,
        };
        assert_eq!(obeyed(&markup), Vec::<String>::new(), "{path}: {markup}");
        pages += usize::from(markup.contains(MARK));
    }
    pages
}

fn query() -> String {
    let mut query = url::form_urlencoded::Serializer::new(String::new());
    for name in ["q", "to", "filter", "from", "line", "step", "text", "state", "before", "at", "back"] {
        query.append_pair(name, &all());
    }
    query.finish()
}

#[tokio::test]
async fn text_of_others_never_becomes_markup() {
    let stage = test_app_with(|config| config.bounds.stream_life_ms = 100);
    hostile(&stage).await;
    sent(&stage).await;
    let (_, cookie) = signed_in(&stage, Role::Admin).await;
    let mut shown = 0;
    for endpoint in routes(Arc::clone(&stage.app)).table.iter().filter(|endpoint| endpoint.method == "GET") {
        shown += read(&stage, &filled(&stage, &endpoint.path), &cookie).await;
    }
    assert!(shown >= 15, "the corpus stands on {shown} pages only");
    // Decided by text too, and back at the pages.
    let admin = stage.caller(Role::Admin).await;
    let release = "shop/1".parse().unwrap();
    let decided =
        stage.app.approval_decide_signed_in(&release, &admin.account, digest(1), false, all(), admin.origin());
    decided.await.unwrap();
    for path in ["/", "/services/shop", "/services/shop/approvals/1", "/services/shop/runs/1", "/api/v1/audit"] {
        read(&stage, path, &cookie).await;
    }
}

#[test]
fn what_is_obeyed_is_found() {
    for bad in [
        "<p><xwl-a></p>",
        "<a href=\"javascript:alert(1)\">x</a>",
        "<a title=\"\" xwl-e=\"\">x</a>",
        "<b onclick=x>",
        "<script>1</script>",
        "<p style=\"x\">",
        "<a href='JavaScript:x'>",
    ] {
        assert!(!obeyed(bad).is_empty(), "{bad}");
    }
    for good in ["<p title=\"<xwl>\">&lt;xwl&gt; a < b</p>", "<script type=\"module\" src=\"/assets/1/x.js\"></script>"]
    {
        assert_eq!(obeyed(good), Vec::<String>::new(), "{good}");
    }
}
