//! What a step can reach and take, on a real engine: it tells what it sees, and tries what it must not.

use std::net::TcpListener;
use std::process::Command;

use anyhow::{Result, ensure};
use integrations::docker::bridge_name;
use pipelines::ids::RunId;
use pipelines::protocol::{Blame, Job, JobBounds, Report, StepOutcome};
use pipelines::trigger::TriggerKind;
use tests::evidence::{self, Tier};
use tests::{Part, require};

use super::{OWN, Yard, outcome};

const FROM: &str = "FROM busybox:1.36\n";

/// A pipeline file with one step.
fn one_step(commands: &[&str]) -> String {
    let lines: String = commands.iter().map(|command| format!("  - |\n    {command}\n")).collect();
    format!("{OWN}steps:\n- name: probe\n  image: busybox:1.36\n  commands:\n{lines}")
}

impl Yard {
    /// Runs one step to the end of its run; gives its id and the last report.
    async fn probe(&self, commands: &[&str], bounds: JobBounds) -> Result<(RunId, Report)> {
        let commit = self.push(&[(".windlass.yaml", &one_step(commands)), ("Dockerfile", FROM)])?;
        let job = Job { bounds, ..self.job(&commit)? };
        let run = job.run.clone();
        let end = self.run(job).await?;
        Ok((run, end))
    }

    fn networks(&self) -> Result<String> {
        let mine = format!("label=windlass.runner={}", self.instance()?);
        self.engine.docker(&["network", "ls", "-q", "--filter", &mine])
    }
}

#[tokio::test]
async fn a_step_has_no_rights_of_the_machine_and_none_of_our_secrets() -> Result<()> {
    if !require(&[Part::Docker, Part::Registry, Part::Gitea]) {
        return Ok(());
    }
    let yard = Yard::open().await?;
    let tries = [
        "grep -E '^(CapEff|CapBnd|NoNewPrivs|Seccomp):' /proc/self/status | tr -s '\\t' ' '",
        "test ! -e /var/run/docker.sock && test ! -e /run/docker.sock && echo no socket",
        "mount -t tmpfs none /mnt 2>/dev/null || echo no mount",
        "mknod /tmp/disk b 8 0 2>/dev/null || echo no device node",
        "ping -c 1 -W 1 127.0.0.1 >/dev/null 2>&1 || echo no raw socket",
        "echo 1 > /proc/sys/kernel/panic 2>/dev/null || echo no kernel setting",
        "echo interfaces $(ls /sys/class/net | tr '\\n' ' ')",
        "echo processes $(ls -d /proc/[0-9]* | wc -l)",
        "echo mounts $(grep -c ' /windlass/workspace ' /proc/mounts)",
        "env; find / -xdev -type f -newer /etc/hostname 2>/dev/null | xargs grep -l registry-password 2>/dev/null || true",
        "chown 1000:1000 /tmp && su -s /bin/sh nobody -c 'echo as nobody' 2>/dev/null || echo as root only",
    ];
    let (run, end) = yard.probe(&tries, JobBounds { step_memory_bytes: 128 << 20, ..JobBounds::default() }).await?;
    let lines = yard.desk.lines(&run, "probe");
    let logs = lines.join("\n");
    assert!(matches!(end, Report::Succeeded { .. }), "{end:?}\n{logs}");
    let said = |words: &str| assert!(lines.iter().any(|line| line == words), "no {words:?} in\n{logs}");
    // CHOWN, DAC_OVERRIDE, FOWNER, FSETID, KILL, SETGID, SETUID and NET_BIND_SERVICE (capability.h).
    said("CapEff: 00000000000004fb");
    said("CapBnd: 00000000000004fb");
    for words in ["NoNewPrivs: 1", "Seccomp: 2", "no socket", "no mount", "no device node", "no kernel setting"] {
        said(words);
    }
    let of = |what: &str| lines.iter().find_map(|line| line.strip_prefix(what)).unwrap_or_default().to_owned();
    assert!(of("interfaces ").contains("eth0") && !of("interfaces ").contains("docker0"), "{logs}");
    // The init process, the shell and what counts them.
    assert!(of("processes ").trim().parse::<u32>()? < 8, "it sees others' processes: {logs}");
    assert_eq!(of("mounts ").trim(), "1");
    let (_, password) = yard.gitea.admin();
    assert!(!logs.contains("registry-password") && !logs.contains(password), "{logs}");
    ensure!(yard.networks()?.is_empty(), "the run's network is left");
    evidence::record(
        "a step has no engine socket, no rights of the machine, no login of ours",
        Tier::RealPart,
        format!("{} tries", tries.len()),
    );
    Ok(())
}

#[tokio::test]
async fn a_step_that_takes_too_much_is_stopped_and_says_which_limit_it_was() -> Result<()> {
    if !require(&[Part::Docker, Part::Registry, Part::Gitea]) {
        return Ok(());
    }
    let yard = Yard::open().await?;
    let bounds = JobBounds {
        step_memory_bytes: 64 << 20,
        step_pids: 40,
        step_disk_bytes: 96 << 20,
        step_files_max: 3_000,
        step_disk_check_ms: 200,
        ..JobBounds::default()
    };
    let write = "i=0; while true; do dd if=/dev/zero of=";
    let workspace = format!("{write}f$i bs=1M count=8 2>/dev/null; i=$((i+1)); sleep 0.1; done");
    let layer = format!("{write}/tmp/f$i bs=1M count=8 2>/dev/null; i=$((i+1)); sleep 0.1; done");
    let cases = [
        ("memory", "tail /dev/zero", "used more than its 64 MiB of memory and was killed; an operator can raise job"),
        ("the workspace", workspace.as_str(), "(job.step_disk_bytes)"),
        ("its own layer", layer.as_str(), "(job.step_disk_bytes)"),
        ("files", "i=0; while true; do touch f$i; i=$((i+1)); done", "(job.step_files_max)"),
        ("one file", "dd if=/dev/zero of=big bs=1M count=2000", "exited with code 153"),
        (
            "depth",
            "i=0; while [ $i -lt 3000 ]; do mkdir d; cd d; i=$((i+1)); done; echo deep",
            "deeper than 128 levels",
        ),
        ("processes", "i=0; while [ $i -lt 200 ]; do sleep 5 & i=$((i+1)); done; exit 9", "exited with code"),
    ];
    for (what, command, words) in cases {
        let (run, end) = yard.probe(&[command], bounds.clone()).await?;
        let logs = yard.desk.log_text(&run);
        let Report::Failed { blame: Blame::Code, reason } = &end else { anyhow::bail!("{what}: {end:?}\n{logs}") };
        assert!(reason.contains(words), "{what}: {reason}\n{logs}");
        assert!(logs.contains(words), "{what}: the log does not say so: {logs}");
        assert!(what != "processes" || logs.contains("can't fork"), "{logs}");
        if what != "depth" {
            assert!(matches!(outcome(&yard.desk.reports(&run), "probe"), Some(StepOutcome::Failed { .. })), "{what}");
        }
        ensure!(yard.networks()?.is_empty(), "{what}: the run's network is left");
    }
    let dockerfile = format!("{FROM}RUN : {} && tail /dev/zero\n", yard.instance()?);
    let commit = yard.push(&[(".windlass.yaml", OWN), ("Dockerfile", &dockerfile)])?;
    let end = yard.run(Job { bounds, ..yard.job(&commit)? }).await?;
    let Report::Failed { blame: Blame::Code, reason } = &end else { anyhow::bail!("a build: {end:?}") };
    assert!(reason.contains("job.step_memory_bytes"), "{reason}");
    evidence::record(
        "a step that takes too much is stopped and named",
        Tier::RealPart,
        format!("{} ways", cases.len()),
    );
    Ok(())
}

/// A rule of the machine's firewall, which goes with its value.
struct Rule(Vec<String>);

impl Rule {
    fn set(rule: &[&str]) -> Result<Self> {
        let rule: Vec<String> = rule.iter().map(|word| (*word).to_owned()).collect();
        let done = Command::new("iptables").arg("-I").args(&rule).status()?;
        ensure!(done.success(), "iptables refused {rule:?}");
        Ok(Self(rule))
    }
}

impl Drop for Rule {
    fn drop(&mut self) {
        Command::new("iptables").arg("-D").args(&self.0).status().ok();
    }
}

/// Takes every connection and closes it; gives the port.
fn greet(listener: TcpListener) -> Result<u16> {
    let port = listener.local_addr()?.port();
    std::thread::spawn(move || listener.incoming().for_each(drop));
    Ok(port)
}

#[tokio::test]
async fn a_step_reaches_nothing_that_listens_on_this_machine_alone_and_one_rule_closes_the_rest() -> Result<()> {
    if !require(&[Part::Docker, Part::Registry, Part::Gitea]) {
        return Ok(());
    }
    let yard = Yard::open().await?;
    let inner = TcpListener::bind("127.0.0.1:0")?;
    let outer = TcpListener::bind("0.0.0.0:0")?;
    let (inner, outer_port) = (greet(inner)?, greet(outer)?);
    let look = |name: &str, port: u16| {
        format!(
            "nc -w 2 $(ip route | sed -n 's/^default via \\([^ ]*\\).*/\\1/p') {port} </dev/null && echo {name} open || echo {name} closed"
        )
    };
    let metadata = "nc -w 2 169.254.169.254 80 </dev/null && echo metadata open || echo metadata closed";
    let (private, open) = (look("private", inner), look("public", outer_port));
    let after = open.replace("echo public", "echo ruled");
    let wait = "echo asked; until [ -e go ]; do sleep 0.1; done";
    let commit =
        yard.push(&[(".windlass.yaml", &one_step(&[&private, &open, wait, &after, metadata])), ("Dockerfile", FROM)])?;
    let job = yard.job(&commit)?;
    let run = job.run.clone();
    yard.desk.give(job);
    let _crew = yard.crew()?;
    yard.desk.line(&run, "probe", "asked").await?;
    let network = format!("wl-{}-{}-{}", yard.instance()?, run.service, run.number);
    let bridge = bridge_name(&network);
    // The rules of docs/security.md, for this network alone. Without them a step may reach a metadata service.
    let mut rules = Vec::new();
    let ours = yard.engine.docker(&["network", "inspect", &network])?.contains(&bridge);
    ensure!(ours, "the network's interface has another name than a rule would match");
    if tests::process::is_root() {
        rules.push(Rule::set(&["INPUT", "-i", &bridge, "-j", "REJECT"])?);
        rules.push(Rule::set(&["DOCKER-USER", "-i", &bridge, "-d", "169.254.0.0/16", "-j", "REJECT"])?);
    }
    std::fs::write(yard.state.path().join(format!("runner/runs/{run}/workspace/go")), "")?;
    yard.desk.end_of(&run).await?;
    let lines = yard.desk.lines(&run, "probe");
    let said = |words: &str| assert!(lines.iter().any(|line| line == words), "no {words:?} in {lines:#?}");
    said("private closed");
    // What listens on all addresses is reached: docs/security.md says so, and how to close it.
    said("public open");
    if !rules.is_empty() {
        said("ruled closed");
        said("metadata closed");
    }
    yard.desk.left(&run).await?;
    Ok(())
}

#[tokio::test]
async fn what_a_fork_wrote_is_built_and_pushed_nowhere_and_leaves_no_image() -> Result<()> {
    if !require(&[Part::Docker, Part::Registry, Part::Gitea]) {
        return Ok(());
    }
    let yard = Yard::open().await?;
    let nonce = yard.instance()?;
    let dockerfile = format!("{FROM}RUN echo {nonce}\n");
    let commit = yard.push(&[(".windlass.yaml", &one_step(&["echo tested"])), ("Dockerfile", &dockerfile)])?;
    let mut job = yard.job(&commit)?;
    job.trigger.kind = TriggerKind::PullRequest;
    job.trigger.from_fork = true;
    job.registry.login = None;
    let run = job.run.clone();
    let end = yard.run(job).await?;
    let logs = yard.desk.log_text(&run);
    assert_eq!(end, Report::Passed, "{logs}");
    let reports = yard.desk.reports(&run);
    assert_eq!(outcome(&reports, "probe"), Some(&StepOutcome::Passed));
    assert_eq!(outcome(&reports, "image"), Some(&StepOutcome::Passed));
    assert!(outcome(&reports, "push").is_none() && !logs.contains("pushing"), "{logs}");
    let tag = format!("{}-{}", run.number, &commit[..7]);
    assert_eq!(yard.registry.digest("test/shop", &tag).await?, None);
    let left = yard.engine.docker(&[
        "images",
        "-q",
        "--filter",
        &format!("label=org.opencontainers.image.revision={commit}"),
    ])?;
    assert!(left.is_empty(), "its image is left: {left}");
    let kept = yard.engine.docker(&["images", "-q", &format!("windlass-cache/{nonce}-shop")])?;
    assert!(kept.is_empty(), "its layers are kept as cache");
    Ok(())
}
