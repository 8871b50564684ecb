//! `docs/cli.md`, made from the tree of verbs; a test keeps it as the tree is. `WINDLASS_BLESS=1 cargo test -p server
//! --bin windlass` writes it anew.

use std::fmt::Write as _;

use clap::{Arg, Command, CommandFactory as _};

use super::{Arguments, exit::Exit};

const HEAD: &str = "# Command line

Made from the program: `WINDLASS_BLESS=1 cargo test -p server --bin windlass reference` writes it anew.

Data goes to standard output, everything else to standard error. `-o json` prints one document
`{\"apiVersion\": \"windlass/v1\", \"kind\": …, …}` as the API does, `watch` one per line; an error is such a document on standard error, of
kind `Error`. Colours and bars are drawn on a terminal only, and never with `NO_COLOR`. Ctrl-C stops looking, never what is
looked at, and says how to look again.

`WINDLASS_URL` and `WINDLASS_TOKEN` go before what `windlass login` keeps in `~/.config/windlass/credentials`. A password is never an
argument: it is typed, or read from a file or from standard input.
";

fn reference() -> String {
    let mut root = Arguments::command();
    root.build();
    let mut text = HEAD.to_owned();
    text.push_str("\n## Exit codes\n\n| code | meaning |\n|---|---|\n");
    for exit in Exit::ALL {
        let _ = writeln!(text, "| {} | {} |", exit.code(), exit.meaning());
    }
    text.push_str("\n`lint` ends with 2 where a file is not good, `doctor` with 1 where something is bad.\n");
    text.push_str("\n## Everywhere\n\n");
    arguments(&mut text, root.get_arguments().filter(|argument| argument.is_global_set()));
    for command in root.get_subcommands().filter(|it| it.get_name() != "help" && !it.is_hide_set()) {
        describe(&mut text, "windlass", command);
    }
    text
}

fn describe(text: &mut String, parent: &str, command: &Command) {
    let name = format!("{parent} {}", command.get_name());
    let children: Vec<&Command> = command.get_subcommands().filter(|child| child.get_name() != "help").collect();
    let about = command.get_about().map(ToString::to_string).unwrap_or_default();
    if children.is_empty() {
        let positionals: String = command.get_positionals().map(|argument| format!(" {argument}")).collect();
        let _ = writeln!(text, "\n### {name}{positionals}\n\n{about}.\n");
    } else {
        let _ = writeln!(text, "\n## {name}\n\n{about}.");
    }
    if children.is_empty() {
        arguments(text, command.get_arguments().filter(|argument| !argument.is_global_set()));
    }
    children.into_iter().for_each(|child| describe(text, &name, child));
}

fn arguments<'a>(text: &mut String, arguments: impl Iterator<Item = &'a Arg>) {
    for argument in arguments.filter(|argument| !matches!(argument.get_id().as_str(), "help" | "version")) {
        let help = argument.get_help().map(ToString::to_string).unwrap_or_default();
        let values: Vec<String> =
            argument.get_possible_values().iter().map(|value| value.get_name().to_owned()).collect();
        let takes = argument.get_action().takes_values();
        let values = if takes && !values.is_empty() { format!(": {}", values.join(", ")) } else { String::new() };
        let variable = argument.get_env().map(|name| format!(" (`{}`)", name.to_string_lossy())).unwrap_or_default();
        let _ = writeln!(text, "- `{argument}`: {help}{values}{variable}");
    }
}

#[test]
fn the_reference_is_as_the_program_is() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/cli.md");
    let text = reference();
    if std::env::var_os("WINDLASS_BLESS").is_some() {
        std::fs::write(path, &text).unwrap();
    }
    let committed = std::fs::read_to_string(path).unwrap_or_default();
    assert!(committed == text, "docs/cli.md is not as the program is; WINDLASS_BLESS=1 writes it anew");
}
