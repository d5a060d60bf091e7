"""Places that sources come from: folders, globs, several at once, S3, http on loopback, datasets of the hub."""

from __future__ import annotations

import gzip
import http.server
import io
import socket
import threading
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest

from espalier.core.errors import InvalidInput, NotFound
from espalier.data.readers import address
from espalier.data.readers.places import locate_sources
from espalier.data.readers.source import SkippedFile, SourceFile
from espalier.data.readers.spec import SourceSpec

Sources = tuple[list[SourceFile], list[SkippedFile]]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "recipe").mkdir()
    return tmp_path / "recipe"


@pytest.fixture
def locate(folder: Path) -> Callable[..., Sources]:
    def run(*places: str, **fields: Any) -> Sources:
        path = places[0] if len(places) == 1 else places
        return locate_sources(SourceSpec(path=path, **fields), folder, folder.parent / "cache")

    return run


def write(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


def uris(sources: list[SourceFile]) -> list[str]:
    return [source.uri for source in sources]


def reasons(skipped: list[SkippedFile]) -> dict[str, str]:
    return {item.uri: item.reason for item in skipped}


# Local


def test_one_place_names_its_files_from_itself_and_several_from_the_recipe(folder: Path, locate: Any) -> None:
    write(folder, {"a/x.txt": "1", "b/x.txt": "2", "c.txt": "3"})
    assert uris(locate("a")[0]) == ["x.txt"]
    assert uris(locate("c.txt")[0]) == ["c.txt"]
    assert uris(locate("b", "c.txt", "a")[0]) == ["a/x.txt", "b/x.txt", "c.txt"]


def test_the_order_of_places_never_matters(folder: Path, locate: Any) -> None:
    write(folder, {"a/x.txt": "same", "b/y.txt": "same", "c.txt": "other"})
    assert locate("a", "b", "c.txt") == locate("c.txt", "b", "a", "a")
    assert reasons(locate("b", "a")[1]) == {"b/y.txt": "same bytes as a/x.txt"}


def test_a_glob_chooses_files_and_hidden_ones_never(folder: Path, locate: Any) -> None:
    write(folder, {"in/1/a.txt": "1", "in/2/b.txt": "2", "in/2/c.md": "3", "in/.git/d.txt": "4"})
    assert uris(locate("in/*/*.txt")[0]) == ["1/a.txt", "2/b.txt"]
    assert uris(locate("in/**/*.txt", "in/2/*.md")[0]) == ["in/1/a.txt", "in/2/b.txt", "in/2/c.md"]
    with pytest.raises(NotFound, match="no file matches"):
        locate("in/*.pdf")


def test_a_glob_may_not_climb_out_by_a_link(folder: Path, locate: Any, tmp_path: Path) -> None:
    write(tmp_path, {"secret.txt": "s"})
    write(folder, {"in/a.txt": "1"})
    (folder / "in" / "b.txt").symlink_to(tmp_path / "secret.txt")
    found, skipped = locate("in/*.txt")
    assert uris(found) == ["a.txt"] and "leads out" in reasons(skipped)["b.txt"]


def test_an_absolute_place_leaves_no_path_of_the_machine_in_a_uri(folder: Path, locate: Any, tmp_path: Path) -> None:
    write(tmp_path, {"else/where/a.txt": "1"})
    write(folder, {"b.txt": "2"})
    assert uris(locate(str(tmp_path / "else" / "where"), "b.txt")[0]) == ["b.txt", "where/a.txt"]


def test_two_places_that_give_one_name_to_different_files_are_refused(locate: Any, tmp_path: Path) -> None:
    write(tmp_path, {"1/x/a.txt": "1", "2/x/a.txt": "2"})
    with pytest.raises(InvalidInput, match=r"two sources are called x/a\.txt"):
        locate(str(tmp_path / "1" / "x"), str(tmp_path / "2" / "x"))


def test_an_archive_may_be_the_place(folder: Path, locate: Any) -> None:
    with zipfile.ZipFile(folder / "a.zip", "w") as archive:
        archive.writestr("in/x.txt", "1")
    assert uris(locate("a.zip")[0]) == ["a.zip!/in/x.txt"]


def test_files_that_tell_about_the_data_are_not_data_and_their_licence_goes_with_it(folder: Path, locate: Any) -> None:
    write(folder, {"d/SOURCE.md": "licence: MIT\n", "d/LICENSE.txt": "x", "d/data/a.txt": "1", "d/README.md": "# Read"})
    found, skipped = locate("d")
    assert [(source.uri, source.licence) for source in found] == [("README.md", "MIT"), ("data/a.txt", "MIT")]
    assert reasons(skipped) == dict.fromkeys(
        ("LICENSE.txt", "SOURCE.md"), "not data: it tells about the files beside it"
    )


def test_a_place_of_an_unknown_kind_or_none_is_refused(locate: Any) -> None:
    with pytest.raises(InvalidInput, match="nothing is known of ftp"):
        locate("ftp://host/a.txt")
    with pytest.raises(InvalidInput, match="no source is named"):
        locate("")
    with pytest.raises(NotFound, match="no file or folder"):
        locate("nowhere")


# S3


@pytest.fixture
def bucket(s3_url: str) -> tuple[str, Any]:
    import boto3

    return s3_url.removeprefix("s3://").split("/")[0], boto3.client("s3")


def test_objects_below_a_prefix_are_sources_and_fetched_once(bucket: Any, locate: Any) -> None:
    name, client = bucket
    zipped = io.BytesIO()
    with zipfile.ZipFile(zipped, "w") as archive:
        archive.writestr("x.txt", "in the zip")
    objects = {"in/a.txt": b"A", "in/b.jsonl.gz": gzip.compress(b'{"text": "B"}'), "in/c.zip": zipped.getvalue()}
    objects |= {"in/.hidden.txt": b"H", "in/d.bin": b"D", "inside/e.txt": b"E", "in/": b""}
    for key, data in objects.items():
        client.put_object(Bucket=name, Key=key, Body=data)
    found, skipped = locate(f"s3://{name}/in")
    base = f"s3://{name}/in"
    assert uris(found) == [f"{base}/a.txt", f"{base}/b.jsonl.gz", f"{base}/c.zip!/x.txt"]
    assert found[1].read_bytes() == b'{"text": "B"}' and found[2].read_bytes() == b"in the zip"
    assert reasons(skipped) == {f"{base}/d.bin": "no reader for .bin"}
    assert locate(f"s3://{name}/in/") == (found, skipped)


def test_an_object_that_did_not_change_is_not_fetched_again(
    bucket: Any, locate: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, client = bucket
    client.put_object(Bucket=name, Key="a.txt", Body=b"A")
    first = locate(f"s3://{name}/")
    monkeypatch.setattr("espalier.data.readers.objects.keep", lambda *_: pytest.fail("fetched again"))
    assert locate(f"s3://{name}/") == first
    monkeypatch.undo()


def test_an_object_that_changed_is_fetched_again(bucket: Any, locate: Any) -> None:
    name, client = bucket
    client.put_object(Bucket=name, Key="a.txt", Body=b"A")
    locate(f"s3://{name}/a.txt")
    client.put_object(Bucket=name, Key="a.txt", Body=b"changed")
    assert locate(f"s3://{name}/a.txt")[0][0].read_bytes() == b"changed"


def test_an_object_larger_than_allowed_is_reported(bucket: Any, locate: Any) -> None:
    name, client = bucket
    client.put_object(Bucket=name, Key="a.txt", Body=b"A" * 100)
    client.put_object(Bucket=name, Key="b.txt", Body=b"B")
    found, skipped = locate(f"s3://{name}", max_download_bytes=50)
    assert uris(found) == [f"s3://{name}/b.txt"]
    assert reasons(skipped) == {f"s3://{name}/a.txt": "unreadable: 100 bytes, more than max_download_bytes (50)"}


def test_a_bucket_that_is_not_there_says_so(s3_url: str, locate: Any) -> None:
    with pytest.raises(NotFound, match="NoSuchBucket"):
        locate("s3://no-such-bucket-anywhere/x")


# http


class Pages(http.server.BaseHTTPRequestHandler):
    """Answers by path; `asked` holds what was asked, with its condition."""

    asked: ClassVar[list[tuple[str, str]]] = []
    failures: ClassVar[dict[str, int]] = {}

    def do_GET(self) -> None:
        self.asked.append((self.path, self.headers.get("If-None-Match", "")))
        path, _, query = self.path.partition("?")
        if self.failures.get(path, 0) > 0:
            self.failures[path] -= 1
            return self._answer(503, b"")
        if path.startswith("/to/"):
            return self._answer(302, b"", Location=path.removeprefix("/to/"))
        if path == "/tagged.txt":
            if self.headers.get("If-None-Match") == '"1"':
                return self._answer(304, b"")
            return self._answer(200, b"tagged", ETag='"1"')
        if path == "/page":
            return self._answer(200, b"<main>Hello</main>", **{"Content-Type": "text/html; charset=utf-8"})
        if path == "/endless.txt":
            self.send_response(200)
            self.end_headers()
            for _ in range(1000):
                self.wfile.write(b"x" * 1000)
            return None
        if path == "/short.txt":
            return self._answer(200, b"abc", **{"Content-Length": "10"})
        if path.endswith(".txt"):
            return self._answer(200, f"{path} {query}".encode())
        return self._answer(404, b"")

    def _answer(self, status: int, body: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)
        self.close_connection = True

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setattr(address, "WAIT_S", 0.0)
    monkeypatch.setattr(address, "TIMEOUT_S", 60.0)
    for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    Pages.asked.clear()
    Pages.failures.clear()
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Pages)
    server.handle_error = lambda *_: None  # type: ignore[method-assign]  # a client that hangs up is no news
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


def test_addresses_and_lists_of_them_are_sources(site: str, folder: Path, locate: Any) -> None:
    write(folder, {"list.txt": f"# pages\n{site}/b.txt\n\n{site}/a.txt\n{site}/page\n{site}/none.txt/x\n"})
    found, skipped = locate("urls:list.txt", f"{site}/c.txt", allow_private=True)
    assert uris(found) == [f"{site}/a.txt", f"{site}/b.txt", f"{site}/c.txt", f"{site}/page#.html"]
    assert found[0].read_bytes() == b"/a.txt "
    assert reasons(skipped) == {f"{site}/none.txt/x": "no reader for a file without a suffix"}


def test_what_cannot_be_fetched_is_reported_with_its_status(site: str, locate: Any) -> None:
    found, skipped = locate(f"{site}/a.txt", f"{site}/gone.md", allow_private=True)
    assert uris(found) == [f"{site}/a.txt"]
    assert reasons(skipped) == {f"{site}/gone.md": "unreadable: cannot be fetched: HTTP 404"}


def test_this_machine_and_private_networks_are_refused_unless_they_are_asked_for(site: str, locate: Any) -> None:
    with pytest.raises(InvalidInput, match="private network or on this machine"):
        locate(f"{site}/a.txt")
    assert Pages.asked == []


@pytest.mark.parametrize("host", ["10.0.0.1", "192.168.1.1", "169.254.169.254", "[::1]", "[fd00::1]", "0.0.0.0"])
def test_private_addresses_are_refused_by_number(host: str, locate: Any, site: str) -> None:
    with pytest.raises(InvalidInput, match="private network or on this machine"):
        locate(f"http://{host}/a.txt")


def test_a_redirect_into_a_private_network_is_refused(site: str, locate: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    port = int(site.rsplit(":", 1)[1])
    connect, resolve = socket.create_connection, socket.getaddrinfo

    def answer(host: Any, *args: Any, **kwargs: Any) -> Any:
        return resolve("93.184.216.34" if host == "public.test" else host, *args, **kwargs)

    def reach(target: tuple[str, int], *args: Any, **kwargs: Any) -> socket.socket:
        assert target[0] == "93.184.216.34", "only the address that was checked"
        return connect(("127.0.0.1", port), *args, **kwargs)

    monkeypatch.setattr(socket, "getaddrinfo", answer)
    monkeypatch.setattr(socket, "create_connection", reach)
    found, skipped = locate("http://public.test/a.txt", f"http://public.test/to/{site}/secret.txt")
    assert uris(found) == ["http://public.test/a.txt"]
    assert "private network" in skipped[0].reason
    assert all("secret" not in path or path.startswith("/to/") for path, _ in Pages.asked)


@pytest.mark.parametrize("target", ["file:///etc/hostname.txt", "ftp://host/a.txt", "gopher://host/a.txt"])
def test_a_redirect_to_another_scheme_is_refused(site: str, locate: Any, target: str) -> None:
    with pytest.raises(InvalidInput, match=r"not http or https|cannot be fetched: HTTP 302"):
        locate(f"{site}/to/{target}", allow_private=True)


def test_redirects_without_end_are_given_up(site: str, locate: Any) -> None:
    target = f"{site}/" + "to//" * 12 + "x.txt"
    with pytest.raises(InvalidInput, match="cannot be fetched"):
        locate(target, allow_private=True)


def test_more_bytes_than_allowed_are_not_fetched(site: str, locate: Any) -> None:
    for page in ("endless.txt", "tagged.txt"):
        with pytest.raises(InvalidInput, match="more than"):
            locate(f"{site}/{page}", allow_private=True, max_download_bytes=5)


def test_an_answer_that_breaks_off_is_reported(site: str, locate: Any) -> None:
    with pytest.raises(InvalidInput, match="cannot be fetched"):
        locate(f"{site}/short.txt", allow_private=True)


def test_a_server_that_is_busy_is_asked_again(site: str, locate: Any) -> None:
    Pages.failures["/a.txt"] = 2
    assert uris(locate(f"{site}/a.txt", allow_private=True)[0]) == [f"{site}/a.txt"]
    Pages.failures["/b.txt"] = 3
    with pytest.raises(InvalidInput, match="HTTP 503"):
        locate(f"{site}/b.txt", allow_private=True)


def test_a_page_that_did_not_change_is_not_sent_again(site: str, locate: Any) -> None:
    first = locate(f"{site}/tagged.txt", allow_private=True)
    assert locate(f"{site}/tagged.txt", allow_private=True) == first
    assert [condition for _, condition in Pages.asked] == ["", '"1"']


def test_passwords_and_tokens_of_a_url_stay_out_of_its_uri(site: str, locate: Any) -> None:
    url = site.replace("http://", "http://user:hush@") + "/a.txt?token=hush"
    assert all("hush" not in uri for uri in [address.name_url(url, "", _selection())])


def test_a_query_gives_different_files_different_names(site: str, locate: Any) -> None:
    found, _ = locate(f"{site}/a.txt?page=1", f"{site}/a.txt?page=2", allow_private=True)
    assert len(set(uris(found))) == 2 and all("page" not in uri and uri.endswith("#a.txt") for uri in uris(found))


def _selection() -> Any:
    from espalier.data.readers.source import Selection

    return Selection(frozenset({"txt"}))


# The hub


def test_a_dataset_of_the_hub_is_a_folder_with_a_card(
    folder: Path, locate: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub

    asked: list[Any] = []

    def download(repo: str, **options: Any) -> None:
        asked.append((repo, options["repo_type"], options["revision"]))
        there = Path(options["local_dir"])
        card = "---\nlicense: apache-2.0\ndataset_info:\n  features: []\n---\n# Toy\n"
        write(there, {"README.md": card, "data/train.jsonl": '{"text": "a"}', ".cache/x.json": "{}"})

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    found, skipped = locate("hf:owner/toy@v1")
    assert asked == [("owner/toy", "dataset", "v1")]
    assert [(source.uri, source.licence) for source in found] == [("data/train.jsonl", "Apache-2.0")]
    assert reasons(skipped) == {"README.md": "not data: it tells about the files beside it"}
    write(folder, {"own.txt": "x"})
    assert uris(locate("hf:owner/toy", "own.txt")[0]) == ["hf:owner/toy/data/train.jsonl", "own.txt"]


def test_a_hub_that_cannot_be_reached_is_told(locate: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    def refuse(*_: Any, **__: Any) -> None:
        raise ConnectionError("no network")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", refuse)
    with pytest.raises(NotFound, match="no network"):
        locate("hf:owner/toy")
    with pytest.raises(InvalidInput, match="not a dataset on the hub"):
        locate("hf:toy")
