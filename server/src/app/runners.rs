//! Runners as people see and steer them, and who is let in as one: tokens that register, credentials that prove. Tokens and
//! credentials are kept as digests only. What was last heard is kept in memory: after a restart everybody has the whole
//! time once more. Not here: what a runner asks and tells (`agents`).

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use pipelines::{
    ids::{RunId, RunnerName},
    journal::{Changed, Origin},
    labels::Labels,
    protocol::{CREDENTIAL_MARK, CREDENTIAL_PREFIX, RunnerAbout, Secret, credential_of},
    run::{Run, RunEvent},
    time::UnixMs,
    train::Event,
    why::Why,
};
use subtle::ConstantTimeEq;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{
    App, AppError,
    accounts::{Caller, digest_of, short},
    agents::runner_origin,
    throttle::{Throttle, WrongProof},
};
use crate::store::{NewEntry, RunnerRecord, RunnerState, RunnerToken, StoreError};
use crate::{config::Bounds, random};

/// How every token that registers runners begins, so that scanners of leaked secrets know it.
pub const REGISTRATION_PREFIX: &str = "wlreg_";
/// Characters of a runner's secret: 256 bits in base64url.
const SECRET_CHARS: usize = 43;
/// A runner's sign of life is stored again only after this time, in milliseconds.
const HEARD_STEP_MS: u64 = 60_000;
/// The time within which [`Bounds::runner_leases_per_minute_max`] counts, in milliseconds.
const LEASES_WINDOW_MS: u64 = 60_000;
/// Runners that one token may register.
pub const TOKEN_USES_MAX: u32 = 1_000;
/// Runs at the same time that a runner may say.
const CAPACITY_MAX: u32 = 1_000;

/// What is known of runners in memory only.
#[derive(Debug)]
pub(super) struct Crew {
    started: Instant,
    /// Questions for work, by runner.
    leases: Throttle,
    inner: Mutex<Inner>,
    /// Who changes a runner's record holds it from reading to the stored change.
    records: tokio::sync::Mutex<()>,
}

#[derive(Debug, Default)]
struct Inner {
    seen: HashMap<RunnerName, Seen>,
    /// When something was last heard of a run, in which attempt.
    runs: HashMap<RunId, (u32, Instant)>,
}

#[derive(Debug)]
struct Seen {
    heard: Instant,
    heard_at: UnixMs,
    /// Ends the question for work that waits.
    question: CancellationToken,
    turn: Arc<tokio::sync::Mutex<()>>,
}

impl Crew {
    pub(super) fn new(bounds: &Bounds) -> Self {
        Self {
            started: Instant::now(),
            leases: Throttle::new(bounds.runner_leases_per_minute_max, LEASES_WINDOW_MS),
            inner: Mutex::default(),
            records: tokio::sync::Mutex::default(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn with<T>(&self, runner: &RunnerName, work: impl FnOnce(&mut Seen) -> T) -> T {
        let mut inner = self.lock();
        let started = self.started;
        let seen = inner.seen.entry(runner.clone()).or_insert_with(|| Seen {
            heard: started,
            heard_at: UnixMs(0),
            question: CancellationToken::new(),
            turn: Arc::default(),
        });
        work(seen)
    }

    /// Something was heard of the runner.
    pub(super) fn heard_of(&self, runner: &RunnerName, now: UnixMs) {
        self.with(runner, |seen| (seen.heard, seen.heard_at) = (Instant::now(), now));
    }

    /// The runner asks for work; its question before is over. Gives what ends this one.
    pub(super) fn asks(&self, runner: &RunnerName) -> CancellationToken {
        let question = CancellationToken::new();
        self.with(runner, |seen| std::mem::replace(&mut seen.question, question.clone())).cancel();
        question
    }

    /// Held while a run is chosen for the runner.
    pub(super) fn turn(&self, runner: &RunnerName) -> Arc<tokio::sync::Mutex<()>> {
        self.with(runner, |seen| Arc::clone(&seen.turn))
    }

    /// Something was heard of the run.
    pub(super) fn heard(&self, run: &RunId, attempt: u32) {
        self.lock().runs.insert(run.clone(), (attempt, Instant::now()));
    }

    /// The run is over, or somebody else's.
    pub(super) fn forget(&self, run: &RunId) {
        self.lock().runs.remove(run);
    }

    /// For how long nothing was heard of this attempt, by a clock that nobody sets, in milliseconds.
    pub(super) fn silent_ms(&self, run: &RunId, attempt: u32) -> u64 {
        let heard = self.lock().runs.get(run).filter(|(known, _)| *known == attempt).map(|(_, at)| *at);
        millis(heard.unwrap_or(self.started))
    }

    fn runner_silent_ms(&self, runner: &RunnerName) -> u64 {
        millis(self.lock().seen.get(runner).map_or(self.started, |seen| seen.heard))
    }
}

fn millis(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX)
}

/// A runner with what it does at present.
#[derive(Clone, Debug)]
pub struct RunnerRow {
    /// Its record.
    pub record: RunnerRecord,
    /// The runs that it has.
    pub runs: Vec<RunId>,
    /// Since when nothing was heard of it, in milliseconds.
    pub silent_ms: u64,
    /// Whether it was heard of lately.
    pub is_there: bool,
}

/// A run that waits for a runner.
#[derive(Clone, Debug)]
pub struct WaitingRun {
    /// It.
    pub run: Run,
    /// Its place, from 1.
    pub position: usize,
    /// Why it waits.
    pub why: Why,
}

/// What a token is to be, and how often it may be used.
#[derive(Clone, Debug)]
pub struct NewRunnerToken {
    /// What it is for.
    pub label: String,
    /// How many runners it registers.
    pub uses: u32,
    /// How long it is good, in milliseconds; none: the configured time.
    pub life_ms: Option<u64>,
}

/// What a runner sends to be registered.
#[derive(Clone, Debug)]
pub struct Registration {
    /// The token.
    pub token: Secret,
    /// The name that it wants.
    pub name: RunnerName,
    /// What it alone knows from now on; random, made by itself, so that a repeat after a lost answer is the same.
    pub secret: Secret,
    /// What it says of itself.
    pub about: RunnerAbout,
}

fn check_secret(secret: &Secret) -> Result<(), AppError> {
    let is_fit = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    if secret.expose().len() == SECRET_CHARS && secret.expose().chars().all(is_fit) {
        return Ok(());
    }
    Err(AppError::Invalid("the runner's secret is not 32 random bytes in base64url".into()))
}

fn bounded(about: &RunnerAbout) -> RunnerAbout {
    RunnerAbout {
        version: about.version.chars().filter(char::is_ascii_graphic).take(40).collect(),
        capacity: about.capacity.clamp(1, CAPACITY_MAX),
        labels: about.labels.clone(),
    }
}

fn differences(before: &RunnerAbout, after: &RunnerAbout) -> [Option<Changed>; 3] {
    [
        Changed::of("version", &before.version, &after.version),
        Changed::of("runs at once", before.capacity, after.capacity),
        Changed::of("labels", &before.labels, &after.labels),
    ]
}

impl App {
    fn runner_entry(&self, name: &RunnerName, word: &'static str, detail: String, origin: Origin) -> NewEntry {
        NewEntry::new(self.now(), origin, format!("runner {name}"), word).detail(detail)
    }

    /// A runner.
    ///
    /// # Errors
    /// When there is none of this name.
    pub fn runner(&self, name: &RunnerName) -> Result<RunnerRecord, AppError> {
        self.store.runner(name)?.ok_or_else(|| AppError::NotFound { what: "runner", id: name.to_string() })
    }

    /// All runners that were not removed, by name.
    ///
    /// # Errors
    /// When the store cannot be read; so for the others.
    pub fn runners(&self) -> Result<Vec<RunnerRow>, AppError> {
        let work = self.queue.work();
        let mut runs: BTreeMap<&RunnerName, Vec<RunId>> = BTreeMap::new();
        for (run, runner) in &work.held {
            runs.entry(runner).or_default().push(run.clone());
        }
        let mut rows = Vec::new();
        for mut record in self.store.runners()?.into_iter().filter(|record| record.state != RunnerState::Gone) {
            let silent_ms = self.crew.runner_silent_ms(&record.name);
            if let Some(seen) = self.crew.lock().seen.get(&record.name) {
                record.heard_at = record.heard_at.max(seen.heard_at);
            }
            // While its question for work is held open it has nothing to say.
            let is_there =
                silent_ms < self.config.bounds.runner_lost_ms.saturating_add(self.config.bounds.lease_wait_ms);
            rows.push(RunnerRow { runs: runs.remove(&record.name).unwrap_or_default(), record, silent_ms, is_there });
        }
        Ok(rows)
    }

    /// The first `limit` runs that wait for a runner, in the order in which they are given out.
    ///
    /// # Errors
    /// As above.
    pub fn runs_waiting(&self, limit: usize) -> Result<Vec<WaitingRun>, AppError> {
        let work = self.queue.work();
        let mut waiting = Vec::new();
        for (index, id) in work.waiting.iter().take(limit).enumerate() {
            let run = self.run(id)?;
            waiting.push(WaitingRun { position: index + 1, why: self.run_why(&run)?, run });
        }
        Ok(waiting)
    }

    /// Whether a runner that is there, and is given work, has these labels.
    ///
    /// # Errors
    /// As above.
    pub fn runner_for(&self, labels: &Labels) -> Result<bool, AppError> {
        let settings = &self.config.runner;
        let embedded_state = || -> Result<Option<RunnerState>, AppError> {
            let Ok(name) = settings.name.parse() else { return Ok(None) };
            Ok(self.store.runner(&name)?.map(|record| record.state))
        };
        // It is part of this process: it need not have asked yet.
        if settings.parallel_runs > 0
            && labels.fit(&settings.all_labels())
            && embedded_state()?.is_none_or(|state| state == RunnerState::Active)
        {
            return Ok(true);
        }
        let takes = |row: &RunnerRow| row.is_there && row.record.state == RunnerState::Active;
        Ok(self.runners()?.iter().any(|row| takes(row) && labels.fit(row.record.labels())))
    }

    /// Notes that a runner was heard of, and what it is now.
    pub(super) async fn runner_heard(
        &self,
        name: &RunnerName,
        origin: Origin,
        about: Option<&RunnerAbout>,
    ) -> Result<(), AppError> {
        let now = self.now();
        self.crew.heard_of(name, now);
        let record = self.runner(name)?;
        let about = about.map(bounded);
        let has_changed = |record: &RunnerRecord| about.as_ref().is_some_and(|about| *about != record.about);
        if !has_changed(&record) && now.since_ms(record.heard_at) < HEARD_STEP_MS {
            return Ok(());
        }
        let _held = self.crew.records.lock().await;
        let mut record = self.runner(name)?;
        if record.state == RunnerState::Gone {
            return Err(AppError::Forbidden(format!("runner {name} was removed")));
        }
        let entry = has_changed(&record).then(|| {
            let fields = differences(&record.about, &about.clone().unwrap_or_default());
            self.runner_entry(name, "runner_changed", String::new(), origin).changed(fields)
        });
        record.about = about.unwrap_or(record.about);
        record.heard_at = now;
        self.store.runner_put(&record, entry).await?;
        Ok(())
    }

    /// Makes the embedded runner known. One that was drained stays drained.
    ///
    /// # Errors
    /// When a runner of its own has the name; when the store fails.
    pub async fn runner_embed(&self, name: &RunnerName, about: &RunnerAbout) -> Result<(), AppError> {
        let _held = self.crew.records.lock().await;
        let known = self.store.runner(name)?;
        if known.as_ref().is_some_and(|known| !known.embedded && known.state != RunnerState::Gone) {
            return Err(AppError::Exists(format!("runner {name}")));
        }
        let now = self.now();
        let record = RunnerRecord {
            name: name.clone(),
            about: bounded(about),
            state: known.as_ref().map_or(RunnerState::Active, |known| match known.state {
                RunnerState::Draining => RunnerState::Draining,
                RunnerState::Active | RunnerState::Gone => RunnerState::Active,
            }),
            embedded: true,
            credential: None,
            registered_at: known.as_ref().map_or(now, |known| known.registered_at),
            registered_by: "windlass".into(),
            heard_at: now,
        };
        let detail = "part of the server".to_owned();
        let entry = known.is_none().then(|| self.runner_entry(name, "runner_registered", detail, Origin::server()));
        Ok(self.store.runner_put(&record, entry).await?)
    }

    /// Stops giving work to a runner, or gives it work again.
    ///
    /// # Errors
    /// When there is none of this name, or it was removed.
    pub async fn runner_drain(&self, name: &RunnerName, drain: bool, origin: Origin) -> Result<(), AppError> {
        let _held = self.crew.records.lock().await;
        let record = self.runner(name)?;
        let (state, word) = match drain {
            true => (RunnerState::Draining, "runner_draining"),
            false => (RunnerState::Active, "runner_resumed"),
        };
        if record.state == RunnerState::Gone {
            return Err(AppError::NotFound { what: "runner", id: name.to_string() });
        }
        if record.state == state {
            return Ok(());
        }
        let changed = Changed::of("state", record.state.word(), state.word());
        let entry = self.runner_entry(name, word, String::new(), origin).changed([changed]);
        self.store.runner_put(&RunnerRecord { state, ..record }, Some(entry)).await?;
        self.work_for_runners.notify_waiters();
        Ok(())
    }

    /// Takes a runner's credential away at once. What it has is given to others.
    ///
    /// # Errors
    /// When there is none of this name, or it is part of the server.
    pub async fn runner_remove(&self, name: &RunnerName, origin: Origin) -> Result<(), AppError> {
        {
            let _held = self.crew.records.lock().await;
            let record = self.runner(name)?;
            if record.embedded && self.config.runner.parallel_runs > 0 && self.config.runner.name == name.as_str() {
                let way = "set runner.parallel_runs: 0 in the configuration, or drain it";
                return Err(AppError::Invalid(format!("runner {name} is part of the server; {way}")));
            }
            if record.state != RunnerState::Gone {
                let changed = Changed::of("state", record.state.word(), RunnerState::Gone.word());
                let entry = self.runner_entry(name, "runner_removed", String::new(), origin.clone()).changed([changed]);
                let gone = RunnerRecord { state: RunnerState::Gone, credential: None, ..record };
                self.store.runner_put(&gone, Some(entry)).await?;
            }
        }
        // No new run can be taken from here on; a crash before the end leaves the rest to the timers.
        let turn = self.crew.turn(name);
        let _held = turn.lock().await;
        self.crew.asks(name).cancel();
        let work = self.queue.work();
        for (run, _) in work.held.iter().filter(|(_, holder)| *holder == name) {
            let attempt = self.run(run)?.attempt;
            let lost_max = self.config.bounds.run_lost_max;
            let event = RunEvent::RunnerLost { attempt, lost_max, reason: "was removed".into() };
            match self.train_event(&run.service, origin.clone(), Event::Run { number: run.number, event }).await {
                // It ended in the meantime.
                Ok(_) | Err(AppError::Refused(_)) => self.crew.forget(run),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Makes a token that registers runners; it is shown once.
    ///
    /// # Errors
    /// When it would be good for too many.
    pub async fn runner_token_create(
        &self,
        caller: &Caller,
        new: NewRunnerToken,
    ) -> Result<(Secret, RunnerToken), AppError> {
        if !(1..=TOKEN_USES_MAX).contains(&new.uses) {
            return Err(AppError::Invalid(format!("a token registers 1 to {TOKEN_USES_MAX} runners")));
        }
        let now = self.now();
        // What is over is cleared away here: nobody else looks at it.
        let over = self.store.runner_tokens()?.into_iter().filter(|(_, token)| now >= token.expires_at);
        for (digest, token) in over {
            self.store
                .runner_token_delete(&digest, self.token_entry(&token, "runner_token_expired", Origin::server()))
                .await?;
        }
        let key = format!("{REGISTRATION_PREFIX}{}", random::text(random::KEY_BYTES));
        let token = RunnerToken {
            label: new.label.chars().filter(|c| !c.is_control()).take(100).collect(),
            uses_left: new.uses,
            created_at: now,
            created_by: caller.account.name.clone(),
            expires_at: now.plus_ms(new.life_ms.unwrap_or(self.config.bounds.runner_token_life_ms)),
        };
        let entry = self.token_entry(&token, "runner_token_created", caller.origin());
        self.store.runner_token_put(&digest_of(&key), &token, entry).await?;
        Ok((Secret::new(key), token))
    }

    fn token_entry(&self, token: &RunnerToken, word: &'static str, origin: Origin) -> NewEntry {
        let detail = format!("for {} runners", token.uses_left);
        NewEntry::new(self.now(), origin, format!("runner token {}", token.label), word).detail(detail)
    }

    /// The tokens that are good, with their ids.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn runner_tokens(&self) -> Result<Vec<(String, RunnerToken)>, AppError> {
        let now = self.now();
        let good = self.store.runner_tokens()?.into_iter().filter(|(_, token)| now < token.expires_at);
        Ok(good.map(|(digest, token)| (short(&digest), token)).collect())
    }

    /// Takes a token back, by its id (the start of its digest).
    ///
    /// # Errors
    /// When there is none.
    pub async fn runner_token_delete(&self, id: &str, origin: Origin) -> Result<(), AppError> {
        let found =
            self.store.runner_tokens()?.into_iter().find(|(digest, _)| id.len() >= 12 && digest.starts_with(id));
        let Some((digest, token)) = found else {
            return Err(AppError::NotFound { what: "runner token", id: id.to_owned() });
        };
        let entry = self.token_entry(&token, "runner_token_deleted", origin);
        Ok(self.store.runner_token_delete(&digest, entry).await?)
    }

    /// Registers a runner that shows a token, from the address `remote`. A repeat of the same registration is the same.
    ///
    /// # Errors
    /// When the token is not good (any more), the name is taken, or it was tried too often.
    pub async fn runner_register(&self, remote: &str, new: Registration) -> Result<RunnerRecord, AppError> {
        check_secret(&new.secret)?;
        let credential = digest_of(credential_of(&new.name, &new.secret).expose());
        let _held = self.crew.records.lock().await;
        let known = self.store.runner(&new.name)?.filter(|known| known.state != RunnerState::Gone);
        if let Some(known) = &known
            && known.credential.as_ref() == Some(&credential)
        {
            return Ok(known.clone());
        }
        let (digest, now) = (digest_of(new.token.expose()), self.now());
        let token = self.store.runner_tokens()?.into_iter().find(|(other, _)| *other == digest);
        let Some((_, token)) = token.filter(|(_, token)| now < token.expires_at && token.uses_left > 0) else {
            self.wrong_proof(WrongProof::RunnerToken, remote)?;
            return Err(AppError::Forbidden("the token is not good, was used, or its time is over".into()));
        };
        if known.is_some() {
            return Err(AppError::Exists(format!("runner {}", new.name)));
        }
        let active = self.store.runners()?.iter().filter(|record| record.state != RunnerState::Gone).count();
        if active >= self.config.bounds.runners_max {
            let max = self.config.bounds.runners_max;
            return Err(AppError::Invalid(format!("{max} runners are registered already (bounds.runners_max)")));
        }
        let record = RunnerRecord {
            about: bounded(&new.about),
            state: RunnerState::Active,
            embedded: false,
            credential: Some(credential),
            registered_at: now,
            registered_by: token.created_by.clone(),
            heard_at: now,
            name: new.name,
        };
        let proof = format!("registration token {}", short(&digest));
        let origin = runner_origin(&record.name).from_place(remote).proved_by(proof);
        let detail = format!("by the token {} of {}", token.label, token.created_by);
        let entry = self
            .runner_entry(&record.name, "runner_registered", detail, origin)
            .changed(differences(&RunnerAbout::default(), &record.about));
        match self.store.runner_register(&digest, &token, &record, entry).await {
            Err(StoreError::Exists(_)) => Err(AppError::Forbidden("the token was used by another runner".into())),
            answer => answer.map(|()| record).map_err(AppError::from),
        }
    }

    /// Gives a runner another secret, made by itself; the one before is good no more.
    ///
    /// # Errors
    /// When it was removed, or the secret is not one.
    pub async fn runner_rotate(&self, name: &RunnerName, secret: &Secret, origin: Origin) -> Result<(), AppError> {
        check_secret(secret)?;
        let _held = self.crew.records.lock().await;
        let record = self.runner(name)?;
        if record.state == RunnerState::Gone || record.embedded {
            return Err(AppError::Forbidden(format!("runner {name} has no credential")));
        }
        let credential = digest_of(credential_of(name, secret).expose());
        let before = record.credential.as_deref().map(short).unwrap_or_default();
        let changed = Changed::of("credential", before, short(&credential));
        let entry = self.runner_entry(name, "runner_rotated", String::new(), origin).changed([changed]);
        Ok(self.store.runner_put(&RunnerRecord { credential: Some(credential), ..record }, Some(entry)).await?)
    }

    /// The runner whose credential this is, and how the journal names it when it comes from `remote`; none if the credential
    /// is not good (any more).
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn runner_of_credential(
        &self,
        credential: &str,
        remote: &str,
    ) -> Result<Option<(RunnerName, Origin)>, AppError> {
        let name = credential
            .strip_prefix(CREDENTIAL_PREFIX)
            .and_then(|rest| rest.split_once(CREDENTIAL_MARK))
            .and_then(|(name, _)| name.parse::<RunnerName>().ok());
        let Some(name) = name else { return Ok(None) };
        let Some(record) = self.store.runner(&name)? else { return Ok(None) };
        let digest = digest_of(credential);
        let is_its = record.credential.is_some_and(|known| known.as_bytes().ct_eq(digest.as_bytes()).into());
        let proof = format!("credential {}", short(&digest));
        let origin = runner_origin(&name).from_place(remote).proved_by(proof);
        Ok((is_its && record.state != RunnerState::Gone).then_some((name, origin)))
    }

    /// Counts a runner's question for work.
    ///
    /// # Errors
    /// When it asks too often.
    pub fn runner_asks(&self, name: &RunnerName) -> Result<(), AppError> {
        self.crew.leases.count(name.as_str(), self.now()).map_err(|wait_ms| AppError::TooMany {
            detail: format!("runner {name} asks for work too often"),
            retry_after_s: u32::try_from(wait_ms.div_ceil(1_000)).unwrap_or(u32::MAX),
        })
    }
}
