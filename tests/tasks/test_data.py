"""Where data are looked for, and files that are not what they should be."""

import gzip
import hashlib
import sys
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from relagent.tasks import data
from relagent.tasks.data import (
    DataFileError,
    DataNotFoundError,
    find_mnist,
    find_ptb,
    read_characters,
    read_idx,
    read_mnist,
)

from .standins import REAL_DATA, write_idx, write_mnist, write_ptb


@given(values=hnp.arrays(np.uint8, hnp.array_shapes(min_dims=1, max_dims=3, min_side=0)))
def test_idx_files_come_back(
    tmp_path_factory: pytest.TempPathFactory,
    values: np.ndarray[tuple[int, ...], np.dtype[np.uint8]],
) -> None:
    path = tmp_path_factory.mktemp("idx") / "x.gz"
    write_idx(path, values)
    back = read_idx(path, values.ndim)
    assert back.shape == values.shape
    assert (back == values).all()


@given(cut=st.integers(0, 200), flip=st.integers(0, 200))
def test_a_damaged_idx_file_is_named(
    tmp_path_factory: pytest.TempPathFactory, cut: int, flip: int
) -> None:
    path = tmp_path_factory.mktemp("idx") / "x.gz"
    write_idx(path, np.arange(24, dtype=np.uint8).reshape(2, 3, 4))
    whole = path.read_bytes()
    path.write_bytes(whole[: min(cut, len(whole) - 1)])
    with pytest.raises(DataFileError, match=r"x\.gz"):
        read_idx(path, 3)
    damaged = bytearray(whole)
    damaged[flip % len(whole)] ^= 0xFF
    path.write_bytes(damaged)
    try:  # gzip ignores some header bytes; what it lets pass must be right
        assert (read_idx(path, 3).flatten() == np.arange(24)).all()
    except DataFileError as error:
        assert "\n" not in str(error)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "no IDX file"),
        (bytes((0, 0, 9, 1, 0, 0, 0, 0)), "no IDX file"),
        (bytes((0, 0, 8, 2, 0, 0, 0, 1, 0, 0, 0, 1, 5)), "in 1 dimensions"),
        (bytes((0, 0, 8, 1, 0, 0, 0, 2, 5)), "1 values"),
        (bytes((0, 0, 8, 1, 255, 255, 255, 255)), "0 values"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, content: bytes, problem: str) -> None:
    (tmp_path / "x.gz").write_bytes(gzip.compress(content))
    with pytest.raises(DataFileError, match=problem):
        read_idx(tmp_path / "x.gz", 1)


def test_labels_must_fit_images(tmp_path: Path) -> None:
    write_mnist(tmp_path)
    path = tmp_path / "t10k-labels-idx1-ubyte.gz"
    write_idx(path, np.zeros(3, np.uint8))
    with pytest.raises(DataFileError, match="3 labels for 10 images"):
        read_mnist(tmp_path, "t10k")
    write_idx(path, np.full(10, 11, np.uint8))
    with pytest.raises(DataFileError, match="label 11"):
        read_mnist(tmp_path, "t10k")


def test_characters_of_a_line(tmp_path: Path) -> None:
    (tmp_path / "x").write_text(" a <unk> b \n\nno\n")
    assert read_characters(tmp_path / "x") == "a_<unk>_b\n\nno\n"
    (tmp_path / "x").write_bytes(b"\xff\xfe")
    with pytest.raises(DataFileError, match="no text"):
        read_characters(tmp_path / "x")


def test_an_argument_comes_before_the_environment_and_that_before_the_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.delenv("RELAGENT_DATA", raising=False)
    write_ptb(tmp_path / "here/data/ptb")
    assert find_ptb() == Path("data/ptb")
    write_ptb(tmp_path / "there/ptb")
    monkeypatch.setenv("RELAGENT_DATA", str(tmp_path / "there"))
    assert find_ptb() == tmp_path / "there/ptb"
    write_ptb(tmp_path / "elsewhere")
    assert find_ptb(str(tmp_path / "elsewhere")) == tmp_path / "elsewhere"
    # Where a folder was named, no other one stands in for it.
    (tmp_path / "elsewhere/ptb.test.txt").unlink()
    with pytest.raises(DataNotFoundError, match=r"elsewhere.*--data or RELAGENT_DATA"):
        find_ptb(str(tmp_path / "elsewhere"))
    monkeypatch.setenv("RELAGENT_DATA", str(tmp_path / "nowhere"))
    with pytest.raises(DataNotFoundError, match="nowhere"):
        find_mnist()


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A small MNIST behind a URL; nothing on this disk, and an empty cache."""
    pytest.importorskip("pooch", reason="downloads need pooch")
    folder = write_mnist(tmp_path / "server")

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    httpd = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))
    threading.Thread(target=httpd.serve_forever, daemon=True).start()
    monkeypatch.setattr(data, "MNIST_URL", f"http://127.0.0.1:{httpd.server_port}/")
    sums = {path.name: hashlib.md5(path.read_bytes()).hexdigest() for path in folder.iterdir()}
    monkeypatch.setattr(data, "MNIST_FILES", sums)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.delenv("RELAGENT_DATA", raising=False)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    yield folder
    httpd.shutdown()
    httpd.server_close()


def test_mnist_is_downloaded_once_and_checked(server: Path) -> None:
    folder = find_mnist()
    assert (read_mnist(folder, "train")[0] == read_mnist(server, "train")[0]).all()
    for path in server.iterdir():
        path.unlink()
    assert find_mnist() == folder


def test_a_download_with_another_checksum_is_refused(server: Path) -> None:
    (server / "train-labels-idx1-ubyte.gz").write_bytes(b"something else")
    with pytest.raises(DataNotFoundError, match="download failed"):
        find_mnist()


def test_without_pooch_the_way_out_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RELAGENT_DATA", raising=False)
    monkeypatch.setitem(sys.modules, "pooch", None)
    with pytest.raises(DataNotFoundError, match="or install pooch"):
        find_mnist()


@pytest.mark.skipif(not (REAL_DATA / "mnist").is_dir(), reason="the real MNIST is not here")
def test_the_published_checksums_are_those_of_the_files() -> None:
    for name, md5 in data.MNIST_FILES.items():
        assert hashlib.md5((REAL_DATA / "mnist" / name).read_bytes()).hexdigest() == md5
