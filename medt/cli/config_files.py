"""What the files of the configs say: their keys, the comments beside them, where a key stands."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import fields
from pathlib import Path

import yaml

from medt.cli.arguments import CONFIGS
from medt.config.scripts import SCRIPTS
from medt.io.plain import read_text

SHARED = "_"  # begins the name of a file that others take up, and which is no option


def options_of(group: str, *folders: Path) -> dict[str, Path]:
    """The files of a group's options by name; of the same name the first folder's."""
    found: dict[str, Path] = {}
    for folder in (*folders, CONFIGS):
        for path in sorted((folder / group).glob("*.yaml")):
            if not path.stem.startswith(SHARED):
                found.setdefault(path.stem, path)
    return found


def groups_of(command: str) -> list[str]:
    """The groups of a command's config."""
    return [name for name in _own_keys(command) if (CONFIGS / name).is_dir()]


def comments_of(path: Path) -> dict[str, str]:
    """The dotted keys of a config file, and of the files of its folder that it takes up.

    Returns:
        By key the comment of one line that stands behind the value, else the lines above the key.

    Raises:
        UserError: the file cannot be read.
        yaml.YAMLError: it is not YAML.
    """
    text = read_text(path)
    root = yaml.compose(text, yaml.SafeLoader)
    found: dict[str, str] = {}
    if not isinstance(root, yaml.MappingNode):
        return found
    for name in _taken_up(root):
        found |= comments_of(path.with_name(f"{name}.yaml"))
    own = dict(_comments(root, text.splitlines(), ""))
    for key in ("defaults", "hydra"):
        own = {k: v for k, v in own.items() if k.partition(".")[0] != key}
    return found | {key: comment or found.get(key, "") for key, comment in own.items()}


def keys_of(command: str) -> list[str]:
    """All dotted keys of a command's config, with those of every option of its groups."""
    groups = groups_of(command)
    found = dict.fromkeys(name for name in _own_keys(command) if name not in groups)
    for group in groups:
        for path in options_of(group).values():
            found |= dict.fromkeys(f"{group}.{key}" for key in comments_of(path))
    return list(found)


def standing_in(key: str, files: Sequence[Path]) -> Path | None:
    """The last of the files that has a dotted key; a file of its group leaves the group out."""
    group, _, name = key.partition(".")
    for path in reversed(files):
        wanted = name if path.parent.name == group else key
        if path.is_file() and wanted in comments_of(path):
            return path
    return None


def _own_keys(command: str) -> list[str]:
    return [field.name for field in fields(SCRIPTS[command])]


def _taken_up(root: yaml.MappingNode) -> Iterator[str]:
    for key, value in root.value:
        if key.value == "defaults" and isinstance(value, yaml.SequenceNode):
            for part in value.value:
                if isinstance(part, yaml.ScalarNode) and part.value == f"{SHARED}common":
                    yield part.value


def _comments(
    node: yaml.MappingNode, lines: Sequence[str], prefix: str
) -> Iterator[tuple[str, str]]:
    for key, value in node.value:
        name = f"{prefix}{key.value}"
        first = key.start_mark.line
        is_block = isinstance(value, yaml.MappingNode | yaml.SequenceNode) and not value.flow_style
        end = key.end_mark if is_block else value.end_mark
        line = lines[end.line] if end.line < len(lines) else ""
        _, mark, behind = line[end.column :].partition("#")
        yield name, behind.strip() if mark else _above(lines, first)
        if isinstance(value, yaml.MappingNode):
            yield from _comments(value, lines, f"{name}.")


def _above(lines: Sequence[str], line: int) -> str:
    """The comment that ends right above a line, in one."""
    found: list[str] = []
    while line and lines[line - 1].lstrip().startswith("#"):
        line -= 1
        found.insert(0, lines[line].lstrip().lstrip("#").strip())
    return " ".join(found)
