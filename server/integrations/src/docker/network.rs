//! Networks of the engine: one per run, one for services. Which container joins which is said where it is made.

use std::collections::{BTreeMap, HashMap};

use bollard::models::NetworkCreateRequest;
use bollard::query_parameters::ListNetworksOptionsBuilder;

use super::{DockerError, Engine, check_name};

impl Engine {
    /// Makes a bridge network of that name, or finds it. Names are not unique on an engine, so one name belongs to one
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
