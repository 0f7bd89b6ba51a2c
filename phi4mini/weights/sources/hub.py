"""Models from the Hugging Face hub: one repository's safetensors and JSON files, in the hub's own cache.

Promises: downloads resume, are checked against the hub's hashes, and lie in the cache that other programs share
(HF_HOME, HF_TOKEN and HF_HUB_OFFLINE are honoured). A complete snapshot is used without asking the hub; an incomplete
one, which another program may have left, is completed. Of a repository with stale shards only the files that folder.py
reads are fetched; pickle files and code never are. Without network an error says so within seconds.
"""

from __future__ import annotations

import glob
import logging
import re
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from phi4mini.errors import BadCheckpoint, BadInput, NotFound
from phi4mini.weights.checkpoints import folder as folders
from phi4mini.weights.checkpoints.training_names import ADAPTER_CONFIG

_ID = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}", re.ASCII)
_SECONDS = 5.0  # to wait for the hub's first answer
DEMO = "`-m demo` is a small model that needs no hub"
_log = logging.getLogger(__name__)


def is_id(name: str) -> bool:
    """Whether the name has the form of a hub id: owner/name."""
    return _ID.fullmatch(name) is not None and ".." not in name and "--" not in name


@dataclass(frozen=True)
class Cached:
    """A snapshot on this disk. `lacks`: a missing file without which it cannot be opened; `doubt`: a missing file that
    the repository may have, since other programs do not always fetch it.
    """

    folder: Path
    lacks: str | None
    doubt: str | None


def snapshot(repo: str, offline: bool = False, refresh: bool = False) -> Path:
    """The folder of a repository's files; downloads what is missing. `refresh` asks the hub for a newer revision.

    Raises `NotFound` when the repository or the network is not there, `BadInput` for a name that is no id.
    """
    if not is_id(repo):
        raise BadInput(f"{repo!r} is not a hub id: owner/name")
    offline = offline or is_offline()
    here = None if refresh and not offline else _look(repo)
    if here is not None and here.lacks is None and (here.doubt is None or offline):
        return _with_doubt(repo, here)
    if offline:
        raise NotFound(f"offline: {_what_is_missing(repo, here)}; {DEMO}")
    try:
        with _asking(repo, _what_is_missing(repo, here)):
            folder = _fetch(repo)
        return _whole(repo, folder)
    except NotFound as error:
        if here is None or here.lacks is not None:
            raise
        _log.info("%s", error)
        return _with_doubt(repo, here)


def is_offline() -> bool:
    """Whether the hub's own switch, HF_HUB_OFFLINE, forbids the network."""
    from huggingface_hub import constants

    return bool(constants.HF_HUB_OFFLINE)


def listing(repo: str) -> list[str]:
    """The paths of all files of a repository, asked of the hub. Raises `NotFound`."""
    from huggingface_hub import HfApi

    with _asking(repo, f"{repo} is not in its cache"):
        info = HfApi().model_info(repo, revision="main", timeout=_SECONDS)
    return [item.rfilename for item in info.siblings or []]


def download(repo: str, patterns: Collection[str]) -> Path:
    """The folder of the newest revision, with all files that match there; resumes what stopped. Raises `NotFound`."""
    from huggingface_hub import snapshot_download

    with _asking(repo, f"{repo} is not in its cache"):
        return Path(snapshot_download(repo, allow_patterns=list(patterns), etag_timeout=_SECONDS))


def _whole(repo: str, folder: Path) -> Path:
    """The folder, if it can be opened."""
    if lacks := _lacks(folder):
        raise NotFound(f"{repo} has no {lacks}; `phi4mini pull {repo} --refresh` looks for a newer revision")
    return folder


def whole_snapshot(repo: str) -> Path | None:
    """The newest snapshot of a repository on this disk, if it is complete; without network."""
    here = _look(repo)
    return here.folder if here and here.lacks is None and here.doubt is None else None


def _with_doubt(repo: str, here: Cached) -> Path:
    if here.doubt is not None:
        _log.warning(
            "%s has no %s in the hub's cache; `phi4mini pull %s --refresh` asks for it", repo, here.doubt, repo
        )
    return here.folder


def _what_is_missing(repo: str, here: Cached | None) -> str:
    if here is None:
        return f"{repo} is not in the hub's cache"
    return (
        f"{repo} is in the hub's cache without {here.lacks}; `phi4mini pull {repo} --refresh` with network fetches it"
    )


def cached_folder(repo: str) -> Path | None:
    """The folder of a repository's newest known revision on this disk, whatever of it is there; asks nobody. The layout
    is the hub's own, documented one.
    """
    from huggingface_hub import constants

    home = Path(constants.HF_HUB_CACHE) / f"models--{repo.replace('/', '--')}"
    try:
        folder = home / "snapshots" / (home / "refs" / "main").read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError):
        return None
    return folder if folder.is_dir() else None


def _look(repo: str) -> Cached | None:
    folder = cached_folder(repo)
    return None if folder is None else Cached(folder, _lacks(folder), _doubt(folder))


def _lacks(folder: Path) -> str | None:
    """The first file that is needed to open a snapshot and is not there."""
    if (folder / ADAPTER_CONFIG).exists() and not folders.has_weights(folder):
        return None  # an adapter alone: opening it says so
    if not (folder / "config.json").exists():
        return "config.json"
    try:
        weights = folders.weight_files(folder)
    except NotFound:
        return folders.SINGLE
    except BadCheckpoint:
        return None  # opening it says what is wrong
    for name in weights:
        if not (folder / name).exists():
            return name
    whole = (folder / "tokenizer.json").exists() or folders.needs_no_tokenizer_json(folder)
    return None if whole else "tokenizer.json"


def _doubt(folder: Path) -> str | None:
    """What a repository mostly has beside its weights, and a program that wanted only those did not fetch."""
    try:
        settings = folders.read_json(folder, "tokenizer_config.json", {})
    except BadCheckpoint:
        return None
    if not settings:
        return "tokenizer_config.json"
    told = isinstance(settings, dict) and settings.get("chat_template") is not None
    return None if told or (folder / "chat_template.jinja").exists() else "chat_template.jinja"


def _fetch(repo: str) -> Path:
    """All small files and a model.safetensors first; they tell whether there are shards to fetch, and which."""
    from huggingface_hub import HfApi, snapshot_download

    # snapshot_download answers with what there is, whole or not, when it cannot reach the hub; this raises
    HfApi().model_info(repo, revision="main", timeout=_SECONDS)
    small = [*folders.BESIDE_WEIGHTS, folders.INDEX, folders.SINGLE]
    folder = Path(snapshot_download(repo, allow_patterns=small, etag_timeout=_SECONDS))
    try:
        missing = [name for name in folders.weight_files(folder) if not (folder / name).exists()]
        wanted = [glob.escape(name) for name in missing if name.endswith(".safetensors")]  # an index may name anything
    except NotFound:
        wanted = ["model*.safetensors"]
    except BadCheckpoint:
        return folder  # opening it says what is wrong
    if wanted:
        snapshot_download(repo, revision=folder.name, allow_patterns=wanted, etag_timeout=_SECONDS)
    return folder


@contextmanager
def _asking(repo: str, missing: str) -> Iterator[None]:
    """What the hub's client raises, as one line of ours. `missing`: what is not on this disk, in words."""
    from huggingface_hub.errors import (  # type: ignore[attr-defined]  # HTTPError is the HTTP library's, passed on
        GatedRepoError,
        HfHubHTTPError,
        HTTPError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
    )

    try:
        yield
    except GatedRepoError as error:
        raise NotFound(f"{repo} asks for an account: accept its terms on the hub and set HF_TOKEN") from error
    except RepositoryNotFoundError as error:
        raise NotFound(f"{repo}: the hub has no such model, or it is private and HF_TOKEN is not set") from error
    except (LocalEntryNotFoundError, HTTPError, OSError) as error:
        chain = _chain(error)
        answers = [link for link in chain if isinstance(link, HfHubHTTPError)]
        if answers:
            raise NotFound(f"{repo}: the hub answered: {_line(answers[0])}; what was fetched is kept") from error
        raise NotFound(
            f"no network: the Hugging Face hub cannot be reached ({_line(chain[-1])}) and {missing}; {DEMO}"
        ) from error


def _chain(error: BaseException) -> list[BaseException]:
    """An error and the errors behind it, the innermost last."""
    return [error] if error.__cause__ is None else [error, *_chain(error.__cause__)]


def _line(error: BaseException) -> str:
    """The first line of what an error says."""
    return (str(error).strip() or type(error).__name__).splitlines()[0][:160]
