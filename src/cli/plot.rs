//! The loss curve of a training run, as an SVG chart.

use crate::error::{Error, Result};
use crate::io::write_atomic;
use plotters::prelude::*;
use std::ops::Range;
use std::path::Path;

/// Width and height in pixels.
const SIZE: (u32, u32) = (960, 540);
/// The most points of the training loss; more points are averaged.
const POINTS: usize = 960;
/// The unit of losses.
pub(crate) const LOSS: &str = "loss (nats per token)";
const PALE: RGBColor = RGBColor(0xb9, 0xcd, 0xe6);
const BLUE: RGBColor = RGBColor(0x1f, 0x5f, 0xa8);
const ORANGE: RGBColor = RGBColor(0xd9, 0x5f, 0x02);
const GREY: RGBColor = RGBColor(0x55, 0x55, 0x55);
const LIGHT: RGBColor = RGBColor(0xe6, 0xe6, 0xe6);

/// The data: (step, value) in the order of steps. Values that are not finite leave a gap.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Curve<'a> {
    /// The title of the chart.
    pub(crate) title: &'a str,
    /// What is drawn, for the axis.
    pub(crate) unit: &'a str,
    /// Whether more of it is better.
    pub(crate) rises: bool,
    /// The value of each batch.
    pub(crate) train: &'a [(u64, f64)],
    /// That of held-out text.
    pub(crate) held_out: &'a [(u64, f64)],
}

/// Draws a curve to a file, atomically.
///
/// # Errors
/// [`Error::Input`] if there is no finite point to draw, [`Error::File`] if the file cannot be written.
pub(crate) fn loss_curve(path: &Path, curve: &Curve<'_>) -> Result<()> {
    let mut text = String::new();
    draw(&mut text, curve)?;
    write_atomic(path, text.as_bytes())
}

fn draw(text: &mut String, curve: &Curve<'_>) -> Result<()> {
    let train = averaged(&finite(curve.train));
    let held_out = finite(curve.held_out);
    let (Some(steps), Some(losses)) = (range(&train, &held_out, |p| p.0), range(&train, &held_out, |p| p.1)) else {
        return Err(Error::input("loss curve", "there is no finite loss to draw"));
    };
    let smooth = smoothed(&train);
    let worth = |point: &(f64, f64)| if curve.rises { -point.1 } else { point.1 };
    let best = held_out.iter().copied().min_by(|a, b| worth(a).total_cmp(&worth(b)));
    let drawing = || -> std::result::Result<(), Box<dyn std::error::Error + '_>> {
        let root = SVGBackend::with_string(text, SIZE).into_drawing_area();
        root.fill(&WHITE)?;
        let mut chart = ChartBuilder::on(&root)
            .caption(curve.title, ("sans-serif", 20))
            .margin(16)
            .x_label_area_size(46)
            .y_label_area_size(64)
            .build_cartesian_2d(padded(steps, 0.0, 0.01), padded(losses, 0.05, 0.05))?;
        chart
            .configure_mesh()
            .x_desc("step")
            .y_desc(curve.unit)
            .axis_desc_style(("sans-serif", 15))
            .label_style(("sans-serif", 13))
            .bold_line_style(LIGHT)
            .light_line_style(TRANSPARENT)
            .axis_style(GREY)
            .x_label_formatter(&|step| format!("{step:.0}"))
            .y_label_formatter(&|loss| format!("{loss:.2}"))
            .draw()?;
        if !train.is_empty() {
            chart.draw_series(LineSeries::new(train.iter().copied(), PALE))?;
            let series = chart.draw_series(LineSeries::new(smooth, BLUE.stroke_width(2)))?;
            series.label("training, smoothed").legend(|at| key(at, BLUE));
        }
        if let Some((step, loss)) = best {
            let series = chart.draw_series(LineSeries::new(held_out.iter().copied(), ORANGE.stroke_width(2)))?;
            series.label(format!("held out, best {loss:.3} at step {step:.0}")).legend(|at| key(at, ORANGE));
            chart.draw_series(held_out.iter().map(|&point| Circle::new(point, 3, ORANGE.filled())))?;
        }
        chart
            .configure_series_labels()
            .position(SeriesLabelPosition::UpperRight)
            .background_style(WHITE)
            .border_style(LIGHT)
            .label_font(("sans-serif", 14))
            .draw()?;
        root.present()?;
        Ok(())
    };
    drawing().map_err(|e| Error::input("loss curve", e.to_string()))
}

fn key((x, y): (i32, i32), colour: RGBColor) -> PathElement<(i32, i32)> {
    PathElement::new(vec![(x, y), (x + 18, y)], colour.stroke_width(2))
}

fn finite(points: &[(u64, f64)]) -> Vec<(f64, f64)> {
    points.iter().filter(|p| p.1.is_finite()).map(|&(step, loss)| (step as f64, loss)).collect()
}

/// Averages neighbours, so that at most [`POINTS`] are left.
fn averaged(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let group = points.len().div_ceil(POINTS).max(1);
    let mean = |c: &[(f64, f64)], of: fn(&(f64, f64)) -> f64| c.iter().map(of).sum::<f64>() / c.len() as f64;
    points.chunks(group).map(|c| (mean(c, |p| p.0), mean(c, |p| p.1))).collect()
}

/// Averages each point with its neighbours, the same number on both sides (so that the curve does not lag): a fiftieth of all, fewer at the
/// ends.
fn smoothed(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let reach = points.len() / 100;
    (0..points.len())
        .map(|at| {
            let side = reach.min(at).min(points.len() - 1 - at);
            let near = &points[at - side..=at + side];
            (points[at].0, near.iter().map(|p| p.1).sum::<f64>() / near.len() as f64)
        })
        .collect()
}

/// The smallest and largest value over both curves.
fn range(a: &[(f64, f64)], b: &[(f64, f64)], of: fn(&(f64, f64)) -> f64) -> Option<Range<f64>> {
    let values = || a.iter().chain(b).map(of);
    let (low, high) = (values().reduce(f64::min)?, values().reduce(f64::max)?);
    Some(low..high)
}

/// A range extended below and above, never empty.
fn padded(range: Range<f64>, below: f64, above: f64) -> Range<f64> {
    let width = (range.end - range.start).max(range.end.abs() * 1e-3).max(1e-3);
    range.start - below * width..range.end + above * width
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(steps: u64) -> (Vec<(u64, f64)>, Vec<(u64, f64)>) {
        let noise = |s: u64| ((s.wrapping_mul(2_654_435_761) >> 7) % 1000) as f64 / 1000.0 - 0.5;
        let loss = |s: u64| 1.4 + 4.1 * (-(s as f64) / 250.0).exp();
        let train = (1..=steps).map(|s| (s, loss(s) + 0.3 * noise(s))).collect();
        let held_out = (0..=steps).step_by(100).map(|s| (s, loss(s) + 0.1 + (s as f64 / 4000.0).powi(2))).collect();
        (train, held_out)
    }

    #[test]
    fn the_picture_has_both_curves_axes_and_the_best_loss() {
        let (train, held_out) = run(2000);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("loss.svg");
        let title = "gpt2, 0.8 M parameters, <persuasion.txt>";
        let curve = Curve { title, unit: LOSS, rises: false, train: &train, held_out: &held_out };
        loss_curve(&path, &curve).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        let best = held_out.iter().min_by(|a, b| a.1.total_cmp(&b.1)).unwrap();
        for part in ["<svg", "</svg>", "step", "loss (nats per token)", "training, smoothed", "&lt;persuasion"] {
            assert!(text.contains(part), "no {part}");
        }
        assert!(text.contains(&format!("held out, best {:.3} at step {}", best.1, best.0)));
        assert!(text.matches("<circle").count() >= held_out.len());
        assert!(text.matches("<polyline").count() >= 3);
        if let Ok(keep) = std::env::var("WGFORMER_KEEP_PLOT") {
            std::fs::copy(&path, keep).unwrap();
        }
    }

    #[test]
    fn strange_runs_are_drawn_or_refused() {
        let nothing = Curve { title: "", unit: LOSS, rises: false, train: &[], held_out: &[(0, f64::NAN)] };
        assert!(draw(&mut String::new(), &nothing).unwrap_err().to_string().contains("no finite loss"));
        let long: Vec<(u64, f64)> = (0..100_000).map(|s| (s, 3.0)).collect();
        for (train, held_out) in [
            (&[(5u64, 2.0)][..], &[][..]),
            (&[], &[(0, 0.0)]),
            (&[(0, 1e30), (1, f64::INFINITY), (2, -1e30)], &[(u64::MAX, 1.0)]),
            (&long, &[]),
        ] {
            let mut text = String::new();
            draw(&mut text, &Curve { title: "t", unit: LOSS, rises: true, train, held_out }).unwrap();
            assert!(
                text.ends_with("</svg>\n") && !text.contains("NaN") && text.len() < 100_000,
                "{} bytes",
                text.len()
            );
        }
    }

    #[test]
    fn a_constant_loss_stays_what_it_is_when_smoothed() {
        let points: Vec<(f64, f64)> = (0..3000).map(|s| (f64::from(s), 2.5)).collect();
        let drawn = averaged(&points);
        assert!(drawn.len() <= POINTS && drawn.len() > POINTS / 2);
        assert!(smoothed(&drawn).iter().all(|p| (p.1 - 2.5).abs() < 1e-12));
    }
}
