"""`Artifact`: a folder of files that never changes, named by the digest of its manifest."""

from __future__ import annotations

from espalier.core.types.spec import Spec


class ArtifactFile(Spec):
    """One file of an artifact: `path` is relative, with forward slashes."""

    path: str
    sha256: str
    size_bytes: int


class Artifact(Spec):
    """`digest` is sha256 over the canonical JSON of (kind, files, meta); `made_by` is not part of it.

    So the same bytes made twice are the same artifact, whoever made them.
    """

    digest: str
    kind: str  # dataset | prompt | adapter | base | report | documents ...
    files: tuple[ArtifactFile, ...]
    meta: dict[str, str] = {}
    made_by: str = ""  # run id

    def file(self, path: str) -> ArtifactFile:
        """The file at `path`; raises KeyError when the artifact holds none."""
        for file in self.files:
            if file.path == path:
                return file
        raise KeyError(path)
