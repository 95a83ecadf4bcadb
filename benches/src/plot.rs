//! Plots as SVG: two panels side by side over one logarithmic axis.

use plotters::coord::Shift;
use plotters::coord::ranged1d::{AsRangedCoord, ValueFormatter};
use plotters::prelude::{
    BLACK, ChartBuilder, Circle, DrawingArea, EmptyElement, IntoDrawingArea, IntoFont, IntoLogRange, LineSeries,
    PathElement, RGBColor, Ranged, SVGBackend, SeriesLabelPosition, WHITE,
};
use plotters::style::{Color, ShapeStyle};
use std::error::Error;
use std::path::Path;

/// Pixels; what a page is wide.
const SIZE: (u32, u32) = (1000, 380);

/// Told apart also by those who see few colours, and in grey.
const COLOURS: [RGBColor; 4] =
    [RGBColor(0, 90, 160), RGBColor(220, 110, 0), RGBColor(0, 140, 100), RGBColor(150, 60, 130)];

/// One of the two pictures.
pub(crate) struct Panel {
    pub(crate) title: &'static str,
    pub(crate) logarithmic: bool,
    pub(crate) series: Vec<Series>,
}

/// One line.
pub(crate) struct Series {
    pub(crate) name: &'static str,
    pub(crate) points: Vec<(u64, f64)>,
}

type Outcome = Result<(), Box<dyn Error>>;

/// Draws the panels into a file.
pub(crate) fn draw(path: &Path, title: &str, axis: &str, panels: &[Panel; 2]) -> Outcome {
    let mut svg = String::new();
    {
        let area = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
        area.fill(&WHITE)?;
        let area = area.titled(title, ("sans-serif", 20).into_font())?;
        for (part, panel) in area.split_evenly((1, 2)).iter().zip(panels) {
            draw_panel(part, axis, panel)?;
        }
        area.present()?;
    }
    Ok(std::fs::write(path, svg)?)
}

fn draw_panel(area: &DrawingArea<SVGBackend<'_>, Shift>, axis: &str, panel: &Panel) -> Outcome {
    let points = || panel.series.iter().flat_map(|series| &series.points).filter(|(_, y)| *y > 0.0);
    let largest = points().map(|(_, y)| *y).fold(0.0, f64::max);
    let smallest = points().map(|(_, y)| *y).fold(f64::INFINITY, f64::min);
    if largest <= 0.0 {
        return Err("nothing was measured".into());
    }
    if panel.logarithmic {
        // Room above for the legend.
        plot(area, axis, panel, (smallest / 2.0..largest * 30.0).log_scale())
    } else {
        plot(area, axis, panel, 0.0..largest * 1.3)
    }
}

fn plot<Y>(area: &DrawingArea<SVGBackend<'_>, Shift>, axis: &str, panel: &Panel, y_range: Y) -> Outcome
where
    Y: AsRangedCoord<Value = f64>,
    Y::CoordDescType: Ranged<ValueType = f64> + ValueFormatter<f64>,
{
    let values = || panel.series.iter().flat_map(|series| &series.points).map(|(x, _)| *x);
    let (first, last) = (values().min().unwrap_or(1), values().max().unwrap_or(1));
    let x_range = (number(first) * 0.8..number(last) * 1.25).log_scale();
    let mut chart = ChartBuilder::on(area)
        .margin(12)
        .caption(panel.title, ("sans-serif", 15))
        .x_label_area_size(36)
        .y_label_area_size(56)
        .build_cartesian_2d(x_range, y_range)?;
    let label =
        |figure: &f64| if *figure >= 10.0 || *figure == 0.0 { format!("{figure:.0}") } else { format!("{figure}") };
    chart
        .configure_mesh()
        .x_desc(axis)
        .x_label_formatter(&label)
        .y_label_formatter(&label)
        .light_line_style(WHITE)
        .draw()?;
    for (series, colour) in panel.series.iter().zip(COLOURS).filter(|(series, _)| !series.points.is_empty()) {
        let points = || series.points.iter().map(|(x, y)| (number(*x), *y));
        let line = LineSeries::new(points(), ShapeStyle::from(&colour).stroke_width(2));
        let legend =
            move |(x, y)| PathElement::new(vec![(x, y), (x + 18, y)], ShapeStyle::from(&colour).stroke_width(2));
        chart.draw_series(line)?.label(series.name).legend(legend);
        chart.draw_series(points().map(|at| EmptyElement::at(at) + Circle::new((0, 0), 3, colour.filled())))?;
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperRight)
        .background_style(WHITE.mix(0.8))
        .border_style(BLACK.mix(0.2))
        .draw()?;
    Ok(())
}

#[expect(clippy::cast_precision_loss, reason = "far below 2^53")]
fn number(value: u64) -> f64 {
    value as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plot_holds_its_titles_its_legend_and_a_mark_per_point() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("plot.svg");
        let series = |name| Series { name, points: vec![(1, 10.0), (100, 20.0), (1000, 5.0)] };
        let panels = [
            Panel { title: "left", logarithmic: false, series: vec![series("one line")] },
            Panel { title: "right", logarithmic: true, series: vec![series("another"), series("a third")] },
        ];
        draw(&path, "As things grow", "things", &panels).expect("drawn");
        let svg = std::fs::read_to_string(&path).expect("written");
        for word in ["As things grow", "left", "right", "things", "one line", "a third"] {
            assert!(svg.contains(word), "{word}");
        }
        assert_eq!(svg.matches("<circle").count(), 9);
    }
}
