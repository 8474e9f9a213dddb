"""The app, driven by Streamlit's own AppTest on a tiny network: labels, views, pixels, bad input, two visitors."""

from __future__ import annotations

import io
import sys

import pytest
from PIL import Image
from streamlit.testing.v1 import AppTest

from apps.web import inputs, page
from checkpoint_files import own_file
from predicting import picture
from scripts import REPOSITORY
from tiny import tiny_net


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
    monkeypatch.chdir(tmp_path)

    def visit(*options: str) -> AppTest:
        places = ["--checkpoint_dir", str(tmp_path / "checkpoints"), "--quickstart", str(quickstart)]
        monkeypatch.setattr(sys, "argv", ["lseg_app.py", *places, "--device", "cpu", *options])
        return AppTest.from_file(str(REPOSITORY / "lseg_app.py"), default_timeout=60).run()

    return visit


def png_of(height: int, width: int, seed: int = 5) -> bytes:
    with io.BytesIO() as file:
        Image.fromarray(picture(height, width, seed)).save(file, "PNG")
        return file.getvalue()


def result(page_of: AppTest):
    return page_of.session_state["work"].result


def messages(page_of: AppTest) -> str:
    assert not page_of.exception, page_of.exception
    return "\n".join(error.value for error in page_of.error).replace("\\", "")


def test_begins_with_the_miniature_its_pictures_and_its_labels(app):
    visitor = app()
    assert not messages(visitor)
    assert visitor.text_area[0].value == "red square\ngrass\nblue ring"
    assert result(visitor).mask.shape == (64, 64) and result(visitor).labels == ["red square", "grass", "blue ring"]
    assert len(visitor.sidebar.selectbox[1].options) == 2


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
    assert visitor.sidebar.selectbox[0].options == ["miniature, seed0, version_0", "mine/broken.pth"]
    visitor.sidebar.selectbox[0].set_value(other).run()
    assert "broken.pth" in messages(visitor)


def test_options_that_do_not_exist_are_said_in_the_page(app):
    assert "terminal" in messages(app("--chekpoint", "x"))


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
    monkeypatch.setattr(inputs, "MAX_PIXELS", 9000)
    visitor = app()
    for name, content, message in (
        ("notes.png", b"not a picture", "not an image"),
        ("empty.png", b"", "empty"),
        ("cut.png", png_of(90, 70)[:2000], "damaged or cut off"),
        ("heavy.png", b"\0" * (inputs.MAX_UPLOAD_MB * 2**20 + 1), "20 MB"),
        ("wide.png", png_of(100, 91), "91 x 100 pixels; at most"),
    ):
        visitor.file_uploader[0].set_value((name, content, "image/png")).run()
        assert message in messages(visitor) and name in messages(visitor)


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

    def click(shown, key):
        keys.append(key)
        return 0.999, 0.5

    monkeypatch.setattr(page, "clickable_picture", click)
    visitor = app()
    assert any(text.value == "**Pixel 32, 63**" for text in visitor.markdown)
    rows, labels = visitor.get("html")[-1].proto.body, result(visitor).labels
    assert min(labels, key=rows.index) == labels[result(visitor).mask[63, 32]]
    visitor.sidebar.selectbox[1].select_index(1).run()
    assert len(set(keys)) == 2


def _loaded(visitor):
    checkpoint, modified, _ = visitor.session_state["work"].source
    return str(checkpoint), modified, "cpu"


def test_heat_map_of_a_query(app):
    visitor = app()
    visitor.segmented_control[0].set_value(page.HEAT).run()
    visitor.text_input[0].set_value("  a crimson   disc ").run()
    assert not messages(visitor)
    assert any("Cosine" in caption.value for caption in visitor.caption)
    visitor.text_input[0].set_value("x" * 5000).run()
    assert "shorten" in messages(visitor)


def test_two_visitors_share_the_network_and_nothing_else(app):
    first, second = app(), app()
    first.file_uploader[0].upload("mine.png", png_of(30, 50), "image/png").run()
    second.run()
    assert result(first).mask.shape == (30, 50) and result(second).mask.shape == (64, 64)
    assert page._shared_predictor(*_loaded(second)) is page._shared_predictor(*_loaded(first))
    assert "mine.png" not in str(second.main) + str(second.sidebar)


def test_nothing_is_written(app, tmp_path):
    before = sorted(tmp_path.rglob("*"))
    visitor = app()
    visitor.text_area[0].set_value("cat, dog").run()
    visitor.segmented_control[0].set_value(page.PHOTO).run()
    assert not messages(visitor)
    assert sorted(tmp_path.rglob("*")) == before
