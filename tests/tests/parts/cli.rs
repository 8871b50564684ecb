//! The command line, as a person and a script use it: the real program against a real `windlass serve` on real registries,
//! a real engine and a git server. It sees exit codes, standard output and standard error, and nothing else.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tests::evidence::{self, Tier};
use tests::{DockerEngine, GitHttp, GitHttpOptions, Part, Registry, Repo, Windlass, free_port, require};

const START_WITHIN: Duration = Duration::from_secs(30);
const BASE_IMAGE: &str = "busybox:1.36";

/// What a command did.
#[derive(Debug)]
struct Ended {
    code: i32,
    out: String,
    err: String,
}

impl Ended {
    fn json(&self) -> Result<Value> {
        serde_json::from_str(&self.out).with_context(|| format!("not JSON: {self:?}"))
    }

    fn lines(&self) -> Result<Vec<Value>> {
        self.out.lines().map(|line| Ok(serde_json::from_str(line)?)).collect()
    }
}

/// A person at a terminal that is none: a folder for their files, and a server.
struct Person {
    home: tempfile::TempDir,
    url: String,
}

impl Person {
    async fn windlass(&self, arguments: &[&str]) -> Result<Ended> {
        let mut command = tokio::process::Command::new(Windlass::binary()?);
        command.args(arguments).current_dir(self.home.path()).stdin(std::process::Stdio::null()).kill_on_drop(true);
        command.env("XDG_CONFIG_HOME", self.home.path()).env("WINDLASS_URL", &self.url);
        for name in ["WINDLASS_TOKEN", "WINDLASS_CONFIG", "WINDLASS_LOG", "WINDLASS_CA_FILE"] {
            command.env_remove(name);
        }
        let output = tokio::time::timeout(Duration::from_secs(180), command.output()).await??;
        Ok(Ended {
            code: output.status.code().unwrap_or(-1),
            out: String::from_utf8(output.stdout)?,
            err: String::from_utf8(output.stderr)?,
        })
    }

    /// A command that must succeed.
    async fn does(&self, arguments: &[&str]) -> Result<Ended> {
        let ended = self.windlass(arguments).await?;
        ensure!(ended.code == 0, "windlass {} failed: {ended:?}", arguments.join(" "));
        Ok(ended)
    }

    /// A command that must fail with this code; gives what it says.
    async fn fails(&self, code: i32, arguments: &[&str]) -> Result<String> {
        let ended = self.windlass(arguments).await?;
        ensure!(ended.code == code, "windlass {} did not end with {code}: {ended:?}", arguments.join(" "));
        ensure!(ended.out.is_empty(), "an error on standard output: {ended:?}");
        Ok(ended.err)
    }

    fn file(&self, name: &str, text: &str) -> Result<PathBuf> {
        let path = self.home.path().join(name);
        std::fs::write(&path, text)?;
        Ok(path)
    }
}

/// A server with its gateway.
struct Yard {
    service: String,
    server: Windlass,
    _gateway: Windlass,
    state: tempfile::TempDir,
    config: PathBuf,
    person: Person,
    test: Registry,
    production: Registry,
    engine: Option<&'static DockerEngine>,
}

impl Drop for Yard {
    fn drop(&mut self) {
        if let Some(engine) = self.engine {
            self.server.kill();
            // What is left over is found by the next test of this machine; nothing here can be done about it.
            let _ = engine.remove_labelled(&format!("windlass.service={}", self.service));
            let images = engine.docker(&["images", "--format", "{{.Repository}} {{.ID}}"]).unwrap_or_default();
            let ours = images.lines().filter_map(|line| line.split_once(' '));
            for (_, id) in ours.filter(|(repository, _)| repository.ends_with(&self.service)) {
                let _ = engine.docker(&["rmi", "--force", id]);
            }
        }
    }
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap_or_default()
}

impl Yard {
    async fn open(engine: Option<&'static DockerEngine>) -> Result<Self> {
        let state = tempfile::tempdir()?;
        let folder = state.path().join("state");
        let (listen, traffic) = (format!("127.0.0.1:{}", free_port()), format!("127.0.0.1:{}", free_port()));
        let test = Registry::start(Some(("robot", "test-password"))).await?;
        let production = Registry::start(None).await?;
        let password = state.path().join("registry-password");
        std::fs::write(&password, "test-password\n")?;
        if let Some(engine) = engine {
            engine.push(BASE_IMAGE, &test, "library/busybox", "1.36").await?;
        }
        let url = format!("http://{listen}");
        // JSON is YAML.
        let settings = json!({
            "state_dir": folder,
            "listen": listen,
            "public_url": url,
            "gateway": {"listen": traffic, "supervise": false},
            "registries": {
                "test": {"host": test.host_port(), "plain_http": true, "user": "robot", "password_file": password},
                "production": {"host": production.host_port(), "plain_http": true},
            },
            "docker_host": engine.map_or("unix:///nowhere.sock", DockerEngine::host),
            "mirrors": [{"from": BASE_IMAGE, "to": format!("{}/library/busybox:1.36", test.host_port())}],
            "mail": {"from": "Windlass <w@example.com>", "folder": state.path().join("mails")},
        });
        let config = state.path().join("windlass.yaml");
        std::fs::write(&config, settings.to_string())?;
        let gateway_state = state.path().join("gateway");
        std::fs::create_dir(&gateway_state)?;
        std::fs::create_dir_all(folder.join("gateway"))?;
        std::fs::set_permissions(&folder, std::os::unix::fs::PermissionsExt::from_mode(0o700))?;
        let gateway = Windlass::start(&gateway_state, &["gateway", "--folder", text(&folder.join("gateway"))], &[])?;
        let mut server = Windlass::start(state.path(), &["serve", "--config", text(&config)], &[])?;
        let password = server.printed("with the password ", START_WITHIN).await?;
        let person = Person { home: tempfile::tempdir()?, url };
        person.file("password", &password)?;
        let service = format!("cli-{}", free_port());
        let yard = Self { service, server, _gateway: gateway, state, config, person, test, production, engine };
        yard.until_it_answers().await?;
        Ok(yard)
    }

    async fn until_it_answers(&self) -> Result<()> {
        let client = tests::http_client();
        let health = format!("{}/healthz", self.person.url);
        for _ in 0..300 {
            if client.get(&health).send().await.is_ok_and(|answer| answer.status().is_success()) {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        anyhow::bail!("the server does not answer; it said: {}", self.server.log())
    }

    async fn login(&self) -> Result<()> {
        self.person.does(&["login", &self.person.url, "--name", "admin", "--password-file", "password"]).await?;
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn scripts_can_rely_on_exit_codes_and_versioned_json() -> Result<()> {
    if !require(&[Part::Registry]) {
        return Ok(());
    }
    let mut yard = Yard::open(None).await?;
    let person = &yard.person;
    // 4: nobody, and somebody who is not who they say.
    assert!(person.fails(4, &["whoami"]).await?.contains("windlass login"));
    person.file("wrong", "not the password")?;
    person.fails(4, &["login", &person.url, "--name", "admin", "--password-file", "wrong"]).await?;
    yard.login().await?;
    // A login takes the place of the one before, and a logout ends it: on the server too.
    yard.login().await?;
    let logins = || async {
        let tokens = person.does(&["token", "list", "-o", "json"]).await?.json()?;
        let all = tokens["items"].as_array().cloned().unwrap_or_default();
        Ok::<_, anyhow::Error>(all.iter().filter(|token| token["label"] == "windlass login").count())
    };
    ensure!(logins().await? == 1, "the token of the first login is still good");
    let ended = person.does(&["logout", "-o", "json"]).await?.json()?;
    assert_eq!(ended["ended"], json!(true));
    yard.login().await?;
    ensure!(logins().await? == 1, "the token of the login that was ended is still good");
    let kept = person.home.path().join("windlass/credentials");
    assert_eq!(std::os::unix::fs::MetadataExt::mode(&std::fs::metadata(&kept)?) & 0o777, 0o600);
    // Data is versioned JSON on standard output, as the API gives it.
    let who = person.does(&["whoami", "-o", "json"]).await?.json()?;
    assert_eq!(
        (&who["apiVersion"], &who["kind"], &who["role"]),
        (&json!("windlass/v1"), &json!("Whoami"), &json!("admin"))
    );
    // 6, and the error as JSON on standard error.
    let error: Value = serde_json::from_str(&person.fails(6, &["status", "nowhere", "-o", "json"]).await?)?;
    assert_eq!((&error["kind"], &error["exit"]), (&json!("Error"), &json!(6)));
    assert!(error["request_id"].is_string(), "{error}");
    // 2: the command line, and what the server finds wrong with it.
    person.fails(2, &["status", "../x"]).await?;
    person.file("short", "short")?;
    person.fails(2, &["account", "add", "bob", "--password-file", "short"]).await?;
    // 5: a token that only reads.
    let token = person.does(&["token", "create", "reader", "--read-only", "--expires", "1h"]).await?;
    let reader = Person { home: tempfile::tempdir()?, url: person.url.clone() };
    let mut command = tokio::process::Command::new(Windlass::binary()?);
    command
        .args(["account", "disable", "admin"])
        .env("WINDLASS_URL", &reader.url)
        .env("WINDLASS_TOKEN", token.out.trim());
    assert_eq!(command.env("HOME", reader.home.path()).output().await?.status.code(), Some(5));
    // People: added, listed, switched off.
    person.file("ada", "correct horse battery")?;
    person.does(&["account", "add", "ada", "--role", "tester", "--password-file", "ada"]).await?;
    person.does(&["account", "disable", "ada"]).await?;
    let accounts = person.does(&["account", "list", "-o", "json"]).await?.json()?;
    let ada = accounts["items"].as_array().and_then(|all| all.iter().find(|one| one["name"] == "ada"));
    assert_eq!(ada.map(|ada| &ada["disabled"]), Some(&json!(true)));
    // doctor: what is missing is bad, with its fix, and ends with 1.
    let ended = person.windlass(&["doctor", "--config", text(&yard.config), "-o", "json"]).await?;
    let checks = ended.json()?;
    let verdict = |name: &str| {
        let checks = checks["checks"].as_array();
        checks.and_then(|all| all.iter().find(|check| check["name"] == name)).map(|check| check["verdict"].clone())
    };
    for (name, wanted) in [
        ("docker", "bad"),
        ("test registry", "good"),
        ("production registry", "good"),
        ("gateway", "good"),
        ("state folder", "good"),
        ("server", "good"),
        ("clock", "good"),
        ("login", "good"),
        ("mail", "warning"),
    ] {
        assert_eq!(verdict(name), Some(json!(wanted)), "{name}: {checks}");
    }
    assert_eq!(ended.code, 1);
    // A wrong password of a registry is seen.
    std::fs::write(yard.state.path().join("registry-password"), "another")?;
    let ended = yard.person.windlass(&["doctor", "--config", text(&yard.config)]).await?;
    assert!(ended.out.contains("✗ test registry"), "{ended:?}");
    // 15: nobody there.
    yard.server.kill();
    yard.person.fails(15, &["status"]).await?;
    evidence::record("The command line ends with documented exit codes", Tier::RealPart, "0 1 2 4 5 6 15 seen");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_release_goes_live_by_the_command_line_alone() -> Result<()> {
    if !require(&[Part::Docker, Part::Registry, Part::Git]) {
        return Ok(());
    }
    let engine = DockerEngine::shared().await?;
    let yard = Yard::open(Some(engine)).await?;
    let (person, service) = (&yard.person, yard.service.as_str());
    yard.login().await?;
    let git = GitHttp::start(GitHttpOptions::default()).await?;
    let repo = Repo::init()?;
    repo.write(
        ".windlass.yaml",
        format!(
            "service: {service}\nbase: static-site@1\nsteps:\n  - name: test\n    image: {BASE_IMAGE}\n    commands: ['echo \
             tested-it', 'echo second']\nproduction: {{strategy: rolling}}\n"
        ),
    )?;
    repo.write("index.html", "one")?;
    repo.write("healthz", "ok")?;
    repo.commit("Ada <ada@example.com>", "one")?;
    tests::git_http::publish(&repo, &git, "shop.git")?;

    person.does(&["lint", text(&repo.path().join(".windlass.yaml"))]).await?;
    person.does(&["service", "add", service, "--repository", &git.url("shop.git"), "--poll", "1s"]).await?;
    // Polling finds the push; nobody has to start the run.
    let first = live(person, service, 1).await?;
    assert_eq!(first["state"], "live");
    let log = person.does(&["run", "log", &format!("{service}/1"), "test"]).await?;
    assert_eq!(log.out.lines().filter(|line| *line == "tested-it" || *line == "second").count(), 2, "{log:?}");
    let tail = person.does(&["run", "log", &format!("{service}/1"), "test", "-f", "-o", "json"]).await?.lines()?;
    assert!(tail.iter().any(|line| line["text"] == "second" && line["kind"] == "LogLine"), "{tail:?}");

    // A second one, and back to the first without a build.
    repo.write("index.html", "two")?;
    repo.commit("Ada <ada@example.com>", "two")?;
    repo.push(&git.url("shop.git"), "main")?;
    let second = live(person, service, 2).await?;
    assert_ne!(first["digest"], second["digest"]);
    person.does(&["rollback", service, "--reason", "two is too many"]).await?;
    let back = person.does(&["rollout", "watch", service, "--timeout", "2m"]).await?;
    assert!(back.err.contains("completed"), "{back:?}");
    let board = person.does(&["status", service, "-o", "json"]).await?.json()?;
    assert_eq!(board["live"]["number"], 1, "{board}");
    assert_eq!(board["live"]["digest"], first["digest"]);

    // The image is in both registries under one digest, and can be copied on by hand.
    let tag = first["tag"].as_str().context("a tag")?;
    let digest = first["digest"].as_str();
    assert_eq!(yard.test.digest(service, tag).await?.as_deref(), digest);
    assert_eq!(yard.production.digest(service, tag).await?.as_deref(), digest);
    let source = format!("{}/{service}:{tag}", yard.production.host_port());
    let target = format!("{}/copies/{service}:{tag}", yard.production.host_port());
    let copied = person.does(&["registry", "copy", &source, &target, "--plain-http", "-o", "json"]).await?.json()?;
    assert_eq!(copied["digest"].as_str(), digest);
    assert_eq!(yard.production.digest(&format!("copies/{service}"), tag).await?.as_deref(), digest);
    evidence::record("A release goes live, and back, by the command line alone", Tier::Live, "2 releases, 1 rollback");
    Ok(())
}

/// Watches run `number` to its end, approves its release by digest, and watches that to live traffic.
async fn live(person: &Person, service: &str, number: u32) -> Result<Value> {
    let id = format!("{service}/{number}");
    // The run is there when polling has seen the push.
    let mut watched = person.windlass(&["run", "watch", &id, "--timeout", "3m", "-o", "json"]).await?;
    for _ in 0..100 {
        if watched.code != 6 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
        watched = person.windlass(&["run", "watch", &id, "--timeout", "3m", "-o", "json"]).await?;
    }
    ensure!(watched.code == 0, "run {id}: {watched:?}");
    let seen = watched.lines()?;
    let last = seen.last().context("a run was seen")?;
    ensure!(last["kind"] == "Run" && last["state"] == "succeeded", "{last}");

    // It waits for a person, which has a code of its own.
    let waiting = person.windlass(&["release", "watch", &id, "--exit-when-waiting", "--timeout", "2m"]).await?;
    ensure!(waiting.code == 13, "{waiting:?}");
    // Off a terminal nothing is decided without the digest, and never on another one.
    let said = person.fails(2, &["approve", &id]).await?;
    let release = person.does(&["release", "show", &id, "-o", "json"]).await?.json()?;
    let digest = release["digest"].as_str().context("a digest")?;
    ensure!(said.contains(digest), "{said}");
    let other = format!("sha256:{}", "0".repeat(64));
    person.fails(1, &["approve", &id, "--digest", &other]).await?;
    person.does(&["approve", &id, "--digest", digest, "--comment", "well done"]).await?;
    let live = person.windlass(&["release", "watch", &id, "--timeout", "2m", "-o", "json"]).await?;
    ensure!(live.code == 0, "release {id}: {live:?}");
    live.lines()?.pop().context("a release was seen")
}
