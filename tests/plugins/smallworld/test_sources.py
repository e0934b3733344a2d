"""What is bundled goes by name."""

from __future__ import annotations

import pytest

from mezzotint import UserError
from mezzotint_smallworld import resolve_source


def test_the_text_to_image_model_is_a_folder_that_is_there():
    assert (resolve_source("bundled:smallworld") / "unet" / "config.json").is_file()


@pytest.mark.parametrize("uri", ["acme:it", "bundled:graphs/x.json", "model.safetensors", "", "bundled:../x"])
def test_other_names_are_left_to_others(uri):
    assert resolve_source(uri) is None


def test_a_name_that_is_not_bundled_is_answered_with_the_nearest():
    with pytest.raises(UserError, match=r"'smallword'; the nearest is bundled:smallworld\. There are .*"):
        resolve_source("bundled:smallword")
