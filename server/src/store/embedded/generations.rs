//! How often each service has changed since the start: see [`Store::generation`].
//!
//! [`Store::generation`]: crate::store::Store::generation

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use pipelines::ids::ServiceName;

/// The counts.
#[derive(Debug, Default)]
pub(super) struct Generations {
    of_service: Mutex<HashMap<ServiceName, Arc<AtomicU64>>>,
    of_services: Arc<AtomicU64>,
}

impl Generations {
    /// The count of a service that changes.
    pub(super) fn of(&self, service: &ServiceName) -> Arc<AtomicU64> {
        let mut counts = self.of_service.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = counts.get(service) {
            return Arc::clone(known);
        }
        Arc::clone(counts.entry(service.clone()).or_default())
    }

    /// The count of which services there are.
    pub(super) fn of_services(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.of_services)
    }

    /// How often a service has changed. Nothing was changed of one that is not there, whoever asks for it.
    pub(super) fn now(&self, service: &ServiceName) -> u64 {
        let counts = self.of_service.lock().unwrap_or_else(PoisonError::into_inner);
        counts.get(service).map_or(0, |count| count.load(Ordering::Acquire))
    }
}
