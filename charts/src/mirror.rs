//! Where an image is fetched from instead: the mirror setting, applied to image names. Nothing is fetched here.

use pipelines::protocol::MirrorRule;

/// The name under which an image is fetched. A rule for exactly this image comes before one for a prefix, a longer prefix
/// before a shorter one; without a rule the image keeps its name.
///
/// A rule may name the image as it is written, or in full: `node:22` is `docker.io/library/node:22`.
pub fn map_image(rules: &[MirrorRule], image: &str) -> String {
    let names = names_of(image);
    for name in &names {
        if let Some(rule) = rules.iter().find(|rule| !rule.from.ends_with('*') && rule.from == *name) {
            return apply(rule, "");
        }
    }
    let fitting = rules.iter().filter_map(|rule| {
        let prefix = rule.from.strip_suffix('*')?;
        let rest = names.iter().find_map(|name| name.strip_prefix(prefix))?;
        Some((prefix.len(), apply(rule, rest)))
    });
    // Of equally long prefixes the first one counts.
    let mut best: Option<(usize, String)> = None;
    for (len, mapped) in fitting {
        if best.as_ref().is_none_or(|(longest, _)| len > *longest) {
            best = Some((len, mapped));
        }
    }
    best.map_or_else(|| image.to_owned(), |(_, mapped)| mapped)
}

fn apply(rule: &MirrorRule, rest: &str) -> String {
    match rule.to.strip_suffix('*') {
        Some(prefix) => format!("{prefix}{rest}"),
        None => rule.to.clone(),
    }
}

/// The names of one image: as written, short, in full, and each with the tag that is meant where none is written.
fn names_of(image: &str) -> Vec<String> {
    let mut names = vec![image.to_owned()];
    let short = image.strip_prefix("docker.io/").unwrap_or(image);
    let short = short.strip_prefix("library/").unwrap_or(short);
    let first = short.split('/').next().unwrap_or_default();
    // The first part is a registry where it could not be the name of a user (distribution's reference grammar).
    let has_registry = short.contains('/') && (first.contains(['.', ':']) || first == "localhost");
    if !has_registry {
        names.push(short.to_owned());
        let user = if short.contains('/') { "" } else { "library/" };
        names.push(format!("docker.io/{user}{short}"));
    }
    let last = image.rsplit('/').next().unwrap_or_default();
    if !last.contains([':', '@']) {
        let tagged: Vec<String> = names.iter().map(|name| format!("{name}:latest")).collect();
        names.extend(tagged);
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(rules: &[(&str, &str)], image: &str) -> String {
        let rules: Vec<MirrorRule> =
            rules.iter().map(|(from, to)| MirrorRule { from: (*from).to_owned(), to: (*to).to_owned() }).collect();
        map_image(&rules, image)
    }

    #[test]
    fn without_a_rule_an_image_keeps_its_name() {
        assert_eq!(map(&[], "node:22"), "node:22");
        assert_eq!(map(&[("python:3", "x")], "node:22"), "node:22");
        assert_eq!(map(&[("node:2", "x")], "node:22"), "node:22");
    }

    #[test]
    fn an_exact_rule_comes_first_then_the_longest_prefix() {
        let rules =
            [("*", "any/*"), ("ghcr.io/*", "m/g/*"), ("ghcr.io/team/*", "m/t/*"), ("ghcr.io/team/a:1", "m/exact:1")];
        assert_eq!(map(&rules, "ghcr.io/team/a:1"), "m/exact:1");
        assert_eq!(map(&rules, "ghcr.io/team/b:1"), "m/t/b:1");
        assert_eq!(map(&rules, "ghcr.io/other/b:1"), "m/g/other/b:1");
        assert_eq!(map(&rules, "quay.io/x"), "any/quay.io/x");
        assert_eq!(map(&[("a*", "first/*"), ("a*", "second/*")], "ab"), "first/b");
        assert_eq!(map(&[("node:*", "m/node:fixed")], "node:22"), "m/node:fixed");
    }

    #[test]
    fn a_short_name_is_that_of_the_public_registry() {
        assert_eq!(map(&[("docker.io/*", "m:5000/*")], "node:22"), "m:5000/library/node:22");
        assert_eq!(map(&[("docker.io/*", "m:5000/*")], "team/app"), "m:5000/team/app");
        assert_eq!(map(&[("node:22", "m/node")], "docker.io/library/node:22"), "m/node");
        assert_eq!(map(&[("busybox:latest", "m/b")], "busybox"), "m/b");
        assert_eq!(map(&[("docker.io/*", "m:5000/*")], "127.0.0.1:5000/a"), "127.0.0.1:5000/a");
        assert_eq!(map(&[("docker.io/*", "m:5000/*")], "localhost/a"), "localhost/a");
        assert_eq!(map(&[("docker.io/*", "m/*")], "node@sha256:ab"), "m/library/node@sha256:ab");
    }
}
