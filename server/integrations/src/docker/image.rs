//! Images of the engine: pull, push, tag, look. Building is next door; copying between registries is the promoter's and
//! never goes through the engine.

use std::collections::BTreeMap;

use bollard::auth::DockerCredentials;
use bollard::query_parameters::{
    CreateImageOptionsBuilder, ListImagesOptions, PushImageOptionsBuilder, RemoveImageOptionsBuilder,
    TagImageOptionsBuilder,
};
use futures_util::{Stream, StreamExt};
use secrecy::ExposeSecret;
use tokio::sync::mpsc;

use super::{DockerError, Engine, RegistryAuth};

/// How far a pull or a push is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TransferProgress {
    /// Short id of the layer; none for words about the whole image.
    pub layer: Option<String>,
    /// Words of the engine, such as `Pushing` or `Layer already exists`.
    pub status: String,
    /// Bytes done.
    pub current_bytes: u64,
    /// Bytes in all, where known.
    pub total_bytes: Option<u64>,
}

/// An image that the engine has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageInfo {
    /// Digest of its configuration, `sha256:…`: the engine's own name for it, not the one of a registry.
    pub id: String,
    /// `repository@sha256:…` as registries gave them at a pull or push.
    pub repo_digests: Vec<String>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Bytes on the engine's disk.
    pub size_bytes: u64,
}

impl ImageInfo {
    /// The digests under which this image is known in `repository` (`host:port/name`).
    pub fn digests_in(&self, repository: &str) -> Vec<&str> {
        self.repo_digests
            .iter()
            .filter_map(|known| known.split_once('@'))
            .filter(|(name, _)| *name == repository)
            .map(|(_, digest)| digest)
            .collect()
    }
}

impl Engine {
    /// Looks at an image by reference or id; `None` when the engine does not have it.
    ///
    /// # Errors
    /// When the engine cannot be asked.
    pub async fn inspect_image(&self, reference: &str) -> Result<Option<ImageInfo>, DockerError> {
        check_reference(reference)?;
        match self.docker.inspect_image(reference).await {
            Ok(found) => Ok(Some(ImageInfo {
                id: found.id.unwrap_or_default(),
                repo_digests: found.repo_digests.unwrap_or_default(),
                labels: found.config.and_then(|config| config.labels).unwrap_or_default().into_iter().collect(),
                size_bytes: found.size.and_then(|size| size.try_into().ok()).unwrap_or(0),
            })),
            Err(error) => match self.failed("look at the image")(error) {
                error if error.is_not_found() => Ok(None),
                error => Err(error),
            },
        }
    }

    /// The names of all images that the engine has: `repository:tag` and `repository@sha256:…`.
    ///
    /// # Errors
    /// When the engine cannot be asked.
    pub async fn image_names(&self) -> Result<Vec<String>, DockerError> {
        let found = self.docker.list_images(None::<ListImagesOptions>).await.map_err(self.failed("list the images"))?;
        let names = found.into_iter().flat_map(|image| image.repo_tags.into_iter().chain(image.repo_digests));
        // What has lost its name is listed under this one.
        let mut names: Vec<String> = names.filter(|name| !name.contains("<none>")).collect();
        names.sort_unstable();
        names.dedup();
        Ok(names)
    }

    /// The digests of an image, `repository@sha256:…`; empty when the engine does not have it or no registry named it.
    ///
    /// # Errors
    /// When the engine cannot be asked.
    pub async fn image_digests(&self, reference: &str) -> Result<Vec<String>, DockerError> {
        Ok(self.inspect_image(reference).await?.map(|image| image.repo_digests).unwrap_or_default())
    }

    /// Pulls an image unless the engine has it.
    ///
    /// # Errors
    /// [`DockerError::ImageNotFound`] is the user's; all others are infrastructure.
    pub async fn ensure_image(
        &self,
        reference: &str,
        auth: Option<&RegistryAuth>,
        progress: Option<&mpsc::Sender<TransferProgress>>,
    ) -> Result<ImageInfo, DockerError> {
        if let Some(found) = self.inspect_image(reference).await? {
            return Ok(found);
        }
        self.pull(reference, auth, progress).await
    }

    /// Pulls an image by tag or digest. By digest, the engine checks what it got.
    ///
    /// # Errors
    /// As [`Engine::ensure_image`].
    pub async fn pull(
        &self,
        reference: &str,
        auth: Option<&RegistryAuth>,
        progress: Option<&mpsc::Sender<TransferProgress>>,
    ) -> Result<ImageInfo, DockerError> {
        check_reference(reference)?;
        // Without a tag the engine would pull every tag of the repository.
        let (_, tag) = split_reference(reference);
        let full = if tag.is_none() { format!("{reference}:latest") } else { reference.to_owned() };
        let options = CreateImageOptionsBuilder::new().from_image(&full).build();
        let stream = self.docker.create_image(Some(options), None, auth.map(credentials));
        let stream = stream.map(|next| next.map(|info| (info.id, info.status, info.progress_detail)));
        self.transfer("pull the image", &full, stream, progress).await?;
        self.inspect_image(&full).await?.ok_or_else(|| DockerError::Engine {
            action: "pull the image",
            message: format!("{full} is missing after the pull"),
        })
    }

    /// Pulls `repository@digest`, also where the tag moved on.
    ///
    /// # Errors
    /// As [`Engine::ensure_image`]; [`DockerError::InvalidSpec`] when the reference names no digest.
    pub async fn pull_by_digest(&self, reference: &str, auth: Option<&RegistryAuth>) -> Result<ImageInfo, DockerError> {
        require_digest(reference)?;
        self.ensure_image(reference, auth, None).await
    }

    /// Pushes `repository:tag`. The digest is to be read back from the registry.
    ///
    /// # Errors
    /// [`DockerError::RegistryRefused`], [`DockerError::RegistryUnavailable`], or the engine's.
    pub async fn push(
        &self,
        reference: &str,
        auth: Option<&RegistryAuth>,
        progress: Option<&mpsc::Sender<TransferProgress>>,
    ) -> Result<(), DockerError> {
        check_reference(reference)?;
        let (repository, Some(tag)) = split_reference(reference) else {
            return Err(DockerError::InvalidSpec { reason: format!("{reference} names no tag to push") });
        };
        let options = PushImageOptionsBuilder::new().tag(tag).build();
        let stream = self.docker.push_image(repository, Some(options), auth.map(credentials));
        // The layer's id is not in this client's type; its words are.
        let stream = stream.map(|next| next.map(|info| (None, info.status, info.progress_detail)));
        self.transfer("push the image", reference, stream, progress).await
    }

    /// Gives an image another name, `repository:tag`.
    ///
    /// # Errors
    /// [`DockerError::NotFound`] when the engine does not have the image.
    pub async fn tag(&self, image: &str, reference: &str) -> Result<(), DockerError> {
        check_reference(image)?;
        check_reference(reference)?;
        let (repository, Some(tag)) = split_reference(reference) else {
            return Err(DockerError::InvalidSpec { reason: format!("{reference} names no tag") });
        };
        let options = TagImageOptionsBuilder::new().repo(repository).tag(tag).build();
        self.docker.tag_image(image, Some(options)).await.map_err(self.failed("tag the image"))
    }

    /// Removes a name of an image, and the image with its last name. One that does not exist is fine.
    ///
    /// # Errors
    /// When a container uses it, or the engine cannot do it.
    pub async fn remove_image(&self, reference: &str) -> Result<(), DockerError> {
        check_reference(reference)?;
        let options = RemoveImageOptionsBuilder::new().build();
        match self.docker.remove_image(reference, Some(options), None).await {
            Ok(_) => Ok(()),
            Err(error) => match self.failed("remove the image")(error) {
                error if error.is_not_found() => Ok(()),
                error => Err(error),
            },
        }
    }

    async fn transfer(
        &self,
        action: &'static str,
        reference: &str,
        stream: impl Stream<
            Item = Result<
                (Option<String>, Option<String>, Option<bollard::models::ProgressDetail>),
                bollard::errors::Error,
            >,
        >,
        progress: Option<&mpsc::Sender<TransferProgress>>,
    ) -> Result<(), DockerError> {
        let mut stream = Box::pin(stream);
        while let Some(next) = stream.next().await {
            let (layer, status, detail) =
                next.map_err(|error| DockerError::registry(&self.config.host, action, reference, error))?;
            let (Some(progress), Some(status)) = (progress, status) else { continue };
            let bytes = |value: Option<i64>| value.and_then(|value| u64::try_from(value).ok());
            let detail = detail.unwrap_or_default();
            // Progress is for looking at: where nobody keeps up, it is left out rather than waited for.
            progress
                .try_send(TransferProgress {
                    layer,
                    status,
                    current_bytes: bytes(detail.current).unwrap_or(0),
                    total_bytes: bytes(detail.total),
                })
                .ok();
        }
        Ok(())
    }
}

pub(super) fn credentials(auth: &RegistryAuth) -> DockerCredentials {
    DockerCredentials {
        username: Some(auth.username.clone()),
        password: Some(auth.password.expose_secret().to_owned()),
        serveraddress: Some(auth.host.clone()),
        ..Default::default()
    }
}

/// Splits `host:5000/name:tag` into `host:5000/name` and `tag`, `name@sha256:…` into `name` and `sha256:…`.
pub(super) fn split_reference(reference: &str) -> (&str, Option<&str>) {
    if let Some((name, digest)) = reference.split_once('@') {
        // `name:tag@digest` is the digest's.
        return (split_reference(name).0, Some(digest));
    }
    match reference.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => (name, Some(tag)),
        _ => (reference, None),
    }
}

/// `repository@sha256:…`, or an error.
pub(super) fn require_digest(reference: &str) -> Result<(&str, &str), DockerError> {
    check_reference(reference)?;
    match split_reference(reference) {
        (repository, Some(digest)) if digest.parse::<pipelines::ids::Digest>().is_ok() => Ok((repository, digest)),
        _ => Err(DockerError::InvalidSpec { reason: format!("{reference} does not name an image by its digest") }),
    }
}

/// References go into URLs of the engine.
pub(super) fn check_reference(reference: &str) -> Result<(), DockerError> {
    let fine = reference
        .bytes()
        .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_' | b':' | b'/' | b'@' | b'[' | b']'));
    let plain = !reference.split('/').any(|part| part.is_empty() || part.starts_with('.'));
    if fine && plain && !reference.is_empty() && reference.len() <= 512 {
        return Ok(());
    }
    Err(DockerError::InvalidSpec { reason: format!("{reference:?} is not the name of an image") })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_split_at_the_tag_and_not_at_the_port() {
        assert_eq!(split_reference("busybox"), ("busybox", None));
        assert_eq!(split_reference("h:5000/a/b"), ("h:5000/a/b", None));
        assert_eq!(split_reference("h:5000/a/b:1"), ("h:5000/a/b", Some("1")));
        assert_eq!(split_reference("h:5000/a:1@sha256:0"), ("h:5000/a", Some("sha256:0")));
    }

    #[test]
    fn only_names_of_images_go_into_urls() {
        for bad in ["", "../x", "a/../b", "a?b", "a b", "/a", "a#b", "a//b"] {
            assert!(check_reference(bad).is_err(), "{bad}");
        }
        for good in ["busybox:1.36", "127.0.0.1:5000/a/b@sha256:00", "[::1]:5000/a"] {
            assert!(check_reference(good).is_ok(), "{good}");
        }
    }

    #[test]
    fn a_tag_is_not_a_digest() {
        assert!(require_digest("h:5000/a:1").is_err());
        assert!(require_digest("h:5000/a@sha256:12").is_err());
        let digest = format!("sha256:{}", "0".repeat(64));
        let reference = format!("h:5000/a@{digest}");
        assert_eq!(require_digest(&reference).expect("a digest"), ("h:5000/a", digest.as_str()));
    }
}
