"""Describe how names in split lists and names of files differ."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from moclip.data.name_spelling import name_stem, without_suffix

_DIFFERENCE = "they differ in upper and lower case, or in how an accent is encoded"


def class_notes(class_of: Mapping[str, str]) -> Iterator[str]:
    """Describe folders and listed classes that are spelled differently from the class they stand for."""
    respelled = sorted((name, class_name) for name, class_name in class_of.items() if name != class_name)
    if respelled:
        name, class_name = respelled[0]
        yield f"{name} is taken for the class {class_name}; {_DIFFERENCE}; such classes: {len(respelled)}"


def clip_notes(files_of: Mapping[str, list[str]]) -> Iterator[str]:
    """Describe listed clips whose files are spelled differently, and those that match several files."""
    respelled = [(name, files[0]) for name, files in files_of.items() if files and _is_respelled(name, files[0])]
    if respelled:
        name, file = respelled[0]
        yield f"{file} is taken for {name} of the lists; {_DIFFERENCE}; such names: {len(respelled)}"
    several = [(name, files) for name, files in files_of.items() if len(files) > 1]
    if several:
        name, files = several[0]
        yield f"{name} of the lists matches {' and '.join(files)}; all are used; such names: {len(several)}"


def _is_respelled(listed: str, clip: str) -> bool:
    """Return whether a clip's file name, whatever its folder and suffix, is not the listed one."""
    listed_file = listed.partition("/")[2]
    file = clip.partition("/")[2]
    return file != listed_file and name_stem(file) not in (listed_file, without_suffix(listed_file))
