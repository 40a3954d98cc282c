"""Pushes the adapter of a run to the Hugging Face Hub: the files of PEFT, the model card, and the scores."""

import tempfile
from pathlib import Path

from jaxprefix.io.upload import check_repository, upload
from jaxprefix.peft.eval_results import eval_results
from jaxprefix.peft.exchange import export_adapter

SCORES = ".eval_results/jaxprefix.yaml"


def push(run: Path, repository: str, public: bool = False) -> str:
    """Pushes the adapter of `run` in one commit, and returns a line with its address. The run stays as it is.

    A new repository is private unless `public`. The card's text and the scores are those of the run's report.json.

    Raises:
        InputError: PEFT has no type for the adapter, the repository is public and `public` is False, or the Hub
            refuses or cannot be reached. The same call completes an interrupted push.
    """
    check_repository(repository)
    scores = eval_results(run)
    with tempfile.TemporaryDirectory() as folder:
        exported = Path(folder) / "adapter"
        export_adapter(run, exported, repository=repository)
        files: dict[str, Path | bytes | None] = {path.name: path for path in sorted(exported.iterdir())}
        files[SCORES] = scores.encode() if scores else None
        address = upload(repository, files, "Upload an adapter with jaxprefix", public)
    return f"pushed the adapter{' and its scores' if scores else ''} to {address}"
