//! Enumerations whose values have words.

/// An enumeration of plain values, each with its words, the usual one first.
macro_rules! vocabulary {
    ($(#[$doc:meta])* $name:ident, $($(#[$variant_doc:meta])* $variant:ident: [$($word:literal),+],)+) => {
        $(#[$doc])*
        #[derive(
            Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash,
            serde::Serialize, serde::Deserialize,
        )]
        #[serde(rename_all = "snake_case")]
        pub enum $name {
            $($(#[$variant_doc])* $variant,)+
        }

        impl $name {
            /// Every one there is.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// The words for it, the usual one first.
            pub fn words(self) -> &'static [&'static str] {
                match self {
                    $(Self::$variant => &[$($word),+],)+
                }
            }

            /// The usual word for it.
            pub fn word(self) -> &'static str {
                self.words()[0]
            }
        }
    };
}

pub(super) use vocabulary;
