"""predict_lseg.py with wrong options, and folders that it must not touch: everything is reported before it starts."""

from __future__ import annotations

import os

import pytest
from PIL import Image

from lseg_utils.errors import InputError
from predict_script import (
    files,
    predict,
)
from predicting import picture


def test_everything_wrong_with_a_command_is_reported_at_once(weights, folder, tmp_path):
    (tmp_path / "file").touch()
    (tmp_path / "nothing").mkdir()
    wrong = ["--labels", " , ", "--write", "overlay,pixels", "--batch_size", 0, "--opacity", 2]
    more = [*wrong, "--embedding_size", "big", "--output_dir", tmp_path / "file" / "out"]
    with pytest.raises(InputError) as error:
        predict(weights, folder, "missing.jpg", tmp_path / "nothing", more=more)
    expected = (
        *("missing.jpg", f"{tmp_path / 'nothing'}", "'pixels'", "--batch_size is 0", "--opacity is 2"),
        *("--output_dir", "' , '", "--embedding_size is 'big'"),
    )
    assert [text for text in expected if text not in str(error.value)] == []


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--labels", "labels.txt"], "cannot read the label file labels.txt"),
        (["--labels", "word " * 100], "longer than"),
        (["--pca", "2"], "--pca is 2; .* 3"),
        (["--pca", "99999"], "--pca is 99999"),
        (["--write", "none"], "nothing to write"),
        (["--write", "none,mask"], "none cannot be combined"),
        (["--embedding_variant", "raw", "--embedding_multi_scale"], "variant, --embedding_multi_scale: no embeddings"),
        (["--weights", "no.ckpt"], "there is no file"),
        (["--device", "warp"], "warp"),
    ],
)
def test_bad_options_are_explained(weights, folder, more, message):
    with pytest.raises(InputError, match=message):
        predict(weights, folder, more=more)


def test_a_name_that_is_not_utf8_and_a_long_number_are_explained(weights, tmp_path):
    name = os.fsdecode(b"caf\xe9.png")
    Image.fromarray(picture(20, 30)).save(tmp_path / name)
    with pytest.raises(InputError, match=r"is not valid UTF-8.*\n?.*") as error:
        predict(weights, tmp_path, "20241124001340", more=["--output_dir", tmp_path.parent / "out"])
    assert "there is no file or folder 20241124001340" in str(error.value)


def test_a_folder_of_other_files_is_refused_for_results(weights, folder):
    with pytest.raises(InputError, match="is an input and also the output folder"):
        predict(weights, folder, more=["--output_dir", folder])
    with pytest.raises(InputError, match="contains files, but no earlier run .* --output_dir"):
        predict(weights, folder / "a.png", more=["--output_dir", folder, "--overwrite"])
    assert files(folder) == ["a.png", "b.png", "sub/c.jpg"]
    (folder.parent / "out").mkdir()
    (folder.parent / "out" / ".hidden").touch()
    predict(weights, folder)


def test_overwrite_deletes_nothing_of_another_programs_run(weights, folder, tmp_path):
    out = tmp_path / "theirs"
    (out / "masks").mkdir(parents=True)
    (out / "masks" / "1.txt").write_text("precious")
    (out / "run.json").write_text('{"experiment": 7}')
    with pytest.raises(InputError, match="was not written by this script"):
        predict(weights, folder, more=["--output_dir", out, "--overwrite"])
    assert (out / "masks" / "1.txt").read_text() == "precious"
