//! `windlass catalog`: the base configs that a service can be built on, from this program and a folder.

use std::path::{Path, PathBuf};

use charts::{
    base::{BaseConfig, Kind},
    catalog::{Catalog, Limits},
};
use serde_json::{Value, json};

use super::{
    Context,
    exit::Exit,
    failure::Failure,
    output::{Paint, fields, table},
};

/// Show the base configs that a service can be built on
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// A folder of base configs besides the built-in ones
    #[arg(long, value_name = "FOLDER", global = true)]
    catalog: Option<PathBuf>,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// List them
    List,
    /// Show one: what it builds, its values and a sample pipeline file
    Show {
        /// Its name, with or without a version: `static-site@1`
        base: String,
    },
}

/// The built-in catalog, and the one of a folder.
pub(crate) fn load(folder: Option<&Path>) -> Result<Catalog, Failure> {
    let failed = |error: charts::catalog::CatalogError| Failure::usage("cannot read the catalog").because(&error);
    let mut catalog = Catalog::builtin().map_err(failed)?;
    if let Some(folder) = folder {
        catalog.extend(Catalog::load(folder, &Limits::default()).map_err(failed)?).map_err(failed)?;
    }
    Ok(catalog)
}

/// Lists or shows.
pub(crate) fn run(context: &Context, arguments: &Arguments) -> Result<Exit, Failure> {
    let catalog = load(arguments.catalog.as_deref())?;
    match &arguments.verb {
        Verb::List => {
            let items: Vec<Value> = catalog.bases().iter().map(summary).collect();
            let items = json!({ "items": items });
            context.out.result("BaseConfigList", &items, |paint| list(paint, catalog.bases()))?;
        }
        Verb::Show { base } => {
            let base = find(&catalog, base)?;
            let mut whole = summary(base);
            whole["values"] = Value::Object(base.values.clone());
            whole["schema"] = schema(base);
            whole["sample"] = sample(base).into();
            context.out.result("BaseConfig", &whole, |paint| show(paint, base))?;
        }
    }
    Ok(Exit::Ok)
}

fn find<'c>(catalog: &'c Catalog, wanted: &str) -> Result<&'c BaseConfig, Failure> {
    let named = |base: &&BaseConfig| base.reference() == wanted || base.name == wanted;
    if let Some(base) = catalog.bases().iter().find(named) {
        return Ok(base);
    }
    let missing = |why: String, next: String| {
        Failure::new(Exit::NotFound, format!("cannot show {wanted}")).why(why).next(next).next("windlass catalog list")
    };
    let reference: pipelines::definition::BaseRef =
        wanted.parse().map_err(|error| missing(format!("{error}"), "windlass catalog show static-site@1".into()))?;
    catalog.resolve(&reference).map_err(|error| missing(error.to_string(), error.help().to_owned()))
}

fn kind(base: &BaseConfig) -> &'static str {
    match base.kind {
        Kind::Base => "base",
        Kind::Middleware => "middleware",
        Kind::Platform => "platform",
    }
}

fn summary(base: &BaseConfig) -> Value {
    json!({
        "reference": base.reference(),
        "name": base.name,
        "version": base.version.to_string(),
        "digest": base.digest,
        "kind": kind(base),
        "description": base.description,
        "detect": base.detect,
        "base_image": base.image.base_image,
        "own_dockerfile": base.image.dockerfile.is_none(),
    })
}

fn list(paint: Paint, bases: &[BaseConfig]) -> String {
    let row = |base: &BaseConfig| vec![base.reference(), kind(base).to_owned(), base.description.clone()];
    table(paint, &["BASE", "KIND", "WHAT IT IS"], &bases.iter().map(row).collect::<Vec<_>>())
}

fn show(paint: Paint, base: &BaseConfig) -> String {
    let dockerfile = match &base.image.dockerfile {
        Some(_) => "of the base config".to_owned(),
        None => "the repository's own".to_owned(),
    };
    let mut text = fields(
        paint,
        &[
            ("base", paint.bold(&base.reference())),
            ("kind", kind(base).to_owned()),
            ("what", base.description.clone()),
            ("digest", base.digest.to_string()),
            ("image from", base.image.base_image.clone().unwrap_or_default()),
            ("Dockerfile", dockerfile),
            ("detected by", base.detect.join(", ")),
        ],
    );
    let values = serde_json::to_string_pretty(&base.values).unwrap_or_default();
    text.push_str(&format!("\n{}\n{values}\n", paint.bold("values")));
    let sample = sample(base);
    if !sample.is_empty() {
        text.push_str(&format!("\n{}\n{sample}", paint.bold(".windlass.yaml of the sample")));
    }
    text
}

fn schema(base: &BaseConfig) -> Value {
    let bytes = base.files.get("values.schema.json");
    bytes.and_then(|bytes| serde_json::from_slice(bytes).ok()).unwrap_or(Value::Null)
}

fn sample(base: &BaseConfig) -> String {
    let bytes = base.sample.get(".windlass.yaml");
    bytes.map(|bytes| String::from_utf8_lossy(bytes).into_owned()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_base_config_is_found_by_name_and_by_version() {
        let catalog = load(None).unwrap();
        for wanted in ["static-site", "static-site@1"] {
            assert_eq!(find(&catalog, wanted).unwrap().name, "static-site");
        }
        let failure = find(&catalog, "static-sit@1").unwrap_err();
        assert_eq!(failure.exit, Exit::NotFound);
        assert!(failure.next[0].contains("static-site"), "{failure:?}");
    }

    #[test]
    fn what_is_shown_has_a_sample_and_the_schema_of_its_values() {
        let catalog = load(None).unwrap();
        let base = find(&catalog, "static-site").unwrap();
        assert!(sample(base).contains("base: static-site@1"));
        assert!(schema(base).is_object());
        assert!(list(Paint::OFF, catalog.bases()).contains("dockerfile@1"));
    }
}
