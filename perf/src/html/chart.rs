//! One chart as an SVG inside a figure with its title and legend.
//!
//! Owns: how a chart looks. Never: knows what its lines mean.

use super::escaped;
use super::scale::Axis;
use crate::report::Phase;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};
use std::borrow::Cow;

/// A chart; it draws nothing if no line has two points.
#[derive(Debug)]
pub(super) struct Chart<'a> {
    pub title: Cow<'static, str>,
    /// What the reader should know, in a sentence.
    pub caption: &'static str,
    pub x: Axis,
    pub y: Axis,
    pub lines: Vec<Line>,
    /// Bands behind the lines; for charts over time.
    pub phases: &'a [Phase],
}

/// A line of a chart, in values of its axes.
#[derive(Debug)]
pub(super) struct Line {
    pub name: &'static str,
    pub color: RGBColor,
    /// Filled down to the axis.
    pub filled: bool,
    pub points: Vec<(f64, f64)>,
}

impl Line {
    pub(super) fn new(name: &'static str, color: RGBColor, points: Vec<(f64, f64)>) -> Self {
        Self { name, color, filled: false, points }
    }

    pub(super) fn filled(self) -> Self {
        Self { filled: true, ..self }
    }
}

type Context<'a, 'b> = ChartContext<'a, SVGBackend<'b>, Cartesian2d<Axis, Axis>>;
type Drawn = Result<(), Box<dyn std::error::Error>>;

impl Chart<'_> {
    /// The chart as HTML; empty if there is nothing to draw.
    pub(super) fn render(&self) -> Result<String, String> {
        let lines: Vec<_> = self.lines.iter().filter(|line| line.points.len() >= 2).collect();
        if lines.is_empty() {
            return Ok(String::new());
        }
        let mut svg = String::new();
        self.draw(&lines, &mut svg).map_err(|error| format!("{}: {error}", self.title))?;
        let legend: String = lines
            .iter()
            .map(|line| {
                let RGBColor(r, g, b) = line.color;
                let name = escaped(line.name);
                format!("<li><i style=\"background:rgb({r},{g},{b})\"></i>{name}</li>")
            })
            .collect();
        Ok(format!(
            "<figure><figcaption><h3>{}</h3><p>{}</p><ul>{legend}</ul></figcaption>\n\
             {svg}</figure>\n",
            escaped(&self.title),
            escaped(self.caption)
        ))
    }

    fn draw(&self, lines: &[&Line], svg: &mut String) -> Drawn {
        let root = SVGBackend::with_string(svg, SIZE).into_drawing_area();
        let mut chart = ChartBuilder::on(&root)
            .margin(12)
            .margin_right(64)
            .x_label_area_size(80)
            .y_label_area_size(136)
            .build_cartesian_2d(self.x.clone(), self.y.clone())?;
        self.bands(&mut chart)?;
        chart
            .configure_mesh()
            .x_desc(&self.x.title)
            .y_desc(&self.y.title)
            .bold_line_style(GRID)
            .light_line_style(TRANSPARENT)
            .axis_style(AXIS)
            .label_style(text(26))
            .axis_desc_style(text(26))
            .draw()?;
        for line in lines {
            self.line(line, &mut chart)?;
        }
        self.names_of_bands(&mut chart)?;
        root.present()?;
        Ok(())
    }

    fn line(&self, line: &Line, chart: &mut Context<'_, '_>) -> Drawn {
        let points: Vec<_> = line
            .points
            .iter()
            .filter_map(|(x, y)| Some((self.x.position(*x)?, self.y.position(*y)?)))
            .collect();
        if line.filled {
            let area = AreaSeries::new(points.clone(), self.y.range.start, line.color.mix(0.18));
            chart.draw_series(area)?;
        }
        chart.draw_series(LineSeries::new(points, line.color.stroke_width(4)))?;
        Ok(())
    }

    /// Start and end of each phase on the axis, with its name.
    fn spans(&self) -> impl Iterator<Item = (f64, f64, &str)> {
        let end = self.x.range.end;
        let ends = self.phases.iter().skip(1).map(|phase| phase.start_s).chain([end]);
        let spans = self.phases.iter().zip(ends);
        spans
            .map(move |(phase, to)| (phase.start_s.clamp(0.0, end), to.min(end), &*phase.name))
            .filter(|(from, to, _)| from < to)
    }

    /// Every second phase is shaded.
    fn bands(&self, chart: &mut Context<'_, '_>) -> Drawn {
        let (bottom, top) = (self.y.range.start, self.y.range.end);
        let bands = self
            .spans()
            .step_by(2)
            .map(|(from, to, _)| Rectangle::new([(from, top), (to, bottom)], BAND.filled()));
        chart.draw_series(bands)?;
        Ok(())
    }

    /// Where there is room for them, at the top.
    fn names_of_bands(&self, chart: &mut Context<'_, '_>) -> Drawn {
        let width = self.x.range.end - self.x.range.start;
        let style = text(24).pos(Pos::new(HPos::Left, VPos::Top));
        let names = self.spans().filter_map(|(from, to, name)| {
            let room = (to - from) / width * f64::from(SIZE.0);
            let fits = room > 16.0 * name.chars().count() as f64;
            let place = (from, self.y.range.end);
            fits.then(|| {
                EmptyElement::at(place) + Text::new(name.to_owned(), (10, 8), style.clone())
            })
        });
        chart.draw_series(names)?;
        Ok(())
    }
}

fn text(size: u32) -> TextStyle<'static> {
    ("sans-serif", size).into_font().color(&INK)
}

/// The most points worth drawing in one line; of more, the highest of each stretch stay.
pub(super) fn thinned(points: Vec<(f64, f64)>) -> Vec<(f64, f64)> {
    let stretch = points.len().div_ceil(POINTS_MAX).max(1);
    let highest = |points: &[(f64, f64)]| {
        points.iter().copied().max_by(|a, b| a.1.total_cmp(&b.1)).expect("chunks are not empty")
    };
    points.chunks(stretch).map(highest).collect()
}

/// Points of the drawing. The page shows about two in a pixel: plotters rounds to whole points.
const SIZE: (u32, u32) = (1920, 600);
/// More than the pixels of a line, so that nothing visible is lost and a day's run stays small.
const POINTS_MAX: usize = 1500;
const INK: RGBColor = RGBColor(73, 80, 87);
const AXIS: RGBColor = RGBColor(173, 181, 189);
const GRID: RGBColor = RGBColor(233, 236, 239);
const BAND: RGBColor = RGBColor(246, 247, 249);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn thinning_keeps_the_peak_and_the_order(
            ys in prop::collection::vec(0.0f64..1e9, 0..9000),
        ) {
            let points: Vec<_> = ys.iter().enumerate().map(|(x, y)| (x as f64, *y)).collect();
            let thin = thinned(points.clone());
            prop_assert!(thin.len() <= POINTS_MAX);
            let peak = |points: &[(f64, f64)]| points.iter().map(|at| at.1).fold(0.0, f64::max);
            prop_assert_eq!(peak(&thin), peak(&points));
            prop_assert!(thin.windows(2).all(|pair| pair[0].0 < pair[1].0));
            prop_assert!(points.len() > POINTS_MAX || thin == points);
        }
    }
}
