"""Segments: what is appended is read back, whoever writes beside; what is torn is found."""

from __future__ import annotations

import os

import numpy as np
import pytest

from visrag.errors import StoreError
from visrag.store.locks import lock_new, try_lock
from visrag.store.segments import BITS, HEADERS, INT8, SegmentGone, SegmentReader, SegmentWriter


def codes(n, dim=16, seed=0):
    return np.random.default_rng(seed).integers(-127, 128, (n, dim)).astype(np.int8)


@pytest.fixture
def writer(tmp_path):
    made = SegmentWriter(tmp_path, limit=4096)
    yield made
    made.close()


def test_blocks_are_aligned_and_come_back(tmp_path, writer):
    blocks = [codes(n, seed=n) for n in (1, 7, 30)]
    places = [writer.append(block) for block in blocks]
    writer.sync()
    assert [place.offset for place in places] == [64, 128, 256]
    assert len({place.segment for place in places}) == 1
    reader = SegmentReader(tmp_path)
    for block, place in zip(blocks, places, strict=True):
        np.testing.assert_array_equal(reader.block(place.segment, place.offset, block.shape, place.crc), block)


def test_a_mapped_segment_that_grew_is_mapped_again(tmp_path, writer):
    reader = SegmentReader(tmp_path)
    for n in range(1, 20):
        block = codes(n, seed=n)
        place = writer.append(block)
        np.testing.assert_array_equal(reader.block(place.segment, place.offset, block.shape, place.crc), block)


def test_a_full_segment_is_followed_by_another_and_stays_locked_until_released(tmp_path, writer):
    places = [writer.append(codes(100, seed=n)) for n in range(6)]  # 1,600 bytes each: two a segment
    assert [sum(place.segment == name for place in places) for name in dict.fromkeys(p.segment for p in places)] == [
        2,
        2,
        2,
    ]
    first = tmp_path / places[0].segment
    assert try_lock(first) is None
    writer.sync()
    assert try_lock(first) is None
    writer.release()
    os.close(try_lock(first))
    assert try_lock(tmp_path / places[-1].segment) is None


def test_a_block_larger_than_the_limit_has_a_segment_of_its_own(tmp_path, writer):
    small, large, after = (writer.append(codes(n)) for n in (4, 1000, 4))
    assert len({small.segment, large.segment, after.segment}) == 3


def test_writers_never_share_a_segment_and_the_next_one_goes_on_in_it(tmp_path, writer):
    other = SegmentWriter(tmp_path, limit=4096)
    mine, theirs = writer.append(codes(4)), other.append(codes(4))
    assert mine.segment != theirs.segment
    other.close()
    third = SegmentWriter(tmp_path, limit=4096)
    place = third.append(codes(5, seed=5))
    third.close()
    assert (place.segment, place.offset) == (theirs.segment, 128)
    np.testing.assert_array_equal(
        SegmentReader(tmp_path).block(place.segment, 128, (5, 16), place.crc), codes(5, seed=5)
    )


def test_blocks_of_a_kind_lie_together_and_the_next_writer_keeps_them_apart(tmp_path, writer):
    first = [writer.append(codes(4), kind) for kind in (INT8, BITS, INT8, BITS)]
    assert [place.offset for place in first] == [64, 64, 128, 128]
    assert first[0].segment == first[2].segment != first[1].segment == first[3].segment
    for place, kind in zip(first[:2], (1, 2), strict=True):
        assert (tmp_path / place.segment).read_bytes()[:12] == b"VISRAGSG\x01\x00" + bytes([kind, 0])
    writer.close()
    again = SegmentWriter(tmp_path, limit=4096)
    assert [again.append(codes(1), kind)[:2] for kind in (BITS, INT8)] == [
        (first[1].segment, 192),
        (first[0].segment, 192),
    ]
    again.close()


def test_a_torn_tail_is_passed_over(tmp_path, writer):
    first = writer.append(codes(4))
    writer.close()
    with (tmp_path / first.segment).open("ab") as file:
        file.write(b"torn")
    again = SegmentWriter(tmp_path, limit=4096)
    place = again.append(codes(4))
    again.close()
    assert (place.segment, place.offset) == (first.segment, 192)


def test_what_cannot_be_written_is_not_there(tmp_path, writer, monkeypatch):
    first = writer.append(codes(4))
    real = os.pwrite

    def torn(descriptor, data, offset):
        if len(data) > 100:
            return real(descriptor, data[:100], offset)
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", torn)
        with pytest.raises(OSError, match="No space"):
            writer.append(codes(20))
    assert (tmp_path / first.segment).stat().st_size == 128
    assert writer.append(codes(4)).offset == 128


def test_damage_is_told_apart(tmp_path, writer):
    place = writer.append(codes(4))
    path = tmp_path / place.segment
    with pytest.raises(StoreError, match="damaged between bytes 64 and 128"):
        SegmentReader(tmp_path).block(place.segment, 64, (4, 16), place.crc ^ 1)
    with pytest.raises(StoreError, match="ends at byte 128"):
        SegmentReader(tmp_path).block(place.segment, 64, (5, 16), place.crc)
    with pytest.raises(SegmentGone, match="missing"):
        SegmentReader(tmp_path).buffer("gone.seg", 1)
    path.write_bytes(b"X" * 128)
    with pytest.raises(StoreError, match="header is not known"):
        SegmentReader(tmp_path).buffer(place.segment, 128)
    path.write_bytes(b"")
    with pytest.raises(StoreError, match="empty"):
        SegmentReader(tmp_path).buffer(place.segment, 128)


def test_what_is_mapped_outlives_its_file(tmp_path, writer):
    place = writer.append(codes(4))
    reader = SegmentReader(tmp_path)
    held = reader.buffer(place.segment, 128)
    (tmp_path / place.segment).unlink()
    np.testing.assert_array_equal(held[64:128].reshape(4, 16), codes(4))
    reader.keep(set())
    with pytest.raises(SegmentGone):
        reader.buffer(place.segment, 128)
    np.testing.assert_array_equal(held[64:128].reshape(4, 16), codes(4))


def test_a_header_of_another_version_is_not_appended_to(tmp_path, writer):
    (tmp_path / "newer.seg").write_bytes(HEADERS[INT8][:8] + b"\x02\x00" + HEADERS[INT8][10:])
    assert writer.append(codes(1)).segment != "newer.seg"


def test_a_lock_that_is_held_is_not_had_twice(tmp_path):
    held = lock_new(tmp_path / "x")
    assert try_lock(tmp_path / "x") is None
    os.close(held)
    again = try_lock(tmp_path / "x")
    assert again is not None
    os.close(again)
    assert try_lock(tmp_path / "none") is None
