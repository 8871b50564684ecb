//! Kills parts of a world at random moments, alone and two at a time, and brings back what nobody else brings back. The
//! server is brought back by its keeper, the gateway by the server.

use std::{
    collections::BTreeSet,
    fmt, fs,
    net::TcpStream,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use fuzz::Chance;
use serde::{Deserialize, Serialize};
use tests::process::kill_process;

use crate::{machine::Runner, visitors::now_ms, world::World};

/// The longest time between two deaths, and that somebody stays dead, in milliseconds.
const BETWEEN_MS_MAX: usize = 2_500;
const DEAD_MS_MAX: usize = 500;
/// How long a mail is waited for at whose delivery somebody is to die.
const MAIL_WITHIN: Duration = Duration::from_secs(15);
const BACK_WITHIN: Duration = Duration::from_secs(60);
const LOOK_EVERY: Duration = Duration::from_millis(2);

/// Who may die.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Victim {
    Server,
    Gateway,
    Engine,
    /// The one on a machine of its own; the embedded one dies with the server.
    Runner,
    TestRegistry,
    ProductionRegistry,
}

impl Victim {
    fn drawn(chance: &mut Chance) -> Self {
        match chance.below(16) {
            0..5 => Self::Server,
            5..8 => Self::Gateway,
            8..10 => Self::Engine,
            10..12 => Self::Runner,
            12..14 => Self::TestRegistry,
            _ => Self::ProductionRegistry,
        }
    }
}

impl fmt::Display for Victim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Server => "server",
            Self::Gateway => "gateway",
            Self::Engine => "engine",
            Self::Runner => "runner",
            Self::TestRegistry => "test registry",
            Self::ProductionRegistry => "production registry",
        })
    }
}

/// One moment at which somebody died.
#[derive(Clone, Debug)]
pub(crate) struct Death {
    pub(crate) victims: BTreeSet<Victim>,
    /// Milliseconds since 1970.
    pub(crate) at_ms: u64,
    /// When the gateway took connections again, if it was among them; else when all were back.
    pub(crate) over_ms: u64,
}

/// Kills on a thread of its own: what the test does meanwhile must not decide about the moment.
#[derive(Debug)]
pub(crate) struct Reaper {
    deaths: Arc<Mutex<Vec<Death>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Result<()>>>,
}

impl Reaper {
    pub(crate) fn start(world: Arc<World>, runner: Arc<Mutex<Runner>>, seed: u64, kills: u32) -> Self {
        let (deaths, stop) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicBool::new(false)));
        let (notes, stopped) = (Arc::clone(&deaths), Arc::clone(&stop));
        let thread = std::thread::spawn(move || {
            let mut chance = Chance::new(seed);
            let mut killed = 0;
            while killed < kills as usize && !stopped.load(Ordering::SeqCst) {
                // The moment is the point of it, so nothing can be waited for.
                pause(&mut chance, BETWEEN_MS_MAX);
                let mut victims = BTreeSet::from([Victim::drawn(&mut chance)]);
                if chance.below(4) == 0 {
                    victims.insert(Victim::drawn(&mut chance));
                }
                // Between what an outside party did and its note lie a few milliseconds, which are hit by chance once in a
                // thousand deaths.
                if victims.contains(&Victim::Server) && chance.below(3) == 0 {
                    at_a_mail(&world);
                }
                let death = kill(&world, &runner, victims, &mut chance)?;
                killed += death.victims.len();
                notes.lock().unwrap_or_else(PoisonError::into_inner).push(death);
            }
            Ok(())
        });
        Self { deaths, stop, thread: Some(thread) }
    }

    /// Whether all are dead who were to die, or it failed.
    pub(crate) fn is_done(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Who died so far.
    pub(crate) fn so_far(&self) -> Vec<Death> {
        self.deaths.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn words(&self) -> String {
        format!("deaths so far: {:?}", self.so_far())
    }

    pub(crate) fn stop(mut self) -> Result<Vec<Death>> {
        self.end()?;
        Ok(self.so_far())
    }

    fn end(&mut self) -> Result<()> {
        self.stop.store(true, Ordering::SeqCst);
        let Some(thread) = self.thread.take() else { return Ok(()) };
        thread.join().map_err(|_| anyhow::anyhow!("the reaper panicked"))?
    }
}

impl Drop for Reaper {
    fn drop(&mut self) {
        // A failed test has something better to say.
        let _ = self.end();
    }
}

fn pause(chance: &mut Chance, max_ms: usize) {
    std::thread::sleep(Duration::from_millis(u64::try_from(chance.below(max_ms)).unwrap_or(0)));
}

/// Waits until the mail server has taken one, but not for ever.
fn at_a_mail(world: &World) {
    let (began, before) = (Instant::now(), world.smtp.taken());
    while world.smtp.taken() == before && began.elapsed() < MAIL_WITHIN {
        std::thread::sleep(Duration::from_micros(200));
    }
}

/// Kills them at the same time, lets them be dead for a while, and waits until all are back.
fn kill(world: &World, runner: &Mutex<Runner>, victims: BTreeSet<Victim>, chance: &mut Chance) -> Result<Death> {
    let at_ms = now_ms();
    // While it is held the keeper cannot bring the server back.
    let held = victims.contains(&Victim::Server).then(|| {
        let mut windlass = world.windlass.lock().unwrap_or_else(PoisonError::into_inner);
        windlass.kill();
        windlass
    });
    let gateways = if victims.contains(&Victim::Gateway) { kill_gateways(world)? } else { Vec::new() };
    for victim in &victims {
        match victim {
            Victim::Server | Victim::Gateway => {}
            Victim::Engine => world.engine.die(),
            Victim::Runner => lock(runner).kill(),
            Victim::TestRegistry => world.test.die(),
            Victim::ProductionRegistry => world.production.die(),
        }
    }
    until("the gateway is dead", || gateways.iter().all(|pid| is_dead(*pid)))?;
    let mut over_ms = None;
    // The gateway comes back when it can; who else is dead stays so for a while.
    if victims.len() > 1 || !victims.contains(&Victim::Gateway) {
        pause(chance, DEAD_MS_MAX);
    }
    drop(held);
    for victim in &victims {
        match victim {
            Victim::Server | Victim::Gateway => {}
            Victim::Engine => world.engine.revive()?,
            Victim::Runner => lock(runner).start()?,
            Victim::TestRegistry => world.test.revive()?,
            Victim::ProductionRegistry => world.production.revive()?,
        }
    }
    if victims.contains(&Victim::Gateway) {
        let gateway = host_port(&world.gateway);
        until("the gateway is back", || TcpStream::connect(&gateway).is_ok())?;
        over_ms = Some(now_ms());
    }
    for victim in &victims {
        match victim {
            Victim::Gateway | Victim::Runner => {}
            Victim::Engine => {
                until("the engine is back", || world.engine.answers()).with_context(|| world.engine.own_log())?
            }
            Victim::Server => until("the server is back", || TcpStream::connect(host_port(&world.base)).is_ok())?,
            Victim::TestRegistry => listens(&world.test.host_port())?,
            Victim::ProductionRegistry => listens(&world.production.host_port())?,
        }
    }
    let over_ms = over_ms.unwrap_or_else(now_ms);
    println!("deaths: {victims:?} at {at_ms}, over after {} ms", over_ms - at_ms);
    Ok(Death { victims, at_ms, over_ms })
}

/// Kills those that run; there may be two for a moment, when one is replaced.
fn kill_gateways(world: &World) -> Result<Vec<u32>> {
    let mut gateways = Vec::new();
    // Killed right after the server, it may just be about to be started.
    let folder = world.folder().to_owned();
    until("there is a gateway", || {
        gateways = tests::windlass::gateways_of(&folder);
        !gateways.is_empty()
    })?;
    gateways.iter().for_each(|pid| kill_process(*pid));
    Ok(gateways)
}

/// Gone, or dead and not yet asked for by its parent. The first thread may be dead before the others, and with them the
/// listening sockets.
fn is_dead(pid: u32) -> bool {
    let mut tasks = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    tasks.all(|task| {
        let stat = fs::read_to_string(task.path().join("stat")).unwrap_or_default();
        stat.rsplit_once(") ").is_none_or(|(_, rest)| rest.starts_with(['Z', 'X']))
    })
}

fn lock(runner: &Mutex<Runner>) -> MutexGuard<'_, Runner> {
    runner.lock().unwrap_or_else(PoisonError::into_inner)
}

fn listens(host_port: &str) -> Result<()> {
    until(host_port, || TcpStream::connect(host_port).is_ok())
}

fn host_port(url: &str) -> String {
    url.trim_start_matches("http://").trim_end_matches('/').to_owned()
}

fn until(what: &str, mut is_so: impl FnMut() -> bool) -> Result<()> {
    let began = Instant::now();
    while !is_so() {
        ensure!(began.elapsed() < BACK_WITHIN, "{what}: not within {BACK_WITHIN:?}");
        std::thread::sleep(LOOK_EVERY);
    }
    Ok(())
}
