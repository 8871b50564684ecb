//! The base configs that are built in: their recipes, their samples, and their charts before Helm itself.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

use charts::base::BaseConfig;
use charts::catalog::Catalog;
use charts::dockerfile::map_base_images;
use charts::ignore::Ignore;
use pipelines::definition::render;

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

fn base<'c>(catalog: &'c Catalog, name: &str) -> &'c BaseConfig {
    catalog.resolve(&name.parse().unwrap()).unwrap()
}

#[test]
fn every_sample_is_a_repository_that_its_base_config_takes() {
    let catalog = Catalog::builtin().unwrap();
    for sample in catalog.bases() {
        let file = text(&sample.sample[".windlass.yaml"]);
        let (pipeline, found) = catalog.read(".windlass.yaml", file);
        assert!(found.is_empty(), "{}:\n{}", sample.name, render(&found, file));
        assert_eq!(pipeline.unwrap().base.reference(), sample.reference());
        let detected = catalog.detect(sample.sample.keys().map(String::as_str));
        assert!(detected.iter().any(|base| base.name == sample.name), "{} does not know its sample", sample.name);
    }
}

#[test]
fn every_example_of_the_documentation_can_be_run() {
    let catalog = Catalog::builtin().unwrap();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/examples");
    let mut count = 0;
    for entry in fs::read_dir(folder).unwrap() {
        let file = fs::read_to_string(entry.unwrap().path()).unwrap();
        let (pipeline, found) = catalog.read(".windlass.yaml", &file);
        assert!(pipeline.is_some(), "{}", render(&found, &file));
        count += 1;
    }
    assert!(count >= 4);
}

#[test]
fn every_image_is_built_on_the_base_image_that_the_chart_names() {
    let catalog = Catalog::builtin().unwrap();
    for base in catalog.bases() {
        let Some(dockerfile) = &base.image.dockerfile else { continue };
        let mapped = map_base_images(dockerfile, &BTreeMap::new(), &[]);
        assert_eq!(mapped.images, [base.image.base_image.clone().unwrap()], "{}", base.name);
        let args = BTreeMap::from([("BASE_IMAGE".to_owned(), "other:1".to_owned())]);
        assert_eq!(map_base_images(dockerfile, &args, &[]).images, ["other:1"], "{}", base.name);
    }
}

#[test]
fn a_static_site_does_not_show_what_is_not_for_visitors() {
    let catalog = Catalog::builtin().unwrap();
    let mut ignore = Ignore::default();
    ignore.add(&base(&catalog, "static-site").image.ignore).unwrap();
    for hidden in
        [".git/config", ".windlass.yaml", "a/.env", ".windlass/shop.yaml", "node_modules/x/y.js", "Dockerfile"]
    {
        assert!(ignore.excludes(hidden), "{hidden} would be served");
    }
    for shown in ["index.html", "a/b.css", ".well-known/security.txt", "healthz"] {
        assert!(!ignore.excludes(shown), "{shown} would not be served");
    }
    let mut own = Ignore::default();
    own.add(&base(&catalog, "dockerfile").image.ignore).unwrap();
    assert!(own.excludes(".git/HEAD") && !own.excludes("Dockerfile") && !own.excludes(".npmrc"));
}

/// `WINDLASS_HELM`, or what `make parts` has built, or the one on PATH.
fn helm() -> PathBuf {
    if let Some(path) = env::var_os("WINDLASS_HELM") {
        return path.into();
    }
    let script = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/parts.sh")).unwrap();
    let version = script.lines().find_map(|line| line.strip_prefix("HELM_VERSION=")).unwrap();
    let parts = env::var_os("WINDLASS_PARTS_DIR").map(PathBuf::from);
    let cache = || env::home_dir().unwrap_or_default().join(".cache/windlass-parts");
    let built = parts.unwrap_or_else(cache).join(format!("helm-{version}/helm"));
    if built.exists() { built } else { "helm".into() }
}

/// Helm is an oracle, never a part: where it is not there, the test says so and nothing is claimed.
#[test]
fn helm_takes_the_charts() {
    let helm = helm();
    if Command::new(&helm).arg("version").output().is_err() {
        assert!(
            env::var("WINDLASS_TEST_REQUIRE").as_deref() != Ok("all"),
            "helm is missing: run `scripts/parts.sh helm`"
        );
        // Not by the macro: the test runner keeps what that prints of a test that passes.
        let skipped = "SKIPPED helm_takes_the_charts: helm is missing: run `scripts/parts.sh helm`\n";
        std::io::stderr().write_all(skipped.as_bytes()).unwrap();
        return;
    }
    let catalog = Catalog::builtin().unwrap();
    for base in catalog.bases() {
        let folder = tempfile::tempdir().unwrap();
        for (path, bytes) in &base.files {
            let path = folder.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, bytes).unwrap();
        }
        let lint = Command::new(&helm).args(["lint", "--strict"]).arg(folder.path()).output().unwrap();
        assert!(lint.status.success(), "{}: {}", base.name, text(&lint.stdout));
        let image = "windlass.image=registry.example.com/shop@sha256:0123";
        let template = Command::new(&helm)
            .args(["template", "shop"])
            .arg(folder.path())
            .args([
                "--set",
                image,
                "--set",
                "env.GREETING=hello",
                "--set",
                "windlass.revision=shop-1-abc",
                "--set",
                "command={a,b}",
            ])
            .output()
            .unwrap();
        assert!(template.status.success(), "{}: {}", base.name, text(&template.stderr));
        let rendered = text(&template.stdout);
        for part in [
            "kind: Deployment",
            "kind: Service\n",
            "kind: ServiceAccount",
            "image: \"registry.example.com/shop@sha256:0123\"",
            "- name: GREETING\n              value: \"hello\"",
            "- name: PORT\n              value: \"8080\"",
            "rev: \"shop-1-abc\"",
            "command:\n            - a\n            - b",
        ] {
            assert!(rendered.contains(part), "{}: {part:?} is not in\n{rendered}", base.name);
        }
        // Our reading of the schema and Helm's agree on what they refuse.
        for bad in ["replica=2", "replicas=0", "port=text"] {
            let refused = Command::new(&helm)
                .args(["template", "shop"])
                .arg(folder.path())
                .args(["--set", bad])
                .output()
                .unwrap();
            assert!(!refused.status.success(), "{}: helm takes {bad}", base.name);
            let (key, value) = bad.split_once('=').unwrap();
            let file = format!(
                "service: shop\nbase: {}\ntest: {{testers: a@b.c}}\nvalues: {{{key}: {value}}}\n",
                base.reference()
            );
            assert!(catalog.read("f", &file).0.is_none(), "{}: we take {bad}", base.name);
        }
    }
}
