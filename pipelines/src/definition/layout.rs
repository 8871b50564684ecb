//! Which file of a repository is whose: `.windlass.yaml` for one service, `.windlass/<service>.yaml` for several.

use super::diagnostic::{Code, Diagnostic, Place};
use super::value::{nearest, quote};
use crate::ids::ServiceName;
use crate::protocol::PIPELINE_FILE;

/// The folder of the pipeline files where a repository holds several services.
pub const PIPELINE_FOLDER: &str = ".windlass";

/// The service that a file of the folder is for; none for any other path.
pub(super) fn service_of(path: &str) -> Option<&str> {
    let name = path.strip_prefix(PIPELINE_FOLDER)?.strip_prefix('/')?.strip_suffix(".yaml")?;
    (!name.contains('/')).then_some(name)
}

/// The paths at which the pipeline file of a service may stand, the first that exists counts.
pub fn candidates(service: &ServiceName) -> [String; 2] {
    [format!("{PIPELINE_FOLDER}/{service}.yaml"), PIPELINE_FILE.to_owned()]
}

/// The pipeline file of a service among the paths of a commit: the one of its name in `.windlass/`, else `.windlass.yaml`.
///
/// # Errors
/// Where there is none: a diagnostic that names what looks like one.
pub fn file_for<'l>(
    service: &ServiceName,
    listing: impl IntoIterator<Item = &'l str>,
) -> Result<String, Box<Diagnostic>> {
    let wanted = candidates(service);
    let mut found = [false; 2];
    let mut near: Option<&str> = None;
    let mut others: Vec<&str> = Vec::new();
    for path in listing {
        if let Some(index) = wanted.iter().position(|candidate| candidate == path) {
            found[index] = true;
        } else if let Some(other) = service_of(path) {
            others.push(other);
        } else if is_near(path, service) {
            near.get_or_insert(path);
        }
    }
    let [own, only] = wanted;
    match found {
        [true, _] => return Ok(own),
        [false, true] => return Ok(only),
        [false, false] => {}
    }
    let message = format!("the commit has no pipeline file for the service {}", quote(service.as_str()));
    let help = if let Some(near) = near {
        format!("rename {} to `{only}`", quote(near))
    } else if let Some(other) = nearest(service.as_str(), others.iter().copied()) {
        format!("rename `.windlass/{other}.yaml` to `{own}`, or register the service as `{other}`")
    } else if others.is_empty() {
        format!("add a file `{only}`")
    } else {
        format!("add a file `{own}`, beside those of the other services")
    };
    Err(Box::new(Diagnostic::error(Code::NoFile, Place::default(), message).help(help).in_file(only)))
}

/// Names that people give the file by mistake.
fn is_near(path: &str, service: &ServiceName) -> bool {
    let stem = path.strip_suffix(".yml").or_else(|| path.strip_suffix(".yaml"));
    stem.is_some_and(|stem| {
        matches!(stem, ".windlass" | "windlass" | ".windlass/windlass")
            || stem.strip_prefix(".windlass/") == Some(service.as_str())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(listing: &[&str]) -> Result<String, String> {
        let service: ServiceName = "checkout".parse().unwrap();
        file_for(&service, listing.iter().copied()).map_err(|d| d.help.unwrap_or_default())
    }

    #[test]
    fn the_services_own_file_comes_first() {
        assert_eq!(file(&["a", ".windlass.yaml"]), Ok(".windlass.yaml".to_owned()));
        assert_eq!(file(&[".windlass.yaml", ".windlass/checkout.yaml"]), Ok(".windlass/checkout.yaml".to_owned()));
        assert_eq!(file(&[".windlass.yaml", ".windlass/other.yaml"]), Ok(".windlass.yaml".to_owned()));
    }

    #[test]
    fn a_missing_file_says_what_to_do() {
        assert_eq!(file(&["src/.windlass.yaml"]), Err("add a file `.windlass.yaml`".to_owned()));
        assert_eq!(file(&[".windlass.yml"]), Err("rename `.windlass.yml` to `.windlass.yaml`".to_owned()));
        assert!(file(&[".windlass/chekout.yaml"]).unwrap_err().contains("register the service as `chekout`"));
        assert!(file(&[".windlass/payments.yaml"]).unwrap_err().starts_with("add a file `.windlass/checkout.yaml`"));
    }

    #[test]
    fn only_files_directly_in_the_folder_name_a_service() {
        assert_eq!(service_of(".windlass/a.yaml"), Some("a"));
        assert_eq!(service_of(".windlass/a/b.yaml"), None);
        assert_eq!(service_of(".windlass.yaml"), None);
        assert_eq!(service_of("x/.windlass/a.yaml"), None);
    }
}
