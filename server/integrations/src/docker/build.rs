//! Building an image with the engine's classic builder, which every engine has. What is in the context is decided by the
//! runner.

use std::collections::{BTreeMap, HashMap};

use bollard::body_try_stream;
use bollard::query_parameters::BuildImageOptionsBuilder;
use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use tokio::sync::mpsc;

use super::error::HUNG_UP;
use super::image::{check_reference, credentials};
use super::{DockerError, Engine, Limits, RegistryAuth};

/// The most memory of a command of a build, in bytes: the builder's API takes 32 bits.
pub const MAX_BUILD_MEMORY_BYTES: u64 = i32::MAX as u64;
/// Period in which the share of processors is counted, microseconds: the kernel's own default.
const CPU_PERIOD_US: i32 = 100_000;

/// What is to be built.
#[derive(Debug, Clone)]
pub struct BuildRequest {
    /// Path of the Dockerfile in the context.
    pub dockerfile: String,
    /// Values for `ARG`.
    pub args: BTreeMap<String, String>,
    /// Labels of the image, such as the OCI annotations.
    pub labels: BTreeMap<String, String>,
    /// Images whose layers may be used instead of the engine's own cache; those that the engine does not have are left
    /// out, and with none of them its own cache is used.
    pub cache_from: Vec<String>,
    /// Name of the image, `repository:tag`.
    pub tag: String,
    /// Stage to stop at.
    pub target: Option<String>,
    /// Network of the commands.
    pub network: Option<String>,
    /// Limits of each command. The builder's API has no word for processes, and takes 2 GiB of memory at most: more is
    /// cut to that.
    pub limits: Limits,
    /// Registries that base images may come from.
    pub auth: Vec<RegistryAuth>,
}

/// A line of a build's output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BuildLine {
    /// The text, without the end of the line.
    pub text: String,
    /// Whether the line ends here; a program may write it in parts.
    pub ends_line: bool,
}

/// An image that was built.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BuiltImage {
    /// Digest of its configuration; no digest of a registry.
    pub id: String,
}

impl Engine {
    /// Builds an image from a tar stream and hands over the output. Dropping the future ends the build on the engine:
    /// a build does not outlive its client.
    ///
    /// # Errors
    /// [`DockerError::Dockerfile`] and [`DockerError::ImageNotFound`] are the user's; all others are infrastructure.
    pub async fn build_image(
        &self,
        request: &BuildRequest,
        context: impl Stream<Item = Result<Bytes, std::io::Error>> + Send + 'static,
        output: &mpsc::Sender<BuildLine>,
    ) -> Result<BuiltImage, DockerError> {
        check_reference(&request.tag)?;
        request.limits.check()?;
        let mut cache_from = Vec::new();
        for image in &request.cache_from {
            if self.inspect_image(image).await?.is_some() {
                cache_from.push(image.clone());
            }
        }
        let memory = i32::try_from(request.limits.memory_bytes.min(MAX_BUILD_MEMORY_BYTES)).unwrap_or(i32::MAX);
        let quota = i32::try_from(i64::from(request.limits.cpu_millis) * i64::from(CPU_PERIOD_US) / 1000);
        let mut options = BuildImageOptionsBuilder::new()
            .dockerfile(&request.dockerfile)
            .t(&request.tag)
            .rm(true)
            .forcerm(true)
            .memory(memory)
            .memswap(memory)
            .cpuperiod(CPU_PERIOD_US)
            .cpuquota(quota.unwrap_or(i32::MAX))
            .buildargs(&request.args.clone().into_iter().collect::<HashMap<_, _>>())
            .labels(&request.labels.clone().into_iter().collect::<HashMap<_, _>>());
        if !cache_from.is_empty() {
            options = options.cachefrom(&cache_from);
        }
        if let Some(target) = &request.target {
            options = options.target(target);
        }
        if let Some(network) = &request.network {
            options = options.networkmode(network);
        }
        let auth = request.auth.iter().map(|auth| (auth.host.clone(), credentials(auth))).collect();
        // The answer begins with the first line of output, after the whole context went over.
        let seconds = self.config.build_start_seconds;
        let patient = self.docker.clone().with_timeout(std::time::Duration::from_secs(seconds));
        let mut stream = Box::pin(patient.build_image(options.build(), Some(auth), Some(body_try_stream(context))));
        let mut id = None;
        while let Some(next) = stream.next().await {
            let info = next.map_err(|error| DockerError::build(&self.config.host, error))?;
            if let Some(found) = info.aux.and_then(|aux| aux.id) {
                id = Some(found);
            }
            for line in lines_of(info.stream.as_deref(), info.status.as_deref(), info.id.as_deref()) {
                output.send(line).await.map_err(|_| DockerError::ReceiverGone)?;
            }
        }
        // The engine ends the stream in silence when it is shut down in the middle of a build.
        id.map(|id| BuiltImage { id }).ok_or_else(|| DockerError::Engine {
            action: "build the image",
            message: format!("{HUNG_UP} before the image was done"),
        })
    }
}

fn lines_of(stream: Option<&str>, status: Option<&str>, layer: Option<&str>) -> Vec<BuildLine> {
    let mut lines: Vec<_> = stream
        .into_iter()
        .flat_map(|text| text.split_inclusive('\n'))
        .map(|text| BuildLine { text: text.trim_end_matches(['\n', '\r']).to_owned(), ends_line: text.ends_with('\n') })
        .collect();
    // Progress of layers would be thousands of lines; words about a whole pull are kept.
    if let (Some(status), None) = (status, layer) {
        lines.push(BuildLine { text: status.to_owned(), ends_line: true });
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_is_cut_at_the_ends_of_lines() {
        let line = |text: &str, ends_line| BuildLine { text: text.to_owned(), ends_line };
        assert_eq!(lines_of(Some("a\r\nb"), None, None), [line("a", true), line("b", false)]);
        assert_eq!(lines_of(Some("\n"), None, None), [line("", true)]);
        assert_eq!(lines_of(None, Some("Pulling from x"), None), [line("Pulling from x", true)]);
        assert_eq!(lines_of(None, Some("Extracting"), Some("3f1c")), []);
    }
}
