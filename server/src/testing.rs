//! An application for tests: in memory, with a clock that stands until it is moved, and the world played by the test: it
//! says what a repository, a runner and the drivers would say. Not here: real parts (the crate `tests`).

use std::{
    path::Path,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
};

use axum::{
    Router,
    body::{Body, Bytes, to_bytes},
    http::{HeaderMap, Method, Request, StatusCode, header},
    response::Response,
};
use pipelines::{
    effect::{EffectKind, PendingEffect},
    ids::{CommitSha, Digest, ReleaseId, RunId, RunnerName, ServiceName},
    journal::Origin,
    labels::Labels,
    plan::{DeliveryPlan, DeployPlan, JudgePolicy, ProductionPlan, Strategy, TestPlan},
    protocol::{
        CommitInfo, LogLine, LogStream, PROTOCOL_VERSION, Report, RunnerAbout, RunnerRequest, Secret, ServerReply,
        StepOutcome, credential_of,
    },
    release::ReleaseEvent,
    rollout::{RolloutEvent, judge::RevisionStats},
    time::UnixMs,
    train::Event,
    trigger::{Trigger, TriggerKind, TriggerSource},
};
use serde_json::Value;
use tower::ServiceExt;

use crate::{
    app::{
        App, Role,
        accounts::Caller,
        deliveries::Listed,
        keys::Keys,
        runners::{NewRunnerToken, Registration},
        services::ServiceInput,
        trains::Outcome,
    },
    config::Config,
    http::router::router,
    random,
    store::{
        embedded::EmbeddedStore,
        engine::{self, Direction, Engine, EngineConfig, EngineKind, KeyRange, Table},
        logs::{LogConfig, LogStore},
    },
};

/// When the tests begin.
pub(crate) const START_MS: u64 = 1_795_000_000_000;
/// The tester that the plan names.
pub(crate) const TESTER: &str = "qa@example.com";
/// Answers in tests are no longer.
const ANSWER_BYTES_MAX: usize = 16 << 20;

/// The application and what it stands on.
pub(crate) struct Stage {
    pub(crate) app: Arc<App>,
    clock: Arc<AtomicU64>,
    engine: Arc<dyn Engine>,
    router: OnceLock<Router>,
    folder: tempfile::TempDir,
}

/// An answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Answer {
    /// Its body as JSON.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {:?}", self.body))
    }
}

/// A fresh application.
pub(crate) fn test_app() -> Stage {
    test_app_with(|_| {})
}

/// A fresh application with other settings.
pub(crate) fn test_app_with(change: impl FnOnce(&mut Config)) -> Stage {
    let folder = tempfile::tempdir().unwrap();
    let mut config = config(folder.path());
    change(&mut config);
    let memory = EngineConfig { kind: EngineKind::Memory, ..EngineConfig::default() };
    let engine = engine::open(Path::new(""), &memory).unwrap();
    on_engine(config, engine, Arc::new(AtomicU64::new(START_MS)), folder)
}

fn on_engine(config: Config, engine: Arc<dyn Engine>, clock: Arc<AtomicU64>, folder: tempfile::TempDir) -> Stage {
    let store = Arc::new(EmbeddedStore::open(Arc::clone(&engine)).unwrap());
    let logs = Arc::new(LogStore::open(&folder.path().join("logs"), LogConfig::default()).unwrap());
    let hands = Arc::clone(&clock);
    let keys = Keys::from_bytes([7; 32]);
    let app = App::new(config, store, logs, keys, Arc::new(move || UnixMs(hands.load(Ordering::Relaxed)))).unwrap();
    Stage { app: Arc::new(app), clock, engine, router: OnceLock::new(), folder }
}

fn config(folder: &Path) -> Config {
    let text = format!(
        "state_dir: {}\npublic_url: https://windlass.example.com\nregistries:\n  test: {{host: test.example.com}}\n  \
         production: {{host: production.example.com}}\nmail: {{from: windlass@example.com, folder: {}}}\n",
        folder.display(),
        folder.join("mail").display(),
    );
    let path = folder.join("windlass.yaml");
    std::fs::write(&path, text).unwrap();
    Config::load(&path).unwrap()
}

impl Stage {
    /// A new life of the server on the same records and files, with other settings.
    pub(crate) fn with_config(self, change: impl FnOnce(&mut Config)) -> Stage {
        let Stage { clock, engine, folder, app, router } = self;
        drop((app, router));
        let mut config = config(folder.path());
        change(&mut config);
        on_engine(config, engine, clock, folder)
    }

    /// What the store stands on.
    pub(crate) fn engine(&self) -> &Arc<dyn Engine> {
        &self.engine
    }

    /// The clock goes on.
    pub(crate) fn pass_ms(&self, span_ms: u64) {
        self.clock.fetch_add(span_ms, Ordering::Relaxed);
    }

    /// An account with this role, whose name is the role's word.
    pub(crate) async fn caller(&self, role: Role) -> Caller {
        let name = role.word();
        let account = match self.app.account(name) {
            Ok(account) => account,
            Err(_) => {
                let email = format!("{name}@example.com");
                let password = Secret::new(format!("password of {name}"));
                self.app.account_create(name, &email, role, password, Origin::server()).await.unwrap()
            }
        };
        let (remote, proof) = (String::new(), String::new());
        Caller { role, account, channel: pipelines::journal::Channel::Api, read_only: false, remote, proof }
    }

    /// A bearer token of an account with this role.
    pub(crate) async fn token(&self, role: Role) -> String {
        let caller = self.caller(role).await;
        let token = self.app.token_create(&caller, "test".into(), role, false, None).await.unwrap();
        token.expose().to_owned()
    }

    /// The whole router.
    pub(crate) fn router(&self) -> Router {
        self.router.get_or_init(|| router(Arc::clone(&self.app))).clone()
    }

    /// Sends a request through the whole router.
    pub(crate) async fn send(&self, request: Request<Body>) -> Answer {
        let answer = self.router().oneshot(request).await.unwrap();
        let (parts, body) = answer.into_parts();
        let body = to_bytes(body, ANSWER_BYTES_MAX).await.unwrap();
        Answer { status: parts.status, headers: parts.headers, body }
    }

    /// Sends a request; gives the answer without reading it: a stream may go on for ever.
    pub(crate) async fn open(&self, request: Request<Body>) -> Response {
        self.router().oneshot(request).await.unwrap()
    }

    /// Sends a request; gives the status, and the text where it is a problem.
    pub(crate) async fn send_head(&self, request: Request<Body>) -> (StatusCode, String) {
        let answer = self.open(request).await;
        let status = answer.status();
        if !status.is_client_error() {
            return (status, String::new());
        }
        let body = to_bytes(answer.into_body(), ANSWER_BYTES_MAX).await.unwrap();
        (status, String::from_utf8_lossy(&body).into_owned())
    }

    /// All that is kept: records, pending effects, the files of the state folder.
    pub(crate) fn dump(&self) -> Vec<(String, Vec<u8>)> {
        let mut all = Vec::new();
        for number in 0..=u8::MAX {
            let table = Table::new(number, "dumped");
            for (key, value) in self.engine.scan(table, &KeyRange::all(), Direction::Forward, usize::MAX).unwrap() {
                all.push((format!("{number} {}", String::from_utf8_lossy(&key)), value));
            }
        }
        for (key, pending) in self.app.queue().all(usize::MAX) {
            all.push((key, format!("{pending:?}").into_bytes()));
        }
        let mut folders = vec![self.folder.path().to_owned()];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                let content = if path.is_dir() { Vec::new() } else { std::fs::read(&path).unwrap() };
                all.push((path.display().to_string(), content));
                folders.extend(path.is_dir().then_some(path));
            }
        }
        all.sort();
        all
    }

    /// Calls the API; without a token as nobody, without a body with none.
    pub(crate) async fn call(&self, method: Method, path: &str, token: Option<&str>, body: Option<Value>) -> Answer {
        let mut request = Request::builder().method(method).uri(path);
        if let Some(token) = token {
            request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
        }
        let body = match body {
            Some(body) => {
                request = request.header(header::CONTENT_TYPE, "application/json");
                Body::from(body.to_string())
            }
            None => Body::empty(),
        };
        self.send(request.body(body).unwrap()).await
    }

    /// Registers a service whose repository has one commit on `main`; its run waits for a runner.
    pub(crate) async fn pushed(&self, service: &str) -> RunId {
        let name: ServiceName = service.parse().unwrap();
        if self.app.service(&name).is_err() {
            let input = ServiceInput {
                repository_url: Some(format!("https://git.example.com/{service}.git")),
                hook_secret: Some(Secret::new("hook secret")),
                ..ServiceInput::default()
            };
            self.app.service_create(name.clone(), input, Origin::server()).await.unwrap();
        }
        self.listed(&name, commit(self.app.train(&name).unwrap().last_run + 1)).await;
        RunId::new(name.clone(), self.app.train(&name).unwrap().last_run)
    }

    /// A poll finds this commit on `main`.
    pub(crate) async fn listed(&self, name: &ServiceName, commit: CommitSha) {
        let refs = [("refs/heads/main".to_owned(), commit)].into();
        let listed = Listed { refs, default_branch: Some("main".into()) };
        let outcome = self.app.poll_outcome(name, &listed, None).unwrap();
        self.perform(name, EffectKind::PollRepository, outcome).await;
    }

    /// A stranger pushes to a pull request of a service that is there already; its run is held.
    pub(crate) async fn forked(&self, service: &str, pull_request: u64) -> RunId {
        let name: ServiceName = service.parse().unwrap();
        let number = self.app.train(&name).unwrap().last_run + 1;
        let trigger = Trigger {
            kind: TriggerKind::PullRequest,
            source: TriggerSource::Hook,
            git_ref: format!("refs/pull/{pull_request}/head"),
            commit: commit(number),
            pull_request: Some(pull_request),
            from_fork: true,
            subject: "Mine <b>bitcoin</b>".into(),
            author: "stranger".into(),
            author_email: String::new(),
            requested_by: None,
            heard_at: None,
            traceparent: None,
        };
        let event = Event::Triggered { trigger, rerun_of: None, hold: self.app.config.hold };
        self.app.train_event(&name, Origin::server(), event).await.unwrap();
        RunId::new(name, number)
    }

    /// Registers a runner as one does that is on a machine of its own; gives its credential.
    pub(crate) async fn registered_runner(&self, name: &str) -> Secret {
        let one = NewRunnerToken { label: "test".into(), uses: 1, life_ms: None };
        let token = self.app.runner_token_create(&self.caller(Role::Operator).await, one).await.unwrap().0;
        let (name, secret): (RunnerName, _) = (name.parse().unwrap(), Secret::new(random::text(random::KEY_BYTES)));
        let credential = credential_of(&name, &secret);
        let registration = Registration { token, name, secret, about: RunnerAbout::default() };
        self.app.runner_register("192.0.2.8", registration).await.unwrap();
        credential
    }

    /// A runner that the server knows asks for work.
    pub(crate) async fn asked_for_work(&self, runner: &RunnerName, busy_with: Vec<RunId>) -> ServerReply {
        let about = RunnerAbout { version: "0".into(), labels: Labels::default(), capacity: 9 };
        self.app.runner_embed(runner, &about).await.unwrap();
        let lease = RunnerRequest::Lease { protocol: PROTOCOL_VERSION, about, busy_with };
        self.app.agent_request(runner, lease).await.unwrap()
    }

    /// A runner takes the run and leads it to a pushed image; gives its release.
    pub(crate) async fn built(&self, run: &RunId, strategy: Strategy) -> ReleaseId {
        self.built_as(run, plan(strategy)).await
    }

    /// The same, delivered as this plan says.
    pub(crate) async fn built_as(&self, run: &RunId, plan: DeliveryPlan) -> ReleaseId {
        let runner: RunnerName = "runner-1".parse().unwrap();
        let given = self.asked_for_work(&runner, Vec::new()).await;
        assert!(matches!(given, ServerReply::Job(job) if job.run == *run));
        let at = self.app.now();
        let trigger = self.app.run(run).unwrap().trigger;
        let steps: Vec<String> = ["checkout", "test", "image", "push"].map(str::to_owned).into();
        let lines = ["npm ci", "added 3 packages", "npm test", "\u{1b}[32mok\u{1b}[0m <b>4 passed</b>"];
        let line = |text: &str| LogLine { at, stream: LogStream::Stdout, text: text.into() };
        let reports = [
            Report::CheckedOut {
                commit: CommitInfo {
                    sha: trigger.commit,
                    message: "Add a <basket>\n\nIt holds things.".into(),
                    author: "Mei".into(),
                    author_email: "mei@example.com".into(),
                    committed_at: at,
                    changes: Vec::new(),
                },
            },
            Report::Prepared { steps, plan: Box::new(plan), releases: true },
            Report::StepStarted { step: "test".into(), at },
            Report::StepFinished { step: "test".into(), at, outcome: StepOutcome::Passed },
            Report::Succeeded {
                digest: digest(run.number),
                tag: run.number.to_string(),
                reused_from: None,
                inputs: Digest::of(format!("inputs of {run}").as_bytes()),
            },
        ];
        let log = RunnerRequest::Log {
            run: run.clone(),
            attempt: 1,
            step: "test".into(),
            first_line: 0,
            lines: lines.map(line).into(),
        };
        self.app.agent_request(&runner, log).await.unwrap();
        for report in reports {
            let request = RunnerRequest::Report { run: run.clone(), attempt: 1, report };
            self.app.agent_request(&runner, request).await.unwrap();
        }
        run.release()
    }

    /// The release is healthy in the test environment: its testers are asked.
    pub(crate) async fn tested(&self, release: &ReleaseId) {
        let event = Event::Release { number: release.number, event: ReleaseEvent::TestHealthy };
        self.perform(&release.service, EffectKind::DeployTest, Outcome::event(event)).await;
    }

    /// A service with a release that waits for its testers.
    pub(crate) async fn awaiting(&self, service: &str) -> ReleaseId {
        let run = self.pushed(service).await;
        let release = self.built(&run, Strategy::Rolling).await;
        self.tested(&release).await;
        release
    }

    /// The same, with these testers and how many must approve.
    pub(crate) async fn awaiting_of(&self, service: &str, test: TestPlan) -> ReleaseId {
        let run = self.pushed(service).await;
        let release = self.built_as(&run, DeliveryPlan { test, ..plan(Strategy::Rolling) }).await;
        self.tested(&release).await;
        release
    }

    /// An admin approves the release.
    pub(crate) async fn approved(&self, release: &ReleaseId) {
        let caller = self.caller(Role::Admin).await;
        let digest = self.app.release(release).unwrap().digest;
        let comment = String::new();
        let origin = caller.origin();
        self.app.approval_decide_signed_in(release, &caller.account, digest, true, comment, origin).await.unwrap();
    }

    /// The image is in the production registry, and the new revision is healthy: its first share is being set.
    pub(crate) async fn rolling_out(&self, release: &ReleaseId) {
        let digest = self.app.release(release).unwrap().digest;
        let event = Event::Release { number: release.number, event: ReleaseEvent::Promoted { digest } };
        self.perform(&release.service, EffectKind::Promote, Outcome::event(event)).await;
        self.rollout(&release.service, EffectKind::StartRevision, RolloutEvent::RevisionHealthy).await;
    }

    /// The wanted share is in force.
    pub(crate) async fn in_force(&self, service: &ServiceName) {
        let intent = self.app.rollout_running(service).unwrap().intent;
        let none = RevisionStats::default();
        let event = RolloutEvent::TrafficAcknowledged { intent, canary: none.clone(), stable: none };
        self.rollout(service, EffectKind::ApplyTraffic, event).await;
    }

    /// An effect of the running rollout was performed.
    pub(crate) async fn rollout(&self, service: &ServiceName, kind: EffectKind, event: RolloutEvent) {
        let number = self.app.rollout_running(service).unwrap().id.number;
        self.perform(service, kind, Outcome::event(Event::Rollout { number, event })).await;
    }

    /// A service with its first release live.
    pub(crate) async fn live(&self, service: &str) -> ReleaseId {
        let release = self.awaiting(service).await;
        self.approved(&release).await;
        self.rolling_out(&release).await;
        while self.app.train(&release.service).unwrap().rollout.is_some() {
            match self.pending(&release.service, EffectKind::ApplyTraffic) {
                Some(_) => self.in_force(&release.service).await,
                None => self.rollout(&release.service, EffectKind::DrainRevision, RolloutEvent::Drained).await,
            }
        }
        release
    }

    /// The pending effect of this kind.
    pub(crate) fn pending(&self, service: &ServiceName, kind: EffectKind) -> Option<PendingEffect> {
        self.app.queue().of_service(service).into_iter().find(|pending| pending.effect.kind() == kind)
    }

    /// Says what a driver would say of the pending effect of this kind.
    pub(crate) async fn perform(&self, service: &ServiceName, kind: EffectKind, outcome: Outcome) {
        let pending = self.pending(service, kind).unwrap_or_else(|| panic!("no {} is pending", kind.word()));
        self.app.effect_outcome(&pending.effect.key(), &pending, outcome).await.unwrap();
    }
}

/// The n-th commit.
pub(crate) fn commit(number: u32) -> CommitSha {
    format!("{number:040x}").parse().unwrap()
}

/// The digest of the n-th image.
pub(crate) fn digest(number: u32) -> Digest {
    Digest::of(format!("image {number}").as_bytes())
}

fn plan(strategy: Strategy) -> DeliveryPlan {
    DeliveryPlan {
        base: "static-site@1".into(),
        deploy: DeployPlan {
            port: 8080,
            host: None,
            env: [].into(),
            health_path: "/".into(),
            health_timeout_ms: 1_000,
            replicas: 2,
            memory_bytes: None,
            cpu_milli: None,
            command: Vec::new(),
        },
        test: TestPlan { testers: vec![TESTER.into()], approvals: 1, deputies: Vec::new(), expires_ms: 3_600_000 },
        production: ProductionPlan { strategy, judge: JudgePolicy::default() },
    }
}
