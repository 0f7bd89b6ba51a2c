"""A GGUF of a hub repository, chosen as llama.cpp and Ollama users name it: owner/name:Q4_K_M or owner/name:file.gguf.

Promises: a name means one model (a file, or all parts of one) or is an error that lists the files; only that model's
files are fetched; cached files are used without asking the hub. A repository named without a GGUF is left to hub.py if
it has safetensors. This file does not know what is inside the files. Source of the rules: llama.cpp's
common/download.cpp.
"""

from __future__ import annotations

import glob
import logging
import re
from collections.abc import Collection
from pathlib import Path

from phi4mini.errors import BadInput, NotFound
from phi4mini.weights.checkpoints.gguf_split import part_names
from phi4mini.weights.sources import hub

DEFAULT = "Q4_K_M"  # what a repository of nothing but GGUFs means
_BESIDE = ("mmproj", "imatrix", "mtp-", "eagle3-", "dflash-", "dspark-")  # in names of files that go with a model
_SITE = re.compile(r"(?:https?://)?(?:www\.)?(?:huggingface\.co|hf\.co)/", re.IGNORECASE)
_PAGE = re.compile(r"([^/]+/[^/]+)/(?:blob|resolve|tree)/([^/]+)(?:/(.+))?")
_WANTED = re.compile(r"[\w.+-]+(?:/[\w.+-]+)*", re.ASCII)
_QUANTISATION = re.compile(r"(?:UD-)?(?:I?Q|I|TQ|B?F|FP|MXFP)\d", re.IGNORECASE)  # how the names of types begin
_MOST_NAMED = 12
_log = logging.getLogger(__name__)


def parse(name: str) -> tuple[str, str] | None:
    """(repository, file or quantisation) from a hub name or address; the second is "" if neither is named. None if the
    name is not a hub name.

    A quantisation is returned in capitals. Raises `BadInput` for the address of a revision other than main.
    """
    rest = _SITE.sub("", name, count=1) if _SITE.match(name) else name
    if rest != name:
        rest = rest.partition("?")[0].rstrip("/")
        page = _PAGE.fullmatch(rest)
        if page:
            if page[2] != "main":
                raise BadInput(f"{name[:200]}: of the hub's revisions only main can be named, not {page[2]}")
            rest = f"{page[1]}:{page[3]}" if page[3] else page[1]
    repo, colon, wanted = rest.partition(":")
    if not hub.is_id(repo) or (colon and (not _WANTED.fullmatch(wanted) or ".." in wanted)):
        return None
    if wanted.lower().endswith(".gguf"):
        folder, slash, file = wanted.rpartition("/")
        return repo, folder + slash + part_names(file)[0]
    return repo, "" if wanted == "latest" else wanted.upper()


def fetch(repo: str, wanted: str = "", offline: bool = False, refresh: bool = False) -> Path:
    """The folder of a repository's safetensors, or the (first) file of its GGUF that is `wanted`.

    Downloads what is missing. Raises `NotFound` or `BadInput`, naming the GGUFs there are.
    """
    offline = offline or hub.is_offline()
    if wanted:
        here = _cached(repo, wanted) if offline or not refresh else None
        return here or _download(repo, wanted, offline)
    try:
        return hub.snapshot(repo, offline, refresh)
    except NotFound:
        here = _cached(repo, DEFAULT)
        try:
            files = [] if offline else hub.listing(repo)
        except NotFound:
            files = []
        if models(files) and not any(path.endswith(".safetensors") for path in files):
            return _download(repo, wanted, offline)
        if here is None or files:
            raise
        _log.warning("%s: the hub cannot be asked; %s from its cache is used", repo, here.name)
        return here


def whole(repo: str, wanted: str) -> Path | None:
    """The result of `fetch` if everything is on this disk, else None; without network."""
    return _cached(repo, wanted) if wanted else hub.whole_snapshot(repo)


def models(files: Collection[str]) -> dict[str, list[str]]:
    """The GGUF models among a repository's files: the first file of each -> all its files, in order."""
    found = {}
    for path in sorted(files):
        folder, slash, file = path.rpartition("/")
        if file.lower().endswith(".gguf") and not any(word in file.lower() for word in _BESIDE):
            parts = [folder + slash + name for name in part_names(file)]
            found[parts[0]] = parts
    return found


def choose(repo: str, files: Collection[str], wanted: str) -> list[str]:
    """The files of the one model that `wanted` names: a file, a quantisation, or "" for the default (Q4_K_M).

    Case does not matter. Raises `NotFound` when there is none, `BadInput` when there are several.
    """
    there = models(files)
    if not there:
        raise NotFound(
            f"{repo} has no GGUF; without {':' + wanted if wanted else 'a quantisation'} its safetensors run"
        )
    if wanted.lower().endswith(".gguf"):
        found = [path for path in there if wanted.lower() in (path.lower(), path.lower().rpartition("/")[2])]
    else:
        found = _of_quantisation(list(there), wanted or DEFAULT)
        if not wanted and not found and len(there) == 1:
            found = list(there)
    if not found:
        said = f"no GGUF {wanted!r}" if wanted else f"no {DEFAULT} among its GGUFs, so one must be named"
        raise NotFound(f"{repo} has {said}; there are {_listed(list(there))}")
    if len(found) > 1:
        raise BadInput(f"{repo}:{wanted or DEFAULT} could be {_listed(found)}; name the file: {repo}:FILE.gguf")
    missing = [path for path in there[found[0]] if path not in files]
    if missing:
        raise NotFound(f"{repo}: of the {len(there[found[0]])} parts of {found[0]} there is no {missing[0]}")
    return there[found[0]]


def _of_quantisation(paths: list[str], wanted: str) -> list[str]:
    """Files whose name ends in the quantisation: model-Q4_K_M, model.Q4_K_M, Q4_K_M-00001-of-00002. If the repository
    also has the variant UD-Q4_K_M, the plain name does not mean the variant.
    """
    before = "[-._]" if _QUANTISATION.match(wanted) else "[-.]"  # K_M alone is no word of Q4_K_M
    pattern = re.compile(rf"(?:^|.*{before}){re.escape(wanted)}(?:-\d{{5}}-of-\d{{5}})?\.gguf", re.IGNORECASE)
    found = [path for path in paths if pattern.fullmatch(path.rpartition("/")[2])]
    variant = re.compile(rf"(?:^|[-._/])UD-{re.escape(wanted)}\b", re.IGNORECASE)
    plain = [path for path in found if not variant.search(path)]
    return plain if plain and not wanted.upper().startswith("UD-") else found


def _cached(repo: str, wanted: str) -> Path | None:
    """The first file of a model that is complete in the Hugging Face cache; None if it is not, or if several match."""
    folder = hub.cached_folder(repo)
    if folder is None:
        return None
    try:
        return folder / choose(repo, _files(folder), wanted)[0]
    except (NotFound, BadInput):
        return None


def _files(folder: Path) -> list[str]:
    return [path.relative_to(folder).as_posix() for path in folder.rglob("*.gguf") if path.is_file()]


def _download(repo: str, wanted: str, offline: bool) -> Path:
    if offline:
        folder = hub.cached_folder(repo)
        there = [] if folder is None else list(models(_files(folder)))
        known = f"; of it there are {_listed(there)}" if there else ""
        raise NotFound(f"offline: {repo}:{wanted or DEFAULT} is not in the hub's cache{known}; {hub.DEMO}")
    chosen = choose(repo, hub.listing(repo), wanted)
    folder = hub.download(repo, [glob.escape(path) for path in chosen])
    return folder / chosen[0]


def _listed(paths: list[str]) -> str:
    more = f" and {len(paths) - _MOST_NAMED} more" if len(paths) > _MOST_NAMED else ""
    return ", ".join(paths[:_MOST_NAMED]) + more
