//! Another master key for everything that is sealed. It happens while the server is down and nobody else has the store
//! open: so nothing is sealed with the old key behind its back, and no server runs with half of it. A kill at any moment
//! leaves a store that the server opens, because the old keys stay beside the new one until nothing needs them; rotating
//! again goes on where it was.

use std::{io, path::PathBuf};

use pipelines::{ids::ServiceName, time::UnixMs};

use super::{
    keys::{KEY_VARIABLE, KeyError, Keys, OLD_KEYS_VARIABLE},
    secrets, services,
};
use crate::{
    crash,
    store::{NamedSecret, NewEntry, SealedAnew, SealedSecrets, SecretScope, Store, StoreError, records::Sealed},
};

/// The word of the rotation, for its kill points.
const ROTATION: &str = "key-rotation";
/// The places at which the rotation can be killed.
pub const PLACES: [&str; 5] = ["before", "written", "half", "sealed", "trimmed"];
/// Sealed texts per transaction.
const STEP: usize = 50;

/// Why the key was not rotated. The text fits after "failed to rotate the key: ".
#[derive(Debug, thiserror::Error)]
pub enum RotationError {
    /// The keys cannot be used.
    #[error(transparent)]
    Keys(#[from] KeyError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The file cannot be written.
    #[error("the key file {path} cannot be written")]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Something does not open with any of the keys.
    #[error("{0} does not open with the present key, so nothing was changed: set it anew or remove it first")]
    DoesNotOpen(String),
    /// The key comes from the environment, and no new one does.
    #[error(
        "the key comes from {KEY_VARIABLE}, which this command cannot change: put a new key there (openssl rand -base64 \
         32) and the present one into {OLD_KEYS_VARIABLE}, then run this again"
    )]
    NoNewKey,
}

/// What a rotation did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rotated {
    /// Texts that were sealed anew.
    pub sealed: usize,
    /// Whether an earlier rotation that was broken off was brought to its end; no further key was made then.
    pub resumed: bool,
}

/// What tells a server from others, as long as its store does not say: derived from the first key that it had.
#[must_use]
pub fn instance_of(keys: &Keys) -> String {
    hex::encode(&keys.oldest_mac("instance", &[])[..6])
}

/// Makes a new key (or takes that of the environment) and seals everything with it. With `end_links`, links and codes that
/// were mailed before are worth nothing afterwards; without, they stay good until the next rotation.
///
/// # Errors
/// [`RotationError`]. What was begun is gone on with by the next call.
pub async fn rotate(
    store: &dyn Store,
    key_file: &std::path::Path,
    end_links: bool,
    at: UnixMs,
) -> Result<Rotated, RotationError> {
    let mut keys = Keys::load(key_file)?;
    let in_environment = Keys::are_in_environment();
    let write = |keys: &Keys| {
        let file = |source| RotationError::File { path: key_file.to_owned(), source };
        if in_environment { Ok(()) } else { keys.write(key_file).map_err(file) }
    };
    let all = Everything::read(store)?;
    let waiting = all.check(&keys)?;
    if in_environment && keys.old_count() == 0 {
        return Err(RotationError::NoNewKey);
    }
    // Containers are told from those of other servers by it: it must not change with the key.
    if store.instance()?.is_none() {
        store.instance_set(&instance_of(&keys)).await?;
    }
    crash::point(ROTATION, "before");
    let resumed = waiting > 0 && !in_environment;
    if !resumed && !in_environment {
        keys = keys.rotated();
        write(&keys)?;
    }
    crash::point(ROTATION, "written");
    let sealed = all.seal(store, &keys, at).await?;
    crash::point(ROTATION, "sealed");
    // The old keys go only when it was seen that nothing needs them.
    if Everything::read(store)?.check(&keys)? == 0 {
        write(&keys.with_old(usize::from(!end_links)))?;
    }
    crash::point(ROTATION, "trimmed");
    Ok(Rotated { sealed, resumed })
}

/// All that is sealed.
struct Everything {
    services: Vec<(ServiceName, SealedSecrets)>,
    secrets: Vec<NamedSecret>,
}

impl Everything {
    fn read(store: &dyn Store) -> Result<Self, StoreError> {
        let mut all = Self { services: Vec::new(), secrets: store.secrets(&SecretScope::Shared)? };
        for service in store.services()? {
            all.secrets.extend(store.secrets(&SecretScope::Service { service: service.name.clone() })?);
            let secrets = store.service_secrets(&service.name)?;
            all.services.extend(secrets.map(|secrets| (service.name, secrets)));
        }
        Ok(all)
    }

    /// How much is not sealed with the current key; an error where something opens with none.
    fn check(&self, keys: &Keys) -> Result<usize, RotationError> {
        let mut waiting = 0;
        let mut look = |place: &str, sealed: &Sealed| -> Result<(), RotationError> {
            if !keys.is_current(place, sealed) {
                keys.open(place, sealed).map_err(|_| RotationError::DoesNotOpen(place.to_owned()))?;
                waiting += 1;
            }
            Ok(())
        };
        for (name, secrets) in &self.services {
            let mut secrets = secrets.clone();
            for (place, sealed) in services::sealed_of(name, &mut secrets) {
                look(&place, sealed)?;
            }
        }
        for secret in &self.secrets {
            look(&secrets::place(&secret.scope, &secret.services, &secret.name), &secret.sealed)?;
        }
        Ok(waiting)
    }

    async fn seal(self, store: &dyn Store, keys: &Keys, at: UnixMs) -> Result<usize, RotationError> {
        let mut count = 0;
        for part in self.services.chunks(STEP) {
            let mut anew = SealedAnew { services: part.to_vec(), ..SealedAnew::default() };
            for (name, secrets) in &mut anew.services {
                for (place, sealed) in services::sealed_of(name, secrets) {
                    *sealed = keys.seal(&place, &keys.open(&place, sealed)?, sealed.set_at)?;
                    count += 1;
                }
            }
            store.seal_anew(&anew).await?;
        }
        crash::point(ROTATION, "half");
        for part in self.secrets.chunks(STEP) {
            let mut anew = SealedAnew { secrets: part.to_vec(), ..SealedAnew::default() };
            for secret in &mut anew.secrets {
                let place = secrets::place(&secret.scope, &secret.services, &secret.name);
                secret.sealed = secrets::seal_again(keys, &place, secret)?;
                count += 1;
            }
            store.seal_anew(&anew).await?;
        }
        let detail = format!("{count} texts are sealed anew");
        let entry = NewEntry::new(at, super::audit::machine_origin(), "key", "key_rotated").detail(detail);
        store.seal_anew(&SealedAnew { entry: Some(entry), ..SealedAnew::default() }).await?;
        Ok(count)
    }
}
