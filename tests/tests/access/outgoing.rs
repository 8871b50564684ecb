//! Where calls lead: a repository or a registry that sends its callers elsewhere. Two servers of this machine that go by
//! different names (`127.0.0.1`, `localhost`), which is all that "another host" means.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use anyhow::{Result, ensure};
use integrations::{
    git::{GitCredential, GitError, GitOptions, RemoteListing, ls_remote},
    outgoing::Outgoing,
    registry::{RegistryClient, RegistryConfig},
};
use pipelines::protocol::OutgoingRules;
use tests::{Fault, GitHttp, GitHttpOptions, Part, Repo, Tier, evidence::record, git_http, require};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
};

fn allowing(hosts: &[&str]) -> Result<Outgoing> {
    let hosts = hosts.iter().map(|host| (*host).to_owned()).collect();
    Ok(Outgoing::new(&OutgoingRules { hosts, addresses: Vec::new() })?)
}

async fn list(url: &str, outgoing: Outgoing) -> Result<Result<RemoteListing, GitError>> {
    let (url, options) = (url.parse()?, GitOptions { outgoing, ..GitOptions::default() });
    let credential = GitCredential::Token { user: "ci".into(), secret: "a token".to_owned().into() };
    Ok(tokio::task::spawn_blocking(move || ls_remote(&url, &credential, &options)).await?)
}

fn whole(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repository_that_moved_is_followed_to_registered_hosts_only() -> Result<()> {
    if !require(&[Part::Git]) {
        return Ok(());
    }
    let target = GitHttp::start(GitHttpOptions::default()).await?;
    let repo = Repo::init()?;
    repo.write("a", "a")?;
    let head = repo.commit("dev@example.com", "first")?;
    git_http::publish(&repo, &target, "shop.git")?;
    let elsewhere = target.url("shop.git").replace("127.0.0.1", "localhost");
    let location = format!("{elsewhere}/info/refs?service=git-upload-pack");
    let faults: git_http::Faults =
        Arc::new(move |_, _| Some(Fault::Answer(302, vec![("location", location.clone())], String::new())));
    let login = Some(("ci".to_owned(), "a token".to_owned()));
    let forge = GitHttp::start(GitHttpOptions { login, tls: false, faults: Some(faults) }).await?;
    let before = target.seen().len();

    let refused = list(&forge.url("shop.git"), Outgoing::default()).await?.unwrap_err();
    ensure!(matches!(&refused, GitError::Redirect { why, .. } if why.contains("outgoing.hosts")), "{refused}");
    ensure!(target.seen().len() == before, "the unregistered host was called");

    let listing = list(&forge.url("shop.git"), allowing(&["localhost"])?)
        .await?
        .map_err(|error| anyhow::anyhow!(whole(&error)))?;
    ensure!(listing.refs.iter().any(|found| found.commit().as_str() == head), "{listing:?}");
    let seen = target.seen().split_off(before);
    ensure!(!seen.is_empty() && seen.iter().all(|request| request.authorization.is_none()), "{seen:?}");
    record("a redirect of a repository is followed to registered hosts only", Tier::RealPart, "0 calls to the other");
    Ok(())
}

/// A registry that answers everything with this, and counts.
async fn registry(answer: String) -> Result<(String, Arc<AtomicUsize>)> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let port = listener.local_addr()?.port();
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&calls);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            counted.fetch_add(1, Ordering::SeqCst);
            let mut head = [0; 8_192];
            // One call a connection: the request's head comes whole in one packet of this machine.
            if stream.read(&mut head).await.is_ok() {
                drop(stream.write_all(answer.as_bytes()).await);
            }
        }
    });
    Ok((format!("http://127.0.0.1:{port}"), calls))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_s_password_goes_to_its_own_token_service_or_a_registered_one() -> Result<()> {
    let token = "HTTP/1.1 200 OK\r\ncontent-length: 15\r\nconnection: close\r\n\r\n{\"token\":\"abc\"}";
    let (service, asked) = registry(token.to_owned()).await?;
    let realm = format!("{}/token", service.replace("127.0.0.1", "localhost"));
    let challenge = format!(
        "HTTP/1.1 401 Unauthorized\r\nwww-authenticate: Bearer realm=\"{realm}\",service=\"r\"\r\ncontent-length: 0\r\n\
         connection: close\r\n\r\n"
    );
    let (endpoint, _) = registry(challenge).await?;
    for (outgoing, calls) in [(Outgoing::default(), 0), (allowing(&["localhost"])?, 1)] {
        let config = RegistryConfig { outgoing, ..RegistryConfig::new(endpoint.parse()?) };
        let client = RegistryClient::new(config.with_credentials("robot", "a password".to_owned().into()))?;
        let error = client.resolve(&"shop".parse()?, &"v1".parse()?).await.unwrap_err();
        ensure!(whole(&error).contains("outgoing.hosts") == (calls == 0), "{}", whole(&error));
        ensure!(asked.load(Ordering::SeqCst) >= calls && (calls > 0 || asked.load(Ordering::SeqCst) == 0));
    }
    record("a registry's password goes to a registered token service only", Tier::Contract, "0 calls to the other");
    Ok(())
}
