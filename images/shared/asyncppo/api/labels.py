"""Labels and annotations that a job's author wants on the job's objects: what Kubernetes takes for one.

Owns the grammar and which names are the operator's own. Does not own which objects carry them (`asyncppo_operator.plan.marks`).
"""

import re
from collections.abc import Mapping
from typing import Annotated

from pydantic import Field

NAME_PATTERN = (
    r"^([a-z0-9]([-a-z0-9]*[a-z0-9])?([.][a-z0-9]([-a-z0-9]*[a-z0-9])?)*/)?[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$"
)
"""An optional DNS name and a slash, then a name."""
NAME_LENGTHS = "^([^/]{1,253}/)?[^/]{1,63}$"
VALUE_PATTERN = r"^([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?$"
MOST = 32

OWN_DOMAIN = "asyncppo.io/"
OWN_LABELS = tuple(f"app.kubernetes.io/{name}" for name in ("name", "instance", "managed-by", "component"))
"""With everything below `OWN_DOMAIN`, what the operator sets itself: it selects a job's objects and tells them apart."""

LabelValue = Annotated[str, Field(pattern=VALUE_PATTERN, max_length=63)]
Labels = Annotated[dict[str, LabelValue], Field(max_length=MOST)]
Annotations = Annotated[dict[str, Annotated[str, Field(max_length=4096)]], Field(max_length=MOST)]


def is_name(name: str) -> bool:
    """Whether Kubernetes takes it for the name of a label or an annotation."""
    return bool(re.fullmatch(NAME_PATTERN[1:-1], name) and re.fullmatch(NAME_LENGTHS[1:-1], name))


def is_own(name: str) -> bool:
    """Whether the operator sets the label or annotation of this name."""
    return name.startswith(OWN_DOMAIN) or name in OWN_LABELS


def may_be_set(marks: Mapping[str, str]) -> bool:
    """Whether an author may put all of these on a job's objects."""
    return all(is_name(name) and not is_own(name) for name in marks)


def names_rule() -> str:
    """The CEL twin of `may_be_set`, with `self` the map."""
    own = ", ".join(f"'{name}'" for name in OWN_LABELS)
    return (
        f"self.all(k, k.matches('{NAME_LENGTHS}') && k.matches('{NAME_PATTERN}') "
        f"&& !k.startsWith('{OWN_DOMAIN}') && !(k in [{own}]))"
    )
