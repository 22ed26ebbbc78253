"""Small data in the real file formats."""

import gzip
import os
from pathlib import Path

import numpy as np
import numpy.typing as npt

REAL_DATA = Path(os.environ.get("RELAGENT_DATA", Path(__file__).parents[3] / "shared" / "data"))

TEXT = {
    "ptb.train.txt": " the cat <unk> on N mats \n he sat , and sat on it \n" * 12,
    "ptb.valid.txt": " the mat sat \n on the cat \n" * 4,
    "ptb.test.txt": " the hat sat on him \n" * 3,
}


def write_idx(path: Path, values: npt.NDArray[np.uint8]) -> None:
    """Write a gzipped IDX file of bytes."""
    header = bytes((0, 0, 8, values.ndim)) + np.array(values.shape, ">u4").tobytes()
    path.write_bytes(gzip.compress(header + values.tobytes(), compresslevel=1))


def write_mnist(folder: Path, n_train: int = 60, n_test: int = 10, size: int = 4) -> Path:
    """Write random images whose first pixel tells the label."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    for part, n in (("train", n_train), ("t10k", n_test)):
        labels = rng.integers(0, 10, n).astype(np.uint8)
        images = rng.integers(0, 256, (n, size, size)).astype(np.uint8)
        images[:, 0, 0] = labels * 25
        write_idx(folder / f"{part}-images-idx3-ubyte.gz", images)
        write_idx(folder / f"{part}-labels-idx1-ubyte.gz", labels)
    return folder


def write_ptb(folder: Path) -> Path:
    """Write a few sentences."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in TEXT.items():
        (folder / name).write_text(text)
    return folder
