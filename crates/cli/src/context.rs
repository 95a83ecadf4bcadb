//! Contexts: named clusters, one of them selected, so that commands need no `--server`.

use crate::failure::Failure;
use crate::folders;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs;
use std::io;

/// Where a node of a local installation listens unless told otherwise.
const DEFAULT_SERVER: &str = "127.0.0.1:50051";

/// The contexts of this user.
#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Contexts {
    /// Name of the selected context.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) current: Option<String>,
    #[serde(default)]
    pub(crate) contexts: BTreeMap<String, Context>,
}

/// How one cluster is reached.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub(crate) struct Context {
    /// `host:port` of one or more nodes; one that answers is enough.
    pub(crate) servers: Vec<String>,
}

impl Contexts {
    pub(crate) fn load() -> Result<Contexts, Failure> {
        let path = folders::config_file()?;
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Contexts::default()),
            Err(error) => return Err(Failure::new(format!("{} can't be read: {error}", path.display()))),
        };
        toml::from_str(&text).map_err(|error| {
            Failure::new(format!("{}: {error}", path.display()))
                .advise("mend the file, or remove it and set the contexts again")
        })
    }

    pub(crate) fn save(&self) -> Result<(), Failure> {
        let text = toml::to_string(self).map_err(|error| Failure::new(error.to_string()))?;
        folders::replace_file(&folders::config_file()?, &text)
    }

    pub(crate) fn select(&mut self, name: &str) -> Result<(), Failure> {
        if !self.contexts.contains_key(name) {
            let known: Vec<&str> = self.contexts.keys().map(String::as_str).collect();
            let known =
                if known.is_empty() { "there is none".to_owned() } else { format!("known: {}", known.join(", ")) };
            return Err(Failure::new(format!("no context is called {name}; {known}"))
                .advise(format!("`quorate context set {name} HOST:PORT` makes it")));
        }
        self.current = Some(name.to_owned());
        Ok(())
    }

    /// Forgets a context; if it was the selected one, `instead` is selected, if it still exists.
    pub(crate) fn remove(&mut self, name: &str, instead: Option<&str>) {
        self.contexts.remove(name);
        if self.current.as_deref() == Some(name) {
            self.current = instead.filter(|other| self.contexts.contains_key(*other)).map(str::to_owned);
        }
    }

    fn selected(&self) -> Option<&Context> {
        self.contexts.get(self.current.as_deref()?)
    }
}

/// The addresses to try: those given (flag or environment), else the selected context's, else the default.
pub(crate) fn servers(given: &[String]) -> Result<Vec<String>, Failure> {
    let servers = match given {
        [] => match Contexts::load()?.selected() {
            Some(context) => context.servers.clone(),
            None => vec![DEFAULT_SERVER.to_owned()],
        },
        given => given.to_vec(),
    };
    servers.iter().try_for_each(|server| check_address(server))?;
    Ok(servers)
}

/// An address is `host:port`; anything else would only fail later and say less.
pub(crate) fn check_address(address: &str) -> Result<(), Failure> {
    let well_formed = address.rsplit_once(':').is_some_and(|(host, port)| {
        let numeric_v6 = host.starts_with('[') && host.ends_with(']');
        let plain = !host.is_empty() && !host.contains([':', '/', ' ']);
        (numeric_v6 || plain) && port.parse::<u16>().is_ok_and(|port| port != 0)
    });
    if well_formed {
        return Ok(());
    }
    Err(Failure::usage(format!("{address:?} is not an address")).advise("write HOST:PORT, such as 127.0.0.1:50051"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(names: &[&str], current: Option<&str>) -> Contexts {
        let context = |name: &&str| ((*name).to_owned(), Context { servers: vec!["127.0.0.1:1".to_owned()] });
        Contexts { current: current.map(str::to_owned), contexts: names.iter().map(context).collect() }
    }

    #[test]
    fn addresses_are_checked_before_use() {
        for good in ["localhost:50051", "10.0.0.1:1", "[::1]:50051"] {
            assert!(check_address(good).is_ok(), "{good}");
        }
        for bad in
            ["", "localhost", "localhost:", "localhost:0", "localhost:65536", "http://localhost:1", ":1", "::1:1"]
        {
            assert!(check_address(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn removing_the_selected_context_selects_the_former_one_if_it_still_exists() {
        let mut contexts = with(&["dev", "production"], Some("dev"));
        contexts.remove("dev", Some("production"));
        assert_eq!(contexts.current.as_deref(), Some("production"));

        let mut contexts = with(&["dev"], Some("dev"));
        contexts.remove("dev", Some("production"));
        assert_eq!(contexts.current, None);
    }

    #[test]
    fn only_a_known_context_can_be_selected() {
        let mut contexts = with(&["dev"], None);
        assert!(contexts.select("prod").is_err());
        assert!(contexts.select("dev").is_ok());
    }
}
