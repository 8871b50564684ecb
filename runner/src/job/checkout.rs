//! The first station: the commit in the workspace, the pipeline file read, the base config chosen.

use integrations::{
    git::{
        CheckoutInfo, CheckoutOptions, CommitSummary, GitCredential, GitError, GitOptions, HostKeyPolicy, changelog,
        checkout, fetch_commit, is_ancestor, ls_remote, pipeline_file,
    },
    outgoing::Outgoing,
};
use pipelines::definition::{Definition, render};
use pipelines::ids::CommitSha;
use pipelines::protocol::{CommitChange, CommitInfo, GitAccess, Report, RunnerLink};
use pipelines::repository::RepositoryAddress;
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use super::base::{self, Base};
use super::station::Station;
use super::{CHECKOUT, Halt, Work, chain};
use crate::log::Numbering;

/// Note: what was checked out. Once it is there, the workspace belongs to the steps.
const CHECKOUT_NOTE: &str = "checkout.json";
/// Note: the station has ended for the server.
const DONE_NOTE: &str = "checkout-done.json";
/// Commits that are told beside the one of the run.
const CHANGES_MAX: usize = 10;

/// What the stations after this one work with.
#[derive(Debug)]
pub(super) struct Prepared {
    pub(super) commit: CommitInfo,
    pub(super) tree_id: String,
    pub(super) definition: Definition,
    pub(super) base: Base,
    pub(super) releases: bool,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct CheckedOut {
    commit: CommitInfo,
    tree_id: String,
    /// Whether the commit is on the ref that the trigger names.
    on_ref: bool,
}

impl<L: RunnerLink + 'static> Work<'_, L> {
    pub(super) async fn check_out(&self) -> Result<Prepared, Halt> {
        let note = |error| Halt::io("read a note", &error);
        // After a restart everything is on this disk already, and the log of the station has ended.
        if self.folder.note::<()>(DONE_NOTE).map_err(note)?.is_some()
            && let Some(known) = self.folder.note::<CheckedOut>(CHECKOUT_NOTE).map_err(note)?
        {
            return self.read_definition(known).await.map(|(prepared, _)| prepared);
        }
        let mut station = Station::begin(self, CHECKOUT, Numbering::Append).await;
        let result = self.check_out_in(&mut station).await;
        let result = station.end(result).await;
        if result.is_ok() {
            self.folder.take_note(DONE_NOTE, &()).map_err(|error| Halt::io("take a note", &error))?;
        }
        result
    }

    async fn check_out_in(&self, station: &mut Station<'_, L>) -> Result<Prepared, Halt> {
        let known = match self.folder.note(CHECKOUT_NOTE).map_err(|error| Halt::io("read a note", &error))? {
            Some(known) => known,
            None => self.fetch_and_write(station).await?,
        };
        self.link.report(Report::CheckedOut { commit: known.commit.clone() }).await;
        self.go_on()?;
        let (prepared, warnings) = self.read_definition(known).await?;
        station.say(&warnings).await;
        station.say(&format!("base config {}", prepared.base.label)).await;
        Ok(prepared)
    }

    async fn fetch_and_write(&self, station: &mut Station<'_, L>) -> Result<CheckedOut, Halt> {
        let trigger = &self.job.trigger;
        let git = |error: &GitError| Halt::of(error.blame(), chain(error));
        let url = self.job.repository.url.parse::<RepositoryAddress>().map_err(|error| git(&error.into()))?;
        station.say(&format!("fetching {} of {} from {url}", trigger.commit, trigger.ref_name())).await;
        let from = &url;
        let fetched = self.retry(station, GitError::is_transient, move || self.fetch(from.clone())).await;
        let (on_ref, key) = fetched.map_err(|error| self.git_halt(&error))?;
        if let Some(line) = key {
            station.say(&format!("trusting the host key that {} showed first: {line}", url.host())).await;
        }
        if !on_ref {
            station.say(&format!("{} is not on {} any more: no release", trigger.commit, trigger.ref_name())).await;
        }
        let (info, changes) = self.write_tree().await.map_err(|error| self.git_halt(&error))?;
        station.say(&format!("{} files, {} bytes", info.files, info.bytes)).await;
        for path in &info.submodules {
            station.say(&format!("submodule {path} is left empty")).await;
        }
        if info.lfs_pointers > 0 {
            station
                .say(&format!("{} files are pointers of Git LFS; their content is not here", info.lfs_pointers))
                .await;
        }
        let commit = CommitInfo {
            sha: info.sha,
            message: info.message,
            author: info.author,
            author_email: info.author_email,
            committed_at: info.committed_at,
            changes,
        };
        let known = CheckedOut { commit, tree_id: info.tree_id, on_ref };
        self.folder.take_note(CHECKOUT_NOTE, &known).map_err(|error| Halt::io("take a note", &error))?;
        Ok(known)
    }

    /// Brings the commit into the mirror. Tells whether it is on its ref, and a host key that was learnt.
    async fn fetch(&self, url: RepositoryAddress) -> Result<(bool, Option<String>), GitError> {
        let trigger = self.job.trigger.clone();
        let mirror = self.mirror_dir();
        let (stop, _guard) = self.stop_when_dropped();
        let learnt = self.learnt_host_keys();
        let mut lines = self.job.repository.known_hosts.clone();
        lines.extend(learnt.iter().cloned());
        let host_keys = match lines.is_empty() {
            true => HostKeyPolicy::TrustOnFirstUse,
            false => HostKeyPolicy::from_lines(&lines)?,
        };
        let options = GitOptions {
            ca_pem: self.job.repository.ca_pem.clone(),
            max_pack_bytes: self.job.bounds.checkout_bytes_max,
            outgoing: Outgoing::new(&self.job.outgoing).map_err(|error| GitError::Setup { why: error.to_string() })?,
            host_keys,
            cancel: stop,
            ..GitOptions::default()
        };
        let credential = credential_of(&self.job.repository.credential);
        let (on_ref, key) = blocking(move || {
            let reference = Some(trigger.git_ref.as_str());
            let fetched = fetch_commit(&mirror, &url, &credential, reference, &trigger.commit, &options)?;
            let mut key = fetched.learned_host_key;
            let tip = match fetched.tip {
                Some(tip) => Some(tip),
                None => {
                    let listing = ls_remote(&url, &credential, &options)?;
                    key = key.or(listing.learned_host_key);
                    listing.refs.iter().find(|found| found.name == trigger.git_ref).map(|found| found.commit().clone())
                }
            };
            let on_ref = match tip {
                None => false,
                Some(tip) if tip == trigger.commit => true,
                Some(tip) => {
                    fetch_commit(&mirror, &url, &credential, reference, &tip, &options)?;
                    is_ancestor(&mirror, &trigger.commit, &tip)?
                }
            };
            Ok((on_ref, key))
        })
        .await?;
        if let Some(line) = &key {
            self.learn_host_key(line);
        }
        Ok((on_ref, key))
    }

    async fn write_tree(&self) -> Result<(CheckoutInfo, Vec<CommitChange>), GitError> {
        let (mirror, workspace, commit) = (self.mirror_dir(), self.folder.workspace(), self.job.trigger.commit.clone());
        let live = self.job.live_commit.clone();
        let (stop, _guard) = self.stop_when_dropped();
        let options = CheckoutOptions {
            max_files: self.job.bounds.checkout_files_max,
            max_total_bytes: self.job.bounds.checkout_bytes_max,
            cancel: stop,
            ..CheckoutOptions::default()
        };
        blocking(move || {
            // A checkout that died half-way left a part of the tree; no step has run in it yet.
            match std::fs::remove_dir_all(&workspace) {
                Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
                    return Err(GitError::Io { doing: "removing", path: workspace, source });
                }
                _ => {}
            }
            let info = checkout(&mirror, &commit, &workspace, &options)?;
            let changes = match changelog(&mirror, live.as_ref(), &commit, CHANGES_MAX) {
                // What is live was rewritten out of the history.
                Err(GitError::NotInMirror { .. }) if live.is_some() => changelog(&mirror, None, &commit, CHANGES_MAX),
                answer => answer,
            }?;
            let change = |one: CommitSummary| CommitChange {
                short: one.sha.short().to_owned(),
                subject: one.subject,
                author: one.author,
            };
            let changes = changes.commits.into_iter().map(change).collect();
            Ok((info, changes))
        })
        .await
    }

    /// Reads the pipeline file of the commit, not of the workspace: a step cannot change it. Returns warnings too.
    async fn read_definition(&self, known: CheckedOut) -> Result<(Prepared, String), Halt> {
        let (path, bytes) = self.pipeline_file(&known.commit.sha).await?;
        let (read, found, rendered) = base::read(&self.shared.config.catalog, &self.job.run.service, &path, &bytes);
        let Some((definition, base)) = read else {
            let errors = found.iter().filter(|problem| problem.is_error()).count();
            let errors = if errors == 1 { "1 error".to_owned() } else { format!("{errors} errors") };
            return Err(Halt::code(format!("the pipeline file {path} has {errors}")).with_details(rendered));
        };
        let releases = known.on_ref && definition.releases(&self.job.trigger, &self.job.release_branch);
        let CheckedOut { commit, tree_id, on_ref: _ } = known;
        Ok((Prepared { commit, tree_id, definition, base, releases }, rendered))
    }

    async fn pipeline_file(&self, commit: &CommitSha) -> Result<(String, Vec<u8>), Halt> {
        let (mirror, commit) = (self.mirror_dir(), commit.clone());
        let service = self.job.run.service.clone();
        let found = blocking(move || pipeline_file(&mirror, &commit, &service));
        match found.await.map_err(|error| self.git_halt(&error))? {
            Ok(found) => Ok(found),
            Err(problem) => Err(Halt::code(problem.message.clone()).with_details(render(&[*problem], ""))),
        }
    }

    fn git_halt(&self, error: &GitError) -> Halt {
        if matches!(error, GitError::Cancelled) {
            return Halt::Stopped;
        }
        Halt::of(error.blame(), chain(error))
    }

    fn mirror_dir(&self) -> std::path::PathBuf {
        self.shared.config.state_dir.join("mirrors").join(self.job.run.service.as_str())
    }

    /// A token for work on other threads, which does not end by itself when its future is dropped.
    fn stop_when_dropped(&self) -> (CancellationToken, tokio_util::sync::DropGuard) {
        let stop = self.link.control.stop.child_token();
        (stop.clone(), stop.drop_guard())
    }

    /// Host keys that this runner saw first, where the service pins none. The server that gave the job has no place for
    /// them; a runner with a new folder learns again.
    fn learnt_host_keys(&self) -> Vec<String> {
        if !self.job.repository.known_hosts.is_empty() {
            return Vec::new();
        }
        let text = std::fs::read_to_string(self.known_hosts_file()).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    fn learn_host_key(&self, line: &str) {
        let mut lines = self.learnt_host_keys();
        lines.push(line.to_owned());
        if let Err(error) = std::fs::write(self.known_hosts_file(), lines.join("\n")) {
            tracing::warn!(%error, "a host key was not kept");
        }
    }

    fn known_hosts_file(&self) -> std::path::PathBuf {
        self.mirror_dir().with_extension("known_hosts")
    }
}

fn credential_of(access: &GitAccess) -> GitCredential {
    match access {
        GitAccess::None => GitCredential::None,
        GitAccess::Token { user, token } => {
            GitCredential::Token { user: user.clone(), secret: token.expose().to_owned().into() }
        }
        GitAccess::SshKey { key } => {
            GitCredential::SshKey { private_key_openssh: key.expose().to_owned().into(), passphrase: None }
        }
    }
}

/// Runs blocking work on its own thread.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, GitError> + Send + 'static,
) -> Result<T, GitError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(GitError::Setup { why: format!("the work broke off: {error}") }),
    }
}
