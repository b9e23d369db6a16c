"""One environment runs everything: the versions for vLLM are those of all else wherever both name a package."""

from pathlib import Path

ROOT = Path(__file__).parents[3]


def _versions(file: str) -> dict[str, str]:
    lines = (line.split("#")[0].strip() for line in (ROOT / file).read_text().splitlines())
    return dict(line.split("==") for line in lines if line)


def test_vllm_changes_no_version_of_the_environment_it_is_added_to() -> None:
    everywhere, for_vllm = _versions("constraints.txt"), _versions("constraints-vllm.txt")
    shared = everywhere.keys() & for_vllm.keys()
    assert {"transformers", "numpy"} <= shared
    assert {name: for_vllm[name] for name in shared} == {name: everywhere[name] for name in shared}
