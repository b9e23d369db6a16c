"""The sender's route: ranges, tags, and what it answers to nonsense."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.weights.builders import sender, session

from asyncppo.wire import routes
from asyncppo_runtime.weights.serve import ByteRange, RangeRefusedError, parse_range


@given(st.integers(0, 50), st.integers(0, 60), st.integers(0, 60))
def test_a_span_selects_what_a_slice_does(size: int, first: int, last: int) -> None:
    body = bytes(range(size))
    if last < first:
        assert parse_range(f"bytes={first}-{last}", size) is None
    elif first >= size:
        with pytest.raises(RangeRefusedError):
            parse_range(f"bytes={first}-{last}", size)
    else:
        part = parse_range(f"bytes={first}-{last}", size)
        assert part is not None
        assert body[part.start : part.end] == body[first : last + 1]


@given(st.integers(0, 50), st.integers(0, 60))
def test_open_and_suffix_spans(size: int, number: int) -> None:
    if number >= size:
        with pytest.raises(RangeRefusedError):
            parse_range(f"bytes={number}-", size)
    else:
        assert parse_range(f"bytes={number}-", size) == ByteRange(number, size)
    if min(number, size) == 0:
        with pytest.raises(RangeRefusedError):
            parse_range(f"bytes=-{number}", size)
    else:
        assert parse_range(f"bytes=-{number}", size) == ByteRange(max(0, size - number), size)


@given(st.text(max_size=20), st.integers(0, 50))
def test_any_header_gives_the_whole_a_valid_span_or_a_refusal(header: str, size: int) -> None:
    for text in (header, f"bytes={header}"):
        try:
            part = parse_range(text, size)
        except RangeRefusedError:
            continue
        assert part is None or 0 <= part.start < part.end <= size


@pytest.mark.parametrize(
    "header", ["", "bytes", "bytes=", "bytes=-", "items=0-1", "bytes=0-1,3-4", "bytes=a-b", "bytes=1", "bytes=+1-2"]
)
def test_what_a_server_may_ignore_is_ignored(header: str) -> None:
    assert parse_range(header, 10) is None


async def test_whole_parts_and_edges(tmp_path: Path) -> None:
    body = bytes(range(200)) * 10_000
    async with sender(tmp_path) as learner, session() as client:
        record = learner.put(body)
        url = learner.base_url + routes.WEIGHTS.format(version=0)
        tag = f'"{record.file_sha256}"'
        for header, status, expected in (
            ({}, 200, body),
            ({"Range": "bytes=5-9"}, 206, body[5:10]),
            ({"Range": "bytes=1999999-"}, 206, body[-1:]),
            ({"Range": "bytes=-3"}, 206, body[-3:]),
            ({"Range": "bytes=2000000-"}, 416, None),
            ({"Range": "bytes=7-5"}, 200, body),
            ({"If-Match": tag, "Range": "bytes=0-0"}, 206, body[:1]),
            ({"If-Match": f'"x", {tag}'}, 200, body),
            ({"If-Match": "*"}, 200, body),
            ({"If-Match": '"x"'}, 412, None),
        ):
            async with client.get(url, headers=header) as response:
                content = await response.read()
                assert response.status == status, header
                if expected is not None:
                    assert content == expected, header
                    assert response.headers["ETag"] == tag
                if status == 206:
                    start = body.index(expected) if len(expected) > 3 else None
                    assert (
                        start is None or response.headers["Content-Range"] == f"bytes {start}-{start + 4}/{len(body)}"
                    )
                if status == 416:
                    assert response.headers["Content-Range"] == f"bytes */{len(body)}"
        async with client.head(url) as response:
            assert (response.status, response.content_length) == (200, len(body))


async def test_unknown_retired_and_nonsense_versions(tmp_path: Path) -> None:
    async with sender(tmp_path) as learner, session() as client:
        learner.publish(1)
        learner.store.remove(1)
        for version in ("0", "1", "x", "-1", "9" * 30, "1.0"):
            async with client.get(learner.base_url + f"/v1/weights/{version}") as response:
                assert response.status == 404, version
    async with sender(tmp_path) as learner, session("wrong") as client:
        learner.publish(1)
        async with client.get(learner.base_url + "/v1/weights/1") as response:
            assert response.status == 401


async def test_a_file_retired_while_it_is_sent_is_sent_to_its_end(tmp_path: Path) -> None:
    body = bytes(8 << 20)
    async with sender(tmp_path) as learner, session() as client:
        learner.put(body)
        async with client.get(learner.base_url + "/v1/weights/0") as response:
            first = await response.content.read(1000)
            learner.store.remove(0)
            assert len(first + await response.content.read()) == len(body)


async def test_a_file_shorter_than_its_record_is_not_passed_off_as_whole(tmp_path: Path) -> None:
    async with sender(tmp_path) as learner, session() as client:
        learner.put(bytes(100_000))
        learner.store.path(0).write_bytes(bytes(50_000))
        async with client.get(learner.base_url + "/v1/weights/0") as response:
            assert response.status == 412
