//! `windlass service`: what is registered, and the hooks that came in.

use std::path::PathBuf;

use pipelines::{ids::ServiceName, protocol::Secret};
use reqwest::Method;
use server::{
    http::api::model::{self, Answer, List},
    random::{self, KEY_BYTES},
};

use super::{
    Context,
    exit::Exit,
    failure::Failure,
    follow::duration_ms,
    list::{ListArguments, older},
    output::{Paint, ago, clean, fields, moment, now, span, state, table},
    prompt::{secret_file, secret_text},
};

/// Register services and look at them
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// List them
    List,
    /// Show one: repository, hook address, settings
    Show {
        /// Its name
        service: ServiceName,
    },
    /// Register one
    Add {
        /// Its name: a-z, 0-9 and -, starting with a letter
        service: ServiceName,
        /// Where its source is: https://, ssh:// or git@host:path
        #[arg(long, value_name = "URL")]
        repository: String,
        #[command(flatten)]
        settings: Box<Settings>,
    },
    /// Change settings; what is not named stays as it is
    Edit {
        /// Its name
        service: ServiceName,
        /// Where its source is
        #[arg(long, value_name = "URL")]
        repository: Option<String>,
        #[command(flatten)]
        settings: Box<Settings>,
    },
    /// Ask its repository for new commits now
    Poll {
        /// Its name
        service: ServiceName,
    },
    /// List the hooks that came in, with what became of each
    Deliveries(ListArguments),
}

#[derive(Debug, Default, clap::Args)]
struct Settings {
    /// User name for the repository, with --git-token-file
    #[arg(long, value_name = "NAME", requires = "git_token_file")]
    git_user: Option<String>,
    /// File whose first line is the token or password for the repository
    #[arg(long, value_name = "FILE", requires = "git_user", conflicts_with = "ssh_key_file")]
    git_token_file: Option<PathBuf>,
    /// File with the private key for the repository (OpenSSH, Ed25519 or ECDSA)
    #[arg(long, value_name = "FILE")]
    ssh_key_file: Option<PathBuf>,
    /// Forget the credential: the repository is open
    #[arg(long, conflicts_with_all = ["ssh_key_file", "git_token_file"])]
    no_credential: bool,
    /// File with the host keys of the repository's host, as in known_hosts
    #[arg(long, value_name = "FILE")]
    known_hosts_file: Option<PathBuf>,
    /// File with the certificate authority of the repository's host, PEM
    #[arg(long, value_name = "FILE")]
    git_ca_file: Option<PathBuf>,
    /// File whose first line is the secret that signs the hooks
    #[arg(long, value_name = "FILE")]
    hook_secret_file: Option<PathBuf>,
    /// Make a secret for the hooks and show it this once
    #[arg(long, conflicts_with = "hook_secret_file")]
    generate_hook_secret: bool,
    /// Take hooks without a signature: yes or no
    #[arg(long, value_name = "YES|NO", value_parser = yes_or_no)]
    allow_unsigned_hooks: Option<bool>,
    /// Time between two looks at the repository, such as 5m; 0s: none
    #[arg(long, value_name = "TIME", value_parser = duration_ms)]
    poll: Option<u64>,
    /// The branch that makes releases; empty: the repository's default branch
    #[arg(long, value_name = "BRANCH")]
    release_branch: Option<String>,
    /// Whether authors may approve their own commits: yes or no
    #[arg(long, value_name = "YES|NO", value_parser = yes_or_no)]
    allow_self_approval: Option<bool>,
}

fn yes_or_no(text: &str) -> Result<bool, String> {
    match text {
        "yes" | "true" => Ok(true),
        "no" | "false" => Ok(false),
        _ => Err("write yes or no".into()),
    }
}

impl Settings {
    /// What to send, and the secret that was made, if one was.
    fn input(&self) -> Result<(model::ServiceInput, Option<Secret>), Failure> {
        let credential = match (&self.git_user, &self.git_token_file, &self.ssh_key_file, self.no_credential) {
            (Some(user), Some(file), ..) => {
                Some(model::Credential::Token { user: user.clone(), token: secret_file(file)? })
            }
            (_, _, Some(file), _) => Some(model::Credential::SshKey { key: secret_text(file)? }),
            (_, _, _, true) => Some(model::Credential::None),
            _ => None,
        };
        let made = self.generate_hook_secret.then(|| Secret::new(random::text(KEY_BYTES)));
        let hook_secret = match &self.hook_secret_file {
            Some(file) => Some(secret_file(file)?),
            None => made.clone(),
        };
        let text = |file: &Option<PathBuf>| match file {
            Some(path) => std::fs::read_to_string(path)
                .map(Some)
                .map_err(|error| Failure::usage(format!("cannot read {}", path.display())).because(&error)),
            None => Ok(None),
        };
        let known_hosts = text(&self.known_hosts_file)?;
        let is_key = |line: &&str| !line.trim().is_empty() && !line.trim_start().starts_with('#');
        let input = model::ServiceInput {
            credential,
            hook_secret,
            allow_unsigned_hooks: self.allow_unsigned_hooks,
            poll_interval_ms: self.poll,
            release_branch: self.release_branch.clone(),
            allow_self_approval: self.allow_self_approval,
            known_hosts: known_hosts.map(|text| text.lines().filter(is_key).map(str::to_owned).collect()),
            ca_pem: text(&self.git_ca_file)?,
            ..model::ServiceInput::default()
        };
        Ok((input, made))
    }
}

/// Does what the verb says.
pub(crate) async fn run(context: &Context, arguments: &Arguments) -> Result<Exit, Failure> {
    let client = context.target.client()?;
    match &arguments.verb {
        Verb::List => {
            let all: Answer<List<model::Service>> = client.get("cannot list services", "api/v1/services", &[]).await?;
            context.out.answer(&all, |paint, all| list(paint, &all.items))?;
        }
        Verb::Show { service } => {
            let what = format!("cannot show {service}");
            let found: Answer<model::Service> = client.get(&what, &format!("api/v1/services/{service}"), &[]).await?;
            context.out.answer(&found, |paint, found| show(context, paint, found))?;
        }
        Verb::Add { service, repository, settings } => {
            let (mut input, made) = settings.input()?;
            input.name = Some(service.to_string());
            input.repository_url = Some(repository.clone());
            let what = format!("cannot register {service}");
            let new: Answer<model::Service> = client.send(&what, Method::POST, "api/v1/services", &input).await?;
            changed(context, &new, "registered", made.as_ref())?;
        }
        Verb::Edit { service, repository, settings } => {
            let (mut input, made) = settings.input()?;
            input.repository_url.clone_from(repository);
            let what = format!("cannot change {service}");
            let path = format!("api/v1/services/{service}");
            let new: Answer<model::Service> = client.send(&what, Method::PATCH, &path, &input).await?;
            changed(context, &new, "changed", made.as_ref())?;
        }
        Verb::Poll { service } => {
            let what = format!("cannot ask the repository of {service}");
            let path = format!("api/v1/services/{service}/poll");
            let done: Answer<model::Done> = client.send(&what, Method::POST, &path, &serde_json::json!({})).await?;
            context.out.answer(&done, |paint, done| format!("{} {}\n", paint.good("✓"), clean(&done.done)))?;
        }
        Verb::Deliveries(asked) => {
            let service = &asked.service;
            let what = format!("cannot list the hooks of {service}");
            let path = format!("api/v1/services/{service}/deliveries");
            let all: Answer<List<model::Delivery>> = client.get(&what, &path, &asked.query()).await?;
            context.out.answer(&all, deliveries)?;
        }
    }
    Ok(Exit::Ok)
}

fn changed(context: &Context, new: &Answer<model::Service>, word: &str, made: Option<&Secret>) -> Result<(), Failure> {
    context.out.answer(new, |paint, new| {
        format!("{} {} is {word}\n{}", paint.good("✓"), paint.bold(&clean(&new.name)), show(context, paint, new))
    })?;
    if let Some(secret) = made {
        // Beside the data, so that no program keeps it by mistake.
        context.out.note(&format!("the secret of its hooks, shown this once: {}", secret.expose()));
    }
    Ok(())
}

fn list(paint: Paint, services: &[model::Service]) -> String {
    if services.is_empty() {
        return "no service is registered yet: windlass service add NAME --repository URL\n".into();
    }
    let row = |service: &model::Service| {
        let branch = service.release_branch.as_ref().or(service.default_branch.as_ref());
        let poll = if service.poll_interval_ms == 0 { "never".into() } else { span(service.poll_interval_ms) };
        let trouble = service.poll_fault.as_ref().map(|fault| paint.bad(&format!("✗ {}", clean(&fault.error))));
        vec![
            clean(&service.name),
            clean(&service.repository_url),
            branch.map(|branch| clean(branch)).unwrap_or_default(),
            poll,
            trouble.unwrap_or_default(),
        ]
    };
    table(paint, &["SERVICE", "REPOSITORY", "BRANCH", "POLLED", ""], &services.iter().map(row).collect::<Vec<_>>())
}

fn show(context: &Context, paint: Paint, service: &model::Service) -> String {
    let set =
        |at: Option<u64>| at.map_or_else(|| paint.warn("not set"), |at| format!("set {}", moment(at, &context.zone)));
    let credential = match service.credential {
        model::CredentialKind::None => "none".to_owned(),
        model::CredentialKind::Token => format!("user and token, {}", set(service.credential_set_at_ms)),
        model::CredentialKind::SshKey => format!("ssh key, {}", set(service.credential_set_at_ms)),
    };
    let secret = if service.allow_unsigned_hooks && service.hook_secret_set_at_ms.is_none() {
        paint.warn("not set; unsigned hooks are taken")
    } else {
        set(service.hook_secret_set_at_ms)
    };
    let branch = match (&service.release_branch, &service.default_branch) {
        (Some(branch), _) => clean(branch),
        (None, Some(branch)) => format!("{} (the repository's default)", clean(branch)),
        (None, None) => "the repository's default".to_owned(),
    };
    let poll = if service.poll_interval_ms == 0 {
        "never".into()
    } else {
        format!("every {}", span(service.poll_interval_ms))
    };
    let self_approval = if service.allow_self_approval { "allowed" } else { "not allowed" };
    let trouble = service.poll_fault.as_ref().map(|fault| paint.bad(&clean(&fault.error))).unwrap_or_default();
    let created = moment(service.created_at_ms, &context.zone);
    fields(
        paint,
        &[
            ("service", paint.bold(&clean(&service.name))),
            ("repository", clean(&service.repository_url)),
            ("credential", credential),
            ("releases from", branch),
            ("hook address", clean(&service.hook_url)),
            ("hook secret", secret),
            ("polled", poll),
            ("trouble", trouble),
            ("self-approval", self_approval.to_owned()),
            ("registered", format!("{created} by {}", clean(&service.created_by))),
        ],
    )
}

fn deliveries(paint: Paint, all: &List<model::Delivery>) -> String {
    if all.items.is_empty() {
        return "no hook came in yet\n".into();
    }
    let row = |delivery: &model::Delivery| {
        let became = match (&delivery.run, &delivery.reason) {
            (Some(run), _) => format!("run {run}"),
            (None, reason) => clean(reason.as_deref().unwrap_or_default()),
        };
        let repeats = if delivery.repeats == 0 { String::new() } else { format!("{} times again", delivery.repeats) };
        vec![
            delivery.id.to_string(),
            ago(delivery.at_ms, now()),
            clean(&delivery.forge),
            clean(&delivery.event),
            state(paint, &delivery.state),
            became,
            clean(&delivery.remote),
            repeats,
        ]
    };
    let rows: Vec<_> = all.items.iter().map(row).collect();
    let head = ["HOOK", "CAME", "FORGE", "EVENT", "STATE", "WHAT BECAME OF IT", "FROM", ""];
    table(paint, &head, &rows) + &older(paint, all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_named_is_sent() {
        let settings = Settings { poll: Some(60_000), ..Settings::default() };
        let (input, made) = settings.input().unwrap();
        assert!(made.is_none());
        assert_eq!(serde_json::to_value(input).unwrap(), serde_json::json!({"poll_interval_ms": 60_000}));
    }

    #[test]
    fn a_made_secret_is_long_and_new_each_time() {
        let settings = Settings { generate_hook_secret: true, ..Settings::default() };
        let (input, made) = settings.input().unwrap();
        let made = made.unwrap();
        assert_eq!(input.hook_secret.unwrap().expose(), made.expose());
        assert_ne!(settings.input().unwrap().1.unwrap().expose(), made.expose());
        assert!(made.expose().len() > 40);
    }

    #[test]
    fn host_keys_come_without_comments() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("known_hosts");
        std::fs::write(&file, "# ours\n\ngit.example.com ssh-ed25519 AAAA\n").unwrap();
        let settings = Settings { known_hosts_file: Some(file), ..Settings::default() };
        assert_eq!(settings.input().unwrap().0.known_hosts.unwrap(), ["git.example.com ssh-ed25519 AAAA"]);
    }
}
