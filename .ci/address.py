"""Writes the repository's address and the version where they are shown: README.md, the notebooks and CITATION.cff.

python .ci/address.py [CHECKOUT]. The address is Repository under [project.urls] in pyproject.toml. Without one there
are no badges and no archives, and the notebooks install `..`. `make address` runs this; tests/test_release.py holds it.
"""

import json
import re
import sys
import tomllib
from pathlib import Path
from typing import Any

BEGIN, END = "<!-- address -->", "<!-- /address -->"  # around what depends on the address in README.md
BADGE = re.compile(r"\[!\[Open in Colab\].*\n\n")
INSTALL = """\
# Installs the package if it is missing, from {where}.
import importlib.util

if importlib.util.find_spec("jaxprefix") is None:
    %pip install -q {what}"""
HERE = "the copy of the repository that this notebook is in"


def write(checkout: Path) -> None:
    """Brings the files of a checkout up to date."""
    address, version = read_address(checkout), read_version(checkout)
    readme, citation = checkout / "README.md", checkout / "CITATION.cff"
    readme.write_text(with_block(readme.read_text(encoding="utf-8"), address, version), encoding="utf-8")
    citation.write_text(cited(citation.read_text(encoding="utf-8"), address, version), encoding="utf-8")
    for path in sorted((checkout / "notebooks").glob("*.ipynb")):
        notebook = json.loads(path.read_text(encoding="utf-8"))
        update(notebook, path.name, address, version)
        path.write_text(json.dumps(notebook, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def read_address(checkout: Path) -> str:
    """The address, or "" if there is none."""
    project = tomllib.loads((checkout / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    address = project.get("urls", {}).get("Repository", "").rstrip("/")
    if address and not re.fullmatch(r"https://github\.com/[\w.-]+/[\w.-]+", address):
        sys.exit(f"Repository in pyproject.toml is {address}; Colab expects https://github.com/OWNER/NAME")
    return address


def read_version(checkout: Path) -> str:
    text = (checkout / "jaxprefix" / "_version.py").read_text(encoding="utf-8")
    return text.split('"')[1]


def archive(address: str, version: str) -> str:
    return f"{address}/archive/refs/tags/v{version}.tar.gz"


def colab(address: str, version: str, notebook: str) -> str:
    """A badge that opens a notebook of this version in Colab."""
    path = f"{address.removeprefix('https://github.com/')}/blob/v{version}/notebooks/{notebook}"
    root = "https://colab.research.google.com"
    return f"[![Open in Colab]({root}/assets/colab-badge.svg)]({root}/github/{path})"


def with_block(readme: str, address: str, version: str) -> str:
    """The README with badges and the archive after its title, or without them."""
    readme = re.sub(rf"{BEGIN}.*?{END}\n\n", "", readme, flags=re.DOTALL)
    if not address:
        return readme
    workflow = f"{address}/actions/workflows/ci.yml"
    badges = f"[![CI]({workflow}/badge.svg)]({workflow}) {colab(address, version, 'quickstart.ipynb')}"
    install = f"Install it with `pip install {archive(address, version)}`."
    title, rest = readme.split("\n\n", 1)
    return f"{title}\n\n{BEGIN}\n{badges}\n\n{install}\n{END}\n\n{rest}"


def cited(citation: str, address: str, version: str) -> str:
    citation = re.sub(r"(?m)^version: .*$", f"version: {version}", citation)
    citation = re.sub(r"(?m)^repository-code: .*\n", "", citation)
    return citation.replace("license: ", f"repository-code: {address}\nlicense: ", 1) if address else citation


def update(notebook: dict[str, Any], name: str, address: str, version: str) -> None:
    """Sets the badge in the first cell and the whole first cell of code."""
    first = notebook["cells"][0]
    title, rest = BADGE.sub("", "".join(first["source"])).split("\n\n", 1)
    badge = f"{colab(address, version, name)}\n\n" if address else ""
    first["source"] = f"{title}\n\n{badge}{rest}".splitlines(keepends=True)
    code = next(cell for cell in notebook["cells"] if cell["cell_type"] == "code")
    where, what = ("the archive of this version", archive(address, version)) if address else (HERE, "..")
    code["source"] = INSTALL.format(where=where, what=what).splitlines(keepends=True)


if __name__ == "__main__":
    write(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parents[1])
