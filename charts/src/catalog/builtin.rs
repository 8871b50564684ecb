//! The base configs built into the program. A test holds this list to the folder.

type Embedded = &'static [(&'static str, &'static [u8])];

/// The files of a folder of the catalog, by their paths in it.
macro_rules! embed {
    ($folder:literal, [$($path:literal),* $(,)?]) => {
        ($folder, &[$(($path, include_bytes!(concat!("../../catalog/", $folder, "/", $path)))),*])
    };
}

pub(super) const BASES: &[(&str, Embedded)] = &[
    embed!(
        "dockerfile",
        [
            ".helmignore",
            "Chart.yaml",
            "image/.dockerignore",
            "sample/.windlass.yaml",
            "sample/Dockerfile",
            "sample/app.sh",
            "sample/healthz",
            "sample/version",
            "templates/_helpers.tpl",
            "templates/deployment.yaml",
            "templates/service.yaml",
            "templates/serviceaccount.yaml",
            "values.schema.json",
            "values.yaml",
        ]
    ),
    embed!(
        "static-site",
        [
            ".helmignore",
            "Chart.yaml",
            "image/.dockerignore",
            "image/Dockerfile",
            "sample/.windlass.yaml",
            "sample/healthz",
            "sample/index.html",
            "sample/style.css",
            "sample/version",
            "templates/_helpers.tpl",
            "templates/deployment.yaml",
            "templates/service.yaml",
            "templates/serviceaccount.yaml",
            "values.schema.json",
            "values.yaml",
        ]
    ),
];
