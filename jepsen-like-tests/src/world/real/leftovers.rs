//! What a run leaves behind if it is killed: its processes end with it, but namespaces, mounts, folders and groups don't.
//! Everything bears the number of the process that made it; the next run clears up after those that are gone.

use std::fs;
use std::path::Path;

use super::disk::unmount_all_below;
use super::host::MEMORY_GROUPS;
use super::tool::run;

/// What all names begin with.
const PREFIX: &str = "quorate-chaos-";

/// The beginning of the names of this process.
pub(super) fn own_prefix() -> String {
    format!("{PREFIX}{}", std::process::id())
}

/// Clears up after all runs whose process is gone.
pub(super) fn clear_up() {
    for namespace in abandoned(Path::new("/run/netns")) {
        let _ = run(&["ip", "netns", "del", &namespace]);
    }
    for folder in abandoned(&std::env::temp_dir()) {
        let folder = std::env::temp_dir().join(folder);
        unmount_all_below(&folder);
        let _ = fs::remove_dir_all(folder);
    }
    for group in abandoned(Path::new(MEMORY_GROUPS)) {
        let _ = fs::remove_dir(Path::new(MEMORY_GROUPS).join(group));
    }
}

/// Entries of a folder that a run has made whose process is gone.
fn abandoned(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    names.filter(|name| maker(name).is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists())).collect()
}

/// The process that made what has this name.
fn maker(name: &str) -> Option<u32> {
    name.strip_prefix(PREFIX)?.split('-').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::{maker, own_prefix};

    #[test]
    fn names_tell_who_made_them() {
        assert_eq!(maker(&format!("{}-n1", own_prefix())), Some(std::process::id()));
        assert_eq!(maker("quorate-chaos-42"), Some(42));
        assert_eq!(maker("quorate-chaos-of-somebody"), None);
        assert_eq!(maker("another"), None);
    }
}
