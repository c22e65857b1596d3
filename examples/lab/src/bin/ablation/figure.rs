//! The figure: a bar for every row, with its deviation over the seeds.

use anyhow::{Result, anyhow};
use plotters::{
    coord::Shift,
    prelude::*,
    style::text_anchor::{HPos, Pos, VPos},
};

use crate::{
    results::{Spread, Summary},
    rows::Row,
};

const INK: RGBColor = RGBColor(51, 51, 51);
const GRID: RGBColor = RGBColor(225, 225, 225);
const FULL: RGBColor = RGBColor(31, 87, 180);
const OTHER: RGBColor = RGBColor(150, 176, 219);
/// Pixels: the sheet, the names on its left, a panel, the space right of a panel's bars for their
/// figures.
const WIDTH: i32 = 920;
const NAMES: i32 = 280;
const PANEL: i32 = (WIDTH - NAMES) / 2;
const FIGURES: i32 = 96;
/// Pixels: above the rows, a row, below the rows.
const HEAD: i32 = 70;
const ROW: i32 = 32;
const FOOT: i32 = 34;

type Drawn = std::result::Result<(), Box<dyn std::error::Error>>;
type Sheet<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// Bars of Recall@1 and MRR@10.
pub fn draw(table: &[Summary], dataset: &str) -> Result<String> {
    let height = HEAD + ROW * table.len() as i32 + FOOT;
    let mut svg = String::new();
    paint(&mut svg, table, dataset, height).map_err(|e| anyhow!("cannot draw the figure: {e}"))?;
    let fixed = format!("<svg width=\"{WIDTH}\" height=\"{height}\"");
    let free = "<svg role=\"img\" aria-label=\"Recall and MRR of the ablation's rows\" \
                style=\"width:100%;height:auto\"";
    Ok(svg.replacen(&fixed, free, 1))
}

fn paint(svg: &mut String, table: &[Summary], dataset: &str, height: i32) -> Drawn {
    let sheet = SVGBackend::with_string(svg, (WIDTH as u32, height as u32)).into_drawing_area();
    sheet.fill(&WHITE)?;
    let title = format!("Ablation on {dataset}");
    sheet.draw(&Text::new(title, (WIDTH / 2, 20), style(20, INK, HPos::Center)))?;
    for (at, row) in table.iter().enumerate() {
        let place = (NAMES - 10, middle(at));
        sheet.draw(&Text::new(row.title, place, style(15, INK, HPos::Right)))?;
    }
    panel(&sheet, NAMES, "Recall@1, percent", table, |row| row.recall_at_1)?;
    panel(&sheet, NAMES + PANEL, "MRR@10, percent", table, |row| row.mrr_at_10)?;
    sheet.present()?;
    Ok(())
}

fn panel(
    sheet: &Sheet<'_>,
    left: i32,
    title: &str,
    table: &[Summary],
    value: impl Fn(&Summary) -> Spread,
) -> Drawn {
    let most = |row: &Summary| value(row).mean + value(row).deviation.unwrap_or(0.0);
    let step = step(100.0 * table.iter().map(most).fold(0.0, f64::max));
    let marks = (100.0 * table.iter().map(most).fold(0.0, f64::max) / step).ceil().max(1.0);
    let pixels = f64::from(PANEL - FIGURES) / (marks * step);
    let x = |percent: f64| left + (percent * pixels).round() as i32;
    let bottom = HEAD + ROW * table.len() as i32;
    let place = ((left + x(marks * step)) / 2, HEAD - 20);
    sheet.draw(&Text::new(title.to_string(), place, style(15, INK, HPos::Center)))?;
    for mark in 0..=marks as i32 {
        let percent = f64::from(mark) * step;
        let line = vec![(x(percent), HEAD), (x(percent), bottom)];
        sheet.draw(&PathElement::new(line, if mark == 0 { INK } else { GRID }))?;
        let place = (x(percent), bottom + 14);
        sheet.draw(&Text::new(short(percent), place, style(13, INK, HPos::Center)))?;
    }
    for (at, row) in table.iter().enumerate() {
        let Spread { mean, deviation } = value(row);
        let (mean, y) = (100.0 * mean, middle(at));
        let colour = if row.row == Row::Full { FULL } else { OTHER };
        sheet.draw(&Rectangle::new([(x(0.0), y - 10), (x(mean), y + 10)], colour.filled()))?;
        let mut end = x(mean);
        let mut figure = format!("{mean:.1}");
        if let Some(deviation) = deviation.map(|deviation| 100.0 * deviation) {
            let (low, high) = (x((mean - deviation).max(0.0)), x(mean + deviation));
            for line in [
                [(low, y), (high, y)],
                [(low, y - 5), (low, y + 5)],
                [(high, y - 5), (high, y + 5)],
            ] {
                sheet.draw(&PathElement::new(line.to_vec(), INK.stroke_width(2)))?;
            }
            end = high;
            figure.push_str(&format!(" ± {deviation:.1}"));
        }
        sheet.draw(&Text::new(figure, (end + 6, y), style(14, INK, HPos::Left)))?;
    }
    Ok(())
}

fn middle(row: usize) -> i32 {
    HEAD + ROW * row as i32 + ROW / 2
}

/// A round number that goes into `most` four or five times at most.
fn step(most: f64) -> f64 {
    let steps = [0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0];
    steps.into_iter().find(|step| most / step <= 5.0).unwrap_or(25.0)
}

/// Without digits that say nothing.
fn short(percent: f64) -> String {
    let digits = usize::from(percent.fract() > 1e-9);
    format!("{percent:.digits$}")
}

fn style(size: i32, colour: RGBColor, horizontal: HPos) -> TextStyle<'static> {
    let style = ("sans-serif", size).into_font().color(&colour);
    style.pos(Pos::new(horizontal, VPos::Center))
}
