"""Writes random prompts, and what each of them asks for."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from comfy_local.toy_model.scenes import (
    COLOUR_AT,
    COLOURS,
    CONTRASTS,
    COUNT_AT,
    GROUND_AT,
    PALETTE,
    POSITION_AT,
    REQUEST_SIZE,
    SHAPE_AT,
    SHAPES,
    SIZE_AT,
)

__all__ = ["UNKNOWN", "Request", "known_words", "write_prompt"]

UNKNOWN = ""
"""Stands for a word that the text network does not know."""

SHAPE_WORDS = {
    "circle": ("circle", "circle", "dot", "disc", "disk", "ball"),
    "square": ("square", "square", "box"),
    "triangle": ("triangle",),
    "star": ("star",),
    "heart": ("heart",),
    "diamond": ("diamond", "diamond", "rhombus"),
    "cross": ("cross", "cross", "plus"),
    "moon": ("moon", "crescent", "crescent moon"),
    "ring": ("ring", "ring", "donut"),
}
PLURALS = {"box": "boxes", "cross": "crosses", "rhombus": "rhombuses", "plus": "pluses"}
COLOUR_WORDS = {
    "gray": ("gray", "grey"),
    "purple": ("purple", "violet"),
    "cyan": ("cyan", "turquoise", "teal"),
    "pink": ("pink", "magenta"),
}
SIZE_WORDS = {0: ("small", "tiny", "little"), 2: ("big", "large", "huge")}
COUNT_WORDS = {
    1: ("a", "a", "a", "a", "one", "a single", "1", "the"),
    2: ("two", "two", "2", "a pair of"),
    3: ("three", "three", "3"),
}
FILLER_TEXT = """
a an the of with and in on at by , . very nice beautiful pretty simple flat cute drawing picture
image photo painting illustration icon art vector poster minimal style best quality masterpiece
shape object one single some scene view bright dark light that is there it this my for to over is
"""
FILLER = tuple(FILLER_TEXT.split())
OPENINGS = (
    *("a picture of", "a drawing of", "an image of", "a photo of", "painting of", "draw"),
    *("a simple icon of", "there is", "an illustration of"),
)
GROUND_FORMS = (
    *("on a {} background", "on a {} background", "on {}", "on a {} background"),
    *(", {} background", "against a {} background", "with a {} background", "over {}"),
    *("on the {} background", "on top of {}", "on a {} wall", "on a {} sky", "on a {} field"),
    *("on a {} page", "on a {} canvas", "and a {} background", "with the background {}"),
    *("{} background", "in front of a {} background", "background {}", "background : {}"),
)
CENTRE_FORMS = (*("in the center", "in the middle", "centered", "in the centre", "at the center"),)
CORNER_FORMS = (*("in the {} corner", "in the {}", "at the {}", "{}", "{} corner", "on the {}"),)
SIDE_FORMS = ("on the {}", "at the {}", "on the {} side", "{}", "in the {}", "to the {}")


@dataclass
class Request:
    """What a prompt asks for; None for what it leaves open.

    Attributes:
        shape: index into SHAPES.
        colour: index into PALETTE.
        ground: the same, of the ground.
        count: 1 to 3.
        size: 0 small, 2 big.
        position: -1, 0 or 1 in x and in y.
    """

    shape: int | None = None
    colour: int | None = None
    ground: int | None = None
    count: int | None = None
    size: int | None = None
    position: tuple[int, int] | None = None

    def numbers(self) -> list[float]:
        """The request as the diffusion network reads it."""
        numbers = [0.0] * REQUEST_SIZE
        if self.shape is not None:
            numbers[SHAPE_AT + self.shape] = 1
        for start, index in ((COLOUR_AT, self.colour), (GROUND_AT, self.ground)):
            if index is not None:
                rgb = PALETTE[COLOURS[index]]
                numbers[start : start + 4] = [1.0, *(2 * value - 1 for value in rgb)]
        if self.count is not None:
            numbers[COUNT_AT + self.count - 1] = 1
        if self.size is not None:
            numbers[SIZE_AT + self.size // 2] = 1
        if self.position is not None:
            x, y = self.position
            numbers[POSITION_AT : POSITION_AT + 4] = [1, x, 1, y]
        return numbers


def known_words() -> set[str]:
    """All words that the prompts are made of."""
    forms = (*GROUND_FORMS, *CENTRE_FORMS, *CORNER_FORMS, *SIDE_FORMS, *OPENINGS, *FILLER)
    texts = [*forms, *COLOURS, "in", "that is", "something", "a thing in", "shape", "thing"]
    texts += ["left", "right", "top", "upper", "bottom", "lower", "object"]
    for choices in (*COLOUR_WORDS.values(), *SIZE_WORDS.values(), *COUNT_WORDS.values()):
        texts += choices
    for choices in SHAPE_WORDS.values():
        texts += choices
        texts += map(_plural, choices)
    return {word for word in " ".join(texts).split() if "{" not in word}


def write_prompt(random: Random) -> tuple[list[str], Request]:
    """Write a prompt.

    Args:
        random: decides everything.

    Returns:
        Its words, some of them UNKNOWN, and what it asks for.
    """
    request = Request()
    words: list[str] = []
    if random.random() > 0.03:
        words = _description(random, request)
    if random.random() < 0.25:
        words = [*_filler(random, 7), *random.choice(((), (",",))), *words]
    if random.random() < 0.3:
        words = [*words, *random.choice(((), (",",))), *_filler(random, 9)]
    if random.random() < 0.05:
        words = [UNKNOWN] * random.randrange(1, 10) + words
    return words, request


def _description(random: Random, request: Request) -> list[str]:
    colour = random.randrange(len(COLOURS))
    grounds = CONTRASTS[colour].nonzero()[:, 0].tolist()
    thing = _thing(random, request, colour)
    ground = ""
    if random.random() < 0.72:
        request.ground = random.choice(grounds)
        ground = random.choice(GROUND_FORMS).format(_colour_word(random, request.ground))
    position = ""
    if random.random() < 0.25 and request.shape is not None and request.count == 1:
        position = _position(random, request)
    orders = ((thing, position, ground), (thing, ground, position))
    parts = list(random.choice(orders))
    if random.random() < 0.12:
        parts = [ground, thing, position]
    separator = " , " if random.random() < 0.25 else " "
    text = separator.join(part for part in parts if part)
    if random.random() < 0.25:
        text = f"{random.choice(OPENINGS)} {text}"
    return text.split()


def _thing(random: Random, request: Request, colour: int) -> str:
    has_colour = random.random() < 0.88
    if random.random() < 0.08:
        if not has_colour or random.random() < 0.5:
            return ""
        request.colour = colour
        opening = random.choice(("", "a", "something", "a thing in"))
        return f"{opening} {_colour_word(random, colour)} {random.choice(('', 'shape', 'thing'))}"
    noun, determiner = _noun(random, request)
    adjectives = []
    if random.random() < 0.4:
        request.size = random.choice((0, 2))
        adjectives.append(random.choice(SIZE_WORDS[request.size]))
    after = ""
    if has_colour:
        request.colour = colour
        if random.random() < 0.06:
            after = f"{random.choice(('in', ',', 'that is'))} {_colour_word(random, colour)}"
        else:
            adjectives.append(_colour_word(random, colour))
    if random.random() < 0.12:
        random.shuffle(adjectives)
    if random.random() < 0.08:
        adjectives.insert(random.randrange(len(adjectives) + 1), random.choice(FILLER))
    return " ".join([determiner, *adjectives, noun, after])


def _noun(random: Random, request: Request) -> tuple[str, str]:
    """Choose a shape and how many; give its word and the word before it, which may be empty."""
    request.shape = random.randrange(len(SHAPES))
    noun = random.choice(SHAPE_WORDS[SHAPES[request.shape]])
    determiner = ""
    if random.random() < 0.12:
        request.count = random.choice((1, 1, 3))
    else:
        request.count = random.choices((1, 2, 3), (0.57, 0.215, 0.215))[0]
        determiner = random.choice(COUNT_WORDS[request.count])
    if request.count > 1:
        noun = _plural(noun)
    return noun, determiner


def _position(random: Random, request: Request) -> str:
    x, y = random.randrange(-1, 2), random.randrange(-1, 2)
    request.position = (x, y)
    across = ("left", "", "right")[x + 1]
    down = (random.choice(("top", "upper")), "", random.choice(("bottom", "lower")))[y + 1]
    if not across and not down:
        return random.choice(CENTRE_FORMS)
    forms = CORNER_FORMS if across and down else SIDE_FORMS
    return random.choice(forms).format(f"{down} {across}".strip())


def _filler(random: Random, most: int) -> list[str]:
    number = random.randrange(1, most)
    return [random.choice((random.choice(FILLER), UNKNOWN)) for _ in range(number)]


def _colour_word(random: Random, colour: int) -> str:
    name = COLOURS[colour]
    return random.choice(COLOUR_WORDS.get(name, (name,)))


def _plural(word: str) -> str:
    first, space, last = word.rpartition(" ")
    return first + space + PLURALS.get(last, last + "s")
