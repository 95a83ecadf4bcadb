//! A picture of a run: acknowledged messages per second, and below them on the same axis a lane for each kind of fault.

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::ops::Range;
use std::path::Path;

use plotters::coord::Shift;
use plotters::prelude::{
    ChartBuilder, DrawingArea, IntoDrawingArea, LineSeries, PathElement, RGBColor, Rectangle, SVGBackend, Text, WHITE,
};
use plotters::style::text_anchor::{HPos, Pos, VPos};
use plotters::style::{Color, FontDesc, FontStyle, TextStyle};

use crate::history::{Action, Event, History, Phase};
use crate::nemesis::Harm;

/// Pixels: what a page is wide.
const WIDTH: u32 = 1000;

/// Height of the title and the legend, and of the messages per second.
const HEAD: u32 = 64;
const CHART: u32 = 250;

/// Height of a lane, and of the axis below the lanes.
const LANE: u32 = 19;
const AXIS: u32 = 38;

/// Between the panels.
const GAP: u32 = 8;

/// Left of both panels, where lanes have their names, and right of them.
const LEFT: u32 = 128;
const RIGHT: u32 = 20;

/// Above the highest point.
const HEADROOM: f64 = 1.08;

/// The narrowest bar.
const BAR_MIN: f64 = 2.0;

const FONT: &str = "sans-serif";
const LINE: RGBColor = RGBColor(20, 30, 45);
const INK: RGBColor = RGBColor(60, 66, 74);
const GRID: RGBColor = RGBColor(228, 231, 235);

/// One is dark and the other light: told apart also in grey, and by those who see few colours.
fn colour(harm: Harm) -> RGBColor {
    match harm {
        Harm::Processes => RGBColor(168, 52, 10),
        Harm::Network => RGBColor(86, 180, 233),
    }
}

fn name(harm: Harm) -> &'static str {
    match harm {
        Harm::Processes => "processes",
        Harm::Network => "network",
    }
}

/// A fault, with its time in seconds.
struct Span<'a> {
    harm: Harm,
    fault: &'a str,
    time: Range<f64>,
    took_effect: bool,
}

/// A line of the lower panel: the heading of a sort of faults, or those of a kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lane<'a> {
    Heading(Harm),
    Kind(&'a str),
}

/// What the legend explains.
enum Sign {
    Line,
    Bar(Harm),
    Hollow,
}

type Panel<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Outcome = Result<(), Box<dyn Error>>;

/// Draws it into a file.
///
/// # Errors
/// If messages weren't acknowledged for a second, or the file can't be written.
pub fn draw(path: &Path, title: &str, history: &History) -> Outcome {
    let points = per_second(history);
    let (Some((first, _)), Some((last, _))) = (points.first(), points.last()) else {
        return Err("too little was acknowledged".into());
    };
    let spans = spans(history);
    let lanes = lanes(&spans);
    let seconds = first - 0.5..spans.iter().map(|span| span.time.end).fold(last + 0.5, f64::max);
    let below = GAP + AXIS + LANE * u32::try_from(lanes.len())?;
    let mut svg = String::new();
    {
        let area = SVGBackend::with_string(&mut svg, (WIDTH, HEAD + CHART + below)).into_drawing_area();
        area.fill(&WHITE)?;
        let (head, rest) = area.split_vertically(HEAD);
        let (upper, lower) = rest.split_vertically(CHART);
        draw_head(&head, title)?;
        draw_points(&upper, seconds.clone(), &points, &spans)?;
        draw_lanes(&lower, seconds, &lanes, &spans)?;
        area.present()?;
    }
    Ok(std::fs::write(path, svg)?)
}

/// How many messages were acknowledged in each second, which its middle stands for, from the first second in which any were
/// to the last. In that they stopped, so it would look as if something had happened: it is left out.
fn per_second(history: &History) -> Vec<(f64, f64)> {
    let is_acknowledged = |event: &&Event| {
        event.phase == Phase::Ok && matches!(event.action, Action::Publish { .. } | Action::PublishTo { .. })
    };
    let mut counts: BTreeMap<u64, u64> = BTreeMap::new();
    for event in history.events.iter().filter(is_acknowledged) {
        *counts.entry(event.at_ms / 1_000).or_default() += 1;
    }
    let (first, last) = (counts.keys().next().copied(), counts.keys().next_back().copied());
    let seconds = first.unwrap_or(0)..last.unwrap_or(0);
    let point = |second| (second as f64 + 0.5, counts.get(&second).copied().unwrap_or(0) as f64);
    seconds.map(point).collect()
}

/// Faults in the order in which they ended. One that didn't lasts as long as the history.
fn spans(history: &History) -> Vec<Span<'_>> {
    let mut under_way: BTreeMap<u64, Span<'_>> = BTreeMap::new();
    let mut spans = Vec::new();
    let last_s = history.events.last().map_or(0, |event| event.at_ms) as f64 / 1_000.0;
    for event in &history.events {
        let Action::Fault { number, fault, .. } = &event.action else { continue };
        let at_s = event.at_ms as f64 / 1_000.0;
        if event.phase == Phase::Invoke {
            let span = Span { harm: Harm::of_fault(*number), fault, time: at_s..last_s, took_effect: false };
            under_way.insert(event.op, span);
        } else if let Some(span) = under_way.remove(&event.op) {
            spans.push(Span { time: span.time.start..at_s, took_effect: event.phase == Phase::Ok, ..span });
        }
    }
    spans.extend(under_way.into_values());
    spans
}

/// Processes first; kinds by name.
fn lanes<'a>(spans: &[Span<'a>]) -> Vec<Lane<'a>> {
    let of = |harm| {
        let kinds: BTreeSet<&str> = spans.iter().filter(|span| span.harm == harm).map(|span| span.fault).collect();
        let heading = (!kinds.is_empty()).then_some(Lane::Heading(harm));
        heading.into_iter().chain(kinds.into_iter().map(Lane::Kind))
    };
    Harm::ALL.into_iter().flat_map(of).collect()
}

fn draw_head(area: &Panel<'_>, title: &str) -> Outcome {
    area.draw(&Text::new(title.to_owned(), (16, 22), text(HPos::Left, 18, FontStyle::Bold)))?;
    let legend = [
        (Sign::Line, "acknowledged messages per second".to_owned()),
        (Sign::Bar(Harm::Processes), format!("faults of {}", name(Harm::Processes))),
        (Sign::Bar(Harm::Network), format!("faults of the {}", name(Harm::Network))),
        (Sign::Hollow, "no effect, or no end".to_owned()),
    ];
    let style = text(HPos::Left, 13, FontStyle::Normal);
    let mut x = 16;
    for (sign, words) in legend {
        let corners = [(x, 42), (x + 18, 53)];
        match sign {
            Sign::Line => area.draw(&PathElement::new(vec![(x, 48), (x + 18, 48)], LINE.stroke_width(2)))?,
            Sign::Bar(harm) => area.draw(&Rectangle::new(corners, colour(harm).filled()))?,
            Sign::Hollow => area.draw(&Rectangle::new(corners, INK.stroke_width(1)))?,
        }
        let (width, _) = area.estimate_text_size(&words, &style)?;
        area.draw(&Text::new(words, (x + 24, 48), style.clone()))?;
        x += 24 + i32::try_from(width)? + 28;
    }
    Ok(())
}

fn draw_points(area: &Panel<'_>, seconds: Range<f64>, points: &[(f64, f64)], spans: &[Span<'_>]) -> Outcome {
    let most = points.iter().map(|(_, count)| *count).fold(1.0, f64::max) * HEADROOM;
    let mut chart =
        ChartBuilder::on(area).margin_right(RIGHT).y_label_area_size(LEFT).build_cartesian_2d(seconds, 0.0..most)?;
    chart
        .configure_mesh()
        .y_labels(6)
        .y_label_formatter(&|count| format!("{count:.0}"))
        .label_style(text(HPos::Right, 12, FontStyle::Normal))
        .axis_style(INK)
        .bold_line_style(GRID)
        .light_line_style(WHITE)
        .draw()?;
    let shade = |span: &Span<'_>| {
        let corners = [(span.time.start, 0.0), (span.time.end, most)];
        Rectangle::new(corners, colour(span.harm).mix(0.18).filled())
    };
    chart.draw_series(spans.iter().filter(|span| span.took_effect).map(shade))?;
    chart.draw_series(LineSeries::new(points.iter().copied(), LINE.stroke_width(2)))?;
    Ok(())
}

fn draw_lanes(area: &Panel<'_>, seconds: Range<f64>, lanes: &[Lane<'_>], spans: &[Span<'_>]) -> Outcome {
    let bar_min_s = (seconds.end - seconds.start) * BAR_MIN / f64::from(WIDTH - LEFT - RIGHT);
    let rows = lanes.len() as f64;
    let mut chart = ChartBuilder::on(area)
        .margin_top(GAP)
        .margin_right(RIGHT)
        .x_label_area_size(AXIS)
        .y_label_area_size(LEFT)
        .build_cartesian_2d(seconds.clone(), 0.0..rows.max(1.0))?;
    chart
        .configure_mesh()
        .disable_y_mesh()
        .y_labels(0)
        .x_desc("seconds")
        .x_label_formatter(&|second| format!("{second:.0}"))
        .label_style(text(HPos::Center, 12, FontStyle::Normal))
        .axis_style(INK)
        .bold_line_style(GRID)
        .light_line_style(WHITE)
        .draw()?;
    for (row, lane) in (0..).zip(lanes) {
        let bottom = rows - f64::from(row) - 1.0;
        let (words, style) = match lane {
            Lane::Heading(harm) => (name(*harm), FontStyle::Bold),
            Lane::Kind(kind) => (*kind, FontStyle::Normal),
        };
        let at = (i32::try_from(LEFT - 8)?, i32::try_from(GAP + row * LANE + LANE / 2)?);
        area.draw(&Text::new(words.to_owned(), at, text(HPos::Right, 12, style)))?;
        chart.draw_series([PathElement::new(vec![(seconds.start, bottom), (seconds.end, bottom)], GRID)])?;
        let bar = |span: &Span<'_>| {
            let end = span.time.end.max(span.time.start + bar_min_s);
            let colour = colour(span.harm);
            let style = if span.took_effect { colour.filled() } else { colour.stroke_width(1) };
            Rectangle::new([(span.time.start, bottom + 0.15), (end, bottom + 0.85)], style)
        };
        chart.draw_series(spans.iter().filter(|span| *lane == Lane::Kind(span.fault)).map(bar))?;
    }
    Ok(())
}

fn text(side: HPos, size: u32, style: FontStyle) -> TextStyle<'static> {
    FontDesc::from((FONT, size)).style(style).color(&INK).pos(Pos::new(side, VPos::Center))
}

#[cfg(test)]
mod tests {
    use super::draw;
    use crate::checker::script::Script;
    use crate::history::{Action, Phase};

    fn drawn(script: &Script) -> Result<String, String> {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("plot.svg");
        draw(&path, "seed 7, 3 nodes", &script.history()).map_err(|error| error.to_string())?;
        Ok(std::fs::read_to_string(&path).expect("written"))
    }

    #[test]
    fn a_plot_names_each_fault_and_has_a_point_per_second() {
        let script = Script::new()
            .at(900)
            .published("m1", 0)
            .at(1_100)
            .fault_begins(2, "kill-leader", Some(0))
            .at(4_100)
            .fault_ends(Phase::Ok)
            .at(4_200)
            .fault_begins(1, "one-way", None)
            .fault_ends(Phase::Fail)
            .at(5_999)
            .published("m2", 1)
            .at(6_100)
            .published("m3", 2)
            .remark(Action::Healed);
        let svg = drawn(&script).expect("drawn");
        for words in ["seed 7, 3 nodes", "kill-leader", "one-way", "faults of processes", "no effect"] {
            assert!(svg.contains(words), "{words}");
        }
        // Of all lines with several points, the one with a point per second is the longest.
        let points = svg.split("points=\"").skip(1).map(|line| line.split('"').next().unwrap_or("").split(' '));
        let most = points.map(|points| points.filter(|point| !point.is_empty()).count()).max();
        assert_eq!(most, Some(6), "from second 0 to 5, also those in which nothing was acknowledged");
    }

    #[test]
    fn without_faults_there_is_a_line_and_without_messages_nothing() {
        assert!(drawn(&Script::new().published("m1", 0).at(2_000).published("m2", 1)).is_ok());
        assert_eq!(drawn(&Script::new().pending("m1")).err().as_deref(), Some("too little was acknowledged"));
    }
}
