"""Work on many objects: the collector of cycles is put off, and comes back."""

from __future__ import annotations

import gc

import pytest

from hullworks.analysis.bulk import without_collector


def test_the_collector_is_as_it_was_afterwards() -> None:
    """Also after an error, and when it was off already."""
    assert gc.isenabled()
    with without_collector():
        assert not gc.isenabled()
        with without_collector():
            assert not gc.isenabled()
        assert not gc.isenabled()
    assert gc.isenabled()
    with pytest.raises(RuntimeError), without_collector():
        raise RuntimeError
    assert gc.isenabled()
