//! Looks at the outside parties: engine, registries, mail, gateway. Each at the same time, each bounded in time, none is
//! changed. Not here: what the server finds of itself (`app::health`).

use std::{future::Future, time::Duration};

use integrations::registry::{RegistryError, Repository};

use super::{Drivers, RegistryHandle, TryAgain};
use crate::{
    app::health::{Finding, Findings, GatewayReading, Surroundings, Verdict},
    config::RegistrySettings,
};

/// A repository that nobody has: whoever may look for it is let in.
const PROBE: &str = "windlass-doctor";

/// A look with its bound: what a party is given to answer, with all the tries that its client makes.
async fn within(limit_ms: u64, name: &'static str, look: impl Future<Output = Finding>) -> Finding {
    let late = || {
        let evidence = format!("no answer within {limit_ms} ms");
        Finding::not_good(name, Verdict::Bad, evidence, "look whether it runs, and at the network between")
    };
    tokio::time::timeout(Duration::from_millis(limit_ms), look).await.unwrap_or_else(|_| late())
}

fn bad(name: &'static str, error: &dyn std::error::Error, fix: &str) -> Finding {
    Finding::not_good(name, Verdict::Bad, TryAgain::from_error(error).0, fix)
}

impl Surroundings for Drivers {
    fn look(&self) -> Findings<'_> {
        Box::pin(async {
            let registries = &self.app.config.registries;
            let limit_ms = self.app.config.bounds.health_answer_ms;
            let (engine, test, production, mail, gateway) = tokio::join!(
                within(limit_ms, "engine", self.look_at_engine()),
                within(limit_ms, "test_registry", look_at_registry("test_registry", &self.test, &registries.test)),
                within(
                    limit_ms,
                    "production_registry",
                    look_at_registry("production_registry", &self.production, &registries.production)
                ),
                within(limit_ms, "mail", self.look_at_mail()),
                within(limit_ms, "gateway", self.look_at_gateway()),
            );
            vec![engine, test, production, mail, gateway]
        })
    }

    fn gateway(&self) -> GatewayReading<'_> {
        let limit = Duration::from_millis(self.app.config.bounds.health_answer_ms);
        Box::pin(async move { tokio::time::timeout(limit, self.traffic.client().stats()).await.ok()?.ok() })
    }
}

impl Drivers {
    async fn look_at_engine(&self) -> Finding {
        let fix = "start Docker Engine, let the server's user use it, or set docker_host";
        let engine = match self.engine().await {
            Ok(engine) => engine,
            Err(TryAgain(error)) => return Finding::not_good("engine", Verdict::Bad, error, fix),
        };
        match engine.version().await {
            Ok((version, api)) => Finding::good("engine", format!("version {version}, API {api}")),
            Err(error) => bad("engine", &error, fix),
        }
    }

    async fn look_at_mail(&self) -> Finding {
        match (self.post.mailer.check().await, &self.app.config.mail.folder) {
            (Ok(()), None) => Finding::good("mail", "the mail server lets us in"),
            (Ok(()), Some(_)) => {
                let evidence = "mails go into a folder: nobody gets one";
                Finding::not_good("mail", Verdict::Warning, evidence, "set mail.smtp; a folder is for trying out")
            }
            (Err(error), _) => bad("mail", &error, "correct the settings under mail, or start the mail server"),
        }
    }

    async fn look_at_gateway(&self) -> Finding {
        match self.traffic.client().health().await {
            Ok(health) => {
                let addresses: Vec<String> = health.listening.iter().map(|it| it.local.to_string()).collect();
                let evidence = format!("version {}, on {}", health.version, addresses.join(" and "));
                Finding::good("gateway", evidence)
            }
            Err(error) => {
                let fix = "look at the gateway's log in the state folder; the server starts one by itself";
                bad("gateway", &error, fix)
            }
        }
    }
}

async fn look_at_registry(name: &'static str, registry: &RegistryHandle, settings: &RegistrySettings) -> Finding {
    let host = &settings.host;
    let probe = match settings.prefix.trim_matches('/') {
        "" => PROBE.to_owned(),
        prefix => format!("{prefix}/{PROBE}"),
    };
    let repository: Repository = match probe.parse() {
        Ok(repository) => repository,
        Err(error) => return bad(name, &error, "correct the prefix under registries"),
    };
    match registry.client.tags(&repository).await {
        // Nothing is there, and we were let in to see that.
        Ok(_) | Err(RegistryError::NotFound { .. }) => Finding::good(name, format!("{host} answers")),
        Err(error @ (RegistryError::Unauthorised { .. } | RegistryError::Blocked { .. })) => {
            bad(name, &error, &format!("correct user and password_file of {host}"))
        }
        Err(error) => bad(name, &error, &format!("look whether {host} runs, and at plain_http and ca_file")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_party_that_never_answers_is_told_in_its_time() {
        let (silent, other) = tokio::join!(
            within(30, "test_registry", std::future::pending()),
            within(30, "mail", async { Finding::good("mail", "it answers") }),
        );
        assert_eq!((silent.verdict, silent.evidence.as_str()), (Verdict::Bad, "no answer within 30 ms"));
        assert_eq!(other.verdict, Verdict::Good);
    }
}
