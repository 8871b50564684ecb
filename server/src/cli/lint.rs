//! `windlass lint`: pipeline files checked on this machine, with everything that is wrong at once.

use std::{
    io::Read as _,
    path::{Path, PathBuf},
};

use charts::catalog::Catalog;
use pipelines::definition::{Diagnostic, Limits, PIPELINE_FOLDER, parse_bytes, render};
use serde::Serialize;

use super::{Context, catalog, exit::Exit, failure::Failure, output::Paint};

/// Pipeline files that are looked for in one folder.
const FILES_MAX: usize = 500;

/// Check pipeline files on this machine
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Files to check, `-` for standard input; by default `.windlass.yaml` and `.windlass/*.yaml`
    files: Vec<PathBuf>,
    /// A folder of base configs besides the built-in ones
    #[arg(long, value_name = "FOLDER")]
    catalog: Option<PathBuf>,
    /// Warnings count as errors
    #[arg(long)]
    strict: bool,
}

#[derive(Serialize)]
struct Report {
    ok: bool,
    files: Vec<FileReport>,
}

#[derive(Serialize)]
struct FileReport {
    file: String,
    ok: bool,
    service: Option<String>,
    diagnostics: Vec<Diagnostic>,
    #[serde(skip)]
    text: String,
}

/// Checks the files. The command ends with 0, or with 2 where a file is not good.
pub(crate) fn run(context: &Context, arguments: &Arguments) -> Result<Exit, Failure> {
    let catalog = catalog::load(arguments.catalog.as_deref())?;
    let files = if arguments.files.is_empty() { found(Path::new("."))? } else { arguments.files.clone() };
    let mut reports = Vec::new();
    for file in &files {
        reports.push(check(&catalog, file, arguments.strict)?);
    }
    let report = Report { ok: reports.iter().all(|report| report.ok), files: reports };
    context.out.result("Lint", &report, |paint| report.files.iter().map(|file| text(file, paint)).collect())?;
    Ok(if report.ok { Exit::Ok } else { Exit::Usage })
}

fn check(catalog: &Catalog, file: &Path, is_strict: bool) -> Result<FileReport, Failure> {
    let name = if file == Path::new("-") { "standard input".to_owned() } else { file.display().to_string() };
    let bytes = read(file).map_err(|error| {
        Failure::new(
            if error.kind() == std::io::ErrorKind::NotFound { Exit::NotFound } else { Exit::Usage },
            format!("cannot read {name}"),
        )
        .because(&error)
    })?;
    let (service, diagnostics, text) = match String::from_utf8(bytes) {
        Ok(text) => {
            let (pipeline, found) = catalog.read(&name, &text);
            (pipeline.map(|pipeline| pipeline.definition.service.to_string()), found, text)
        }
        Err(error) => (None, parse_bytes(&name, error.as_bytes()).1, String::new()),
    };
    let ok = service.is_some() && (!is_strict || diagnostics.is_empty());
    Ok(FileReport { file: name, ok, service, diagnostics, text })
}

/// One byte more than allowed, so that the limit is noticed and nothing larger is read.
fn read(file: &Path) -> std::io::Result<Vec<u8>> {
    let limit = Limits::default().file_max_bytes as u64 + 1;
    let mut bytes = Vec::new();
    if file == Path::new("-") {
        std::io::stdin().lock().take(limit).read_to_end(&mut bytes)?;
    } else {
        std::fs::File::open(file)?.take(limit).read_to_end(&mut bytes)?;
    }
    Ok(bytes)
}

/// The pipeline files of a repository.
fn found(folder: &Path) -> Result<Vec<PathBuf>, Failure> {
    let at_top = folder.join(".windlass.yaml");
    let mut files: Vec<PathBuf> = Vec::new();
    if let Ok(entries) = std::fs::read_dir(folder.join(PIPELINE_FOLDER)) {
        let entries = entries.flatten().map(|entry| entry.path());
        files.extend(entries.filter(|path| path.extension().is_some_and(|end| end == "yaml")).take(FILES_MAX));
        files.sort();
    }
    if at_top.is_file() {
        files.insert(0, at_top);
    }
    if files.is_empty() {
        return Err(Failure::new(Exit::NotFound, "cannot find a pipeline file")
            .why("there is neither .windlass.yaml nor .windlass/<service>.yaml here")
            .next("windlass lint FILE")
            .next("windlass catalog list shows what a service can be built on"));
    }
    // `./.windlass.yaml` reads as `.windlass.yaml` in the problems.
    Ok(files.into_iter().map(|file| file.strip_prefix(".").map(Path::to_owned).unwrap_or(file)).collect())
}

fn text(report: &FileReport, paint: Paint) -> String {
    let mut text = coloured(&render(&report.diagnostics, &report.text), paint);
    let mark = if report.ok { paint.good("✓") } else { paint.bad("✗") };
    let service = report.service.as_ref().map(|service| format!(" service {service}")).unwrap_or_default();
    text.push_str(&format!("{mark} {}{service}\n", report.file));
    text
}

/// The rendered problems with colours: the text is the same without them.
fn coloured(rendered: &str, paint: Paint) -> String {
    let paint_line = |line: &str| {
        if line.starts_with("error[") || line.starts_with("warning[") {
            let (head, rest) = line.split_once(':').unwrap_or((line, ""));
            let head = if line.starts_with('e') { paint.bad(head) } else { paint.warn(head) };
            return format!("{head}:{}", paint.bold(rest));
        }
        match line.split_once(" | ") {
            Some((margin, rest)) if rest.trim_start().starts_with('^') => {
                format!("{} {}", paint.dim(&format!("{margin} |")), paint.bad(rest))
            }
            Some((margin, rest)) => format!("{} {rest}", paint.dim(&format!("{margin} |"))),
            None => line.to_owned(),
        }
    };
    rendered.lines().map(|line| format!("{}\n", paint_line(line))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(text: &str, is_strict: bool) -> FileReport {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a.yaml");
        std::fs::write(&file, text).unwrap();
        check(&Catalog::builtin().unwrap(), &file, is_strict).unwrap()
    }

    #[test]
    fn a_good_file_names_its_service() {
        let good = report("service: shop\nbase: static-site@1\ntest: {testers: [a@example.com]}\n", false);
        assert!(good.ok && good.diagnostics.is_empty(), "{:?}", good.diagnostics);
        assert_eq!(good.service.as_deref(), Some("shop"));
    }

    #[test]
    fn a_base_config_that_the_catalog_does_not_have_is_found() {
        let bad = report("service: shop\nbase: static-sit@1\ntest: {testers: [a@example.com]}\n", false);
        assert!(!bad.ok);
        let plain = coloured(&render(&bad.diagnostics, &bad.text), Paint::ON);
        let plain = console::strip_ansi_codes(&plain);
        assert!(plain.contains("static-site"), "{plain}");
        assert_eq!(plain, render(&bad.diagnostics, &bad.text), "colours change the text");
    }

    #[test]
    fn pipeline_files_are_found_as_the_server_finds_them() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(found(folder.path()).unwrap_err().exit, Exit::NotFound);
        std::fs::create_dir(folder.path().join(".windlass")).unwrap();
        for name in [".windlass/b.yaml", ".windlass/a.yaml", ".windlass/readme.md", ".windlass.yaml"] {
            std::fs::write(folder.path().join(name), "").unwrap();
        }
        let names = found(folder.path()).unwrap();
        let names: Vec<_> = names.iter().map(|path| path.strip_prefix(folder.path()).unwrap()).collect();
        assert_eq!(names, [".windlass.yaml", ".windlass/a.yaml", ".windlass/b.yaml"].map(Path::new));
    }
}
