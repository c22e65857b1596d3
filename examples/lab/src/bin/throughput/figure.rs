//! The figure: queries a second against candidates, both in powers of ten.

use anyhow::{Result, anyhow};
use plotters::{
    prelude::*,
    style::text_anchor::{HPos, Pos, VPos},
};

use crate::Row;

const SIZE: (u32, u32) = (860, 520);
const INK: RGBColor = RGBColor(51, 51, 51);
const GRID: RGBColor = RGBColor(225, 225, 225);
const COLOURS: [RGBColor; 6] = [
    RGBColor(178, 58, 20),
    RGBColor(224, 130, 60),
    RGBColor(31, 87, 180),
    RGBColor(18, 122, 85),
    RGBColor(120, 60, 150),
    RGBColor(90, 90, 90),
];

/// Candidates and queries a second of every method, in the order of the table.
fn lines(table: &[Row], batch: usize) -> Vec<(String, Vec<(f64, f64)>)> {
    let mut lines: Vec<(String, Vec<(f64, f64)>)> = Vec::new();
    for row in table.iter().filter(|row| row.batch == batch) {
        let point = (row.candidates as f64, row.queries_per_second);
        match lines.iter_mut().find(|line| line.0 == row.method) {
            Some(line) => line.1.push(point),
            None => lines.push((row.method.clone(), vec![point])),
        }
    }
    lines
}

/// Where CART becomes faster than the flat scan: between which sizes, and about where.
pub fn crossings(table: &[Row], batch: usize) -> Vec<String> {
    let lines = lines(table, batch);
    let Some((_, flat)) = lines.iter().find(|line| line.0.contains("flat")) else {
        return Vec::new();
    };
    lines
        .iter()
        .filter(|line| line.0.starts_with("CART"))
        .map(|(name, cart)| {
            // How many times as fast as the scan, by size.
            let ratios: Vec<(f64, f64)> = cart
                .iter()
                .filter_map(|&(n, rate)| {
                    flat.iter().find(|other| other.0 == n).map(|other| (n, rate / other.1))
                })
                .collect();
            let crossing = ratios.windows(2).find(|pair| pair[0].1 < 1.0 && pair[1].1 >= 1.0);
            match crossing {
                Some(pair) => {
                    // Straight in logarithms.
                    let [(n, a), (m, b)] = [pair[0], pair[1]];
                    let at = (n.ln() + (m / n).ln() * a.ln() / (a.ln() - b.ln())).exp();
                    format!(
                        "{name}, batch {batch}: faster than the flat scan from about {at:.0} \
                         candidates (measured at {n} and {m})"
                    )
                }
                None => {
                    format!("{name}, batch {batch}: no crossing among these sizes: {ratios:.2?}")
                }
            }
        })
        .collect()
}

/// The figure of one batch size.
pub fn draw(table: &[Row], batch: usize, hardware: &str) -> Result<String> {
    let mut svg = String::new();
    paint(&mut svg, &lines(table, batch), batch, hardware)
        .map_err(|error| anyhow!("cannot draw the figure: {error}"))?;
    let (width, height) = SIZE;
    let fixed = format!("<svg width=\"{width}\" height=\"{height}\"");
    let free = "<svg role=\"img\" aria-label=\"Queries a second against candidates\" \
                style=\"width:100%;height:auto\"";
    Ok(svg.replacen(&fixed, free, 1))
}

fn paint(
    svg: &mut String,
    lines: &[(String, Vec<(f64, f64)>)],
    batch: usize,
    hardware: &str,
) -> std::result::Result<(), Box<dyn std::error::Error>> {
    let points = || lines.iter().flat_map(|line| &line.1);
    let (left, right) =
        points().fold((f64::MAX, 1.0), |(lo, hi): (f64, f64), p| (lo.min(p.0), hi.max(p.0)));
    let (low, high) =
        points().fold((f64::MAX, 1.0), |(lo, hi): (f64, f64), p| (lo.min(p.1), hi.max(p.1)));
    let root = SVGBackend::with_string(svg, SIZE).into_drawing_area();
    root.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&root)
        .caption(
            format!("Queries a second, {batch} at once, text encoder included"),
            ("sans-serif", 20).into_font().color(&INK),
        )
        .margin(12)
        .margin_right(230)
        .x_label_area_size(64)
        .y_label_area_size(60)
        .build_cartesian_2d(
            (left / 1.3..right * 1.3).log_scale(),
            (low / 1.5..high * 1.5).log_scale(),
        )?;
    chart
        .configure_mesh()
        .bold_line_style(GRID)
        .light_line_style(TRANSPARENT)
        .axis_style(INK)
        .x_desc(format!("candidates ({hardware})"))
        .y_desc("queries a second")
        .x_label_formatter(&|n| short(*n))
        .y_label_formatter(&|n| short(*n))
        .label_style(("sans-serif", 15).into_font().color(&INK))
        .draw()?;
    // Names at the ends of their lines, at least a line of text apart.
    let mut ends: Vec<(usize, f64)> = lines
        .iter()
        .enumerate()
        .filter_map(|(at, line)| line.1.last().map(|point| (at, point.1)))
        .collect();
    ends.sort_by(|a, b| b.1.total_cmp(&a.1));
    let mut above = i32::MIN;
    for (at, last) in ends {
        let (name, points) = &lines[at];
        let colour = COLOURS[at % COLOURS.len()];
        chart.draw_series(LineSeries::new(points.clone(), colour.stroke_width(2)))?;
        chart.draw_series(points.iter().map(|&point| Circle::new(point, 3, colour.filled())))?;
        let x = points.last().map_or(left, |point| point.0);
        let (px, py) = chart.backend_coord(&(x, last));
        // A line that ends early would have the others run through its name.
        let y = if x < right { py + 16 } else { py.max(above.saturating_add(18)) };
        above = if x < right { above } else { y };
        let style = ("sans-serif", 15).into_font().color(&colour);
        root.draw(&Text::new(
            name.clone(),
            (px + 10, y),
            style.pos(Pos::new(HPos::Left, VPos::Center)),
        ))?;
    }
    root.present()?;
    Ok(())
}

/// 1500 is "1.5k".
fn short(value: f64) -> String {
    match value {
        value if value >= 1e6 => format!("{}M", (value / 1e5).round() / 10.0),
        value if value >= 1e3 => format!("{}k", (value / 1e2).round() / 10.0),
        value => format!("{}", (value * 10.0).round() / 10.0),
    }
}
