"""Every package's docstring is a map of its modules, and names all of them."""

from __future__ import annotations

from pathlib import Path

import pytest

import relagent

ROOT = Path(relagent.__file__).parent
PACKAGES = sorted(path.parent.relative_to(ROOT) for path in ROOT.rglob("__init__.py"))
PACKAGES += [Path("envs")] * (Path("envs") not in PACKAGES)  # a link, which rglob may not follow


@pytest.mark.parametrize("package", PACKAGES, ids=str)
def test_the_map_names_every_module(package: Path) -> None:
    folder = ROOT / package
    said = (folder / "__init__.py").read_text().split('"""')[1]
    name = ".".join(("relagent", *package.parts))
    modules = [path.stem for path in folder.glob("*.py") if not path.stem.startswith("__")]
    modules += [path.parent.name for path in folder.glob("*/__init__.py")]
    assert [module for module in modules if f"`~{name}.{module}`" not in said] == []
    for mentioned in said.split(f":mod:`~{name}.")[1:]:
        assert mentioned.split("`")[0] in modules
