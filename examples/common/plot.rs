//! The plot of a training run, as SVG.

use anyhow::{Result, anyhow};
use plotters::{
    coord::Shift,
    prelude::*,
    style::text_anchor::{HPos, Pos, VPos},
};

/// The loss at one step.
#[derive(Debug, Clone, Copy)]
pub struct LossPoint {
    pub step: usize,
    pub loss: f64,
}

/// Recall, 0 to 1, at one step.
#[derive(Debug, Clone, Copy)]
pub struct RecallPoint {
    pub step: usize,
    pub recall_at_1: f64,
    pub recall_at_10: f64,
}

const SIZE: (u32, u32) = (920, 340);
const INK: RGBColor = RGBColor(51, 51, 51);
const GRID: RGBColor = RGBColor(225, 225, 225);
const LOSS: RGBColor = RGBColor(31, 87, 180);
const AT_1: RGBColor = RGBColor(178, 58, 20);
const AT_10: RGBColor = RGBColor(18, 122, 85);

/// Two panels, loss and recall over steps, on a white sheet that is readable on any page.
pub fn training_svg(losses: &[LossPoint], recalls: &[RecallPoint]) -> Result<String> {
    let mut svg = String::new();
    draw(&mut svg, losses, recalls).map_err(|error| anyhow!("cannot draw the plot: {error}"))?;
    Ok(fluid(svg))
}

type Drawn<T = ()> = std::result::Result<T, Box<dyn std::error::Error>>;
type Sheet<'a> = DrawingArea<SVGBackend<'a>, Shift>;

fn draw(svg: &mut String, losses: &[LossPoint], recalls: &[RecallPoint]) -> Drawn {
    let root = SVGBackend::with_string(svg, SIZE).into_drawing_area();
    root.fill(&WHITE)?;
    let (left, right) = root.split_horizontally(SIZE.0 / 2);

    let finite = losses.iter().filter(|point| point.loss.is_finite());
    let loss: Vec<_> = finite.map(|point| (point.step as f64, point.loss)).collect();
    let top = loss.iter().map(|point| point.1).fold(0.0, f64::max);
    let top = if top > 0.0 { top * 1.05 } else { 1.0 };
    panel(&left, "Training loss", top, &[Line { name: "loss", colour: LOSS, points: loss }])?;

    let at_1 = recalls.iter().map(|point| (point.step as f64, point.recall_at_1)).collect();
    let at_10 = recalls.iter().map(|point| (point.step as f64, point.recall_at_10)).collect();
    let lines = [
        Line { name: "Recall@10", colour: AT_10, points: at_10 },
        Line { name: "Recall@1", colour: AT_1, points: at_1 },
    ];
    panel(&right, "Recall on held-out queries", 1.0, &lines)?;
    root.present()?;
    Ok(())
}

struct Line {
    name: &'static str,
    colour: RGBColor,
    points: Vec<(f64, f64)>,
}

fn panel(sheet: &Sheet<'_>, title: &str, top: f64, lines: &[Line]) -> Drawn {
    let last = lines.iter().flat_map(|line| &line.points).map(|point| point.0).fold(1.0, f64::max);
    let mut chart = ChartBuilder::on(sheet)
        .caption(title, ("sans-serif", 20).into_font().color(&INK))
        .margin(10)
        .margin_right(26)
        .x_label_area_size(42)
        .y_label_area_size(46)
        .build_cartesian_2d(0.0..last, 0.0..top)?;
    chart
        .configure_mesh()
        .disable_x_mesh()
        .bold_line_style(GRID)
        .light_line_style(TRANSPARENT)
        .axis_style(INK)
        .x_labels(6)
        .y_labels(6)
        .x_label_formatter(&|step| short(*step))
        .y_label_formatter(&|value| decimal(*value, top))
        .x_desc("step")
        .label_style(("sans-serif", 16).into_font().color(&INK))
        .draw()?;
    for line in lines {
        chart.draw_series(LineSeries::new(line.points.clone(), line.colour.stroke_width(2)))?;
        if line.points.len() == 1 {
            let dot = |&point| Circle::new(point, 3, line.colour.filled());
            chart.draw_series(line.points.iter().map(dot))?;
        }
    }
    if lines.iter().all(|line| line.points.is_empty()) {
        let style = label(INK, HPos::Center);
        chart.draw_series([Text::new("nothing measured yet", (last / 2.0, top / 2.0), style)])?;
    } else if lines.len() > 1 {
        for (i, line) in lines.iter().enumerate() {
            // A key in the lower right corner: recall rises, so that corner is free.
            let y = top * (0.16 - 0.08 * i as f64);
            let stroke = [(last * 0.72, y), (last * 0.78, y)];
            chart.draw_series(LineSeries::new(stroke, line.colour.stroke_width(3)))?;
            let style = label(line.colour, HPos::Left);
            chart.draw_series([Text::new(line.name, (last * 0.8, y), style)])?;
        }
    }
    Ok(())
}

fn label(colour: RGBColor, horizontal: HPos) -> TextStyle<'static> {
    ("sans-serif", 16).into_font().color(&colour).pos(Pos::new(horizontal, VPos::Center))
}

/// 1500 is "1.5k".
fn short(step: f64) -> String {
    match step {
        step if step >= 1e6 => format!("{}M", (step / 1e5).round() / 10.0),
        step if step >= 1e3 => format!("{}k", (step / 1e2).round() / 10.0),
        step => format!("{}", (step * 10.0).round() / 10.0),
    }
}

/// As many digits as the range needs.
fn decimal(value: f64, top: f64) -> String {
    let digits = if top >= 5.0 {
        0
    } else if top >= 0.5 {
        1
    } else {
        3
    };
    format!("{value:.digits$}")
}

/// Lets the page choose the width, and names the picture for readers who do not see it.
fn fluid(svg: String) -> String {
    let (width, height) = SIZE;
    let fixed = format!("<svg width=\"{width}\" height=\"{height}\"");
    let free = "<svg role=\"img\" aria-label=\"Training loss and recall over steps\" \
                style=\"width:100%;height:auto\"";
    svg.replacen(&fixed, free, 1)
}
