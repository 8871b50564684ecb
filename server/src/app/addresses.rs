//! The host names under which a service is reached, in one place for mails, pages and the gateway.

use pipelines::{ids::ServiceName, plan::DeployPlan};

use crate::config::GatewaySettings;

/// The host in the test environment.
#[must_use]
pub fn test_host(gateway: &GatewaySettings, service: &ServiceName) -> String {
    format!("{service}.{}", gateway.test_domain)
}

/// The host of the new revision of a blue-green rollout.
#[must_use]
pub fn preview_host(gateway: &GatewaySettings, service: &ServiceName) -> String {
    format!("{service}.{}", gateway.preview_domain)
}

/// The host in production: the service's own, or one made of its name.
#[must_use]
pub fn production_host(gateway: &GatewaySettings, service: &ServiceName, deploy: &DeployPlan) -> String {
    match &deploy.host {
        Some(host) => host.to_ascii_lowercase(),
        None => format!("{service}.{}", gateway.production_domain),
    }
}
