//! The charts of a benchmark's page, as SVG.

use super::bench::{percent, rate, seconds};
use crate::bench::{Bound, Ceilings, KernelShare, Kind, Report, Row, Scaling};
use crate::error::{Error, Result};
use plotters::coord::Shift;
use plotters::coord::combinators::{BindKeyPoints, LogCoord, WithKeyPoints};
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};
use std::ops::Range;

/// Width of every chart in pixels.
const WIDTH: u32 = 960;
/// Height of a bar with its gap.
const BAR: i32 = 26;
/// The left end of bars; names are left of it.
const LEFT: i32 = 270;
/// The right end of the longest bars; figures are right of it.
const RIGHT: i32 = 790;
const BLUE: RGBColor = RGBColor(0x1f, 0x5f, 0xa8);
const ORANGE: RGBColor = RGBColor(0xd9, 0x5f, 0x02);
const GREEN: RGBColor = RGBColor(0x1b, 0x8a, 0x6b);
const INK: RGBColor = RGBColor(0x26, 0x2b, 0x33);
const GREY: RGBColor = RGBColor(0x6b, 0x72, 0x80);
const LIGHT: RGBColor = RGBColor(0xe5, 0xe7, 0xeb);
/// Colours of curves.
const SERIES: [RGBColor; 6] = [INK, BLUE, ORANGE, GREEN, RGBColor(0x8e, 0x44, 0xad), RGBColor(0xb0, 0x3a, 0x48)];
const FONT: &str = "sans-serif";

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Drawn = std::result::Result<(), Box<dyn std::error::Error>>;

/// Axes and grid, the same in all charts.
macro_rules! mesh {
    ($chart:ident, $across:expr, $up:expr, $x:expr, $y:expr) => {
        $chart
            .configure_mesh()
            .x_desc($across)
            .y_desc($up)
            .axis_desc_style((FONT, 15))
            .label_style((FONT, 13))
            .bold_line_style(LIGHT)
            .light_line_style(TRANSPARENT)
            .axis_style(GREY)
            .x_label_formatter($x)
            .y_label_formatter($y)
            .draw()?
    };
}

/// Draws on a white area of the given height.
fn svg(height: u32, draw: impl FnOnce(&Area<'_>) -> Drawn) -> Result<String> {
    let mut text = String::new();
    let area = SVGBackend::with_string(&mut text, (WIDTH, height)).into_drawing_area();
    let drawn = area.fill(&WHITE).map_err(Into::into).and_then(|()| draw(&area));
    drawn.and_then(|()| Ok(area.present()?)).map_err(|e| Error::input("picture", e.to_string()))?;
    drop(area);
    Ok(text)
}

fn style(size: i32, colour: RGBColor, across: HPos, down: VPos) -> TextStyle<'static> {
    (FONT, size).into_font().color(&colour).pos(Pos::new(across, down))
}

/// The colour of a bound.
pub(super) fn colour(bound: Bound) -> RGBColor {
    match bound {
        Bound::Arithmetic => BLUE,
        Bound::Memory => ORANGE,
    }
}

/// A bar with a name, a length between 0 and 1, a colour, and a figure after it.
struct Bar {
    name: String,
    length: f64,
    colour: RGBColor,
    figure: String,
}

fn bars(bars: &[Bar], marks: bool) -> Result<String> {
    let top = if marks { 30 } else { 8 };
    let height = top + BAR * bars.len() as i32 + 8;
    let at = |length: f64| LEFT + (length.clamp(0.0, 1.0) * f64::from(RIGHT - LEFT)) as i32;
    svg(height as u32, |area| {
        if marks {
            for step in 0..=4 {
                let x = at(f64::from(step) / 4.0);
                area.draw(&PathElement::new([(x, top - 6), (x, height - 6)], LIGHT))?;
                let label = format!("{} %", 25 * step);
                area.draw(&Text::new(label, (x, 10), style(13, GREY, HPos::Center, VPos::Center)))?;
            }
        }
        for (index, bar) in bars.iter().enumerate() {
            let y = top + BAR * index as i32;
            let middle = y + BAR / 2;
            // A bar of length zero is still visible.
            let end = at(bar.length).max(LEFT + 1);
            area.draw(&Rectangle::new([(LEFT, y + 4), (end, y + BAR - 4)], bar.colour.filled()))?;
            let name = style(14, INK, HPos::Right, VPos::Center);
            area.draw(&Text::new(bar.name.clone(), (LEFT - 10, middle), name))?;
            let figure = style(13, GREY, HPos::Left, VPos::Center);
            area.draw(&Text::new(bar.figure.clone(), (end + 8, middle), figure))?;
        }
        Ok(())
    })
}

/// The share of the ceiling of every row.
pub(super) fn shares(rows: &[Row]) -> Result<String> {
    let bar = |row: &Row| Bar {
        name: row.name.clone(),
        length: row.share,
        colour: colour(row.bound),
        figure: format!("{} · {}", percent(row.share), rate(row.rate, &row.unit)),
    };
    bars(&rows.iter().map(bar).collect::<Vec<_>>(), true)
}

/// The time of each kernel of a step, the longest ones.
pub(super) fn kernels(kernels: &[KernelShare]) -> Result<String> {
    let most = kernels.first().map_or(1.0, |kernel| kernel.share);
    let bar = |kernel: &KernelShare| Bar {
        name: format!("{} × {}", kernel.launches, kernel.kernel),
        length: kernel.share / most,
        colour: GREEN,
        figure: format!("{} · {}", percent(kernel.share), seconds(kernel.seconds)),
    };
    bars(&kernels.iter().take(16).map(bar).collect::<Vec<_>>(), false)
}

/// The roofline: operations per second by operations per byte, with the ceilings as the roof and kernels below it. A kernel's height is its
/// share of the roof, so that the load of the machine does not move it.
pub(super) fn roofline(report: &Report) -> Result<Option<String>> {
    let shown: Vec<(&Row, f64, f64)> = report
        .rows
        .iter()
        .filter(|row| row.flops > 0.0 && row.kind == Kind::Kernel)
        .map(|r| point(report, r))
        .collect();
    if shown.is_empty() {
        return Ok(None);
    }
    let roof = |intensity: f64| roof(&report.ceilings, intensity);
    let intensities = wider(range(shown.iter().map(|s| s.1)), 2.5);
    let rates = wider(range(shown.iter().map(|s| s.2).chain([roof(intensities.end)])), 2.5);
    let picture = svg(600, |area| {
        let mut chart = ChartBuilder::on(area)
            .margin(12)
            .x_label_area_size(46)
            .y_label_area_size(96)
            .build_cartesian_2d(axis(intensities.clone(), ticks(&intensities)), axis(rates.clone(), ticks(&rates)))?;
        mesh!(chart, "operations per byte", "operations per second", &|v| plain(*v), &|v| rate(*v, "flop/s"));
        let ridge = report.ceilings.arithmetic.per_second / report.ceilings.memory.per_second;
        let xs = [intensities.start, ridge.clamp(intensities.start, intensities.end), intensities.end];
        chart.draw_series(LineSeries::new(xs.map(|x| (x, roof(x))), GREY.stroke_width(3)))?;
        chart.draw_series(shown.iter().map(|(row, x, y)| Circle::new((*x, *y), 5, colour(row.bound).filled())))?;
        let points: Vec<(i32, i32)> = shown.iter().map(|(_, x, y)| chart.backend_coord(&(*x, *y))).collect();
        let names: Vec<&str> = shown.iter().map(|(row, ..)| row.name.as_str()).collect();
        let placed = labels(&names, &points).into_iter().zip(points);
        for ((name, (row, ..)), ((at, across), point)) in names.iter().zip(&shown).zip(placed) {
            let colour = colour(row.bound);
            area.draw(&Text::new((*name).to_owned(), at, style(LABEL, colour, across, VPos::Center)))?;
            if at.1 != point.1 {
                area.draw(&PathElement::new([point, at], colour.mix(0.4)))?;
            }
        }
        Ok(())
    })?;
    Ok(Some(picture))
}

/// A row with its operations per byte, and the operations per second at which it is drawn.
fn point<'a>(report: &Report, row: &'a Row) -> (&'a Row, f64, f64) {
    let intensity = row.flops / row.bytes;
    (row, intensity, row.share * roof(&report.ceilings, intensity))
}

fn roof(ceilings: &Ceilings, intensity: f64) -> f64 {
    ceilings.arithmetic.per_second.min(intensity * ceilings.memory.per_second)
}

/// Size of the labels of points.
const LABEL: i32 = 12;

/// The position and anchor of each point's label: next to the point, where it covers no point and no earlier label.
fn labels(names: &[&str], points: &[(i32, i32)]) -> Vec<((i32, i32), HPos)> {
    let mut taken: Vec<[i32; 4]> = points.iter().map(|&(x, y)| [x - 6, y - 6, x + 6, y + 6]).collect();
    let mut found = Vec::with_capacity(points.len());
    for (name, &(x, y)) in names.iter().zip(points) {
        let width = name.chars().count() as i32 * 13 / 2;
        let spots = (0..12).flat_map(|ring| {
            let shift = (ring + 1) / 2 * (LABEL + 2) * if ring % 2 == 0 { 1 } else { -1 };
            [((x + 10, y + shift), HPos::Left), ((x - 10, y + shift), HPos::Right)]
        });
        let area = |spot: &((i32, i32), HPos)| {
            let left = if matches!(spot.1, HPos::Left) { spot.0.0 } else { spot.0.0 - width };
            [left, spot.0.1 - LABEL / 2 - 1, left + width, spot.0.1 + LABEL / 2 + 1]
        };
        let apart = |a: &[i32; 4], b: &[i32; 4]| a[2] <= b[0] || b[2] <= a[0] || a[3] <= b[1] || b[3] <= a[1];
        let inside = |a: &[i32; 4]| a[0] >= 110 && a[2] <= WIDTH as i32 - 8 && a[1] >= 8 && a[3] <= 540;
        let free = |spot: &((i32, i32), HPos)| {
            let area = area(spot);
            inside(&area) && taken.iter().all(|other| apart(&area, other))
        };
        let spot = spots.clone().find(free).unwrap_or(((x + 10, y), HPos::Left));
        taken.push(area(&spot));
        found.push(spot);
    }
    found
}

/// Seconds per token by length: total, attention, the rest; scaled to the machine's speed at the first measurement.
pub(super) fn lengths(scaling: &Scaling) -> Result<String> {
    let points = &scaling.lengths;
    let series = |of: fn(&crate::bench::LengthPoint) -> f64| -> Vec<(f64, f64)> {
        points.iter().map(|p| (p.tokens as f64, p.steady() * of(p))).collect()
    };
    let marks = points.iter().map(|p| p.tokens as f64).collect();
    lines(
        &Axis::new("tokens of the sequence", marks, plain),
        &Axis::new("time per token", Vec::new(), seconds),
        &[
            ("total", INK, series(|p| p.attention + p.rest)),
            ("attention", BLUE, series(|p| p.attention)),
            ("the rest", GREEN, series(|p| p.rest)),
        ],
    )
}

/// Seconds per parameter by d_model, scaled likewise.
pub(super) fn widths(scaling: &Scaling) -> Result<String> {
    let points = scaling.widths.iter().map(|p| (p.d_model as f64, p.steady() * p.per_parameter)).collect();
    let marks = scaling.widths.iter().map(|p| p.d_model as f64).collect();
    let across = Axis::new("d_model", marks, plain);
    lines(&across, &Axis::new("time per parameter", Vec::new(), seconds), &[("a step", BLUE, points)])
}

/// An axis of curves.
struct Axis<'a> {
    label: &'a str,
    /// The values of marks; powers of ten and values between them if empty.
    marks: Vec<f64>,
    write: fn(f64) -> String,
}

impl<'a> Axis<'a> {
    fn new(label: &'a str, marks: Vec<f64>, write: fn(f64) -> String) -> Self {
        Self { label, marks, write }
    }

    /// The factor of space above and below: small if marks are close.
    fn room(&self) -> f64 {
        if self.marks.is_empty() { 1.6 } else { 1.03 }
    }

    fn marks(&self, range: &Range<f64>) -> Vec<f64> {
        if self.marks.is_empty() { ticks(range) } else { self.marks.clone() }
    }
}

fn lines(across: &Axis<'_>, up: &Axis<'_>, series: &[(&str, RGBColor, Vec<(f64, f64)>)]) -> Result<String> {
    let all = || series.iter().flat_map(|(_, _, points)| points.iter().copied());
    let (xs, ys) = (wider(range(all().map(|p| p.0)), 1.15), wider(range(all().map(|p| p.1)), up.room()));
    let (x_marks, y_marks) = (across.marks(&xs), up.marks(&ys));
    svg(380, |area| {
        let mut chart = ChartBuilder::on(area)
            .margin(12)
            .margin_right(210)
            .x_label_area_size(46)
            .y_label_area_size(96)
            .build_cartesian_2d(axis(xs, x_marks), axis(ys, y_marks))?;
        mesh!(chart, across.label, up.label, &|v| (across.write)(*v), &|v| (up.write)(*v));
        let mut ends = Vec::new();
        for (name, colour, points) in series {
            chart.draw_series(LineSeries::new(points.iter().copied(), colour.stroke_width(2)))?;
            chart.draw_series(points.iter().map(|&point| Circle::new(point, 4, colour.filled())))?;
            ends.extend(points.last().map(|point| (chart.backend_coord(point), *name, *colour)));
        }
        ends.sort_by_key(|((_, y), ..)| *y);
        let mut free = 0;
        for ((x, y), name, colour) in ends {
            let y = y.max(free);
            free = y + 16;
            area.draw(&Text::new(name.to_owned(), (x + 12, y), style(14, colour, HPos::Left, VPos::Center)))?;
        }
        Ok(())
    })
}

/// Several curves on logarithmic axes, each with its name at its end.
pub(super) fn curves(across: &str, up: &str, all: &[(String, Vec<(f64, f64)>)]) -> Result<String> {
    let series: Vec<(&str, RGBColor, Vec<(f64, f64)>)> = all
        .iter()
        .enumerate()
        .map(|(index, (name, points))| (name.as_str(), SERIES[index % SERIES.len()], points.clone()))
        .collect();
    // Losses are close to each other: marks between the powers of ten.
    let values = all.iter().flat_map(|(_, points)| points.iter().map(|point| point.1));
    let range = range(values);
    let step = ((range.end - range.start) / 5.0).max(1e-3);
    let step = [0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0].into_iter().find(|nice| *nice >= step).unwrap_or(step);
    let first = (range.start / step).floor() as i64;
    let marks = (first..first + 8).map(|i| i as f64 * step).filter(|mark| *mark > 0.0).collect();
    let across = Axis::new(across, Vec::new(), |value| format!("{value:.0e}"));
    lines(&across, &Axis::new(up, marks, |value| format!("{value:.2}")), &series)
}

/// A logarithmic axis with marks at given values.
fn axis(range: Range<f64>, marks: Vec<f64>) -> WithKeyPoints<LogCoord<f64>> {
    LogCoord::from(range.log_scale()).with_key_points(marks)
}

/// Values of marks in a range: powers of ten, also times 2 and 5 if the range is short.
fn ticks(range: &Range<f64>) -> Vec<f64> {
    let factors: &[f64] = if range.end / range.start > 1e3 { &[1.0] } else { &[1.0, 2.0, 5.0] };
    let powers = range.start.log10().floor() as i32..=range.end.log10().ceil() as i32;
    let all = powers.flat_map(|power| factors.iter().map(move |factor| factor * 10_f64.powi(power)));
    all.filter(|value| range.contains(value)).collect()
}

fn plain(value: f64) -> String {
    if value >= 1.0 { format!("{value:.0}") } else { format!("{value}") }
}

fn range(values: impl Iterator<Item = f64>) -> Range<f64> {
    let (low, high) = values.fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), v| (l.min(v), h.max(v)));
    low..high
}

/// A range of positive numbers, extended on both sides by a factor.
fn wider(range: Range<f64>, factor: f64) -> Range<f64> {
    let low = if range.start.is_finite() && range.start > 0.0 { range.start } else { 1.0 };
    let high = if range.end.is_finite() && range.end >= low { range.end } else { low };
    low / factor..high * factor
}
