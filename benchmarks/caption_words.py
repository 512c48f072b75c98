"""What captions say of drawn scenes, read from their words; whatever is not surely understood is not read at all.

A caption that is misread is put to scenes that it is false of, and the model is called wrong for being right. So a
wording is known whole or not at all: one that is negated, or begins with the place ("to the left of the red apple is a
green one"), is None, but for those of the drawn scenes themselves.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from fixtures.datasets.binding_scenes import RELATIONS
from fixtures.datasets.binding_things import COLOURS, THINGS

MARKS = ".,;:!"
BALLOON = "balloon"  # what is drawn of the relation "higher", and of no other
ANY = ("one", "thing", "object")  # words for whatever is there

BEFORE = r"(?:(?:there is|an? (?:photo|photograph|picture|image) of) )?"
IS = r"(?:(?:is|lies|sits|stands|hangs|floats) )?"
AFTER = r"(?: (?:of|in|on) (?:an?|the|this) (?:photo|photograph|picture|image|scene))?"
# what stands between two things -> the relation of binding scenes, and which of its two places the first thing is in
BETWEEN = {
    r"(?:(?:to|on|at) the )?left(?: side)? of": ("left", 0),
    r"(?:(?:to|on|at) the )?right(?: side)? of": ("left", 1),
    r"above": ("above", 0),
    r"below": ("above", 1),
    r"higher(?: up)? than": ("higher", 0),
    r"lower(?: down)? than": ("higher", 1),
    r"in front of": ("front", 0),
    r"nearer than": ("front", 0),
    r"behind": ("front", 1),
    r"farther(?: away)? than": ("front", 1),
}
# the same, of what is said of one thing alone
ALONE = {
    r"(?:on|at|to|in) the (?:far )?left(?: side| half)?": ("left", 0),
    r"(?:on|at|to|in) the (?:far )?right(?: side| half)?": ("left", 1),
    r"(?:at|near|in) the top(?: half)?": ("above", 0),
    r"(?:at|near|in) the bottom(?: half)?": ("above", 1),
    r"above": ("above", 0),
    r"below": ("above", 1),
    r"higher(?: up)?": ("higher", 0),
    r"lower(?: down)?": ("higher", 1),
    r"in front": ("front", 0),
    r"nearer": ("front", 0),
    r"behind": ("front", 1),
    r"farther(?: away)?": ("front", 1),
    r"on (?:top of )?(?:a|the) table": ("on", 0),
    r"(?:under|below) (?:a|the) table": ("on", 1),
}


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What two captions say: the first is true where `colours[0]` is in the relation's first place."""

    relation: str
    colours: tuple[str, str]
    thing: str | None  # None: any


@dataclass(frozen=True, kw_only=True)
class Said:
    """What one caption says: which colour is in which of the relation's two places."""

    relation: str
    places: Mapping[int, str]
    thing: str | None


def read(first: str, second: str) -> Asked | None:
    """What the captions say of drawn scenes, if each denies the other there; else None."""
    one, other = said(first), said(second)
    if one is None or other is None or (one.relation, one.thing) != (other.relation, other.thing):
        return None
    named = list(dict.fromkeys([*one.places.values(), *other.places.values()]))
    if len(named) == 1:
        named += [next(colour for colour in _offered(one.thing) if colour != named[0])]
    for colours in ((named[0], named[1]), (named[1], named[0])):
        own, swapped = dict(enumerate(colours)), dict(enumerate(colours[::-1]))
        true_of_own = [caption.places.items() <= own.items() for caption in (one, other)]
        true_of_swapped = [caption.places.items() <= swapped.items() for caption in (one, other)]
        if (true_of_own, true_of_swapped) == ([True, False], [False, True]):
            return Asked(relation=one.relation, colours=colours, thing=one.thing)
    return None


def said(caption: str) -> Said | None:
    """What a caption says of one thing or of two, whatever its articles and marks; None if it is not understood."""
    words = " ".join(word.strip(MARKS).lower() for word in caption.split())
    for pattern, relation, place in _PATTERNS:
        found = pattern.fullmatch(words)
        if found is not None:
            return _said(found.groupdict(), relation, place)
    return None


def _said(named: Mapping[str, str | None], relation: str, place: int) -> Said | None:
    colours = [found for key in "ab" if (found := named.get(f"colour_{key}"))]
    things = {found for key in "ab" if (found := named.get(f"thing_{key}"))} - {*ANY}
    drawn = {BALLOON} if relation == "higher" else {*THINGS}
    if len(set(colours)) < len(colours) or len(things) > 1 or not things <= drawn:
        return None
    places = {place: colours[0]} if len(colours) == 1 else {place: colours[0], 1 - place: colours[1]}
    return Said(relation=relation, places=places, thing=next(iter(things), None))


def _offered(thing: str | None) -> tuple[str, ...]:
    return THINGS[thing][2] if thing in THINGS else tuple(COLOURS)


def _thing(key: str) -> str:
    """A pattern of a thing and its colour."""
    colours, things = "|".join(COLOURS), "|".join((*THINGS, BALLOON, *ANY))
    return rf"(?:(?:an?|the|something) )?(?P<colour_{key}>{colours})(?: (?P<thing_{key}>{things}))?"


def _patterns() -> list[tuple[re.Pattern[str], str, int]]:
    """Every wording that is understood, its relation, and the place of what it calls a."""
    a, b = _thing("a"), _thing("b")
    drawn = [(words.format(a=a, b=b), relation, 0) for relation, known in RELATIONS.items() for words in known]
    between = [(f"{BEFORE}{a} {IS}{words} {b}{AFTER}", *what) for words, what in BETWEEN.items()]
    alone = [(f"{BEFORE}{a} {IS}{words}{AFTER}", *what) for words, what in ALONE.items()]
    return [(re.compile(pattern), relation, place) for pattern, relation, place in (*drawn, *between, *alone)]


_PATTERNS = _patterns()
