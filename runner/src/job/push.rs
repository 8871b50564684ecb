//! The last station: the image in the registry, and its digest as the registry says it.

use integrations::docker::DockerError;
use integrations::registry::RegistryError;
use pipelines::ids::{Digest, RunId};
use pipelines::protocol::{CommitInfo, Report, RunnerLink};
use serde::{Deserialize, Serialize};

use super::image::Built;
use super::inputs::Inputs;
use super::station::Station;
use super::{Halt, PUSH, Work, is_transient, registry_halt};
use crate::log::Numbering;

/// Note: what was pushed; the station has ended for the server.
const PUSHED_NOTE: &str = "pushed.json";

/// An image in the registry.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Pushed {
    pub(super) digest: Digest,
    pub(super) tag: String,
    pub(super) reused_from: Option<RunId>,
    pub(super) inputs: Digest,
}

impl Pushed {
    pub(super) fn report(self) -> Report {
        let Self { digest, tag, reused_from, inputs } = self;
        Report::Succeeded { digest, tag, reused_from, inputs }
    }
}

impl<L: RunnerLink + 'static> Work<'_, L> {
    pub(super) async fn push(&self, built: &Built, inputs: &Inputs, commit: &CommitInfo) -> Result<Pushed, Halt> {
        self.go_on()?;
        let known = self.folder.note(PUSHED_NOTE).map_err(|error| Halt::io("read a note", &error))?;
        if let Some(pushed) = known {
            return Ok(pushed);
        }
        let mut station = Station::begin(self, PUSH, Numbering::Append).await;
        let mut left = self.shared.config.attempts;
        let result = loop {
            // A server that was not heard of for long may have given the run to somebody else.
            self.link.confirm().await;
            tokio::select! {
                digest = self.push_in(built, &mut station) => {
                    if !self.once_more(&digest, &mut left, &mut station).await {
                        break digest;
                    }
                    continue;
                }
                () = self.link.control.stop.cancelled() => break Err(Halt::Stopped),
                () = self.link.unsure() => {}
            }
            station.say("the push waits: the server does not answer, and the run may be another runner's").await;
        };
        let digest = station.end(result).await?;
        tracing::info!(run = %self.job.run, commit = %commit.sha, %digest, "image pushed");
        let (tag, inputs) = (built.tag.to_string(), inputs.digest.clone());
        let pushed = Pushed { digest, tag, reused_from: None, inputs };
        self.folder.take_note(PUSHED_NOTE, &pushed).map_err(|error| Halt::io("keep a note", &error))?;
        Ok(pushed)
    }

    async fn push_in(&self, built: &Built, station: &mut Station<'_, L>) -> Result<Digest, Halt> {
        station.say(&format!("pushing {}", built.reference)).await;
        let auth = self.registry_auth();
        let auth = auth.as_ref();
        let pushed = self.retry(station, is_transient, move || self.engine.push(&built.reference, auth, None)).await;
        pushed.map_err(|error: DockerError| Halt::docker(&error))?;
        let registry = &self.registry()?;
        let read = move || registry.resolve(&built.repository, &built.tag);
        let digest = self.retry(station, RegistryError::is_transient, read).await;
        let digest = digest.map_err(|error| registry_halt(&error))?;
        // What the registry shows under the tag must be what this engine pushed, and nobody else's.
        let name = format!("{}/{}", self.job.registry.host, built.repository);
        let image = self.engine.inspect_image(&built.image_id).await.map_err(|error| Halt::docker(&error))?;
        let known = image.as_ref().is_some_and(|image| image.digests_in(&name).contains(&digest.as_str()));
        if !known {
            return Err(Halt::infrastructure(format!(
                "{} shows {digest}, which is not what was pushed: somebody else moved the tag",
                built.reference
            )));
        }
        station.say(&format!("digest {digest}")).await;
        Ok(digest)
    }
}
