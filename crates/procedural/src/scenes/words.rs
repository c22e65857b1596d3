//! What a scene is made of, and the words for it.

use crate::vocabulary::vocabulary;

vocabulary! {
    /// The outline of an object.
    Shape,
    /// A filled circle.
    Circle: ["circle", "disc"],
    /// A square that stands on its side.
    Square: ["square", "box"],
    /// A triangle that points up.
    Triangle: ["triangle", "three-sided shape"],
    /// A star with five points.
    Star: ["star", "five-pointed star"],
    /// A cross with four equal arms.
    Cross: ["cross", "plus sign"],
    /// A circle with a hole.
    Ring: ["ring", "hoop"],
    /// A rhombus that stands on its point.
    Diamond: ["diamond", "rhombus"],
    /// A heart that points down.
    Heart: ["heart", "heart shape"],
    /// A thin moon, open to the right.
    Crescent: ["crescent", "crescent moon", "moon"],
    /// A regular shape with six sides.
    Hexagon: ["hexagon", "six-sided shape"],
}

vocabulary! {
    /// The colour of an object.
    Colour,
    /// Red.
    Red: ["red", "crimson", "scarlet"],
    /// Orange.
    Orange: ["orange", "tangerine"],
    /// Yellow.
    Yellow: ["yellow", "golden"],
    /// Green.
    Green: ["green", "emerald"],
    /// Between green and blue.
    Turquoise: ["turquoise", "cyan", "aqua"],
    /// Blue.
    Blue: ["blue", "royal blue", "cobalt"],
    /// Purple.
    Purple: ["purple", "violet"],
    /// Pink.
    Pink: ["pink", "rose-coloured"],
    /// Brown.
    Brown: ["brown", "chocolate"],
}

vocabulary! {
    /// How much of its place an object fills.
    Extent,
    /// About a third of the area of a large one.
    Small: ["small", "little", "tiny"],
    /// The whole place.
    Large: ["large", "big"],
}

vocabulary! {
    /// What the inside of an object looks like.
    Texture,
    /// One colour.
    Plain: ["plain", "solid"],
    /// Light slanting stripes.
    Striped: ["striped", "stripy"],
    /// Light dots.
    Dotted: ["dotted", "spotted"],
}

vocabulary! {
    /// The colour behind the objects.
    Backdrop,
    /// White.
    White: ["white"],
    /// Black.
    Black: ["black"],
    /// Middle grey.
    Grey: ["grey", "gray"],
    /// Cream.
    Cream: ["cream", "beige"],
    /// The blue of a clear sky.
    Sky: ["pale blue", "light blue", "sky blue"],
}

vocabulary! {
    /// Where an object is, on a grid of three by three.
    Place,
    /// First row, first column.
    TopLeft: ["top left", "upper left"],
    /// First row, second column.
    Top: ["top centre", "top middle", "upper centre"],
    /// First row, third column.
    TopRight: ["top right", "upper right"],
    /// Second row, first column.
    Left: ["middle left", "centre left"],
    /// The middle.
    Centre: ["centre", "middle", "center"],
    /// Second row, third column.
    Right: ["middle right", "centre right"],
    /// Third row, first column.
    BottomLeft: ["bottom left", "lower left"],
    /// Third row, second column.
    Bottom: ["bottom centre", "bottom middle", "lower centre"],
    /// Third row, third column.
    BottomRight: ["bottom right", "lower right"],
}

impl Place {
    /// Row, counted from the top.
    pub fn row(self) -> usize {
        self as usize / 3
    }

    /// Column, counted from the left.
    pub fn column(self) -> usize {
        self as usize % 3
    }

    /// The place in a sentence, the usual wording first.
    pub fn phrases(self) -> &'static [&'static str] {
        match self {
            Self::TopLeft => {
                &["at the top left", "in the upper left corner", "in the top left corner"]
            }
            Self::Top => {
                &["at the top centre", "in the middle of the top row", "at the top in the middle"]
            }
            Self::TopRight => {
                &["at the top right", "in the upper right corner", "in the top right corner"]
            }
            Self::Left => &[
                "at the middle left",
                "halfway down the left side",
                "on the left of the middle row",
            ],
            Self::Centre => &["in the centre", "in the middle", "in the center"],
            Self::Right => &[
                "at the middle right",
                "halfway down the right side",
                "on the right of the middle row",
            ],
            Self::BottomLeft => {
                &["at the bottom left", "in the lower left corner", "in the bottom left corner"]
            }
            Self::Bottom => &[
                "at the bottom centre",
                "in the middle of the bottom row",
                "at the bottom in the middle",
            ],
            Self::BottomRight => {
                &["at the bottom right", "in the lower right corner", "in the bottom right corner"]
            }
        }
    }

    /// Where this place lies, seen from another: "to the left of", "above", ...
    ///
    /// # Example
    /// ```
    /// use cart_procedural::Place;
    ///
    /// assert_eq!(Place::Left.relation_to(Place::Centre), "to the left of");
    /// assert_eq!(Place::Top.relation_to(Place::BottomLeft), "above and to the right of");
    /// ```
    pub fn relation_to(self, other: Self) -> &'static str {
        use std::cmp::Ordering::{Equal, Greater, Less};
        match (self.row().cmp(&other.row()), self.column().cmp(&other.column())) {
            (Less, Less) => "above and to the left of",
            (Less, Equal) => "above",
            (Less, Greater) => "above and to the right of",
            (Equal, Less) => "to the left of",
            (Equal, Equal) => "in the same place as",
            (Equal, Greater) => "to the right of",
            (Greater, Less) => "below and to the left of",
            (Greater, Equal) => "below",
            (Greater, Greater) => "below and to the right of",
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn no_word_stands_for_two_things_of_a_kind() {
        fn distinct(words: impl Iterator<Item = &'static str>) {
            let mut seen = HashSet::new();
            words.for_each(|word| assert!(seen.insert(word), "{word} is there twice"));
        }
        distinct(Shape::ALL.iter().flat_map(|x| x.words()).copied());
        distinct(Colour::ALL.iter().flat_map(|x| x.words()).copied());
        distinct(Extent::ALL.iter().flat_map(|x| x.words()).copied());
        distinct(Texture::ALL.iter().flat_map(|x| x.words()).copied());
        distinct(Backdrop::ALL.iter().flat_map(|x| x.words()).copied());
        distinct(Place::ALL.iter().flat_map(|x| x.words()).copied());
        distinct(Place::ALL.iter().flat_map(|x| x.phrases()).copied());
    }

    #[test]
    fn relations_turn_around() {
        for &a in Place::ALL {
            for &b in Place::ALL {
                let back = b.relation_to(a);
                let turned = a
                    .relation_to(b)
                    .replace("above", "?")
                    .replace("below", "above")
                    .replace('?', "below")
                    .replace("left", "?")
                    .replace("right", "left")
                    .replace('?', "right");
                assert_eq!(turned, back);
            }
        }
    }
}
