//! Room under the state folder: what is left is kept for finishing what has begun. New work (hooks, runs, services) is
//! refused before the disk is full, so that what is under way can still store its end. Not here: what the store does when
//! the disk is full all the same (`store::engine`).

use std::fmt;

use super::{App, AppError};
use crate::store::{StoreError, engine::EngineError};

/// Why no new work begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoRoom {
    /// Less is free than is kept for finishing.
    Low {
        /// Free bytes.
        free_bytes: u64,
        /// Bytes that are kept.
        min_bytes: u64,
    },
    /// The file system does not take writes.
    ReadOnly,
    /// The last change was refused; what the store said is in its trouble.
    Refused,
}

impl fmt::Display for NoRoom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Low { free_bytes, min_bytes } => write!(
                f,
                "the disk of the server is nearly full: {} MiB are free, {} MiB are kept for finishing what has begun",
                free_bytes >> 20,
                min_bytes >> 20
            ),
            Self::ReadOnly => f.write_str("the state folder of the server is read-only"),
            Self::Refused => f.write_str("the server's store refuses changes"),
        }
    }
}

impl App {
    /// Whether new work may begin. Looks at the file system, so it is true at once when there is room again.
    ///
    /// # Errors
    /// [`NoRoom`] says why not.
    pub fn room(&self) -> Result<(), NoRoom> {
        let min_bytes = self.config.bounds.disk_free_bytes_min;
        // What cannot be looked at is not a reason to refuse: the store finds out.
        let Ok(found) = rustix::fs::statvfs(&self.config.state_dir) else { return Ok(()) };
        if found.f_flag.contains(rustix::fs::StatVfsMountFlags::RDONLY) {
            return Err(NoRoom::ReadOnly);
        }
        let free_bytes = found.f_bavail.saturating_mul(found.f_frsize);
        if free_bytes < min_bytes {
            return Err(NoRoom::Low { free_bytes, min_bytes });
        }
        Ok(())
    }

    /// Why no new work begins, if it does not: no room, or a store that refused its last change.
    #[must_use]
    pub fn no_room(&self) -> Option<NoRoom> {
        self.room().err().or_else(|| self.refusing().map(|_| NoRoom::Refused))
    }

    /// [`App::room`] as an answer to whoever wants something new.
    ///
    /// # Errors
    /// When there is none.
    pub fn room_for_new_work(&self) -> Result<(), AppError> {
        self.room().map_err(|no| match no {
            NoRoom::Low { free_bytes, min_bytes } => AppError::NoRoom { free_bytes, min_bytes },
            NoRoom::ReadOnly => AppError::Store(StoreError::Engine(EngineError::ReadOnly)),
            NoRoom::Refused => AppError::Store(StoreError::Engine(EngineError::DiskFull)),
        })
    }
}

#[cfg(test)]
mod tests {
    use axum::http::{Method, StatusCode};
    use pipelines::{effect::EffectKind, ids::RunnerName, protocol::ServerReply};
    use serde_json::json;

    use super::*;
    use crate::{
        app::{HookContent, NewDelivery, Role},
        testing::{Stage, commit, test_app_with},
    };

    /// More than any disk has: nothing is ever free enough.
    fn full(config: &mut crate::config::Config) {
        config.bounds.disk_free_bytes_min = u64::MAX;
        config.bounds.lease_wait_ms = 1;
    }

    /// The same records, with room.
    async fn queued_without_room() -> (Stage, pipelines::ids::RunId) {
        let stage = test_app_with(|config| config.bounds.lease_wait_ms = 1);
        let run = stage.pushed("shop").await;
        (stage.with_config(full), run)
    }

    #[tokio::test]
    async fn new_work_is_refused_with_its_cause_and_what_was_acknowledged_waits() {
        let (stage, run) = queued_without_room().await;
        let token = stage.token(Role::Admin).await;
        let service = json!({"name": "new", "repository_url": "https://git.example.com/new.git"});
        for (path, body) in [
            ("/api/v1/services", service),
            ("/api/v1/services/shop/runs", json!({"git_ref": "main"})),
            ("/api/v1/services/shop/runs/1/rerun", json!({})),
        ] {
            let answer = stage.call(Method::POST, path, Some(&token), Some(body)).await;
            assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE, "{path}: {:?}", answer.body);
            let problem = answer.json();
            assert_eq!(problem["type"], "disk-low");
            assert!(problem["next"].as_str().unwrap().contains("free space"), "{problem}");
            assert!(answer.headers.contains_key("retry-after"));
        }
        let hook = NewDelivery {
            service: run.service.clone(),
            forge: "gitea",
            forge_id: "1".into(),
            event: "push".into(),
            at: stage.app.now(),
            remote: String::new(),
            content: Ok(HookContent::Nothing { reason: "a ping".into() }),
        };
        assert!(matches!(stage.app.delivery_record(hook).await, Err(AppError::NoRoom { .. })));
        assert!(stage.app.deliveries(&run.service, None, 10).unwrap().is_empty());
        let runner: RunnerName = "runner-1".parse().unwrap();
        assert!(matches!(stage.asked_for_work(&runner, Vec::new()).await, ServerReply::NoJob));
        assert_eq!(stage.call(Method::GET, "/readyz", None, None).await.status, StatusCode::SERVICE_UNAVAILABLE);
        let why = stage.call(Method::GET, "/api/v1/services/shop/status", Some(&token), None).await.json();
        assert_eq!((&why["why"]["word"], &why["why"]["fault"]["party"]), (&json!("fault"), &json!("store")), "{why}");
        // Nothing is lost: with room the same run begins.
        let stage = stage.with_config(|config| config.bounds.lease_wait_ms = 1);
        let given = stage.asked_for_work(&runner, Vec::new()).await;
        assert!(matches!(given, ServerReply::Job(job) if job.run == run));
        assert_eq!(stage.call(Method::GET, "/readyz", None, None).await.status, StatusCode::OK);
    }

    #[tokio::test]
    async fn what_is_under_way_goes_to_its_end() {
        let stage = test_app_with(|_| {});
        let run = stage.pushed("shop").await;
        let runner: RunnerName = "runner-1".parse().unwrap();
        stage.asked_for_work(&runner, Vec::new()).await;
        let stage = stage.with_config(full);
        // Its runner takes it up again after a restart, and leads it to its end.
        let release = stage.built(&run, pipelines::plan::Strategy::Rolling).await;
        stage.tested(&release).await;
        stage.approved(&release).await;
        stage.rolling_out(&release).await;
        assert!(stage.app.rollout_running(&release.service).is_ok());
        // What a poll finds is new work: it is found again when there is room.
        let name = release.service;
        let refs = [("refs/heads/main".to_owned(), commit(9))].into();
        let listed = crate::app::deliveries::Listed { refs, default_branch: None };
        let outcome = stage.app.poll_outcome(&name, &listed, None).unwrap();
        let pending = stage.pending(&name, EffectKind::PollRepository).unwrap();
        let stored = stage.app.effect_outcome(&pending.effect.key(), &pending, outcome).await;
        assert!(matches!(stored, Err(AppError::NoRoom { .. })));
        assert!(stage.pending(&name, EffectKind::PollRepository).is_some());
    }
}
