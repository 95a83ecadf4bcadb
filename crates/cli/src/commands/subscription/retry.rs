//! Retry policies as people write them: `immediate`, `fixed:5s`, `linear:1s+2s..1m`, `exponential:1s..10m`,
//! `exponential:1s..10m~50%` with another jitter, `list:1s,5s,30s`.

use quorate_client::RetryPolicy;
use std::time::Duration;

const FORMS: &str =
    "write immediate, fixed:5s, linear:1s+2s..1m, exponential:1s..10m, exponential:1s..10m~50% or list:1s,5s,30s";

/// Reads a policy. Its bounds are the broker's to check.
pub(super) fn policy(text: &str) -> Result<RetryPolicy, String> {
    let (kind, rest) = text.split_once(':').unwrap_or((text, ""));
    match kind {
        "immediate" if !text.contains(':') => Ok(RetryPolicy::Immediate),
        "fixed" => Ok(RetryPolicy::Fixed { pause: pause(rest)? }),
        "linear" => {
            let (growing, maximum) = parts(rest, "..")?;
            let (first, step) = parts(growing, "+")?;
            Ok(RetryPolicy::Linear { first: pause(first)?, step: pause(step)?, maximum: pause(maximum)? })
        }
        "exponential" => {
            let (range, jitter_percent) = match rest.split_once('~') {
                Some((range, jitter)) => (range, Some(percent(jitter)?)),
                None => (rest, None),
            };
            let (minimum, maximum) = parts(range, "..")?;
            Ok(RetryPolicy::Exponential { minimum: pause(minimum)?, maximum: pause(maximum)?, jitter_percent })
        }
        "list" => Ok(RetryPolicy::Explicit { pauses: rest.split(',').map(pause).collect::<Result<_, _>>()? }),
        _ => Err(FORMS.to_owned()),
    }
}

/// The policy as it would be written.
pub(super) fn text(policy: &RetryPolicy) -> String {
    match policy {
        RetryPolicy::Immediate => "immediate".to_owned(),
        RetryPolicy::Fixed { pause } => format!("fixed:{}", written(*pause)),
        RetryPolicy::Linear { first, step, maximum } => {
            format!("linear:{}+{}..{}", written(*first), written(*step), written(*maximum))
        }
        RetryPolicy::Exponential { minimum, maximum, jitter_percent } => {
            let jitter = jitter_percent.map(|percent| format!("~{percent}%")).unwrap_or_default();
            format!("exponential:{}..{}{jitter}", written(*minimum), written(*maximum))
        }
        RetryPolicy::Explicit { pauses } => {
            let pauses: Vec<String> = pauses.iter().map(|pause| written(*pause)).collect();
            format!("list:{}", pauses.join(","))
        }
    }
}

/// A duration without blanks.
pub(super) fn written(duration: Duration) -> String {
    humantime::format_duration(duration).to_string().replace(' ', "")
}

fn parts<'a>(text: &'a str, separator: &str) -> Result<(&'a str, &'a str), String> {
    text.split_once(separator).ok_or_else(|| FORMS.to_owned())
}

fn pause(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text).map_err(|error| format!("{text:?} is no duration: {error}; {FORMS}"))
}

fn percent(text: &str) -> Result<u32, String> {
    let number = text.strip_suffix('%').and_then(|number| number.parse().ok());
    number.ok_or_else(|| format!("{text:?} is no percentage; {FORMS}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_is_read_and_written_alike() {
        let s = Duration::from_secs;
        let cases = [
            ("immediate", RetryPolicy::Immediate),
            ("fixed:5s", RetryPolicy::Fixed { pause: s(5) }),
            ("linear:1s+2s..1m", RetryPolicy::Linear { first: s(1), step: s(2), maximum: s(60) }),
            (
                "exponential:500ms..1h30m",
                RetryPolicy::Exponential {
                    minimum: Duration::from_millis(500),
                    maximum: s(5_400),
                    jitter_percent: None,
                },
            ),
            (
                "exponential:1s..10m~0%",
                RetryPolicy::Exponential { minimum: s(1), maximum: s(600), jitter_percent: Some(0) },
            ),
            ("list:1s,5s,30s", RetryPolicy::Explicit { pauses: vec![s(1), s(5), s(30)] }),
        ];
        for (written, expected) in cases {
            assert_eq!(policy(written), Ok(expected.clone()), "{written}");
            assert_eq!(text(&expected), written);
        }
    }

    #[test]
    fn what_is_no_policy_is_answered_with_the_forms_there_are() {
        for wrong in [
            "",
            "never",
            "immediate:",
            "immediate:1s",
            "fixed",
            "fixed:",
            "fixed:soon",
            "linear:1s",
            "linear:1s..2s",
            "linear:1s+..2s",
            "exponential:1s",
            "exponential:1s..",
            "exponential:1s..2s~",
            "exponential:1s..2s~20",
            "exponential:1s..2s~-1%",
            "list:",
            "list:1s,",
            "list:1s;2s",
            "fixed:-1s",
        ] {
            let refused = policy(wrong).expect_err(wrong);
            assert!(refused.contains("exponential:1s..10m"), "{wrong}: {refused}");
        }
    }
}
