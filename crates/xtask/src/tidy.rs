//! Checks of the repository's own rules, which no other tool knows.
//!
//! Each check is a function from text to complaints, tested on text; this file reads the files and
//! turns complaints into a failure.
//!
//! - [`manifests`]: which crate may depend on which
//! - [`sources`]: how long a file may be, and what it may not be called
//! - [`pages`]: links in the documentation lead somewhere

use crate::steps::{Done, Failure};
use std::fs;
use std::path::{Path, PathBuf};

mod manifests;
mod pages;
mod sources;

pub(crate) fn arrows(root: &Path) -> Result<Done, Failure> {
    let mut complaints = Vec::new();
    for path in files(root)?.into_iter().filter(|path| path.ends_with("Cargo.toml")) {
        complaints.extend(manifests::complaints(&shown(root, &path), &read(&path)?));
    }
    conclude(
        &complaints,
        "Remove the dependency, or, if the arrow is wanted, argue for it in docs/ARCHITECTURE.md and add it to crates/xtask/src/tidy/manifests.rs.",
    )
}

pub(crate) fn files_and_names(root: &Path) -> Result<Done, Failure> {
    let mut complaints = Vec::new();
    for path in files(root)?.into_iter().filter(|path| path.extension().is_some_and(|extension| extension == "rs")) {
        let name = shown(root, &path);
        complaints.extend(sources::length_complaint(&name, read(&path)?.lines().count()));
        complaints.extend(sources::name_complaint(&name));
    }
    conclude(&complaints, "Split the file where its subjects part, and name each part after what it holds.")
}

pub(crate) fn links(root: &Path) -> Result<Done, Failure> {
    let mut complaints = Vec::new();
    for path in files(root)?.into_iter().filter(|path| path.extension().is_some_and(|extension| extension == "md")) {
        for link in pages::links(&read(&path)?) {
            complaints.extend(broken(root, &path, &link)?);
        }
    }
    conclude(&complaints, "Mend the link, or write the page or heading that it promises.")
}

/// The text of every Rust source outside this crate, by its path.
pub(crate) fn sources(root: &Path) -> Result<Vec<(String, String)>, Failure> {
    let files = files(root)?.into_iter().filter(|path| path.extension().is_some_and(|extension| extension == "rs"));
    let files = files.filter(|path| !path.starts_with(root.join("crates/xtask")));
    files.map(|path| Ok((shown(root, &path), read(&path)?))).collect()
}

/// Whether a relative link leads to a file, and to a heading in it if it names one.
fn broken(root: &Path, page: &Path, link: &pages::Link) -> Result<Option<String>, Failure> {
    let complaint = |why: &str| Some(format!("{}:{}: {}: {why}", shown(root, page), link.line, link.target));
    let (file, heading) = link.target.split_once('#').unwrap_or((&link.target, ""));
    let target = if file.is_empty() { page.to_path_buf() } else { page.parent().unwrap_or(root).join(file) };
    if !target.exists() {
        return Ok(complaint("no such file"));
    }
    let to_markdown = target.extension().is_some_and(|extension| extension == "md");
    if heading.is_empty() || !to_markdown || pages::headings(&read(&target)?).iter().any(|known| known == heading) {
        return Ok(None);
    }
    Ok(complaint("no such heading"))
}

pub(crate) fn conclude(complaints: &[String], advice: &str) -> Result<Done, Failure> {
    if complaints.is_empty() {
        return Ok(Done::Passed);
    }
    for complaint in complaints {
        println!("  {complaint}");
    }
    Err(Failure::new(format!("{} complaint(s), listed above.", complaints.len()), advice))
}

/// Every file of the repository in a stable order, without build output and hidden folders.
fn files(root: &Path) -> Result<Vec<PathBuf>, Failure> {
    let unreadable = |path: &Path, error: std::io::Error| {
        Failure::new(format!("{} could not be read: {error}.", path.display()), "Check its rights.")
    };
    let mut found = Vec::new();
    let mut folders = vec![root.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).map_err(|error| unreadable(&folder, error))? {
            let path = entry.map_err(|error| unreadable(&folder, error))?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if name.starts_with('.') || name == "target" || path.is_symlink() {
                continue;
            }
            if path.is_dir() { folders.push(path) } else { found.push(path) }
        }
    }
    found.sort();
    Ok(found)
}

fn read(path: &Path) -> Result<String, Failure> {
    fs::read_to_string(path).map_err(|error| {
        Failure::new(format!("{} could not be read: {error}.", path.display()), "It must be UTF-8 text.")
    })
}

fn shown(root: &Path, path: &Path) -> String {
    path.strip_prefix(root).unwrap_or(path).display().to_string()
}
