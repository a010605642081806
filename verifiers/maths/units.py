r"""A quantity and its unit: `\$18`, `440\text{ cm}^2`, `28 percent`, `45 miles per hour`, `18\text{ units}`.

The law: a unit changes no value, and two different units are never the same. What is not known as a unit counts as one
only where it cannot be a variable: inside `\text`, or as a word of four letters and more. Not covered: conversion.
"""

from __future__ import annotations

import re

_NAMES = (
    "% percent pct percents percentage",
    "deg degree degrees",
    "$ dollar dollars usd buck bucks",
    "cent cents ¢",
    "€ euro euros eur",
    "£ gbp",
    "¥ yen jpy",
    "yuan rmb cny",
    "₹ rs rupee rupees inr",
    "mm millimeter millimeters millimetre millimetres",
    "cm centimeter centimeters centimetre centimetres",
    "m meter meters metre metres",
    "km kilometer kilometers kilometre kilometres kms",
    "inch inches in",
    "ft foot feet",
    "yd yard yards yds",
    "mi mile miles",
    "mg milligram milligrams",
    "g gram grams",
    "kg kilogram kilograms kgs",
    "lb lbs pound pounds",
    "oz ounce ounces",
    "ml milliliter milliliters millilitre millilitres",
    "l liter liters litre litres",
    "gal gallon gallons",
    "sec second seconds secs s",
    "min minute minutes mins",
    "hr hour hours hrs h",
    "day days",
    "week weeks wk wks",
    "month months",
    "year years yr yrs",
    "mi/hr mph",
    "km/hr kmh kph",
    "rad radian radians",
    "cup cups",
    "box boxes",
    "egg eggs",
    "j joule joules",
    "n newton newtons",
    "w watt watts",
    "v volt volts",
    "k kelvin kelvins",
    "am a.m. a.m",
    "pm p.m. p.m",
)
#: Every known spelling and the name of its unit.
UNITS = {word: words.split()[0] for words in _NAMES for word in words.split()}
#: Words that say that there is a unit, not which.
_ANY = {"unit", "units"}
#: Words after a number that change its value or begin something else, and so are no unit.
_NEVER_WORDS = """
and or not to where for if mod modulo base from with than factorial squared cubed half halves third thirds quarter
quarters fourths fifths sixths sevenths eighths ninths tenths hundredths thousandths less more plus minus times hundred
thousand million billion trillion dozen dozens gross doubled tripled halved negative divided
"""
#: Words that put what is before them in doubt, or hold a number of their own: nothing with one of them is a unit.
_DOUBT_WORDS = """
perhaps maybe possibly probably alternatively either otherwise one two three four five six seven eight nine ten eleven
twelve twenty hundred thousand million
"""
_DOUBT = frozenset(_DOUBT_WORDS.split())
#: Single letters that are no unit when written this way: 5M is five million.
_NOT_CAPITAL, _NOT_SMALL = frozenset("ABCDEFGHIMOPQRSTUXYZ"), frozenset("jnwvk")
_NEVER = frozenset(_NEVER_WORDS.split())

_POWER = r"(?:\s*\^\s*\{?(?P<power>\d)\}?)?"
_BEFORE = re.compile(
    r"(?P<sign>[-+]?)\s*(?:USD?|AU?|CA|R)?\s?(?P<unit>[$€£¥₹₱₩₽]|\bUSD|\bRs\.?)\s*(?P<value>-?[\d.\\].*)", re.DOTALL
)
_VALUE = r"(?P<value>.*(?:[\d)}!]|\d\.|\\pi))"
_SIGN = re.compile(rf"{_VALUE}\s*(?P<unit>%|\^\s*(?:\{{\s*\\circ\s*\}}|\\circ)|[$€£¥¢₹])\s*[CF]?", re.DOTALL)
_ANGLED = re.compile(r"\\(?:sin|cos|tan|cot|sec|csc)")
_TEXT = re.compile(rf"{_VALUE}\s*\\text\s*\{{(?P<unit>[^{{}}]*)\}}{_POWER}", re.DOTALL)
_WORDS = re.compile(rf"{_VALUE}(?P<gap>\s*)(?P<unit>[A-Za-z¢][A-Za-z.]*(?:[ /-]+[A-Za-z.]+){{0,7}}){_POWER}", re.DOTALL)


def peel(text: str, *, letters: bool) -> tuple[str, str]:
    """(value, unit) of a tidied text; the unit is "" where there is none or any will do.

    `letters` says whether a bare letter glued to a number (`5m`) may be a unit: in an answer to a plain number, not in
    a gold answer, where it is a variable.
    """
    last = text[-1:]
    if found := _BEFORE.fullmatch(text):
        value, more = peel(found["value"], letters=letters)
        money = UNITS.get(found["unit"].lower().rstrip("."), found["unit"])
        return found["sign"] + value, money if more in ("", money) else f"{money} {more}"
    if last in "}%$€£¥¢₹0123456789CF" or text.endswith("\\circ"):
        if (found := _SIGN.fullmatch(text)) and not (found["unit"][0] == "^" and _ANGLED.search(found["value"])):
            sign = found["unit"]
            return found["value"].rstrip(), "deg" if sign[0] == "^" else UNITS.get(sign, sign)
        if found := _TEXT.fullmatch(text):
            unit = named(found["unit"], found["power"], sure=True)
            return (text, "") if unit is None else (found["value"].rstrip(), unit)
    if (last.isalpha() or last in ".}¢0123456789") and (found := _WORDS.fullmatch(text)):
        words = found["unit"]
        if len(words) == 1 and not letters:
            return text, ""
        unit = named(words, found["power"], sure=False, glued=not found["gap"])
        if unit is not None:
            return found["value"].rstrip(), unit
    return text, ""


def named(words: str, power: str | None, *, sure: bool, glued: bool = False) -> str | None:
    """The name of a unit, "" for any, None where the words are none. `sure`: they stood in \\text."""
    words = words.strip()
    if len(words) == 1 and words in (_NOT_CAPITAL if words.isupper() else _NOT_SMALL):
        return None
    words = words.lower().removesuffix(".").replace("per cent", "percent")
    listed = words.replace(" per ", " / ").replace("/", " / ").split()
    if not listed:
        return "" if sure else None
    if listed[0] in ("sq", "sq.", "square", "cubic", "cu", "cu.") and len(listed) > 1:
        power = "2" if listed.pop(0)[0] == "s" else "3"
    head = listed[0]
    if not _DOUBT.isdisjoint(listed):
        return None
    if head == "per" and len(listed) > 1:
        return f"/{UNITS.get(listed[1], listed[1])}"
    if (head in ("more", "less") and len(listed) > 1 and listed[1] != "than") or words == "times":
        return ""
    if head in _ANY:
        return ""
    if head in UNITS:
        name = UNITS[head]
    elif head in _NEVER or not head[0].isalpha():
        return None
    elif sure and len(head) > 1 or (len(head) >= 4 and head.isalpha() and not glued):
        name = head[:-1] if head.endswith("s") and not head.endswith("ss") else head
    else:
        return None
    if listed[1:2] == ["/"] and len(listed) > 2:
        name = f"{name}/{UNITS.get(listed[2], listed[2])}"
    return f"{name}^{power}" if power else name
