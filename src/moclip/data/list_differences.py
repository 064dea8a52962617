"""Where split lists and files differ, in words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from moclip.data.name_spelling import name_stem, without_suffix

_DIFFERS = "they differ in upper and lower case, or in how an accent is encoded"


def class_notes(classes: Mapping[str, str]) -> Iterator[str]:
    loose = sorted((name, called) for name, called in classes.items() if name != called)
    if loose:
        yield f"{loose[0][0]} is taken for the class {loose[0][1]}; {_DIFFERS}; such classes: {len(loose)}"


def clip_notes(found: Mapping[str, list[str]]) -> Iterator[str]:
    loose = [(name, clips[0]) for name, clips in found.items() if clips and _is_spelt_otherwise(name, clips[0])]
    if loose:
        yield f"{loose[0][1]} is taken for {loose[0][0]} of the lists; {_DIFFERS}; such names: {len(loose)}"
    several = [(name, clips) for name, clips in found.items() if len(clips) > 1]
    if several:
        yield f"{several[0][0]} of the lists is {' and '.join(several[0][1])}, all taken; such names: {len(several)}"


def _is_spelt_otherwise(listed: str, clip: str) -> bool:
    """Whether a clip's file, whatever its folder, is not called as the lists have it."""
    file = listed.partition("/")[2]
    own = clip.partition("/")[2]
    return file != own and name_stem(own) not in (file, without_suffix(file))
