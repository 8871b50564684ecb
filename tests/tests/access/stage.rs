//! A server within the test: the whole router on a socket, the real drivers with a mail folder, a clock that stands until it
//! is moved. Repository, runner and engine are played.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::{Context, Result};
use pipelines::{
    approval::{ApprovalEvent, ApprovalState},
    effect::{EffectKind, PendingEffect},
    ids::{Digest, ReleaseId, RunId, RunnerName, ServiceName},
    journal::Origin,
    labels::Labels,
    protocol::{
        CommitInfo, LogLine, LogStream, PROTOCOL_VERSION, Report, RunnerAbout, RunnerRequest, Secret, ServerReply,
    },
    release::{ReleaseEvent, ReleaseState},
    time::UnixMs,
    train::Event,
};
use serde_json::{Value, json};
use server::{
    app::{App, AppError, keys::Keys, services::ServiceInput, trains::Outcome},
    config::Config,
    driver::Drivers,
    http::router::router,
    letters::TemplateLetters,
    mailbox,
    store::{
        embedded::EmbeddedStore,
        engine::{self, EngineConfig},
        logs::{LogConfig, LogStore},
    },
};
use tempfile::TempDir;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// When the tests begin.
const START_MS: u64 = 1_795_000_000_000;
const MAIL_WITHIN: Duration = Duration::from_secs(30);
/// Who is asked for each release.
pub(crate) const TESTERS: [&str; 2] = ["qa@example.com", "second@example.com"];

/// The server.
pub(crate) struct Stage {
    pub(crate) app: Arc<App>,
    pub(crate) url: String,
    pub(crate) http: reqwest::Client,
    clock: Arc<AtomicU64>,
    folder: TempDir,
    shutdown: CancellationToken,
    tasks: TaskTracker,
}

impl Stage {
    /// Starts it with what `change` makes of its settings.
    pub(crate) async fn start(change: impl FnOnce(&mut Config)) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("http://{}", listener.local_addr()?);
        let http = tests::http_client();
        let mut config = config(folder.path(), &url)?;
        change(&mut config);
        let kept = folder.path().join("store");
        let store = Arc::new(EmbeddedStore::open(engine::open(&kept, &EngineConfig::default())?)?);
        let logs = Arc::new(LogStore::open(&folder.path().join("logs"), LogConfig::default())?);
        let clock = Arc::new(AtomicU64::new(START_MS));
        let hands = Arc::clone(&clock);
        let time = Arc::new(move || UnixMs(hands.load(Ordering::Relaxed)));
        let app = Arc::new(App::new(config, store, logs, Keys::from_bytes([7; 32]), time)?);
        let drivers = Arc::new(Drivers::new(Arc::clone(&app), Arc::new(TemplateLetters))?);
        let (shutdown, tasks) = (CancellationToken::new(), TaskTracker::new());
        tasks.spawn(drivers.run(shutdown.clone()));
        let service = router(Arc::clone(&app)).into_make_service_with_connect_info::<SocketAddr>();
        let ending = shutdown.clone();
        let served = axum::serve(listener, service).with_graceful_shutdown(async move { ending.cancelled().await });
        tasks.spawn(async move { served.await });
        Ok(Self { app, url, http, clock, folder, shutdown, tasks })
    }

    /// Ends it.
    pub(crate) async fn stop(self) {
        drop(self.http);
        self.shutdown.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    fn mails(&self) -> PathBuf {
        self.folder.path().join("mail")
    }

    /// The clock goes on.
    pub(crate) fn pass_ms(&self, span_ms: u64) {
        self.clock.fetch_add(span_ms, Ordering::Relaxed);
    }

    /// Registers a service.
    pub(crate) async fn service(&self, name: &str) -> Result<ServiceName> {
        let service: ServiceName = name.parse()?;
        let input = ServiceInput {
            repository_url: Some(format!("http://127.0.0.1:1/{name}.git")),
            hook_secret: Some(Secret::new("hook secret")),
            poll_interval_ms: Some(0),
            ..ServiceInput::default()
        };
        self.app.service_create(service.clone(), input, Origin::server()).await?;
        Ok(service)
    }

    /// A new release of the service waits for its testers.
    pub(crate) async fn awaiting(&self, service: &ServiceName) -> Result<ReleaseId> {
        self.awaiting_of(service, &People::default()).await
    }

    /// The same, for these people.
    pub(crate) async fn awaiting_of(&self, service: &ServiceName, people: &People) -> Result<ReleaseId> {
        let run = self.triggered(service).await?;
        self.built(&run, people).await?;
        self.tested(&run.release()).await?;
        Ok(run.release())
    }

    /// The release is healthy in the test environment: its testers are asked.
    pub(crate) async fn tested(&self, release: &ReleaseId) -> Result<()> {
        let event = Event::Release { number: release.number, event: ReleaseEvent::TestHealthy };
        self.perform(&release.service, EffectKind::DeployTest, event).await
    }

    async fn triggered(&self, service: &ServiceName) -> Result<RunId> {
        let number = self.app.train(service)?.last_run + 1;
        let trigger = json!({
            "kind": "push", "source": "hook", "git_ref": "refs/heads/main", "commit": format!("{number:040x}"),
            "pull_request": null, "from_fork": false, "subject": "Add a basket", "author": "Mei",
            "author_email": "mei@example.com", "requested_by": null,
        });
        let event = Event::Triggered {
            trigger: serde_json::from_value(trigger)?,
            rerun_of: None,
            hold: pipelines::hold::HoldBounds::default(),
        };
        self.app.train_event(service, Origin::server(), event).await?;
        Ok(RunId::new(service.clone(), number))
    }

    async fn built(&self, run: &RunId, people: &People) -> Result<()> {
        let runner: RunnerName = "runner-1".parse()?;
        let about = RunnerAbout { version: "0".into(), labels: Labels::default(), capacity: 9 };
        self.app.runner_embed(&runner, &about).await?;
        let lease = RunnerRequest::Lease { protocol: PROTOCOL_VERSION, about, busy_with: Vec::new() };
        let given = self.app.agent_request(&runner, lease).await?;
        anyhow::ensure!(matches!(given, ServerReply::Job(job) if job.run == *run), "the runner got no work");
        let at = self.app.now();
        let line = LogLine { at, stream: LogStream::Stdout, text: "4 passed".into() };
        let log =
            RunnerRequest::Log { run: run.clone(), attempt: 1, step: "test".into(), first_line: 0, lines: vec![line] };
        self.app.agent_request(&runner, log).await?;
        let commit = self.app.run(run)?.trigger.commit;
        let reports = [
            Report::CheckedOut {
                commit: CommitInfo {
                    sha: commit,
                    message: "Add a basket\n".into(),
                    author: "Mei".into(),
                    author_email: people.author.clone(),
                    committed_at: at,
                    changes: Vec::new(),
                },
            },
            Report::Prepared {
                steps: vec!["test".into()],
                plan: Box::new(serde_json::from_value(plan(people))?),
                releases: true,
            },
            Report::Succeeded {
                digest: Digest::of(format!("image of {run}").as_bytes()),
                tag: run.number.to_string(),
                reused_from: None,
                inputs: Digest::of(format!("inputs of {run}").as_bytes()),
            },
        ];
        for report in reports {
            let report = RunnerRequest::Report { run: run.clone(), attempt: 1, report };
            self.app.agent_request(&runner, report).await?;
        }
        Ok(())
    }

    /// Says what a driver would say of the pending effect of this kind.
    pub(crate) async fn perform(&self, service: &ServiceName, kind: EffectKind, event: Event) -> Result<()> {
        let pending: Option<PendingEffect> =
            self.app.queue().of_service(service).into_iter().find(|pending| pending.effect.kind() == kind);
        let pending = pending.with_context(|| format!("no {} is pending", kind.word()))?;
        Ok(self.app.effect_outcome(&pending.effect.key(), &pending, Outcome::event(event)).await?)
    }

    /// The time of the approval is over.
    pub(crate) async fn expire(&self, release: &ReleaseId) -> Result<()> {
        let approval = self.app.approval(release)?;
        self.pass_ms(approval.expires_at.since_ms(self.app.now()) + 1);
        self.timer(release, ApprovalEvent::Expired { round: approval.round }).await?;
        let state = self.app.approval(release)?.state;
        anyhow::ensure!(state == ApprovalState::Expired, "it is {state:?} after its end");
        Ok(())
    }

    /// A timer of the approval fires. The drivers sleep until their own clock says so, unless something wakes them; then
    /// they were first, and this comes too late.
    pub(crate) async fn timer(&self, release: &ReleaseId, event: ApprovalEvent) -> Result<()> {
        let event = Event::Approval { number: release.number, event };
        match self.app.train_event(&release.service, Origin::server(), event).await {
            Ok(_) | Err(AppError::Refused(_)) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// The link that was mailed to the tester about this round of the release.
    pub(crate) async fn link(&self, release: &ReleaseId, tester: &str) -> Result<String> {
        let wanted = self.app.approval_url(&self.app.approval(release)?, tester);
        self.mailed(tester, |text| text.lines().map(str::trim).find(|line| *line == wanted).map(str::to_owned)).await
    }

    /// The code with this place among the codes that were mailed to the tester for the release.
    pub(crate) async fn code(&self, release: &ReleaseId, tester: &str) -> Result<String> {
        let approval = self.app.approval(release)?;
        let serial = approval.link(tester).code_serial;
        let wanted = self.app.keys().approval_code(&approval, tester, serial);
        self.mailed(tester, |text| text.lines().map(str::trim).find(|line| *line == wanted).map(str::to_owned)).await
    }

    /// Waits for a mail to the tester in which `find` finds something.
    async fn mailed(&self, tester: &str, find: impl Fn(&str) -> Option<String>) -> Result<String> {
        let mut changes = self.app.changes();
        let look = async {
            loop {
                let mails = mailbox::list(&self.mails()).unwrap_or_default();
                let found = mails.iter().filter(|mail| mail.to.contains(tester)).find_map(|mail| find(&mail.text));
                match found {
                    Some(found) => return found,
                    // Each sent mail is told; a signal that was missed is made good by the next look.
                    None => drop(tokio::time::timeout(Duration::from_millis(200), changes.recv()).await),
                }
            }
        };
        tokio::time::timeout(MAIL_WITHIN, look).await.with_context(|| format!("no such mail came to {tester}"))
    }

    pub(crate) fn is_waiting(&self, release: &ReleaseId) -> Result<bool> {
        Ok(self.app.release(release)?.state == ReleaseState::AwaitingApproval)
    }
}

/// Who is asked for a release, and who wrote it.
pub(crate) struct People {
    pub(crate) testers: Vec<String>,
    pub(crate) approvals: u32,
    pub(crate) deputies: Vec<String>,
    pub(crate) author: String,
}

impl Default for People {
    fn default() -> Self {
        let testers = TESTERS.map(str::to_owned).to_vec();
        Self { testers, approvals: 1, deputies: Vec::new(), author: "mei@example.com".into() }
    }
}

fn plan(people: &People) -> Value {
    json!({
        "base": "static-site@1",
        "deploy": {
            "port": 8080, "host": null, "env": {}, "health_path": "/", "health_timeout_ms": 1_000, "replicas": 1,
            "memory_bytes": null, "cpu_milli": null, "command": [],
        },
        "test": {
            "testers": people.testers, "approvals": people.approvals, "deputies": people.deputies,
            "expires_ms": 30_u64 * 86_400_000,
        },
        "production": {
            "strategy": {"kind": "rolling"},
            "judge": pipelines::plan::JudgePolicy::default(),
        },
    })
}

fn config(folder: &Path, url: &str) -> Result<Config> {
    let secret = |name: &str, text: &str| -> Result<PathBuf> {
        let path = folder.join(name);
        std::fs::write(&path, text)?;
        Ok(path)
    };
    let config = json!({
        "state_dir": folder.join("state"), "public_url": url,
        // No engine: what is deployed is played.
        "docker_host": format!("unix://{}/no-engine.sock", folder.display()),
        "registries": {
            "test": {"host": "127.0.0.1:1", "plain_http": true, "user": "robot",
                "password_file": secret("registry", "mark-registry-password")?},
            "production": {"host": "127.0.0.1:2", "plain_http": true},
        },
        "mail": {"from": "Windlass <windlass@example.com>", "folder": folder.join("mail")},
        "runner": {"parallel_runs": 0},
    });
    let path = folder.join("windlass.yaml");
    std::fs::write(&path, config.to_string())?;
    Ok(Config::load(&path)?)
}
