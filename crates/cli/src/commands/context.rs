//! `quorate context`: which cluster commands talk to.

use crate::context::{Context, Contexts, check_address};
use crate::failure::Failure;
use crate::output::Output;
use clap::Subcommand;
use serde::Serialize;

/// Named clusters, one of them selected.
#[derive(Debug, Subcommand)]
pub(crate) enum ContextCommand {
    /// List contexts; the selected one has a star
    Ls,
    /// Select a context
    Use { name: String },
    /// Make or change a context
    Set {
        name: String,
        /// Addresses of its nodes; one that answers is enough
        #[arg(required = true, value_name = "HOST:PORT", value_delimiter = ',')]
        servers: Vec<String>,
    },
}

#[derive(Serialize)]
struct Row<'a> {
    name: &'a str,
    selected: bool,
    servers: &'a [String],
}

impl ContextCommand {
    pub(crate) fn run(&self, output: Output) -> Result<(), Failure> {
        let mut contexts = Contexts::load()?;
        match self {
            ContextCommand::Ls => {
                let rows: Vec<Row> = contexts.contexts.keys().map(|name| Row::of(&contexts, name)).collect();
                output.list(&["", "name", "servers"], &rows, |row| {
                    let star = if row.selected { "*" } else { "" };
                    vec![star.to_owned(), row.name.to_owned(), row.servers.join(",")]
                })
            }
            ContextCommand::Use { name } => {
                contexts.select(name)?;
                contexts.save()?;
                report(&contexts, name, output, "selected")
            }
            ContextCommand::Set { name, servers } => {
                servers.iter().try_for_each(|server| check_address(server))?;
                contexts.contexts.insert(name.clone(), Context { servers: servers.clone() });
                contexts.save()?;
                report(&contexts, name, output, "set")
            }
        }
    }
}

impl<'a> Row<'a> {
    fn of(contexts: &'a Contexts, name: &'a str) -> Row<'a> {
        let selected = contexts.current.as_deref() == Some(name);
        let servers = contexts.contexts.get(name).map_or(&[][..], |context| &context.servers);
        Row { name, selected, servers }
    }
}

fn report(contexts: &Contexts, name: &str, output: Output, done: &str) -> Result<(), Failure> {
    let row = Row::of(contexts, name);
    output.result(&row, || format!("context {name} {done}: {}", row.servers.join(",")))
}
