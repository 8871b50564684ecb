//! Networks of the engine: one per run, whose interfaces a firewall can tell from others. Which container joins which is said where it is made.

use std::collections::{BTreeMap, HashMap};

use pipelines::ids::Digest;

use bollard::models::NetworkCreateRequest;
use bollard::query_parameters::ListNetworksOptionsBuilder;

use super::{DockerError, Engine, check_name};

/// The engine's option for the name of the interface (Docker's bridge driver).
const BRIDGE_NAME: &str = "com.docker.network.bridge.name";

/// The name of a network's interface on the host, which the kernel keeps to 15 letters.
#[must_use]
pub fn bridge_name(network: &str) -> String {
    format!("wlr-{:.10}", Digest::of(network.as_bytes()).short())
}

impl Engine {
    /// Makes a bridge network of that name, or finds it. Its interface on the host is called `wlr-` and ten letters, so that
    /// one rule of a firewall (`wlr-+`) is about all of them. Names are not unique on an engine, so one name belongs to one
    /// caller at a time.
    ///
    /// # Errors
    /// When the engine cannot do it, for example because its address pools are used up.
    pub async fn ensure_network(&self, name: &str, labels: &BTreeMap<String, String>) -> Result<(), DockerError> {
        check_name(name)?;
        let filters = HashMap::from([("name", vec![name])]);
        let options = ListNetworksOptionsBuilder::new().filters(&filters).build();
        let found = self.docker.list_networks(Some(options)).await.map_err(self.failed("list the networks"))?;
        // The filter matches parts of names as well.
        if found.iter().any(|network| network.name.as_deref() == Some(name)) {
            return Ok(());
        }
        let request = NetworkCreateRequest {
            name: name.to_owned(),
            driver: Some("bridge".to_owned()),
            labels: Some(labels.clone().into_iter().collect()),
            options: Some(HashMap::from([(BRIDGE_NAME.to_owned(), bridge_name(name))])),
            ..Default::default()
        };
        self.docker.create_network(request).await.map(drop).map_err(self.failed("make the network"))
    }

    /// Removes a network. One that does not exist is fine.
    ///
    /// # Errors
    /// When the engine cannot do it, for example because a container is still in it.
    pub async fn remove_network(&self, name: &str) -> Result<(), DockerError> {
        check_name(name)?;
        match self.docker.remove_network(name).await {
            Ok(()) => Ok(()),
            Err(error) => match self.failed("remove the network")(error) {
                error if error.is_not_found() => Ok(()),
                error => Err(error),
            },
        }
    }

    /// Names of the networks that carry all these labels.
    ///
    /// # Errors
    /// When the engine cannot be asked.
    pub async fn list_networks(&self, labels: &BTreeMap<String, String>) -> Result<Vec<String>, DockerError> {
        let wanted = labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
        let filters = HashMap::from([("label".to_owned(), wanted)]);
        let options = ListNetworksOptionsBuilder::new().filters(&filters).build();
        let found = self.docker.list_networks(Some(options)).await.map_err(self.failed("list the networks"))?;
        Ok(found.into_iter().filter_map(|network| network.name).collect())
    }
}
