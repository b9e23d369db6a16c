"""Numbers, and words of other programs, as people read them. Owns the wording that screen, picture and summary share; no figure."""

import unicodedata

UNPRINTABLE = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
"""Unicode categories that a terminal obeys instead of showing, or cannot show."""


def one_line(text: str, limit: int) -> str:
    """Words of another program on one line of at most `limit` characters, without a character that a terminal would obey."""
    shown = text[: 4 * limit]  # cleaning costs; what comes after is cut anyway
    shown = "".join(" " if unicodedata.category(each) in UNPRINTABLE else each for each in shown)
    shown = " ".join(shown.split())
    return shown if len(shown) <= limit else f"{shown[: limit - 1]}…"


def percent(share: float) -> str:
    """A share as a percentage; only a true 1 is 100 % and only a true 0 is 0 %."""
    if share in (0.0, 1.0):
        return f"{share:.0%}"
    return f"{min(max(share, 0.001), 0.999):.1%}"


def duration(seconds: float) -> str:
    """Seconds as 12.3 s, 4 min 05 s or 2 h 03 min."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    if seconds < 3600:
        return f"{int(seconds // 60)} min {int(seconds % 60):02d} s"
    return f"{int(seconds // 3600)} h {int(seconds % 3600 // 60):02d} min"


def superscript(number: int) -> str:
    """An exponent in superscript digits."""
    return str(number).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))


def scientific(value: float) -> str:
    """A number of any size: 2.1×10⁻⁶, 0.034."""
    if value == 0.0 or 1e-2 <= abs(value) < 1e3:
        return f"{value:.3g}"
    mantissa, _, exponent = f"{value:.1e}".partition("e")
    return f"{mantissa}×10{superscript(int(exponent))}".replace("-", "−")


def short(seconds: float) -> str:
    """A short time: 41 ms, 1.2 s."""
    return f"{seconds * 1000:.0f} ms" if seconds < 1.0 else f"{seconds:.1f} s"


def count(number: int) -> str:
    """A count that fits: 812, 45.2k, 3.1M."""
    if number < 10_000:
        return f"{number:,}"
    return f"{number / 1000:.1f}k" if number < 1_000_000 else f"{number / 1e6:.1f}M"


def clock(seconds: float) -> str:
    """Seconds as 0:07, 12:34 or 1:02:03."""
    whole = max(0, int(seconds))
    hours, minutes = whole // 3600, whole % 3600 // 60
    return f"{hours}:{minutes:02d}:{whole % 60:02d}" if hours else f"{minutes}:{whole % 60:02d}"
