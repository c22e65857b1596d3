//! Drawing: signed distances to outlines, turned into anti-aliased pixels.

use std::{
    f32::consts::{PI, TAU},
    sync::LazyLock,
};

use cart_media::Picture;
use rand::RngExt;
use rand_chacha::ChaCha8Rng;

use super::{
    layout::{Layout, Object},
    words::{Backdrop, Colour, Extent, Shape, Texture},
};

type Rgb = [f32; 3];
pub(crate) type Point = [f32; 2];

/// Distance between the middles of two neighbouring places, as a share of the picture.
const STEP: f32 = 0.315;
/// Period of stripes and dots, as a share of the picture.
const PERIOD: f32 = 0.072;

/// Draws a layout with small random deviations.
pub(super) fn picture(layout: &Layout, size: usize, rng: &mut ChaCha8Rng) -> Picture {
    let mut canvas = Canvas::new(size, layout.backdrop, Light::draw(rng));
    for object in layout.objects() {
        canvas.stamp(&stamp(object, rng));
    }
    canvas.into_picture()
}

fn backdrop_rgb(backdrop: Backdrop) -> Rgb {
    match backdrop {
        Backdrop::White => [250.0, 250.0, 250.0],
        Backdrop::Black => [22.0, 22.0, 24.0],
        Backdrop::Grey => [148.0, 148.0, 150.0],
        Backdrop::Cream => [240.0, 226.0, 192.0],
        Backdrop::Sky => [184.0, 214.0, 242.0],
    }
}

fn colour_rgb(colour: Colour) -> Rgb {
    match colour {
        Colour::Red => [216.0, 30.0, 40.0],
        Colour::Orange => [246.0, 134.0, 20.0],
        Colour::Yellow => [250.0, 212.0, 20.0],
        Colour::Green => [44.0, 150.0, 60.0],
        Colour::Turquoise => [20.0, 190.0, 190.0],
        Colour::Blue => [34.0, 74.0, 210.0],
        Colour::Purple => [128.0, 44.0, 172.0],
        Colour::Pink => [248.0, 118.0, 176.0],
        Colour::Brown => [122.0, 72.0, 36.0],
    }
}

/// How a backdrop is lit.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Light {
    shade: f32,
    /// A little lighter at the top than at the bottom, as a studio backdrop is.
    slope: f32,
}

impl Light {
    pub(crate) fn draw(rng: &mut ChaCha8Rng) -> Self {
        Self { shade: rng.random_range(-0.02..0.02), slope: rng.random_range(0.0..0.05) }
    }
}

/// A shape to draw; lengths are shares of the picture's side.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Stamp {
    pub(crate) shape: Shape,
    pub(crate) colour: Colour,
    pub(crate) texture: Texture,
    /// The middle, from the top left.
    pub(crate) at: Point,
    /// Before shapes are made to look equally large.
    pub(crate) radius: f32,
    /// A factor on it.
    pub(crate) size: f32,
    pub(crate) angle: f32,
    /// How much lighter (positive) or darker than usual.
    pub(crate) shade: f32,
}

/// An object of a scene with small random deviations.
fn stamp(object: &Object, rng: &mut ChaCha8Rng) -> Stamp {
    let mut jitter = |range: f32| rng.random_range(-range..range);
    let middle = |cell: usize| 0.5 + (cell as f32 - 1.0) * STEP;
    let x = middle(object.place.column()) + jitter(0.012);
    let y = middle(object.place.row()) + jitter(0.012);
    let radius = match object.extent {
        Extent::Large => 0.145,
        Extent::Small => 0.082,
    };
    let size = 1.0 + jitter(0.05);
    let (angle, shade) = (jitter(0.12), jitter(0.06));
    let Object { shape, colour, texture, .. } = *object;
    Stamp { shape, colour, texture, at: [x, y], radius, size, angle, shade }
}

/// A picture that is being drawn.
pub(crate) struct Canvas {
    size: usize,
    pixels: Vec<Rgb>,
}

impl Canvas {
    pub(crate) fn new(size: usize, backdrop: Backdrop, light: Light) -> Self {
        let shade = shaded(backdrop_rgb(backdrop), light.shade);
        let pixels = (0..size)
            .flat_map(|y| {
                let height = y as f32 / size as f32 - 0.5;
                std::iter::repeat_n(shaded(shade, -light.slope * height), size)
            })
            .collect();
        Self { size, pixels }
    }

    /// Draws a shape over what is there; what lies outside of the picture is cut off.
    pub(crate) fn stamp(&mut self, stamp: &Stamp) {
        let width = self.size as f32;
        let [x, y] = stamp.at.map(|at| at * width);
        let radius = stamp.radius * scale(stamp.shape) * width * stamp.size;
        let (sin, cos) = stamp.angle.sin_cos();
        let fill = shaded(colour_rgb(stamp.colour), stamp.shade);
        let light = mixed(fill, [255.0; 3], 0.74);
        let edge = mixed(fill, [0.0; 3], 0.32);
        let edge_width = (0.012 * width).max(0.7);

        let reach = radius * 1.5 + 2.0;
        let range = |centre: f32| {
            let first = (centre - reach).max(0.0) as usize;
            first..((centre + reach).max(0.0) as usize + 1).min(self.size)
        };
        let (rows, columns) = (range(y), range(x));
        for row in rows {
            for column in columns.clone() {
                let (dx, dy) = (column as f32 + 0.5 - x, row as f32 + 0.5 - y);
                let (px, py) = (cos * dx + sin * dy, cos * dy - sin * dx);
                let distance = outline(stamp.shape, [px / radius, py / radius]) * radius;
                let cover = (0.5 - distance).clamp(0.0, 1.0);
                if cover == 0.0 {
                    continue;
                }
                let pattern = texture(stamp.texture, px, py, PERIOD * width);
                let inside = mixed(fill, light, pattern);
                let rim = (distance + edge_width + 0.5).clamp(0.0, 1.0);
                let pixel = &mut self.pixels[row * self.size + column];
                *pixel = mixed(*pixel, mixed(inside, edge, rim), cover);
            }
        }
    }

    pub(crate) fn into_picture(self) -> Picture {
        let rgb = self.pixels.iter().flatten().map(|&value| value.round() as u8).collect();
        Picture::new(self.size, self.size, rgb).expect("a canvas has pixels")
    }
}

/// How much lighter (positive) or darker a colour becomes, as a share.
fn shaded(colour: Rgb, share: f32) -> Rgb {
    colour.map(|value| (value * (1.0 + share)).clamp(0.0, 255.0))
}

fn mixed(a: Rgb, b: Rgb, share: f32) -> Rgb {
    std::array::from_fn(|i| a[i] + (b[i] - a[i]) * share)
}

/// How much of a point's colour is the light tone, 0 to 1.
fn texture(texture: Texture, x: f32, y: f32, period: f32) -> f32 {
    match texture {
        Texture::Plain => 0.0,
        Texture::Striped => {
            let across = (x + y) * std::f32::consts::FRAC_1_SQRT_2;
            let from_stripe = ((across / period).rem_euclid(1.0) - 0.5).abs() * period;
            (period * 0.25 - from_stripe + 0.5).clamp(0.0, 1.0)
        }
        Texture::Dotted => {
            let fold = |value: f32| (value / period + 0.5).rem_euclid(1.0) - 0.5;
            let from_dot = fold(x).hypot(fold(y)) * period;
            (period * 0.31 - from_dot + 0.5).clamp(0.0, 1.0)
        }
    }
}

/// Makes the shapes look equally large.
fn scale(shape: Shape) -> f32 {
    match shape {
        Shape::Star => 1.2,
        Shape::Triangle | Shape::Heart | Shape::Diamond => 1.12,
        Shape::Square => 1.18,
        Shape::Cross | Shape::Hexagon | Shape::Crescent => 1.06,
        Shape::Circle | Shape::Ring => 1.0,
    }
}

/// Signed distance from a point to the outline of a shape of radius 1 around the origin: negative
/// inside; y points down.
fn outline(shape: Shape, point: Point) -> f32 {
    let [x, y] = point;
    match shape {
        Shape::Circle => x.hypot(y) - 1.0,
        Shape::Ring => (x.hypot(y) - 0.72).abs() - 0.28,
        Shape::Crescent => {
            // One disc less another one that is a little to the right.
            (x.hypot(y) - 1.0).max(0.82 - (x - 0.52).hypot(y))
        }
        _ => to_polygon(&POLYGONS[shape as usize], point),
    }
}

/// Corners of the shapes that have some, by number of the shape.
static POLYGONS: LazyLock<Vec<Vec<Point>>> =
    LazyLock::new(|| Shape::ALL.iter().map(|&shape| corners(shape)).collect());

fn corners(shape: Shape) -> Vec<Point> {
    // Corners at the radius that `radius` gives by their number, the first one at the top.
    let around = |count: usize, radius: &dyn Fn(usize) -> f32| -> Vec<Point> {
        let corner = |i: usize| {
            let (sin, cos) = (i as f32 / count as f32 * TAU).sin_cos();
            [sin * radius(i), -cos * radius(i)]
        };
        (0..count).map(corner).collect()
    };
    match shape {
        Shape::Circle | Shape::Ring | Shape::Crescent => Vec::new(),
        Shape::Square => vec![[-0.75, -0.75], [0.75, -0.75], [0.75, 0.75], [-0.75, 0.75]],
        Shape::Diamond => vec![[0.0, -1.0], [0.72, 0.0], [0.0, 1.0], [-0.72, 0.0]],
        // Lowered, so that its box is in the middle rather than its centre of mass.
        Shape::Triangle => around(3, &|_| 1.1).into_iter().map(|[x, y]| [x, y + 0.2]).collect(),
        Shape::Star => around(10, &|i| if i % 2 == 0 { 1.0 } else { 0.42 }),
        Shape::Hexagon => around(6, &|_| 1.0),
        Shape::Cross => {
            let arm = 0.32;
            let quarter = [[-arm, -0.98], [arm, -0.98], [arm, -arm]];
            let mut corners = Vec::with_capacity(12);
            for turn in 0..4 {
                let (sin, cos) = (turn as f32 * PI / 2.0).sin_cos();
                corners.extend(quarter.map(|[x, y]: Point| [cos * x - sin * y, sin * x + cos * y]));
            }
            corners
        }
        // The well-known curve of sines, brought to about radius 1.
        Shape::Heart => (0..40)
            .map(|i| {
                let t = i as f32 / 40.0 * TAU;
                let y = 13.0 * t.cos()
                    - 5.0 * (2.0 * t).cos()
                    - 2.0 * (3.0 * t).cos()
                    - (4.0 * t).cos();
                [t.sin().powi(3) * 0.98, -(y + 2.5) / 16.0]
            })
            .collect(),
    }
}

/// Signed distance to a polygon: the nearest edge, with the sign of the even-odd rule.
fn to_polygon(corners: &[Point], [x, y]: Point) -> f32 {
    let mut nearest = f32::INFINITY;
    let mut inside = false;
    let mut from = corners[corners.len() - 1];
    for &to in corners {
        let (ex, ey) = (to[0] - from[0], to[1] - from[1]);
        let (wx, wy) = (x - from[0], y - from[1]);
        let along = ((wx * ex + wy * ey) / (ex * ex + ey * ey)).clamp(0.0, 1.0);
        let (bx, by) = (wx - ex * along, wy - ey * along);
        nearest = nearest.min(bx * bx + by * by);
        if (from[1] > y) != (to[1] > y) && x < from[0] + (y - from[1]) / ey * ex {
            inside = !inside;
        }
        from = to;
    }
    if inside { -nearest.sqrt() } else { nearest.sqrt() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shape_has_an_inside_that_stays_in_its_reach() {
        for &shape in Shape::ALL {
            let mut area = 0;
            for i in 0..10_000 {
                let point = [(i % 100) as f32 / 25.0 - 2.0, (i / 100) as f32 / 25.0 - 2.0];
                if outline(shape, point) < 0.0 {
                    area += 1;
                    assert!(point[0].hypot(point[1]) < 1.35, "{shape:?} reaches {point:?}");
                }
            }
            let area = area as f32 / 625.0 * scale(shape).powi(2);
            assert!((1.0..3.6).contains(&area), "{shape:?} has area {area}");
        }
    }

    #[test]
    fn a_polygon_of_many_corners_is_a_circle() {
        let round: Vec<Point> =
            (0..720).map(|i| (i as f32 / 720.0 * TAU).sin_cos().into()).collect();
        for point in [[0.1, 0.2], [0.9, -0.5], [-1.4, 0.3], [0.5, 0.5]] {
            let expected = outline(Shape::Circle, point);
            assert!((to_polygon(&round, point) - expected).abs() < 1e-3);
        }
    }

    #[test]
    fn colours_are_well_apart() {
        let near = |a: Rgb, b: Rgb| (0..3).all(|i| (a[i] - b[i]).abs() < 40.0);
        for &a in Colour::ALL {
            for &b in Colour::ALL {
                assert!(a == b || !near(colour_rgb(a), colour_rgb(b)), "{a:?} and {b:?}");
            }
            for &backdrop in Backdrop::ALL {
                assert!(!near(colour_rgb(a), backdrop_rgb(backdrop)), "{a:?} on {backdrop:?}");
            }
        }
    }
}
