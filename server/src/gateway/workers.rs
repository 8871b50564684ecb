//! The threads that serve requests. Each has a runtime and connections to the backends of its own, so that a request's
//! two connections wake each other without going through the kernel: on two cores that is a third of a request's cost.

use std::{
    cell::Cell,
    io,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use tokio::runtime::{Builder, Handle};
use tokio_util::sync::CancellationToken;

thread_local! {
    static NUMBER: Cell<usize> = const { Cell::new(0) };
}

/// All of them; they end when this is dropped, and with them what still runs there.
#[derive(Debug)]
pub(super) struct Workers {
    all: Vec<Worker>,
    stop: CancellationToken,
}

#[derive(Debug)]
struct Worker {
    runtime: Handle,
    /// Client connections that it serves.
    load: Arc<AtomicUsize>,
}

/// A client connection's place on a worker.
#[derive(Debug)]
pub(super) struct Place {
    /// Where its task is to run.
    pub(super) runtime: Handle,
    load: Arc<AtomicUsize>,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.load.fetch_sub(1, Ordering::Relaxed);
    }
}

/// How many workers a process has: one per core.
pub(super) fn count() -> usize {
    thread::available_parallelism().map_or(1, usize::from)
}

/// The number of the worker whose thread this is; 0 elsewhere.
pub(super) fn here() -> usize {
    NUMBER.get()
}

impl Workers {
    /// Starts them.
    pub(super) fn start() -> io::Result<Self> {
        let stop = CancellationToken::new();
        let mut all = Vec::new();
        for number in 0..count() {
            let runtime = Builder::new_current_thread().enable_all().build()?;
            let (handle, stop) = (runtime.handle().clone(), stop.clone());
            thread::Builder::new().name(format!("gateway-{number}")).spawn(move || {
                NUMBER.set(number);
                runtime.block_on(stop.cancelled());
                // What runs on its blocking threads (names that are looked up) is not waited for.
                runtime.shutdown_background();
            })?;
            all.push(Worker { runtime: handle, load: Arc::default() });
        }
        Ok(Self { all, stop })
    }

    /// A place on the worker that serves the fewest.
    pub(super) fn place(&self) -> Place {
        let least = self.all.iter().min_by_key(|worker| worker.load.load(Ordering::Relaxed));
        let (runtime, load) = match least {
            Some(worker) => (worker.runtime.clone(), Arc::clone(&worker.load)),
            // There is always one; without, the caller's runtime serves as well.
            None => (Handle::current(), Arc::default()),
        };
        load.fetch_add(1, Ordering::Relaxed);
        Place { runtime, load }
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn connections_are_spread_over_the_workers_and_a_place_is_free_again() {
        let workers = Workers::start().expect("threads");
        let mut places: Vec<_> = (0..count() * 3).map(|_| workers.place()).collect();
        let loads = || workers.all.iter().map(|worker| worker.load.load(Ordering::Relaxed)).collect::<Vec<_>>();
        assert_eq!(loads(), vec![3; count()]);
        let mut seen: Vec<usize> = Vec::new();
        for place in &places {
            seen.push(place.runtime.spawn(async { here() }).await.expect("it ran"));
        }
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen.len(), count());
        places.pop();
        assert_eq!(loads().iter().sum::<usize>(), count() * 3 - 1);
    }
}
