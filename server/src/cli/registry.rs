//! `windlass registry`: an image copied by digest from one registry to another, without a container engine.

use std::path::PathBuf;

use integrations::{
    outgoing::Outgoing,
    registry::{
        ClientLimits, Credentials, PromoteError, PromoteOptions, PromotePhase, PromoteProgress, Promoted, Reference,
        RegistryClient, RegistryConfig, RegistryError, copy,
    },
};
use secrecy::SecretString;
use serde_json::{Value, json};
use tokio::sync::watch;
use url::Url;

use super::{
    Context,
    exit::Exit,
    failure::Failure,
    output::{Paint, bytes, fields},
    progress::Progress,
    prompt::secret_file,
};

/// Work with image registries
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// Copy an image by digest, with all its platforms, signatures and attestations; the tag is written last
    Copy(Box<CopyArguments>),
}

#[derive(Debug, clap::Args)]
struct CopyArguments {
    /// Which image: `registry.example.com/shop/app:v1` or `…@sha256:…`
    source: String,
    /// Where to, with a tag: `registry.example.com/prod/app:v1`
    destination: String,
    /// Both registries speak HTTP, not HTTPS
    #[arg(long)]
    plain_http: bool,
    /// The source speaks HTTP
    #[arg(long)]
    src_plain_http: bool,
    /// The destination speaks HTTP
    #[arg(long)]
    dst_plain_http: bool,
    /// User name at the source
    #[arg(long, value_name = "NAME", requires = "src_password_file")]
    src_user: Option<String>,
    /// File whose first line is the password at the source
    #[arg(long, value_name = "FILE", requires = "src_user")]
    src_password_file: Option<PathBuf>,
    /// User name at the destination
    #[arg(long, value_name = "NAME", requires = "dst_password_file")]
    dst_user: Option<String>,
    /// File whose first line is the password at the destination
    #[arg(long, value_name = "FILE", requires = "dst_user")]
    dst_password_file: Option<PathBuf>,
    /// Certificate authority (PEM file) to trust at the source
    #[arg(long, value_name = "FILE")]
    src_ca_file: Option<PathBuf>,
    /// Certificate authority (PEM file) to trust at the destination
    #[arg(long, value_name = "FILE")]
    dst_ca_file: Option<PathBuf>,
    /// Leave signatures, attestations and SBOMs behind
    #[arg(long)]
    without_attached: bool,
    /// Blobs and manifests copied at the same time
    #[arg(long, default_value_t = 6, value_parser = clap::value_parser!(u16).range(1..=64))]
    parallel: u16,
}

/// A registry as the command line or a configuration names it.
pub(crate) struct Side<'a> {
    /// `host[:port]`.
    pub(crate) host: &'a str,
    /// Speak HTTP.
    pub(crate) plain_http: bool,
    /// Name and password.
    pub(crate) login: Option<(String, SecretString)>,
    /// Certificate authority, PEM.
    pub(crate) ca_pem: Option<Vec<u8>>,
    /// Bounds.
    pub(crate) limits: ClientLimits,
}

impl Side<'_> {
    /// The client of it.
    pub(crate) fn client(self) -> Result<RegistryClient, Failure> {
        let failed = || Failure::usage(format!("cannot use the registry {}", self.host));
        let scheme = if self.plain_http { "http" } else { "https" };
        let endpoint = Url::parse(&format!("{scheme}://{}", self.host)).map_err(|error| failed().because(&error))?;
        let credentials = self.login.map(|(username, password)| Credentials { username, password });
        let config = RegistryConfig {
            endpoint,
            ca_pem: self.ca_pem,
            credentials,
            limits: self.limits,
            outgoing: Outgoing::anywhere(),
        };
        RegistryClient::new(config).map_err(|error| failed().because(&error))
    }
}

/// Copies.
pub(crate) async fn run(context: &Context, arguments: &Arguments) -> Result<Exit, Failure> {
    let Verb::Copy(arguments) = &arguments.verb;
    let what = format!("cannot copy {} to {}", arguments.source, arguments.destination);
    let reference =
        |text: &str| text.parse::<Reference>().map_err(|error| Failure::usage(what.clone()).because(&error));
    let (source, destination) = (reference(&arguments.source)?, reference(&arguments.destination)?);
    let login = |user: &Option<String>, file: &Option<PathBuf>| match (user, file) {
        (Some(user), Some(file)) => Ok(Some((user.clone(), SecretString::from(secret_file(file)?.expose())))),
        _ => Ok::<_, Failure>(None),
    };
    let ca = |file: &Option<PathBuf>| match file {
        Some(path) => std::fs::read(path)
            .map(Some)
            .map_err(|error| Failure::usage(format!("cannot read {}", path.display())).because(&error)),
        None => Ok(None),
    };
    let source_client = Side {
        host: &source.host,
        plain_http: arguments.plain_http || arguments.src_plain_http,
        login: login(&arguments.src_user, &arguments.src_password_file)?,
        ca_pem: ca(&arguments.src_ca_file)?,
        limits: ClientLimits::default(),
    }
    .client()?;
    let destination_client = Side {
        host: &destination.host,
        plain_http: arguments.plain_http || arguments.dst_plain_http,
        login: login(&arguments.dst_user, &arguments.dst_password_file)?,
        ca_pem: ca(&arguments.dst_ca_file)?,
        limits: ClientLimits::default(),
    }
    .client()?;
    context.detach(format!(
        "nothing is tagged yet; the same command goes on where this one was: windlass registry copy {} {}",
        arguments.source, arguments.destination
    ));

    let options = PromoteOptions {
        parallel: usize::from(arguments.parallel),
        attached: !arguments.without_attached,
        ..PromoteOptions::default()
    };
    let (sender, receiver) = watch::channel(PromoteProgress::default());
    let mut progress = Progress::new(&context.out);
    let copying = copy((&source_client, &source), (&destination_client, &destination), &options, &sender);
    let promoted = show_while(copying, receiver, &mut progress).await;
    progress.clear();
    let promoted = promoted.map_err(|error| failure(&what, &error))?;
    let data = report(&source, &destination, &promoted);
    context.out.result("RegistryCopy", &data, |paint| text(paint, &destination, &promoted))?;
    Ok(Exit::Ok)
}

/// Shows the progress until the copy ends.
async fn show_while<T>(
    copying: impl Future<Output = T>,
    mut receiver: watch::Receiver<PromoteProgress>,
    progress: &mut Progress,
) -> T {
    let mut copying = std::pin::pin!(copying);
    loop {
        tokio::select! {
            done = &mut copying => return done,
            // The sender lives as long as the copy.
            Ok(()) = receiver.changed() => {
                let now = receiver.borrow_and_update().clone();
                let text = phase(&now);
                if now.bytes_total == 0 {
                    progress.moves("copy", &text);
                } else {
                    let done = now.bytes_copied + now.bytes_mounted + now.bytes_skipped;
                    progress.bytes("copy", &text, done, now.bytes_total);
                }
            }
        }
    }
}

fn phase(now: &PromoteProgress) -> String {
    let done = now.blobs_copied + now.blobs_mounted + now.blobs_skipped;
    match now.phase {
        PromotePhase::Blobs => format!("blobs {done}/{}", now.blobs_total),
        PromotePhase::Manifests => {
            format!("manifests {}/{}", now.manifests_copied + now.manifests_skipped, now.manifests_total)
        }
        PromotePhase::Tagging => "writing the tag".into(),
        PromotePhase::Verifying => "reading the digest back".into(),
        PromotePhase::Done => "done".into(),
        PromotePhase::Reading => "reading the image".into(),
    }
}

fn report(source: &Reference, destination: &Reference, promoted: &Promoted) -> Value {
    json!({
        "source": source.to_string(),
        "destination": destination.to_string(),
        "digest": promoted.digest,
        "tag_written": promoted.is_tag_new,
        "blobs": {
            "total": promoted.counts.blobs_total,
            "copied": promoted.counts.blobs_copied,
            "mounted": promoted.counts.blobs_mounted,
            "skipped": promoted.counts.blobs_skipped,
        },
        "bytes": { "total": promoted.counts.bytes_total, "copied": promoted.counts.bytes_copied },
        "manifests": { "total": promoted.counts.manifests_total, "copied": promoted.counts.manifests_copied },
        "foreign_layers": promoted.foreign,
        "kept_tags": promoted.kept.iter().map(|tag| tag.as_str()).collect::<Vec<_>>(),
    })
}

fn text(paint: Paint, destination: &Reference, promoted: &Promoted) -> String {
    let counts = &promoted.counts;
    let blobs = format!(
        "{} copied, {} mounted, {} were there ({} of {})",
        counts.blobs_copied,
        counts.blobs_mounted,
        counts.blobs_skipped,
        bytes(counts.bytes_copied),
        bytes(counts.bytes_total),
    );
    let tag = if promoted.is_tag_new { "written" } else { "showed it before" };
    let mut lines = vec![
        (paint.good("✓ copied"), destination.to_string()),
        ("digest".into(), promoted.digest.to_string()),
        ("tag".into(), tag.to_owned()),
        ("blobs".into(), blobs),
        ("manifests".into(), format!("{} of {}", counts.manifests_copied, counts.manifests_total)),
    ];
    if !promoted.foreign.is_empty() {
        lines.push(("left out".into(), format!("{} layers that must not be copied", promoted.foreign.len())));
    }
    if !promoted.kept.is_empty() {
        let kept: Vec<&str> = promoted.kept.iter().map(|tag| tag.as_str()).collect();
        lines.push(("kept".into(), format!("these tags show something else there: {}", kept.join(", "))));
    }
    let lines: Vec<(&str, String)> = lines.iter().map(|(name, value)| (name.as_str(), value.clone())).collect();
    fields(Paint::OFF, &lines)
}

fn failure(what: &str, error: &PromoteError) -> Failure {
    let exit = match error.registry() {
        Some(error) => exit_of(error),
        None => Exit::Unexpected,
    };
    let failure = Failure::new(exit, what).because(error);
    match (exit, error.is_transient()) {
        (Exit::Login, _) => failure.next("--src-user/--src-password-file, --dst-user/--dst-password-file"),
        (_, true) => failure.next("the same command again: what is there is not copied twice"),
        _ => failure,
    }
}

/// The exit code for a registry's error.
fn exit_of(error: &RegistryError) -> Exit {
    match error {
        RegistryError::NotFound { .. } => Exit::NotFound,
        RegistryError::Unauthorised { .. } => Exit::Login,
        RegistryError::Blocked { .. } => Exit::Forbidden,
        RegistryError::Settings { .. } => Exit::Usage,
        error if error.is_transient() => Exit::Unreachable,
        _ => Exit::Unexpected,
    }
}
