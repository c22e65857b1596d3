//! A benchmark of captioned pictures that is drawn from a seed: nothing to download, any size.
//!
//! [`ScenesConfig`] says how many scenes; [`Scenes`] holds them; a [`Scene`] draws its [`Picture`](crate::media::Picture) and
//! writes captions; [`picture_features`](crate::media::picture_features) describes any picture without learning;
//! [`Scenes::captions`] splits training captions from held-out queries and audits the split.
//!
//! # Example
//! ```
//! use cart_retrieval::data::procedural::{Scenes, ScenesConfig};
//!
//! let scenes = Scenes::generate(&ScenesConfig::new(100).with_seed(42))?;
//! let captions = scenes.captions()?;
//! let query = &captions.queries[0];
//! let picture = scenes.scene(query.item).render();
//! assert_eq!((picture.width(), picture.height()), (64, 64));
//! # Ok::<(), cart_retrieval::Error>(())
//! ```

mod captions;
mod config;
mod draw;
mod phrases;
mod scene;
mod scenes;
mod split;
mod words;

pub use config::{MAX_SCENES, ScenesConfig};
pub use scene::{Object, Scene};
pub use scenes::Scenes;
pub use split::{Caption, CaptionAudit, SceneCaptions};
pub use words::{Backdrop, Colour, Extent, Place, Shape, Texture};
