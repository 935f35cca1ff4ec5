"""Units: decoration where one side has none, a difference where both have one and they are not the same."""

import re

from .numerals import makes_other

__all__ = ["canonical_unit", "is_unit_word", "split_unit"]

_NAMES = {
    "m": "meter meters metre metres",
    "cm": "centimeter centimeters centimetre centimetres",
    "mm": "millimeter millimeters millimetre millimetres",
    "km": "kilometer kilometers kilometre kilometres",
    "inch": "inches in",
    "ft": "foot feet",
    "yd": "yard yards",
    "mi": "mile miles",
    "s": "sec secs second seconds",
    "min": "mins minute minutes",
    "h": "hr hrs hour hours",
    "day": "days",
    "week": "weeks",
    "month": "months",
    "year": "years yr yrs",
    "g": "gram grams",
    "kg": "kilogram kilograms",
    "mg": "milligram milligrams",
    "lb": "lbs",
    "pound": "pounds",  # of mass, or £
    "ton": "tons",
    "tonne": "tonnes",
    "oz": "ounce ounces",
    "L": "l liter liters litre litres",
    "mL": "ml milliliter milliliters millilitre millilitres",
    "gallon": "gallons gal",
    "quart": "quarts qt",
    "pint": "pints",
    "cup": "cups",
    "acre": "acres",
    "N": "newton newtons",
    "J": "joule joules",
    "W": "watt watts",
    "Hz": "hertz",
    "Pa": "pascal pascals",
    "mi/h": "mph",
    "km/h": "kmh kph",
    "mi/gallon": "mpg",
    "AM": "",
    "PM": "",
    "°": "degree degrees deg",
    "rad": "radian radians",
    "$": "dollar dollars USD usd",
    "cent": "cents",
    "€": "euro euros EUR",
    "£": "GBP",
    "¥": "yen yuan",
    "₹": "rupee rupees",
    "°C": "",
    "°F": "",
    "unit": "units",
}
_KNOWN = {name: symbol for symbol, names in _NAMES.items() for name in (symbol, *names.split())}
_SYMBOLS = "|".join(sorted((re.escape(name) for name in _KNOWN if name.isalpha()), key=len, reverse=True))
_ONE = rf"(?:{_SYMBOLS})(?:\s*\^\s*\{{?-?[1-4]\}}?)?(?![A-Za-z])"
_COMPOUND = rf"{_ONE}(?:\s*(?:/|\*|per)\s*{_ONE})*"
_SINGLE = r"[mshgLNJW](?:\s*\^\s*\{?[23]\}?)?"
_TEXT = r"\\text\s*\{[^{}]*\}(?:\s*\^\s*\{?-?\d\}?)?"
_PATTERNS = (
    re.compile(r"(?P<value>.*\S)\s*(?P<unit>°(?:\s*(?:\\text\s*\{\s*)?[CF]\s*\}?)?)", re.DOTALL),
    re.compile(rf"(?P<value>.*\S)\s*(?P<unit>{_TEXT}(?:\s*[/*]\s*{_TEXT})*)", re.DOTALL),
    re.compile(rf"(?P<value>.*\S)\s*(?P<unit>\\frac\s*\{{\s*{_TEXT}\s*\}}\s*\{{\s*{_TEXT}\s*\}})", re.DOTALL),
    re.compile(rf"(?P<value>.*[\d}})])\s*(?P<unit>{_ONE}(?:\s*(?:/|\*|per)\s*{_ONE})+)", re.DOTALL),
    re.compile(rf"(?P<value>.*[\d}})])\s+(?P<unit>{_COMPOUND})", re.DOTALL),
    re.compile(rf"(?P<value>.*[\d}})])\s*(?P<unit>(?!(?:{_SINGLE})$)(?!in$|min$|day$){_ONE})", re.DOTALL),
    re.compile(
        r"(?P<value>.*[\d})])\s+(?P<unit>(?:square|sq\.?|cubic|cu\.?)\s+[A-Za-z]+|[A-Za-z]+\s+(?:squared|cubed))",
        re.DOTALL,
    ),
)
_COUNT = re.compile(r"(?P<value>[-+]?[\d.,/ ]*\d)\s+(?P<unit>[^\W\d_]{2,}(?:[ '/-][^\W\d_]+)*)")
_MONEY = (
    re.compile(r"(?P<sign>[-+]?)\s*(?P<unit>\\?\$|[€£¥₹]|(?:USD|EUR|GBP|US\$)\s)\s*(?P<value>[-+]?[\d.].*)", re.DOTALL),
    re.compile(r"(?P<sign>)(?P<value>.*\d)\s*(?P<unit>\\?\$|[€£¥₹])", re.DOTALL),
)
_RATE = re.compile(r"(.*\d)\s*(?:/\s*|(?:per|an?|each|every)\s+)([^\W\d_]{2}.*)", re.DOTALL)
_NOT_UNITS = frozenset({"pi", "sqrt", "sin", "cos", "tan", "log", "ln", "exp", "percent", "pct", "percentage"})


def split_unit(text: str) -> tuple[str, str] | None:
    """Returns the value and the unit of a quantity, `None` where no unit is found."""
    for pattern in _MONEY:
        if match := pattern.fullmatch(text):
            if rate := _RATE.fullmatch(match["value"]):
                return match["sign"] + rate[1], f"{match['unit']}/{rate[2]}"
            return match["sign"] + match["value"], match["unit"]
    for pattern in (*_PATTERNS, _COUNT):
        match = pattern.fullmatch(text)
        if match and not _is_percent(match["unit"]) and not makes_other(f"0 {match['unit']}"):
            return match["value"], match["unit"]
    return None


def _is_percent(unit: str) -> bool:
    return not _NOT_UNITS.isdisjoint(re.findall(r"[A-Za-z]+", unit.replace(r"\text", "")))


def is_unit_word(word: str) -> bool:
    """Returns whether a word is the name of a known unit."""
    return word in _KNOWN


def canonical_unit(unit: str) -> str | None:
    """Returns one spelling of a known unit (`cm^2`, `m/s`), `None` for any other, such as `apples`."""
    text = re.sub(r"\\text\s*\{([^{}]*)\}", r" \1 ", unit)
    text = re.sub(r"\\frac\s*\{([^{}]*)\}\s*\{([^{}]*)\}", r"\1/\2", text).replace("\\", "")
    text = re.sub(r"\b(?:square|sq)\.?\s+([A-Za-z]+)|\b([A-Za-z]+)\s+squared", r"\1\2^2", text)
    text = re.sub(r"\b(?:cubic|cu)\.?\s+([A-Za-z]+)|\b([A-Za-z]+)\s+cubed", r"\1\2^3", text)
    text = re.sub(r"\s+(?:per|an?|each|every)\s+", "/", text)
    text = re.sub(r"°\s+(?=[CF]\b)", "°", text)
    names = [part if part in "/*" else _factor(part.split()) for part in re.findall(r"[/*]|[^/*]+", text)]
    return None if all(name in "/*?" for name in names) else "".join(names)


def _factor(words: list[str]) -> str:
    """Returns the known units that words begin with, multiplied (`feet tall` is `ft`); `?` where there are none."""
    units: list[str] = []
    for word in words:
        match = re.fullmatch(r"(°[CF]?|[$€£¥₹]|[A-Za-z]+)?\.?(\^\{?-?\d\}?)?[.,]?", word)
        name = (match[1] or "") if match else None
        if name is None or (name and name not in _KNOWN and name.lower() not in _KNOWN):
            break
        if name == "in" and len(words) > 1:  # in total
            break
        power = (match[2] or "").replace("{", "").replace("}", "") if match else ""
        if name:
            units.append(_KNOWN.get(name) or _KNOWN[name.lower()])
        if units:
            units[-1] += power
    return "*".join(units) or "?"
