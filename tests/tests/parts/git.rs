//! Fetching from real git servers: `git http-backend` over http and https, OpenSSH's sshd, and what goes wrong there.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use integrations::git::{
    CheckoutOptions, Fetched, GitCredential, GitError, GitOptions, HostKeyPolicy, KeyProblem, RemoteListing, changelog,
    checkout, fetch_commit, is_ancestor, ls_remote,
};
use pipelines::{
    ids::CommitSha,
    repository::{AddressError, RepositoryAddress},
};
use tests::{
    Fault, GitHttp, GitHttpOptions, Part, Repo, Sshd, Tier, evidence, free_port, git_http::publish, process::output,
    require,
};

const AUTHOR: &str = "Li Wei <li@example.com>";
const PASSWORD: &str = "s3cret-of-the-test";

fn login() -> Option<(String, String)> {
    Some(("robot".into(), PASSWORD.into()))
}

fn token(secret: &str) -> GitCredential {
    GitCredential::Token { user: "robot".into(), secret: secret.to_owned().into() }
}

fn ssh_key(text: &str, passphrase: Option<&str>) -> GitCredential {
    GitCredential::SshKey {
        private_key_openssh: text.to_owned().into(),
        passphrase: passphrase.map(|text| text.to_owned().into()),
    }
}

/// Bounds that a broken test does not wait long for.
fn options() -> GitOptions {
    GitOptions {
        connect_timeout_ms: 5_000,
        stall_timeout_ms: 10_000,
        total_timeout_ms: 60_000,
        ..GitOptions::default()
    }
}

async fn list(url: &str, credential: &GitCredential, options: &GitOptions) -> Result<RemoteListing, GitError> {
    let (url, credential, options) = (url.parse::<RepositoryAddress>()?, credential.clone(), options.clone());
    tokio::task::spawn_blocking(move || ls_remote(&url, &credential, &options)).await.expect("listing does not panic")
}

/// What a fetch needs, beside the commit.
#[derive(Clone)]
struct Source {
    mirror: PathBuf,
    url: RepositoryAddress,
    credential: GitCredential,
    options: GitOptions,
}

impl Source {
    fn new(mirror: &Path, url: &str, credential: &GitCredential, options: &GitOptions) -> Result<Self> {
        let url = RepositoryAddress::parse_allowing_files(url)?;
        Ok(Self { mirror: mirror.to_owned(), url, credential: credential.clone(), options: options.clone() })
    }

    async fn fetch(&self, reference: Option<&str>, commit: &CommitSha) -> Result<Fetched, GitError> {
        let (from, reference, commit) = (self.clone(), reference.map(str::to_owned), commit.clone());
        let work = move || {
            let reference = reference.as_deref();
            fetch_commit(&from.mirror, &from.url, &from.credential, reference, &commit, &from.options)
        };
        tokio::task::spawn_blocking(work).await.expect("fetching does not panic")
    }
}

/// A working copy with a few commits and two tags; gives the ids, oldest first.
fn sample(commits: usize) -> Result<(Repo, Vec<CommitSha>)> {
    let repo = Repo::init()?;
    let mut ids = Vec::new();
    for number in 0..commits {
        repo.write("app/version.txt", format!("{number}\n"))?;
        repo.write(&format!("data/{number}.bin"), noise(number as u64, 20_000))?;
        ids.push(repo.commit(AUTHOR, &format!("change {number}"))?.parse()?);
    }
    repo.git(&["tag", "light"])?;
    repo.git(&["tag", "-a", "v1.0", "-m", "first release"])?;
    Ok((repo, ids))
}

/// Bytes that do not compress, the same for the same seed (xorshift64).
fn noise(seed: u64, bytes: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    (0..bytes).map(|_| next()).collect()
}

fn last(ids: &[CommitSha]) -> Result<&CommitSha> {
    ids.last().context("there are commits")
}

#[tokio::test]
async fn a_commit_comes_over_https_with_a_password_and_is_written_out_exactly() -> Result<()> {
    if !require(&[Part::Git]) {
        return Ok(());
    }
    let server = GitHttp::start(GitHttpOptions { login: login(), tls: true, faults: None }).await?;
    let (repo, ids) = sample(30)?;
    publish(&repo, &server, "shop.git")?;
    let folder = tempfile::tempdir()?;
    let options = GitOptions { ca_pem: Some(server.ca_pem()?), ..options() };
    let (url, credential) = (server.url("shop.git"), token(PASSWORD));

    let listing = list(&url, &credential, &options).await?;
    ensure!(listing.default_branch.as_deref() == Some("main"), "{listing:?}");
    let names: Vec<_> = listing.refs.iter().map(|entry| entry.name.as_str()).collect();
    ensure!(names == ["refs/heads/main", "refs/tags/light", "refs/tags/v1.0"], "{names:?}");
    ensure!(listing.refs.iter().all(|entry| entry.commit() == last(&ids).unwrap_or(entry.commit())), "{listing:?}");
    ensure!(listing.refs[2].sha != *listing.refs[2].commit(), "an annotated tag is an object of its own");

    let from = Source::new(&folder.path().join("mirror.git"), &url, &credential, &options)?;
    let started = Instant::now();
    let first = from.fetch(Some("main"), last(&ids)?).await?;
    let took = started.elapsed();
    ensure!(!first.already_there && first.tip.as_ref() == ids.last(), "{first:?}");
    ensure!(first.received_bytes > 600_000, "{first:?}");

    let work = folder.path().join("work");
    let info = checkout(&from.mirror, last(&ids)?, &work, &CheckoutOptions::default())?;
    ensure!(info.tree_id == repo.git(&["rev-parse", "HEAD^{tree}"])?, "{info:?}");
    ensure!((info.author.as_str(), info.author_email.as_str()) == ("Li Wei", "li@example.com"));
    output(Command::new("diff").args(["-r", "--exclude=.git"]).arg(repo.path()).arg(&work))?;

    // The next commit costs only what is new in it.
    repo.write("app/version.txt", "next\n")?;
    let next: CommitSha = repo.commit(AUTHOR, "next")?.parse()?;
    repo.push(&server.root().join("shop.git").to_string_lossy(), "main")?;
    let second = from.fetch(Some("refs/heads/main"), &next).await?;
    ensure!(second.received_bytes < 5_000, "{second:?}");
    let log = changelog(&from.mirror, Some(&ids[28]), &next, 10)?;
    let subjects: Vec<_> = log.commits.iter().map(|commit| commit.subject.as_str()).collect();
    ensure!(subjects == ["next", "change 29"], "{subjects:?}");

    let again = from.fetch(Some("main"), &next).await?;
    ensure!(again.already_there, "{again:?}");
    let figure =
        format!("{} kB in {} ms, then {} B", first.received_bytes / 1000, took.as_millis(), second.received_bytes);
    evidence::record("fetches a commit over https with a token", Tier::RealPart, figure);
    Ok(())
}

#[tokio::test]
async fn credentials_are_asked_for_refused_and_never_repeated() -> Result<()> {
    if !require(&[Part::Git]) {
        return Ok(());
    }
    let server = GitHttp::start(GitHttpOptions { login: login(), ..GitHttpOptions::default() }).await?;
    let (repo, _) = sample(1)?;
    publish(&repo, &server, "shop.git")?;
    let url = server.url("shop.git");
    let asked = list(&url, &GitCredential::None, &options()).await.unwrap_err();
    ensure!(matches!(asked, GitError::AuthenticationNeeded { .. }), "{asked}");
    let refused = list(&url, &token("wrong"), &options()).await.unwrap_err();
    ensure!(
        matches!(&refused, GitError::AuthenticationRefused { said, .. } if said.as_str() == "who are you?"),
        "{refused}"
    );
    list(&url, &token(PASSWORD), &options()).await?;
    let misfit = list(&url, &ssh_key("x", None), &options()).await.unwrap_err();
    ensure!(matches!(misfit, GitError::WrongCredential { .. }), "{misfit}");

    // A server that says back what it was sent.
    let echo: tests::git_http::Faults = Arc::new(|_, _| {
        let text = format!("bad token {PASSWORD} (cm9ib3Q6czNjcmV0LW9mLXRoZS10ZXN0)");
        Some(Fault::Answer(403, Vec::new(), text))
    });
    let server = GitHttp::start(GitHttpOptions { faults: Some(echo), ..GitHttpOptions::default() }).await?;
    let refused = list(&server.url("x.git"), &token(PASSWORD), &options()).await.unwrap_err();
    let shown = format!("{refused} {refused:?}");
    ensure!(shown.contains("bad token *** (***)") && !shown.contains(PASSWORD), "{shown}");
    Ok(())
}

#[tokio::test]
async fn an_https_server_without_a_trusted_certificate_gets_no_request() -> Result<()> {
    if !require(&[Part::Git]) {
        return Ok(());
    }
    let server = GitHttp::start(GitHttpOptions { tls: true, ..GitHttpOptions::default() }).await?;
    let other = GitHttp::start(GitHttpOptions { tls: true, ..GitHttpOptions::default() }).await?;
    let (repo, _) = sample(1)?;
    publish(&repo, &server, "shop.git")?;
    let url = server.url("shop.git");
    for ca_pem in [None, Some(other.ca_pem()?)] {
        let error = list(&url, &token(PASSWORD), &GitOptions { ca_pem, ..options() }).await.unwrap_err();
        ensure!(matches!(error, GitError::UntrustedCertificate { .. }), "{error:?}");
    }
    ensure!(server.seen().is_empty(), "{:?}", server.seen());
    let bad = GitOptions { ca_pem: Some("nonsense".into()), ..options() };
    let error = list(&url, &token(PASSWORD), &bad).await.unwrap_err();
    ensure!(matches!(error, GitError::CertificateAuthority { .. }), "{error:?}");
    list(&url, &GitCredential::None, &GitOptions { ca_pem: Some(server.ca_pem()?), ..options() }).await?;
    evidence::record("refuses a git server with an untrusted certificate", Tier::RealPart, "0 requests sent");
    Ok(())
}

#[tokio::test]
async fn redirects_are_followed_within_bounds_and_another_host_gets_no_credential() -> Result<()> {
    if !require(&[Part::Git]) {
        return Ok(());
    }
    let target = GitHttp::start(GitHttpOptions { login: login(), ..GitHttpOptions::default() }).await?;
    let open = GitHttp::start(GitHttpOptions::default()).await?;
    let (repo, ids) = sample(2)?;
    publish(&repo, &target, "new.git")?;
    publish(&repo, &open, "new.git")?;
    let (to_target, to_open) = (target.url("new.git"), open.url("new.git"));
    let faults: tests::git_http::Faults = Arc::new(move |_, path| {
        let rest = "/info/refs?service=git-upload-pack";
        let to = match path.strip_suffix(rest)? {
            "/renamed.git" => format!("/shop.git{rest}"),
            "/moved.git" => format!("{to_target}{rest}"),
            "/opened.git" => format!("{to_open}{rest}"),
            "/loop.git" => format!("/loop.git{rest}"),
            "/login.git" => "/login?next=x".into(),
            "/file.git" => format!("file:///etc{rest}"),
            _ => return None,
        };
        Some(Fault::Answer(302, vec![("location", to)], String::new()))
    });
    let server = GitHttp::start(GitHttpOptions { login: login(), tls: false, faults: Some(faults) }).await?;
    publish(&repo, &server, "shop.git")?;
    let folder = tempfile::tempdir()?;

    // On the same server the credential goes along, for the pack too.
    let renamed = Source::new(&folder.path().join("a.git"), &server.url("renamed.git"), &token(PASSWORD), &options())?;
    renamed.fetch(Some("main"), last(&ids)?).await?;
    // To another server it does not.
    let error = list(&server.url("moved.git"), &token(PASSWORD), &options()).await.unwrap_err();
    ensure!(matches!(error, GitError::AuthenticationNeeded { .. }), "{error}");
    let opened = Source::new(&folder.path().join("b.git"), &server.url("opened.git"), &token(PASSWORD), &options())?;
    opened.fetch(Some("main"), last(&ids)?).await?;
    for elsewhere in [&target, &open] {
        let seen = elsewhere.seen();
        ensure!(!seen.is_empty() && seen.iter().all(|request| request.authorization.is_none()), "{seen:?}");
    }
    for (name, why) in [("loop.git", "more than 5 times"), ("login.git", "sign-in page"), ("file.git", "only http")] {
        let error = list(&server.url(name), &token(PASSWORD), &options()).await.unwrap_err();
        ensure!(matches!(&error, GitError::Redirect { .. }) && error.to_string().contains(why), "{error}");
    }
    evidence::record("a redirect to another host carries no credential", Tier::RealPart, "0 of 3 requests");
    Ok(())
}

#[tokio::test]
async fn a_redirect_from_https_to_plain_http_is_not_followed() -> Result<()> {
    if !require(&[Part::Git]) {
        return Ok(());
    }
    let plain = GitHttp::start(GitHttpOptions::default()).await?;
    let to = format!("{}/info/refs?service=git-upload-pack", plain.url("x.git"));
    let faults: tests::git_http::Faults =
        Arc::new(move |_, _| Some(Fault::Answer(301, vec![("location", to.clone())], String::new())));
    let server = GitHttp::start(GitHttpOptions { login: None, tls: true, faults: Some(faults) }).await?;
    let options = GitOptions { ca_pem: Some(server.ca_pem()?), ..options() };
    let error = list(&server.url("x.git"), &token(PASSWORD), &options).await.unwrap_err();
    ensure!(matches!(&error, GitError::Redirect { why, .. } if why.contains("plain http")), "{error}");
    ensure!(plain.seen().is_empty());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_is_found_off_its_branch_and_one_that_vanished_is_named() -> Result<()> {
    if !require(&[Part::Git]) {
        return Ok(());
    }
    let server = GitHttp::start(GitHttpOptions::default()).await?;
    let (repo, ids) = sample(3)?;
    let bare = publish(&repo, &server, "shop.git")?;
    let pushed_to = server.url("shop.git");
    // A side branch, then main goes back and on another way: the third commit is on no branch any more.
    repo.git(&["checkout", "--quiet", "-b", "side"])?;
    repo.write("side.txt", "x")?;
    let side: CommitSha = repo.commit(AUTHOR, "side")?.parse()?;
    repo.push(&pushed_to, "side")?;
    repo.git(&["checkout", "--quiet", "-B", "main", ids[0].as_str()])?;
    repo.write("other.txt", "x")?;
    let forced: CommitSha = repo.commit(AUTHOR, "forced")?.parse()?;

    let folder = tempfile::tempdir()?;
    let before =
        Source::new(&folder.path().join("before.git"), &server.url("shop.git"), &GitCredential::None, &options())?;
    before.fetch(Some("main"), &ids[2]).await?;
    for gone in [":side", ":light", ":v1.0", "+main"] {
        repo.push(&pushed_to, gone)?;
    }
    let from =
        Source::new(&folder.path().join("after.git"), &server.url("shop.git"), &GitCredential::None, &options())?;
    for (commit, reference) in [(&ids[2], Some("main")), (&ids[2], None), (&side, Some("refs/heads/side"))] {
        let error = from.fetch(reference, commit).await.unwrap_err();
        ensure!(matches!(&error, GitError::CommitVanished { commit: named, .. } if named == commit), "{error}");
    }
    let said = from.fetch(Some("main"), &ids[2]).await.unwrap_err().to_string();
    ensure!(said.ends_with("main was force-pushed or deleted"), "{said}");
    // A run that is repeated has it still.
    ensure!(before.fetch(Some("main"), &ids[2]).await?.already_there);
    // Where the server allows it, the id alone is enough, and the caller can see that it is on no branch.
    output(Command::new("git").arg("-C").arg(&bare).args(["config", "uploadpack.allowAnySHA1InWant", "true"]))?;
    let found = from.fetch(Some("main"), &ids[2]).await?;
    ensure!(found.tip.as_ref() == Some(&forced), "{found:?}");
    ensure!(!is_ancestor(&from.mirror, &ids[2], &forced)? && is_ancestor(&from.mirror, &ids[0], &forced)?);

    // A commit behind the tip, one on another branch than was said, and one by its tag.
    output(Command::new("git").arg("-C").arg(&bare).args(["config", "uploadpack.allowAnySHA1InWant", "false"]))?;
    repo.push(&pushed_to, "side")?;
    repo.push(&pushed_to, "v1.0")?;
    for (number, commit, reference) in
        [(1, &ids[0], Some("main")), (2, &side, Some("main")), (3, &ids[2], Some("v1.0")), (4, &ids[2], Some("gone"))]
    {
        let mirror = folder.path().join(format!("{number}.git"));
        let from = Source::new(&mirror, &server.url("shop.git"), &GitCredential::None, &options())?;
        from.fetch(reference, commit).await.with_context(|| format!("case {number}"))?;
        checkout(&mirror, commit, &folder.path().join(format!("work-{number}")), &CheckoutOptions::default())?;
    }
    evidence::record("a force-pushed commit is named as vanished", Tier::RealPart, "3 of 3 ways to ask");
    Ok(())
}

#[tokio::test]
async fn what_a_server_answers_instead_of_git_is_told_apart() -> Result<()> {
    if !require(&[Part::Git]) {
        return Ok(());
    }
    let faults: tests::git_http::Faults = Arc::new(|_, path| {
        let name = path.split('/').nth(1).unwrap_or_default();
        let answer = |status, text: &str| Some(Fault::Answer(status, Vec::new(), text.to_owned()));
        match name {
            "busy.git" => answer(503, "come back later"),
            "limit.git" => answer(429, ""),
            "page.git" => Some(Fault::Answer(200, vec![("content-type", "text/html".into())], "<html>".into())),
            "teapot.git" => answer(418, "short and stout"),
            "stall.git" => Some(Fault::Stall),
            _ => None,
        }
    });
    let server = GitHttp::start(GitHttpOptions { faults: Some(faults), ..GitHttpOptions::default() }).await?;
    let quick = GitOptions { stall_timeout_ms: 300, ..options() };
    let ask = async |name: &str| list(&server.url(name), &GitCredential::None, &quick).await.unwrap_err();

    let error = ask("nothing.git").await;
    ensure!(matches!(error, GitError::NotFound { .. }) && !error.is_transient(), "{error}");
    for (name, wanted) in [("busy.git", 503), ("limit.git", 429)] {
        let error = ask(name).await;
        ensure!(matches!(error, GitError::ServerFailed { status, .. } if status == wanted), "{error}");
        ensure!(error.is_transient());
    }
    let error = ask("page.git").await;
    ensure!(matches!(error, GitError::Protocol { .. }) && error.to_string().contains("text/html"), "{error}");
    ensure!(ask("teapot.git").await.to_string().contains("418 short and stout"));
    let error = ask("stall.git").await;
    ensure!(matches!(error, GitError::TimedOut { waited_ms: 300, .. }) && error.is_transient(), "{error}");

    let nobody = format!("http://127.0.0.1:{}/x.git", free_port());
    let error = list(&nobody, &GitCredential::None, &quick).await.unwrap_err();
    ensure!(matches!(error, GitError::Unreachable { .. }) && error.is_transient(), "{error}");
    let error = list("http://no-such-host.invalid/x.git", &GitCredential::None, &quick).await.unwrap_err();
    ensure!(matches!(error, GitError::Unreachable { .. }), "{error}");
    Ok(())
}

#[tokio::test]
async fn a_fetch_that_breaks_off_is_over_a_bound_or_cancelled_leaves_a_mirror_that_works() -> Result<()> {
    if !require(&[Part::Git]) {
        return Ok(());
    }
    let faults: tests::git_http::Faults =
        Arc::new(|method, path| (method == "POST" && path.starts_with("/cut.git")).then_some(Fault::CutAfter(50_000)));
    let server = GitHttp::start(GitHttpOptions { faults: Some(faults), ..GitHttpOptions::default() }).await?;
    let (repo, ids) = sample(20)?;
    publish(&repo, &server, "shop.git")?;
    publish(&repo, &server, "cut.git")?;
    let folder = tempfile::tempdir()?;
    let mirror = folder.path().join("mirror.git");
    let (commit, none) = (last(&ids)?, GitCredential::None);
    let case = |name: &str, options: &GitOptions| Source::new(&mirror, &server.url(name), &none, options);

    let error = case("cut.git", &options())?.fetch(Some("main"), commit).await.unwrap_err();
    ensure!(matches!(error, GitError::Unreachable { .. }) && error.is_transient(), "{error:?}");
    let small = GitOptions { max_pack_bytes: 100_000, max_refs_bytes: 1_000, ..options() };
    let error = case("shop.git", &small)?.fetch(Some("main"), commit).await.unwrap_err();
    ensure!(matches!(error, GitError::TooLarge { what: "the fetched pack", .. }), "{error:?}");
    let tiny = GitOptions { max_refs_bytes: 100, ..options() };
    let error = list(&server.url("shop.git"), &none, &tiny).await.unwrap_err();
    ensure!(matches!(error, GitError::TooLarge { what: "the list of refs", limit: 100, .. }), "{error:?}");
    let stopped = options();
    stopped.cancel.cancel();
    let error = case("shop.git", &stopped)?.fetch(Some("main"), commit).await.unwrap_err();
    ensure!(matches!(error, GitError::Cancelled), "{error:?}");
    let late = GitOptions { total_timeout_ms: 0, ..options() };
    let error = case("shop.git", &late)?.fetch(Some("main"), commit).await.unwrap_err();
    ensure!(matches!(error, GitError::TimedOut { .. }), "{error:?}");

    let packs = fs::read_dir(mirror.join("objects/pack"))?.count();
    ensure!(packs == 0, "{packs} files were left by what failed");
    // And many at once.
    let fetches = (0..6).map(|_| {
        let from = case("shop.git", &options());
        async move { anyhow::Ok(from?.fetch(Some("main"), commit).await?) }
    });
    futures_util::future::try_join_all(fetches).await?;
    checkout(&mirror, commit, &folder.path().join("work"), &CheckoutOptions::default())?;
    Ok(())
}

#[tokio::test]
async fn a_cancelled_fetch_ends_while_the_server_is_silent() -> Result<()> {
    if !require(&[Part::Git]) {
        return Ok(());
    }
    let faults: tests::git_http::Faults = Arc::new(|_, _| Some(Fault::Stall));
    let server = GitHttp::start(GitHttpOptions { faults: Some(faults), ..GitHttpOptions::default() }).await?;
    let options = options();
    let cancel = options.cancel.clone();
    let url = server.url("x.git");
    let listing = tokio::spawn(async move { list(&url, &GitCredential::None, &options).await });
    while server.seen().is_empty() {
        tokio::task::yield_now().await;
    }
    let started = Instant::now();
    cancel.cancel();
    let error = listing.await?.unwrap_err();
    ensure!(matches!(error, GitError::Cancelled), "{error}");
    ensure!(started.elapsed() < Duration::from_secs(2), "it took {:?}", started.elapsed());
    Ok(())
}

#[tokio::test]
async fn a_commit_comes_over_ssh_with_a_key_in_memory_and_the_host_key_is_pinned() -> Result<()> {
    if !require(&[Part::Sshd, Part::Git]) {
        return Ok(());
    }
    let sshd = Sshd::start().await?;
    let (repo, ids) = sample(30)?;
    let folder = tempfile::tempdir()?;
    let bare = repo.bare_copy(folder.path(), "it's a shop.git")?;
    let url = sshd.url(&bare).replace(' ', "%20");
    let credential = ssh_key(&sshd.client_key()?, None);

    let listing = list(&url, &credential, &options()).await?;
    let learned = listing.learned_host_key.clone().context("the first key is learnt")?;
    ensure!(learned == sshd.known_hosts()?.trim(), "{learned}");
    ensure!(listing.default_branch.as_deref() == Some("main"), "{listing:?}");

    let pinned = GitOptions { host_keys: HostKeyPolicy::from_lines(&[learned])?, ..options() };
    let from = Source::new(&folder.path().join("mirror.git"), &url, &credential, &pinned)?;
    let started = Instant::now();
    let first = from.fetch(Some("main"), last(&ids)?).await?;
    let took = started.elapsed();
    ensure!(first.received_bytes > 600_000 && first.learned_host_key.is_none(), "{first:?}");
    let work = folder.path().join("work");
    checkout(&from.mirror, last(&ids)?, &work, &CheckoutOptions::default())?;
    output(Command::new("diff").args(["-r", "--exclude=.git"]).arg(repo.path()).arg(&work))?;
    repo.write("app/version.txt", "next\n")?;
    let next: CommitSha = repo.commit(AUTHOR, "next")?.parse()?;
    repo.push(&bare.to_string_lossy(), "main")?;
    let second = from.fetch(Some("main"), &next).await?;
    ensure!(second.received_bytes < 5_000, "{second:?}");

    let gone: CommitSha = "1".repeat(40).parse()?;
    let error = from.fetch(Some("main"), &gone).await.unwrap_err();
    ensure!(matches!(error, GitError::CommitVanished { .. }), "{error}");
    let absent = list(&sshd.url(&folder.path().join("absent.git")), &credential, &pinned).await.unwrap_err();
    ensure!(matches!(absent, GitError::NotFound { .. }), "{absent}");
    let figure =
        format!("{} kB in {} ms, then {} B", first.received_bytes / 1000, took.as_millis(), second.received_bytes);
    evidence::record("fetches a commit over ssh with a key in memory", Tier::RealPart, figure);
    Ok(())
}

#[tokio::test]
async fn an_ssh_server_with_another_host_key_is_refused_before_anything_is_sent() -> Result<()> {
    if !require(&[Part::Sshd, Part::Git]) {
        return Ok(());
    }
    let (sshd, other) = (Sshd::start().await?, Sshd::start().await?);
    let (repo, _) = sample(1)?;
    let folder = tempfile::tempdir()?;
    let url = sshd.url(&repo.bare_copy(folder.path(), "shop.git")?);
    let credential = ssh_key(&sshd.client_key()?, None);
    let pin = |lines: &[String]| anyhow::Ok(GitOptions { host_keys: HostKeyPolicy::from_lines(lines)?, ..options() });

    let wrong = format!("[127.0.0.1]:{} {}", sshd.port(), other.host_key()?);
    let error = list(&url, &credential, &pin(&[wrong])?).await.unwrap_err();
    ensure!(
        matches!(&error, GitError::HostKeyMismatch { offered, .. } if offered.starts_with("ssh-ed25519 SHA256:")),
        "{error}"
    );
    let fingerprint =
        output(Command::new("ssh-keygen").args(["-l", "-f"]).arg(sshd.client_key_file().with_file_name("host.pub")))?;
    let fingerprint = fingerprint.split_whitespace().nth(1).unwrap_or_default();
    ensure!(error.to_string().contains(fingerprint), "{error} names {fingerprint}");
    ensure!(!sshd.log_tail().contains("Accepted publickey"), "{}", sshd.log_tail());

    let ecdsa = folder.path().join("ecdsa");
    output(Command::new("ssh-keygen").args(["-q", "-t", "ecdsa", "-N", "", "-f"]).arg(&ecdsa))?;
    let ecdsa = fs::read_to_string(ecdsa.with_extension("pub"))?;
    for lines in [vec![other.known_hosts()?], vec![format!("* {ecdsa}")]] {
        let error = list(&url, &credential, &pin(&lines)?).await.unwrap_err();
        ensure!(matches!(error, GitError::HostKeyMismatch { .. }), "{error}");
    }
    // Two pinned types of one host: the server is asked for the one that it has.
    list(&url, &credential, &pin(&[format!("* {ecdsa}"), sshd.known_hosts()?])?).await?;
    evidence::record("refuses an ssh server with another host key", Tier::RealPart, "before the key is offered");
    Ok(())
}

#[tokio::test]
async fn keys_are_opened_refused_as_rsa_or_not_known_each_with_its_word() -> Result<()> {
    if !require(&[Part::Sshd, Part::Git]) {
        return Ok(());
    }
    let sshd = Sshd::start().await?;
    let (repo, _) = sample(1)?;
    let folder = tempfile::tempdir()?;
    let url = sshd.url(&repo.bare_copy(folder.path(), "shop.git")?);
    let make = |name: &str, arguments: &[&str]| -> Result<String> {
        let file = folder.path().join(name);
        output(Command::new("ssh-keygen").arg("-q").args(arguments).arg("-f").arg(&file))?;
        Ok(fs::read_to_string(file)?)
    };
    let refused = async |credential: GitCredential| list(&url, &credential, &options()).await.unwrap_err();

    let error = refused(GitCredential::None).await;
    ensure!(matches!(error, GitError::AuthenticationNeeded { .. }), "{error}");
    let error = refused(token(PASSWORD)).await;
    ensure!(matches!(error, GitError::WrongCredential { .. }), "{error}");
    let error = refused(ssh_key(&make("stranger", &["-t", "ed25519", "-N", ""])?, None)).await;
    ensure!(matches!(error, GitError::AuthenticationRefused { .. }), "{error}");

    let rsa = [
        make("rsa", &["-t", "rsa", "-b", "2048", "-N", ""])?,
        make("rsa-locked", &["-t", "rsa", "-b", "2048", "-N", "hidden"])?,
        make("rsa-pem", &["-t", "rsa", "-b", "2048", "-m", "PEM", "-N", ""])?,
        make("rsa-pkcs8", &["-t", "rsa", "-b", "2048", "-m", "PKCS8", "-N", ""])?,
    ];
    for (number, key) in rsa.iter().enumerate() {
        let error = refused(ssh_key(key, None)).await;
        ensure!(matches!(error, GitError::Key(KeyProblem::Rsa)), "key {number}: {error:?}");
        ensure!(error.to_string().contains("RSA keys are not accepted"), "{error}");
    }
    // The client's own key, locked: with the passphrase it opens.
    let locked = folder.path().join("locked");
    fs::copy(sshd.client_key_file(), &locked)?;
    output(Command::new("chmod").arg("600").arg(&locked))?;
    output(Command::new("ssh-keygen").args(["-q", "-p", "-P", "", "-N", "open sesame", "-f"]).arg(&locked))?;
    let locked = fs::read_to_string(locked)?;
    for (passphrase, problem) in [(None, KeyProblem::Encrypted), (Some("wrong"), KeyProblem::WrongPassphrase)] {
        match refused(ssh_key(&locked, passphrase)).await {
            GitError::Key(found) if found == problem => {}
            error => bail!("{problem:?} was {error:?}"),
        }
    }
    list(&url, &ssh_key(&locked.replace('\n', "\r\n"), Some("open sesame")), &options()).await?;
    for nonsense in ["", "nonsense", "-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n-----END OPENSSH PRIVATE KEY-----\n"] {
        let error = refused(ssh_key(nonsense, None)).await;
        ensure!(matches!(error, GitError::Key(KeyProblem::Unreadable)), "{error:?}");
    }
    evidence::record("refuses RSA keys for git over ssh with the word", Tier::RealPart, "4 formats");
    Ok(())
}

#[tokio::test]
async fn an_ssh_server_that_is_away_silent_or_none_is_told_apart() -> Result<()> {
    if !require(&[Part::Git]) {
        return Ok(());
    }
    let key = folder_key()?;
    let quick = GitOptions { connect_timeout_ms: 300, ..options() };
    let error = list(&format!("ssh://git@127.0.0.1:{}/x.git", free_port()), &key, &quick).await.unwrap_err();
    ensure!(matches!(error, GitError::Unreachable { .. }), "{error}");
    let silent = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await?;
    let error = list(&format!("ssh://git@{}/x.git", silent.local_addr()?), &key, &quick).await.unwrap_err();
    ensure!(matches!(error, GitError::TimedOut { waited_ms: 300, .. }), "{error}");
    let web = GitHttp::start(GitHttpOptions::default()).await?;
    let error = list(&web.url("x.git").replace("http://", "ssh://git@"), &key, &quick).await.unwrap_err();
    ensure!(matches!(error, GitError::Unreachable { .. } | GitError::TimedOut { .. }), "{error}");
    Ok(())
}

fn folder_key() -> Result<GitCredential> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("key");
    output(Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(&file))?;
    Ok(ssh_key(&fs::read_to_string(file)?, None))
}

#[test]
fn a_folder_of_this_machine_is_a_repository_only_where_that_is_allowed() -> Result<()> {
    if !require(&[Part::Git]) {
        return Ok(());
    }
    let (repo, ids) = sample(3)?;
    let folder = tempfile::tempdir()?;
    let bare = repo.bare_copy(folder.path(), "shop.git")?;
    let text = format!("file://{}", bare.display());
    ensure!(matches!(text.parse::<RepositoryAddress>(), Err(AddressError::Folder)));
    let (url, none) = (RepositoryAddress::parse_allowing_files(&text)?, GitCredential::None);
    let mirror = folder.path().join("mirror.git");
    let fetched = fetch_commit(&mirror, &url, &none, Some("main"), last(&ids)?, &options())?;
    ensure!(fetched.received_bytes > 60_000, "{fetched:?}");
    let listing = ls_remote(&url, &none, &options())?;
    ensure!(listing.default_branch.as_deref() == Some("main") && listing.refs.len() == 3, "{listing:?}");
    let absent = RepositoryAddress::parse_allowing_files("file:///nowhere/x.git")?;
    let error = ls_remote(&absent, &none, &options()).unwrap_err();
    ensure!(matches!(error, GitError::NotFound { .. }), "{error:?}");
    Ok(())
}

/// One packet of git's protocol: its length in four hex digits, then its text.
fn packet(text: &str) -> String {
    format!("{:04x}{text}", text.len() + 4)
}

#[tokio::test]
async fn a_server_that_lies_about_its_refs_does_no_harm() -> Result<()> {
    if !require(&[Part::Git]) {
        return Ok(());
    }
    let wanted = "1".repeat(40);
    let advertised = wanted.clone();
    let faults: tests::git_http::Faults = Arc::new(move |method, path| {
        let (kind, first) = ("application/x-git-upload-pack-advertisement", packet("# service=git-upload-pack\n"));
        let text = match (method, path.split('/').nth(1).unwrap_or_default()) {
            ("POST", _) => return Some(Fault::Answer(500, Vec::new(), String::new())),
            (_, "climbing.git") => {
                let name = packet(&format!("{advertised} refs/heads/../../../evil\0side-band-64k\n"));
                let star = packet(&format!("{advertised} refs/heads/*\n"));
                format!("{first}0000{name}{star}0000")
            }
            (_, "error.git") => format!("{first}0000{}0000", packet("ERR access denied to you\n")),
            (_, "short.git") => format!("{first}0000fff0"),
            _ => "no packets at all".to_owned(),
        };
        Some(Fault::Answer(200, vec![("content-type", kind.to_owned())], text))
    });
    let server = GitHttp::start(GitHttpOptions { faults: Some(faults), ..GitHttpOptions::default() }).await?;
    let folder = tempfile::tempdir()?;
    let mirror = folder.path().join("deep/down/mirror.git");
    let source = Source::new(&mirror, &server.url("climbing.git"), &GitCredential::None, &options())?;
    let error = source.fetch(None, &wanted.parse()?).await.unwrap_err();
    ensure!(matches!(error, GitError::CommitVanished { .. }), "{error:?}");
    ensure!(!folder.path().join("evil").exists() && !folder.path().join("deep/evil").exists());
    ensure!(server.seen().iter().all(|request| request.line.starts_with("GET ")), "{:?}", server.seen());

    let ask = async |name: &str| list(&server.url(name), &GitCredential::None, &options()).await.unwrap_err();
    let error = ask("error.git").await;
    ensure!(matches!(error, GitError::AuthenticationRefused { .. }), "{error:?}");
    let error = ask("short.git").await;
    ensure!(matches!(error, GitError::Unreachable { .. }), "{error:?}");
    let error = ask("nonsense.git").await;
    ensure!(matches!(error, GitError::Protocol { .. }), "{error:?}");
    Ok(())
}
