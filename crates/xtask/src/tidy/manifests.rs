//! Which crate may depend on which: the arrows of docs/ARCHITECTURE.md, held by a machine.

use toml::{Table, Value};

/// A crate and the crates of this workspace that it may depend on. What is not listed is forbidden;
/// a new crate needs a row.
const ARROWS: [(&str, &[&str]); 12] = [
    ("quorate-model", &[]),
    ("quorate-proto", &[]),
    ("quorate-storage", &["quorate-model"]),
    ("quorate-consensus", &["quorate-storage", "quorate-model", "quorate-proto"]),
    ("quorate-client", &["quorate-proto", "quorate-model"]),
    ("quorate-server", &["quorate-consensus", "quorate-storage", "quorate-model", "quorate-proto"]),
    ("quorate-cli", &["quorate-client", "quorate-server", "quorate-model"]),
    // The harness and the benchmarks build the simulated outside world, which lives below the server.
    ("quorate-jepsen", &["quorate-client", "quorate-server", "quorate-model", "quorate-consensus", "quorate-storage"]),
    ("quorate-benches", &["quorate-client", "quorate-server", "quorate-model", "quorate-consensus", "quorate-storage"]),
    ("quorate-peers", &["quorate-benches", "quorate-client"]),
    ("quorate-model-fuzz", &["quorate-model"]),
    ("xtask", &[]),
];

/// Crates from outside that only one crate may name, by prefix, and why.
const CONFINED: [(&str, &str, &str); 3] = [
    ("rocksdb", "quorate-storage", "rows must be reachable only through the storage crate"),
    ("librocksdb-sys", "quorate-storage", "rows must be reachable only through the storage crate"),
    ("openraft", "quorate-consensus", "its types must not leak out of the consensus crate"),
];

/// Crates from outside that the pure crate must not name: each would bring IO, a clock or chance.
const IMPURE: [&str; 8] = ["tokio", "tonic", "futures", "rand", "fastrand", "chrono", "time", "tracing"];

/// What a manifest says that it must not.
pub(crate) fn complaints(path: &str, text: &str) -> Vec<String> {
    let manifest: Table = match text.parse() {
        Ok(manifest) => manifest,
        Err(error) => return vec![format!("{path}: not a manifest: {error}")],
    };
    let Some(name) = manifest.get("package").and_then(|package| package.get("name")).and_then(Value::as_str) else {
        // The root manifest describes the workspace: what it lists is only a version, not an arrow.
        return Vec::new();
    };
    let Some((_, allowed)) = ARROWS.iter().find(|(known, _)| *known == name) else {
        return vec![format!("{path}: {name} has no row in the table of arrows")];
    };
    let forbidden = |dependency: &String| forbidden_because(name, allowed, dependency);
    let dependencies = dependencies(&manifest);
    let found = dependencies.iter().filter_map(|dependency| Some((dependency, forbidden(dependency)?)));
    found.map(|(dependency, why)| format!("{path}: {name} → {dependency}: {why}")).collect()
}

fn forbidden_because(name: &str, allowed: &[&str], dependency: &String) -> Option<String> {
    if (dependency.starts_with("quorate-") || dependency == "xtask") && !allowed.contains(&dependency.as_str()) {
        return Some("no such arrow".to_owned());
    }
    if let Some((_, owner, why)) = CONFINED.iter().find(|(prefix, _, _)| dependency.starts_with(prefix))
        && *owner != name
    {
        return Some(format!("only {owner} may name it: {why}"));
    }
    if name == "quorate-model" && IMPURE.contains(&dependency.as_str()) {
        return Some("the model performs no IO, reads no clock and knows no chance".to_owned());
    }
    None
}

/// Names of the packages in every table of dependencies: normal, dev and build, for any target.
fn dependencies(manifest: &Table) -> Vec<String> {
    const KINDS: [&str; 3] = ["dependencies", "dev-dependencies", "build-dependencies"];
    let targets = manifest.get("target").and_then(Value::as_table);
    let tables = targets.into_iter().flat_map(Table::values).filter_map(Value::as_table).chain([manifest]);
    let listed = tables.flat_map(|table| KINDS.iter().filter_map(|kind| table.get(*kind)?.as_table()));
    let mut names: Vec<String> = listed.flatten().map(|(key, value)| package(key, value)).collect();
    names.sort();
    names.dedup();
    names
}

/// The package behind a dependency, which may be renamed.
fn package(key: &str, value: &Value) -> String {
    value.get("package").and_then(Value::as_str).unwrap_or(key).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_allowed_arrow_passes() {
        let text =
            "[package]\nname = \"quorate-storage\"\n[dependencies]\nquorate-model.workspace = true\nrocksdb = \"1\"\n";
        assert_eq!(complaints("Cargo.toml", text), [""; 0]);
    }

    #[test]
    fn a_forbidden_arrow_is_named() {
        let text = "[package]\nname = \"quorate-model\"\n[dependencies]\nquorate-storage.workspace = true\n";
        assert_eq!(complaints("a/Cargo.toml", text), ["a/Cargo.toml: quorate-model → quorate-storage: no such arrow"]);
    }

    #[test]
    fn an_arrow_hides_neither_among_tests_nor_behind_a_target_nor_under_another_name() {
        for hidden in [
            "[dev-dependencies]\nopenraft = \"1\"",
            "[build-dependencies]\nopenraft-rt = \"1\"",
            "[target.'cfg(unix)'.dependencies]\nopenraft = \"1\"",
            "[dependencies]\nraft = { package = \"openraft\", version = \"1\" }",
        ] {
            let found = complaints("Cargo.toml", &format!("[package]\nname = \"quorate-server\"\n{hidden}\n"));
            assert_eq!(found.len(), 1, "{hidden}: {found:?}");
            assert!(found[0].contains("only quorate-consensus"), "{found:?}");
        }
    }

    #[test]
    fn the_model_stays_pure() {
        let found = complaints("Cargo.toml", "[package]\nname = \"quorate-model\"\n[dependencies]\ntokio = \"1\"\n");
        assert_eq!(found.len(), 1, "{found:?}");
    }

    #[test]
    fn a_new_crate_needs_a_row() {
        let found = complaints("Cargo.toml", "[package]\nname = \"quorate-attic\"\n");
        assert_eq!(found, ["Cargo.toml: quorate-attic has no row in the table of arrows"]);
    }

    #[test]
    fn the_workspace_manifest_may_list_everything() {
        assert_eq!(complaints("Cargo.toml", "[workspace.dependencies]\nrocksdb = \"1\"\n"), [""; 0]);
    }
}
