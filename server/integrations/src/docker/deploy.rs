//! Containers of services: made once per revision, found again by name, published on an address of the host. Which
//! revision gets traffic is the gateway's; whether it may live is decided by the rollout.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;

use bollard::models::{
    ContainerCreateBody, ContainerInspectResponse, ContainerSummaryStateEnum, HostConfig, PortBinding, RestartPolicy,
    RestartPolicyNameEnum,
};
use bollard::query_parameters::{CreateContainerOptionsBuilder, ListContainersOptionsBuilder, StartContainerOptions};
use rand::Rng;
use serde::Serialize;
use sha2::{Digest, Sha256};

use super::image::{require_digest, split_reference};
use super::{
    ContainerState, DockerError, Engine, KEPT_CAPABILITIES, Limits, RegistryAuth, check_name, environment, log_config,
    state_of,
};

/// Label with the digest of the specification that a container was made from.
const SPEC_LABEL: &str = "windlass.spec";
/// Label with the port that the service listens on.
const PORT_LABEL: &str = "windlass.port";
/// Ports that are tried before the host counts as full.
const PORT_TRIES: usize = 32;

/// When the engine starts a container again by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum RestartRule {
    /// Never.
    Never,
    /// Whenever it ends, and after a restart of the machine, until it is stopped on purpose.
    UnlessStopped,
}

/// What one container of a service needs.
#[derive(Debug, Clone, Serialize)]
pub struct DeployContainer {
    /// Made of the revision and the number of the replica.
    pub name: String,
    /// `repository@sha256:…`; a tag is refused.
    pub image: String,
    /// Environment.
    pub env: BTreeMap<String, String>,
    /// Port that the service listens on.
    pub port: u16,
    /// Arguments instead of the image's own.
    pub command: Vec<String>,
    /// Limits.
    pub limits: Limits,
    /// Labels, for finding it again.
    pub labels: BTreeMap<String, String>,
    /// When the engine starts it again.
    pub restart: RestartRule,
    /// Whether it may write nowhere but to `/tmp`.
    pub read_only: bool,
    /// Network, by name; the engine's default one otherwise.
    pub network: Option<String>,
}

/// What to do when a container of the name was made from another specification.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnDifference {
    /// Refuse: [`DockerError::Different`].
    Fail,
    /// Stop it, remove it, make it anew. Only for a container that gets no traffic.
    Replace,
}

/// A container that runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deployed {
    /// The engine's name for it.
    pub id: String,
    /// Where it can be reached from the host.
    pub address: SocketAddr,
    /// Whether it ran already.
    pub adopted: bool,
}

/// One line of a list of containers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContainerSummary {
    /// Its name.
    pub name: String,
    /// The reference that it was made from.
    pub image: String,
    /// Whether it runs.
    pub running: bool,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Where a service container can be reached from the host, while it runs.
    pub address: Option<SocketAddr>,
}

/// The image that a container really runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunningImage {
    /// The engine's name for the image.
    pub image_id: String,
    /// Every digest under which the engine knows that image.
    pub repo_digests: Vec<String>,
    /// The digest in the repository that the container was made from; none when the engine knows none or several.
    pub digest: Option<pipelines::ids::Digest>,
    /// Whether the container runs at this moment.
    pub running: bool,
}

impl Engine {
    /// Makes a service container and starts it, or finds it: the same name and the same specification are the same
    /// container, whether it runs or is stopped.
    ///
    /// # Errors
    /// [`DockerError::Different`]; [`DockerError::ImageNotFound`]; [`DockerError::CannotStart`]; or the engine's.
    pub async fn deploy(
        &self,
        spec: &DeployContainer,
        difference: OnDifference,
        auth: Option<&RegistryAuth>,
    ) -> Result<Deployed, DockerError> {
        check_name(&spec.name)?;
        require_digest(&spec.image)?;
        spec.limits.check()?;
        let hash = spec_hash(spec)?;
        if let Some(found) = self.inspect(&spec.name).await? {
            if label(&found, SPEC_LABEL) == Some(hash.as_str()) {
                if let Some(deployed) = self.take_up(spec, &found).await? {
                    return Ok(deployed);
                }
            } else if difference == OnDifference::Fail {
                return Err(DockerError::Different { name: spec.name.clone() });
            }
            self.remove(&spec.name).await?;
        }
        self.pull_by_digest(&spec.image, auth).await?;
        for port in self.candidate_ports() {
            self.create_service(spec, &hash, port).await?;
            match self.start_service(&spec.name).await {
                Ok(()) => return self.deployed(&spec.name, spec.port, false).await,
                Err(error) if is_port_taken(&error) => self.remove(&spec.name).await?,
                Err(error) => {
                    self.remove(&spec.name).await?;
                    return Err(error);
                }
            }
        }
        Err(DockerError::Engine {
            action: "publish the container",
            message: format!("{PORT_TRIES} ports of {:?} are taken", self.config.published_ports),
        })
    }

    /// The containers that carry all these labels, running or not.
    ///
    /// # Errors
    /// When the engine cannot be asked.
    pub async fn list(&self, labels: &BTreeMap<String, String>) -> Result<Vec<ContainerSummary>, DockerError> {
        let wanted = labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
        let filters = HashMap::from([("label".to_owned(), wanted)]);
        let options = ListContainersOptionsBuilder::new().all(true).filters(&filters).build();
        let found = self.docker.list_containers(Some(options)).await.map_err(self.failed("list the containers"))?;
        let mut containers: Vec<_> = found
            .into_iter()
            .map(|found| {
                let labels: BTreeMap<_, _> = found.labels.unwrap_or_default().into_iter().collect();
                let inside = labels.get(PORT_LABEL).and_then(|port| port.parse::<u16>().ok());
                let address = found.ports.unwrap_or_default().into_iter().find_map(|port| {
                    let ip = port.ip?.parse().ok()?;
                    (Some(port.private_port) == inside).then_some(SocketAddr::new(ip, port.public_port?))
                });
                ContainerSummary {
                    name: found
                        .names
                        .unwrap_or_default()
                        .first()
                        .map(|name| name.trim_start_matches('/').to_owned())
                        .unwrap_or_default(),
                    image: found.image.unwrap_or_default(),
                    running: found.state == Some(ContainerSummaryStateEnum::RUNNING),
                    labels,
                    address,
                }
            })
            .collect();
        containers.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(containers)
    }

    /// The image that a container runs, and its digest as the registry named it; `None` when there is no such container.
    ///
    /// # Errors
    /// When the engine cannot be asked.
    pub async fn running_digest(&self, name: &str) -> Result<Option<RunningImage>, DockerError> {
        let Some(found) = self.inspect(name).await? else { return Ok(None) };
        let running = state_of(&found) == ContainerState::Running;
        let image_id = found.image.unwrap_or_default();
        let made_from = found.config.and_then(|config| config.image).unwrap_or_default();
        let repo_digests = self.image_digests(&image_id).await?;
        let digest = digest_of(&made_from, &repo_digests);
        Ok(Some(RunningImage { image_id, repo_digests, digest, running }))
    }

    /// A stopped or running container of the right specification; `None` when it cannot be started on its port, or never.
    async fn take_up(
        &self,
        spec: &DeployContainer,
        found: &ContainerInspectResponse,
    ) -> Result<Option<Deployed>, DockerError> {
        if matches!(state_of(found), ContainerState::Running | ContainerState::Restarting) {
            return self.deployed(&spec.name, spec.port, true).await.map(Some);
        }
        match self.start_service(&spec.name).await {
            Ok(()) => self.deployed(&spec.name, spec.port, false).await.map(Some),
            Err(error) if is_port_taken(&error) || error.is_half_started() => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn start_service(&self, name: &str) -> Result<(), DockerError> {
        let started = self.docker.start_container(name, None::<StartContainerOptions>).await;
        started.map_err(|error| DockerError::start(&self.config.host, "start the container", name, error))
    }

    async fn deployed(&self, name: &str, port: u16, adopted: bool) -> Result<Deployed, DockerError> {
        let found = self.inspect(name).await?.ok_or_else(|| DockerError::NotFound {
            action: "look at the container",
            message: format!("no such container: {name}"),
        })?;
        let address = address_of(&found, port).ok_or_else(|| DockerError::Engine {
            action: "publish the container",
            message: format!("{name} is not published on an address of the host"),
        })?;
        Ok(Deployed { id: found.id.unwrap_or_default(), address, adopted })
    }

    async fn create_service(&self, spec: &DeployContainer, hash: &str, port: u16) -> Result<(), DockerError> {
        let inside = format!("{}/tcp", spec.port);
        let mut labels: HashMap<_, _> = spec.labels.clone().into_iter().collect();
        labels.insert(SPEC_LABEL.to_owned(), hash.to_owned());
        labels.insert(PORT_LABEL.to_owned(), spec.port.to_string());
        let binding =
            PortBinding { host_ip: Some(self.config.published_address.to_string()), host_port: Some(port.to_string()) };
        let restart = match spec.restart {
            RestartRule::Never => RestartPolicyNameEnum::NO,
            RestartRule::UnlessStopped => RestartPolicyNameEnum::UNLESS_STOPPED,
        };
        let body = ContainerCreateBody {
            image: Some(spec.image.clone()),
            cmd: (!spec.command.is_empty()).then(|| spec.command.clone()),
            env: Some(environment(&spec.env)?),
            labels: Some(labels),
            exposed_ports: Some(vec![inside.clone()]),
            host_config: Some(HostConfig {
                port_bindings: Some(HashMap::from([(inside, Some(vec![binding]))])),
                network_mode: spec.network.clone(),
                memory: Some(spec.limits.memory()),
                memory_swap: Some(spec.limits.memory()),
                nano_cpus: Some(spec.limits.nano_cpus()),
                pids_limit: Some(i64::from(spec.limits.pids)),
                restart_policy: Some(RestartPolicy { name: Some(restart), maximum_retry_count: None }),
                init: Some(true),
                privileged: Some(false),
                readonly_rootfs: Some(spec.read_only),
                tmpfs: spec.read_only.then(|| HashMap::from([("/tmp".to_owned(), "size=64m".to_owned())])),
                security_opt: Some(vec!["no-new-privileges".to_owned()]),
                cap_drop: Some(vec!["ALL".to_owned()]),
                cap_add: Some(KEPT_CAPABILITIES.map(str::to_owned).to_vec()),
                log_config: Some(log_config(self.config.service_log_bytes)),
                ..Default::default()
            }),
            ..Default::default()
        };
        let options = CreateContainerOptionsBuilder::new().name(&spec.name).build();
        let created = self.docker.create_container(Some(options), body).await;
        created
            .map(drop)
            .map_err(|error| DockerError::start(&self.config.host, "make the container", &spec.name, error))
    }

    /// Ports to try, at random: two servers on one machine do not run after each other.
    fn candidate_ports(&self) -> Vec<u16> {
        let mut random = rand::rng();
        (0..PORT_TRIES).map(|_| random.random_range(self.config.published_ports.clone())).collect()
    }
}

fn address_of(found: &ContainerInspectResponse, port: u16) -> Option<SocketAddr> {
    let bindings = found.host_config.as_ref()?.port_bindings.as_ref()?;
    let binding = bindings.get(&format!("{port}/tcp"))?.as_ref()?.first()?;
    let ip = binding.host_ip.as_deref()?.parse().ok()?;
    Some(SocketAddr::new(ip, binding.host_port.as_deref()?.parse().ok()?))
}

fn label<'a>(found: &'a ContainerInspectResponse, key: &str) -> Option<&'a str> {
    found.config.as_ref()?.labels.as_ref()?.get(key).map(String::as_str)
}

fn spec_hash(spec: &DeployContainer) -> Result<String, DockerError> {
    let text = serde_json::to_vec(spec).map_err(|error| DockerError::InvalidSpec { reason: error.to_string() })?;
    Ok(hex::encode(Sha256::digest(&text)))
}

fn is_port_taken(error: &DockerError) -> bool {
    let (DockerError::Engine { message, .. } | DockerError::CannotStart { message, .. }) = error else {
        return false;
    };
    message.contains("port is already allocated") || message.contains("address already in use")
}

/// Of the digests of an image, the one in the repository that the container was made from.
fn digest_of(made_from: &str, repo_digests: &[String]) -> Option<pipelines::ids::Digest> {
    let (repository, wanted) = split_reference(made_from);
    let mut candidates = repo_digests
        .iter()
        .filter_map(|known| known.split_once('@'))
        .filter(|(name, _)| *name == repository)
        .map(|(_, digest)| digest);
    // One image may have two manifests in one repository: then the container's own reference decides.
    let first = candidates.next()?;
    let digest = match candidates.next() {
        None => first,
        Some(second) => [first, second].into_iter().chain(candidates).find(|digest| Some(*digest) == wanted)?,
    };
    digest.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_digest_is_the_one_of_the_repository_it_was_made_from() {
        let digest = |c: &str| format!("sha256:{}", c.repeat(64));
        let known = [
            format!("test:1/a@{}", digest("a")),
            format!("prod:1/a@{}", digest("a")),
            format!("prod:1/a@{}", digest("b")),
        ];
        let read = |made_from: String| digest_of(&made_from, &known).map(|found| found.to_string());
        assert_eq!(read(format!("test:1/a@{}", digest("a"))), Some(digest("a")));
        assert_eq!(read(format!("prod:1/a@{}", digest("b"))), Some(digest("b")));
        assert_eq!(read("prod:1/a:latest".to_owned()), None);
        assert_eq!(read("other:1/a:latest".to_owned()), None);
    }
}
