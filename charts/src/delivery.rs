//! A pipeline file together with its base config: values merged and checked, and out of them all that a target needs to
//! run the service. Which problems a file has by itself is `pipelines::definition`'s.

use std::collections::BTreeMap;

use pipelines::definition::{Code, Definition, Diagnostic, HttpPath, ValueError, VariableName, parse, place_of, quote};
use pipelines::plan::{DeliveryPlan, DeployPlan};
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::base::BaseConfig;
use crate::catalog::Catalog;
use crate::quantity;

/// The values that Windlass sets for each revision; a pipeline file cannot.
const OWN_VALUES: &str = "windlass";

/// A pipeline file that can be run.
#[derive(Debug, Clone, PartialEq)]
pub struct Pipeline<'c> {
    /// What the file says.
    pub definition: Definition,
    /// The base config that it is built on.
    pub base: &'c BaseConfig,
    /// The chart's values with the file's over them; what a target that renders the chart needs.
    pub values: Map<String, Value>,
    /// What delivering needs.
    pub plan: DeliveryPlan,
}

impl Catalog {
    /// Reads a pipeline file with all its problems, those that only the catalog can know among them. The pipeline is
    /// there exactly when no problem is an error.
    pub fn read(&self, file_name: &str, text: &str) -> (Option<Pipeline<'_>>, Vec<Diagnostic>) {
        let (definition, mut found) = parse(file_name, text);
        let Some(definition) = definition else { return (None, found) };
        let source = Source { file_name, text };
        let pipeline = match self.resolve(&definition.base) {
            Ok(base) => source.pipeline(definition, base),
            Err(unknown) => {
                let problem = source.error(&["base"], Code::UnknownBase, unknown.to_string());
                Err(vec![problem.help(unknown.help())])
            }
        };
        match pipeline {
            Ok(pipeline) => (Some(pipeline), found),
            Err(more) => {
                found.extend(more);
                found.sort_by_key(|problem| (problem.line, problem.column));
                (None, found)
            }
        }
    }
}

/// The values of a chart that the docker target understands.
#[derive(Deserialize)]
struct ServiceValues {
    #[serde(default = "one")]
    replicas: u32,
    port: u16,
    #[serde(default)]
    health: HealthValues,
    #[serde(default)]
    env: BTreeMap<String, Value>,
    #[serde(default)]
    command: Vec<String>,
    #[serde(default)]
    resources: ResourceValues,
}

fn one() -> u32 {
    1
}

#[derive(Deserialize)]
struct HealthValues {
    path: String,
}

impl Default for HealthValues {
    fn default() -> Self {
        HealthValues { path: "/".to_owned() }
    }
}

#[derive(Default, Deserialize)]
struct ResourceValues {
    memory: Option<Value>,
    cpus: Option<Value>,
}

/// The file that a problem is shown in.
struct Source<'s> {
    file_name: &'s str,
    text: &'s str,
}

impl Source<'_> {
    fn error(&self, path: &[&str], code: Code, message: impl Into<String>) -> Diagnostic {
        Diagnostic::error(code, place_of(self.text, path), message).in_file(self.file_name)
    }

    fn bad_value(&self, path: &[&str], error: &ValueError) -> Diagnostic {
        let problem = self.error(path, Code::ChartValue, error.to_string());
        match error.help() {
            Some(help) => problem.help(help),
            None => problem,
        }
    }

    fn pipeline<'c>(&self, definition: Definition, base: &'c BaseConfig) -> Result<Pipeline<'c>, Vec<Diagnostic>> {
        let mut problems = self.contradictions(&definition);
        let mut written = definition.values.clone();
        if written.remove(OWN_VALUES).is_some() {
            problems.push(
                self.error(
                    &["values", OWN_VALUES],
                    Code::ChartValue,
                    "the values `windlass` are set for each revision",
                )
                .help("remove them"),
            );
        }
        let network = &definition.network;
        if let Some(port) = network.port {
            written.insert("port".to_owned(), Value::from(port));
        }
        if let Some(path) = &network.health.path {
            let health = written.entry("health").or_insert_with(|| Value::Object(Map::new()));
            if let Value::Object(health) = health {
                health.insert("path".to_owned(), Value::from(path.as_str()));
            }
        }
        let values = merged(&base.values, &written);
        problems.extend(self.misfits(base, &values));
        if !problems.is_empty() {
            return Err(problems);
        }
        let deploy = self.deploy_plan(&definition, base, &values)?;
        let plan = DeliveryPlan {
            base: base.reference(),
            deploy,
            test: definition.test_plan(),
            production: definition.production_plan(),
        };
        Ok(Pipeline { definition, base, values, plan })
    }

    /// What is said both under `network` and under `values`, differently.
    fn contradictions(&self, definition: &Definition) -> Vec<Diagnostic> {
        let network = &definition.network;
        let mut problems = Vec::new();
        let mut compare = |path: &[&str], said: Option<Value>| {
            let value = path[1..].iter().try_fold(&Value::Null, |value, key| match value {
                Value::Null => definition.values.get(*key),
                inner => inner.get(key),
            });
            if let (Some(said), Some(value)) = (said, value)
                && said != *value
            {
                let message = format!("{} contradicts what `network` says", quote(&path.join(".")));
                problems.push(self.error(path, Code::Conflict, message).help("remove it here"));
            }
        };
        compare(&["values", "port"], network.port.map(Value::from));
        let health_path = network.health.path.as_ref().map(|path| Value::from(path.as_str()));
        compare(&["values", "health", "path"], health_path);
        problems
    }

    fn misfits(&self, base: &BaseConfig, values: &Map<String, Value>) -> Vec<Diagnostic> {
        let misfits = base.schema.check(&Value::Object(values.clone()));
        misfits
            .into_iter()
            .map(|misfit| {
                let path: Vec<&str> = ["values"].into_iter().chain(misfit.path.iter().map(String::as_str)).collect();
                let mut place = place_of(self.text, &path);
                if misfit.unknown {
                    // The name is what is wrong, so the name is pointed at.
                    place = self.key_place(&path).unwrap_or(place);
                }
                let message = format!("{} {}", quote(&path.join(".")), misfit.message);
                Diagnostic::error(Code::ChartValue, place, message)
                    .why(format!("the base config `{}` says what its values may be", base.reference()))
                    .help(misfit.help)
                    .in_file(self.file_name)
            })
            .collect()
    }

    /// The place of a key rather than of its value, where both stand on one line.
    fn key_place(&self, path: &[&str]) -> Option<pipelines::definition::Place> {
        let place = place_of(self.text, path);
        let key = path.last()?;
        let line = self.text.lines().nth(usize::try_from(place.line).ok()?.checked_sub(1)?)?;
        let before: String = line.chars().take(usize::try_from(place.column).ok()?.saturating_sub(1)).collect();
        let at = before.rfind(key)?;
        let column = u32::try_from(before[..at].chars().count()).ok()? + 1;
        Some(pipelines::definition::Place { column, span_len: u32::try_from(key.chars().count()).ok()?, ..place })
    }

    fn deploy_plan(
        &self,
        definition: &Definition,
        base: &BaseConfig,
        values: &Map<String, Value>,
    ) -> Result<DeployPlan, Vec<Diagnostic>> {
        let service: ServiceValues = serde_json::from_value(Value::Object(values.clone())).map_err(|error| {
            let message =
                format!("the values of the base config `{}` do not describe a service: {error}", base.reference());
            vec![self.error(&["base"], Code::ChartValue, message).help("write another base config")]
        })?;
        let mut problems = Vec::new();
        let mut env = BTreeMap::new();
        for (name, value) in service.env {
            match name.parse::<VariableName>() {
                Ok(_) => {
                    let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
                    env.insert(name, text);
                }
                Err(error) => problems.push(self.bad_value(&["values", "env", &name], &error)),
            }
        }
        env.entry("PORT".to_owned()).or_insert_with(|| service.port.to_string());
        if let Err(error) = service.health.path.parse::<HttpPath>() {
            problems.push(self.bad_value(&["values", "health", "path"], &error));
        }
        let mut take = |key: &str, error: &ValueError| {
            problems.push(self.bad_value(&["values", "resources", key], error));
        };
        let memory = service.resources.memory.as_ref().map(quantity::memory_bytes).transpose();
        let memory_bytes = memory.unwrap_or_else(|error| {
            take("memory", &error);
            None
        });
        let cpus = service.resources.cpus.as_ref().map(quantity::cpu_milli).transpose();
        let cpu_milli = cpus.unwrap_or_else(|error| {
            take("cpus", &error);
            None
        });
        if !problems.is_empty() {
            return Err(problems);
        }
        Ok(DeployPlan {
            port: service.port,
            host: definition.network.host.as_ref().map(ToString::to_string),
            env,
            health_path: service.health.path,
            health_timeout_ms: definition.network.health.timeout.as_millis(),
            replicas: service.replicas,
            memory_bytes,
            cpu_milli,
            command: service.command,
        })
    }
}

/// Values laid over others as Helm does it: mappings are merged, `null` takes a value away, all else replaces.
pub fn merged(defaults: &Map<String, Value>, over: &Map<String, Value>) -> Map<String, Value> {
    let mut values = defaults.clone();
    for (key, value) in over {
        match (values.get_mut(key), value) {
            (_, Value::Null) => {
                values.remove(key);
            }
            (Some(Value::Object(inner)), Value::Object(over)) => {
                *inner = merged(inner, over);
            }
            (_, Value::Object(over)) => {
                // Nothing lies under it; what it takes away is taken away all the same.
                values.insert(key.clone(), Value::Object(merged(&Map::new(), over)));
            }
            _ => {
                values.insert(key.clone(), value.clone());
            }
        }
    }
    values
}

#[cfg(test)]
mod tests {
    use super::*;
    use pipelines::definition::render;

    fn catalog() -> Catalog {
        Catalog::builtin().unwrap()
    }

    fn plan(text: &str) -> DeliveryPlan {
        let text = format!("service: shop\nbase: static-site@1\ntest: {{testers: [qa@example.com]}}\n{text}\n");
        let catalog = catalog();
        let (pipeline, found) = catalog.read(".windlass.yaml", &text);
        assert!(found.is_empty(), "{}", render(&found, &text));
        pipeline.unwrap().plan
    }

    fn problems(text: &str) -> String {
        let text = format!("service: shop\nbase: static-site@1\ntest: {{testers: [qa@example.com]}}\n{text}\n");
        let catalog = catalog();
        let (pipeline, found) = catalog.read(".windlass.yaml", &text);
        assert!(pipeline.is_none());
        render(&found, &text)
    }

    #[test]
    fn the_charts_defaults_hold_where_the_file_says_nothing() {
        let plan = plan("");
        assert_eq!(plan.base, "static-site@1.0.0");
        let deploy = plan.deploy;
        assert_eq!((deploy.port, deploy.health_path.as_str(), deploy.replicas), (8080, "/", 1));
        assert_eq!((deploy.memory_bytes, deploy.cpu_milli), (Some(64 << 20), Some(250)));
        assert_eq!(deploy.health_timeout_ms, 30_000);
        assert_eq!(deploy.env, BTreeMap::from([("PORT".to_owned(), "8080".to_owned())]));
        assert!(deploy.command.is_empty() && deploy.host.is_none());
        assert_eq!(plan.test.testers, ["qa@example.com"]);
    }

    #[test]
    fn the_file_lies_over_the_chart() {
        let deploy = plan(
            "network: {port: 9000, host: shop.example.com, health: {path: /up, timeout: 5s}}\n\
             values:\n  replicas: 3\n  env: {A: 1, B: true, C: text, PORT: \"1\"}\n  command: [httpd, -f]\n  \
             resources: {cpus: 1.5}",
        )
        .deploy;
        assert_eq!((deploy.port, deploy.health_path.as_str(), deploy.health_timeout_ms), (9000, "/up", 5_000));
        assert_eq!(deploy.host.as_deref(), Some("shop.example.com"));
        let env: Vec<(&str, &str)> = deploy.env.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        assert_eq!(env, [("A", "1"), ("B", "true"), ("C", "text"), ("PORT", "1")]);
        assert_eq!((deploy.replicas, deploy.cpu_milli, deploy.memory_bytes), (3, Some(1_500), Some(64 << 20)));
        assert_eq!(deploy.command, ["httpd", "-f"]);
        let without = plan("values: {resources: {memory: null, cpus: null}}").deploy;
        assert_eq!((without.memory_bytes, without.cpu_milli), (None, None));
    }

    #[test]
    fn values_that_the_chart_does_not_take_are_shown_where_they_stand() {
        let shown = problems(
            "values:\n  replica: 2\n  port: \"80\"\n  env: {A: [1]}\n  resources: {memory: lots}\n  windlass: {image: evil}",
        );
        let expected = "\
error[chart-value]: `values.replica` is not a value of the chart
 --> .windlass.yaml:5:3
  |
5 |   replica: 2
  |   ^^^^^^^
  |
  = why: the base config `static-site@1.0.0` says what its values may be
  = help: did you mean `replicas`?
";
        assert!(shown.starts_with(expected), "{shown}");
        for part in [
            "`values.port` must be a whole number",
            "remove the quotes: `80`",
            "`values.env.A` must be",
            "set for each revision",
        ] {
            assert!(shown.contains(part), "{part} is not in\n{shown}");
        }
        let shown = problems("values: {resources: {memory: lots, cpus: many}, env: {a b: 1}}");
        for part in
            ["`lots` is not an amount of memory", "`many` is not an amount of processors", "`a b` is not the name"]
        {
            assert!(shown.contains(part), "{part} is not in\n{shown}");
        }
    }

    #[test]
    fn network_and_values_cannot_contradict_each_other() {
        let shown = problems("network: {port: 80, health: {path: /a}}\nvalues: {port: 81, health: {path: /b}}");
        assert!(shown.contains("`values.port` contradicts"), "{shown}");
        assert!(shown.contains("`values.health.path` contradicts"), "{shown}");
        assert_eq!(plan("network: {port: 80}\nvalues: {port: 80}").deploy.port, 80);
    }

    #[test]
    fn an_unknown_base_is_shown_with_those_that_there_are() {
        let text = "service: shop\nbase: statc-site@1\ntest: {testers: [qa@example.com]}\n";
        let catalog = catalog();
        let (pipeline, found) = catalog.read("f", text);
        assert!(pipeline.is_none());
        let [problem] = found.as_slice() else { panic!("{found:?}") };
        assert_eq!((problem.code, problem.line, problem.column, problem.span_len), (Code::UnknownBase, 2, 7, 12));
        assert_eq!(problem.help.as_deref(), Some("did you mean `static-site`?"));
    }

    #[test]
    fn values_are_merged_as_helm_does_it() {
        let map = |text: &str| serde_json::from_str::<Map<String, Value>>(text).unwrap();
        let defaults = map(r#"{"a": {"b": 1, "c": 2}, "l": [1, 2], "s": 1}"#);
        let over = map(r#"{"a": {"b": null, "d": {"e": null, "f": 1}}, "l": [3], "s": {"t": 1}}"#);
        assert_eq!(merged(&defaults, &over), map(r#"{"a": {"c": 2, "d": {"f": 1}}, "l": [3], "s": {"t": 1}}"#));
    }
}
