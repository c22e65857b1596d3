//! One scene: what is in it, its id, its description.

use rand::{RngExt, seq::SliceRandom};
use rand_chacha::ChaCha8Rng;
use serde::Serialize;

use super::{
    draw,
    words::{Backdrop, Colour, Extent, Place, Shape, Texture},
};
use crate::{
    data::procedural::compose::{Purpose, Writer, item_rng, pick},
    media::Picture,
};

/// The most objects that one scene has.
pub(super) const MAX_OBJECTS: usize = 3;

/// One thing in a scene.
///
/// # Example
/// ```
/// use cart_retrieval::data::procedural::{Colour, Extent, Object, Place, Shape, Texture};
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

/// One scene of [`Scenes`](super::Scenes): a handle that draws and describes on demand.
///
/// # Example
/// ```
/// use cart_retrieval::data::procedural::{Scenes, ScenesConfig};
///
/// let scenes = Scenes::generate(&ScenesConfig::new(20))?;
/// let scene = scenes.scene(3);
/// assert_eq!(scene.id(), "scene-000003");
/// assert!((1..=3).contains(&scene.objects().len()));
/// let picture = scene.render();
/// assert_eq!((picture.width(), picture.height()), (64, 64));
/// # Ok::<(), cart_retrieval::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Scene {
    pub(super) layout: Layout,
    pub(super) index: usize,
    pub(super) seed: u64,
    pub(super) size: usize,
}

impl Scene {
    /// Its number, counted from 0.
    ///
    /// # Example
    /// See [`Scene`].
    pub fn index(&self) -> usize {
        self.index
    }

    /// Its id: "scene-" and its number with at least six digits.
    ///
    /// # Example
    /// See [`Scene`].
    pub fn id(&self) -> String {
        format!("scene-{:06}", self.index)
    }

    /// What is in it, from the top left to the bottom right.
    ///
    /// # Example
    /// See [`Scene`].
    pub fn objects(&self) -> &[Object] {
        self.layout.objects()
    }

    /// The colour behind the objects.
    ///
    /// # Example
    /// See [`Scene`].
    pub fn backdrop(&self) -> Backdrop {
        self.layout.backdrop
    }

    /// Everything there is to say about it; no other scene has the same description.
    ///
    /// # Example
    /// ```
    /// use cart_retrieval::data::procedural::{Scenes, ScenesConfig};
    ///
    /// let scenes = Scenes::generate(&ScenesConfig::new(2))?;
    /// assert_ne!(scenes.scene(0).description(), scenes.scene(1).description());
    /// # Ok::<(), cart_retrieval::Error>(())
    /// ```
    pub fn description(&self) -> String {
        let objects: Vec<_> = self.objects().iter().map(Object::description).collect();
        format!("{}; {} background", objects.join(", "), self.layout.backdrop.word())
    }

    /// Its picture. Positions, sizes, angles and shades differ a little from scene to scene.
    ///
    /// # Example
    /// See [`Scene`].
    pub fn render(&self) -> Picture {
        self.render_variant(0)
    }

    /// Another picture of the same scene: `variant` 0 is [`Scene::render`], any other number has
    /// other small deviations.
    ///
    /// # Example
    /// ```
    /// use cart_retrieval::data::procedural::{Scenes, ScenesConfig};
    ///
    /// let scenes = Scenes::generate(&ScenesConfig::new(1))?;
    /// let scene = scenes.scene(0);
    /// assert_ne!(scene.render(), scene.render_variant(1));
    /// assert_eq!(scene.render_variant(1), scene.render_variant(1));
    /// # Ok::<(), cart_retrieval::Error>(())
    /// ```
    pub fn render_variant(&self, variant: u64) -> Picture {
        draw::picture(
            &self.layout,
            self.size,
            &mut item_rng(self.seed, self.index, 0xd4a3 ^ (variant << 16)),
        )
    }

    /// The first `count` training captions: the same ones each time, no two alike. Fewer come back
    /// where a scene has no more ways to say it (which starts at some hundreds).
    ///
    /// # Example
    /// ```
    /// use cart_retrieval::data::procedural::{Scenes, ScenesConfig};
    ///
    /// let scenes = Scenes::generate(&ScenesConfig::new(5))?;
    /// let captions = scenes.scene(4).captions(3);
    /// assert_eq!(captions.len(), 3);
    /// assert_ne!(captions[0], captions[1]);
    /// # Ok::<(), cart_retrieval::Error>(())
    /// ```
    pub fn captions(&self, count: usize) -> Vec<String> {
        let drafts = self.writer(Purpose::Training).distinct(count);
        drafts.into_iter().map(|draft| draft.text).collect()
    }

    /// An endless source of captions.
    pub(super) fn writer(&self, purpose: Purpose) -> Writer<Layout> {
        Writer::new(self.layout, purpose, self.seed, self.index)
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
