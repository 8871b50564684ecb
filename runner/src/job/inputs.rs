//! The digest over everything that an image is made of, and the image that was already made of the same.

use std::collections::BTreeMap;

use charts::dockerfile::map_base_images;
use integrations::registry::{Repository, Tag};
use pipelines::definition::Definition;
use pipelines::ids::{CommitSha, Digest};
use pipelines::protocol::{CommitInfo, RunnerLink, RunnerRequest, ServerReply};
use serde::Serialize;

use super::base::{self, Base};
use super::push::Pushed;
use super::{Halt, Work, chain, registry_halt};

/// What an image is made of.
#[derive(Debug, Clone)]
pub(super) struct Inputs {
    pub(super) digest: Digest,
    /// Whether all inputs are known: a Dockerfile that a step writes is not there yet.
    complete: bool,
    /// Base image as the mirror setting names it → the one that is used.
    pub(super) base_images: BTreeMap<String, BaseImage>,
}

/// A base image that is used.
#[derive(Debug, Clone, Serialize)]
pub(super) struct BaseImage {
    /// By digest where a registry has it.
    pub(super) reference: String,
    /// What it is: its digest, or the engine's id where only the engine has it.
    digest: String,
}

/// An image that need not be built.
#[derive(Debug)]
pub(super) struct Reused {
    pub(super) pushed: Pushed,
    pub(super) reason: String,
}

impl<L: RunnerLink + 'static> Work<'_, L> {
    pub(super) async fn inputs(&self, definition: &Definition, base: &Base, tree_id: &str) -> Result<Inputs, Halt> {
        let dockerfile = self.dockerfile(definition, base).ok();
        let args = base::args(definition);
        let mut base_images = BTreeMap::new();
        if let Some(text) = &dockerfile {
            for image in map_base_images(text, &args, &self.job.mirrors).images {
                let pinned = self.pin(&image).await?;
                base_images.insert(image, pinned);
            }
        }
        let steps: Vec<_> = definition.steps.iter().filter(|step| self.applies(step)).collect();
        let all = serde_json::json!({
            "version": 1,
            "tree": tree_id,
            "steps": steps,
            "step_images": steps.iter().map(|step| self.mirrored(step.image.as_str())).collect::<Vec<_>>(),
            "base": base.digest,
            "base_images": base_images,
            "image": definition.image,
            "args": args,
        });
        Ok(Inputs { digest: Digest::of(all.to_string().as_bytes()), complete: dockerfile.is_some(), base_images })
    }

    /// The image of earlier inputs, tagged for this run as well.
    pub(super) async fn reuse(&self, inputs: &Inputs, commit: &CommitInfo) -> Result<Option<Reused>, Halt> {
        if !inputs.complete || !self.may_push() {
            return Ok(None);
        }
        let ask = RunnerRequest::Inputs {
            run: self.job.run.clone(),
            attempt: self.job.attempt,
            inputs: inputs.digest.clone(),
        };
        let ServerReply::Reuse { digest, built_by } = self.link.ask(ask).await else {
            return self.go_on().map(|()| None);
        };
        let registry = self.registry()?;
        let (repository, tag) = self.image_name(&commit.sha)?;
        // The server knows what was pushed once, the registry what is there now.
        let manifest = match registry.manifest(&repository, &digest).await {
            Ok(manifest) => manifest,
            Err(error) if error.is_not_found() => return Ok(None),
            Err(error) => return Err(registry_halt(&error)),
        };
        registry.put_manifest(&repository, &manifest, Some(&tag)).await.map_err(|error| registry_halt(&error))?;
        let reason = format!("run {} built an image of the same inputs", built_by.number);
        let pushed =
            Pushed { digest, tag: tag.to_string(), reused_from: Some(built_by), inputs: inputs.digest.clone() };
        Ok(Some(Reused { pushed, reason }))
    }

    /// Where the image of this run goes.
    pub(super) fn image_name(&self, commit: &CommitSha) -> Result<(Repository, Tag), Halt> {
        let wrong = |error: &dyn std::error::Error| Halt::infrastructure(format!("failed to name the image: {error}"));
        let repository = self.job.image_repository.parse::<Repository>().map_err(|error| wrong(&error))?;
        let mut tag = format!("{}-{}", self.job.run.number, commit.short());
        // Whoever had the run before may still be pushing: nobody moves another attempt's tag.
        if self.job.attempt > 1 {
            tag.push_str(&format!("-{}", self.job.attempt));
        }
        Ok((repository, tag.parse::<Tag>().map_err(|error| wrong(&error))?))
    }

    /// What a mirrored name of an image means now.
    pub(super) async fn pin(&self, name: &str) -> Result<BaseImage, Halt> {
        let by_digest = |repository: &str, digest: &str| BaseImage {
            reference: format!("{repository}@{digest}"),
            digest: digest.to_owned(),
        };
        if let Some((repository, digest)) = name.split_once('@') {
            return Ok(by_digest(repository, digest));
        }
        let (repository, tag) = match name.rsplit_once(':') {
            Some((repository, tag)) if !tag.contains('/') => (repository, tag),
            _ => (name, "latest"),
        };
        // The registry that we have a client for says what the tag means now.
        if let Some(path) = repository.strip_prefix(&format!("{}/", self.job.registry.host)) {
            let wrong = |error: &dyn std::error::Error| Halt::code(format!("the base image {name}: {error}"));
            let path = path.parse::<Repository>().map_err(|error| wrong(&error))?;
            let tag = tag.parse::<Tag>().map_err(|error| wrong(&error))?;
            return match self.registry()?.resolve(&path, &tag).await {
                Ok(digest) => Ok(by_digest(repository, digest.as_str())),
                Err(error) if error.is_not_found() => {
                    Err(Halt::code(format!("the base image {name} does not exist: {}", chain(&error))))
                }
                Err(error) => Err(registry_halt(&error)),
            };
        }
        // Of any other, the engine has what it pulled.
        let auth = self.auth(name);
        let found = self.engine.ensure_image(name, auth.as_ref(), None).await;
        let found = found.map_err(|error| Halt::docker(&error))?;
        Ok(match found.digests_in(repository).first() {
            Some(digest) => by_digest(repository, digest),
            None => BaseImage { digest: found.id, reference: name.to_owned() },
        })
    }
}
