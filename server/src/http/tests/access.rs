//! Who may call what: each route of the router is called by everybody, and `docs/access.md` says what has to come of it.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc};

use axum::{
    Router,
    body::{Body, to_bytes},
    http::{Method, Request, StatusCode, header},
    routing::get,
};
use tower::ServiceExt;

use super::{Stage, filled, signed_in};
use crate::{
    app::{Role, sessions::SeenFrom},
    http::{
        access::{Access, CSRF_HEADER, cookie_name, csrf_of},
        router::{Endpoint, Routes, routes, surrounded},
    },
    store::Account,
    testing::test_app_with,
};

const HOUR_MS: u64 = 3_600_000;
const START: &str = "<!-- routes:start -->\n";
const END: &str = "<!-- routes:end -->";

/// What became of a request at the door.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    /// The route answered it, whatever it said.
    Passed,
    /// Somebody has to sign in.
    SignIn,
    /// The bearer token is not good.
    BadToken,
    /// The role does not reach.
    Role,
    /// The token only reads.
    ReadsOnly,
}

/// Somebody at the door.
#[derive(Clone)]
enum Person {
    Stranger,
    Token(Role, String),
    /// A token of an admin that only reads.
    Reader(String),
    /// A runner with its credential.
    Runner(String),
    /// A token that was good.
    OldToken(&'static str, String),
    Session(Role),
    /// A session that was good.
    OldSession(&'static str, String),
}

impl Person {
    fn expected(&self, who: &str, changes: bool) -> Verdict {
        let needed = Role::ALL.into_iter().find(|role| role.word() == who);
        match self {
            Self::OldToken(..) => Verdict::BadToken,
            Self::Runner(_) if who == "runner" => Verdict::Passed,
            _ if who == "runner" => Verdict::SignIn,
            Self::Runner(_) if needed.is_some() => Verdict::SignIn,
            Self::Stranger | Self::OldSession(..) if needed.is_some() => Verdict::SignIn,
            Self::Token(role, _) | Self::Session(role) if needed.is_some_and(|needed| *role < needed) => Verdict::Role,
            Self::Reader(_) if needed.is_some() && changes => Verdict::ReadsOnly,
            _ => Verdict::Passed,
        }
    }

    fn name(&self) -> String {
        match self {
            Self::Stranger => "a stranger".into(),
            Self::Token(role, _) => format!("{} by token", role.word()),
            Self::Reader(_) => "a token that only reads".into(),
            Self::Runner(_) => "a runner".into(),
            Self::OldToken(which, _) => format!("a token, {which}"),
            Self::Session(role) => format!("{} by session", role.word()),
            Self::OldSession(which, _) => format!("a session, {which}"),
        }
    }

    fn token(&self) -> Option<&str> {
        match self {
            Self::Token(_, token) | Self::Reader(token) | Self::Runner(token) | Self::OldToken(_, token) => Some(token),
            _ => None,
        }
    }
}

async fn old_account(stage: &Stage) -> Account {
    stage.caller(Role::Admin).await;
    let secret = pipelines::protocol::Secret::new("a password of somebody who left");
    let origin = pipelines::journal::Origin::server();
    stage.app.account_create("left", "left@example.com", Role::Admin, secret, origin).await.unwrap()
}

async fn people(stage: &Stage) -> Vec<Person> {
    let app = &stage.app;
    let admin = stage.caller(Role::Admin).await;
    let token = async |caller: &crate::app::accounts::Caller, read_only, until| {
        let made = app.token_create(caller, "a test".into(), Role::Admin, read_only, until).await.unwrap();
        made.expose().to_owned()
    };
    let session = async |account: &Account| app.session_begin(account, &SeenFrom::default(), None).await.unwrap();

    let left = old_account(stage).await;
    let left_caller = crate::app::accounts::Caller { account: left.clone(), ..admin.clone() };
    let (left_token, left_session) = (token(&left_caller, false, None).await, session(&left).await);
    let lock = app.account_update("left", None, None, None, Some(true), pipelines::journal::Origin::server());
    lock.await.unwrap();

    let ended = session(&admin.account).await;
    app.sign_out(&ended, "").await.unwrap();
    let idle = session(&admin.account).await;
    let late = token(&admin, false, Some(app.now().plus_ms(HOUR_MS))).await;
    stage.pass_ms(app.config.bounds.session_idle_ms + 1);

    let revoked = token(&admin, false, None).await;
    let (id, _) = app.tokens_of("admin").unwrap().into_iter().find(|(_, token)| token.expires_at.is_none()).unwrap();
    app.token_delete(&admin, &id).await.unwrap();

    let mut people = vec![
        Person::Stranger,
        Person::Reader(token(&admin, true, None).await),
        Person::Runner(stage.registered_runner("box-1").await.expose().to_owned()),
        Person::OldToken("expired", late),
        Person::OldToken("revoked", revoked),
        Person::OldToken("of a locked account", left_token),
        Person::OldToken("made up", "wlt_nonsense".into()),
        Person::OldSession("idle", idle),
        Person::OldSession("signed out", ended),
        Person::OldSession("of a locked account", left_session),
        Person::OldSession("made up", "nonsense".into()),
    ];
    for role in Role::ALL {
        people.push(Person::Token(role, stage.token(role).await));
        people.push(Person::Session(role));
    }
    people
}

fn changes(method: &str) -> bool {
    !matches!(method, "GET" | "HEAD" | "OPTIONS")
}

async fn request(stage: &Stage, endpoint: &Endpoint, person: &Person) -> Request<Body> {
    let method = Method::from_bytes(endpoint.method.as_bytes()).unwrap();
    let mut request = Request::builder().method(method).uri(filled(stage, &endpoint.path));
    let is_api = endpoint.path.starts_with("/api/");
    if let Some(token) = person.token() {
        request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
    }
    let session = match person {
        // A new one each time: some routes end it.
        Person::Session(role) => Some(signed_in(stage, *role).await.0),
        Person::OldSession(_, key) => Some(key.clone()),
        _ => None,
    };
    if let Some(key) = session {
        request = request.header(header::COOKIE, format!("{}={key}", cookie_name(&stage.app)));
        request = request.header(CSRF_HEADER, csrf_of(&stage.app, &key));
    }
    let kind = if is_api { "application/json" } else { "application/x-www-form-urlencoded" };
    let body = if is_api { "{}" } else { "" };
    request.header(header::CONTENT_TYPE, kind).body(Body::from(body)).unwrap()
}

async fn verdict(router: &Router, request: Request<Body>) -> (Verdict, StatusCode) {
    let answer = router.clone().oneshot(request).await.unwrap();
    let status = answer.status();
    let to = answer.headers().get(header::LOCATION).map(|to| to.as_bytes().to_vec()).unwrap_or_default();
    if status.is_redirection() && to.starts_with(b"/sign-in?to=") {
        return (Verdict::SignIn, status);
    }
    if !status.is_client_error() {
        return (Verdict::Passed, status);
    }
    let body = to_bytes(answer.into_body(), 1 << 20).await.unwrap();
    let said = String::from_utf8_lossy(&body);
    let verdict = match status {
        StatusCode::UNAUTHORIZED if said.contains("\"bad-token\"") => Verdict::BadToken,
        StatusCode::UNAUTHORIZED => Verdict::SignIn,
        StatusCode::FORBIDDEN if said.contains("this needs the role") => Verdict::Role,
        StatusCode::FORBIDDEN if said.contains("this token only reads") => Verdict::ReadsOnly,
        _ => Verdict::Passed,
    };
    (verdict, status)
}

fn docs() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../docs/access.md")
}

/// The table of the page: `METHOD path` → who.
fn stated(page: &str) -> BTreeMap<String, String> {
    let table = page.split_once(START).and_then(|(_, rest)| rest.split_once(END)).expect("the page has a table").0;
    let rows =
        table.lines().skip(2).map(|line| line.trim_matches('|').split('|').map(|cell| cell.trim_matches([' ', '`'])));
    rows.map(|mut cells| {
        let mut cell = || cells.next().expect("three cells").to_owned();
        let (path, method, who) = (cell(), cell(), cell());
        (format!("{method} {path}"), who)
    })
    .collect()
}

fn table(endpoints: &[Endpoint]) -> String {
    let mut endpoints: Vec<_> = endpoints.iter().collect();
    endpoints.sort_by_key(|endpoint| (&endpoint.path, &endpoint.method));
    let row =
        |endpoint: &&Endpoint| format!("| `{}` | {} | {} |\n", endpoint.path, endpoint.method, endpoint.access.word());
    format!("| path | method | who |\n|---|---|---|\n{}", endpoints.iter().map(row).collect::<String>())
}

/// These fail here, once they are reached: the store of these tests lies in memory, and there is no file to copy.
const COPIES_THE_STORE: [&str; 1] = ["POST /api/v1/backup"];

fn small_stage() -> Stage {
    test_app_with(|config| config.bounds.wrong_proofs_max = u32::MAX)
}

/// Calls every route as everybody; gives what is otherwise than `page` says, and how many requests were sent.
async fn differences(stage: &Stage, routes: Routes, page: &str) -> (Vec<String>, usize) {
    let stated = stated(page);
    let people = people(stage).await;
    let table = routes.table.clone();
    let router = surrounded(Arc::clone(&stage.app), routes);
    let (mut wrong, mut sent) = (Vec::new(), 0);
    for endpoint in &table {
        let name = format!("{} {}", endpoint.method, endpoint.path);
        let Some(who) = stated.get(&name) else {
            wrong.push(format!("{name} is not in docs/access.md"));
            continue;
        };
        for person in &people {
            let expected = person.expected(who, changes(&endpoint.method));
            let (found, status) = verdict(&router, request(stage, endpoint, person).await).await;
            sent += 1;
            if found != expected {
                wrong.push(format!("{name}, {}: {status} is {found:?} and not {expected:?}", person.name()));
            }
            if status == StatusCode::INTERNAL_SERVER_ERROR && !COPIES_THE_STORE.contains(&name.as_str()) {
                wrong.push(format!("{name}, {}: {status}", person.name()));
            }
        }
    }
    let names: Vec<String> = table.iter().map(|endpoint| format!("{} {}", endpoint.method, endpoint.path)).collect();
    wrong.extend(stated.keys().filter(|name| !names.contains(name)).map(|name| format!("{name} is no route any more")));
    (wrong, sent)
}

#[tokio::test]
async fn every_route_lets_in_whom_docs_access_md_says_and_nobody_else() {
    let stage = small_stage();
    stage.awaiting("shop").await;
    let routes = routes(Arc::clone(&stage.app));
    let mut page = std::fs::read_to_string(docs()).expect("docs/access.md");
    if std::env::var_os(super::WRITE_VARIABLE).is_some() {
        let (before, rest) = page.split_once(START).expect("the page has a table");
        let after = rest.split_once(END).expect("the table has an end").1;
        page = format!("{before}{START}{}{END}{after}", table(&routes.table));
        std::fs::write(docs(), &page).unwrap();
    }
    let (wrong, sent) = differences(&stage, routes, &page).await;
    assert!(
        wrong.is_empty(),
        "{wrong:#?}\na new route needs a line: {}=1 cargo test -p server --lib docs_access writes it, you look at it",
        super::WRITE_VARIABLE
    );
    assert!(sent > 1_000, "only {sent} requests were sent");
}

#[tokio::test]
async fn a_route_without_its_guard_or_without_a_line_is_found() {
    let page = |line: &str| format!("{START}| path | method | who |\n|---|---|---|\n{line}{END}");
    let open = |app: &Arc<crate::app::App>| {
        Routes::new(Arc::clone(app)).unguarded(Method::GET, "/x", Access::Role(Role::Operator), get(async || "open"))
    };
    let stage = small_stage();
    let (wrong, sent) = differences(&stage, open(&stage.app), &page("| `/x` | GET | operator |\n")).await;
    // Whoever should have been turned away: strangers, runners, old sessions, and the three roles below, by token and by
    // session.
    assert_eq!(wrong.len(), 2 + 4 + 2 * 3, "of {sent}: {wrong:#?}");
    let stage = small_stage();
    let (wrong, _) = differences(&stage, open(&stage.app), &page("")).await;
    assert_eq!(wrong, ["GET /x is not in docs/access.md"]);
    let stage = small_stage();
    let (wrong, _) = differences(&stage, Routes::new(Arc::clone(&stage.app)), &page("| `/y` | GET | admin |\n")).await;
    assert_eq!(wrong, ["GET /y is no route any more"]);
}
