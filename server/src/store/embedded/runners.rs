//! Where runners lie, and the tokens that register them. Of tokens and credentials only digests come here.

use pipelines::ids::RunnerName;

use super::{
    super::{
        engine::{Batch, Direction, EngineError, KeyRange},
        tables::{RUNNER_TOKENS, RUNNERS},
    },
    EmbeddedStore, LIST_MAX, NewEntry, RunnerRecord, RunnerToken, StoreError, Stored, pack,
};

type Change = Result<(Batch, ()), StoreError>;

impl EmbeddedStore {
    pub(super) fn runner_record(&self, name: &RunnerName) -> Result<Option<RunnerRecord>, StoreError> {
        self.get(RUNNERS, name.as_str().as_bytes())
    }

    pub(super) fn runner_records(&self) -> Result<Vec<RunnerRecord>, StoreError> {
        self.list(RUNNERS, &KeyRange::all(), Direction::Forward, LIST_MAX)
    }

    pub(super) fn runner_record_put(&self, runner: &RunnerRecord, entry: Option<NewEntry>) -> Change {
        let mut batch = Batch::new();
        Self::put(&mut batch, RUNNERS, runner.name.as_str().as_bytes(), runner)?;
        if let Some(entry) = entry {
            Self::add_entry(&mut batch, entry, None);
        }
        Ok((batch, ()))
    }

    pub(super) fn register_runner(
        &self,
        digest: &str,
        token: &RunnerToken,
        runner: &RunnerRecord,
        entry: NewEntry,
    ) -> Stored<()> {
        let sent = self.send(self.runner_registration(digest, token, runner, entry));
        Box::pin(async move {
            match sent.await {
                Err(StoreError::Engine(EngineError::Conflict { .. })) => {
                    Err(StoreError::Exists("a runner of this token".into()))
                }
                answer => answer,
            }
        })
    }

    /// Fails with a conflict where the token changed since it was read: two that show it at once do not both register.
    fn runner_registration(&self, digest: &str, token: &RunnerToken, runner: &RunnerRecord, entry: NewEntry) -> Change {
        let mut batch = Batch::new();
        batch.expect(RUNNER_TOKENS, digest, pack(RUNNER_TOKENS, token)?);
        let left = RunnerToken { uses_left: token.uses_left.saturating_sub(1), ..token.clone() };
        if left.uses_left == 0 {
            batch.delete(RUNNER_TOKENS, digest);
        } else {
            Self::put(&mut batch, RUNNER_TOKENS, digest.as_bytes(), &left)?;
        }
        Self::put(&mut batch, RUNNERS, runner.name.as_str().as_bytes(), runner)?;
        Self::add_entry(&mut batch, entry, None);
        Ok((batch, ()))
    }

    pub(super) fn registration_token_delete(&self, digest: &str, entry: NewEntry) -> Change {
        let mut batch = Batch::new();
        batch.delete(RUNNER_TOKENS, digest.as_bytes());
        Self::add_entry(&mut batch, entry, None);
        Ok((batch, ()))
    }
}
