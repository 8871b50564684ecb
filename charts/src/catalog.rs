//! Which base configs there are: those built into the program, and those of a folder. What one of them says is in `base`.

mod builtin;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use pipelines::definition::{BaseRef, nearest, quote};

use crate::base::{BaseConfig, Files, Kind};

/// What a folder of base configs may take at most.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Base configs in the folder.
    pub bases_max: usize,
    /// Files of one base config.
    pub files_max: usize,
    /// Size of one file, in bytes.
    pub file_max_bytes: u64,
    /// Folders inside of folders.
    pub depth_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits { bases_max: 500, files_max: 500, file_max_bytes: 1024 * 1024, depth_max: 8 }
    }
}

/// Why a catalog cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CatalogError {
    /// The folder or a file in it cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// Which one.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A folder is larger than is allowed.
    #[error("{}: {what} is more than the {max} that are allowed", path.display())]
    TooLarge {
        /// Which one.
        path: PathBuf,
        /// What there is too much of.
        what: &'static str,
        /// The limit.
        max: u64,
    },
    /// Something that is neither a file nor a folder, or whose name is no text.
    #[error("{} is neither a plain file nor a folder with a plain name", path.display())]
    NotPlain {
        /// Which one.
        path: PathBuf,
    },
    /// A base config whose files do not make one.
    #[error("base config {origin}: {file} {reason}")]
    Invalid {
        /// Where the base config comes from.
        origin: String,
        /// The file.
        file: String,
        /// What is wrong with it.
        reason: String,
    },
    /// One name and version, two contents.
    #[error("two different base configs are called {reference}")]
    Twice {
        /// Name and version.
        reference: String,
    },
}

/// No base config for what a pipeline file asks for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct UnknownBase {
    message: String,
    help: String,
}

impl UnknownBase {
    /// What to write instead.
    pub fn help(&self) -> &str {
        &self.help
    }
}

/// The base configs that services can be built on.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Catalog {
    /// Sorted by name, and the newest version first.
    bases: Vec<BaseConfig>,
}

impl Catalog {
    /// Those built into the program.
    ///
    /// # Errors
    /// Where one of them is broken, which its tests rule out.
    pub fn builtin() -> Result<Self, CatalogError> {
        let mut catalog = Catalog::default();
        for (folder, files) in builtin::BASES {
            let files: Files = files.iter().map(|(path, bytes)| ((*path).to_owned(), bytes.to_vec())).collect();
            catalog.add(BaseConfig::from_files(folder, files)?)?;
        }
        Ok(catalog)
    }

    /// Those of a folder: each in a folder of its own, whatever that is called.
    ///
    /// # Errors
    /// Where a file cannot be read, is past a limit, or a base config is broken. Symbolic links are refused, so that a
    /// catalog cannot read what lies beside it.
    pub fn load(folder: &Path, limits: &Limits) -> Result<Self, CatalogError> {
        let mut catalog = Catalog::default();
        for entry in entries(folder)? {
            let kind = entry.file_type().map_err(|source| CatalogError::Read { path: entry.path(), source })?;
            if kind.is_file() {
                // A README and the like.
                continue;
            }
            if !kind.is_dir() {
                return Err(CatalogError::NotPlain { path: entry.path() });
            }
            if catalog.bases.len() == limits.bases_max {
                let (path, max) = (folder.to_owned(), limits.bases_max as u64);
                return Err(CatalogError::TooLarge { path, what: "the number of base configs", max });
            }
            let mut files = Files::new();
            read_folder(&entry.path(), "", limits, 0, &mut files)?;
            let origin = entry.path().display().to_string();
            catalog.add(BaseConfig::from_files(&origin, files)?)?;
        }
        Ok(catalog)
    }

    /// Takes in another catalog.
    ///
    /// # Errors
    /// Where both have one name and version with different contents: which one a service was built on could not be told.
    pub fn extend(&mut self, other: Catalog) -> Result<(), CatalogError> {
        other.bases.into_iter().try_for_each(|base| self.add(base))
    }

    fn add(&mut self, base: BaseConfig) -> Result<(), CatalogError> {
        let same = self.bases.iter().find(|known| known.name == base.name && known.version == base.version);
        match same {
            Some(known) if known.digest == base.digest => Ok(()),
            Some(_) => Err(CatalogError::Twice { reference: base.reference() }),
            None => {
                self.bases.push(base);
                self.bases.sort_by(|a, b| a.name.cmp(&b.name).then(b.version.cmp(&a.version)));
                Ok(())
            }
        }
    }

    /// All of them, by name, and the newest version first.
    pub fn bases(&self) -> &[BaseConfig] {
        &self.bases
    }

    /// The newest version that a pipeline file's `base` accepts.
    ///
    /// # Errors
    /// Where there is none; the error says which ones there are.
    pub fn resolve(&self, wanted: &BaseRef) -> Result<&BaseConfig, UnknownBase> {
        let services = || self.bases.iter().filter(|base| base.kind == Kind::Base);
        let named = || services().filter(|base| base.name == wanted.name());
        if let Some(base) = named().find(|base| wanted.accepts(base.version)) {
            return Ok(base);
        }
        let list = |bases: Vec<String>| bases.iter().map(|base| quote(base)).collect::<Vec<_>>().join(", ");
        if named().next().is_some() {
            let there = list(named().map(BaseConfig::reference).collect());
            return Err(UnknownBase {
                message: format!(
                    "the catalog has no version of {} that fits {}",
                    quote(wanted.name()),
                    quote(&wanted.to_string())
                ),
                help: format!("the catalog has {there}"),
            });
        }
        let help = match nearest(wanted.name(), services().map(|base| base.name.as_str())) {
            Some(meant) => format!("did you mean `{meant}`?"),
            None => format!("the catalog has {}", list(services().map(BaseConfig::reference).collect())),
        };
        Err(UnknownBase { message: format!("the catalog has no base config {}", quote(wanted.name())), help })
    }

    /// The base configs that a repository with these paths is probably of, the newest version of each.
    pub fn detect<'l>(&self, listing: impl IntoIterator<Item = &'l str>) -> Vec<&BaseConfig> {
        let mut found: Vec<&BaseConfig> = Vec::new();
        for path in listing {
            for base in self.bases.iter().filter(|base| base.detect.iter().any(|file| file == path)) {
                if !found.iter().any(|known| known.name == base.name) {
                    found.push(base);
                }
            }
        }
        found.sort_by(|a, b| a.name.cmp(&b.name));
        found
    }
}

fn entries(folder: &Path) -> Result<Vec<fs::DirEntry>, CatalogError> {
    let failed = |source| CatalogError::Read { path: folder.to_owned(), source };
    let mut entries = fs::read_dir(folder).map_err(failed)?.collect::<Result<Vec<_>, _>>().map_err(failed)?;
    entries.sort_by_key(fs::DirEntry::file_name);
    Ok(entries)
}

fn read_folder(
    folder: &Path,
    prefix: &str,
    limits: &Limits,
    depth: usize,
    files: &mut Files,
) -> Result<(), CatalogError> {
    let too_large = |path: &Path, what, max| CatalogError::TooLarge { path: path.to_owned(), what, max };
    if depth > limits.depth_max {
        return Err(too_large(folder, "the depth of its folders", limits.depth_max as u64));
    }
    for entry in entries(folder)? {
        let path = entry.path();
        let read = |source| CatalogError::Read { path: path.clone(), source };
        let name = entry.file_name().into_string().map_err(|_| CatalogError::NotPlain { path: path.clone() })?;
        let inner = format!("{prefix}{name}");
        // Of the entry itself: a link is not followed.
        let kind = entry.file_type().map_err(read)?;
        if kind.is_dir() {
            read_folder(&path, &format!("{inner}/"), limits, depth + 1, files)?;
            continue;
        }
        if !kind.is_file() {
            return Err(CatalogError::NotPlain { path });
        }
        if entry.metadata().map_err(read)?.len() > limits.file_max_bytes {
            return Err(too_large(&path, "its size in bytes", limits.file_max_bytes));
        }
        if files.len() == limits.files_max {
            return Err(too_large(folder, "the number of files", limits.files_max as u64));
        }
        files.insert(inner, fs::read(&path).map_err(read)?);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn on_disk() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("catalog")
    }

    #[test]
    fn what_is_built_in_is_what_lies_in_the_folder() {
        let builtin = Catalog::builtin().unwrap();
        let loaded = Catalog::load(&on_disk(), &Limits::default()).unwrap();
        assert_eq!(builtin, loaded, "a file is missing in catalog/builtin.rs");
        let names: Vec<&str> = builtin.bases().iter().map(|base| base.name.as_str()).collect();
        assert_eq!(names, ["dockerfile", "static-site"]);
    }

    #[test]
    fn the_newest_version_that_fits_is_taken() {
        let mut catalog = Catalog::builtin().unwrap();
        let site = catalog.resolve(&"static-site".parse().unwrap()).unwrap().clone();
        for version in ["1.4.0", "1.10.2", "2.0.0"] {
            let newer = BaseConfig { version: version.parse().unwrap(), ..site.clone() };
            catalog.add(newer).unwrap();
        }
        let version = |text: &str| catalog.resolve(&text.parse().unwrap()).map(|base| base.version.to_string());
        assert_eq!(version("static-site@1").as_deref(), Ok("1.10.2"));
        assert_eq!(version("static-site@1.4").as_deref(), Ok("1.4.0"));
        assert_eq!(version("static-site@1.0.0").as_deref(), Ok("1.0.0"));
        assert_eq!(version("static-site").as_deref(), Ok("2.0.0"));
        let missing = catalog.resolve(&"static-site@3".parse().unwrap()).unwrap_err();
        assert!(missing.help().contains("`static-site@2.0.0`"), "{missing:?}");
        let typo = catalog.resolve(&"statc-site@1".parse().unwrap()).unwrap_err();
        assert_eq!(typo.help(), "did you mean `static-site`?");
        let other = catalog.resolve(&"java@1".parse().unwrap()).unwrap_err();
        assert!(other.help().contains("`dockerfile@1.0.0`"), "{other:?}");
    }

    #[test]
    fn only_what_services_are_built_on_is_found_as_a_base() {
        let mut catalog = Catalog::builtin().unwrap();
        for base in &mut catalog.bases {
            base.kind = Kind::Middleware;
        }
        assert!(catalog.resolve(&"static-site@1".parse().unwrap()).is_err());
    }

    #[test]
    fn one_version_cannot_have_two_contents() {
        let mut catalog = Catalog::builtin().unwrap();
        catalog.extend(Catalog::builtin().unwrap()).unwrap();
        assert_eq!(catalog.bases().len(), 2);
        let mut other = Catalog::builtin().unwrap();
        other.bases[0].digest = pipelines::ids::Digest::of(b"other");
        let error = catalog.extend(other).unwrap_err();
        assert_eq!(error.to_string(), "two different base configs are called dockerfile@1.0.0");
    }

    #[test]
    fn a_repository_tells_what_it_is_by_its_files() {
        let catalog = Catalog::builtin().unwrap();
        let names = |listing: &[&str]| -> Vec<String> {
            catalog.detect(listing.iter().copied()).iter().map(|base| base.name.clone()).collect()
        };
        assert_eq!(names(&["index.html", "a.css"]), ["static-site"]);
        assert_eq!(names(&["index.html", "Dockerfile"]), ["dockerfile", "static-site"]);
        assert!(names(&["src/Dockerfile"]).is_empty());
    }

    #[test]
    fn a_folder_cannot_lead_out_of_itself_or_grow_without_end() {
        let folder = tempfile::tempdir().unwrap();
        let base = folder.path().join("mine");
        fs::create_dir(&base).unwrap();
        for (path, bytes) in &Catalog::builtin().unwrap().bases()[1].files {
            let path = base.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, bytes).unwrap();
        }
        fs::write(folder.path().join("README.md"), "x").unwrap();
        assert_eq!(Catalog::load(folder.path(), &Limits::default()).unwrap().bases().len(), 1);
        let small = Limits { file_max_bytes: 10, ..Limits::default() };
        assert!(matches!(Catalog::load(folder.path(), &small), Err(CatalogError::TooLarge { .. })));
        let few = Limits { files_max: 3, ..Limits::default() };
        assert!(matches!(Catalog::load(folder.path(), &few), Err(CatalogError::TooLarge { .. })));
        std::os::unix::fs::symlink("/etc/hostname", base.join("templates/link")).unwrap();
        assert!(matches!(Catalog::load(folder.path(), &Limits::default()), Err(CatalogError::NotPlain { .. })));
        let nowhere = Catalog::load(&folder.path().join("nowhere"), &Limits::default());
        assert!(matches!(nowhere, Err(CatalogError::Read { .. })));
    }
}
