"""The vocabulary of the miniature world: labels, their synonyms, and which combinations are unseen in training."""

from __future__ import annotations

COLOURS = ("red", "yellow", "green", "blue", "purple", "white")
SHAPES = ("circle", "square", "triangle", "star", "cross", "ring")
TEXTURES = ("grass", "sand", "water", "brick")

# Words the tiny CLIP meets in its captions only: no label list that LSeg is trained on contains one of them.
SYNONYMS = {
    "red": "crimson",
    "yellow": "golden",
    "green": "emerald",
    "blue": "azure",
    "purple": "violet",
    "white": "ivory",
    "circle": "disc",
    "square": "box",
    "triangle": "wedge",
    "star": "asterisk",
    "cross": "plus",
    "ring": "hoop",
    "grass": "lawn",
    "sand": "beach",
    "water": "sea",
    "brick": "masonry",
}

UNSEEN = tuple(f"{colour} {shape}" for colour, shape in zip(COLOURS, SHAPES, strict=True))
SEEN = (
    tuple(f"{colour} {shape}" for colour in COLOURS for shape in SHAPES if f"{colour} {shape}" not in UNSEEN) + TEXTURES
)
LABELS = SEEN + UNSEEN  # in mask order: mask value v is LABELS[v - 1]


def with_synonyms(label: str) -> str:
    """The label with every word replaced by its synonym: 'red circle' -> 'crimson disc'."""
    return " ".join(SYNONYMS[word] for word in label.split())


def wordings(label: str) -> list[list[str]]:
    """The choices for each word of a label, canonical word first: 'red circle' -> [[red, crimson], [circle, disc]]."""
    return [[word, SYNONYMS[word]] for word in label.split()]
