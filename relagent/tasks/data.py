"""Where data are, and how their files are read. None of them is part of this package."""

from __future__ import annotations

import gzip
import os
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt

from relagent.errors import RelagentError

ENVIRONMENT = "RELAGENT_DATA"
"""Environment variable that names the folder of all data."""

DEFAULT_FOLDER = Path("data")
"""Where data are looked for if nobody says where they are."""

MNIST_FILES = {
    "train-images-idx3-ubyte.gz": "f68b3c2dcbeaaa9fbdd348bbdeb94873",
    "train-labels-idx1-ubyte.gz": "d53e105ee54ea40749a09fcbcd1e9432",
    "t10k-images-idx3-ubyte.gz": "9fb629c4189551a2d022fa330f9573f3",
    "t10k-labels-idx1-ubyte.gz": "ec29112dd5afa0611ce80d1b7f02629c",
}
"""The files of MNIST (LeCun, Cortes & Burges 1998), and the MD5 that a download must have."""

MNIST_URL = "https://ossci-datasets.s3.amazonaws.com/mnist/"

PTB_FILES = ("ptb.train.txt", "ptb.valid.txt", "ptb.test.txt")
"""The Penn Treebank in the form of Mikolov et al. 2010: licensed, so it is never downloaded."""


class DataError(RelagentError):
    """Data that cannot be used."""


class DataNotFoundError(DataError):
    """Data that are not there."""

    def __init__(self, what: str, searched: list[Path], advice: str) -> None:
        places = " or ".join(str(path) for path in searched)
        super().__init__(f"{what} not found in {places}: {advice}")


class DataFileError(DataError):
    """A file that is not what its name says."""

    def __init__(self, path: Path, problem: str) -> None:
        super().__init__(f"cannot use {path}: {problem}; get a fresh copy of the file")


def find_mnist(folder: str | None = None) -> Path:
    """Return the folder with MNIST's four files, downloaded if they are not found.

    Args:
        folder: where they are, or the folder above it; by default what the environment variable
            RELAGENT_DATA names. Only if neither says anything: ``data``, then a checksummed
            download by pooch.

    Raises:
        DataNotFoundError: they are not there, and the download failed or pooch is not installed.
    """
    return _find("mnist", tuple(MNIST_FILES), folder, _download_mnist)


def find_ptb(folder: str | None = None) -> Path:
    """Return the folder with ptb.train.txt, ptb.valid.txt and ptb.test.txt.

    Args:
        folder: see :func:`find_mnist`; there is no download.

    Raises:
        DataNotFoundError: they are not there.
    """
    return _find("ptb", PTB_FILES, folder, None)


def _find(
    name: str,
    files: tuple[str, ...],
    folder: str | None,
    download: Callable[[list[Path]], Path] | None,
) -> Path:
    said = folder or os.environ.get(ENVIRONMENT)
    root = Path(os.path.expanduser(said)) if said else DEFAULT_FOLDER  # noqa: PTH111  # raises not
    searched = [root / name, root]
    for path in searched:
        if all((path / file).is_file() for file in files):
            return path
    if said or download is None:
        advice = f"give the folder of {', '.join(files)} with --data or {ENVIRONMENT}"
        raise DataNotFoundError(name, searched, advice)
    return download(searched)


def _download_mnist(searched: list[Path]) -> Path:
    try:
        import pooch
    except ImportError:
        advice = f"give its folder with --data or {ENVIRONMENT}, or install pooch to download it"
        raise DataNotFoundError("mnist", searched, advice) from None
    cache = Path(pooch.os_cache("relagent")) / "mnist"
    try:
        for name, md5 in MNIST_FILES.items():
            pooch.retrieve(MNIST_URL + name, known_hash=f"md5:{md5}", fname=name, path=cache)
    except (OSError, ValueError) as error:  # no network; another file than was asked for
        advice = f"the download failed ({error}); give its folder with --data or {ENVIRONMENT}"
        raise DataNotFoundError("mnist", searched, advice) from error
    return cache


def read_idx(path: Path, n_dimensions: int) -> npt.NDArray[np.uint8]:
    """Read a gzipped IDX file of bytes (the format is described on MNIST's home page).

    Four bytes (0, 0, 8 for unsigned bytes, number of dimensions), each dimension as four bytes,
    big end first, then the values.

    Args:
        path: the file.
        n_dimensions: how many dimensions it must have.

    Raises:
        DataFileError: it is damaged, cut short or of another kind.
    """
    try:
        content = gzip.decompress(path.read_bytes())
    except (OSError, EOFError, zlib.error) as error:
        raise DataFileError(path, f"it is no whole gzip file ({error})") from error
    start = 4 + 4 * n_dimensions
    if len(content) < start or content[:4] != bytes((0, 0, 8, n_dimensions)):
        raise DataFileError(path, f"it is no IDX file of bytes in {n_dimensions} dimensions")
    shape = tuple(np.frombuffer(content[4:start], ">u4").tolist())
    values = np.frombuffer(content[start:], np.uint8)
    if values.size != np.prod(shape, dtype=object):
        raise DataFileError(path, f"it holds {values.size} values, not {shape} of them")
    return values.reshape(shape)


def read_mnist(folder: Path, part: str) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
    """Read the images [N, height, width] and labels [N] of ``train`` or ``t10k``.

    Raises:
        DataFileError: a file is damaged, or the two do not belong together.
    """
    path = folder / f"{part}-labels-idx1-ubyte.gz"
    images = read_idx(folder / f"{part}-images-idx3-ubyte.gz", 3)
    labels = read_idx(path, 1)
    if len(images) != len(labels):
        raise DataFileError(path, f"it has {len(labels)} labels for {len(images)} images")
    if labels.size and labels.max() > 9:
        raise DataFileError(path, f"it has a label {labels.max()}, digits are 0 to 9")
    return images, labels


EOS = "<eos>"
"""Name of the symbol at the end of each line."""


def read_characters(path: Path) -> str:
    """Read a file of the Penn Treebank as one long text.

    Line by line: stripped, spaces as ``_``, each character for itself (so ``<unk>`` is five), and
    one newline, which stands for ``<eos>``, at the end.

    Raises:
        DataFileError: it is no text.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise DataFileError(path, "it is no text") from error
    return "".join(f"{line.strip()}\n" for line in lines).replace(" ", "_")
