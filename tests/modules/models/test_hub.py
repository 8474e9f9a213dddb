"""Folders of the Hugging Face hub's kind: written, read, converted, uploaded to and downloaded from stand-ins."""

from __future__ import annotations

import hashlib
import json
import shutil
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import huggingface_hub
import pytest
import torch
from huggingface_hub import ModelCard, hub_mixin

from checkpoint_files import official_file, own_file
from lseg_utils.errors import InputError
from modules import zoo
from modules.checkpoint_file import read_checkpoint
from modules.checkpoints import load_lseg
from modules.models.lseg_net import LSegEncNet, LSegFeatureNet, LSegNet
from modules.weights_file import check_weights_file
from tiny import LABELS, TINY, pictures, tiny_net

pytestmark = pytest.mark.usefixtures("one_thread")
FILES = {"model.safetensors", "config.json", "README.md"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    LSegNet.of(tiny_net("tiny_vit")).save_pretrained(tmp_path / "net")
    return tmp_path / "net"


@pytest.mark.parametrize("backbone", TINY)
def test_what_is_saved_comes_back(backbone, tmp_path):
    ours = tiny_net(backbone, arch_option=1, block_depth=2)
    ours.base_size, ours.mean = 96, (0.4, 0.5, 0.6)
    ours.metadata = {"dataset": "cats", "data_path": "/somewhere", "metric": {"val_miou_epoch": 0.375}, "epoch": 3}
    LSegNet.of(ours).save_pretrained(tmp_path / "net", model_card_kwargs={"name": "net"})
    assert {path.name for path in (tmp_path / "net").iterdir()} == FILES
    net, images = LSegNet.from_pretrained(tmp_path / "net"), pictures(1, 64, 96)
    assert torch.equal(net.network(images), ours(images)) and not net.training
    assert (net.network.labels, net.network.base_size, net.network.mean) == (LABELS, 96, (0.4, 0.5, 0.6))
    assert net.network.metadata["epoch"] == 3 and "somewhere" not in (tmp_path / "net" / "config.json").read_text()
    card = ModelCard.load(tmp_path / "net" / "README.md")
    assert card.data.library_name == "lseg" and card.data.pipeline_tag == "image-segmentation"
    assert all(text in card.text for text in ("| dataset | cats |", "0.375", net.network.metadata["fingerprint"]))
    # The same folder serves as a checkpoint everywhere, and the classes of other projects read it.
    assert torch.equal(load_lseg(tmp_path / "net")(images), ours(images))
    assert LSegFeatureNet.from_pretrained(str(tmp_path / "net"))(images).shape == (1, 64, 32, 48)
    assert isinstance(LSegEncNet.from_pretrained(tmp_path / "net"), LSegEncNet)


def test_an_official_file_becomes_a_folder_and_back(tmp_path, capsys):
    official = official_file(tiny_net("tiny_vit", labels=None), tmp_path / "pascal_fold0.ckpt")
    results = tmp_path / "results.json"
    results.write_text(json.dumps({"dataset": "cats", "split": "val", "miou": 41.25, "shuffled_labels": None}))
    hub, back, plain = tmp_path / "hub", tmp_path / "back.pt", tmp_path / "plain.pt"
    assert zoo.main(["convert", str(official), str(hub), "--layout", "hub", "--results", str(results)]) == 0
    assert "LSegNet.from_pretrained" in capsys.readouterr().out
    zoo.main(["convert", str(hub), str(back), "--layout", "lightning"])
    zoo.main(["convert", str(official), str(plain)])
    expected, found = torch.load(plain), torch.load(back)["state_dict"]
    assert {f"net.{name}" for name in expected} == set(found) and "net.clip_pretrained.visual.proj" in found
    for name, tensor in expected.items():
        assert torch.equal(tensor, found[f"net.{name}"]) and tensor.dtype == found[f"net.{name}"].dtype, name
    net, images = LSegNet.from_pretrained(hub), pictures(1, 32, 32)
    assert torch.equal(net.network(images, LABELS), load_lseg(official)(images, LABELS))
    card = ModelCard.load(hub / "README.md")
    (result,) = card.data.eval_results
    assert (result.dataset_name, result.metric_type, result.metric_value) == ("cats", "mean_iou", 41.25)
    assert "| mIoU | 41.25 % |" in card.text and "52.8 mIoU" in card.text  # the published figure of that name
    capsys.readouterr()
    zoo.main(["check", str(hub), str(official), "--json"])
    one, other = json.loads(capsys.readouterr().out)
    assert (
        one["tensors_sha256"] == other["tensors_sha256"] == json.loads((hub / "config.json").read_text())["fingerprint"]
    )


def test_what_a_file_of_ours_says_about_itself_survives(tmp_path):
    own = own_file(tiny_net("tiny_resnet", arch_option=2, block_depth=1), tmp_path / "own.ckpt")
    zoo.main(["convert", str(own), str(tmp_path / "hub"), "--layout", "hub"])
    zoo.main(["convert", str(tmp_path / "hub"), str(tmp_path / "back.ckpt"), "--layout", "lightning"])
    before, after = read_checkpoint(own).metadata, read_checkpoint(tmp_path / "back.ckpt").metadata
    assert {key: after[key] for key in before} == before and before["architecture"]["arch_option"] == 2
    assert load_lseg(tmp_path / "back.ckpt").labels == LABELS


def test_results_that_do_not_belong_into_a_card(tmp_path):
    own, results = own_file(tiny_net("tiny_vit"), tmp_path / "own.ckpt"), tmp_path / "results.json"
    command = ["convert", str(own), str(tmp_path / "hub"), "--results", str(results)]
    with pytest.raises(InputError, match="--layout hub"):
        zoo.main(command)
    for content in ("{", "[1]", '{"dataset": "cats"}', '{"dataset": "cats", "miou": 1.0, "shuffled_labels": 0}'):
        results.write_text(content)
        with pytest.raises(InputError, match=r"results\.json cannot be used"):
            zoo.main([*command, "--layout", "hub"])
    assert not (tmp_path / "hub").exists()


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("config.json", None, "no config.json"),
        ("model.safetensors", None, "no model.safetensors"),
        ("config.json", b"{", "not JSON"),
        ("config.json", b"[]", "instead of"),
        ("config.json", b"{}", "no network that this version"),
        ("config.json", b'{"architecture": {"backbone": "vit_huge"}}', "vit_huge"),
        ("config.json", b'{"architecture": {"backbone": "tiny_vit", "features": 16}, "sizes": 3}', "no network"),
        ("model.safetensors", b"\x08\0\0\0\0\0\0\0garbage.", "cannot be read"),
    ],
)
def test_damaged_folders_are_refused(folder, file, content, message):
    (folder / file).unlink()
    if content is not None:
        (folder / file).write_bytes(content)
    with pytest.raises(ValueError, match=message):
        LSegNet.from_pretrained(folder)
    if content not in (None, b"{}"):  # from the weights' shapes alone, load_lseg finds the network
        with pytest.raises(InputError):
            load_lseg(folder)


def test_weights_of_another_network_are_refused(folder, tmp_path):
    config = (folder / "config.json").read_text()
    LSegNet.of(tiny_net("tiny_vit", seed=1)).save_pretrained(folder)
    assert LSegNet.from_pretrained(folder)
    (folder / "config.json").write_text(config)
    with pytest.raises(ValueError, match="does not belong"):
        LSegNet.from_pretrained(folder)
    LSegNet.of(tiny_net("tiny_resnet")).save_pretrained(folder)
    (folder / "config.json").write_text(config)
    with pytest.raises(RuntimeError, match="pretrained.layer1"):
        LSegNet.from_pretrained(folder)
    net = LSegNet.of(tiny_net("tiny_vit"))
    net.scratch.head1.bias.data[0] = float("nan")
    net.save_pretrained(folder)
    with pytest.raises(ValueError, match="NaN"):
        LSegNet.from_pretrained(folder)


def test_the_path_of_a_folder_is_that_of_its_weights(folder, tmp_path):
    assert check_weights_file(folder) == folder / "model.safetensors"
    with pytest.raises(InputError, match="is a folder"):
        check_weights_file(tmp_path)


# ---------------------------------------------------------------------------------------------- stand-ins for the hub


class FakeApi:
    """Stands in for the hub's API: what is pushed lands in a folder."""

    home: Path

    def __init__(self, token: str | None = None) -> None:
        pass

    def create_repo(self, repo_id: str, **_: object) -> FakeApi:
        self.repo_id = repo_id
        return self

    def upload_folder(self, repo_id: str, folder_path: Path, **_: object) -> str:
        shutil.copytree(folder_path, self.home / repo_id)
        return f"pushed {repo_id}"


def test_pushing_writes_the_three_files(tmp_path, monkeypatch):
    monkeypatch.setattr(hub_mixin, "HfApi", FakeApi)
    FakeApi.home = tmp_path
    net = LSegNet.of(tiny_net("tiny_vit"))
    assert net.push_to_hub("somebody/lseg-tiny", model_card_kwargs={"name": "lseg-tiny"}) == "pushed somebody/lseg-tiny"
    assert {path.name for path in (tmp_path / "somebody" / "lseg-tiny").iterdir()} == FILES
    assert "# lseg-tiny" in (tmp_path / "somebody" / "lseg-tiny" / "README.md").read_text()


@pytest.fixture
def hub(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A web server that answers like the hub for the model somebody/net; gives its address."""
    commit = "0" * 40

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.answer(False)

        def do_GET(self) -> None:
            self.answer(True)

        def answer(self, body: bool) -> None:
            """One of the files, or 404."""
            if "somebody/net/resolve" not in self.path:
                self.send_error(404)
                return
            content = (folder / self.path.rsplit("/", 1)[1]).read_bytes()
            self.send_response(200)
            self.send_header("X-Repo-Commit", commit)
            self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if body:
                self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    address = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", address)
    monkeypatch.setattr(
        huggingface_hub.constants, "HUGGINGFACE_CO_URL_TEMPLATE", address + "/{repo_id}/resolve/{revision}/{filename}"
    )
    yield address
    server.shutdown()
    server.server_close()
    thread.join()


def test_a_name_is_downloaded_once(hub, folder, tmp_path):
    cache, images = tmp_path / "cache", pictures(1, 32, 32)
    net = LSegNet.from_pretrained("somebody/net", cache_dir=cache)
    assert torch.equal(net.network(images), tiny_net("tiny_vit")(images))
    assert not list(cache.rglob("README.md"))  # what the network does not need stays there
    offline = LSegNet.from_pretrained("somebody/net", cache_dir=cache, local_files_only=True)
    assert torch.equal(offline.network(images), net.network(images))
    for name in ("somebody/other", "no folder: no name"):
        with pytest.raises(ValueError, match=f"{name} is neither a folder"):
            LSegNet.from_pretrained(name, cache_dir=cache)
