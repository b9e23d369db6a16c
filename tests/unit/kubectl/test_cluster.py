"""Where the plugin asks a pod for its metrics: on the port of that name, or on the only port that pods of an earlier version have."""

import pytest

from asyncppo.kubectl.cluster import metrics_port


@pytest.mark.parametrize(
    ("ports", "port"),
    [
        ([{"name": "http", "containerPort": 8080}, {"name": "metrics", "containerPort": 8081}], 8081),
        ([{"name": "http", "containerPort": 8080}], 8080),
        ([], 8080),
    ],
)
def test_the_port_that_a_pod_is_scraped_on(ports: list[dict[str, object]], port: int) -> None:
    side_car: dict[str, object] = {"name": "side-car"}
    assert metrics_port({"spec": {"containers": [side_car, {"name": "learner", "ports": ports}]}}) == port
