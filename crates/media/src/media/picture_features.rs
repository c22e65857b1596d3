//! A built-in descriptor of pictures: colours and edge directions by place, nothing learned.

use std::{f32::consts::PI, sync::LazyLock};

use super::Picture;

/// Cells along each side of the grid of colours.
const COLOUR_GRID: usize = 6;
/// Cells along each side of the grid of edges.
const EDGE_GRID: usize = 3;
/// Basic colours.
pub(super) const COLOURS: usize = 12;
/// Directions of edges.
pub(super) const DIRECTIONS: usize = 12;
/// Steps of each channel in the table of soft colours.
const STEPS: usize = 32;

const COLOUR_CELLS: usize = COLOUR_GRID * COLOUR_GRID * COLOURS;
const EDGE_CELLS: usize = EDGE_GRID * EDGE_GRID * DIRECTIONS;

/// Width of what [`picture_features`] returns.
pub const PICTURE_FEATURES: usize = COLOUR_CELLS + EDGE_CELLS + COLOURS + DIRECTIONS;

/// Typical black, grey, white, red, orange, yellow, green, turquoise, blue, purple, pink, brown.
const BASIC: [[f32; 3]; COLOURS] = [
    [15.0, 15.0, 15.0],
    [140.0, 140.0, 140.0],
    [245.0, 245.0, 245.0],
    [205.0, 30.0, 35.0],
    [240.0, 135.0, 30.0],
    [245.0, 220.0, 50.0],
    [50.0, 150.0, 60.0],
    [60.0, 190.0, 200.0],
    [40.0, 80.0, 200.0],
    [125.0, 50.0, 165.0],
    [245.0, 140.0, 185.0],
    [115.0, 70.0, 40.0],
];

/// How much each quantized colour is each basic colour; rows sum to 1.
static SOFT: LazyLock<Vec<[f32; COLOURS]>> = LazyLock::new(|| {
    let middle = |step: usize| (step as f32 + 0.5) * 256.0 / STEPS as f32;
    let soften = |index: usize| {
        let rgb = [index / (STEPS * STEPS), index / STEPS % STEPS, index % STEPS].map(middle);
        let weights = BASIC.map(|basic| {
            let square: f32 = rgb.iter().zip(basic).map(|(a, b)| (a - b) * (a - b)).sum();
            // Nearest neighbours in `BASIC` are about 80 apart.
            (-square / (2.0 * 36.0 * 36.0)).exp() + 1e-9
        });
        let sum: f32 = weights.iter().sum();
        weights.map(|weight| weight / sum)
    };
    (0..STEPS * STEPS * STEPS).map(soften).collect()
});

/// Describes a picture by its colours and edges, whatever its size.
///
/// Four parts, each between 0 and about 1: shares of 12 soft basic colours in a grid of 6 by 6
/// overlapping cells; edges by 12 directions in a grid of 3 by 3; both again for the whole picture.
/// Square roots are taken of all shares (the Hellinger map), so that Euclidean distance compares
/// histograms well and small objects count beside a large background. The soft colours follow the
/// idea of colour names (van de Weijer et al., "Learning Color Names for Real-World Applications",
/// 2009), the edges that of oriented histograms (Dalal and Triggs, "Histograms of Oriented
/// Gradients for Human Detection", 2005).
///
/// # Shapes
/// - returns: `[PICTURE_FEATURES]`
///
/// # Example
/// ```
/// use cart_media::{PICTURE_FEATURES, Picture, picture_features};
///
/// let grey = Picture::new(40, 30, vec![128; 40 * 30 * 3])?;
/// let features = picture_features(&grey);
/// assert_eq!(features.len(), PICTURE_FEATURES);
/// assert!(features.iter().all(|value| (0.0..=1.5).contains(value)));
/// # Ok::<(), cart_retrieval::Error>(())
/// ```
pub fn picture_features(picture: &Picture) -> Vec<f32> {
    let colours = colour_cells(picture);
    let edges = edge_cells(picture);

    let mut features = Vec::with_capacity(PICTURE_FEATURES);
    let mut all_colours = [0.0; COLOURS];
    for cell in colours.chunks(COLOURS) {
        let sum: f32 = cell.iter().sum::<f32>().max(f32::MIN_POSITIVE);
        features.extend(cell.iter().map(|value| (value / sum).sqrt()));
        add(&mut all_colours, cell, 1.0);
    }
    let mut all_edges = [0.0; DIRECTIONS];
    for cell in edges.chunks(DIRECTIONS) {
        features.extend(cell.iter().map(|value| value.sqrt()));
        add(&mut all_edges, cell, 1.0);
    }
    let sum: f32 = all_colours.iter().sum();
    features.extend(all_colours.iter().map(|value| (value / sum).sqrt()));
    let cells = (EDGE_GRID * EDGE_GRID) as f32;
    features.extend(all_edges.iter().map(|value| (value / cells).sqrt()));
    features
}

/// The two cells that a pixel belongs to along one side, and its share in the second one.
fn cells(pixel: usize, pixels: usize, grid: usize) -> (usize, usize, f32) {
    let at =
        ((pixel as f32 + 0.5) / pixels as f32 * grid as f32 - 0.5).clamp(0.0, grid as f32 - 1.0);
    let first = at as usize;
    (first, (first + 1).min(grid - 1), at - first as f32)
}

fn add(to: &mut [f32], from: &[f32], weight: f32) {
    for (to, from) in to.iter_mut().zip(from) {
        *to += from * weight;
    }
}

/// Masses of basic colours: `[COLOUR_GRID, COLOUR_GRID, COLOURS]`.
fn colour_cells(picture: &Picture) -> Vec<f32> {
    const ROW: usize = COLOUR_GRID * COLOURS;
    let soft = &*SOFT;
    let mut grid = vec![0.0; COLOUR_CELLS];
    let (width, height) = (picture.width(), picture.height());
    for (y, row) in picture.rgb().chunks(width * 3).enumerate() {
        let mut sums = [0.0; ROW];
        for (x, pixel) in row.chunks(3).enumerate() {
            let step = |channel: usize| usize::from(pixel[channel]) * STEPS / 256;
            let weights = &soft[(step(0) * STEPS + step(1)) * STEPS + step(2)];
            let (left, right, share) = cells(x, width, COLOUR_GRID);
            add(&mut sums[left * COLOURS..][..COLOURS], weights, 1.0 - share);
            add(&mut sums[right * COLOURS..][..COLOURS], weights, share);
        }
        let (top, bottom, share) = cells(y, height, COLOUR_GRID);
        add(&mut grid[top * ROW..][..ROW], &sums, 1.0 - share);
        add(&mut grid[bottom * ROW..][..ROW], &sums, share);
    }
    grid
}

/// Strengths of edges: `[EDGE_GRID, EDGE_GRID, DIRECTIONS]`, about 1 where a cell holds an object.
fn edge_cells(picture: &Picture) -> Vec<f32> {
    let (width, height, rgb) = (picture.width(), picture.height(), picture.rgb());
    let mut grid = vec![0.0; EDGE_CELLS];
    let at = |x: usize, y: usize, channel: usize| f32::from(rgb[(y * width + x) * 3 + channel]);
    // Edges get longer with the side of a picture, not with its area.
    let unit = 1.0 / (255.0 * ((width * height) as f32).sqrt());
    for y in 1..height.saturating_sub(1) {
        let (top, bottom, down) = cells(y, height, EDGE_GRID);
        for x in 1..width.saturating_sub(1) {
            // The channel that changes most, as an edge between equally bright colours is one too.
            let (mut gx, mut gy, mut strongest) = (0.0, 0.0, 0.0);
            for channel in 0..3 {
                let dx = at(x + 1, y, channel) - at(x - 1, y, channel);
                let dy = at(x, y + 1, channel) - at(x, y - 1, channel);
                let square = dx * dx + dy * dy;
                if square > strongest {
                    (gx, gy, strongest) = (dx, dy, square);
                }
            }
            // Less is the shading of a backdrop, not an edge.
            if strongest < 16.0 * 16.0 {
                continue;
            }
            let turn = (gy.atan2(gx) / PI).rem_euclid(1.0) * DIRECTIONS as f32;
            let (low, share) = (turn as usize, turn.fract());
            let (low, high) = (low % DIRECTIONS, (low + 1) % DIRECTIONS);
            let (left, right, across) = cells(x, width, EDGE_GRID);
            let strength = strongest.sqrt() * unit;
            for (row, row_share) in [(top, 1.0 - down), (bottom, down)] {
                for (column, share_of_column) in [(left, 1.0 - across), (right, across)] {
                    let cell = &mut grid[(row * EDGE_GRID + column) * DIRECTIONS..][..DIRECTIONS];
                    cell[low] += strength * row_share * share_of_column * (1.0 - share);
                    cell[high] += strength * row_share * share_of_column * share;
                }
            }
        }
    }
    grid
}
