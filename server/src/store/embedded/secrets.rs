//! Where secrets that steps can name lie, when each was handed out last, and what tells this server from others. What is
//! sealed comes in sealed: no key is known here.

use pipelines::ids::SecretName;

use super::{
    super::{
        engine::{Batch, Direction, KeyRange},
        tables::{NAMED_SECRETS, SECRET_USES, SERVER},
    },
    EmbeddedStore, LIST_MAX, NamedSecret, NewEntry, SECRETS, SealedAnew, SecretScope, SecretUse, StoreError,
};

/// The only key of [`SERVER`] so far.
const INSTANCE: &[u8] = b"instance";

/// The service (none for shared ones; no service has an empty name), a zero byte, and the name.
fn key_of(scope: &SecretScope, name: &str) -> Vec<u8> {
    let service = scope.service().map_or("", |service| service.as_str());
    format!("{service}\0{name}").into_bytes()
}

type Change = Result<(Batch, ()), StoreError>;

impl EmbeddedStore {
    pub(super) fn named_secret(
        &self,
        scope: &SecretScope,
        name: &SecretName,
    ) -> Result<Option<NamedSecret>, StoreError> {
        self.get(NAMED_SECRETS, &key_of(scope, name.as_str()))
    }

    pub(super) fn named_secrets(&self, scope: &SecretScope) -> Result<Vec<NamedSecret>, StoreError> {
        self.list(NAMED_SECRETS, &KeyRange::prefix(&key_of(scope, "")), Direction::Forward, LIST_MAX)
    }

    pub(super) fn named_secret_use(
        &self,
        scope: &SecretScope,
        name: &SecretName,
    ) -> Result<Option<SecretUse>, StoreError> {
        self.get(SECRET_USES, &key_of(scope, name.as_str()))
    }

    pub(super) fn named_secret_put(&self, secret: &NamedSecret, entry: NewEntry) -> Change {
        let mut batch = Batch::new();
        Self::put(&mut batch, NAMED_SECRETS, &key_of(&secret.scope, secret.name.as_str()), secret)?;
        Self::add_entry(&mut batch, entry.of_service(secret.scope.service()), None);
        Ok((batch, ()))
    }

    pub(super) fn named_secret_delete(&self, scope: &SecretScope, name: &SecretName, entry: NewEntry) -> Change {
        let mut batch = Batch::new();
        let key = key_of(scope, name.as_str());
        batch.delete(NAMED_SECRETS, &key);
        batch.delete(SECRET_USES, &key);
        Self::add_entry(&mut batch, entry.of_service(scope.service()), None);
        Ok((batch, ()))
    }

    pub(super) fn named_secrets_used(&self, secrets: &[(SecretScope, SecretName)], last: &SecretUse) -> Change {
        let mut batch = Batch::new();
        for (scope, name) in secrets {
            Self::put(&mut batch, SECRET_USES, &key_of(scope, name.as_str()), last)?;
        }
        Ok((batch, ()))
    }

    pub(super) fn sealed_anew(&self, sealed: &SealedAnew) -> Change {
        let mut batch = Batch::new();
        for (service, secrets) in &sealed.services {
            Self::put(&mut batch, SECRETS, service.as_str().as_bytes(), secrets)?;
        }
        for secret in &sealed.secrets {
            Self::put(&mut batch, NAMED_SECRETS, &key_of(&secret.scope, secret.name.as_str()), secret)?;
        }
        if let Some(entry) = &sealed.entry {
            Self::add_entry(&mut batch, entry.clone(), None);
        }
        Ok((batch, ()))
    }

    pub(super) fn own_instance(&self) -> Result<Option<String>, StoreError> {
        self.get(SERVER, INSTANCE)
    }

    pub(super) fn own_instance_put(&self, instance: &str) -> Change {
        let mut batch = Batch::new();
        Self::put(&mut batch, SERVER, INSTANCE, &instance)?;
        Ok((batch, ()))
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use pipelines::{journal::Origin, time::UnixMs};

    use super::*;
    use crate::store::{
        Store,
        engine::{self, EngineConfig, EngineKind},
        records::Sealed,
    };

    fn store() -> EmbeddedStore {
        let memory = EngineConfig { kind: EngineKind::Memory, ..EngineConfig::default() };
        EmbeddedStore::open(engine::open(Path::new(""), &memory).unwrap()).unwrap()
    }

    fn entry(word: &'static str) -> NewEntry {
        NewEntry::new(UnixMs(1), Origin::server(), "secret", word)
    }

    fn secret(scope: &SecretScope, name: &str) -> NamedSecret {
        let sealed = Sealed { nonce: "n".into(), text: "t".into(), set_at: UnixMs(1) };
        let (scope, name) = (scope.clone(), name.parse().unwrap());
        NamedSecret { scope, name, services: Vec::new(), sealed, set_by: "mei".into() }
    }

    #[tokio::test]
    async fn a_secret_is_found_in_its_scope_alone_and_goes_with_its_use() {
        let store = store();
        let of = |service: &str| SecretScope::Service { service: service.parse().unwrap() };
        // One name is the beginning of the other: neither may be found under the other.
        for (scope, name) in [(of("shop"), "B"), (of("shop"), "A"), (of("shop-b"), "A"), (SecretScope::Shared, "A")] {
            store.secret_put(&secret(&scope, name), entry("secret_set")).await.unwrap();
        }
        let names = |scope: &SecretScope| -> Vec<String> {
            store.secrets(scope).unwrap().iter().map(|secret| secret.name.to_string()).collect()
        };
        assert_eq!(names(&of("shop")), ["A", "B"]);
        assert_eq!((names(&of("shop-b")), names(&SecretScope::Shared)), (vec!["A".to_owned()], vec!["A".to_owned()]));
        assert_eq!(store.secret(&of("shop-b"), &"B".parse().unwrap()).unwrap(), None);

        let name = "A".parse().unwrap();
        let last = SecretUse { run: "shop/1".parse().unwrap(), at: UnixMs(2) };
        store.secrets_used(&[(of("shop"), "A".parse().unwrap())], &last).await.unwrap();
        assert_eq!(store.secret_use(&of("shop"), &name).unwrap(), Some(last));
        assert_eq!(store.secret_use(&SecretScope::Shared, &name).unwrap(), None);
        store.secret_delete(&of("shop"), &name, entry("secret_removed")).await.unwrap();
        assert_eq!(names(&of("shop")), ["B"]);
        assert_eq!(store.secret_use(&of("shop"), &name).unwrap(), None);
        assert_eq!(store.journal(Some(&"shop".parse().unwrap()), None, 10).unwrap().len(), 3);
    }
}
