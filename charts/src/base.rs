//! One base config: its files, and what is read out of them. Which ones there are is the catalog's.

use std::collections::BTreeMap;

use pipelines::definition::{Version, quote};
use pipelines::ids::Digest;
use serde::Deserialize;
use serde_json::{Map, Value};
use sha2::Digest as _;

use crate::catalog::CatalogError;
use crate::schema::Schema;

/// Paths inside a base config, with forward slashes, and their bytes.
pub type Files = BTreeMap<String, Vec<u8>>;

/// The folder of a base config that holds an example of a repository; it is no part of the chart and of its digest.
const SAMPLE: &str = "sample/";

/// What a base config is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// A service of the users' own code.
    Base,
    /// Something that services use, such as a database.
    Middleware,
    /// A part of the platform.
    Platform,
}

/// How the image of a service is built.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageRecipe {
    /// The Dockerfile; none where the repository's own is used.
    pub dockerfile: Option<String>,
    /// What is left out of the build context, in the format of a `.dockerignore`; the repository's own comes after it.
    pub ignore: String,
    /// The image that it is built on, before any mirror; none where the repository's Dockerfile says it.
    pub base_image: Option<String>,
}

/// One base config at one version.
#[derive(Debug, Clone, PartialEq)]
pub struct BaseConfig {
    /// The name, as pipeline files write it before the `@`.
    pub name: String,
    /// The version of the chart.
    pub version: Version,
    /// Over all files that count (all but the sample), so that two base configs of one digest do the same.
    pub digest: Digest,
    /// What it is for.
    pub kind: Kind,
    /// One sentence for people.
    pub description: String,
    /// Files that tell that a repository is probably of this kind.
    pub detect: Vec<String>,
    /// How the image is built.
    pub image: ImageRecipe,
    /// The chart's default values.
    pub values: Map<String, Value>,
    /// What values may be.
    pub schema: Schema,
    /// All files of the chart.
    pub files: Files,
    /// An example of a repository.
    pub sample: Files,
}

/// What is read of `Chart.yaml`.
#[derive(Deserialize)]
struct Chart {
    #[serde(rename = "apiVersion")]
    api_version: String,
    name: String,
    version: String,
    #[serde(default)]
    description: String,
    #[serde(default)]
    annotations: BTreeMap<String, String>,
}

impl BaseConfig {
    /// Reads a base config out of its files. `origin` is where they come from, for errors.
    ///
    /// # Errors
    /// Where a file is missing, is not readable, or contradicts another.
    pub fn from_files(origin: &str, mut files: Files) -> Result<Self, CatalogError> {
        let invalid = |file: &str, reason: String| CatalogError::Invalid {
            origin: origin.to_owned(),
            file: file.to_owned(),
            reason,
        };
        let sample_paths: Vec<String> = files.keys().filter(|path| path.starts_with(SAMPLE)).cloned().collect();
        let mut sample = Files::new();
        for path in sample_paths {
            if let Some(bytes) = files.remove(&path) {
                sample.insert(path[SAMPLE.len()..].to_owned(), bytes);
            }
        }
        let text = |path: &str| -> Result<Option<&str>, CatalogError> {
            let Some(bytes) = files.get(path) else { return Ok(None) };
            std::str::from_utf8(bytes).map(Some).map_err(|_| invalid(path, "is not UTF-8 text".to_owned()))
        };
        let required = |path: &str| text(path)?.ok_or_else(|| invalid(path, "is missing".to_owned()));

        let chart: Chart = serde_saphyr::from_str(required("Chart.yaml")?)
            .map_err(|error| invalid("Chart.yaml", error.to_string()))?;
        if chart.api_version != "v2" {
            return Err(invalid("Chart.yaml", format!("has apiVersion {}, not `v2`", quote(&chart.api_version))));
        }
        if chart.name.parse::<pipelines::definition::BaseRef>().is_err() || chart.name.contains('@') {
            return Err(invalid("Chart.yaml", format!("has a bad name: {}", quote(&chart.name))));
        }
        let version = chart
            .version
            .parse::<Version>()
            .map_err(|error| invalid("Chart.yaml", format!("has a bad version: {error}")))?;
        let kind = match chart.annotations.get("windlass/kind").map(String::as_str) {
            Some("base") => Kind::Base,
            Some("middleware") => Kind::Middleware,
            Some("platform") => Kind::Platform,
            other => {
                let found = other.map_or("nothing".to_owned(), quote);
                return Err(invalid(
                    "Chart.yaml",
                    format!("has the annotation `windlass/kind` {found}, not `base`, `middleware` or `platform`"),
                ));
            }
        };
        let detect = chart.annotations.get("windlass/detect").map(String::as_str).unwrap_or_default();
        let detect = detect.split(',').map(str::trim).filter(|path| !path.is_empty()).map(str::to_owned).collect();

        let values: Value = serde_saphyr::from_str(required("values.yaml")?)
            .map_err(|error| invalid("values.yaml", error.to_string()))?;
        let Value::Object(values) = values else {
            return Err(invalid("values.yaml", "is no mapping".to_owned()));
        };
        let schema: Value = serde_json::from_str(required("values.schema.json")?)
            .map_err(|error| invalid("values.schema.json", error.to_string()))?;
        let schema = Schema::new(schema).map_err(|reason| invalid("values.schema.json", reason))?;
        if let Some(problem) = schema.check(&Value::Object(values.clone())).into_iter().next() {
            let path = problem.path.join(".");
            return Err(invalid("values.yaml", format!("does not fit its own schema: `{path}` {}", problem.message)));
        }

        let image = ImageRecipe {
            dockerfile: text("image/Dockerfile")?.map(str::to_owned),
            ignore: text("image/.dockerignore")?.unwrap_or_default().to_owned(),
            base_image: chart.annotations.get("windlass/base-image").cloned(),
        };
        if image.dockerfile.is_some() != image.base_image.is_some() {
            return Err(invalid(
                "Chart.yaml",
                "must name `windlass/base-image` exactly where there is an image/Dockerfile".to_owned(),
            ));
        }
        let digest = digest(&files);
        Ok(BaseConfig {
            name: chart.name,
            version,
            digest,
            kind,
            description: chart.description,
            detect,
            image,
            values,
            schema,
            files,
            sample,
        })
    }

    /// Name and version, as in `static-site@1.0.0`.
    pub fn reference(&self) -> String {
        format!("{}@{}", self.name, self.version)
    }
}

/// SHA-256 over the sorted files: for each the length of its path, the path, the length of its bytes, the bytes; lengths
/// as 8 bytes, the most significant first, so that no two sets of files run together.
fn digest(files: &Files) -> Digest {
    let mut all = Vec::new();
    for (path, bytes) in files {
        for part in [path.as_bytes(), bytes.as_slice()] {
            all.extend((part.len() as u64).to_be_bytes());
            all.extend(sha2::Sha256::digest(part));
        }
    }
    Digest::of(&all)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::Catalog;

    fn files() -> Files {
        let catalog = Catalog::builtin().unwrap();
        let mut files = catalog.resolve(&"static-site".parse().unwrap()).unwrap().files.clone();
        files.insert("sample/a".to_owned(), b"x".to_vec());
        files
    }

    fn with(path: &str, text: &str) -> Result<BaseConfig, String> {
        let mut files = files();
        files.insert(path.to_owned(), text.as_bytes().to_vec());
        BaseConfig::from_files("here", files).map_err(|error| error.to_string())
    }

    #[test]
    fn every_file_but_the_sample_counts_in_the_digest() {
        let base = BaseConfig::from_files("here", files()).unwrap();
        assert_eq!(base.sample.keys().collect::<Vec<_>>(), ["a"]);
        assert_eq!(with("sample/a", "y").unwrap().digest, base.digest);
        assert_ne!(with("image/Dockerfile", "FROM scratch\n").unwrap().digest, base.digest);
        assert_ne!(with("templates/new.yaml", "").unwrap().digest, base.digest);
        // A byte that moves from one file's name to its text is another set of files.
        let one: Files = [("ab".to_owned(), b"c".to_vec())].into();
        let two: Files = [("a".to_owned(), b"bc".to_vec())].into();
        assert_ne!(digest(&one), digest(&two));
    }

    #[test]
    fn a_broken_base_config_says_which_file_and_why() {
        let mut missing = files();
        missing.remove("values.yaml");
        let error = BaseConfig::from_files("here", missing).unwrap_err().to_string();
        assert_eq!(error, "base config here: values.yaml is missing");
        for (path, text, part) in [
            ("Chart.yaml", "apiVersion: v1\nname: a\nversion: 1.0.0\n", "apiVersion"),
            ("Chart.yaml", "apiVersion: v2\nname: ../a\nversion: 1.0.0\n", "bad name"),
            ("Chart.yaml", "apiVersion: v2\nname: a\nversion: one\n", "bad version"),
            ("Chart.yaml", "apiVersion: v2\nname: a\nversion: 1.0.0\n", "windlass/kind"),
            (
                "Chart.yaml",
                "apiVersion: v2\nname: a\nversion: 1.0.0\nannotations: {windlass/kind: base}\n",
                "windlass/base-image",
            ),
            ("Chart.yaml", "{", "Chart.yaml"),
            ("values.yaml", "- a", "no mapping"),
            ("values.yaml", "replicas: many\n", "replicas"),
            ("values.schema.json", "{", "values.schema.json"),
            ("values.schema.json", r#"{"patternProperties": {}}"#, "patternProperties"),
        ] {
            let error = with(path, text).unwrap_err();
            assert!(error.contains(part) && error.starts_with("base config here: "), "{error}");
        }
    }
}
