"""The documentation: every page is in the site, links lead somewhere, and code runs in a test or says what it needs.

`make docs` builds the site. Its packages are not those of the tests, so the build itself is tested where they are.
"""

import re
import subprocess
import sys
from pathlib import Path
from urllib.parse import unquote

import pytest
import yaml
from test_readme import FILES

import jaxprefix

ROOT = Path(__file__).parents[1]
sys.path.append(str(ROOT))
import mkdocs_hooks  # noqa: E402

PAGES = [*sorted((ROOT / "docs").rglob("*.md")), *(ROOT / name for name in mkdocs_hooks.PAGES.values())]
# Pages whose Python a test runs: this file, test_readme.py, test_new_method_page.py and test_benchmarks_page.py.
PYTHON = {f"docs/{name}.md" for name in ("concepts", "python", "custom_loop", "new_method", "benchmarks")}
FENCE = re.compile(r"^```(\w*)([^\n]*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"\]\(([^)\s]+)\)")


def name(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def text(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"(?m)^#+ (.*)$", FENCE.sub("", text(page)))
    return {re.sub(r"[^\w\- ]", "", heading).strip().lower().replace(" ", "-") for heading in headings}


def test_each_page_is_in_the_navigation_once():
    def pages(nav: list | dict | str) -> list[str]:
        if isinstance(nav, str):
            return [nav]
        return [page for part in (nav.values() if isinstance(nav, dict) else nav) for page in pages(part)]

    named = pages(yaml.safe_load(text(ROOT / "mkdocs.yml"))["nav"])
    written = [page.relative_to(ROOT / "docs").as_posix() for page in (ROOT / "docs").rglob("*.md")]
    assert sorted(named) == sorted([*written, *mkdocs_hooks.PAGES])


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_lead_somewhere(page: Path):
    for link in LINK.findall(FENCE.sub("", text(page))):
        path, _, anchor = unquote(link).partition("#")
        if ":" in path:  # another host, which a test does not ask
            continue
        target = page.parent / path if path else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_code_runs_in_a_test_or_says_what_it_needs(page: Path):
    for kind, title, code in FENCE.findall(text(page)):
        assert kind, f"a block without a kind: {code}"
        if title:
            assert title.startswith(' title="needs '), title
        elif kind == "sh":
            assert name(page) in FILES, code
            assert all(line.startswith(("python -m ", "make ")) for line in code.splitlines()), code
        elif kind == "python":
            assert name(page) in PYTHON, code
        else:
            assert kind in ("json", "text", "toml") and "python -m" not in code, code


def test_the_reference_has_every_public_name():
    written = "".join(text(page) for page in (ROOT / "docs" / "reference").glob("*.md"))
    names = {directive.split(".")[-1] for directive in re.findall(r"(?m)^::: (\S+)$", written)}
    assert not set(jaxprefix.__all__) - names


def test_the_two_trees(capsys: pytest.CaptureFixture[str]):
    """The code of concepts.md prints what the page shows."""
    blocks = FENCE.findall(text(ROOT / "docs" / "concepts.md"))
    ((_, _, code),) = (block for block in blocks if block[0] == "python")
    exec(compile(code, "docs/concepts.md", "exec"), {})
    assert capsys.readouterr().out == next(block for kind, _, block in blocks if kind == "text")


@pytest.mark.parametrize(
    "loads",
    [
        '<script src="https://unpkg.com/a.js"></script>',
        "<script async src=//cdn.org/a.js></script>",
        '<link rel="stylesheet" href="https://fonts.org/css">',
        '<link href="https://fonts.org" rel="preconnect">',
        '<img alt="" src="https://img.org/badge.svg">',
        "a { background: url('https://img.org/a.png') }",
        '@import "//fonts.org/css";',
    ],
)
def test_what_a_browser_would_load_is_found(loads: str):
    found = mkdocs_hooks.loaded_from_elsewhere(loads)
    assert found and found.split("//")[1].split("/")[0] in ("unpkg.com", "cdn.org", "fonts.org", "img.org")


@pytest.mark.parametrize(
    "page",
    [
        '<a href="https://arxiv.org/abs/1">paper</a><img src="real.png">',
        '<link rel="canonical" href="https://here.org"><script src="assets/a.js"></script><code>url(file)</code>',
    ],
)
def test_links_that_a_reader_follows_are_not(page: str):
    assert mkdocs_hooks.loaded_from_elsewhere(page) is None


def test_links_of_the_readme_are_those_of_the_site():
    badge = "[![CI](https://host.org/badge.svg)](https://host.org)"
    markdown = f"{badge} [docs/real.md](docs/real.md#zero-shot), [a](docs/real.md), [CONTRIBUTING.md](CONTRIBUTING.md)"
    site = mkdocs_hooks.on_page_markdown(markdown.replace("](docs/", "]("))
    assert site == "[Real models](real.md#zero-shot), [a](real.md), [Contributing](contributing.md)"


@pytest.mark.slow
def test_the_site_is_built(tmp_path: Path):
    pytest.importorskip("mkdocs", reason="only `make docs` installs it")
    pytest.importorskip("mkdocstrings", reason="only `make docs` installs it")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "search" / "search_index.js").is_file()
    assert 'id="jaxprefix.LanguageModel.generate"' in text(tmp_path / "reference" / "python.html")
