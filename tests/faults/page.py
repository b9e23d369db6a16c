"""Figures that a command writes into a page, between two marks, with the commit they were made at. Owns the marks."""

import subprocess
from pathlib import Path


def write_block(page: Path, name: str, words: str) -> None:
    """Replace what is between `<!-- name: ... -->` and `<!-- end of name -->`. ValueError when the page has no such marks."""
    text = page.read_text()
    start, end = text.find(f"<!-- {name}:"), text.find(f"<!-- end of {name} -->")
    if start < 0 or end < start:
        raise ValueError(f"{page} has no marks for {name}")
    opening = text[start : text.index("-->", start) + 3]
    page.write_text(f"{text[:start]}{opening}\n{words.strip()}\n\nMade at {commit()}.\n{text[end:]}")


def commit() -> str:
    """The commit that is checked out, as a page names it; outside a repository that too is said."""

    def git(*arguments: str) -> str:
        done = subprocess.run(["git", *arguments], cwd=Path(__file__).parent, capture_output=True, text=True)
        return done.stdout.strip() if done.returncode == 0 else ""

    name = git("rev-parse", "--short=10", "HEAD")
    if not name:
        return "no commit: not a git repository"
    # docs are what the proofs write, one after the other
    changed = git("status", "--porcelain", "--", ":/", ":!/docs")
    return f"commit {name}{', with changes that are not committed' if changed else ''}"
