//! Counts tries at something that can be guessed, in memory and bounded. Not here: what is guessed.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

use pipelines::time::UnixMs;

/// Keys that are remembered; the one that began longest ago makes room.
const KEYS_MAX: usize = 10_000;

/// Tries by key within a window of time.
#[derive(Debug)]
pub struct Throttle {
    tries_max: u32,
    window_ms: u64,
    tries: Mutex<HashMap<String, (u32, UnixMs)>>,
}

impl Throttle {
    /// At most `tries_max` tries by key within `window_ms` milliseconds of the first.
    #[must_use]
    pub fn new(tries_max: u32, window_ms: u64) -> Self {
        Self { tries_max, window_ms, tries: Mutex::default() }
    }

    /// Counts a try before it is made: guesses sent at once count one by one.
    ///
    /// # Errors
    /// How long to wait, in milliseconds, where there were too many.
    pub fn count(&self, key: &str, now: UnixMs) -> Result<(), u64> {
        let mut tries = self.tries.lock().unwrap_or_else(PoisonError::into_inner);
        if tries.len() >= KEYS_MAX && !tries.contains_key(key) {
            tries.retain(|_, (_, since)| now.since_ms(*since) < self.window_ms);
            if tries.len() >= KEYS_MAX {
                let oldest = tries.iter().min_by_key(|(_, (_, since))| *since).map(|(key, _)| key.clone());
                oldest.map(|oldest| tries.remove(&oldest));
            }
        }
        let (count, since) = tries.entry(key.to_owned()).or_insert((0, now));
        if now.since_ms(*since) >= self.window_ms {
            (*count, *since) = (0, now);
        }
        if *count >= self.tries_max {
            return Err(self.window_ms - now.since_ms(*since));
        }
        *count += 1;
        Ok(())
    }

    /// The try was good: what was counted for `key` no longer counts.
    pub fn forget(&self, key: &str) {
        self.tries.lock().unwrap_or_else(PoisonError::into_inner).remove(key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn too_many_tries_wait_until_the_window_is_over_and_a_good_one_starts_anew() {
        let throttle = Throttle::new(2, 1_000);
        assert_eq!(throttle.count("a", UnixMs(0)), Ok(()));
        assert_eq!(throttle.count("a", UnixMs(10)), Ok(()));
        assert_eq!(throttle.count("a", UnixMs(400)), Err(600));
        assert_eq!(throttle.count("b", UnixMs(400)), Ok(()));
        assert_eq!(throttle.count("a", UnixMs(1_000)), Ok(()));
        throttle.forget("a");
        assert_eq!(throttle.count("a", UnixMs(1_001)), Ok(()));
        assert_eq!(throttle.count("a", UnixMs(1_002)), Ok(()));
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let throttle = Throttle::new(1, 1_000_000);
        for key in 0..=KEYS_MAX as u64 {
            assert_eq!(throttle.count(&key.to_string(), UnixMs(key)), Ok(()));
        }
        assert_eq!(throttle.tries.lock().unwrap().len(), KEYS_MAX);
        assert_eq!(throttle.count("0", UnixMs(20_000)), Ok(()));
        assert!(throttle.count("9999", UnixMs(20_000)).is_err());
    }
}
