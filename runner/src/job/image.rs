//! The image: context, Dockerfile with mirrored base images, labels, cache, build.

use std::collections::BTreeMap;
use std::path::Path;

use charts::dockerfile::map_base_images;
use charts::ignore::Ignore;
use integrations::docker::{BuildLine, BuildRequest, DockerError, MAX_BUILD_MEMORY_BYTES};
use integrations::registry::{Repository, Tag};
use pipelines::definition::Definition;
use pipelines::protocol::{CommitInfo, LogStream, MirrorRule, RunnerLink};
use tokio::sync::mpsc;

use super::base::{self, Base};
use super::inputs::Inputs;
use super::station::Station;
use super::steps::limits_of;
use super::{Halt, IMAGE, Work, is_transient, network_name};
use crate::context::{BuildContext, inside};
use crate::log::{Numbering, now};

/// Note: the engine's id of the image that was built, for the server too.
const BUILT_NOTE: &str = "image-built.json";
/// Note: a build was begun. A build dies with its client.
const BEGUN_NOTE: &str = "image-begun.json";
/// Name of the Dockerfile in the context; no repository has one of that name.
const DOCKERFILE: &str = ".windlass-build.Dockerfile";
const IGNORE_FILE: &str = ".dockerignore";
/// A Dockerfile that is read.
const DOCKERFILE_MAX_BYTES: u64 = 1 << 20;
const OUTPUT_QUEUE: usize = 256;

/// An image that was built, and where it is to go.
#[derive(Debug)]
pub(super) struct Built {
    pub(super) reference: String,
    pub(super) repository: Repository,
    pub(super) tag: Tag,
    pub(super) image_id: String,
}

impl<L: RunnerLink + 'static> Work<'_, L> {
    pub(super) async fn build(
        &self,
        definition: &Definition,
        base: &Base,
        inputs: &Inputs,
        commit: &CommitInfo,
    ) -> Result<Built, Halt> {
        self.go_on()?;
        if let Some(built) = self.unless_stopped(self.steadily(|| self.built_before(commit))).await? {
            return Ok(built);
        }
        let mut station = Station::begin(self, IMAGE, Numbering::Append).await;
        let mut left = self.shared.config.attempts;
        let result = loop {
            let result = self.build_in(definition, base, inputs, commit, &mut station).await;
            if !self.once_more(&result, &mut left, &mut station).await {
                break result;
            }
        };
        let built = station.end(result).await?;
        self.folder.take_note(BUILT_NOTE, &built.image_id).map_err(|error| Halt::io("keep a note", &error))?;
        Ok(built)
    }

    /// The image that was built before a restart, if the engine still has it under the name of this run.
    async fn built_before(&self, commit: &CommitInfo) -> Result<Option<Built>, Halt> {
        let note = self.folder.note::<String>(BUILT_NOTE).map_err(|error| Halt::io("read a note", &error))?;
        let Some(image_id) = note else { return Ok(None) };
        let (repository, tag) = self.image_name(&commit.sha)?;
        let reference = format!("{}/{repository}:{tag}", self.job.registry.host);
        let found = self.engine.inspect_image(&reference).await.map_err(|error| Halt::docker(&error))?;
        let same = found.is_some_and(|found| found.id.ends_with(&image_id) || image_id.ends_with(&found.id));
        Ok(same.then_some(Built { reference, repository, tag, image_id }))
    }

    async fn build_in(
        &self,
        definition: &Definition,
        base: &Base,
        inputs: &Inputs,
        commit: &CommitInfo,
        station: &mut Station<'_, L>,
    ) -> Result<Built, Halt> {
        let note = |error| Halt::io("keep a note", &error);
        if self.folder.note::<()>(BEGUN_NOTE).map_err(note)?.is_some() {
            station.say("build started again after a restart").await;
        }
        self.folder.take_note(BEGUN_NOTE, &()).map_err(note)?;
        self.check_disk().await?;
        self.ensure_network().await?;
        let (repository, tag) = self.image_name(&commit.sha)?;
        let reference = format!("{}/{repository}:{tag}", self.job.registry.host);
        let text = self.dockerfile(definition, base)?;
        let args = base::args(definition);
        let mapped = map_base_images(&text, &args, &self.job.mirrors);
        let mut pins = Vec::new();
        for image in &mapped.images {
            let pinned = match inputs.base_images.get(image) {
                Some(pinned) => pinned.clone(),
                None => self.pin(image).await?,
            };
            station.say(&format!("base image {}", pinned.reference)).await;
            let auth = self.auth(image);
            let (auth, name) = (auth.as_ref(), pinned.reference.as_str());
            let pull = move || self.engine.ensure_image(name, auth, None);
            self.retry(station, is_transient, pull).await.map_err(|error| Halt::docker(&error))?;
            pins.push(MirrorRule { from: image.clone(), to: pinned.reference });
        }
        let text = map_base_images(&mapped.text, &args, &pins).text;
        let request = BuildRequest {
            dockerfile: DOCKERFILE.to_owned(),
            args,
            labels: self.image_labels(definition, base, inputs, commit, &pins),
            cache_from: self.cache(station).await,
            tag: reference.clone(),
            target: None,
            network: Some(network_name(self.shared, &self.job.run)),
            limits: limits_of(&self.job.bounds),
            auth: self.registry_auth().into_iter().collect(),
        };
        let context = self.context(definition, base, &text)?;
        let image_id = tokio::select! {
            built = self.build_and_log(&request, context, station) => built?,
            // A build that nobody listens to ends on the engine.
            () = self.link.control.stop.cancelled() => return Err(Halt::Stopped),
        };
        // Keeps the layers as cache when the tag of this run is gone. A stranger's layers go with it.
        if self.may_push()
            && let Err(error) = self.engine.tag(&image_id, &self.cache_name()).await
        {
            tracing::warn!(run = %self.job.run, %error, "the image was not kept as cache");
        }
        Ok(Built { reference, repository, tag, image_id })
    }

    async fn build_and_log(
        &self,
        request: &BuildRequest,
        context: BuildContext,
        station: &mut Station<'_, L>,
    ) -> Result<String, Halt> {
        let (sender, mut receiver) = mpsc::channel::<BuildLine>(OUTPUT_QUEUE);
        let build = async {
            let built = self.engine.build_image(request, context.stream(), &sender).await;
            drop(sender);
            built
        };
        let write = async {
            loop {
                tokio::select! {
                    line = receiver.recv() => match line {
                        Some(line) => {
                            station.log.write(LogStream::Stdout, line.text.as_bytes(), line.ends_line, now().0).await;
                        }
                        None => return,
                    },
                    () = station.log.idle() => station.log.pause().await,
                }
            }
        };
        let (built, ()) = tokio::join!(build, write);
        match built {
            Ok(image) => Ok(image.id),
            // The message repeats the command, which is in the log; the reason is for the page.
            Err(DockerError::Dockerfile { message }) => {
                let hint = killed_hint(&message, self.job.bounds.step_memory_bytes);
                Err(Halt::code(format!("the image was not built: {message}{hint}")))
            }
            Err(error) => Err(Halt::docker(&error)),
        }
    }

    /// The Dockerfile: the base config's, or the repository's own in the workspace.
    pub(super) fn dockerfile(&self, definition: &Definition, base: &Base) -> Result<String, Halt> {
        if let Some(text) = &base.dockerfile {
            return Ok(text.clone());
        }
        let workspace = self.folder.workspace();
        let path = match &definition.image.dockerfile {
            Some(path) => path.to_string(),
            None => format!("{}/Dockerfile", definition.image.context),
        };
        let missing = || Halt::code(format!("the repository has no Dockerfile at {path}"));
        let file = inside(&workspace, &path).ok_or_else(missing)?;
        let size = std::fs::metadata(&file).map_err(|_| missing())?;
        if !size.is_file() {
            return Err(missing());
        }
        if size.len() > DOCKERFILE_MAX_BYTES {
            return Err(Halt::code(format!("{path} is larger than {DOCKERFILE_MAX_BYTES} bytes")));
        }
        std::fs::read_to_string(&file).map_err(|error| Halt::code(format!("failed to read {path}: {error}")))
    }

    fn context(&self, definition: &Definition, base: &Base, dockerfile: &str) -> Result<BuildContext, Halt> {
        let workspace = self.folder.workspace();
        let name = definition.image.context.as_str();
        let missing = || Halt::code(format!("the repository has no folder {name} for the image"));
        let folder = inside(&workspace, name).filter(|folder| folder.is_dir()).ok_or_else(missing)?;
        let own = own_ignore_file(&folder);
        let mut ignore = Ignore::default();
        for text in [base.ignore.as_str(), own.as_str()] {
            ignore.add(text).map_err(|error| Halt::code(format!("failed to read {IGNORE_FILE}: {error}")))?;
        }
        let over = vec![
            (DOCKERFILE.to_owned(), dockerfile.as_bytes().to_vec()),
            // What is left out is left out here; the engine takes our own two files out again.
            (IGNORE_FILE.to_owned(), format!("{DOCKERFILE}\n{IGNORE_FILE}\n").into_bytes()),
        ];
        let bounds = &self.job.bounds;
        let (max_bytes, max_files) = (bounds.checkout_bytes_max, bounds.checkout_files_max);
        Ok(BuildContext { folder, over, ignore, max_bytes, max_files })
    }

    /// The last image as a source of layers, where this engine has not built it itself: then it has the layers anyway,
    /// and more of them.
    async fn cache(&self, station: &mut Station<'_, L>) -> Vec<String> {
        let Some(digest) = &self.job.cache_from else { return Vec::new() };
        if self.engine.inspect_image(&self.cache_name()).await.is_ok_and(|found| found.is_some()) {
            return Vec::new();
        }
        let reference = format!("{}/{}@{digest}", self.job.registry.host, self.job.image_repository);
        let auth = self.registry_auth();
        match self.engine.pull_by_digest(&reference, auth.as_ref()).await {
            Ok(_) => vec![reference],
            Err(error) => {
                station.say(&format!("without the last image as cache: failed to {error}")).await;
                Vec::new()
            }
        }
    }

    fn cache_name(&self) -> String {
        format!("windlass-cache/{}-{}:last", self.shared.instance, self.job.run.service)
    }

    /// The annotations of the OCI image specification, as labels.
    fn image_labels(
        &self,
        definition: &Definition,
        base: &Base,
        inputs: &Inputs,
        commit: &CommitInfo,
        base_images: &[MirrorRule],
    ) -> BTreeMap<String, String> {
        let mut labels = BTreeMap::from([
            ("org.opencontainers.image.title".to_owned(), definition.service.to_string()),
            ("org.opencontainers.image.revision".to_owned(), commit.sha.to_string()),
            ("org.opencontainers.image.version".to_owned(), self.job.trigger.ref_name()),
            ("org.opencontainers.image.url".to_owned(), self.job.page_url.clone()),
            ("windlass.run".to_owned(), self.job.run.to_string()),
            ("windlass.base".to_owned(), base.label.clone()),
            ("windlass.inputs".to_owned(), inputs.digest.to_string()),
        ]);
        // As it was read: nothing that is no address goes into the image.
        if let Ok(url) = self.job.repository.url.parse::<pipelines::repository::RepositoryAddress>() {
            labels.insert("org.opencontainers.image.source".to_owned(), url.to_string());
        }
        // The last image of a Dockerfile is the one that the result stands on, as far as it is one of others.
        if let Some(base) = base_images.last() {
            labels.insert("org.opencontainers.image.base.name".to_owned(), base.from.clone());
            if let Some((_, digest)) = base.to.split_once('@') {
                labels.insert("org.opencontainers.image.base.digest".to_owned(), digest.to_owned());
            }
        }
        labels
    }
}

/// The builder tells only the exit code of a command that the kernel killed (128 and the number of SIGKILL).
fn killed_hint(message: &str, memory_bytes: u64) -> String {
    if !message.trim_end().ends_with("returned a non-zero code: 137") {
        return String::new();
    }
    let mib = memory_bytes.min(MAX_BUILD_MEMORY_BYTES) >> 20;
    format!("; it was killed, most likely for more than its {mib} MiB of memory (job.step_memory_bytes)")
}

/// The repository's own ignore file, which comes behind the base config's and may take back what that left out.
fn own_ignore_file(folder: &Path) -> String {
    let own = folder.join(IGNORE_FILE);
    let plain =
        std::fs::symlink_metadata(&own).is_ok_and(|found| found.is_file() && found.len() <= DOCKERFILE_MAX_BYTES);
    if plain { std::fs::read_to_string(own).unwrap_or_default() } else { String::new() }
}
