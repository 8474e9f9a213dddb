"""From what a caller calls labels to names and a matrix: templates, 'other', repetitions, labels that are too long.

Legend: N labels, T templates, C embedding dimensions.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from lseg_utils.errors import InputError

from ..models.text_encoder import AS_IT_IS, TextEncoder, check_labels
from .clip_templates import IMAGENET_TEMPLATES

LabelInput = Sequence[str] | Tensor | np.ndarray
OTHER = "other"


def named_matrix(
    encoder: TextEncoder,
    labels: LabelInput,
    names: Sequence[str] | None = None,
    templates: str | Sequence[str] | None = None,
    other: bool | str = False,
) -> tuple[list[str], Tensor]:
    """The names of the labels and their (N, C) unit vectors, on the encoder's device.

    Args:
        labels: texts, or a matrix (N, C) of one's own (rows need not be unit vectors); then ``names``, if given, are
            what the rows are called ("label 0" ... otherwise).
        templates: see ``encode_with_templates``.
        other: nothing is ever added silently; True appends the label 'other', a text appends that text.

    Raises:
        InputError: no labels, blank or too long ones, a matrix of another shape or with values that are not finite.
    """
    if isinstance(labels, Tensor | np.ndarray):
        if templates is not None or other:
            raise InputError("templates and other are for labels in words; encode those with encode_text first")
        matrix = _checked_matrix(encoder, torch.as_tensor(labels))
        return _checked_names(names, len(matrix)), matrix
    if names is not None:
        raise InputError("names are for a matrix of label embeddings; labels in words name themselves")
    labels = _checked_labels(labels)
    if other:
        extra = other if isinstance(other, str) else OTHER
        labels = labels if extra in labels else [*labels, extra]
    return labels, encode_with_templates(encoder, labels, templates)


def encode_with_templates(
    encoder: TextEncoder, labels: Sequence[str], templates: str | Sequence[str] | None = None, truncate: bool = False
) -> Tensor:
    """N texts -> (N, C) float32 unit vectors.

    Args:
        templates: None: the labels as they are, as LSeg was trained. "imagenet": CLIP's 80 templates. A list of texts
            with one {} each. A label's vector is then the mean of its sentences' unit vectors, made a unit vector.
        truncate: shorten texts that are longer than the tower's context (77 tokens), with a warning, instead of
            refusing them.

    Raises:
        InputError: no labels, one that is blank, or too long; a template without {}.
    """
    labels = _checked_labels(labels)
    twice = [label for label, count in Counter(labels).items() if count > 1]
    if twice:
        warnings.warn(f"labels given more than once can never all win: {', '.join(twice)}", stacklevel=3)
    forms = _checked_templates(templates)
    row_of = {label: row for row, label in enumerate(dict.fromkeys(labels))}
    texts = [_fitting(encoder, label, forms) if truncate else label for label in row_of]
    try:
        rows = encoder(texts, forms)
    except ValueError as error:
        raise InputError(f"{error} (or cut it: encode_text(..., truncate=True))") from None
    return rows[[row_of[label] for label in labels]]


def _fitting(encoder: TextEncoder, label: str, forms: Sequence[str]) -> str:
    """The longest beginning of a label that the tower takes in every template."""

    def fits(length: int) -> bool:
        return all(encoder.fits(form.replace("{}", label[:length])) for form in forms)

    if fits(len(label)):
        return label
    low, high = 0, len(label)  # of which the first fits and the second does not
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    warnings.warn(
        f"the label {label[:40]!r}... is longer than CLIP's {encoder.context_length} tokens and was cut to {low} "
        "letters",
        stacklevel=4,
    )
    return label[:low]


def _checked_labels(labels: Sequence[str]) -> list[str]:
    try:
        return check_labels(labels)
    except (TypeError, ValueError) as error:
        raise InputError(str(error)) from None


def _checked_templates(templates: str | Sequence[str] | None) -> Sequence[str]:
    if templates is None:
        return AS_IT_IS
    if templates == "imagenet":
        return IMAGENET_TEMPLATES
    if isinstance(templates, str) or not templates:
        raise InputError(f'templates are {templates!r}; give None, "imagenet" or a list such as ["a photo of a {{}}."]')
    without = [form for form in templates if not isinstance(form, str) or form.count("{}") != 1]
    if without:
        raise InputError(f"a template has one {{}} where the label goes; {without[0]!r} has not")
    return list(templates)


def _checked_matrix(encoder: TextEncoder, matrix: Tensor) -> Tensor:
    if matrix.ndim != 2 or not len(matrix) or matrix.shape[1] != encoder.embed_dim:
        raise InputError(
            f"the matrix of label embeddings has the shape {tuple(matrix.shape)}; this network compares (N, "
            f"{encoder.embed_dim})"
        )
    matrix = matrix.to(encoder.text_projection.device, torch.float32)
    wrong = (~matrix.isfinite().all(dim=1) | (matrix.norm(dim=1) == 0)).nonzero().flatten().tolist()
    if wrong:
        raise InputError(f"rows {wrong[:10]} of the matrix of label embeddings are zero, infinite or NaN")
    return F.normalize(matrix, dim=-1)


def _checked_names(names: Sequence[str] | None, count: int) -> list[str]:
    if names is None:
        return [f"label {i}" for i in range(count)]
    names = _checked_labels(names)
    if len(names) != count:
        raise InputError(f"{len(names)} names for {count} rows of label embeddings; give one each")
    return names
