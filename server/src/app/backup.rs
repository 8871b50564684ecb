//! A backup of the running server. Not here: the file (`store::backup`).

use std::{io::Write, sync::Arc};

use super::{App, AppError, Role, accounts::Caller};
use crate::store::{
    NewEntry, StoreError,
    backup::{BackupError, Key, Snapshot, Written},
};

/// Who comes while another backup is made is told to come again after this time, in seconds.
const RETRY_AFTER_S: u32 = 30;

/// A backup that is ready to be written. While it is there, no other one is made.
#[derive(Debug)]
pub struct Backup {
    snapshot: Snapshot,
    _alone: tokio::sync::OwnedMutexGuard<()>,
}

impl Backup {
    /// Writes it. Blocks.
    ///
    /// # Errors
    /// Those of reading and writing.
    pub fn write(&self, out: impl Write) -> Result<Written, BackupError> {
        self.snapshot.write(out)
    }
}

impl App {
    /// Takes a copy of everything as of now, with the master key where the caller asks for it and may have it.
    ///
    /// # Errors
    /// When another one is being made, the caller may not have the key, or there is no room for the copy.
    pub async fn backup(self: &Arc<Self>, with_key: bool, caller: &Caller) -> Result<Backup, AppError> {
        if with_key && !caller.may(Role::Admin) {
            return Err(AppError::Forbidden(
                "a backup with the key opens every secret of this server: that needs the role admin".into(),
            ));
        }
        let alone = Arc::clone(&self.backups).try_lock_owned().map_err(|_| AppError::TooMany {
            detail: "another backup is being made".into(),
            retry_after_s: RETRY_AFTER_S,
        })?;
        let word = if with_key { "backup_made_with_key" } else { "backup_made" };
        let entry = NewEntry::new(self.now(), caller.origin(), "server", word);
        // Before it is made: whoever reads what the key opens must have been written down.
        self.store.journal_note(entry).await?;
        let app = Arc::clone(self);
        let taken = tokio::task::spawn_blocking(move || {
            let key = with_key.then(|| Key(app.keys.to_text()));
            let version = env!("CARGO_PKG_VERSION");
            Snapshot::take(&*app.store, &app.config.state_dir, key, version, app.now())
        });
        let snapshot = taken
            .await
            .map_err(|error| AppError::Invalid(format!("the backup ended early: {error}")))?
            .map_err(|error| match error {
                BackupError::Store(error) => AppError::from(error),
                BackupError::Io { ref source, .. } => {
                    match crate::store::engine::EngineError::from(std::io::Error::from(source.kind())) {
                        crate::store::engine::EngineError::Io(_) => AppError::Backup(error),
                        known => AppError::Store(StoreError::Engine(known)),
                    }
                }
                other => AppError::Backup(other),
            })?;
        Ok(Backup { snapshot, _alone: alone })
    }
}
