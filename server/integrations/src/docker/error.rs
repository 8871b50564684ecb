//! What goes wrong with the Docker Engine, and whose fault it is. The words of the engine are read here and nowhere
//! else; nothing is retried here.

use bollard::errors::Error as BollardError;

/// A failure of the engine, of a registry behind it, or of what it was asked to do.
///
/// [`DockerError::is_infrastructure`] says whether the user's files are to blame.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DockerError {
    /// The engine does not listen, or hung up.
    #[error("reach the docker engine at {host}")]
    Unreachable {
        /// Address of the engine.
        host: String,
        /// What the transport says.
        #[source]
        source: Box<BollardError>,
    },
    /// The engine took longer than the configured time.
    #[error("{action} in time: the docker engine does not answer")]
    TimedOut {
        /// What was asked for, as a verb.
        action: &'static str,
    },
    /// A container, image or network is not there.
    #[error("{action}: {message}")]
    NotFound {
        /// What was asked for, as a verb.
        action: &'static str,
        /// The words of the engine.
        message: String,
    },
    /// A container of that name runs something else.
    #[error("adopt container {name}: it was made from another specification")]
    Different {
        /// Name of the container.
        name: String,
    },
    /// What was asked for cannot be expressed, or breaks a bound.
    #[error("use the specification: {reason}")]
    InvalidSpec {
        /// Which part of it, and why.
        reason: String,
    },
    /// The image does not exist, or may not be read with these credentials.
    #[error("find image {reference}: {message}")]
    ImageNotFound {
        /// Image that was asked for.
        reference: String,
        /// The words of the engine.
        message: String,
    },
    /// A registry wants other credentials, or forbids the operation.
    #[error("use the registry of {reference}: it refused: {message}")]
    RegistryRefused {
        /// Image that was asked for.
        reference: String,
        /// The words of the engine.
        message: String,
    },
    /// A registry cannot be reached, is overloaded or broken.
    #[error("use the registry of {reference}: {message}")]
    RegistryUnavailable {
        /// Image that was asked for.
        reference: String,
        /// The words of the engine.
        message: String,
    },
    /// The disk of the engine is full.
    #[error("{action}: no space left on the docker engine: {message}")]
    NoSpace {
        /// What was asked for, as a verb.
        action: &'static str,
        /// The words of the engine.
        message: String,
    },
    /// The user's Dockerfile or its context is wrong, or one of its commands failed.
    #[error("build the image: {message}")]
    Dockerfile {
        /// The words of the engine.
        message: String,
    },
    /// The image cannot run what it was asked to run, for example because it has no shell.
    #[error("start container {name}: {message}")]
    CannotStart {
        /// Name of the container.
        name: String,
        /// The words of the engine.
        message: String,
    },
    /// Whoever wanted the output does not listen any more.
    #[error("hand over the output: its receiver is gone")]
    ReceiverGone,
    /// Anything else that the engine answers.
    #[error("{action}: the docker engine says: {message}")]
    Engine {
        /// What was asked for, as a verb.
        action: &'static str,
        /// The words of the engine.
        message: String,
    },
}

/// How the message begins when an answer of the engine ends in the middle.
pub(super) const HUNG_UP: &str = "it hung up";

impl DockerError {
    /// Whether the infrastructure is to blame, and a later try with the same input may succeed. The opposite is a
    /// failure of the user's files: the Dockerfile, the name of an image, the commands of a step.
    pub fn is_infrastructure(&self) -> bool {
        match self {
            Self::InvalidSpec { .. }
            | Self::ImageNotFound { .. }
            | Self::Dockerfile { .. }
            | Self::CannotStart { .. } => false,
            Self::Unreachable { .. }
            | Self::TimedOut { .. }
            | Self::NotFound { .. }
            | Self::Different { .. }
            | Self::RegistryRefused { .. }
            | Self::RegistryUnavailable { .. }
            | Self::NoSpace { .. }
            | Self::ReceiverGone
            | Self::Engine { .. } => true,
        }
    }

    /// Whether the engine itself went away, so that the same may succeed when it is back.
    pub fn is_engine_away(&self) -> bool {
        match self {
            Self::Unreachable { .. } => true,
            Self::Engine { message, .. } => message.starts_with(HUNG_UP),
            _ => false,
        }
    }

    /// Whether a container cannot be started because the engine died the last time that it was about to: what supervises
    /// its containers then knows the id already (`libcontainerd` of moby: "id already in use"), and will for ever.
    pub fn is_half_started(&self) -> bool {
        matches!(self, Self::Engine { message, .. } if message.contains("id already in use"))
    }

    /// Whether the thing that was asked about does not exist.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::NotFound { .. })
    }

    /// Sorts an error of the client that has nothing to do with a registry or a build.
    pub(super) fn engine(host: &str, action: &'static str, error: BollardError) -> Self {
        match error {
            BollardError::RequestTimeoutError => Self::TimedOut { action },
            BollardError::DockerResponseServerError { status_code: 404, message } => Self::NotFound { action, message },
            BollardError::DockerResponseServerError { message, .. }
            | BollardError::DockerStreamError { error: message }
                if is_no_space(&message) =>
            {
                Self::NoSpace { action, message }
            }
            BollardError::DockerResponseServerError { message, .. }
            | BollardError::DockerStreamError { error: message } => Self::Engine { action, message },
            error if is_transport(&error) => Self::Unreachable { host: host.to_owned(), source: Box::new(error) },
            error => Self::Engine { action, message: error.to_string() },
        }
    }

    /// Sorts an error that came while an image went to or came from a registry.
    pub(super) fn registry(host: &str, action: &'static str, reference: &str, error: BollardError) -> Self {
        let (BollardError::DockerResponseServerError { message, .. }
        | BollardError::DockerStreamError { error: message }) = error
        else {
            return Self::engine(host, action, error);
        };
        let reference = reference.to_owned();
        match RegistryWords::read(&message) {
            Some(RegistryWords::Missing) => Self::ImageNotFound { reference, message },
            Some(RegistryWords::Refused) => Self::RegistryRefused { reference, message },
            Some(RegistryWords::Unavailable) => Self::RegistryUnavailable { reference, message },
            None if is_no_space(&message) => Self::NoSpace { action, message },
            None => Self::Engine { action, message },
        }
    }

    /// Sorts an error that came while an image was built.
    pub(super) fn build(host: &str, error: BollardError) -> Self {
        const ACTION: &str = "build the image";
        let (status, message) = match error {
            BollardError::DockerResponseServerError { status_code, message } => (Some(status_code), message),
            BollardError::DockerStreamError { error } => (None, error),
            error => return Self::engine(host, ACTION, error),
        };
        // A command that fails is the user's, whatever it printed; so this comes before the words of registries.
        if is_dockerfile(&message) || is_bad_command(500, &message) {
            return Self::Dockerfile { message };
        }
        if is_no_space(&message) {
            return Self::NoSpace { action: ACTION, message };
        }
        let reference = "the base image".to_owned();
        match RegistryWords::read(&message) {
            Some(RegistryWords::Missing) => Self::ImageNotFound { reference, message },
            Some(RegistryWords::Refused) => Self::RegistryRefused { reference, message },
            Some(RegistryWords::Unavailable) => Self::RegistryUnavailable { reference, message },
            None if status == Some(400) => Self::Dockerfile { message },
            None => Self::Engine { action: ACTION, message },
        }
    }

    /// Sorts an error that came while a container was created or started.
    pub(super) fn start(host: &str, action: &'static str, name: &str, error: BollardError) -> Self {
        match error {
            BollardError::DockerResponseServerError { status_code, message }
                if is_bad_command(status_code, &message) =>
            {
                Self::CannotStart { name: name.to_owned(), message }
            }
            error => Self::engine(host, action, error),
        }
    }
}

/// What a registry meant, as far as the engine's message tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum RegistryWords {
    Missing,
    Refused,
    Unavailable,
}

impl RegistryWords {
    /// Reads messages of the engine (20.10 to 29; `distribution/errors.go` of moby and Go's `net/http`).
    fn read(message: &str) -> Option<Self> {
        let message = message.to_ascii_lowercase();
        let has = |words: &[&str]| words.iter().any(|word| message.contains(word));
        // "pull access denied … repository does not exist or may require 'docker login'" is what a missing name gives.
        if has(&["no basic auth credentials", "unauthorized", "authentication required"]) {
            return Some(Self::Refused);
        }
        if has(&[
            "manifest unknown",
            "name unknown",
            "repository does not exist",
            "not found: manifest",
            "no such image",
            "does not exist locally",
        ]) || (message.contains("manifest for") && message.contains("not found"))
        {
            return Some(Self::Missing);
        }
        if has(&["access denied", "denied:", "forbidden", "403 "]) {
            return Some(Self::Refused);
        }
        if has(&[
            "toomanyrequests",
            "too many requests",
            "connection refused",
            "connection reset",
            "i/o timeout",
            "timeout exceeded",
            "deadline exceeded",
            "no such host",
            "server misbehaving",
            "no route to host",
            "network is unreachable",
            "tls handshake",
            "x509:",
            "server gave http response to https client",
            "unexpected eof",
            ": eof",
            "broken pipe",
            "received unexpected http status",
            "internal server error",
            "bad gateway",
            "service unavailable",
            "blob upload unknown",
            "unexpected status code",
        ]) {
            return Some(Self::Unavailable);
        }
        None
    }
}

/// The messages of the classic builder that blame the Dockerfile or its context.
fn is_dockerfile(message: &str) -> bool {
    let message = message.to_ascii_lowercase();
    [
        "returned a non-zero code",
        "copy failed",
        "add failed",
        "dockerfile parse error",
        "parse error on line",
        "unknown instruction",
        "cannot locate specified dockerfile",
        "the dockerfile (",
        "no build stage in current context",
        "from requires",
        "invalid from flag",
        "invalid reference format",
        "failed to reach build target",
        "target stage",
        "please provide a source image with `from`",
        "forbidden path outside the build context",
        "no source files were specified",
        "requires at least",
        "requires exactly",
        "unable to find user",
        "unable to find group",
        "executable file not found",
        "unsupported variable modifier",
        "failed to process",
        "base name (",
    ]
    .iter()
    .any(|word| message.contains(word))
}

fn is_no_space(message: &str) -> bool {
    let message = message.to_ascii_lowercase();
    message.contains("no space left on device") || message.contains("disk quota exceeded")
}

/// The runtime could not find or execute the command: the image or the step is wrong, not the engine.
fn is_bad_command(status: u16, message: &str) -> bool {
    let message = message.to_ascii_lowercase();
    let blamed = [
        "executable file not found",
        "no such file or directory",
        "permission denied",
        "exec format error",
        "unable to find user",
        "unable to find group",
        "no command specified",
        "is not a directory",
    ];
    (status == 400 || status == 404 || status == 500)
        && (message.contains("oci runtime")
            || message.contains("runc create failed")
            || message.contains("no command specified")
            || message.contains("unable to find"))
        && blamed.iter().any(|word| message.contains(word))
}

fn is_transport(error: &BollardError) -> bool {
    matches!(
        error,
        BollardError::SocketNotFoundError(_)
            | BollardError::HyperLegacyError { .. }
            | BollardError::HyperResponseError { .. }
            | BollardError::IOError { .. }
            | BollardError::UnsupportedURISchemeError { .. }
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stream(message: &str) -> BollardError {
        BollardError::DockerStreamError { error: message.to_owned() }
    }

    #[test]
    fn a_build_error_blames_the_right_side() {
        let users = [
            "The command '/bin/sh -c make' returned a non-zero code: 2",
            "The command '/bin/sh -c curl x: connection refused' returned a non-zero code: 7",
            "COPY failed: file not found in build context or excluded by .dockerignore: stat nope: file does not exist",
            "dockerfile parse error line 3: unknown instruction: RUNN",
            "manifest for 127.0.0.1:5000/nope:1 not found: manifest unknown: manifest unknown",
            "pull access denied for nope, repository does not exist or may require 'docker login'",
            "failed to reach build target web in Dockerfile",
        ];
        for message in users {
            let error = DockerError::build("h", stream(message));
            assert!(!error.is_infrastructure(), "{message}: {error:?}");
        }
        let ours = [
            "Get \"http://127.0.0.1:1/v2/\": dial tcp 127.0.0.1:1: connect: connection refused",
            "toomanyrequests: You have reached your pull rate limit",
            "Get \"http://r/v2/x/manifests/1\": no basic auth credentials",
            "write /var/lib/docker/tmp/x: no space left on device",
            "received unexpected HTTP status: 500 Internal Server Error",
            "failed to register layer: something new",
        ];
        for message in ours {
            let error = DockerError::build("h", stream(message));
            assert!(error.is_infrastructure(), "{message}: {error:?}");
        }
    }

    #[test]
    fn an_image_without_a_shell_is_the_users() {
        let error = DockerError::start(
            "h",
            "start the container",
            "c",
            BollardError::DockerResponseServerError {
                status_code: 400,
                message: "failed to create shim task: OCI runtime create failed: runc create failed: unable to \
                          start container process: exec: \"/bin/sh\": stat /bin/sh: no such file or directory: unknown"
                    .to_owned(),
            },
        );
        assert!(!error.is_infrastructure(), "{error:?}");
    }
}
