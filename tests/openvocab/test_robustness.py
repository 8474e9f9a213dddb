"""test_robustness.py: the changes of a label list, their honest scoring, and the report."""

from __future__ import annotations

import json
import random
from pathlib import Path

import numpy as np
import pytest
import torch

import test_robustness as script
from lseg_utils.errors import InputError
from miniature.names import LABELS, SYNONYMS, with_synonyms
from miniature.world import make_world
from modules.checkpoints import save_file, to_official
from openvocab.changes import Change, Vocabulary, changes_of, misspelt, plural
from openvocab.robustness import Prepared, compare, order_matters, summary
from scripts import run_light
from tiny import tiny_net


def changes(labels=LABELS, dataset: str = "miniature") -> dict[str, Change]:
    return {change.name: change for change in changes_of(labels, Vocabulary.read(None, dataset))}


def test_every_change_offers_texts_with_a_class_and_scores_each_label_or_leaves_it_out():
    found = changes()
    for change in found.values():
        assert len(change.labels) == len(change.class_of) and len(change.truth_of) == len(LABELS), change.name
        assert {*change.class_of} <= {*range(len(change.classes))}
        assert {cls for cls in change.truth_of if cls >= 0} <= {*change.class_of}, change.name
    assert Vocabulary.read(None, "miniature").synonyms == SYNONYMS
    assert found["synonyms"].labels == tuple(map(with_synonyms, LABELS))
    permuted = found["order permuted"]
    assert permuted.labels != LABELS and [LABELS[cls] for cls in permuted.class_of] == list(permuted.labels)
    more = found["1,000 distractors"]
    taken = {word for label in LABELS for word in (*label.split(), *with_synonyms(label).split())}
    assert more.labels[:40] == LABELS and len({*more.labels}) == 1040 and not taken & {*more.labels[40:]} - {*LABELS}
    assert found["100 distractors"].labels == more.labels[:140]
    fewer = found["every fourth label removed"]
    assert fewer.truth_of.count(-1) == 10 and LABELS[3] not in fewer.labels
    by_colour = found["colours instead of labels"]
    assert by_colour.classes[by_colour.truth_of[LABELS.index("red ring")]] == "red" and "grass" in by_colour.classes
    assert found["labels, scored by colours"].class_of == by_colour.truth_of


def test_a_dataset_without_a_vocabulary_has_the_changes_that_need_none(tmp_path):
    assert "synonyms" not in changes(["cat", "dog"], "nothing") and "plural" in changes(["cat", "dog"], "nothing")
    (tmp_path / "bad.json").write_text("[1]")
    with pytest.raises(InputError, match=r"bad\.json"):
        Vocabulary.read(tmp_path / "bad.json", "x")


def test_words():
    assert [plural(word) for word in ("bus", "city", "toy", "red box")] == ["buses", "cities", "toys", "red boxes"]
    for word in ("circle", "red star", "tv", "aaa"):
        assert misspelt(word, random.Random(0)) != word and len(misspelt(word, random.Random(0))) - len(word) in (0, 1)


def test_scoring_is_honest():
    """Two labels: the picture's left half is 0, its right half 1; predictions as written."""
    truth, canonical = np.array([[0, 0, 1, 1, -1]]), np.array([[0, 1, 1, 1, 0]])
    names = ("cat", "dog")
    several = Change("two names", ("cat", "kitten", "dog"), (0, 0, 1), (0, 1), names)
    more = Change("a distractor", ("cat", "dog", "sky"), (0, 1, 2), (0, 1), (*names, "sky"))
    fewer = Change("fewer", ("cat",), (0,), (0, -1), ("cat",))
    prepared = [Prepared(Change("canonical", names, (0, 1), (0, 1), names), torch.zeros(0), 0)]
    prepared += [Prepared(change, torch.zeros(0), i) for i, change in enumerate((several, more, fewer), 1)]
    predictions = [canonical, np.array([[1, 2, 2, 2, 0]]), np.array([[2, 1, 1, 1, 0]]), np.array([[0, 0, 0, 0, 0]])]
    rows = summary([one.change for one in prepared], [compare(prepared, predictions, truth)])
    usual = 100 * (1 / 2 + 2 / 3) / 2
    assert [row["miou"] for row in rows] == pytest.approx([usual, usual, 100 * (0 + 2 / 3) / 2, 100])
    assert [row["changed_pixels"] for row in rows] == pytest.approx([0, 0, 20, 0])
    # Without 'dog', only the two pixels of cats count, one of which the canonical list calls a dog.
    assert [row["canonical_miou"] for row in rows] == pytest.approx([usual, usual, usual, 50])
    assert "passed" in order_matters([{"change": "order permuted", "changed_pixels": 0}])
    assert "FAILED" in order_matters([{"change": "order permuted", "changed_pixels": 0.5}])


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    save_file({"state_dict": to_official(tiny_net("tiny_vit", None).state_dict())}, tmp_path / "tiny.ckpt")
    return tmp_path / "tiny.ckpt"


def test_one_command_gives_table_json_and_page_and_resumes(tmp_path, weights, capsys, one_thread):
    root, folder = tmp_path / "datasets", tmp_path / "out"
    make_world(root, seed=0, training=1, validation=2)
    options = ["--dataset", "miniature", "--data_path", root, "--weights", weights, "--device", "cpu", "--workers", 0]
    options += ["--output_dir", folder]
    script.main([str(option) for option in options])
    found = json.loads((folder / "results.json").read_text())
    rows = {row["change"]: row for row in found["rows"]}
    assert "passed" in found["order_check"] and rows["order permuted"]["changed_pixels"] == 0
    assert rows["synonyms"]["renamed"] == 40 and rows["canonical"]["miou"] == rows["canonical"]["canonical_miou"]
    assert rows["1,000 distractors"]["labels"] == 1040
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert "data:image/jpeg" in page and "Check passed" in page and "distractors" in (folder / "table.txt").read_text()
    capsys.readouterr()
    script.main([str(option) for option in options])
    assert "2 of 2 pictures were counted" in capsys.readouterr().out
    assert json.loads((folder / "results.json").read_text())["rows"] == found["rows"]


def test_bad_input_is_refused_at_once(tmp_path):
    bad = ("--dataset", "ade20k", "--data_path", tmp_path, "--images", 0, "--weights", "no.ckpt")
    message = run_light("test_robustness.py", *bad, cwd=tmp_path, code=2)
    assert all(fact in message for fact in ("--images is 0", "no.ckpt", "images"))
    assert "--vocabulary" in run_light("test_robustness.py", "--help", cwd=tmp_path)
