"""What all vLLM tests share: they are skipped where vLLM is not installed, and vLLM's own warnings are not errors."""

import importlib.util

import pytest


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "/tests/vllm/" not in item.path.as_posix():
            continue
        item.add_marker(pytest.mark.vllm)
        item.add_marker(pytest.mark.filterwarnings("ignore"))
        if importlib.util.find_spec("vllm") is None:
            item.add_marker(pytest.mark.skip(reason="vLLM is not installed here; make setup-vllm adds it"))
