//! The images that a Dockerfile builds on, and the same Dockerfile with those of a mirror. The rest of it is the engine's.

use std::collections::{BTreeMap, HashSet};

use pipelines::protocol::MirrorRule;

use crate::mirror::map_image;

/// A Dockerfile whose images are fetched from where they are to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mapped {
    /// The Dockerfile; the same, line by line, but for images that a mirror rule names.
    pub text: String,
    /// The images that the build fetches, as they are fetched: each once, in order. One that depends on a variable
    /// without a value is not among them.
    pub images: Vec<String>,
}

/// Maps the images of `FROM` and `COPY --from`. `args` are the build arguments that will be given.
pub fn map_base_images(text: &str, args: &BTreeMap<String, String>, rules: &[MirrorRule]) -> Mapped {
    let mut walk =
        Walk { args, rules, variables: BTreeMap::new(), stages: HashSet::new(), images: Vec::new(), in_stage: false };
    let lines: Vec<&str> = text.split_inclusive('\n').collect();
    let escape = escape_character(&lines);
    let mut out = String::with_capacity(text.len());
    let mut index = 0;
    while index < lines.len() {
        let end = instruction_end(&lines, index, escape);
        let physical = &lines[index..end];
        match walk.instruction(&joined(physical, escape)) {
            Some(replaced) => {
                out.push_str(&replaced);
                // As many line ends as before, so that the engine's errors name the user's lines.
                let breaks = physical.iter().filter(|line| line.ends_with('\n')).count();
                out.push_str(&"\n".repeat(breaks));
            }
            None => out.extend(physical.iter().copied()),
        }
        index = end;
    }
    Mapped { text: out, images: walk.images }
}

/// The `# escape=` directive of the first lines.
fn escape_character(lines: &[&str]) -> char {
    for line in lines {
        let Some(comment) = line.trim().strip_prefix('#') else { break };
        let Some((name, value)) = comment.split_once('=') else { break };
        if name.trim().eq_ignore_ascii_case("escape") && value.trim() == "`" {
            return '`';
        }
    }
    '\\'
}

fn is_comment(line: &str) -> bool {
    line.trim_start().starts_with('#')
}

/// The line after an instruction that may go over several: empty lines and comments inside of it do not end it.
fn instruction_end(lines: &[&str], start: usize, escape: char) -> usize {
    let mut index = start;
    if is_comment(lines[index]) || lines[index].trim().is_empty() {
        return index + 1;
    }
    loop {
        let line = lines[index];
        let skipped = index > start && (is_comment(line) || line.trim().is_empty());
        index += 1;
        if index == lines.len() || !(skipped || line.trim_end().ends_with(escape)) {
            return index;
        }
    }
}

fn joined(lines: &[&str], escape: char) -> String {
    let mut text = String::new();
    for (index, line) in lines.iter().enumerate() {
        if is_comment(line) {
            continue;
        }
        let line = line.trim_end();
        text.push_str(if index + 1 < lines.len() { line.strip_suffix(escape).unwrap_or(line) } else { line });
    }
    text
}

struct Walk<'a> {
    args: &'a BTreeMap<String, String>,
    rules: &'a [MirrorRule],
    /// What the `ARG`s before the first `FROM` come to.
    variables: BTreeMap<String, String>,
    stages: HashSet<String>,
    images: Vec<String>,
    in_stage: bool,
}

impl Walk<'_> {
    /// What stands in place of the instruction, if it changes.
    fn instruction(&mut self, text: &str) -> Option<String> {
        let text = text.trim();
        let (word, rest) = text.split_once(char::is_whitespace)?;
        match word.to_ascii_uppercase().as_str() {
            "ARG" if !self.in_stage => {
                self.arguments(rest);
                None
            }
            "FROM" => {
                self.in_stage = true;
                self.from(rest)
            }
            "COPY" => self.copy(word, rest),
            _ => None,
        }
    }

    fn arguments(&mut self, rest: &str) {
        for part in rest.split_whitespace() {
            let (name, default) = match part.split_once('=') {
                Some((name, default)) => (name, Some(default.trim_matches(['"', '\'']))),
                None => (part, None),
            };
            let given = self.args.get(name).cloned();
            if let Some(value) = given.or_else(|| default.and_then(|default| self.expand(default))) {
                self.variables.insert(name.to_owned(), value);
            }
        }
    }

    fn from(&mut self, rest: &str) -> Option<String> {
        let words: Vec<&str> = rest.split_whitespace().collect();
        let at = words.iter().position(|word| !word.starts_with("--"))?;
        let image = self.expand(words[at].trim_matches(['"', '\'']));
        let stage = match words.get(at + 1..) {
            Some([r#as, name]) if r#as.eq_ignore_ascii_case("as") => Some(name.to_ascii_lowercase()),
            _ => None,
        };
        let mapped = image.and_then(|image| self.fetch(&image).map(|mapped| (image, mapped)));
        // A stage is known only after its own FROM.
        self.stages.extend(stage);
        let (image, mapped) = mapped?;
        if mapped == image {
            return None;
        }
        let mut words: Vec<&str> = words;
        words[at] = &mapped;
        Some(format!("FROM {}", words.join(" ")))
    }

    fn copy(&mut self, word: &str, rest: &str) -> Option<String> {
        let flag = rest
            .split_whitespace()
            .take_while(|word| word.starts_with("--"))
            .find(|flag| flag.starts_with("--from="))?;
        let image = flag.strip_prefix("--from=")?;
        if image.bytes().all(|byte| byte.is_ascii_digit()) || image.contains('$') {
            return None;
        }
        let mapped = self.fetch(image)?;
        (mapped != image).then(|| format!("{word} {}", rest.replacen(flag, &format!("--from={mapped}"), 1)))
    }

    /// The name under which an image is fetched; none for a stage, and for `scratch`.
    fn fetch(&mut self, image: &str) -> Option<String> {
        if image.is_empty() || image == "scratch" || self.stages.contains(&image.to_ascii_lowercase()) {
            return None;
        }
        let mapped = map_image(self.rules, image);
        if !self.images.contains(&mapped) {
            self.images.push(mapped.clone());
        }
        Some(mapped)
    }

    /// `$NAME`, `${NAME}`, `${NAME:-default}` and `${NAME:+other}`; none where a variable has no value.
    fn expand(&self, text: &str) -> Option<String> {
        let mut out = String::new();
        let mut rest = text;
        while let Some(at) = rest.find('$') {
            out.push_str(&rest[..at]);
            rest = &rest[at + 1..];
            if let Some(braced) = rest.strip_prefix('{') {
                let end = braced.find('}')?;
                let inside = &braced[..end];
                rest = &braced[end + 1..];
                let name_len = inside.bytes().take_while(|b| b.is_ascii_alphanumeric() || *b == b'_').count();
                let (name, modifier) = inside.split_at(name_len);
                let value = self.variables.get(name).filter(|value| !value.is_empty());
                match (modifier.get(..2), value) {
                    (None, value) if modifier.is_empty() => out.push_str(value?),
                    (Some(":-"), value) => out.push_str(value.map_or(&modifier[2..], String::as_str)),
                    (Some(":+"), value) => out.push_str(if value.is_some() { &modifier[2..] } else { "" }),
                    _ => return None,
                }
            } else {
                let name_len = rest.bytes().take_while(|b| b.is_ascii_alphanumeric() || *b == b'_').count();
                out.push_str(self.variables.get(&rest[..name_len]).filter(|value| !value.is_empty())?);
                rest = &rest[name_len..];
            }
        }
        out.push_str(rest);
        Some(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(text: &str, args: &[(&str, &str)]) -> Mapped {
        let rules = [MirrorRule { from: "docker.io/*".to_owned(), to: "m:5000/*".to_owned() }];
        let args = args.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        map_base_images(text, &args, &rules)
    }

    #[test]
    fn images_of_every_stage_come_from_the_mirror() {
        let text = "# a comment\nFROM --platform=linux/amd64 node:22 AS build\nRUN npm ci\n\nfrom build as test\nRUN x\n\
                    FROM scratch\nCOPY --from=build /a /a\nCOPY --chown=1:1 --from=busybox:1 /b /b\nCOPY --from=0 /c /c\n";
        let mapped = map(text, &[]);
        assert_eq!(
            mapped.text,
            "# a comment\nFROM --platform=linux/amd64 m:5000/library/node:22 AS build\nRUN npm ci\n\nfrom build as test\n\
             RUN x\nFROM scratch\nCOPY --from=build /a /a\nCOPY --chown=1:1 --from=m:5000/library/busybox:1 /b /b\n\
             COPY --from=0 /c /c\n"
        );
        assert_eq!(mapped.images, ["m:5000/library/node:22", "m:5000/library/busybox:1"]);
    }

    #[test]
    fn what_no_rule_names_stays_as_it_is_written() {
        let text = "FROM   ghcr.io/a/b:1   as x\r\nRUN y";
        let mapped = map(text, &[]);
        assert_eq!(mapped.text, text);
        assert_eq!(mapped.images, ["ghcr.io/a/b:1"]);
    }

    #[test]
    fn variables_get_their_default_or_the_argument() {
        let text = "ARG BASE_IMAGE=busybox:1.36\nARG TAG=22 FULL=node:$TAG\nFROM ${BASE_IMAGE}\nFROM $FULL\nFROM ${NO:-alpine:3}\n";
        assert_eq!(
            map(text, &[]).images,
            ["m:5000/library/busybox:1.36", "m:5000/library/node:22", "m:5000/library/alpine:3"]
        );
        assert_eq!(
            map(text, &[("BASE_IMAGE", "ghcr.io/x"), ("TAG", "20")]).images[..2],
            ["ghcr.io/x", "m:5000/library/node:20"]
        );
        let unknown = map("FROM ${NOTHING}\nFROM node:${V:?bad}\nFROM a${\n", &[]);
        assert!(unknown.images.is_empty());
        assert_eq!(unknown.text, "FROM ${NOTHING}\nFROM node:${V:?bad}\nFROM a${\n");
    }

    #[test]
    fn a_line_inside_of_another_instruction_is_no_from() {
        let text = "FROM ghcr.io/a\nRUN echo \\\n# comment\n\nFROM node:22 \\\n  && true\nRUN y\n";
        let mapped = map(text, &[]);
        assert_eq!((mapped.text.as_str(), mapped.images.len()), (text, 1));
        let split = map("FROM \\\n  node:22 \\\n  AS x\nRUN y\n", &[]);
        assert_eq!(split.text, "FROM m:5000/library/node:22 AS x\n\n\nRUN y\n");
        let windows = map("# escape=`\nRUN a \\\nFROM node:22\nRUN b `\nFROM python:3\n", &[]);
        assert_eq!(windows.images, ["m:5000/library/node:22"]);
    }

    #[test]
    fn a_stage_hides_an_image_of_its_name_only_after_it() {
        let mapped = map("FROM node AS node\nFROM node\n", &[]);
        assert_eq!(mapped.text, "FROM m:5000/library/node AS node\nFROM node\n");
        assert_eq!(map("", &[]).text, "");
        assert_eq!(map("FROM", &[]).text, "FROM");
    }
}
