//! `windlass serve`: puts store, application, drivers, the embedded runner and HTTP together, and takes them apart again.

use std::{path::Path, sync::Arc};

use anyhow::{Context, bail};
use charts::catalog::Catalog;
use integrations::docker::EngineConfig;
use pipelines::protocol::{LinkError, RunnerAbout, RunnerLink, RunnerRequest, ServerReply};
use runner::{Agent, AgentConfig};
use server::{
    app::{
        App,
        accounts::FIRST_ADMIN,
        keys::{KEY_VARIABLE, Keys},
        log_tail::LogTail,
        system_clock,
    },
    config::Config,
    driver::{Drivers, traces::Teller},
    gateway,
    http::{connections, metrics, router},
    letters::TemplateLetters,
    store::{
        backup,
        embedded::EmbeddedStore,
        engine::{self, EngineConfig as StoreEngine},
        logs::{LogConfig, LogStore},
    },
};
use tokio_util::sync::CancellationToken;

/// The embedded runner's way to the server: a function call.
struct InMemory {
    app: Arc<App>,
    runner: pipelines::ids::RunnerName,
}

impl RunnerLink for InMemory {
    async fn call(&self, request: RunnerRequest) -> Result<ServerReply, LinkError> {
        let answer = self.app.agent_request(&self.runner, request).await;
        answer.map_err(|error| LinkError::NoAnswer(error.to_string()))
    }
}

/// Serves until SIGTERM or Ctrl-C.
pub(crate) async fn serve(config_path: &Path, tail: Arc<LogTail>) -> anyhow::Result<()> {
    let config = Config::load(config_path)?;
    gateway::raise_descriptors();
    let shutdown = CancellationToken::new();
    let ending = shutdown.clone();
    tokio::spawn(async move {
        wait_for_signal().await;
        ending.cancel();
    });
    run(config, tail, shutdown).await
}

/// Waits for SIGTERM or Ctrl-C.
pub(crate) async fn wait_for_signal() {
    use tokio::signal::unix::{SignalKind, signal};
    let Ok(mut term) = signal(SignalKind::terminate()) else { return std::future::pending().await };
    tokio::select! {
        _ = term.recv() => {}
        _ = tokio::signal::ctrl_c() => {}
    }
}

/// Serves until `shutdown`.
async fn run(config: Config, tail: Arc<LogTail>, shutdown: CancellationToken) -> anyhow::Result<()> {
    let state = config.state_dir.clone();
    private_folder(&state).with_context(|| format!("failed to make the state folder {}", state.display()))?;
    let keys = load_key(&state)?;
    let store_config = StoreEngine {
        cache_bytes: config.bounds.store_cache_bytes,
        queue_batches: config.bounds.store_changes_waiting_max.max(1),
        ..StoreEngine::default()
    };
    let store = engine::open(&state.join("store"), &store_config).context("failed to open the store")?;
    let store = Arc::new(EmbeddedStore::open(store).context("failed to read the store")?);
    let logs = Arc::new(LogStore::open(&state.join("logs"), LogConfig::default()).context("failed to open the logs")?);
    let listener = tokio::net::TcpListener::bind(config.listen)
        .await
        .with_context(|| format!("failed to listen on {}; is another windlass running?", config.listen))?;
    let app = Arc::new(App::new(config, store, logs, keys, system_clock())?);
    app.logs_into(tail);
    if let Err(error) = app.audit_started().await {
        // On a full disk the server runs on with what it has.
        tracing::warn!(%error, "that the server was started is not in the audit log");
    }
    first_start(&app).await?;

    let drivers = Arc::new(Drivers::new(Arc::clone(&app), Arc::new(TemplateLetters))?);
    app.surrounded_by(&drivers);
    let teller = Teller::new(&app)?;
    let mut parts = tokio::task::JoinSet::new();
    parts.spawn(Arc::clone(&drivers).watch(shutdown.clone()));
    parts.spawn(Arc::clone(&drivers).run(shutdown.clone()));
    let sessions = Arc::clone(&app);
    let until = shutdown.clone();
    parts.spawn(async move { sessions.sessions_watch(until).await });
    let (healing, until) = (Arc::clone(&app), shutdown.clone());
    parts.spawn(async move { healing.hooks_heal(until).await });
    parts.spawn(Arc::clone(&drivers).sweep_forever(shutdown.clone()));
    parts.spawn(Arc::clone(&app).audit_watch(shutdown.clone()));
    if let Some(teller) = teller {
        parts.spawn(teller.tell(shutdown.clone()));
    }
    if app.config.runner.parallel_runs > 0 {
        let agent = embedded_runner(&app, drivers.engine_config().clone()).await?;
        let shutdown = shutdown.clone();
        parts.spawn(async move {
            if let Err(why) = agent.run_forever(shutdown).await {
                tracing::error!(%why, "the embedded runner ended");
            }
        });
    }
    if let Some(listen) = app.config.metrics.listen {
        let metrics = tokio::net::TcpListener::bind(listen)
            .await
            .with_context(|| format!("failed to listen on {listen} for metrics; is another windlass running?"))?;
        let (app, shutdown) = (Arc::clone(&app), shutdown.clone());
        parts.spawn(async move {
            tokio::select! {
                served = axum::serve(metrics, metrics::alone(app)).into_future() => drop(served),
                () = shutdown.cancelled() => {}
            }
        });
    }
    tracing::info!(listen = %listener.local_addr()?, public = app.config.public_url, "serving");
    connections::serve(Arc::clone(&app), router::router(app), listener, shutdown.clone()).await;
    shutdown.cancel();
    while parts.join_next().await.is_some() {}
    Ok(())
}

/// The key. A store whose key is missing gets no new one: nothing in it would open any more, and no mailed link be good.
fn load_key(state: &Path) -> anyhow::Result<Keys> {
    let key = state.join("key");
    if state.join(backup::read::UNFINISHED).exists() {
        bail!("start in {}: a restore was interrupted there; empty the folder and restore again", state.display());
    }
    if state.join("store").exists() && !key.exists() && std::env::var_os(KEY_VARIABLE).is_none() {
        bail!(
            "find the key: {} holds a store, and its key is missing; put the server's key at {} (mode 0600)",
            state.display(),
            key.display()
        );
    }
    Ok(Keys::load(&key)?)
}

fn private_folder(path: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path)?;
    // It may have been made by somebody who did not think of it: it holds what opens everything else.
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o700))
}

async fn first_start(app: &App) -> anyhow::Result<()> {
    if let Some(password) = app.account_first().await? {
        // On standard output and nowhere else: logs are kept, this is not.
        println!("windlass: first start at {}", app.config.public_url);
        println!("windlass: sign in as {FIRST_ADMIN} with the password {}", password.expose());
        println!("windlass: it is shown this once; change it under your name");
    }
    Ok(())
}

async fn embedded_runner(app: &Arc<App>, engine: EngineConfig) -> anyhow::Result<Agent<InMemory>> {
    let mut catalog = Catalog::builtin().context("failed to read the built-in catalog")?;
    if let Some(folder) = &app.config.catalog_dir {
        let more = Catalog::load(folder, &charts::catalog::Limits::default())
            .with_context(|| format!("failed to read the catalog in {}", folder.display()))?;
        catalog.extend(more).context("failed to join the catalogs")?;
    }
    let Ok(name) = app.config.runner.name.parse::<pipelines::ids::RunnerName>() else {
        bail!("runner.name: use 1 to 64 of a-z, 0-9, - and .");
    };
    let link = InMemory { app: Arc::clone(app), runner: name.clone() };
    let settings = &app.config.runner;
    let about = RunnerAbout {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        labels: settings.all_labels(),
        capacity: settings.parallel_runs,
    };
    app.runner_embed(&name, &about).await.context("failed to note the embedded runner; set another runner.name")?;
    let mut config = AgentConfig::new(name, app.config.state_dir.join("runner"), engine, Arc::new(catalog));
    config.labels = about.labels;
    config.parallel_runs = app.config.runner.parallel_runs as usize;
    Ok(Agent::new(link, config)?)
}
