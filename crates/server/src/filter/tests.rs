use proptest::prelude::*;
use quorate_model::limits::FILTER_BYTES_MAX;
use quorate_model::{Offset, PartitionId, Record, TopicId};

use super::check::FUNCTIONS;
use super::error::Problem;
use super::message::VARIABLES;
use super::{Filter, FilterError, FilterFailure, Message};
use crate::limits::FILTER_NESTING_MAX;

/// Half of what a thread of the runtime has: the other half is for what called the filter.
const STACK_BYTES: usize = 1 << 20;

/// 2026-01-31T12:30:45.678Z
const PUBLISHED_MS: u64 = 1_769_862_645_678;

fn order() -> Record {
    let attributes = [("region", "eu"), ("amount", "12"), ("note", ""), ("größe", "klein")];
    let attributes = attributes.map(|(key, value)| (key.to_owned(), value.to_owned()));
    Record::new(PUBLISHED_MS, "customer-7", attributes, "five!")
}

/// What an expression says of [`order`], which is message 9 of partition 3 of the topic `orders`.
fn verdict(text: &str) -> String {
    let filter = Filter::compile(text).unwrap_or_else(|error| panic!("{text}: {error}"));
    let record = order();
    let place = PartitionId::new(TopicId::new(1), 3);
    match filter.matches(&Message::new("orders", place, Offset::new(9), &record)) {
        Ok(verdict) => verdict.to_string(),
        Err(failure) => failure.to_string(),
    }
}

fn refusal(text: &str) -> String {
    match Filter::compile(text) {
        Ok(_) => format!("{text} is accepted"),
        Err(error) => error.to_string(),
    }
}

#[test]
fn an_expression_sees_attributes_and_system_fields() {
    let matching = [
        r#"attributes["region"] == "eu""#,
        r#"attributes.region == 'eu' && attributes.note == """#,
        r#"attributes["größe"] == "klein""#,
        r#""region" in attributes && !("colour" in attributes)"#,
        "has(attributes.region) && !has(attributes.colour)",
        "size(attributes) == 4",
        "attributes.region in ['eu', 'us']",
        "attributes.region.startsWith('e') && attributes.region.endsWith('u') && attributes.region.contains('eu')",
        "int(attributes.amount) > 10 && double(attributes.amount) < 12.5 && uint(attributes.amount) == 12u",
        "ordering_key == 'customer-7'",
        "topic == 'orders' && partition == 3 && offset == 9",
        "offset % 10 == 9",
        "size == 5 && size(ordering_key) == 10",
        "publish_time > timestamp('2026-01-31T12:30:45Z')",
        "publish_time < timestamp('2026-01-01T00:00:00Z') + duration('720h') + duration('13h')",
        "publish_time.getHours() == 12 && publish_time.getHours('Europe/Berlin') == 13",
        "publish_time.getFullYear() == 2026 && publish_time.getMonth() == 0 && publish_time.getDate() == 31",
        "attributes.region == 'us' ? size > 100 : size > 1",
        "attributes.colour == 'red' || size == 5",
        "true",
        " // which orders\n size == 5 ",
    ];
    for text in matching {
        assert_eq!(verdict(text), "true", "{text}");
        assert_eq!(verdict(&format!("!({text}\n)")), "false", "{text}");
    }
}

#[test]
fn an_expression_that_fails_for_a_message_says_why() {
    let failing = [
        (r#"attributes["colour"] == "red""#, "No such key: colour"),
        ("attributes.colour == 'red' || size > 5", "No such key: colour"),
        (
            "int(attributes.region) == 1",
            "Error executing function 'int': string parse error: invalid digit found in string",
        ),
        ("10 / (size - 5) == 1", "Division by zero of Int(10)"),
        ("attributes.amount == '12' ? attributes : true", "it says map instead of true or false"),
        ("9223372036854775807 + size > 0", "Overflow from binary operator 'add': Int(9223372036854775807), Int(5)"),
    ];
    assert_eq!(failing.map(|(text, _)| verdict(text)), failing.map(|(_, why)| why));
}

#[test]
fn what_cannot_be_a_filter_is_refused_and_the_place_is_named() {
    let refused = [
        ("", "filter, line 1, column 1: Syntax error"),
        ("size >", "filter, line 1, column 7: Syntax error"),
        ("size > 5 &&\n& true", "filter, line 2, column 1: Syntax error"),
        ("attributes[\"a\" == 'b'", "filter, line 1, column 22: Syntax error: missing ']' at '<EOF>'"),
        (
            "sise > 5",
            "filter, line 1, column 1: there is no variable \"sise\"; there are attributes, ordering_key, topic, partition, offset, publish_time, priority, size",
        ),
        ("true &&\n  (größe == 5)", "filter, line 2, column 6: Syntax error: token recognition error at: 'ö'"),
        ("true &&\n  (data == 5)", "filter, line 2, column 4: there is no variable \"data\""),
        (
            "topic.matches('.*')",
            "filter, line 1, column 14: there is no function \"matches\"; there are has, size, contains,",
        ),
        (
            "['a'].exists(a, a == topic)",
            "filter, line 1, column 13: there are no loops: all, exists, exists_one, map and filter can't be used",
        ),
        ("Message{size: 1} == Message{size: 1}", "filter, line 1, column 8: Message can't be constructed"),
        ("attributes.?a == 'b'", "filter, line 1, column 11: unsupported syntax '.?'"),
        ("size", "filter: it says int instead of true or false"),
        ("attributes.region", "filter: it says string instead of true or false"),
        ("attributes", "filter: it says map instead of true or false"),
        ("attributes.amount > 5", "filter: found no matching overload for '_>_' applied to '(string, int)'"),
        ("size.startsWith('5')", "filter: found no matching overload for 'startsWith' applied to 'int.(string)'"),
        ("topic + 1 == 'a1'", "filter: Unsupported binary operator"),
    ];
    let otherwise = refused.map(|(text, why)| (text, why, refusal(text)));
    let otherwise: Vec<_> = otherwise.iter().filter(|(_, why, refusal)| !refusal.starts_with(why)).collect();
    assert!(otherwise.is_empty(), "{otherwise:#?}");
}

#[test]
fn length_and_nesting_are_bounded() {
    let long = |bytes: usize| format!("size < 5 || topic == '{}'", "x".repeat(bytes - 23));
    assert_eq!(long(FILTER_BYTES_MAX).len(), FILTER_BYTES_MAX);
    assert_eq!(verdict(&long(FILTER_BYTES_MAX)), "false");
    assert_eq!(refusal(&long(FILTER_BYTES_MAX + 1)), "filter: it has 1025 bytes, the limit is 1024");

    let deepest = usize::from(FILTER_NESTING_MAX);
    // The comparison and its operands are two levels, and n additions are n.
    let chain = |levels: usize| format!("5{} == 5", " + 0".repeat(levels - 2));
    assert_eq!(verdict(&chain(deepest)), "true");
    let refused = refusal(&chain(deepest + 1));
    assert!(refused.ends_with("it is nested more than 32 deep, which is the limit"), "{refused}");
    let brackets = |levels: usize| format!("{}true{}", "(".repeat(levels), ")".repeat(levels));
    assert_eq!(verdict(&brackets(deepest)), "true");
    assert_eq!(refusal(&brackets(deepest + 2)), "filter: it is nested more than 32 deep, which is the limit");
    // Alternatives and conditions don't nest, however many there are.
    assert_eq!(verdict(&format!("size == 1{}", " || size == 5".repeat(70))), "true");
}

#[test]
fn everything_that_is_listed_is_there() {
    for variable in VARIABLES {
        let refused = refusal(variable);
        assert!(refused.starts_with("filter: it says "), "{variable}: {refused}");
    }
    // No function takes five lists; but the evaluator says so only of those that it knows.
    let is_known = |call: String| refusal(&call).contains("no matching overload");
    let lists = "[], [], [], [], []";
    let unknown = FUNCTIONS.iter().filter(|function| {
        !is_known(format!("{function}({lists}) == 5")) && !is_known(format!("size.{function}({lists}) == 5"))
    });
    assert_eq!(unknown.collect::<Vec<_>>(), Vec::<&&str>::new());
}

fn on_a_small_stack(work: impl FnOnce() + Send + 'static) {
    let thread = std::thread::Builder::new().stack_size(STACK_BYTES).spawn(work).expect("a thread");
    thread.join().expect("neither a panic nor an overflow");
}

/// As much of one thing as fits: `open` over and over, then `middle`, then `close` as often.
fn filled(open: &str, middle: &str, close: &str) -> String {
    let times = (FILTER_BYTES_MAX - middle.len()) / (open.len() + close.len());
    format!("{}{middle}{}", open.repeat(times), close.repeat(times))
}

#[test]
fn no_text_takes_more_stack_than_there_is() {
    let shapes = [
        ("(", "1", ")"),
        ("(", "", ""),
        ("[", "1", "]"),
        ("[", "", ""),
        ("{1:", "1", "}"),
        ("{", "", ""),
        ("topic[", "1", "]"),
        ("size(", "1", ")"),
        ("!", "true", ""),
        ("-", "1", ""),
        ("!-", "1", ""),
        ("true?1:", "1", ""),
        ("true?", "1", ":1"),
        ("", "topic", ".a"),
        ("", "topic", "[1]"),
        ("", "topic", ".size()"),
        ("", "1", "+1"),
        ("", "1", "<1"),
        ("", "1", " in 1"),
        ("", "true", "||true"),
        ("", "true", "&&true||true"),
        ("a{a:", "1", "}"),
        ("[].map(a,", "1", ")"),
        ("", "[]", ".map(a,a)"),
        ("", "[]", ".exists_one(a,a)"),
        ("has(", "a.b", ")"),
        ("'", "", ""),
        ("`", "", ""),
        ("$", "", ""),
        ("\n", "", ""),
        ("\u{10ffff}", "", ""),
    ];
    on_a_small_stack(move || {
        for (open, middle, close) in shapes {
            try_out(&filled(open, middle, close));
        }
    });
}

/// Compiles it, and evaluates what can be compiled.
fn try_out(text: &str) {
    let (record, place) = (order(), PartitionId::new(TopicId::new(1), 3));
    match Filter::compile(text) {
        Ok(filter) => {
            let verdict = filter.matches(&Message::new("orders", place, Offset::new(9), &record));
            assert!(!matches!(verdict, Err(FilterFailure::Panicked)), "{text:?}");
        }
        Err(FilterError { problem, .. }) => assert!(!matches!(problem, Problem::Unreadable), "{text:?}"),
    }
}

/// Pieces of expressions, so that more than a few of the texts can be compiled.
fn pieces() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        proptest::sample::select(vec![
            "attributes",
            "topic",
            "size",
            "partition",
            "offset",
            "publish_time",
            "ordering_key",
            ".region",
            "[\"a\"]",
            "[0]",
            " == ",
            " != ",
            " < ",
            " >= ",
            " && ",
            " || ",
            " + ",
            " - ",
            " * ",
            " / ",
            " % ",
            " in ",
            "!",
            "-",
            "(",
            ")",
            "[",
            "]",
            "{",
            "}",
            ",",
            ":",
            " ? ",
            "true",
            "false",
            "null",
            "1",
            "-9223372036854775808",
            "9223372036854775807",
            "1u",
            "0.5",
            "1e308",
            "'a'",
            "\"b\"",
            "b'c'",
            "r'\\d'",
            "'\\u{1F600}'",
            "'''",
            "\"\"\"",
            "//",
            "\n",
            "size(",
            ".size()",
            ".startsWith('a')",
            ".contains(",
            "int(",
            "double(",
            "uint(",
            "string(",
            "bytes(",
            "bool(",
            "timestamp(",
            "duration(",
            "duration('-9999999h')",
            "timestamp('9999-12-31T23:59:59Z')",
            ".getHours()",
            ".getHours('x')",
            "has(",
            "[1].map(a, ",
            ".all(a, ",
            ".exists(a, ",
        ])
        .prop_map(str::to_owned),
        "[ -~]{0,3}",
        any::<char>().prop_map(String::from),
    ];
    proptest::collection::vec(piece, 0..60).prop_map(|pieces| pieces.concat())
}

/// What fits the limit, from the beginning.
fn cut(mut text: String) -> String {
    text.truncate(text.floor_char_boundary(FILTER_BYTES_MAX));
    text
}

#[test]
fn any_text_is_refused_or_evaluated() {
    on_a_small_stack(|| {
        let config = ProptestConfig { cases: 20_000, failure_persistence: None, ..ProptestConfig::default() };
        proptest!(config, |(text in prop_oneof![3 => pieces(), 1 => any::<String>()])| try_out(&cut(text)));
    });
}
