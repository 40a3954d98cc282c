"""What mkdocs.yml cannot say: pages and files from outside docs/, and the check that the site needs no network.

mkdocs is imported where it is used, because tests of the rest run without it.
"""

import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent
PAGES = {"index.md": "README.md", "contributing.md": "CONTRIBUTING.md", "changelog.md": "CHANGELOG.md"}
BADGE = re.compile(r"\[!\[[^\]]*\]\(https?:[^)]*\)\]\([^)]*\) ?")  # a picture of another host
# What a browser would load by itself, in HTML and in style sheets. A link that a reader may follow is not.
ADDRESS = r"""["']?((?:https?:)?//[^"')\s>]+)"""
LOADED = (
    re.compile(rf"<(?:script|img|iframe|source|embed)\b[^>]*?\bsrc={ADDRESS}"),
    re.compile(rf"<link\b(?=[^>]*\brel=[\"']?(?:stylesheet|icon|pre|manifest))[^>]*?\bhref={ADDRESS}"),
    re.compile(rf"(?:url\(|@import)\s*{ADDRESS}"),
)


def on_files(files: Any, config: Any) -> Any:
    """Adds the README and its neighbours as pages, and the notebooks as files."""
    from mkdocs.structure.files import File

    for name, source in PAGES.items():
        text = (ROOT / source).read_text(encoding="utf-8")
        files.append(File.generated(config, name, content=text.replace("](docs/", "](")))
    for notebook in sorted((ROOT / "notebooks").glob("*.ipynb")):
        files.append(File.generated(config, f"notebooks/{notebook.name}", abs_src_path=str(notebook)))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Links as the site has them: GitHub reads the pages in the repository, where the README is not under docs/.

    A link that only repeats a file's name is called as the page is.
    """
    markdown = BADGE.sub("", markdown.replace("](../notebooks/", "](notebooks/"))
    for name, source in PAGES.items():
        markdown = re.sub(rf"\]\((?:\.\./)?{source}", f"]({name}", markdown)
    return re.sub(r"\[[\w/]+\.md\]\(((\w+)\.md[^)]*)\)", lambda link: f"[{title(link[2])}]({link[1]})", markdown)


def title(page: str) -> str:
    """The first heading of a page."""
    source = ROOT / PAGES.get(f"{page}.md", f"docs/{page}.md")
    return source.read_text(encoding="utf-8").splitlines()[0].removeprefix("# ")


def on_post_build(config: Any) -> None:
    """Ends the build if a page would load something from elsewhere."""
    from mkdocs.exceptions import PluginError

    for path in sorted(Path(config.site_dir).rglob("*")):
        if path.suffix in (".html", ".css") and (address := loaded_from_elsewhere(path.read_text(encoding="utf-8"))):
            raise PluginError(f"{path.relative_to(config.site_dir)} loads {address}; the site must need no network")


def loaded_from_elsewhere(text: str) -> str | None:
    """The first address of another host that a browser would load for this page or style sheet."""
    matches = (pattern.search(text) for pattern in LOADED)
    return next((match[1] for match in matches if match), None)
