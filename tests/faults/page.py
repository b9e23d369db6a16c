"""Figures that a command writes into a page, between two marks. Owns the marks."""

from pathlib import Path


def write_block(page: Path, name: str, words: str) -> None:
    """Replace what is between `<!-- name: ... -->` and `<!-- end of name -->`. ValueError when the page has no such marks."""
    text = page.read_text()
    start, end = text.find(f"<!-- {name}:"), text.find(f"<!-- end of {name} -->")
    if start < 0 or end < start:
        raise ValueError(f"{page} has no marks for {name}")
    opening = text[start : text.index("-->", start) + 3]
    page.write_text(f"{text[:start]}{opening}\n{words.strip()}\n{text[end:]}")
