//! What may stand in an expression, looked at before it is ever evaluated.

use cel::common::ast::{EntryExpr, Expr, LiteralValue, SourceInfo, operators};
use cel::parser::Expression;

use super::error::{FilterError, Place, Problem};
use super::message::{ATTRIBUTES, VARIABLES};
use crate::limits::FILTER_NESTING_MAX;

/// What the parser makes of operators.
const OPERATORS: &[&str] = &[
    operators::CONDITIONAL,
    operators::LOGICAL_AND,
    operators::LOGICAL_OR,
    operators::LOGICAL_NOT,
    operators::SUBSTRACT,
    operators::ADD,
    operators::MULTIPLY,
    operators::DIVIDE,
    operators::MODULO,
    operators::EQUALS,
    operators::NOT_EQUALS,
    operators::GREATER_EQUALS,
    operators::LESS_EQUALS,
    operators::GREATER,
    operators::LESS,
    operators::NEGATE,
    operators::INDEX,
    operators::IN,
];

/// What can be called, besides `has`, which the parser makes something else of. `matches` is left out: what a regular expression costs doesn't follow from its length.
pub(super) const FUNCTIONS: &[&str] = &[
    "size",
    "contains",
    "startsWith",
    "endsWith",
    "bool",
    "int",
    "uint",
    "double",
    "string",
    "bytes",
    "timestamp",
    "duration",
    "getFullYear",
    "getMonth",
    "getDate",
    "getDayOfMonth",
    "getDayOfWeek",
    "getDayOfYear",
    "getHours",
    "getMinutes",
    "getSeconds",
    "getMilliseconds",
];

/// Checks a whole expression. Returns the attributes that it names.
pub(super) fn expression(root: &Expression, source: &SourceInfo) -> Result<Vec<String>, FilterError> {
    let mut attributes = Vec::new();
    // Not recursive: the nesting of a chain such as 1 + 1 + 1 isn't bounded until it was looked at.
    let mut rest = vec![(root, 1)];
    while let Some((node, depth)) = rest.pop() {
        let problem = if depth > FILTER_NESTING_MAX { Some(Problem::TooDeep) } else { problem_of(&node.expr) };
        if let Some(problem) = problem {
            return Err(FilterError { problem, place: place(node.id, source) });
        }
        attributes.extend(attribute_of(&node.expr).map(str::to_owned));
        rest.extend(parts_of(&node.expr).into_iter().rev().map(|part| (part, depth + 1)));
    }
    Ok(attributes)
}

fn problem_of(expr: &Expr) -> Option<Problem> {
    match expr {
        Expr::Ident(name) if !VARIABLES.contains(&name.as_str()) => Some(Problem::UnknownVariable(name.clone())),
        Expr::Call(call) => {
            let name = call.func_name.as_str();
            let known = OPERATORS.contains(&name) || FUNCTIONS.contains(&name);
            (!known).then(|| Problem::UnknownFunction(name.to_owned()))
        }
        Expr::Comprehension(_) => Some(Problem::Loop),
        Expr::Struct(made) => Some(Problem::Construction(made.type_name.clone())),
        Expr::Unspecified => Some(Problem::Unreadable),
        _ => None,
    }
}

/// What stands inside. Of what has a problem, nothing.
fn parts_of(expr: &Expr) -> Vec<&Expression> {
    match expr {
        Expr::Call(call) => call.target.as_deref().into_iter().chain(&call.args).collect(),
        Expr::List(list) => list.elements.iter().collect(),
        Expr::Select(select) => vec![&select.operand],
        Expr::Map(map) => map
            .entries
            .iter()
            .flat_map(|entry| match &entry.expr {
                EntryExpr::MapEntry(entry) => vec![&entry.key, &entry.value],
                EntryExpr::StructField(field) => vec![&field.value],
            })
            .collect(),
        _ => Vec::new(),
    }
}

/// `attributes.name` or `attributes["name"]`.
fn attribute_of(expr: &Expr) -> Option<&str> {
    let is_attributes = |of: &Expression| matches!(&of.expr, Expr::Ident(name) if name == ATTRIBUTES);
    match expr {
        Expr::Select(select) if is_attributes(&select.operand) => Some(&select.field),
        Expr::Call(call) if call.func_name == operators::INDEX && is_attributes(call.args.first()?) => {
            match &call.args.get(1)?.expr {
                Expr::Literal(LiteralValue::String(name)) => Some(name.inner()),
                _ => None,
            }
        }
        _ => None,
    }
}

/// Line and column, from 1, of a part of the text. The parser counts characters, from 0.
fn place(id: u64, source: &SourceInfo) -> Option<Place> {
    let (start, _) = source.offset_for(id)?;
    let before: Vec<char> = source.source.chars().take(start as usize).collect();
    let column = before.iter().rev().take_while(|char| **char != '\n').count() + 1;
    Some(Place { line: before.iter().filter(|char| **char == '\n').count() + 1, column })
}
