"""What mkdocs needs to know of this repository: pages at its root, and links to its sources.

A hook of mkdocs.yml. Documents at the root are pages of the site, too; a link to a source file,
which is no page, becomes the file's name.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[1]
AT_THE_ROOT = ("ARCHITECTURE.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md")
_LINK = re.compile(r"\[([^\]]+)\]\(([^)#:]+?)(#[^)]*)?\)")


def on_files(files: Files, config: Any) -> Files:
    """Add the documents of the root."""
    for name in AT_THE_ROOT:
        content = (ROOT / name).read_text(encoding="utf-8")
        files.append(File.generated(config, name, content=content))
    return files


def on_page_markdown(markdown: str, page: Any, files: Files, **_: Any) -> str:
    """Point links at what there is on the site."""
    is_root = page.file.src_uri in AT_THE_ROOT
    folder = ROOT if is_root else (ROOT / "docs" / page.file.src_uri).parent

    def mend(link: re.Match[str]) -> str:
        text, target, anchor = link[1], link[2], link[3] or ""
        path = (folder / target).resolve()
        if path.is_relative_to(ROOT / "docs"):
            if is_root:
                return f"[{text}]({path.relative_to(ROOT / 'docs')}{anchor})"
            return link[0]
        if path.parent == ROOT and path.name in AT_THE_ROOT:
            up = "../" * page.file.src_uri.count("/")
            return f"[{text}]({up}{path.name}{anchor})"
        return text if path.exists() else link[0]

    return _LINK.sub(mend, markdown)
