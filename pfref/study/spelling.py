"""The many spellings of one answer: what LaTeX and habit add, taken off again.

Nothing here computes. A spelling that is not understood is left as it is.
"""

import re
from dataclasses import dataclass
from fractions import Fraction

SYMBOLS = str.maketrans(
    {
        "\u2212": "-",
        "\u2013": "-",
        "\u00a0": " ",
        "\u202f": " ",
        "\u2009": " ",
        "\u00d7": r"\times ",
        "\u00b7": r"\cdot ",
        "\u00b0": r"^\circ",
        "\u03c0": r"\pi ",
        "\u221e": r"\infty ",
        "\u222a": r"\cup ",
        "\u2264": r"\leq ",
        "\u2265": r"\geq ",
        "\u00b1": r"\pm ",
        "\u00bd": r"\frac{1}{2}",
        "\u2153": r"\frac{1}{3}",
        "\u2154": r"\frac{2}{3}",
        "\u00bc": r"\frac{1}{4}",
        "\u00be": r"\frac{3}{4}",
        "\u221a": r"\sqrt ",
        "\u00b2": "^2",
        "\u00b3": "^3",
    }
)
# What is replaced, in this order.
REWRITES = [
    (re.compile(pattern), new)
    for pattern, new in (
        (r"\{,\}|,\\!\s*", ","),  # a thousands separator
        (r"(?<=[0-9])\\[,;:!]\s*(?=[0-9]{3}(?![0-9]))", ""),  # and a thin space as one
        (r"(?<!\\)\\!", ""),
        (r"(?<!\\)\\[,;: ]|~|\\q?quad(?![A-Za-z])", " "),
        (r"\\(?:left|right)(?![A-Za-z])\s*\.?", ""),
        (r"\\[Bb]igg?[lrm]?(?![A-Za-z])", ""),
        (r"\\(?:display|text)style(?![A-Za-z])|\\limits(?![A-Za-z])", ""),
        (r"\\[dtc]frac(?![A-Za-z])", r"\\frac"),
        (r"\\(?:mathbf|mathit|boldsymbol|bm)(?![A-Za-z])", ""),
        (
            r"\\(?:mbox|textbf|textit|textrm|textnormal|mathrm|operatorname)\s*\{",
            r"\\text{",
        ),
        (r"\\text\s*\{\s*([-0-9.,/]+)\s*\}", r"\1"),
        (r"\\text\s*\{\s*(i|e|\\pi)\s*\}", r" \1 "),
        (r"(?<=[0-9])\s*\\text\s*\{\s*thousand\s*\}", r"\\times 10^{3}"),
        (r"(?<=[0-9])\s*\\text\s*\{\s*million\s*\}", r"\\times 10^{6}"),
        (r"(?<=[0-9])\s*\\text\s*\{\s*billion\s*\}", r"\\times 10^{9}"),
        (r"(\^\\circ)\s*\\text\s*\{\s*[CF]\s*\}", r"\1"),
        (r"\\\\\s*\[[0-9.]+(?:pt|em|ex|mm|cm)\]", r"\\\\"),
        (r"(?<![A-Za-z\\])pi(?![A-Za-z])", r"\\pi "),
        (r"\\text\s*\{\s*(or|and)\s*\}", r" \1 "),
        (r"\\text\s*\{\s*,\s*(or|and)\s*\}", r", "),
        (r",?\s+(?:or|and)\s+", ", "),
        (r"\\lbrace(?![A-Za-z])", r"\\{"),
        (r"\\rbrace(?![A-Za-z])", r"\\}"),
        (r"\\le(?![A-Za-z])", r"\\leq"),
        (r"\\ge(?![A-Za-z])", r"\\geq"),
        (r"\+\s*\\infty", r"\\infty"),
        (r"\^\s*\{\s*\\circ\s*\}|\\degree(?![A-Za-z])|\^\s*\\circ", r"^\\circ"),
        (r"([\^_])\s*\{\s*([0-9A-Za-z])\s*\}", r"\1\2"),
        (r"\\sqrt\s*([0-9A-Za-z])", r"\\sqrt{\1}"),
        (r"\\frac\s*([0-9A-Za-z])\s*([0-9A-Za-z])", r"\\frac{\1}{\2}"),
        (r"\\frac\s*([0-9A-Za-z])\s*(?=\{)", r"\\frac{\1}"),
        (r"\\frac\s*(\{[^{}]*\})\s*([0-9A-Za-z])", r"\\frac\1{\2}"),
        (r"\\frac\s*(\{[^{}]*\})\s*(?=\{)", r"\\frac\1"),
    )
]
DECIMAL = r"(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)"
THOUSANDS = r"[0-9]{1,3}(?:,[0-9]{3})+(?:\.[0-9]*)?"
NUMBER = re.compile(
    rf"(?P<sign>[-+]?)\s*(?:(?P<value>{THOUSANDS}|{DECIMAL})"
    r"(?:\s*(?:\\times|\\cdot|\*|x)\s*10\s*\^\s*\{?\s*(?P<power>-?[0-9]{1,3})\s*\}?)?"
    rf"|(?:(?P<whole>[0-9]+)\s*)?\\frac\{{\s*(?P<over>-?{DECIMAL}|-?{THOUSANDS})\s*\}}"
    rf"\{{\s*(?P<under>-?{DECIMAL}|{THOUSANDS})\s*\}}"
    rf"|(?:(?P<whole2>[0-9]+)\s+)?(?P<over2>{DECIMAL})\s*/\s*(?P<under2>{DECIMAL}))"
)
# Units that may follow a number without \\text{}; each also with a plural's s.
UNITS = re.compile(
    "cm|mm|km|kg|mg|ft|in|lb|oz|mi|ml|hr|min|sec|sq|mph|km/h|inche?|foot|feet|yard|mile"
    "|(?:centi|kilo|milli)?met(?:er|re)|(?:kilo|milli)?gram|pound|ounce|lit(?:er|re)"
    "|gallon|second|minute|hour|day|week|month|year|degree|percent|dollar|cent|euro"
    "|unit|square|cubic|per"
)
ALIASES = {
    "centimeter": "cm",
    "centimetre": "cm",
    "millimeter": "mm",
    "millimetre": "mm",
    "kilometer": "km",
    "kilometre": "km",
    "metre": "m",
    "meter": "m",
    "kilogram": "kg",
    "gram": "g",
    "inche": "in",
    "inch": "in",
    "foot": "ft",
    "feet": "ft",
    "mile": "mi",
    "pound": "lb",
    "ounce": "oz",
    "minute": "min",
    "second": "sec",
    "hour": "hr",
    "usd": "dollar",
    "sq": "square",
    "liter": "l",
    "litre": "l",
    "milliliter": "ml",
    "millilitre": "ml",
    "yard": "yd",
    "mph": "mi per hr",
    "km/h": "km per hr",
    "m/s": "m per sec",
    "ft/s": "ft per sec",
}
# What no unit is, behind a number.
NO_UNIT = re.compile(
    r"[\\0-9]|\b(?:and|or|hundred|thousand|million|billion|dozen|squared|cubed)\b"
)
LETTERS = {*"mgshlLNJWVAKCF"}  # units of one letter
WORDED = re.compile(r"\s*\\text\s*\{([^{}]*)\}\s*(?:\^\{?([23])\}?)?$")
BARE = re.compile(r"(?<=[0-9}])\s*([A-Za-z][A-Za-z/. ]*?)(?:\^\{?([23])\}?)?$")


@dataclass(frozen=True)
class Quantity:
    """A value without what surrounds it, and the unit that was named with it."""

    value: str
    unit: str = ""


def cleaned(text: str) -> str:
    """LaTeX of the same meaning, without what is there for the eye only."""
    text = text.translate(SYMBOLS).strip().strip("*").strip()
    if len(re.findall(r"(?<!\\)\$", text)) % 2 == 0:  # one alone is an amount's
        text = re.sub(r"(?<!\\)\$", "", text).strip()
    for left, right in ((r"\(", r"\)"), (r"\[", r"\]")):
        if text.startswith(left) and text.endswith(right):
            text = text[2:-2].strip()
    for pattern, new in REWRITES:
        text = pattern.sub(new, text)
    text = re.sub(r"\s+", " ", text).strip()
    while text.endswith((".", ",", ";", ":", "\\")):
        text = text[:-1].rstrip()
    return text


def key(text: str) -> str:
    """What two spellings share that differ in spaces only.

    A space between two digits stays: 1 4/5 is not 14/5.
    """
    return re.sub(r"(?<![0-9]) | (?![0-9])", "", text.replace("{}", ""))


def quantity(text: str) -> Quantity:
    """A cleaned text's value and unit: `15\\text{ cm}^2`, `\\$3`, `20\\%`, `90^\\circ`.

    Without a value before it, a word is the value.
    """
    unit = ""
    if found := re.match(r"([-+]?)\s*\\?\$\s*", text):
        text, unit = found[1] + text[found.end() :], "dollar"
    text = re.sub(r"(?<!\\)\$", "", text)
    if found := re.search(r"\s*\\?%$", text):
        text, unit = text[: found.start()], "percent"
    elif text.endswith(r"^\circ") and number(value := text[:-6]) is not None:
        text, unit = value, "degree"  # in tan 15 degrees it is no unit
    elif found := WORDED.search(text) or BARE.search(text):
        value, name = text[: found.start()], found[1]
        if re.search(r"[0-9]|\\pi", value) and (
            (r"\text" in found[0] and is_unit(name))
            or all(UNITS.fullmatch(word.removesuffix("s")) for word in words(name))
        ):
            text, unit = value, unit_of(name, found[2])
    return Quantity(text.strip(), unit)


def is_unit(name: str) -> bool:
    """May a text behind a number be one? A digit, a number word or a variable is no
    unit: `3\\text{ dozen}` is not 3.
    """
    name = name.strip()
    return not NO_UNIT.search(name) and (len(name) != 1 or name in LETTERS)


def words(text: str) -> list[str]:
    return [word.strip(".").lower() for word in text.split() if word.strip(".")]


def unit_of(text: str, power: str | None) -> str:
    """One name for a unit's spellings: square inches, sq. in and inches^2."""
    names = [
        word if word in ALIASES else word.removesuffix("s") or word
        for word in words(text)
    ]
    names = [ALIASES.get(name, name) for name in names]
    for name, value in (("square", "2"), ("cubic", "3")):
        if name in names[:1]:
            names, power = names[1:], value
    return " ".join(names) + (f"^{power}" if power else "")


def same_unit(one: str, other: str) -> bool:
    """May they be one unit? A missing one may be any, and so may plain "units"."""
    return one == other or not one or not other or "unit" in one + other


def number(text: str) -> Fraction | None:
    """The exact value of a plain number: an integer, a decimal or common fraction, a
    mixed number, a power of ten; thousands may be separated by commas.
    """
    text = text.strip()
    while text.startswith("{") and text.endswith("}") and text.count("{") == 1:
        text = text[1:-1].strip()
    found = NUMBER.fullmatch(text)
    if not found:
        return None
    part = {
        name: exact(value.replace(",", ""))
        for name, value in found.groupdict().items()
        if value and name not in ("sign", "power")
    }
    over, under = (part.get(n) or part.get(f"{n}2") for n in ("over", "under"))
    if found["value"]:
        value = part["value"] * Fraction(10) ** int(found["power"] or 0)
    elif not under:
        return None
    else:
        whole = part.get("whole", part.get("whole2", Fraction(0)))
        value = whole + (over or 0) / under
    return -value if found["sign"] == "-" else value


def exact(text: str) -> Fraction:
    """Decimal digits' value. Python's own reading has a limit of digits for `int`."""
    sign = -1 if text.startswith("-") else 1
    before, _, after = text.lstrip("-").partition(".")
    return Fraction(sign * int((before + after) or "0"), 10 ** len(after))
