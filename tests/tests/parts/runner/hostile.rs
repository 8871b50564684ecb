//! Repositories that mean harm, each through the whole runner on real parts: a clear refusal or a clean run, and nothing
//! outside of the workspace. Trees that git itself would not write are written as raw objects.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use charts::catalog::Catalog;
use integrations::docker::EngineConfig;
use pipelines::protocol::{Blame, GitAccess, Job, JobBounds, RegistryAccess, Report, Repository};
use pipelines::time::UnixMs;
use pipelines::trigger::{Trigger, TriggerSource};
use runner::{Agent, AgentConfig};
use tests::evidence::{self, Tier};
use tests::git_http::{GitHttp, GitHttpOptions};
use tests::{DockerEngine, Part, Registry, Repo, require};
use tokio_util::sync::CancellationToken;

use super::OWN;
use super::desk::{Desk, Link};

const FILES_MAX: u64 = 5_000;
const BYTES_MAX: u64 = 8 << 20;

/// What a tree holds.
enum Node {
    File(Vec<u8>),
    Program(Vec<u8>),
    Link(Vec<u8>),
    Folder(Vec<(Vec<u8>, Node)>),
    Submodule,
}

fn file(name: impl AsRef<[u8]>, content: impl AsRef<[u8]>) -> (Vec<u8>, Node) {
    (name.as_ref().to_vec(), Node::File(content.as_ref().to_vec()))
}

fn link(name: impl AsRef<[u8]>, target: impl AsRef<[u8]>) -> (Vec<u8>, Node) {
    (name.as_ref().to_vec(), Node::Link(target.as_ref().to_vec()))
}

fn folder(name: impl AsRef<[u8]>, entries: Vec<(Vec<u8>, Node)>) -> (Vec<u8>, Node) {
    (name.as_ref().to_vec(), Node::Folder(entries))
}

/// How a run of it must end.
enum End {
    /// The run fails, the code is to blame, and the reason or the log says this.
    Refused(&'static str),
    /// It becomes an image.
    Clean,
}

struct Case {
    name: &'static str,
    tree: Vec<(Vec<u8>, Node)>,
    end: End,
}

fn case(name: &'static str, end: End, tree: Vec<(Vec<u8>, Node)>) -> Case {
    Case { name, tree, end }
}

/// With a good pipeline file and Dockerfile, where the tree has none of its own.
fn with_files(mut tree: Vec<(Vec<u8>, Node)>) -> Vec<(Vec<u8>, Node)> {
    let has = |tree: &[(Vec<u8>, Node)], name: &str| tree.iter().any(|(found, _)| found == name.as_bytes());
    if !has(&tree, ".windlass.yaml") {
        tree.push(file(".windlass.yaml", OWN));
    }
    if !has(&tree, "Dockerfile") {
        tree.push(file("Dockerfile", "FROM busybox:1.36\nCOPY . /context\n"));
    }
    tree
}

fn steps(commands: &str) -> (Vec<u8>, Node) {
    file(".windlass.yaml", format!("{OWN}steps: [{{name: evil, image: 'busybox:1.36', commands: [{commands}]}}]\n"))
}

fn deep(levels: usize) -> (Vec<u8>, Node) {
    (0..levels).fold(file("x", "x"), |inner, _| folder("d", vec![inner]))
}

fn links() -> Vec<Case> {
    use End::{Clean, Refused};
    vec![
        case("an absolute link", Refused("absolute"), vec![link("out", "/etc")]),
        case("a link to the parent", Refused("leads out of the repository"), vec![link("out", "../canary")]),
        case("a link that climbs from a folder", Refused("leads out"), vec![folder("a", vec![link("b", "../../x")])]),
        case(
            "a link through another",
            Refused("leads out"),
            vec![folder("a", vec![link("up", "..")]), link("b", "a/up/../canary")],
        ),
        case("links in a circle", Refused("too many other links"), vec![link("a", "b"), link("b", "a")]),
        case("a link within", Clean, vec![link("a", "Dockerfile")]),
        case("the pipeline file as a link", Refused("symbolic link"), vec![link(".windlass.yaml", "other.yaml")]),
        case("the pipeline file as a folder", Refused("a folder"), vec![folder(".windlass.yaml", vec![file("x", "")])]),
        case("the Dockerfile as a link outside", Refused("absolute"), vec![link("Dockerfile", "/etc/passwd")]),
        case(
            "a Dockerfile that a step links outside",
            Refused("the repository has no Dockerfile"),
            vec![steps("rm Dockerfile, ln -s /etc/passwd Dockerfile")],
        ),
        case(
            "a context that a step links outside",
            Refused("the repository has no Dockerfile at app"),
            vec![
                file(
                    ".windlass.yaml",
                    format!(
                        "{OWN}image: {{context: app}}\nsteps: [{{name: evil, image: 'busybox:1.36', commands: \
                         ['rm -r app && ln -s / app']}}]\n"
                    ),
                ),
                folder("app", vec![file("Dockerfile", "FROM busybox:1.36\n")]),
            ],
        ),
        case("links that a step makes in the context", Clean, vec![steps("ln -s / root, ln -s /proc/self/root up")]),
    ]
}

fn names() -> Vec<Case> {
    use End::{Clean, Refused};
    let git = Refused("git keeps for itself");
    let hook = || {
        vec![folder("hooks", vec![(b"post-checkout".to_vec(), Node::Program(b"#!/bin/sh\ntouch /CANARY".to_vec()))])]
    };
    vec![
        case("a folder .GIT", git, vec![folder(".GIT", hook())]),
        case("a folder .git", Refused("git keeps for itself"), vec![folder(".git", hook())]),
        case("a folder .git and a blank", Refused("git keeps for itself"), vec![folder(".git ", hook())]),
        case("a folder git~1", Refused("git keeps for itself"), vec![folder("git~1", hook())]),
        case("a name ..", Refused("means another folder"), vec![folder("..", vec![file("canary", "x")])]),
        case("a name with a slash", Refused("inside of its name"), vec![file("../canary", "x")]),
        case("a name with a line end", Refused("control characters"), vec![file("a\nb", "x")]),
        case("a name that clears the screen", Refused("control characters"), vec![file("a\u{1b}[2Jb", "x")]),
        case(
            "a name that turns the direction, in a submodule",
            Clean,
            vec![(b"a\xe2\x80\xaegpj.exe".to_vec(), Node::Submodule)],
        ),
        case("a name that is not UTF-8", Clean, vec![file(b"caf\xe9", "x")]),
        case("names that differ in case", Clean, vec![file("README", "a"), file("readme", "b")]),
        case("a name twice", Refused("twice"), vec![file("a", "x"), folder("a", vec![file("b", "x")])]),
        case("a very deep path", Refused("depth of folders"), vec![deep(150)]),
        case("a very long name", Refused("longer than 255"), vec![file("x".repeat(300), "x")]),
    ]
}

fn contents() -> Vec<Case> {
    use End::{Clean, Refused};
    let modules = |url: &str| {
        file(".gitmodules", format!("[submodule \"m\"]\n\tpath = m\n\turl = {url}\n\tupdate = !touch /CANARY\n"))
    };
    let module = || (b"m".to_vec(), Node::Submodule);
    let attributes = "* filter=evil ident working-tree-encoding=UTF-16\n*.bin filter=lfs diff=lfs merge=lfs -text\n";
    let pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n";
    let many = (0..=FILES_MAX).map(|n| file(format!("f{n}"), "x")).collect();
    let bomb = "a: &a [x, x]\nb: &b [*a, *a]\nc: &c [*b, *b]\n".to_owned() + OWN;
    let thousands: String = (0..4_000).map(|n| format!("- {{name: s{n}, image: x, commands: [x]}}\n")).collect();
    vec![
        case("a submodule with an option as address", Clean, vec![modules("--upload-pack=touch /CANARY"), module()]),
        case("a submodule that is a command", Clean, vec![modules("ext::sh -c touch% /CANARY"), module()]),
        case("a submodule of this machine", Clean, vec![modules("file:///etc"), module()]),
        case(
            "attributes with filters",
            Clean,
            vec![file(".gitattributes", attributes), file("a.bin", pointer), file("b", "$Id$")],
        ),
        case("a huge file", Refused("over the limit"), vec![file("big", vec![0; 9 << 20])]),
        case("very many files", Refused("over the limit"), many),
        case("a huge pipeline file", Refused("over the limit"), vec![file(".windlass.yaml", "#".repeat(2 << 20))]),
        case("YAML that grows", Refused("aliases"), vec![file(".windlass.yaml", bomb)]),
        case(
            "thousands of steps",
            Refused("values"),
            vec![file(".windlass.yaml", format!("{OWN}steps:\n{thousands}"))],
        ),
        case("a pipeline file that is no text", Refused("UTF-8"), vec![file(".windlass.yaml", b"service: \xff\xfe")]),
        case(
            "ignore patterns that climb",
            Clean,
            vec![file(".dockerignore", "!../../**\n!/etc/passwd\n**\n!.\n!Dockerfile\n")],
        ),
        case("an ignore file as a link", Clean, vec![link(".dockerignore", "Dockerfile")]),
        case("pipes in the context", Clean, vec![steps("mkfifo p, 'mknod d b 8 0 || true'")]),
        case(
            "an ONBUILD and a syntax of its own",
            Clean,
            vec![file("Dockerfile", "# syntax=evil.example/x\nFROM busybox:1.36\nONBUILD RUN touch /CANARY\n")],
        ),
        case(
            "a COPY that climbs",
            Refused("the image was not built"),
            vec![file("Dockerfile", "FROM busybox:1.36\nCOPY ../../canary /x\n")],
        ),
    ]
}

/// Real parts, a canary beside the state, and one bare repository for all cases.
struct Pen {
    git: GitHttp,
    bare: PathBuf,
    registry: Registry,
    engine: &'static DockerEngine,
    root: tempfile::TempDir,
    desk: Arc<Desk>,
}

impl Pen {
    async fn open() -> Result<Self> {
        let git = GitHttp::start(GitHttpOptions::default()).await?;
        let seed = Repo::init()?;
        seed.commit("Ada <ada@example.com>", "empty")?;
        let bare = tests::git_http::publish(&seed, &git, "shop.git")?;
        let root = tempfile::tempdir()?;
        fs::write(root.path().join("canary"), "untouched")?;
        fs::create_dir(root.path().join("state"))?;
        let (registry, engine) = (Registry::start(None).await?, DockerEngine::shared().await?);
        Ok(Self { git, bare, registry, engine, root, desk: Arc::default() })
    }

    fn object(&self, kind: &str, content: &[u8]) -> Result<String> {
        let mut child = Command::new("git")
            .args(["hash-object", "-w", "--stdin", "--literally", "-t", kind])
            .env("GIT_DIR", &self.bare)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        child.stdin.take().context("a pipe")?.write_all(content)?;
        let output = child.wait_with_output()?;
        ensure!(output.status.success(), "git hash-object failed");
        Ok(String::from_utf8(output.stdout)?.trim().to_owned())
    }

    fn tree(&self, entries: &[(Vec<u8>, Node)]) -> Result<String> {
        let mut known: BTreeMap<Vec<u8>, String> = BTreeMap::new();
        let mut blob = |content: &Vec<u8>| -> Result<String> {
            if let Some(id) = known.get(content) {
                return Ok(id.clone());
            }
            let id = self.object("blob", content)?;
            known.insert(content.clone(), id.clone());
            Ok(id)
        };
        // Git sorts folders as if their name ended in a slash.
        let mut rows = Vec::new();
        for (name, node) in entries {
            let (mode, id) = match node {
                Node::File(content) => ("100644", blob(content)?),
                Node::Program(content) => ("100755", blob(content)?),
                Node::Link(target) => ("120000", blob(target)?),
                Node::Submodule => ("160000", "1".repeat(40)),
                Node::Folder(inner) => ("40000", self.tree(inner)?),
            };
            let mut key = name.clone();
            key.extend(matches!(node, Node::Folder(_)).then_some(b'/'));
            rows.push((key, [mode.as_bytes(), b" ", name, b"\0", &hex::decode(id)?].concat()));
        }
        rows.sort();
        self.object("tree", &rows.into_iter().flat_map(|(_, row)| row).collect::<Vec<_>>())
    }

    fn commit(&self, tree: &str) -> Result<String> {
        let who = "Eve \u{202e}<eve@example.com> 1700000000 +0000";
        let text = format!("tree {tree}\nauthor {who}\ncommitter {who}\n\nharm\u{7} \u{1b}[2Jdone\n");
        let id = self.object("commit", text.as_bytes())?;
        fs::write(self.bare.join("refs/heads/main"), format!("{id}\n"))?;
        Ok(id)
    }

    fn job(&self, number: usize, commit: &str) -> Result<Job> {
        Ok(Job {
            run: format!("shop/{number}").parse()?,
            attempt: 1,
            lease_ms: 60_000,
            created_at: UnixMs(1_800_000_000_000),
            trigger: Trigger::of_ref("refs/heads/main", commit.parse()?, TriggerSource::Hook),
            release_branch: "main".to_owned(),
            repository: Repository {
                url: self.git.url("shop.git"),
                credential: GitAccess::None,
                known_hosts: Vec::new(),
                ca_pem: None,
            },
            registry: RegistryAccess { host: self.registry.host_port(), plain_http: true, login: None, ca_pem: None },
            image_repository: "test/shop".to_owned(),
            live_commit: None,
            cache_from: None,
            mirrors: Vec::new(),
            masks: Vec::new(),
            outgoing: pipelines::protocol::OutgoingRules::default(),
            page_url: "http://windlass.test/hostile".to_owned(),
            bounds: JobBounds {
                step_memory_bytes: 128 << 20,
                checkout_bytes_max: BYTES_MAX,
                checkout_files_max: FILES_MAX,
                ..JobBounds::default()
            },
        })
    }

    /// Everything beside the mirror, which grows by what is fetched.
    fn listing(&self) -> Result<BTreeSet<PathBuf>> {
        let mut found = BTreeSet::new();
        let mut ahead = vec![self.root.path().to_owned()];
        while let Some(folder) = ahead.pop() {
            for entry in fs::read_dir(folder)? {
                let path = entry?.path();
                if path.ends_with("runner/mirrors") || path.ends_with("runner/runs") {
                    continue;
                }
                if path.is_dir() && !path.is_symlink() {
                    ahead.push(path.clone());
                }
                found.insert(path);
            }
        }
        Ok(found)
    }

    async fn run(&self, number: usize, case: &Case) -> Result<()> {
        let commit = self.commit(&self.tree(&case.tree)?)?;
        let job = self.job(number, &commit)?;
        let run = job.run.clone();
        self.desk.give(job);
        let end = self.desk.end_of(&run).await?;
        self.desk.left(&run).await?;
        let logs = self.desk.log_text(&run);
        match (&case.end, &end) {
            (End::Clean, Report::Succeeded { .. }) => {}
            (End::Refused(words), Report::Failed { blame: Blame::Code, reason }) => {
                ensure!(reason.contains(words) || logs.contains(words), "no {words:?} in {reason}\n{logs}");
            }
            _ => anyhow::bail!("{end:?}\n{logs}"),
        }
        let odd = |c: char| (c.is_control() && !matches!(c, '\n' | '\t')) || c == '\u{202e}';
        ensure!(!logs.contains(odd), "raw in the log: {:?}", logs.chars().filter(|c| odd(*c)).collect::<Vec<_>>());
        ensure!(fs::read_to_string(self.root.path().join("canary"))? == "untouched", "the canary was touched");
        ensure!(!Path::new("/CANARY").exists(), "a command of the repository ran on this machine");
        ensure!(!self.root.path().join("state/runner/runs/shop").exists(), "the run's folder is left");
        Ok(())
    }
}

impl Drop for Pen {
    fn drop(&mut self) {
        let images = self.engine.docker(&[
            "images",
            "-q",
            "--filter",
            "label=org.opencontainers.image.url=http://windlass.test/hostile",
        ]);
        for image in images.unwrap_or_default().lines() {
            self.engine.docker(&["rmi", "-f", image]).ok();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hostile_repository_does_nothing_outside_of_its_workspace_and_is_told_what_is_wrong() -> Result<()> {
    if !require(&[Part::Docker, Part::Registry]) {
        return Ok(());
    }
    let pen = Pen::open().await?;
    let engine = EngineConfig { host: pen.engine.host().to_owned(), ..EngineConfig::default() };
    let catalog = Arc::new(Catalog::builtin()?);
    let mut config = AgentConfig::new("pen".parse()?, pen.root.path().join("state/runner"), engine, catalog);
    (config.heartbeat_ms, config.retry_first_ms, config.stop_grace_ms) = (200, 50, 500);
    let agent = Agent::new(Link(pen.desk.clone()), config)?;
    let stop = CancellationToken::new();
    let work = tokio::spawn({
        let stop = stop.clone();
        async move { agent.run_forever(stop).await }
    });
    let before = pen.listing()?;
    let mut bad = Vec::new();
    let mut count = 0;
    for mut case in links().into_iter().chain(names()).chain(contents()) {
        case.tree = with_files(case.tree);
        count += 1;
        if let Err(error) = pen.run(count, &case).await {
            bad.push(format!("{}: {error:#}", case.name));
        }
        let after = pen.listing()?;
        let new: Vec<_> = after.difference(&before).collect();
        if !new.is_empty() {
            bad.push(format!("{}: left {new:?}", case.name));
        }
    }
    stop.cancel();
    work.await??;
    assert!(bad.is_empty(), "{} of {count}:\n{}", bad.len(), bad.join("\n\n"));
    evidence::record(
        "a hostile repository does nothing outside of its workspace",
        Tier::RealPart,
        format!("{count} repositories, 0 files outside"),
    );
    Ok(())
}
