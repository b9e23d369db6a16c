"""docs/security.md: each test that it names as the proof of a claim is there."""

import re

from tests.cluster.kubernetes import ROOT


def test_each_named_test_is_there() -> None:
    page = (ROOT / "docs" / "security.md").read_text()
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", page)
    assert len(named) > 10
    for file, name in named:
        assert f"def {name}(" in (ROOT / file).read_text(), f"{file}::{name}"
    assert page.count("::") == len(named), "a test is named in another form"
