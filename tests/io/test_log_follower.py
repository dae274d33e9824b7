"""A follower tells pieces apart by the step that wrote them, and shows nothing that may hold a secret."""

from pathlib import Path

from headwater.io.log_follower import LogFollower, Printed
from headwater.io.log_index import INDEX, IndexWriter


def pieces(follower: LogFollower) -> list[tuple[str | None, str, bytes]]:
    return [(one.step, one.stream, one.data or one.marker.encode()) for one in follower.read()]


def test_pieces_by_step(tmp_path: Path) -> None:
    index = IndexWriter(tmp_path)
    out = tmp_path / "stdout"
    with LogFollower(tmp_path) as follower:
        assert pieces(follower) == []
        out.write_bytes(b"set up")
        index.began("one", 1, "stdout", 6)
        assert pieces(follower) == [(None, "stdout", b"set up")]
        out.write_bytes(b"set upONEbetweenTWO")
        index.ended("one", 1, "stdout", 6, 9)
        index.began("two", 2, "stdout", 16)
        (tmp_path / "7.stderr").write_bytes(b"aside")
        index.began("three", 1, "7.stderr", 0)
        assert pieces(follower) == [
            ("one", "stdout", b"ONE"),
            (None, "stdout", b"between"),
            ("two", "stdout", b"TWO"),
            ("three", "stderr", b"aside"),
        ]
        index.over()
        assert pieces(follower) == [] and follower.over


def test_what_is_cut_short_goes_on_where_it_ends(tmp_path: Path) -> None:
    out = tmp_path / "stdout"
    out.write_bytes(b"0123456789")
    with LogFollower(tmp_path) as follower:
        assert pieces(follower) == [(None, "stdout", b"0123456789")]
        out.write_bytes(b"01")
        assert pieces(follower) == [(None, "stdout", b"stdout was cut")]
        with out.open("ab") as file:
            file.write(b"new")
        assert pieces(follower) == [(None, "stdout", b"new")]


def test_nothing_is_shown_before_it_is_clean(tmp_path: Path) -> None:
    index = IndexWriter(tmp_path)
    index.guard()
    (tmp_path / "stdout").write_bytes(b"0123456789")
    with LogFollower(tmp_path, streams=("stdout",)) as follower:
        assert pieces(follower) == []
        index.clean("stdout", 4)
        assert pieces(follower) == [(None, "stdout", b"0123")]
        index.ended("one", 1, "stdout", 0, 8)
        assert pieces(follower) == [("one", "stdout", b"4567")]
        index.over()
        assert pieces(follower) == [(None, "stdout", b"89")]


def test_an_index_that_makes_no_sense_hides_nothing(tmp_path: Path) -> None:
    (tmp_path / INDEX).write_bytes(b'nonsense\n[1]\n{"step": 3}\n{"half')
    (tmp_path / "stderr").write_bytes(b"x")
    with LogFollower(tmp_path) as follower:
        assert list(follower.read()) == [Printed(step=None, attempt=1, stream="stderr", data=b"x")]
