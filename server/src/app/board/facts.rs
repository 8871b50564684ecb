//! What the store has of a service for the board, read once and kept until something of it changes: the store counts the
//! changes of each service ([`Store::generation`]), and what was read at another count is not used. Nothing else is kept:
//! whatever depends on the time, on the queue or on what is under way is found anew for each look.
//!
//! [`Store::generation`]: crate::store::Store::generation

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use pipelines::{
    approval::Approval,
    ids::{ReleaseId, RolloutId, ServiceName},
    release::{Release, ReleaseState},
    rollout::Rollout,
    run::{Run, RunState},
    service::Service,
    train::Train,
};

use super::{ENTRIES_SEEN_MAX, RUNS_SEEN_MAX, Subject};
use crate::{
    app::{App, AppError},
    store::Page,
};

/// What the store has of a service for its row.
#[derive(Debug)]
pub(super) struct Facts {
    pub(super) service: Arc<Service>,
    pub(super) train: Arc<Train>,
    pub(super) subject: Subject,
    pub(super) run: Option<Arc<Run>>,
    /// How it usually goes with such runs, or who ended it.
    pub(super) of_run: OfRun,
    pub(super) release: Option<Arc<Release>>,
    pub(super) approval: Option<Arc<Approval>>,
    pub(super) rollout: Option<Arc<Rollout>>,
    /// What the reason of the release is told with.
    pub(super) of_release: OfRelease,
    /// Number of the last rollout of the release.
    pub(super) release_rollout: Option<u32>,
    pub(super) live: Option<Arc<Release>>,
    pub(super) live_approval: Option<Arc<Approval>>,
    pub(super) live_rollout: Option<u32>,
}

/// What the store has beside a run for why it is not done.
#[derive(Debug, Default)]
pub(super) struct OfRun {
    pub(super) usual_ms: Option<u64>,
    pub(super) cancelled_by: Option<String>,
}

/// What the store has beside a release for why it is not live.
#[derive(Debug, Default)]
pub(super) struct OfRelease {
    pub(super) behind: Option<Approval>,
    pub(super) superseded_by: Option<String>,
    pub(super) rolling_out: Option<u32>,
}

/// Facts by service, each with the count of changes at which they were read.
#[derive(Debug, Default)]
pub(in crate::app) struct Known {
    services: Mutex<HashMap<ServiceName, (u64, Arc<Facts>)>>,
    names: Mutex<Option<(u64, Arc<Vec<ServiceName>>)>>,
}

impl Known {
    fn get(&self, name: &ServiceName, generation: u64) -> Option<Arc<Facts>> {
        let services = self.services.lock().unwrap_or_else(PoisonError::into_inner);
        services.get(name).filter(|(read_at, _)| *read_at == generation).map(|(_, facts)| Arc::clone(facts))
    }

    fn keep(&self, name: &ServiceName, generation: u64, facts: &Arc<Facts>, max: usize) {
        let mut services = self.services.lock().unwrap_or_else(PoisonError::into_inner);
        if services.len() < max || services.contains_key(name) {
            services.insert(name.clone(), (generation, Arc::clone(facts)));
        }
    }

    /// How many are kept.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.services.lock().unwrap_or_else(PoisonError::into_inner).len()
    }
}

impl App {
    /// The names of all services, in their order.
    pub(super) fn service_names(&self) -> Result<Arc<Vec<ServiceName>>, AppError> {
        // Counted before they are read: what changes in between is then read again.
        let generation = self.store.generation_of_services();
        let known = self.board_known.names.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some((read_at, names)) = known
            && read_at == generation
        {
            return Ok(names);
        }
        let names: Vec<ServiceName> = self.services()?.into_iter().map(|service| service.name).collect();
        let names = Arc::new(names);
        let kept = Some((generation, Arc::clone(&names)));
        *self.board_known.names.lock().unwrap_or_else(PoisonError::into_inner) = kept;
        Ok(names)
    }

    /// What the store has of a service.
    pub(super) fn facts_of(&self, name: &ServiceName) -> Result<Arc<Facts>, AppError> {
        // As above.
        let generation = self.store.generation(name);
        if let Some(facts) = self.board_known.get(name, generation) {
            return Ok(facts);
        }
        let facts = Arc::new(self.read_facts(name)?);
        self.board_known.keep(name, generation, &facts, self.config.bounds.board_services_in_memory_max);
        Ok(facts)
    }

    pub(super) fn read_facts(&self, name: &ServiceName) -> Result<Facts, AppError> {
        let service = self.service(name)?;
        let train = self.train(name)?;
        let release_of = |number: Option<u32>| -> Result<Option<Arc<Release>>, AppError> {
            number.map(|number| self.release(&ReleaseId::new(name.clone(), number)).map(Arc::new)).transpose()
        };
        let newest = release_of(train.newest_release)?;
        let live = if train.live == train.newest_release { newest.clone() } else { release_of(train.live)? };
        let mut run = self.newest_run(&train)?;
        let running = train.rollout.map(|number| self.rollout(&RolloutId::new(name.clone(), number))).transpose()?;
        let is_under_way = newest.as_ref().is_some_and(|release| release.state.is_under_way());
        let newer_run = |run: &Run| train.newest_release.is_none_or(|newest| run.id.number > newest);
        // What is under way goes before a newer run, so that nobody who is waited for is hidden by a push.
        let (subject, release) = if is_under_way {
            (Subject::Release, newest)
        } else if let Some(rollout) = &running {
            (Subject::Release, release_of(Some(rollout.release.number))?)
        } else if run.as_ref().is_some_and(|run| newer_run(run) && (run.may_release || newest.is_none())) {
            (Subject::Run, newest)
        } else if newest.is_some() {
            (Subject::Release, newest)
        } else {
            (Subject::Nothing, None)
        };
        let (mut approval, mut rollout, mut of_release) = (None, None, OfRelease::default());
        if let (Subject::Release, Some(release)) = (subject, &release) {
            if run.as_ref().is_none_or(|run| run.id != release.id.run()) {
                run = self.store.run(&release.id.run())?;
            }
            approval = self.store.approval(&release.id)?.map(Arc::new);
            rollout = match running {
                Some(rollout) if rollout.release == release.id => Some(rollout),
                _ => self.rollout_for_why(release)?,
            };
            of_release = self.of_release(release, &train)?;
        }
        let of_run = match (subject, &run) {
            (Subject::Run, Some(run)) => self.of_run(run)?,
            _ => OfRun::default(),
        };
        let last_rollout = |release: &Option<Arc<Release>>| -> Result<Option<u32>, AppError> {
            let Some(release) = release else { return Ok(None) };
            Ok(self.rollout_of(&release.id)?.map(|rollout| rollout.id.number))
        };
        let release_rollout = last_rollout(&release)?;
        let is_same = live.as_ref().map(|live| &live.id) == release.as_ref().map(|release| &release.id);
        let (live_approval, live_rollout) = match &live {
            Some(_) if is_same && subject == Subject::Release => (approval.clone(), release_rollout),
            Some(release) => (self.store.approval(&release.id)?.map(Arc::new), last_rollout(&live)?),
            None => (None, None),
        };
        Ok(Facts {
            service: Arc::new(service),
            train: Arc::new(train),
            subject,
            run: run.map(Arc::new),
            of_run,
            release,
            approval,
            rollout: rollout.map(Arc::new),
            of_release,
            release_rollout,
            live,
            live_approval,
            live_rollout,
        })
    }

    pub(super) fn of_run(&self, run: &Run) -> Result<OfRun, AppError> {
        Ok(match run.state {
            RunState::Running { .. } => OfRun { usual_ms: self.run_usual_ms(&run.id)?, cancelled_by: None },
            RunState::Cancelled => OfRun { usual_ms: None, cancelled_by: self.run_cancelled_by(run)? },
            _ => OfRun::default(),
        })
    }

    fn run_cancelled_by(&self, run: &Run) -> Result<Option<String>, AppError> {
        let subject = format!("run {}", run.id);
        let entries = self.store.journal(Some(&run.id.service), None, ENTRIES_SEEN_MAX)?;
        let asked = entries.into_iter().find(|entry| entry.subject == subject && entry.word == "run_cancel_requested");
        Ok(asked.map(|entry| entry.origin.actor))
    }

    pub(super) fn of_release(&self, release: &Release, train: &Train) -> Result<OfRelease, AppError> {
        let service = &release.id.service;
        let mut found = OfRelease::default();
        match release.state {
            ReleaseState::WaitingForTest { behind } => {
                found.behind = self.store.approval(&ReleaseId::new(service.clone(), behind))?;
            }
            ReleaseState::Superseded { by } => {
                let newer = self.store.release(&ReleaseId::new(service.clone(), by))?;
                found.superseded_by = newer.map(|newer| newer.commit.author).filter(|author| !author.is_empty());
            }
            ReleaseState::WaitingForRollout => {
                if let Some(number) = train.rollout {
                    found.rolling_out = Some(self.rollout(&RolloutId::new(service.clone(), number))?.release.number);
                }
            }
            _ => {}
        }
        Ok(found)
    }

    /// The newest run that may release, else the newest run.
    fn newest_run(&self, train: &Train) -> Result<Option<Run>, AppError> {
        if train.last_run == 0 {
            return Ok(None);
        }
        let newest = self.store.runs(&train.service, Page::newest(1))?;
        if newest.first().is_none_or(|run| run.may_release) {
            return Ok(newest.into_iter().next());
        }
        let runs = self.store.runs(&train.service, Page::newest(RUNS_SEEN_MAX))?;
        let best = runs.iter().find(|run| run.may_release).or(runs.first());
        Ok(best.cloned())
    }
}
