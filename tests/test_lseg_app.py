"""The app, driven by Streamlit's own AppTest on a tiny network: labels, views, pixels, bad input, two visitors."""

from __future__ import annotations

import io
import sys
from types import SimpleNamespace
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from apps.web import choosing, inputs, places, showing
from checkpoint_files import own_file
from predicting import picture
from scripts import REPOSITORY
from tiny import tiny_net

if TYPE_CHECKING:
    from streamlit.testing.v1 import AppTest

pytestmark = pytest.mark.xdist_group("app")  # one process imports streamlit
SAMPLE_SIZE = (384, 384)  # of docs/sample.png, with which the miniature begins


@pytest.fixture
def quickstart(tmp_path):
    """What quickstart.sh leaves: a trained miniature with its pictures and label lists."""
    run = tmp_path / "q" / "runs" / "trained_seed0" / "version_0"
    own_file(tiny_net(labels=["red square", "grass"]), run / "checkpoints" / "last.ckpt")
    world = tmp_path / "q" / "datasets_seed0" / "miniature"
    images = world / "images" / "validation"
    images.mkdir(parents=True)
    for number in range(2):
        Image.fromarray(picture(64, 64, seed=number)).save(images / f"validation_{number}.jpg")
    (world / "labels.txt").write_text("red square\ngrass\nblue ring\n")
    (world / "synonyms.txt").write_text("crimson box\nlawn\n")
    return tmp_path / "q"


@pytest.fixture
def app(quickstart, tmp_path, monkeypatch):
    """``app(*options)``: a new visitor's page, after its first run."""
    from streamlit.testing.v1 import AppTest  # two seconds, which no other test should wait for

    monkeypatch.chdir(tmp_path)

    def visit(*options: str, link: dict[str, str] | None = None) -> AppTest:
        places = ["--checkpoint_dir", str(tmp_path / "checkpoints"), "--quickstart", str(quickstart)]
        monkeypatch.setattr(sys, "argv", ["lseg_app.py", *places, "--device", "cpu", *options])
        visitor = AppTest.from_file(str(REPOSITORY / "lseg_app.py"), default_timeout=60)
        visitor.query_params.update(link or {})
        return visitor.run()

    return visit


def png_of(height: int, width: int, seed: int = 5) -> bytes:
    with io.BytesIO() as file:
        Image.fromarray(picture(height, width, seed)).save(file, "PNG")
        return file.getvalue()


def result(page_of: AppTest):
    return page_of.session_state["work"].results[0]


def box(page_of: AppTest, label: str):
    """The selectbox with this label."""
    return next(one for one in page_of.selectbox if one.label == label)


def messages(page_of: AppTest) -> str:
    assert not page_of.exception, page_of.exception
    return "\n".join(error.value for error in page_of.error).replace("\\", "")


def test_begins_with_the_miniature_its_pictures_and_its_labels(app):
    visitor = app()
    assert not messages(visitor)
    assert set(visitor.text_area[0].value.splitlines()) == {"red square", "grass", "blue ring"}
    assert result(visitor).mask.shape == SAMPLE_SIZE
    box(visitor, "Label list").set_value("all labels of the miniature").run()
    assert result(visitor).labels == ["red square", "grass", "blue ring"]
    assert box(visitor, "Or choose a sample").options == ["sample", "validation 0", "validation 1"]
    box(visitor, "Or choose a sample").select_index(2).run()
    assert not messages(visitor) and result(visitor).mask.shape == (64, 64)


def test_without_a_checkpoint_it_says_what_to_run(app, quickstart):
    (quickstart / "runs").rename(quickstart / "elsewhere")
    visitor = app()
    assert not messages(visitor)
    assert "bash quickstart.sh" in [code.value for code in visitor.code]


def test_finds_checkpoints_in_folders_and_names_one_that_is_none(app, tmp_path, quickstart):
    other = tmp_path / "checkpoints" / "mine" / "broken.pth"
    other.parent.mkdir(parents=True)
    other.write_bytes(b"not a checkpoint")
    visitor = app("--checkpoint", str(next(quickstart.rglob("last.ckpt"))))
    assert box(visitor, "Checkpoint").options == ["miniature, seed0, version_0", "mine/broken.pth"]
    box(visitor, "Checkpoint").set_value("mine/broken.pth").run()
    assert "broken.pth" in messages(visitor)


def test_options_that_do_not_exist_are_said_in_the_page(app):
    assert "terminal" in messages(app("--chekpoint", "x"))


def test_the_backbone_of_the_checkpoint_can_be_named(app, quickstart):
    checkpoint = str(next(quickstart.rglob("last.ckpt")))
    assert result(app("--checkpoint", checkpoint, "--backbone", "tiny_resnet")).mask.shape == SAMPLE_SIZE
    assert "tiny_resnet" in messages(app("--checkpoint", checkpoint, "--backbone", "tiny_vit"))
    assert "--checkpoint" in messages(app("--backbone", "tiny_resnet"))


def test_new_labels_need_no_new_pass_through_the_network(app, monkeypatch):
    visitor = app()
    encoded = result(visitor).encoded
    visitor.text_area[0].set_value("a dog, <b>a cat</b>\n\n  猫 🐈 ").run()
    assert not messages(visitor)
    assert result(visitor).labels == ["a dog", "<b>a cat</b>", "猫 🐈"]
    assert result(visitor).encoded is encoded
    legend = visitor.get("html")[0].proto.body
    assert "&lt;b&gt;a cat" in legend and "<b>a cat" not in legend


def test_labels_that_cannot_be_used_are_explained_beside_the_picture(app):
    visitor = app()
    for labels, message in (
        ("", "at least one label"),
        (" ,\n", "at least one label"),
        ("cat, dog, cat", "Duplicate labels: cat"),
        ("\n".join(f"label {i}" for i in range(inputs.MAX_LABELS + 1)), f"at most {inputs.MAX_LABELS}"),
        ("x" * 5000, "shorten"),
        ("猫" * 150, "shorten"),
    ):
        visitor.text_area[0].set_value(labels).run()
        assert message in messages(visitor)
    visitor.text_area[0].set_value("cat, dog").run()
    assert not messages(visitor) and result(visitor).labels == ["cat", "dog"]


def test_uploads_that_cannot_be_used_are_explained(app, monkeypatch):
    monkeypatch.setattr(inputs, "MAX_PIXELS", 150_000)
    visitor = app()
    for name, content, message in (
        ("notes.png", b"not a picture", "not an image"),
        ("empty.png", b"", "empty"),
        ("cut.png", png_of(90, 70)[:2000], "damaged or cut off"),
        ("heavy.png", b"\0" * (inputs.MAX_UPLOAD_MB * 2**20 + 1), "20 MB"),
        ("wide.png", png_of(400, 391), "391 x 400 pixels; at most"),
    ):
        visitor.file_uploader[0].set_value((name, content, "image/png")).run()
        assert message in messages(visitor) and name in messages(visitor)
        assert visitor.text_area and result(visitor).mask.shape == SAMPLE_SIZE  # the page is still there


def test_uploads_of_odd_sizes_are_segmented(app):
    visitor = app()
    for height, width in ((1, 1), (1, 3000), (37, 61)):
        visitor.file_uploader[0].set_value(("a.png", png_of(height, width), "image/png")).run()
        assert not messages(visitor)
        limit = inputs.MAX_SIDE
        assert result(visitor).mask.shape == (height, min(width, limit))
        assert any(f"{limit}" in caption.value for caption in visitor.caption) == (width > limit)


def test_a_clicked_pixel_shows_its_nearest_labels_and_another_picture_forgets_it(app, monkeypatch):
    keys = []

    def click(shown, key, *more):
        keys.append(key)
        return 0.999, 0.5

    monkeypatch.setattr(showing, "clickable_picture", click)
    visitor = app()
    assert any(text.value == "**Pixel 192, 383**" for text in visitor.markdown)
    rows = next(html.proto.body for html in visitor.get("html") if "tabular-nums" in html.proto.body)
    labels = result(visitor).labels
    assert min(labels, key=rows.index) == labels[result(visitor).mask[383, 192]]
    box(visitor, "Or choose a sample").select_index(1).run()
    assert len(set(keys)) == 2


def _loaded(visitor):
    checkpoint, modified, *_ = visitor.session_state["work"].source
    return str(checkpoint), modified, "cpu", None


def test_heat_map_of_a_query(app):
    visitor = app()
    visitor.segmented_control[0].set_value(showing.HEAT).run()
    visitor.button[0].click().run()  # one of the labels, offered as words to look for
    assert visitor.text_input[0].value in result(visitor).labels
    visitor.text_input[0].set_value("  a crimson   disc ").run()
    assert not messages(visitor)
    assert any("Cosine" in caption.value for caption in visitor.caption)
    visitor.text_input[0].set_value("x" * 5000).run()
    assert "shorten" in messages(visitor)


def test_two_visitors_share_the_network_and_nothing_else(app):
    first, second = app(), app()
    first.file_uploader[0].upload("mine.png", png_of(30, 50), "image/png").run()
    second.run()
    assert result(first).mask.shape == (30, 50) and result(second).mask.shape == SAMPLE_SIZE
    assert choosing.shared_predictor(*_loaded(second)) is choosing.shared_predictor(*_loaded(first))
    assert "mine.png" not in str(second.main)


def test_nothing_is_written(app, tmp_path):
    before = sorted(tmp_path.rglob("*"))
    visitor = app()
    visitor.text_area[0].set_value("cat, dog").run()
    visitor.segmented_control[0].set_value(showing.PHOTO).run()
    assert not messages(visitor)
    assert sorted(tmp_path.rglob("*")) == before


def test_a_link_shows_the_same_page_again(app):
    visitor = app()
    visitor.segmented_control[0].set_value(showing.HEAT).run()
    visitor.text_input[0].set_value("a dog").run()
    visitor.text_area[0].set_value("lawn\ncrimson box").run()
    link = {name: values if isinstance(values, str) else values[0] for name, values in visitor.query_params.items()}
    other = app(link=link)
    assert other.segmented_control[0].value == showing.HEAT and other.text_input[0].value == "a dog"
    assert result(other).labels == ["lawn", "crimson box"]


def test_a_link_cannot_ask_for_what_the_page_does_not_offer(app):
    visitor = app(link={"view": "../x", "opacity": "many", "network": "/etc/passwd", "sample": "../../x"})
    assert not messages(visitor) and visitor.segmented_control[0].value == showing.LABELS


def test_two_lists_of_labels_are_compared(app):
    visitor = app()
    visitor.toggle[0].set_value(True).run()
    visitor.text_area[1].set_value("a cat\na dog").run()
    assert not messages(visitor)
    first, second = (visitor.session_state["work"].results[place] for place in (0, 1))
    assert second.labels == ["a cat", "a dog"] and first.encoded is second.encoded


def test_the_files_asked_for_are_those_of_the_page_as_it_is(app, monkeypatch):
    delivered = []
    monkeypatch.setattr(showing, "wanted_download", lambda key: "mask")
    monkeypatch.setattr(showing, "download_buttons", lambda offers, key, *file: delivered.append(file[:2]))
    visitor = app()
    visitor.text_area[0].set_value("lawn, <b>box</b>").run()
    name, content = delivered[-1]
    assert name == "sample_lawn-b_box_b_mask.png"
    with Image.open(io.BytesIO(content)) as mask:
        assert mask.size == SAMPLE_SIZE
        assert (np.asarray(mask) == result(visitor).mask + 1).all()


def test_visitors_get_no_advice_on_python(app):
    visitor = app()
    visitor.text_area[0].set_value("猫" * 150).run()
    assert "shorten" in messages(visitor) and "encode_text" not in messages(visitor)


def test_toy_networks_admit_that_they_know_no_photographs(app):
    visitor = app()
    assert not visitor.warning
    visitor.file_uploader[0].set_value(("a.png", png_of(40, 50), "image/png")).run()
    assert "photograph" in visitor.warning[0].value


def test_a_network_for_photographs_invites_to_upload_one_or_begins_with_those_at_hand(app, tmp_path, monkeypatch):
    network = own_file(tiny_net(), tmp_path / "checkpoints" / "demo.ckpt")
    monkeypatch.setattr(places, "find_spec", lambda name: None)
    visitor = app("--checkpoint", str(network))
    assert not messages(visitor) and "Upload" in visitor.info[0].value
    visitor.file_uploader[0].set_value(("a.png", png_of(40, 50), "image/png")).run()
    assert result(visitor).mask.shape == (40, 50) and not visitor.warning
    package = tmp_path / "skimage"
    (package / "data").mkdir(parents=True)
    (package / "data" / "coffee.png").write_bytes(png_of(30, 20))
    monkeypatch.setattr(places, "find_spec", lambda name: SimpleNamespace(origin=str(package / "__init__.py")))
    assert result(app("--checkpoint", str(network))).mask.shape == (30, 20)
