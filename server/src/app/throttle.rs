//! Counts tries at something that can be guessed, in memory and bounded. Not here: what is guessed.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Mutex, PoisonError},
};

use pipelines::{ids::ReleaseId, time::UnixMs};

use super::{App, AppError};
use crate::config::Bounds;

/// Keys that are remembered; the one that began longest ago makes room.
const KEYS_MAX: usize = 10_000;
/// Characters of a name that are remembered: no account has a longer one.
const NAME_CHARS_MAX: usize = 64;
/// The time within which [`Bounds::refused_hooks_max`] counts, in milliseconds.
const REFUSED_HOOKS_WINDOW_MS: u64 = 3_600_000;

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

    /// The try was good: it does not count, what came before it does.
    pub fn take_back(&self, key: &str) {
        if let Some((count, _)) = self.tries.lock().unwrap_or_else(PoisonError::into_inner).get_mut(key) {
            *count = count.saturating_sub(1);
        }
    }

    /// The try was good: what was counted for `key` no longer counts.
    pub fn forget(&self, key: &str) {
        self.tries.lock().unwrap_or_else(PoisonError::into_inner).remove(key);
    }
}

/// What opens something and was wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WrongProof {
    /// A bearer token.
    Token,
    /// The link of a mail.
    Link,
    /// The signature of a hook.
    Signature,
    /// A token that registers runners.
    RunnerToken,
}

impl WrongProof {
    fn word(self) -> &'static str {
        match self {
            Self::Token => "bearer token",
            Self::Link => "link",
            Self::Signature => "hook signature",
            Self::RunnerToken => "registration token",
        }
    }
}

/// Everything that is counted.
#[derive(Debug)]
pub(super) struct Throttles {
    /// Tries to sign in, by place and name.
    pairs: Throttle,
    /// Tries to sign in that failed, by place: one place that tries many names.
    places: Throttle,
    /// Tries to sign in that failed, by name: many places that try one name.
    names: Throttle,
    /// What was wrong, by kind and place.
    proofs: Throttle,
    /// Mails with a code, by link.
    codes: Throttle,
    /// Refused hooks that are listed, by service.
    pub(super) refused_hooks: Throttle,
}

fn too_many(detail: String) -> impl FnOnce(u64) -> AppError {
    move |wait_ms| AppError::TooMany {
        detail,
        retry_after_s: u32::try_from(wait_ms.div_ceil(1_000)).unwrap_or(u32::MAX),
    }
}

/// The place that tries of an address are counted for: of IPv6 the network, because one machine has all of it.
fn place_of(remote: &str) -> String {
    match remote.parse::<IpAddr>().map(|address| address.to_canonical()) {
        Ok(IpAddr::V6(address)) => {
            let [a, b, c, d, ..] = address.segments();
            format!("{a:x}:{b:x}:{c:x}:{d:x}::/64")
        }
        Ok(address) => address.to_string(),
        Err(_) => "an unknown place".to_owned(),
    }
}

/// Bounded before it is remembered: a name that no account can have is counted like any other.
fn short(name: &str) -> String {
    name.chars().take(NAME_CHARS_MAX).collect()
}

impl Throttles {
    pub(super) fn new(bounds: &Bounds) -> Self {
        let sign_in = |tries_max| Throttle::new(tries_max, bounds.sign_in_window_ms);
        Self {
            pairs: sign_in(bounds.sign_in_tries_max),
            places: sign_in(bounds.sign_in_place_tries_max),
            names: sign_in(bounds.sign_in_name_tries_max),
            proofs: Throttle::new(bounds.wrong_proofs_max, bounds.wrong_proofs_window_ms),
            codes: Throttle::new(bounds.code_mails_max, bounds.code_mails_window_ms),
            refused_hooks: Throttle::new(bounds.refused_hooks_max, REFUSED_HOOKS_WINDOW_MS),
        }
    }

    /// Counts a try to sign in, before the password is looked at.
    pub(super) fn sign_in(&self, remote: &str, name: &str, now: UnixMs) -> Result<(), AppError> {
        let (place, name) = (place_of(remote), short(name));
        let refused = |of: &str| too_many(format!("too many tries to sign in {of}"));
        // The place first: what is counted by name is then bounded by it.
        self.places.count(&place, now).map_err(refused("from this place"))?;
        self.names.count(&name, now).map_err(refused("under this name"))?;
        self.pairs.count(&format!("{place} {name}"), now).map_err(refused("under this name"))
    }

    /// The password was right.
    pub(super) fn signed_in(&self, remote: &str, name: &str) {
        let (place, name) = (place_of(remote), short(name));
        self.pairs.forget(&format!("{place} {name}"));
        self.places.take_back(&place);
        self.names.take_back(&name);
    }

    /// Counts a mail with a code before it is asked for.
    pub(super) fn code_mail(&self, release: &ReleaseId, tester: &str, now: UnixMs) -> Result<(), AppError> {
        let refused = too_many("too many codes were asked for; the newest mail has the one that is good".into());
        self.codes.count(&format!("{release} {tester}"), now).map_err(refused)
    }
}

impl App {
    /// Counts something that opens nothing. What is good passes all the same: guesses are slowed, their neighbours not.
    ///
    /// # Errors
    /// [`AppError::TooMany`] where too many such came from the place of `remote`.
    pub fn wrong_proof(&self, proof: WrongProof, remote: &str) -> Result<(), AppError> {
        let refused = too_many(format!("too many wrong {}s from this place", proof.word()));
        let key = format!("{} {}", proof.word(), place_of(remote));
        self.throttles.proofs.count(&key, self.now()).map_err(refused)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn throttles() -> Throttles {
        let bounds = Bounds {
            sign_in_tries_max: 2,
            sign_in_place_tries_max: 4,
            sign_in_name_tries_max: 6,
            sign_in_window_ms: 1_000,
            ..Bounds::default()
        };
        Throttles::new(&bounds)
    }

    #[test]
    fn one_place_that_tries_many_names_and_many_places_that_try_one_name_are_slowed() {
        let throttles = throttles();
        for name in ["a", "b", "c", "d"] {
            assert!(throttles.sign_in("192.0.2.1", name, UnixMs(0)).is_ok(), "{name}");
        }
        assert!(matches!(
            throttles.sign_in("192.0.2.1", "e", UnixMs(100)),
            Err(AppError::TooMany { retry_after_s: 1, .. })
        ));
        assert!(throttles.sign_in("192.0.2.1", "e", UnixMs(1_000)).is_ok(), "the window is over");
        for host in 10..15 {
            assert!(throttles.sign_in(&format!("192.0.2.{host}"), "a", UnixMs(10)).is_ok(), "{host}");
        }
        assert!(throttles.sign_in("192.0.2.99", "a", UnixMs(10)).is_err(), "the name was tried six times");
    }

    #[test]
    fn those_who_sign_in_behind_one_address_do_not_stop_each_other() {
        let throttles = throttles();
        for name in 0..20 {
            let name = format!("person-{name}");
            assert!(throttles.sign_in("192.0.2.1", &name, UnixMs(0)).is_ok());
            throttles.signed_in("192.0.2.1", &name);
        }
    }

    #[test]
    fn a_machine_is_one_place_with_all_its_addresses() {
        assert_eq!(place_of("2001:db8:1:2::5"), place_of("2001:db8:1:2:ffff::1"));
        assert_ne!(place_of("2001:db8:1:2::5"), place_of("2001:db8:1:3::5"));
        assert_eq!(place_of("::ffff:192.0.2.7"), "192.0.2.7");
        assert_eq!(place_of("nonsense"), place_of(""));
    }

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
