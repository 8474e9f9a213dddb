"""From the labels of a caller to names and a matrix: templates, 'other', duplicates, labels that are too long.

Legend: N labels, C embedding dimensions.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from lseg_utils.errors import InputError

from ..models.class_encoder import ClassEncoder
from ..models.doubts import warn_caller
from ..models.text_encoder import AS_IT_IS, LabelEncoder, check_labels
from .clip_templates import IMAGENET_TEMPLATES

LabelInput = Sequence[str] | Tensor | np.ndarray
OTHER = "other"


def named_matrix(
    encoder: LabelEncoder | ClassEncoder,
    labels: LabelInput,
    names: Sequence[str] | None = None,
    templates: str | Sequence[str] | None = None,
    other: bool | str = False,
) -> tuple[list[str], Tensor]:
    """The names of the labels and their (N, C) unit vectors, on the encoder's device.

    Args:
        labels: texts, or a matrix (N, C) of your own, whose rows need not be unit vectors.
        names: of the rows of a matrix; default: "label 0", "label 1" ...
        templates: see ``encode_with_templates``.
        other: True appends the label 'other', a text appends that text; a label that is there already is not added.

    Raises:
        InputError: no labels, blank or too long ones, a matrix of another shape or with rows that are zero or not
            finite.
    """
    # 1. Labels in words.
    if not isinstance(labels, Tensor | np.ndarray):
        if names is not None:
            raise InputError("names are for a matrix of label embeddings; labels given as texts are their own names")
        extra = other if isinstance(other, str) else OTHER
        if other and not isinstance(labels, str) and extra not in labels:
            labels = [*labels, extra]
        matrix = encode_with_templates(encoder, labels, templates)
        return list(labels), matrix
    # 2. A matrix.
    if templates is not None or other:
        raise InputError("templates and other are for labels in words; encode those with encode_text first")
    matrix = torch.as_tensor(labels)
    if matrix.ndim != 2 or not len(matrix) or matrix.shape[1] != encoder.embed_dim:
        raise InputError(
            f"the matrix of label embeddings has the shape {tuple(matrix.shape)}; this network needs "
            f"(N, {encoder.embed_dim})"
        )
    matrix = matrix.to(encoder.device, torch.float32)
    wrong = (~matrix.isfinite().all(dim=1) | (matrix.norm(dim=1) == 0)).nonzero().flatten().tolist()
    if wrong:
        raise InputError(f"rows {wrong[:10]} of the matrix of label embeddings are zero, infinite or NaN")
    names = [f"label {row}" for row in range(len(matrix))] if names is None else list(names)
    if len(names) != len(matrix) or not all(isinstance(name, str) and name.strip() for name in names):
        raise InputError(
            f"{len(names)} names for {len(matrix)} rows of label embeddings; give each row a name that is not blank"
        )
    return names, F.normalize(matrix, dim=-1)


def encode_with_templates(
    encoder: LabelEncoder | ClassEncoder,
    labels: Sequence[str],
    templates: str | Sequence[str] | None = None,
    truncate: bool = False,
) -> Tensor:
    """N texts -> (N, C) float32 unit vectors, the caller's own copy. A warning names duplicate labels.

    Args:
        templates: None: the labels as they are, as LSeg was trained. "imagenet": CLIP's 80 templates. A list of texts
            with one {} each. A label's vector is then the mean of its sentences' unit vectors, made a unit vector.
        truncate: shorten texts that are longer than the tower's context (77 tokens), with a warning, instead of
            refusing them.

    Raises:
        InputError: no labels, one that is blank, or too long; a template without {}.
    """
    forms: Sequence[str] = AS_IT_IS if templates is None else templates
    if templates == "imagenet":
        forms = IMAGENET_TEMPLATES
    elif isinstance(forms, str) or not forms:
        raise InputError(f'templates are {templates!r}; give None, "imagenet" or a list such as ["a photo of a {{}}."]')
    for form in forms:
        if not isinstance(form, str) or form.count("{}") != 1:
            raise InputError(f"every template needs exactly one {{}} for the label; {form!r} does not have it")
    try:
        if truncate and isinstance(encoder, LabelEncoder):
            labels = [_fitting(encoder, label, forms) for label in check_labels(labels)]
        return encoder(labels, forms).clone()
    except (TypeError, ValueError) as error:
        advice = "; encode_text(..., truncate=True) shortens it" if "longer than" in str(error) else ""
        raise InputError(f"{error}{advice}") from None


def _fitting(encoder: LabelEncoder, label: str, forms: Sequence[str]) -> str:
    """The longest beginning of a label that the tower takes in every template."""

    def fits(length: int) -> bool:
        return all(encoder.fits(form.replace("{}", label[:length])) for form in forms)

    if fits(len(label)):
        return label
    low, high = 0, len(label)  # of which the first fits and the second does not
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    warn_caller(
        f"the label {label[:40]!r}... is longer than CLIP's {encoder.context_length} tokens and was shortened to {low} "
        "characters"
    )
    return label[:low]
