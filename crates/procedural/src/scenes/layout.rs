//! What a scene shows: its objects, where they are, the backdrop.

use rand::{RngExt, seq::SliceRandom};
use rand_chacha::ChaCha8Rng;
use serde::Serialize;

use super::words::{Backdrop, Colour, Extent, Place, Shape, Texture};
use crate::compose::pick;

/// The most objects that one scene has.
pub(super) const MAX_OBJECTS: usize = 3;

/// One thing in a scene.
///
/// # Example
/// ```
/// use cart_procedural::{Colour, Extent, Object, Place, Shape, Texture};
///
/// let object = Object {
///     shape: Shape::Star,
///     colour: Colour::Red,
///     extent: Extent::Large,
///     texture: Texture::Striped,
///     place: Place::Centre,
/// };
/// assert_eq!(object.description(), "large striped red star in the centre");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
pub struct Object {
    /// Its outline.
    pub shape: Shape,
    /// Its colour.
    pub colour: Colour,
    /// Its size.
    pub extent: Extent,
    /// What its inside looks like.
    pub texture: Texture,
    /// Where it is.
    pub place: Place,
}

impl Object {
    /// Everything there is to say about it, in the usual words.
    ///
    /// # Example
    /// See [`Object`].
    pub fn description(&self) -> String {
        let Self { shape, colour, extent, texture, place } = self;
        format!(
            "{} {} {} {} {}",
            extent.word(),
            texture.word(),
            colour.word(),
            shape.word(),
            place.phrases()[0]
        )
    }

    /// All of it in 15 bits. What a caption leaves out is masked away to count look-alikes.
    pub(super) fn pack(&self) -> u64 {
        (self.place as u64)
            | (self.texture as u64) << 4
            | (self.extent as u64) << 6
            | (self.colour as u64) << 7
            | (self.shape as u64) << 11
    }
}

/// What a scene shows: one to three objects in different places, in reading order, before a
/// backdrop. No two objects share both shape and colour, so that a caption can point at each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layout {
    objects: [Object; MAX_OBJECTS],
    len: u8,
    pub(super) backdrop: Backdrop,
}

/// Which facts of a scene a caption states. Shapes and colours are always stated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Facts {
    pub(super) extents: bool,
    pub(super) textures: bool,
    pub(super) places: bool,
    pub(super) backdrop: bool,
}

impl Facts {
    pub(super) const ALL: Self =
        Self { extents: true, textures: true, places: true, backdrop: true };
}

impl Layout {
    /// Draws `len` objects and a backdrop.
    pub(super) fn draw(len: usize, rng: &mut ChaCha8Rng) -> Self {
        let mut places = [0, 1, 2, 3, 4, 5, 6, 7, 8].map(|i| Place::ALL[i]);
        places.shuffle(rng);
        places[..len].sort_unstable();
        let mut objects = places.first_chunk().expect("nine places").map(|place| Object {
            shape: Shape::Circle,
            colour: Colour::Red,
            extent: Extent::Large,
            texture: Texture::Plain,
            place,
        });
        for i in 0..len {
            loop {
                objects[i].shape = pick(Shape::ALL, rng);
                objects[i].colour = pick(Colour::ALL, rng);
                let of = |object: &Object| (object.shape, object.colour);
                if objects[..i].iter().all(|other| of(other) != of(&objects[i])) {
                    break;
                }
            }
            objects[i].extent = pick(Extent::ALL, rng);
            // Half of the objects are plain, so that a texture is worth a word.
            if rng.random_bool(0.5) {
                objects[i].texture = pick(&[Texture::Striped, Texture::Dotted], rng);
            }
        }
        Self { objects, len: len as u8, backdrop: pick(Backdrop::ALL, rng) }
    }

    pub(super) fn objects(&self) -> &[Object] {
        &self.objects[..usize::from(self.len)]
    }

    /// A key that two layouts share exactly when they agree in all of `facts`.
    pub(super) fn key(&self, facts: Facts) -> u64 {
        let place = if facts.places { 0xf } else { 0 };
        let texture = if facts.textures { 0x30 } else { 0 };
        let extent = if facts.extents { 0x40 } else { 0 };
        let mask = 0x7f80 | place | texture | extent;
        // The number of objects is always told; an absent object is the pattern of ones.
        let mut packed = [0x7fff; MAX_OBJECTS];
        for (slot, object) in packed.iter_mut().zip(self.objects()) {
            *slot = object.pack() & mask;
        }
        packed.sort_unstable();
        let backdrop = if facts.backdrop { self.backdrop as u64 } else { 7 };
        packed.iter().fold(backdrop, |key, object| key << 15 | object)
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    #[test]
    fn a_key_forgets_exactly_what_is_not_stated() {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        for len in 1..=MAX_OBJECTS {
            let layout = Layout::draw(len, &mut rng);
            let mut other = layout;
            other.backdrop = match layout.backdrop {
                Backdrop::White => Backdrop::Black,
                _ => Backdrop::White,
            };
            assert_ne!(layout.key(Facts::ALL), other.key(Facts::ALL));
            let unstated = Facts { backdrop: false, ..Facts::ALL };
            assert_eq!(layout.key(unstated), other.key(unstated));

            let mut other = layout;
            other.objects[0].extent = match layout.objects[0].extent {
                Extent::Small => Extent::Large,
                Extent::Large => Extent::Small,
            };
            assert_ne!(layout.key(Facts::ALL), other.key(Facts::ALL));
            let unstated = Facts { extents: false, ..Facts::ALL };
            assert_eq!(layout.key(unstated), other.key(unstated));
        }
    }

    #[test]
    fn objects_of_a_layout_differ_in_place_and_in_looks() {
        let mut rng = ChaCha8Rng::seed_from_u64(2);
        for _ in 0..2_000 {
            let layout = Layout::draw(3, &mut rng);
            let objects = layout.objects();
            for (i, a) in objects.iter().enumerate() {
                for b in &objects[i + 1..] {
                    assert!(a.place < b.place);
                    assert_ne!((a.shape, a.colour), (b.shape, b.colour));
                }
            }
        }
    }
}
