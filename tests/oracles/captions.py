"""How the benchmarks of captions are scored, in loops, from what their authors publish.

Each function takes one list of scores per question, the true caption's place known, and is slow on purpose.
"""

from collections.abc import Mapping, Sequence

Scores = Sequence[Sequence[float]]  # [picture][caption] of one group


def winoground(groups: Sequence[Scores]) -> tuple[float, float, float]:
    """Text, image and group score: Thrush et al. 2022, section 4.1, f, g and h; caption i is true of picture i."""
    text = image = both = 0
    for s in groups:
        f = s[0][0] > s[0][1] and s[1][1] > s[1][0]
        g = s[0][0] > s[1][0] and s[1][1] > s[0][1]
        text, image, both = text + f, image + g, both + (f and g)
    return text / len(groups), image / len(groups), both / len(groups)


def whatsup(sets: Mapping[str, Mapping[str, Sequence[float]]]) -> tuple[float, float, float]:
    """Individual, pair and set accuracy: Kamath et al. 2023, section 3; the first of four scores is the true one's.

    `sets`: things -> relation -> scores. Strict, where the authors' code has `argmax == 0`.
    """
    pictures = right = pairs = whole = 0
    for of_set in sets.values():
        correct = dict.fromkeys(of_set, True)
        for relation, scores in of_set.items():
            for other in scores[1:]:
                if not scores[0] > other:
                    correct[relation] = False
            pictures += 1
            right += correct[relation]
        for one, other in (("left", "right"), ("on", "under"), ("in-front", "behind")):
            if correct.get(one, False) and correct.get(other, False):
                pairs += 1
        if sum(correct.values()) == 4:
            whole += 1
    return right / pictures, pairs / (pictures / 2), whole / (pictures / 4)


def macro(correct: Sequence[bool], names: Sequence[str], least: int = 1) -> float:
    """ARO: the accuracy of every relation (or pair of attributes with `least` pictures), and the mean of those."""
    accuracies = []
    for name in sorted(set(names)):
        of_name = [right for right, own in zip(correct, names, strict=True) if own == name]
        if len(of_name) < least:
            continue
        hits = 0
        for right in of_name:
            hits += right
        accuracies.append(hits / len(of_name))
    return sum(accuracies) / len(accuracies)


def sugarcrepe(scores: Sequence[tuple[float, float]]) -> float:
    """The share of pictures whose caption scores above its foil: Hsieh et al. 2023."""
    hits = 0
    for positive, negative in scores:
        hits += 1 if positive > negative else 0
    return hits / len(scores)
