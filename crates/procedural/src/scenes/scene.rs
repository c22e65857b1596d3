//! One scene: what is in it, its id, its description.

use cart_media::Picture;

use super::{
    draw,
    layout::{Layout, Object},
    words::Backdrop,
};
use crate::compose::{Purpose, Writer, item_rng};

/// One scene of [`Scenes`](super::Scenes): a handle that draws and describes on demand.
///
/// # Example
/// ```
/// use cart_procedural::{Scenes, ScenesConfig};
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
    /// use cart_procedural::{Scenes, ScenesConfig};
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
    /// use cart_procedural::{Scenes, ScenesConfig};
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
    /// use cart_procedural::{Scenes, ScenesConfig};
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
