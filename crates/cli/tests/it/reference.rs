//! `docs/reference/commands.md` is what the program says of itself. `UPDATE_REFERENCE=1` writes it.

use std::fmt::Write as _;
use std::path::Path;

use crate::program::run;

const FILE: &str = "../../docs/reference/commands.md";

/// The commands that the help of a command lists.
fn commands_in(help: &str) -> Vec<String> {
    let listed = help.lines().skip_while(|line| *line != "Commands:").skip(1);
    listed
        .take_while(|line| line.starts_with("  "))
        .filter(|line| !line.starts_with("   "))
        .filter_map(|line| line.split_whitespace().next())
        .filter(|name| *name != "help")
        .map(str::to_owned)
        .collect()
}

fn document(path: &[String], text: &mut String) {
    let dir = std::env::temp_dir();
    let mut arguments: Vec<&str> = path.iter().map(String::as_str).collect();
    arguments.push("--help");
    let help = run(&dir, &arguments).stdout;
    let name = ["tenantry".to_owned()].iter().chain(path).cloned().collect::<Vec<_>>().join(" ");
    let trimmed: Vec<_> = help.lines().map(str::trim_end).collect();
    write!(text, "\n## `{name}`\n\n```text\n{}\n```\n", trimmed.join("\n").trim_end()).unwrap();
    for command in commands_in(&help) {
        document(&[path, &[command]].concat(), text);
    }
}

#[test]
fn the_reference_is_what_the_program_says() {
    let mut text =
        "# Commands\n\nGenerated from the program's own help; a test compares.\n".to_owned();
    document(&[], &mut text);
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(FILE);
    if std::env::var_os("UPDATE_REFERENCE").is_some() {
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(&file, &text).unwrap();
    }
    let written = std::fs::read_to_string(&file).unwrap();
    assert!(
        written == text,
        "docs/reference/commands.md is out of date: run this test with UPDATE_REFERENCE=1"
    );
}
