//! Runs as people see and steer them.

use pipelines::{
    ids::{RunId, ServiceName, TraceParent},
    journal::Origin,
    run::{Run, RunEvent},
    train::Event,
    trigger::{TriggerKind, TriggerSource},
};

use super::{App, AppError};
use crate::store::Page;

impl App {
    /// A run.
    ///
    /// # Errors
    /// When there is none with this number.
    pub fn run(&self, id: &RunId) -> Result<Run, AppError> {
        self.store.run(id)?.ok_or_else(|| AppError::NotFound { what: "run", id: id.to_string() })
    }

    /// Runs of a service, newest first.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn runs(&self, service: &ServiceName, page: Page) -> Result<Vec<Run>, AppError> {
        Ok(self.store.runs(service, page)?)
    }

    /// The place of a run among those that wait for a runner, from 1; none if it does not wait.
    #[must_use]
    pub fn run_position(&self, id: &RunId) -> Option<usize> {
        self.queue.work().place(id)
    }

    /// Stops a run.
    ///
    /// # Errors
    /// When it is over already.
    pub async fn run_cancel(&self, id: &RunId, reason: String, origin: Origin) -> Result<(), AppError> {
        let event = RunEvent::CancelRequested { reason };
        self.train_event(&id.service, origin, Event::Run { number: id.number, event }).await?;
        Ok(())
    }

    /// Lets a held run go on. Who may is said by the routes.
    ///
    /// # Errors
    /// When it does not wait for that.
    pub async fn run_allow(&self, id: &RunId, origin: Origin) -> Result<(), AppError> {
        let event = RunEvent::Allowed { by: origin.actor.clone() };
        self.train_event(&id.service, origin, Event::Run { number: id.number, event }).await?;
        Ok(())
    }

    /// Refuses a held run.
    ///
    /// # Errors
    /// When it does not wait for that.
    pub async fn run_decline(&self, id: &RunId, reason: String, origin: Origin) -> Result<(), AppError> {
        let event = RunEvent::Declined { by: origin.actor.clone(), reason };
        self.train_event(&id.service, origin, Event::Run { number: id.number, event }).await?;
        Ok(())
    }

    /// Where a person sees all that a held run changes: the forge's own comparison with the release branch, for
    /// repositories with an address of the web.
    ///
    /// # Errors
    /// When there is no such service.
    pub fn run_comparison(&self, run: &Run) -> Result<Option<String>, AppError> {
        let service = self.service(&run.id.service)?;
        Ok(comparison(&service.repository_url, service.effective_release_branch(), run.trigger.commit.as_str()))
    }

    /// Runs the same commit once more. Steps run again; an image of the same inputs is not built again. One from a fork is
    /// held anew.
    ///
    /// # Errors
    /// When there is no such run.
    pub async fn run_rerun(
        &self,
        id: &RunId,
        origin: Origin,
        traceparent: Option<TraceParent>,
    ) -> Result<RunId, AppError> {
        let run = self.run(id)?;
        self.room_for_runs(&id.service)?;
        let mut trigger = run.trigger.clone();
        trigger.source = TriggerSource::Person;
        trigger.requested_by = Some(origin.actor.clone());
        trigger.heard_at = None;
        trigger.traceparent = traceparent;
        if trigger.kind == TriggerKind::Push {
            trigger.kind = TriggerKind::Manual;
        }
        let event = Event::Triggered { trigger, rerun_of: Some(run.id), hold: self.config.hold };
        let applied = self.train_event(&id.service, origin, event).await?;
        applied.runs.into_iter().next().ok_or_else(|| AppError::Invalid("no run was made".into()))
    }
}

/// The page of GitHub, Gitea, Forgejo and GitLab that compares a commit with a branch.
fn comparison(repository_url: &str, branch: &str, commit: &str) -> Option<String> {
    let mut url = url::Url::parse(repository_url).ok().filter(|url| matches!(url.scheme(), "http" | "https"))?;
    url.host_str()?;
    url.set_username("").ok()?;
    url.set_password(None).ok()?;
    url.set_query(None);
    url.set_fragment(None);
    let path = url.path().trim_end_matches('/').trim_end_matches(".git").to_owned();
    url.set_path(&path);
    url.path_segments_mut().ok()?.push("compare").push(&format!("{branch}...{commit}"));
    Some(url.into())
}

#[cfg(test)]
mod tests {
    use super::comparison;

    #[test]
    fn the_comparison_is_on_the_forge_and_carries_no_password() {
        let at = |url| comparison(url, "main", "abc");
        let there = Some("https://git.example/team/shop/compare/main...abc".to_owned());
        assert_eq!(at("https://git.example/team/shop.git"), there);
        assert_eq!(at("https://ann:secret@git.example/team/shop/?x=1#y"), there);
        assert_eq!(at("ssh://git@git.example/team/shop.git"), None);
        assert_eq!(at("git@git.example:team/shop.git"), None);
    }
}
