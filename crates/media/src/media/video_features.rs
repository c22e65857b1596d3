//! A built-in descriptor of videos: what their frames show, and what changes where, nothing
//! learned.

use cart_retrieval::{Error, Result};

use super::{
    PICTURE_FEATURES, Picture, picture_features,
    picture_features::{COLOURS, DIRECTIONS},
};

/// Cells along each side of the grid of changes.
const GRID: usize = 6;
/// Parts of the video, one after the other.
const PARTS: usize = 4;

/// Numbers about what things look like wherever they are.
const LOOKS: usize = DIRECTIONS + 1;
/// How much those count.
const LOOKS_WEIGHT: f32 = 3.0;

/// Width of what [`video_features`] returns.
pub const VIDEO_FEATURES: usize = 3 * PICTURE_FEATURES + LOOKS + PARTS * GRID * GRID;

/// Describes a video by its frames, whatever their size.
///
/// The mean of [`picture_features`] over the frames, their mean in the second half less that in the
/// first, and their mean change from frame to frame; which share of all edges has which direction,
/// and how long they are for the area that is not background, which a thing keeps wherever it
/// moves; and the change of brightness between frames in a grid of 6 by 6 cells for 4 parts of the
/// video.
///
/// # Shapes
/// - `frames`: at least one, in the order of time
/// - returns: `[VIDEO_FEATURES]`
///
/// # Errors
/// [`Error::Media`] without frames.
///
/// # Example
/// ```
/// use cart_media::{Picture, VIDEO_FEATURES, video_features};
/// let frames = [0, 90, 180].map(|grey| Picture::new(8, 8, vec![grey; 8 * 8 * 3]).unwrap());
/// assert_eq!(video_features(&frames)?.len(), VIDEO_FEATURES);
/// # Ok::<(), cart_retrieval::Error>(())
/// ```
pub fn video_features(frames: &[Picture]) -> Result<Vec<f32>> {
    if frames.is_empty() {
        let remedy = "leave the video out";
        return Err(Error::media("video").expected("at least one frame").found("none").fix(remedy));
    }
    let described: Vec<Vec<f32>> = frames.iter().map(picture_features).collect();
    let mean = |rows: &[Vec<f32>]| -> Vec<f32> {
        let mut mean = vec![0.0; PICTURE_FEATURES];
        for row in rows {
            mean.iter_mut().zip(row).for_each(|(sum, value)| *sum += value / rows.len() as f32);
        }
        mean
    };
    let half = frames.len().div_ceil(2);
    let mut features = mean(&described);
    let second = mean(&described[frames.len() - half..]);
    features
        .extend(second.iter().zip(mean(&described[..half])).map(|(after, before)| after - before));
    let mut change = vec![0.0; PICTURE_FEATURES];
    let steps = (frames.len() - 1).max(1) as f32;
    for pair in described.windows(2) {
        let each = change.iter_mut().zip(pair[0].iter().zip(&pair[1]));
        each.for_each(|(sum, (before, after))| *sum += (after - before).abs() / steps);
    }
    features.append(&mut change);
    features.extend(looks(&described).map(|value| LOOKS_WEIGHT * value));
    let cells: Vec<[f32; GRID * GRID]> = frames.iter().map(brightness).collect();
    let mut moved = vec![0.0; PARTS * GRID * GRID];
    for (at, pair) in cells.windows(2).enumerate() {
        let part = at * PARTS / (frames.len() - 1);
        let each = moved[part * GRID * GRID..].iter_mut().zip(pair[0].iter().zip(&pair[1]));
        each.for_each(|(sum, (before, after))| *sum += (after - before).abs());
    }
    // Of fewer steps in a longer part the sum would be less.
    let scale = PARTS as f32 / steps;
    features.extend(moved.iter().map(|sum| (2.0 * scale * sum).sqrt()));
    Ok(features)
}

/// Shares of directions among all edges, as square roots, and the edges' length against the root of
/// the area that has other colours than the commonest one; from the descriptors of the frames,
/// which end with the colours and edges of the whole frame.
fn looks(described: &[Vec<f32>]) -> [f32; LOOKS] {
    let (mut directions, mut length) = ([0.0; DIRECTIONS], 0.0);
    for frame in described {
        let (_, edges) = frame.split_at(PICTURE_FEATURES - DIRECTIONS);
        let colours = &frame[PICTURE_FEATURES - DIRECTIONS - COLOURS..][..COLOURS];
        let common = colours.iter().fold(0.0f32, |most, share| most.max(share * share));
        let mut sum = 0.0;
        for (direction, edge) in directions.iter_mut().zip(edges) {
            *direction += edge * edge;
            sum += edge * edge;
        }
        length += sum / (1.0 - common).max(1e-3).sqrt() / described.len() as f32;
    }
    let sum: f32 = directions.iter().sum::<f32>().max(f32::MIN_POSITIVE);
    let mut looks = [0.0; LOOKS];
    for (look, direction) in looks.iter_mut().zip(directions) {
        *look = (direction / sum).sqrt();
    }
    looks[DIRECTIONS] = length.sqrt();
    looks
}

/// Mean brightness, 0 to 1, of the cells of a grid; cells of pictures smaller than the grid take
/// the nearest pixel.
fn brightness(frame: &Picture) -> [f32; GRID * GRID] {
    let (width, height) = (frame.width(), frame.height());
    let bounds = |cell: usize, size: usize| {
        let from = (cell * size / GRID).min(size - 1);
        from..((cell + 1) * size / GRID).clamp(from + 1, size)
    };
    std::array::from_fn(|cell| {
        let (rows, columns) = (bounds(cell / GRID, height), bounds(cell % GRID, width));
        let count = rows.len() * columns.len() * 3 * 255;
        let row = |y: usize| {
            let range = (y * width + columns.start) * 3..(y * width + columns.end) * 3;
            frame.rgb()[range].iter().map(|&value| u64::from(value)).sum::<u64>()
        };
        rows.map(row).sum::<u64>() as f32 / count as f32
    })
}
