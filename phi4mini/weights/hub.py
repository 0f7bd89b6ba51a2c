"""Models from the Hugging Face hub: one repository's safetensors and JSON files, in the hub's own cache.

Promises: downloads resume, are checked by the hub's hashes, and lie where every other program finds them (HF_HOME,
HF_TOKEN, HF_HUB_OFFLINE are honoured); what is cached is used without asking; no pickle file and no code is ever
fetched; without network the error says so within seconds. It does not know what is inside the files.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from phi4mini.errors import BadInput, NotFound

FILES = (
    "config.json",
    "generation_config.json",
    "adapter_config.json",
    "quantize_config.json",
    "quant_config.json",
    "model*.safetensors",
    "model.safetensors.index.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
)
_ID = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}", re.ASCII)
_SECONDS = 5.0  # to wait for the hub's first answer
DEMO = "`-m demo` is a small model that needs no hub"


def is_id(name: str) -> bool:
    """Whether the name has the form of a hub id: owner/name."""
    return _ID.fullmatch(name) is not None and ".." not in name and "--" not in name


def snapshot(repo: str, offline: bool = False, refresh: bool = False) -> Path:
    """The folder of a repository's files; downloads what is missing. `refresh` asks the hub for a newer revision.

    Raises `NotFound` when the repository or the network is not there, `BadInput` for a name that is no id.
    """
    if not is_id(repo):
        raise BadInput(f"{repo!r} is not a hub id: owner/name")
    offline = offline or is_offline()
    cached = None if refresh and not offline else _cached(repo)
    if cached is not None:
        return cached
    if offline:
        raise NotFound(f"offline: {repo} is not in the hub's cache; {DEMO}")
    return download(repo, FILES)


def is_offline() -> bool:
    """Whether the hub's own switch, HF_HUB_OFFLINE, forbids the network."""
    from huggingface_hub import constants

    return bool(constants.HF_HUB_OFFLINE)


def listing(repo: str) -> list[str]:
    """The paths of all files of a repository, asked of the hub. Raises `NotFound`."""
    from huggingface_hub import HfApi

    with _asking(repo):
        info = HfApi().model_info(repo, revision="main", timeout=_SECONDS)
    return [item.rfilename for item in info.siblings or []]


def cached_folder(repo: str) -> Path | None:
    """The folder of a repository's newest revision on this disk, whatever of it is there; no network."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    nothing = ["/"]  # no file is called so: a folder that has none of them is complete
    try:
        return Path(snapshot_download(repo, allow_patterns=nothing, local_files_only=True))
    except LocalEntryNotFoundError:
        return None


def revision(path: Path) -> str:
    """What tells a snapshot's folder, or a file in one, from that of another revision: its path from the commit on."""
    after = path.parts[path.parts.index("snapshots") + 1 :] if "snapshots" in path.parts else (path.name,)
    return "/".join(after)


def _cached(repo: str) -> Path | None:
    """The newest snapshot on this disk, if all of its weights are there."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        folder = Path(snapshot_download(repo, allow_patterns=list(FILES), local_files_only=True))
    except LocalEntryNotFoundError:
        return None
    return folder if _complete(folder) else None


def _complete(folder: Path) -> bool:
    from phi4mini.weights.folder import INDEX, SINGLE, read_json

    if not (folder / "config.json").exists() or not (folder / INDEX).exists():
        return (folder / "config.json").exists() and (folder / SINGLE).exists()
    listed = read_json(folder, INDEX).get("weight_map", {})
    return all((folder / str(shard)).exists() for shard in listed.values())


def download(repo: str, patterns: Collection[str]) -> Path:
    """The folder of the newest revision, with all files that match there; resumes what stopped. Raises `NotFound`."""
    from huggingface_hub import snapshot_download

    with _asking(repo):
        return Path(snapshot_download(repo, allow_patterns=list(patterns), etag_timeout=_SECONDS))


@contextmanager
def _asking(repo: str) -> Iterator[None]:
    """What the hub's client raises, as one line of ours."""
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
            f"no network: the Hugging Face hub cannot be reached ({_line(chain[-1])}) "
            f"and {repo} is not in its cache; {DEMO}"
        ) from error


def _chain(error: BaseException) -> list[BaseException]:
    """An error and the errors behind it, the innermost last."""
    return [error] if error.__cause__ is None else [error, *_chain(error.__cause__)]


def _line(error: BaseException) -> str:
    """The first line of what an error says."""
    return (str(error).strip() or type(error).__name__).splitlines()[0][:160]
