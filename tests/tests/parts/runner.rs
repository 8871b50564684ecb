//! The runner on a real git server, a real engine and a real registry. Only the server is a stand-in: a desk that gives
//! out one job and keeps what it is told, as the server's own side of the protocol does.

#[path = "runner/desk.rs"]
mod desk;
#[path = "runner/hostile.rs"]
mod hostile;
#[path = "runner/isolation.rs"]
mod isolation;

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use charts::catalog::Catalog;
use integrations::docker::EngineConfig;
use pipelines::ids::RunnerName;
use pipelines::protocol::{
    Blame, GitAccess, Job, JobBounds, MirrorRule, OutgoingRules, RegistryAccess, Report, Repository, Secret,
    StepOutcome,
};
use pipelines::time::UnixMs;
use pipelines::trigger::{Trigger, TriggerSource};
use runner::{Agent, AgentConfig};
use tests::evidence::{self, Tier};
use tests::gitea::GiteaRepo;
use tests::{DockerEngine, Gitea, Part, Registry, Repo, require};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use desk::{Desk, Link};

const SECRET: &str = "hunter2-is-not-a-secret";
const PAGE: &str = "http://windlass.test/services/shop/runs/1";
const STATIC: &str = "service: shop\nbase: static-site@1\ntest: {testers: [qa@example.com]}\n";
const OWN: &str = "service: shop\nbase: dockerfile@1\ntest: {testers: [qa@example.com]}\n";

/// Real parts, and the runner's folder, which outlives a runner.
struct Yard {
    gitea: Gitea,
    repo: GiteaRepo,
    working_copy: Repo,
    registry: Registry,
    engine: &'static DockerEngine,
    state: tempfile::TempDir,
    desk: Arc<Desk>,
    runs: std::cell::Cell<u32>,
}

/// A runner at work; dropping it is a crash.
struct Crew {
    task: JoinHandle<()>,
}

impl Drop for Crew {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Yard {
    async fn open() -> Result<Self> {
        let engine = DockerEngine::shared().await?;
        let gitea = Gitea::start().await?;
        let repo = gitea.create_repo("shop", true).await?;
        Ok(Self {
            gitea,
            repo,
            working_copy: Repo::init()?,
            registry: Registry::start(Some(("robot", "registry-password"))).await?,
            engine,
            state: tempfile::tempdir()?,
            desk: Arc::default(),
            runs: std::cell::Cell::new(0),
        })
    }

    /// Commits these files and pushes them.
    fn push(&self, files: &[(&str, &str)]) -> Result<String> {
        for (path, text) in files {
            self.working_copy.write(path, text)?;
        }
        let commit = self.working_copy.commit("Ada <ada@example.com>", "a change\n\nand why")?;
        self.working_copy.push(&self.repo.url_with_credentials, "main")?;
        Ok(commit)
    }

    fn job(&self, commit: &str) -> Result<Job> {
        self.runs.set(self.runs.get() + 1);
        let (user, password) = self.gitea.admin();
        Ok(Job {
            run: format!("shop/{}", self.runs.get()).parse()?,
            attempt: 1,
            lease_ms: 60_000,
            created_at: UnixMs(1_800_000_000_000),
            trigger: Trigger::of_ref("refs/heads/main", commit.parse()?, TriggerSource::Hook),
            release_branch: "main".to_owned(),
            repository: Repository {
                url: self.repo.url.clone(),
                credential: GitAccess::Token { user: user.to_owned(), token: Secret::new(password) },
                known_hosts: Vec::new(),
                ca_pem: None,
            },
            registry: RegistryAccess {
                host: self.registry.host_port(),
                plain_http: true,
                login: Some(("robot".to_owned(), Secret::new("registry-password"))),
                ca_pem: None,
            },
            image_repository: "test/shop".to_owned(),
            live_commit: None,
            cache_from: None,
            mirrors: Vec::new(),
            masks: vec![Secret::new(SECRET)],
            page_url: PAGE.to_owned(),
            bounds: JobBounds { step_memory_bytes: 128 << 20, ..JobBounds::default() },
            outgoing: OutgoingRules::default(),
        })
    }

    /// A runner with the yard's folder.
    fn crew(&self) -> Result<Crew> {
        let name: RunnerName = "yard".parse()?;
        let engine = EngineConfig { host: self.engine.host().to_owned(), ..EngineConfig::default() };
        let catalog = Arc::new(Catalog::builtin()?);
        let mut config = AgentConfig::new(name, self.state.path().join("runner"), engine, catalog);
        config.heartbeat_ms = 200;
        config.retry_first_ms = 50;
        config.stop_grace_ms = 1_000;
        let agent = Agent::new(Link(self.desk.clone()), config)?;
        let task = tokio::spawn(async move {
            // The desk never sends a runner away.
            agent.run_forever(CancellationToken::new()).await.ok();
        });
        Ok(Crew { task })
    }

    /// Gives the job to a runner and waits for its end.
    async fn run(&self, job: Job) -> Result<Report> {
        let run = job.run.clone();
        self.desk.give(job);
        let _crew = self.crew()?;
        let end = self.desk.end_of(&run).await?;
        // Everything of the run is gone when the runner has left it.
        self.desk.left(&run).await?;
        let label = format!("windlass.run={run}");
        let containers = self.containers(&label)?;
        ensure!(containers.is_empty(), "containers are left: {containers:?}");
        ensure!(!self.state.path().join("runner/runs/shop").exists(), "the run's folder is left");
        Ok(end)
    }

    /// Containers of this yard's runner with a label.
    fn containers(&self, label: &str) -> Result<Vec<String>> {
        let mine = format!("label=windlass.runner={}", self.instance()?);
        let label = format!("label={label}");
        let ids = self.engine.docker(&["ps", "-aq", "--no-trunc", "--filter", &mine, "--filter", &label])?;
        Ok(ids.lines().map(str::to_owned).collect())
    }

    /// The runner's own name on the engine, as it makes it of its folder.
    fn instance(&self) -> Result<String> {
        let folder = self.state.path().join("runner");
        std::fs::create_dir_all(&folder)?;
        let folder = folder.canonicalize()?;
        let digest = pipelines::ids::Digest::of(folder.as_os_str().as_encoded_bytes());
        Ok(format!("yard-{}", &digest.short()[..8]))
    }
}

impl Drop for Yard {
    fn drop(&mut self) {
        if let Ok(instance) = self.instance() {
            self.engine.remove_labelled(&format!("windlass.runner={instance}")).ok();
            self.engine.docker(&["rmi", &format!("windlass-cache/{instance}-shop:last")]).ok();
        }
        // Images that have lost their name; one that is in use stays.
        let label = format!("label=org.opencontainers.image.url={PAGE}");
        let images = self.engine.docker(&["images", "-q", "--filter", "dangling=true", "--filter", &label]);
        for image in images.unwrap_or_default().lines() {
            self.engine.docker(&["rmi", image]).ok();
        }
    }
}

fn outcome<'a>(reports: &'a [Report], name: &str) -> Option<&'a StepOutcome> {
    reports.iter().rev().find_map(|report| match report {
        Report::StepFinished { step, outcome, .. } if step == name => Some(outcome),
        _ => None,
    })
}

#[tokio::test]
async fn a_push_becomes_an_image_in_the_registry_and_the_same_inputs_are_not_built_again() -> Result<()> {
    if !require(&[Part::Docker, Part::Registry, Part::Gitea]) {
        return Ok(());
    }
    let yard = Yard::open().await?;
    let definition = format!(
        "{STATIC}steps:\n\
         - name: page\n  image: busybox:1.36\n  environment: {{TOKEN: {SECRET}}}\n  commands:\n\
         \x20 - mkdir -p made && echo \"made by $CI_STEP_NAME of run $CI_PIPELINE_NUMBER\" > made/page.html\n\
         \x20 - echo token $TOKEN\n\
         \x20 - printf %s \"$TOKEN\" | base64\n\
         - name: only-tags\n  image: busybox:1.36\n  commands: [exit 1]\n  when: {{event: tag}}\n\
         - name: look\n  image: busybox:1.36\n  commands: [cat made/page.html, 'echo $CI_COMMIT_SHA $CI_COMMIT_BRANCH']\n"
    );
    let commit =
        yard.push(&[(".windlass.yaml", &definition), ("index.html", "<h1>hello</h1>"), ("secret.txt", "x")])?;
    // All images come from the mirror, which asks for a login.
    let base = yard.engine.push("busybox:1.36", &yard.registry, "mirror/busybox", "1.36").await?;
    let mirror = format!("{}/mirror/busybox", yard.registry.host_port());
    let mirrors = vec![MirrorRule { from: "busybox:*".to_owned(), to: format!("{mirror}:*") }];
    let job = Job { mirrors: mirrors.clone(), ..yard.job(&commit)? };
    let first = job.run.clone();
    let end = yard.run(job).await?;
    let logs = yard.desk.log_text(&first);
    let Report::Succeeded { digest, tag, reused_from: None, .. } = &end else { anyhow::bail!("{end:?}\n{logs}") };
    assert_eq!(yard.registry.digest("test/shop", tag).await?, Some(digest.to_string()));
    let reports = yard.desk.reports(&first);
    for step in ["checkout", "page", "look", "image", "push"] {
        assert_eq!(outcome(&reports, step), Some(&StepOutcome::Passed), "{step}: {logs}");
    }
    assert!(matches!(outcome(&reports, "only-tags"), Some(StepOutcome::Skipped { .. })));
    let (names, releases) = reports
        .iter()
        .find_map(|report| match report {
            Report::Prepared { steps, releases, .. } => Some((steps.clone(), *releases)),
            _ => None,
        })
        .context("it was prepared")?;
    assert_eq!(names, ["checkout", "page", "only-tags", "look", "image", "push"]);
    assert!(releases, "{logs}");
    assert!(reports.iter().any(|report| matches!(report,
        Report::CheckedOut { commit: info } if info.author == "Ada" && info.message.starts_with("a change"))));
    let look = yard.desk.lines(&first, "look");
    assert!(look.contains(&"made by page of run 1".to_owned()), "{look:?}");
    assert!(look.contains(&format!("{commit} main")), "{look:?}");
    let page = yard.desk.lines(&first, "page");
    assert_eq!(page[0], format!("image {mirror}:1.36"));
    let image = yard.desk.lines(&first, "image");
    assert!(image.iter().any(|line| line.ends_with(&format!("FROM {mirror}@{base}"))), "{image:?}");
    assert!(page.contains(&"token ***".to_owned()), "{page:?}");
    assert!(!logs.contains(SECRET) && !logs.contains("aHVudGVyMi1pcy1ub3Q"), "{logs}");
    // What the steps made is in the image, and what builds it is not.
    let image = format!("windlass-cache/{}-shop:last", yard.instance()?);
    let list =
        yard.engine.docker(&["run", "--rm", &image, "sh", "-c", "cd /srv/www && find . -type f && cat made/page.html"]);
    let list = list?;
    assert!(list.contains("./index.html") && list.contains("made by page of run 1"), "{list}");
    assert!(!list.contains("windlass-build") && !list.contains(".dockerignore"), "{list}");

    let job = Job { mirrors: mirrors.clone(), ..yard.job(&commit)? };
    let second = job.run.clone();
    let end = yard.run(job).await?;
    let Report::Succeeded { digest: again, tag, reused_from, .. } = &end else { anyhow::bail!("{end:?}") };
    assert_eq!((again, reused_from.as_ref()), (digest, Some(&first)));
    assert_eq!(yard.registry.digest("test/shop", tag).await?, Some(digest.to_string()));
    let reports = yard.desk.reports(&second);
    let Some(StepOutcome::Skipped { reason }) = outcome(&reports, "image") else { anyhow::bail!("{reports:?}") };
    assert_eq!(reason, "run 1 built an image of the same inputs");

    evidence::record("an image of the same inputs is not built again", Tier::RealPart, "0 builds");
    let commit = yard.push(&[("index.html", "<h1>changed</h1>")])?;
    let end = yard.run(Job { mirrors, ..yard.job(&commit)? }).await?;
    for name in [format!("{mirror}:1.36"), format!("{mirror}@{base}")] {
        yard.engine.docker(&["rmi", "--no-prune", &name]).ok();
    }
    assert!(matches!(&end, Report::Succeeded { digest: other, reused_from: None, .. } if other != digest), "{end:?}");
    Ok(())
}

#[tokio::test]
async fn failures_of_the_user_and_of_the_infrastructure_are_told_apart() -> Result<()> {
    if !require(&[Part::Docker, Part::Registry, Part::Gitea]) {
        return Ok(());
    }
    let mut yard = Yard::open().await?;
    let step =
        |commands: &str| format!("{OWN}steps: [{{name: test, image: 'busybox:1.36', commands: [{commands}]}}]\n");
    let good = step("'true'");
    let cases = [
        (
            "unknown key",
            "stepz: []\n".to_owned() + OWN,
            "FROM busybox:1.36\n",
            "the pipeline file .windlass.yaml has 1 error",
        ),
        ("failing step", step("exit 3"), "FROM busybox:1.36\n", "step test exited with code 3"),
        ("no such image", good.replace("busybox:1.36", "127.0.0.1:1000/x"), "FROM busybox:1.36\n", ""),
        ("failing command", good.clone(), "FROM busybox:1.36\nRUN exit 4\n", "returned a non-zero code: 4"),
        ("other service", good.replace("service: shop", "service: other"), "FROM busybox:1.36\n", "1 error"),
    ];
    for (what, file, dockerfile, words) in cases {
        let commit = yard.push(&[(".windlass.yaml", &file), ("Dockerfile", dockerfile)])?;
        let job = yard.job(&commit)?;
        let run = job.run.clone();
        let end = yard.run(job).await?;
        let logs = yard.desk.log_text(&run);
        let Report::Failed { blame, reason } = &end else { anyhow::bail!("{what}: {end:?}\n{logs}") };
        let expected = if what == "no such image" { Blame::Infrastructure } else { Blame::Code };
        assert_eq!(*blame, expected, "{what}: {reason}\n{logs}");
        assert!(reason.contains(words), "{what}: {reason}");
        assert!(logs.contains(words), "{what}: {logs}");
        if what == "unknown key" {
            assert!(logs.contains("did you mean") || logs.contains("steps"), "{logs}");
            assert!(logs.contains(".windlass.yaml:1:1"), "{logs}");
        }
        if what == "failing step" {
            assert!(outcome(&yard.desk.reports(&run), "image").is_none(), "no image after a failed step");
        }
    }
    let gone = "0123456789012345678901234567890123456789";
    let end = yard.run(yard.job(gone)?).await?;
    assert!(matches!(&end, Report::Failed { blame: Blame::Code, .. }), "a commit that vanished: {end:?}");

    yard.registry.kill();
    let commit = yard.push(&[(".windlass.yaml", &good), ("Dockerfile", "FROM busybox:1.36\n")])?;
    let end = yard.run(yard.job(&commit)?).await?;
    assert!(matches!(&end, Report::Failed { blame: Blame::Infrastructure, .. }), "no registry: {end:?}");
    Ok(())
}

#[tokio::test]
async fn steps_run_side_by_side_in_their_order_and_a_cancel_stops_them() -> Result<()> {
    if !require(&[Part::Docker, Part::Registry, Part::Gitea]) {
        return Ok(());
    }
    let yard = Yard::open().await?;
    // a and b need each other to be there at the same time; c needs both.
    let file = format!(
        "{OWN}steps:\n\
         - {{name: a, image: 'busybox:1.36', depends_on: [], commands: ['touch a; until [ -e b ]; do sleep 0.1; done']}}\n\
         - {{name: b, image: 'busybox:1.36', depends_on: [], commands: ['touch b; until [ -e a ]; do sleep 0.1; done']}}\n\
         - {{name: shrug, image: 'busybox:1.36', depends_on: [], failure: ignore, commands: [exit 1]}}\n\
         - {{name: c, image: 'busybox:1.36', depends_on: [a, b, shrug], commands: [ls a b, echo hanging, sleep 600]}}\n"
    );
    let commit = yard.push(&[(".windlass.yaml", &file), ("Dockerfile", "FROM busybox:1.36\n")])?;
    let job = yard.job(&commit)?;
    let run = job.run.clone();
    yard.desk.give(job);
    let _crew = yard.crew()?;
    yard.desk.line(&run, "c", "hanging").await?;
    yard.desk.cancel(&run, "enough");
    let end = yard.desk.end_of(&run).await?;
    let reports = yard.desk.reports(&run);
    assert_eq!(end, Report::Cancelled);
    assert_eq!(outcome(&reports, "a"), Some(&StepOutcome::Passed));
    assert_eq!(outcome(&reports, "b"), Some(&StepOutcome::Passed));
    assert!(matches!(outcome(&reports, "shrug"), Some(StepOutcome::Failed { exit_code: Some(1), .. })));
    assert_eq!(outcome(&reports, "c"), Some(&StepOutcome::Cancelled));
    yard.desk.left(&run).await?;
    assert!(yard.containers(&format!("windlass.run={run}"))?.is_empty());
    Ok(())
}

#[tokio::test]
async fn after_a_crash_of_the_runner_steps_are_adopted_and_a_build_is_visibly_started_again() -> Result<()> {
    if !require(&[Part::Docker, Part::Registry, Part::Gitea]) {
        return Ok(());
    }
    let yard = Yard::open().await?;
    let file = format!(
        "{OWN}steps:\n\
         - name: long\n  image: busybox:1.36\n  commands:\n\
         \x20 - i=0; while [ $i -lt 200 ]; do echo line $i; i=$((i+1)); done\n\
         \x20 - until [ -e go ]; do echo waiting >&2; sleep 0.2; done\n\
         \x20 - i=200; while [ $i -lt 400 ]; do echo line $i; i=$((i+1)); done; echo once >> count\n"
    );
    // The engine may have the layers of an earlier test: these are of this one.
    let nonce = yard.instance()?;
    let run_line = format!("RUN echo building-now; sleep 4; wc -l < /count; : {nonce}");
    let dockerfile = format!("FROM busybox:1.36\nCOPY count /count\n{run_line}\n");
    let commit = yard.push(&[(".windlass.yaml", &file), ("Dockerfile", &dockerfile)])?;
    let job = yard.job(&commit)?;
    let run = job.run.clone();
    yard.desk.give(job);

    let crew = yard.crew()?;
    yard.desk.line(&run, "long", "line 150").await?;
    let label = format!("windlass.run={run}");
    let before = yard.containers(&label)?;
    drop(crew);
    // While nobody watches, the step goes on.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let crew = yard.crew()?;
    yard.desk.line(&run, "long", "waiting").await?;
    assert_eq!(yard.containers(&label)?, before, "the container is the same");
    std::fs::write(yard.state.path().join(format!("runner/runs/{run}/workspace/go")), "")?;
    yard.desk.line(&run, "image", "building-now").await?;
    drop(crew);
    let _crew = yard.crew()?;
    let end = yard.desk.end_of(&run).await?;
    let logs = yard.desk.log_text(&run);
    assert!(matches!(end, Report::Succeeded { .. }), "{end:?}\n{logs}");
    let lines = yard.desk.lines(&run, "long");
    let numbers: Vec<u32> =
        lines.iter().filter_map(|line| line.strip_prefix("line ").and_then(|number| number.parse().ok())).collect();
    assert_eq!(numbers, (0..400).collect::<Vec<_>>());
    evidence::record("a crashed runner adopts its steps; no line lost or doubled", Tier::RealPart, "400 of 400 lines");
    let image = yard.desk.lines(&run, "image");
    assert!(image.contains(&"build started again after a restart".to_owned()), "{image:?}");
    assert!(image.contains(&"1".to_owned()), "the step ran once: {image:?}");
    assert!(yard.desk.gaps(&run).is_empty(), "{:?}", yard.desk.gaps(&run));
    yard.desk.left(&run).await?;
    assert!(yard.containers(&label)?.is_empty());
    Ok(())
}

#[tokio::test]
async fn a_value_that_a_step_was_given_stays_hidden_when_the_secret_is_set_anew() -> Result<()> {
    if !require(&[Part::Docker, Part::Registry, Part::Gitea]) {
        return Ok(());
    }
    let yard = Yard::open().await?;
    let file = format!(
        "{OWN}steps:\n\
         - name: long\n  image: busybox:1.36\n  secrets: [{{name: TOKEN, as: WORD}}]\n  commands:\n\
         \x20 - echo first $WORD\n\
         \x20 - until [ -e go ]; do echo waiting >&2; sleep 0.2; done\n\
         \x20 - echo then $WORD; echo $WORD > kept\n\
         - name: next\n  image: busybox:1.36\n  secrets: [TOKEN]\n  commands: [cat kept, echo now $TOKEN, exit 3]\n"
    );
    let commit = yard.push(&[(".windlass.yaml", &file), ("Dockerfile", "FROM busybox:1.36\n")])?;
    let (job, before, after) = (yard.job(&commit)?, "value-of-before", "set-anew-meanwhile");
    let run = job.run.clone();
    yard.desk.set_secret("TOKEN", before);
    yard.desk.give(job);
    let crew = yard.crew()?;
    yard.desk.line(&run, "long", "first ***").await?;
    drop(crew);
    // What the step printed is read again from the first line, by a runner that is given another value.
    yard.desk.set_secret("TOKEN", after);
    let _crew = yard.crew()?;
    std::fs::write(yard.state.path().join(format!("runner/runs/{run}/workspace/go")), "")?;
    let end = yard.desk.end_of(&run).await?;
    assert!(matches!(end, Report::Failed { blame: Blame::Code, .. }), "{end:?}");
    let logs = yard.desk.log_text(&run);
    for line in ["long| first ***", "long| then ***", "next| ***", "next| now ***"] {
        assert!(logs.lines().any(|found| found == line), "{line} is missing: {logs}");
    }
    assert!(!logs.contains(before) && !logs.contains(after), "{logs}");
    Ok(())
}
