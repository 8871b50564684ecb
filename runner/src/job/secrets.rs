//! The secrets of a run: asked for by name once the pipeline file is read, hidden in all logs from then on, and handed to
//! the steps that name them. They live in memory and in the environment of the steps' containers, which go with the run.
//! Which of them a run may have is decided by the server.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::PoisonError;

use pipelines::definition::{Definition, Step};
use pipelines::ids::{SecretName, ServiceName};
use pipelines::protocol::{RunnerLink, RunnerRequest, Secret, ServerReply};
use pipelines::secret::{GivenSecret, Withheld};

use super::{Halt, Work, secrets_of};
use crate::mask::Secrets;

/// What the server gave.
#[derive(Debug)]
pub(super) struct Given {
    service: ServiceName,
    values: BTreeMap<SecretName, Secret>,
    withheld: Option<Withheld>,
}

impl Given {
    /// The variables of a step with the secrets that it names.
    pub(super) fn environment(&self, step: &Step) -> Result<BTreeMap<String, String>, Halt> {
        let mut environment = BTreeMap::new();
        for secret in &step.secrets {
            let (step, name) = (&step.name, &secret.name);
            if let Some(Withheld { blame, reason }) = &self.withheld {
                return Err(Halt::of(*blame, format!("step {step} names the secret {name}, {reason}")));
            }
            let Some(value) = self.values.get(name) else {
                return Err(Halt::code(format!(
                    "step {step} names the secret {name}, which does not exist: an operator sets it with `windlass \
                     secret set {name} --service {}` or on the service's page under Secrets; then run again",
                    self.service
                )));
            };
            environment.insert(secret.variable().to_owned(), value.expose().to_owned());
        }
        Ok(environment)
    }
}

impl<L: RunnerLink + 'static> Work<'_, L> {
    /// Asks for the secrets that the steps of this run name, and hides them in all logs from now on.
    pub(super) async fn given_secrets(&self, definition: &Definition) -> Result<Given, Halt> {
        let steps: Vec<_> = definition.steps.iter().filter(|step| self.applies(step)).collect();
        let names: BTreeSet<_> =
            steps.iter().flat_map(|step| &step.secrets).map(|secret| secret.name.clone()).collect();
        let mut given = Given { service: self.job.run.service.clone(), values: BTreeMap::new(), withheld: None };
        if names.is_empty() {
            return Ok(given);
        }
        let ask = RunnerRequest::Secrets {
            run: self.job.run.clone(),
            attempt: self.job.attempt,
            names: names.into_iter().collect(),
        };
        match self.link.ask(ask).await {
            ServerReply::Secrets { given: values, withheld } => {
                given.values = values.into_iter().map(|GivenSecret { name, value }| (name, value)).collect();
                given.withheld = withheld;
            }
            _ => {
                self.go_on()?;
                return Err(Halt::infrastructure("the server did not say which secrets the run may have"));
            }
        }
        let mut hidden = secrets_of(self.job);
        hidden.extend(given.values.values().cloned());
        hidden.extend(self.kept_values(&steps).await?);
        let masks = Secrets::new(&hidden).map_err(|error| Halt::code(error.to_string()))?;
        *self.masks.write().unwrap_or_else(PoisonError::into_inner) = masks;
        Ok(given)
    }

    /// Values that steps were given before this runner was restarted: a secret may have been set anew meanwhile, and what
    /// such a step printed is read again from the first line.
    async fn kept_values(&self, steps: &[&Step]) -> Result<Vec<Secret>, Halt> {
        let mut kept = Vec::new();
        for step in steps.iter().filter(|step| !step.secrets.is_empty()) {
            let environment = self.engine.step_environment(&self.container_name(step)).await;
            let environment = environment.map_err(|error| Halt::docker(&error))?.unwrap_or_default();
            let values = step.secrets.iter().filter_map(|secret| environment.get(secret.variable()));
            kept.extend(values.map(|value| Secret::new(value.as_str())));
        }
        Ok(kept)
    }
}
