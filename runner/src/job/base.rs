//! The pipeline file and the base config of a run, read together: how the image is built, and what delivering needs.

use std::collections::BTreeMap;

use charts::catalog::Catalog;
use charts::delivery::Pipeline;
use pipelines::definition::{Code, Definition, Diagnostic, parse_bytes, place_of, render};
use pipelines::ids::{Digest, ServiceName};
use pipelines::plan::DeliveryPlan;

/// What the stations need of the base config.
#[derive(Debug, Clone)]
pub(super) struct Base {
    /// Name and version.
    pub(super) label: String,
    /// Over all its files.
    pub(super) digest: Digest,
    /// Its Dockerfile; none where the repository's own is used.
    pub(super) dockerfile: Option<String>,
    /// What is left out of the build context.
    pub(super) ignore: String,
    /// All that delivering the image needs.
    pub(super) plan: DeliveryPlan,
}

/// Reads the pipeline file of a service. The text is what the problems look like to a person: with a definition they are
/// warnings, without one they say what stops it.
pub(super) fn read(
    catalog: &Catalog,
    service: &ServiceName,
    path: &str,
    bytes: &[u8],
) -> (Option<(Definition, Base)>, Vec<Diagnostic>, String) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        let (_, found) = parse_bytes(path, bytes);
        let rendered = render(&found, "");
        return (None, found, rendered);
    };
    let (pipeline, mut found) = catalog.read(path, text);
    let pipeline = match pipeline {
        Some(pipeline) if pipeline.definition.service != *service => {
            found.push(wrong_service(&pipeline.definition, service, path, text));
            None
        }
        other => other,
    };
    let rendered = render(&found, text);
    (pipeline.map(taken), found, rendered)
}

fn taken(pipeline: Pipeline<'_>) -> (Definition, Base) {
    let Pipeline { definition, base, plan, .. } = pipeline;
    let base = Base {
        label: base.reference(),
        digest: base.digest.clone(),
        dockerfile: base.image.dockerfile.clone(),
        ignore: base.image.ignore.clone(),
        plan,
    };
    (definition, base)
}

/// Build arguments.
pub(super) fn args(definition: &Definition) -> BTreeMap<String, String> {
    definition.image.args.iter().map(|(name, value)| (name.to_string(), value.clone())).collect()
}

/// A file that was written for another service.
fn wrong_service(definition: &Definition, expected: &ServiceName, path: &str, text: &str) -> Diagnostic {
    let message = format!("the file is for the service `{}`, this one is `{expected}`", definition.service);
    Diagnostic::error(Code::NoFile, place_of(text, &["service"]), message)
        .help(format!("write `service: {expected}`, or add a file `.windlass/{expected}.yaml`"))
        .in_file(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "service: shop\nbase: static-site@1\ntest: {testers: [a@example.com]}\n";

    fn read_as(service: &str, bytes: &[u8]) -> (Option<(Definition, Base)>, String) {
        let catalog = Catalog::builtin().expect("a catalog");
        let (read, _, rendered) = read(&catalog, &service.parse().expect("a name"), ".windlass.yaml", bytes);
        (read, rendered)
    }

    #[test]
    fn a_good_file_gives_a_plan_and_a_bad_one_says_why() {
        let (read, _) = read_as("shop", FILE.as_bytes());
        let (_, base) = read.expect("a good file");
        assert!(base.dockerfile.is_some() && base.label.starts_with("static-site@1."));
        for (service, bytes, word) in [
            ("other", FILE.as_bytes(), "this one is `other`"),
            ("shop", b"service: shop\nbase: nope@1\n", "nope"),
            ("shop", b"service: \xff", "UTF-8"),
        ] {
            let (read, rendered) = read_as(service, bytes);
            assert!(read.is_none() && rendered.contains(word), "{rendered}");
        }
    }
}
